//! The run queue, and who is told of what changes in it: vCPUs that have an interrupt, CPUs that have somebody to run.

use crate::addr::CpuId;
use crate::machine::Machine;
use crate::next::Kicks;
use crate::sched::{CpuSet, EntityId, Queue};
use crate::vm::{Vm, request};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use spin::mutex::{SpinMutex, SpinMutexGuard};

/// Who runs where. Its lock is taken under all others but the console's, and held for a few instructions.
pub struct RunQueue {
    queue: SpinMutex<Queue>,
    n_cpus: usize,
    /// What the operator's `top` is about.
    pub top: SpinMutex<Window>,
}

/// What vCPUs ran between two looks.
#[derive(Default)]
pub struct Window {
    /// The counter at both.
    pub at: [u64; 2],
    /// What each vCPU had run by then, VM after VM.
    pub ran: [Vec<u64>; 2],
}

impl Window {
    /// What vCPU `n` of all ran meanwhile.
    pub fn ticks(&self, n: usize) -> u64 {
        let [before, after] = [0, 1].map(|look| self.ran.get(look).and_then(|ran| ran.get(n)).copied().unwrap_or(0));
        after.saturating_sub(before)
    }
}

impl RunQueue {
    /// `queue`, for this many CPUs.
    pub(super) const fn new(queue: Queue, n_cpus: usize) -> Self {
        Self {
            queue: SpinMutex::new(queue),
            n_cpus,
            top: SpinMutex::new(Window { at: [0; 2], ran: [Vec::new(), Vec::new()] }),
        }
    }

    /// The queue itself.
    #[inline(always)]
    pub fn lock(&self) -> SpinMutexGuard<'_, Queue> {
        self.queue.lock()
    }

    /// The same, if nobody has it.
    pub fn try_lock(&self) -> Option<SpinMutexGuard<'_, Queue>> {
        self.queue.try_lock()
    }

    /// Makes the CPUs of `set` look up.
    pub fn signal<M: Machine>(&self, m: &M, set: CpuSet) {
        let mut rest = set;
        while let Some(cpu) = rest.lowest() {
            rest = rest.without(cpu);
            m.signal(cpu);
        }
    }

    /// A VM's registers may still be loaded on CPUs that idle or run others: they look, and unload.
    pub(super) fn signal_all<M: Machine>(&self, m: &M) {
        for n in 0..self.n_cpus {
            m.signal(CpuId(n as u16));
        }
    }

    /// Makes the vCPUs of `kicks` look at their interrupts.
    #[inline(always)]
    pub fn kick<M: Machine>(&self, m: &M, vm: &Vm, kicks: Kicks) {
        if !kicks.is_empty() {
            self.kick_some(m, vm, kicks);
        }
    }

    #[inline(never)]
    fn kick_some<M: Machine>(&self, m: &M, vm: &Vm, kicks: Kicks) {
        vm.ask(kicks, request::REFILL, |cpu| m.nudge(cpu), |entity| self.wake(m, entity));
    }

    /// Starts the vCPUs of `kicks`, which were turned on.
    pub fn start<M: Machine>(&self, m: &M, vm: &Vm, kicks: Kicks) {
        for slot in kicks.filter_map(|vcpu| vm.slot(vcpu)) {
            let set = self.lock().start(slot.entity, m.now());
            self.signal(m, set);
        }
    }

    /// Wakes `entity` if it waits.
    #[inline(never)]
    pub fn wake<M: Machine>(&self, m: &M, entity: EntityId) {
        let set = self.lock().wake(entity, m.now());
        self.signal(m, set);
    }

    /// Tells the vCPUs of `vm` to leave; [`RunQueue::signal_all`] makes their CPUs look.
    pub(super) fn send_off<M: Machine>(&self, m: &M, vm: &Vm, how: impl Fn(&mut Queue, EntityId, u64) -> CpuSet) {
        for slot in &vm.slots {
            // Every CPU is signalled when all were told.
            let _ = how(&mut self.lock(), slot.entity, m.now());
            slot.requests.fetch_or(request::LEAVE, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Window;
    use alloc::vec;

    #[test]
    fn a_window_has_what_each_ran_meanwhile() {
        let window = Window { at: [100, 200], ran: [vec![5, 70], vec![25, 70, 8]] };
        assert_eq!([0, 1, 2, 3].map(|n| window.ticks(n)), [20, 0, 8, 0]);
        let backwards = Window { at: [0, 0], ran: [vec![9], vec![3]] };
        assert_eq!(backwards.ticks(0), 0);
    }
}
