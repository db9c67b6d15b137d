//! One VM's decision, and what is remembered of the VM from tick to tick: [`Guest`].

use super::targets::Claim;
use super::why::{Event, Rule};
use super::{Decision, Journal, Level, STUCK_MS, Vm};
use crate::addr::VmId;

/// A MiB: what is always worth moving at a time, and never worth a change.
const MIB: u64 = 256;
/// The greatest part of a VM that its balloon may fill, in percent.
const FULL: u64 = 65;
/// How long a VM may stand still in one piece: where nothing can be packed, its balloon has to do, which needs CPU time.
const BLOCKED_MS: u64 = 5000;

/// What all VMs of a tick have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Board {
    pub(super) now_ms: u64,
    pub(super) free: u64,
    pub(super) level: Level,
    pub(super) tax: u8,
    /// Every page counts.
    pub(super) is_urgent: bool,
    /// The part to pack of what a VM is above its entitlement, in 1/65536.
    pub(super) pack: u64,
}

/// What is remembered of a VM.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Guest {
    /// What the operator has set its balloon to.
    pub(super) pinned: Option<u64>,
    /// How large the balloon was when it last moved as asked, and when that was.
    mark: u64,
    moved_ms: u64,
    /// The balloon does not move though asked to.
    stuck: bool,
    /// Since when it stands still.
    blocked_ms: Option<u64>,
}

/// What a VM claims: never more than it has and its balloon can give back in one step.
pub(super) fn claim(vm: &Vm) -> Claim {
    let back = if vm.running { vm.balloon.min(slow_step(vm)) } else { 0 };
    let max = vm.used.saturating_add(back);
    Claim { min: vm.min.min(max), max, shares: vm.shares, active: vm.active }
}

/// What a VM may get per tick: gently, as it cannot be had back so fast.
fn slow_step(vm: &Vm) -> u64 {
    (vm.max / 32).max(MIB)
}

/// What a VM may lose per tick.
fn fast_step(vm: &Vm) -> u64 {
    (vm.max / 8).max(MIB)
}

/// How large a VM's balloon may be.
fn limit(vm: &Vm) -> u64 {
    (vm.max / 100).saturating_mul(FULL).saturating_add(vm.max % 100 * FULL / 100).min(vm.max.saturating_sub(vm.min))
}

/// A part of `whole` in 1/65536.
fn part(whole: u64, part: u64) -> u64 {
    (whole >> 16).saturating_mul(part) + (((whole & 0xffff) * part) >> 16)
}

impl Guest {
    /// What is to be done with the VM; what it is given comes out of `spare`.
    pub(super) fn decision(
        &mut self,
        board: &Board,
        id: VmId,
        vm: &Vm,
        entitled: u64,
        spare: &mut u64,
        journal: &mut Journal,
    ) -> Decision {
        self.watch(board.now_ms, vm);
        let above = vm.used.saturating_sub(entitled);
        // What is not worth a change.
        let band = if board.is_urgent { 1 } else { (vm.max / 400).max(MIB) };
        let mut decision = Decision { balloon: vm.balloon, entitled, ..Decision::default() };
        let mut enter = |pages: u64, sign: i64, rule| {
            let pages = i64::try_from(pages).unwrap_or(i64::MAX).saturating_mul(sign);
            journal.enter(Event { at_ms: board.now_ms, vm: id, pages, rule });
        };
        let takes = board.level > Level::High && above >= band;
        if takes {
            if let Some(rule) = self.take(board, vm, above, &mut decision) {
                enter(decision.pack, -1, rule);
            }
        } else if vm.running && board.level < Level::Hard {
            let give = entitled.saturating_sub(vm.used).min(vm.balloon).min(*spare);
            *spare -= give;
            decision.balloon -= give;
        }
        decision.balloon = match self.pinned {
            Some(pinned) => pinned.min(vm.max),
            None if !vm.running => vm.target,
            None if decision.balloon.abs_diff(vm.target) < band && decision.balloon != 0 => vm.target.min(limit(vm)),
            None => decision.balloon.min(limit(vm)),
        };
        if decision.balloon != vm.target {
            let rule = match (self.pinned, decision.balloon > vm.target) {
                (Some(balloon), _) => Rule::Pinned { balloon },
                // A percentage, as what is active is part of what is used.
                (None, true) => {
                    let active = (vm.active.min(vm.used).saturating_mul(100) / vm.used.max(1)) as u8;
                    Rule::Above { level: board.level, above, active, tax: board.tax }
                }
                (None, false) if entitled > vm.used => {
                    Rule::Below { level: board.level, below: entitled - vm.used, free: board.free }
                }
                (None, false) => Rule::Enough { level: board.level, free: board.free },
            };
            let sign = if decision.balloon > vm.target { -1 } else { 1 };
            enter(decision.balloon.abs_diff(vm.target), sign, rule);
        }
        if let Some(rule) = self.block(board, takes && vm.running, above, &mut decision) {
            enter(0, 1, rule);
        }
        decision
    }

    /// Looks whether the balloon does as asked.
    fn watch(&mut self, now_ms: u64, vm: &Vm) {
        let moved = vm.balloon.saturating_sub(self.mark);
        let is_there = vm.balloon >= vm.target;
        if !vm.has_balloon || moved >= MIB || moved > 0 && is_there {
            self.stuck = false;
            (self.mark, self.moved_ms) = (vm.balloon, now_ms);
        } else if is_there || !vm.running {
            // Nothing is asked of it, which is no proof of life.
            (self.mark, self.moved_ms) = (vm.balloon, now_ms);
        } else if now_ms.saturating_sub(self.moved_ms) >= STUCK_MS {
            self.stuck = true;
        }
    }

    /// Takes what the VM is `above` its entitlement: by its balloon, or else by other means, and then says why.
    fn take(&self, board: &Board, vm: &Vm, above: u64, decision: &mut Decision) -> Option<Rule> {
        let level = board.level;
        let short = part(above, board.pack);
        let rest = (above - short).min(fast_step(vm));
        let room = limit(vm).saturating_sub(vm.balloon);
        // A guest touches what it names first (Linux allocates it, and zeroes what it allocates): that takes frames while the
        // last ones are looked for, and is of no use where it reports the same pages untouched.
        decision.hint = vm.running && !vm.reports && level == Level::Soft;
        decision.pack = short;
        let instead = if self.pinned.is_some() {
            None
        } else if !vm.has_balloon || !vm.running {
            Some(Rule::Driverless { level, above })
        } else if self.stuck {
            decision.balloon = vm.balloon.saturating_add(rest.min(MIB).min(room));
            Some(Rule::Stuck { level, above, since: board.now_ms.saturating_sub(self.moved_ms) })
        } else if room == 0 {
            Some(Rule::Full { level, above, balloon: vm.balloon })
        } else {
            decision.balloon = vm.balloon.saturating_add(rest.min(room));
            None
        };
        if instead.is_some() {
            decision.pack += rest;
        }
        instead.or_else(|| (short > 0).then_some(Rule::Short { level, above, free: board.free }))
    }

    /// Decides whether the VM stands still, and says so where that changes.
    fn block(&mut self, board: &Board, takes: bool, above: u64, decision: &mut Decision) -> Option<Rule> {
        let since = self.blocked_ms.unwrap_or(board.now_ms);
        let was = self.blocked_ms.is_some();
        decision.blocked = takes && board.level == Level::Low && board.now_ms.saturating_sub(since) < BLOCKED_MS;
        self.blocked_ms = decision.blocked.then_some(since);
        match (was, decision.blocked) {
            (false, true) => Some(Rule::Blocked { above, free: board.free }),
            (true, false) => Some(Rule::Unblocked { free: board.free }),
            _ => None,
        }
    }
}
