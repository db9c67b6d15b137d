//! The policy at work: once a second it is told how things are, and what it decides is carried out.
//!
//! The housekeeping CPU does this, with the rest of its work. What is ordered to be put away is done a few pages at a time
//! between them, so that nobody waits long for that CPU.

use super::Host;
use super::pressure::{Overcommit, Scanner, Stats, Totals};
use crate::machine::Machine;
use crate::memory::Resident;
use crate::memory::check::Checked;
use crate::policy::sample::PERIOD_MS;
use crate::policy::{Decisions, Estimator, Level, MOST_VMS, Vm as Facts};
use crate::vm::{State, Vm};
use arrayvec::ArrayVec;
use core::sync::atomic::Ordering;

/// How often the policy is asked, in milliseconds.
const TICK_MS: u64 = 1000;
/// How many pages of a VM are put away at a time.
const AT_A_TIME: u32 = 8;
/// How soon the next are, in milliseconds.
const SOON_MS: u64 = 2;
/// For how long vCPUs that wait run at least before there is more of this, in microseconds.
const PAUSE_US: u16 = 20;
/// How many times longer they do at most, as a power of two: about 10 ms.
const LONGEST: u32 = 9;
/// How soon the scanner looks again for somebody to look at.
const LATER_MS: u64 = 50;

/// When what is left of what is to be put away is to be gone on with.
enum Owed {
    Nothing,
    Soon,
    Now,
}

impl Host {
    /// Whether it is time to [`Self::manage`].
    pub fn is_managing_due<M: Machine>(&self, m: &M) -> bool {
        m.now() >= self.pressure.managed.load(Ordering::Relaxed)
    }

    /// Asks the policy if it is time, and does what it decides, or a part of it; then there is a pause where a vCPU `waits` for this CPU.
    #[inline(never)]
    pub fn manage<M: Machine>(&self, m: &M, waits: bool) {
        let next = self.manage_part(m);
        let now = m.now();
        let mut pause = 0;
        if waits {
            // Whoever waits has the CPU for twice as long as this took since it was due. In a hypervisor that is a guest itself, to enter
            // a vCPU and to be interrupted may take longer than the shortest pause, and nobody would ever come to run.
            let took = now.wrapping_sub(self.pressure.managed.load(Ordering::Relaxed));
            let least = self.facts.frequency.ticks_of_us(PAUSE_US);
            pause = (took << 1).max(least).min(least << LONGEST);
        }
        self.pressure.managed.store(next.max(now.wrapping_add(pause)), Ordering::Relaxed);
    }

    /// Does a part of what is due. Says when to go on.
    fn manage_part<M: Machine>(&self, m: &M) -> u64 {
        let now = self.facts.millis(m.now());
        let mut overcommit = self.pressure.overcommit.lock();
        if now >= overcommit.next_ms {
            overcommit.next_ms = now + TICK_MS;
            self.tick(m, &mut overcommit, now);
            return 0;
        }
        if overcommit.stats.is_on && overcommit.stats.is_due {
            overcommit.stats.is_due = self.write_stats(&mut overcommit);
            return 0;
        }
        let late = self.facts.late(m);
        let is_late = &mut || late.is_now();
        let next = match self.put_away(m, &mut overcommit, is_late) {
            Owed::Nothing => overcommit.next_ms,
            Owed::Soon => now + SOON_MS,
            Owed::Now => 0,
        };
        let next = self.facts.ticks_of_ms(next);
        // Where memory is short, merging does not wait until nobody wants the CPU: it is the cheapest way to get some.
        let scan = match self.pressure.scanner.try_lock() {
            Some(mut scanner) if overcommit.policy.level() != Level::High => {
                self.look(m, &mut overcommit, &mut scanner, is_late).0
            }
            _ => None,
        };
        scan.map_or(next, |scan| scan.min(next))
    }

    fn tick<M: Machine>(&self, m: &M, overcommit: &mut Overcommit, now: u64) {
        let period = now.saturating_sub(overcommit.sampled_ms) >= PERIOD_MS;
        let mut vms: ArrayVec<Facts, MOST_VMS> = ArrayVec::new();
        for (n, vm) in self.fleet.vms.iter().enumerate().take(MOST_VMS) {
            if overcommit.is_on {
                let split = overcommit.policy.level() != Level::High;
                self.watch_use(m, vm, &mut overcommit.estimators[n], period.then_some(split));
            }
            let _ = vms.try_push(self.facts(vm, n, overcommit));
        }
        if period {
            overcommit.sampled_ms = now;
        }
        // Where everybody has what it may have, nothing is short; the operator's word on balloons counts all the same.
        let free = if overcommit.is_on { self.pool.lock().counts().free } else { u64::MAX >> 8 };
        let level = overcommit.policy.level();
        let decisions = overcommit.policy.tick(now, free, &vms);
        self.obey(m, overcommit, &decisions);
        self.learn(overcommit, level, decisions.level);
        if overcommit.checks {
            self.check_shadows(m, overcommit);
        }
        // What was begun goes on; what nobody wants is of the last second, whenever somebody does.
        if !(overcommit.stats.is_on && overcommit.stats.is_due && overcommit.stats.step > 0) {
            overcommit.stats = Stats { is_on: overcommit.stats.is_on, is_due: true, millis: now, ..Stats::default() };
        }
    }

    /// Checks the shadow tables of all VMs that have some, and tells of what is wrong.
    fn check_shadows<M: Machine>(&self, m: &M, overcommit: &mut Overcommit) {
        for vm in self.fleet.vms.iter().filter(|vm| vm.spec.nested) {
            let mut checked = Checked::default();
            if let Some(shadows) = &vm.el2_shadows {
                checked += shadows.lock().check(m, &self.pool, &mut vm.memory.lock());
            }
            checked += vm.memory.lock().check(m, &self.pool);
            if checked.wrong > 0 {
                self.console
                    .say(format_args!("{}: {} of {} shadow leaves are wrong", vm.name, checked.wrong, checked.leaves));
            }
            overcommit.checked += checked;
        }
    }

    /// What the policy wants to know of a VM.
    pub(super) fn facts(&self, vm: &Vm, n: usize, overcommit: &Overcommit) -> Facts {
        let (driver, reports, balloon, target) = {
            let balloon = vm.bus.balloon.lock();
            (balloon.is_up(), balloon.reports(), balloon.actual().into(), balloon.target().into())
        };
        let (resident, sampled) = {
            let memory = vm.memory.lock();
            (memory.resident(), memory.sampled().0)
        };
        let used = self.charged(&resident);
        Facts {
            min: vm.spec.min.unwrap_or(vm.spec.memory) >> 12,
            max: vm.spec.most_bytes() >> 12,
            shares: vm.spec.shares,
            used,
            active: overcommit.active(n, used, sampled),
            balloon,
            target,
            has_balloon: driver,
            reports,
            running: vm.life.state() == State::Running,
        }
    }

    /// The frames that are charged to a VM: its own, and its part of those it shares and of the store.
    fn charged(&self, resident: &Resident) -> u64 {
        resident.frames + resident.pending + self.shared_part(resident) + resident.units / 16 + resident.shadows
    }

    /// A VM's part of the frames that it shares: all leaves that name shared frames have the same.
    pub(super) fn shared_part(&self, resident: &Resident) -> u64 {
        let pool = self.pool.lock();
        // The bundle's claims to its images are nobody's.
        let adopted = pool.adopted();
        let (frames, leaves) = (pool.counts().shared.saturating_sub(adopted), pool.sharers().saturating_sub(adopted));
        resident.shared.saturating_mul(frames).checked_div(leaves).unwrap_or(0).min(resident.shared)
    }

    /// Counts which of the watched pages were touched. Where a period is over it says whether blocks may be split to watch
    /// others.
    fn watch_use<M: Machine>(&self, m: &M, vm: &Vm, estimator: &mut Estimator, period: Option<bool>) {
        let mut memory = vm.memory.lock();
        let (sampled, touched) = memory.sampled();
        estimator.set_touched(touched);
        if let Some(split) = period
            && vm.life.state() == State::Running
        {
            estimator.end(sampled);
            memory.sample(m, &self.pool, split, || self.pressure.random());
        }
    }

    fn obey<M: Machine>(&self, m: &M, overcommit: &mut Overcommit, decisions: &Decisions) {
        for ((n, vm), decision) in self.fleet.vms.iter().enumerate().zip(&decisions.vms) {
            vm.entitled.store(decision.entitled, Ordering::Relaxed);
            vm.blocked.store(decision.blocked, Ordering::Relaxed);
            if let Some(owed) = overcommit.owed.get_mut(n) {
                *owed = decision.pack;
            }
            self.ask_balloon(m, vm, decision.balloon, decision.hint);
        }
    }

    /// Lets the scanner's pace follow what it finds.
    fn learn(&self, overcommit: &mut Overcommit, before: Level, level: Level) {
        if level > before {
            overcommit.pace.hurry();
        }
        let Some(scanner) = self.pressure.scanner.try_lock() else { return };
        let totals = scanner.totals;
        if totals.rounds > overcommit.round.rounds {
            let given = |totals: &Totals| totals.merged + totals.zeroed;
            overcommit.pace.found(totals.scanned - overcommit.round.scanned, given(&totals) - given(&overcommit.round));
            overcommit.round = totals;
        }
    }

    /// Puts some of what is owed away, until it is late.
    fn put_away<M: Machine>(&self, m: &M, overcommit: &mut Overcommit, is_late: &mut dyn FnMut() -> bool) -> Owed {
        let mut more = Owed::Nothing;
        if let Some((owner, frames)) = self.finish_begun(m, is_late)
            && let Some(owed) = overcommit.owed.get_mut(usize::from(owner.0))
        {
            *owed = owed.saturating_sub(frames);
        }
        for (vm, owed) in self.fleet.vms.iter().zip(&mut overcommit.owed) {
            for _ in 0..AT_A_TIME {
                if *owed == 0 {
                    break;
                }
                if is_late() {
                    return Owed::Now;
                }
                *owed = owed.saturating_sub(self.take_from(m, vm, is_late));
            }
            if *owed > 0 {
                more = Owed::Soon;
            }
        }
        more
    }

    /// Looks for equal pages for a while if it is time, in the idle time of a CPU. Says when to come again, if ever, and
    /// whether something was done.
    pub fn idle<M: Machine>(&self, m: &M) -> (Option<u64>, bool) {
        if !self.pressure.merges {
            return (None, false);
        }
        // Another CPU's business otherwise.
        let (Some(mut overcommit), Some(mut scanner)) =
            (self.pressure.overcommit.try_lock(), self.pressure.scanner.try_lock())
        else {
            return (Some(m.now().saturating_add(self.facts.ticks_of_ms(SOON_MS))), false);
        };
        self.look(m, &mut overcommit, &mut scanner, &mut || m.is_interrupt_pending())
    }

    /// Scans a slice if it is time, or a part of it until it `is_late`. Says when to come again, if ever, and whether something was done.
    fn look<M: Machine>(
        &self,
        m: &M,
        overcommit: &mut Overcommit,
        scanner: &mut Scanner,
        is_late: &mut dyn FnMut() -> bool,
    ) -> (Option<u64>, bool) {
        let start = m.now();
        if !overcommit.pace.may(start) {
            return (Some(overcommit.pace.next()), false);
        }
        let is_short = overcommit.policy.level() != Level::High;
        if !self.pressure.merges {
            return (None, false);
        }
        if !self.may_merge() || !self.scan(m, scanner, is_short, is_late) {
            // Nobody to look at just now, or too much is shared already.
            return (Some(start.saturating_add(self.facts.ticks_of_ms(LATER_MS))), false);
        }
        let now = m.now();
        overcommit.pace.spent(now, now.saturating_sub(start));
        (Some(overcommit.pace.next()), true)
    }

    /// Whether more may be merged: what sharing saves could be wanted back, a part of it at once.
    fn may_merge(&self) -> bool {
        let (reserve, can) = self.copy_reserve();
        reserve <= can
    }

    /// How many frames copies might take at once, by the configured risk, and how many could be had for them: what is
    /// free, the free blocks of the swap area, and what compressing guests' own pages would give, at a quarter of them.
    pub fn copy_reserve(&self) -> (u64, u64) {
        let pool = self.pool.lock();
        let counts = pool.counts();
        let (blocks, used) = pool.swap.counts();
        let can = counts.free + u64::from(blocks - used) + counts.guest / 4;
        (pool.saved() * u64::from(self.pressure.risk) / 100, can)
    }
}
