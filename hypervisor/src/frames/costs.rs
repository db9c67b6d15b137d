//! What the work on pages costs: how often each kind was done, and how many ticks of the system counter it took.
//!
//! Under QEMU's `-icount shift=0` a nanosecond is an instruction, so these are counts; on a board they are times.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Kinds of work on a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Reading it for merging.
    Scan,
    /// Making its frame one that can be shared.
    Freeze,
    /// Comparing it and giving it another's frame.
    Merge,
    /// Copying it because it is written.
    Copy,
    /// Compressing it.
    Pack,
    /// Expanding it.
    Unpack,
    /// Writing it out.
    SwapOut,
    /// Reading it in.
    SwapIn,
    /// Taking it into the balloon.
    Inflate,
}

impl Work {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Scan,
        Self::Freeze,
        Self::Merge,
        Self::Copy,
        Self::Pack,
        Self::Unpack,
        Self::SwapOut,
        Self::SwapIn,
        Self::Inflate,
    ];

    /// What it is called in lines of statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::Freeze => "freeze",
            Self::Merge => "merge",
            Self::Copy => "copy",
            Self::Pack => "pack",
            Self::Unpack => "unpack",
            Self::SwapOut => "swap-out",
            Self::SwapIn => "swap-in",
            Self::Inflate => "inflate",
        }
    }
}

/// The counts of all kinds.
#[derive(Debug, Default)]
pub struct Costs([(AtomicU64, AtomicU64); Work::ALL.len()]);

impl Costs {
    /// `pages` pages of this kind were done, in `ticks`.
    pub fn add(&self, work: Work, pages: u64, ticks: u64) {
        if let Some((done, spent)) = self.0.get(work as usize) {
            done.fetch_add(pages, Relaxed);
            spent.fetch_add(ticks, Relaxed);
        }
    }

    /// How many pages were done, and in how many ticks.
    pub fn of(&self, work: Work) -> (u64, u64) {
        self.0.get(work as usize).map_or((0, 0), |(done, spent)| (done.load(Relaxed), spent.load(Relaxed)))
    }
}
