//! Which exits of a guest are its hypervisor's.

use crate::arm::esr::ec;
use crate::arm::sysreg::{Encoding, Trapped};
use crate::arm::trap::{self, Control, cptr, hcr, ich, mdcr};
use crate::hwstate::nested::traps::{cnthctl, cptr_el2, traps_fp};
use crate::machine::Machine;
use crate::vcpu::Common;
use crate::vcpu::nested::{Nested, Own, page};

/// Whether the exit of the guest that runs is its hypervisor's to handle.
pub fn belongs<M: Machine>(m: &M, vcpu: &Common, nested: &Nested) -> bool {
    let hcr = nested.hcr(m);
    let syndrome = vcpu.registers.syndrome();
    if hcr & hcr::TGE != 0 && !has_own_reason(syndrome.ec(), syndrome.iss()) {
        return true;
    }
    match syndrome.ec() {
        ec::HVC64 => hcr & hcr::HCD == 0,
        ec::SMC64 => hcr & hcr::TSC != 0,
        ec::WFX => hcr & if syndrome.iss() & 1 == 0 { hcr::TWI } else { hcr::TWE } != 0,
        ec::FP => traps_fp(m, nested),
        ec::ERET => hcr & hcr::NV != 0,
        // Debug exceptions, while they go to EL2.
        0x30..=0x3c => nested.own(m, Own::Mdcr) & mdcr::TDE != 0,
        ec::SYSREG => sysreg(m, nested, syndrome.iss()),
        _ => false,
    }
}

/// Whether an exception of EL0 comes to EL2 for another reason than HCR_EL2.TGE: it would where there is an EL1, too.
fn has_own_reason(class: u64, iss: u64) -> bool {
    match class {
        ec::WFX | ec::FP => true,
        // Counters and timers.
        ec::SYSREG => matches!(Encoding::from_iss(iss).parts(), [3, 3, 14, ..]),
        _ => false,
    }
}

/// Whether a trapped access, by its syndrome, is one that the hypervisor traps.
fn sysreg<M: Machine>(m: &M, nested: &Nested, iss: u64) -> bool {
    let Trapped { encoding, is_read, .. } = Trapped::decode(iss);
    let (value, mask) = match trap::control(encoding) {
        None => return false,
        Some(Control::Hcr(bit)) => (nested.hcr(m), 1 << bit),
        Some(Control::Memory) => (nested.hcr(m), if is_read { hcr::TRVM } else { hcr::TVM }),
        Some(Control::Sgi) => (nested.hcr(m), hcr::IMO | hcr::FMO),
        Some(Control::Mdcr(bit)) => (nested.own(m, Own::Mdcr), 1 << bit | mdcr::TDE),
        Some(Control::Tcpac) => (cptr_el2(m, nested), cptr::TCPAC),
        Some(Control::Ich(bit)) => (nested.read(m, page::ICH_HCR), 1 << bit),
        Some(Control::Dir) => (nested.read(m, page::ICH_HCR), u64::from(ich::TDIR | ich::TC)),
        Some(Control::CnthctlClear(bit)) => (!cnthctl(m, nested), 1 << bit),
    };
    value & mask != 0
}
