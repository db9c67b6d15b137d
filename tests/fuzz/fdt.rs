//! The guest's device tree: whatever VM it is for, it is valid, says so, and has room where it goes. Mutated, it is as
//! good a hostile manifest as any.

use crate::engine::{Rng, count, report, run};
use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};
use flatland::addr::Addr;
use flatland::bundle::place::{DTB_ROOM, Ram, Stretch};
use flatland::bundle::{Findings, Limits, manifest};
use flatland::devices::RAM_BASE;
use flatland::vm::device_tree::{Description, Gic};

fn describe<'a>(rng: &mut Rng, bootargs: &'a str, seed: &'a [u8]) -> Description<'a> {
    Description {
        modules: &[],
        name: "fuzz",
        ram: Ram { base: RAM_BASE, bytes: rng.edge() },
        vcpus: 1 + rng.below(16) as u16,
        gic: *rng.pick(&[Gic::V2, Gic::V3]),
        initrd: (rng.below(2) == 0).then(|| Stretch { start: Addr::new(rng.edge()), bytes: rng.edge() }),
        bootargs,
        virtio: rng.edge() as u32,
        nested: rng.below(2) == 0,
        flash: (rng.below(2) == 0).then(|| [rng.edge(), rng.edge()]),
        seed,
    }
}

#[test]
fn the_tree_of_any_vm_is_valid_and_complete() {
    let mut rng = Rng::new("fdt");
    let count = count(5000).min(50_000);
    for _ in 0..count {
        let letters: String = (0..rng.below(2048)).map(|_| *rng.pick(&['a', ' ', '=', '\\', '"', '\u{7f}'])).collect();
        let bytes = vec![rng.next() as u8; rng.below(80)];
        let description = describe(&mut rng, &letters, &bytes);
        let dtb = description.build();
        assert!(dtb.len() as u64 <= DTB_ROOM);
        let tree = Fdt::new(&dtb).expect("is valid");
        let cpus = tree.find_node("/cpus").expect("has CPUs");
        assert_eq!(cpus.children().count(), usize::from(description.vcpus));
        let chosen = tree.find_node("/chosen").expect("has /chosen");
        let bootargs = chosen.property("bootargs").and_then(|property| property.value_as::<&str>().ok());
        assert_eq!(bootargs.unwrap_or_default(), letters);
        let slots = tree.root().children().filter(|node| node.name().starts_with("virtio_mmio@")).count();
        assert_eq!(slots, description.virtio.count_ones() as usize);
    }
    report("fdt", count);
}

#[test]
fn a_tree_of_another_kind_is_no_manifest() {
    let mut rng = Rng::new("seeds");
    let seeds: Vec<Vec<u8>> = (0..4).map(|_| describe(&mut rng, "x", &[7; 40]).build()).collect();
    run("fdt as a manifest", 20_000, &seeds, |input, _| {
        let mut findings = Findings::default();
        assert!(manifest::read(input, &Limits::ANY_BOARD, &mut findings).is_empty());
        assert!(!findings.is_empty());
    });
}
