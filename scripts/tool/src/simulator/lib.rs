//! A board on which the hypervisor's memory policy can be tried: [`Simulation`], second by second.
//!
//! The policy and the estimators are the hypervisor's own; simulated are the guests ([`guest::Guest`]) and what carries out
//! the decisions. A [`Trace`] says how large the working set of each guest is when. Dice have a fixed seed: the same trace
//! and the same settings give the same figures.

pub mod guest;
pub mod plot;
pub mod trace;

pub use trace::Trace;

use flatland::policy::{Decisions, Level, Policy, Settings, sample};
use guest::Guest;

/// In how many slices a second is simulated, so that guests compete for memory.
const SLICES: u64 = 10;

/// Dice with a seed (xorshift).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that always fall the same way for a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `n`; 0 where there is none.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n.max(1)
    }
}

/// How a VM fared in a second. Amounts are pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Row {
    /// The machine's pages it has.
    pub used: u64,
    /// How large its balloon is.
    pub balloon: u64,
    /// How much it is entitled to.
    pub entitled: u64,
    /// The part of its pages that is taken for active, in per mille.
    pub active: u32,
    /// What it got done, in per mille of what it would have without faults.
    pub speed: u64,
    /// Pages it had to wait for: its own page-ins and ours.
    pub faults: u64,
}

/// A second of the board.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Second {
    /// Which, from 0.
    pub at: u64,
    /// How short of memory the board was at its end.
    pub level: Level,
    /// The free pages at its end.
    pub free: u64,
    /// The VMs in the order of the trace.
    pub vms: Vec<Row>,
}

/// A board with its guests and its policy.
#[derive(Debug)]
pub struct Simulation<'a> {
    trace: &'a Trace,
    policy: Policy,
    dice: Dice,
    guests: Vec<Guest>,
    decisions: Option<Decisions>,
    now: u64,
    /// The pages of the board.
    free: u64,
}

impl<'a> Simulation<'a> {
    /// The board of `trace` before its first second.
    pub fn new(trace: &'a Trace, settings: Settings, seed: u64) -> Self {
        let guests: Vec<_> = trace.vms.iter().map(Guest::new).collect();
        let policy = Policy::new(settings, trace.board, guests.len());
        Self { trace, policy, dice: Dice::new(seed), guests, decisions: None, now: 0, free: trace.board }
    }

    /// The policy, to ask why.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The guests, in the order of the trace.
    pub fn guests(&self) -> &[Guest] {
        &self.guests
    }

    /// Simulates a second, and has the policy decide at its end.
    pub fn second(&mut self) -> Second {
        for change in self.trace.changes.iter().filter(|change| change.at == self.now) {
            self.guests[change.vm].want(change.pages);
        }
        if self.now.is_multiple_of(sample::PERIOD_MS / 1000) {
            self.guests.iter_mut().for_each(|guest| guest.sample(&mut self.dice));
        }
        for _ in 0..SLICES {
            for (i, guest) in self.guests.iter_mut().enumerate() {
                if !self.decisions.as_ref().is_some_and(|decisions| decisions.vms[i].blocked) {
                    guest.run(1_000_000 / SLICES, &mut self.free, &mut self.dice);
                    guest.blow(SLICES, &mut self.free);
                }
            }
        }
        let mut vms: Vec<_> = self.guests.iter_mut().map(|guest| guest.row(&mut self.dice)).collect();
        self.now += 1;
        let known: Vec<_> = self.guests.iter().map(Guest::as_known).collect();
        let decisions = self.policy.tick(self.now * 1000, self.free, &known);
        for ((guest, decision), row) in self.guests.iter_mut().zip(&decisions.vms).zip(&mut vms) {
            guest.obey(decision, &mut self.free, &mut self.dice);
            row.entitled = decision.entitled;
        }
        let level = decisions.level;
        self.decisions = Some(decisions);
        let used: u64 = self.guests.iter().map(Guest::used).sum();
        assert_eq!(used + self.free, self.trace.board, "a page is lost");
        Second { at: self.now - 1, level, free: self.free, vms }
    }

    /// Simulates the rest of the trace.
    pub fn run(&mut self) -> Vec<Second> {
        (self.now..self.trace.end).map(|_| self.second()).collect()
    }
}

/// The mean speed of a VM over some seconds, in per mille.
pub fn mean_speed(seconds: &[Second], vm: usize) -> u64 {
    let sum: u64 = seconds.iter().map(|second| second.vms[vm].speed).sum();
    sum / seconds.len().max(1) as u64
}

/// The seconds of each phase of a trace: from one change of working sets to the next, without the first half, in which
/// memory moves.
pub fn phases<'a>(trace: &Trace, seconds: &'a [Second]) -> Vec<&'a [Second]> {
    let mut starts: Vec<_> = trace.changes.iter().map(|change| change.at).chain([trace.end]).collect();
    starts.sort_unstable();
    starts.dedup();
    let whole = starts.windows(2).map(|pair| (pair[0] + (pair[1] - pair[0]) / 2, pair[1]));
    // Times of a trace are no greater than its end, which is what was simulated.
    whole.filter_map(|(from, to)| seconds.get(from as usize..to as usize)).collect()
}
