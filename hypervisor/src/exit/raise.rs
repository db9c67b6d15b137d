//! Exceptions that a guest takes for what it did.

use crate::arm::esr;
use crate::arm::exception::Kind;
use crate::host::Here;
use crate::hwstate::nested::transition;
use crate::machine::Machine;
use crate::next::{Cause, Next};
use crate::vcpu::nested::{Nested, hcr};
use crate::vcpu::{self, Common, Vcpu, VcpuKind};

/// Makes the guest find its instruction UNDEFINED.
pub fn deny<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) -> Next {
    raise(here, m, vcpu, esr::undefined(), None)
}

/// Makes the guest take a synchronous exception that we make up for what it did, with this syndrome and, where given, fault
/// address: at the exception level that the architecture has it taken at. That is its EL1 (or what it has for its EL2), but
/// for a hypervisor's guest at EL0 under HCR_EL2.TGE, which has no EL1: there it is the hypervisor's EL2 (Arm ARM D1.3.1).
///
/// A guest whose exception vector itself raises the exception that goes to it makes no progress, ever: it has crashed. Not so a
/// guest's guest, which its hypervisor can interrupt and may do with as it likes.
pub fn raise<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu, syndrome: u64, far: Option<u64>) -> Next {
    let Vcpu { common, kind } = vcpu;
    match kind {
        VcpuKind::Plain => {
            let from = common.registers.pc;
            vcpu::enter_el1(common, m, false, syndrome, far);
            progress(common, from)
        }
        VcpuKind::Nested(nested) => nested_raise(here, m, common, nested, syndrome, far),
    }
}

/// The same as [`deny`] for a vCPU that has an EL2.
pub fn nested_deny<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) -> Next {
    nested_raise(here, m, vcpu, nested, esr::undefined(), None)
}

/// The same as [`raise`] for a vCPU that has an EL2.
pub fn nested_raise<M: Machine>(
    here: Here<'_>,
    m: &M,
    vcpu: &mut Common,
    nested: &mut Nested,
    syndrome: u64,
    far: Option<u64>,
) -> Next {
    let has_el1 = nested.guest().is_some() && nested.hcr(m) & hcr::TGE == 0;
    if has_el1 {
        vcpu::enter_el1(vcpu, m, nested.reports_el2(m), syndrome, far);
        return Next::Resume;
    }
    let (from, is_own) = (vcpu.registers.pc, nested.guest().is_none());
    transition::exception(here, m, vcpu, nested, Kind::Sync, Some(syndrome));
    if is_own { progress(vcpu, from) } else { Next::Resume }
}

/// What comes of an exception that was taken from `from` to where its handler is by now.
fn progress(vcpu: &mut Common, from: u64) -> Next {
    if vcpu.vector_loop.goes_on(from & !0x7ff == vcpu.registers.pc & !0x7ff) {
        return Next::Stop(Cause::Crash("its exception vector raises exceptions"));
    }
    Next::Resume
}
