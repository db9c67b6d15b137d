//! Do the ID registers tell the truth, and do hidden registers give an exception rather than a hang?
//!
//! What an ID register shows must not be UNDEFINED; what it does not show may be UNDEFINED or read as something, but must
//! come back. Follows Arm ARM D24.2 (ID registers) and C5.1.2 (reserved encodings).

#![no_std]
#![no_main]

mod features;

use features::{FEATURES, ID};
use rt::code::{self, Encoding, Instruction};
use rt::exception::{self, UNDEF};
use rt::{args, check, check_eq, expect_exception, println, read_register};

rt::guest!(main);

/// Reads a register by its encoding; none if that is an exception.
fn read(register: Encoding) -> Result<u64, exception::Fault> {
    let mut value = 0;
    match expect_exception(|| value = code::run(Instruction::Mrs(register), [0; 4])[0]) {
        None => Ok(value),
        Some(fault) => Err(fault),
    }
}

fn main() {
    id_space();
    shown();
    higher_levels();
    writes();
    debug();
    same_on_all();
}

/// S3_0_C0_C1_0 to S3_0_C0_C7_7 all read, as something or as zero; and read the same again.
fn id_space() {
    let (mut undefined, mut changing) = (0, 0);
    for crm in 1..8 {
        for op2 in 0..8 {
            let register = Encoding::new(3, 0, 0, crm, op2);
            match (read(register), read(register)) {
                (Ok(a), Ok(b)) => changing += u32::from(a != b),
                _ => undefined += 1,
            }
        }
    }
    check_eq!(undefined, 0, "the whole space of ID registers can be read");
    check_eq!(changing, 0, "ID registers do not change");
    for (name, register) in ID {
        println!("{name} = {:#018x}", read(*register).unwrap_or(0));
    }
    let el = read_register!("id_aa64pfr0_el1");
    check!(el & 15 != 0 && el >> 4 & 15 != 0, "EL0 and EL1 are there");
    if args::strict() {
        check_eq!(el >> 8 & 15, 0, "no EL2 is shown to an ordinary guest");
        check_eq!(el >> 12 & 15, 0, "no EL3 is shown");
    }
    let v3 = el >> 24 & 15;
    let expected = u64::from(args::gic_version() == 3);
    check!(!args::strict() || (v3 != 0) == (expected != 0), "the GIC field agrees with the device tree", "{v3}");
}

/// Every feature the ID registers show has its register, and one that is hidden gives an answer.
fn shown() {
    let (mut n_shown, mut n_undefined, mut n_open) = (0u32, 0u32, 0u32);
    for feature in FEATURES {
        let field = read(feature.id).unwrap_or(0) >> feature.shift & 15;
        let there = field >= feature.from && !(feature.signed && field >= 8);
        match (there, read(feature.register)) {
            (true, Ok(_)) => n_shown += 1,
            (true, Err(fault)) => check!(false, "what is shown is there", "{}: esr {:#x}", feature.name, fault.esr),
            (false, Ok(_)) => {
                n_open += 1;
                println!("sysregs: {} is hidden, yet can be read", feature.name);
            }
            (false, Err(fault)) => {
                n_undefined += 1;
                if fault.class() != UNDEF && args::strict() {
                    check!(false, "what is hidden is UNDEFINED", "{}: esr {:#x}", feature.name, fault.esr);
                }
            }
        }
    }
    println!("sysregs: {n_shown} features shown, {n_undefined} hidden and UNDEFINED, {n_open} hidden and readable");
    check!(n_shown + n_undefined + n_open > 0, "features were looked at");
}

/// Registers of EL2 and EL3 are UNDEFINED at EL1, read or written; no encoding hangs.
fn higher_levels() {
    let (mut reads, mut undefined) = (0u32, 0u32);
    for op1 in [4, 6, 7] {
        for crn in 0..16 {
            for crm in 0..16 {
                for op2 in 0..8 {
                    let register = Encoding::new(3, op1, crn, crm, op2);
                    match read(register) {
                        Ok(_) => reads += 1,
                        Err(_) => undefined += 1,
                    }
                }
            }
        }
    }
    println!("sysregs: of EL2 and EL3, {reads} can be read, {undefined} cannot");
    check!(!args::strict() || reads == 0, "registers of EL2 and EL3 are UNDEFINED", "{reads} are not");
    for (name, register) in [
        ("HCR_EL2", Encoding::new(3, 4, 1, 1, 0)),
        ("VTTBR_EL2", Encoding::new(3, 4, 2, 1, 0)),
        ("ICH_HCR_EL2", Encoding::new(3, 4, 12, 11, 0)),
        ("SCR_EL3", Encoding::new(3, 6, 1, 1, 0)),
        ("SCTLR_EL12", Encoding::new(3, 5, 1, 0, 0)),
    ] {
        let fault = read(register).err();
        check!(fault.is_some_and(|f| f.class() == UNDEF), "{name} is UNDEFINED at EL1", "{fault:x?}");
    }
    let fault = expect_exception(|| {
        code::run(Instruction::Msr(Encoding::new(3, 4, 1, 1, 0)), [0; 4]);
    });
    check!(fault.is_some_and(|f| f.class() == UNDEF), "a write to HCR_EL2 is UNDEFINED at EL1", "{fault:x?}");
}

/// Writes that a hypervisor may trap (as with HCR_EL2.TVM) take effect.
fn writes() {
    let mut value = 0x1234_5678;
    macro_rules! kept {
        ($($name:literal $write:ident $mask:literal;)*) => {$(
            value += 0x0101_0101u64;
            let name = $name;
            let before = read_register!($name);
            rt::cpu::$write(value & $mask);
            check_eq!(read_register!($name) & $mask, value & $mask, "{name} reads as written");
            rt::cpu::$write(before);
        )*};
    }
    kept! {
        "contextidr_el1" write_contextidr 0xffff_ffff;
        "far_el1" write_far 0xffff_ffff_ffff;
        "afsr0_el1" write_afsr0 0;
        "ttbr1_el1" write_ttbr1 0xffff_f000;
        "tpidr_el0" write_tpidr_el0 0xffff_ffff_ffff_ffff;
        "tpidrro_el0" write_tpidrro_el0 0xffff_ffff_ffff_ffff;
        "par_el1" write_par 0;
        "csselr_el1" write_csselr 0;
    }
    rt::cpu::rewrite_translation();
    check_eq!(read_register!("sctlr_el1") & 0x1005, 0x1005, "SCTLR_EL1, TCR_EL1, TTBR0_EL1, MAIR_EL1 written again");
}

/// Debug and performance registers give an answer, whatever it is.
fn debug() {
    let mut answers = [0u32; 2];
    for op1 in [0, 3] {
        for crn in 0..2 {
            for crm in 0..16 {
                for op2 in 0..8 {
                    answers[usize::from(read(Encoding::new(2, op1, crn, crm, op2)).is_err())] += 1;
                }
            }
        }
    }
    for crm in 12..16 {
        for op2 in 0..8 {
            answers[usize::from(read(Encoding::new(3, 3, 9, crm, op2)).is_err())] += 1;
        }
    }
    println!("sysregs: of debug and performance, {} can be read, {} cannot", answers[0], answers[1]);
    for register in [Encoding::new(2, 0, 1, 0, 4), Encoding::new(2, 0, 1, 3, 4)] {
        // OSLAR_EL1 and OSDLR_EL1, as an operating system unlocks them
        let fault = expect_exception(|| {
            code::run(Instruction::Msr(register), [0; 4]);
        });
        check!(fault.is_none_or(|f| f.class() == UNDEF), "{register} can be written or is UNDEFINED", "{fault:x?}");
    }
    check_eq!(answers[0] + answers[1], 512 + 32, "every access came back");
}

/// All CPUs show the same.
fn same_on_all() {
    use core::sync::atomic::{AtomicU64, Ordering};
    static HASH: [AtomicU64; rt::cpu::MAX] = [const { AtomicU64::new(0) }; rt::cpu::MAX];
    fn job(index: usize) {
        let mut hash = 0u64;
        for crm in 1..8 {
            for op2 in 0..8 {
                let value = read(Encoding::new(3, 0, 0, crm, op2)).unwrap_or(!0);
                hash = (hash ^ value).wrapping_mul(0x100_0000_01b3).rotate_left(5);
            }
        }
        HASH[index].store(hash, Ordering::SeqCst);
    }
    rt::smp::on_all(job);
    let first = HASH[0].load(Ordering::SeqCst);
    let same = HASH.iter().take(args::n_cpus()).all(|hash| hash.load(Ordering::SeqCst) == first);
    check!(same, "all CPUs show the same features");
}
