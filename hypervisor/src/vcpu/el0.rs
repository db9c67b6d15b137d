//! Virtual EL2 on a CPU without FEAT_NV: it runs at EL0, and its registers are in the page.
//!
//! EL1's registers on the CPU follow from them ([`super::el0_state`]) as it changes them, and those of its guest are in the page, as with
//! FEAT_NV2.

use super::Traps;
use super::el0_state::{El0, El2State};
use super::nested::{Backend, Nested, Own, page, share};
use crate::arm::el1::{Context, El1};
use crate::arm::exception;
use crate::arm::trap::hcr;
use crate::machine::Machine;

/// What EL1's registers follow from.
fn state<M: Machine>(nested: &Nested, m: &M) -> El2State {
    let [sctlr, tcr, mair, cptr] = [Own::Sctlr, Own::Tcr, Own::Mair, Own::Cptr].map(|own| nested.own(m, own));
    El2State { sctlr, tcr, mair, cptr }
}

/// VBAR_EL1 and SP_EL1. The vectors that do accesses to the page have SP_EL0 there, which is so while SP_EL2 is used.
fn vectors_of(state: &El2State, el0: &El0) -> (u64, u64) {
    let vectors = el0.vcpu.filter(|_| el0.own_stack).and_then(|vcpu| state.register_vectors(vcpu));
    vectors.unwrap_or_else(|| (state.vbar_el1(), 0))
}

/// EL1's registers after a reset. Which shadow TTBR0_EL1 names is for who enters it to say.
pub(super) fn reset_el1(el0: &El0, context: &mut Context) {
    let state = El2State::RESET;
    context.set(El1::Sctlr, state.sctlr_el1());
    context.set(El1::Tcr, state.tcr_el1(el0.pa_range));
    context.set(El1::Mair, state.mair_el1());
    context.set(El1::Cpacr, state.cpacr_el1());
    context.set(El1::Cntkctl, El2State::cntkctl_el1());
    context.set(El1::Vbar, state.vbar_el1());
    context.set(El1::SpEl1, 0);
    context.set(El1::Ttbr1, el0.ttbr1);
}

/// Sets a register of virtual EL2, which runs. EL1's registers follow.
#[inline(never)]
pub fn write_own<M: Machine>(nested: &Nested, m: &M, register: Own, value: u64) {
    nested.set_own(m, register, value);
    let (state, Backend::El0(el0)) = (state(nested, m), &nested.backend) else { return };
    match register {
        Own::Sctlr => m.set(El1::Sctlr, state.sctlr_el1()),
        Own::Tcr => m.set(El1::Tcr, state.tcr_el1(el0.pa_range)),
        Own::Mair => {}
        Own::Cptr => return m.set(El1::Cpacr, state.cpacr_el1()),
        _ => return,
    }
    if register != Own::Tcr {
        m.set(El1::Mair, state.mair_el1());
        follow_vectors(nested, m);
    }
    // A TLB may have what was translated by the old.
    m.forget_stage1();
}

/// Gives EL1, as virtual EL2 runs, the vectors for what that has by now.
fn follow_vectors<M: Machine>(nested: &Nested, m: &M) {
    if let Backend::El0(el0) = &nested.backend {
        let (vbar, sp) = vectors_of(&state(nested, m), el0);
        m.set(El1::Vbar, vbar);
        m.set(El1::SpEl1, sp);
    }
}

impl Nested {
    /// Has virtual EL2, which runs at EL0, use SP_EL2 (`own`) or SP_EL0. What it uses is in SP_EL0 on the CPU, the other in the page.
    pub fn select_stack<M: Machine>(&mut self, m: &M, own: bool) {
        let Backend::El0(el0) = &mut self.backend else { return };
        if own == el0.own_stack {
            return;
        }
        el0.own_stack = own;
        let sp = self.read(m, page::OTHER_SP);
        self.write(m, page::OTHER_SP, m.get(El1::SpEl0));
        m.set(El1::SpEl0, sp);
        follow_vectors(self, m);
    }

    /// SP_EL0 while virtual EL2 runs at EL0.
    pub fn sp_el0<M: Machine>(&self, m: &M) -> u64 {
        if self.uses_own_stack() { self.read(m, page::OTHER_SP) } else { m.get(El1::SpEl0) }
    }

    /// Sets SP_EL0 while virtual EL2 runs at EL0.
    pub fn set_sp_el0<M: Machine>(&self, m: &M, value: u64) {
        if self.uses_own_stack() {
            self.write(m, page::OTHER_SP, value);
        } else {
            m.set(El1::SpEl0, value);
        }
    }

    /// PSTATE.SP of a virtual EL2 at EL0.
    pub fn uses_own_stack(&self) -> bool {
        self.el0().is_some_and(|el0| el0.own_stack)
    }

    /// Makes those registers of the guest's ready in [`Nested::guest_el1`] that with FEAT_NV2 are on the CPU while its hypervisor runs.
    pub(super) fn fetch_guest_of_el0<M: Machine>(&mut self, m: &M) {
        self.guest_el1.set(El1::SpEl0, self.sp_el0(m));
        for (register, offset) in OF_GUEST {
            self.guest_el1.set(register, self.read(m, offset));
        }
    }

    /// Keeps them in the page.
    pub(super) fn keep_guest_of_el0<M: Machine>(&self, m: &M) {
        for (register, offset) in OF_GUEST {
            self.write(m, offset, self.guest_el1.get(register));
        }
    }
}

/// Registers of the guest's that are in the page while its hypervisor runs at EL0, and on the CPU where that runs at EL1.
const OF_GUEST: [(El1, u64); 4] = [
    (El1::TpidrEl1, page::TPIDR_EL1),
    (El1::Par, page::PAR),
    (El1::Cntkctl, page::CNTKCTL),
    (El1::Csselr, page::CSSELR),
];

/// VBAR_EL2 and SCTLR_EL2.
#[inline(never)]
pub(super) fn vectors<M: Machine>(nested: &Nested, m: &M) -> (u64, u64) {
    (nested.own(m, Own::Vbar), nested.own(m, Own::Sctlr) | exception::SCTLR::SPAN::SET.value)
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
    share(m, &mut nested.hypervisor_el1);
    nested.hypervisor_el1.set(El1::CntvCtl, 0);
    if core::mem::replace(&mut el0.own_stack, true) {
        nested.hypervisor_el1.set(El1::SpEl0, was);
    } else {
        let el0 = el0.clone();
        let (vbar, sp) = vectors_of(&state(nested, m), &el0);
        nested.hypervisor_el1.set(El1::Vbar, vbar);
        nested.hypervisor_el1.set(El1::SpEl1, sp);
        nested.hypervisor_el1.set(El1::SpEl0, nested.read(m, page::OTHER_SP));
    }
    nested.write(m, page::OTHER_SP, m.get(El1::SpEl0));
}
