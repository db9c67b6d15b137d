//! Entering and leaving a guest.

use flatland::run::Exit;
use flatland::vcpu::Registers;

unsafe extern "C" {
    fn enter_guest(registers: *mut Registers) -> u64;
    fn drain_serrors() -> u64;
}

/// Waits for what this CPU has accessed so far. True if that raised an SError, which is over then and hits nobody else.
pub(crate) fn drain() -> bool {
    // SAFETY: takes no more than an SError, for which vectors.S is prepared there, and leaves registers as a call may.
    unsafe { drain_serrors() != 0 }
}

/// Runs the loaded vCPU until it leaves; a guest is a function call.
#[inline(always)]
pub(crate) fn run(registers: &mut Registers) -> Exit {
    // SAFETY: `registers` is valid and has the layout vectors.S knows; the guest runs at EL1 behind its stage 2, so it
    // cannot reach our memory, and every callee-saved register is restored. PSTATE.M names EL1 or EL0: it comes from
    // an exit, from `arm::exception`, from a reset or from an ERET that was looked at; vectors.S refuses EL2, and an ERET that
    // HCR_EL2 makes illegal comes back as an exit.
    match unsafe { enter_guest(registers) } {
        0 => Exit::Synchronous,
        1 => Exit::Interrupt,
        2 => Exit::SError,
        _ => Exit::Illegal,
    }
}
