//! Virtual EL2 on a CPU without FEAT_NV: it runs at EL0, and its registers are in the page and in [`Nested::own`].
//!
//! EL1's registers on the CPU follow from them ([`super::el0_state`]) as it changes them, and those of its guest are in the page, as with
//! FEAT_NV2.

use super::Traps;
use super::el0_state::{El0, El2State};
use super::nested::{Backend, Nested, Own, share};
use crate::arm::el1::{Context, El1};
use crate::arm::exception;
use crate::arm::trap::hcr;
use crate::machine::Machine;

/// What EL1's registers follow from.
fn state(nested: &Nested) -> El2State {
    let [sctlr, tcr, mair, cptr] = [Own::Sctlr, Own::Tcr, Own::Mair, Own::Cptr].map(|own| nested.own.get(own));
    El2State { sctlr, tcr, mair, cptr }
}

/// EL1's registers after a reset. Which shadow TTBR0_EL1 names is for who enters it to say.
pub(super) fn reset_el1(nested: &Nested, el0: &El0, context: &mut Context) {
    let state = state(nested);
    context.set(El1::Sctlr, state.sctlr_el1());
    context.set(El1::Tcr, state.tcr_el1(el0.pa_range));
    context.set(El1::Mair, state.mair_el1());
    context.set(El1::Cpacr, state.cpacr_el1());
    context.set(El1::Cntkctl, El2State::cntkctl_el1());
    context.set(El1::Vbar, state.vbar_el1());
    context.set(El1::Ttbr1, el0.ttbr1);
}

/// Sets a register of virtual EL2, which runs. EL1's registers follow.
#[inline(never)]
pub fn write_own<M: Machine>(nested: &mut Nested, m: &M, register: Own, value: u64) {
    nested.own.set(register, value);
    let (state, Backend::El0(el0)) = (state(nested), &nested.backend) else { return };
    match register {
        Own::Sctlr => {
            m.set(El1::Sctlr, state.sctlr_el1());
            m.set(El1::Mair, state.mair_el1());
            m.set(El1::Vbar, state.vbar_el1());
        }
        Own::Tcr => m.set(El1::Tcr, state.tcr_el1(el0.pa_range)),
        Own::Mair => {
            m.set(El1::Mair, state.mair_el1());
            m.set(El1::Vbar, state.vbar_el1());
        }
        Own::Cptr => m.set(El1::Cpacr, state.cpacr_el1()),
        _ => return,
    }
    // A TLB may have what was translated by the old.
    m.forget_stage1();
}

/// VBAR_EL2 and SCTLR_EL2.
#[inline(never)]
pub(super) fn vectors(nested: &Nested) -> (u64, u64) {
    (nested.own.get(Own::Vbar), nested.own.get(Own::Sctlr) | exception::SCTLR::SPAN::SET.value)
}

/// EL2's control registers while virtual EL2 runs: nothing of it needs to trap that does not at EL0.
pub(super) const fn traps(midr: u64) -> Traps {
    Traps { hcr: hcr::PTW, vpidr: midr, vncr: 0, mdcr: 0, fp: false, cpacr: false, counter: false }
}

/// Makes EL1's registers for the hypervisor, which is to run again with SP_EL2 and whose guest is on the CPU, ready.
#[inline(never)]
pub(super) fn fetch_hypervisor<M: Machine>(nested: &mut Nested, m: &M) {
    let Backend::El0(el0) = &mut nested.backend else { return };
    let was = nested.hypervisor_el1.get(El1::SpEl0);
    let sp_el2 = if el0.own_stack { was } else { el0.other_sp };
    share(m, &mut nested.hypervisor_el1);
    (el0.own_stack, el0.other_sp) = (true, m.get(El1::SpEl0));
    nested.hypervisor_el1.set(El1::SpEl0, sp_el2);
    nested.hypervisor_el1.set(El1::CntvCtl, 0);
}
