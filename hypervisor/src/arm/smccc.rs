//! SMCCC and PSCI calls: [`Call`] decodes X0 to X3 of an HVC or SMC; [`features`] says which exist.
//!
//! Follows the SMC Calling Convention 1.1 (DEN 0028) and PSCI 1.1 (DEN 0022). A function id has the fast-call bit (31),
//! the width (30: set for 64 bits), the owner (29:24) and a number. A 32-bit call sees the low words of its arguments
//! alone. What we have no use for is [`Call::Unknown`], and the answer to that is [`NOT_SUPPORTED`], never a fault.

/// The answer of a call that did what was asked.
pub const SUCCESS: u64 = 0;
/// The answer to a function that is not there.
pub const NOT_SUPPORTED: u64 = Error::NotSupported.code();
/// PSCI 1.1.
pub const PSCI_VERSION: u64 = 0x1_0001;
/// SMCCC 1.1.
pub const SMCCC_VERSION: u64 = 0x1_0001;
/// AFFINITY_INFO: the vCPU is on.
pub const AFFINITY_ON: u64 = 0;
/// AFFINITY_INFO: the vCPU is off.
pub const AFFINITY_OFF: u64 = 1;
/// AFFINITY_INFO: the vCPU is about to be on.
pub const AFFINITY_ON_PENDING: u64 = 2;
/// MIGRATE_INFO_TYPE: there is no Trusted OS to migrate.
pub const MIGRATION_NOT_REQUIRED: u64 = 2;
/// The identity that W0 to W3 carry in answer to [`Call::HypervisorUid`].
pub const UID: [u32; 4] = [0x666c_6174, 0x6c61_6e64, 0x8a5d_4b1e, 0x9c02_7f31];

/// What PSCI calls answer when they fail (DEN 0022, 5.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The function is not there.
    NotSupported,
    /// An argument makes no sense: the guest's fault.
    InvalidParameters,
    /// It may not be done now.
    Denied,
    /// The vCPU is on.
    AlreadyOn,
    /// The vCPU is being turned on.
    OnPending,
    /// Our fault.
    InternalFailure,
    /// There is no such vCPU.
    NotPresent,
    /// The vCPU cannot be turned on.
    Disabled,
    /// The entry point is not in memory: the guest's fault.
    InvalidAddress,
}

impl Error {
    /// As X0 holds it: the sign reaches through both words, so W0 alone says the same.
    pub const fn code(self) -> u64 {
        let code: i64 = match self {
            Self::NotSupported => -1,
            Self::InvalidParameters => -2,
            Self::Denied => -3,
            Self::AlreadyOn => -4,
            Self::OnPending => -5,
            Self::InternalFailure => -6,
            Self::NotPresent => -7,
            Self::Disabled => -8,
            Self::InvalidAddress => -9,
        };
        code.cast_unsigned()
    }
}

/// What is asked of us. Arguments are the guest's words, unchecked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// PSCI_VERSION.
    PsciVersion,
    /// CPU_SUSPEND: a standby is a WFI; a power-down comes back at `entry` with X0 = `context`.
    CpuSuspend {
        /// What to power down; bit 16 set for a power-down state.
        state: u32,
        /// Where to go on, an IPA.
        entry: u64,
        /// For X0 at `entry`.
        context: u64,
    },
    /// CPU_OFF: the caller.
    CpuOff,
    /// CPU_ON.
    CpuOn {
        /// The affinity fields of its MPIDR_EL1.
        target: u64,
        /// Where it starts, an IPA.
        entry: u64,
        /// For X0 at `entry`.
        context: u64,
    },
    /// AFFINITY_INFO.
    AffinityInfo {
        /// The affinity fields of its MPIDR_EL1.
        target: u64,
        /// Fields below this level are ignored.
        level: u32,
    },
    /// MIGRATE_INFO_TYPE.
    MigrateInfoType,
    /// SYSTEM_OFF.
    SystemOff,
    /// SYSTEM_RESET.
    SystemReset,
    /// SYSTEM_RESET2.
    SystemReset2 {
        /// 0 for a warm reset; bit 31 set for the vendor's.
        kind: u32,
        /// The vendor's to read.
        cookie: u64,
    },
    /// PSCI_FEATURES.
    PsciFeatures {
        /// The function id asked about.
        function: u32,
    },
    /// SMCCC_VERSION.
    SmcccVersion,
    /// SMCCC_ARCH_FEATURES.
    ArchFeatures {
        /// The function id asked about.
        function: u32,
    },
    /// SMCCC_ARCH_WORKAROUND_1, _2 or _3.
    Workaround(Workaround),
    /// The UID of the vendor-specific hypervisor service.
    HypervisorUid,
    /// Its features, as a bit map in W0: none but these two calls.
    HypervisorFeatures,
    /// Nothing we know, by its id.
    Unknown(u32),
}

/// The mitigations firmware may offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workaround {
    /// CVE-2017-5715: branch predictor invalidated.
    One,
    /// CVE-2018-3639: store bypass disabled, for CPUs without SSBS.
    Two,
    /// CVE-2017-5715 and CVE-2022-23960.
    Three,
}

/// The function ids, of 32-bit calls where there are two.
pub mod id {
    /// SMCCC_VERSION.
    pub const SMCCC_VERSION: u32 = 0x8000_0000;
    /// SMCCC_ARCH_FEATURES.
    pub const ARCH_FEATURES: u32 = 0x8000_0001;
    /// SMCCC_ARCH_WORKAROUND_3.
    pub const ARCH_WORKAROUND_3: u32 = 0x8000_3FFF;
    /// SMCCC_ARCH_WORKAROUND_2.
    pub const ARCH_WORKAROUND_2: u32 = 0x8000_7FFF;
    /// SMCCC_ARCH_WORKAROUND_1.
    pub const ARCH_WORKAROUND_1: u32 = 0x8000_8000;
    /// PSCI_VERSION.
    pub const PSCI_VERSION: u32 = 0x8400_0000;
    /// CPU_SUSPEND.
    pub const CPU_SUSPEND: u32 = 0x8400_0001;
    /// CPU_OFF.
    pub const CPU_OFF: u32 = 0x8400_0002;
    /// CPU_ON.
    pub const CPU_ON: u32 = 0x8400_0003;
    /// AFFINITY_INFO.
    pub const AFFINITY_INFO: u32 = 0x8400_0004;
    /// MIGRATE_INFO_TYPE.
    pub const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
    /// SYSTEM_OFF.
    pub const SYSTEM_OFF: u32 = 0x8400_0008;
    /// SYSTEM_RESET.
    pub const SYSTEM_RESET: u32 = 0x8400_0009;
    /// PSCI_FEATURES.
    pub const PSCI_FEATURES: u32 = 0x8400_000A;
    /// SYSTEM_RESET2.
    pub const SYSTEM_RESET2: u32 = 0x8400_0012;
    /// The UID of the vendor-specific hypervisor service.
    pub const HYPERVISOR_UID: u32 = 0x8600_FF01;
    /// The features of the vendor-specific hypervisor service.
    pub const HYPERVISOR_FEATURES: u32 = 0x8600_0000;
    /// Set in the id of a 64-bit call.
    pub const WIDE: u32 = 1 << 30;
}

const CPU_SUSPEND_64: u32 = id::CPU_SUSPEND | id::WIDE;
const CPU_ON_64: u32 = id::CPU_ON | id::WIDE;
const AFFINITY_INFO_64: u32 = id::AFFINITY_INFO | id::WIDE;
const SYSTEM_RESET2_64: u32 = id::SYSTEM_RESET2 | id::WIDE;

impl Call {
    /// Decodes X0 to X3.
    #[inline]
    pub const fn decode(x: [u64; 4]) -> Self {
        // The id is W0, whatever else X0 holds.
        let function = x[0] as u32;
        let mask = if function & id::WIDE == 0 { 0xFFFF_FFFF } else { u64::MAX };
        let [a, b, c] = [x[1] & mask, x[2] & mask, x[3] & mask];
        // Arguments that are 32 bits wide in both widths are W registers: the rest is not theirs.
        let [a32, b32] = [a as u32, b as u32];
        match function {
            id::PSCI_VERSION => Self::PsciVersion,
            id::CPU_SUSPEND | CPU_SUSPEND_64 => Self::CpuSuspend { state: a32, entry: b, context: c },
            id::CPU_OFF => Self::CpuOff,
            id::CPU_ON | CPU_ON_64 => Self::CpuOn { target: a, entry: b, context: c },
            id::AFFINITY_INFO | AFFINITY_INFO_64 => Self::AffinityInfo { target: a, level: b32 },
            id::MIGRATE_INFO_TYPE => Self::MigrateInfoType,
            id::SYSTEM_OFF => Self::SystemOff,
            id::SYSTEM_RESET => Self::SystemReset,
            id::SYSTEM_RESET2 | SYSTEM_RESET2_64 => Self::SystemReset2 { kind: a32, cookie: b },
            id::PSCI_FEATURES => Self::PsciFeatures { function: a32 },
            id::SMCCC_VERSION => Self::SmcccVersion,
            id::ARCH_FEATURES => Self::ArchFeatures { function: a32 },
            id::ARCH_WORKAROUND_1 => Self::Workaround(Workaround::One),
            id::ARCH_WORKAROUND_2 => Self::Workaround(Workaround::Two),
            id::ARCH_WORKAROUND_3 => Self::Workaround(Workaround::Three),
            id::HYPERVISOR_UID => Self::HypervisorUid,
            id::HYPERVISOR_FEATURES => Self::HypervisorFeatures,
            _ => Self::Unknown(function),
        }
    }
}

/// What PSCI_FEATURES answers for `function`: 0 for what is there (CPU_SUSPEND: the original format of its state, no
/// OS-initiated mode).
pub const fn features(function: u32) -> u64 {
    match Call::decode([function as u64, 0, 0, 0]) {
        Call::PsciVersion
        | Call::CpuSuspend { .. }
        | Call::CpuOff
        | Call::CpuOn { .. }
        | Call::AffinityInfo { .. }
        | Call::MigrateInfoType
        | Call::SystemOff
        | Call::SystemReset
        | Call::SystemReset2 { .. }
        | Call::PsciFeatures { .. }
        | Call::SmcccVersion => SUCCESS,
        _ => NOT_SUPPORTED,
    }
}

/// What the firmware said of its mitigations: SMCCC_ARCH_FEATURES's own answers (DEN 0028, 7.4 to 7.6), 0, 1 or negative.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Workarounds {
    /// For SMCCC_ARCH_WORKAROUND_1.
    pub one: i32,
    /// For SMCCC_ARCH_WORKAROUND_2.
    pub two: i32,
    /// For SMCCC_ARCH_WORKAROUND_3.
    pub three: i32,
}

impl Workarounds {
    /// Firmware that offers none, or none that was asked.
    pub const NONE: Self = Self { one: -1, two: -1, three: -1 };

    /// What SMCCC_ARCH_FEATURES answers a guest for `function`.
    pub fn features(self, function: u32) -> u64 {
        let answer = match Call::decode([u64::from(function), 0, 0, 0]) {
            Call::SmcccVersion | Call::ArchFeatures { .. } => 0,
            Call::Workaround(Workaround::One) => self.one,
            Call::Workaround(Workaround::Two) => self.two,
            Call::Workaround(Workaround::Three) => self.three,
            _ => -1,
        };
        i64::from(answer).cast_unsigned()
    }
}

#[cfg(test)]
mod tests {
    use super::{Call, Error, NOT_SUPPORTED, Workaround, Workarounds, features, id};

    #[test]
    fn narrow_calls_see_low_words_and_wide_calls_see_all() {
        let [target, entry, context] = [0x1_0000_0002, 0x2_4008_0000, 0x3_0000_0004];
        let narrow = Call::decode([0xFFFF_FFFF_8400_0003, target, entry, context]);
        assert_eq!(narrow, Call::CpuOn { target: 2, entry: 0x4008_0000, context: 4 });
        assert_eq!(Call::decode([0xC400_0003, target, entry, context]), Call::CpuOn { target, entry, context });
    }

    #[test]
    fn ids_that_have_one_width_are_unknown_in_the_other() {
        for function in [id::PSCI_VERSION, id::CPU_OFF, id::SYSTEM_OFF, id::PSCI_FEATURES, id::SMCCC_VERSION] {
            let wide = function | id::WIDE;
            assert_ne!(Call::decode([u64::from(function), 0, 0, 0]), Call::Unknown(function));
            assert_eq!(Call::decode([u64::from(wide), 0, 0, 0]), Call::Unknown(wide));
        }
    }

    #[test]
    fn features_tell_what_decodes() {
        assert_eq!(features(0xC400_0003), 0);
        assert_eq!(features(0xC400_0012), 0);
        assert_eq!(features(id::SMCCC_VERSION), 0);
        assert_eq!(features(0x8400_0005), NOT_SUPPORTED, "MIGRATE");
        assert_eq!(features(0x8400_000E), NOT_SUPPORTED, "SYSTEM_SUSPEND");
        assert_eq!(features(id::ARCH_WORKAROUND_1), NOT_SUPPORTED, "not PSCI's to say");
        let offered = Workarounds { one: 0, ..Workarounds::NONE };
        assert_eq!(offered.features(id::ARCH_WORKAROUND_1), 0);
        assert_eq!(offered.features(id::ARCH_WORKAROUND_3), NOT_SUPPORTED);
        assert_eq!(offered.features(id::ARCH_FEATURES), 0);
        assert_eq!(Call::decode([0x8000_8000, 0, 0, 0]), Call::Workaround(Workaround::One));
    }

    #[test]
    fn errors_are_negative_in_both_widths() {
        assert_eq!(Error::AlreadyOn.code(), 0xFFFF_FFFF_FFFF_FFFC);
        assert_eq!((Error::InvalidAddress.code() as u32).cast_signed(), -9);
    }
}
