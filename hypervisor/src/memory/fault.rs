//! Making a page what an access needs: the first touch, the copy before a write, the way back of what was put away.
//!
//! A page can be run from when it is first fetched from, not before.
//!
//! The common case is a walk of three loads to a hole, one short hold of the pool's lock, the zeroing, and one store. No
//! heap. Two vCPUs that touch one page are put in order by the memory lock: the second finds the leaf and goes on.

use super::{Coherence, Granule, Memory, Miss};
use crate::addr::{Addr, Ipa, Pa, Size};
use crate::arm::desc::{Attr, Hole, MemType, Rights};
use crate::arm::esr::Access;
use crate::frames::{SharedPool, Use};
use crate::machine::{Machine, Point};
use crate::stage2::Leaf;
use crate::stage2::walk::{Found, Gap};

impl Memory {
    /// Whether the table lets the guest have `access` at `ipa` as it is.
    pub fn allows<M: Machine>(&self, m: &M, ipa: Addr<Ipa>, access: Access) -> bool {
        matches!(self.table.walk(m, ipa), Found::Leaf(leaf) if leaf.attr.accessed && leaf.attr.rights.allows(access.rights()))
    }

    /// The leaf that translates `ipa` and allows `access`, after whatever that takes. `ipa` may be any number.
    #[inline]
    pub fn resolve<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        ipa: Addr<Ipa>,
        access: Access,
    ) -> Result<Leaf<Ipa, Pa>, Miss> {
        match self.table.walk(m, ipa) {
            Found::Leaf(leaf) if leaf.attr.accessed && leaf.attr.rights.allows(access.rights()) => Ok(leaf),
            Found::Leaf(leaf) => self.upgrade(m, pool, ipa, access, leaf),
            Found::Gap(gap) if self.is_ram(ipa, 1) => self.touch(m, pool, ipa, access, gap),
            Found::Gap(_) | Found::Outside => Err(Miss::NotRam),
        }
    }

    fn touch<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        ipa: Addr<Ipa>,
        access: Access,
        gap: Gap<Ipa>,
    ) -> Result<Leaf<Ipa, Pa>, Miss> {
        match gap.hole() {
            Hole::Absent | Hole::Ballooned | Hole::Zero => {}
            Hole::Packed(_) | Hole::Swapped(..) => return self.unpack(m, pool, ipa, access, gap),
            Hole::Poisoned => return Err(Miss::Lost),
        }
        let fits = self.is_ram(ipa.align_down(Size::Block), Size::Block.bytes());
        if self.layout.granule == Granule::Block
            && fits
            && gap.admits(Size::Block)
            && let Ok(leaf) = self.back(m, pool, ipa, access, gap, Size::Block)
        {
            return Ok(leaf);
        }
        self.back(m, pool, ipa, access, gap, Size::Page)
    }

    /// Makes a leaf allow `access` that does not, or is not to be used unnoticed.
    #[cold]
    fn upgrade<M: Machine>(
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
            Access::Execute => {
                self.let_fetch(m, leaf.output, leaf.size);
                let attr = Attr { rights: leaf.attr.rights | Rights::X, ..leaf.attr };
                self.table.protect(m, &self.tag, ipa, attr).map_err(|_| Miss::Denied)
            }
            _ => Err(Miss::Denied),
        }
    }

    /// Puts zeroed memory behind the `size` block around `ipa`.
    fn back<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        ipa: Addr<Ipa>,
        access: Access,
        gap: Gap<Ipa>,
        size: Size,
    ) -> Result<Leaf<Ipa, Pa>, Miss> {
        let frame = pool.lock().take(size, self.layout.owner, Use::Guest).ok_or(Miss::Short)?;
        let hole = gap.hole();
        let (_, _, mut supply) = self.parts(m, pool);
        let Ok(ready) = gap.prepare(ipa, size, &mut supply) else {
            pool.lock().give_back(frame);
            return Err(Miss::Short);
        };
        let frame = match hole {
            // What the guest's free pages are full of, if it has told (virtio 1.2, 5.5.6.5).
            Hole::Ballooned if self.filling != 0 => frame.fill(m, |_| self.filling),
            _ => frame.zero(m),
        };
        let rights = self.show(m, frame.start(), size, access);
        self.resident.frames += size.frames();
        // At most 2^18 frames, so it fits.
        self.count(hole, -(size.frames() as i64));
        Ok(ready.commit(m, frame.into_table(), Attr { rights, ..self.ram_attr() }))
    }

    /// Sees to it that the guest sees what we wrote to a frame that is about to be its own, and returns what it may do there. It
    /// may fetch only if it is about to: who fetches from a page that he has not written has invalidated nothing, and could
    /// meet instructions that the frame's last owner left in an instruction cache (Arm ARM B2.4.4).
    pub(super) fn show<M: Machine>(&self, m: &M, frame: Addr<Pa>, size: Size, access: Access) -> Rights {
        if self.layout.coherence == Coherence::Cleaned {
            m.clean(frame, size.bytes(), Point::Coherency);
        }
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
