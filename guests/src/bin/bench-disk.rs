//! What does a disk cost, in instructions? Reads of blocks that are lent or copied, writes, and a notification of nothing.
//!
//! Run under `-icount shift=0`. Prints `bench NAME VALUE`, interrupts and the driver's own part included, and checks what was read.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use rt::measure::per;
use rt::timer;
use rt::virtio::{Disk, IN, OUT};
use rt::{check, cpu, gic, println, ram};

rt::guest!(main);

/// How many blocks are read.
const N: u64 = 1024;
/// Words of a block.
const WORDS: usize = 512;
/// The first disk.
const DISK: Disk = Disk::in_slot(1);

static CAME: AtomicU64 = AtomicU64::new(0);

fn hook() {
    let taken = gic::acknowledge();
    if taken.intid == DISK.intid() {
        DISK.acknowledge();
    }
    gic::end(taken);
    CAME.fetch_add(1, Ordering::SeqCst);
}

/// Asks for a block and waits for the interrupt; whether that was well.
fn block(kind: u32, n: u64, at: &AtomicU64) -> bool {
    let came = CAME.load(Ordering::SeqCst);
    DISK.ask(kind, n * 8, at.as_ptr() as u64, 4096);
    while CAME.load(Ordering::SeqCst) == came {
        cpu::relax();
    }
    DISK.status() == 0
}

fn main() {
    gic::init();
    gic::init_cpu();
    rt::exception::set_irq_hook(hook);
    check!(DISK.open(), "there is a disk");
    check!(DISK.sectors() >= N * 8, "it is large enough");
    gic::set_trigger(DISK.intid(), gic::Trigger::Edge);
    gic::enable(DISK.intid());
    cpu::unmask();
    let free = ram::largest_free();
    let skip = (0x20_0000 - (free.as_ptr() as usize & 0x1f_ffff)) / 8;
    let (aligned, rest) = free[skip..].split_at(N as usize * WORDS);
    // Off by a sector, so that nothing can be lent.
    let odd = &rest[64..64 + (N as usize + 1) * WORDS];
    for words in [aligned, odd] {
        words.iter().step_by(WORDS).for_each(|word| word.store(1, Ordering::Relaxed));
    }
    let mut fine = true;
    let mut measure = |name: &str, kind: u32, memory: &'static [AtomicU64]| {
        let start = timer::now();
        for n in 0..N {
            fine &= block(kind, n, &memory[n as usize * WORDS]);
        }
        println!("bench {name} {}", per(start, N));
    };
    measure("disk-read-lent", IN, aligned);
    measure("disk-read-copied", IN, odd);
    let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
    check!(aligned.iter().zip(odd).all(|(one, other)| load(one) == load(other)), "both are the same");
    // The first write of each takes a frame.
    measure("disk-write-first", OUT, odd);
    measure("disk-write", OUT, aligned);
    check!(fine, "all requests were carried out");
    let start = timer::now();
    for _ in 0..N {
        DISK.notify();
    }
    println!("bench disk-notify {}", per(start, N));
}
