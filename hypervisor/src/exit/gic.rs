//! Accesses to the registers of a VM's interrupt controller in memory: GICD, GICR, what of GICC is not the hardware's, and a guest
//! hypervisor's GICH.
//!
//! Where a register shows or changes the state of interrupts, what the list registers know of it is folded in before.

use crate::addr::VcpuId;
use crate::arm::gic::{Version, gicr};
use crate::devices::Region;
use crate::host::Here;
use crate::hwstate::{lists, nested};
use crate::machine::Machine;
use crate::vcpu::nested::Guest;
use crate::vcpu::{Nested, Vcpu};
use crate::vgic::Vgic;
use crate::vm::{Gic, request};
use core::sync::atomic::Ordering;

/// GICC_DIR, in the second page of the CPU interface (IHI 0048B 4.4.17).
const GICC_DIR: u64 = 0x1000;

/// Folds the lists, which have to be filled again before the vCPU runs.
fn refresh<M: Machine>(here: Here<'_>, m: &M, vgic: &mut Vgic, vcpu: &mut Vcpu) {
    let kicks = lists::refresh(vgic, vcpu, m);
    here.slot.requests.fetch_or(request::REFILL, Ordering::Relaxed);
    here.host.queue.kick(m, here.vm, kicks);
}

/// The vCPU whose redistributor is number `n`.
fn frame(here: Here<'_>, vgic: &Vgic, n: u16) -> Option<VcpuId> {
    (vgic.version() == Version::V3 && usize::from(n) < here.vm.slots.len()).then_some(VcpuId(n))
}

/// What is read at `offset` of `region`, `bytes` bytes; nothing if there is nothing.
#[inline(always)]
pub(super) fn read<M: Machine>(
    here: Here<'_>,
    m: &M,
    vcpu: &mut Vcpu,
    region: Region,
    offset: u64,
    bytes: u8,
) -> Option<u64> {
    match region {
        Region::Gicd => {
            let mut vgic = here.vm.vgic.lock();
            if Vgic::touches_state(offset) {
                refresh(here, m, &mut vgic, vcpu);
            }
            Some(vgic.dist_read(vcpu.id, offset, bytes))
        }
        Region::Gicr(n) => {
            let mut vgic = here.vm.vgic.lock();
            let frame = frame(here, &vgic, n)?;
            if offset & gicr::SGI_FRAME != 0 {
                refresh(here, m, &mut vgic, vcpu);
            }
            Some(vgic.redist_read(frame, offset, bytes))
        }
        // GICC_DIR is write-only; the first page is the hardware's and does not come here.
        Region::Gicc => is_dir(here, offset).then_some(0),
        Region::Gich => Some(nested::lists::read_gich(hypervisor(vcpu)?, m, offset & !3) >> (offset % 4 * 8)),
        _ => None,
    }
}

/// Writes `value` at `offset` of `region`, `bytes` bytes; nothing if there is nothing.
#[inline(always)]
pub(super) fn write<M: Machine>(
    here: Here<'_>,
    m: &M,
    vcpu: &mut Vcpu,
    region: Region,
    offset: u64,
    bytes: u8,
    value: u64,
) -> Option<()> {
    if region == Region::Gich {
        return write_gich(here, m, hypervisor(vcpu)?, offset, bytes, value);
    }
    let mut vgic = here.vm.vgic.lock();
    let frame = match region {
        Region::Gicr(n) => frame(here, &vgic, n)?,
        Region::Gicc if !is_dir(here, offset) => return None,
        _ => vcpu.id,
    };
    refresh(here, m, &mut vgic, vcpu);
    let kicks = match region {
        Region::Gicd => vgic.dist_write(vcpu.id, offset, bytes, value),
        Region::Gicr(_) => vgic.redist_write(frame, offset, bytes, value),
        _ => vgic.deactivate(vcpu.id, value),
    };
    drop(vgic);
    here.host.queue.kick(m, here.vm, kicks.without(vcpu.id));
    Some(())
}

fn is_dir(here: Here<'_>, offset: u64) -> bool {
    here.vm.gic == Gic::V2 && offset == GICC_DIR
}

/// The vCPU as the guest hypervisor that it runs, if that has a GICH. Its EL1 is a part of it as long as it has no stage 2 (KVM without VHE).
fn hypervisor(vcpu: &Vcpu) -> Option<&Nested> {
    let is_its_own = |guest: &Guest| guest.shadow.is_none() && !guest.lends_interface;
    vcpu.nested().filter(|nested| nested.version == Version::V2 && nested.guest().is_none_or(is_its_own))
}

fn write_gich<M: Machine>(here: Here<'_>, m: &M, nested: &Nested, offset: u64, bytes: u8, value: u64) -> Option<()> {
    if bytes == 4 && offset.is_multiple_of(4) {
        nested::lists::write_gich(nested, m, offset, value);
        if nested::lists::changes_maintenance(nested, m) {
            here.slot.requests.fetch_or(request::REFILL, Ordering::Relaxed);
        }
    }
    Some(())
}
