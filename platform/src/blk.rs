//! A disk: virtio-blk over virtio-mmio, polled, one request of one 4 KiB block at a time.
//!
//! Key types: [`Registers`], of a slot that the device tree calls `virtio,mmio`; [`Queue`], the memory that driver and
//! device share; [`Disk`], a device that has been taken over; and [`Cpu`], what the driver cannot do itself.
//!
//! Invariants: whatever the device answers, no call panics or waits longer than [`PATIENCE`] allows for each of its two
//! waits (for an answer, then for the reset that follows none). A device that breaks the protocol is reset and never
//! asked again. There is one chain of descriptors, at head 0, so a ring has nothing to say but how far it is. The device
//! is never told to interrupt, but a line that it raises all the same must be disabled at the interrupt controller.
//!
//! Order: the rings are atomics, released and acquired; as the device need not be in the CPUs' shareability domain, and
//! registers are not ordered with memory, there is a [`Cpu::fence`] as well wherever one side must not overtake.
//!
//! Follows Virtual I/O Device (VIRTIO) 1.2: 2.1 (status), 2.7 (split virtqueues), 3.1.1 (initialization), 4.2.2 (MMIO
//! registers), 5.2 (block device). All numbers are little-endian, as the CPU's are.

use crate::range::FRAME;
use core::fmt;
use core::mem::offset_of;
use core::ops::Deref;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use tock_registers::interfaces::{ReadWriteable, Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite, WriteOnly};
use tock_registers::{register_bitfields, register_structs};

/// How long a device may take to answer, in seconds.
pub const PATIENCE: u64 = 2;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const BLOCK_DEVICE: u32 = 2;
/// How many 512-byte sectors, the device's unit, make one block.
const SECTORS: u64 = FRAME / 512;
/// VIRTIO_BLK_F_RO (5.2.3), among features 0 to 31.
const READ_ONLY: u32 = 1 << 5;
/// VIRTIO_BLK_F_FLUSH, there too.
const FLUSH: u32 = 1 << 9;
/// VIRTIO_F_VERSION_1 (6), among features 32 to 63.
const VERSION_1: u32 = 1;
/// How often the capacity is read again because it changed meanwhile.
const TRIES: u32 = 4;

register_bitfields! {u32,
    /// Status, 2.1.
    STATUS [
        ACKNOWLEDGE OFFSET(0) NUMBITS(1) [],
        DRIVER OFFSET(1) NUMBITS(1) [],
        DRIVER_OK OFFSET(2) NUMBITS(1) [],
        FEATURES_OK OFFSET(3) NUMBITS(1) [],
        FAILED OFFSET(7) NUMBITS(1) []
    ]
}

register_structs! {
    /// The registers, at the base of the slot, up to the first of the block device's own.
    pub Registers {
        (0x000 => magic: ReadOnly<u32>),
        (0x004 => version: ReadOnly<u32>),
        (0x008 => device: ReadOnly<u32>),
        (0x00c => _vendor),
        (0x010 => device_features: ReadOnly<u32>),
        (0x014 => device_features_sel: WriteOnly<u32>),
        (0x018 => _reserved_18),
        (0x020 => driver_features: WriteOnly<u32>),
        (0x024 => driver_features_sel: WriteOnly<u32>),
        (0x028 => _reserved_28),
        (0x030 => queue_sel: WriteOnly<u32>),
        (0x034 => queue_size_max: ReadOnly<u32>),
        (0x038 => queue_size: WriteOnly<u32>),
        (0x03c => _reserved_3c),
        (0x044 => queue_ready: ReadWrite<u32>),
        (0x048 => _reserved_48),
        (0x050 => queue_notify: WriteOnly<u32>),
        (0x054 => _interrupts),
        (0x070 => status: ReadWrite<u32, STATUS::Register>),
        (0x074 => _reserved_74),
        // Descriptors, driver area, device area: low and high half of each, and a gap.
        (0x080 => queue_areas: [[WriteOnly<u32>; 4]; 3]),
        (0x0b0 => _shared_memory),
        (0x0fc => generation: ReadOnly<u32>),
        (0x100 => capacity: [ReadOnly<u32>; 2]),
        (0x108 => @END),
    }
}

/// What the driver needs of the CPU that it runs on.
pub trait Cpu {
    /// Keeps accesses to memory and to registers before it apart from those after it, for the whole system (DSB SY).
    fn fence(&self);
    /// A counter that goes on whatever happens, in ticks.
    fn now(&self) -> u64;
    /// The ticks of a second.
    fn second(&self) -> u64;
}

/// Why a device cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InitError {
    /// Its transport is not of version 2.
    Version,
    /// It does not come out of its reset, or cannot settle on a capacity: broken.
    Stuck,
    /// It is read-only.
    ReadOnly,
    /// It does without VERSION_1, or does not do with VERSION_1 alone.
    Features,
    /// It does not see what CPUs have in their caches. Found out by whoever opens it.
    Incoherent,
    /// It has no room for a block.
    Small,
    /// Its queue is too short for a request, or in use.
    Queue,
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "its virtio-mmio is not version 2 (QEMU: -global virtio-mmio.force-legacy=false)",
            Self::Stuck => "it does not settle after a reset",
            Self::ReadOnly => "it is read-only",
            Self::Features => "it does not accept virtio 1 without options",
            Self::Incoherent => "it does not see what is in caches (no dma-coherent in the device tree)",
            Self::Small => "it is smaller than a page",
            Self::Queue => "it has no free queue of 4",
        })
    }
}

/// Why a block was not transferred. After any of these the frame's contents are not to be relied on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransferError {
    /// There is no such block, or the device was given up earlier: it was not asked.
    Absent,
    /// The device tried and failed (5.2.6): this block only.
    Failed,
    /// The device did not answer in time, or answered what it was not asked: given up, and reset.
    Lost,
    /// As [`Lost`](Self::Lost), but the reset was not answered either: the device may still write to the frame.
    Loose,
}

/// Which way a block goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the disk into memory (VIRTIO_BLK_T_IN).
    In = 0,
    /// From memory to the disk (VIRTIO_BLK_T_OUT).
    Out = 1,
}

/// How many descriptors the queue has: a request takes three (header, data, status), and it is a power of two.
const SIZE: usize = 4;
/// Flags of a descriptor as they stand beside its length, and where the number of the next one stands.
const NEXT: u64 = 1 << 32;
const WRITE: u64 = 2 << 32;
const NEXT_AT: u32 = 48;
/// VIRTQ_AVAIL_F_NO_INTERRUPT.
const NO_INTERRUPT: u16 = 1;
/// A status that no device answers.
const NO_STATUS: u8 = 0xff;

/// The memory that driver and device share: a split virtqueue, and header and status of the one request. It must be
/// Normal memory, contiguous, and stay where it is for good.
#[repr(C, align(64))]
pub struct Queue {
    /// Each: address; length, flags and next.
    descriptors: [[AtomicU64; 2]; SIZE],
    /// Type, sector.
    header: [AtomicU64; 2],
    /// The device area (2.7.8): flags, how many requests are done, each one's head and length, an event nobody uses.
    used_flags: AtomicU16,
    used: AtomicU16,
    used_ring: [[AtomicU32; 2]; SIZE],
    used_event: AtomicU16,
    /// The driver area (2.7.6): flags, how many requests there are, the head of each, an event nobody uses.
    available_flags: AtomicU16,
    available: AtomicU16,
    available_ring: [AtomicU16; SIZE],
    available_event: AtomicU16,
    status: AtomicU8,
}

impl Queue {
    /// A queue that no device has.
    pub const fn new() -> Self {
        Self {
            descriptors: [const { [const { AtomicU64::new(0) }; 2] }; SIZE],
            header: [const { AtomicU64::new(0) }; 2],
            used_flags: AtomicU16::new(0),
            used: AtomicU16::new(0),
            used_ring: [const { [const { AtomicU32::new(0) }; 2] }; SIZE],
            used_event: AtomicU16::new(0),
            available_flags: AtomicU16::new(0),
            available: AtomicU16::new(0),
            available_ring: [const { AtomicU16::new(0) }; SIZE],
            available_event: AtomicU16::new(0),
            status: AtomicU8::new(0),
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new()
    }
}

impl Registers {
    /// Tells whether a block device is in the slot: most slots are empty.
    pub fn is_disk(&self) -> bool {
        self.magic.get() == MAGIC && self.device.get() == BLOCK_DEVICE
    }
}

/// Asks until there is an answer, or nothing for as long as the device may take.
fn wait<T>(cpu: &impl Cpu, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = cpu.now().saturating_add(cpu.second().saturating_mul(PATIENCE));
    loop {
        // The time first: if this CPU was away for long, the answer is there now.
        let is_late = cpu.now() >= end;
        let answer = ask();
        if answer.is_some() || is_late {
            return answer;
        }
        core::hint::spin_loop();
    }
}

/// Resets the device: once that is done, it leaves memory alone (2.4). Returns whether it is done.
fn reset(registers: &impl Deref<Target = Registers>, cpu: &impl Cpu) -> bool {
    registers.status.set(0);
    wait(cpu, || (registers.status.get() == 0).then_some(())).is_some()
}

/// Takes the device through 3.1.1 up to its queue, which is at physical address `at`. Returns its blocks.
fn begin(registers: &impl Deref<Target = Registers>, at: u64) -> Result<u32, InitError> {
    registers.status.write(STATUS::ACKNOWLEDGE::SET);
    registers.status.write(STATUS::ACKNOWLEDGE::SET + STATUS::DRIVER::SET);
    for (half, refused, wanted) in [(0, READ_ONLY, 0), (1, 0, VERSION_1)] {
        registers.device_features_sel.set(half);
        let offered = registers.device_features.get();
        if offered & refused != 0 {
            return Err(InitError::ReadOnly);
        }
        if offered & wanted != wanted {
            return Err(InitError::Features);
        }
        registers.driver_features_sel.set(half);
        // What can be flushed, and never is, need not be on the disk when it says so: nothing in a swap area outlives the
        // power. Devices without the feature may write through, page by page (virtio 1.2, 5.2.6.2).
        registers.driver_features.set(wanted | offered & if half == 0 { FLUSH } else { 0 });
    }
    let ready = STATUS::ACKNOWLEDGE::SET + STATUS::DRIVER::SET + STATUS::FEATURES_OK::SET;
    registers.status.write(ready);
    if !registers.status.is_set(STATUS::FEATURES_OK) {
        return Err(InitError::Features);
    }
    let blocks = sectors(registers).ok_or(InitError::Stuck)? / SECTORS;
    if blocks == 0 {
        return Err(InitError::Small);
    }
    registers.queue_sel.set(0);
    if registers.queue_ready.get() != 0 || registers.queue_size_max.get() < SIZE as u32 {
        return Err(InitError::Queue);
    }
    registers.queue_size.set(SIZE as u32);
    let areas = [offset_of!(Queue, descriptors), offset_of!(Queue, available_flags), offset_of!(Queue, used_flags)];
    for ([low, high, ..], offset) in registers.queue_areas.iter().zip(areas) {
        let area = at + offset as u64;
        // The low half is what is left of it.
        low.set(area as u32);
        high.set((area >> 32) as u32);
    }
    registers.queue_ready.set(1);
    registers.status.write(ready + STATUS::DRIVER_OK::SET);
    Ok(u32::try_from(blocks).unwrap_or(u32::MAX))
}

/// The device's capacity in sectors, both halves of the same moment (4.2.2.2).
fn sectors(registers: &impl Deref<Target = Registers>) -> Option<u64> {
    let [low, high] = &registers.capacity;
    (0..TRIES).find_map(|_| {
        let generation = registers.generation.get();
        let sectors = u64::from(low.get()) | u64::from(high.get()) << 32;
        (registers.generation.get() == generation).then_some(sectors)
    })
}

/// A disk that has been taken over, with its registers as `R` refers to them.
pub struct Disk<'a, R> {
    registers: R,
    queue: &'a Queue,
    /// Where `queue` is in physical memory.
    at: u64,
    /// None once the device has been given up.
    blocks: u32,
    /// How many requests have been made, modulo 2^16.
    requests: u16,
}

impl<'a, R: Deref<Target = Registers>> Disk<'a, R> {
    /// Takes over the device, which [is a disk](Registers::is_disk), with `queue`, at physical address `at`. Resets it,
    /// and nothing on it changes. Fails where the device cannot be used; `queue` is then free for another.
    pub fn open(registers: R, queue: &'a Queue, at: u64, cpu: &impl Cpu) -> Result<Self, InitError> {
        if registers.version.get() != 2 {
            return Err(InitError::Version);
        }
        if !reset(&registers, cpu) {
            return Err(InitError::Stuck);
        }
        queue.used.store(0, Ordering::Relaxed);
        queue.available.store(0, Ordering::Relaxed);
        queue.available_flags.store(NO_INTERRUPT, Ordering::Relaxed);
        cpu.fence();
        match begin(&registers, at) {
            Ok(blocks) => Ok(Self { registers, queue, at, blocks, requests: 0 }),
            Err(why) => {
                registers.status.modify(STATUS::FAILED::SET);
                Err(why)
            }
        }
    }

    /// How many blocks of 4 KiB it has; none once it has been given up.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Transfers `block` from or to the 4 KiB at physical address `frame`, and waits for it.
    ///
    /// The device sees memory as this CPU does. Nobody else may write to the frame meanwhile, nor read it on the way in.
    pub fn transfer(&mut self, way: Way, block: u32, frame: u64, cpu: &impl Cpu) -> Result<(), TransferError> {
        if block >= self.blocks {
            return Err(TransferError::Absent);
        }
        self.submit(way, block, frame, cpu);
        match wait(cpu, || self.poll(cpu)) {
            Some(Some(0)) => Ok(()),
            Some(Some(_)) => Err(TransferError::Failed),
            Some(None) | None => {
                self.blocks = 0;
                Err(if reset(&self.registers, cpu) { TransferError::Lost } else { TransferError::Loose })
            }
        }
    }

    /// Makes a request.
    fn submit(&mut self, way: Way, block: u32, frame: u64, cpu: &impl Cpu) {
        let Queue { descriptors: [first, second, third, _], header: [kind, sector], .. } = self.queue;
        let data = if way == Way::In { NEXT | WRITE } else { NEXT };
        let (header, status) = (self.at + offset_of!(Queue, header) as u64, self.at + offset_of!(Queue, status) as u64);
        for (words, values) in [
            ([kind, sector], [way as u64, u64::from(block) * SECTORS]),
            ([&first[0], &first[1]], [header, 16 | NEXT | 1 << NEXT_AT]),
            ([&second[0], &second[1]], [frame, FRAME | data | 2 << NEXT_AT]),
            ([&third[0], &third[1]], [status, 1 | WRITE]),
        ] {
            words.into_iter().zip(values).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
        }
        self.queue.status.store(NO_STATUS, Ordering::Relaxed);
        self.requests = self.requests.wrapping_add(1);
        // The request, and what is in the frame, before it counts; that before the device is told.
        cpu.fence();
        self.queue.available.store(self.requests, Ordering::Release);
        cpu.fence();
        self.registers.queue_notify.set(0);
    }

    /// Looks for the answer to the request: nothing yet, or its status, or nothing that makes sense.
    fn poll(&self, cpu: &impl Cpu) -> Option<Option<u8>> {
        let before = self.requests.wrapping_sub(1);
        let used = self.queue.used.load(Ordering::Acquire);
        if used == before {
            return None;
        }
        // That it is done, before what was done.
        cpu.fence();
        let [head, _] = self.queue.used_ring.get(usize::from(before) % SIZE)?;
        let is_ours = used == self.requests && head.load(Ordering::Relaxed) == 0;
        Some(is_ours.then(|| self.queue.status.load(Ordering::Relaxed)))
    }
}
