//! The page of registers that VNCR_EL2 names (FEAT_NV2, Arm ARM D8.11.3): what is where in it.
//!
//! With FEAT_NV2 the CPU turns a hypervisor's accesses to the registers at [`page`] into accesses to memory. Without, EL1's vectors do that
//! (`el2/el0_vectors.S`), by [`slot`], and there are more of them in the page, at offsets that FEAT_NV2 has no register at: those of EL2's own
//! that are nowhere else ([`Own`], with FEAT_NV2 as well), what is EL1's and not EL0's, and what only reads as something.

use super::gic::Version;
use super::sysreg::Encoding;

/// Offsets of registers in the page.
#[allow(missing_docs)]
pub mod page {
    /// X0 to X3, while EL1's vectors use them: 32 bytes.
    pub const SCRATCH: u64 = 0x000;
    pub const VTTBR: u64 = 0x020;
    pub const VTCR: u64 = 0x040;
    pub const VMPIDR: u64 = 0x050;
    pub const CNTVOFF: u64 = 0x060;
    pub const HCR: u64 = 0x078;
    pub const VPIDR: u64 = 0x088;
    pub const VNCR: u64 = 0x0b0;
    pub const CPACR: u64 = 0x100;
    pub const CONTEXTIDR: u64 = 0x108;
    pub const SCTLR: u64 = 0x110;
    pub const TCR: u64 = 0x120;
    pub const AFSR0: u64 = 0x128;
    pub const AFSR1: u64 = 0x130;
    pub const ESR: u64 = 0x138;
    pub const MAIR: u64 = 0x140;
    pub const AMAIR: u64 = 0x148;
    pub const SPSR: u64 = 0x160;
    pub const CNTV_CVAL: u64 = 0x168;
    pub const CNTV_CTL: u64 = 0x170;
    pub const CNTP_CVAL: u64 = 0x178;
    pub const CNTP_CTL: u64 = 0x180;
    pub const TTBR0: u64 = 0x200;
    pub const TTBR1: u64 = 0x210;
    pub const FAR: u64 = 0x220;
    pub const ELR: u64 = 0x230;
    pub const SP_EL1: u64 = 0x240;
    pub const VBAR: u64 = 0x250;
    pub const ICH_LR: u64 = 0x400;
    pub const ICH_AP0R: u64 = 0x480;
    pub const ICH_AP1R: u64 = 0x4a0;
    pub const ICH_HCR: u64 = 0x4c0;
    pub const ICH_VMCR: u64 = 0x4c8;
    // From here on, for a virtual EL2 at EL0: what FEAT_NV2 leaves on the CPU.
    /// Of SP_EL0 and SP_EL2, the one that virtual EL2 does not use.
    pub const OTHER_SP: u64 = 0xd00;
    pub const TPIDR_EL1: u64 = 0xd08;
    pub const PAR: u64 = 0xd10;
    pub const CNTKCTL: u64 = 0xd18;
    pub const CURRENT_EL: u64 = 0xd20;
    pub const MIDR: u64 = 0xd28;
    pub const MPIDR: u64 = 0xd30;
    /// What reads as zero.
    pub const ZERO: u64 = 0xd38;
    pub const CSSELR: u64 = 0xd40;
    /// MDSCR_EL1 as it was written last: while virtual EL2 runs, this is it.
    pub const MDSCR: u64 = 0xd48;
    /// Not 0 where an interrupt may wait for virtual EL2: else ISR_EL1 reads as 0.
    pub const IS_PENDING: u64 = 0xd50;
}

/// SCTLR_EL2 after a reset: the bits that are one (Arm ARM D24.2.175), MMU and caches off.
pub const SCTLR_RESET: u64 = 0x30c5_0830;
/// CPTR_EL2 after a reset, with E2H clear: the bits that are one.
pub const CPTR_RESET: u64 = 0x33ff;

/// EL2's own registers that FEAT_NV2 has no place for, and where they are in the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
#[allow(missing_docs)]
pub enum Own {
    Sctlr = 0xc00,
    Tcr = 0xc08,
    Ttbr0 = 0xc10,
    Ttbr1 = 0xc18,
    Mair = 0xc20,
    Amair = 0xc28,
    Vbar = 0xc30,
    Cptr = 0xc38,
    Contextidr = 0xc40,
    Cnthctl = 0xc48,
    Afsr0 = 0xc50,
    Afsr1 = 0xc58,
    Hpfar = 0xc60,
    Mdcr = 0xc68,
    Hacr = 0xc70,
    Actlr = 0xc78,
    Hstr = 0xc80,
    Elr = 0xc88,
    Spsr = 0xc90,
    Esr = 0xc98,
    Far = 0xca0,
    Tpidr = 0xca8,
}

impl Own {
    /// Its offset.
    #[inline(always)]
    pub const fn offset(self) -> u64 {
        self as u64
    }
}

/// Where a register is in the page for a virtual EL2 at EL0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// A multiple of 8, below 4096.
    pub offset: u16,
    /// What MSR is.
    pub write: Write,
}

/// What a write of a register in the page is, by the numbers that EL1's vectors know: 0 or odd, below 8.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Write {
    /// A write of the page, and nothing else.
    Page = 0,
    /// EL2's to do, or UNDEFINED.
    ByEl2 = 1,
    /// Of HCR_EL2: of the page, if no bit is set that there is not at EL0.
    Hcr = 3,
    /// Of CPTR_EL2: CPACR_EL1 on the CPU follows.
    Cptr = 5,
    /// Of MDCR_EL2: of the page, as long as [`page::MDSCR`] lets no debug exception come.
    Mdcr = 7,
}

impl Slot {
    const fn new(offset: u64) -> Self {
        // Below 4096.
        Self { offset: offset as u16, write: Write::Page }
    }

    const fn read_only(offset: u64) -> Self {
        Self { write: Write::ByEl2, ..Self::new(offset) }
    }

    /// As EL1's vectors have it: the offset, and the write in the lowest bits.
    pub const fn code(self) -> u16 {
        self.offset | self.write as u16
    }
}

/// Where the register `encoding` is in the page for a virtual EL2 at EL0 that uses SP_EL2 and has an interrupt interface of `version`, if a read
/// of it is a read of the page.
pub const fn slot(encoding: Encoding, version: Version) -> Option<Slot> {
    let [op0, op1, crn, crm, op2] = encoding.parts();
    if op0 != 3 {
        return None;
    }
    match op1 {
        0 => of_el1(crn, crm, op2),
        4 => of_el2(crn, crm, op2, version),
        _ => None,
    }
}

/// Those with op1 0: of its guest's EL1, but for the first.
const fn of_el1(crn: u16, crm: u16, op2: u16) -> Option<Slot> {
    Some(match (crn, crm, op2) {
        (0, 0, 0) => Slot::read_only(page::MIDR),
        (0, 0, 5) => Slot::read_only(page::MPIDR),
        // REVIDR_EL1.
        (0, 0, 6) => Slot::read_only(page::ZERO),
        (1, 0, 0) => Slot::new(page::SCTLR),
        (1, 0, 2) => Slot::new(page::CPACR),
        (2, 0, 0) => Slot::new(page::TTBR0),
        (2, 0, 1) => Slot::new(page::TTBR1),
        (2, 0, 2) => Slot::new(page::TCR),
        (4, 0, 0) => Slot::new(page::SPSR),
        (4, 0, 1) => Slot::new(page::ELR),
        // SP_EL0.
        (4, 1, 0) => Slot::new(page::OTHER_SP),
        (4, 2, 2) => Slot::read_only(page::CURRENT_EL),
        (5, 1, 0) => Slot::new(page::AFSR0),
        (5, 1, 1) => Slot::new(page::AFSR1),
        (5, 2, 0) => Slot::new(page::ESR),
        (6, 0, 0) => Slot::new(page::FAR),
        (7, 4, 0) => Slot::new(page::PAR),
        (10, 2, 0) => Slot::new(page::MAIR),
        (10, 3, 0) => Slot::new(page::AMAIR),
        (12, 0, 0) => Slot::new(page::VBAR),
        (13, 0, 1) => Slot::new(page::CONTEXTIDR),
        (13, 0, 4) => Slot::new(page::TPIDR_EL1),
        (14, 1, 0) => Slot::new(page::CNTKCTL),
        _ => return None,
    })
}

/// Those with op1 4. What EL1's registers on the CPU follow from, what traps, and when interrupts come, is read-only.
const fn of_el2(crn: u16, crm: u16, op2: u16, version: Version) -> Option<Slot> {
    Some(match (crn, crm, op2) {
        (0, 0, 0) => Slot::new(page::VPIDR),
        (0, 0, 5) => Slot::new(page::VMPIDR),
        (1, 0, 0) => Slot::read_only(Own::Sctlr.offset()),
        (1, 0, 1) => Slot::new(Own::Actlr.offset()),
        (1, 1, 0) => Slot { write: Write::Hcr, ..Slot::new(page::HCR) },
        (1, 1, 1) => Slot { write: Write::Mdcr, ..Slot::new(Own::Mdcr.offset()) },
        (1, 1, 2) => Slot { write: Write::Cptr, ..Slot::new(Own::Cptr.offset()) },
        (1, 1, 3) => Slot::new(Own::Hstr.offset()),
        (1, 1, 7) => Slot::new(Own::Hacr.offset()),
        (2, 0, 0) => Slot::read_only(Own::Ttbr0.offset()),
        (2, 0, 2) => Slot::read_only(Own::Tcr.offset()),
        (2, 1, 0) => Slot::new(page::VTTBR),
        (2, 1, 2) => Slot::new(page::VTCR),
        (4, 0, 0) => Slot::new(Own::Spsr.offset()),
        (4, 0, 1) => Slot::new(Own::Elr.offset()),
        (4, 1, 0) => Slot::new(page::SP_EL1),
        (5, 1, 0) => Slot::new(Own::Afsr0.offset()),
        (5, 1, 1) => Slot::new(Own::Afsr1.offset()),
        (5, 2, 0) => Slot::new(Own::Esr.offset()),
        (6, 0, 0) => Slot::new(Own::Far.offset()),
        (6, 0, 4) => Slot::new(Own::Hpfar.offset()),
        (10, 2, 0) => Slot::read_only(Own::Mair.offset()),
        (10, 3, 0) => Slot::new(Own::Amair.offset()),
        (12, 0, 0) => Slot::new(Own::Vbar.offset()),
        (12, ..) => return of_ich(crm, op2, version),
        (13, 0, 2) => Slot::new(Own::Tpidr.offset()),
        (14, 0, 3) => Slot::new(page::CNTVOFF),
        (14, 1, 0) => Slot::new(Own::Cnthctl.offset()),
        _ => return None,
    })
}

/// ICH's, which a GICv2 has in memory.
const fn of_ich(crm: u16, op2: u16, version: Version) -> Option<Slot> {
    if matches!(version, Version::V2) {
        return None;
    }
    let offset = match (crm, op2) {
        (8, 0..4) => page::ICH_AP0R + op2 as u64 * 8,
        (9, 0..4) => page::ICH_AP1R + op2 as u64 * 8,
        (11, 0) => page::ICH_HCR,
        (11, 7) => page::ICH_VMCR,
        (12..=13, _) => page::ICH_LR + ((crm - 12) * 8 + op2) as u64 * 8,
        _ => return None,
    };
    Some(Slot::read_only(offset))
}
