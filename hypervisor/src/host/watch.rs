//! What has to be looked after from time to time: watchdogs, alarms, and memory. One CPU does, [`HOUSEKEEPING_CPU`].

use super::Host;
use crate::machine::Machine;
use crate::next::Cause;
use crate::sched;
use crate::vm::{NEVER, Slot, State, Vm};
use core::sync::atomic::Ordering;

impl Host {
    /// Does what is due but for memory. Returns when something is due again, if anything ever is.
    #[inline]
    pub fn housekeeping<M: Machine>(&self, m: &M) -> Option<u64> {
        let managed = self.pressure.managed.load(Ordering::Relaxed);
        if self.console.held.load(Ordering::Relaxed) {
            // Perhaps it has been held back for long enough.
            self.console.to_send.store(true, Ordering::Release);
        }
        if !self.fleet.has_housekeeping.load(Ordering::Relaxed) {
            return Some(managed);
        }
        sched::earliest([self.watch(m), self.alarms(m), Some(managed)])
    }

    /// Ticks the devices that are due. Returns when the next is.
    fn alarms<M: Machine>(&self, m: &M) -> Option<u64> {
        let hz = u64::from(self.facts.frequency.hz());
        let due = |vm: &Vm| vm.alarm.load(Ordering::Relaxed);
        for vm in self.fleet.vms.iter().filter(|vm| due(vm) != NEVER) {
            let now = self.facts.seconds(m.now());
            if due(vm) <= now {
                self.tick_devices(m, vm, now);
            }
        }
        let next = self.fleet.vms.iter().map(due).min().filter(|at| *at != NEVER)?;
        Some(next.saturating_mul(hz))
    }

    /// Looks for signs of life of the VMs that have a watchdog, and stops those that had none for too long. Returns when to
    /// look again.
    fn watch<M: Machine>(&self, m: &M) -> Option<u64> {
        let hz = u64::from(self.facts.frequency.hz());
        let mut next = None;
        for (at, vm) in self.fleet.vms.iter().enumerate() {
            let Some(seconds) = vm.spec.watchdog else { continue };
            let now = m.now();
            let again = now.saturating_add(hz / 4);
            next = Some(next.map_or(again, |next: u64| next.min(again)));
            if vm.life.state() != State::Running {
                continue;
            }
            let signs = vm.slots.iter().map(Slot::life).sum();
            // A vCPU that waits for an interrupt is well.
            let asleep = vm.slots.iter().all(|slot| self.is_idle(slot));
            let mut watched = self.fleet.watched.lock();
            let Some((last, since)) = watched.get_mut(at) else { continue };
            if *last != signs || asleep || *since < vm.life.since() {
                (*last, *since) = (signs, now);
            }
            let late = now.saturating_sub(*since) >= u64::from(seconds).saturating_mul(hz);
            drop(watched);
            if late {
                self.stop(m, vm, Cause::Crash("its watchdog saw no sign of life"));
            }
        }
        next
    }

    fn is_idle(&self, slot: &Slot) -> bool {
        matches!(self.queue.lock().state(slot.entity), sched::EntityState::Blocked(_) | sched::EntityState::Off)
    }
}
