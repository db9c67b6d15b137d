//! The guest's memory: its stage-2 faults, and its hypervisor's TLB maintenance.

use super::outcome::{Outcome, to_hypervisor};
use crate::addr::{Addr, Ipa2};
use crate::arm::desc::MemType;
use crate::arm::esr::Abort;
use crate::arm::exception::Kind;
use crate::devices::flash_at;
use crate::exit::abort;
use crate::host::Here;
use crate::hwstate::nested::{shadow::key, transition};
use crate::machine::Machine;
use crate::memory::Miss;
use crate::memory::nested_walk::{NestedFault, NestedLeaf, Reason, Wrong};
use crate::memory::shadow::Fill;
use crate::next::{Cause, Next};
use crate::vcpu::nested::{Nested, hcr};
use crate::vcpu::{Common, Counter};

/// HPFAR_EL2.FIPA, and the IPA's bits that it holds.
const FIPA: u64 = 0xfff_ffff_fff0;
/// ISS of an abort: the fault status code.
const STATUS: u64 = 0x3f;

/// A stage-2 abort of the guest. It is handled as any other where its memory is its hypervisor's own.
pub fn guest<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) -> Outcome {
    let abort = Abort::decode(vcpu.registers.syndrome());
    let has_stage2 = nested.guest().is_some_and(|guest| guest.shadow.is_some());
    if !abort.fault.is_of_stage2() && (has_stage2 || nested.hcr(m) & hcr::TGE != 0) {
        // The bus's refusal: what the hypervisor mapped there is the hypervisor's to know. Or, with TGE, an abort that has
        // nothing to do with stage 2.
        return to_hypervisor(here, m, vcpu, nested);
    }
    if !has_stage2 {
        return Outcome::Common;
    }
    here.slot.count(Counter::Memory);
    let Some(at) = abort::place(m, vcpu, abort) else { return Outcome::Done(Next::Resume) };
    let at: Addr<Ipa2> = Addr::new(at.bits());
    let access = abort.needs();
    let key = key(nested, m);
    let no_device = abort.walk && nested.hcr(m) & hcr::PTW != 0;
    let device = if no_device { device(&here.vm.memory.lock().walk_nested(m, &here.host.pool, key, at)) } else { None };
    let result = match device {
        Some(fault) => Err(Fill::Fault(fault)),
        // What is long is done in parts, the lock let go between them.
        None => loop {
            match here.vm.memory.lock().fill(m, &here.host.pool, key, at, access) {
                Err(Fill::Miss(Miss::Again)) if !m.is_interrupt_pending() => {}
                result => break result,
            }
        },
    };
    Outcome::Done(match result {
        Ok(()) | Err(Fill::Miss(Miss::Again)) => Next::Resume,
        Err(Fill::Fault(fault)) => {
            let esr = vcpu.registers.esr & !STATUS | fault.status();
            vcpu.registers.hpfar = at.bits() >> 8 & FIPA;
            transition::exception(here, m, vcpu, nested, Kind::Sync, Some(esr));
            Next::Resume
        }
        // Flash is for who starts in it.
        Err(Fill::Device(ipa)) if flash_at(ipa).is_some() => return Outcome::Nothing(Addr::new(at.bits())),
        Err(Fill::Device(ipa)) => {
            // A device of ours, or nothing: as if the hypervisor itself had come there, without a translation.
            vcpu.registers.hpfar = ipa.bits() >> 8 & FIPA;
            vcpu.registers.esr = vcpu.registers.esr & !STATUS | 0b0111;
            return Outcome::Common;
        }
        Err(Fill::Miss(Miss::Short)) => here.host.starve(m, here.vm),
        Err(Fill::Miss(Miss::Lost)) => {
            Next::Stop(Cause::Crash("a page of its memory could not be brought back as it was"))
        }
        Err(Fill::Miss(_)) => return Outcome::Nothing(Addr::new(at.bits())),
    })
}

/// The fault of a walk that finds Device memory where it must not (HCR_EL2.PTW).
fn device(found: &Result<NestedLeaf, Reason>) -> Option<NestedFault> {
    let nested = found.as_ref().ok().filter(|nested| nested.leaf.attr.mem == MemType::Device)?;
    Some(NestedFault { wrong: Wrong::Permission, level: nested.level })
}
