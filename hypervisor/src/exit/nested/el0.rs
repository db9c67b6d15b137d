//! Exits of a virtual EL2 that runs at EL0, while it runs: what comes by EL1's vectors, which are ours ([`crate::memory::el2_vectors`]).
//!
//! An instruction that EL0 may not have is read and becomes the syndrome that FEAT_NV would have trapped it with ([`a64`]); from there on it is
//! handled alike. An abort of stage 1 is for its shadow ([`regime`]) or its own. All else that EL0 raises is an exception from EL2 to EL2.
//! What comes to our EL2 at once, as aborts of stage 2 and WFI, means what it means for any other vCPU.

use super::el0_system;
use super::outcome::Outcome;
use crate::arm::a64;
use crate::arm::el1::El1;
use crate::arm::esr::{Abort, ec};
use crate::arm::exception::{Kind, psr};
use crate::exit::raise::{nested_deny, nested_raise};
use crate::host::Here;
use crate::hwstate::nested::{regime, transition};
use crate::machine::Machine;
use crate::memory::Miss;
use crate::memory::nested_walk::Reason;
use crate::next::{Cause, Next};
use crate::vcpu::nested::Nested;
use crate::vcpu::{Common, Counter};

/// ISS of an abort: the fault status code.
const STATUS: u64 = 0x3f;
/// Status codes below are of address size, translation, access flag and permission faults: all that tables can be blamed for.
const NOT_OF_TABLES: u64 = 0x10;
/// The bit by which the exception class of what came from the same level differs from that of what came from a lower one, and the classes
/// that have two forms.
const FROM_SAME: u64 = 1 << 26;
const TWO_FORMS: [u64; 5] = [ec::IABT_LOWER, ec::DABT_LOWER, 0x30, 0x32, 0x34];

/// Handles what is only so for such an EL2. What is left, nothing here, is an instruction that FEAT_NV2 would have trapped as well: its
/// syndrome is in the registers by then.
#[inline(never)]
pub fn take<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) -> Option<Outcome> {
    if vcpu.registers.pstate & psr::MODE != psr::EL1H {
        return Some(Outcome::Common);
    }
    // It is at one of the vectors, whose number the HVC there has.
    let vector = vcpu.registers.syndrome().iss();
    let registers = &mut vcpu.registers;
    (registers.pc, registers.pstate) = (m.get(El1::Elr), m.get(El1::Spsr));
    (registers.esr, registers.far) = (m.get(El1::Esr), m.get(El1::Far));
    let kind = match vector {
        8 => {
            vcpu.remember();
            return synchronous(here, m, vcpu, nested);
        }
        9 => Kind::Irq,
        10 => Kind::Fiq,
        11 => Kind::SError,
        _ => return Some(Outcome::Done(Next::Stop(Cause::Crash("it came to a vector that it has no way to")))),
    };
    let syndrome = (kind == Kind::SError).then_some(vcpu.registers.esr);
    transition::exception(here, m, vcpu, nested, kind, syndrome);
    Some(Outcome::Done(Next::Resume))
}

fn synchronous<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) -> Option<Outcome> {
    let next = match vcpu.registers.syndrome().ec() {
        ec::UNKNOWN => match instruction(here, m, vcpu.registers.pc).map(a64::syndrome) {
            // It is not there any more: it is executed again.
            None => Next::Resume,
            Some(None) => nested_deny(here, m, vcpu, nested),
            Some(Some(esr)) => {
                vcpu.registers.esr = esr;
                return trapped(here, m, vcpu, nested);
            }
        },
        ec::SYSREG => return trapped(here, m, vcpu, nested),
        ec::IABT_LOWER | ec::DABT_LOWER if vcpu.registers.esr & STATUS < NOT_OF_TABLES => abort(here, m, vcpu, nested),
        _ => own(here, m, vcpu, nested),
    };
    Some(Outcome::Done(next))
}

/// An instruction that EL0 may not have.
fn trapped<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) -> Option<Outcome> {
    let next = match vcpu.registers.syndrome().ec() {
        ec::HVC64 => {
            // The exception is behind it.
            vcpu.registers.step(4);
            own(here, m, vcpu, nested)
        }
        ec::SYSREG => el0_system::access(here, m, vcpu, nested)?,
        _ => return None,
    };
    Some(Outcome::Done(next))
}

/// The instruction at `pc`, read once. Nothing where that is not mapped.
fn instruction<M: Machine>(here: Here<'_>, m: &M, pc: u64) -> Option<u32> {
    let at = m.translate(pc)?;
    let mut word = [0; 4];
    here.vm.memory.lock().read(m, &here.host.pool, at, &mut word).ok()?;
    Some(u32::from_le_bytes(word))
}

/// An abort of stage 1.
fn abort<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) -> Next {
    here.slot.count(Counter::Memory);
    let access = Abort::decode(vcpu.registers.syndrome()).access;
    // What is long is done in parts, the locks let go between them.
    let result = loop {
        match regime::fill(here, m, vcpu.id, vcpu.registers.far, access) {
            Err(Reason::Miss(Miss::Again)) if !m.is_interrupt_pending() => {}
            result => break result,
        }
    };
    match result {
        Ok(()) | Err(Reason::Miss(Miss::Again)) => Next::Resume,
        Err(Reason::Fault(fault)) => {
            vcpu.registers.esr = vcpu.registers.esr & !STATUS | fault.status();
            own(here, m, vcpu, nested)
        }
        Err(Reason::Miss(Miss::Short)) => here.host.starve(m, here.vm),
        Err(Reason::Miss(_)) => Next::Stop(Cause::Crash("a page of its memory could not be brought back as it was")),
    }
}

/// An exception from EL2 to EL2, as its syndrome has it for a lower level.
fn own<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) -> Next {
    let class = vcpu.registers.syndrome().ec();
    let esr = vcpu.registers.esr | if TWO_FORMS.contains(&class) { FROM_SAME } else { 0 };
    nested_raise(here, m, vcpu, nested, esr, None)
}
