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
use crate::arm::gic::Version;
use crate::arm::sysreg::Trapped;
use crate::exit::raise::{nested_deny, nested_raise};
use crate::host::Here;
use crate::hwstate::nested::{regime, transition};
use crate::machine::Machine;
use crate::memory::Miss;
use crate::memory::el2_vectors::{N_VECTORS, interface_access};
use crate::memory::nested_walk::Reason;
use crate::next::{Cause, Next};
use crate::vcpu::el0_state::InterfaceAccess;
use crate::vcpu::nested::{Backend, Nested};
use crate::vcpu::{Common, Counter};

/// ISS of an abort: the fault status code.
const STATUS: u64 = 0x3f;
/// Status codes below are of address size, translation, access flag and permission faults: all that tables can be blamed for.
const NOT_OF_TABLES: u64 = 0x10;
/// The bit by which the exception class of what came from the same level differs from that of what came from a lower one, and the classes
/// that have two forms.
const FROM_SAME: u64 = 1 << 26;
const TWO_FORMS: [u64; 5] = [ec::IABT_LOWER, ec::DABT_LOWER, 0x30, 0x32, 0x34];

/// Classes of exceptions besides that it takes as it raises them: use of FP, an illegal state, SVC, alignment of PC and SP, FP, debug.
const OWN: [u64; 10] = [ec::FP, ec::ILLEGAL_STATE, 0x15, 0x22, 0x26, 0x2c, 0x30, 0x32, 0x34, 0x3c];

/// Handles what is only so for such an EL2. What is left, nothing here, is an instruction that FEAT_NV2 would have trapped as well: its
/// syndrome is in the registers by then.
#[inline(never)]
pub fn take<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) -> Option<Outcome> {
    if vcpu.registers.pstate & psr::MODE != psr::EL1H {
        return Some(Outcome::Common);
    }
    // It is at one of the vectors, whose number the HVC there has.
    let vector = vcpu.registers.syndrome().iss();
    if let Backend::El0(el0) = &mut nested.backend
        && let Some(access) = el0.access.take()
    {
        return Some(Outcome::Done(end_access(here, m, vcpu, nested, access)));
    }
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
        ec::UNKNOWN => return undefined(here, m, vcpu, nested),
        ec::SYSREG => return trapped(here, m, vcpu, nested),
        ec::IABT_LOWER | ec::DABT_LOWER if vcpu.registers.esr & STATUS < NOT_OF_TABLES => abort(here, m, vcpu, nested),
        ec::IABT_LOWER | ec::DABT_LOWER => own(here, m, vcpu, nested),
        class if OWN.contains(&class) => own(here, m, vcpu, nested),
        // Of a feature that it is not shown.
        _ => nested_deny(here, m, vcpu, nested),
    };
    Some(Outcome::Done(next))
}

/// How many instructions are done at one exit at most.
const MOST_AT_ONCE: u32 = 16;

/// An instruction that EL0 may not have, which is found out by reading it. What follows is done at once if it is of that kind, too: to go there
/// and come back costs more than the rest.
fn undefined<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) -> Option<Outcome> {
    let mut ahead = None;
    for n in 0..MOST_AT_ONCE {
        let word = match ahead.take() {
            Some(word) => word,
            None => {
                // What is not mapped any more is executed again.
                let Some([word, next]) = instructions(here, m, vcpu.registers.pc) else { break };
                ahead = Some(next);
                word
            }
        };
        if let Some((access, place)) = el0_system::register(word, nested.version) {
            if n == 0 {
                here.slot.count(Counter::SystemRegister);
            }
            el0_system::access(here, m, vcpu, nested, access, place);
            vcpu.registers.step(4);
            if el0_system::changes_regime(place) {
                break;
            }
            continue;
        }
        if n > 0 && word != a64::ERET {
            // The CPU knows whether EL0 may have it.
            break;
        }
        let Some(esr) = a64::syndrome(word) else { return Some(Outcome::Done(nested_deny(here, m, vcpu, nested))) };
        vcpu.registers.esr = esr;
        return trapped(here, m, vcpu, nested);
    }
    Some(Outcome::Done(Next::Resume))
}

/// An instruction that EL0 may not have.
fn trapped<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) -> Option<Outcome> {
    let next = match vcpu.registers.syndrome().ec() {
        ec::HVC64 => {
            // The exception is behind it.
            vcpu.registers.step(4);
            own(here, m, vcpu, nested)
        }
        ec::SYSREG if begin_access(vcpu, m, nested) => Next::Resume,
        ec::SYSREG => {
            let next = el0_system::syndrome(here, m, vcpu, nested)?;
            here.slot.count(Counter::SystemRegister);
            next
        }
        _ => return None,
    };
    Some(Outcome::Done(next))
}

/// Has EL1 access a register of the interrupt interface for it, if that is what the instruction wants.
fn begin_access<M: Machine>(vcpu: &mut Common, m: &M, nested: &mut Nested) -> bool {
    let Trapped { encoding, rt, is_read } = Trapped::decode(vcpu.registers.syndrome().iss());
    let (Version::V3, Backend::El0(el0)) = (nested.version, &mut nested.backend) else { return false };
    let Some(offset) = interface_access(encoding, is_read) else { return false };
    let registers = &mut vcpu.registers;
    let [pc, pstate, x0] = [registers.pc, registers.pstate, registers.read(0)];
    el0.access = Some(InterfaceAccess { pc, pstate, x0, reads_into: is_read.then_some(rt) });
    let value = registers.read(rt);
    registers.write(0, value);
    registers.pc = (m.get(El1::Vbar) & !0xfff) + offset;
    registers.pstate = psr::DAIF | psr::EL1H;
    true
}

/// EL1 has done it, or found it UNDEFINED.
fn end_access<M: Machine>(
    here: Here<'_>,
    m: &M,
    vcpu: &mut Common,
    nested: &mut Nested,
    access: InterfaceAccess,
) -> Next {
    let is_done = vcpu.registers.syndrome().iss() == N_VECTORS.into();
    let InterfaceAccess { pc, pstate, x0, reads_into } = access;
    let value = vcpu.registers.read(0);
    vcpu.registers.write(0, x0);
    (vcpu.registers.pc, vcpu.registers.pstate) = (pc, pstate);
    if !is_done {
        return nested_deny(here, m, vcpu, nested);
    }
    here.slot.count(Counter::SystemRegister);
    if let Some(rt) = reads_into {
        vcpu.registers.write(rt, value);
    }
    vcpu.registers.step(4);
    Next::Resume
}

/// The instruction at `pc`, read once, and the next one, or 0. Nothing where that is not mapped.
#[inline(always)]
fn instructions<M: Machine>(here: Here<'_>, m: &M, pc: u64) -> Option<[u32; 2]> {
    let mut memory = here.vm.memory.lock();
    if let Some(words) = m.instructions(pc) {
        return Some(words);
    }
    let at = m.translate(pc)?;
    let mut word = [0; 4];
    memory.read(m, &here.host.pool, at, &mut word).ok()?;
    Some([u32::from_le_bytes(word), 0])
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
