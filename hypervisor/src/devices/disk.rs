//! A disk of a VM: its device, and the image that it begins as.

use super::RAM_BASE;
use super::virtio::blk::{Blk, SECTOR};
use crate::addr::{Addr, Ipa};
use crate::bundle::VmSpec;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;
use spin::mutex::SpinMutex;

/// The virtio slot of the first disk, behind the balloon's.
const FIRST_SLOT: u8 = 1;

/// A disk.
#[derive(Debug)]
pub struct Disk {
    /// Its name in the manifest.
    pub name: String,
    /// The virtio-mmio slot it is in.
    pub slot: u8,
    /// The device; to be locked before the VM's memory.
    pub blk: SpinMutex<Blk>,
    /// What is on it at first.
    pub image: &'static [u8],
    /// Where in the VM's memory, behind its RAM, the blocks are that it has changed.
    pub start: Addr<Ipa>,
    /// How many blocks were lent when they were read.
    pub lent: AtomicU64,
    /// Since when it waits for memory, by the system counter; 0 if it does not.
    pub stuck: AtomicU64,
}

/// The disks of a VM.
pub fn disks_of(spec: &VmSpec<'static>) -> Vec<Disk> {
    let mut start = RAM_BASE + spec.memory;
    (FIRST_SLOT..)
        .zip(&spec.disks)
        .map(|(slot, disk)| {
            let sectors = disk.image.len() as u64 / SECTOR;
            let made = Disk {
                name: disk.name.to_string(),
                slot,
                blk: SpinMutex::new(Blk::new(sectors, disk.read_only, disk.name)),
                image: disk.image,
                start,
                lent: AtomicU64::new(0),
                stuck: AtomicU64::new(0),
            };
            start = start + disk.block_bytes();
            made
        })
        .collect()
}
