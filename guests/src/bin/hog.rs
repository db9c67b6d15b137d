//! Makes its host's work as long as it can: is it done in steps, so that others do not wait for it?
//!
//! It touches all its memory, and gives it up by its balloon: free pages in one descriptor, then page numbers that each are of
//! another 2 MiB. Then it resets its board with all of it touched. Boot argument: `until=MILLISECONDS` of the counter ends that,
//! with a verdict. Follows virtio 1.2: 4.2 (MMIO), 2.7 (split virtqueues), 5.5 (balloon).

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use rt::{args, board, check, cpu, mmio, println, psci, ram, timer};

rt::guest!(main);

/// VIRTIO_BALLOON_F_REPORTING; and in the next word VIRTIO_F_VERSION_1.
const FEATURES: [u32; 2] = [1 << 5, 1];
/// Where a queue's parts are in its page, by words: descriptors, available ring, used ring.
const PARTS: [usize; 3] = [0, 64, 128];
/// The queues: numbers of those that the features leave.
const INFLATE: usize = 0;
const REPORT: usize = 2;
/// The descriptor is for the device to write.
const WRITE: u64 = 2;

/// A queue of eight, with one buffer at a time.
struct Queue {
    number: usize,
    page: &'static [AtomicU64],
    sent: u64,
}

impl Queue {
    fn new(number: usize, page: &'static [AtomicU64]) -> Self {
        page.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        write(0x30, number as u32);
        write(0x38, 8);
        for (at, part) in [0x80, 0x90, 0xa0].into_iter().zip(PARTS) {
            let address = page[part].as_ptr() as u64;
            write(at, address as u32);
            write(at + 4, (address >> 32) as u32);
        }
        write(0x44, 1);
        Self { number, page, sent: 0 }
    }

    /// Gives a buffer to the device, and waits until it is back.
    fn give(&mut self, at: u64, bytes: u64, flags: u64) {
        let word = |n: usize| &self.page[n];
        word(PARTS[0]).store(at, Ordering::Relaxed);
        word(PARTS[0] + 1).store(bytes | flags << 32, Ordering::Relaxed);
        self.sent += 1;
        // Flags, index, and a ring of zeroes: descriptor 0 each time.
        cpu::barrier();
        word(PARTS[1]).store((self.sent & 0xffff) << 16, Ordering::Release);
        cpu::barrier();
        write(0x50, self.number as u32);
        let done = || word(PARTS[2]).load(Ordering::Acquire) >> 16 & 0xffff == self.sent & 0xffff;
        check!(timer::wait_until(20_000_000, done), "the buffer comes back");
    }
}

fn write(at: u64, value: u32) {
    mmio::write32(board::VIRTIO + at, value);
}

fn main() {
    let until = args::number("until", 0);
    let ms = || timer::now() * 1000 / timer::frequency();
    let free = ram::largest_free();
    let (own, rest) = free.split_at(4 * 512);
    let touch = || rest.iter().step_by(512).for_each(|word| word.store(1, Ordering::Relaxed));
    // ACKNOWLEDGE, DRIVER; the features; FEATURES_OK, DRIVER_OK.
    write(0x70, 0);
    write(0x70, 3);
    for (n, word) in FEATURES.into_iter().enumerate() {
        write(0x24, n as u32);
        write(0x20, word);
    }
    write(0x70, 11);
    let mut inflate = Queue::new(INFLATE, &own[..512]);
    let mut report = Queue::new(REPORT, &own[512..1024]);
    write(0x70, 15);
    touch();
    report.give(rest.as_ptr() as u64, rest.len() as u64 * 8, WRITE);
    touch();
    // Page numbers, two in a word, each of another 2 MiB as far as there is memory, then of the next page of each.
    let list = &own[1024..1024 + 240];
    let blocks = (rest.len() / (512 * 512)).max(1);
    let pfn = |n: usize| (rest[n % blocks * 512 * 512 + n / blocks % 512 * 512..].as_ptr() as u64) >> 12;
    for (n, word) in list.iter().enumerate() {
        word.store(pfn(2 * n) | pfn(2 * n + 1) << 32, Ordering::Relaxed);
    }
    inflate.give(list.as_ptr() as u64, 479 * 4, 0);
    touch();
    if ms() < until {
        psci::system_reset();
    }
    println!("hog: ended at {} ms", ms());
    check!(true, "it came to its end");
}
