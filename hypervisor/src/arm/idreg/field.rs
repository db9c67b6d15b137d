//! Where the fields of the ID registers are, of four bits each (Arm ARM D24.2, ID_*): those that somebody asks for or shows.

/// The field of an ID register's value at bit `at`.
#[inline(always)]
pub const fn read(value: u64, at: u32) -> u64 {
    value >> at & 0xf
}

macro_rules! fields {
    ($($register:ident = $text:literal { $($field:ident = $at:literal),* $(,)? })*) => {
        $(
            #[doc = $text]
            #[allow(missing_docs)]
            pub mod $register {
                $(pub const $field: u32 = $at;)*
            }
        )*
    };
}

fields! {
    pfr0 = "ID_AA64PFR0_EL1" {
        EL0 = 0, EL1 = 4, EL2 = 8, FP = 16, ADVSIMD = 20, GIC = 24, RAS = 28, DIT = 48, CSV2 = 56, CSV3 = 60,
    }
    pfr1 = "ID_AA64PFR1_EL1" {
        BT = 0, SSBS = 4, MTE = 8,
    }
    dfr0 = "ID_AA64DFR0_EL1" {
        DEBUGVER = 0, PMUVER = 8, BRPS = 12, WRPS = 20, CTX_CMPS = 28, PMSVER = 32, DOUBLELOCK = 36, TRACEFILT = 40,
    }
    isar0 = "ID_AA64ISAR0_EL1" {
        AES = 4, SHA1 = 8, SHA2 = 12, CRC32 = 16, ATOMIC = 20, RDM = 28, SHA3 = 32, SM3 = 36, SM4 = 40, DP = 44,
        FHM = 48, TS = 52, TLB = 56, RNDR = 60,
    }
    isar1 = "ID_AA64ISAR1_EL1" {
        DPB = 0, APA = 4, JSCVT = 12, FCMA = 16, LRCPC = 20, GPA = 24, FRINTTS = 32, SB = 36,
        SPECRES = 40, BF16 = 44, DGH = 48, I8MM = 52,
    }
    isar2 = "ID_AA64ISAR2_EL1" {
        RPRES = 4, BC = 20, CLRBHB = 28, CSSC = 52,
    }
    mmfr0 = "ID_AA64MMFR0_EL1" {
        PARANGE = 0, ASIDBITS = 4, BIGEND = 8, BIGENDEL0 = 16, TGRAN16 = 20, TGRAN64 = 24, TGRAN4 = 28, FGT = 56,
    }
    mmfr1 = "ID_AA64MMFR1_EL1" {
        HAFDBS = 0, VMIDBITS = 4, VH = 8, HPDS = 12, LO = 16, PAN = 20, ETS = 36, HCX = 40, AFP = 44, NTLBPA = 48, ECBHB = 60,
    }
    mmfr2 = "ID_AA64MMFR2_EL1" {
        CNP = 0, UAO = 4, LSM = 8, CCIDX = 20, NV = 24, ST = 28, AT = 32, IDS = 36, TTL = 48, BBM = 52, E0PD = 60,
    }
}
