//! The one seam: what thought may ask of the machine.
//!
//! [`Machine`] is implemented by the cellar for EL2 and by the tests as an adversary that remembers translations and
//! delays stores. Everything upstairs is generic over it and touches memory, TLBs and caches in no other way.

use crate::addr::{Addr, Ipa, Pa, Size, Vmid};
use core::sync::atomic::AtomicU64;

/// The words of one 4 KiB frame. Atomics, because a guest may write while we look.
pub type Words = [AtomicU64; 512];

/// Which cached translations the hardware has to forget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Forget {
    /// Those of one leaf of this size, under this VMID: by IPA, with the stage-1 follow-up (Arm ARM D8.14).
    Leaf(Vmid, Addr<Ipa>, Size),
    /// All of one VMID, stages 1 and 2.
    Vmid(Vmid),
    /// All of every VMID.
    All,
}

/// How far a cleaned range must be seen (Arm ARM B2.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// By every observer, with caches off too: point of coherency.
    Coherency,
    /// By instruction fetch: point of unification, instruction caches included.
    Unification,
}

/// What the machine does for us. Addresses handed in must be of RAM that the frame pool knows; that is an invariant of
/// the callers, not a check made here.
pub trait Machine {
    /// Reads the descriptor at `at`, 64-bit single-copy atomic.
    fn load(&self, at: Addr<Pa>) -> u64;
    /// Writes the descriptor at `at`, 64-bit single-copy atomic. Seen by table walkers after [`Machine::publish`].
    fn store(&self, at: Addr<Pa>, value: u64);
    /// The words of the frame at `frame`, which must be aligned to 4 KiB.
    fn frame(&self, frame: Addr<Pa>) -> &Words;
    /// Zeroes `size` bytes' worth of frames from `start`, aligned to `size`.
    fn zero(&self, start: Addr<Pa>, size: Size);
    /// Makes earlier stores seen by every table walker (DSB ISHST, Arm ARM D8.2.6) and by this CPU's next instruction.
    fn publish(&self);
    /// Makes every CPU forget cached translations, and waits for it.
    fn forget(&self, what: Forget);
    /// Cleans `bytes` from `start` to `point`.
    fn clean(&self, start: Addr<Pa>, bytes: u64, point: Point);
}
