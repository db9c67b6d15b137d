//! Exits of a virtual EL2 that runs at EL0, while it runs: what comes by EL1's vectors, which are ours ([`crate::memory::el2_vectors`]).
//!
//! Accesses to registers in the page are done there already (`el2/el0_vectors.S`), if its memory and its stack pointer are such.
//! Any other instruction that EL0 may not have is read and becomes the syndrome that FEAT_NV would have trapped it with ([`a64`]); from there on it is
//! handled alike. An abort of stage 1 is for its shadow ([`regime`]) or its own. All else that EL0 raises is an exception from EL2 to EL2.
//! What comes to our EL2 at once, as aborts of stage 2 and WFI, means what it means for any other vCPU.

use super::el0_system;
use super::outcome::Outcome;
use crate::arm::a64;
use crate::arm::debug::mdscr;
use crate::arm::el1::El1;
use crate::arm::esr::{Abort, ec};
use crate::arm::exception::{Kind, psr};
use crate::arm::gic::Version;
use crate::arm::sysreg::Trapped;
use crate::exit::raise::{nested_deny, nested_raise};
use crate::host::Here;
use crate::hwstate::debug;
use crate::hwstate::nested::{regime, transition};
use crate::machine::Machine;
use crate::memory::Miss;
use crate::memory::el2_vectors::{N_VECTORS, interface_access};
use crate::memory::nested_walk::Reason;
use crate::next::{Cause, Next};
use crate::vcpu::el0_state::InterfaceAccess;
use crate::vcpu::nested::{Backend, Nested, page};
use crate::vcpu::{Common, Counter};
use aarch64_cpu::registers::ESR_EL2;

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
    follow_mdscr(m, vcpu, nested);
    if vcpu.registers.pstate & psr::MODE != psr::EL1H {
        return Some(Outcome::Common);
    }
    if vcpu.registers.syndrome().ec() == ec::DABT_LOWER {
        begin_anew(m, vcpu, nested);
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
        SAME_LEVEL => {
            // The instruction could not be read: X0 is where it is, X2 was SPSR_EL1.
            (vcpu.registers.pc, vcpu.registers.pstate) = (vcpu.registers.read(0), vcpu.registers.read(2));
            vcpu.registers.pstate &= !psr::MODE;
            restore(m, vcpu, nested);
            return undefined(here, m, vcpu, nested);
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

/// Takes over what EL1's vectors have written to MDSCR_EL1.
fn follow_mdscr<M: Machine>(m: &M, vcpu: &mut Common, nested: &Nested) {
    let now = nested.read(m, page::MDSCR) & mdscr::ALL;
    if now != vcpu.debug.mdscr {
        vcpu.debug.mdscr = now;
        debug::nested_load(m, vcpu, nested);
    }
}

/// The vector of what EL1 raises itself, synchronously.
const SAME_LEVEL: u64 = 4;

/// An abort of stage 2 when EL1's vectors read an instruction of virtual EL2: becomes that of its fetch, before which nothing was done.
fn begin_anew<M: Machine>(m: &M, vcpu: &mut Common, nested: &Nested) {
    /// Of the syndrome: S1PTW and the status code.
    const KEPT: u64 = 1 << 7 | STATUS;
    restore(m, vcpu, nested);
    let registers = &mut vcpu.registers;
    (registers.pc, registers.pstate) = (m.get(El1::Elr), m.get(El1::Spsr));
    registers.esr = ESR_EL2::EC.val(ec::IABT_LOWER).value | ESR_EL2::IL::SET.value | registers.esr & KEPT;
}

/// Gives X0 to X3 back what they were when EL1's vectors began to use them.
fn restore<M: Machine>(m: &M, vcpu: &mut Common, nested: &Nested) {
    for n in 0..4 {
        vcpu.registers.write(n, nested.read(m, page::SCRATCH + u64::from(n) * 8));
    }
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

/// An instruction that EL0 may not have, which is found out by reading it.
fn undefined<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) -> Option<Outcome> {
    // What is not mapped any more is executed again.
    let Some(word) = instruction(here, m, vcpu.registers.pc) else { return Some(Outcome::Done(Next::Resume)) };
    if let Some((access, place)) = el0_system::register(word, nested.version) {
        here.slot.count(Counter::SystemRegister);
        el0_system::access(here, m, vcpu, nested, access, place);
        vcpu.registers.step(4);
        return Some(Outcome::Done(Next::Resume));
    }
    let Some(esr) = a64::syndrome(word) else {
        return Some(Outcome::Done(if is_so_again(vcpu.registers.pc, word, nested) {
            nested_deny(here, m, vcpu, nested)
        } else {
            Next::Resume
        }));
    };
    vcpu.registers.esr = esr;
    trapped(here, m, vcpu, nested)
}

/// Whether the instruction `word` at `pc`, which nobody but the CPU calls UNDEFINED, was so a moment ago: it may have been another when the CPU
/// said so, as another CPU changed it. It is executed again then.
fn is_so_again(pc: u64, word: u32, nested: &mut Nested) -> bool {
    let Backend::El0(el0) = &mut nested.backend else { return true };
    if el0.undefined == Some((pc, word)) {
        el0.undefined = None;
        return true;
    }
    el0.undefined = Some((pc, word));
    false
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

/// The instruction at `pc`, read once. Nothing where that is not mapped.
#[inline(always)]
fn instruction<M: Machine>(here: Here<'_>, m: &M, pc: u64) -> Option<u32> {
    let mut memory = here.vm.memory.lock();
    if let Some(word) = m.instruction(pc) {
        return Some(word);
    }
    let at = m.translate(pc)?;
    let mut word = [0; 4];
    memory.read(m, &here.host.pool, at, &mut word).ok()?;
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
