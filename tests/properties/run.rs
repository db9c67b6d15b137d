//! The run loops of several CPUs, against each other: nothing that is waited for gets lost, no vCPU is where it must not be, and each
//! finds its own registers, whatever happens between any two steps. What is checked is in [`harness::race`].
//!
//! `FLATLAND_EFFORT=1000` is for ten times as many.

use crate::exits::model;
use flatland::machine::Machine;
use harness::cpu::{BoardPlan, Cpu, host_on};
use harness::effort;
use harness::race::{Counts, race};

const BOARDS: [BoardPlan<'_>; 10] = [
    BoardPlan::new(2, &["one"]),
    BoardPlan::new(2, &["one", "two"]),
    BoardPlan::new(1, &["one", "two"]),
    BoardPlan::new(3, &["one", "two", "three"]),
    // One list register: more waits than it has room for, and its maintenance interrupt asks for the next.
    BoardPlan { lists: 1, ..BoardPlan::new(2, &["one", "two"]) },
    BoardPlan { lists: 1, ..BoardPlan::new(1, &["one"]) },
    BoardPlan { nested: true, ..BoardPlan::new(2, &["one"]) },
    // A guest hypervisor: what it asks of its CPU are exits, and entering a guest takes longer than some of its pauses.
    BoardPlan { slow: 30, ..BoardPlan::new(2, &["one", "two"]) },
    BoardPlan { slow: 30, ..BoardPlan::new(1, &["one"]) },
    BoardPlan { slow: 30, nested: true, ..BoardPlan::new(2, &["one"]) },
];

#[test]
fn cpus_that_race_lose_nothing() {
    let seeds = effort(8);
    let mut all = Counts::default();
    for plan in BOARDS {
        let mut counts = Counts::default();
        for seed in 0..seeds {
            counts += race(&plan, seed * 4 + plan.n_cpus as u64, 30_000);
        }
        println!("{plan:?}: {counts:?}");
        for (what, count) in [("sleeps of all", counts.quiet), ("sleeps of a CPU", counts.idles)] {
            assert!(count >= 20 * seeds, "only {count} {what} on {plan:?}");
        }
        // Timers are far off: who waits sleeps, and does not ask again and again.
        assert!(counts.idles >= counts.sleeps, "CPUs hardly sleep: {counts:?} on {plan:?}");
        all += counts;
    }
    let Counts { migrations, timers, pauses, stops, starts, lives, .. } = all;
    for (what, count, least) in [
        ("migrations", migrations, 60),
        ("timers", timers, 120),
        ("pauses", pauses, 12),
        ("stops", stops, 6),
        ("starts of vCPUs", starts, 60),
        ("lives of VMs", lives, 12),
    ] {
        assert!(count >= least * seeds, "only {count} {what}");
    }
}

#[test]
fn whoever_waits_runs_twice_as_long_as_memory_is_looked_after() {
    // From one look at the counter to the next; ticks are of 16 ns.
    for pace in [1, 10, 100, 1_000, 10_000, 100_000, 10_000_000] {
        let model = model();
        let cpu = Cpu::new(&model);
        cpu.pace.set(pace);
        let plan = BoardPlan::new(1, &["one"]);
        // Due since the counter was zero.
        let host = host_on(&model, &plan);
        host.manage(&cpu, true);
        let took = cpu.now() - pace;
        let pause = (2 * took).clamp(1_250, 1_250 << 9);
        assert_eq!(host.housekeeping(&cpu), Some(took + pause), "it took {took} ticks");
        let (host, before) = (host_on(&model, &plan), cpu.now());
        host.manage(&cpu, false);
        let due = host.housekeeping(&cpu).expect("the policy is asked each second");
        assert!((before..=cpu.now()).contains(&due), "nobody waits, and there is a pause until {due}");
    }
}
