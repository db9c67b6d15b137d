//! From a cause to what is done about it: the match on why a guest left. A vCPU with an EL2 has one of its own before this, as most
//! exits mean something else there ([`nested`]); what is left is alike.
//!
//! The order of the arms is the order of their frequency; the fast ones (a hypercall, an ID register, a read of the
//! interrupt controller) take at most one lock, save no EL1 register and never write VTTBR_EL2 or HCR_EL2.

pub mod abort;
pub mod cache;
pub mod call;
mod gic;
pub mod nested;
pub mod raise;
pub mod sysreg;

use crate::arm::esr::ec;
use crate::host::Here;
use crate::machine::Machine;
use crate::next::Next;
use crate::vcpu::{Counter, Vcpu, VcpuKind};
use nested::outcome::Outcome;

/// Handles a synchronous exit of the loaded `vcpu`.
#[inline(always)]
pub fn handle<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) -> Next {
    vcpu.remember();
    let Vcpu { common, kind } = &mut *vcpu;
    if let VcpuKind::Nested(nested) = kind {
        match nested::handle(here, m, common, nested) {
            Outcome::Done(next) => return next,
            Outcome::Nothing(ipa) => return abort::nothing_at(here, m, vcpu, ipa),
            Outcome::Common => {}
        }
    }
    let syndrome = vcpu.registers.syndrome();
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
            raise::deny(here, m, vcpu)
        }
    }
}
