//! Exceptions: what is expected is caught and skipped, interrupts go to a hook, all else is reported and ends the guest.
//!
//! Follows Arm ARM D1.3 (entry), D24.2.40 (ESR_EL1).

use crate::{cpu, debug, println, report};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// The registers as vectors.S saves them.
#[repr(C)]
pub struct Frame {
    /// x0 to x30.
    pub x: [u64; 31],
    /// Where to return to.
    pub elr: u64,
    /// State to return to.
    pub spsr: u64,
    /// Syndrome.
    pub esr: u64,
    /// Faulting address.
    pub far: u64,
    _pad: u64,
}

/// What an expected exception said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1.
    pub far: u64,
    /// ELR_EL1.
    pub elr: u64,
}

/// Exception class of an UNDEFINED instruction.
pub const UNDEF: u64 = 0x00;
/// Exception class of an instruction abort at this Exception level.
pub const INSTRUCTION_ABORT: u64 = 0x21;
/// Exception class of a data abort at this Exception level.
pub const DATA_ABORT: u64 = 0x25;

impl Fault {
    /// Returns the exception class.
    pub fn class(&self) -> u64 {
        self.esr >> 26 & 0x3f
    }

    /// Returns whether it is a synchronous external abort on data (DFSC 0x10), not on a table walk.
    pub fn is_external_abort(&self) -> bool {
        matches!(self.class(), DATA_ABORT | INSTRUCTION_ABORT) && self.esr & 0x3f == 0x10
    }
}

struct Expectation {
    armed: AtomicBool,
    seen: AtomicU64,
    esr: AtomicU64,
    far: AtomicU64,
    elr: AtomicU64,
}

static EXPECTED: [Expectation; cpu::MAX] = [const {
    Expectation {
        armed: AtomicBool::new(false),
        seen: AtomicU64::new(0),
        esr: AtomicU64::new(0),
        far: AtomicU64::new(0),
        elr: AtomicU64::new(0),
    }
}; cpu::MAX];

/// How many single steps of a CPU are remembered.
const STEPS: usize = 16;

/// Where single steps ended, a row for each CPU, and how many there were.
static TRACE: [([AtomicU64; STEPS], AtomicUsize); cpu::MAX] =
    [const { ([const { AtomicU64::new(0) }; STEPS], AtomicUsize::new(0)) }; cpu::MAX];

static IRQ: AtomicUsize = AtomicUsize::new(0);
static SERRORS: AtomicU64 = AtomicU64::new(0);

/// Runs `f`; if an instruction in it takes a synchronous exception, that instruction is skipped and the first exception
/// is returned.
pub fn expect_exception(f: impl FnOnce()) -> Option<Fault> {
    let slot = &EXPECTED[cpu::index()];
    slot.seen.store(0, Ordering::SeqCst);
    slot.armed.store(true, Ordering::SeqCst);
    f();
    cpu::barrier();
    slot.armed.store(false, Ordering::SeqCst);
    (slot.seen.load(Ordering::SeqCst) != 0).then(|| Fault {
        esr: slot.esr.load(Ordering::SeqCst),
        far: slot.far.load(Ordering::SeqCst),
        elr: slot.elr.load(Ordering::SeqCst),
    })
}

/// Returns where this CPU's single steps ended since the last call, and how many there were: the first few alone are told.
pub fn take_steps() -> ([u64; STEPS], usize) {
    let (places, count) = &TRACE[cpu::index()];
    (core::array::from_fn(|at| places[at].swap(0, Ordering::SeqCst)), count.swap(0, Ordering::SeqCst))
}

/// Makes `hook` what every CPU calls for an interrupt; it has to acknowledge and end it.
pub fn set_irq_hook(hook: fn()) {
    IRQ.store(hook as usize, Ordering::SeqCst);
}

/// Returns how many SErrors were taken while exceptions were expected.
pub fn n_serrors() -> u64 {
    SERRORS.load(Ordering::SeqCst)
}

#[unsafe(no_mangle)]
extern "C" fn rt_exception(frame: &mut Frame, kind: u64) {
    match kind {
        4 => synchronous(frame),
        // SVC of `debug::user`: it goes on at EL1 where x10 says.
        8 if frame.esr >> 26 == 0x15 => (frame.elr, frame.spsr) = (frame.x[10], 0x3c5),
        8 => synchronous(frame),
        5 => interrupt(frame),
        7 if EXPECTED[cpu::index()].armed.load(Ordering::SeqCst) => {
            SERRORS.fetch_add(1, Ordering::SeqCst);
        }
        _ => unexpected(frame, kind),
    }
}

fn synchronous(frame: &mut Frame) {
    let slot = &EXPECTED[cpu::index()];
    if !slot.armed.load(Ordering::SeqCst) {
        unexpected(frame, 4);
    }
    let class = frame.esr >> 26;
    if class & !1 == debug::STEP {
        let (places, count) = &TRACE[cpu::index()];
        if let Some(place) = places.get(count.fetch_add(1, Ordering::SeqCst)) {
            place.store(frame.elr, Ordering::SeqCst);
        }
        // The next one, for as long as MDSCR_EL1.SS is set.
        frame.spsr |= 1 << 21;
        return;
    }
    if slot.seen.fetch_add(1, Ordering::SeqCst) == 0 {
        slot.esr.store(frame.esr, Ordering::SeqCst);
        slot.far.store(frame.far, Ordering::SeqCst);
        slot.elr.store(frame.elr, Ordering::SeqCst);
    }
    // Whatever faults outside the program was jumped to by `code::call`: go back to the caller.
    let (start, end) = crate::ram::image();
    // What comes from PSTATE.IL does not bring it back.
    frame.spsr &= !(1 << 20);
    let is_debug = matches!(class & !1, debug::BREAKPOINT | debug::WATCHPOINT);
    frame.elr = if is_debug || (start..end).contains(&frame.elr) { frame.elr + 4 } else { frame.x[30] };
}

fn interrupt(frame: &mut Frame) {
    let hook = IRQ.load(Ordering::SeqCst);
    if hook == 0 {
        unexpected(frame, 5);
    }
    // SAFETY: only `set_irq_hook` writes it, always with such a function.
    let hook = unsafe { core::mem::transmute::<usize, fn()>(hook) };
    hook();
}

fn unexpected(frame: &Frame, kind: u64) -> ! {
    println!(
        "unexpected exception, vector {kind}, CPU {}: esr {:#010x} elr {:#x} far {:#x} spsr {:#x} lr {:#x}",
        cpu::index(),
        frame.esr,
        frame.elr,
        frame.far,
        frame.spsr,
        frame.x[30]
    );
    report::abandon("unexpected exception")
}
