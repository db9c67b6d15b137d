//! The balloon under a driver that does what Linux's does, and under one that does not.

use super::balloon::{Balloon, Pages};
use super::mmio::Transport;
use super::queue::{INDIRECT_DESC, Queue};
use super::{Left, Ram, Violation};
use crate::addr::{Addr, Ipa};
use crate::devices::device::Device as _;
use alloc::vec;
use alloc::vec::Vec;

const RAM: u64 = 0x4000_0000;
const BUFFER: u64 = RAM + 0xc000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Done {
    Inflate(u64, u64),
    Deflate(u64, u64),
    Report(u64, u64),
}

struct Guest {
    balloon: Balloon,
    memory: Vec<u8>,
    done: Vec<Done>,
    /// How many accesses until there is no memory.
    until_short: usize,
    /// How many pages are given up until it is late, at one time.
    until_late: u64,
    /// For each queue how many chains were made available.
    made: [u16; 5],
}

struct Memory<'a>(&'a mut Vec<u8>, &'a mut Vec<Done>, &'a mut usize, u64);

impl Memory<'_> {
    fn range(&mut self, at: Addr<Ipa>, length: usize) -> Result<core::ops::Range<usize>, Violation> {
        *self.2 = self.2.checked_sub(1).ok_or(Violation::Short)?;
        let start = at.bits().checked_sub(RAM).ok_or(Violation::Outside)? as usize;
        if start + length > self.0.len() { Err(Violation::Outside) } else { Ok(start..start + length) }
    }
}

impl Ram for Memory<'_> {
    fn read(&mut self, at: Addr<Ipa>, into: &mut [u8]) -> Result<(), Violation> {
        let range = self.range(at, into.len())?;
        into.copy_from_slice(&self.0[range]);
        Ok(())
    }

    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), Violation> {
        let range = self.range(at, bytes.len())?;
        self.0[range].copy_from_slice(bytes);
        Ok(())
    }
}

impl Pages for Memory<'_> {
    fn inflate(&mut self, at: Addr<Ipa>, pages: u64) {
        self.1.push(Done::Inflate(at.bits(), pages));
        self.3 = self.3.saturating_sub(pages);
    }

    fn deflate(&mut self, at: Addr<Ipa>, pages: u64) {
        self.1.push(Done::Deflate(at.bits(), pages));
    }

    fn report(&mut self, at: Addr<Ipa>, bytes: u64) -> u64 {
        // A page at least.
        let bytes = bytes.min(self.3.clamp(1, 1 << 40) << 12);
        self.1.push(Done::Report(at.bits(), bytes));
        self.3 = self.3.saturating_sub(bytes >> 12);
        bytes
    }

    fn is_late(&self) -> bool {
        self.3 == 0
    }
}

impl Guest {
    /// A guest whose driver agrees to `features`, with queues of 8.
    fn new(features: u64) -> Self {
        let mut guest = Self {
            balloon: Balloon::new(),
            memory: vec![0; 1 << 16],
            done: Vec::new(),
            until_short: usize::MAX,
            until_late: u64::MAX,
            made: [0; 5],
        };
        for (offset, value) in [(0x70, 0), (0x70, 3), (0x24, 1), (0x20, 1), (0x24, 0), (0x20, features), (0x70, 11)] {
            guest.balloon.write(offset, 4, value);
        }
        for n in 0..5 {
            let base = RAM + n * 0x2000;
            let registers =
                [(0x30, n), (0x38, 8), (0x80, base), (0x90, base + 0x1000), (0xa0, base + 0x1800), (0x44, 1)];
            registers.into_iter().for_each(|(offset, value)| guest.balloon.write(offset, 4, value));
        }
        guest.balloon.write(0x70, 4, 15);
        guest
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        let start = (at - RAM) as usize;
        self.memory[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn used(&self, queue: u64) -> u16 {
        let at = (queue * 0x2000 + 0x1802) as usize;
        u16::from_le_bytes([self.memory[at], self.memory[at + 1]])
    }

    /// Makes a chain available on `queue` and notifies: address, length, flags without NEXT.
    fn send(&mut self, queue: u64, chain: &[(u64, u32, u16)]) {
        self.offer(queue, chain);
        self.balloon.write(0x50, 4, queue);
    }

    /// Makes it available and does not say so.
    fn offer(&mut self, queue: u64, chain: &[(u64, u32, u16)]) {
        let base = RAM + queue * 0x2000;
        for (n, (at, bytes, flags)) in chain.iter().enumerate() {
            let next = u16::from(n + 1 < chain.len());
            let mut descriptor = at.to_le_bytes().to_vec();
            descriptor.extend(bytes.to_le_bytes());
            descriptor.extend((flags | next).to_le_bytes());
            descriptor.extend((n as u16 + 1).to_le_bytes());
            self.put(base + n as u64 * 16, &descriptor);
        }
        let made = &mut self.made[queue as usize];
        let slot = u64::from(*made % 8);
        *made += 1;
        let made = made.to_le_bytes();
        self.put(base + 0x1004 + slot * 2, &[0, 0]);
        self.put(base + 0x1002, &made);
    }

    fn serve(&mut self, budget: usize) -> bool {
        self.balloon
            .serve(&mut Memory(&mut self.memory, &mut self.done, &mut self.until_short, self.until_late), budget)
            != Left::Nothing
    }

    fn pfns(&mut self, pfns: impl Iterator<Item = u32>) -> u32 {
        let bytes: Vec<u8> = pfns.flat_map(u32::to_le_bytes).collect();
        self.put(BUFFER, &bytes);
        bytes.len() as u32
    }
}

#[test]
fn pages_go_in_and_out_in_runs_and_a_buffer_can_wait_in_the_middle() {
    let mut guest = Guest::new(0x3f);
    assert!(guest.balloon.is_up() && guest.balloon.features() == 0x1_0000_003f);
    let length = guest.pfns((0x4_0000..0x4_0080).rev().chain([0x5_0000]));
    guest.send(0, &[(BUFFER, length, 0)]);
    assert!(guest.serve(40), "129 pages are more than it may do");
    assert_eq!(guest.used(0), 0);
    while guest.serve(40) {}
    let pages: u64 = guest.done.iter().map(|done| if let Done::Inflate(_, pages) = done { *pages } else { 0 }).sum();
    assert_eq!((pages, guest.used(0), guest.done.last()), (129, 1, Some(&Done::Inflate(0x5000_0000, 1))));
    assert!(guest.done.len() <= 20, "{:?}", guest.done);
    assert!(guest.balloon.line());
    guest.balloon.write(0x64, 4, 1);
    assert!(!guest.balloon.line());
    let length = guest.pfns(0x4_0000..0x4_0002);
    guest.send(1, &[(BUFFER, length, 0)]);
    guest.until_short = 3;
    assert!(guest.serve(40), "no memory to read the buffer");
    guest.until_short = usize::MAX;
    assert!(!guest.serve(40));
    assert_eq!((guest.done.last(), guest.used(1)), (Some(&Done::Deflate(0x4000_0000, 2)), 1));
}

#[test]
fn what_it_is_and_what_its_queues_are_can_be_read() {
    let mut guest = Guest::new(0x3f);
    // The vendor; no shared memory regions (4.2.2).
    assert_eq!(guest.balloon.read(0xc, 4), u64::from(u32::from_le_bytes(*b"FLAT")));
    assert_eq!([0xb0, 0xb4, 0xb8, 0xbc].map(|at| guest.balloon.read(at, 4)), [0xffff_ffff; 4]);
    // QueueNumMax, QueueReady; of a queue that there is not.
    for (queue, sizes) in [(0, true), (4, true), (5, false), (u64::from(u32::MAX), false)] {
        guest.balloon.write(0x30, 4, queue);
        assert_eq!([0x34, 0x44].map(|at| guest.balloon.read(at, 4) != 0), [sizes; 2], "{queue}");
    }
    guest.balloon.write(0x30, 4, 1);
    // What is set of a queue that is in use makes no difference, being ready neither.
    let length = guest.pfns(0x4_0000..0x4_0002);
    guest.send(1, &[(BUFFER, length, 0)]);
    guest.serve(40);
    for (offset, value) in [(0x38, 3), (0x80, 0), (0x84, 9), (0x90, 1), (0x94, 9), (0xa0, 1), (0xa4, 9), (0x44, 1)] {
        guest.balloon.write(offset, 4, value);
    }
    guest.send(1, &[(BUFFER, length, 0)]);
    guest.serve(40);
    assert_eq!((guest.used(1), guest.balloon.broken()), (2, None));
    guest.balloon.write(0x44, 4, 0);
    assert_eq!(guest.balloon.read(0x44, 4), 0);
}

#[test]
fn a_queue_that_nobody_spoke_of_is_not_looked_at() {
    let mut guest = Guest::new(0x3f);
    let length = guest.pfns(0x4_0000..0x4_0002);
    for queue in [0, 1] {
        guest.offer(queue, &[(BUFFER, length, 0)]);
    }
    assert!(!guest.balloon.has_work() && !guest.serve(40));
    guest.balloon.write(0x50, 4, 1);
    assert!(guest.balloon.has_work());
    guest.serve(40);
    assert_eq!([0, 1].map(|queue| guest.used(queue)), [0, 1]);
}

/// A queue that the driver takes back and sets up again begins anew, with rings that are anew (virtio 1.2, 2.6.1).
#[test]
fn a_queue_that_is_set_up_again_begins_anew() {
    let mut guest = Guest::new(0x3f);
    for life in 0..3 {
        let length = guest.pfns(0x4_0000..0x4_0002);
        for n in 0..=life {
            guest.send(0, &[(BUFFER, length, 0)]);
            while guest.serve(40) {}
            assert_eq!(guest.used(0), n + 1, "life {life}");
        }
        // One is under way.
        let length = guest.pfns((0..300).map(|n| 0x8_0000 + 2 * n));
        guest.send(0, &[(BUFFER, length, 0)]);
        assert!(guest.serve(40));
        for (offset, value) in [(0x30, 0), (0x44, 0)] {
            guest.balloon.write(offset, 4, value);
        }
        while guest.serve(40) {}
        assert_eq!(guest.used(0), life + 1, "what was under way is not");
        guest.put(RAM, &[0; 0x2000]);
        guest.made[0] = 0;
        guest.balloon.write(0x44, 4, 1);
    }
}

/// However long a buffer is, others wait for a few pages of it only.
#[test]
fn a_long_buffer_is_done_in_steps() {
    let mut guest = Guest::new(0x3f);
    let bytes = 0x40_0000_u32;
    let start = RAM + 0x80;
    guest.send(4, &[(start, bytes, 2)]);
    let length = guest.pfns((0..300).map(|n| 0x8_0000 + 2 * n));
    guest.send(0, &[(BUFFER, length, 0)]);
    guest.until_late = 20;
    let mut steps = 0;
    loop {
        let before = guest.done.len();
        let more = guest.serve(512);
        let pages = |done: &Done| match *done {
            Done::Inflate(_, pages) | Done::Deflate(_, pages) => pages,
            Done::Report(_, bytes) => bytes >> 12,
        };
        let pages: u64 = guest.done[before..].iter().map(pages).sum();
        assert!(pages <= 21, "{pages} pages in one step: {:?}", &guest.done[before..]);
        steps += 1;
        if !more {
            break;
        }
    }
    assert!(steps > 1323 / 21, "{steps}");
    let mut next = RAM + 0x1000;
    for done in &guest.done {
        if let Done::Report(at, bytes) = *done {
            assert_eq!(at, next, "each page once, in order");
            next = at + bytes;
        }
    }
    assert_eq!(next, RAM + u64::from(bytes), "the whole pages of the buffer");
    let inflated = guest.done.iter().filter(|done| matches!(done, Done::Inflate(_, 1))).count();
    assert_eq!((inflated, guest.used(0), guest.used(4)), (300, 1, 1));
}

#[test]
fn a_buffer_is_given_back_once_whenever_memory_runs_short() {
    for until_short in 0..32 {
        let mut guest = Guest::new(0x3f);
        let length = guest.pfns(0x4_0000..0x4_0002);
        for queue in [0, 1] {
            guest.send(queue, &[(BUFFER, length, 0)]);
        }
        guest.send(2, &[(BUFFER, length, 0)]);
        guest.balloon.ask_stats();
        guest.until_short = until_short;
        guest.serve(40);
        guest.until_short = usize::MAX;
        guest.serve(40);
        assert_eq!([0, 1, 2].map(|queue| guest.used(queue)), [1; 3], "short after {until_short} accesses");
        assert!(!guest.balloon.has_work() && guest.balloon.line());
    }
}

#[test]
fn statistics_are_held_until_they_are_asked_for() {
    let mut guest = Guest::new(0x3f);
    let mut bytes = Vec::new();
    for (tag, value) in [(4_u16, 77_u64), (9999, 1), (6, 99)] {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    // A part of one more.
    bytes.extend([5, 0, 1]);
    guest.put(BUFFER, &bytes);
    guest.send(2, &[(BUFFER, bytes.len() as u32, 0)]);
    assert!(!guest.serve(40));
    let stats = *guest.balloon.stats();
    assert_eq!((stats.free(), stats.available(), stats.total(), stats.reports), (Some(77), Some(99), None, 1));
    assert_eq!(guest.used(2), 0);
    guest.balloon.ask_stats();
    assert!(guest.balloon.has_work() && !guest.serve(40));
    assert_eq!(guest.used(2), 1);
}

#[test]
fn free_pages_are_named_under_the_id_that_counts() {
    let mut guest = Guest::new(0x3f);
    guest.balloon.start_hinting();
    let id = guest.balloon.read(0x108, 4) as u32;
    let send = |guest: &mut Guest, id: u32| {
        guest.put(BUFFER, &id.to_le_bytes());
        guest.send(3, &[(BUFFER, 4, 0), (RAM + 0x20_0000, 0x40_0000, 2)]);
        guest.serve(400);
    };
    send(&mut guest, id - 1);
    assert!(guest.done.is_empty(), "an old id");
    send(&mut guest, id);
    assert_eq!(guest.done, [Done::Report(RAM + 0x20_0000, 0x40_0000)]);
    guest.put(BUFFER, &0_u32.to_le_bytes());
    guest.send(3, &[(BUFFER, 4, 0)]);
    guest.serve(40);
    assert!(!guest.balloon.is_hinting() && guest.balloon.read(0x108, 4) == 1, "DONE");
}

#[test]
fn a_driver_without_statistics_and_hints_has_its_reports_in_the_third_queue() {
    let mut guest = Guest::new(1 << 5);
    guest.send(2, &[(RAM + 0x800, 0x3000, 2), (RAM + 0x20_0000, 0x20_0000, 2)]);
    guest.serve(400);
    assert_eq!(guest.done, [Done::Report(RAM + 0x1000, 0x2000), Done::Report(RAM + 0x20_0000, 0x20_0000)]);
    assert_eq!(guest.used(2), 1);
}

#[test]
fn agreement_takes_version_1_and_nothing_unknown() {
    for (low, high, agreed) in [(0x3f, 1, true), (0x3f, 0, false), (0x7f, 1, false), (0, 3, false)] {
        let mut balloon = Balloon::new();
        for (offset, value) in [(0x70, 3), (0x24, 1), (0x20, high), (0x24, 0), (0x20, low), (0x70, 11)] {
            balloon.write(offset, 4, value);
        }
        assert_eq!(balloon.read(0x70, 4) & 8 != 0, agreed, "{high:x} {low:x}");
    }
    // A driver may say that it takes none of the features that there are no more of.
    for (value, agreed) in [(0, true), (1, false)] {
        let mut balloon = Balloon::new();
        for (offset, value) in [(0x70, 3), (0x24, 2), (0x20, value), (0x24, 1), (0x20, 1), (0x70, 11)] {
            balloon.write(offset, 4, value);
        }
        assert_eq!(balloon.read(0x70, 4) & 8 != 0, agreed, "{value}");
    }
    let generation = |balloon: &Balloon| balloon.read(0xfc, 4);
    let mut guest = Guest::new(0x3f);
    let before = generation(&guest.balloon);
    guest.balloon.set_target(99);
    assert_eq!((guest.balloon.read(0x100, 4), guest.balloon.line()), (99, true));
    assert_ne!(generation(&guest.balloon), before);
    guest.balloon.write(0x70, 4, 0);
    assert_eq!((guest.balloon.read(0x100, 4), guest.balloon.is_up(), guest.balloon.features()), (99, false, 0));
}

#[test]
fn a_driver_that_breaks_a_rule_gets_nothing_more() {
    type Break = fn(&mut Guest);
    let rules: [(Break, &str); 8] = [
        (|guest| guest.put(RAM + 0x1002, &[9, 0]), "more is available"),
        (|guest| guest.put(RAM + 0x1004, &[8, 0]), "no descriptor"),
        (|guest| guest.put(RAM + 12, &[4, 0]), "indirect"),
        (|guest| guest.put(RAM + 12, &[1, 0, 8, 0]), "next is none"),
        (|guest| guest.put(RAM + 12, &[1, 0, 0, 0]), "without an end"),
        (|guest| guest.put(RAM + 12, &[2, 0]), "for the device to write"),
        (|guest| guest.put(RAM, &u64::MAX.to_le_bytes()), "not in RAM"),
        (|guest| guest.put(RAM + 8, &u32::MAX.to_le_bytes()), "not in RAM"),
    ];
    for (damage, why) in rules {
        let mut guest = Guest::new(0x3f);
        let length = guest.pfns([1, 3].into_iter());
        guest.send(0, &[(BUFFER, length, 0)]);
        damage(&mut guest);
        while guest.serve(4000) {}
        let broken = guest.balloon.broken().unwrap_or("nothing");
        assert!(broken.contains(why), "{broken}, not {why}");
        assert_eq!((guest.balloon.read(0x70, 4) & 0x40, guest.balloon.line()), (0x40, true));
        let before = guest.done.len();
        guest.send(0, &[(BUFFER, 4, 0)]);
        assert!(!guest.serve(40) && guest.done.len() == before, "{why}");
    }
    // Free pages at the end of the address space.
    let mut guest = Guest::new(0x3f);
    guest.send(4, &[(u64::MAX - 8, 4, 2)]);
    guest.serve(40);
    assert!(guest.done.is_empty());
    for (offset, value) in [(0x38, 3), (0x38, 512), (0x80, 8)] {
        let mut balloon = Guest::new(0x3f).balloon;
        for (offset, value) in [(0x30, 0), (0x44, 0), (offset, value), (0x44, 1)] {
            balloon.write(offset, 4, value);
        }
        assert!(balloon.broken().is_some(), "{offset:#x} = {value}");
    }
}

#[test]
fn what_free_pages_are_full_of_is_said_once_a_driver() {
    let mut guest = Guest::new(0);
    assert_eq!((guest.balloon.take_filling(), guest.balloon.take_filling()), (Some(0), None));
    let mut guest = Guest::new(1 << 4);
    guest.balloon.write(0x10c, 4, 0xaaaa_aaaa);
    assert_eq!((guest.balloon.take_filling(), guest.balloon.take_filling()), (Some(0xaaaa_aaaa), None));
    guest.balloon.write(0x70, 4, 0);
    assert_eq!(guest.balloon.take_filling(), None, "no driver");
    guest.balloon.reset();
    assert_eq!(guest.balloon.take_filling(), None);
}

#[test]
fn registers_of_64_bits_are_two_of_32() {
    let mut transport = Transport::<2>::new(5, 1 << 3 | 1 << 40);
    let offered = [0, 1, 2].map(|half| {
        transport.write(0x14, 4, half);
        transport.read(0x10, 4)
    });
    let queues = INDIRECT_DESC;
    assert_eq!(offered, [1 << 3 | queues, 1 << 8 | 1, 0], "version 1 is bit 32");
    transport.write(0x30, 4, 1);
    for (n, register) in [0x80, 0x90, 0xa0].into_iter().enumerate() {
        transport.write(register, 4, 0x1000 * (n as u64 + 1));
        transport.write(register + 4, 4, 0x10 + n as u64);
        // Not a word: nothing.
        transport.write(register, 2, 0);
    }
    let Queue { descriptors, available, used, .. } = transport.queues[1];
    assert_eq!([descriptors, available, used], [0x10_0000_1000, 0x11_0000_2000, 0x12_0000_3000]);
    assert_eq!(transport.queues[0].descriptors, 0, "the one that is selected");
}

#[test]
fn a_target_is_what_it_was_set_to() {
    let mut balloon = Balloon::new();
    balloon.set_target(77);
    assert_eq!((balloon.target(), balloon.read(0x100, 4)), (77, 77));
}

#[test]
fn halves_of_the_features_are_accepted_in_either_order_and_again() {
    // Selector and value, one after the other; what was agreed on, if anything.
    let cases = [
        (&[(1, 1), (0, 0x25)][..], Some(0x1_0000_0025)),
        (&[(0, 0x25), (1, 1)], Some(0x1_0000_0025)),
        (&[(0, 0x3f), (1, 1), (0, 0x01)], Some(0x1_0000_0001)),
        (&[(0, 0x01), (1, 3), (1, 1)], Some(0x1_0000_0001)),
        (&[(2, 0), (0, 0x01), (1, 1)], Some(0x1_0000_0001)),
        // Without VIRTIO_F_VERSION_1, with what was not offered.
        (&[(0, 0x01), (1, 0)], None),
        (&[(0, 0x01), (1, 1), (2, 1)], None),
    ];
    for (writes, agreed) in cases {
        let mut balloon = Balloon::new();
        [(0x70, 0), (0x70, 3)].into_iter().for_each(|(offset, value)| balloon.write(offset, 4, value));
        for (selector, value) in writes {
            balloon.write(0x24, 4, *selector);
            balloon.write(0x20, 4, *value);
        }
        balloon.write(0x70, 4, 11);
        assert_eq!(balloon.read(0x70, 4) & 8 != 0, agreed.is_some(), "{writes:?}");
        if let Some(agreed) = agreed {
            assert_eq!(balloon.features(), agreed, "{writes:?}");
            // They are settled by then.
            balloon.write(0x24, 4, 0);
            balloon.write(0x20, 4, 0);
            assert_eq!(balloon.features(), agreed, "{writes:?}");
        }
    }
    // What is offered, in halves, and nothing behind.
    let mut balloon = Balloon::new();
    for (selector, offered) in [(0, 0x3f | INDIRECT_DESC), (1, 1), (2, 0)] {
        balloon.write(0x14, 4, selector);
        assert_eq!(balloon.read(0x10, 4), offered, "{selector}");
    }
}

#[test]
fn statistics_are_known_by_their_tags() {
    let mut guest = Guest::new(0x3f);
    assert_eq!(guest.balloon.stats().reports, 0);
    let mut bytes = Vec::new();
    // All that there are, one that is unknown, and one a second time.
    for (tag, value) in (0..10_u16).map(|tag| (tag, 1000 + u64::from(tag))).chain([(77, 5), (4, 4444)]) {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    guest.put(BUFFER, &bytes);
    guest.send(2, &[(BUFFER, bytes.len() as u32, 0)]);
    while guest.serve(40) {}
    let stats = *guest.balloon.stats();
    assert_eq!(
        (stats.free(), stats.total(), stats.available(), stats.reports),
        (Some(4444), Some(1005), Some(1006), 1)
    );
    // The buffer is the device's until it asks.
    assert_eq!(guest.used(2), 0);
    guest.balloon.ask_stats();
    assert!(guest.balloon.has_work());
    while guest.serve(40) {}
    assert_eq!(guest.used(2), 1);
    // Who has not agreed to statistics is not asked.
    let mut guest = Guest::new(0x3f & !2);
    guest.balloon.ask_stats();
    let length = guest.pfns(0x4_0000..0x4_0001);
    guest.send(2, &[(BUFFER, length, 0)]);
    while guest.serve(40) {}
    assert_eq!(guest.balloon.stats().reports, 0);
}

#[test]
fn hints_are_asked_of_who_agreed_to_them_by_ids_that_do_not_repeat() {
    let mut guest = Guest::new(0x3f & !8);
    guest.balloon.start_hinting();
    assert!(!guest.balloon.is_hinting() && guest.balloon.read(0x108, 4) == 0);
    let mut guest = Guest::new(0x3f);
    guest.balloon.write(0x64, 4, 3);
    for id in 2..5 {
        guest.balloon.start_hinting();
        assert!(guest.balloon.is_hinting() && guest.balloon.line());
        assert_eq!(guest.balloon.read(0x108, 4), id);
        guest.balloon.write(0x64, 4, 3);
        guest.balloon.stop_hinting();
        assert_eq!((guest.balloon.read(0x108, 4), guest.balloon.line()), (1, true), "VIRTIO_BALLOON_CMD_ID_DONE");
        guest.balloon.write(0x64, 4, 3);
        guest.balloon.stop_hinting();
        assert!(!guest.balloon.line(), "it is told once");
    }
    // Who says that it is done with what it has not begun with is not.
    let mut guest = Guest::new(0x3f);
    guest.balloon.start_hinting();
    for (id, is_hinting) in [(0, true), (9, true), (0, true), (2, true), (0, false)] {
        guest.put(BUFFER, &u32::to_le_bytes(id));
        guest.send(3, &[(BUFFER, 4, 0)]);
        while guest.serve(40) {}
        assert_eq!(guest.balloon.is_hinting(), is_hinting, "after {id}");
    }
    // A command id has four bytes; one of three breaks a rule.
    for (bytes, is_broken) in [(4, false), (8, false), (3, true)] {
        let mut guest = Guest::new(0x3f);
        guest.balloon.start_hinting();
        guest.put(BUFFER, &2_u64.to_le_bytes());
        guest.send(3, &[(BUFFER, bytes, 0)]);
        while guest.serve(40) {}
        assert_eq!(guest.balloon.broken().is_some(), is_broken, "{bytes} bytes");
    }
}

#[test]
fn what_the_driver_says_of_its_balloon_is_taken_in_words() {
    let mut guest = Guest::new(0x3f);
    for (field, size, value, actual, poison) in [
        (0x104, 4, 77, 77, 0),
        (0x10c, 4, 0xaaaa_aaaa, 77, 0xaaaa_aaaa),
        (0x104, 2, 5, 77, 0xaaaa_aaaa),
        (0x104, 1, 5, 77, 0xaaaa_aaaa),
        (0x10c, 2, 5, 77, 0xaaaa_aaaa),
        (0x100, 4, 9, 77, 0xaaaa_aaaa),
        (0x108, 4, 9, 77, 0xaaaa_aaaa),
    ] {
        guest.balloon.write(field, size, value);
        assert_eq!(
            (guest.balloon.actual(), guest.balloon.poison()),
            (actual, Some(poison)),
            "{size} bytes at {field:#x}"
        );
        assert_eq!(
            [0x100, 0x104, 0x108, 0x10c].map(|at| guest.balloon.read(at, 4)),
            [0, actual.into(), 0, poison.into()]
        );
    }
    assert_eq!(guest.balloon.take_filling(), Some(0xaaaa_aaaa));
    assert_eq!(guest.balloon.take_filling(), None, "once");
}
