//! The part of the CPU's state that only a vCPU with an EL2 of its own has.
//!
//! [`transition`] goes from its hypervisor to the guest of that and back. What it needs for it: [`registers`] and [`traps`] EL2's
//! registers, [`shadow`] the guest's memory, [`regime`] a virtual EL2's own at EL0, [`lists`] the guest's interrupt interface and [`interfaces`] whose the
//! CPU's is, [`timers`] four timers on one.

pub mod interfaces;
pub mod lists;
pub mod regime;
pub mod registers;
pub mod shadow;
pub mod timers;
pub mod transition;
pub mod traps;
