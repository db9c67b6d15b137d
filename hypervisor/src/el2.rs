//! EL2 itself: all assembly, system registers, raw memory and device windows, and all `unsafe` of the hypervisor.
//!
//! No decision is taken here that the library could take. EL2 runs with interrupts masked: an interrupt is an exit like
//! any other, so no lock is ever taken in a handler.

pub(crate) mod context;
pub(crate) mod cpu;
pub(crate) mod debug;
pub(crate) mod disk;
pub(crate) mod entropy;
pub(crate) mod entry;
pub(crate) mod guest;
pub(crate) mod heap;
pub(crate) mod irq;
pub(crate) mod lists;
pub(crate) mod logger;
pub(crate) mod machine;
pub(crate) mod masked;
pub(crate) mod mmio;
pub(crate) mod mmu;
pub(crate) mod panic;
pub(crate) mod percpu;
pub(crate) mod power;
pub(crate) mod run;
pub(crate) mod smp;
pub(crate) mod sysreg;
pub(crate) mod timer;
pub(crate) mod uart;

core::arch::global_asm!(include_str!("el2/boot.S"), options(raw));
core::arch::global_asm!(include_str!("el2/vectors.S"), options(raw));
core::arch::global_asm!(include_str!("el2/fp.S"), options(raw));
core::arch::global_asm!(include_str!("el2/el0_vectors.S"), options(raw));
