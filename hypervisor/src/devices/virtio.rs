//! Virtio devices, as plain state: the transport, the queues, the memory balloon, disks, network devices.
//!
//! [`mmio::Transport`] is what every device over virtio-mmio has, [`queue::Queue`] a split virtqueue, [`balloon::Balloon`],
//! [`blk::Blk`] and [`net::Net`] are devices made of both. A device reaches the guest's memory through [`Ram`] and does nothing by itself: the guest's writes
//! leave work, which whoever owns the device lets it do, a bounded part at a time.
//!
//! What a guest writes is read once and checked before it counts. A driver that breaks the rules of its queues gets
//! DEVICE_NEEDS_RESET, and nothing more is done for it until it resets the device.
//!
//! Follows virtio 1.2: 2 (basic facilities), 4.2 (MMIO), 5.1 (network), 5.2 (disk), 5.5 (balloon).

pub mod balloon;
pub mod blk;
pub mod mmio;
pub mod net;
pub mod queue;

use crate::addr::{Addr, Ipa};

/// Guest memory as a device sees it. Writes are seen by the guest in the order they are made.
pub trait Ram {
    /// Copies guest memory at `at` into `into`.
    fn read(&mut self, at: Addr<Ipa>, into: &mut [u8]) -> Result<(), Violation>;
    /// Copies `bytes` to guest memory at `at`.
    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), Violation>;
}

/// Why guest memory cannot be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// It is no RAM: the guest's doing.
    Outside,
    /// There is no memory to be had just now: nobody's. Later it may work.
    Short,
}

/// Why a device stops what it was doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The driver broke a rule: this one.
    Broken(&'static str),
    /// For want of memory; it goes on from where it was.
    Short,
}

impl From<Violation> for Stop {
    fn from(fault: Violation) -> Self {
        match fault {
            Violation::Outside => Self::Broken("a queue or a buffer is not in RAM"),
            Violation::Short => Self::Short,
        }
    }
}

/// What a device leaves that served its queues.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Nothing.
    Nothing,
    /// Work that can go on at once.
    More,
    /// Work that needs memory that is not there.
    Stuck,
}

#[cfg(test)]
mod tests;
