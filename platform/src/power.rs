//! Starting, restarting and switching off: PSCI's numbers, and the BCM2835 power management block.
//!
//! The SMC or HVC itself takes assembly and is made by whoever calls.

pub mod psci;
pub mod watchdog;
