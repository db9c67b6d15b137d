//! Hypercalls: PSCI, SMCCC and TRNG, by HVC and SMC alike.

use super::raise::deny;
use crate::host::Here;
use crate::machine::Machine;
use crate::next::Next;
use crate::vcpu::{Counter, Vcpu};
use crate::vm::{psci, trng};

/// HVC: the guest goes on behind it by itself.
#[inline(always)]
pub fn hvc<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) -> Next {
    here.slot.count(Counter::Hypercall);
    // SMCCC is HVC #0 (DEN0028 2.9); others are nobody's.
    if vcpu.registers.esr & 0xffff != 0 {
        vcpu.registers.x[0] = u64::MAX;
        return Next::Resume;
    }
    answer(here, m, vcpu)
}

/// SMC: trapped before it executes, so it is stepped over.
pub fn smc<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) -> Next {
    here.slot.count(Counter::Hypercall);
    if vcpu.registers.esr & 0xffff != 0 {
        return deny(here, m, vcpu);
    }
    vcpu.registers.step(4);
    answer(here, m, vcpu)
}

#[inline(always)]
fn answer<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) -> Next {
    // The function id is W0.
    if let Some(value) = psci::fact((vcpu.registers.x[0] & 0xffff_ffff) as u32, vcpu.registers.x[1]) {
        vcpu.registers.x[0] = value.cast_unsigned();
        return Next::Resume;
    }
    if let Some(value) = psci::workaround(&here.host.facts.speculation, vcpu.registers.x[0] as u32, vcpu.registers.x[1])
    {
        vcpu.registers.x[0] = value.cast_unsigned();
        return Next::Resume;
    }
    if let Some(answer) = trng::answer(vcpu.registers.x[0] as u32, vcpu.registers.x[1], here.host.entropy.as_ref()) {
        for (x, value) in vcpu.registers.x.iter_mut().zip(answer) {
            *x = value;
        }
        return Next::Resume;
    }
    let outcome = psci::call(here.vm, vcpu);
    if let Some(x0) = outcome.x0 {
        vcpu.registers.x[0] = x0;
    }
    if !outcome.kicks.is_empty() {
        here.host.queue.start(m, here.vm, outcome.kicks);
    }
    outcome.next
}
