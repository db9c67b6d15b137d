//! System instructions of a virtual EL2 that trap: registers that are not in its page, TLB maintenance, address translation.

use crate::arm::el1::El1;
use crate::arm::esr::Access;
use crate::arm::exception::psr;
use crate::arm::idreg::IdRegs;
use crate::arm::sysreg::{self, Encoding, Trapped};
use crate::exit::raise::nested_deny;
use crate::host::Here;
use crate::hwstate::debug;
use crate::hwstate::nested::registers::{self, cpu_of};
use crate::hwstate::nested::{lists, shadow};
use crate::machine::{Machine, Whose};
use crate::next::Next;
use crate::vcpu::nested::{Guest, Nested, Own, World, page};
use crate::vcpu::{Common, Counter, Timer};
use crate::vm::request;
use core::sync::atomic::Ordering;

/// ICC_SRE_EL2: Enable, DIB, DFB, SRE, all of them one.
const SRE: u64 = 0xf;

/// Where a register that traps is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Own(Own),
    /// In the page: an EL1 register of the guest's, by its own name from a hypervisor without E2H.
    Page(u64),
    Timer(Which, Field),
    Cntkctl,
    Rvbar,
    Vtr,
    Misr,
    Eisr,
    Elrsr,
    /// Reads as this, ignores writes.
    Fixed(u64),
}

impl Place {
    /// Whether MSR of it is UNDEFINED.
    const fn is_read_only(self) -> bool {
        matches!(self, Self::Rvbar | Self::Vtr | Self::Misr | Self::Eisr | Self::Elrsr)
    }
}

/// A timer whose registers trap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Which {
    /// EL2's physical.
    Hp,
    /// EL2's virtual.
    Hv,
    /// EL1's physical.
    P,
    /// EL1's virtual.
    V,
}

/// A timer's register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Field {
    Tval,
    Ctl,
    Cval,
}

impl Field {
    const fn of(op2: u16) -> Option<Self> {
        match op2 {
            0 => Some(Self::Tval),
            1 => Some(Self::Ctl),
            2 => Some(Self::Cval),
            _ => None,
        }
    }
}

/// Where the register `encoding` is for a hypervisor with E2H (`vhe`) or without; nothing for those that are handled as
/// for any other vCPU.
fn place(encoding: Encoding, vhe: bool) -> Option<Place> {
    let [op0, op1, crn, crm, op2] = encoding.parts();
    let timer = |which| Field::of(op2).map(|field| Place::Timer(which, field));
    if op0 != 3 {
        return None;
    }
    match (op1, crn, crm, op2) {
        (4, 1, 0, 0) => Some(Place::Own(Own::Sctlr)),
        (4, 1, 0, 1) => Some(Place::Own(Own::Actlr)),
        (4, 1, 1, 1) => Some(Place::Own(Own::Mdcr)),
        (4, 1, 1, 2) => Some(Place::Own(Own::Cptr)),
        (4, 1, 1, 3) => Some(Place::Own(Own::Hstr)),
        (4, 1, 1, 7) => Some(Place::Own(Own::Hacr)),
        (4, 2, 0, 0) => Some(Place::Own(Own::Ttbr0)),
        (4, 2, 0, 1) => Some(Place::Own(Own::Ttbr1)),
        (4, 2, 0, 2) => Some(Place::Own(Own::Tcr)),
        (4, 5, 1, 0) => Some(Place::Own(Own::Afsr0)),
        (4, 5, 1, 1) => Some(Place::Own(Own::Afsr1)),
        (4, 6, 0, 4) => Some(Place::Own(Own::Hpfar)),
        (4, 10, 2, 0) => Some(Place::Own(Own::Mair)),
        (4, 10, 3, 0) => Some(Place::Own(Own::Amair)),
        (4, 12, 0, 0) => Some(Place::Own(Own::Vbar)),
        (4, 12, 0, 1) => Some(Place::Rvbar),
        (4, 12, 0, 2) => Some(Place::Fixed(0)),
        (4, 12, 9, 5) => Some(Place::Fixed(SRE)),
        (4, 12, 11, 1) => Some(Place::Vtr),
        (4, 12, 11, 2) => Some(Place::Misr),
        (4, 12, 11, 3) => Some(Place::Eisr),
        (4, 12, 11, 5) => Some(Place::Elrsr),
        (4, 13, 0, 1) => Some(Place::Own(Own::Contextidr)),
        (4, 14, 1, 0) => Some(Place::Own(Own::Cnthctl)),
        (4, 14, 2, _) => timer(Which::Hp),
        (4, 14, 3, _) => timer(Which::Hv),
        // CNTKCTL_EL12, CNTP_*_EL02, CNTV_*_EL02.
        (5, 14, 1, 0) if vhe => Some(Place::Cntkctl),
        (5, 14, 2, _) if vhe => timer(Which::P),
        (5, 14, 3, _) if vhe => timer(Which::V),
        // CNTP_*_EL0 is EL2's physical timer with E2H.
        (3, 14, 2, _) => timer(if vhe { Which::Hp } else { Which::P }),
        (3, 14, 3, _) if !vhe => timer(Which::V),
        (0, ..) if !vhe => of_guest(crn, crm, op2).map(Place::Page),
        _ => None,
    }
}

/// Where in the page the guest's translation registers are (HCR_EL2.TVM, TRVM; Arm ARM D24.2.52).
const fn of_guest(crn: u16, crm: u16, op2: u16) -> Option<u64> {
    Some(match (crn, crm, op2) {
        (1, 0, 0) => page::SCTLR,
        (2, 0, 0) => page::TTBR0,
        (2, 0, 1) => page::TTBR1,
        (2, 0, 2) => page::TCR,
        (5, 1, 0) => page::AFSR0,
        (5, 1, 1) => page::AFSR1,
        (5, 2, 0) => page::ESR,
        (6, 0, 0) => page::FAR,
        (10, 2, 0) => page::MAIR,
        (10, 3, 0) => page::AMAIR,
        (13, 0, 1) => page::CONTEXTIDR,
        _ => return None,
    })
}

/// A read from the ID space: such a VM sees more there than others. Nothing if it is something else.
pub fn read_id(here: Here<'_>, vcpu: &mut Common, ids: Option<&IdRegs>) -> Option<Next> {
    let iss = vcpu.registers.syndrome().iss();
    let (crm, op2) = sysreg::id_read(iss)?;
    let ids = ids?;
    here.slot.count(Counter::SystemRegister);
    vcpu.registers.write(Trapped::decode(iss).rt, ids.get(crm, op2));
    vcpu.registers.step(4);
    Some(Next::Resume)
}

/// A trapped MRS, MSR or SYS of the hypervisor; nothing where it is handled as for any other vCPU.
pub fn access<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) -> Option<Next> {
    let Trapped { encoding, rt, is_read } = Trapped::decode(vcpu.registers.syndrome().iss());
    let [op0, op1, ..] = encoding.parts();
    if sysreg::decode(encoding) == Some(sysreg::Register::SetWay) {
        return None;
    }
    // There is no SYSL.
    if op0 == 1 && !is_read {
        here.slot.count(Counter::SystemRegister);
        return Some(instruction(here, m, vcpu, nested, encoding, rt));
    }
    let place = place(encoding, nested.vhe).filter(|place| is_read || !place.is_read_only());
    let Some(place) = place else {
        // A register of an EL2 feature that is hidden, or one that is not for that.
        return matches!(op1, 4 | 5).then(|| nested_deny(here, m, vcpu, nested));
    };
    here.slot.count(Counter::SystemRegister);
    let mut next = Next::Resume;
    if is_read {
        let value = read(m, nested, place);
        vcpu.registers.write(rt, value);
    } else {
        let value = vcpu.registers.read(rt);
        next = write(here, m, vcpu, nested, place, value);
    }
    vcpu.registers.step(4);
    Some(next)
}

fn read<M: Machine>(m: &M, nested: &Nested, place: Place) -> u64 {
    match place {
        Place::Own(own) => nested.read_own(m, own),
        Place::Page(offset) => nested.read(m, offset),
        Place::Cntkctl => nested.read(m, page::CNTKCTL),
        Place::Fixed(value) => value,
        Place::Rvbar => 0,
        Place::Vtr => m.interface_type(),
        Place::Misr => lists::misr(nested, m),
        Place::Eisr => lists::eisr(nested, m),
        Place::Elrsr => lists::elrsr(nested, m),
        Place::Timer(which, field) => {
            let (timer, offset) = timer(nested, m, which);
            let now = m.now().wrapping_sub(offset);
            match field {
                Field::Cval => timer.cval,
                Field::Tval => timer.tval(now),
                Field::Ctl => timer.control(now),
            }
        }
    }
}

fn write<M: Machine>(here: Here<'_>, m: &M, vcpu: &Common, nested: &mut Nested, place: Place, value: u64) -> Next {
    match place {
        Place::Own(own) => {
            nested.write_own(m, own, value);
            if own == Own::Mdcr {
                debug::nested_load(m, vcpu, nested);
            }
        }
        Place::Page(offset) => nested.write(m, offset, value),
        Place::Cntkctl => nested.write(m, page::CNTKCTL, value),
        Place::Fixed(_) | Place::Rvbar | Place::Vtr | Place::Misr | Place::Eisr | Place::Elrsr => {}
        Place::Timer(which, field) => {
            let (mut timer, offset) = timer(nested, m, which);
            match field {
                Field::Ctl => timer.set_control(value),
                Field::Cval => timer.cval = value,
                Field::Tval => timer.set_tval(value, m.now().wrapping_sub(offset)),
            }
            set_timer(nested, m, which, timer);
            here.slot.requests.fetch_or(request::REFILL, Ordering::Relaxed);
            return Next::Reschedule;
        }
    }
    Next::Resume
}

/// A timer's registers, and what its counter lags behind ours.
fn timer<M: Machine>(nested: &Nested, m: &M, which: Which) -> (Timer, u64) {
    match which {
        Which::Hp => (nested.hp, 0),
        Which::Hv => (nested.read_hv(m), 0),
        Which::P => (nested.physical_timer(m), 0),
        Which::V => (nested.virtual_timer(m), nested.read(m, page::CNTVOFF)),
    }
}

fn set_timer<M: Machine>(nested: &mut Nested, m: &M, which: Which, timer: Timer) {
    match which {
        Which::Hp => nested.hp = timer,
        Which::Hv => nested.write_hv(m, timer),
        Which::P => nested.set_physical_timer(m, timer),
        Which::V => {
            nested.write(m, page::CNTV_CTL, timer.ctl);
            nested.write(m, page::CNTV_CVAL, timer.cval);
        }
    }
}

/// PAR_EL1: F and S, the fault is stage 2's.
const STAGE2: u64 = 1 | 1 << 9;
/// How often a guest's tables are looked for, as others may take them away meanwhile.
const TRIES: u32 = 4;

/// A SYS instruction: TLBI or AT.
fn instruction<M: Machine>(
    here: Here<'_>,
    m: &M,
    vcpu: &mut Common,
    nested: &mut Nested,
    encoding: Encoding,
    rt: u8,
) -> Next {
    let value = vcpu.registers.read(rt);
    let [_, _, crn, crm, _] = encoding.parts();
    let done = match crn {
        7 if crm >> 1 == 4 => translate(here, m, vcpu, nested, encoding, value),
        8 | 9 => {
            shadow::forget(here, m, nested, encoding, value);
            true
        }
        _ => false,
    };
    if !done {
        return nested_deny(here, m, vcpu, nested);
    }
    vcpu.registers.step(4);
    Next::Resume
}

/// AT: by the hypervisor's own stage 1, or by its guest's.
fn translate<M: Machine>(
    here: Here<'_>,
    m: &M,
    vcpu: &Common,
    nested: &mut Nested,
    encoding: Encoding,
    va: u64,
) -> bool {
    let [_, op1, _, crm, op2] = encoding.parts();
    let access = if op2 & 1 != 0 { Access::Write } else { Access::Read };
    let is_host = nested.is_host(m);
    let pan = vcpu.registers.pstate & psr::PAN != 0;
    let whose = match (crm, op2 & 2) {
        (9, _) if pan => Whose::El1Pan,
        (8, 2) => Whose::El0,
        _ => Whose::El1,
    };
    let (by_guest, both) = match (op1, crm, op2) {
        (4, 8, 0 | 1) => (false, false),
        (4, 8, 4..=7) => (true, true),
        (0, 8, 0..=3) => (!is_host, false),
        (0, 9, 0 | 1) => (!is_host, false),
        _ => return false,
    };
    if !by_guest {
        let par = m.probe(va, access, whose);
        nested.set_par(m, par);
        return true;
    }
    let Ok(shadow) = shadow::shadow(here, m, nested) else { return true };
    nested.fetch_guest(m);
    // It does not run: its timer does not, either.
    nested.guest_el1.set(El1::CntvCtl, 0);
    nested.world = World::Guest(Guest { shadow, ..Guest::default() });
    let cpu = cpu_of(here);
    let el2 = registers::nested_el2_registers(here, m, vcpu, nested, cpu);
    m.exchange(&mut nested.hypervisor_el1, &nested.guest_el1, &el2);
    let mut par = m.probe(va, access, whose);
    for _ in 0..TRIES {
        if par & STAGE2 != STAGE2 {
            break;
        }
        // The shadow has none of its tables yet, or no more.
        par = match shadow::prefill(here, m, nested, va) {
            Ok(()) => m.probe(va, access, whose),
            Err(par) => par,
        };
    }
    nested.world = World::Hypervisor;
    let el2 = registers::nested_el2_registers(here, m, vcpu, nested, cpu);
    m.exchange(&mut nested.guest_el1, &nested.hypervisor_el1, &el2);
    if both && par & 1 == 0 {
        par = shadow::probe_outer(here, m, nested, par, access);
    }
    nested.set_par(m, par);
    true
}
