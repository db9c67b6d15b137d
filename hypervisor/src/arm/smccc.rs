//! SMCCC, PSCI, TRNG and PV time: function ids, decoded, and return codes (Arm DEN0028, DEN0022, DEN0098, DEN0057).

use super::speculation::{WORKAROUND_1, WORKAROUND_2, WORKAROUND_3};

/// PSCI_VERSION's answer: 1.1.
pub const PSCI_VERSION_1_1: i64 = 0x1_0001;
/// SMCCC_VERSION's answer: 1.1.
pub const SMCCC_VERSION_1_1: i64 = 0x1_0001;
/// The call is not there. The same number in SMCCC and in PSCI.
pub const NOT_SUPPORTED: i64 = -1;
/// A parameter makes no sense.
pub const INVALID_PARAMETERS: i64 = -2;
/// The CPU is on.
pub const ALREADY_ON: i64 = -4;
/// The CPU was told to start and has not yet.
pub const ON_PENDING: i64 = -5;

/// A call a guest may make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Call {
    SmcccVersion,
    SmcccArchFeatures,
    /// SMCCC_ARCH_WORKAROUND_1, 2 and 3.
    Workaround,
    PsciVersion,
    CpuSuspend,
    CpuOff,
    CpuOn,
    AffinityInfo,
    MigrateInfoType,
    SystemOff,
    SystemReset,
    SystemReset2,
    PsciFeatures,
    TrngVersion,
    TrngFeatures,
    TrngUuid,
    TrngRandom,
    PvTimeFeatures,
    PvTimeStolen,
    Unknown,
}

impl Call {
    /// Decodes a function id (W0).
    #[inline(always)]
    pub const fn decode(function: u32) -> Self {
        match function {
            0x8400_0000 => Self::PsciVersion,
            0x8000_0000 => Self::SmcccVersion,
            0x8000_0001 => Self::SmcccArchFeatures,
            WORKAROUND_1 | WORKAROUND_2 | WORKAROUND_3 => Self::Workaround,
            0x8400_0001 | 0xc400_0001 => Self::CpuSuspend,
            0x8400_0002 => Self::CpuOff,
            0x8400_0003 | 0xc400_0003 => Self::CpuOn,
            0x8400_0004 | 0xc400_0004 => Self::AffinityInfo,
            0x8400_0006 => Self::MigrateInfoType,
            0x8400_0008 => Self::SystemOff,
            0x8400_0009 => Self::SystemReset,
            0x8400_000a => Self::PsciFeatures,
            0x8400_0012 | 0xc400_0012 => Self::SystemReset2,
            0x8400_0050 => Self::TrngVersion,
            0x8400_0051 => Self::TrngFeatures,
            0x8400_0052 => Self::TrngUuid,
            0x8400_0053 | 0xc400_0053 => Self::TrngRandom,
            0xc500_0020 => Self::PvTimeFeatures,
            0xc500_0021 => Self::PvTimeStolen,
            _ => Self::Unknown,
        }
    }
}

/// Whether `function` is an SMC64 call, whose arguments have 64 bits.
#[inline(always)]
pub const fn is_64bit(function: u32) -> bool {
    function >> 30 & 1 != 0
}

/// What PSCI_FEATURES and SMCCC_ARCH_FEATURES say of `function`.
pub const fn features(function: u32) -> i64 {
    match Call::decode(function) {
        // Which depends on the CPU: see `Speculation::offers`. PSCI has no such function.
        Call::Unknown | Call::Workaround => NOT_SUPPORTED,
        // They have one of their own.
        Call::TrngVersion | Call::TrngFeatures | Call::TrngUuid | Call::TrngRandom => NOT_SUPPORTED,
        Call::PvTimeFeatures | Call::PvTimeStolen => NOT_SUPPORTED,
        // CPU_SUSPEND: original format of the power state, no OS-initiated mode (DEN0022 5.16.2).
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::{Call, NOT_SUPPORTED, features};

    #[test]
    fn both_widths_of_a_call_are_known() {
        assert_eq!(Call::decode(0xc400_0003), Call::CpuOn);
        assert_eq!(Call::decode(0x8400_0003), Call::CpuOn);
        assert_eq!(features(0x8400_0008), 0);
        // MIGRATE: no trusted OS.
        assert_eq!(features(0x8400_0005), NOT_SUPPORTED);
    }

    #[test]
    fn what_is_asked_about_by_features_is_not_always_a_workaround() {
        use crate::vm::psci::fact;
        for (function, answer) in [(0x8000_0000, 0), (0x8000_0001, 0), (0x8400_0000, 0), (0x8000_7ffe, -1)] {
            assert_eq!(fact(0x8000_0001, function), Some(answer), "{function:#x}");
            assert_eq!(fact(0x8400_000a, function), Some(answer), "{function:#x}");
        }
        for workaround in [0x8000_8000, 0x8000_7fff, 0x8000_3fff] {
            assert_eq!(fact(0x8000_0001, workaround), None, "it depends on the CPU");
        }
    }
}
