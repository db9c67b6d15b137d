//! Exception level 2: whether the program runs there, its switch to E2H, guests of its own and their code.
//!
//! A [`Context`] is a guest's general registers; [`Context::enter`] runs it until something comes back to EL2, the
//! [`Exit`]. All else of a guest is in [`Register`] and [`El1`], which [`registers`] reads and writes, and in stage-2
//! tables, whose descriptors are put by [`put`]: that refuses to show a guest the program itself. Follows Arm ARM D1.4
//! (entry and return), D8.2 (stage 2), D13.1 (E2H).

pub mod guest;
pub mod misuse;
pub mod registers;
pub mod tlb;

use crate::{cpu, exception, expect_exception, ram, read_register};
use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};
pub use registers::{El1, Register};

global_asm!(include_str!("el2/switch.S"));

/// HCR_EL2: stage 2 is on.
pub const VM: u64 = 1 << 0;
/// HCR_EL2: physical FIQs come to EL2, and EL1 has virtual ones.
pub const FMO: u64 = 1 << 3;
/// HCR_EL2: physical interrupts come to EL2, and EL1 has virtual ones.
pub const IMO: u64 = 1 << 4;
/// HCR_EL2: SErrors come to EL2, and EL1 has virtual ones.
pub const AMO: u64 = 1 << 5;
/// HCR_EL2: exceptions of EL0 come to EL2.
pub const TGE: u64 = 1 << 27;
/// HCR_EL2: EL1 is AArch64.
pub const RW: u64 = 1 << 31;
/// HCR_EL2: EL2 has an EL0 of its own, and EL1's register names.
pub const E2H: u64 = 1 << 34;

/// SPSR: EL0.
pub const EL0: u64 = 0x3c0;
/// SPSR: EL1 with SP_EL0, all masked.
pub const EL1T: u64 = 0x3c4;
/// SPSR: EL1 with SP_EL1, all masked.
pub const EL1H: u64 = 0x3c5;

/// A guest's general registers, as switch.S loads and saves them, and what came with its last exit.
#[repr(C)]
pub struct Context {
    /// x0 to x30.
    pub x: [u64; 31],
    /// Where it goes on.
    pub pc: u64,
    /// The state it goes on with, as SPSR has it.
    pub pstate: u64,
    esr: u64,
    far: u64,
    hpfar: u64,
    index: u64,
    /// Its TPIDR_EL1, which this run-time uses itself while the guest does not run.
    pub tpidr_el1: u64,
}

/// Why a guest is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The vector: 8 synchronous, 9 interrupt, 10 FIQ, 11 SError.
    pub vector: u64,
    /// ESR_EL2.
    pub esr: u64,
    /// FAR_EL2.
    pub far: u64,
    /// HPFAR_EL2.
    pub hpfar: u64,
    /// ELR_EL2.
    pub pc: u64,
    /// SPSR_EL2.
    pub pstate: u64,
}

impl Exit {
    /// Returns the exception class; all ones for what is not synchronous.
    pub fn class(&self) -> u64 {
        if self.vector == 8 { self.esr >> 26 } else { u64::MAX }
    }

    /// Returns the syndrome without class and length.
    pub fn iss(&self) -> u64 {
        self.esr & 0x1ff_ffff
    }

    /// Returns the fault's IPA as HPFAR_EL2 and FAR_EL2 have it.
    pub fn ipa(&self) -> u64 {
        (self.hpfar & 0xfff_ffff_fff0) << 8 | self.far & 0xfff
    }
}

unsafe extern "C" {
    fn rt_enter(context: *mut Context) -> u64;
    fn rt_become_vhe();
    fn rt_illegal_return(spsr: u64);
}

impl Context {
    /// Makes a context of zeros, to be entered at EL1.
    pub const fn new() -> Self {
        Self { x: [0; 31], pc: 0, pstate: EL1H, esr: 0, far: 0, hpfar: 0, index: 0, tpidr_el1: 0 }
    }

    /// Runs the guest until it is back; returns the vector. HCR_EL2 has to have stage 2 on, or the guest sees the program.
    #[inline(always)]
    pub fn enter(&mut self) -> u64 {
        assert!(self.pstate & 0x1e == 4 || self.pstate & 0x1f == 0, "EL1 and EL0 only: {:#x}", self.pstate);
        // SAFETY: the guest's memory is what `put` admits; the program's registers are saved by switch.S, or are not used.
        unsafe { rt_enter(self) }
    }

    /// Runs the guest until it is back, and tells why.
    #[inline(always)]
    pub fn enter_to_exit(&mut self) -> Exit {
        let vector = self.enter();
        self.exit(vector)
    }

    /// What came with the exit through `vector`.
    pub fn exit(&self, vector: u64) -> Exit {
        let Self { esr, far, hpfar, pc, pstate, .. } = *self;
        Exit { vector, esr, far, hpfar, pc, pstate }
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns whether this CPU is at EL2.
pub fn is_here() -> bool {
    read_register!("currentel") == 8
}

/// Returns whether HCR_EL2.E2H is set.
pub fn is_vhe() -> bool {
    read_register!("hcr_el2") & E2H != 0
}

/// Sets HCR_EL2.E2H and TGE on this CPU.
pub fn become_vhe() {
    assert!(is_here() && read_register!("id_aa64mmfr1_el1") >> 8 & 15 != 0, "no VHE");
    // SAFETY: it touches no memory, and leaves the same map behind; clobbers no more than a call may.
    unsafe { rt_become_vhe() };
}

/// Returns from an exception with an SPSR that is not legal, so with PSTATE.IL set, and gives the fault that follows.
pub fn illegal_return(spsr: u64) -> Option<exception::Fault> {
    // SAFETY: goes on behind the ERET: at EL2 because the return is illegal, or with the same registers at EL2.
    expect_exception(|| unsafe { rt_illegal_return(spsr | 0x3c0) })
}

/// Reads or writes one register of EL2 where it is UNDEFINED for a CPU without E2H, by the name of EL12 or EL02.
pub fn alias_faults() -> [bool; 3] {
    let seen = |f: fn()| expect_exception(f).is_some();
    [
        seen(|| _ = read_register!("S3_5_C1_C0_0")),
        seen(|| _ = read_register!("S3_5_C14_C3_1")),
        seen(|| _ = read_register!("S3_5_C4_C0_1")),
    ]
}

/// Puts a descriptor into a stage-2 table, or into a stage-1 table of a guest's: nothing of a page or two
/// MiB may map the program itself. Larger blocks cannot avoid it; their users keep to free memory.
pub fn put(slot: &AtomicU64, descriptor: u64, size: u64) {
    let (start, end) = ram::image();
    let at = descriptor & 0xffff_ffff_f000;
    let harmless = descriptor & 1 == 0 || at >= end || at + size <= start || size > 2 << 20;
    assert!(harmless, "{descriptor:#x} shows the program to a guest");
    slot.store(descriptor, Ordering::SeqCst);
    cpu::barrier();
}

/// Makes code that was written as data visible to instruction fetches, of guests with their caches off too.
pub fn publish(words: &[AtomicU64]) {
    let at = words.as_ptr() as u64;
    for line in (at..at + words.len() as u64 * 8).step_by(64) {
        // SAFETY: cleaning a line loses no data.
        unsafe { asm!("dc civac, {}", in(reg) line, options(nostack)) };
    }
    // SAFETY: what is fetched next comes from memory.
    unsafe { asm!("dsb ish", "ic ialluis", "dsb ish", "isb", options(nostack)) };
}
