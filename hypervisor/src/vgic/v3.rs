//! What only GICv3 has: routes by affinity, SGIs by system register, its identity (IHI 0069H 12.9.22, 12.2.20).

use super::words::Write;
use super::{NOBODY, Vgic};
use crate::addr::VcpuId;
use crate::arm::gic::{Sgi, SgiRegister, SgiTargets, affinity, gicd, vcpu_at};
use crate::next::Kicks;

/// Which part of the controller an ID register is of.
#[derive(Clone, Copy)]
pub(super) enum Component {
    Distributor,
    Redistributor,
}

/// ID registers: an Arm GIC of architecture 3 with the component classes of the book.
pub(super) const fn identity(offset: u64, part: Component) -> u32 {
    match (offset, part) {
        (0xffd0, _) => 0x44,
        (0xffe0, Component::Distributor) => 0x92,
        (0xffe0, Component::Redistributor) => 0x93,
        (0xffe4, _) => 0xb4,
        (0xffe8, _) => 0x3b,
        (0xfff0, _) => 0x0d,
        (0xfff4, _) => 0xf0,
        (0xfff8, _) => 0x05,
        (0xfffc, _) => 0xb1,
        _ => 0,
    }
}

/// INTIDs have 10 bits: there are no LPIs. TYPER.IDbits says one less.
const ID_BITS: u32 = 9 << 19;

impl Vgic {
    pub(super) fn typer_v3(&self) -> u32 {
        // At most 8 banks.
        self.spis.len() as u32 | ID_BITS | gicd::TYPER_A3V | gicd::TYPER_NO1N
    }

    /// IROUTER, 64 bits. There is no 1-of-N routing, so bit 31 is not kept.
    pub(super) fn route(&self, offset: u64) -> u64 {
        let Some((n, at)) = route_place(offset) else { return 0 };
        let route = self.spis.get(n).and_then(|shared| shared.route.get(at)).copied().unwrap_or(0);
        u64::from(route >> 24) << 32 | u64::from(route & 0x00ff_ffff)
    }

    pub(super) fn set_route(&mut self, offset: u64, value: u64) -> Kicks {
        let Some((n, at)) = route_place(offset) else { return Kicks::NONE };
        // Aff3 comes from bits 39:32; the casts keep fields of 8 and 24 bits.
        let route = ((value >> 32) as u32) << 24 | value as u32 & 0x00ff_ffff;
        let to = vcpu_at(route).filter(|to| usize::from(to.0) < self.locals.len());
        // At most 64 vCPUs.
        self.retarget(n, at, route, to.map_or(NOBODY, |to| to.0 as u8))
    }

    pub(super) fn set_route_half(&mut self, offset: u64, write: Write) -> Kicks {
        let shift = (offset & 4) * 8;
        let old = self.route(offset & !7);
        // The half at hand.
        let half = write.over((old >> shift) as u32);
        self.set_route(offset & !7, old & !(0xffff_ffff << shift) | u64::from(half) << shift)
    }

    /// A write of ICC_SGI1R_EL1, ICC_SGI0R_EL1 or ICC_ASGI1R_EL1 by `from`: sends an SGI to those it names whose SGI is
    /// in the group the register is for.
    pub fn sgi1r(&mut self, from: VcpuId, register: SgiRegister, value: u64) -> Kicks {
        let sgi = Sgi::from_register(value);
        let group1 = register == SgiRegister::Sgi1r;
        let mut kicks = Kicks::NONE;
        match sgi.to {
            SgiTargets::Nobody => {}
            SgiTargets::Others => {
                for target in (0..self.locals.len()).filter(|target| *target != usize::from(from.0)) {
                    kicks |= self.send(target, sgi.intid.0, group1);
                }
            }
            SgiTargets::Cluster { cluster, list } => {
                for aff0 in super::bits(u32::from(list)) {
                    // Aff0 is below 16. Aff3.Aff2.Aff1 has 24 bits.
                    if let Some(target) = vcpu_at(cluster << 8 | aff0 as u32) {
                        kicks |= self.send(usize::from(target.0), sgi.intid.0, group1);
                    }
                }
            }
        }
        kicks
    }

    fn send(&mut self, target: usize, sgi: u32, group1: bool) -> Kicks {
        let bit = 1 << (sgi & 15);
        match self.bank_mut(target, 0) {
            Some(bank) if (bank.group & bit != 0) == group1 && bank.latch & bit == 0 => {
                bank.latch |= bit;
                self.notify(target, 0, bit)
            }
            _ => Kicks::NONE,
        }
    }

    /// GICR_TYPER of a vCPU: its affinity and number, and whether it is the last.
    pub(super) fn redist_typer(&self, frame: VcpuId) -> u64 {
        let last = usize::from(frame.0) + 1 == self.locals.len();
        u64::from(affinity(frame)) << 32
            | u64::from(frame.0) << 8
            | if last { crate::arm::gic::gicr::TYPER_LAST } else { 0 }
    }
}

/// The bank of SPIs and the place in it that an IROUTER is for.
const fn route_place(offset: u64) -> Option<(usize, usize)> {
    if offset < gicd::IROUTER || offset >= gicd::IROUTER_END {
        return None;
    }
    // Below 1020.
    let intid = ((offset - gicd::IROUTER) / 8) as usize;
    match (intid / 32).checked_sub(1) {
        Some(n) => Some((n, intid % 32)),
        None => None,
    }
}
