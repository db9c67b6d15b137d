//! The shadow checker: walks a guest hypervisor's tables, the VM's own and the shadow, and compares.

use super::Memory;
use super::reverse::{RmapEntry, RmapKey};
use super::shadows::Shadow;
use crate::addr::{Addr, Ipa, Ipa2, Pa};
use crate::arm::desc::MemType;
use crate::frames::SharedPool;
use crate::machine::Machine;
use crate::stage2::Leaf;
use crate::stage2::walk::Found;
use core::ops::AddAssign;

/// What the checker saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checked {
    /// Shadow leaves.
    pub leaves: u64,
    /// Those that are more than the hypervisor's leaf then ours allows, or that nothing would kill: errors of ours.
    pub wrong: u64,
    /// Those whose leaf the hypervisor has changed or taken away, without its TLBI so far: it may.
    pub stale: u64,
}

impl AddAssign for Checked {
    fn add_assign(&mut self, other: Self) {
        self.leaves += other.leaves;
        self.wrong += other.wrong;
        self.stale += other.stale;
    }
}

impl Memory {
    /// Checks all leaves of all shadows.
    pub fn check<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>) -> Checked {
        let mut checked = Checked::default();
        for n in 0..self.shadows.all.len() {
            let mut at: Addr<Ipa2> = Addr::new(0);
            while let Some((leaf, next)) = self.next_leaf(m, n, at) {
                if let Some(leaf) = leaf {
                    checked += self.check_leaf(m, pool, n, leaf);
                }
                let Some(next) = next else { break };
                at = next;
            }
        }
        checked
    }

    /// What shadow `n` has at `at`, and where it goes on; nothing behind its end.
    #[expect(clippy::type_complexity, reason = "one step of a walk")]
    fn next_leaf<M: Machine>(
        &self,
        m: &M,
        n: usize,
        at: Addr<Ipa2>,
    ) -> Option<(Option<Leaf<Ipa2, Pa>>, Option<Addr<Ipa2>>)> {
        match self.shadows.all.get(n)?.table.walk(m, at) {
            Found::Leaf(leaf) => Some((Some(leaf), at.checked_add(leaf.size.bytes()))),
            Found::Gap(gap) => Some((None, at.checked_add(gap.rest(at)))),
            Found::Outside => None,
        }
    }

    fn check_leaf<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, n: usize, leaf: Leaf<Ipa2, Pa>) -> Checked {
        let stale = Checked { leaves: 1, stale: 1, wrong: 0 };
        let wrong = Checked { leaves: 1, stale: 0, wrong: 1 };
        let Some(key) = self.shadows.all.get(n).map(|shadow| shadow.key) else { return stale };
        let Ok(nested) = self.walk_nested(m, pool, key, leaf.input) else { return stale };
        // To read a table may have brought it back, and have put another page away for that: then what hangs on it has gone, too.
        let is_there = |shadow: &Shadow| shadow.table.walk(m, leaf.input) == Found::Leaf(leaf);
        if !self.shadows.all.get(n).is_some_and(is_there) {
            return stale;
        }
        let Some(ipa) = nested.leaf.output_of(leaf.input).filter(|_| nested.bytes >= leaf.size.bytes()) else {
            return stale;
        };
        let Found::Leaf(own) = self.table.walk(m, ipa) else { return stale };
        let of = RmapKey::new(self.page_number(ipa), leaf.size);
        // There are at most 255.
        let entry = RmapEntry { shadow: n as u8, at: leaf.input };
        // A device of the VM's stays as long as the VM, and nothing hangs on it.
        let hangs = own.attr.mem == MemType::Device || self.shadows.reverse.knows(m, of, entry);
        let (same, allowed) = self.compare(m, ipa, &leaf);
        match (same, hangs) {
            // It is made of other leaves of the hypervisor's than there are now.
            (false, false) => stale,
            // Ours changed, and it did not go with that.
            (false, true) | (true, false) => wrong,
            (true, true) if !allowed => wrong,
            (true, true) if !nested.leaf.attr.rights.allows(leaf.attr.rights) => stale,
            (true, true) => Checked { leaves: 1, ..Checked::default() },
        }
    }

    /// Whether our own leaves have all from `ipa` on where `leaf` of a shadow has it, and allow what that allows. There may be several:
    /// a block of ours that was split since is where it was, and whichever part of it changes takes the shadow's with it.
    fn compare<M: Machine>(&self, m: &M, ipa: Addr<Ipa>, leaf: &Leaf<Ipa2, Pa>) -> (bool, bool) {
        let (mut same, mut allowed) = (true, true);
        let mut done = 0;
        while same && done < leaf.size.bytes() {
            let at = ipa + done;
            match self.table.walk(m, at) {
                Found::Leaf(own) => {
                    same = own.output_of(at) == leaf.output.checked_add(done);
                    allowed &= own.attr.rights.allows(leaf.attr.rights);
                    done += own.size.bytes() - at.offset_in(own.size);
                }
                Found::Gap(_) | Found::Outside => same = false,
            }
        }
        (same, allowed)
    }
}
