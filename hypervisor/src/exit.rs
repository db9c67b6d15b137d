//! From a cause to what is done about it: the one match on why a guest left.
//!
//! The order of the arms is the order of their frequency; the fast ones (a hypercall, an ID register, a read of the
//! interrupt controller) take at most one lock, save no EL1 register and never write VTTBR_EL2 or HCR_EL2.

pub mod abort;
pub mod cache;
pub mod call;
pub mod irq;
pub mod nested;
pub mod sysreg;

use crate::arm::esr::{self, ec};
use crate::arm::exception::Kind;
pub use crate::host::Here;
use crate::machine::Machine;
use crate::next::{Cause, Next};
use crate::vcpu::nested::{Part, hcr};
use crate::vcpu::{self, Counter, Vcpu};

/// Handles a synchronous exit of the loaded `vcpu`.
#[inline(always)]
pub fn handle<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) -> Next {
    let syndrome = vcpu.registers.syndrome();
    vcpu.remember();
    if vcpu.nested.is_some()
        && let Some(next) = nested::handle(here, m, vcpu)
    {
        return next;
    }
    match syndrome.ec() {
        ec::HVC64 => call::hvc(here, m, vcpu),
        ec::SYSREG => sysreg::handle(here, m, vcpu),
        ec::DABT_LOWER => abort::data(here, m, vcpu),
        ec::IABT_LOWER => abort::fetch(here, m, vcpu),
        ec::WFX => {
            here.slot.count(Counter::Wait);
            vcpu.registers.step(syndrome.instruction_bytes());
            // TI, bits 1:0: 0 WFI, 1 WFE, 2 WFIT, 3 WFET. WFE may end at once (Arm ARM D1.6.2), and so may the timed forms.
            if syndrome.iss() & 1 != 0 { Next::Yield } else { Next::WaitForInterrupt }
        }
        ec::SMC64 => call::smc(here, m, vcpu),
        ec::FP => {
            here.slot.count(Counter::Fp);
            Next::LoadFp
        }
        _ => {
            // A trapped feature that the ID registers do not show (SVE, SME, PAuth, AArch32 coprocessors, ...).
            here.slot.count(Counter::Other);
            deny(here, m, vcpu)
        }
    }
}

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
    if let Some(nested) = vcpu.nested.as_ref().filter(|nested| nested.part == Part::Guest) {
        if nested.hcr(m) & hcr::TGE != 0 {
            nested::enter::exception(here, m, vcpu, Kind::Sync, Some(syndrome));
        } else {
            vcpu::enter_el1(vcpu, m, syndrome, far);
        }
        return Next::Resume;
    }
    let from = vcpu.registers.pc;
    vcpu::enter_el1(vcpu, m, syndrome, far);
    if vcpu.vector_loop.goes_on(from & !0x7ff == vcpu.registers.pc & !0x7ff) {
        return Next::Stop(Cause::Crash("its exception vector raises exceptions"));
    }
    Next::Resume
}
