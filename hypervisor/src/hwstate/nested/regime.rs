//! The translation regime of a virtual EL2 at EL0: which shadow of its stage 1 it is in, and its TLB maintenance.

use crate::addr::{Addr, VcpuId};
use crate::arm::el1::El1;
use crate::arm::esr::Access;
use crate::arm::exception::psr;
use crate::arm::idreg::field::{self, mmfr1};
use crate::arm::tlbi;
use crate::host::Here;
use crate::machine::Machine;
use crate::memory::el2_walk::{El2Leaf, El2Regime};
use crate::memory::nested_walk::{NestedFault, Reason, Wrong};
use crate::vcpu::Common;
use crate::vcpu::nested::{Nested, Own};

/// What its stage 1 is by its registers.
pub fn regime<M: Machine>(here: Here<'_>, m: &M, nested: &Nested) -> El2Regime {
    let facts = &here.host.facts;
    let [ttbr0, tcr, sctlr] = [Own::Ttbr0, Own::Tcr, Own::Sctlr].map(|own| nested.own(m, own));
    let has_hpds = field::read(facts.ids.get(7, 1), mmfr1::HPDS) != 0;
    El2Regime { ttbr0, tcr, sctlr, pa_bits: facts.pa_range.of_guests().bits(), has_hpds }
}

/// What TTBR0_EL1 is for `vcpu` with the registers it has by now.
pub fn enter<M: Machine>(here: Here<'_>, m: &M, vcpu: VcpuId, nested: &Nested) -> u64 {
    let regime = regime(here, m, nested);
    // It has one root more than vCPUs.
    here.vm.el2_shadows.as_ref().and_then(|shadows| shadows.lock().enter(m, vcpu, &regime)).unwrap_or(0)
}

/// Lets a vCPU that is reset begin in the shadow for its MMU off, and at EL0 if its EL2 runs there.
pub fn start<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) {
    if nested.el0().is_some() {
        vcpu.saved.set(El1::Ttbr0, enter(here, m, vcpu.id, nested));
        vcpu.registers.pstate = vcpu.registers.pstate & !psr::MODE | psr::EL0T;
    }
}

/// Adds what is missing for an access to `va`. The error is why there is nothing.
pub fn fill<M: Machine>(here: Here<'_>, m: &M, vcpu: VcpuId, va: u64, access: Access) -> Result<(), Reason> {
    let Some(shadows) = &here.vm.el2_shadows else {
        return Err(Reason::Fault(NestedFault { wrong: Wrong::Translation, level: 0 }));
    };
    let mut shadows = shadows.lock();
    shadows.fill(m, &here.host.pool, &mut here.vm.memory.lock(), vcpu, va, access)
}

/// Where `va` leads by its own tables.
pub fn walk<M: Machine>(here: Here<'_>, m: &M, nested: &Nested, va: u64) -> Result<El2Leaf, Reason> {
    let regime = regime(here, m, nested);
    here.vm.memory.lock().walk_el2(m, &here.host.pool, &regime, Addr::new(va))
}

/// TLBI of EL2's own translations, by CRm and op2.
pub fn forget<M: Machine>(here: Here<'_>, m: &M, crm: u16, op2: u16, value: u64) {
    let Some(shadows) = &here.vm.el2_shadows else { return };
    let range = match (crm, op2) {
        // VAE2, VALE2: inner shareable, outer shareable and local.
        (1 | 3 | 7, 1 | 5) => Some((tlbi::va(value), 4096)),
        // RVAE2, RVALE2.
        (2 | 5 | 6, 1 | 5) => Some(tlbi::range(value)),
        _ => None,
    };
    shadows.lock().forget(m, range);
}
