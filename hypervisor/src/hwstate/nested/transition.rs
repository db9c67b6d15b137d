//! From a hypervisor to its guest (ERET) and back (exceptions to EL2): EL1's registers, EL2's and the interrupt interface
//! change hands (Arm ARM D1.3, D1.4; J1.1 AArch64.TakeException, AArch64.ExceptionReturn).

use super::registers::{cpu_of, keep_abort, nested_el2_registers};
use super::{interfaces, lists, shadow, timers};
use crate::arm::el1::{Context, El1};
use crate::arm::esr::class;
use crate::arm::exception::{self, Kind, psr};
use crate::host::Here;
use crate::hwstate::debug;
use crate::machine::Machine;
use crate::next::Next;
use crate::vcpu::nested::{Guest, Nested, Own, World, has_hpfar, hcr};
use crate::vcpu::{Common, Counter, Timer, as_el2};
use crate::vm::request;
use core::sync::atomic::Ordering;

/// Gives EL2's registers the values that its world has by now.
pub fn update_el2<M: Machine>(here: Here<'_>, m: &M, vcpu: &Common, nested: &Nested) {
    let el2 = nested_el2_registers(here, m, vcpu, nested, cpu_of(here));
    let mut now = Context::zeroed();
    let same = El1::ALL.iter().fold(Context::zeroed(), |mut context, register| {
        context.set(*register, m.get(*register));
        context
    });
    m.exchange(&mut now, &same, &el2);
    follow_debug(m, vcpu, nested);
}

/// ERET of the hypervisor.
pub fn eret<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) -> Next {
    here.slot.count(Counter::Nested);
    let (elr, spsr) = nested.link(m);
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
        psr::EL2H | psr::EL2T => vcpu.registers.pstate = nested.run_at_el2(m, state, mode == psr::EL2H),
        psr::EL0T if is_host => vcpu.registers.pstate = spsr,
        psr::AARCH32 if is_host && has_aarch32 => vcpu.registers.pstate = spsr,
        // What is illegal for our own ERET may not come through: there is no AArch32 but EL0's.
        psr::AARCH32 if !has_aarch32 => vcpu.registers.pstate = illegal,
        psr::EL1T | psr::EL1H if hcr & hcr::TGE != 0 => vcpu.registers.pstate = illegal,
        psr::EL0T | psr::AARCH32 | psr::EL1T | psr::EL1H if !is_host => {
            let (pc, pstate) = (at, vcpu.registers.pstate);
            vcpu.registers.pstate = spsr;
            return enter_guest(here, m, vcpu, nested).unwrap_or_else(|next| {
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
fn enter_guest<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) -> Result<Next, Next> {
    let shadow = shadow::shadow(here, m, nested)?;
    let page = shadow::guests_page(here, m, nested, vcpu.id);
    let lends = nested.hcr(m) & hcr::IMO != 0;
    let is_due = lends && interfaces::put_own_away(here, m, vcpu, nested);
    nested.fetch_guest(m);
    let is_own = shadow.is_none();
    nested.world = World::Guest(Guest { shadow, page, lends_interface: lends });
    nested.settled = true;
    for register in [El1::Cpacr, El1::Cntkctl] {
        // What traps for the guest follows from these.
        nested.hypervisor_el1.set(register, m.get(register));
    }
    let Timer { ctl, cval } = nested.physical_timer(m);
    vcpu.cntp = Timer::new(ctl, cval);
    let el2 = nested_el2_registers(here, m, vcpu, nested, cpu_of(here));
    m.exchange(&mut nested.hypervisor_el1, &nested.guest_el1, &el2);
    nested.keep_hypervisor();
    follow_debug(m, vcpu, nested);
    timers::changed(m, vcpu);
    if is_own {
        // Both worlds have the same VMID, but not the same stage 1.
        m.forget_stage1();
    }
    lists::lend(m, nested);
    if is_due {
        // What waits for the hypervisor is not masked any more.
        exception(here, m, vcpu, nested, Kind::Irq, None);
    } else if !lends {
        here.slot.requests.fetch_or(request::REFILL, Ordering::Relaxed);
    }
    Ok(timers::watch(m, vcpu, nested))
}

/// Debug registers are one set for both worlds, but not in force for both alike.
fn follow_debug<M: Machine>(m: &M, vcpu: &Common, nested: &Nested) {
    if vcpu.debug.mdscr != 0 {
        debug::nested_load(m, vcpu, nested);
    }
}

/// The guest's world ends: EL1's registers are the hypervisor's again.
fn leave_guest<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) {
    interfaces::take_back(here, m, vcpu, nested);
    keep_abort(m, nested);
    let was_shadow = nested.guest().is_some_and(|guest| guest.shadow.is_some());
    nested.world = World::Hypervisor;
    nested.fetch_hypervisor(m);
    let el2 = nested_el2_registers(here, m, vcpu, nested, cpu_of(here));
    m.exchange(&mut nested.guest_el1, &nested.hypervisor_el1, &el2);
    nested.keep_guest(m);
    nested.set_physical_timer(m, vcpu.cntp);
    follow_debug(m, vcpu, nested);
    timers::changed(m, vcpu);
    if !was_shadow {
        m.forget_stage1();
    }
    here.slot.requests.fetch_or(request::REFILL, Ordering::Relaxed);
}

/// Takes an exception to the hypervisor's EL2, from its guest or from itself. With a syndrome, it is of this exit.
pub fn exception<M: Machine>(
    here: Here<'_>,
    m: &M,
    vcpu: &mut Common,
    nested: &mut Nested,
    kind: Kind,
    syndrome: Option<u64>,
) {
    let from_guest = nested.guest().is_some();
    if from_guest {
        leave_guest(here, m, vcpu, nested);
    }
    let pstate = if from_guest { vcpu.registers.pstate } else { nested.at_el1(vcpu.registers.pstate) };
    let (vbar, sctlr) = nested.vectors(m);
    // A guest's EL1 is as far below as an EL0.
    let seen = if from_guest { pstate & !psr::MODE | pstate & psr::AARCH32 } else { pstate };
    let entry = exception::take(kind, seen, vbar, sctlr, vcpu.has_pan, vcpu.has_ssbs);
    nested.set_link(m, vcpu.registers.pc, if from_guest { pstate } else { as_el2(pstate) });
    if let Some(esr) = syndrome {
        here.slot.count(Counter::Nested);
        nested.set_syndrome(m, esr, vcpu.registers.far);
        if has_hpfar(class(esr)) {
            nested.set_own(m, Own::Hpfar, vcpu.registers.hpfar);
        }
    }
    vcpu.registers.pc = entry.pc;
    vcpu.registers.pstate = nested.run_at_el2(m, entry.pstate, true);
}
