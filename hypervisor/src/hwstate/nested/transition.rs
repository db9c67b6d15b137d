//! From a hypervisor to its guest (ERET) and back (exceptions to EL2): EL1's registers, EL2's and the interrupt interface
//! change hands (Arm ARM D1.3, D1.4; J1.1 AArch64.TakeException, AArch64.ExceptionReturn).

use super::registers::{cpu_of, el2_registers, keep_abort};
use super::{lists, shadow, timers};
use crate::arm::el1::{Context, El1};
use crate::arm::exception::{self, Kind, psr};
use crate::host::Here;
use crate::hwstate::{
    debug,
    lists::{put_own_away, take_back},
};
use crate::machine::Machine;
use crate::next::Next;
use crate::vcpu::nested::{Own, World, has_hpfar, hcr};
use crate::vcpu::{Counter, Timer, Vcpu, as_el2};
use crate::vm::request;
use core::sync::atomic::Ordering;

/// SCTLR_ELx.SPAN: taking an exception leaves PSTATE.PAN alone.
const SPAN: u64 = 1 << 23;

/// Gives EL2's registers the values that its world has by now.
pub fn assume<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) {
    let el2 = el2_registers(here, m, vcpu, cpu_of(here));
    let mut now = Context::zeroed();
    let same = El1::ALL.iter().fold(Context::zeroed(), |mut context, register| {
        context.set(*register, m.get(*register));
        context
    });
    m.exchange(&mut now, &same, &el2);
    follow_debug(m, vcpu);
}

/// ERET of the hypervisor.
pub fn eret<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) -> Next {
    here.slot.count(Counter::Nested);
    let Some(nested) = &mut vcpu.nested else { return Next::Resume };
    let (spsr, elr) = (m.get(El1::Spsr), m.get(El1::Elr));
    let hcr = nested.hcr(m);
    let is_host = nested.is_host(m);
    let at = vcpu.registers.pc;
    vcpu.registers.pc = elr;
    let mode = spsr & psr::MODE;
    let state = spsr & !psr::MODE;
    let illegal = state & (psr::NZCV | psr::DAIF) | vcpu.registers.pstate & psr::MODE | psr::IL;
    // ID_AA64PFR0_EL1.EL0.
    let has_aarch32 = here.host.facts.ids.get(4, 0) & 0xf == 2;
    match mode {
        psr::EL2H => vcpu.registers.pstate = state | psr::EL1H,
        psr::EL2T => vcpu.registers.pstate = state | psr::EL1T,
        psr::EL0T if is_host => vcpu.registers.pstate = spsr,
        psr::AARCH32 if is_host && has_aarch32 => vcpu.registers.pstate = spsr,
        // What is illegal for our own ERET may not come through: there is no AArch32 but EL0's.
        psr::AARCH32 if !has_aarch32 => vcpu.registers.pstate = illegal,
        psr::EL1T | psr::EL1H if hcr & hcr::TGE != 0 => vcpu.registers.pstate = illegal,
        psr::EL0T | psr::AARCH32 | psr::EL1T | psr::EL1H if !is_host => {
            let (pc, pstate) = (at, vcpu.registers.pstate);
            vcpu.registers.pstate = spsr;
            return enter_guest(here, m, vcpu).unwrap_or_else(|next| {
                // Its memory is not to be had yet: the ERET is tried again.
                (vcpu.registers.pc, vcpu.registers.pstate) = (pc, pstate);
                next
            });
        }
        // Nowhere it may go (Arm ARM D1.4.4): it stays where it is, in an illegal state.
        _ => vcpu.registers.pstate = illegal,
    }
    Next::Resume
}

/// The guest runs from here on, from where PC and PSTATE are set already. The error is what to do before it is tried
/// again.
fn enter_guest<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) -> Result<Next, Next> {
    let Some(nested) = &mut vcpu.nested else { return Ok(Next::Resume) };
    nested.shadow = shadow::shadow(here, m, nested)?;
    nested.guests_page = shadow::guests_page(here, m, nested, vcpu.id);
    let lends = nested.hcr(m) & hcr::IMO != 0;
    let is_due = lends && put_own_away(here, m, vcpu);
    let Some(nested) = &mut vcpu.nested else { return Ok(Next::Resume) };
    nested.lends_interface = lends;
    nested.fetch_guest(m);
    nested.world = World::Guest;
    nested.settled = true;
    for register in [El1::Cpacr, El1::Cntkctl] {
        // What traps for the guest follows from these.
        nested.away.set(register, m.get(register));
    }
    let Timer { ctl, cval } = nested.physical_timer(m);
    vcpu.cntp = Timer::new(ctl, cval);
    let el2 = el2_registers(here, m, vcpu, cpu_of(here));
    let Some(nested) = &mut vcpu.nested else { return Ok(Next::Resume) };
    m.exchange(&mut nested.away, &nested.passing, &el2);
    nested.keep_hypervisor();
    let is_own = nested.shadow.is_none();
    follow_debug(m, vcpu);
    timers::changed(m, vcpu);
    if is_own {
        // Both worlds have the same VMID, but not the same stage 1.
        m.forget_stage1();
    }
    lists::lend(m, vcpu);
    if is_due {
        // What waits for the hypervisor is not masked any more.
        exception(here, m, vcpu, Kind::Irq, None);
    } else if !lends {
        here.slot.requests.fetch_or(request::REFILL, Ordering::Relaxed);
    }
    Ok(timers::watch(m, vcpu))
}

/// Debug registers are one set for both worlds, but not in force for both alike.
fn follow_debug<M: Machine>(m: &M, vcpu: &Vcpu) {
    if vcpu.debug.mdscr != 0 {
        debug::load(m, vcpu);
    }
}

/// The guest's world ends: EL1's registers are the hypervisor's again.
fn leave_guest<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) {
    take_back(here, m, vcpu);
    keep_abort(m, vcpu);
    let Some(nested) = &mut vcpu.nested else { return };
    nested.world = World::Hypervisor;
    nested.fetch_hypervisor(m);
    let was_shadow = nested.shadow.take().is_some();
    let el2 = el2_registers(here, m, vcpu, cpu_of(here));
    let Some(nested) = &mut vcpu.nested else { return };
    m.exchange(&mut nested.passing, &nested.away, &el2);
    nested.keep_guest(m);
    nested.set_physical_timer(m, vcpu.cntp);
    follow_debug(m, vcpu);
    timers::changed(m, vcpu);
    if !was_shadow {
        m.forget_stage1();
    }
    here.slot.requests.fetch_or(request::REFILL, Ordering::Relaxed);
}

/// Takes an exception to the hypervisor's EL2, from its guest or from itself. With a syndrome, it is of this exit.
pub fn exception<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu, kind: Kind, syndrome: Option<u64>) {
    let from_guest = vcpu.nested.as_ref().is_some_and(|nested| nested.world == World::Guest);
    if from_guest {
        leave_guest(here, m, vcpu);
    }
    let Some(nested) = &mut vcpu.nested else { return };
    let pstate = vcpu.registers.pstate;
    let sctlr = m.get(El1::Sctlr) | if nested.is_host(m) { 0 } else { SPAN };
    // A guest's EL1 is as far below as an EL0.
    let seen = if from_guest { pstate & !psr::MODE | pstate & psr::AARCH32 } else { pstate };
    let entry = exception::take(kind, seen, m.get(El1::Vbar), sctlr, vcpu.has_pan, vcpu.has_ssbs);
    m.set(El1::Elr, vcpu.registers.pc);
    m.set(El1::Spsr, if from_guest { pstate } else { as_el2(pstate) });
    if let Some(esr) = syndrome {
        here.slot.count(Counter::Nested);
        m.set(El1::Esr, esr);
        m.set(El1::Far, vcpu.registers.far);
        if has_hpfar(esr >> 26 & 0x3f) {
            nested.kept.set(Own::Hpfar, vcpu.registers.hpfar);
        }
    }
    vcpu.registers.pc = entry.pc;
    vcpu.registers.pstate = entry.pstate;
}
