//! The archive: whatever its bytes are, members lie within it, and are few.

use crate::engine::{Rng, run};
use crate::seeds::{archive, bundle, manifest};
use flatland::bundle::{Bundle, Findings, Limits, MOST_DIAGNOSTICS, cpio};

fn seeds() -> Vec<Vec<u8>> {
    let names: Vec<String> = (0..70).map(|n| format!("{n}")).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
    let valid = archive(&[("a", b""), ("./bc", b"1234567"), ("d", &[0; 300])]);
    let with = |field: usize, digits: &[u8; 8]| {
        let mut bytes = valid.clone();
        bytes[6 + 8 * field..][..8].copy_from_slice(digits);
        bytes
    };
    vec![
        valid.clone(),
        archive(&many),
        bundle(&manifest()),
        // Sizes of file and name that wrap, end inside, or are no numbers.
        with(6, b"ffffffff"),
        with(6, b"fffffffc"),
        with(6, b"80000000"),
        with(6, b"-0000001"),
        with(6, b"+0000001"),
        with(11, b"ffffffff"),
        with(11, b"00000000"),
        with(11, b"00000001"),
        with(11, b"00000100"),
        with(11, b"00000101"),
        b"070701".to_vec(),
        b"070701".repeat(1000),
        [valid.as_slice(), valid.as_slice()].concat(),
        Vec::new(),
        vec![0; 4096],
    ]
}

#[test]
fn no_archive_is_read_beyond_its_end() {
    run("cpio", 60_000, &seeds(), check);
}

/// One archive.
pub(crate) fn check(input: &[u8], _: &mut Rng) {
    let mut findings = Findings::default();
    let members = cpio::read(input, &mut findings);
    assert!(members.len() <= cpio::MOST_MEMBERS);
    // Borrowed from the input, so their sum cannot be more than it, headers not counted.
    let bytes: usize = members.iter().map(|member| 110 + member.name.len() + member.data.len()).sum();
    assert!(bytes <= input.len());
    if let Err(list) = findings.unless(()) {
        assert!(list.len() <= MOST_DIAGNOSTICS + 1);
        assert!(list.iter().all(|error| error.place.starts_with("archive")));
    }
}

#[test]
fn no_bundle_brings_the_boot_down() {
    run("bundle", 20_000, &seeds(), check_bundle);
}

/// One bundle.
pub(crate) fn check_bundle(input: &[u8], _: &mut Rng) {
    if let Err(list) = Bundle::open(input, &Limits::ANY_BOARD) {
        assert!(!list.is_empty() && list.len() <= MOST_DIAGNOSTICS + 1);
        assert!(list.iter().all(|error| error.to_string().len() < 1000));
    }
}
