//! The harness: boards under QEMU and the adversarial machine.

pub mod model;
pub mod qemu;
