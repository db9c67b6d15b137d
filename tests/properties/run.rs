//! The run loops of several CPUs, against each other: nothing that is waited for gets lost, no vCPU is where it must not be, and each
//! finds its own registers, whatever happens between any two steps. What is checked is in [`harness::race`].

use harness::race::{Counts, race};

/// Boards: CPUs, VMs of two vCPUs each.
const BOARDS: [(usize, &[&str]); 4] =
    [(2, &["one"]), (2, &["one", "two"]), (1, &["one", "two"]), (3, &["one", "two", "three"])];

#[test]
fn cpus_that_race_lose_nothing() {
    let lives: u64 = std::env::var("FLATLAND_RACES").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let mut all = Counts::default();
    for seed in 0..lives {
        for (n_cpus, names) in BOARDS {
            all += race(n_cpus, names, seed * 4 + n_cpus as u64, 30_000);
        }
    }
    println!("{all:?}");
    let Counts { migrations, quiet, timers, pauses, stops, starts, lives, .. } = all;
    for (what, count, least) in [
        ("migrations", migrations, 500),
        ("sleeps of all", quiet, 500),
        ("timers", timers, 1000),
        ("pauses", pauses, 100),
        ("stops", stops, 50),
        ("starts of vCPUs", starts, 500),
        ("lives of VMs", lives, 100),
    ] {
        assert!(count >= least, "only {count} {what}");
    }
}
