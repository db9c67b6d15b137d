//! RAM that is nobody's: all but the image, the device tree and the initrd, seen as atomics and so safe to share.

use crate::board;
use core::sync::atomic::{AtomicU64, Ordering};

static END: AtomicU64 = AtomicU64::new(0);
/// Start and end of what is taken, behind the image: device tree and initrd.
static TAKEN: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
}

/// Returns the first address behind RAM; all ones before the device tree is read.
#[inline(always)]
pub fn end() -> u64 {
    match END.load(Ordering::Relaxed) {
        0 => u64::MAX,
        end => end,
    }
}

pub(crate) fn set_end(end: u64) {
    END.store(end, Ordering::Relaxed);
}

pub(crate) fn reserve(tree: u64, size: u64, initrd: (u64, u64)) {
    for (slot, value) in TAKEN.iter().zip([tree, tree + size, initrd.0, initrd.1]) {
        slot.store(value, Ordering::Relaxed);
    }
}

/// Returns the addresses of the image: first, and first behind it (stacks included).
pub fn image() -> (u64, u64) {
    (&raw const __image_start as u64, &raw const __image_end as u64)
}

/// Calls `each` with every free run of whole 4 KiB pages, as words.
///
/// The first page of RAM is left out: QEMU keeps its boot stub there.
pub fn each_free(mut each: impl FnMut(&'static [AtomicU64])) {
    let [tree, tree_end, initrd, initrd_end] = [0, 1, 2, 3].map(|i| TAKEN[i].load(Ordering::Relaxed));
    let mut taken = [image(), (tree, tree_end), (initrd, initrd_end)];
    taken.sort_unstable();
    let mut from = board::RAM + 0x1000;
    let last = END.load(Ordering::Relaxed);
    for (start, end) in taken.into_iter().filter(|(start, end)| end > start).chain([(last, last)]) {
        let to = start & !0xfff;
        if to > from {
            // SAFETY: within RAM, mapped Normal by `mmu`, aligned, disjoint from image (with stacks), tree and initrd:
            // no other Rust object is there, and what is handed out, even twice, is only ever used as atomics.
            each(unsafe { core::slice::from_raw_parts(from as *const AtomicU64, ((to - from) / 8) as usize) });
        }
        from = from.max(end.next_multiple_of(0x1000));
    }
}

/// Returns the largest free run.
pub fn largest_free() -> &'static [AtomicU64] {
    let mut best: &'static [AtomicU64] = &[];
    each_free(|run| {
        if run.len() > best.len() {
            best = run;
        }
    });
    best
}
