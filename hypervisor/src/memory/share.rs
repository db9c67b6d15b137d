//! Merging: pages with the same contents in one read-only frame, copied before a write; zero pages in none.
//!
//! The way of a page, one VM's lock at a time:
//!
//! 1. [`Memory::classify`] hashes the page as it lies there, leaves a hint, and names a frame that had the same hash.
//! 2. If that frame is another page's own, [`Memory::freeze`] takes that page from its guest, looks whether it still has
//!    the hash, and makes its frame a shared one that one leaf names: from then on its contents do not change.
//! 3. [`Memory::merge`] takes the first page from its guest, compares the words, and lets its leaf name the shared frame.
//!
//! Whatever changes between the steps is found by the next one; nothing has to be undone. A page is *taken* by breaking
//! its leaf: a guest that touches it meanwhile faults and waits for the lock.
//!
//! # Caches
//!
//! What we read through our cacheable map need not be what the guest sees that has written past the caches: a clean line
//! may be older than DRAM (Arm ARM B2.8, mismatched attributes). So a taken page is cleaned and invalidated to the point of
//! coherency before its words decide anything, and what it is then is what every guest sees, caches on or off.
//!
//! A shared frame is made fetchable once, when it is frozen. A copy is not: whoever wrote the page has seen to the
//! instruction caches for what it wrote, at another physical address. So copies may be read and written but not executed,
//! until a fetch faults and [`super::fault`] does it then.
//!
//! # What timing tells
//!
//! That a write takes longer tells a guest that somebody in its merge domain had the same page. Domains keep it to
//! those who trust each other. To hide it, a nominated page would lose all rights whether it is merged or not, and come
//! back by the same path from a frame chosen at random: `merge` and `unshare` are the two places for that.

use super::{Access, Coherence, Memory, Miss, give_back};
use crate::addr::{Addr, Ipa, Pa, Size};
use crate::arm::desc::{Attr, Hole, Marks, MemType, Rights};
use crate::frames::hash::{is_equal, is_zero};
use crate::frames::hints::Match;
use crate::frames::{SharedPool, Use, Work};
use crate::machine::{Machine, Point};
use crate::stage2::Leaf;
use crate::stage2::walk::Found;

/// What a scan sees of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageClass {
    /// Nothing to be read here, for so many bytes on.
    Gap(u64),
    /// It is shared already, or restless: it was not read.
    Passed,
    /// It is alone with its contents.
    Single,
    /// It seems to be full of zeroes.
    Zero,
    /// It seems to be the same as another, which had this hash.
    Same(Match, u64),
}

/// What came of a step of [`Memory::drop_zero_block`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ZeroBlock {
    /// It was full of zeroes, and is nowhere.
    Dropped,
    /// It is not, or no block of the VM's own.
    Differs,
    /// So far it is.
    More,
}

/// How many pages of a block are looked at in a step.
const ZEROES_AT_A_TIME: u64 = 2;

impl Memory {
    /// The number of the page at `ipa`, from the start of RAM; 26 bits hold it ([`crate::frames::hints`]).
    pub(super) fn page_number(&self, ipa: Addr<Ipa>) -> u32 {
        let offset = ipa.distance_from(self.layout.base).unwrap_or(0);
        (offset >> 12) as u32
    }

    /// The page with this number.
    pub fn page_at(&self, number: u32) -> Addr<Ipa> {
        self.layout.base + (u64::from(number) << 12)
    }

    /// Looks at the page at `ipa` for merging. Nothing changes for the guest.
    pub fn classify<M: Machine>(&self, m: &M, pool: &SharedPool<'_>, ipa: Addr<Ipa>) -> PageClass {
        let leaf = match self.table.walk(m, ipa) {
            Found::Leaf(leaf) if leaf.attr.mem != MemType::Device => leaf,
            Found::Leaf(_) | Found::Outside => return PageClass::Gap(Size::Page.bytes()),
            Found::Gap(gap) => return PageClass::Gap(gap.rest(ipa)),
        };
        let Some(frame) = leaf.output_of(ipa.align_down(Size::Page)) else { return PageClass::Gap(Size::Page.bytes()) };
        if leaf.attr.is_shared() || !pool.lock().is_due(frame) {
            return PageClass::Passed;
        }
        let start = m.now();
        let hash = pool.hash().of(m.frame(frame));
        let sight = self.nominate(pool, frame, ipa, hash);
        pool.costs().add(Work::Scan, 1, m.now().wrapping_sub(start));
        sight
    }

    /// What a page's hash says about it.
    fn nominate(&self, pool: &SharedPool<'_>, frame: Addr<Pa>, ipa: Addr<Ipa>, hash: u64) -> PageClass {
        if hash == pool.hash().of_zeroes() {
            return PageClass::Zero;
        }
        match pool.lock().visit(frame, self.page_number(ipa), hash) {
            Some(found) => PageClass::Same(found, hash),
            None => PageClass::Single,
        }
    }

    /// Whether `ipa` is in a leaf larger than a page, which would have to be split to merge a part of it.
    pub fn is_block<M: Machine>(&self, m: &M, ipa: Addr<Ipa>) -> bool {
        matches!(self.table.walk(m, ipa), Found::Leaf(leaf) if leaf.size != Size::Page)
    }

    /// Drops the page at `ipa`, if it is full of zeroes and in no block. True if it was.
    pub fn drop_zeroes<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, ipa: Addr<Ipa>) -> bool {
        if self.is_block(m, ipa) {
            return false;
        }
        let Some(leaf) = self.take_away(m, ipa) else { return false };
        if !is_zero(m.frame(leaf.output)) {
            self.put_back(m, leaf, leaf.output, leaf.attr);
            return false;
        }
        self.leave_hole(m, pool, leaf, Hole::Zero);
        true
    }

    /// Does a step of dropping the block around `ipa`, if it is full of zeroes: all of it is long to look at. Meanwhile the guest may
    /// only read it; if it writes, or something else becomes of the block, it [`ZeroBlock::Differs`]. There is one at a time
    /// ([`Memory::zero_block`]): another one begins anew.
    pub fn drop_zero_block<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, ipa: Addr<Ipa>) -> ZeroBlock {
        let block = ipa.align_down(Size::Block);
        let done = self.begun.zeroes.take().filter(|(at, _)| *at == block).map(|(_, done)| done);
        let leaf = match self.table.walk(m, block) {
            Found::Leaf(leaf) if leaf.size == Size::Block && self.is_own(&leaf) => leaf,
            _ => return ZeroBlock::Differs,
        };
        let mut done = match done {
            None => {
                let Ok(leaf) = self.unmap(m, block, Hole::Absent) else { return ZeroBlock::Differs };
                let attr = Attr { rights: leaf.attr.rights & Rights::RX, ..leaf.attr };
                self.put_back(m, leaf, leaf.output, attr);
                self.begun.zeroes = Some((block, 0));
                return ZeroBlock::More;
            }
            // It was written since.
            Some(_) if leaf.attr.rights.allows(Rights::W) => return ZeroBlock::Differs,
            Some(done) => done,
        };
        let end = done + ZEROES_AT_A_TIME;
        while done < end.min(leaf.size.frames()) {
            let frame = leaf.output + (done << 12);
            if self.layout.coherence == Coherence::Cleaned {
                m.clean(frame, Size::Page.bytes(), Point::Coherency);
            }
            if !is_zero(m.frame(frame)) {
                // The guest's next write makes it writable again.
                return ZeroBlock::Differs;
            }
            done += 1;
        }
        if done < leaf.size.frames() {
            self.begun.zeroes = Some((block, done));
            return ZeroBlock::More;
        }
        let Ok(leaf) = self.unmap(m, block, Hole::Absent) else { return ZeroBlock::Differs };
        self.leave_hole(m, pool, leaf, Hole::Zero);
        ZeroBlock::Dropped
    }

    /// The block that [`Memory::drop_zero_block`] has begun with.
    pub fn zero_block(&self) -> Option<Addr<Ipa>> {
        self.begun.zeroes.map(|(block, _)| block)
    }

    /// Lets the guest write to RAM of its own that it may only read, as it was looked at.
    pub(super) fn let_write<M: Machine>(
        &mut self,
        m: &M,
        ipa: Addr<Ipa>,
        leaf: &Leaf<Ipa, Pa>,
    ) -> Result<Leaf<Ipa, Pa>, Miss> {
        let attr = Attr { rights: leaf.attr.rights | Rights::W, ..leaf.attr };
        self.table.protect(m, &self.tag, ipa, attr).map_err(|_| Miss::Denied)
    }

    /// Whether it is RAM of this VM's alone, and nobody but the guest relies on where it is.
    pub(super) fn is_own(&self, leaf: &Leaf<Ipa, Pa>) -> bool {
        leaf.attr.mem != MemType::Device && !leaf.attr.is_shared() && !self.is_pinned(leaf.input, leaf.size)
    }

    /// Makes the page number `page` one whose frame can be shared, if it still has this hash. Splits the block it is part
    /// of. Returns the frame.
    pub fn freeze<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, page: u32, hash: u64) -> Option<Addr<Pa>> {
        let ipa = self.page_at(page);
        let start = m.now();
        if self.is_block(m, ipa) {
            self.split(m, pool, ipa).ok()?;
        }
        let leaf = self.take_away(m, ipa)?;
        let frozen =
            pool.hash().of(m.frame(leaf.output)) == hash && pool.lock().share(leaf.output, self.layout.owner, hash);
        if !frozen {
            self.put_back(m, leaf, leaf.output, leaf.attr);
            return None;
        }
        m.clean(leaf.output, Size::Page.bytes(), Point::Unification);
        self.resident.frames -= 1;
        self.resident.shared += 1;
        self.put_back(m, leaf, leaf.output, shared(leaf.attr));
        pool.costs().add(Work::Freeze, 1, m.now().wrapping_sub(start));
        Some(leaf.output)
    }

    /// Lets the page at `ipa` name the shared frame `with`, if they hold the same, and gives its own frame back.
    pub fn merge<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, ipa: Addr<Ipa>, with: Addr<Pa>) -> bool {
        let start = m.now();
        if self.is_block(m, ipa) || !pool.lock().acquire(with, self.layout.owner) {
            return false;
        }
        let Some(leaf) = self.take_away(m, ipa) else {
            pool.lock().release(with);
            return false;
        };
        if !is_equal(m.frame(leaf.output), m.frame(with)) {
            self.put_back(m, leaf, leaf.output, leaf.attr);
            pool.lock().release(with);
            return false;
        }
        self.put_back(m, leaf, with, shared(leaf.attr));
        give_back(pool, leaf.output, leaf.size, self.layout.owner);
        self.resident.frames -= 1;
        self.resident.shared += 1;
        pool.costs().add(Work::Merge, 1, m.now().wrapping_sub(start));
        true
    }

    /// Lets the page at `ipa`, which nothing backs yet, name the frame `with` of the bundle's images. False if something
    /// is there, or no table is to be had: then it has to be copied.
    pub fn lend<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, ipa: Addr<Ipa>, with: Addr<Pa>) -> bool {
        if !self.is_ram(ipa, Size::Page.bytes()) || !pool.lock().acquire(with, self.layout.owner) {
            return false;
        }
        let attr = shared(self.ram_attr());
        let hole = match self.table.walk(m, ipa) {
            Found::Gap(gap) => gap.hole(),
            _ => Hole::Absent,
        };
        let (table, _, mut supply) = self.parts(m, pool);
        match table.prepare(m, ipa, Size::Page, &mut supply) {
            Ok(ready) => {
                ready.commit(m, with, attr);
                self.resident.shared += 1;
                self.vacate(m, pool, hole);
                true
            }
            Err(_) => {
                pool.lock().release(with);
                false
            }
        }
    }

    /// Gives the page at `ipa` a frame of its own, because it is about to be written.
    pub(super) fn unshare<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        ipa: Addr<Ipa>,
        leaf: Leaf<Ipa, Pa>,
    ) -> Result<Leaf<Ipa, Pa>, Miss> {
        let start = m.now();
        if pool.lock().unshare(leaf.output, self.layout.owner) {
            return self.inherit(m, leaf).ok_or(Miss::Denied);
        }
        let frame = pool.lock().take(Size::Page, self.layout.owner, Use::Guest).ok_or(Miss::Short)?;
        let frame = frame.copy(m, leaf.output);
        let rights = self.show(m, frame.start(), Size::Page, Access::Write);
        // Nothing can have gone meanwhile: the lock is held.
        let Ok(old) = self.unmap(m, ipa, Hole::Absent) else {
            pool.lock().give_back(frame.into_dirty());
            return Err(Miss::Denied);
        };
        pool.lock().release(leaf.output);
        self.resident.shared -= 1;
        self.resident.frames += 1;
        let attr = Attr { rights, ..self.ram_attr() };
        let new = self.put_back(m, old, frame.into_table(), attr).ok_or(Miss::Denied);
        pool.costs().add(Work::Copy, 1, m.now().wrapping_sub(start));
        new
    }

    /// Makes a shared page the VM's own, which its frame already is: no other leaf named it any more.
    fn inherit<M: Machine>(&mut self, m: &M, leaf: Leaf<Ipa, Pa>) -> Option<Leaf<Ipa, Pa>> {
        self.resident.shared -= 1;
        self.resident.frames += 1;
        let attr = Attr { accessed: leaf.attr.accessed, ..self.ram_attr() };
        self.table.protect(m, &self.tag, leaf.input, attr).ok()
    }

    /// Makes the page at `ipa` the VM's own if it is shared, but with nobody any more.
    pub(super) fn own<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, ipa: Addr<Ipa>) {
        if let Found::Leaf(leaf) = self.table.walk(m, ipa)
            && leaf.attr.is_shared()
            && pool.lock().unshare(leaf.output, self.layout.owner)
        {
            self.inherit(m, leaf);
        }
    }

    /// Breaks the leaf of this VM's own RAM around `ipa`: the guest cannot reach it, and what we read is what it would.
    /// The caller holds the lock and puts something back before it lets go.
    pub(super) fn take_away<M: Machine>(&mut self, m: &M, ipa: Addr<Ipa>) -> Option<Leaf<Ipa, Pa>> {
        match self.table.walk(m, ipa) {
            Found::Leaf(leaf) if self.is_own(&leaf) => {}
            _ => return None,
        }
        let leaf = self.unmap(m, ipa, Hole::Absent).ok()?;
        if self.layout.coherence == Coherence::Cleaned {
            m.clean(leaf.output, leaf.size.bytes(), Point::Coherency);
        }
        Some(leaf)
    }

    /// Maps what was taken away to `output`. It takes no table, so it does not fail.
    pub(super) fn put_back<M: Machine>(
        &mut self,
        m: &M,
        leaf: Leaf<Ipa, Pa>,
        output: Addr<Pa>,
        attr: Attr,
    ) -> Option<Leaf<Ipa, Pa>> {
        let ready = self.table.prepare(m, leaf.input, leaf.size, &mut Nothing).ok()?;
        Some(ready.commit(m, output, attr))
    }

    /// Leaves `hole` where a leaf was taken away, and gives its frames back.
    pub(super) fn leave_hole<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, leaf: Leaf<Ipa, Pa>, hole: Hole) {
        // It is a hole already, of the same level.
        let _ = self.table.relabel(m, leaf.input, hole);
        give_back(pool, leaf.output, leaf.size, self.layout.owner);
        self.resident.frames -= leaf.size.frames();
        // At most 2^18 pages, so it fits.
        self.count(hole, leaf.size.frames() as i64);
    }
}

/// The attributes of a page in a shared frame.
fn shared(attr: Attr) -> Attr {
    Attr { rights: Rights::RX, marks: Marks::SHARED, accessed: true, ..attr }
}

/// A supply of no tables.
struct Nothing;

impl crate::stage2::Supply for Nothing {
    fn take(&mut self) -> Option<Addr<Pa>> {
        None
    }

    fn give(&mut self, _table: Addr<Pa>) {}
}
