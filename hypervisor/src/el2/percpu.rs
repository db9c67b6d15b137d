//! What each CPU calls its own, behind TPIDR_EL2.

use super::cpu;
use super::sysreg::{read, write};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, Ordering};
use flatland::addr::CpuId;

const EMERGENCY: usize = 4096;

/// A stack for a CPU whose own may be what faulted.
#[repr(C, align(16))]
pub(crate) struct Emergency([u8; EMERGENCY]);

/// The first CPU's emergency stack; before it has a block, vectors.S finds it by name.
#[unsafe(no_mangle)]
static mut EARLY_EMERGENCY: Emergency = Emergency([0; EMERGENCY]);

/// One CPU's block. vectors.S reads the first word and the guard.
#[repr(C)]
pub(crate) struct Block {
    emergency_top: u64,
    cpu: CpuId,
    /// How many of EL2's own faults are being handled.
    pub(crate) faults: AtomicU32,
    /// What is done against attacks by speculation as a guest leaves.
    guard: u64,
}

const _: () = assert!(core::mem::offset_of!(Block, guard) == 16, "vectors.S knows it");

/// Gives this CPU its block.
pub(crate) fn init(cpu: CpuId) {
    let emergency_top = if cpu.0 == 0 {
        (&raw const EARLY_EMERGENCY) as u64
    } else {
        core::ptr::from_ref(Box::leak(Box::new(Emergency([0; EMERGENCY])))) as u64
    } + EMERGENCY as u64;
    let block =
        Box::leak(Box::new(Block { emergency_top, cpu, faults: AtomicU32::new(0), guard: cpu::speculation().guard }));
    write!("tpidr_el2", core::ptr::from_ref(block) as u64);
}

/// This CPU's block, once it has one.
pub(crate) fn block() -> Option<&'static Block> {
    let at = read!("tpidr_el2") as *const Block;
    // SAFETY: TPIDR_EL2 is zero after boot.S or points to a leaked block, written by `init` alone.
    unsafe { at.as_ref() }
}

/// This CPU.
pub(crate) fn cpu() -> CpuId {
    block().map_or(CpuId(0), |block| block.cpu)
}

/// Counts one of EL2's own faults on this CPU and returns how many there were before.
pub(crate) fn enter_fault() -> u32 {
    static EARLY: AtomicU32 = AtomicU32::new(0);
    block().map_or(&EARLY, |block| &block.faults).fetch_add(1, Ordering::Relaxed)
}
