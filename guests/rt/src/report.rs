//! The verdict: checks counted over all CPUs, the last line, and what becomes of a panic.

use crate::{console, cpu, println, psci};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

static CHECKS: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);
static QUIET: AtomicBool = AtomicBool::new(false);
static AGAIN: AtomicBool = AtomicBool::new(false);
static NAME: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static NAME_LENGTH: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn set_name(name: &'static str) {
    NAME_LENGTH.store(name.len(), Ordering::SeqCst);
    NAME.store(name.as_ptr().cast_mut(), Ordering::SeqCst);
}

/// Returns the name of this guest.
pub fn name() -> &'static str {
    let at = NAME.load(Ordering::SeqCst);
    if at.is_null() {
        return "unnamed";
    }
    // SAFETY: pointer and length are those of one `&'static str`, and the pointer was written last.
    unsafe { core::str::from_utf8_unchecked(core::slice::from_raw_parts(at, NAME_LENGTH.load(Ordering::SeqCst))) }
}

/// Prints no check that holds from here on, for guests with very many of them.
pub fn be_quiet() {
    QUIET.store(true, Ordering::SeqCst);
}

/// Has the guest start again where it would end, without a verdict.
pub fn live_again() {
    AGAIN.store(true, Ordering::SeqCst);
}

/// Returns how many checks there were, and how many of them failed.
pub fn counts() -> (u64, u64) {
    (CHECKS.load(Ordering::SeqCst), FAILED.load(Ordering::SeqCst))
}

/// Counts and prints a check; use [`check!`].
pub fn check(name: core::fmt::Arguments<'_>, why: Option<core::fmt::Arguments<'_>>) {
    CHECKS.fetch_add(1, Ordering::SeqCst);
    match why {
        None if QUIET.load(Ordering::Relaxed) => {}
        None => println!("ok {name}"),
        Some(why) => {
            FAILED.fetch_add(1, Ordering::SeqCst);
            if QUIET.load(Ordering::Relaxed) {
                println!("{}: FAIL {name}: {why}", self::name());
            } else {
                println!("FAIL {name}: {why}");
            }
        }
    }
}

/// Prints the verdict and turns the board off.
pub fn finish() -> ! {
    let (n, failed) = (CHECKS.load(Ordering::SeqCst), FAILED.load(Ordering::SeqCst));
    match failed {
        0 => println!("guest {}: PASS ({n} checks)", name()),
        _ => println!("guest {}: FAIL ({failed} of {n})", name()),
    }
    psci::system_off()
}

/// Ends the guest at once: the verdict is FAIL.
pub fn abandon(why: &str) -> ! {
    if AGAIN.load(Ordering::SeqCst) {
        psci::system_reset();
    }
    let n = CHECKS.load(Ordering::SeqCst) + 1;
    println!("FAIL {why}");
    println!("guest {}: FAIL ({} of {n})", name(), FAILED.load(Ordering::SeqCst) + 1);
    psci::system_off()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    cpu::mask();
    console::break_lock();
    println!("CPU {}: {info}", cpu::index());
    abandon("panic")
}

/// Checks a condition: `check!(condition, "what holds")` or `check!(condition, "what holds", "why it may not: {}", x)`.
#[macro_export]
macro_rules! check {
    ($condition:expr, $name:literal $(,)?) => {
        $crate::check!($condition, $name, "{}", stringify!($condition))
    };
    ($condition:expr, $name:literal, $($why:tt)+) => {
        if $condition {
            $crate::report::check(format_args!($name), None)
        } else {
            $crate::report::check(format_args!($name), Some(format_args!($($why)+)))
        }
    };
}

/// Checks that two numbers are equal, and prints both in hexadecimal if not.
#[macro_export]
macro_rules! check_eq {
    ($got:expr, $want:expr, $name:literal $(,)?) => {{
        let (got, want) = ($got, $want);
        $crate::check!(got == want, $name, "got {:#x}, want {:#x}", got, want)
    }};
}
