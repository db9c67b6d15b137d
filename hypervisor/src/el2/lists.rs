//! The virtual CPU interface of this CPU: list registers and what goes with them, GICv2 and GICv3.

use super::irq::hyp;
use super::sysreg::{isb, read, write};
use flatland::arm::gic::{Interface, active_registers};

macro_rules! list_registers {
    ($($number:literal = $name:literal),* $(,)?) => {
        /// ICH_LR`n`_EL2.
        #[inline(always)]
        fn read_lr(n: usize) -> u64 {
            match n { $($number => read!($name),)* _ => 0 }
        }

        #[inline(always)]
        fn write_lr(n: usize, value: u64) {
            match n { $($number => write!($name, value),)* _ => {} }
        }
    };
}

list_registers! {
    0 = "S3_4_C12_C12_0", 1 = "S3_4_C12_C12_1", 2 = "S3_4_C12_C12_2", 3 = "S3_4_C12_C12_3",
    4 = "S3_4_C12_C12_4", 5 = "S3_4_C12_C12_5", 6 = "S3_4_C12_C12_6", 7 = "S3_4_C12_C12_7",
    8 = "S3_4_C12_C13_0", 9 = "S3_4_C12_C13_1", 10 = "S3_4_C12_C13_2", 11 = "S3_4_C12_C13_3",
    12 = "S3_4_C12_C13_4", 13 = "S3_4_C12_C13_5", 14 = "S3_4_C12_C13_6", 15 = "S3_4_C12_C13_7",
}

/// Reads back list registers 0 to `lr.len()` and returns the control register.
pub(crate) fn read_back(lr: &mut [u64]) -> u32 {
    if let Some(gich) = hyp() {
        for (n, lr) in lr.iter_mut().enumerate() {
            *lr = u64::from(gich.lr(n));
        }
        return gich.hcr();
    }
    for (n, lr) in lr.iter_mut().enumerate() {
        *lr = read_lr(n);
    }
    // ICH_HCR_EL2 keeps what we use of it in 32 bits.
    read!("S3_4_C12_C11_0") as u32
}

/// Writes list registers from 0 on, and the control register.
pub(crate) fn write_all(lr: &[u64], control: u32) {
    if let Some(gich) = hyp() {
        for (n, lr) in lr.iter().enumerate() {
            // GICH_LR has 32 bits.
            gich.set_lr(n, *lr as u32);
        }
        gich.set_hcr(control);
        return;
    }
    for (n, lr) in lr.iter().enumerate() {
        write_lr(n, *lr);
    }
    write!("S3_4_C12_C11_0", u64::from(control));
    isb();
}

/// ICH_VMCR_EL2 or GICH_VMCR.
pub(crate) fn vmcr() -> u64 {
    hyp().map_or_else(|| read!("S3_4_C12_C11_7"), |gich| u64::from(gich.vmcr()))
}

/// How many list registers this CPU has: ICH_VTR_EL2 or GICH_VTR, bits 4:0, plus one; and of priority bits, 7 less than
/// 32 levels need one active-priority register each.
pub(crate) fn count() -> u8 {
    (vtr() & 0x1f) as u8 + 1
}

/// ICH_VTR_EL2 or GICH_VTR.
pub(crate) fn vtr() -> u64 {
    hyp().map_or_else(|| read!("S3_4_C12_C11_1"), |gich| u64::from(gich.vtr()))
}

/// Prepares this CPU's interface for guests.
pub(crate) fn init() {
    match hyp() {
        Some(gich) => {
            gich.set_hcr(0);
            for n in 0..usize::from(count()) {
                gich.set_lr(n, 0);
            }
        }
        None => {
            write!("S3_4_C12_C11_0", 0);
            for n in 0..usize::from(count()) {
                write_lr(n, 0);
            }
            isb();
        }
    }
}

/// Puts a vCPU's interface state onto this CPU; its lists are filled before it runs.
pub(crate) fn load(interface: &Interface) {
    if let Some(gich) = hyp() {
        gich.set_vmcr(interface.vmcr as u32);
        gich.set_apr(interface.ap1r[0]);
        return;
    }
    write!("S3_4_C12_C11_7", interface.vmcr);
    let n = active_registers(read!("S3_4_C12_C11_1"));
    write!("S3_4_C12_C8_0", u64::from(interface.ap0r[0]));
    write!("S3_4_C12_C9_0", u64::from(interface.ap1r[0]));
    if n > 1 {
        write!("S3_4_C12_C8_1", u64::from(interface.ap0r[1]));
        write!("S3_4_C12_C9_1", u64::from(interface.ap1r[1]));
    }
    if n > 2 {
        write!("S3_4_C12_C8_2", u64::from(interface.ap0r[2]));
        write!("S3_4_C12_C8_3", u64::from(interface.ap0r[3]));
        write!("S3_4_C12_C9_2", u64::from(interface.ap1r[2]));
        write!("S3_4_C12_C9_3", u64::from(interface.ap1r[3]));
    }
    isb();
}

/// Takes the state of an interface off this CPU, and empties the first list registers.
pub(crate) fn save(interface: &mut Interface, in_hardware: usize) {
    if let Some(gich) = hyp() {
        interface.vmcr = u64::from(gich.vmcr());
        interface.ap1r[0] = gich.apr();
        for n in 0..in_hardware {
            gich.set_lr(n, 0);
        }
        gich.set_hcr(0);
        return;
    }
    interface.vmcr = read!("S3_4_C12_C11_7");
    // The registers have 32 bits that mean something.
    let n = active_registers(read!("S3_4_C12_C11_1"));
    interface.ap0r[0] = read!("S3_4_C12_C8_0") as u32;
    interface.ap1r[0] = read!("S3_4_C12_C9_0") as u32;
    if n > 1 {
        interface.ap0r[1] = read!("S3_4_C12_C8_1") as u32;
        interface.ap1r[1] = read!("S3_4_C12_C9_1") as u32;
    }
    if n > 2 {
        interface.ap0r[2] = read!("S3_4_C12_C8_2") as u32;
        interface.ap0r[3] = read!("S3_4_C12_C8_3") as u32;
        interface.ap1r[2] = read!("S3_4_C12_C9_2") as u32;
        interface.ap1r[3] = read!("S3_4_C12_C9_3") as u32;
    }
    write!("S3_4_C12_C11_0", 0);
    for n in 0..in_hardware {
        write_lr(n, 0);
    }
    isb();
}
