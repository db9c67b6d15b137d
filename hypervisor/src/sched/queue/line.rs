//! The line itself: who is first, who must go, where an arrival is placed and whom it makes look up.
//!
//! The rest of [`Queue`]'s methods; the argument for them is at the top of [`super`].

use super::{CpuSet, Entity, EntityId, EntityState, Queue};
use crate::addr::CpuId;

impl Queue {
    /// The first in line for `cpu`.
    pub(super) fn best(&self, cpu: CpuId) -> Option<EntityId> {
        let waiting = self.entities.iter().enumerate().filter(|(_, e)| e.in_line() && e.fits(cpu));
        // At most MAX, so it fits.
        waiting.min_by_key(|(_, e)| (self.could_interrupt(e), e.ticket)).map(|(i, _)| EntityId(i as u16))
    }

    /// Whoever has come beyond this virtual time could be interrupted by `e`.
    fn could_interrupt(&self, e: &Entity) -> u128 {
        self.after(e, self.grain)
    }

    /// The virtual time that `e` has come to after `ticks` more.
    #[inline(never)]
    fn after(&self, e: &Entity, ticks: u64) -> u128 {
        // 128 bits never wrap: see `entity`.
        e.vtime.wrapping_add(self.groups[e.group].virtual_time(ticks))
    }

    /// Whether `i` could interrupt somebody who has come to `vtime`.
    pub(super) fn is_well_behind(&self, i: usize, vtime: u128) -> bool {
        self.could_interrupt(&self.entities[i]) < vtime
    }

    /// Takes `id` off `cpu` if it must go or its turn is over, and says whether it did.
    pub(super) fn put_back(&mut self, id: EntityId, cpu: CpuId, now: u64) -> bool {
        let i = id.index();
        let c = usize::from(cpu.0);
        if self.entities[i].stopping {
            self.entities[i].stopping = false;
            self.leave(id, EntityState::Off, now);
            if core::mem::take(&mut self.entities[i].again) {
                self.rouse(i, now);
            }
            return true;
        }
        if self.entities[i].paused {
            self.leave(id, EntityState::Ready, now);
            return true;
        }
        let best = self.best(cpu).map(EntityId::index);
        let yields = core::mem::take(&mut self.cpus[c].yielding);
        let over = self.cpus[c].slice_end.is_some_and(|end| end <= now);
        if !over && !yields && !best.is_some_and(|b| self.is_well_behind(b, self.entities[i].vtime)) {
            return false;
        }
        if let Some(b) = best.filter(|_| yields) {
            // To go behind the next in line costs a slice at most: the next may be far ahead.
            let e = &self.entities[i];
            let most = self.after(e, self.slice);
            let behind_next = self.entities[b].vtime.min(most);
            self.entities[i].vtime = self.entities[i].vtime.max(behind_next);
        }
        self.place(i, now);
        true
    }

    /// `id` runs on `cpu` from now on, or goes on running.
    pub(super) fn enter(&mut self, id: EntityId, cpu: CpuId, now: u64) {
        let e = &mut self.entities[id.index()];
        let goes_on = e.state == EntityState::Running(cpu);
        if !goes_on {
            e.waited = e.waited.saturating_add(now.saturating_sub(e.since));
        }
        e.state = EntityState::Running(cpu);
        e.last = Some(cpu);
        e.woken = false;
        let vtime = e.vtime;
        let next = self.best(cpu).map(|best| now.wrapping_add(self.slice_before(best, id)));
        let state = &mut self.cpus[usize::from(cpu.0)];
        let running_slice = state.slice_end.filter(|_| goes_on);
        state.slice_end = next.map(|next| running_slice.map_or(next, |end| end.min(next)));
        if !(goes_on && next.is_some()) {
            // Who is looked at in the middle of a turn does not move it: those in line were placed by the turn's beginning.
            state.clock = state.clock.max(vtime);
        }
        state.running = Some(id);
        state.since = state.since.max(now);
        state.yielding = false;
    }

    /// How long `running` runs while `next` is first in line: a slice, or until it is ahead by half a slice of what `next` would have
    /// had. One of many shares that did not interrupt, as this one was behind, does not wait for a whole slice of its.
    fn slice_before(&self, next: EntityId, running: EntityId) -> u64 {
        let [next, running] = [next, running].map(|id| &self.entities[id.index()]);
        if next.group == running.group {
            return self.slice;
        }
        let until = self.after(next, self.slice / 2);
        // Below 2^64, as a slice's virtual time is.
        let ahead = until.min(self.after(running, self.slice)).saturating_sub(running.vtime) as u64;
        let tick = self.after(running, 1).wrapping_sub(running.vtime) as u64;
        ahead.checked_div(tick).unwrap_or(0)
    }

    /// `id`, running, is no longer runnable.
    pub(super) fn leave(&mut self, id: EntityId, state: EntityState, now: u64) {
        let i = id.index();
        let EntityState::Running(cpu) = self.entities[i].state else { return };
        self.settle(usize::from(cpu.0), now);
        self.cpus[usize::from(cpu.0)].running = None;
        self.entities[i].state = state;
        self.recount(i, -1, now);
    }

    /// Whether `i` waits for a tick that has come.
    pub(super) fn due(&self, i: usize, now: u64) -> bool {
        matches!(self.entities[i].state, EntityState::Blocked(Some(at)) if at <= now)
    }

    /// `i`, off, blocked or held, becomes ready, and gets in line unless paused.
    pub(super) fn rouse(&mut self, i: usize, now: u64) {
        self.entities[i].woken = false;
        self.entities[i].again = false;
        self.entities[i].state = EntityState::Ready;
        if !self.entities[i].paused {
            self.recount(i, 1, now);
            self.place(i, now);
        }
    }

    /// Puts `i` in line: the one rule.
    pub(super) fn place(&mut self, i: usize, now: u64) {
        let affinity = self.entities[i].affinity;
        let mut latest = 0;
        for cpu in affinity {
            let c = usize::from(cpu.0);
            if self.cpus[c].slice_end.is_none() {
                // Who runs alone takes the clock along.
                self.settle(c, now);
            }
            latest = self.cpus[c].clock.max(latest);
        }
        let e = &mut self.entities[i];
        e.vtime = e.vtime.max(latest.saturating_sub(self.groups[e.group].credit(self.credit)));
        e.ticket = self.tickets;
        e.since = now;
        e.state = EntityState::Ready;
        self.tickets += 1;
    }

    /// Whom to kick on behalf of `i`, in line.
    pub(super) fn challenge(&mut self, i: usize, now: u64) -> CpuSet {
        if !self.entities[i].in_line() {
            return CpuSet::EMPTY;
        }
        let affinity = self.entities[i].affinity;
        // Whoever holds its registers is idle, or about to pick, or about to let go of them.
        let fitting = self.entities[i].loaded.map_or(affinity, |cpu| affinity & CpuSet::one(cpu));
        let idle = fitting & self.idle;
        if !idle.is_empty() {
            return if (idle & self.kicked).is_empty() { self.employ_one(i) } else { CpuSet::EMPTY };
        }
        let mut most: Option<(u128, CpuId)> = None;
        for cpu in fitting {
            let state = &self.cpus[usize::from(cpu.0)];
            let Some(running) = state.running else { continue };
            let e = &self.entities[running.index()];
            let vtime = self.after(e, now.saturating_sub(state.since));
            if most.is_none_or(|(least, _)| vtime > least) {
                most = Some((vtime, cpu));
            }
        }
        let Some((vtime, cpu)) = most else { return CpuSet::EMPTY };
        let ticks = self.cpus[usize::from(cpu.0)].slice_end.is_some();
        if ticks && !self.is_well_behind(i, vtime) { CpuSet::EMPTY } else { CpuSet::one(cpu) }
    }

    /// Kicks an idle CPU for `i`: the one where it ran last, if it can.
    pub(super) fn employ_one(&mut self, i: usize) -> CpuSet {
        let e = &self.entities[i];
        let spare = self.idle & !self.kicked & e.affinity;
        let spare = e.loaded.map_or(spare, |cpu| spare & CpuSet::one(cpu));
        let Some(cpu) = e.last.filter(|&last| spare.contains(last)).or_else(|| spare.lowest()) else {
            return CpuSet::EMPTY;
        };
        self.kicked |= CpuSet::one(cpu);
        CpuSet::one(cpu)
    }

    /// Kicks idle CPUs for whoever is left in line.
    pub(super) fn employ(&mut self) -> CpuSet {
        let mut kick = CpuSet::EMPTY;
        for i in 0..self.entities.len() {
            if (self.idle & !self.kicked).is_empty() {
                break;
            }
            if self.entities[i].in_line() {
                kick |= self.employ_one(i);
            }
        }
        kick
    }

    /// The VM of `i` has one runnable vCPU more or less. Those running are charged at the old rate first.
    pub(super) fn recount(&mut self, i: usize, change: i16, now: u64) {
        let group = self.entities[i].group;
        for c in 0..self.cpus.len() {
            if self.cpus[c].running.is_some_and(|id| self.entities[id.index()].group == group) {
                self.settle(c, now);
            }
        }
        self.groups[group].recount(change);
    }

    /// Charges what CPU `c` runs. Counters of two CPUs may disagree by a little: time does not go back.
    pub(super) fn settle(&mut self, c: usize, now: u64) {
        let cpu = &mut self.cpus[c];
        let Some(id) = cpu.running else {
            cpu.since = cpu.since.max(now);
            return;
        };
        let e = &mut self.entities[id.index()];
        let ticks = now.saturating_sub(cpu.since);
        cpu.since = cpu.since.max(now);
        e.spent = e.spent.saturating_add(ticks);
        e.vtime += self.groups[e.group].virtual_time(ticks);
        if cpu.slice_end.is_none() {
            cpu.clock = cpu.clock.max(e.vtime);
        }
    }
}
