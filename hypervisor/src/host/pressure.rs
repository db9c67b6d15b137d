//! Memory under pressure: what the policy knows and has ordered, and where the scanner for equal pages is.

use crate::memory::check::Checked;
use crate::policy::{Estimator, MOST_VMS, Pace, Policy, Settings};
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::mutex::SpinMutex;

/// What there is to be had besides free frames. Locks: the policy's before the scanner's, both before any VM's.
pub struct Pressure {
    /// The policy, and what it knows.
    pub overcommit: SpinMutex<Overcommit>,
    /// Who looks for equal pages.
    pub scanner: SpinMutex<Scanner>,
    /// Whether pages of some VM are merged.
    pub(super) merges: bool,
    /// Of what sharing saves, the part that must be there to be copied, in percent.
    pub(super) risk: u8,
    /// When memory has to be looked after next, by the system counter.
    pub(super) managed: AtomicU64,
    /// Chooses pages at random.
    seed: AtomicU64,
}

impl Pressure {
    /// As at boot: a policy, and whether pages of some VM are merged.
    pub(super) fn new(overcommit: Overcommit, settings: Settings, merges: bool, seed: u64) -> Self {
        Self {
            overcommit: SpinMutex::new(overcommit),
            scanner: SpinMutex::new(Scanner::default()),
            merges,
            risk: settings.risk,
            managed: AtomicU64::new(0),
            seed: AtomicU64::new(seed | 1),
        }
    }

    /// A number that nobody foresees (xorshift).
    pub(super) fn random(&self) -> u64 {
        let mut x = self.seed.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        // Two CPUs that ask at once may get the same.
        self.seed.store(x, Ordering::Relaxed);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Statistics that are being written.
#[derive(Debug, Default)]
pub struct Stats {
    /// Whether they are wanted.
    pub is_on: bool,
    /// Whether a second has passed that has not been written of to the end.
    pub(super) is_due: bool,
    /// Of when they are, in milliseconds.
    pub(super) millis: u64,
    /// The step that comes next, and the line that is being made.
    pub(super) step: usize,
    pub(super) text: String,
}

/// What the policy knows and has ordered.
#[derive(Debug)]
pub struct Overcommit {
    /// The policy.
    pub policy: Policy,
    /// How fast equal pages are looked for.
    pub pace: Pace,
    /// Whether memory is promised that there is not: only then working sets are watched.
    pub is_on: bool,
    /// Statistics, written every second.
    pub stats: Stats,
    /// Whether shadow tables are checked every second.
    pub checks: bool,
    /// What came of that.
    pub checked: Checked,
    pub(super) estimators: [Estimator; MOST_VMS],
    /// When the running period began, in milliseconds.
    pub(super) sampled_ms: u64,
    /// When the policy is asked next.
    pub(super) next_ms: u64,
    /// What the scanner had done when its round began.
    pub(super) round: Totals,
    /// What is still to be put away, for each VM.
    pub(super) owed: [u64; MOST_VMS],
}

impl Overcommit {
    /// A policy with `settings` for `n` VMs on `total` pages.
    pub fn new(settings: Settings, total: u64, n: usize, is_on: bool) -> Self {
        Self {
            policy: Policy::new(settings, total, n),
            pace: Pace::new(settings.scan_cpu),
            is_on,
            stats: Stats::default(),
            checks: false,
            checked: Checked::default(),
            estimators: [Estimator::default(); MOST_VMS],
            sampled_ms: 0,
            next_ms: 0,
            round: Totals::default(),
            owed: [0; MOST_VMS],
        }
    }

    /// The active pages of the VM with this number, of `resident` pages.
    pub fn active(&self, vm: usize, resident: u64, sampled: u32) -> u64 {
        let part = self.estimators.get(vm).map_or(1000, |estimator| estimator.active_permille(sampled));
        resident.saturating_mul(part.into()) / 1000
    }
}

/// Where the scanner is, and what it has done.
#[derive(Debug, Default)]
pub struct Scanner {
    pub(super) vm: usize,
    /// The page it looks at next.
    pub(super) page: u64,
    /// Which pages of the block it is in seem the same as others, and which seem zero.
    pub(super) same: [u64; 8],
    pub(super) zero: [u64; 8],
    /// The block was split for these; the others are not looked at again.
    pub(super) acts: bool,
    /// What was done.
    pub totals: Totals,
}

impl Scanner {
    /// What was noted of the block it is in does not count any more.
    pub(super) fn forget_block(&mut self) {
        self.same = [0; 8];
        self.zero = [0; 8];
        self.acts = false;
    }
}

/// What merging has done since boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Pages that were read.
    pub scanned: u64,
    /// Pages that were given up for a shared frame.
    pub merged: u64,
    /// Pages of zeroes that were dropped.
    pub zeroed: u64,
    /// Pages that turned out to differ when they were compared.
    pub differed: u64,
    /// How often all VMs were gone through.
    pub rounds: u64,
}
