//! System registers by name, for a program at EL2: its own ([`Register`]) and those of the EL1 below it ([`El1`]).
//!
//! The names of EL1 mean EL2's registers once E2H is set; [`El1`] finds the guest's either way. Follows Arm ARM D13.1.3.

use super::is_vhe;
use crate::cpu::isb;
use core::arch::asm;

macro_rules! registers {
    ($(#[$what:meta])* $type:ident: $($(#[$doc:meta])* $variant:ident $name:literal $mask:literal;)*) => {
        $(#[$what])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl $type {
            /// Reads it.
            #[inline(always)]
            pub fn read(self) -> u64 {
                let value: u64;
                // SAFETY: an MRS changes no memory; one that faults is expected or reported.
                unsafe {
                    match self {
                        $(Self::$variant => asm!(concat!("mrs {}, ", $name), inout(reg) 0u64 => value, options(nostack)),)*
                    }
                }
                value
            }

            /// Writes it, and waits until that has taken effect. Bits outside [`Self::free`] have to stay as they are.
            #[inline(always)]
            pub fn write(self, value: u64) {
                let free = self.free();
                assert!(free == !0 || (value ^ self.read()) & !free == 0, "{self:?}: {value:#x} is not safe to write");
                // SAFETY: in the free bits is nothing on which the program itself depends while it is at EL2.
                unsafe {
                    match self {
                        $(Self::$variant => asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack)),)*
                    }
                }
                isb();
            }

            /// Returns which bits can be written without harm to this program.
            pub const fn free(self) -> u64 {
                match self {
                    $(Self::$variant => $mask,)*
                }
            }
        }
    };
}

registers! {
    /// A register of EL2's, or one that has the same name for EL1 and EL2.
    Register:
    // E2H changes what the names mean: `become_vhe`.
    Hcr "hcr_el2" 0xffff_fffb_ffff_ffff;
    Hcrx "S3_4_C1_C2_2" 0xffff_ffff_ffff_ffff;
    Vttbr "vttbr_el2" 0xffff_ffff_ffff_ffff;
    Vtcr "vtcr_el2" 0xffff_ffff_ffff_ffff;
    // The program has to find its own exceptions back.
    Vbar "vbar_el2" 0;
    Tpidr "tpidr_el2" 0xffff_ffff_ffff_ffff;
    // CnP, and nothing of the address.
    Ttbr0 "ttbr0_el2" 1;
    Ttbr1 "S3_4_C2_C0_1" 0x0000_ffff_ffff_fffe;
    // TBI and HA, in either format: no address here has a tag, no entry is without its flag.
    Tcr "tcr_el2" 0x0000_0000_0010_0000;
    // All but the two that are used.
    Mair "mair_el2" 0xffff_ffff_ffff_0000;
    Amair "amair_el2" 0;
    // SA and EIS-like bits: the stack is aligned.
    Sctlr "sctlr_el2" 8;
    Elr "elr_el2" 0xffff_ffff_ffff_ffff;
    Spsr "spsr_el2" 0xffff_ffff_ffff_ffff;
    Esr "esr_el2" 0xffff_ffff_ffff_ffff;
    Far "far_el2" 0xffff_ffff_ffff_ffff;
    Hpfar "hpfar_el2" 0xffff_ffff_ffff_ffff;
    Afsr0 "afsr0_el2" 0xffff_ffff_ffff_ffff;
    Cptr "cptr_el2" 0xffff_ffff_ffff_ffff;
    Mdcr "mdcr_el2" 0xffff_ffff_ffff_ffff;
    Hstr "hstr_el2" 0xffff_ffff_ffff_ffff;
    Cnthctl "cnthctl_el2" 0xffff_ffff_ffff_ffff;
    Cntvoff "cntvoff_el2" 0xffff_ffff_ffff_ffff;
    Vpidr "vpidr_el2" 0xffff_ffff_ffff_ffff;
    Vmpidr "vmpidr_el2" 0xffff_ffff_ffff_ffff;
    Contextidr "S3_4_C13_C0_1" 0xffff_ffff_ffff_ffff;
    CnthpCtl "cnthp_ctl_el2" 0xffff_ffff_ffff_ffff;
    CnthpCval "cnthp_cval_el2" 0xffff_ffff_ffff_ffff;
    CnthpTval "cnthp_tval_el2" 0xffff_ffff_ffff_ffff;
    CnthvCtl "S3_4_C14_C3_1" 0xffff_ffff_ffff_ffff;
    CnthvCval "S3_4_C14_C3_2" 0xffff_ffff_ffff_ffff;
    CnthvTval "S3_4_C14_C3_0" 0xffff_ffff_ffff_ffff;
    // What EL1's names mean at EL2 with E2H.
    NamedSctlr "sctlr_el1" 0;
    NamedTcr "tcr_el1" 0;
    NamedTtbr0 "ttbr0_el1" 0;
    NamedMair "mair_el1" 0xffff_ffff_ffff_0000;
    NamedVbar "vbar_el1" 0;
    NamedElr "elr_el1" 0xffff_ffff_ffff_ffff;
    NamedSpsr "spsr_el1" 0xffff_ffff_ffff_ffff;
    NamedEsr "esr_el1" 0xffff_ffff_ffff_ffff;
    NamedFar "far_el1" 0xffff_ffff_ffff_ffff;
    NamedCpacr "cpacr_el1" 0xffff_ffff_ffff_ffff;
    NamedContextidr "contextidr_el1" 0xffff_ffff_ffff_ffff;
    NamedCntkctl "cntkctl_el1" 0xffff_ffff_ffff_ffff;
    NamedCntpCtl "cntp_ctl_el0" 0xffff_ffff_ffff_ffff;
    NamedCntpCval "cntp_cval_el0" 0xffff_ffff_ffff_ffff;
    NamedCntvCtl "cntv_ctl_el0" 0xffff_ffff_ffff_ffff;
    NamedCntvCval "cntv_cval_el0" 0xffff_ffff_ffff_ffff;
    // What is EL1's or EL0's by any name.
    SpEl1 "sp_el1" 0xffff_ffff_ffff_ffff;
    SpEl0 "sp_el0" 0xffff_ffff_ffff_ffff;
    TpidrEl0 "tpidr_el0" 0xffff_ffff_ffff_ffff;
    TpidrroEl0 "tpidrro_el0" 0xffff_ffff_ffff_ffff;
    Par "par_el1" 0xffff_ffff_ffff_ffff;
    Mdscr "mdscr_el1" 0x0000_1000;
    Csselr "csselr_el1" 0xffff_ffff_ffff_ffff;
    Midr "S3_0_C0_C0_0" 0;
    Mpidr "S3_0_C0_C0_5" 0;
    CurrentEl "S3_0_C4_C2_2" 0;
    Cntpct "S3_3_C14_C0_1" 0;
    Cntvct "S3_3_C14_C0_2" 0;
    Pfr0 "S3_0_C0_C4_0" 0;
    Pfr1 "S3_0_C0_C4_1" 0;
    Dfr0 "S3_0_C0_C5_0" 0;
    Isar1 "S3_0_C0_C6_1" 0;
    Mmfr0 "S3_0_C0_C7_0" 0;
    Mmfr1 "S3_0_C0_C7_1" 0;
    Mmfr2 "S3_0_C0_C7_2" 0;
    // The interrupt controller: what the hypervisor has of it, and EL1's maintenance.
    IccSre "S3_4_C12_C9_5" 8;
    IchHcr "S3_4_C12_C11_0" 0xffff_ffff_ffff_ffff;
    IchVtr "S3_4_C12_C11_1" 0;
    IchMisr "S3_4_C12_C11_2" 0;
    IchEisr "S3_4_C12_C11_3" 0;
    IchElrsr "S3_4_C12_C11_5" 0;
    IchVmcr "S3_4_C12_C11_7" 0xffff_ffff_ffff_ffff;
    IchAp0r0 "S3_4_C12_C8_0" 0xffff_ffff_ffff_ffff;
    IchAp1r0 "S3_4_C12_C9_0" 0xffff_ffff_ffff_ffff;
    IchLr0 "S3_4_C12_C12_0" 0xffff_ffff_ffff_ffff;
    IchLr1 "S3_4_C12_C12_1" 0xffff_ffff_ffff_ffff;
    IchLr2 "S3_4_C12_C12_2" 0xffff_ffff_ffff_ffff;
    IchLr3 "S3_4_C12_C12_3" 0xffff_ffff_ffff_ffff;
}

/// Makes the registers of EL1 that change their names with E2H: op1 is 0 (or 3, for timers), and 5 with E2H.
macro_rules! el1 {
    ($($variant:ident $name:literal $op1:literal $rest:literal;)*) => {
        /// A register of the EL1 (or EL0) below.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum El1 {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl El1 {
            /// All of them.
            pub const ALL: &[El1] = &[$(El1::$variant,)*];

            /// Reads it.
            pub fn read(self) -> u64 {
                let value: u64;
                // SAFETY: an MRS changes no memory.
                unsafe {
                    match (self, is_vhe()) {
                        $((Self::$variant, false) => {
                            asm!(concat!("mrs {}, S3_", $op1, "_", $rest), out(reg) value, options(nostack))
                        }
                        (Self::$variant, true) => {
                            asm!(concat!("mrs {}, S3_5_", $rest), out(reg) value, options(nostack))
                        })*
                    }
                }
                value
            }

            /// Writes it.
            pub fn write(self, value: u64) {
                // SAFETY: the program is at EL2, where nothing depends on these.
                unsafe {
                    match (self, is_vhe()) {
                        $((Self::$variant, false) => {
                            asm!(concat!("msr S3_", $op1, "_", $rest, ", {}"), in(reg) value, options(nostack))
                        }
                        (Self::$variant, true) => {
                            asm!(concat!("msr S3_5_", $rest, ", {}"), in(reg) value, options(nostack))
                        })*
                    }
                }
                isb();
            }
        }
    };
}

el1! {
    Sctlr "sctlr_el1" "0" "C1_C0_0";
    Cpacr "cpacr_el1" "0" "C1_C0_2";
    Ttbr0 "ttbr0_el1" "0" "C2_C0_0";
    Ttbr1 "ttbr1_el1" "0" "C2_C0_1";
    Tcr "tcr_el1" "0" "C2_C0_2";
    Spsr "spsr_el1" "0" "C4_C0_0";
    Elr "elr_el1" "0" "C4_C0_1";
    Afsr0 "afsr0_el1" "0" "C5_C1_0";
    Afsr1 "afsr1_el1" "0" "C5_C1_1";
    Esr "esr_el1" "0" "C5_C2_0";
    Far "far_el1" "0" "C6_C0_0";
    Mair "mair_el1" "0" "C10_C2_0";
    Amair "amair_el1" "0" "C10_C3_0";
    Vbar "vbar_el1" "0" "C12_C0_0";
    Contextidr "contextidr_el1" "0" "C13_C0_1";
    Cntkctl "cntkctl_el1" "0" "C14_C1_0";
    CntpCtl "cntp_ctl_el0" "3" "C14_C2_1";
    CntpCval "cntp_cval_el0" "3" "C14_C2_2";
    CntvCtl "cntv_ctl_el0" "3" "C14_C3_1";
    CntvCval "cntv_cval_el0" "3" "C14_C3_2";
}
