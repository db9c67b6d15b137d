//! Every encoding of MRS, MSR, SYS and SYSL, one after the other, and what comes of it.
//!
//! Each register is read, and written with what it was read as, so that nothing changes for the program; one that cannot
//! be read gets a value that does nothing wherever the architecture has such a register. System instructions get the
//! address of a page that holds nothing. So all of this can be done at the level at which the program runs.

use crate::code::{self, Encoding, RET};
use crate::exception::Fault;
use crate::{args, cpu, expect_exception};
use core::sync::atomic::{AtomicU32, Ordering};

/// What came of one encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The value, or the exception, of MRS or SYSL.
    pub read: Result<u64, Fault>,
    /// The exception, if there was one, of MSR or SYS.
    pub written: Result<(), Fault>,
}

/// Encodings with the same op0, op1 and CRn.
const GROUP: usize = 128;

#[repr(align(4096))]
struct Page([AtomicU32; 1024]);

/// For each encoding of a group: MRS, RET, MSR, RET.
static CODE: Page = Page([const { AtomicU32::new(RET) }; 1024]);
/// What maintenance by address and DC ZVA are done to.
static NOTHING: Page = Page([const { AtomicU32::new(0) }; 1024]);

/// What is written to a register that reads as `value`.
fn harmless(encoding: Encoding, value: Option<u64>) -> u64 {
    match (encoding.fields(), value) {
        // By set and way: the first of the first level.
        ((1, 0, 7, 6 | 10 | 14, 2 | 4 | 6), _) => 0,
        ((1, ..), _) => NOTHING.0.as_ptr() as u64,
        (_, Some(value)) => value,
        // ICC_EOIR0_EL1, ICC_EOIR1_EL1, ICC_DIR_EL1: no interrupt.
        ((3, 0, 12, 8 | 12, 1) | (3, 0, 12, 11, 1), None) => 1023,
        (_, None) => 0,
    }
}

/// Whether it is left alone: DC ISW and its kin, which lose data where nobody makes them clean, too.
fn is_left_alone(encoding: Encoding) -> bool {
    !args::strict() && matches!(encoding.fields(), (1, 0, 7, 6, 2 | 4 | 6))
}

/// Calls `each` with each encoding and its answer. Of CPU 0 only.
pub fn all(mut each: impl FnMut(Encoding, Answer)) {
    assert!(cpu::index() == 0, "one CPU's");
    for group in 0..3 * 8 * 16u32 {
        let encoding = |n: usize| {
            // Below 128.
            let n = n as u32;
            Encoding::new(1 + (group >> 7), group >> 4 & 7, group & 15, n >> 3, n & 7)
        };
        for n in 0..GROUP {
            CODE.0[4 * n].store(encoding(n).read_word(), Ordering::Relaxed);
            CODE.0[4 * n + 2].store(encoding(n).write_word(), Ordering::Relaxed);
        }
        code::publish(&CODE.0[..4 * GROUP]);
        for n in 0..GROUP {
            let encoding = encoding(n);
            if !is_left_alone(encoding) {
                each(encoding, answer(n, encoding));
            }
        }
    }
}

fn answer(n: usize, encoding: Encoding) -> Answer {
    let call = |at: usize, x0: u64| {
        let mut value = 0;
        let place = CODE.0[at..].as_ptr() as u64;
        // SAFETY: the place holds MRS, MSR, SYS or SYSL, and RET. What is written is what was there, or does nothing
        // (`harmless`); what is maintained is a page that nobody uses.
        let fault = expect_exception(|| value = unsafe { code::jump(place, [x0, 0, 0, 0]) }[0]);
        fault.map_or(Ok(value), Err)
    };
    let read = call(4 * n, 0);
    let written = call(4 * n + 2, harmless(encoding, read.ok())).map(|_| ());
    Answer { read, written }
}
