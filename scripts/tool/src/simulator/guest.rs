//! A simulated guest: [`Guest`], pages by what they are good for, and how fast it works with them.
//!
//! A guest touches pages of its working set at random. With a page at hand a touch is worth [`TOUCH`] microseconds of work;
//! else it waits first: [`FRESH`] for a page it never had, [`PACKED`] for one that we took, [`GONE`] for one that it had to
//! drop and must read again. A page that is needed is taken, in this order, from what the guest has free, from what it has
//! cached, and from its own working set. Pages that leave the working set stay as cache, three quarters of them; the rest
//! is freed, but not given back to the machine unless asked for.
//!
//! No page has a number: there are so many of a kind, and dice say which kind is hit.

use super::trace::{self, Driver};
use super::{Dice, Row};
use flatland::policy::sample::PAGES;
use flatland::policy::{Decision, Estimator, Vm};

/// Work with a page, in microseconds.
pub const TOUCH: u64 = 100;
/// The wait for a page that is new.
pub const FRESH: u64 = 5;
/// The wait for a page that is packed.
pub const PACKED: u64 = 100;
/// The wait for a page that is on the guest's disk: an SD card's.
pub const GONE: u64 = 1000;
/// The pages per second that a balloon moves by: 64 MiB.
const BLOW: u64 = 16_384;
/// The ranks of sampled pages are below this.
const RANKS: u64 = 1 << 20;

/// A guest. Amounts are pages.
#[derive(Clone, Debug)]
pub struct Guest {
    max: u64,
    min: u64,
    shares: u32,
    driver: Driver,
    /// The working set: pages at hand, packed, never touched so far; the rest is gone.
    wants: u64,
    hot: u64,
    packed_hot: u64,
    fresh: u64,
    /// Cache at hand, and packed.
    cold: u64,
    packed_cold: u64,
    /// Pages of the machine that the guest has no use for.
    spare: u64,
    balloon: u64,
    target: u64,
    estimator: Estimator,
    /// The sampled pages that were not touched, by rank: hot ones have low ranks.
    ranks: Vec<u64>,
    /// How many were sampled in the running period: none before the first.
    sampled: u32,
    /// In this second: microseconds worked, touches, faults.
    worked: u64,
    touches: u64,
    faults: u64,
    /// Time owed from the slice before.
    owed: u64,
}

impl Guest {
    /// A guest that has just started.
    pub fn new(vm: &trace::Vm) -> Self {
        Self {
            max: vm.max,
            min: vm.min,
            shares: vm.shares,
            driver: vm.driver,
            wants: 0,
            hot: 0,
            packed_hot: 0,
            fresh: 0,
            cold: 0,
            packed_cold: 0,
            spare: 0,
            balloon: 0,
            target: 0,
            estimator: Estimator::default(),
            ranks: Vec::new(),
            sampled: 0,
            worked: 0,
            touches: 0,
            faults: 0,
            owed: 0,
        }
    }

    /// The machine's pages it has.
    pub fn used(&self) -> u64 {
        self.hot + self.cold + self.spare
    }

    /// The least it is left with.
    pub fn min(&self) -> u64 {
        self.min
    }

    /// What it has free of what it takes for its memory, but for what its balloon holds.
    fn free(&self) -> u64 {
        self.max - self.balloon - self.hot - self.packed_hot - self.cold - self.packed_cold
    }

    /// Changes the working set to so many pages.
    pub fn want(&mut self, pages: u64) {
        if let Some(more) = pages.checked_sub(self.wants) {
            self.fresh += more;
        } else {
            // Below 2^40 each.
            let stays = |part: &mut u64| {
                let left = *part * (self.wants - pages) / self.wants;
                *part -= left;
                left
            };
            let left = stays(&mut self.hot);
            self.cold += left - left / 4;
            self.spare += left / 4;
            self.packed_cold += stays(&mut self.packed_hot);
            stays(&mut self.fresh);
        }
        self.wants = pages;
    }

    /// Works for so many microseconds; pages of the machine come out of `machine`.
    pub fn run(&mut self, time: u64, machine: &mut u64, dice: &mut Dice) {
        if self.wants == 0 {
            self.worked += time;
            return;
        }
        let mut spent = self.owed;
        while spent < time {
            let Some(wait) = self.touch(dice.below(self.wants), machine) else {
                // There is no page in the machine: it waits for the next slice.
                spent = time;
                break;
            };
            self.faults += u64::from(wait > FRESH);
            self.touches += 1;
            self.worked += TOUCH;
            spent += wait + TOUCH;
        }
        self.owed = spent - time;
    }

    /// Touches a page of the working set: hot ones come first, then packed ones, fresh ones, gone ones. Returns the wait for
    /// it, or nothing if it cannot be had now.
    fn touch(&mut self, at: u64, machine: &mut u64) -> Option<u64> {
        let Some(at) = at.checked_sub(self.hot) else { return Some(0) };
        if at < self.packed_hot {
            *machine = machine.checked_sub(1)?;
            self.packed_hot -= 1;
            self.hot += 1;
            return Some(PACKED);
        }
        let is_fresh = at - self.packed_hot < self.fresh;
        if self.free() > 0 {
            if self.spare > 0 {
                self.spare -= 1;
            } else {
                *machine = machine.checked_sub(1)?;
            }
        } else if self.cold > 0 {
            self.cold -= 1;
        } else if self.packed_cold > 0 {
            *machine = machine.checked_sub(1)?;
            self.packed_cold -= 1;
        } else {
            // A page of the working set for another: with none at hand, there is nothing to work with.
            self.hot = self.hot.checked_sub(1)?;
        }
        self.hot += 1;
        self.fresh -= u64::from(is_fresh);
        Some(if is_fresh { FRESH } else { GONE })
    }

    /// Lets the balloon do a part, one of `slices`, of what it can do in a second; what it frees goes to `machine`.
    pub fn blow(&mut self, slices: u64, machine: &mut u64) {
        if self.driver != Driver::Willing {
            return;
        }
        let most = BLOW / slices;
        if self.target < self.balloon {
            self.balloon -= most.min(self.balloon - self.target);
            return;
        }
        let mut left = most.min(self.target - self.balloon);
        let mut take = |part: &mut u64| {
            let taken = left.min(*part);
            *part -= taken;
            left -= taken;
            taken
        };
        let mut untouched = self.max - self.balloon - self.packed_hot - self.packed_cold - self.used();
        let freed = take(&mut self.spare);
        let mut inflated = freed + take(&mut untouched);
        let dropped = take(&mut self.cold);
        inflated += dropped + take(&mut self.packed_cold);
        let worn = take(&mut self.hot);
        inflated += worn;
        *machine += freed + dropped + worn;
        self.balloon += inflated;
    }

    /// Begins a period of sampling, and ends the one before.
    pub fn sample(&mut self, dice: &mut Dice) {
        self.estimator.end(self.sampled);
        self.sampled = PAGES;
        self.ranks = (0..PAGES).map(|_| dice.below(RANKS)).collect();
    }

    /// Ends a second, and says how it was.
    pub fn row(&mut self, dice: &mut Dice) -> Row {
        let used = self.used();
        let (hot, wants, touches) = (self.hot, self.wants, self.touches);
        let before = self.ranks.len();
        self.ranks.retain(|rank| rank * used / RANKS >= hot || dice.below(wants) >= touches);
        (self.ranks.len()..before).for_each(|_| self.estimator.touched());
        let row = Row {
            used,
            balloon: self.balloon,
            entitled: 0,
            active: self.estimator.active_permille(self.sampled),
            speed: self.worked / 1000,
            faults: self.faults,
        };
        (self.worked, self.touches, self.faults) = (0, 0, 0);
        row
    }

    /// What the hypervisor knows of it.
    pub fn as_known(&self) -> Vm {
        let used = self.used();
        Vm {
            min: self.min,
            max: self.max,
            shares: self.shares,
            used,
            active: used * u64::from(self.estimator.active_permille(self.sampled)) / 1000,
            balloon: self.balloon,
            target: self.target,
            has_balloon: self.driver != Driver::Missing,
            // As Linux's does since 5.7.
            reports: true,
            running: true,
        }
    }

    /// Has a decision carried out; what is taken goes to `machine`.
    pub fn obey(&mut self, decision: &Decision, machine: &mut u64, dice: &mut Dice) {
        self.target = decision.balloon;
        if decision.hint && self.driver == Driver::Willing {
            *machine += std::mem::take(&mut self.spare);
        }
        for _ in 0..decision.pack.min(self.used()) {
            let at = dice.below(self.used());
            if at < self.hot {
                self.hot -= 1;
                self.packed_hot += 1;
            } else if at - self.hot < self.cold {
                self.cold -= 1;
                self.packed_cold += 1;
            } else {
                self.spare -= 1;
            }
            *machine += 1;
        }
    }
}
