//! The harness: boards under QEMU and the adversarial machine.
