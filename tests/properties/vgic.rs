//! The virtual interrupt controller against a reference of one struct per interrupt ([`model`]), with CPU interfaces that
//! play on its lists ([`cpu`]), step by step ([`world`]); the scenes of conformance suites; and hostile accesses.

mod cpu;
mod model;
mod registers;
mod world;

use flatland::arm::gic::Version;
use harness::effort;
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, TestError, TestRunner};
use std::cell::Cell;
use world::{Counts, World};

/// vCPUs, list registers, EOImode 1, and the operations.
type Run = (usize, u8, bool, Vec<(u8, u32, u32)>);

fn replay(version: Version, (cpus, lists, mode1, steps): &Run, loud: bool) -> Counts {
    let mut world = World::new(version, *cpus, *lists, *mode1);
    for (op, a, b) in steps {
        if loud {
            println!("op {} by {a:#x}, {b:#x}", op % 32);
        }
        world.step(*op, *a, *b);
    }
    world.counts
}

fn play(version: Version, cases: u32) -> Counts {
    let total = Cell::new(Counts::default());
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let runs = (1..5_usize, 1..5_u8, any::<bool>(), vec(any::<(u8, u32, u32)>(), 0..600));
    let result = runner.run(&runs, |run| {
        total.set(total.get() + replay(version, &run, false));
        Ok(())
    });
    match result {
        Ok(()) => println!("{version:?}: {:?}", total.get()),
        Err(TestError::Fail(why, run)) => {
            println!("{version:?}, vCPUs {}, lists {}, EOImode 1 {}: {why}", run.0, run.1, run.2);
            replay(version, &run, true);
        }
        Err(error) => panic!("{error}"),
    }
    total.get()
}

#[test]
fn a_gicv2_delivers_what_the_book_says() {
    let counts = play(Version::V2, effort(2000) as u32);
    assert!(
        counts.taken > counts.steps / 20 && counts.crowded > effort(1000) && counts.late > effort(1000),
        "{counts:?}"
    );
}

#[test]
fn a_gicv3_delivers_what_the_book_says() {
    let counts = play(Version::V3, effort(2000) as u32);
    assert!(
        counts.taken > counts.steps / 20 && counts.crowded > effort(1000) && counts.late > effort(1000),
        "{counts:?}"
    );
}
