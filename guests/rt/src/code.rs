//! Instructions made at run time: any MRS, harmless MSRs, HVC and SMC with any immediate, and jumps into nowhere.
//!
//! Each is written into a buffer of this CPU and called. What can be made here is a closed list, see [`Instruction`].

use crate::{cpu, mmu, psci};
use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

/// An instruction to run; `Rt` is x0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// MRS x0, of the register with this encoding.
    Mrs(Encoding),
    /// MSR of the register with this encoding, x0; only where [`Encoding::is_harmless_to_write`].
    Msr(Encoding),
    /// HVC with this immediate.
    Hvc(u16),
    /// SMC with this immediate.
    Smc(u16),
}

/// The encoding of a system register (op0 2 or 3) or of a system instruction (SYS and SYSL, op0 1): op0, op1, CRn, CRm,
/// op2, as bits 20 to 5 of MRS without the direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding(u32);

impl Encoding {
    /// Makes an encoding of five fields; bits beyond a field's width are cut off, and op0 0, which is barriers and PSTATE, is
    /// taken for 1.
    pub const fn new(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> Self {
        let op0 = if op0 & 3 == 0 { 1 } else { op0 & 3 };
        Encoding(op0 << 19 | (op1 & 7) << 16 | (crn & 15) << 12 | (crm & 15) << 8 | (op2 & 7) << 5)
    }

    /// Returns (op0, op1, CRn, CRm, op2).
    #[inline(always)]
    pub const fn fields(self) -> (u32, u32, u32, u32, u32) {
        (self.0 >> 19 & 3, self.0 >> 16 & 7, self.0 >> 12 & 15, self.0 >> 8 & 15, self.0 >> 5 & 7)
    }

    /// MRS of it into x0, or SYSL.
    pub(crate) const fn read_word(self) -> u32 {
        0xd520_0000 | self.0
    }

    /// MSR of it from x0, or SYS.
    pub(crate) const fn write_word(self) -> u32 {
        0xd500_0000 | self.0
    }

    /// Returns whether writing garbage cannot change the program's view of memory or where its exceptions go.
    ///
    /// That is: registers of higher Exception levels (which EL1 cannot reach), debug without MDSCR_EL1 and the
    /// breakpoint and watchpoint registers, read-only, unallocated and IMPLEMENTATION DEFINED places (whose refusal is
    /// for the hypervisor). Buffers of profiling and trace, which write to memory, are not.
    pub const fn is_harmless_to_write(self) -> bool {
        let (op0, op1, crn, crm, op2) = self.fields();
        match (op0, op1) {
            (3, 4 | 6 | 7) => true,
            (3, 0) => matches!(crn, 0 | 3 | 8 | 11 | 15) || crn == 9 && (crm < 9 || crm > 11),
            (3, 1 | 2) => crn != 0,
            (2, 0) => crn != 0 || op2 < 2 && crm > 2,
            (2, 1..) => true,
            _ => false,
        }
    }
}

impl core::fmt::Display for Encoding {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (op0, op1, crn, crm, op2) = self.fields();
        write!(f, "S{op0}_{op1}_C{crn}_C{crm}_{op2}")
    }
}

#[repr(align(64))]
struct Buffer([AtomicU32; 16]);

static BUFFERS: [Buffer; cpu::MAX] = [const { Buffer([const { AtomicU32::new(0) }; 16]) }; cpu::MAX];

/// RET.
pub(crate) const RET: u32 = 0xd65f_03c0;

/// Runs an instruction with x0 to x3 as given and returns them as they are afterwards.
pub fn run(instruction: Instruction, args: [u64; 4]) -> [u64; 4] {
    let word = match instruction {
        Instruction::Mrs(register) => register.read_word(),
        Instruction::Msr(register) => {
            assert!(register.is_harmless_to_write(), "{register} is not to be written");
            register.write_word()
        }
        Instruction::Hvc(immediate) => 0xd400_0002 | u32::from(immediate) << 5,
        Instruction::Smc(immediate) => 0xd400_0003 | u32::from(immediate) << 5,
    };
    psci::admit(args);
    let buffer = &BUFFERS[cpu::index()].0;
    buffer[0].store(word, Ordering::SeqCst);
    buffer[1].store(RET, Ordering::SeqCst);
    let at = buffer.as_ptr() as u64;
    publish(buffer);
    // SAFETY: the buffer holds one instruction of the closed list and RET; it is this CPU's own.
    unsafe { jump(at, args) }
}

/// Makes instruction fetches see what was written.
pub(crate) fn publish(words: &[AtomicU32]) {
    let start = words.as_ptr() as u64;
    for line in (start..start + size_of_val(words) as u64).step_by(64) {
        // SAFETY: cleaning loses no data, and what was fetched before is not run again.
        unsafe { asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", in(reg) line, options(nostack)) };
    }
    // SAFETY: barriers.
    unsafe { asm!("dsb ish", "isb", options(nostack)) };
}

/// Fetches an instruction from a device address below RAM, and comes back when that faults.
///
/// If the device hands out something executable, it is run: only for places that read as zero (UDF) or not at all.
pub fn fetch_from_device(address: u64) {
    let at = mmu::fetchable(address) & !3;
    // SAFETY: nothing there is an instruction other than UDF; the fault brings the CPU back (see `exception`).
    unsafe { jump(at, [0; 4]) };
}

/// Calls `at`. The code there must keep to SMCCC clobbers: x0 to x17 and flags.
pub(crate) unsafe fn jump(at: u64, args: [u64; 4]) -> [u64; 4] {
    let [mut x0, mut x1, mut x2, mut x3] = args;
    // SAFETY: the caller's; x30 and all that SMCCC lets a call change are declared.
    unsafe {
        asm!("blr x16", inout("x16") at => _, inout("x0") x0, inout("x1") x1, inout("x2") x2, inout("x3") x3,
            out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _,
            out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x17") _, out("x30") _);
    }
    [x0, x1, x2, x3]
}
