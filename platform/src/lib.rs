//! What Flatland knows of boards: facts from the device tree, and drivers for the few devices a hypervisor touches.
//!
//! | room | owns |
//! |---|---|
//! | [`range`] | [`Range`], a stretch of physical addresses, and sorted lists of them |
//! | [`tree`] | the board's flattened device tree: checked, then read; `ranges` applied |
//! | [`board`] | [`Board`]: memory, CPUs, interrupt controller, UART and the rest, as data |
//! | [`uart`] | PL011 and the BCM2835 mini-UART behind one [`uart::Port`] |
//! | [`gic`] | GICv2 and GICv3 as seen from EL2, without system registers |
//! | [`blk`] | virtio-blk over virtio-mmio, polled: a disk to swap to |
//! | [`gpt`] | where a partition of a disk lies, by its name |
//! | [`power`] | PSCI's numbers and the BCM2835 watchdog |
//!
//! Invariants: no `unsafe`, no allocation, no `static`; no board is known by name, only devices by `compatible`. A driver
//! is handed `&Registers` by whoever made the reference, so the same structure can lie in ordinary memory in a test.
//!
//! Drivers issue no barriers, because that takes assembly. An access to Device memory is ordered with other accesses to
//! the same device; where a driver needs more (stores to ordinary memory visible before an SGI), its documentation says
//! which barrier the caller owes.

#![no_std]
#![forbid(unsafe_code)]

pub mod blk;
pub mod board;
pub mod gic;
pub mod gpt;
pub mod power;
pub mod range;
pub mod tree;
pub mod uart;

pub use board::{Board, BoardError};
pub use range::Range;
