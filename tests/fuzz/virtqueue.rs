//! The balloon and its queues: a driver that does almost what it should, in memory that holds almost what it should. The
//! device does bounded work, stays within what it was given, and does nothing for a driver that broke the rules.

use crate::engine::{Rng, count, report};
use crate::guest::{Guest, RAM, nearly};
use flatland::addr::{Addr, Ipa};
use flatland::devices::device::Device as _;
use flatland::devices::virtio::balloon::{Balloon, Pages};
use flatland::devices::virtio::{Left, Ram, Violation};

const BYTES: usize = 1 << 16;
/// How seldom something is not as it should be.
const SELDOM: usize = 60;
const BUDGET: usize = 64;

struct Memory(Guest);

impl Ram for Memory {
    fn read(&mut self, at: Addr<Ipa>, into: &mut [u8]) -> Result<(), Violation> {
        self.0.read(at, into)
    }

    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), Violation> {
        self.0.write(at, bytes)
    }
}

impl Pages for Memory {
    fn inflate(&mut self, at: Addr<Ipa>, pages: u64) {
        assert!(at.bits().is_multiple_of(4096) && at.bits() >> 44 == 0 && (1..=16).contains(&pages));
        self.0.work += 1;
    }

    fn deflate(&mut self, at: Addr<Ipa>, pages: u64) {
        self.inflate(at, pages);
    }

    fn report(&mut self, at: Addr<Ipa>, bytes: u64) -> u64 {
        assert!((at.bits() | bytes).is_multiple_of(4096) && at.bits().checked_add(bytes).is_some());
        self.0.work += 1;
        // Half, or all.
        if self.0.work.is_multiple_of(2) { bytes } else { bytes.div_ceil(8192) * 4096 }
    }

    fn is_late(&self) -> bool {
        self.0.work.is_multiple_of(5)
    }
}

/// Where the parts of queue `n` are: descriptors, available and used ring.
fn parts(n: u64) -> [u64; 3] {
    [0, 0x1000, 0x1800].map(|part| RAM + n * 0x2000 + part)
}

fn set_up(rng: &mut Rng, balloon: &mut Balloon) {
    let mut write = |rng: &mut Rng, offset: u64, value: u64| {
        let value = nearly(rng, value, SELDOM);
        balloon.write(nearly(rng, offset, SELDOM), if rng.below(200) == 0 { 1 << rng.below(4) } else { 4 }, value);
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
        let buffer = nearly(rng, buffer, SELDOM);
        let bytes = [4, 40, 256, 1024, 4096, 1 << 21][rng.below(6)];
        let bytes = nearly(rng, bytes, SELDOM) as u32;
        let flags = match rng.below(20) {
            0 => rng.next() as u16,
            _ => [0, 1, 2, 3][rng.below(4)],
        };
        let next = rng.below(8) as u64;
        let next = nearly(rng, next, SELDOM) as u16;
        let mut descriptor = buffer.to_le_bytes().to_vec();
        descriptor.extend(bytes.to_le_bytes());
        descriptor.extend(flags.to_le_bytes());
        descriptor.extend(next.to_le_bytes());
        memory.0.put(descriptors + at * 16, &descriptor);
        let head = rng.below(8) as u64;
        memory.0.put(available + 4 + at * 2, &(nearly(rng, head, SELDOM) as u16).to_le_bytes());
    }
    let index = if rng.below(40) == 0 { rng.next() as u16 } else { turn };
    memory.0.put(available + 2, &index.to_le_bytes());
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
    let mut memory = Memory(Guest::new(rng, BYTES));
    set_up(rng, &mut balloon);
    for turn in 1..12 {
        for queue in 0..5 {
            fill(rng, &mut memory, queue, turn);
            balloon.write(0x50, 4, nearly(rng, queue, SELDOM));
        }
        match rng.below(8) {
            0 => balloon.set_target(rng.next() as u32),
            1 => balloon.ask_stats(),
            2 => balloon.start_hinting(),
            3 => balloon.stop_hinting(),
            _ => {}
        }
        let was_broken = balloon.broken().is_some();
        memory.0.work = 0;
        for _ in 0..4 {
            let before = memory.0.work;
            let left = balloon.serve(&mut memory, BUDGET);
            let work = memory.0.work - before;
            assert!(work <= 12 * (BUDGET + 8), "{work} accesses for a budget of {BUDGET}");
            assert!(!was_broken || work == 0, "a driver that broke the rules is served");
            if left == Left::Nothing {
                break;
            }
        }
        pages += memory.0.work;
        for _ in 0..4 {
            let (offset, size) = (rng.edge(), 1 << rng.below(4));
            let value = balloon.read(offset, size);
            assert!(size >= 8 || value >> (8 * size) == 0, "{value:#x} in {size} bytes at {offset:#x}");
        }
        used += usize::from(balloon.line());
    }
    (pages, used, balloon.broken().is_some())
}
