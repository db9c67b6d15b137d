//! The debug registers of the loaded vCPU: one set for its EL2 and its EL1, but not in force for both alike (Arm ARM D2).

use crate::arm::debug::mdscr;
use crate::arm::el1::El1;
use crate::arm::trap::mdcr::TDE;
use crate::machine::Machine;
use crate::vcpu::nested::{Nested, Own, hcr, page};
use crate::vcpu::{Common, Vcpu, VcpuKind};

/// Gives the CPU the debug registers of the loaded `vcpu`, as far as they are in force for the world that it is in.
pub fn load<M: Machine>(m: &M, vcpu: &Vcpu) {
    match &vcpu.kind {
        VcpuKind::Plain => set(m, vcpu, false, false),
        VcpuKind::Nested(nested) => nested_load(m, vcpu, nested),
    }
}

/// The same for one with an EL2 of its own.
pub fn nested_load<M: Machine>(m: &M, vcpu: &Common, nested: &Nested) {
    let at_el2 = nested.guest().is_none();
    // Where debug exceptions go: to EL2 with either.
    let above = at_el2 && nested.own(m, Own::Mdcr) & TDE | nested.hcr(m) & hcr::TGE == 0;
    nested.write(m, page::MDSCR, vcpu.debug.mdscr);
    set(m, vcpu, above, at_el2);
}

fn set<M: Machine>(m: &M, vcpu: &Common, above: bool, at_el2: bool) {
    let in_force = vcpu.debug.in_force(above);
    m.set(El1::Mdscr, in_force);
    if in_force & mdscr::MDE != 0 {
        m.load_debug(&vcpu.debug, at_el2);
    }
}

/// Gives the CPU the breakpoints and watchpoints of the loaded `vcpu`, if MDSCR_EL1, which is loaded, lets them hit.
#[inline(always)]
pub fn arm<M: Machine>(m: &M, vcpu: &Vcpu, in_force: u64) {
    if in_force & mdscr::MDE != 0 {
        m.load_debug(&vcpu.debug, vcpu.nested().is_some_and(|nested| nested.guest().is_none()));
    }
}
