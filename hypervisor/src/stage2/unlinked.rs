//! Tables that are in no tree any more and wait to go back, a few at a time: a tree can have thousands, and to go through it
//! at once would keep a CPU for long.
//!
//! They are chained: each one's first descriptor makes way for a link to the next, with that one's level and how far it has
//! been gone through; as a descriptor that would be an invalid one. Every CPU has forgotten them by then, so that nobody walks
//! there. What the first descriptor led to is chained itself. (KVM's word for such tables is the same.)

use super::descriptor_at;
use crate::addr::{Addr, Pa};
use crate::arm::desc::{Desc, Hole};
use crate::arm::vmsa::{ENTRIES, Level};
use crate::machine::Machine;

/// The first of the chain: its address, in bits 11:3 its next descriptor, in bits 2:1 its level. Zero: there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unlinked(u64);

/// One descriptor further.
const NEXT: u64 = 1 << 3;

/// How many descriptors of a table are gone through in the time that it takes to give one table back.
const SCANNED: u32 = 64;

impl Unlinked {
    /// Whether none waits.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds a table of this level, and all below it.
    pub fn push<M: Machine>(&mut self, m: &M, mut table: Addr<Pa>, mut level: Level) {
        loop {
            let first = descriptor_at(table, 0);
            let desc = Desc::decode(m.load(first), level);
            m.store(first, self.0);
            self.0 = table.bits() | NEXT | (level as u64) << 1;
            // Ends after four levels: each turn goes one further, and the last has no tables.
            match (desc, level.next()) {
                (Desc::Table(below), Some(next)) => (table, level) = (Addr::new(below), next),
                _ => return,
            }
        }
    }

    /// Shows `take` some tables, which it may use again at once: as many as can be in the time that giving `most` back takes.
    pub fn free_some<M: Machine>(&mut self, m: &M, most: u32, mut take: impl FnMut(Addr<Pa>)) {
        let (mut left, mut scanned) = (most, 0);
        while left > 0 && !self.is_empty() {
            let table = Addr::new(self.0 & !0xfff);
            let level = match self.0 >> 1 & 3 {
                1 => Level::L1,
                2 => Level::L2,
                _ => Level::L3,
            };
            match level.next() {
                Some(next) => {
                    let index = self.0 >> 3 & (ENTRIES - 1);
                    // Behind the last there is nothing more to go through, as in a table of level 3.
                    self.0 = if index + 1 < ENTRIES { self.0 + NEXT } else { self.0 | 3 << 1 };
                    scanned += 1;
                    left -= u32::from(scanned % SCANNED == 0);
                    let word = m.load(descriptor_at(table, index));
                    // As most of it is.
                    if word != Hole::Absent.encode()
                        && let Desc::Table(below) = Desc::decode(word, level)
                    {
                        self.push(m, Addr::new(below), next);
                    }
                }
                None => {
                    self.0 = m.load(descriptor_at(table, 0));
                    take(table);
                    left -= 1;
                }
            }
        }
    }
}
