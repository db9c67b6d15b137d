//! Making a page what an access needs: the first touch, the copy before a write, the way back of what was put away.
//!
//! A page can be run from when it is first fetched from, not before.
//!
//! The common case is a walk of three loads to a hole, one short hold of the pool's lock, the zeroing, and one store. No
//! heap. Two vCPUs that touch one page are put in order by the memory lock: the second finds the leaf and goes on.

use super::{Coherence, Granule, Memory, Miss};
use crate::addr::{Addr, Ipa, Pa, Size};
use crate::arm::desc::{Attr, Hole, Marks, MemType, Rights};
use crate::arm::esr::Access;
use crate::frames::{Dirty, Filling, Frame, SharedPool, Use};
use crate::machine::{Machine, Point};
use crate::stage2::Leaf;
use crate::stage2::walk::{Found, Gap};

impl Memory {
    /// Whether the table lets the guest have `access` at `ipa` as it is.
    pub fn allows<M: Machine>(&self, m: &M, ipa: Addr<Ipa>, access: Access) -> bool {
        matches!(self.table.walk(m, ipa), Found::Leaf(leaf) if leaf.attr.accessed && leaf.attr.rights.allows(access.rights()))
    }

    /// The leaf that translates `ipa` and allows `access`, after whatever that takes: a part of it, and [`Miss::Again`], where it is
    /// long. `ipa` may be any number.
    pub fn resolve<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        ipa: Addr<Ipa>,
        access: Access,
    ) -> Result<Leaf<Ipa, Pa>, Miss> {
        self.resolve_by(m, pool, ipa, access, self.layout.granule)
    }

    /// The same for accesses of ours, done at once: what was never touched gets a page.
    #[inline(never)]
    pub(super) fn resolve_page<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        ipa: Addr<Ipa>,
        access: Access,
    ) -> Result<Leaf<Ipa, Pa>, Miss> {
        // Each time a bounded part of it is done.
        loop {
            match self.resolve_by(m, pool, ipa, access, Granule::Page) {
                Err(Miss::Again) => {}
                result => return result,
            }
        }
    }

    #[inline(always)]
    fn resolve_by<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        ipa: Addr<Ipa>,
        access: Access,
        granule: Granule,
    ) -> Result<Leaf<Ipa, Pa>, Miss> {
        match self.table.walk(m, ipa) {
            Found::Leaf(leaf) if leaf.attr.accessed && leaf.attr.rights.allows(access.rights()) => Ok(leaf),
            Found::Leaf(leaf) => self.upgrade(m, pool, ipa, access, leaf),
            Found::Gap(gap) if self.is_ram(ipa, 1) => self.touch(m, pool, (ipa, access), gap, granule),
            Found::Gap(_) | Found::Outside => Err(Miss::NotRam),
        }
    }

    fn touch<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        (ipa, access): (Addr<Ipa>, Access),
        gap: Gap<Ipa>,
        granule: Granule,
    ) -> Result<Leaf<Ipa, Pa>, Miss> {
        match gap.hole() {
            Hole::Absent | Hole::Ballooned | Hole::Zero => {}
            Hole::Packed(_) | Hole::Swapped(..) => return self.unpack(m, pool, (ipa, access), gap),
            Hole::Poisoned => return Err(Miss::Lost),
        }
        if granule == Granule::Block {
            let block = ipa.align_down(Size::Block);
            if self.begun.block.is_none() && self.is_ram(block, Size::Block.bytes()) && gap.admits(Size::Block) {
                self.begin_block(pool, block, gap.hole());
            }
            if let Some((at, filling)) = self.begun.block.take() {
                return self.go_on(m, pool, (ipa, access), (at, filling));
            }
        }
        self.back(m, pool, ipa, access, gap)
    }

    /// Takes a block's frames, if there are any, to be put behind `at`, where `hole` is.
    fn begin_block(&mut self, pool: &SharedPool<'_>, at: Addr<Ipa>, hole: Hole) {
        if let Some(frame) = pool.lock().take(Size::Block, self.layout.owner, Use::Guest) {
            self.resident.pending = Size::Block.frames();
            self.begun.block = Some((at, Filling::new(frame, self.content_of(hole))));
        }
    }

    /// What memory is full of that comes where `hole` is.
    const fn content_of(&self, hole: Hole) -> u64 {
        match hole {
            // What the guest's free pages are full of, if it has told (virtio 1.2, 5.5.6.5).
            Hole::Ballooned => self.filling,
            _ => 0,
        }
    }

    /// Makes a piece more of a block ready, and with the last puts it where it belongs. Whoever needs memory meanwhile does this
    /// first.
    fn go_on<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        (ipa, access): (Addr<Ipa>, Access),
        (at, mut filling): (Addr<Ipa>, Filling),
    ) -> Result<Leaf<Ipa, Pa>, Miss> {
        let (start, bytes) = filling.step(m);
        if bytes > 0 && self.layout.coherence == Coherence::Cleaned {
            m.clean(start, bytes, Point::Coherency);
        }
        let word = filling.word();
        let frame = match filling.finish(m) {
            Ok(frame) => frame,
            Err(filling) => {
                self.begun.block = Some((at, filling));
                return Err(Miss::Again);
            }
        };
        // Some of it may have been touched by us, or given to the balloon.
        let table = self.table;
        let gap = match table.walk(m, at) {
            Found::Gap(gap) if gap.admits(Size::Block) && self.content_of(gap.hole()) == word => Some(gap),
            _ => None,
        };
        let (_, _, mut supply) = self.parts(m, pool);
        let Some((gap, Ok(ready))) = gap.map(|gap| (gap, gap.prepare(at, Size::Block, &mut supply))) else {
            self.drop_frame(pool, frame.into_dirty());
            return self.resolve_page(m, pool, ipa, access);
        };
        self.resident.frames += core::mem::take(&mut self.resident.pending);
        // At most 2^18 frames, so it fits.
        self.count(gap.hole(), -(Size::Block.frames() as i64));
        let is_asked = ipa.align_down(Size::Block) == at;
        let rights = if is_asked { self.rights_for(m, frame.start(), Size::Block, access) } else { Rights::RW };
        let leaf = ready.commit(m, frame.into_table(), Attr { rights, ..self.ram_attr() });
        if is_asked { Ok(leaf) } else { Err(Miss::Again) }
    }

    /// Gives back frames that were to be made ready.
    pub(super) fn drop_frame(&mut self, pool: &SharedPool<'_>, frame: Frame<Dirty>) {
        self.resident.pending = 0;
        pool.lock().give_back(frame);
    }

    /// Makes a leaf allow `access` that does not, or is not to be used unnoticed.
    #[cold]
    pub(super) fn upgrade<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        ipa: Addr<Ipa>,
        access: Access,
        mut leaf: Leaf<Ipa, Pa>,
    ) -> Result<Leaf<Ipa, Pa>, Miss> {
        if leaf.attr.mem == MemType::Device {
            return Err(Miss::Denied);
        }
        if !leaf.attr.accessed {
            let page = self.page_number(leaf.input);
            self.sample.touched(page);
            leaf = self.table.wake(m, ipa).map_err(|_| Miss::Denied)?;
        }
        match access {
            _ if leaf.attr.rights.allows(access.rights()) => Ok(leaf),
            Access::Write | Access::Maintain if leaf.attr.is_shared() => self.unshare(m, pool, ipa, leaf),
            Access::Write | Access::Maintain if leaf.attr.marks == Marks::NONE => self.let_write(m, ipa, &leaf),
            Access::Execute => {
                self.let_fetch(m, leaf.output, leaf.size);
                let attr = Attr { rights: leaf.attr.rights | Rights::X, ..leaf.attr };
                self.table.protect(m, &self.tag, ipa, attr).map_err(|_| Miss::Denied)
            }
            _ => Err(Miss::Denied),
        }
    }

    /// Puts a zeroed page behind `ipa`.
    fn back<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        ipa: Addr<Ipa>,
        access: Access,
        gap: Gap<Ipa>,
    ) -> Result<Leaf<Ipa, Pa>, Miss> {
        let frame = pool.lock().take(Size::Page, self.layout.owner, Use::Guest).ok_or(Miss::Short)?;
        let hole = gap.hole();
        let (_, _, mut supply) = self.parts(m, pool);
        let Ok(ready) = gap.prepare(ipa, Size::Page, &mut supply) else {
            pool.lock().give_back(frame);
            return Err(Miss::Short);
        };
        let frame = match self.content_of(hole) {
            0 => frame.zero(m),
            word => frame.fill(m, |_| word),
        };
        let rights = self.show(m, frame.start(), Size::Page, access);
        self.resident.frames += 1;
        self.count(hole, -1);
        Ok(ready.commit(m, frame.into_table(), Attr { rights, ..self.ram_attr() }))
    }

    /// Sees to it that the guest sees what we wrote to a frame that is about to be its own, and returns what it may do there.
    pub(super) fn show<M: Machine>(&self, m: &M, frame: Addr<Pa>, size: Size, access: Access) -> Rights {
        if self.layout.coherence == Coherence::Cleaned {
            m.clean(frame, size.bytes(), Point::Coherency);
        }
        self.rights_for(m, frame, size, access)
    }

    /// What a guest may do to a frame that is clean and about to be its own. It may fetch only if it is about to: who fetches from a
    /// page that he has not written has invalidated nothing, and could meet instructions that the frame's last owner left in an
    /// instruction cache (Arm ARM B2.4.4).
    fn rights_for<M: Machine>(&self, m: &M, frame: Addr<Pa>, size: Size, access: Access) -> Rights {
        if access != Access::Execute {
            return Rights::RW;
        }
        self.let_fetch(m, frame, size);
        Rights::RWX
    }

    /// Sees to it that what is fetched from a frame of the guest's is what we wrote there.
    fn let_fetch<M: Machine>(&self, m: &M, frame: Addr<Pa>, size: Size) {
        match self.layout.coherence {
            // What is clean to the point of coherency is so to that of unification.
            Coherence::Cleaned => m.invalidate_instructions(),
            Coherence::Forced => m.clean(frame, size.bytes(), Point::Unification),
        }
    }
}
