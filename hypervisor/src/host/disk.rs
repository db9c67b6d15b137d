//! Disks between their devices and what holds their blocks.
//!
//! What a guest's driver asks for is carried out while its CPU is out of the guest for that, a bounded part at a time; the rest waits
//! as a request until it enters again. Lock: a disk is taken before its VM's memory.

use super::facts::Late;
use super::guest_ram::GuestRam;
use super::relief::Relief;
use super::{Here, Host};
use crate::addr::{Addr, Ipa};
use crate::devices::device::Device;
use crate::devices::disk::Disk;
use crate::devices::virtio::blk::{BLOCK, Storage, Trouble};
use crate::devices::virtio::queue::Segment;
use crate::devices::virtio::{Left, Ram, Violation};
use crate::devices::virtio_intid;
use crate::machine::Machine;
use crate::memory::blocks::{Loaded, Part, Pristine};
use crate::memory::{Memory, Miss};
use crate::vm::request;
use core::sync::atomic::Ordering;

/// For how many seconds a request may wait for memory before it fails.
const PATIENCE: u64 = 10;

/// A disk that begins as an image of the bundle's.
struct Image<'r, 'a, M: Machine> {
    host: &'a Host,
    merges: bool,
    ram: &'r mut GuestRam<'a, M>,
    disk: &'a Disk,
    late: Late<'a, M>,
}

impl<M: Machine> Image<'_, '_, M> {
    /// The block at `offset`: the part of it that is `bytes` long, and what the image has there.
    fn block(&self, offset: u64, bytes: u32) -> (Part, Pristine<'static>) {
        let start = offset - offset % BLOCK;
        let image = self.disk.image;
        // It lies in the bundle, which lies in memory.
        let from = usize::try_from(start).unwrap_or(usize::MAX).min(image.len());
        let end = from.saturating_add(BLOCK as usize).min(image.len());
        let there = image.get(from..end).unwrap_or_default();
        let part = Part { page: self.disk.start + start, offset: (offset % BLOCK) as usize, bytes: bytes as usize };
        let is_whole = there.len() as u64 == BLOCK;
        let frame = is_whole.then(|| self.host.facts.image_frame(there)).flatten();
        (part, Pristine { bytes: there, frame, is_lent: self.merges })
    }
}

/// Why a block could not be had.
fn trouble(miss: Miss) -> Trouble {
    match miss {
        // The block, since guest memory that is lost stops its VM when it is touched.
        Miss::Lost => Trouble::Disk,
        miss => Violation::from(miss).into(),
    }
}

impl<M: Machine> Ram for Image<'_, '_, M> {
    fn read(&mut self, at: Addr<Ipa>, into: &mut [u8]) -> Result<(), Violation> {
        self.ram.read(at, into)
    }

    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), Violation> {
        self.ram.write(at, bytes)
    }
}

impl<M: Machine> Storage for Image<'_, '_, M> {
    fn load(&mut self, offset: u64, to: Segment) -> Result<(), Trouble> {
        let (part, pristine) = self.block(offset, to.bytes);
        let load = |memory: &mut Memory, m, host: &Host| memory.load_block(m, &host.pool, part, pristine, to.at);
        let loaded = self.ram.change((to.at, to.bytes), load).map_err(trouble)?;
        if loaded == Loaded::Lent {
            self.disk.lent.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn store(&mut self, offset: u64, from: Segment) -> Result<(), Trouble> {
        let (part, pristine) = self.block(offset, from.bytes);
        let store = |memory: &mut Memory, m, host: &Host| memory.store_block(m, &host.pool, part, pristine, from.at);
        self.ram.change((from.at, from.bytes), store).map_err(trouble)
    }

    fn clear(&mut self, offset: u64, bytes: u32) -> Result<(), Trouble> {
        let (part, pristine) = self.block(offset, bytes);
        let clear = |memory: &mut Memory, m, host: &Host| memory.clear_block(m, &host.pool, part, pristine);
        self.ram.change((part.page, bytes), clear).map_err(trouble)
    }

    fn flush(&mut self) -> Result<(), Trouble> {
        // What a VM writes to an image lasts as long as its memory.
        Ok(())
    }

    fn is_late(&self) -> bool {
        self.late.is_now()
    }
}

impl Host {
    /// Does what the drivers of the VM's disks have asked for, or a part of it. What is left is a request; true if it can go on at
    /// once, when interrupts have been let in.
    pub(super) fn serve_disks<M: Machine>(&self, m: &M, here: Here<'_>) -> bool {
        let mut more = false;
        for disk in &here.vm.bus.disks {
            more |= self.serve_disk(m, here, disk);
        }
        more
    }

    pub(super) fn serve_disk<M: Machine>(&self, m: &M, here: Here<'_>, disk: &Disk) -> bool {
        let vm = here.vm;
        let mut blk = disk.blk.lock();
        if !blk.has_work() {
            return false;
        }
        let was = blk.line();
        let mut ram = GuestRam::new(self, vm, m);
        let late = self.facts.late(m);
        let left = blk.serve(&mut Image { host: self, merges: vm.merges, ram: &mut ram, disk, late });
        drop(ram);
        let line = blk.line();
        if line != was {
            self.line(m, vm, virtio_intid(disk.slot), line.into());
        }
        drop(blk);
        match left {
            Left::Nothing | Left::More => disk.stuck.store(0, Ordering::Relaxed),
            Left::Stuck => return self.find_memory(m, here, disk),
        }
        if left == Left::More {
            here.slot.requests.fetch_or(request::SERVE, Ordering::Relaxed);
        }
        left == Left::More
    }

    /// The disk waits for memory: finds some, or lets it wait, but not for ever.
    #[cold]
    fn find_memory<M: Machine>(&self, m: &M, here: Here<'_>, disk: &Disk) -> bool {
        here.slot.requests.fetch_or(request::SERVE, Ordering::Relaxed);
        if self.relieve(m, &mut || m.is_interrupt_pending()) != Relief::None {
            return true;
        }
        if self.has_waited(m, &disk.stuck, PATIENCE) {
            disk.stuck.store(0, Ordering::Relaxed);
            disk.blk.lock().give_up();
            if here.vm.logged.lock().is_new(disk.start.bits()) {
                let (vm, disk) = (&here.vm.name, &disk.name);
                self.console
                    .say(format_args!("{vm}: disk {disk}: no memory is left for what it writes; requests fail"));
            }
            return true;
        }
        false
    }
}
