//! Walking a table: from an input address to the leaf that translates it, or to the hole where that would be.
//!
//! At most four loads, no state, nothing written. The caller holds the table's lock, so that what was found still is
//! there when it is changed.
//!
//! Follows Arm ARM D8.2.

use super::{Entry, Leaf, Table, start_of};
use crate::addr::{Addr, Pa, Size, Space};
use crate::arm::desc::{Desc, Hole};
use crate::arm::vmsa::{ENTRIES, Level};
use crate::machine::Machine;
use arrayvec::ArrayVec;

/// What a table says about an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found<In: Space, Out: Space> {
    /// It is translated.
    Leaf(Leaf<In, Out>),
    /// It is not.
    Gap(Gap<In>),
    /// It has more bits than the table translates.
    Outside,
}

/// A hole in its place: where the descriptor is, and what it says. It speaks for all of its level's span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gap<In: Space> {
    pub(super) entry: Entry<In>,
    pub(super) hole: Hole,
}

impl<In: Space> Gap<In> {
    /// What the descriptor says.
    pub const fn hole(&self) -> Hole {
        self.hole
    }

    /// The level at which the walk ended.
    pub const fn level(&self) -> Level {
        self.entry.level
    }

    /// How many bytes there are from `at`, where the walk was to, to its end.
    pub const fn rest(&self, at: Addr<In>) -> u64 {
        let span = self.entry.level.span();
        span - (at.bits() & (span - 1))
    }

    /// Whether a leaf of `size` fits in: no smaller table is in its way.
    pub fn admits(&self, size: Size) -> bool {
        self.entry.level <= Level::of(size)
    }
}

/// One step of a walk, for reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The level.
    pub level: Level,
    /// Where the descriptor is.
    pub at: Addr<Pa>,
    /// The descriptor.
    pub word: u64,
}

impl<In: Space, Out: Space> Table<In, Out> {
    /// Looks up `at`.
    pub fn walk<M: Machine>(&self, m: &M, at: Addr<In>) -> Found<In, Out> {
        match self.descend(m, at, Level::L3) {
            None => Found::Outside,
            Some((entry, Desc::Leaf(output, attr))) => match entry.level.leaf() {
                Some(size) => Found::Leaf(Leaf { input: entry.input, output: Addr::new(output), size, attr }),
                // `Desc::decode` gives no leaf at a level that has none.
                None => Found::Outside,
            },
            Some((entry, Desc::Hole(hole))) => Found::Gap(Gap { entry, hole }),
            // Not at level 3, where there are no tables.
            Some((entry, Desc::Table(_))) => Found::Gap(Gap { entry, hole: Hole::Poisoned }),
        }
    }

    /// Walks from the root towards `at` until a leaf, a hole, or a descriptor of level `last`.
    pub(super) fn descend<M: Machine>(&self, m: &M, at: Addr<In>, last: Level) -> Option<(Entry<In>, Desc)> {
        let mut entry = self.root_entry(at)?;
        loop {
            let desc = Desc::decode(m.load(entry.at), entry.level);
            match (desc, entry.level.next()) {
                // Ends after four levels: each turn goes one further, and the last has no next.
                (Desc::Table(next), Some(level)) if entry.level < last => {
                    entry = Entry::new(Addr::new(next), at, level)
                }
                _ => return Some((entry, desc)),
            }
        }
    }

    /// All descriptors on the way to `at`, for a crash report.
    pub fn steps<M: Machine>(&self, m: &M, at: Addr<In>) -> ArrayVec<Step, { Level::COUNT }> {
        let mut steps = ArrayVec::new();
        for last in [Level::L0, Level::L1, Level::L2, Level::L3] {
            if let Some((entry, _)) = self.descend(m, at, last)
                && steps.last().is_none_or(|step: &Step| step.level < entry.level)
            {
                steps.push(Step { level: entry.level, at: entry.at, word: m.load(entry.at) });
            }
        }
        steps
    }

    /// Shows every leaf to `see`, in ascending order. For checks and reports: it reads the whole tree.
    pub fn for_each<M: Machine>(&self, m: &M, mut see: impl FnMut(Leaf<In, Out>)) {
        let level = self.geometry.start();
        for index in 0..self.root_entries() {
            let input = Addr::new(index << level.shift());
            if let Some(entry) = self.root_entry(input) {
                visit(m, entry, &mut see);
            }
        }
    }
}

/// Recursion as deep as there are levels: each call goes one further.
fn visit<M: Machine, In: Space, Out: Space>(m: &M, entry: Entry<In>, see: &mut impl FnMut(Leaf<In, Out>)) {
    match (Desc::decode(m.load(entry.at), entry.level), entry.level.next(), entry.level.leaf()) {
        (Desc::Leaf(output, attr), _, Some(size)) => {
            see(Leaf { input: entry.input, output: Addr::new(output), size, attr });
        }
        (Desc::Table(next), Some(level), _) => {
            for index in 0..ENTRIES {
                let input = start_of(entry.input, entry.level).bits() | index << level.shift();
                visit(m, Entry::new(Addr::new(next), Addr::new(input), level), see);
            }
        }
        _ => {}
    }
}
