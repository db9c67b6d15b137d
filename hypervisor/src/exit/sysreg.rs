//! Trapped system registers: what each reads as and what writing it does. What is not here is UNDEFINED.

use super::cache;
use super::raise::deny;
use crate::arm::debug::mdscr;
use crate::arm::gic::SgiRegister;
use crate::arm::sysreg::{self, Encoding, Register, Trapped};
use crate::host::Here;
use crate::hwstate::{debug, lists, timers};
use crate::machine::Machine;
use crate::next::Next;
use crate::vcpu::{Counter, Vcpu};
use crate::vm::request;
use core::sync::atomic::Ordering;
use log::info;

/// Handles a trapped MRS or MSR.
#[inline(always)]
pub fn handle<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) -> Next {
    here.slot.count(Counter::SystemRegister);
    let iss = vcpu.registers.syndrome().iss();
    let Trapped { encoding, rt, is_read } = Trapped::decode(iss);
    // The ID space first: that is what is read in numbers.
    if let Some((crm, op2)) = sysreg::id_read(iss) {
        vcpu.registers.write(rt, here.host.facts.ids.get(crm, op2));
        vcpu.registers.step(4);
        return Next::Resume;
    }
    if is_read {
        let Some(value) = read(here, m, vcpu, encoding) else { return unknown(here, m, vcpu, encoding) };
        vcpu.registers.write(rt, value);
        vcpu.registers.step(4);
        return Next::Resume;
    }
    let value = vcpu.registers.read(rt);
    match write(here, m, vcpu, encoding, value) {
        Some(next) => {
            vcpu.registers.step(4);
            next
        }
        None => unknown(here, m, vcpu, encoding),
    }
}

#[cold]
fn unknown<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu, encoding: Encoding) -> Next {
    // A place of its own kind: no IPA has bit 63.
    if here.vm.logged.lock().is_new(1 << 63 | u64::from(encoding.bits())) {
        info!("{}: system register {encoding} at {:#x}: undefined", here.vm.name, vcpu.registers.pc);
    }
    deny(here, m, vcpu)
}

#[inline(never)]
fn read<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu, encoding: Encoding) -> Option<u64> {
    Some(match sysreg::decode(encoding)? {
        Register::CntpCtl => vcpu.cntp.control(m.now()),
        Register::CntpCval => vcpu.cntp.cval,
        Register::CntpTval => vcpu.cntp.tval(m.now()),
        Register::Cntpct => m.now(),
        Register::Mdscr => vcpu.debug.mdscr,
        // OSLM 0b10: the OS lock is implemented; OSLK its state (Arm ARM D24.3.27).
        Register::Oslsr => 0b1000 | u64::from(vcpu.debug.os_lock) << 1,
        Register::Osdlr => u64::from(vcpu.debug.double_lock),
        Register::Point => {
            let [_, _, _, n, op2] = encoding.parts();
            *vcpu.debug.point(&here.host.facts.ids, n, op2)?.0
        }
        // There are eight tags.
        Register::ClaimSet => 0xff,
        Register::ClaimClr => vcpu.debug.claims.into(),
        // NSNID, NSID: an external debugger is possible, but not let in.
        Register::AuthStatus => 0b1010,
        Register::Debug | Register::Actlr => 0,
        Register::SetWay | Register::Oslar | Register::Sgi1r | Register::Asgi1r | Register::Sgi0r | Register::Dir => {
            return None;
        }
        // ICC_SRE_EL1: SRE, DFB, DIB, all read-only one.
        Register::IccSre => 0b111,
    })
}

#[inline(never)]
fn write<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu, encoding: Encoding, value: u64) -> Option<Next> {
    match sysreg::decode(encoding)? {
        Register::Sgi1r => sgi(here, m, vcpu, SgiRegister::Sgi1r, value),
        Register::Asgi1r => sgi(here, m, vcpu, SgiRegister::Asgi1r, value),
        Register::Sgi0r => sgi(here, m, vcpu, SgiRegister::Sgi0r, value),
        Register::Dir => deactivate(here, m, vcpu, value),
        Register::CntpCtl => {
            vcpu.cntp.set_control(value);
            return Some(timer_changed(here, m, vcpu));
        }
        Register::CntpCval => {
            vcpu.cntp.cval = value;
            return Some(timer_changed(here, m, vcpu));
        }
        Register::CntpTval => {
            vcpu.cntp.set_tval(value, m.now());
            return Some(timer_changed(here, m, vcpu));
        }
        Register::Mdscr => vcpu.debug.mdscr = value & mdscr::ALL,
        Register::Oslar => vcpu.debug.os_lock = value & 1 != 0,
        Register::Osdlr => vcpu.debug.double_lock = value & 1 != 0,
        Register::Point => {
            let [_, _, _, n, op2] = encoding.parts();
            let (register, mask) = vcpu.debug.point(&here.host.facts.ids, n, op2)?;
            *register = value & mask;
        }
        // Eight tags.
        Register::ClaimSet => vcpu.debug.claims |= value as u8,
        Register::ClaimClr => vcpu.debug.claims &= !(value as u8),
        Register::SetWay => {
            if !cache::by_set_way(m, &here.vm.memory.lock(), vcpu, value) {
                // Not done: it is executed again.
                vcpu.registers.pc = vcpu.registers.pc.wrapping_sub(4);
            }
        }
        Register::Debug | Register::Actlr | Register::IccSre => return Some(Next::Resume),
        Register::Cntpct | Register::Oslsr | Register::AuthStatus => return None,
    }
    if encoding.parts()[0] == 2 {
        debug::load(m, vcpu);
    }
    Some(Next::Resume)
}

#[inline(always)]
fn sgi<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu, register: SgiRegister, value: u64) {
    let kicks = here.vm.vgic.lock().sgi1r(vcpu.id, register, value);
    if kicks.contains(vcpu.id) {
        here.slot.requests.fetch_or(request::REFILL, Ordering::Relaxed);
    }
    here.host.queue.kick(m, here.vm, kicks.without(vcpu.id));
}

/// ICC_DIR_EL1, which traps while an interrupt is active that found no list register.
fn deactivate<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu, value: u64) {
    let mut vgic = here.vm.vgic.lock();
    let mut kicks = lists::refresh(&mut vgic, vcpu, m);
    kicks |= vgic.deactivate(vcpu.id, value);
    drop(vgic);
    here.slot.requests.fetch_or(request::REFILL, Ordering::Relaxed);
    here.host.queue.kick(m, here.vm, kicks.without(vcpu.id));
}

/// Its emulated physical timer changed: the line follows, and the CPU's own deadline has to.
fn timer_changed<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) -> Next {
    let _ = timers::poll(here, m, vcpu);
    Next::Reschedule
}
