//! The EL1 registers that make up a vCPU's context, as one list.
//!
//! [`El1`] names them, [`Context`] holds a value for each. While a vCPU is loaded they live on the CPU
//! ([`crate::machine::Machine::get`]); when it is not, in its `Context`. The list is what the presented ID registers let a guest
//! reach (Arm ARM D24): a register of a hidden feature is not in it and traps.

macro_rules! registers {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// An EL1 (or EL0) register of a vCPU's context.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[allow(missing_docs)]
        pub enum El1 { $($name),* }

        impl El1 {
            /// All of them, in order of their discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The register's name in the Arm ARM.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

registers! {
    Sctlr = "SCTLR_EL1", Cpacr = "CPACR_EL1", Ttbr0 = "TTBR0_EL1", Ttbr1 = "TTBR1_EL1", Tcr = "TCR_EL1",
    Mair = "MAIR_EL1", Amair = "AMAIR_EL1", Vbar = "VBAR_EL1", Contextidr = "CONTEXTIDR_EL1",
    Esr = "ESR_EL1", Far = "FAR_EL1", Afsr0 = "AFSR0_EL1", Afsr1 = "AFSR1_EL1", Par = "PAR_EL1",
    Elr = "ELR_EL1", Spsr = "SPSR_EL1", SpEl0 = "SP_EL0", SpEl1 = "SP_EL1",
    TpidrEl0 = "TPIDR_EL0", TpidrroEl0 = "TPIDRRO_EL0", TpidrEl1 = "TPIDR_EL1",
    Csselr = "CSSELR_EL1", Cntkctl = "CNTKCTL_EL1", CntvCtl = "CNTV_CTL_EL0", CntvCval = "CNTV_CVAL_EL0",
    Mdscr = "MDSCR_EL1",
}

/// RES1 bits of SCTLR_EL1 as of Armv8.0; later features gave some of them a meaning with the same reset value.
pub const SCTLR_RES1: u64 = 0x30d0_0800;

/// A value for each register of [`El1`].
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Context([u64; El1::COUNT]);

impl Context {
    /// All zero: not a state a CPU can be in, see [`Context::reset`].
    pub const fn zeroed() -> Self {
        Self([0; El1::COUNT])
    }

    /// What a warm reset leaves: MMU and caches off, EL0 access to FP as the architecture leaves it, timer off.
    pub fn reset() -> Self {
        let mut context = Self::zeroed();
        context.set(El1::Sctlr, SCTLR_RES1);
        context
    }

    /// The value of `register`.
    pub const fn get(&self, register: El1) -> u64 {
        self.0[register as usize]
    }

    /// Sets the value of `register`.
    pub const fn set(&mut self, register: El1, value: u64) {
        self.0[register as usize] = value;
    }
}
