//! The manifest: whatever the tree says, the VMs that come out keep to the limits, or there are errors.

use crate::engine::{Rng, run};
use crate::seeds::{bundle, crowd, manifest};
use flatland::bundle::manifest::{MOST_VMS, images, read};
use flatland::bundle::{Bundle, Findings, Limits, MOST_DIAGNOSTICS};

const LIMITS: Limits = Limits { vcpus: 8, cpus: 4, memory: 255 << 30 };

fn seeds() -> Vec<Vec<u8>> {
    let valid = manifest();
    // Header fields: totalsize, the offsets of structure, strings and reservations, versions, sizes.
    let header = |field: usize, to: u32| {
        let mut bytes = valid.clone();
        bytes[4 * field..][..4].copy_from_slice(&to.to_be_bytes());
        bytes
    };
    let mut seeds = vec![valid.clone(), crowd(), Vec::new(), vec![0; 40], vec![0xff; 400]];
    for field in 1..10 {
        for to in [0, 1, 39, 56, valid.len() as u32 - 1, 0x7fff_ffff, u32::MAX - 3, u32::MAX] {
            seeds.push(header(field, to));
        }
    }
    // Nodes within nodes, ever deeper, as a bare structure block.
    let mut deep = valid[..56].to_vec();
    for _ in 0..2000 {
        deep.extend_from_slice(b"\0\0\0\x01a\0\0\0");
    }
    for _ in 0..2000 {
        deep.extend_from_slice(b"\0\0\0\x02");
    }
    deep.extend_from_slice(b"\0\0\0\x09");
    let len = deep.len() as u32;
    for (field, to) in [(1, len), (2, 56), (3, len), (8, 0), (9, len - 56)] {
        deep[4 * field..][..4].copy_from_slice(&to.to_be_bytes());
    }
    seeds.push(deep);
    seeds
}

#[test]
fn no_manifest_gets_past_the_limits() {
    run("manifest", 60_000, &seeds(), check);
}

/// One input: it keeps to the limits, or there are errors.
pub(crate) fn check(input: &[u8], rng: &mut Rng) {
    let mut input = input.to_vec();
    // A wrong length is found first of all; often it is put right, so that more than that is tried.
    let len = (input.len() as u32).to_be_bytes();
    if let Some(field) = input.get_mut(4..8).filter(|_| rng.below(4) != 0) {
        field.copy_from_slice(&len);
    }
    let input = input.as_slice();
    let mut findings = Findings::default();
    let entries = read(input, &LIMITS, &mut findings);
    assert!(entries.len() <= MOST_VMS && images(input).len() <= 4 * MOST_VMS);
    match findings.unless(()) {
        Ok(()) => {
            assert!(!entries.is_empty());
            for entry in entries {
                assert!((1..=15).contains(&entry.name.len()) && entry.name.is_ascii());
                assert!((1..=8).contains(&entry.vcpus) && entry.shares > 0 && entry.affinity != 0);
                let memory = entry.memory.expect("required");
                assert!((2 << 20..=255 << 30).contains(&memory) && memory % (2 << 20) == 0);
                assert!((entry.kernel.is_some() || entry.flash.is_some()) && entry.watchdog != Some(0));
                assert!(entry.flash.is_some() || entry.variables.is_none());
                assert!(!entry.bootargs.contains('\0') && entry.bootargs.len() < 2048);
            }
        }
        Err(list) => {
            assert!(list.len() <= MOST_DIAGNOSTICS + 1);
            for error in list {
                assert!(!error.place.is_empty() && !error.what.is_empty() && !error.remedy.is_empty());
                assert!(error.to_string().chars().all(|c| !c.is_control()), "{error}");
            }
        }
    }
}

#[test]
fn a_mutated_manifest_in_a_good_archive_names_images_or_errors() {
    run("manifest in a bundle", 10_000, &seeds(), |input, _| {
        let archive = bundle(input);
        if let Ok(bundle) = Bundle::open(&archive, &LIMITS) {
            assert!(!bundle.vms.is_empty());
            assert!(bundle.vms.iter().all(|vm| vm.initrd.is_none_or(|initrd| initrd == b"disk")));
        }
    });
}
