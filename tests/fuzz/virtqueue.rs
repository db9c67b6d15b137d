//! The balloon and its queues: a driver that does almost what it should, in memory that holds almost what it should. The
//! device does bounded work, stays within what it was given, and does nothing for a driver that broke the rules.

use crate::engine::{Rng, count, report};
use flatland::addr::{Addr, Ipa};
use flatland::devices::device::Device as _;
use flatland::devices::virtio::balloon::{Balloon, Pages};
use flatland::devices::virtio::{Left, Ram, Violation};

const RAM: u64 = 0x4000_0000;
const BYTES: usize = 1 << 16;
const BUDGET: usize = 64;

struct Memory {
    bytes: Vec<u8>,
    /// Accesses and pages since it was reset.
    work: usize,
    /// Every so many accesses there is no memory.
    short: usize,
}

impl Memory {
    fn range(&mut self, at: Addr<Ipa>, length: usize) -> Result<std::ops::Range<usize>, Violation> {
        self.work += 1;
        if self.short > 0 && self.work.is_multiple_of(self.short) {
            return Err(Violation::Short);
        }
        let start = at.bits().checked_sub(RAM).ok_or(Violation::Outside)? as usize;
        let end = start.checked_add(length).filter(|end| *end <= BYTES).ok_or(Violation::Outside)?;
        Ok(start..end)
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        let start = (at - RAM) as usize;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }
}

impl Ram for Memory {
    fn read(&mut self, at: Addr<Ipa>, into: &mut [u8]) -> Result<(), Violation> {
        let range = self.range(at, into.len())?;
        into.copy_from_slice(&self.bytes[range]);
        Ok(())
    }

    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), Violation> {
        let range = self.range(at, bytes.len())?;
        self.bytes[range].copy_from_slice(bytes);
        Ok(())
    }
}

impl Pages for Memory {
    fn inflate(&mut self, at: Addr<Ipa>, pages: u64) {
        assert!(at.bits().is_multiple_of(4096) && at.bits() >> 44 == 0 && (1..=16).contains(&pages));
        self.work += 1;
    }

    fn deflate(&mut self, at: Addr<Ipa>, pages: u64) {
        self.inflate(at, pages);
    }

    fn report(&mut self, at: Addr<Ipa>, bytes: u64) -> u64 {
        assert!((at.bits() | bytes).is_multiple_of(4096) && at.bits().checked_add(bytes).is_some());
        self.work += 1;
        // Half, or all.
        if self.work.is_multiple_of(2) { bytes } else { bytes.div_ceil(8192) * 4096 }
    }

    fn is_late(&self) -> bool {
        self.work.is_multiple_of(5)
    }
}

/// Where the parts of queue `n` are: descriptors, available and used ring.
fn parts(n: u64) -> [u64; 3] {
    [0, 0x1000, 0x1800].map(|part| RAM + n * 0x2000 + part)
}

/// A value, or now and then another.
fn nearly(rng: &mut Rng, value: u64) -> u64 {
    if rng.below(60) == 0 { rng.edge() } else { value }
}

fn set_up(rng: &mut Rng, balloon: &mut Balloon) {
    let mut write = |rng: &mut Rng, offset: u64, value: u64| {
        let value = nearly(rng, value);
        balloon.write(nearly(rng, offset), if rng.below(200) == 0 { 1 << rng.below(4) } else { 4 }, value);
    };
    write(rng, 0x70, 0);
    write(rng, 0x70, 3);
    write(rng, 0x24, 1);
    write(rng, 0x20, 1);
    write(rng, 0x24, 0);
    let features = if rng.below(4) == 0 { rng.next() & 0x3f } else { 0x3f };
    write(rng, 0x20, features);
    write(rng, 0x70, 11);
    for n in 0..5 {
        let [descriptors, available, used] = parts(n);
        let size = 1 << rng.below(9);
        for (offset, value) in
            [(0x30, n), (0x38, size), (0x80, descriptors), (0x90, available), (0xa0, used), (0x44, 1)]
        {
            write(rng, offset, value);
        }
    }
    write(rng, 0x70, 15);
}

fn fill(rng: &mut Rng, memory: &mut Memory, n: u64, turn: u16) {
    let [descriptors, available, _] = parts(n);
    for _ in 0..4 {
        let at = rng.below(8) as u64;
        let buffer = RAM + 0xa000 + (rng.next() & 0x3fff);
        let buffer = nearly(rng, buffer);
        let bytes = [4, 40, 256, 1024, 4096, 1 << 21][rng.below(6)];
        let bytes = nearly(rng, bytes) as u32;
        let flags = match rng.below(20) {
            0 => rng.next() as u16,
            _ => [0, 1, 2, 3][rng.below(4)],
        };
        let next = rng.below(8) as u64;
        let next = nearly(rng, next) as u16;
        let mut descriptor = buffer.to_le_bytes().to_vec();
        descriptor.extend(bytes.to_le_bytes());
        descriptor.extend(flags.to_le_bytes());
        descriptor.extend(next.to_le_bytes());
        memory.put(descriptors + at * 16, &descriptor);
        let head = rng.below(8) as u64;
        memory.put(available + 4 + at * 2, &(nearly(rng, head) as u16).to_le_bytes());
    }
    let index = if rng.below(40) == 0 { rng.next() as u16 } else { turn };
    memory.put(available + 2, &index.to_le_bytes());
}

#[test]
fn a_hostile_driver_costs_the_balloon_bounded_work() {
    let mut rng = Rng::new("virtqueue");
    let n = count(6000);
    let (mut pages, mut broken, mut used) = (0, 0, 0);
    for _ in 0..n {
        let one = check(&mut rng);
        pages += one.0;
        used += one.1;
        broken += usize::from(one.2);
    }
    assert!(pages > n && broken > n / 20 && broken < n && used > n / 10, "{pages} {broken} {used}");
    report("virtqueue", n);
}

/// One life of a driver: how much was done for it, how often it was told of that, and whether it broke the rules.
pub(crate) fn check(rng: &mut Rng) -> (usize, usize, bool) {
    let (mut pages, mut used) = (0, 0);
    let mut balloon = Balloon::new();
    let bytes = (0..BYTES).map(|_| rng.next() as u8 & rng.next() as u8 & rng.next() as u8).collect();
    let mut memory = Memory { bytes, work: 0, short: if rng.below(3) == 0 { 3 + rng.below(40) } else { 0 } };
    set_up(rng, &mut balloon);
    for turn in 1..12 {
        for queue in 0..5 {
            fill(rng, &mut memory, queue, turn);
            balloon.write(0x50, 4, nearly(rng, queue));
        }
        match rng.below(8) {
            0 => balloon.set_target(rng.next() as u32),
            1 => balloon.ask_stats(),
            2 => balloon.start_hinting(),
            3 => balloon.stop_hinting(),
            _ => {}
        }
        let was_broken = balloon.broken().is_some();
        memory.work = 0;
        for _ in 0..4 {
            let before = memory.work;
            let left = balloon.serve(&mut memory, BUDGET);
            let work = memory.work - before;
            assert!(work <= 12 * (BUDGET + 8), "{work} accesses for a budget of {BUDGET}");
            assert!(!was_broken || work == 0, "a driver that broke the rules is served");
            if left == Left::Nothing {
                break;
            }
        }
        pages += memory.work;
        for _ in 0..4 {
            let (offset, size) = (rng.edge(), 1 << rng.below(4));
            let value = balloon.read(offset, size);
            assert!(size >= 8 || value >> (8 * size) == 0, "{value:#x} in {size} bytes at {offset:#x}");
        }
        used += usize::from(balloon.line());
    }
    (pages, used, balloon.broken().is_some())
}
