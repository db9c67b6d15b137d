//! The balloon between its device and the VM's memory.
//!
//! What the guest's driver says is carried out while its CPU is out of the guest for that, a bounded part at a time; the
//! rest waits as a request until it enters again. Lock: a VM's balloon is taken before its memory.

use super::facts::Late;
use super::{Here, Host};
use crate::addr::{Addr, IntId, Ipa};
use crate::arm::desc::Hole;
use crate::devices::device::Device;
use crate::devices::virtio::balloon::Pages;
use crate::devices::virtio::{Left, Ram, Violation};
use crate::devices::virtio_intid;
use crate::frames::Work;
use crate::machine::Machine;
use crate::memory::{Memory, Miss};
use crate::vm::{Vm, request};
use core::sync::atomic::Ordering;

/// How many page numbers or buffers of a balloon's are done at a time.
const BUDGET: usize = 512;
/// The balloon's interrupt: that of the first virtio slot.
const BALLOON_INTID: IntId = virtio_intid(0);

/// A VM's memory as its balloon sees it.
struct Given<'a, M: Machine> {
    host: &'a Host,
    vm: &'a Vm,
    m: &'a M,
    /// What a page that is only free just now leaves: one that comes back full of what the guest said, if it said so.
    free: Hole,
    late: Late<'a, M>,
}

impl<M: Machine> Given<'_, M> {
    fn copy(&self, mut copy: impl FnMut(&mut Memory) -> Result<(), Miss>) -> Result<(), Violation> {
        Ok(self.host.with_relief(self.m, || copy(&mut self.vm.memory.lock()))?)
    }
}

impl<M: Machine> Ram for Given<'_, M> {
    fn read(&mut self, at: Addr<Ipa>, into: &mut [u8]) -> Result<(), Violation> {
        self.copy(|memory| memory.read(self.m, &self.host.pool, at, into))
    }

    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), Violation> {
        self.copy(|memory| memory.write(self.m, &self.host.pool, at, bytes))?;
        // What is written next tells of this: a driver on another CPU must not see the index of a used ring before what
        // it counts (virtio 1.2, 2.7.8).
        self.m.publish();
        Ok(())
    }
}

impl<M: Machine> Pages for Given<'_, M> {
    fn inflate(&mut self, at: Addr<Ipa>, pages: u64) {
        let start = self.m.now();
        // So few that it cannot be late for them all.
        self.vm.memory.lock().give_up(self.m, &self.host.pool, at, pages, Hole::Ballooned, &mut || false);
        self.host.pool.costs().add(Work::Inflate, pages, self.m.now().wrapping_sub(start));
    }

    fn deflate(&mut self, at: Addr<Ipa>, pages: u64) {
        self.vm.memory.lock().take_back(self.m, &self.host.pool, at, pages);
    }

    fn report(&mut self, at: Addr<Ipa>, bytes: u64) -> u64 {
        let is_late = &mut || self.is_late();
        self.vm.memory.lock().give_up(self.m, &self.host.pool, at, bytes >> 12, self.free, is_late) << 12
    }

    fn is_late(&self) -> bool {
        self.late.is_now()
    }
}

impl Host {
    /// Does what the driver of a balloon has asked for, or a part of it. What is left is a request; true if it can go on at
    /// once, when interrupts have been let in.
    pub fn serve_balloon<M: Machine>(&self, m: &M, here: Here<'_>) -> bool {
        let vm = here.vm;
        let mut balloon = vm.bus.balloon.lock();
        if let Some(word) = balloon.take_filling() {
            vm.memory.lock().set_filling(word);
        }
        let mut left = Left::Nothing;
        if balloon.has_work() {
            let late = self.facts.late(m);
            let free = if balloon.poison().unwrap_or(0) == 0 { Hole::Absent } else { Hole::Ballooned };
            left = balloon.serve(&mut Given { host: self, vm, m, free, late }, BUDGET);
            if left != Left::Nothing {
                here.slot.requests.fetch_or(request::SERVE, Ordering::Relaxed);
            }
        }
        self.line(m, vm, BALLOON_INTID, balloon.line().into());
        left == Left::More
    }

    /// Asks the guest to bring its balloon to `target` pages, and for its free pages first where `hint` says so.
    pub(super) fn ask_balloon<M: Machine>(&self, m: &M, vm: &Vm, target: u64, hint: bool) {
        let mut balloon = vm.bus.balloon.lock();
        if !balloon.is_up() {
            return;
        }
        let target = u32::try_from(target).unwrap_or(u32::MAX);
        if balloon.target() != target {
            balloon.set_target(target);
        }
        if balloon.is_hinting() {
            // A second is enough for a guest to name what it has free; then it may have it back.
            balloon.stop_hinting();
        } else if hint {
            balloon.start_hinting();
        }
        self.line(m, vm, BALLOON_INTID, balloon.line().into());
    }
}
