//! The harness: boards under QEMU, the adversarial machine and a CPU on it.

pub mod cpu;
pub mod model;
pub mod qemu;
pub mod race;
pub mod source;
pub mod touch;
