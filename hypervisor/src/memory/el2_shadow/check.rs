//! The checker of shadows of stage 1: walks them and the hypervisor's tables, and compares.
//!
//! What the hypervisor has changed without its TLBI so far may differ. What is wrong in any case: a leaf that lets EL1 execute, or that all
//! ASIDs have; one that would not go when its shadow is emptied; a table that may be somebody else's by now.

use super::El2Shadows;
use crate::addr::{Addr, Size, Va};
use crate::arm::desc::is_valid;
use crate::arm::vmsa::{ENTRIES, Level};
use crate::frames::SharedPool;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::memory::check::Checked;
use crate::memory::el2_walk::{El2Regime, is_for_el0};

const RIGHT: Checked = Checked { leaves: 1, wrong: 0, stale: 0 };
const WRONG: Checked = Checked { wrong: 1, ..RIGHT };
const STALE: Checked = Checked { stale: 1, ..RIGHT };

/// A table, and the first address that it is for.
#[derive(Clone, Copy)]
struct Table {
    n: usize,
    level: Level,
    va: u64,
}

impl El2Shadows {
    /// Checks all leaves of all shadows.
    pub fn check<M: Machine>(&self, m: &M, pool: &SharedPool<'_>, memory: &mut Memory) -> Checked {
        let mut checked = Checked::default();
        for (n, shadow) in self.all.iter().enumerate() {
            let Some(regime) = &shadow.regime else { continue };
            let root = Table { n, level: Level::L0, va: 0 };
            for index in 0..ENTRIES {
                let before = checked.leaves;
                self.check_entry(m, pool, memory, (n, regime), (root, index), &mut checked);
                // It is emptied by what it knows of its root.
                let is_known =
                    shadow.roots.get((index / 64) as usize).is_some_and(|word| word >> (index % 64) & 1 != 0);
                if checked.leaves != before && (shadow.is_empty || !is_known) {
                    checked.wrong += 1;
                }
            }
        }
        checked
    }

    /// Checks what an entry of a table leads to: as deep as there are levels.
    fn check_entry<M: Machine>(
        &self,
        m: &M,
        pool: &SharedPool<'_>,
        memory: &mut Memory,
        shadow: (usize, &El2Regime),
        (table, index): (Table, u64),
        checked: &mut Checked,
    ) {
        let va = table.va + index * table.level.span();
        let Some(entry) = self.entry(table.n, table.level, va).map(|at| m.load(at)).filter(|entry| is_valid(*entry))
        else {
            return;
        };
        let Some(below) = Self::below(entry, table.level) else {
            *checked += self.check_leaf(m, pool, memory, shadow, (va, table.level.leaf(), entry));
            return;
        };
        match table.level.next() {
            // The first are the roots, and what is not in use may be in another's next.
            Some(level) if (self.all.len()..self.next).contains(&below) => {
                for index in 0..ENTRIES {
                    self.check_entry(m, pool, memory, shadow, (Table { n: below, level, va }, index), checked);
                }
            }
            _ => *checked += WRONG,
        }
    }

    fn check_leaf<M: Machine>(
        &self,
        m: &M,
        pool: &SharedPool<'_>,
        memory: &mut Memory,
        (n, regime): (usize, &El2Regime),
        (va, size, entry): (u64, Option<Size>, u64),
    ) -> Checked {
        let (Some(size), Some(shadow)) = (size, self.all.get(n)) else { return WRONG };
        if !is_for_el0(entry) {
            return WRONG;
        }
        let Ok(leaf) = memory.walk_el2(m, pool, regime, Addr::<Va>::new(va)) else { return STALE };
        if leaf.bytes < size.bytes() || entry != leaf.descriptor(size == Size::Page) | leaf.ipa.align_down(size).bits()
        {
            return STALE;
        }
        // It may have been made of a smaller leaf, whose TLBI would find it.
        if leaf.bytes > size.bytes() && shadow.parts_of < leaf.bytes { STALE } else { RIGHT }
    }
}
