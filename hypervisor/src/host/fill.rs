//! Filling a VM's memory from the bundle, as often as it starts.

use super::Host;
use super::load::Loader;
use crate::addr::{Addr, Ipa, Size};
use crate::arm::esr::Access;
use crate::bundle::image::{self, Sink};
use crate::machine::Machine;
use crate::memory::Miss;
use crate::next::Cause;
use crate::vm::{State, Vm};
use core::sync::atomic::Ordering;

const PAGE: usize = 4096;

/// A VM's memory as the image loader sees it.
struct Into<'a, M: Machine> {
    host: &'a Host,
    vm: &'a Vm,
    m: &'a M,
}

impl<M: Machine> Sink for Into<'_, M> {
    fn prepare(&mut self, at: Addr<Ipa>, bytes: u64) -> Result<bool, image::Short> {
        if self.vm.merges {
            // It is lent the bundle's pages, where it can be.
            return Ok(true);
        }
        for page in [at, at + (bytes - 1)] {
            let touch = || self.vm.memory.lock().resolve(self.m, &self.host.pool, page, Access::Write);
            match self.host.with_relief(self.m, touch) {
                Ok(_) => {}
                Err(Miss::Again) => return Ok(false),
                Err(_) => return Err(image::Short { at: page }),
            }
        }
        // Where it was long, what is written comes next time.
        Ok(!self.m.is_interrupt_pending())
    }

    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), image::Short> {
        for (n, page) in (0..).zip(bytes.chunks(PAGE)) {
            let at = at + n * PAGE as u64;
            if !self.lend(at, page) {
                self.copy(at, page)?;
            }
        }
        Ok(())
    }

    fn zero(&mut self, at: Addr<Ipa>, bytes: u64) -> Result<(), image::Short> {
        // Memory is zero from birth, but an image may be followed by room that shares a page with it.
        let zero = || self.vm.memory.lock().zero(self.m, &self.host.pool, at, bytes);
        self.host.with_relief(self.m, zero).map_err(|_| image::Short { at })?;
        self.vm.memory.lock().clean(self.m, at, bytes);
        Ok(())
    }
}

impl<M: Machine> Into<'_, M> {
    fn copy(&self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), image::Short> {
        let write = || self.vm.memory.lock().write(self.m, &self.host.pool, at, bytes);
        self.host.with_relief(self.m, write).map_err(|_| image::Short { at })?;
        // A guest starts with its MMU and caches off: what it reads then is what has reached the point of coherency.
        self.vm.memory.lock().clean(self.m, at, bytes.len() as u64);
        Ok(())
    }

    /// Lets the page at `at` be the bundle's own page that holds `bytes`, until the guest writes to it. False if they are
    /// not a whole page there, or the VM does not merge.
    fn lend(&self, at: Addr<Ipa>, bytes: &[u8]) -> bool {
        if !self.vm.merges || bytes.len() != PAGE || !at.is_aligned(Size::Page) {
            return false;
        }
        let frame = self.host.facts.image_frame(bytes);
        frame.is_some_and(|frame| self.vm.memory.lock().lend(self.m, &self.host.pool, at, frame))
    }
}

impl Host {
    /// Copies `vm`'s images into its memory, or a part of them; with the last, sets where its first vCPU starts. Stops it where
    /// that fails. The caller has entered its life. True if it can run.
    pub fn fill_memory<M: Machine>(&self, m: &M, vm: &Vm) -> bool {
        let mut loader = self.fleet.loader.lock();
        // Who found it loading may have waited here while another CPU copied the last piece: only now it is certain.
        if vm.life.state() == State::Loading {
            match loader.other(vm.id).and_then(|other| self.fleet.vms.get(usize::from(other.0))) {
                None => self.fill_some(m, vm, &mut loader),
                // If it is over, what was loaded of it is forgotten with the rest.
                Some(other) => {
                    if let Some(state) = other.life.enter() {
                        if state == State::Loading {
                            self.fill_some(m, other, &mut loader);
                        }
                        other.life.left();
                    }
                }
            }
        }
        vm.life.state() == State::Running
    }

    fn fill_some<M: Machine>(&self, m: &M, vm: &Vm, loader: &mut Loader) {
        let late = self.facts.late(m);
        match loader.fill(vm, &mut Into { host: self, vm, m }, || late.is_now()) {
            Ok(None) => {}
            Ok(Some((pc, x0))) => {
                if let Some(first) = vm.slots.first() {
                    first.aim(pc, x0);
                }
                let now = m.now();
                // The counter of a board goes on over a reset.
                // One with an EL2 sets its offset itself.
                if vm.life.starts() == 0 && !vm.spec.nested {
                    vm.offset.store(now, Ordering::Relaxed);
                }
                vm.life.run(now);
            }
            Err(why) => {
                loader.forget(vm.id);
                self.console.say(format_args!("{}: {why}", vm.name));
                self.stop(m, vm, Cause::Crash("its images could not be loaded"));
            }
        }
    }
}
