//! Register blocks of devices: a shared reference to each, at a mapped device window.

use super::mmu::{self, MapError};
use core::ops::Deref;
use platform::range::Range;

/// A device's registers, usable from every CPU.
pub(crate) struct Mmio<T: 'static>(&'static T);

impl<T> Clone for Mmio<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Mmio<T> {}

// SAFETY: a register block is a window of volatile, single-copy atomic device registers, the same from every CPU. Blocks
// whose registers have side effects across accesses are used by one CPU at a time: the UART under the console's lock,
// the disk under its own, the distributor by read-free writes of set and clear registers.
unsafe impl<T> Sync for Mmio<T> {}
// SAFETY: as above.
unsafe impl<T> Send for Mmio<T> {}

impl<T> Deref for Mmio<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        self.0
    }
}

impl<T> Mmio<T> {
    /// The registers for as long as the board is up.
    pub(crate) const fn get(self) -> &'static T {
        self.0
    }
}

/// Maps the window at `base` and returns the register block `T` that lies there.
///
/// # Safety
/// A device with the registers `T` must lie at physical address `base`: the board's device tree said so.
pub(crate) unsafe fn registers<T>(base: u64) -> Result<Mmio<T>, MapError> {
    let size = core::mem::size_of::<T>() as u64;
    let at = mmu::map_device(Range { start: base, end: base + size })?;
    // SAFETY: the window is mapped for good as Device memory; `T` is a block of volatile cells, valid for any bits; the
    // caller vouches for the device.
    Ok(Mmio(unsafe { &*(at as *const T) }))
}

/// The register block `T` at `base`, which [`mmu::map_device`] has mapped.
///
/// # Safety
/// As for [`registers`], and the window must have been mapped.
pub(crate) unsafe fn mapped<T>(base: u64) -> Mmio<T> {
    // SAFETY: the caller's promise.
    Mmio(unsafe { &*(mmu::device(base) as *const T) })
}
