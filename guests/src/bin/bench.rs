//! What does each operation of the hypervisor cost, in instructions?
//!
//! Run under `-icount shift=0`, where one instruction is one nanosecond of the board's time. Prints `bench NAME VALUE`, each
//! of the second of two rounds. Boot arguments: `touch=BYTES`, the stride of first touches (default: 2 MiB); `calls=N`, so many
//! hypercalls and nothing else; `switch-vm`, switches to a VM that does the same and nothing else; `debug`, with a breakpoint
//! and a watchpoint set meanwhile.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use rt::measure::{self, per};
use rt::timer::{self, Timer};
use rt::{args, check, cpu, debug, gic, println, psci, ram, smp};

rt::guest!(main);

/// How often each operation is done.
const N: u64 = 4096;
/// The SGI that is sent back and forth.
const PING: u32 = 3;

static CAME: [AtomicU64; cpu::MAX] = [const { AtomicU64::new(0) }; cpu::MAX];
static LATENCY: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicU64 = AtomicU64::new(0);
static SLEEPY: AtomicU64 = AtomicU64::new(0);

fn hook() {
    let now = timer::now();
    let taken = gic::acknowledge();
    if taken.intid == Timer::Virtual.irq() {
        LATENCY.store(now - Timer::Virtual.deadline(), Ordering::SeqCst);
        Timer::Virtual.stop();
    }
    gic::end(taken);
    CAME[cpu::index()].fetch_add(1, Ordering::SeqCst);
}

/// Waits until this CPU has taken `n` interrupts, spinning or asleep.
fn wait(n: u64) {
    let mine = &CAME[cpu::index()];
    while mine.load(Ordering::SeqCst) < n {
        if SLEEPY.load(Ordering::Relaxed) != 0 {
            cpu::mask();
            if mine.load(Ordering::SeqCst) < n {
                cpu::wfi();
            }
            cpu::unmask();
        } else {
            cpu::relax();
        }
    }
}

fn echo(_index: usize) {
    gic::init_cpu();
    gic::enable(PING);
    cpu::unmask();
    let mut n = 0;
    CAME[0].fetch_add(1, Ordering::SeqCst);
    while STOP.load(Ordering::SeqCst) == 0 {
        n += 1;
        wait(n);
        gic::send(PING, gic::To::Cpu(0));
    }
}

fn main() {
    gic::init();
    gic::init_cpu();
    rt::exception::set_irq_hook(hook);
    gic::enable(PING);
    gic::enable(Timer::Virtual.irq());
    cpu::unmask();
    // For who counts the exits that they are.
    let calls = args::number("calls", 0);
    if calls > 0 {
        println!("bench calls {}", measure::hypercalls(psci::VERSION, calls));
        check!(true, "all calls were answered");
        return;
    }
    if args::flag("debug") {
        // Neither is met.
        debug::clear();
        debug::lock(false);
        debug::set_breakpoint(0, debug::kernel_at(0), debug::BREAK | debug::AT_EL1);
        debug::set_watchpoint(0, CAME[cpu::MAX - 1].as_ptr() as u64, debug::STORE | debug::AT_EL0);
        debug::set_mdscr(debug::MDE | debug::KDE);
    }
    if args::flag("switch-vm") {
        println!("bench switch-vm {}", by_turns());
        check!(true, "the turns were measured");
        return;
    }
    for round in 0..2 {
        let show = |name: &str, value: u64| {
            if round == 1 {
                println!("bench {name} {value}");
            }
        };
        show("hvc", measure::hypercalls(psci::VERSION, N));
        show("hvc-unknown", measure::hypercalls(0xc600_ff01, N));
        show("gicd-read", measure::distributor_reads(N));
        show("id-register", measure::id_register_reads(N));
        let start = timer::now();
        let came = CAME[0].load(Ordering::SeqCst);
        for n in 1..=N {
            gic::send(PING, gic::To::Me);
            wait(came + n);
        }
        show("interrupt", per(start, N));
        let mut late = 0;
        for _ in 0..64 {
            let came = CAME[0].load(Ordering::SeqCst);
            Timer::Virtual.start(timer::micros(20));
            wait(came + 1);
            late += LATENCY.load(Ordering::SeqCst);
        }
        show("timer-latency", late / 64 * 1_000_000_000 / timer::frequency());
    }
    first_touches();
    if args::n_cpus() > 1 {
        for (name, sleepy) in [("ipi", 0), ("switch", 1)] {
            if args::flag(name) {
                SLEEPY.store(sleepy, Ordering::SeqCst);
                println!("bench {name} {}", ping_pong());
            }
        }
    }
    check!(true, "all was measured");
}

/// From when this VM's timer fires to when it is told so, while another VM, which does the same, was on the CPU last.
fn by_turns() -> u64 {
    SLEEPY.store(1, Ordering::SeqCst);
    let turns = |n| {
        let mut late = 0;
        for _ in 0..n {
            let came = CAME[0].load(Ordering::SeqCst);
            Timer::Virtual.start(timer::micros(40));
            wait(came + 1);
            late += LATENCY.load(Ordering::SeqCst);
        }
        late / n * 1_000_000_000 / timer::frequency()
    };
    // The other may not have come so far, or may have ended, before and after.
    turns(256);
    let value = turns(256);
    turns(512);
    value
}

/// Half a round trip of an SGI to CPU 1 and back.
fn ping_pong() -> u64 {
    for slot in &CAME {
        slot.store(0, Ordering::SeqCst);
    }
    smp::start(1, echo);
    while CAME[0].load(Ordering::SeqCst) == 0 {
        cpu::relax();
    }
    let mut value = 0;
    let mut sent = 1;
    for _ in 0..2 {
        let start = timer::now();
        for _ in 0..N / 4 {
            gic::send(PING, gic::To::Cpu(1));
            sent += 1;
            wait(sent);
        }
        value = per(start, N / 4) / 2;
    }
    STOP.store(1, Ordering::SeqCst);
    gic::send(PING, gic::To::Cpu(1));
    while !smp::is_off(1) {
        cpu::relax();
    }
    STOP.store(0, Ordering::SeqCst);
    value
}

/// Touches memory that nobody has touched.
fn first_touches() {
    let stride = args::number("touch", 2 << 20) as usize / 8;
    let free = ram::largest_free();
    // From the next 2 MiB boundary on.
    let skip = (0x20_0000 - (free.as_ptr() as usize & 0x1f_ffff)) / 8;
    let words = &free[skip..];
    let n = (words.len() / stride).min(512);
    let start = timer::now();
    for at in 0..n {
        words[at * stride].store(1, Ordering::Relaxed);
    }
    println!("bench touch-{} {}", if stride < 0x4_0000 { "4k" } else { "2m" }, per(start, n as u64));
}
