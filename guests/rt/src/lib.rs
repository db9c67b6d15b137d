//! The run-time of the test guests: from the first instruction to the verdict.
//!
//! A guest is a bare-metal AArch64 program for QEMU's `virt` board, and so for Flatland. It runs at EL1, or at EL2 where it
//! is started there. It is a `fn main()` handed
//! to [`guest!`]; it prints `ok NAME` or `FAIL NAME: why` for each [`check!`], then one line `guest BIN: PASS (n checks)`
//! or `guest BIN: FAIL (n of m)`, and turns its board off. All `unsafe` of the guests is in this library: what it offers
//! is safe to call in any order, because nothing it offers can reach memory that a Rust object owns ([`mmio`], [`ram`])
//! or run code that is not here ([`psci`], [`code`]).
//!
//! Floors, each may use those above it: [`board`], [`cpu`], [`mmio`] | [`console`], [`fdt`], [`psci`], [`exception`] |
//! [`args`], [`gic`], [`timer`], [`ram`], [`mmu`], [`debug`], [`code`], [`fp`], [`random`] | [`smp`], [`report`], [`el2`], [`sweep`].

#![no_std]

pub mod args;
pub mod board;
pub mod code;
pub mod console;
pub mod cpu;
pub mod debug;
pub mod el2;
pub mod exception;
pub mod fdt;
pub mod fp;
pub mod gic;
pub mod measure;
pub mod mmio;
pub mod mmu;
pub mod odd;
pub mod psci;
pub mod ram;
pub mod random;
pub mod report;
pub mod smp;
pub mod start;
pub mod sweep;
pub mod timer;
pub mod virtio;

pub use exception::{Fault, expect_exception};

/// Makes `main` the guest: `rt::guest!(main);` once in each program.
#[macro_export]
macro_rules! guest {
    ($main:path) => {
        // SAFETY: the name is this macro's own, and it is used once in a program.
        #[unsafe(no_mangle)]
        extern "Rust" fn rt_guest() -> (&'static str, fn()) {
            (env!("CARGO_BIN_NAME"), $main)
        }
    };
}
