//! Virtual EL2 on a CPU with FEAT_NV2: what the hardware does for it, and where its registers are (Arm ARM D8.11).
//!
//! It runs at EL1. What its EL2 has in common with EL1 is EL1's on the CPU while it runs: by the same layout with E2H, and else as
//! [`Nested::as_el1`] has it. Its guest's EL1 registers are in the page that VNCR_EL2 names. Its ERET traps, as does whatever of EL2 is neither.
//!
//! Who else handles a vCPU with an EL2 asks for its registers by what they are ([`super::backend`]), and relies on none of this.

use super::Traps;
use super::nested::{Nested, Own, hcr, page, share};
use super::timer::Timer;
use crate::arm::el1::El1;
use crate::arm::exception;
use crate::arm::trap::cptr;
use crate::arm::vmsa::TCR_EL2_HPD;
use crate::arm::vncr::SCTLR_RESET;
use crate::machine::Machine;
use aarch64_cpu::registers::{TCR_EL1, TCR_EL2};
use tock_registers::register_bitfields;

register_bitfields! {u64,
    /// Of TCR_EL1, what aarch64-cpu lacks.
    TCR_EL1_HPD [
        /// Hierarchical permissions are disabled.
        HPD0 OFFSET(41) NUMBITS(1) [],
    ],
}

/// Where the hypervisor's own registers are on the CPU while it runs.
pub const PLACES: [(Own, El1); 11] = [
    (Own::Sctlr, El1::Sctlr),
    (Own::Tcr, El1::Tcr),
    (Own::Ttbr0, El1::Ttbr0),
    (Own::Ttbr1, El1::Ttbr1),
    (Own::Mair, El1::Mair),
    (Own::Amair, El1::Amair),
    (Own::Vbar, El1::Vbar),
    (Own::Cptr, El1::Cpacr),
    (Own::Contextidr, El1::Contextidr),
    (Own::Afsr0, El1::Afsr0),
    (Own::Afsr1, El1::Afsr1),
];

/// A register of virtual EL2 that is not in the page, while it runs.
pub(super) fn read_own<M: Machine>(nested: &Nested, m: &M, register: Own) -> u64 {
    match Nested::place(register) {
        _ if register == Own::Cnthctl && nested.vhe => m.get(El1::Cntkctl),
        Some(place) if nested.vhe => m.get(place),
        _ => nested.own(m, register),
    }
}

/// Sets such a register.
pub(super) fn write_own<M: Machine>(nested: &mut Nested, m: &M, register: Own, value: u64) {
    match Nested::place(register) {
        _ if register == Own::Cnthctl && nested.vhe => m.set(El1::Cntkctl, value),
        Some(place) if nested.vhe => m.set(place, value),
        Some(place) => {
            nested.set_own(m, register, value);
            m.set(place, Nested::as_el1(register, value));
        }
        None => nested.set_own(m, register, value),
    }
}

/// VBAR_EL2 and SCTLR_EL2, while virtual EL2 runs: of SCTLR_EL2, what exceptions that it takes depend on.
#[inline(always)]
pub(super) fn vectors<M: Machine>(nested: &Nested, m: &M) -> (u64, u64) {
    // SPAN is for a host only.
    let span = if nested.is_host(m) { 0 } else { exception::SCTLR::SPAN::SET.value };
    (m.get(El1::Vbar), m.get(El1::Sctlr) | span)
}

/// EL2's own control registers while virtual EL2 runs, on a CPU whose MIDR_EL1 is `midr`.
#[inline(always)]
pub(super) fn traps_of_hypervisor(nested: &Nested, midr: u64) -> Traps {
    let own = hcr::PTW | hcr::NV | hcr::NV2 | hcr::AT | hcr::TTLB;
    // Without E2H, EL1's registers are its guest's, which are in the page; and until it has one, its writes of them
    // may be the first we see of it having set E2H.
    let plain = if nested.settled { hcr::NV1 } else { hcr::NV1 | hcr::TVM | hcr::TRVM };
    Traps {
        hcr: if nested.vhe { own } else { own | plain },
        vpidr: midr,
        vncr: nested.page.0.bits(),
        mdcr: 0,
        fp: false,
        cpacr: false,
        counter: false,
    }
}

/// Makes EL1's registers for the hypervisor, which is to run again, ready in [`Nested::hypervisor_el1`].
#[inline(always)]
pub(super) fn fetch_hypervisor<M: Machine>(nested: &mut Nested, m: &M) {
    share(m, &mut nested.hypervisor_el1);
    if nested.vhe {
        nested.hypervisor_el1.set(El1::CntvCval, nested.hv.cval);
        nested.hypervisor_el1.set(El1::CntvCtl, nested.hv.ctl);
    } else {
        nested.hypervisor_el1.set(El1::Cntkctl, m.get(El1::Cntkctl));
        nested.hypervisor_el1.set(El1::CntvCtl, 0);
    }
}

impl Nested {
    /// EL2's virtual timer, while virtual EL2 runs.
    pub fn read_hv<M: Machine>(&self, m: &M) -> Timer {
        if self.vhe { Timer::new(m.get(El1::CntvCtl), m.get(El1::CntvCval)) } else { self.hv }
    }

    /// Sets EL2's virtual timer, while virtual EL2 runs.
    pub fn write_hv<M: Machine>(&mut self, m: &M, timer: Timer) {
        if self.vhe {
            m.set(El1::CntvCval, timer.cval);
            m.set(El1::CntvCtl, timer.ctl);
        } else {
            self.hv = timer;
        }
    }

    /// CNTVOFF_EL2 while virtual EL2 runs: virtual time has no offset there with E2H.
    pub fn offset_of_hypervisor<M: Machine>(&self, m: &M) -> u64 {
        if self.vhe { 0 } else { self.read(m, page::CNTVOFF) }
    }

    /// The EL1 register that holds `register` while the hypervisor runs with E2H.
    pub fn place(register: Own) -> Option<El1> {
        PLACES.iter().find(|(own, _)| *own == register).map(|(_, place)| *place)
    }

    /// EL1's value for a register of a hypervisor without E2H, whose EL2 has one range of addresses and no EL0.
    pub fn as_el1(register: Own, value: u64) -> u64 {
        match register {
            Own::Sctlr => value | SCTLR_RESET,
            Own::Tcr => tcr_as_el1(value),
            // TFP: EL2's own use of FP is an exception to EL2. SVE and SME, which are hidden, trap to us whatever it says.
            Own::Cptr => cpacr::ZEN | cpacr::SMEN | if value & cptr::TFP != 0 { 0 } else { cpacr::FPEN },
            Own::Ttbr1 | Own::Contextidr => 0,
            _ => value,
        }
    }

    /// Arranges EL1's registers on the CPU for a hypervisor that has changed HCR_EL2.E2H. True if it had.
    pub fn follow_e2h<M: Machine>(&mut self, m: &M) -> bool {
        let vhe = self.hcr(m) & hcr::E2H != 0;
        if vhe == self.vhe || self.guest().is_some() {
            return false;
        }
        self.vhe = vhe;
        for (own, place) in PLACES {
            if vhe {
                m.set(place, self.own(m, own));
            } else {
                let value = m.get(place);
                self.set_own(m, own, value);
                m.set(place, Self::as_el1(own, value));
            }
        }
        if vhe {
            self.write(m, page::CNTKCTL, m.get(El1::Cntkctl));
            m.set(El1::Cntkctl, self.own(m, Own::Cnthctl));
            m.set(El1::CntvCval, self.hv.cval);
            m.set(El1::CntvCtl, self.hv.ctl);
        } else {
            self.set_own(m, Own::Cnthctl, m.get(El1::Cntkctl));
            m.set(El1::Cntkctl, self.read(m, page::CNTKCTL));
            self.hv = Timer::new(m.get(El1::CntvCtl), m.get(El1::CntvCval));
            m.set(El1::CntvCtl, 0);
        }
        true
    }

    /// Keeps the timer of the hypervisor, whose registers came from the CPU into [`Nested::hypervisor_el1`].
    pub fn keep_hypervisor(&mut self) {
        if self.vhe {
            self.hv = Timer::new(self.hypervisor_el1.get(El1::CntvCtl), self.hypervisor_el1.get(El1::CntvCval));
        }
    }
}

/// CPACR_EL1: which of EL1's and EL0's instructions do not trap to EL1.
mod cpacr {
    /// SVE.
    pub(super) const ZEN: u64 = 3 << 16;
    /// FP and SIMD.
    pub(super) const FPEN: u64 = 3 << 20;
    /// SME.
    pub(super) const SMEN: u64 = 3 << 24;
}

/// TCR_EL1 for a TCR_EL2 with E2H clear (Arm ARM D24.2.189): one range, the lower.
fn tcr_as_el1(tcr: u64) -> u64 {
    // T1SZ and TG1 have to be some value that is not reserved.
    let lower_only = TCR_EL1::EPD1::SET + TCR_EL1::T1SZ.val(16) + TCR_EL1::TG1::KiB_4;
    // T0SZ, IRGN0, ORGN0, SH0 and TG0 are where they were.
    let moved = TCR_EL1::IPS.val(TCR_EL2::PS.read(tcr))
        + TCR_EL1::TBI0.val(TCR_EL2::TBI.read(tcr))
        + TCR_EL1::HA.val(TCR_EL2::HA.read(tcr))
        + TCR_EL1::HD.val(TCR_EL2::HD.read(tcr))
        + TCR_EL1::TBID0.val(TCR_EL2_HPD::TBID.read(tcr));
    tcr & 0xff3f | (lower_only + moved).value | TCR_EL1_HPD::HPD0.val(TCR_EL2_HPD::HPD.read(tcr)).value
}
