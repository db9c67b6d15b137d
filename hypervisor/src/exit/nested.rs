//! Exits of a vCPU that has an EL2 of its own: what belongs to its hypervisor, and what to us.
//!
//! [`el2`] gives meaning to the instructions of its EL2 that trap, [`fault`] fills the guest's memory, [`forward`] says which
//! exits of the guest are its hypervisor's. The way to the guest and back is in [`crate::hwstate::nested`].

pub mod el2;
pub mod fault;
pub mod forward;

use super::raise::deny;
use crate::arm::esr::ec;
use crate::arm::exception::Kind;
use crate::host::Here;
use crate::hwstate::nested::transition;
use crate::machine::Machine;
use crate::next::Next;
use crate::vcpu::Vcpu;
use crate::vcpu::nested::{World, has_hpfar};

/// Handles what only such a vCPU does; nothing where it is to be handled as for any other.
#[inline(never)]
pub fn handle<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) -> Option<Next> {
    let nested = vcpu.nested.as_mut()?;
    let class = vcpu.registers.syndrome().ec();
    match nested.world {
        World::Hypervisor => {
            if nested.follow_e2h(m) {
                // What trapped may mean something else now.
                transition::assume(here, m, vcpu);
                if class != ec::HVC64 {
                    return Some(Next::Resume);
                }
            }
            match class {
                ec::ERET => Some(transition::eret(here, m, vcpu)),
                ec::SYSREG => el2::read_id(here, vcpu).or_else(|| el2::access(here, m, vcpu)),
                ec::HVC64 => {
                    let esr = vcpu.registers.esr;
                    transition::exception(here, m, vcpu, Kind::Sync, Some(esr));
                    Some(Next::Resume)
                }
                _ => None,
            }
        }
        World::Guest => {
            if has_hpfar(class) {
                return fault::guest(here, m, vcpu);
            }
            if forward::belongs(m, vcpu) {
                let esr = vcpu.registers.esr;
                transition::exception(here, m, vcpu, Kind::Sync, Some(esr));
                return Some(Next::Resume);
            }
            match class {
                ec::HVC64 => {
                    // PC is behind it, and the exception is its own.
                    vcpu.registers.pc = vcpu.registers.pc.wrapping_sub(4);
                    Some(deny(here, m, vcpu))
                }
                ec::SYSREG => el2::read_id(here, vcpu),
                _ => None,
            }
        }
    }
}
