//! What the policy is told and what it says: numbers in, decisions out.

use super::levels::Level;
use arrayvec::ArrayVec;

/// The most VMs there are.
pub const MOST_VMS: usize = 16;
/// How long a balloon may stand still though asked to move, in milliseconds.
pub const STUCK_MS: u64 = 5000;

/// What the operator can set. Each is a percentage; more than 100 counts as 100.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The tax on idle memory.
    pub tax: u8,
    /// The part of merged memory for which frames are kept, lest its owners write to it.
    pub risk: u8,
    /// What the scanner may take of one CPU.
    pub scan_cpu: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tax: 75, risk: 10, scan_cpu: 50 }
    }
}

/// What is known of a VM. Amounts are pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Vm {
    /// What it is left with in any case.
    pub min: u64,
    /// What it takes for its memory.
    pub max: u64,
    /// Its weight; 0 counts as 1.
    pub shares: u32,
    /// The machine's pages that are charged to it. A page that several share is charged to one of them, or to nobody: all
    /// that is charged and all that is free is what there is to divide.
    pub used: u64,
    /// How many of those it has been using lately.
    pub active: u64,
    /// How large its balloon is.
    pub balloon: u64,
    /// How large its balloon was asked to be.
    pub target: u64,
    /// Whether it has a driver for its balloon.
    pub has_balloon: bool,
    /// Whether that reports free pages by itself.
    pub reports: bool,
    /// Whether it runs: neither stopped nor paused.
    pub running: bool,
}

/// What is to be done with a VM. Amounts are pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Decision {
    /// How large its balloon is to be.
    pub balloon: u64,
    /// How much is to be taken by other means (compression, swap) now.
    pub pack: u64,
    /// Whether it must stand still.
    pub blocked: bool,
    /// Whether to ask it for free pages first.
    pub hint: bool,
    /// How much it is entitled to, for who wants to know.
    pub entitled: u64,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decisions {
    /// How short of memory the board is.
    pub level: Level,
    /// A decision for each VM that [`Policy::tick`](super::Policy::tick) was told of, in that order.
    pub vms: ArrayVec<Decision, MOST_VMS>,
}
