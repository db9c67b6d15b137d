//! The registers of virtio-mmio, version 2: what every device has, whatever it is.
//!
//! Follows virtio 1.2, 4.2.2 (registers), 3.1 (initialization), 2.1 (status). Registers are 32 bits and accessed as such;
//! other accesses read what they cover and write nothing.

use super::super::lane;
use super::queue::{INDIRECT_DESC, MOST, Queue};

/// VIRTIO_F_VERSION_1: without it there is no agreement.
pub const VERSION_1: u64 = 1 << 32;
/// Where a device's own configuration begins.
pub const CONFIG: u64 = 0x100;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// "FLAT": QEMU's own is "QEMU".
const VENDOR: u32 = u32::from_le_bytes(*b"FLAT");

/// Bits of the status (2.1).
mod status {
    pub(super) const DRIVER_OK: u32 = 4;
    pub(super) const FEATURES_OK: u32 = 8;
    pub(super) const NEEDS_RESET: u32 = 0x40;
    pub(super) const FAILED: u32 = 0x80;
}

/// InterruptStatus: a buffer was used; the configuration changed.
const USED: u32 = 1;
const CONFIGURED: u32 = 2;

/// The state behind the registers of a device with `N` queues.
#[derive(Clone, Debug)]
pub struct Transport<const N: usize> {
    id: u32,
    offered: u64,
    accepted: u64,
    offered_sel: u32,
    accepted_sel: u32,
    queue_sel: u32,
    status: u32,
    interrupt: u32,
    generation: u32,
    /// The queues, by number.
    pub queues: [Queue; N],
    /// Bit n: queue n was notified, and that has not been looked at.
    notified: u32,
    broken: Option<&'static str>,
}

impl<const N: usize> Transport<N> {
    /// A device of this kind that offers these features beside version 1 and indirect descriptors.
    pub fn new(id: u32, features: u64) -> Self {
        Self {
            id,
            offered: features | VERSION_1 | INDIRECT_DESC,
            accepted: 0,
            offered_sel: 0,
            accepted_sel: 0,
            queue_sel: 0,
            status: 0,
            interrupt: 0,
            generation: 0,
            queues: [Queue::default(); N],
            notified: 0,
            broken: None,
        }
    }

    /// Puts it into the state after power-on.
    pub fn reset(&mut self) {
        let generation = self.generation.wrapping_add(1);
        let mut queues = self.queues;
        queues.iter_mut().for_each(Queue::reset);
        *self = Self { generation, queues, ..Self::new(self.id, self.offered) };
    }

    /// What was agreed on, as far as it was.
    pub const fn features(&self) -> u64 {
        if self.status & status::FEATURES_OK != 0 { self.accepted } else { 0 }
    }

    /// Whether a driver uses the device.
    pub const fn is_up(&self) -> bool {
        self.status & (status::DRIVER_OK | status::NEEDS_RESET | status::FAILED) == status::DRIVER_OK
    }

    /// The interrupt line.
    pub const fn line(&self) -> bool {
        self.interrupt != 0
    }

    /// Which rule the driver broke, if it did.
    pub const fn broken(&self) -> Option<&'static str> {
        self.broken
    }

    /// What the guest reads below [`CONFIG`], `size` bytes.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        let queue = self.queues.get(self.queue_sel as usize);
        let word = match offset & !3 {
            0x000 => MAGIC,
            0x004 => 2,
            0x008 => self.id,
            0x00c => VENDOR,
            // Halves of 64 bits; the casts drop the other.
            0x010 if self.offered_sel == 0 => self.offered as u32,
            0x010 if self.offered_sel == 1 => (self.offered >> 32) as u32,
            0x034 => queue.map_or(0, |_| MOST.into()),
            0x044 => queue.map_or(0, |queue| queue.ready.into()),
            0x060 => self.interrupt,
            0x070 => self.status,
            // Shared memory regions: of none, the length and the base read as all ones (4.2.2).
            0x0b0..=0x0bc => u32::MAX,
            0x0fc => self.generation,
            _ => 0,
        };
        lane(word, offset, size)
    }

    /// The guest writes below [`CONFIG`]. True if that reset the device.
    pub fn write(&mut self, offset: u64, size: u8, value: u64) -> bool {
        if size != 4 {
            return false;
        }
        // Four bytes.
        let value = value as u32;
        match offset {
            0x014 => self.offered_sel = value,
            0x020 if self.status & status::FEATURES_OK == 0 => match self.accepted_sel {
                0 => self.accepted = self.accepted >> 32 << 32 | u64::from(value),
                1 => self.accepted = self.accepted & 0xffff_ffff | u64::from(value) << 32,
                // No such features: such a driver agrees to nothing.
                _ if value != 0 => self.accepted |= !self.offered,
                _ => {}
            },
            0x024 => self.accepted_sel = value,
            0x030 => self.queue_sel = value,
            // Which queue has work for us; that there is none is found out later.
            0x050 if value < N as u32 => self.notified |= 1 << value,
            0x064 => self.interrupt &= !value,
            0x070 if value == 0 => {
                self.reset();
                return true;
            }
            0x070 => self.set_status(value),
            _ => self.set_queue(offset, value),
        }
        false
    }

    fn set_status(&mut self, value: u32) {
        let mut new = value & 0xff & !status::NEEDS_RESET | self.status & status::NEEDS_RESET;
        let agreed = self.accepted & !self.offered == 0 && self.accepted & VERSION_1 != 0;
        // Once set it stays, and what was agreed on with it.
        if self.status & status::FEATURES_OK != 0 {
            new |= status::FEATURES_OK;
        } else if !agreed {
            new &= !(status::FEATURES_OK | status::DRIVER_OK);
        }
        self.status = new;
    }

    fn set_queue(&mut self, offset: u64, value: u32) {
        let features = self.features();
        let Some(queue) = self.queues.get_mut(self.queue_sel as usize) else { return };
        let low = |word: u64| word >> 32 << 32 | u64::from(value);
        let high = |word: u64| word & 0xffff_ffff | u64::from(value) << 32;
        match offset {
            // What is set while the queue is in use would be read twice.
            _ if queue.ready && offset != 0x044 => {}
            0x038 => queue.size = u16::try_from(value).unwrap_or(u16::MAX),
            0x044 if value & 1 == 0 => queue.ready = false,
            0x044 if queue.ready => {}
            0x044 if queue.is_sound() => queue.start(features),
            0x044 => self.fail("a queue's size or addresses cannot be"),
            0x080 => queue.descriptors = low(queue.descriptors),
            0x084 => queue.descriptors = high(queue.descriptors),
            0x090 => queue.available = low(queue.available),
            0x094 => queue.available = high(queue.available),
            0x0a0 => queue.used = low(queue.used),
            0x0a4 => queue.used = high(queue.used),
            _ => {}
        }
    }

    /// Which queues were notified since this was asked: a bit for each.
    pub const fn take_notified(&mut self) -> u32 {
        let notified = self.notified;
        self.notified = 0;
        notified
    }

    /// Leaves the queues of these bits for later.
    pub const fn notify(&mut self, queues: u32) {
        self.notified |= queues;
    }

    /// Whether some queue was notified.
    pub const fn is_notified(&self) -> bool {
        self.notified != 0
    }

    /// The driver gets to know that a buffer was used.
    pub const fn interrupt(&mut self) {
        self.interrupt |= USED;
    }

    /// The device's own configuration has changed.
    pub const fn configured(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if self.is_up() {
            self.interrupt |= CONFIGURED;
        }
    }

    /// The driver broke a rule: nothing is done until it resets the device (2.1.2).
    pub const fn fail(&mut self, why: &'static str) {
        self.broken = Some(why);
        if self.status & status::DRIVER_OK != 0 {
            self.interrupt |= CONFIGURED;
        }
        self.status |= status::NEEDS_RESET;
    }
}
