//! Putting pages away: compressed into the store in RAM, or out to the swap area; and bringing them back.
//!
//! A page is taken from its guest as in [`super::share`], put away, and its descriptor says where. A touch brings it back,
//! bit for bit: what comes out of the store or from the disk is compared with the hash of what went in, and a page that
//! is not what it was stops its VM ([`Miss::Lost`]).
//!
//! Only pages of a VM's own go, among them those that nobody shares any more. Shared ones save more where they are, and
//! blocks are split first.

use super::share::PageClass;
use super::{Access, Memory, Miss, Resident};
use crate::addr::{Addr, Ipa, Pa, Size};
use crate::arm::desc::{Attr, Hole, MemType};
use crate::frames::compressor::Unit;
use crate::frames::hash::is_zero;
use crate::frames::hints::Match;
use crate::frames::store::{MOST_UNITS, UnitId};
use crate::frames::{Clean, Dirty, Frame, SharedPool, Use, Work, compressor};
use crate::machine::{Machine, Words};
use crate::stage2::Leaf;
use crate::stage2::walk::{Found, Gap};
use core::sync::atomic::Ordering::Relaxed;

/// How many steps a page of the VM's own is looked for.
const LOOKS: u32 = 64;

/// What became of a page that was to be put away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// It, or the block it is in, was full of zeroes and is nowhere: so many frames.
    Zero(u64),
    /// It was the same as another and is in that one's frame.
    Merged,
    /// It is in the store.
    Packed,
    /// It is in the swap area.
    Swapped,
    /// There is nothing of the VM's own.
    Nothing,
    /// It does not get small enough, and there is no room on a disk.
    Stays,
    /// There is no room in the store, or none for a table.
    Short,
}

/// The words of a unit of the store, and what follows them in its frame.
fn unit<'m, M: Machine>(m: &'m M, pool: &SharedPool<'_>, place: UnitId) -> Option<Unit<'m>> {
    let at = pool.lock().place(place)?;
    // An offset in a page fits.
    Some(m.frame(at.align_down(Size::Page)).iter().skip(at.offset_in(Size::Page) as usize / 8))
}

/// What of a page's hash its descriptor keeps while it is in the swap area.
fn check(pool: &SharedPool<'_>, words: &Words) -> u16 {
    // The upper bits.
    (pool.hash().of(words) >> 48) as u16
}

impl Memory {
    /// The first page of this VM's own from `ipa` on, a bounded number of steps away.
    pub fn next_own<M: Machine>(&self, m: &M, pool: &SharedPool<'_>, ipa: Addr<Ipa>) -> Option<Addr<Ipa>> {
        let is_alone = |frame| pool.lock().record(frame).is_some_and(|record| record.refs() == 1);
        let mut at = ipa;
        for _ in 0..LOOKS {
            let step = match self.table.walk(m, at) {
                Found::Leaf(leaf)
                    if leaf.attr.mem != MemType::Device && (!leaf.attr.is_shared() || is_alone(leaf.output)) =>
                {
                    return Some(at);
                }
                Found::Leaf(_) => Size::Page.bytes(),
                Found::Gap(gap) => gap.rest(at),
                Found::Outside => return None,
            };
            at = at.checked_add(step)?;
        }
        None
    }

    /// Frees the frame of the page at `ipa` by what costs least: dropped if it is zero, merged if the same is shared
    /// already, else put away.
    pub fn evict<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, ipa: Addr<Ipa>) -> Put {
        self.own(m, pool, ipa);
        match self.classify(m, pool, ipa) {
            PageClass::Zero if self.is_block(m, ipa) && self.drop_zeroes(m, pool, ipa) => {
                Put::Zero(Size::Block.frames())
            }
            PageClass::Zero if self.drop_zeroes(m, pool, ipa) => Put::Zero(1),
            PageClass::Same(Match::Shared(frame), _) if self.merge(m, pool, ipa, frame) => Put::Merged,
            _ => self.put_away(m, pool, ipa),
        }
    }

    /// Puts the page at `ipa` away. Where it lies in a block, that is split.
    pub fn put_away<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, ipa: Addr<Ipa>) -> Put {
        if self.is_block(m, ipa) && self.split(m, pool, ipa).is_err() {
            return Put::Short;
        }
        let start = m.now();
        let Some(leaf) = self.take_away(m, ipa) else { return Put::Nothing };
        if is_zero(m.frame(leaf.output)) {
            self.leave_hole(m, pool, leaf, Hole::Zero);
            return Put::Zero(1);
        }
        let put = match self.pack(m, pool, leaf.output) {
            Ok((place, units)) => {
                self.leave_hole(m, pool, leaf, Hole::Packed(place.0));
                self.resident.units += u64::from(units);
                pool.costs().add(Work::Pack, 1, m.now().wrapping_sub(start));
                return Put::Packed;
            }
            Err(put) => put,
        };
        let block = pool.lock().swap.take();
        if let Some(block) = block {
            if m.swap_out(block, leaf.output) {
                let check = check(pool, m.frame(leaf.output));
                self.leave_hole(m, pool, leaf, Hole::Swapped(block, check));
                pool.costs().add(Work::SwapOut, 1, m.now().wrapping_sub(start));
                return Put::Swapped;
            }
            pool.lock().swap.give(block);
        }
        self.put_back(m, leaf, leaf.output, leaf.attr);
        put
    }

    /// Compresses the frame at `frame` into the store.
    fn pack<M: Machine>(&self, m: &M, pool: &SharedPool<'_>, frame: Addr<Pa>) -> Result<(UnitId, u32), Put> {
        let mut compressor = pool.compressor();
        let packed = compressor.pack(pool.hash(), m.frame(frame)).ok_or(Put::Stays)?;
        // The units are ours alone from here on.
        let chain = pool.lock().stow(packed.units).ok_or(Put::Short)?;
        let first = *chain.first().ok_or(Put::Short)?;
        compressor.put(packed, &chain, |place| unit(m, pool, place));
        Ok((first, packed.units))
    }

    /// Brings the page at `ipa` back from where `gap` says it is.
    #[cold]
    pub(super) fn unpack<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        ipa: Addr<Ipa>,
        access: Access,
        gap: Gap<Ipa>,
    ) -> Result<Leaf<Ipa, Pa>, Miss> {
        let frame = pool.lock().take(Size::Page, self.layout.owner, Use::Guest).ok_or(Miss::Short)?;
        let hole = gap.hole();
        let start = m.now();
        let brought = match hole {
            Hole::Packed(place) => expand(m, pool, UnitId(place), frame),
            Hole::Swapped(block, sum) => {
                let there = m.swap_in(block, frame.start());
                // The disk wrote it: every CPU sees that.
                let frame = frame.written(m);
                let whole = there && check(pool, m.frame(frame.start())) == sum;
                if whole { Ok(frame) } else { Err(frame.into_dirty()) }
            }
            _ => Err(frame),
        };
        let frame = match brought {
            Ok(frame) => frame,
            Err(frame) => {
                pool.lock().give_back(frame);
                return Err(Miss::Lost);
            }
        };
        let leaf = self.restore(m, pool, (ipa, access), gap, frame);
        let page = self.page_number(ipa);
        self.sample.touched(page);
        let work = if matches!(hole, Hole::Packed(_)) { Work::Unpack } else { Work::SwapIn };
        pool.costs().add(work, 1, m.now().wrapping_sub(start));
        leaf
    }

    fn restore<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        (ipa, access): (Addr<Ipa>, Access),
        gap: Gap<Ipa>,
        frame: Frame<Clean>,
    ) -> Result<Leaf<Ipa, Pa>, Miss> {
        let rights = self.show(m, frame.start(), Size::Page, access);
        let attr = Attr { rights, ..self.ram_attr() };
        let (_, _, mut supply) = self.parts(m, pool);
        // The hole is a page's, so it takes no tables.
        let Ok(ready) = gap.prepare(ipa, Size::Page, &mut supply) else {
            pool.lock().give_back(frame.into_dirty());
            return Err(Miss::Short);
        };
        let leaf = ready.commit(m, frame.into_table(), attr);
        self.resident.frames += 1;
        self.vacate(m, pool, gap.hole());
        Ok(leaf)
    }

    /// Gives back the place that a hole named, and counts it out.
    pub(super) fn vacate<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, hole: Hole) {
        vacate(m, pool, &mut self.resident, hole);
    }
}

/// Expands what lies at `place` into `frame`, if it still is what it was.
fn expand<M: Machine>(
    m: &M,
    pool: &SharedPool<'_>,
    place: UnitId,
    frame: Frame<Dirty>,
) -> Result<Frame<Clean>, Frame<Dirty>> {
    let mut compressor = pool.compressor();
    let Some(head) = compressor.get(place, |place| unit(m, pool, place)) else { return Err(frame) };
    let frame = frame.fill(m, |n| compressor.word(n));
    if compressor::is_whole(pool.hash(), head, m.frame(frame.start())) { Ok(frame) } else { Err(frame.into_dirty()) }
}

/// Gives back the place that `hole` named, and counts it out of `resident`.
pub(super) fn vacate<M: Machine>(m: &M, pool: &SharedPool<'_>, resident: &mut Resident, hole: Hole) {
    if let Some(count) = resident.of(hole) {
        *count = count.saturating_sub(1);
    }
    match hole {
        Hole::Packed(first) => {
            let mut place = Some(UnitId(first));
            for _ in 0..MOST_UNITS {
                let Some(here) = place else { break };
                // Read before it is given back: then it may be somebody else's.
                let link = unit(m, pool, here).and_then(|mut words| words.next().map(|word| word.load(Relaxed)));
                pool.lock().unstow(here);
                resident.units = resident.units.saturating_sub(1);
                place = link.and_then(compressor::next);
            }
        }
        Hole::Swapped(block, _) => pool.lock().swap.give(block),
        _ => {}
    }
}
