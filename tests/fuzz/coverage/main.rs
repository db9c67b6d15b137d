//! The checks of `tests/fuzz`, and two more, with inputs that libFuzzer makes by watching which code they reach.
//!
//! `tests/fuzz/coverage/run TARGET` builds and runs one; targets are the names in [`TARGETS`].

#![no_main]
// What the generator's tests need besides is not called from here.
#![allow(dead_code)]

#[path = "../blk.rs"]
mod blk;
#[path = "../cpio.rs"]
mod cpio;
#[path = "../engine.rs"]
mod engine;
#[path = "../guest.rs"]
mod guest;
#[path = "../gzip.rs"]
mod gzip;
#[path = "../image.rs"]
mod image;
#[path = "../manifest.rs"]
mod manifest;
#[path = "../net.rs"]
mod net;
#[path = "../seeds.rs"]
mod seeds;
mod stage2;
#[path = "../syndrome.rs"]
mod syndrome;
#[path = "../virtqueue.rs"]
mod virtqueue;

use engine::Rng;
use platform::board::Board;
use std::sync::OnceLock;

type Check = fn(&[u8]);

const TARGETS: [(&str, Check); 11] = [
    ("blk", |input| drop(blk::check(&mut Rng::given(input)))),
    ("net", |input| drop(net::check(&mut Rng::given(input)))),
    ("cpio", |input| cpio::check(input, &mut Rng::given(&[]))),
    ("bundle", |input| cpio::check_bundle(input, &mut Rng::given(&[]))),
    ("manifest", |input| manifest::check(input, &mut Rng::given(&[]))),
    ("image", |input| {
        let (choices, file) = input.split_at(input.len().min(64));
        image::check(file, &mut Rng::given(choices));
    }),
    ("gzip", |input| gzip::check(input, &mut Rng::given(&[]))),
    ("syndrome", |input| syndrome::check(&mut Rng::given(input))),
    ("virtqueue", |input| drop(virtqueue::check(&mut Rng::given(input)))),
    ("board", board),
    ("stage2", stage2::check),
];

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    static TARGET: OnceLock<Check> = OnceLock::new();
    let check = TARGET.get_or_init(|| {
        let name = std::env::var("TARGET").unwrap_or_default();
        let found = TARGETS.iter().find(|(target, _)| *target == name);
        found.unwrap_or_else(|| panic!("TARGET is none of {:?}", TARGETS.map(|(target, _)| target))).1
    });
    check(input);
});

/// A board's tree, as a loader hands it over: it is refused, or what is read of it makes sense.
fn board(input: &[u8]) {
    let mut blob = input.to_vec();
    if platform::tree::tidy(&mut blob).is_err() {
        return;
    }
    let Ok(board) = Board::from_tree(&blob) else { return };
    assert!(!board.cpus.is_empty());
    for (n, range) in board.memory.iter().enumerate() {
        assert!(range.start < range.end);
        assert!(board.memory[..n].iter().all(|other| other.end <= range.start || range.end <= other.start));
    }
}
