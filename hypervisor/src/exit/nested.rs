//! Exits of a vCPU that has an EL2 of its own: what belongs to its hypervisor, and what to us.
//!
//! [`el2`] gives meaning to the instructions of its EL2 that trap, [`el0`] finds out which they are where it runs at EL0, and [`el0_system`]
//! has those that trap only there; [`fault`] fills the guest's memory, [`forward`] says which
//! exits of the guest are its hypervisor's. The way to the guest and back is in [`crate::hwstate::nested`].

pub mod el0;
pub mod el0_system;
pub mod el2;
pub mod fault;
pub mod forward;
pub mod outcome;

use super::raise::nested_deny;
use crate::arm::esr::ec;
use crate::host::Here;
use crate::hwstate::nested::transition;
use crate::machine::Machine;
use crate::next::Next;
use crate::vcpu::Common;
use crate::vcpu::nested::{Nested, World, has_hpfar};
use outcome::{Outcome, to_hypervisor};

/// Handles what only such a vCPU does.
#[inline(never)]
pub fn handle<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) -> Outcome {
    match nested.world {
        World::Hypervisor => {
            if nested.el0().is_some() {
                if let Some(outcome) = el0::take(here, m, vcpu, nested) {
                    return outcome;
                }
            } else if nested.follow_e2h(m) {
                // What trapped may mean something else now.
                transition::update_el2(here, m, vcpu, nested);
                if vcpu.registers.syndrome().ec() != ec::HVC64 {
                    return Outcome::Done(Next::Resume);
                }
            }
            match vcpu.registers.syndrome().ec() {
                ec::ERET => Outcome::Done(transition::eret(here, m, vcpu, nested)),
                ec::SYSREG => {
                    let ids = here.host.facts.ids_of(nested);
                    let next = el2::read_id(here, vcpu, ids).or_else(|| el2::access(here, m, vcpu, nested));
                    next.map_or(Outcome::Common, Outcome::Done)
                }
                ec::HVC64 => to_hypervisor(here, m, vcpu, nested),
                _ => Outcome::Common,
            }
        }
        World::Guest(_) => {
            let class = vcpu.registers.syndrome().ec();
            if has_hpfar(class) {
                return fault::guest(here, m, vcpu, nested);
            }
            if forward::belongs(m, vcpu, nested) {
                return to_hypervisor(here, m, vcpu, nested);
            }
            match class {
                ec::HVC64 => {
                    // PC is behind it, and the exception is its own.
                    vcpu.registers.pc = vcpu.registers.pc.wrapping_sub(4);
                    Outcome::Done(nested_deny(here, m, vcpu, nested))
                }
                ec::SYSREG => {
                    el2::read_id(here, vcpu, here.host.facts.ids_of(nested)).map_or(Outcome::Common, Outcome::Done)
                }
                _ => Outcome::Common,
            }
        }
    }
}
