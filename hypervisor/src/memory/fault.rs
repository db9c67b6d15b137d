//! Making a page what an access needs: the first touch.
//!
//! The common case is a walk of three loads to a hole, one short hold of the pool's lock, the zeroing, and one store. No
//! heap. Two vCPUs that touch one page are put in order by the memory lock: the second finds the leaf and goes on.

use super::{Coherence, Granule, Memory};
use crate::addr::{Addr, Ipa, Pa, Size};
use crate::arm::desc::{Hole, Rights};
pub use crate::arm::esr::Access;
use crate::frames::{SharedPool, Use};
use crate::machine::{Machine, Point};
use crate::stage2::Leaf;
use crate::stage2::walk::{Found, Gap};

impl Access {
    /// The right it takes.
    pub const fn rights(self) -> Rights {
        match self {
            Self::Read => Rights::R,
            Self::Write => Rights::W,
            Self::Execute => Rights::X,
        }
    }
}

/// Why there is no leaf for an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Miss {
    /// Neither RAM nor a device handed through. The guest's doing: a device to emulate, or the bus's error.
    NotRam,
    /// The pool has no frame. Nobody's fault: let the vCPU wait, find memory, try again.
    Short,
    /// The page does not allow it, or its contents cannot be brought back. The guest's doing.
    Denied,
}

impl Memory {
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
            Found::Leaf(leaf) if leaf.attr.rights.allows(access.rights()) => Ok(leaf),
            Found::Leaf(_) => Err(Miss::Denied),
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
            // Nobody packs or swaps yet; what is poisoned is lost.
            Hole::Packed(_) | Hole::Swapped(_) | Hole::Poisoned => return Err(Miss::Denied),
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
        let attr = self.ram_attr();
        let (_, _, mut supply) = self.parts(m, pool);
        let Ok(ready) = gap.prepare(ipa, size, &mut supply) else {
            pool.lock().give_back(frame);
            return Err(Miss::Short);
        };
        let frame = frame.zero(m);
        if self.layout.coherence == Coherence::Cleaned {
            m.clean(frame.start(), size.bytes(), Point::Coherency);
        }
        if access == Access::Execute {
            // Whoever fetches from a page it has not written has invalidated nothing, and could meet instructions that
            // the frame's last owner left in an instruction cache.
            m.clean(frame.start(), size.bytes(), Point::Unification);
        }
        self.resident.frames += size.frames();
        Ok(ready.commit(m, frame.into_table(), attr))
    }
}
