//! Board trees that Linux boots with, made by dice from QEMU's: each is read, and what is reserved is never handed out.

use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use harness::model::Dice;
use platform::board::{Board, Gic};
use platform::range::Range;
use platform::tree::tidy;

const VIRT: [&[u8]; 2] = [
    include_bytes!("../../platform/fixtures/virt-gicv2.dtb"),
    include_bytes!("../../platform/fixtures/virt-gicv3.dtb"),
];
const M: u64 = 1 << 20;

fn set(node: &mut DeviceTreeNode, name: &str, value: impl dtoolkit::ToPropertyValue) {
    node.remove_property(name);
    node.add_property(DeviceTreeProperty::new(name, value).unwrap());
}

fn node(name: &str, properties: &[(&str, &[u8])]) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new(name).unwrap();
    properties.iter().for_each(|&(name, value)| set(&mut node, name, value));
    node
}

fn cells(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// What a tree was made to say.
struct Made {
    blob: Vec<u8>,
    memory: Vec<Range>,
    reserved: Vec<Range>,
    /// The UART that is to be chosen.
    uart: Option<u64>,
    n_cpus: usize,
}

/// Memory in up to 24 stretches, with holes, in one node or several, in no order.
fn memory(root: &mut DeviceTreeNode, dice: &mut Dice) -> Vec<Range> {
    root.remove_child("memory@40000000");
    let mut at = 0x4000_0000;
    let mut all = Vec::new();
    for _ in 0..1 + dice.below(24) {
        let bytes = dice.pick(&[448 * M, 2 * M, 0x1000, 1024 * M, 3 * 1024 * M, 8 * 1024 * M]);
        all.push(Range { start: at, end: at + bytes });
        at += bytes + dice.pick(&[0, 0x1000, 2 * M, 1024 * M]);
    }
    let mut left = all.clone();
    while !left.is_empty() {
        let mut reg = Vec::new();
        let start = left[0].start;
        for _ in 0..1 + dice.below(left.len() as u64) {
            let range = left.swap_remove(dice.below(left.len() as u64) as usize);
            reg.extend([range.start, range.size()]);
        }
        // An empty stretch is none, as some boot loaders leave them.
        reg.extend([0, 0]);
        let name = format!("memory@{start:x}");
        let name = unique(root, name);
        root.add_child(node(&name, &[("device_type", b"memory\0"), ("reg", &cells(&reg))]));
    }
    all
}

fn unique(root: &mut DeviceTreeNode, mut name: String) -> String {
    while root.child_mut(&name).is_some() {
        name.push('0');
    }
    name
}

/// Reservations of every kind, up to 60.
fn reserved(root: &mut DeviceTreeNode, dice: &mut Dice, memory: &[Range]) -> Vec<Range> {
    let mut all = Vec::new();
    let mut parent = node("reserved-memory", &[("#address-cells", &[0, 0, 0, 2]), ("#size-cells", &[0, 0, 0, 2])]);
    if !dice.one_in(4) {
        set(&mut parent, "ranges", b"".as_slice());
    }
    for n in 0..dice.below(60) {
        let place = dice.pick(memory);
        let start = place.start + dice.below(place.size() / 0x1000) * 0x1000 + dice.pick(&[0, 0, 0x10]);
        let range = Range { start, end: start + dice.pick(&[0x1000, 0x20, 2 * M]) };
        let mut child = node(&format!("r{n}@{start:x}"), &[]);
        match dice.below(6) {
            0 => set(&mut child, "size", &cells(&[4 * M])[..]),
            1 => {
                set(&mut child, "reg", &cells(&[range.start, range.size()])[..]);
                set(&mut child, "status", "disabled");
            }
            kind => {
                set(&mut child, "reg", &cells(&[range.start, range.size()])[..]);
                let flags = ["", "", "no-map", "reusable", "shared-dma-pool", "linux,cma-default"];
                if kind > 1 && !flags[kind as usize].is_empty() {
                    set(&mut child, flags[kind as usize], b"".as_slice());
                }
                all.push(range);
            }
        }
        parent.add_child(child);
    }
    root.add_child(parent);
    all
}

/// A choice of the console in every form.
fn console(root: &mut DeviceTreeNode, dice: &mut Dice) -> Option<u64> {
    let mut other = node(
        "serial@9040000",
        &[("compatible", b"arm,pl011\0arm,primecell\0"), ("interrupts", &[0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 4])],
    );
    set(&mut other, "reg", &cells(&[0x904_0000, 0x1000])[..]);
    let foreign =
        node("serial@9100000", &[("compatible", b"ns16550a\0"), ("interrupts", &[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 4])]);
    let first = 0x900_0000;
    let (path, uart) = dice.pick(&[
        (None, first),
        (Some("/pl011@9000000"), first),
        (Some("/pl011@9000000:115200n8"), first),
        (Some("serial0"), first),
        (Some("serial0:115200n8"), first),
        (Some("serial1"), 0x904_0000),
        (Some("/serial@9040000:9600"), 0x904_0000),
        (Some("/serial@9100000"), first),
        (Some("serial2"), first),
        (Some("serial7"), first),
        (Some("/no/such/node"), first),
        (Some(""), first),
    ]);
    let wired = dice.one_in(4);
    let disabled = dice.one_in(4);
    let aliases = node(
        "aliases",
        &[("serial0", b"/pl011@9000000\0"), ("serial1", b"/serial@9040000\0"), ("serial2", b"/serial@9100000\0")],
    );
    if wired {
        other.add_child(node("bluetooth", &[("compatible", b"vendor,bt\0")]));
    }
    root.remove_child("aliases");
    root.add_child(aliases);
    root.add_child(foreign);
    root.add_child(other);
    if disabled {
        set(root.child_mut("pl011@9000000").unwrap(), "status", "disabled");
    }
    root.remove_child("chosen");
    if !(path.is_none() && dice.one_in(2)) {
        let mut chosen = node("chosen", &[]);
        if let Some(path) = path {
            set(&mut chosen, dice.pick(&["stdout-path", "linux,stdout-path"]), path);
        }
        if dice.one_in(2) {
            set(&mut chosen, "bootargs", "x".repeat(dice.pick(&[0, 20, 512, 2048, 65536])));
        }
        root.add_child(chosen);
    }
    let named_second = uart != first;
    match (disabled, wired) {
        (false, true) => Some(first),
        (false, false) => Some(uart),
        (true, false) => Some(0x904_0000),
        (true, true) => named_second.then_some(0x904_0000),
    }
}

/// CPUs, up to 24, some of which nobody can use.
fn cpus(root: &mut DeviceTreeNode, dice: &mut Dice) -> usize {
    let cpus = root.child_mut("cpus").unwrap();
    let mut n_good = 4;
    for n in 4..4 + dice.below(20) {
        let mut cpu = node(&format!("cpu@{n:x}"), &[("device_type", b"cpu\0"), ("enable-method", b"psci\0")]);
        match dice.below(5) {
            0 => set(&mut cpu, "reg", 0x4000_0000_u32),
            1 => set(&mut cpu, "reg", 0_u32),
            2 => {
                set(&mut cpu, "reg", n as u32);
                set(&mut cpu, "enable-method", "spin-table");
                n_good += 1;
            }
            _ => {
                set(&mut cpu, "reg", n as u32);
                n_good += 1;
            }
        }
        cpus.add_child(cpu);
    }
    n_good.min(16)
}

fn make(dice: &mut Dice) -> Made {
    let mut tree = DeviceTree::from_fdt(&Fdt::new(dice.pick(&VIRT)).unwrap());
    let memory = memory(&mut tree.root, dice);
    let mut all = reserved(&mut tree.root, dice, &memory);
    for _ in 0..dice.below(8) {
        let place = dice.pick(&memory);
        let range = Range { start: place.start, end: place.start + 0x800 };
        tree.memory_reservations.push(dtoolkit::memreserve::MemoryReservation::new(range.start, range.size()));
        all.push(range);
    }
    let uart = console(&mut tree.root, dice);
    let n_cpus = cpus(&mut tree.root, dice);
    if dice.one_in(2) {
        let its = node("its@8080000", &[("compatible", b"arm,gic-v3-its\0"), ("msi-controller", b"")]);
        let gic = tree.root.child_mut("intc@8000000").unwrap();
        gic.remove_child("its@8080000");
        gic.add_child(its);
    }
    Made { blob: tree.to_dtb(), memory, reserved: all, uart, n_cpus }
}

#[test]
fn every_tree_that_linux_boots_with_is_read_and_reservations_hold() {
    let mut dice = Dice::new(1);
    let mut most = 0;
    for n in 0..600 {
        let Made { mut blob, memory, reserved, uart, n_cpus } = make(&mut dice);
        tidy(&mut blob).unwrap();
        let board = Board::from_tree(&blob).unwrap_or_else(|why| panic!("tree {n}: {why}"));
        assert!(!board.memory.is_empty());
        for range in &board.memory {
            let known = |at: u64| memory.iter().any(|one| one.start <= at && at < one.end);
            assert!(known(range.start) && known(range.end - 1), "tree {n}: {range} is no memory");
        }
        let covered = |range: &Range| board.reserved.iter().any(|one| one.holds(range));
        assert!(reserved.iter().all(covered), "tree {n}: a reservation is lost");
        assert!(board.reserved.windows(2).all(|two| two[0].end < two[1].start));
        assert_eq!(board.uart.map(|uart| uart.base), uart, "tree {n}");
        assert_eq!(board.cpus.len(), n_cpus, "tree {n}");
        assert!(matches!(board.gic, Gic::V2 { .. } | Gic::V3 { .. }));
        most = most.max(reserved.len());
    }
    println!("600 trees, up to {most} reservations");
}

#[test]
fn a_boot_stub_that_stays_to_answer_psci_is_kept_whatever_its_length() {
    let pi = include_bytes!("../../platform/fixtures/bcm2711.dtb");
    let mut tree = DeviceTree::from_fdt(&Fdt::new(pi).unwrap());
    let reserved = |tree: &DeviceTree| {
        let mut blob = tree.to_dtb();
        tidy(&mut blob).unwrap();
        Board::from_tree(&blob).unwrap().reserved[0]
    };
    assert_eq!(reserved(&tree), Range { start: 0, end: 0x1000 }, "what the firmware's own says");
    tree.root.add_child(node("psci", &[("compatible", b"arm,psci-1.0\0"), ("method", b"smc\0")]));
    assert_eq!(reserved(&tree), Range { start: 0, end: 0x8_0000 });
}
