//! Free RAM by the piece, for guests and their tables: taken in order, zeroed, all given back at once.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use rt::ram;

static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Gives everything back.
pub(crate) fn reset() {
    NEXT.store(0, Ordering::SeqCst);
}

/// Takes `bytes` of zeros, aligned to `align`, a power of two.
pub(crate) fn take(bytes: u64, align: u64) -> &'static [AtomicU64] {
    let free = ram::largest_free();
    let base = address(free);
    let start = (base + NEXT.load(Ordering::SeqCst) as u64).next_multiple_of(align);
    let from = (start - base) as usize;
    NEXT.store(from + bytes as usize, Ordering::SeqCst);
    let words = &free[from / 8..][..bytes as usize / 8];
    for word in words {
        word.store(0, Ordering::Relaxed);
    }
    words
}

/// The physical address of words.
pub(crate) fn address(words: &[AtomicU64]) -> u64 {
    words.as_ptr() as u64
}

/// The words at a physical address that was taken before.
pub(crate) fn at(address: u64, bytes: u64) -> &'static [AtomicU64] {
    let free = ram::largest_free();
    let from = (address - self::address(free)) as usize / 8;
    &free[from..][..bytes as usize / 8]
}
