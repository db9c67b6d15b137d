//! Putting pages away: compressed into the store in RAM, or out to the swap area; and bringing them back.
//!
//! A page is taken from its guest as in [`super::share`], put away, and its descriptor says where. A touch brings it back,
//! bit for bit: what comes out of the store or from the disk is compared with the hash of what went in, and a page that
//! is not what it was stops its VM ([`Miss::Lost`]).
//!
//! Only pages of a VM's own go, among them those that nobody shares any more. Shared ones save more where they are, and
//! blocks are split first.

use super::share::{PageClass, ZeroBlock};
use super::{Access, Memory, Miss, Resident};
use crate::addr::{Addr, Ipa, Pa, Size};
use crate::arm::desc::{Attr, Hole, MemType};
use crate::frames::compressor::{Compressed, Compressor, Packed, Unit};
use crate::frames::hash::is_zero;
use crate::frames::hints::Match;
use crate::frames::store::{MOST_UNITS, UnitId};
use crate::frames::{Clean, Frame, SharedPool, Use, Work, compressor};
use crate::machine::{Machine, Words};
use crate::stage2::Leaf;
use crate::stage2::walk::{Found, Gap};
use core::sync::atomic::Ordering::Relaxed;

/// How many steps a page of the VM's own is looked for.
const LOOKS: u32 = 48;

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
    /// There is more to do: to look at of the block that it is in, or to compress.
    Begun,
}

/// The words of a unit of the store, and what follows them in its frame.
fn unit<'m, M: Machine>(m: &'m M, pool: &SharedPool<'_>, place: UnitId) -> Option<Unit<'m>> {
    let at = pool.lock().place(place)?;
    // An offset in a page fits.
    Some(m.frame(at.align_down(Size::Page)).get(at.offset_in(Size::Page) as usize / 8..)?.iter())
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
    /// already, else put away. Goes on with the block that [`Put::Begun`] spoke of, if there is one.
    pub fn evict<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, ipa: Addr<Ipa>) -> Put {
        if pool.compressor().job() == Some((self.layout.owner, ipa.align_down(Size::Page))) {
            return self.put_away(m, pool, ipa);
        }
        if let Some(block) = self.zero_block() {
            match self.drop_zero_block(m, pool, block) {
                ZeroBlock::Dropped => return Put::Zero(Size::Block.frames()),
                ZeroBlock::More => return Put::Begun,
                // Not again: its page at `ipa` may be zero, and this be gone through for ever.
                ZeroBlock::Differs if block == ipa.align_down(Size::Block) => return self.put_away(m, pool, ipa),
                ZeroBlock::Differs => {}
            }
        }
        self.own(m, pool, ipa);
        match self.classify(m, pool, ipa) {
            PageClass::Zero if self.is_block(m, ipa) => match self.drop_zero_block(m, pool, ipa) {
                ZeroBlock::Dropped => Put::Zero(Size::Block.frames()),
                ZeroBlock::More => Put::Begun,
                ZeroBlock::Differs => self.put_away(m, pool, ipa),
            },
            PageClass::Zero if self.drop_zeroes(m, pool, ipa) => Put::Zero(1),
            PageClass::Same(Match::Shared(frame), _) if self.merge(m, pool, ipa, frame) => Put::Merged,
            _ => self.put_away(m, pool, ipa),
        }
    }

    /// Does a step of putting the page at `ipa` away. Where it lies in a block, that is split. The guest has it until it is compressed:
    /// if it was written meanwhile, it stays.
    pub fn put_away<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, ipa: Addr<Ipa>) -> Put {
        if self.is_block(m, ipa) {
            // Long enough for a step.
            return if self.split(m, pool, ipa).is_ok() { Put::Begun } else { Put::Short };
        }
        let start = m.now();
        let page = ipa.align_down(Size::Page);
        let of = (self.layout.owner, page);
        let mut compressor = pool.compressor();
        // What has been begun goes on with its copy: what has become of the page is seen when it is taken away.
        if compressor.job() != Some(of) {
            match self.table.walk(m, page) {
                Found::Leaf(leaf) if leaf.size == Size::Page && self.is_own(&leaf) => {
                    compressor.begin(of, m.frame(leaf.output));
                    compressor.spend(m.now().wrapping_sub(start));
                    return Put::Begun;
                }
                _ => return Put::Nothing,
            }
        }
        let packed = match compressor.step() {
            Compressed::More => {
                compressor.spend(m.now().wrapping_sub(start));
                return Put::Begun;
            }
            Compressed::Done(packed) => Some(packed),
            Compressed::Large => None,
        };
        let spent = compressor.end();
        let Some(leaf) = self.take_away(m, page) else { return Put::Nothing };
        let words = m.frame(leaf.output);
        if is_zero(words) {
            self.leave_hole(m, pool, leaf, Hole::Zero);
            return Put::Zero(1);
        }
        let put = match packed {
            Some(packed) => {
                match compressor.hash_of_copy(pool.hash(), words).map(|hash| store(m, pool, &compressor, packed, hash))
                {
                    // It was written meanwhile.
                    None => Put::Nothing,
                    Some(Some(first)) => {
                        self.leave_hole(m, pool, leaf, Hole::Packed(first.0));
                        self.resident.units += u64::from(packed.units);
                        pool.costs().add(Work::Pack, 1, spent.wrapping_add(m.now().wrapping_sub(start)));
                        return Put::Packed;
                    }
                    Some(None) => Put::Short,
                }
            }
            None => Put::Stays,
        };
        if put != Put::Nothing
            && let Some(block) = self.swap_out(m, pool, leaf)
        {
            let check = check(pool, words);
            self.leave_hole(m, pool, leaf, Hole::Swapped(block, check));
            pool.costs().add(Work::SwapOut, 1, m.now().wrapping_sub(start));
            return Put::Swapped;
        }
        self.put_back(m, leaf, leaf.output, leaf.attr);
        put
    }

    /// Writes the frame of `leaf` to the swap area, and returns where to.
    fn swap_out<M: Machine>(&self, m: &M, pool: &SharedPool<'_>, leaf: Leaf<Ipa, Pa>) -> Option<u32> {
        let block = pool.lock().swap.take()?;
        if m.swap_out(block, leaf.output) {
            return Some(block);
        }
        pool.lock().swap.give(block);
        None
    }

    /// Brings the page at `ipa` back from where `gap` says it is: a step of it, where it is compressed. If another page of this VM was
    /// begun with, that one comes first.
    #[cold]
    pub(super) fn unpack<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        (ipa, access): (Addr<Ipa>, Access),
        gap: Gap<Ipa>,
    ) -> Result<Leaf<Ipa, Pa>, Miss> {
        if let Some((at, _)) = self.begun.expander.job().filter(|(at, _)| *at != ipa.align_down(Size::Page)) {
            return match self.table.walk(m, at) {
                // It is there because somebody touched it, and comes back unnoticed otherwise.
                Found::Gap(gap) => match self.expand(m, pool, (at, Access::Read), gap) {
                    Ok(_) => Err(Miss::Again),
                    miss => miss,
                },
                _ => {
                    self.begun.expander.end();
                    Err(Miss::Again)
                }
            };
        }
        match gap.hole() {
            Hole::Swapped(block, sum) => self.swap_in(m, pool, (ipa, access), gap, (block, sum)),
            _ => self.expand(m, pool, (ipa, access), gap),
        }
    }

    /// Does a step of bringing the page at `ipa` back from the store.
    fn expand<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        (ipa, access): (Addr<Ipa>, Access),
        gap: Gap<Ipa>,
    ) -> Result<Leaf<Ipa, Pa>, Miss> {
        let Hole::Packed(first) = gap.hole() else {
            self.begun.expander.end();
            return Err(Miss::Again);
        };
        let (start, page, first) = (m.now(), ipa.align_down(Size::Page), UnitId(first));
        if self.begun.expander.job() != Some((page, first))
            && !self.begun.expander.begin(page, first, |place| unit(m, pool, place))
        {
            return Err(Miss::Lost);
        }
        let is_done = self.begun.expander.step();
        self.begun.expander.spend(m.now().wrapping_sub(start));
        match is_done {
            Some(true) => {}
            Some(false) => return Err(Miss::Again),
            None => {
                self.begun.expander.end();
                return Err(Miss::Lost);
            }
        }
        let start = m.now();
        let frame = pool.lock().take(Size::Page, self.layout.owner, Use::Guest).ok_or(Miss::Short)?;
        let frame = frame.of_words(m, self.begun.expander.words());
        let is_whole = self.begun.expander.is_whole(pool.hash(), m.frame(frame.start()));
        let spent = self.begun.expander.end();
        if !is_whole {
            pool.lock().give_back(frame.into_dirty());
            return Err(Miss::Lost);
        }
        let leaf = self.restore(m, pool, (ipa, access), gap, frame);
        pool.costs().add(Work::Unpack, 1, spent.wrapping_add(m.now().wrapping_sub(start)));
        leaf
    }

    /// Brings the page at `ipa` back from a block of the swap area.
    fn swap_in<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        (ipa, access): (Addr<Ipa>, Access),
        gap: Gap<Ipa>,
        (block, sum): (u32, u16),
    ) -> Result<Leaf<Ipa, Pa>, Miss> {
        let frame = pool.lock().take(Size::Page, self.layout.owner, Use::Guest).ok_or(Miss::Short)?;
        let start = m.now();
        let there = m.swap_in(block, frame.start());
        // The disk wrote it: every CPU sees that.
        let frame = frame.written(m);
        if !there || check(pool, m.frame(frame.start())) != sum {
            pool.lock().give_back(frame.into_dirty());
            return Err(Miss::Lost);
        }
        let leaf = self.restore(m, pool, (ipa, access), gap, frame);
        pool.costs().add(Work::SwapIn, 1, m.now().wrapping_sub(start));
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
        let page = self.page_number(ipa);
        self.sample.touched(page);
        Ok(leaf)
    }

    /// Gives back the place that a hole named, and counts it out.
    pub(super) fn vacate<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, hole: Hole) {
        // Another page may be put there next.
        if matches!((hole, self.begun.expander.job()), (Hole::Packed(first), Some((_, job))) if job.0 == first) {
            self.begun.expander.end();
        }
        vacate(m, pool, &mut self.resident, hole);
    }
}

/// Puts a page that is compressed, and has this `hash`, into the store. Returns its first unit; nothing if there is no room.
fn store<M: Machine>(
    m: &M,
    pool: &SharedPool<'_>,
    compressor: &Compressor,
    packed: Packed,
    hash: u64,
) -> Option<UnitId> {
    // The units are ours alone from here on.
    let chain = pool.lock().stow(packed.units)?;
    compressor.put(packed, hash, &chain, |place| unit(m, pool, place));
    chain.first().copied()
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
