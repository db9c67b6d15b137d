//! EL2's own timer (CNTHP): the one deadline each CPU waits for. Guests own CNTV, and find CNTP emulated.

use super::sysreg::{isb, read, write};

/// Arms this CPU's timer for `deadline` (of the system counter), or disarms it.
#[inline(always)]
pub(crate) fn set(deadline: Option<u64>) {
    match deadline {
        Some(at) => {
            write!("cnthp_cval_el2", at);
            write!("cnthp_ctl_el2", 1);
        }
        None => write!("cnthp_ctl_el2", 0),
    }
    isb();
}

/// Ticks per second.
pub(crate) fn frequency() -> u64 {
    read!("cntfrq_el0")
}
