//! The distributor's registers as the guest sees them: dispatch by offset, and what both versions share.
//!
//! IHI 0048B 4.3, IHI 0069H 12.9. Offsets that are unknown, reserved, misaligned or of a size the register does not
//! have read as zero and ignore writes.

use super::Vgic;
use super::words::{Write, bank_of, fits, read};
use crate::addr::VcpuId;
use crate::arm::gic::{Version, gicd};
use crate::next::Kicks;

/// Implementer Arm, product `F`, revision 0: in IIDR of GICD and GICR.
pub(super) const IIDR: u32 = 0x4600_043b;

impl Vgic {
    /// Whether an access at this offset of the distributor, or of a redistributor's second frame minus
    /// [`crate::arm::gic::gicr::SGI_FRAME`], is about what goes on now: the caller folds the accessing vCPU first (for a
    /// redistributor: the one it belongs to, if it is at hand).
    pub const fn touches_state(offset: u64) -> bool {
        matches!(offset, gicd::ISPENDR..gicd::IPRIORITYR | gicd::CPENDSGIR..gicd::SPENDSGIR_END)
    }

    /// Reads `size` bytes at `offset` of the distributor, as `vcpu` does.
    pub fn dist_read(&self, vcpu: VcpuId, offset: u64, size: u8) -> u64 {
        if fits(offset, size) {
            return read(self.dist_word(usize::from(vcpu.0), offset & !3), offset, size);
        }
        match self.version {
            Version::V3 if size == 8 && offset & 7 == 0 => self.route(offset),
            _ => 0,
        }
    }

    /// Writes `size` bytes at `offset` of the distributor, as `vcpu` does.
    pub fn dist_write(&mut self, vcpu: VcpuId, offset: u64, size: u8, value: u64) -> Kicks {
        let cpu = usize::from(vcpu.0);
        if fits(offset, size) {
            return self.set_dist_word(cpu, offset & !3, Write::new(offset, size, value), size);
        }
        match self.version {
            Version::V3 if size == 8 && offset & 7 == 0 => self.set_route(offset, value),
            _ => Kicks::NONE,
        }
    }

    fn dist_word(&self, cpu: usize, offset: u64) -> u32 {
        match (offset, self.version) {
            (gicd::CTLR, Version::V2) => self.groups,
            (gicd::CTLR, Version::V3) => self.groups | gicd::CTLR_ARE | gicd::CTLR_DS,
            (gicd::TYPER, Version::V2) => self.typer_v2(),
            (gicd::TYPER, Version::V3) => self.typer_v3(),
            (gicd::IIDR, _) => IIDR,
            (gicd::ITARGETSR..gicd::ICFGR, Version::V2) => self.targets(cpu, offset),
            // With affinity routing, private interrupts are the redistributors' business.
            (gicd::IGROUPR..gicd::ICFGR_END, Version::V3) if bank_of(offset) == 0 => 0,
            (gicd::IGROUPR..gicd::ICFGR_END, _) => self.word(cpu, offset),
            (gicd::CPENDSGIR..gicd::SPENDSGIR_END, Version::V2) => self.sgi_sources(cpu, offset),
            (0xfd0..0x1000, Version::V2) => super::v2::identity(offset),
            (gicd::IROUTER..gicd::IROUTER_END, Version::V3) => {
                // The half that was asked for.
                (self.route(offset & !7) >> ((offset & 4) * 8)) as u32
            }
            (0xffd0..0x1_0000, Version::V3) => super::v3::identity(offset, super::v3::Component::Distributor),
            _ => 0,
        }
    }

    fn set_dist_word(&mut self, cpu: usize, offset: u64, write: Write, size: u8) -> Kicks {
        match (offset, self.version) {
            (gicd::CTLR, _) => self.set_groups(write),
            (gicd::ITARGETSR..gicd::ICFGR, Version::V2) => self.set_targets(offset, write),
            (gicd::IGROUPR..gicd::ICFGR_END, Version::V3) if bank_of(offset) == 0 => Kicks::NONE,
            (gicd::IGROUPR..gicd::ICFGR_END, _) => self.set_word(cpu, offset, write),
            (gicd::SGIR, Version::V2) if size == 4 => self.sgir(cpu, write.value),
            (gicd::CPENDSGIR..gicd::SPENDSGIR_END, Version::V2) => self.set_sgi_sources(cpu, offset, write),
            (gicd::IROUTER..gicd::IROUTER_END, Version::V3) => self.set_route_half(offset, write),
            _ => Kicks::NONE,
        }
    }

    fn set_groups(&mut self, write: Write) -> Kicks {
        let old = self.groups;
        self.groups = write.over(old) & (gicd::CTLR_GRP0 | gicd::CTLR_GRP1);
        if self.groups == old { Kicks::NONE } else { self.kick_all() }
    }

    /// Sends an SPI to another vCPU from now on, or to nobody.
    pub(super) fn retarget(&mut self, n: usize, at: usize, route: u32, to: u8) -> Kicks {
        let bit = 1_u32.unbounded_shl(u32::try_from(at).unwrap_or(u32::MAX));
        let Some(shared) = self.spis.get_mut(n) else { return Kicks::NONE };
        let (Some(kept), Some(target)) = (shared.route.get_mut(at), shared.target.get_mut(at)) else {
            return Kicks::NONE;
        };
        *kept = route;
        let old = core::mem::replace(target, to);
        if old == to {
            return Kicks::NONE;
        }
        if let Some(mine) = self.locals.get_mut(usize::from(old)).and_then(|local| local.mine.get_mut(n)) {
            *mine &= !bit;
        }
        if let Some(mine) = self.locals.get_mut(usize::from(to)).and_then(|local| local.mine.get_mut(n)) {
            *mine |= bit;
        }
        // SPI banks only, so the vCPU does not matter.
        self.notify(0, n + 1, bit)
    }
}
