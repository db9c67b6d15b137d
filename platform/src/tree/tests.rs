//! Trees that are whole, trees that are not, and addresses through `ranges`.

extern crate std;

use super::{Node, Tree, blob_size, tidy};
use crate::{Board, Range};
use std::string::{String, ToString};
use std::vec::Vec;

const BCM2711: &[u8] = include_bytes!("../../fixtures/bcm2711.dtb");
const ODD: &[u8] = include_bytes!("../../fixtures/odd.dtb");
const VIRT_GICV2: &[u8] = include_bytes!("../../fixtures/virt-gicv2.dtb");
const VIRT_GICV3: &[u8] = include_bytes!("../../fixtures/virt-gicv3.dtb");

fn window(tree: &Tree<'_>, path: &str, index: usize) -> Option<Range> {
    tree.node(path).unwrap_or_else(|| panic!("no {path}")).window(index)
}

const fn range(start: u64, end: u64) -> Option<Range> {
    Some(Range { start, end })
}

/// Blanks out the node at `path` as libfdt's fdt_nop_node does.
fn blank(blob: &mut [u8], name: &str) {
    let mut begin = [&[0, 0, 0, 1], name.as_bytes()].concat();
    begin.push(0);
    let start = blob.windows(begin.len()).position(|bytes| bytes == begin).expect("the node is there");
    let (mut at, mut depth) = (start, 0);
    loop {
        let word = |at: usize| u32::from_be_bytes(blob[at..at + 4].try_into().unwrap());
        at += match word(at) {
            1 => {
                depth += 1;
                4 + (blob[at + 4..].iter().position(|&byte| byte == 0).unwrap() + 1).next_multiple_of(4)
            }
            2 => {
                depth -= 1;
                4
            }
            3 => 12 + (word(at + 4) as usize).next_multiple_of(4),
            _ => 4,
        };
        if depth == 0 {
            break;
        }
    }
    for word in blob[start..at].chunks_exact_mut(4) {
        word.copy_from_slice(&4u32.to_be_bytes());
    }
}

#[test]
fn addresses_behind_the_soc_bus_become_what_the_cpu_uses() {
    let tree = Tree::new(BCM2711).unwrap();
    assert_eq!(window(&tree, "/soc/serial@7e201000", 0), range(0xfe20_1000, 0xfe20_1200));
    assert_eq!(window(&tree, "/soc/interrupt-controller@40041000", 1), range(0xff84_2000, 0xff84_4000));
    assert_eq!(window(&tree, "/scb/ethernet@7d580000", 0), range(0xfd58_0000, 0xfd59_0000));
    assert_eq!(window(&tree, "/memory", 1), range(0x4000_0000, 0x8000_0000));
    assert_eq!(window(&tree, "/soc/watchdog", 2), range(0xfec1_1000, 0xfec1_1020));
    assert_eq!(window(&tree, "/soc/watchdog", 3), None);
}

#[test]
fn a_bus_on_a_bus_is_translated_twice_and_a_window_must_fit_whole() {
    let tree = Tree::new(ODD).unwrap();
    assert_eq!(window(&tree, "/bus/inner/serial@500001000", 0), range(0x1020_1000, 0x1020_2000));
    assert_eq!(window(&tree, "/bus/inner/serial@5000ff000", 0), None);
}

#[test]
fn without_ranges_nothing_below_a_bus_can_be_reached_and_empty_ranges_change_nothing() {
    let tree = Tree::new(ODD).unwrap();
    assert_eq!(window(&tree, "/bus/apart/serial", 0), None);
    assert_eq!(window(&tree, "/bus/closed/serial", 0), range(0x1000_0000, 0x1000_1000));
}

#[test]
fn a_disabled_bus_disables_what_is_below_it() {
    let tree = Tree::new(ODD).unwrap();
    assert!(!tree.node("/bus/closed/serial@0").unwrap().is_enabled());
    assert!(tree.node("/bus/apart/serial@0").unwrap().is_enabled());
    assert!(!Tree::new(BCM2711).unwrap().node("/soc/serial@7e201400").unwrap().is_enabled());
}

#[test]
fn a_console_is_found_by_path_or_alias_with_options_and_an_alias_of_itself_is_none() {
    let tree = Tree::new(BCM2711).unwrap();
    let path = |tree: &Tree<'_>, name: &str| tree.resolve(name).map(|node| node.to_string());
    assert_eq!(path(&tree, "serial1:115200n8").as_deref(), Some("/soc/serial@7e215040"));
    assert_eq!(path(&tree, "/soc/serial@7e201000:9600").as_deref(), Some("/soc/serial@7e201000"));
    assert_eq!(path(&tree, "serial7"), None);
    assert_eq!(path(&tree, ""), None);
    assert_eq!(path(&Tree::new(ODD).unwrap(), "myself"), None);
}

#[test]
fn reservations_are_listed_in_order() {
    let tree = Tree::new(ODD).unwrap();
    let all: Vec<_> = tree.reservations().collect();
    assert_eq!(all, [Range { start: 0x8000_0000, end: 0x8001_0000 }, Range { start: 0x8000_f000, end: 0x8001_1000 }]);
}

#[test]
fn a_tree_may_lie_in_more_memory_than_it_takes_but_not_in_less() {
    let mut room = BCM2711.to_vec();
    room.resize(BCM2711.len() + 100, 0xff);
    assert!(Tree::new(&room).is_ok());
    assert_eq!(blob_size(&room[..8]), Ok(BCM2711.len()));
    for length in 0..BCM2711.len() {
        assert!(Tree::new(&BCM2711[..length]).is_err(), "cut to {length} bytes");
    }
}

#[test]
fn blanked_nodes_are_refused_until_the_tree_is_tidied() {
    let mut blob = BCM2711.to_vec();
    let count = |blob: &[u8]| {
        let mut names = Vec::new();
        Tree::new(blob).unwrap().visit(&mut |node| {
            names.push(node.to_string());
            true
        });
        names
    };
    let before = count(&blob);
    for name in ["pci@0,0", "ethernet@7d580000", "cpu@1", "bluetooth", "aliases"] {
        blank(&mut blob, name);
    }
    assert!(Tree::new(&blob).unwrap_err().what.contains("FDT_NOP"));
    tidy(&mut blob).unwrap();
    let after = count(&blob);
    assert_eq!(after.len(), before.len() - 5);
    assert!(after.iter().all(|name| before.contains(name)));
    assert_eq!(Board::from_tree(&blob).unwrap().cpus.len(), 3);
    let tidied = blob.clone();
    tidy(&mut blob).unwrap();
    assert_eq!(blob, tidied, "a tidy tree stays as it is");
}

/// A tree with this structure block; its only property name is `#a`, at 0.
fn tree_of(structure: &[u32]) -> Vec<u8> {
    let (strings, start) = (b"#a\0\0", 56);
    let length = structure.len() as u32 * 4;
    let total = start + length + strings.len() as u32;
    let header = [0xd00d_feed, total, start, start + length, 40, 17, 16, 0, strings.len() as u32, length];
    let words = header.iter().chain(&[0; 4]).chain(structure);
    words.flat_map(|word| word.to_be_bytes()).chain(strings.iter().copied()).collect()
}

const BEGIN_ROOT: [u32; 2] = [1, 0];
const BEGIN_X: [u32; 2] = [1, 0x7800_0000];
const PROP_A: [u32; 4] = [3, 4, 0, 0x1234];

#[test]
fn nodes_nest_sixteen_deep_and_no_deeper() {
    let nested = |depth: usize| {
        let begin = BEGIN_ROOT.into_iter().chain(std::iter::repeat_n(BEGIN_X, depth - 1).flatten());
        tree_of(&begin.chain(std::iter::repeat_n(2, depth)).chain([9]).collect::<Vec<_>>())
    };
    let deepest = nested(super::check::DEPTH_LIMIT);
    let tree = Tree::new(&deepest).unwrap();
    let mut nodes = 0;
    tree.visit(&mut |node| {
        nodes += 1;
        assert_eq!(node.to_string().matches('x').count() + 1, nodes);
        true
    });
    assert_eq!(nodes, super::check::DEPTH_LIMIT);
    assert_eq!(Tree::new(&nested(super::check::DEPTH_LIMIT + 1)).unwrap_err().what, "nodes nest too deep");
    assert!(Tree::new(&nested(10_000)).is_err());
}

#[test]
fn every_rule_of_the_structure_block_is_kept() {
    let what = |parts: &[&[u32]]| Tree::new(&tree_of(&parts.concat())).err().map(|error| error.what);
    assert_eq!(what(&[&BEGIN_ROOT, &PROP_A, &BEGIN_X, &[2, 2, 9]]), None);
    let refused: [&[&[u32]]; 10] = [
        &[&[9]],
        &[&[2, 9]],
        &[&PROP_A, &[9]],
        &[&BEGIN_X, &[2, 9]],
        &[&BEGIN_ROOT, &[2], &BEGIN_ROOT, &[2, 9]],
        &[&BEGIN_ROOT, &BEGIN_ROOT, &[2, 2, 9]],
        &[&BEGIN_ROOT, &BEGIN_X, &[2], &PROP_A, &[2, 9]],
        &[&BEGIN_ROOT, &[3, 5, 0, 0x1234], &[2, 9]],
        &[&BEGIN_ROOT, &[3, u32::MAX, 0, 0x1234], &[2, 9]],
        &[&BEGIN_ROOT, &[3, 4, 4, 0x1234], &[2, 9]],
    ];
    for parts in refused {
        assert!(what(parts).is_some(), "{parts:x?}");
    }
}

#[test]
fn gaps_are_closed_wherever_they_are() {
    let whole = tree_of(&[&BEGIN_ROOT[..], &PROP_A, &PROP_A, &BEGIN_X, &PROP_A, &[2], &BEGIN_X, &[2, 2, 9]].concat());
    let gap = [4, 4];
    let parts = [&gap[..], &BEGIN_ROOT, &gap, &PROP_A, &gap, &PROP_A, &gap, &BEGIN_X, &gap, &PROP_A, &gap, &[2], &gap];
    let parts = [&parts.concat()[..], &BEGIN_X, &gap, &[2], &gap, &[2], &gap, &[9]];
    let mut gappy = tree_of(&parts.concat());
    tidy(&mut gappy).unwrap();
    let paths = |blob: &[u8]| {
        let mut seen = Vec::new();
        Tree::new(blob).unwrap().visit(&mut |node| {
            seen.push((node.to_string(), node.cell("#a")));
            true
        });
        seen
    };
    assert_eq!(paths(&gappy), paths(&whole));
    assert_eq!(paths(&whole).len(), 3);
}

/// xorshift64*, so that a failure can be had again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }
}

/// Reads everything there is, as someone would who trusts the tree.
fn read_all(tree: &Tree<'_>) -> usize {
    let mut seen = 0;
    let mut path = String::new();
    tree.visit(&mut |node: &Node<'_, '_>| {
        path = node.to_string();
        seen += node.children().count() + node.windows().take(64).flatten().count() + node.texts("compatible").count();
        seen += usize::from(node.is_enabled()) + node.cells("interrupts").count() + node.name().len();
        seen += usize::from(node.inherited("interrupt-parent").is_some()) + usize::from(node.parent().is_some());
        seen += usize::from(node.number("clock-frequency").is_some());
        true
    });
    seen += tree.reservations().count() + usize::from(tree.node(&path).is_some());
    let chosen = tree.node("/chosen").and_then(|chosen| chosen.text("stdout-path"));
    seen + usize::from(chosen.and_then(|name| tree.resolve(name)).is_some())
}

fn mutate(blob: &mut Vec<u8>, random: &mut Random) {
    const WORDS: [u32; 14] =
        [0, 1, 2, 3, 4, 5, 9, 0x7fff_ffff, 0x8000_0000, u32::MAX, u32::MAX - 3, 64, 0x1000_0000, 0xffff_f000];
    for _ in 0..=random.below(6) {
        let words = blob.len() / 4;
        match random.below(8) {
            0 => {
                let at = random.below(10);
                blob[at * 4 + 2] ^= random.below(256) as u8;
            }
            1 | 2 => {
                let at = random.below(blob.len());
                blob[at] = random.below(256) as u8;
            }
            3 => {
                let at = random.below(blob.len());
                blob[at] ^= 1 << random.below(8);
            }
            4 | 5 => {
                let at = random.below(words) * 4;
                blob[at..at + 4].copy_from_slice(&WORDS[random.below(WORDS.len())].to_be_bytes());
            }
            6 => {
                let (from, to, length) = (random.below(words) * 4, random.below(words) * 4, random.below(64) * 4);
                let length = length.min(blob.len() - from.max(to));
                blob.copy_within(from..from + length, to);
            }
            _ => {
                if random.below(16) == 0 {
                    let length = 44 + random.below(blob.len() - 44);
                    blob.truncate(length);
                }
            }
        }
    }
}

#[test]
fn no_damage_makes_reading_a_tree_panic() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut tried, mut trees, mut boards) = (0, 0, 0);
    for seed in [BCM2711, ODD, VIRT_GICV2, VIRT_GICV3] {
        for _ in 0..15_000 {
            let mut blob = seed.to_vec();
            mutate(&mut blob, &mut random);
            let tidied = tidy(&mut blob).is_ok();
            if let Ok(tree) = Tree::new(&blob) {
                read_all(&tree);
                trees += 1;
            } else {
                assert!(!tidied, "what was tidied is accepted");
            }
            match Board::from_tree(&blob) {
                Ok(board) => {
                    assert!(!board.to_string().is_empty());
                    boards += 1;
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
            tried += 1;
        }
    }
    std::println!("{tried} damaged trees: {trees} still read as trees, {boards} as boards");
    assert!(trees > tried / 20, "the damage must leave some trees for `fdt` to read");
}
