//! PSCI as its caller sees it: function ids, arguments and what the answer means.
//!
//! Key types: [`Call`], the four registers of a call, and [`Error`]. Nothing is called here: the owner of the SMC
//! instruction loads x0 to x3 with [`Call::registers`], makes the call through the board's conduit and hands x0 to
//! [`decode`].
//!
//! Follows the Power State Coordination Interface (DEN 0022), 5.1 (functions) and 5.2 (arguments and return codes), and the SMC
//! Calling Convention (DEN 0028): ids with bit 30 set take 64-bit arguments.

use core::fmt;

/// The functions a hypervisor calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Function {
    /// PSCI_VERSION: major version in bits 31 to 16, minor in bits 15 to 0.
    Version,
    /// CPU_OFF: returns only on failure.
    CpuOff,
    /// CPU_ON, with 64-bit arguments: target affinity, physical entry address, context for x0.
    CpuOn,
    /// AFFINITY_INFO, with 64-bit arguments: target affinity, lowest level. Answers 0 on, 1 off, 2 on its way.
    AffinityInfo,
    /// SYSTEM_OFF: does not return.
    SystemOff,
    /// SYSTEM_RESET: does not return.
    SystemReset,
    /// PSCI_FEATURES (since 1.0): whether a function is there, by its id.
    Features,
}

impl Function {
    /// Tells the function id, for w0.
    pub const fn id(self) -> u32 {
        match self {
            Self::Version => 0x8400_0000,
            Self::CpuOff => 0x8400_0002,
            Self::CpuOn => 0xc400_0003,
            Self::AffinityInfo => 0xc400_0004,
            Self::SystemOff => 0x8400_0008,
            Self::SystemReset => 0x8400_0009,
            Self::Features => 0x8400_000a,
        }
    }
}

/// A call: a function and its arguments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    function: Function,
    arguments: [u64; 3],
}

impl Call {
    /// Makes a call of a function that takes no arguments.
    pub const fn plain(function: Function) -> Self {
        Self { function, arguments: [0; 3] }
    }

    /// Makes the call that starts the CPU `mpidr` at the physical address `entry`, MMU off, with `context` in x0.
    ///
    /// What the CPU reads before its caches are on must have been cleaned to the point of coherency.
    pub const fn cpu_on(mpidr: u64, entry: u64, context: u64) -> Self {
        Self { function: Function::CpuOn, arguments: [mpidr, entry, context] }
    }

    /// Makes the call that asks whether the CPU `mpidr` is on.
    pub const fn affinity_info(mpidr: u64) -> Self {
        Self { function: Function::AffinityInfo, arguments: [mpidr, 0, 0] }
    }

    /// Tells what to put into x0 to x3.
    pub fn registers(&self) -> [u64; 4] {
        let [first, second, third] = self.arguments;
        [u64::from(self.function.id()), first, second, third]
    }
}

/// Why the firmware did not do it (return codes, 5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The function is not there.
    NotSupported,
    /// No such CPU, or no such function.
    InvalidParameters,
    /// The firmware refuses.
    Denied,
    /// The CPU is on already.
    AlreadyOn,
    /// The CPU is being started already.
    OnPending,
    /// The firmware has failed.
    InternalFailure,
    /// The CPU is not there.
    NotPresent,
    /// The CPU has been disabled.
    Disabled,
    /// The entry address is not one.
    InvalidAddress,
    /// A code that PSCI does not define.
    Unknown(i32),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSupported => f.write_str("not supported"),
            Self::InvalidParameters => f.write_str("invalid parameters"),
            Self::Denied => f.write_str("denied"),
            Self::AlreadyOn => f.write_str("already on"),
            Self::OnPending => f.write_str("on pending"),
            Self::InternalFailure => f.write_str("internal failure"),
            Self::NotPresent => f.write_str("not present"),
            Self::Disabled => f.write_str("disabled"),
            Self::InvalidAddress => f.write_str("invalid address"),
            Self::Unknown(code) => write!(f, "unknown error {code}"),
        }
    }
}

/// Reads the x0 that a call has returned: a number from zero up, or an error. Only w0 counts, because a firmware may leave
/// the upper half of a 32-bit answer as it was.
pub fn decode(x0: u64) -> Result<u32, Error> {
    let [low0, low1, low2, low3, ..] = x0.to_le_bytes();
    let code = i32::from_le_bytes([low0, low1, low2, low3]);
    Err(match code {
        -1 => Error::NotSupported,
        -2 => Error::InvalidParameters,
        -3 => Error::Denied,
        -4 => Error::AlreadyOn,
        -5 => Error::OnPending,
        -6 => Error::InternalFailure,
        -7 => Error::NotPresent,
        -8 => Error::Disabled,
        -9 => Error::InvalidAddress,
        code => return u32::try_from(code).map_err(|_| Error::Unknown(code)),
    })
}

#[cfg(test)]
mod tests {
    use super::{Call, Error, Function, decode};

    #[test]
    fn starting_a_cpu_takes_the_64_bit_function() {
        assert_eq!(Call::cpu_on(3, 0x8_0000, 7).registers(), [0xc400_0003, 3, 0x8_0000, 7]);
        assert_eq!(Call::plain(Function::SystemOff).registers(), [0x8400_0008, 0, 0, 0]);
    }

    #[test]
    fn answers_are_read_from_the_lower_half_with_their_sign() {
        assert_eq!(decode(0x1_0001), Ok(0x1_0001));
        assert_eq!(decode(u64::MAX), Err(Error::NotSupported));
        assert_eq!(decode(0xffff_fffc), Err(Error::AlreadyOn));
        assert_eq!(decode(0xffff_ff00), Err(Error::Unknown(-256)));
    }
}
