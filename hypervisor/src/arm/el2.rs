//! EL2's own registers that make a CPU be a vCPU, besides EL1's: whose memory, whose identity, what traps.

/// The values of EL2's registers for a vCPU that runs as itself.
///
/// A vCPU without an EL2 of its own has one for life. One that has has two: for its hypervisor, and for the guest of that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct El2Registers {
    /// VTTBR_EL2.
    pub vttbr: u64,
    /// VTCR_EL2.
    pub vtcr: u64,
    /// VMPIDR_EL2.
    pub vmpidr: u64,
    /// CNTVOFF_EL2.
    pub cntvoff: u64,
    /// What is different for a vCPU that has an EL2 of its own.
    pub nested: Option<Traps>,
}

/// What a vCPU with an EL2 of its own changes of EL2's control registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Traps {
    /// Bits set in HCR_EL2 besides those set for everybody; PTW is only set if it is here.
    pub hcr: u64,
    /// VPIDR_EL2.
    pub vpidr: u64,
    /// The physical address of the page that VNCR_EL2 names, or 0 without FEAT_NV2 in force.
    pub vncr: u64,
    /// Bits set in MDCR_EL2 besides.
    pub mdcr: u64,
    /// Whether FP and SIMD trap whatever is loaded.
    pub fp: bool,
    /// Whether CPACR_EL1 traps (CPTR_EL2.TCPAC).
    pub cpacr: bool,
    /// Whether the physical counter traps, too.
    pub counter: bool,
}
