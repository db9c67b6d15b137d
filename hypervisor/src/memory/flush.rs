//! Cleaning all of a VM's memory, in pieces that are short enough to wait for.

use super::{Coherence, Memory};
use crate::addr::{Addr, Ipa, Size};
use crate::machine::{Machine, Point};
use crate::stage2::walk::Found;

/// How much is cleaned in one piece: a thousand lines, some 20 µs on a Cortex-A72.
pub const PIECE: u64 = 64 << 10;

impl Memory {
    /// Cleans RAM to the point of coherency, from `from` or its start on, and returns where to go on, or nothing at its
    /// end. A hole counts as a page, however large: where it ends is found by one walk.
    pub fn flush<M: Machine>(&self, m: &M, from: Addr<Ipa>) -> Option<Addr<Ipa>> {
        let end = self.layout.base + self.layout.bytes;
        let mut at = from.max(self.layout.base);
        let mut left = PIECE;
        // With FEAT_S2FWB no guest is without caches.
        while at < end && self.layout.coherence == Coherence::Cleaned {
            if left == 0 {
                return Some(at);
            }
            let (bytes, cost) = match self.table.walk(m, at) {
                Found::Leaf(leaf) => {
                    let bytes = (leaf.size.bytes() - at.offset_in(leaf.size)).min(left);
                    if let Some(pa) = leaf.output_of(at) {
                        m.clean(pa, bytes, Point::Coherency);
                    }
                    (bytes, bytes)
                }
                Found::Gap(gap) => (gap.rest(at), Size::Page.bytes()),
                Found::Outside => return None,
            };
            at = at + bytes;
            left = left.saturating_sub(cost);
        }
        None
    }

    /// Cleans the cache line at `at` to the point of coherency, where there is RAM.
    pub fn clean_line<M: Machine>(&self, m: &M, at: Addr<Ipa>) {
        if let Found::Leaf(leaf) = self.table.walk(m, at)
            && self.is_ram(at, 1)
            && let Some(pa) = leaf.output_of(at)
        {
            m.clean(pa, 1, Point::Coherency);
        }
    }
}
