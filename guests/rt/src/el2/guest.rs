//! The code that guests of the program's own run: [`code`] is a page to be copied, the constants say what is where in it.

use core::arch::global_asm;

global_asm!(include_str!("guest.S"));

/// Waits until the interrupt count at x0 is x1 at least. All these end with HVC #1.
pub const WAIT: u64 = 0x800;
/// The same by WFI.
pub const SLEEP: u64 = 0x840;
/// Fills x1 words at x0 with x2, x2 + 1, and so on.
pub const FILL: u64 = 0x880;
/// Counts in x3 how many of x1 words at x0 are not x2, x2 + 1, and so on.
pub const COMPARE: u64 = 0x8c0;
/// Does HVC #0 x1 times.
pub const CALL: u64 = 0x900;
/// Reads x1 words, the first at x0, each x2 further.
pub const READ: u64 = 0x940;
/// Reads ID_AA64PFR0_EL1 x1 times.
pub const IDENTIFY: u64 = 0x980;
/// Copies the word at x0 to x2 for ever, and counts at x3.
pub const WATCH: u64 = 0x9c0;
/// Sends x1 SGIs as x2 says, each when the one before was answered by an interrupt counted at x0.
pub const SEND: u64 = 0xa00;
/// Answers each interrupt counted at x0 by an SGI as x2 says, for ever.
pub const ECHO: u64 = 0xa40;
/// What the HVC of the vector with number 0 says.
pub const VECTOR: u64 = 0x100;

unsafe extern "C" {
    static rt_guest_code: u64;
    static rt_guest_code_end: u64;
}

/// Returns the code, exception vectors first.
pub fn code() -> &'static [u64] {
    let start = &raw const rt_guest_code;
    let bytes = &raw const rt_guest_code_end as usize - start as usize;
    // SAFETY: read-only data between two labels of guest.S, aligned.
    unsafe { core::slice::from_raw_parts(start, bytes / 8) }
}
