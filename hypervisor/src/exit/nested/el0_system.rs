//! System registers and instructions of a virtual EL2 at EL0 that with FEAT_NV2 do not trap: the guest's registers, which are in the page as
//! there, and its own, EL2's stack pointers, what EL1 has and EL0 has not; and its own translation regime, which is a shadow here.
//! [`super::el2`] has the others, which trap in both.

use crate::arm::a64;
use crate::arm::el1::El1;
use crate::arm::esr::Access;
use crate::arm::exception::psr;
use crate::arm::gic::Version;
use crate::arm::idreg::field::{self, isar0};
use crate::arm::sysreg::{Encoding, Trapped};
use crate::arm::tlbi;
use crate::arm::vncr::{self, Slot, Write};
use crate::exit::raise::nested_deny;
use crate::host::Here;
use crate::hwstate::nested::{interfaces, lists, regime};
use crate::machine::Machine;
use crate::memory::nested_walk::{NestedFault, Reason, Wrong};
use crate::next::Next;
use crate::vcpu::Common;
use crate::vcpu::el0;
use crate::vcpu::nested::{Nested, Own, page};
use crate::vm::request;
use core::sync::atomic::Ordering;

/// Where a register is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Place {
    /// In the page, and that is all.
    Page(u16),
    /// The same, and it cannot be written.
    PageToRead(u16),
    /// SCTLR_EL2, TCR_EL2, TTBR0_EL2: with it, its shadow may be another.
    Regime(Own),
    /// HCR_EL2, which is in the page.
    Hcr,
    /// Of ICH, which are there: the maintenance interrupt follows.
    Ich(u16),
    /// In the page, as the CPU would keep it.
    Csselr,
    /// On the CPU, where EL0 reads it.
    TpidrroEl0,
    SpEl0,
    SpSel,
    /// ISR_EL1.
    Isr,
    Clidr,
    Ccsidr,
}

impl Place {
    /// Whether MSR of it is UNDEFINED.
    const fn is_read_only(self) -> bool {
        matches!(self, Self::PageToRead(_) | Self::Isr | Self::Clidr | Self::Ccsidr)
    }
}

fn place(encoding: Encoding, version: Version) -> Option<Place> {
    Some(match encoding.parts() {
        // MSR SPSel, #imm: op1, CRn and op2 say that it is this.
        [0, 0, 4, _, 5] => Place::SpSel,
        // AIDR_EL1.
        [3, 1, 0, 0, 7] => Place::PageToRead(page::ZERO as u16),
        [3, 0, 4, 1, 0] => Place::SpEl0,
        [3, 0, 4, 2, 0] => Place::SpSel,
        [3, 0, 12, 1, 0] => Place::Isr,
        [3, 1, 0, 0, 0] => Place::Ccsidr,
        [3, 1, 0, 0, 1] => Place::Clidr,
        [3, 2, 0, 0, 0] => Place::Csselr,
        [3, 3, 13, 0, 3] => Place::TpidrroEl0,
        [3, 4, 1, 0, 0] => Place::Regime(Own::Sctlr),
        [3, 4, 1, 1, 0] => Place::Hcr,
        // MDCR_EL2, CPTR_EL2, MAIR_EL2: more follows from them, as with FEAT_NV2.
        [3, 4, 1, 1, 1 | 2] | [3, 4, 10, 2, 0] => return None,
        [3, 4, 2, 0, 0] => Place::Regime(Own::Ttbr0),
        [3, 4, 2, 0, 2] => Place::Regime(Own::Tcr),
        parts => {
            let Slot { offset, write } = vncr::slot(encoding, version)?;
            match parts {
                [_, 4, 12, 8..=15, _] => Place::Ich(offset),
                _ if write != Write::Page => Place::PageToRead(offset),
                _ => Place::Page(offset),
            }
        }
    })
}

/// Where the register of an access is, if it is here: what may be read alone is UNDEFINED otherwise, and so is what a GICv2 has in memory.
#[inline(always)]
fn find(access: Trapped, version: Version) -> Option<Place> {
    place(access.encoding, version).filter(|place| access.is_read || !place.is_read_only())
}

/// The access that the instruction `word` is, if it is to a register that is here, and where that is.
#[inline(always)]
pub fn register(word: u32, version: Version) -> Option<(Trapped, Place)> {
    let access = a64::access(word)?;
    Some((access, find(access, version)?))
}

/// Does an access to a register.
#[inline(always)]
pub fn access<M: Machine>(
    here: Here<'_>,
    m: &M,
    vcpu: &mut Common,
    nested: &mut Nested,
    access: Trapped,
    place: Place,
) {
    let Trapped { encoding, rt, is_read } = access;
    if is_read {
        let value = read(here, m, vcpu, nested, place);
        vcpu.registers.write(rt, value);
    } else {
        let [op0, _, _, crm, _] = encoding.parts();
        // MSR of an immediate has it in CRm.
        let value = if op0 == 0 { crm.into() } else { vcpu.registers.read(rt) };
        write(here, m, vcpu, nested, place, value);
    }
}

/// Does what the instruction of the syndrome does; nothing where it is none of these.
pub fn syndrome<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) -> Option<Next> {
    let trapped = Trapped::decode(vcpu.registers.syndrome().iss());
    let [op0, op1, crn, crm, op2] = trapped.encoding.parts();
    let level = field::read(here.host.facts.el0_ids.get(6, 0), isar0::TLB);
    if is_absent(trapped, nested.version, level) {
        return Some(nested_deny(here, m, vcpu, nested));
    }
    if op0 == 1 && !trapped.is_read {
        let value = vcpu.registers.read(trapped.rt);
        if !instruction(here, m, nested, [op1, crn, crm, op2], value) {
            return None;
        }
    } else {
        let place = find(trapped, nested.version)?;
        access(here, m, vcpu, nested, trapped, place);
    }
    vcpu.registers.step(4);
    Some(Next::Resume)
}

/// Whether an access is UNDEFINED at such an EL2, of those that [`super::el2`] or who comes behind it would do: they rely on a CPU that
/// traps what there is and no more. `level` is ID_AA64ISAR0_EL1.TLB.
fn is_absent(access: Trapped, version: Version, level: u64) -> bool {
    match access.encoding.parts() {
        [1, op1, 8, crm, op2] => !tlbi::exists(op1, crm, op2, level),
        // FEAT_XS; AT with PSTATE.PAN.
        [1, _, 9, ..] | [1, 0, 7, 9, _] => true,
        // MDRAR_EL1, MDCCSR_EL0.
        [2, 0, 1, 0, 0] | [2, 3, 0, 1, 0] => !access.is_read,
        // Beside MIDR_EL1, MPIDR_EL1 and REVIDR_EL1.
        [3, 0, 0, 0, op2] => !matches!(op2, 0 | 5 | 6),
        // VHE: TTBR1_EL2, CONTEXTIDR_EL2, CNTHV.
        [3, 4, 2, 0, 1] | [3, 4, 13, 0, 1] | [3, 4, 14, 3, _] => true,
        // ICC, ICH.
        [3, 0 | 4, 12, 8..=13, _] | [3, 0, 4, 6, 0] => version == Version::V2,
        _ => false,
    }
}

fn read<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested, place: Place) -> u64 {
    match place {
        Place::Regime(own) => nested.own(m, own),
        Place::Page(offset) | Place::PageToRead(offset) | Place::Ich(offset) => nested.read(m, offset.into()),
        Place::Hcr => nested.hcr(m),
        Place::Csselr => nested.read(m, page::CSSELR),
        Place::TpidrroEl0 => m.get(El1::TpidrroEl0),
        Place::SpEl0 => nested.sp_el0(m),
        Place::SpSel => nested.uses_own_stack().into(),
        Place::Isr => {
            if interfaces::is_due(here, m, vcpu, nested) {
                psr::I
            } else {
                0
            }
        }
        Place::Clidr => m.caches()[0],
        Place::Ccsidr => {
            m.set(El1::Csselr, nested.read(m, page::CSSELR));
            m.caches()[1]
        }
    }
}

fn write<M: Machine>(here: Here<'_>, m: &M, vcpu: &Common, nested: &mut Nested, place: Place, value: u64) {
    match place {
        Place::Regime(own) => {
            el0::write_own(nested, m, own, value);
            m.set(El1::Ttbr0, regime::enter(here, m, vcpu.id, nested));
        }
        Place::Page(offset) => nested.write(m, offset.into(), value),
        Place::Hcr => {
            nested.write_hcr(m, value);
        }
        Place::Ich(offset) => {
            nested.write(m, offset.into(), value);
            if lists::changes_maintenance(nested, m) {
                here.slot.requests.fetch_or(request::REFILL, Ordering::Relaxed);
            }
        }
        Place::Csselr => {
            m.set(El1::Csselr, value);
            nested.write(m, page::CSSELR, m.get(El1::Csselr));
        }
        Place::TpidrroEl0 => m.set(El1::TpidrroEl0, value),
        Place::SpEl0 => nested.set_sp_el0(m, value),
        Place::SpSel => nested.select_stack(m, value & 1 != 0),
        Place::PageToRead(_) | Place::Isr | Place::Clidr | Place::Ccsidr => {}
    }
}

/// A SYS instruction, by op1, CRn, CRm and op2. False where it is none that is done here.
fn instruction<M: Machine>(here: Here<'_>, m: &M, nested: &Nested, [op1, crn, crm, op2]: [u16; 4], value: u64) -> bool {
    match (op1, crn, crm, op2) {
        // TLBI VAE2, VALE2, ALLE2 and their ranges: not of IPAs, nor of EL1.
        (4, 8 | 9, 1..=3 | 5..=7, op2) if !matches!(op2, 4 | 6) => regime::forget(here, m, crm, op2, value),
        // AT S1E2R, S1E2W.
        (4, 7, 8, 0 | 1) => {
            let access = if op2 == 0 { Access::Read } else { Access::Write };
            nested.set_par(m, probe(here, m, nested, value, access));
        }
        // IC IALLUIS, IALLU.
        (0, 7, 1 | 5, 0) => m.invalidate_instructions(),
        // DC IVAC, for which cleaning is allowed as well (Arm ARM D7.5.9).
        (0, 7, 6, 1) => {
            if let Ok(leaf) = regime::walk(here, m, nested, value) {
                here.vm.memory.lock().clean_line(m, leaf.ipa);
            }
        }
        _ => return false,
    }
    true
}

/// PAR_EL1 for an address, by its own tables (Arm ARM D24.2.147).
fn probe<M: Machine>(here: Here<'_>, m: &M, nested: &Nested, va: u64, access: Access) -> u64 {
    /// RES1.
    const ONE: u64 = 1 << 11;
    let failed = |fault: NestedFault| 1 | fault.status() << 1 | ONE;
    match regime::walk(here, m, nested, va) {
        Ok(leaf) if leaf.allows(access) => {
            let kinds = nested.own(m, Own::Mair).to_le_bytes();
            let kind = kinds.get(usize::from(leaf.memory)).copied().unwrap_or(0);
            u64::from(kind) << 56 | leaf.ipa.bits() & !0xfff | ONE | u64::from(leaf.shareability) << 7
        }
        Ok(leaf) => failed(NestedFault { wrong: Wrong::Permission, level: leaf.level }),
        Err(Reason::Fault(fault)) => failed(fault),
        // As if there were none. Who asks asks again.
        Err(Reason::Miss(_)) => failed(NestedFault { wrong: Wrong::Translation, level: 0 }),
    }
}
