//! EL2, misused: anything written to its registers, any TLB maintenance, a return to anywhere. For a guest that is to harm
//! nobody but itself by it.

use core::arch::asm;

macro_rules! registers {
    ($count:ident $write:ident $read:ident: $($name:literal)*) => {
        /// The registers that can be written.
        pub const $count: u64 = [$($name),*].len() as u64;

        /// Writes `value` to one of EL2's registers.
        pub fn $write(register: u64, value: u64) {
            let mut number = 0;
            $(
                if register == number {
                    // SAFETY: what becomes of this program is what is asked: it has its memory to itself.
                    unsafe { asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack)) };
                }
                number += 1;
            )*
            let _ = number;
        }

        /// Reads one of EL2's registers.
        pub fn $read(register: u64) -> u64 {
            let (mut number, mut value) = (0, 0u64);
            $(
                if register == number {
                    // SAFETY: an MRS changes no memory.
                    unsafe { asm!(concat!("mrs {}, ", $name), inout(reg) value, options(nostack)) };
                }
                number += 1;
            )*
            let _ = number;
            value
        }
    };
}

registers! {
    N_REGISTERS write read:
    "vttbr_el2" "vtcr_el2" "vpidr_el2" "vmpidr_el2" "mdcr_el2" "hstr_el2" "cntvoff_el2" "tpidr_el2" "hpfar_el2"
    "afsr0_el2" "afsr1_el2" "S3_4_C2_C2_0" "S3_4_C12_C11_0" "S3_4_C12_C11_7" "S3_4_C12_C8_0" "S3_4_C12_C9_0"
    "S3_4_C12_C12_0" "S3_4_C12_C12_1" "S3_4_C12_C12_2" "S3_4_C12_C12_3" "cnthp_ctl_el2" "cnthp_cval_el2"
    "S3_5_C14_C2_1" "S3_5_C14_C2_2" "S3_5_C14_C3_1" "S3_5_C14_C3_2" "S3_5_C1_C0_0" "S3_5_C2_C0_0" "S3_5_C2_C0_1"
    "S3_5_C2_C0_2" "S3_5_C10_C2_0" "S3_5_C12_C0_0" "S3_5_C4_C0_0" "S3_5_C4_C0_1" "sp_el1" "S3_5_C14_C1_0"
}

// Without VHE the guest's registers have their own names. What decides of the program's own translations is not among them, so
// that it gets on.
registers! {
    N_PLAIN write_plain read_plain:
    "vttbr_el2" "vtcr_el2" "vpidr_el2" "vmpidr_el2" "mdcr_el2" "hstr_el2" "cntvoff_el2" "tpidr_el2" "hpfar_el2"
    "afsr0_el2" "afsr1_el2" "esr_el2" "far_el2" "elr_el2" "spsr_el2" "cnthctl_el2" "cnthp_ctl_el2" "cnthp_cval_el2"
    "sctlr_el1" "ttbr0_el1" "ttbr1_el1" "tcr_el1" "mair_el1" "amair_el1" "vbar_el1" "elr_el1" "spsr_el1" "sp_el1"
    "cpacr_el1" "contextidr_el1" "esr_el1" "far_el1" "cntkctl_el1" "cntp_ctl_el0" "cntp_cval_el0" "cntv_ctl_el0" "cntv_cval_el0"
    "par_el1" "csselr_el1" "tpidr_el1"
}

/// Has EL2's own translations follow any tables by any rules, from the next instruction on.
pub fn translate_by(ttbr: u64, tcr: u64, sctlr: u64) {
    // SAFETY: as in `leave`.
    unsafe {
        asm!("msr ttbr0_el2, {ttbr}", "msr tcr_el2, {tcr}", "isb", "tlbi alle2", "dsb nsh", "msr sctlr_el2, {sctlr}", "isb",
            ttbr = in(reg) ttbr, tcr = in(reg) tcr, sctlr = in(reg) sctlr, options(nostack))
    };
}

/// Loads from any address, or stores there.
pub fn touch(address: u64, store: bool) {
    // SAFETY: as in `leave`.
    unsafe {
        if store {
            asm!("str {a:w}, [{a}]", a = in(reg) address);
        } else {
            asm!("ldr {a:w}, [{a}]", a = inout(reg) address => _, options(nostack));
        }
    }
}

/// Stores anything anywhere.
pub fn put(address: u64, value: u64) {
    // SAFETY: as in `leave`.
    unsafe { asm!("str {}, [{}]", in(reg) value, in(reg) address) }
}

/// Runs the instructions at any address.
pub fn run(address: u64) -> ! {
    // SAFETY: as in `leave`.
    unsafe { asm!("dsb ish", "ic iallu", "dsb ish", "isb", "br {}", in(reg) address, options(noreturn)) }
}

/// How many kinds of maintenance there are.
pub const N_MAINTENANCES: u64 = 10;

/// TLB maintenance and address translation, with any argument.
pub fn maintain(kind: u64, value: u64) {
    // SAFETY: invalidation costs time; AT writes PAR_EL1, which the program does not use.
    unsafe {
        match kind {
            0 => asm!("tlbi vmalle1is", options(nostack)),
            1 => asm!("tlbi alle1is", options(nostack)),
            2 => asm!("tlbi vmalls12e1is", options(nostack)),
            3 => asm!("tlbi ipas2e1is, {}", in(reg) value, options(nostack)),
            4 => asm!("tlbi vae2is, {}", in(reg) value, options(nostack)),
            5 => asm!("tlbi alle2is", options(nostack)),
            6 => asm!("tlbi ipas2le1, {}", in(reg) value, options(nostack)),
            7 => asm!("at s12e1w, {}", in(reg) value, options(nostack)),
            8 => asm!("at s1e2r, {}", in(reg) value, options(nostack)),
            _ => asm!("at s1e1r, {}", in(reg) value, options(nostack)),
        }
    }
}

/// Writes HCR_EL2 and returns to `pc` with `spsr`: what runs there is not this program's to say any more, until an
/// exception leads back to its vectors.
pub fn leave(hcr: u64, pc: u64, spsr: u64) -> ! {
    // SAFETY: the program ends here, or in its exception vectors.
    unsafe {
        asm!("msr hcr_el2, {hcr}", "isb", "msr elr_el2, {pc}", "msr spsr_el2, {spsr}", "eret", "b .",
            hcr = in(reg) hcr, pc = in(reg) pc, spsr = in(reg) spsr, options(noreturn))
    }
}
