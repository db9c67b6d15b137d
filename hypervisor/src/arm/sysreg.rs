//! System registers that trap: their encodings, and which of them Flatland gives a meaning.

use core::fmt;
use tock_registers::fields::Field;
use tock_registers::register_bitfields;

register_bitfields! {u64,
    /// The syndrome of a trapped access (Arm ARM D24.2.40, ISS for EC 0x18).
    pub(super) ISS [
        Op0 OFFSET(20) NUMBITS(2) [],
        Op2 OFFSET(17) NUMBITS(3) [],
        Op1 OFFSET(14) NUMBITS(3) [],
        CRn OFFSET(10) NUMBITS(4) [],
        Rt OFFSET(5) NUMBITS(5) [],
        CRm OFFSET(1) NUMBITS(4) [],
        Direction OFFSET(0) NUMBITS(1) [Write = 0, Read = 1],
    ],
}

/// An encoding: op0, op1, CRn, CRm and op2 as one number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Encoding(u16);

impl Encoding {
    /// From the five numbers, each within its bits.
    pub const fn new(op0: u16, op1: u16, crn: u16, crm: u16, op2: u16) -> Self {
        Self(op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2)
    }

    /// From an instruction, whose bits 20 to 5 it is.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        // 16 bits.
        Self((word >> 5) as u16)
    }

    /// From the syndrome of a trapped access (ESR_EL2 for EC 0x18).
    #[inline(always)]
    pub fn from_iss(iss: u64) -> Self {
        // At most four bits each.
        let part = |field: Field<u64, ISS::Register>| field.read(iss) as u16;
        Self::new(part(ISS::Op0), part(ISS::Op1), part(ISS::CRn), part(ISS::CRm), part(ISS::Op2))
    }

    /// op0, op1, CRn, CRm and op2.
    pub const fn parts(self) -> [u16; 5] {
        [self.0 >> 14, self.0 >> 11 & 7, self.0 >> 7 & 15, self.0 >> 3 & 15, self.0 & 7]
    }

    /// The one number.
    pub const fn bits(self) -> u16 {
        self.0
    }
}

/// A trapped MRS, MSR, SYS or SYSL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trapped {
    /// What it is of.
    pub encoding: Encoding,
    /// The number of its general-purpose register (Rt).
    pub rt: u8,
    /// MRS or SYSL.
    pub is_read: bool,
}

impl Trapped {
    /// From its syndrome.
    #[inline(always)]
    pub fn decode(iss: u64) -> Self {
        // Five bits of Rt fit.
        Self { encoding: Encoding::from_iss(iss), rt: ISS::Rt.read(iss) as u8, is_read: ISS::Direction.is_set(iss) }
    }
}

/// CRm and op2 of a trapped read from the ID space (op0 3, op1 0, CRn 0, CRm 1 to 7), by its syndrome. CRm 0, which is
/// MIDR_EL1 and its kind, does not trap.
#[inline(always)]
pub fn id_read(iss: u64) -> Option<(u8, u8)> {
    let is_one = ISS::Op0.val(3) + ISS::Op1.val(0) + ISS::CRn.val(0) + ISS::Direction::Read;
    let (crm, op2) = (ISS::CRm.read(iss), ISS::Op2.read(iss));
    // Three bits each.
    (is_one.matches_all(iss) && crm < 8).then_some((crm as u8, op2 as u8))
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0;
        let (op0, op1, crn, crm, op2) = (bits >> 14, bits >> 11 & 7, bits >> 7 & 15, bits >> 3 & 15, bits & 7);
        write!(f, "S{op0}_{op1}_C{crn}_C{crm}_{op2}")
    }
}

/// A register that traps and is emulated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Register {
    Sgi1r,
    Asgi1r,
    Sgi0r,
    Dir,
    IccSre,
    CntpCtl,
    CntpCval,
    CntpTval,
    Cntpct,
    Mdscr,
    Oslar,
    Oslsr,
    Osdlr,
    ClaimSet,
    ClaimClr,
    AuthStatus,
    /// `DBGBVR<n>`, `DBGBCR<n>`, `DBGWVR<n>`, `DBGWCR<n>`: n is CRm, op2 tells which.
    Point,
    /// Debug registers that read as zero and ignore writes: power, ROM address, and the channel to an external debugger.
    Debug,
    Actlr,
    /// DC ISW, CSW, CISW.
    SetWay,
}

macro_rules! table {
    ($($name:ident = $op0:literal $op1:literal $crn:literal $crm:literal $op2:literal),* $(,)?) => {
        /// The register with this encoding, if it is emulated.
        #[inline(always)]
        pub const fn decode(encoding: Encoding) -> Option<Register> {
            $(const $name: u16 = Encoding::new($op0, $op1, $crn, $crm, $op2).bits();)*
            match encoding.bits() {
                ICC_SGI1R => Some(Register::Sgi1r),
                ICC_ASGI1R => Some(Register::Asgi1r),
                ICC_SGI0R => Some(Register::Sgi0r),
                ICC_DIR => Some(Register::Dir),
                ICC_SRE => Some(Register::IccSre),
                CNTP_CTL => Some(Register::CntpCtl),
                CNTP_CVAL => Some(Register::CntpCval),
                CNTP_TVAL => Some(Register::CntpTval),
                CNTPCT => Some(Register::Cntpct),
                MDSCR => Some(Register::Mdscr),
                OSLAR => Some(Register::Oslar),
                OSLSR => Some(Register::Oslsr),
                ACTLR => Some(Register::Actlr),
                DC_ISW | DC_CSW | DC_CISW => Some(Register::SetWay),
                OSDLR => Some(Register::Osdlr),
                CLAIMSET => Some(Register::ClaimSet),
                CLAIMCLR => Some(Register::ClaimClr),
                AUTHSTATUS => Some(Register::AuthStatus),
                MDCCINT | MDRAR | DBGPRCR | MDCCSR | DTR | DTRX | OSDTRRX | OSDTRTX | OSECCR => Some(Register::Debug),
                // Op0 2, op1 0, CRn 0, CRm n, op2 4 to 7.
                bits if bits >> 7 == Encoding::new(2, 0, 0, 0, 0).bits() >> 7 && bits & 7 >= 4 => Some(Register::Point),
                _ => None,
            }
        }
    };
}

table! {
    ICC_SGI1R = 3 0 12 11 5, ICC_ASGI1R = 3 0 12 11 6, ICC_SGI0R = 3 0 12 11 7, ICC_DIR = 3 0 12 11 1,
    ICC_SRE = 3 0 12 12 5,
    CNTP_TVAL = 3 3 14 2 0, CNTP_CTL = 3 3 14 2 1, CNTP_CVAL = 3 3 14 2 2, CNTPCT = 3 3 14 0 1,
    MDSCR = 2 0 0 2 2, MDCCINT = 2 0 0 2 0, OSDTRRX = 2 0 0 0 2, OSDTRTX = 2 0 0 3 2, OSECCR = 2 0 0 6 2,
    MDRAR = 2 0 1 0 0, OSLAR = 2 0 1 0 4, OSLSR = 2 0 1 1 4, OSDLR = 2 0 1 3 4, DBGPRCR = 2 0 1 4 4,
    CLAIMSET = 2 0 7 8 6, CLAIMCLR = 2 0 7 9 6, AUTHSTATUS = 2 0 7 14 6,
    MDCCSR = 2 3 0 1 0, DTR = 2 3 0 4 0, DTRX = 2 3 0 5 0,
    ACTLR = 3 0 1 0 1, DC_ISW = 1 0 7 6 2, DC_CSW = 1 0 7 10 2, DC_CISW = 1 0 7 14 2,
}

#[cfg(test)]
mod tests {
    use super::{Encoding, Register, decode, id_read};

    #[test]
    fn the_syndrome_leads_to_the_register() {
        // MSR ICC_SGI1R_EL1, x0: op0 3, op2 5, op1 0, CRn 12, CRm 11, write.
        let iss = 3 << 20 | 5 << 17 | 12 << 10 | 11 << 1;
        assert_eq!(decode(Encoding::from_iss(iss)), Some(Register::Sgi1r));
        // MRS x0, ID_AA64PFR0_EL1.
        assert_eq!(id_read(3 << 20 | 4 << 1 | 1), Some((4, 0)));
        assert_eq!(id_read(3 << 20 | 4 << 1), None, "a write");
        assert_eq!(id_read(3 << 20 | 1 << 10 | 1), None, "SCTLR_EL1 and its kind");
        assert_eq!(decode(Encoding::new(2, 0, 0, 5, 5)), Some(Register::Point), "DBGBCR5_EL1");
        assert_eq!(decode(Encoding::new(3, 3, 9, 12, 0)), None, "PMCR_EL0");
    }
}
