//! One VM's memory: the only room that writes its descriptors.
//!
//! [`Memory`] is a VM's RAM and the devices handed through to it, in one stage-2 table whose descriptors are the only
//! record of what backs a page. RAM is allocated on first touch: [`Memory::resolve`] is the one way to a page, for the
//! guest's faults and for our own copies ([`access`]) alike, so that a page comes back whoever asks, from wherever it is.
//! [`change`] maps devices, splits and joins, and gives everything back; [`share`] merges pages, [`pack`] compresses and
//! swaps them, [`balloon`] takes what the guest gives, [`blocks`] keeps what it changes of disks, [`sample`] notices which are used. [`stage1`] reads a guest's own
//! tables for crash reports. A guest hypervisor's tables are read by [`nested_walk`] and folded with ours by [`shadow`]; those of its
//! own EL2, where the hardware cannot walk them, by [`el2_walk`] and [`el2_shadow`].
//!
//! ```text
//!              ┌──────────── share ───────────┐        leaf, written by whoever may
//!  Absent ─touch─▶ Own ─────────────────▶ Shared       leaf, copied on write
//!     ▲             │  ◀─── write ────────────┘
//!     │ zero,       │ pack          swap
//!     │ balloon     ▼                               any hole ─touch─▶ Own, by `fault` alone
//!     └────────── Packed       Swapped
//! ```
//!
//! A vCPU enters by [`Root`], which needs no lock.
//!
//! # Caches
//!
//! A guest starts with its MMU and caches off and then reads past the caches, whatever stage 2 says: the stages combine to
//! the stricter type (Arm ARM D8.6). So the zeroes of a fresh page are cleaned to the point of coherency before it is
//! mapped, or the guest could read what another VM had left in DRAM. With FEAT_S2FWB ([`Coherence::Forced`]) stage 2
//! makes every access cacheable, and the cleaning is not needed.
//!
//! # Invariants
//!
//! * Each Normal leaf names frames that the pool has recorded as this VM's and that no other leaf names; or it is marked
//!   shared and read-only, and names a frame that the pool has recorded as shared, once for each leaf.
//! * A packed or swapped hole names a place in the store or the swap area that nothing else names.
//! * RAM and devices do not overlap; no device leaf is ever read or written by us.
//! * The caller holds the VM's memory lock (`&mut Memory`) and may not hold the pool's: it is taken inside.

pub mod access;
pub mod balloon;
pub mod blocks;
pub mod change;
pub mod check;
pub mod el2_shadow;
pub mod el2_vectors;
pub mod el2_walk;
pub mod fault;
pub mod flush;
mod miss;
pub mod nested_walk;
pub mod pack;
mod reverse;
pub mod sample;
pub mod shadow;
mod shadows;
pub mod share;
pub mod stage1;
mod state;

pub use crate::arm::esr::Access;
pub use miss::Miss;
pub use state::{Coherence, Granule, Layout, Memory, RAM_BASE, Resident, Root};
use state::{Tables, give_back};
