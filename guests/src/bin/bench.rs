//! What does each thing cost, in instructions? For runs under `-icount shift=0`, where virtual time counts instructions.
//!
//! Prints `bench NAME VALUE instructions`. One instruction is 1 ns of virtual time, so ticks are scaled by CNTFRQ_EL0: a
//! tick of a 1 GHz counter is one instruction, of a 62.5 MHz counter sixteen. The cost of the loop itself is taken off,
//! and each is measured twice with the second told, so that first touches do not count.
//!
//! Boot arguments: `n=N` (default 2000) times each; `granule=4k` where the hypervisor maps pages, not blocks;
//! `mode=switch` measures only how two vCPUs on one CPU take turns (SGI to the other, WFI, and back; halved).

#![no_std]
#![no_main]

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use rt::gic::{self, To};
use rt::psci::{self, Conduit};
use rt::smp::{self, PATIENCE};
use rt::timer::{self, Timer};
use rt::{args, board, check, cpu, exception, mmio, println, ram, read_register};

rt::guest!(main);

const SGI: u32 = 1;
const SGI_BACK: u32 = 2;

static CAME: AtomicU64 = AtomicU64::new(0);
static AT: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicUsize = AtomicUsize::new(0);

/// Prints what `n` times took, in instructions each.
fn tell(name: &str, ticks: u64, n: u64) {
    let per_tick = 1_000_000_000 / timer::frequency().min(1_000_000_000);
    println!("bench {name} {} instructions", (ticks * per_tick + n / 2) / n);
    check!(n > 0 && timer::frequency().is_multiple_of(500_000), "{name} was measured");
}

/// Returns the ticks that `n` calls take, the loop included.
#[inline(always)]
fn ticks(n: u64, mut deed: impl FnMut()) -> u64 {
    let start = timer::now();
    for i in 0..n {
        black_box(i);
        deed();
    }
    timer::now() - start
}

/// Measures `deed` and prints it.
#[inline(always)]
fn measure(name: &str, n: u64, mut deed: impl FnMut()) {
    let empty = ticks(n, || {});
    ticks(n, &mut deed);
    let full = ticks(n, &mut deed);
    tell(name, full.saturating_sub(empty), n);
}

/// Notes when it came; answers an SGI with another.
fn hook() {
    let now = timer::now();
    let taken = gic::acknowledge();
    match taken.intid {
        SGI if cpu::index() != 0 => gic::send(SGI_BACK, To::Cpu(0)),
        27 | 30 => Timer::Virtual.stop(),
        _ => {}
    }
    if taken.intid < 1020 {
        gic::end(taken);
    }
    if cpu::index() == 0 {
        AT.store(now, Ordering::Relaxed);
        CAME.store(CAME.load(Ordering::Relaxed) + 1, Ordering::Relaxed); // this CPU alone writes it
    }
}

fn main() {
    let n = args::number("n", 2000).max(1);
    println!("bench: {} Hz, {n} times each", timer::frequency());
    gic::init();
    exception::set_irq_hook(hook);
    for intid in [SGI, SGI_BACK, Timer::Virtual.irq()] {
        gic::enable(intid);
    }
    if args::value("mode") == Some("switch") {
        return switch(n);
    }
    exits(n);
    interrupts(n);
    if args::n_cpus() >= 2 {
        ipi(n);
    }
    touch();
}

/// Exits that the hypervisor answers at once.
fn exits(n: u64) {
    measure("hvc", n, || drop(psci::call(Conduit::Hvc, [psci::VERSION, 0, 0, 0])));
    measure("hvc-unknown", n, || drop(psci::call(Conduit::Hvc, [0x8600_ff01, 0, 0, 0])));
    measure("gicd-read", n, || drop(mmio::read32(board::GICD + gic::IIDR)));
    measure("uart-read", n, || drop(mmio::read32(board::UART + rt::console::FR)));
    measure("idreg", n, || drop(read_register!("id_aa64pfr0_el1")));
}

fn wait_for(count: u64) {
    while CAME.load(Ordering::Relaxed) < count {
        cpu::relax();
    }
}

/// Interrupts to itself. What vectors and hook of this guest take (about 120 instructions) is part of it.
fn interrupts(n: u64) {
    // Sent, taken, ended, back where it was sent.
    cpu::unmask();
    measure("sgi-self", n, || {
        let before = CAME.load(Ordering::Relaxed);
        gic::send(SGI, To::Me);
        wait_for(before + 1);
    });
    // Up to the hook only.
    for last in [false, true] {
        let mut sum = 0;
        for _ in 0..n {
            let before = CAME.load(Ordering::Relaxed);
            let start = timer::now();
            gic::send(SGI, To::Me);
            wait_for(before + 1);
            sum += AT.load(Ordering::Relaxed) - start;
        }
        if last {
            tell("virq", sum, n);
        }
    }
    // From the deadline to the hook, with the CPU busy.
    for last in [false, true] {
        let mut sum = 0;
        for _ in 0..n.min(500) {
            let before = CAME.load(Ordering::Relaxed);
            let deadline = timer::now() + timer::micros(40);
            Timer::Virtual.set_deadline(deadline);
            Timer::Virtual.set_control(timer::ENABLE);
            wait_for(before + 1);
            sum += AT.load(Ordering::Relaxed) - deadline;
        }
        if last {
            tell("timer-irq", sum, n.min(500));
        }
    }
    cpu::mask();
    // Acknowledge and end, polled.
    for (name, ending) in [("ack", false), ("eoi", true)] {
        let mut sum = 0;
        for _ in 0..n {
            gic::send(SGI, To::Me);
            while !cpu::irq_pending() {
                cpu::relax();
            }
            let start = timer::now();
            let taken = gic::acknowledge();
            let middle = timer::now();
            gic::end(taken);
            sum += if ending { timer::now() - middle } else { middle - start };
        }
        let clock = ticks(n, || drop(timer::now()));
        tell(name, sum.saturating_sub(clock), n);
    }
}

/// Awake with interrupts on until told to stop.
fn answer(_: usize) {
    gic::init_cpu();
    gic::enable(SGI);
    STOP.store(2, Ordering::SeqCst);
    cpu::unmask();
    while STOP.load(Ordering::SeqCst) != 1 {
        cpu::relax();
    }
    cpu::mask();
}

/// Asleep until told to stop: an SGI is answered from its hook.
fn answer_asleep(_: usize) {
    gic::init_cpu();
    gic::enable(SGI);
    STOP.store(2, Ordering::SeqCst);
    while STOP.load(Ordering::SeqCst) != 1 {
        cpu::wfi();
        cpu::unmask();
        cpu::mask();
    }
}

fn begin(job: smp::Job) {
    STOP.store(0, Ordering::SeqCst);
    assert!(smp::start(1, job) == psci::SUCCESS, "CPU 1 does not come on");
    assert!(timer::wait_until(PATIENCE, || STOP.load(Ordering::SeqCst) == 2), "CPU 1 does not answer");
}

fn finish() {
    STOP.store(1, Ordering::SeqCst);
    gic::send(SGI, To::Cpu(1));
    check!(timer::wait_until(PATIENCE, || smp::is_done(1)), "CPU 1 ends");
    cpu::mask();
}

/// From CPU 0 to CPU 1 and back, both awake; halved.
fn ipi(n: u64) {
    begin(answer);
    cpu::unmask();
    for last in [false, true] {
        let spent = ticks(n, || {
            let before = CAME.load(Ordering::Relaxed);
            gic::send(SGI, To::Cpu(1));
            wait_for(before + 1);
        });
        if last {
            tell("ipi", spent, 2 * n);
        }
    }
    finish();
}

/// The same, both asleep meanwhile: on a board with one CPU each way is one switch.
fn switch(n: u64) {
    if args::n_cpus() < 2 {
        println!("bench: mode=switch needs two vCPUs");
        return;
    }
    begin(answer_asleep);
    for last in [false, true] {
        let spent = ticks(n, || {
            let before = CAME.load(Ordering::Relaxed);
            gic::send(SGI, To::Cpu(1));
            while CAME.load(Ordering::Relaxed) == before {
                cpu::wfi();
                cpu::unmask();
                cpu::mask();
            }
        });
        if last {
            tell("switch", spent, 2 * n);
        }
    }
    finish();
}

/// The first touch of RAM that nobody has touched, by blocks or by pages.
fn touch() {
    let pages = args::value("granule") == Some("4k");
    let (name, stride, most) = if pages { ("touch-4k", 4096 / 8, 8192) } else { ("touch-2m", (2 << 20) / 8, 32) };
    let free = ram::largest_free();
    let skip = free.as_ptr().align_offset(2 << 20).min(free.len()) + (2 << 20) / 8;
    let fresh = free.get(skip..).unwrap_or(&[]);
    let n = (fresh.len() / stride).min(most);
    if n < 8 {
        println!("bench: too little RAM for {name}");
        return;
    }
    let (first, rest) = fresh.split_at(n / 4 * stride);
    for (run, last) in [(first, false), (rest, true)] {
        let mut words = run.chunks_exact(stride).take(n - n / 4);
        let n = words.len() as u64;
        let spent = ticks(n, || {
            if let Some(word) = words.next() {
                black_box(word[0].load(Ordering::Relaxed));
            }
        });
        if last {
            tell(name, spent, n);
        }
    }
}
