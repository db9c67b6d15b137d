//! What the shadows of a VM consist of.

use super::reverse::Reverse;
use crate::addr::{Addr, Ipa, Ipa2, Pa};
use crate::machine::Machine;
use crate::stage2::unlinked::Unlinked;
use crate::stage2::vmid::Tag;
use crate::stage2::walk::Found;
use crate::stage2::{Leaf, Table};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::AddAssign;

/// By what a guest hypervisor's stage 2 is known: its VTTBR_EL2, VMID included, and its VTCR_EL2. Any numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    /// VTTBR_EL2.
    pub vttbr: u64,
    /// VTCR_EL2.
    pub vtcr: u64,
}

impl Key {
    /// The VMID; there are 8 bits of it.
    pub const fn vmid(self) -> u16 {
        // Cut to its bits.
        (self.vttbr >> 48) as u16 & 0xff
    }
}

/// How shadow leaves came and went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ShadowCounts {
    /// Leaves filled.
    pub filled: u64,
    /// Own pages and blocks that changed while shadows were there.
    pub moved: u64,
    /// Shadow leaves that went for that.
    pub killed: u64,
    /// Shadows that were emptied for want of room.
    pub dropped: u64,
    /// Leaves that made way for others of the same page, of which there are too many.
    pub displaced: u64,
}

impl AddAssign for ShadowCounts {
    fn add_assign(&mut self, other: Self) {
        self.filled += other.filled;
        self.moved += other.moved;
        self.killed += other.killed;
        self.dropped += other.dropped;
        self.displaced += other.displaced;
    }
}

#[derive(Debug)]
pub(super) struct Shadow {
    pub(super) key: Key,
    pub(super) table: Table<Ipa2, Pa>,
    pub(super) tag: Arc<Tag>,
    pub(super) used: u64,
    /// Whether it has tables besides its root.
    pub(super) has_tables: bool,
    /// The parts of its root ([`Table::root_part`]) in which there may be something.
    pub(super) root_parts: u64,
    /// Whether some of its leaves are parts of larger ones of the hypervisor's: the marks.
    pub(super) parts: u8,
}

/// The shadows of a VM, and what is kept for them.
#[derive(Debug, Default)]
pub(super) struct Shadows {
    pub(super) all: Vec<Shadow>,
    pub(super) reverse: Reverse,
    /// Tables of shadows that were emptied.
    pub(super) unlinked: Unlinked,
    /// For each vCPU the page that must stay where it is.
    pub(super) pins: Vec<Option<Addr<Ipa>>>,
    /// For shadows that are yet to come.
    pub(super) tags: Vec<Arc<Tag>>,
    /// How many frames of tables they may have together, roots apart. Nothing: any number.
    pub(super) limit: Option<u64>,
    pub(super) clock: u64,
    pub(super) counts: ShadowCounts,
}

impl Shadow {
    /// The shadow leaf around `at`, if it names `frame`.
    pub(super) fn naming<M: Machine>(&self, m: &M, at: Addr<Ipa2>, frame: Addr<Pa>) -> Option<Leaf<Ipa2, Pa>> {
        match self.table.walk(m, at) {
            Found::Leaf(leaf) if leaf.output.align_down(leaf.size) == frame.align_down(leaf.size) => Some(leaf),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ShadowCounts;

    #[test]
    fn counts_of_vms_add_up() {
        let one = ShadowCounts { filled: 1, moved: 20, killed: 300, dropped: 4_000, displaced: 50_000 };
        let mut sum = ShadowCounts { filled: 5, moved: 6, killed: 7, dropped: 8, displaced: 9 };
        sum += one;
        let all = ShadowCounts { filled: 6, moved: 26, killed: 307, dropped: 4_008, displaced: 50_009 };
        assert_eq!(sum, all);
    }
}
