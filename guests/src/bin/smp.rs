//! Do CPUs come on, run together, go off and come on again, and are wrong requests refused?

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use rt::smp;
use rt::timer::PATIENCE;
use rt::{args, check, check_eq, cpu, psci, read_register, timer};

rt::guest!(main);

static SEEN: [AtomicU64; cpu::MAX] = [const { AtomicU64::new(0) }; cpu::MAX];
static MET: AtomicUsize = AtomicUsize::new(0);
static SUM: AtomicU64 = AtomicU64::new(0);
static HOLD: AtomicU64 = AtomicU64::new(0);
const ADDITIONS: u64 = 20_000;

/// Meets all others, which needs every CPU to run at the same time or in turns, then counts with them.
fn meet(index: usize) {
    SEEN[index].store(read_register!("mpidr_el1") & 0xff_00ff_ffff, Ordering::SeqCst);
    MET.fetch_add(1, Ordering::SeqCst);
    while MET.load(Ordering::SeqCst) < args::n_cpus() {
        cpu::relax();
    }
    for _ in 0..ADDITIONS {
        SUM.fetch_add(1, Ordering::Relaxed);
    }
}

/// Stays on until told.
fn hold(_: usize) {
    while HOLD.load(Ordering::SeqCst) == 0 {
        cpu::relax();
    }
}

fn main() {
    let n = args::n_cpus();
    for round in 0..3u64 {
        for index in 1..n {
            check_eq!(psci::affinity_info(args::mpidr(index), 0), 1, "CPU {index} is off before round {round}");
        }
        MET.store(0, Ordering::SeqCst);
        smp::on_all(meet);
        check_eq!(SUM.load(Ordering::SeqCst), (round + 1) * n as u64 * ADDITIONS, "round {round} loses no addition");
        for index in 0..n {
            let seen = SEEN[index].swap(!0, Ordering::SeqCst);
            check_eq!(seen, args::mpidr(index), "CPU {index} has its own affinity in round {round}");
        }
    }
    errors(n);
}

fn errors(n: usize) {
    let own = args::mpidr(0);
    let on = |mpidr, entry| psci::hvc(psci::CPU_ON, mpidr, entry, 0);
    check_eq!(on(own, psci::entry()), psci::ALREADY_ON, "this CPU is already on");
    check_eq!(psci::affinity_info(own, 0), 0, "this CPU is on by AFFINITY_INFO");
    check_eq!(on(0xff_00ff_ff00, psci::entry()), psci::INVALID_PARAMETERS, "a CPU that is not there cannot come on");
    check_eq!(psci::affinity_info(0xff_00ff_ff00, 0), psci::INVALID_PARAMETERS, "AFFINITY_INFO knows no such CPU");
    if args::strict() {
        check_eq!(psci::affinity_info(own, 9), psci::INVALID_PARAMETERS, "AFFINITY_INFO knows no such level");
    }
    if n < 2 {
        return;
    }
    check_eq!(smp::start(1, hold), psci::SUCCESS, "CPU 1 comes on");
    let again = on(args::mpidr(1), psci::entry());
    check!(again == psci::ALREADY_ON || again == psci::ON_PENDING, "a CPU that is on cannot come on", "{again}");
    check!(timer::wait_until(PATIENCE, || psci::affinity_info(args::mpidr(1), 0) == 0), "CPU 1 is on by AFFINITY_INFO");
    HOLD.store(1, Ordering::SeqCst);
    check!(timer::wait_until(PATIENCE, || smp::is_done(1) && smp::is_off(1)), "CPU 1 goes off when told");
}
