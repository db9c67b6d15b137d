//! What comes of an exit of a vCPU that has an EL2 of its own.

use crate::addr::{Addr, Ipa};
use crate::arm::exception::Kind;
use crate::host::Here;
use crate::hwstate::nested::transition;
use crate::machine::Machine;
use crate::next::Next;
use crate::vcpu::Common;
use crate::vcpu::nested::Nested;

/// What came of an exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is handled.
    Done(Next),
    /// It is to be handled as for any other vCPU.
    Common,
    /// An access of the guest where its hypervisor has nothing.
    Nothing(Addr<Ipa>),
}

/// The exit is the hypervisor's: an exception to its EL2, as the hardware had it taken to ours.
pub fn to_hypervisor<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) -> Outcome {
    let esr = vcpu.registers.esr;
    transition::exception(here, m, vcpu, nested, Kind::Sync, Some(esr));
    Outcome::Done(Next::Resume)
}
