//! Splitting a leaf into a table of 512 smaller ones, joining 512 into one again, and taking a table or a whole tree away.
//!
//! Split and join change the size of a translation, which needs the break even where addresses and attributes stay the
//! same (Arm ARM D8.16.1; FEAT_BBM levels 1 and 2 would do without, the Cortex-A72 has neither). While a leaf is broken, a
//! vCPU that touches it faults, waits for the table's lock, and finds it mapped again.

use super::map::{Cached, replace};
use super::vmid::Tag;
use super::{Refusal, Supply, Table, descriptor_at};
use crate::addr::{Addr, Pa, Size, Space};
use crate::arm::desc::{Attr, Desc, Hole};
use crate::arm::vmsa::{ENTRIES, Geometry, Level};
use crate::machine::{Forget, Machine};
use arrayvec::ArrayVec;
use core::sync::atomic::Ordering::Relaxed;

/// How many root descriptors are broken for one TLB invalidation when a tree is taken down. One covers 1 GiB of input
/// in the usual shape, so this is a single invalidation for nearly every VM.
const BATCH: usize = 64;

/// Something that a tree gives back when it is taken down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Removed<Out: Space> {
    /// A leaf was mapped to here.
    Leaf(Addr<Out>, Size, Attr),
    /// A table lay here.
    Table(Addr<Pa>),
    /// A hole with a place of its own was here.
    Hole(Hole),
}

/// What 512 descriptors of one table amount to.
enum Whole {
    Leaf(u64, Attr),
    Hole(Hole),
}

impl<In: Space, Out: Space> Table<In, Out> {
    /// Makes 512 leaves of the next smaller size of the block around `at`; nothing else changes. Takes one frame.
    pub fn split<M: Machine>(&self, m: &M, tag: &Tag, at: Addr<In>, supply: &mut impl Supply) -> Result<(), Refusal> {
        let (entry, desc) = self.descend(m, at, Level::L3).ok_or(Refusal::Outside)?;
        let (Desc::Leaf(output, attr), Some(size), Some(below)) = (desc, entry.level.leaf(), entry.level.next()) else {
            return Err(Refusal::Missing);
        };
        let table = supply.take().ok_or(Refusal::Short)?;
        let first = Desc::Leaf(output, attr).encode(below);
        for index in 0..ENTRIES {
            m.store(descriptor_at(table, index), first | index << below.shift());
        }
        // The first publish of the replacement makes these seen as well, long before the table is reachable.
        replace(m, tag, entry, Cached::Leaf(size), Desc::Table(table.bits()).encode(entry.level));
        Ok(())
    }

    /// Makes one leaf of `size` around `at` of a table of 512 leaves that continue one another and are alike in all else,
    /// or one hole of a table of 512 equal holes. Gives the table's frame to `supply`.
    pub fn join<M: Machine>(
        &self,
        m: &M,
        tag: &Tag,
        at: Addr<In>,
        size: Size,
        supply: &mut impl Supply,
    ) -> Result<(), Refusal> {
        let level = Level::of(size);
        let (entry, desc) = self.descend(m, at, level).ok_or(Refusal::Outside)?;
        let (Desc::Table(table), Some(below)) = (desc, entry.level.next()) else {
            return Err(Refusal::Missing);
        };
        if entry.level != level {
            return Err(Refusal::Outside);
        }
        let table = Addr::new(table);
        let new = match whole(m, table, below).ok_or(Refusal::Uneven)? {
            Whole::Leaf(output, attr) if output & (level.span() - 1) == 0 => Desc::Leaf(output, attr),
            Whole::Leaf(_, _) => return Err(Refusal::Uneven),
            Whole::Hole(hole) => Desc::Hole(hole),
        };
        replace(m, tag, entry, Cached::Table, new.encode(level));
        supply.give(table);
        Ok(())
    }

    /// Takes the table of the pages around `at` away and leaves a hole: whatever its leaves name is somebody else's. Gives the
    /// table's frame to `supply`. Refuses where there is none.
    pub fn prune<M: Machine>(&self, m: &M, tag: &Tag, at: Addr<In>, supply: &mut impl Supply) -> Result<(), Refusal> {
        let (entry, desc) = self.descend(m, at, Level::L2).ok_or(Refusal::Outside)?;
        let (Desc::Table(table), Level::L2) = (desc, entry.level) else { return Err(Refusal::Missing) };
        replace(m, tag, entry, Cached::Table, Hole::Absent.encode());
        supply.give(Addr::new(table));
        Ok(())
    }

    /// Takes the whole tree down: the root is zeroed and stays, all else is shown to `take`, which may reuse it at once:
    /// by then every CPU has forgotten it.
    ///
    /// No vCPU that uses the table may be running, or it would fault and fill it again.
    pub fn clear<M: Machine>(&self, m: &M, tag: &Tag, mut take: impl FnMut(Removed<Out>)) {
        break_root(m, (self.root, self.geometry), tag, !0, &mut |desc, level| dissolve(m, desc, level, &mut take));
    }

    /// The same, where leaves and holes are nobody's: `take` gets the tables that the root led to, with their level, to go
    /// through them later. Of the root, those parts of [`Table::root_part`] are looked at whose bits are set.
    pub fn unlink<M: Machine>(&self, m: &M, tag: &Tag, parts: u64, mut take: impl FnMut(Addr<Pa>, Level)) {
        break_root(m, (self.root, self.geometry), tag, parts, &mut |desc, level: Level| {
            if let (Desc::Table(table), Some(below)) = (desc, level.next()) {
                take(Addr::new(table), below);
            }
        });
    }

    /// Which 64th of the root speaks for `at`, as a bit.
    #[inline(always)]
    pub fn root_part(&self, at: Addr<In>) -> u64 {
        // A root is a power of two of tables.
        let more = self.root_entries().ilog2().saturating_sub(u64::BITS.ilog2());
        1 << (at.bits() >> (self.geometry.start().shift() + more) & 63)
    }
}

/// Takes out of a root what there is in `parts` of it, and shows it to `take` once every CPU has forgotten it. Once for all
/// spaces: it is long, and they make no difference.
#[inline(never)]
fn break_root<M: Machine>(
    m: &M,
    (root, geometry): (Addr<Pa>, Geometry),
    tag: &Tag,
    parts: u64,
    take: &mut dyn FnMut(Desc, Level),
) {
    let (level, entries) = (geometry.start(), geometry.root_tables() * ENTRIES);
    let mut broken: ArrayVec<Desc, BATCH> = ArrayVec::new();
    let mut flush = |broken: &mut ArrayVec<Desc, BATCH>| {
        m.publish();
        if let Some(vmid) = tag.vmid().filter(|_| !broken.is_empty()) {
            m.forget(Forget::Vmid(vmid));
        }
        broken.drain(..).for_each(|desc| take(desc, level));
    };
    let part = entries.div_ceil(u64::BITS.into());
    for first in (0..entries).step_by(part as usize) {
        if parts >> (first / part) & 1 == 0 {
            continue;
        }
        // A part lies in one table of the root.
        let table = descriptor_at(root, first).align_down(Size::Page);
        let skipped = (first % ENTRIES) as usize;
        for (index, word) in (first..first + part).zip(m.frame(table).iter().skip(skipped)) {
            let word = word.load(Relaxed);
            // As most of it is.
            if word == Hole::Absent.encode() {
                continue;
            }
            m.store(descriptor_at(root, index), Hole::Absent.encode());
            let desc = Desc::decode(word, level);
            if !matches!(desc, Desc::Hole(_)) {
                broken.push(desc);
            }
            if broken.is_full() {
                flush(&mut broken);
            }
        }
    }
    flush(&mut broken);
}

/// Recursion as deep as there are levels: each call goes one further.
fn dissolve<M: Machine, Out: Space>(m: &M, desc: Desc, level: Level, take: &mut impl FnMut(Removed<Out>)) {
    match (desc, level.next(), level.leaf()) {
        (Desc::Leaf(output, attr), _, Some(size)) => take(Removed::Leaf(Addr::new(output), size, attr)),
        (Desc::Table(table), Some(below), _) => {
            let table = Addr::new(table);
            for word in m.frame(table).iter().map(|word| word.load(Relaxed)) {
                if word != Hole::Absent.encode() {
                    dissolve(m, Desc::decode(word, below), below, take);
                }
            }
            take(Removed::Table(table));
        }
        (Desc::Hole(hole), _, _) if !hole.is_divisible() => take(Removed::Hole(hole)),
        _ => {}
    }
}

/// What the table's descriptors amount to, if they go together.
fn whole<M: Machine>(m: &M, table: Addr<Pa>, level: Level) -> Option<Whole> {
    let first = m.load(descriptor_at(table, 0));
    let (whole, step) = match Desc::decode(first, level) {
        Desc::Leaf(output, attr) => (Whole::Leaf(output, attr), 1 << level.shift()),
        Desc::Hole(hole) if hole.is_divisible() => (Whole::Hole(hole), 0),
        Desc::Hole(_) | Desc::Table(_) => return None,
    };
    // What is encoded beside the address is the same in all (Arm ARM D8.3.1), so words are compared, not what they mean.
    let mut expected = first;
    let all = m.frame(table).iter().all(|word| {
        let is_next = word.load(Relaxed) == expected;
        expected = expected.wrapping_add(step);
        is_next
    });
    all.then_some(whole)
}
