//! System registers by number: [`Encoding`], [`Access`] from a syndrome, and the names of those whose accesses reach us.
//!
//! An encoding is op0, op1, CRn, CRm and op2 packed into 16 bits as MRS and MSR carry them (Arm ARM C6.2), so that
//! decoding is shifts and the names can be matched on. The syndrome is that of EC 0x18 (Arm ARM D24.2, ESR_EL2).

use core::fmt;

/// A system register, or an instruction of the SYS space, by number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Encoding(u16);

impl Encoding {
    /// The encoding with these numbers; bits that a number does not have are dropped.
    pub const fn new(op0: u8, op1: u8, crn: u8, crm: u8, op2: u8) -> Self {
        let high = (op0 as u16 & 3) << 14 | (op1 as u16 & 7) << 11 | (crn as u16 & 15) << 7;
        Self(high | (crm as u16 & 15) << 3 | (op2 as u16 & 7))
    }

    /// op0.
    pub const fn op0(self) -> u8 {
        (self.0 >> 14) as u8
    }

    /// op1.
    pub const fn op1(self) -> u8 {
        (self.0 >> 11 & 7) as u8
    }

    /// CRn.
    pub const fn crn(self) -> u8 {
        (self.0 >> 7 & 15) as u8
    }

    /// CRm.
    pub const fn crm(self) -> u8 {
        (self.0 >> 3 & 15) as u8
    }

    /// op2.
    pub const fn op2(self) -> u8 {
        (self.0 & 7) as u8
    }

    /// The 16 bits.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// CRm and op2, if this is one of the ID registers that HCR_EL2.TID3 traps: [`super::idreg`] has their values.
    pub const fn id_register(self) -> Option<(u8, u8)> {
        let group = self.0 & !0x7F == Self::new(3, 0, 0, 0, 0).0;
        if group && self.crm() >= 1 && self.crm() <= 7 { Some((self.crm(), self.op2())) } else { None }
    }

    /// Which one, if this is a breakpoint or watchpoint register.
    pub const fn debug_slot(self) -> Option<(DebugSlot, u8)> {
        if self.0 & !0x7F != Self::new(2, 0, 0, 0, 0).0 {
            return None;
        }
        let slot = match self.op2() {
            4 => DebugSlot::BreakpointValue,
            5 => DebugSlot::BreakpointControl,
            6 => DebugSlot::WatchpointValue,
            7 => DebugSlot::WatchpointControl,
            _ => return None,
        };
        Some((slot, self.crm()))
    }

    /// Whether this is one of the PMU's (Arm ARM D24.5).
    pub const fn is_pmu(self) -> bool {
        matches!(
            (self.op0(), self.op1(), self.crn(), self.crm()),
            (3, 0, 9, 14) | (3, 3, 9, 12..=14) | (3, 3, 14, 8..=15)
        )
    }

    /// What the architecture calls it, if it is one of those named here.
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(encoding, _)| *encoding == self).map(|(_, name)| *name)
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "S{}_{}_C{}_C{}_{}", self.op0(), self.op1(), self.crn(), self.crm(), self.op2()),
        }
    }
}

impl fmt::Debug for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The kinds of numbered debug registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DebugSlot {
    /// DBGBVR`n`_EL1.
    BreakpointValue,
    /// DBGBCR`n`_EL1.
    BreakpointControl,
    /// DBGWVR`n`_EL1.
    WatchpointValue,
    /// DBGWCR`n`_EL1.
    WatchpointControl,
}

/// Which way an access goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// MRS.
    Read,
    /// MSR, or an instruction of the SYS space.
    Write,
}

/// A trapped MRS, MSR or SYS instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Of what.
    pub register: Encoding,
    /// Which way.
    pub direction: Direction,
    /// The general register: 0 to 30, or 31 for XZR.
    pub rt: u8,
}

impl Access {
    /// Decodes the ISS of EC 0x18.
    #[inline]
    pub const fn from_iss(iss: u32) -> Self {
        // op0 [21:20], op2 [19:17], op1 [16:14], CRn [13:10], Rt [9:5], CRm [4:1], direction [0].
        let register = Encoding::new(
            (iss >> 20 & 3) as u8,
            (iss >> 14 & 7) as u8,
            (iss >> 10 & 15) as u8,
            (iss >> 1 & 15) as u8,
            (iss >> 17 & 7) as u8,
        );
        let direction = if iss & 1 == 1 { Direction::Read } else { Direction::Write };
        Self { register, direction, rt: (iss >> 5 & 31) as u8 }
    }
}

macro_rules! registers {
    ($($name:ident = $op0:literal $op1:literal $crn:literal $crm:literal $op2:literal, $doc:literal;)*) => {
        $(
            #[doc = concat!($doc, ".")]
            pub const $name: Encoding = Encoding::new($op0, $op1, $crn, $crm, $op2);
        )*
        /// All of them, with their names.
        const NAMES: &[(Encoding, &str)] = &[$(($name, stringify!($name))),*];
    };
}

registers! {
    // Cache maintenance by set and way: HCR_EL2.TSW.
    DC_ISW = 1 0 7 6 2, "Invalidates by set and way";
    DC_CSW = 1 0 7 10 2, "Cleans by set and way";
    DC_CISW = 1 0 7 14 2, "Cleans and invalidates by set and way";
    // Debug: MDCR_EL2.TDA, TDOSA and TDRA; breakpoints and watchpoints are found by `debug_slot`.
    OSDTRRX_EL1 = 2 0 0 0 2, "OS lock data transfer, receive";
    MDCCINT_EL1 = 2 0 0 2 0, "Debug channel interrupt enable";
    MDSCR_EL1 = 2 0 0 2 2, "Monitor debug system control";
    OSDTRTX_EL1 = 2 0 0 3 2, "OS lock data transfer, transmit";
    OSECCR_EL1 = 2 0 0 6 2, "OS lock exception catch control";
    MDRAR_EL1 = 2 0 1 0 0, "Debug ROM address";
    OSLAR_EL1 = 2 0 1 0 4, "OS lock access";
    OSLSR_EL1 = 2 0 1 1 4, "OS lock status";
    OSDLR_EL1 = 2 0 1 3 4, "OS double lock";
    DBGPRCR_EL1 = 2 0 1 4 4, "Debug power control";
    DBGCLAIMSET_EL1 = 2 0 7 8 6, "Debug claim tags, set";
    DBGCLAIMCLR_EL1 = 2 0 7 9 6, "Debug claim tags, clear";
    DBGAUTHSTATUS_EL1 = 2 0 7 14 6, "Debug authentication status";
    MDCCSR_EL0 = 2 3 0 1 0, "Debug channel status";
    DBGDTR_EL0 = 2 3 0 4 0, "Debug channel, 64 bits";
    DBGDTRRX_EL0 = 2 3 0 5 0, "Debug channel: receives when read, transmits when written (DBGDTRTX_EL0)";
    DBGVCR32_EL2 = 2 4 0 7 0, "Vector catch of AArch32";
    // Identification: HCR_EL2.TID1 to TID3; the ID registers themselves are found by `id_register`.
    MIDR_EL1 = 3 0 0 0 0, "Main ID";
    MPIDR_EL1 = 3 0 0 0 5, "Multiprocessor affinity";
    REVIDR_EL1 = 3 0 0 0 6, "Revision ID";
    AIDR_EL1 = 3 1 0 0 7, "Auxiliary ID";
    CCSIDR_EL1 = 3 1 0 0 0, "Cache size ID";
    CLIDR_EL1 = 3 1 0 0 1, "Cache level ID";
    CCSIDR2_EL1 = 3 1 0 0 2, "Cache size ID, second word";
    GMID_EL1 = 3 1 0 0 4, "Tag block size";
    SMIDR_EL1 = 3 1 0 0 6, "Streaming mode ID";
    CSSELR_EL1 = 3 2 0 0 0, "Cache size selection";
    CTR_EL0 = 3 3 0 0 1, "Cache type";
    // Control.
    SCTLR_EL1 = 3 0 1 0 0, "System control";
    ACTLR_EL1 = 3 0 1 0 1, "Auxiliary control: HCR_EL2.TACR";
    CPACR_EL1 = 3 0 1 0 2, "Access to FP, SIMD and more";
    // Limited ordering regions: HCR_EL2.TLOR.
    LORSA_EL1 = 3 0 10 4 0, "LORegion start";
    LOREA_EL1 = 3 0 10 4 1, "LORegion end";
    LORN_EL1 = 3 0 10 4 2, "LORegion number";
    LORC_EL1 = 3 0 10 4 3, "LORegion control";
    LORID_EL1 = 3 0 10 4 7, "LORegion ID";
    // Errors: HCR_EL2.TERR.
    ERRIDR_EL1 = 3 0 5 3 0, "Error record ID";
    ERRSELR_EL1 = 3 0 5 3 1, "Error record selection";
    DISR_EL1 = 3 0 12 1 1, "Deferred interrupt status";
    // The GIC CPU interface: ICH_HCR_EL2, and HCR_EL2.IMO and FMO for what generates SGIs.
    ICC_PMR_EL1 = 3 0 4 6 0, "Priority mask";
    ICC_DIR_EL1 = 3 0 12 11 1, "Deactivates an interrupt";
    ICC_RPR_EL1 = 3 0 12 11 3, "Running priority";
    ICC_SGI1R_EL1 = 3 0 12 11 5, "Generates an SGI of group 1";
    ICC_ASGI1R_EL1 = 3 0 12 11 6, "Generates an SGI of the other Security state's group 1";
    ICC_SGI0R_EL1 = 3 0 12 11 7, "Generates an SGI of group 0";
    ICC_SRE_EL1 = 3 0 12 12 5, "System register enable";
    // The generic timer: CNTHCTL_EL2.
    CNTPCT_EL0 = 3 3 14 0 1, "Physical count";
    CNTVCT_EL0 = 3 3 14 0 2, "Virtual count";
    CNTPCTSS_EL0 = 3 3 14 0 5, "Physical count, self-synchronised";
    CNTP_TVAL_EL0 = 3 3 14 2 0, "Physical timer, value";
    CNTP_CTL_EL0 = 3 3 14 2 1, "Physical timer, control";
    CNTP_CVAL_EL0 = 3 3 14 2 2, "Physical timer, comparator";
    // The PMU: MDCR_EL2.TPM; the rest is found by `is_pmu`.
    PMCR_EL0 = 3 3 9 12 0, "Performance monitors control";
    PMUSERENR_EL0 = 3 3 9 14 0, "Performance monitors at EL0";
    PMCCFILTR_EL0 = 3 3 14 15 7, "Cycle count filter";
}

#[cfg(test)]
mod tests {
    use super::{
        Access, CNTP_CTL_EL0, DebugSlot, Direction, Encoding, ICC_SGI1R_EL1, MDSCR_EL1, MIDR_EL1, NAMES, OSLAR_EL1,
        PMCCFILTR_EL0, PMCR_EL0,
    };
    use alloc::string::ToString;

    #[test]
    fn encodings_are_unique_and_unpack_to_what_was_packed() {
        for (i, (encoding, name)) in NAMES.iter().enumerate() {
            let again = Encoding::new(encoding.op0(), encoding.op1(), encoding.crn(), encoding.crm(), encoding.op2());
            assert_eq!(again, *encoding);
            assert_eq!(encoding.to_string(), *name);
            assert!(NAMES[..i].iter().all(|(earlier, _)| earlier != encoding), "{name} is there twice");
        }
    }

    /// Bits 20:5 of MRS X0, <register>; its bit 20 is op0's upper bit.
    #[test]
    fn encodings_are_those_that_assemblers_make() {
        for (encoding, mrs) in [
            (MIDR_EL1, 0xD538_0000u32),
            (ICC_SGI1R_EL1, 0xD538_CBA0),
            (OSLAR_EL1, 0xD530_1080),
            (MDSCR_EL1, 0xD530_0240),
            (CNTP_CTL_EL0, 0xD53B_E220),
            (PMCR_EL0, 0xD53B_9C00),
        ] {
            assert_eq!(u32::from(encoding.bits()), mrs >> 5 & 0xFFFF, "{encoding}");
        }
    }

    #[test]
    fn a_syndrome_names_register_direction_and_rt() {
        // MSR ICC_SGI1R_EL1, X7: op0 3, op2 5, op1 0, CRn 12, Rt 7, CRm 11.
        let iss = 3 << 20 | 5 << 17 | 12 << 10 | 7 << 5 | 11 << 1;
        let access = Access::from_iss(iss);
        assert_eq!(access, Access { register: ICC_SGI1R_EL1, direction: Direction::Write, rt: 7 });
        assert_eq!(Access::from_iss(iss | 1).direction, Direction::Read);
    }

    #[test]
    fn groups_hold_what_belongs_to_them() {
        assert_eq!(Encoding::new(3, 0, 0, 4, 0).id_register(), Some((4, 0)));
        assert_eq!(Encoding::new(3, 0, 0, 7, 7).id_register(), Some((7, 7)));
        assert_eq!(MIDR_EL1.id_register(), None);
        assert_eq!(Encoding::new(3, 0, 0, 8, 0).id_register(), None);
        assert_eq!(Encoding::new(3, 3, 0, 4, 0).id_register(), None);
        assert_eq!(Encoding::new(2, 0, 0, 15, 5).debug_slot(), Some((DebugSlot::BreakpointControl, 15)));
        assert_eq!(MDSCR_EL1.debug_slot(), None);
        assert_eq!(OSLAR_EL1.debug_slot(), None);
        assert!(PMCR_EL0.is_pmu() && PMCCFILTR_EL0.is_pmu() && Encoding::new(3, 0, 9, 14, 1).is_pmu());
        assert!(!CNTP_CTL_EL0.is_pmu());
        assert_eq!(Encoding::new(3, 3, 15, 15, 7).to_string(), "S3_3_C15_C15_7");
    }
}
