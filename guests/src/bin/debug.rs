//! Do breakpoints, watchpoints and single steps hit where they are set, at EL1 and at EL0, and nowhere else?
//!
//! Meant to run with more vCPUs than CPUs, and beside others of its kind. Boot arguments: `rounds=N` (default 200); `none`
//! sets nothing and leaves MDSCR_EL1 clear, `unset` sets MDSCR_EL1.MDE alone: then whatever hits is somebody else's.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use rt::debug::{self, AT_EL0, AT_EL1, BREAK, BREAKPOINT, KDE, LOAD, MDE, STORE, WATCHPOINT};
use rt::timer::{self, Timer};
use rt::{Fault, args, check, check_eq, cpu, exception, expect_exception, gic, println, read_register, smp};

rt::guest!(main);

static WORDS: [AtomicU64; 4] = [const { AtomicU64::new(5) }; 4];
static WRONG: [AtomicU64; cpu::MAX] = [const { AtomicU64::new(0) }; cpu::MAX];
static HITS: AtomicU64 = AtomicU64::new(0);

fn main() {
    let own = !args::flag("none") && !args::flag("unset");
    if own {
        registers();
        kernel();
        user();
        linked();
        locks();
        steps();
        debug::clear();
    }
    gic::init();
    exception::set_irq_hook(tick);
    smp::on_all(job);
    for index in 0..args::n_cpus() {
        check_eq!(WRONG[index].load(Ordering::SeqCst), 0, "CPU {index} met what it set, and nothing else");
    }
    println!("debug: {} hits", HITS.load(Ordering::SeqCst));
    check!(!own || HITS.load(Ordering::SeqCst) > 0, "there were hits");
}

/// Whether `fault` is of this class, from EL1 or EL0.
fn is(fault: Option<Fault>, class: u64, from_el1: bool) -> bool {
    fault.is_some_and(|fault| fault.class() == class | u64::from(from_el1))
}

fn registers() {
    let (breakpoints, watchpoints) = debug::n_points();
    println!("debug: {breakpoints} breakpoints, {watchpoints} watchpoints");
    for n in 0..breakpoints {
        debug::set_breakpoint(n, 0x1000 + n as u64 * 4, n as u64 & 1 | 0x1e4);
    }
    for n in 0..watchpoints {
        debug::set_watchpoint(n, 0x2000 + n as u64 * 8, n as u64 & 1 | 0x1fe4);
    }
    for n in 0..breakpoints {
        let expected = (0x1000 + n as u64 * 4, n as u64 & 1 | 0x1e4);
        check!(debug::breakpoint(n) == expected, "breakpoint {n} reads as written", "{:x?}", debug::breakpoint(n));
    }
    for n in 0..watchpoints {
        let expected = (0x2000 + n as u64 * 8, n as u64 & 1 | 0x1fe4);
        check!(debug::watchpoint(n) == expected, "watchpoint {n} reads as written", "{:x?}", debug::watchpoint(n));
    }
    debug::clear();
    debug::clear_claims(0xff);
    debug::set_claims(0x5a);
    debug::clear_claims(0x12);
    check_eq!(read_register!("dbgclaimclr_el1") & 0xff, 0x48, "claim tags are set and cleared");
    check_eq!(read_register!("dbgclaimset_el1") & 0xff, 0xff, "there are eight claim tags");
    debug::clear_claims(0xff);
    debug::lock(true);
    check_eq!(read_register!("oslsr_el1") & 2, 2, "the OS lock is held");
    debug::lock(false);
    check_eq!(read_register!("oslsr_el1") & 2, 0, "the OS lock is open");
}

fn kernel() {
    let (breakpoints, watchpoints) = debug::n_points();
    for n in 0..breakpoints {
        debug::clear();
        debug::set_breakpoint(n, debug::kernel_at(n % 4), BREAK | AT_EL1);
        check!(expect_exception(debug::kernel).is_none(), "breakpoint {n} waits for MDSCR_EL1");
        debug::set_mdscr(MDE);
        check!(expect_exception(debug::kernel).is_none(), "breakpoint {n} waits for MDSCR_EL1.KDE at EL1");
        debug::set_mdscr(MDE | KDE);
        let hit = expect_exception(debug::kernel);
        let there = hit.is_some_and(|hit| hit.elr == debug::kernel_at(n % 4));
        check!(is(hit, BREAKPOINT, true) && there, "breakpoint {n} hits at EL1", "{hit:x?}");
        debug::set_breakpoint(n, debug::kernel_at(n % 4), BREAK | AT_EL0);
        check!(expect_exception(debug::kernel).is_none(), "breakpoint {n} of EL0 does not hit at EL1");
        // HMC, SSC 0b11, PMC 0: EL2 alone.
        debug::set_breakpoint(n, debug::kernel_at(n % 4), BREAK | 1 << 13 | 3 << 14);
        check!(expect_exception(debug::kernel).is_none(), "breakpoint {n} of EL2 does not hit at EL1");
    }
    for n in 0..watchpoints {
        debug::clear();
        debug::set_mdscr(MDE | KDE);
        let (word, other) = (&WORDS[n % 4], &WORDS[(n + 1) % 4]);
        for control in [LOAD, STORE] {
            debug::set_watchpoint(n, word.as_ptr() as u64, control | AT_EL1);
            let hit = expect_exception(|| debug::touch(word));
            let there = hit.is_some_and(|hit| hit.far == word.as_ptr() as u64 && hit.esr >> 6 & 1 == control >> 4 & 1);
            check!(is(hit, WATCHPOINT, true) && there, "watchpoint {n} hits at EL1", "{hit:x?}");
            check!(expect_exception(|| debug::touch(other)).is_none(), "watchpoint {n} leaves other words alone");
        }
    }
}

fn user() {
    let (breakpoints, watchpoints) = debug::n_points();
    let word = &WORDS[1];
    debug::clear();
    check!(expect_exception(|| debug::user(word, false)).is_none(), "EL0 runs");
    debug::set_mdscr(MDE);
    for n in 0..breakpoints {
        debug::set_breakpoint(n, debug::user_at(n % 4), BREAK | AT_EL0);
        let hit = expect_exception(|| debug::user(word, false));
        let there = hit.is_some_and(|hit| hit.elr == debug::user_at(n % 4));
        check!(is(hit, BREAKPOINT, false) && there, "breakpoint {n} hits at EL0", "{hit:x?}");
        debug::set_breakpoint(n, debug::user_at(n % 4), BREAK | AT_EL1);
        check!(expect_exception(|| debug::user(word, false)).is_none(), "breakpoint {n} of EL1 does not hit at EL0");
        debug::set_breakpoint(n, 0, 0);
    }
    for n in 0..watchpoints {
        let at = rt::mmu::for_user(word.as_ptr() as u64);
        debug::set_watchpoint(n, at, LOAD | AT_EL0);
        let hit = expect_exception(|| debug::user(word, false));
        let there = hit.is_some_and(|hit| hit.far == at && hit.elr == debug::user_at(4));
        check!(is(hit, WATCHPOINT, false) && there, "watchpoint {n} hits at EL0", "{hit:x?}");
        debug::set_watchpoint(n, 0, 0);
    }
}

/// A breakpoint that is linked to a context asks for CONTEXTIDR_EL1.
fn linked() {
    let (breakpoints, _) = debug::n_points();
    debug::clear();
    debug::set_mdscr(MDE | KDE);
    let context = breakpoints - 1;
    // BT 0b0011: a context to be linked to; BT 0b0001: an address, linked.
    debug::set_breakpoint(context, 0x77, BREAK | 3 << 20);
    debug::set_breakpoint(0, debug::kernel_at(2), BREAK | AT_EL1 | 1 << 20 | (context as u64) << 16);
    debug::set_context(0x76);
    check!(expect_exception(debug::kernel).is_none(), "a linked breakpoint waits for its context");
    debug::set_context(0x77);
    let hit = expect_exception(debug::kernel);
    check!(is(hit, BREAKPOINT, true), "a linked breakpoint hits in its context", "{hit:x?}");
    debug::set_context(0);
}

fn locks() {
    debug::clear();
    debug::set_breakpoint(0, debug::kernel_at(1), BREAK | AT_EL1);
    debug::set_mdscr(MDE | KDE);
    debug::lock(true);
    check!(expect_exception(debug::kernel).is_none(), "the OS lock holds breakpoints back");
    debug::lock(false);
    check!(is(expect_exception(debug::kernel), BREAKPOINT, true), "they hit once it is open");
}

fn steps() {
    debug::clear();
    exception::take_steps();
    let mut places = (0, 0);
    check!(expect_exception(|| places = debug::step()).is_none(), "steps at EL1 come back");
    let (steps, count) = exception::take_steps();
    let (first, last) = places;
    // From first to last, but for the one that is jumped over.
    let expected = (first..=last).step_by(4).filter(|at| *at != last - 8);
    // QEMU may take the first before the barrier behind MDSCR_EL1.
    let taken = steps.iter().take(count).skip_while(|at| **at < first);
    let right = taken.copied().filter(|at| *at <= last).eq(expected);
    check!(right, "each instruction at EL1 is one step", "{count} from {first:#x} to {last:#x}: {steps:x?}");
    check!(expect_exception(|| debug::user(&WORDS[0], true)).is_none(), "steps at EL0 come back");
    let (steps, count) = exception::take_steps();
    let expected = (1..7).map(debug::user_at);
    check!(
        steps.iter().take(count).copied().eq(expected),
        "each instruction at EL0 is one step",
        "{count}: {steps:x?}"
    );
}

fn tick() {
    let taken = gic::acknowledge();
    if taken.intid == Timer::Virtual.irq() {
        Timer::Virtual.start(timer::micros(700));
    }
    gic::end(taken);
}

/// Each CPU, each VM and each round with places of its own, while vCPUs take turns.
fn job(index: usize) {
    gic::init_cpu();
    gic::enable(Timer::Virtual.irq());
    Timer::Virtual.start(timer::micros(700));
    cpu::unmask();
    let (none, unset) = (args::flag("none"), args::flag("unset"));
    let own = !none && !unset;
    debug::lock(false);
    debug::clear();
    if !none {
        debug::set_mdscr(MDE | KDE);
    }
    let (mut wrong, mut hits) = (0, 0);
    for round in 0..args::number("rounds", 200) as usize {
        let place = debug::kernel_at((round + index) % 4);
        let word = &WORDS[(round + index) % 4];
        if own {
            debug::set_breakpoint(round % 2, place, BREAK | AT_EL1);
            debug::set_watchpoint(round % 2, word.as_ptr() as u64, LOAD | AT_EL1);
        }
        if round % 4 == 0 {
            cpu::wfi(); // gives the CPU away with all of them set
        } else {
            timer::delay(300 + 37 * (round as u64 % 16));
        }
        let at = expect_exception(debug::kernel).map(|hit| hit.elr);
        let on = expect_exception(|| debug::touch(word)).map(|hit| hit.far);
        let other = expect_exception(|| debug::touch(&WORDS[(round + index + 1) % 4])).map(|hit| hit.far);
        let expected = own.then_some((place, word.as_ptr() as u64));
        wrong += u64::from(at != expected.map(|e| e.0) || on != expected.map(|e| e.1) || other.is_some());
        hits += u64::from(at.is_some()) + u64::from(on.is_some());
        debug::set_breakpoint(round % 2, 0, 0);
        debug::set_watchpoint(round % 2, 0, 0);
    }
    cpu::mask();
    Timer::Virtual.stop();
    debug::clear();
    WRONG[index].store(wrong, Ordering::SeqCst);
    HITS.fetch_add(hits, Ordering::SeqCst);
}
