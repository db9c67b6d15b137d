//! The guest's memory, as its hypervisor asks for it: what the guest is entered by, TLB maintenance, address translation.

use crate::addr::{Addr, Ipa2, Pa, VcpuId};
use crate::arm::el1::El1;
use crate::arm::esr::Access;
use crate::arm::sysreg::Encoding;
use crate::arm::tlbi;
use crate::host::Here;
use crate::machine::{Machine, Whose, output};
use crate::memory::Root;
use crate::memory::nested_walk::{Key, NestedFault, Reason, Wrong};
use crate::memory::shadow::{Fill, Scope};
use crate::memory::stage1::{self, Regime};
use crate::next::Next;
use crate::vcpu::nested::{Nested, hcr, page};

/// By what the guest's memory is found.
#[inline(always)]
pub fn key<M: Machine>(nested: &Nested, m: &M) -> Key {
    Key { vttbr: nested.read(m, page::VTTBR), vtcr: nested.read(m, page::VTCR) }
}

/// What the guest's memory is entered by; nothing where its hypervisor has no stage 2 for it. The error is what to do
/// until there is memory for it.
pub fn shadow<M: Machine>(here: Here<'_>, m: &M, nested: &Nested) -> Result<Option<Root>, Next> {
    if !nested.has_stage2(m) {
        return Ok(None);
    }
    let result = here.vm.memory.lock().shadow(m, &here.host.pool, key(nested, m));
    match result {
        Ok(root) => Ok(Some(root)),
        Err(_) => Err(here.host.starve(m, here.vm)),
    }
}

/// The frame of the page that the hypervisor's VNCR_EL2 names, if it lets its guest have an EL2 by it. It stays where it is
/// until the vCPU names another.
pub fn guests_page<M: Machine>(here: Here<'_>, m: &M, nested: &Nested, vcpu: VcpuId) -> Option<Addr<Pa>> {
    const BOTH: u64 = hcr::NV | hcr::NV2;
    if nested.hcr(m) & BOTH != BOTH {
        return None;
    }
    // An address of the hypervisor's own EL2, 4 KiB aligned.
    let va = nested.read(m, page::VNCR) & !0xfff;
    let ipa = output(m.probe(va, Access::Write, Whose::El1), va)?;
    here.vm.memory.lock().pin(m, &here.host.pool, vcpu, ipa)
}

/// TLBI, by its encoding.
pub fn forget<M: Machine>(here: Here<'_>, m: &M, nested: &Nested, encoding: Encoding, value: u64) {
    let [_, op1, _, crm, op2] = encoding.parts();
    let vmid = key(nested, m).vmid();
    let mut memory = here.vm.memory.lock();
    match (op1, crm, op2) {
        // IPAS2E1, IPAS2LE1 and their ranges, inner shareable, outer shareable and local.
        (4, 0 | 4, _) => {
            memory.outer_forget(m, ipas2(vmid, crm, op2, value));
        }
        // VMALLS12E1, ALLE1.
        (4, 1 | 3 | 7, 6) => memory.outer_forget(m, Scope::Vmid(vmid)),
        (4, 1 | 3 | 7, 4) => {
            memory.outer_forget(m, Scope::All);
            here.vm.root.forget(m);
        }
        // EL2's own, by address or all: its translations have our VMID.
        (4, ..) => here.vm.root.forget(m),
        _ if nested.is_host(m) || !nested.has_stage2(m) => here.vm.root.forget(m),
        // Stage 1 of the guest.
        _ => memory.forget_stage1(m, vmid),
    }
}

/// What a TLBI by IPA is for.
fn ipas2(vmid: u16, crm: u16, op2: u16, value: u64) -> Scope {
    let is_range = matches!((crm, op2), (0, 2 | 6) | (4, 2 | 3 | 6 | 7));
    if !is_range {
        return Scope::Range(vmid, Addr::new(tlbi::ipa(value)), 4096);
    }
    let (from, bytes) = tlbi::range(value);
    Scope::Range(vmid, Addr::new(from), bytes)
}

/// AT S12E1x: the second stage for a first that has answered `par`. PAR_EL1 in the end.
pub fn probe_outer<M: Machine>(here: Here<'_>, m: &M, nested: &Nested, par: u64, access: Access) -> u64 {
    if !nested.has_stage2(m) {
        return par;
    }
    let at = Addr::new(par & 0x000f_ffff_ffff_f000);
    match here.vm.memory.lock().nested_ipa(m, &here.host.pool, key(nested, m), at, access) {
        Ok((_, ipa)) => par & !0x000f_ffff_ffff_f000 | ipa.bits() & 0x000f_ffff_ffff_f000,
        Err(Reason::Fault(fault)) => failed(fault),
        Err(Reason::Miss(_)) => failed(NOT_NOW),
    }
}

/// What is said of a table that is not to be had just now: as if there were none. Who asks asks again.
const NOT_NOW: NestedFault = NestedFault { wrong: Wrong::Translation, level: 0 };

/// PAR_EL1 for a fault of the hypervisor's stage 2: F, S, FST.
const fn failed(fault: NestedFault) -> u64 {
    1 | 1 << 9 | 1 << 11 | fault.status() << 1
}

/// Has the shadow map the tables of the guest's stage 1 on the way to `va`, for an AT of its hypervisor's. The guest's registers
/// are those in [`Nested::guest_el1`]. The error is what PAR_EL1 says of a table that the hypervisor has not mapped.
pub fn prefill<M: Machine>(here: Here<'_>, m: &M, nested: &Nested, va: u64) -> Result<(), u64> {
    /// PAR_EL1.PTW: on a walk of stage 1.
    const PTW: u64 = 1 << 8;
    let key = key(nested, m);
    let guest = &nested.guest_el1;
    let regime = Regime {
        ttbr0: guest.get(El1::Ttbr0),
        ttbr1: guest.get(El1::Ttbr1),
        tcr: guest.get(El1::Tcr),
        sctlr: guest.get(El1::Sctlr),
    };
    let mut memory = here.vm.memory.lock();
    let mut result = Ok(());
    let _ = stage1::walk(&regime, Addr::new(va), |table| {
        let pool = &here.host.pool;
        let at: Addr<Ipa2> = Addr::new(table.bits());
        let mut word = [0; 8];
        // Read first: what was never touched has a page by then, which is not long.
        let word_at = memory.nested_ipa(m, pool, key, at, Access::Read).ok();
        let _ = word_at.map(|(_, ipa)| memory.read(m, pool, ipa, &mut word));
        let read = match memory.fill(m, pool, key, at, Access::Read) {
            Ok(()) => word_at,
            Err(Fill::Fault(fault)) => {
                result = Err(failed(fault) | PTW);
                None
            }
            Err(_) => {
                result = Err(failed(NOT_NOW) | PTW);
                None
            }
        };
        let (_, ipa) = read?;
        memory.read(m, pool, ipa, &mut word).ok()?;
        Some(u64::from_le_bytes(word))
    });
    result
}
