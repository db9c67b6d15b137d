//! A VM's memory as its virtio devices see it while they serve their queues.
//!
//! A queue is a few pages that are read and written again and again: where they are is remembered for as long as the memory's lock is
//! held, under which nobody else changes that.

use super::Host;
use crate::addr::{Addr, Ipa, Pa, Size};
use crate::devices::virtio::net::Fault;
use crate::devices::virtio::{Ram, Violation};
use crate::machine::Machine;
use crate::memory::{Access, Memory, Miss, access};
use crate::vm::Vm;
use spin::mutex::SpinMutexGuard;

/// How many pages are remembered: a queue's three parts, and a request's header and status.
const PAGES: usize = 4;
const PAGE: usize = 4096;

/// A page of RAM, and what it may be accessed for.
#[derive(Clone, Copy)]
struct Known {
    page: Addr<Ipa>,
    frame: Addr<Pa>,
    is_writable: bool,
}

/// A VM's memory, which a device reads and writes; locked.
pub(super) struct GuestRam<'a, M: Machine> {
    host: &'a Host,
    m: &'a M,
    memory: SpinMutexGuard<'a, Memory>,
    known: [Option<Known>; PAGES],
}

impl From<Miss> for Violation {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::Short | Miss::Again => Self::Short,
            Miss::NotRam | Miss::Denied | Miss::Lost => Self::Outside,
        }
    }
}

impl<'a, M: Machine> GuestRam<'a, M> {
    /// The memory of `vm`, from now on locked.
    pub(super) fn new(host: &'a Host, vm: &'a Vm, m: &'a M) -> Self {
        Self { host, m, memory: vm.memory.lock(), known: core::array::from_fn(|_| None) }
    }

    /// Does something to the memory that leaves all pages where they are but those of `bytes` bytes from `at` on.
    pub(super) fn change<T>(
        &mut self,
        (at, bytes): (Addr<Ipa>, u32),
        change: impl FnOnce(&mut Memory, &'a M, &'a Host) -> T,
    ) -> T {
        let end = at.bits().saturating_add(bytes.into());
        for known in &mut self.known {
            *known = known
                .filter(|known| known.page.bits() >= end || at.bits() - at.offset_in(Size::Page) > known.page.bits());
        }
        change(&mut self.memory, self.m, self.host)
    }

    /// The frame of the page at `at`, and where in it that is.
    fn find(&mut self, at: Addr<Ipa>, access: Access) -> Result<(Addr<Pa>, usize), Miss> {
        let (page, offset) = (at.align_down(Size::Page), at.offset_in(Size::Page) as usize);
        // Below PAGES.
        let slot = (page.bits() >> 12) as usize % PAGES;
        let is_writable = access == Access::Write;
        if let Some(Some(known)) = self.known.get(slot)
            && known.page == page
            && (known.is_writable || !is_writable)
        {
            return Ok((known.frame, offset));
        }
        let frame = self.memory.ram_frame(self.m, &self.host.pool, page, access)?;
        if let Some(known) = self.known.get_mut(slot) {
            *known = Some(Known { page, frame, is_writable });
        }
        Ok((frame, offset))
    }
}

impl<M: Machine> GuestRam<'_, M> {
    /// Copies so many bytes from here to another's memory.
    pub(super) fn copy_to(
        &mut self,
        other: &mut Self,
        (from, to): (Addr<Ipa>, Addr<Ipa>),
        bytes: u32,
    ) -> Result<(), Fault> {
        let mut done = 0;
        while done < bytes {
            // A piece of both's pages; where they lie is known for the pages of a queue's buffers as long as this takes.
            let (source, target) = (from + u64::from(done), to + u64::from(done));
            let (frame, offset) = self.find(source, Access::Read).map_err(|miss| Fault::Sender(miss.into()))?;
            let (into, at) = other.find(target, Access::Write).map_err(|miss| Fault::Receiver(miss.into()))?;
            // At most a page, so it fits.
            let step = (bytes - done).min((PAGE - offset.max(at)) as u32);
            access::copy_words((self.m.frame(frame), offset), (self.m.frame(into), at), step as usize);
            done += step;
        }
        Ok(())
    }
}

impl<M: Machine> Ram for GuestRam<'_, M> {
    fn read(&mut self, at: Addr<Ipa>, into: &mut [u8]) -> Result<(), Violation> {
        if at.offset_in(Size::Page) as usize + into.len() > PAGE {
            return Ok(self.memory.read(self.m, &self.host.pool, at, into)?);
        }
        let (frame, offset) = self.find(at, Access::Read)?;
        access::copy_out(self.m.frame(frame), offset, into);
        Ok(())
    }

    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), Violation> {
        if at.offset_in(Size::Page) as usize + bytes.len() > PAGE {
            // What it takes may be other frames.
            self.known = [None; PAGES];
            self.memory.write(self.m, &self.host.pool, at, bytes)?;
        } else {
            let (frame, offset) = self.find(at, Access::Write)?;
            access::copy_in(self.m.frame(frame), offset, bytes);
        }
        // What is written next tells of this: a driver on another CPU must not see the index of a used ring before what
        // it counts (virtio 1.2, 2.7.8).
        self.m.publish();
        Ok(())
    }
}
