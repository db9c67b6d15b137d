//! The driver of disks over a device that answers: well, badly, late or never.
//!
//! The device acts whenever the driver touches a register, or looks at the clock while it waits. It finds queue and frame
//! by the physical addresses that it was told, so these are checked with every request.

use platform::blk::{Cpu, Disk, InitError, PATIENCE, Queue, Registers, TransferError, Way};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Where queue and frame are in physical memory.
const QUEUE: u64 = 0x1_4000_0040;
const FRAME: u64 = 0x2_8000_3000;
/// Ticks of a second.
const SECOND: u64 = 1000;
/// What QueueNotify holds while nobody has written to it.
const QUIET: u32 = u32::MAX;

/// How the device behaves.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Mood {
    Good,
    /// Answers with this status and transfers nothing.
    Failing(u32),
    /// Transfers nothing and gives no status.
    Mute,
    /// Says that a request of another head is done.
    OtherHead,
    /// Says that this many requests are done.
    Jumps(u32),
    /// Answers after so many ticks.
    Slow(u64),
    /// Does not answer.
    Silent,
    /// Takes nothing, not even a reset.
    Dead,
    /// Does not accept the driver's features.
    Choosy,
    /// Its capacity changes whenever it is read.
    Unsteady,
}

struct Device {
    registers: Box<[AtomicU32; 0x108 / 4]>,
    queue: Box<Queue>,
    frame: RefCell<Vec<u8>>,
    disk: RefCell<BTreeMap<u64, Vec<u8>>>,
    mood: Cell<Mood>,
    features: Cell<[u32; 2]>,
    time: Cell<u64>,
    told_at: Cell<u64>,
    is_going: Cell<bool>,
    /// What became visible in which order: a fence, with what the available ring said; or a request.
    order: RefCell<Vec<(char, u32)>>,
}

/// The driver's reference to the registers.
#[derive(Clone, Copy)]
struct Bus<'a>(&'a Device);

impl Deref for Bus<'_> {
    type Target = Registers;
    fn deref(&self) -> &Registers {
        self.0.react();
        // SAFETY: the words are as many as the registers have bytes and aligned as they are; both allow changes through
        // a shared reference, and any bits are valid in both.
        unsafe { &*self.0.registers.as_ptr().cast::<Registers>() }
    }
}

impl Cpu for Device {
    fn fence(&self) {
        self.order.borrow_mut().push(('f', self.available()));
    }

    fn now(&self) -> u64 {
        self.time.set(self.time.get() + 1);
        self.react();
        self.time.get()
    }

    fn second(&self) -> u64 {
        SECOND
    }
}

impl Device {
    /// A device of 64 blocks.
    fn new() -> Self {
        let device = Self {
            registers: Box::new([const { AtomicU32::new(0) }; 0x108 / 4]),
            queue: Box::default(),
            frame: RefCell::new(vec![0; 4096]),
            disk: RefCell::default(),
            mood: Cell::new(Mood::Good),
            features: Cell::new([0x254, 1]),
            time: Cell::new(0),
            told_at: Cell::new(0),
            is_going: Cell::new(false),
            order: RefCell::default(),
        };
        let contents = [(0x000, 0x7472_6976), (0x004, 2), (0x008, 2), (0x034, 256), (0x050, QUIET), (0x100, 64 * 8)];
        contents.into_iter().for_each(|(at, value)| device.set(at, value));
        device
    }

    fn get(&self, at: usize) -> u32 {
        self.registers[at / 4].load(Relaxed)
    }

    fn set(&self, at: usize, value: u32) {
        self.registers[at / 4].store(value, Relaxed);
    }

    fn open(&self) -> Result<Disk<'_, Bus<'_>>, InitError> {
        let disk = Disk::open(Bus(self), &self.queue, QUEUE, self);
        self.react();
        disk
    }

    /// A word of the queue's memory, by physical address.
    fn word(&self, at: u64) -> &AtomicU32 {
        let offset = usize::try_from(at - QUEUE).unwrap();
        assert!(offset + 4 <= size_of::<Queue>() && offset.is_multiple_of(4), "{at:#x} is not in the queue");
        // SAFETY: inside the queue, which is aligned to 64 bytes and consists of atomics; nothing else runs.
        unsafe { &*(&raw const *self.queue).byte_add(offset).cast::<AtomicU32>() }
    }

    fn half(&self, at: u64) -> u32 {
        self.word(at & !3).load(Relaxed) >> (8 * (at & 3)) & 0xffff
    }

    fn set_half(&self, at: u64, value: u32) {
        let shift = 8 * (at & 3);
        let word = self.word(at & !3);
        word.store(word.load(Relaxed) & !(0xffff << shift) | (value & 0xffff) << shift, Relaxed);
    }

    fn long(&self, at: u64) -> u64 {
        u64::from(self.word(at).load(Relaxed)) | u64::from(self.word(at + 4).load(Relaxed)) << 32
    }

    /// Where one of the three areas is, as the driver has said.
    fn area(&self, low: usize) -> u64 {
        u64::from(self.get(low)) | u64::from(self.get(low + 4)) << 32
    }

    fn available(&self) -> u32 {
        let area = self.area(0x90);
        if area == 0 { 0 } else { self.half(area + 2) }
    }

    fn react(&self) {
        let status = self.get(0x70);
        match self.mood.get() {
            Mood::Dead => return self.set(0x70, status | 0x40),
            Mood::Choosy => self.set(0x70, status & !8),
            Mood::Unsteady => self.set(0xfc, self.get(0xfc) + 1),
            _ => {}
        }
        if status == 0 {
            // A reset.
            self.set(0x44, 0);
            self.set(0x50, QUIET);
            self.is_going.set(false);
        }
        if status & 4 != 0 && self.get(0x44) == 1 && !self.is_going.replace(true) {
            assert_eq!(self.available(), 0, "it begins with an empty ring");
        }
        self.set(0x10, self.features.get().get(self.get(0x14) as usize).copied().unwrap_or(0));
        if self.get(0x50) == 0 {
            if self.told_at.get() == 0 {
                self.told_at.set(self.time.get());
            }
            let is_due = match self.mood.get() {
                Mood::Silent => false,
                Mood::Slow(ticks) => self.time.get() >= self.told_at.get() + ticks,
                _ => true,
            };
            if is_due {
                self.told_at.set(0);
                self.set(0x50, QUIET);
                self.serve();
            }
        }
    }

    /// Serves the request that the ring tells of, as a careful device: all of it is checked.
    fn serve(&self) {
        assert_eq!((self.get(0x70), self.get(0x38), self.get(0x44)), (0xf, 4, 1), "the device was not told to go");
        let (descriptors, used) = (self.area(0x80), self.area(0xa0));
        let made = self.available();
        self.order.borrow_mut().push(('r', made));
        assert_eq!(made, self.half(used + 2).wrapping_add(1) & 0xffff, "one at a time");
        assert_eq!(self.half(self.area(0x90)), 1, "no interrupts");
        let slot = u64::from(made.wrapping_sub(1) % 4);
        let head = self.half(self.area(0x90) + 4 + 2 * slot);
        let descriptor = |n: u32| {
            let at = descriptors + 16 * u64::from(n);
            (self.long(at), self.word(at + 8).load(Relaxed), self.half(at + 12), self.half(at + 14))
        };
        let (header, 16, 1, next) = descriptor(head) else { panic!("a header of 16 bytes to read") };
        let (data, 4096, flags, next) = descriptor(next) else { panic!("a page of data") };
        let (status, 1, 2, _) = descriptor(next) else { panic!("a status of one byte to write") };
        let (kind, sector) = (self.long(header), self.long(header + 8));
        assert_eq!((data, kind, sector % 8), (FRAME, u64::from(flags == 1), 0));
        let word = self.word(status);
        let mut answer = 0;
        match self.mood.get() {
            Mood::Failing(error) => answer = error,
            Mood::Mute => answer = word.load(Relaxed) & 0xff,
            _ if kind == 1 => _ = self.disk.borrow_mut().insert(sector, self.frame.borrow().clone()),
            _ => *self.frame.borrow_mut() = self.disk.borrow().get(&sector).cloned().unwrap_or(vec![0xdd; 4096]),
        }
        word.store(word.load(Relaxed) & !0xff | answer, Relaxed);
        self.word(used + 4 + 8 * slot).store(head + u32::from(self.mood.get() == Mood::OtherHead), Relaxed);
        self.set_half(used + 2, if let Mood::Jumps(by) = self.mood.get() { made.wrapping_add(by) } else { made });
    }
}

fn page(seed: u32) -> Vec<u8> {
    (0..1024_u32).flat_map(|n| n.wrapping_add(seed).wrapping_mul(0x9e37_79b9).to_le_bytes()).collect()
}

#[test]
fn a_slot_with_a_disk_is_told_from_others() {
    let device = Device::new();
    assert!(Bus(&device).is_disk());
    device.set(0x008, 0);
    assert!(!Bus(&device).is_disk(), "an empty slot");
    device.set(0x008, 2);
    device.set(0x000, 0);
    assert!(!Bus(&device).is_disk());
}

#[test]
fn blocks_come_back_as_they_went_however_often_the_ring_turns() {
    let device = Device::new();
    let mut disk = device.open().unwrap();
    assert_eq!((disk.blocks(), device.get(0x20), device.get(0x24)), (64, 1, 1), "VERSION_1 and nothing else");
    for block in 0..64 {
        device.frame.replace(page(block));
        assert_eq!(disk.transfer(Way::Out, block, FRAME, &device), Ok(()));
    }
    assert!(device.disk.borrow().keys().copied().eq((0..64).map(|block| block * 8)));
    for n in 0..70_000 {
        device.frame.borrow_mut()[..8].fill(0xee);
        assert_eq!(disk.transfer(Way::In, n % 64, FRAME, &device), Ok(()), "request {n}");
        if n % 640 < 64 {
            assert!(*device.frame.borrow() == page(n % 64), "block {}", n % 64);
        }
    }
}

#[test]
fn a_request_is_fenced_from_the_ring_and_the_ring_from_the_notification() {
    let device = Device::new();
    let mut disk = device.open().unwrap();
    for n in 1..4 {
        device.order.borrow_mut().clear();
        disk.transfer(Way::In, 5, FRAME, &device).unwrap();
        let expected = [('f', n - 1), ('f', n), ('r', n), ('f', n)];
        assert_eq!(device.order.borrow()[..], expected, "request, ring, notification, answer");
    }
}

#[test]
fn a_device_that_is_of_no_use_is_refused() {
    let refusal = |prepare: &dyn Fn(&Device)| {
        let device = Device::new();
        device.set(0x70, 0xf);
        prepare(&device);
        let why = device.open().map(|disk| disk.blocks()).unwrap_err();
        (why, device.get(0x70) & 0x84)
    };
    assert_eq!(refusal(&|device| device.set(0x004, 1)), (InitError::Version, 4), "left alone");
    assert_eq!(refusal(&|device| device.set(0x004, 3)).0, InitError::Version);
    assert_eq!(refusal(&|device| device.mood.set(Mood::Dead)).0, InitError::Stuck);
    assert_eq!(refusal(&|device| device.mood.set(Mood::Unsteady)), (InitError::Stuck, 0x80));
    assert_eq!(refusal(&|device| device.features.set([0x274, 1])), (InitError::ReadOnly, 0x80));
    assert_eq!(refusal(&|device| device.features.set([0x254, 2])), (InitError::Features, 0x80));
    assert_eq!(refusal(&|device| device.mood.set(Mood::Choosy)), (InitError::Features, 0x80));
    assert_eq!(refusal(&|device| device.set(0x100, 7)), (InitError::Small, 0x80));
    assert_eq!(refusal(&|device| device.set(0x034, 2)), (InitError::Queue, 0x80));
}

#[test]
fn a_queue_in_use_after_the_reset_is_refused() {
    // It reacts to nothing, hence not to the reset, but shows the status that was written.
    let device = Device::new();
    device.mood.set(Mood::Silent);
    device.features.set([0, 1]);
    let words: Vec<_> = device.registers.iter().map(|word| AtomicU32::new(word.load(Relaxed))).collect();
    words[0x10 / 4].store(1, Relaxed);
    words[0x44 / 4].store(1, Relaxed);
    // SAFETY: as in `Bus`.
    let registers = unsafe { &*words.as_ptr().cast::<Registers>() };
    let why = Disk::open(registers, &device.queue, QUEUE, &device).map(|disk| disk.blocks());
    assert_eq!(why, Err(InitError::Queue));
}

#[test]
fn more_blocks_than_can_be_numbered_are_not_used() {
    let device = Device::new();
    device.set(0x100, u32::MAX);
    device.set(0x104, u32::MAX);
    let mut disk = device.open().unwrap();
    assert_eq!(disk.blocks(), u32::MAX);
    assert_eq!(disk.transfer(Way::Out, u32::MAX - 1, FRAME, &device), Ok(()));
    assert!(device.disk.borrow().contains_key(&(0xffff_fffe * 8)));
    device.set(0x100, 8 * 3 + 7);
    device.set(0x104, 0);
    assert_eq!(device.open().unwrap().blocks(), 3, "and what is left of the last is none");
}

#[test]
fn a_block_that_fails_costs_that_block() {
    let device = Device::new();
    let mut disk = device.open().unwrap();
    for mood in [Mood::Failing(1), Mood::Failing(2), Mood::Failing(3), Mood::Failing(0xff), Mood::Mute] {
        device.mood.set(mood);
        assert_eq!(disk.transfer(Way::Out, 1, FRAME, &device), Err(TransferError::Failed));
        device.mood.set(Mood::Good);
        assert_eq!(disk.transfer(Way::Out, 2, FRAME, &device), Ok(()));
    }
    assert_eq!(disk.transfer(Way::In, 64, FRAME, &device), Err(TransferError::Absent));
    assert_eq!(disk.transfer(Way::In, u32::MAX, FRAME, &device), Err(TransferError::Absent));
    assert_eq!(disk.blocks(), 64);
}

#[test]
fn a_device_that_talks_nonsense_is_given_up() {
    for mood in [Mood::OtherHead, Mood::Jumps(1), Mood::Jumps(0xfffe), Mood::Jumps(0x8000)] {
        let device = Device::new();
        let mut disk = device.open().unwrap();
        disk.transfer(Way::Out, 1, FRAME, &device).unwrap();
        device.mood.set(mood);
        assert_eq!(disk.transfer(Way::In, 1, FRAME, &device), Err(TransferError::Lost), "{mood:?}");
        assert_eq!((disk.blocks(), device.get(0x70)), (0, 0), "it was reset");
        device.mood.set(Mood::Good);
        device.order.borrow_mut().clear();
        assert_eq!(disk.transfer(Way::In, 1, FRAME, &device), Err(TransferError::Absent));
        assert!(device.order.borrow().is_empty(), "it is not asked any more");
        let mut disk = device.open().unwrap();
        assert_eq!(disk.transfer(Way::In, 1, FRAME, &device), Ok(()), "until somebody takes it over again");
    }
}

#[test]
fn a_silent_device_is_given_up_after_two_seconds_and_not_before() {
    let device = Device::new();
    let mut disk = device.open().unwrap();
    device.mood.set(Mood::Slow(PATIENCE * SECOND - 10));
    assert_eq!(disk.transfer(Way::Out, 1, FRAME, &device), Ok(()));
    device.mood.set(Mood::Silent);
    let begin = device.time.get();
    assert_eq!(disk.transfer(Way::In, 1, FRAME, &device), Err(TransferError::Lost));
    let ticks = device.time.get() - begin;
    assert!((PATIENCE * SECOND..PATIENCE * SECOND + 20).contains(&ticks), "{ticks}");
    assert_eq!(disk.blocks(), 0);
}

#[test]
fn an_answer_counts_that_came_while_the_cpu_was_away() {
    let device = Device::new();
    let mut disk = device.open().unwrap();
    device.mood.set(Mood::Slow(5));
    let away = Away(&device, Cell::new(0));
    assert_eq!(disk.transfer(Way::Out, 1, FRAME, &away), Ok(()));
}

/// A CPU that is away for a minute after it has looked at the clock once.
struct Away<'a>(&'a Device, Cell<u32>);

impl Cpu for Away<'_> {
    fn fence(&self) {
        self.0.fence();
    }

    fn now(&self) -> u64 {
        self.1.set(self.1.get() + 1);
        if self.1.get() == 3 {
            self.0.time.set(self.0.time.get() + 60 * SECOND);
        }
        self.0.now()
    }

    fn second(&self) -> u64 {
        SECOND
    }
}

#[test]
fn a_device_that_takes_no_reset_is_told_apart() {
    let device = Device::new();
    let mut disk = device.open().unwrap();
    device.mood.set(Mood::Dead);
    let begin = device.time.get();
    assert_eq!(disk.transfer(Way::In, 1, FRAME, &device), Err(TransferError::Loose));
    assert!(device.time.get() - begin < 2 * PATIENCE * SECOND + 20);
    assert_eq!(disk.transfer(Way::In, 1, FRAME, &device), Err(TransferError::Absent));
}
