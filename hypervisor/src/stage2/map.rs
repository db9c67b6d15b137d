//! Changing a table: map, unmap, protect. Break-before-make is in this file and nowhere else.
//!
//! The order, for a descriptor that the hardware may have cached (Arm ARM D8.16.1):
//!
//! 1. store an invalid descriptor,
//! 2. publish: every walker sees it from here on,
//! 3. forget: every CPU drops what it remembers of the old one, and we wait for that,
//! 4. store the new descriptor, if it is a valid one,
//! 5. publish.
//!
//! A hole is never cached, so filling one is store and publish. The VMID to forget is read *after* the first publish: a
//! CPU that takes up the VM meanwhile under a new number publishes that number before it walks ([`super::vmid`]), so either
//! we see the new number here, or that CPU's walks see the invalid descriptor.
//!
//! Rights alone could change without the break. It would save one barrier of the two and cost a second path; the model
//! in the tests knows one rule.

use super::vmid::Tag;
use super::walk::Gap;
use super::{Entry, Leaf, Refusal, Supply, Table, descriptor_at};
use crate::addr::{Addr, Ipa, Pa, Size, Space};
use crate::arm::desc::{Attr, Desc, Hole, is_valid};
use crate::arm::vmsa::{ENTRIES, Level};
use crate::machine::{Forget, Machine};
use arrayvec::ArrayVec;
use core::marker::PhantomData;

/// What of a descriptor can be in a TLB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cached {
    /// One leaf.
    Leaf(Size),
    /// A whole table below it. Forgetting all the VMID has is one operation instead of 512, each of which would drop the
    /// VMID's combined entries anyway (the stage-1 follow-up).
    Table,
}

/// Replaces a valid descriptor by `new`, valid or not.
pub(super) fn replace<M: Machine, In: Space>(m: &M, tag: &Tag, entry: Entry<In>, cached: Cached, new: u64) {
    let broken = if is_valid(new) { Hole::Absent.encode() } else { new };
    m.store(entry.at, broken);
    m.publish();
    // A VM that has never run has nothing cached.
    if let Some(vmid) = tag.vmid() {
        m.forget(match cached {
            // The hardware knows every table's input as IPA, a shadow's too, under the shadow's own VMID.
            Cached::Leaf(size) => Forget::Leaf(vmid, Addr::<Ipa>::new(entry.input.bits()), size),
            Cached::Table => Forget::Vmid(vmid),
        });
    }
    if is_valid(new) {
        m.store(entry.at, new);
        m.publish();
    }
}

/// A change that has all it needs: commit or cancel it. Until then, the table must not be changed otherwise.
#[must_use = "holds table frames until it is committed or cancelled"]
#[derive(Debug)]
pub struct Prepared<In: Space, Out: Space> {
    gap: Gap<In>,
    input: Addr<In>,
    size: Size,
    tables: ArrayVec<Addr<Pa>, 3>,
    output: PhantomData<Out>,
}

impl<In: Space> Gap<In> {
    /// Takes from `supply` the tables that a leaf of `size` around `at` needs here. `at` is what the walk was for.
    ///
    /// Refuses where the hole is too small ([`Refusal::Occupied`]), where it has a place of its own that cannot be divided
    /// ([`Refusal::Uneven`]), or for want of frames ([`Refusal::Short`]); then `supply` has all of its frames back.
    pub fn prepare<Out: Space>(
        self,
        at: Addr<In>,
        size: Size,
        supply: &mut impl Supply,
    ) -> Result<Prepared<In, Out>, Refusal> {
        if !self.admits(size) {
            return Err(Refusal::Occupied);
        }
        let wanted = Level::of(size).number() - self.entry.level.number();
        if wanted > 0 && !self.hole.is_divisible() {
            return Err(Refusal::Uneven);
        }
        let input = at.align_down(size);
        let mut ready = Prepared { gap: self, input, size, tables: ArrayVec::new(), output: PhantomData };
        for _ in 0..wanted {
            match supply.take() {
                Some(table) => ready.tables.push(table),
                None => {
                    ready.cancel(supply);
                    return Err(Refusal::Short);
                }
            }
        }
        Ok(ready)
    }
}

impl<In: Space, Out: Space> Prepared<In, Out> {
    /// Gives the tables back; nothing has changed.
    pub fn cancel(self, supply: &mut impl Supply) {
        self.tables.into_iter().for_each(|table| supply.give(table));
    }

    /// Maps the leaf to the `size` block around `output`, whose contents every CPU must be able to see already (a clean
    /// frame). New tables keep what the hole said for all that is not mapped. Afterwards every walker finds the leaf.
    pub fn commit<M: Machine>(self, m: &M, output: Addr<Out>, attr: Attr) -> Leaf<In, Out> {
        let leaf = Leaf { input: self.input, output: output.align_down(self.size), size: self.size, attr };
        let mut level = Level::of(self.size);
        let mut word = Desc::Leaf(leaf.output.bits(), attr).encode(level);
        for &table in self.tables.iter().rev() {
            fill(m, table, self.gap.hole);
            m.store(descriptor_at(table, level.index(self.input.bits())), word);
            word = Desc::Table(table.bits()).encode(level);
            level = above(level);
        }
        if !self.tables.is_empty() {
            // The tables' contents before the descriptor that leads to them: a walker that saw that first would find the
            // supply's zeroes, a hole, and fault once for nothing.
            m.publish();
        }
        m.store(self.gap.entry.at, word);
        m.publish();
        leaf
    }
}

/// Makes every descriptor of a zeroed table say what the hole said that it is to stand for.
fn fill<M: Machine>(m: &M, table: Addr<Pa>, hole: Hole) {
    if hole != Hole::Absent {
        (0..ENTRIES).for_each(|index| m.store(descriptor_at(table, index), hole.encode()));
    }
}

const fn above(level: Level) -> Level {
    match level {
        Level::L3 => Level::L2,
        Level::L2 => Level::L1,
        Level::L1 | Level::L0 => Level::L0,
    }
}

impl<In: Space, Out: Space> Table<In, Out> {
    /// Prepares the mapping of a leaf of `size` at `at`: [`Gap::prepare`] after the walk.
    pub fn prepare<M: Machine>(
        &self,
        m: &M,
        at: Addr<In>,
        size: Size,
        supply: &mut impl Supply,
    ) -> Result<Prepared<In, Out>, Refusal> {
        if !at.is_aligned(size) {
            return Err(Refusal::Unaligned);
        }
        match self.descend(m, at, Level::of(size)) {
            None => Err(Refusal::Outside),
            Some((entry, Desc::Hole(hole))) if entry.level <= Level::of(size) => {
                Gap { entry, hole }.prepare(at, size, supply)
            }
            // The root has no leaves as big as that.
            Some((entry, _)) if entry.level > Level::of(size) => Err(Refusal::Outside),
            Some(_) => Err(Refusal::Occupied),
        }
    }

    /// Unmaps the leaf around `at`, leaving `hole`, and hands back what was mapped. Afterwards no CPU can reach the
    /// output through this table.
    pub fn unmap<M: Machine>(&self, m: &M, tag: &Tag, at: Addr<In>, hole: Hole) -> Result<Leaf<In, Out>, Refusal> {
        let (entry, leaf) = self.leaf(m, at)?;
        replace(m, tag, entry, Cached::Leaf(leaf.size), hole.encode());
        Ok(leaf)
    }

    /// Gives the leaf around `at` other attributes, and hands back the new leaf.
    pub fn protect<M: Machine>(&self, m: &M, tag: &Tag, at: Addr<In>, attr: Attr) -> Result<Leaf<In, Out>, Refusal> {
        let (entry, mut leaf) = self.leaf(m, at)?;
        if leaf.attr != attr {
            leaf.attr = attr;
            let new = Desc::Leaf(leaf.output.bits(), attr).encode(entry.level);
            replace(m, tag, entry, Cached::Leaf(leaf.size), new);
        }
        Ok(leaf)
    }

    /// Sets the access flag of the leaf around `at`, and hands back the new leaf. A leaf without the flag is in no TLB, so
    /// there is nothing to break and nothing to forget (Arm ARM D8.4.5).
    pub fn wake<M: Machine>(&self, m: &M, at: Addr<In>) -> Result<Leaf<In, Out>, Refusal> {
        let (entry, mut leaf) = self.leaf(m, at)?;
        if !leaf.attr.accessed {
            leaf.attr.accessed = true;
            m.store(entry.at, Desc::Leaf(leaf.output.bits(), leaf.attr).encode(entry.level));
            m.publish();
        }
        Ok(leaf)
    }

    /// Writes `hole` over the hole around `at`; its level stays.
    pub fn relabel<M: Machine>(&self, m: &M, at: Addr<In>, hole: Hole) -> Result<(), Refusal> {
        match self.descend(m, at, Level::L3) {
            None => Err(Refusal::Outside),
            Some((entry, Desc::Hole(_))) => {
                m.store(entry.at, hole.encode());
                m.publish();
                Ok(())
            }
            Some(_) => Err(Refusal::Occupied),
        }
    }

    fn leaf<M: Machine>(&self, m: &M, at: Addr<In>) -> Result<(Entry<In>, Leaf<In, Out>), Refusal> {
        let (entry, desc) = self.descend(m, at, Level::L3).ok_or(Refusal::Outside)?;
        match (desc, entry.level.leaf()) {
            (Desc::Leaf(output, attr), Some(size)) => {
                Ok((entry, Leaf { input: entry.input, output: Addr::new(output), size, attr }))
            }
            _ => Err(Refusal::Missing),
        }
    }
}
