//! Breakpoints and watchpoints on this CPU (Arm ARM D2.8, D2.9, D24.3).
//!
//! They are written, never read: what a guest's registers hold is in the library (`arm::debug`). EL2 itself is not debugged:
//! PSTATE.D stays set here, and no control register that is written matches at EL2.

use super::sysreg::{read, write};
use flatland::arm::debug::Debug;

/// Runs `$write` for each of the CPU's registers: there are `$have` more than one of them (ID_AA64DFR0_EL1).
macro_rules! each {
    ($have:expr; $($n:literal $control:literal $value:literal)*; $point:expr) => {{
        let (have, point) = ($have & 0xf, $point);
        $(if have + 1 > $n {
            let point = point($n as usize);
            // Off first: a new value may not meet the old control.
            write!($control, 0);
            write!($value, point.value);
            write!($control, point.control);
        })*
    }};
}

/// Clears control registers beyond those that guests have, too: out of reset they are UNKNOWN, and are never written again.
macro_rules! clear {
    ($have:expr; $($n:literal $name:literal)*) => {{
        let have = $have & 0xf;
        $(if have + 1 > $n {
            write!($name, 0);
        })*
    }};
}

/// Makes this CPU have those of a guest. They take effect with the ERET to it.
pub(crate) fn load(debug: &Debug, at_el2: bool) {
    let dfr0 = read!("id_aa64dfr0_el1");
    each!(dfr0 >> 12;
        0 "dbgbcr0_el1" "dbgbvr0_el1" 1 "dbgbcr1_el1" "dbgbvr1_el1" 2 "dbgbcr2_el1" "dbgbvr2_el1"
        3 "dbgbcr3_el1" "dbgbvr3_el1" 4 "dbgbcr4_el1" "dbgbvr4_el1" 5 "dbgbcr5_el1" "dbgbvr5_el1";
        |n| debug.breakpoint(n, at_el2));
    each!(dfr0 >> 20;
        0 "dbgwcr0_el1" "dbgwvr0_el1" 1 "dbgwcr1_el1" "dbgwvr1_el1" 2 "dbgwcr2_el1" "dbgwvr2_el1"
        3 "dbgwcr3_el1" "dbgwvr3_el1";
        |n| debug.watchpoint(n, at_el2));
}

/// Makes guests' debug exceptions possible on this CPU, whose ID_AA64DFR0_EL1 is `dfr0`, and none of them come: out of a
/// cold reset the OS lock is held, and control registers are UNKNOWN (Arm ARM D24.3.26, D24.3.2).
pub(crate) fn init(dfr0: u64) {
    write!("mdscr_el1", 0);
    clear!(dfr0 >> 12;
        6 "dbgbcr6_el1" 7 "dbgbcr7_el1" 8 "dbgbcr8_el1" 9 "dbgbcr9_el1" 10 "dbgbcr10_el1" 11 "dbgbcr11_el1"
        12 "dbgbcr12_el1" 13 "dbgbcr13_el1" 14 "dbgbcr14_el1" 15 "dbgbcr15_el1");
    clear!(dfr0 >> 20;
        4 "dbgwcr4_el1" 5 "dbgwcr5_el1" 6 "dbgwcr6_el1" 7 "dbgwcr7_el1" 8 "dbgwcr8_el1" 9 "dbgwcr9_el1"
        10 "dbgwcr10_el1" 11 "dbgwcr11_el1" 12 "dbgwcr12_el1" 13 "dbgwcr13_el1" 14 "dbgwcr14_el1" 15 "dbgwcr15_el1");
    load(&Debug::new(), false);
    write!("osdlr_el1", 0);
    write!("oslar_el1", 0);
}
