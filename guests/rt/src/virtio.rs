//! A disk of the board's, as its driver has it: one request at a time over virtio-mmio (virtio 1.2, 4.2, 5.2), in RAM that is mapped where it is.

use crate::{cpu, mmio};
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

/// The first virtio-mmio slot, the bytes of one, and the interrupt of the first.
const SLOTS: u64 = 0x0a00_0000;
const STRIDE: u64 = 0x200;
const INTID: u32 = 48;

/// The queue's descriptors.
const SIZE: usize = 8;
/// Flags of a descriptor.
const NEXT: u64 = 1;
const WRITE: u64 = 2;

/// A request reads from the disk.
pub const IN: u32 = 0;
/// A request writes to it.
pub const OUT: u32 = 1;

#[repr(C, align(4096))]
struct Rings {
    descriptors: [[AtomicU64; 2]; SIZE],
    /// Flags, index, ring.
    available: [AtomicU16; 3 + SIZE],
    _aligned: [AtomicU32; 1],
    /// Flags and index as one; ring.
    used: [AtomicU32; 1 + 2 * SIZE],
    header: [AtomicU64; 2],
    status: AtomicU32,
}

static RINGS: Rings = Rings {
    descriptors: [const { [const { AtomicU64::new(0) }; 2] }; SIZE],
    available: [const { AtomicU16::new(0) }; 3 + SIZE],
    _aligned: [const { AtomicU32::new(0) }; 1],
    used: [const { AtomicU32::new(0) }; 1 + 2 * SIZE],
    header: [const { AtomicU64::new(0) }; 2],
    status: AtomicU32::new(0),
};

/// The disk in a slot.
#[derive(Clone, Copy)]
pub struct Disk {
    base: u64,
    slot: u32,
}

fn address<T>(of: &T) -> u64 {
    core::ptr::from_ref(of) as u64
}

impl Disk {
    /// What is in slot number `slot`.
    pub const fn in_slot(slot: u32) -> Self {
        Self { base: SLOTS + STRIDE * slot as u64, slot }
    }

    /// Sets the disk up; false if there is none. One at a time.
    pub fn open(self) -> bool {
        if self.read(0) != u32::from_le_bytes(*b"virt") || self.read(8) != 2 {
            return false;
        }
        // ACKNOWLEDGE and DRIVER; VIRTIO_F_VERSION_1 alone; FEATURES_OK.
        for (register, value) in [(0x70, 0), (0x70, 3), (0x24, 1), (0x20, 1), (0x24, 0), (0x20, 0), (0x70, 11)] {
            self.write(register, value);
        }
        let [table, available, used] =
            [address(&RINGS.descriptors), address(&RINGS.available), address(&RINGS.used)].map(|at| at as u32);
        let size = SIZE as u32;
        for (register, value) in [(0x30, 0), (0x38, size), (0x80, table), (0x90, available), (0xa0, used), (0x44, 1)] {
            self.write(register, value);
        }
        self.write(0x70, 15);
        true
    }

    /// Its interrupt.
    pub const fn intid(self) -> u32 {
        INTID + self.slot
    }

    fn read(self, register: u64) -> u32 {
        mmio::read32(self.base + register)
    }

    fn write(self, register: u64, value: u32) {
        mmio::write32(self.base + register, value);
    }

    /// How many sectors of 512 bytes it has.
    pub fn sectors(self) -> u64 {
        u64::from(self.read(0x100)) | u64::from(self.read(0x104)) << 32
    }

    /// Tells it that there may be a request.
    pub fn notify(self) {
        self.write(0x50, 0);
    }

    /// Takes its interrupt.
    pub fn acknowledge(self) {
        self.write(0x64, self.read(0x60));
    }

    /// How many requests are done, modulo 2^16.
    pub fn done(self) -> u16 {
        // The upper half.
        (RINGS.used[0].load(Ordering::Acquire) >> 16) as u16
    }

    /// Asks for `bytes` bytes from `sector` on to go to or from memory at `at`, and does not wait.
    pub fn ask(self, kind: u32, sector: u64, at: u64, bytes: u32) {
        let writes = if kind == IN { WRITE } else { 0 };
        RINGS.header[0].store(kind.into(), Ordering::Relaxed);
        RINGS.header[1].store(sector, Ordering::Relaxed);
        RINGS.status.store(0xff, Ordering::Relaxed);
        let chain = [
            (address(&RINGS.header), 16, NEXT),
            (at, u64::from(bytes), NEXT | writes),
            (address(&RINGS.status), 1, WRITE),
        ];
        for (n, (at, bytes, flags)) in (0..).zip(chain) {
            RINGS.descriptors[n][0].store(at, Ordering::Relaxed);
            RINGS.descriptors[n][1].store(bytes | flags << 32 | (n as u64 + 1) << 48, Ordering::Relaxed);
        }
        // The ring is zero: each chain begins at the first descriptor.
        let index = RINGS.available[1].load(Ordering::Relaxed);
        cpu::barrier();
        RINGS.available[1].store(index.wrapping_add(1), Ordering::Release);
        cpu::barrier();
        self.notify();
    }

    /// What the last request that is done came to: 0 is well.
    pub fn status(self) -> u8 {
        // The lowest byte.
        RINGS.status.load(Ordering::Acquire) as u8
    }
}
