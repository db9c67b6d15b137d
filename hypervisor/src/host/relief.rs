//! Finding memory where there is none: pages of VMs that have more than they should are dropped, merged or put away.
//!
//! Whom to take from is the policy's word ([`Vm::entitled`]); which page is left to chance. A guest that is short of
//! memory picks the page that it has used least; a hypervisor that picks the same way would pick the same page, have it
//! written out, and bring it back for the guest to read and write out itself. Chance has no such preference (ESX chooses
//! so, too). What chance falls on is dropped or merged if it can be, which costs the guest nothing or little.
//!
//! Everything here is done by whoever needs the memory, a few pages at a time, one VM's lock at a time.

use super::Host;
use crate::addr::{Addr, Ipa, VmId};
use crate::machine::Machine;
use crate::memory::Miss;
use crate::memory::pack::Put;
use crate::next::{Cause, Next};
use crate::vm::{State, Vm};
use core::sync::atomic::{AtomicU64, Ordering};

/// How many pages are tried for one that is needed.
const TRIES: u32 = 96;
/// How many frames one call frees at most.
const ENOUGH: u64 = 16;
/// How long a vCPU rests that needs memory before it tries again, in microseconds.
const REST_US: u16 = 2000;
/// For how many seconds a vCPU may wait for memory.
const PATIENCE: u64 = 20;

/// How often memory is looked for when a copy needs some.
const RELIEFS: u32 = 8;

/// What came of looking for memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Relief {
    /// Some frames came free.
    Found,
    /// Nobody has any to give.
    None,
    /// It was late before enough was found.
    Late,
}

impl Host {
    /// Frees some frames, of VMs that have more than they should first, until it `is_late`, which is asked after each try. No lock
    /// may be held.
    pub(super) fn relieve<M: Machine>(&self, m: &M, is_late: &mut dyn FnMut() -> bool) -> Relief {
        // What can be made again from what is there costs least.
        let mut freed = self.idle_shadows(m);
        // The exit that led here and a step of compressing are too much at once.
        if is_late() {
            return Relief::Late;
        }
        freed += self.finish_begun(m, is_late).map_or(0, |(_, frames)| frames);
        for _ in 0..TRIES {
            if is_late() {
                return Relief::Late;
            }
            if freed >= ENOUGH {
                break;
            }
            let Some(vm) = self.victim() else { break };
            freed += self.take_from(m, vm, is_late);
        }
        if freed > 0 { Relief::Found } else { Relief::None }
    }

    /// Gives back tables of one shadow that no vCPU is in. Returns how many frames came free.
    fn idle_shadows<M: Machine>(&self, m: &M) -> u64 {
        let mut nested = self.fleet.vms.iter().filter(|vm| vm.spec.nested);
        nested.find_map(|vm| Some(vm.memory.lock().drop_idle_shadow(m, &self.pool)).filter(|n| *n > 0)).unwrap_or(0)
    }

    /// Takes one page at random from `vm`, if chance finds one. Returns how many frames came free: none, too, where what is long was
    /// begun and it `is_late`.
    pub(super) fn take_from<M: Machine>(&self, m: &M, vm: &Vm, is_late: &mut dyn FnMut() -> bool) -> u64 {
        let memory = vm.memory.lock();
        let pages = (memory.layout().all_bytes() >> 12).max(1);
        // Below 2^26 pages, so it fits.
        let at = memory.page_at((self.pressure.random() % pages) as u32);
        let Some(at) = memory.next_own(m, &self.pool, at) else { return 0 };
        drop(memory);
        if is_late() {
            return 0;
        }
        self.evict(m, vm, at, is_late)
    }

    /// Goes on with the page that somebody has begun to compress, of whichever VM. Returns whose it was, and how many frames came free.
    pub(super) fn finish_begun<M: Machine>(&self, m: &M, is_late: &mut dyn FnMut() -> bool) -> Option<(VmId, u64)> {
        let (owner, at) = self.pool.compressor().job()?;
        let vm = self.fleet.vms.get(usize::from(owner.0))?;
        Some((owner, self.evict(m, vm, at, is_late)))
    }

    /// Frees the frame of the page at `at`, in steps until it `is_late`; the VM's lock is let go between them.
    fn evict<M: Machine>(&self, m: &M, vm: &Vm, at: Addr<Ipa>, is_late: &mut dyn FnMut() -> bool) -> u64 {
        loop {
            let put = vm.memory.lock().evict(m, &self.pool, at);
            // The last step may have been long, too.
            let late = is_late();
            return match put {
                Put::Begun if !late => continue,
                Put::Zero(frames) => frames,
                Put::Packed | Put::Swapped | Put::Merged => 1,
                Put::Nothing | Put::Stays | Put::Short | Put::Begun => 0,
            };
        }
    }

    /// The VM that has most above what it should.
    fn victim(&self) -> Option<&Vm> {
        let above = |vm: &&Vm| {
            let has = vm.memory.lock().resident().frames;
            // One more than nothing, so that somebody is found where nobody has too much.
            has.saturating_sub(vm.entitled.load(Ordering::Relaxed)).max(u64::from(has > 0))
        };
        let running = self.fleet.vms.iter().filter(|vm| !matches!(vm.life.state(), State::Ended(_)));
        let start = self.pressure.random() % (self.fleet.vms.len() as u64).max(1);
        let mut best: Option<(u64, &Vm)> = None;
        for (n, vm) in running.enumerate() {
            // Among equals, chance.
            let key = above(&vm) << 8 | (n as u64 ^ start) & 0xff;
            if key >> 8 > 0 && best.is_none_or(|(other, _)| key > other) {
                best = Some((key, vm));
            }
        }
        best.map(|(_, vm)| vm)
    }

    /// A vCPU of `vm` needs a frame and the pool has none: finds some, or lets it wait, but not for ever.
    #[cold]
    pub fn starve<M: Machine>(&self, m: &M, vm: &Vm) -> Next {
        match self.relieve(m, &mut || m.is_interrupt_pending()) {
            Relief::Found => {
                vm.starving.store(0, Ordering::Relaxed);
                return Next::Resume;
            }
            // Whoever interrupts comes first; then it asks again.
            Relief::Late => return Next::Resume,
            Relief::None => {}
        }
        if self.has_waited(m, &vm.starving, PATIENCE) {
            return Next::Stop(Cause::Crash("the board has no memory left for it, and nothing more can be compressed"));
        }
        // Others may have memory to give: their balloons fill while they run.
        Next::WaitForMemory
    }

    /// Whether somebody who waits for memory has done so for these seconds. `since` is when it began, by the system counter; 0, and
    /// from now on it waits, if it did not.
    pub(super) fn has_waited<M: Machine>(&self, m: &M, since: &AtomicU64, seconds: u64) -> bool {
        let now = m.now().max(1);
        let began = match since.load(Ordering::Relaxed) {
            0 => {
                since.store(now, Ordering::Relaxed);
                now
            }
            began => began,
        };
        self.facts.seconds(now.saturating_sub(began)) >= seconds
    }

    /// Until when a vCPU rests that needs memory, at counter value `now`.
    pub fn retry_at(&self, now: u64) -> u64 {
        now.saturating_add(self.facts.frequency.ticks_of_us(REST_US))
    }

    /// Does `work`, and finds memory for it and does it again where there is too little. No lock may be held.
    pub(super) fn with_relief<M: Machine, T>(
        &self,
        m: &M,
        mut work: impl FnMut() -> Result<T, Miss>,
    ) -> Result<T, Miss> {
        for _ in 0..RELIEFS {
            match work() {
                Err(Miss::Short) if self.relieve(m, &mut || false) == Relief::Found => {}
                result => return result,
            }
        }
        Err(Miss::Short)
    }
}
