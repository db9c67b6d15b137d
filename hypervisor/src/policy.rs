//! Who gets how much memory when it is short: numbers in, decisions out. No page is touched here.
//!
//! [`Policy::tick`] takes what is free on the board and, for each [`Vm`], what it has and uses, and says as [`Decisions`] what
//! is to be done until the next tick, about a second later. Its parts: [`Levels`] (how short), [`targets`] (who is entitled
//! to what), [`Estimator`] (who uses what), [`Pace`] (how fast the scanner goes), [`admit()`] (who may start), [`Journal`] (why
//! it was done). Memory is counted in pages of 4 KiB, time in milliseconds; there are at most [`MOST_VMS`] VMs.
//!
//! # The rules
//!
//! | level | what is done |
//! |---|---|
//! | high | nothing is taken; who is below its entitlement has its balloon lowered |
//! | soft | the same, and who is above its entitlement has its balloon raised |
//! | hard | no balloon is lowered, and compression or swap take what leads back to soft |
//! | low | the same, and who is above its entitlement stands still |
//!
//! What there is to be entitled to is what the VMs have and what is free, less what is wanted free for the level high. Nobody
//! is entitled to more than it has and its balloon can give back at once: so nothing lies idle for somebody who does not
//! ask, and all that is taken is needed. Who has no balloon grows by touching pages; that shows as a lower level.
//!
//! A guest's word counts for little. Its balloon is lowered and raised from where it *is*, so a slow one does not wind up
//! decisions; one that has not moved by a MiB for [`STUCK_MS`] though asked to is taken from by the other means, and asked for a
//! MiB at a time until it moves.

pub mod admit;
mod decisions;
mod guest;
mod levels;
mod pace;
pub mod sample;
pub mod targets;
pub mod why;

pub use admit::admit;
pub use decisions::{Decision, Decisions, MOST_VMS, STUCK_MS, Settings, Vm};
pub use levels::{Level, Levels};
pub use pace::Pace;
pub use sample::Estimator;
pub use why::Journal;

use crate::addr::VmId;
use arrayvec::ArrayVec;
use guest::{Board, Guest};
use targets::{Claim, entitle};

/// The policy of a board.
#[derive(Debug)]
pub struct Policy {
    /// What the operator has set.
    pub settings: Settings,
    levels: Levels,
    level: Level,
    guests: ArrayVec<Guest, MOST_VMS>,
    journal: Journal,
    /// Who is given to first: everyone in turn.
    turn: usize,
}

impl Policy {
    /// The policy of a board with `total` pages of memory and `n` VMs, of which those above [`MOST_VMS`] get no decisions.
    pub fn new(settings: Settings, total: u64, n: usize) -> Self {
        let guests = (0..n.min(MOST_VMS)).map(|_| Guest::default()).collect();
        Self { settings, levels: Levels::new(total), level: Level::High, guests, journal: Journal::default(), turn: 0 }
    }

    /// How short of memory the board was at the last tick.
    pub fn level(&self) -> Level {
        self.level
    }

    /// What was done, and why.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Sets a VM's balloon to so many pages until told otherwise, or hands it back to the rules. Compression and swap take
    /// from the VM as from others when memory is short.
    pub fn pin(&mut self, vm: VmId, balloon: Option<u64>) {
        if let Some(guest) = self.guests.get_mut(usize::from(vm.0)) {
            guest.pinned = balloon;
        }
    }

    /// What a VM's balloon is pinned to, if it is.
    pub fn pinned(&self, vm: VmId) -> Option<u64> {
        self.guests.get(usize::from(vm.0))?.pinned
    }

    /// What is to be done until the next tick, with `free` pages free and the VMs as they are `now_ms`. To be called once a
    /// second: what is given and taken is so much per call.
    pub fn tick(&mut self, now_ms: u64, free: u64, vms: &[Vm]) -> Decisions {
        self.level = self.levels.next(self.level, free);
        let vms = &vms[..vms.len().min(self.guests.len())];
        let mut entitled = [0; MOST_VMS];
        self.entitle(free, vms, &mut entitled);
        let board = Board {
            now_ms,
            free,
            level: self.level,
            tax: self.settings.tax.min(100),
            is_urgent: free < self.levels.floor(Level::Soft),
            pack: self.pack_part(free, vms, &entitled),
        };
        // What can be given without ending in hard, were all of it used at once.
        let mut spare = free.saturating_sub(self.levels.ceiling(Level::Hard));
        let mut decisions: ArrayVec<Decision, MOST_VMS> = vms.iter().map(|_| Decision::default()).collect();
        self.turn = self.turn.wrapping_add(1);
        for i in 0..vms.len() {
            let i = self.turn.wrapping_add(i) % vms.len();
            let id = VmId(i as u16); // below MOST_VMS
            let (vm, decision) = (&vms[i], &mut decisions[i]);
            *decision = self.guests[i].decision(&board, id, vm, entitled[i], &mut spare, &mut self.journal);
        }
        Decisions { level: self.level, vms: decisions }
    }

    /// Who is entitled to how much.
    fn entitle(&self, free: u64, vms: &[Vm], entitled: &mut [u64]) {
        let claims: ArrayVec<Claim, MOST_VMS> = vms.iter().map(guest::claim).collect();
        let used = vms.iter().fold(0_u64, |sum, vm| sum.saturating_add(vm.used));
        let available = used.saturating_add(free).saturating_sub(self.levels.wanted(Level::High));
        entitle(&claims, available, self.settings.tax, entitled);
    }

    /// The part of what a VM is above its entitlement that is to be packed, so that all parts lead back to soft; in 1/65536.
    fn pack_part(&self, free: u64, vms: &[Vm], entitled: &[u64]) -> u64 {
        if self.level < Level::Hard {
            return 0;
        }
        let above = vms.iter().zip(entitled).map(|(vm, entitled)| vm.used.saturating_sub(*entitled));
        let above = above.fold(0, u64::saturating_add).max(1);
        let short = self.levels.wanted(Level::Soft).saturating_sub(free).min(above);
        // Both made small enough first.
        let shift = above.ilog2().saturating_sub(46);
        (short >> shift << 16).div_ceil(above >> shift)
    }
}

#[cfg(test)]
mod tests {
    use super::{Decision, Decisions, Level, Policy, Settings, Vm};
    use crate::addr::VmId;
    use alloc::string::ToString;

    /// A board of 400 MiB, and a VM with all it can have.
    const TOTAL: u64 = 100_000;
    const IDLE: Vm = Vm {
        min: 10_000,
        max: 80_000,
        shares: 1000,
        used: 60_000,
        active: 6000,
        balloon: 0,
        target: 0,
        has_balloon: true,
        reports: false,
        running: true,
    };
    const BUSY: Vm = Vm { used: 36_000, active: 36_000, balloon: 40_000, target: 40_000, ..IDLE };

    fn policy() -> Policy {
        Policy::new(Settings::default(), TOTAL, 2)
    }

    /// The decisions of the last of `ticks` seconds in which nobody does as told.
    fn last(policy: &mut Policy, ticks: u64, free: u64, vms: [Vm; 2]) -> Decisions {
        let mut decisions = policy.tick(0, free, &vms);
        for second in 1..ticks {
            let asked: [Vm; 2] = core::array::from_fn(|i| Vm { target: decisions.vms[i].balloon, ..vms[i] });
            decisions = policy.tick(second * 1000, free, &asked);
        }
        decisions
    }

    #[test]
    fn while_enough_is_free_nothing_is_taken_and_balloons_shrink() {
        let decisions = policy().tick(0, 8000, &[IDLE, Vm { used: 32_000, active: 32_000, ..BUSY }]);
        assert_eq!(decisions.level, Level::High);
        assert_eq!(decisions.vms[0], Decision { entitled: decisions.vms[0].entitled, ..Decision::default() });
        assert_eq!(decisions.vms[1].balloon, 40_000 - 80_000 / 32);
    }

    #[test]
    fn at_soft_memory_moves_by_balloons_from_the_idle_to_the_busy() {
        let mut policy = policy();
        let decisions = policy.tick(12_300, 3500, &[IDLE, BUSY]);
        assert_eq!(decisions.level, Level::Soft);
        let [idle, busy] = [decisions.vms[0], decisions.vms[1]];
        // What it takes for 7.5 % to be free, and what the other is given.
        assert_eq!(idle, Decision { balloon: 6500, hint: true, entitled: 53_500, ..Decision::default() });
        assert_eq!(busy, Decision { balloon: 39_500, entitled: 38_500, ..Decision::default() }, "down to 3 % free");
        let reports =
            last(&mut Policy::new(Settings::default(), TOTAL, 2), 1, 3500, [Vm { reports: true, ..IDLE }, BUSY]);
        assert_eq!(reports.vms[0], Decision { hint: false, ..idle }, "it says so by itself");
        let told = policy.journal().of(VmId(0)).next().map(ToString::to_string);
        let want = "12.3 s  -26000 KiB  soft: above its entitlement by 26000 KiB (active 10 %, tax 75 %)";
        assert_eq!(told.as_deref(), Some(want));
    }

    #[test]
    fn who_has_no_balloon_or_a_dead_one_is_packed() {
        let driverless = last(&mut policy(), 1, 3500, [Vm { has_balloon: false, ..IDLE }, BUSY]);
        assert_eq!((driverless.vms[0].balloon, driverless.vms[0].pack), (0, 6500));
        assert_eq!(last(&mut policy(), 5, 3500, [IDLE, BUSY]).vms[0].pack, 0, "it has 5 seconds to answer");
        let dead = last(&mut policy(), 6, 3500, [IDLE, BUSY]).vms[0];
        assert_eq!((dead.balloon, dead.pack), (256, 6500), "and is still asked, for a MiB");
    }

    /// Whether a VM of which much is wanted is packed in each of 15 seconds; its balloon is as `answer` says of what it was
    /// asked and the second.
    fn packed(mut vm: Vm, answer: fn(u64, u64) -> u64) -> [bool; 15] {
        let mut policy = policy();
        core::array::from_fn(|second| {
            let decision = policy.tick(second as u64 * 1000, 3500, &[vm, BUSY]).vms[0];
            vm = Vm { target: decision.balloon, balloon: answer(decision.balloon, second as u64), ..vm };
            decision.pack > 0
        })
    }

    #[test]
    fn a_balloon_is_dead_until_it_moves_by_a_mib_or_as_far_as_asked() {
        assert_eq!(packed(IDLE, |asked, _| asked)[..8], [false; 8]);
        assert_eq!(packed(IDLE, |_, second| second)[7..], [true; 8], "a page per second");
        let late = packed(IDLE, |asked, second| if second < 10 { 0 } else { asked });
        assert_eq!(late, core::array::from_fn(|second| (5..=10).contains(&second)));
        let full = Vm { max: 70_000, balloon: 45_500, target: 45_500, ..IDLE };
        assert!(packed(full, |asked, _| asked)[0], "at 65 %, other means take");
    }

    #[test]
    fn who_was_paused_has_time_to_answer() {
        let mut policy = policy();
        let paused = Vm { target: 6000, running: false, ..IDLE };
        (0..20).for_each(|second| _ = policy.tick(second * 1000, 9000, &[paused, BUSY]));
        let resumed = Vm { running: true, ..paused };
        assert_eq!(policy.tick(20_000, 3500, &[resumed, BUSY]).vms[0].pack, 0);
    }

    #[test]
    fn what_can_be_given_is_given_in_turn_and_no_more() {
        let mut policy = Policy::new(Settings::default(), TOTAL, 3);
        let given = [0, 1, 2].map(|second| {
            let decisions = policy.tick(second * 1000, 4000, &[IDLE, BUSY, BUSY]);
            [1, 2].map(|i| BUSY.balloon - decisions.vms[i].balloon)
        });
        assert_eq!(given, [[1000, 0], [0, 1000], [1000, 0]]);
    }

    #[test]
    fn at_hard_packing_leads_back_to_soft_and_at_low_who_has_too_much_stands_still() {
        let hard = last(&mut policy(), 1, 1500, [IDLE, BUSY]);
        assert_eq!((hard.level, hard.vms[0].pack, hard.vms[0].blocked), (Level::Hard, 4000, false));
        assert_eq!(hard.vms[1].balloon, BUSY.balloon, "nobody is given");
        let mut policy = policy();
        let low = last(&mut policy, 1, 500, [IDLE, BUSY]);
        assert_eq!((low.level, low.vms[0].blocked, low.vms[1].blocked), (Level::Low, true, false));
        assert!(!last(&mut policy, 6, 500, [IDLE, BUSY]).vms[0].blocked, "its balloon must get a turn");
    }

    #[test]
    fn the_operators_word_counts_until_it_is_taken_back() {
        let mut policy = policy();
        policy.pin(VmId(0), Some(1234));
        assert_eq!(policy.tick(0, 3500, &[IDLE, BUSY]).vms[0].balloon, 1234);
        policy.pin(VmId(0), None);
        assert_eq!(policy.tick(1000, 3500, &[IDLE, BUSY]).vms[0].balloon, 6500);
    }
}
