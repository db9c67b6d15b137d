//! Stage-2 aborts: memory touched for the first time, devices, and what is neither.

use super::gic;
use super::raise::raise;
use crate::addr::{Addr, Ipa};
use crate::arm::el1::El1;
use crate::arm::esr::{Abort, Access, Transfer};
use crate::arm::exception::psr;
use crate::devices::{self, Region};
use crate::host::Here;
use crate::host::flash::Answer;
use crate::machine::Machine;
use crate::memory::Miss;
use crate::next::{Cause, Next};
use crate::vcpu::{self, Common, Counter, Streak, Vcpu};
use aarch64_cpu::registers::SCTLR_EL1;
use core::sync::atomic::Ordering;
use log::info;

/// A load or store.
#[inline]
pub fn data<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) -> Next {
    let syndrome = vcpu.registers.syndrome();
    if let Some((ipa, access, transfer)) = Transfer::at_hole(syndrome)
        && let Some((region, offset)) = devices::at(ipa)
    {
        here.slot.count(Counter::Mmio);
        return device(here, m, vcpu, region, offset, Touch { ipa, access, transfer });
    }
    // Pairs, exclusives and write-back forms have no syndrome, and no driver uses them on a device: what lies below RAM is
    // refused to them as if nothing were there.
    memory(here, m, vcpu, Abort::decode(syndrome))
}

/// An instruction fetch.
pub fn fetch<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) -> Next {
    let abort = Abort::decode(vcpu.registers.syndrome());
    memory(here, m, vcpu, abort)
}

/// RAM, or nothing.
fn memory<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu, abort: Abort) -> Next {
    here.slot.count(Counter::Memory);
    if !abort.fault.is_of_stage2() {
        // The board's bus refused what we mapped, or a fault that stage 2 cannot have: the guest gets to know.
        let ipa = abort.ipa.unwrap_or(Addr::new(0));
        return refuse(here, m, vcpu, abort.access, ipa, "an abort from the board");
    }
    let place = place(m, vcpu, abort);
    let access = abort.needs();
    if vcpu.past_at.is_multiple_of(SELDOM) && gets_nowhere(here, m, vcpu, place, access) {
        return Next::Stop(Cause::Crash("an access of it faults for ever, though its memory allows it"));
    }
    let Some(ipa) = place else { return Next::Resume };
    if let Some((bank, offset)) = devices::flash_at(ipa) {
        return flash(here, m, vcpu, abort, (ipa, bank, offset));
    }
    if here.vm.blocked.load(Ordering::Relaxed) {
        // It has more than it should, and there is next to nothing left: it does not get more until that changes.
        return Next::WaitForMemory;
    }
    // What is long is done in parts, the lock let go between them.
    let result = loop {
        match here.vm.memory.lock().resolve(m, &here.host.pool, ipa, access) {
            Err(Miss::Again) if !m.is_interrupt_pending() => {}
            result => break result,
        }
    };
    match result {
        // Whoever interrupts comes first; then it touches it again.
        Ok(_) | Err(Miss::Again) => Next::Resume,
        Err(Miss::Short) => here.host.starve(m, here.vm),
        Err(Miss::Lost) => Next::Stop(Cause::Crash("a page of its memory could not be brought back as it was")),
        Err(Miss::NotRam) => refuse(here, m, vcpu, abort.access, ipa, "nothing is there"),
        Err(Miss::Denied) => refuse(here, m, vcpu, abort.access, ipa, "the access is not allowed there"),
    }
}

/// Where an abort is. A permission fault that is not on a walk does not say (HPFAR_EL2): the guest's own tables do.
///
/// Nothing where they do not map the address any more, as it is in the TLB alone, or did not when the fault came (which a
/// Cortex-A57 reports as ours, erratum 834220): what is in the TLB is dropped, so that the guest, which tries again, walks and
/// gets on or has a fault of its own. It would not by itself while the TLB holds what it held.
#[inline]
pub fn place<M: Machine>(m: &M, vcpu: &Common, abort: Abort) -> Option<Addr<Ipa>> {
    let place = abort.ipa.or_else(|| m.translate(vcpu.registers.far));
    if place.is_none() {
        m.forget_stage1();
    }
    place
}

/// One in how many exits is looked at for going round in a circle.
const SELDOM: usize = 64;

/// Whether exits have been the same for long and there was nothing to do about any of them: the CPU and we disagree on what the
/// guest may do, and would for ever.
#[cold]
fn gets_nowhere<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu, place: Option<Addr<Ipa>>, access: Access) -> bool {
    let is_same = vcpu.past.iter().all(|past| *past == vcpu.past[0]);
    let stuck = is_same && place.is_none_or(|ipa| here.vm.memory.lock().allows(m, ipa, access));
    vcpu.fault_loop.goes_on(stuck)
}

/// An access of the loaded vCPU's guest where its hypervisor has nothing either.
pub fn nothing_at<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu, ipa: Addr<Ipa>) -> Next {
    let access = Abort::decode(vcpu.registers.syndrome()).access;
    refuse(here, m, vcpu, access, ipa, "nothing is there for a guest of its guest")
}

/// An access to flash that is not a read of mapped memory.
#[cold]
fn flash<M: Machine>(
    here: Here<'_>,
    m: &M,
    vcpu: &mut Vcpu,
    abort: Abort,
    (ipa, bank, offset): (Addr<Ipa>, usize, u64),
) -> Next {
    let access = abort.needs();
    let transfer = if abort.walk { None } else { Transfer::decode(vcpu.registers.syndrome()) };
    let mut value = 0;
    if access == Access::Write
        && let Some(transfer) = transfer
    {
        value = stored(m, vcpu, transfer);
    }
    match here.host.flash(m, here.vm, (ipa, bank, offset), access, transfer.map(|transfer| transfer.bytes), value) {
        Answer::Mapped => return Next::Resume,
        Answer::Short => return here.host.starve(m, here.vm),
        Answer::Refused => return refuse(here, m, vcpu, abort.access, ipa, "flash does not answer to that"),
        Answer::Done(read) => {
            if access == Access::Read
                && let Some(transfer) = transfer
            {
                load(m, vcpu, transfer, read);
            }
        }
    }
    vcpu.registers.step(4);
    Next::Resume
}

/// Answers as a bus would: with an external abort, told once per place.
fn refuse<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu, access: Access, ipa: Addr<Ipa>, why: &str) -> Next {
    let pc = vcpu.registers.pc;
    if access != Access::Execute && vcpu.registers.syndrome().is_cache_maintenance() {
        // No cache holds what is not there.
        vcpu.registers.step(4);
        return Next::Resume;
    }
    if here.vm.logged.lock().is_new(ipa.bits() & !0xfff | access as u64) {
        info!("{}: {access:?} of IPA {ipa} at {pc:#x}: {why}", here.vm.name);
    }
    // On a fault in the walk of its tables, this is "external abort on translation table walk" at an unknown level; the
    // plain one says as much to software.
    let esr = vcpu::external_abort(vcpu, access);
    let far = vcpu.registers.far;
    let next = raise(here, m, vcpu, esr, Some(far));
    if access == Access::Execute {
        return next;
    }
    vcpu.vector_loop = Streak::default();
    Next::Resume
}

/// A load or store of a register, and where it went.
#[derive(Clone, Copy)]
struct Touch {
    ipa: Addr<Ipa>,
    access: Access,
    transfer: Transfer,
}

#[inline(always)]
fn device<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu, region: Region, offset: u64, touch: Touch) -> Next {
    let Touch { ipa, access, transfer } = touch;
    let bytes = transfer.bytes;
    let done = if access == Access::Write {
        let value = stored(m, vcpu, transfer);
        match here.vm.bus.port(region) {
            None => gic::write(here, m, vcpu, region, offset, bytes, value),
            Some(port) => {
                here.host.write(m, here, port, (offset, bytes), value);
                Some(())
            }
        }
    } else {
        let value = match here.vm.bus.port(region) {
            None => gic::read(here, m, vcpu, region, offset, bytes),
            Some(port) => Some(here.host.read(m, here, port, (offset, bytes))),
        };
        value.map(|value| load(m, vcpu, transfer, value))
    };
    if done.is_none() {
        return refuse(here, m, vcpu, access, ipa, "no device is there");
    }
    vcpu.registers.step(4);
    Next::Resume
}

/// What a store puts on the bus. A big-endian guest's arrives with its bytes as the register has them.
#[inline(always)]
fn stored<M: Machine>(m: &M, vcpu: &Vcpu, transfer: Transfer) -> u64 {
    let mut value = vcpu.registers.read(transfer.register);
    if transfer.bytes < 8 {
        value &= (1 << (u32::from(transfer.bytes) * 8)) - 1;
    }
    if big_endian(m, vcpu) { swap(value, transfer.bytes) } else { value }
}

/// Finishes a load that found `value` on the bus.
#[inline(always)]
fn load<M: Machine>(m: &M, vcpu: &mut Vcpu, transfer: Transfer, value: u64) {
    let value = if big_endian(m, vcpu) { swap(value, transfer.bytes) } else { value };
    vcpu.registers.write(transfer.register, transfer.extend(value));
}

/// SCTLR_EL1.EE for EL1, E0E for EL0.
#[inline(always)]
fn big_endian<M: Machine>(m: &M, vcpu: &Vcpu) -> bool {
    let sctlr = m.get(El1::Sctlr);
    // Hardly any is.
    if !(SCTLR_EL1::E0E.is_set(sctlr) || SCTLR_EL1::EE.is_set(sctlr)) {
        return false;
    }
    let of_level = if vcpu.registers.pstate & psr::MODE == psr::EL0T { SCTLR_EL1::E0E } else { SCTLR_EL1::EE };
    of_level.is_set(sctlr)
}

fn swap(value: u64, bytes: u8) -> u64 {
    value.swap_bytes() >> (64 - u32::from(bytes.clamp(1, 8)) * 8)
}
