//! Board trees that boot loaders hand over: what Linux boots with boots, and anything else is told on the serial line.

use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use harness::qemu::{Board, Run, Vm, manifest, write};

const GICV2: &[u8] = include_bytes!("../../platform/fixtures/virt-gicv2.dtb");
const GICV3: &[u8] = include_bytes!("../../platform/fixtures/virt-gicv3.dtb");

/// Writes QEMU's tree for GICv2 or v3, changed, and returns its path. QEMU itself fills in memory and the bundle's place.
fn tree(name: &str, from: &[u8], change: impl FnOnce(&mut DeviceTreeNode)) -> String {
    let mut tree = DeviceTree::from_fdt(&Fdt::new(from).expect("QEMU's own"));
    change(&mut tree.root);
    write(name, &tree.to_dtb())
}

fn set(node: &mut DeviceTreeNode, name: &str, value: impl dtoolkit::ToPropertyValue) {
    node.remove_property(name);
    node.add_property(DeviceTreeProperty::new(name, value).expect("a name"));
}

fn child<'a>(node: &'a mut DeviceTreeNode, name: &str) -> &'a mut DeviceTreeNode {
    if node.child_mut(name).is_none() {
        node.add_child(DeviceTreeNode::new(name).expect("a name"));
    }
    node.child_mut(name).expect("it was added")
}

fn hello() -> String {
    manifest(&[Vm::bare("hello", 1, "")])
}

#[test]
fn a_bundle_in_reserved_memory_is_read_and_holes_are_left_alone() {
    for (board, from) in [(Board::Virt, GICV3), (Board::VirtA72, GICV2)] {
        let dtb = tree("reserved.dtb", from, |root| {
            let parent = child(root, "reserved-memory");
            set(parent, "#address-cells", 2_u32);
            set(parent, "#size-cells", 2_u32);
            set(parent, "ranges", b"".as_slice());
            let mut reserve = |start: u32, bytes: u32, kind: &str| {
                let one = child(parent, &format!("r@{start:x}"));
                set(one, "reg", [0, start, 0, bytes]);
                set(one, kind, b"".as_slice());
            };
            // Where QEMU puts an initrd on a board of 1 GiB.
            reserve(0x4800_0000, 16 << 20, "no-map");
            // More than are told apart, over more tables than there are.
            for n in 0..40 {
                reserve(0x5000_1000 + n * 0x80_0000, 0x1000, if n % 2 == 0 { "no-map" } else { "reusable" });
            }
            set(child(parent, "wish"), "size", [0_u32, 4 << 20]);
            set(child(root, "chosen"), "bootargs", "x".repeat(65536));
        });
        let ended = Run::start(board, &hello(), &["--", "-dtb", &dtb], 60).end();
        ended.exits_with(0).has("guest hello: PASS");
    }
}

#[test]
fn boards_of_any_size_boot() {
    for size in ["448M", "1G", "3G", "8G"] {
        Run::start(Board::Virt, &hello(), &["--mem", size], 60).end().exits_with(0).has("guest hello: PASS");
    }
}

#[test]
fn a_board_that_cannot_be_made_out_says_so_on_its_line() {
    // A tree that can be read lacks something: it is said on the UART the tree names.
    let dtb = tree("no-gic.dtb", GICV3, |root| set(child(root, "intc@8000000"), "compatible", "some,other"));
    let mut run = Run::start(Board::Virt, &hello(), &["--", "-dtb", &dtb], 60);
    run.wait_for("flatland: cannot start: /: no interrupt controller that Flatland knows", 50);
    // One that cannot: on a UART that says that it is one.
    let deep = tree("deep.dtb", GICV3, |root| {
        (0..20).fold(root, |node, n| child(node, &format!("n{n}")));
    });
    let mut run = Run::start(Board::Virt, &hello(), &["--", "-dtb", &deep], 60);
    run.wait_for("nodes nest too deep", 50);
    let large = tree("large.dtb", GICV3, |root| set(child(root, "chosen"), "large", "x".repeat(2 << 20)));
    let mut run = Run::start(Board::VirtA72, &hello(), &["--", "-dtb", &large], 60);
    run.wait_for("larger than 2 MiB", 50);
}

#[test]
fn the_line_is_one_that_works() {
    for (path, status) in [("/pl011@9000000:115200n8", "okay"), ("serial7", "okay"), ("", "okay"), ("/none", "ok")] {
        let dtb = tree("console.dtb", GICV3, |root| {
            set(child(root, "chosen"), "stdout-path", path);
            set(child(root, "pl011@9000000"), "status", status);
        });
        Run::start(Board::Virt, &hello(), &["--", "-dtb", &dtb], 60).end().exits_with(0).has("guest hello: PASS");
    }
}
