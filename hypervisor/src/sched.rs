//! Which vCPU runs where, and when.
//!
//! [`Queue`] is the one run queue of all CPUs, pure and behind one lock of the caller's; an [`EntityId`] names a vCPU in
//! it, a [`CpuSet`] a set of CPUs (an affinity, or the CPUs to kick), a [`Turn`] is the outcome of a pick. [`Frequency`]
//! converts between counter ticks and nanoseconds. Time is an argument in ticks, never a call.
//!
//! Neighbours: [`crate::addr`] below; the loop each CPU runs, `vm` and `exit` above.

mod cpus;
mod entity;
mod queue;
mod time;

pub use cpus::CpuSet;
pub use entity::{EntityId, EntityState};
pub use queue::{Full, Queue, Turn};
pub use time::{Frequency, earliest};
