//! The heap: small, for building VMs, for loading what they start from, and for what the operator sees. The exit path does not
//! allocate: what is allocated after boot is counted, and the monitor's `check` tells.

use buddy_system_allocator::Heap;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::mutex::SpinMutex;

/// How often something was allocated.
static COUNT: AtomicU64 = AtomicU64::new(0);

struct Locked(SpinMutex<Heap<24>>);

#[global_allocator]
static HEAP: Locked = Locked(SpinMutex::new(Heap::new()));

// SAFETY: `Heap` hands out blocks of at least the layout's size and alignment from memory given to `init` alone, each
// to one owner at a time; the lock serialises the CPUs, and interrupts are masked at EL2, so no handler re-enters it.
unsafe impl GlobalAlloc for Locked {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        self.0.lock().alloc(layout).map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: `GlobalAlloc`'s contract: `block` came from `alloc` with this layout and is given back once.
            unsafe { self.0.lock().dealloc(block, layout) };
        }
    }
}

/// How often something was allocated since boot began.
pub(crate) fn allocations() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// Gives the heap its memory.
///
/// # Safety
/// `start..start + bytes` must be mapped RAM that nothing else uses, for good.
pub(crate) unsafe fn init(start: u64, bytes: usize) {
    // SAFETY: the caller's promise is the one `Heap::init` asks for.
    unsafe { HEAP.0.lock().init(start as usize, bytes) };
}

/// Gives the heap more.
///
/// # Safety
/// As for [`init`].
pub(crate) unsafe fn grow(start: u64, bytes: usize) {
    // SAFETY: the caller's promise is the one `Heap::add_to_heap` asks for.
    unsafe { HEAP.0.lock().add_to_heap(start as usize, start as usize + bytes) };
}
