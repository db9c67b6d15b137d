//! Taking an exception to EL1, as the architecture does it (Arm ARM J1.1, AArch64.TakeException).

use tock_registers::register_bitfields;

register_bitfields! {u64,
    /// SCTLR_EL1.
    pub(crate) SCTLR [
        /// What taking an exception makes of PSTATE.SSBS.
        DSSBS OFFSET(44) NUMBITS(1) [],
        /// Taking an exception leaves PSTATE.PAN alone.
        SPAN OFFSET(23) NUMBITS(1) [],
    ],
}

/// PSTATE as SPSR_ELx holds it.
#[allow(missing_docs)]
pub mod psr {
    pub const MODE: u64 = 0x1f;
    pub const EL0T: u64 = 0x0;
    pub const EL1T: u64 = 0x4;
    pub const EL1H: u64 = 0x5;
    pub const EL2T: u64 = 0x8;
    pub const EL2H: u64 = 0x9;
    pub const IL: u64 = 1 << 20;
    pub const SS: u64 = 1 << 21;
    pub const F: u64 = 1 << 6;
    pub const I: u64 = 1 << 7;
    pub const A: u64 = 1 << 8;
    pub const D: u64 = 1 << 9;
    pub const DAIF: u64 = D | A | I | F;
    pub const SSBS: u64 = 1 << 12;
    pub const PAN: u64 = 1 << 22;
    pub const DIT: u64 = 1 << 24;
    pub const NZCV: u64 = 0xf << 28;
    pub const AARCH32: u64 = 1 << 4;
}

/// Which of a vector's four entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Synchronous.
    Sync,
    /// An interrupt.
    Irq,
    /// A fast interrupt.
    Fiq,
    /// SError.
    SError,
}

/// Where an exception goes and with which PSTATE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vector {
    /// The vector's address.
    pub pc: u64,
    /// PSTATE there.
    pub pstate: u64,
}

/// Takes an exception to EL1 from `pstate`, with EL1's `vbar` and `sctlr`. `has_pan` and `has_ssbs` say whether the CPU
/// has these PSTATE bits.
pub fn take(kind: Kind, pstate: u64, vbar: u64, sctlr: u64, has_pan: bool, has_ssbs: bool) -> Vector {
    let from = if pstate & psr::AARCH32 != 0 {
        0x600
    } else {
        match pstate & psr::MODE {
            psr::EL0T => 0x400,
            psr::EL1T => 0x000,
            _ => 0x200,
        }
    };
    let offset = match kind {
        Kind::Sync => 0,
        Kind::Irq => 0x80,
        Kind::Fiq => 0x100,
        Kind::SError => 0x180,
    };
    let mut new = pstate & (psr::NZCV | psr::DIT) | psr::DAIF | psr::EL1H;
    if has_pan {
        new |= if SCTLR::SPAN.is_set(sctlr) { pstate & psr::PAN } else { psr::PAN };
    }
    if has_ssbs && SCTLR::DSSBS.is_set(sctlr) {
        new |= psr::SSBS;
    }
    Vector { pc: (vbar & !0x7ff).wrapping_add(from + offset), pstate: new }
}
