//! How short of memory the board is: [`Level`], and [`Levels`], which tells one from another.
//!
//! # The reading of 6, 4, 2 and 1 %
//!
//! Each level has a number, in percent of all memory: high 6, soft 4, hard 2, low 1. As in VMware ESX (Waldspurger, OSDI
//! 2002, section 6.3), a level is *entered from above* when what is free drops below its own number, so reclaiming begins
//! below 4 %, and is *entered from below* only when what is free is clearly above its number, by another 1 % of all
//! memory, so that reclaiming ends at 7 %. Between the two, a level stays what it is. What is aimed at is half a percent
//! more: little leftovers that are not worth an order must not keep a board from where it wants to be.
//!
//! ```text
//! free     0   1   2   3   4   5   6   7   8 %
//! falling  low │har│ soft  │ high
//! rising   low       │ hard  │ soft  │ high
//! ```

use core::fmt;

/// How short of memory the board is; the greater, the worse.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub enum Level {
    /// Enough is free: nothing is taken.
    #[default]
    High,
    /// Balloons take.
    Soft,
    /// Compression and swap take as well.
    Hard,
    /// Who has more than it is entitled to stands still.
    Low,
}

impl Level {
    const WORST_FIRST: [Self; 3] = [Self::Low, Self::Hard, Self::Soft];

    /// Its number: thousandths of all memory.
    const fn number(self) -> u64 {
        match self {
            Self::High => 60,
            Self::Soft => 40,
            Self::Hard => 20,
            Self::Low => 10,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::High => "high",
            Self::Soft => "soft",
            Self::Hard => "hard",
            Self::Low => "low",
        })
    }
}

/// How far above its number a level is entered from below, in thousandths of all memory.
const CLEARLY: u64 = 10;
/// How far above its number a level is aimed at, in thousandths of all memory.
const AIM: u64 = 15;

/// The levels of a board.
#[derive(Clone, Copy, Debug)]
pub struct Levels {
    total: u64,
}

impl Levels {
    /// The levels of a board with `total` pages of memory.
    pub const fn new(total: u64) -> Self {
        Self { total }
    }

    /// The level that follows `now` when `free` pages are free.
    #[must_use]
    pub fn next(&self, now: Level, free: u64) -> Level {
        let fallen = Level::WORST_FIRST.into_iter().find(|level| free < self.floor(*level)).unwrap_or_default();
        let risen = [Level::High, Level::Soft, Level::Hard].into_iter().find(|level| free >= self.ceiling(*level));
        // Never worse than what rising to it makes sure of, never better than what falling to it says.
        now.max(fallen).min(risen.unwrap_or(Level::Low))
    }

    /// The pages below which what is free makes it `level`, or worse.
    pub fn floor(&self, level: Level) -> u64 {
        self.thousandths(level.number())
    }

    /// The pages from which on what is free makes a worse level `level`.
    pub fn ceiling(&self, level: Level) -> u64 {
        self.thousandths(level.number() + CLEARLY)
    }

    /// The pages to have free, to come to `level`; none for the worst.
    pub fn wanted(&self, level: Level) -> u64 {
        if level == Level::Low { 0 } else { self.thousandths(level.number() + AIM) }
    }

    fn thousandths(&self, n: u64) -> u64 {
        (self.total / 1000).saturating_mul(n) + self.total % 1000 * n / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::{Level, Levels};

    #[test]
    fn a_level_is_left_downwards_at_the_next_ones_number_and_upwards_clearly_above_the_better_ones() {
        let levels = Levels::new(1000);
        let mut level = Level::High;
        for (free, want) in [
            (60, Level::High),
            (40, Level::High),
            (39, Level::Soft),
            (69, Level::Soft),
            (70, Level::High),
            (19, Level::Hard),
            (49, Level::Hard),
            (50, Level::Soft),
            (9, Level::Low),
            (29, Level::Low),
            (30, Level::Hard),
            (5, Level::Low),
            (1000, Level::High),
        ] {
            level = levels.next(level, free);
            assert_eq!(level, want, "{free} of 1000 free");
        }
    }

    #[test]
    fn what_is_wanted_for_a_level_leads_to_it() {
        let levels = Levels::new(123_457);
        for level in [Level::High, Level::Soft, Level::Hard] {
            assert_eq!(levels.next(Level::Low, levels.wanted(level)), level);
            assert_eq!(levels.next(Level::Low, levels.ceiling(level)), level);
            assert!(levels.next(Level::Low, levels.ceiling(level) - 1) > level);
        }
    }
}
