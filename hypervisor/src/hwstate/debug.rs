//! The debug registers of the loaded vCPU: one set for its EL2 and its EL1, but not in force for both alike (Arm ARM D2).

use crate::arm::debug::mdscr;
use crate::arm::el1::El1;
use crate::arm::trap::mdcr::TDE;
use crate::machine::Machine;
use crate::vcpu::Vcpu;
use crate::vcpu::nested::{Own, World, hcr};

/// Gives the CPU the debug registers of the loaded `vcpu`, as far as they are in force for the world that it is in.
pub fn load<M: Machine>(m: &M, vcpu: &Vcpu) {
    let at_el2 = vcpu.nested.as_ref().filter(|nested| nested.world == World::Hypervisor);
    // Where debug exceptions go: to EL2 with either.
    let above = at_el2.is_some_and(|nested| nested.kept.get(Own::Mdcr) & TDE | nested.hcr(m) & hcr::TGE == 0);
    m.set(El1::Mdscr, vcpu.debug.in_force(above));
    arm(m, vcpu, vcpu.debug.in_force(above));
}

/// Gives the CPU the breakpoints and watchpoints of the loaded `vcpu`, if MDSCR_EL1 lets them hit.
#[inline(always)]
pub fn arm<M: Machine>(m: &M, vcpu: &Vcpu, in_force: u64) {
    if in_force & mdscr::MDE != 0 {
        let at_el2 = vcpu.nested.as_ref().is_some_and(|nested| nested.world == World::Hypervisor);
        m.load_debug(&vcpu.debug, at_el2);
    }
}
