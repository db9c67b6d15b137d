//! The identity map, 39 bits in 1 GiB blocks: RAM is Normal write-back, all else Device.
//!
//! start.S brings the first two blocks; the rest is added here, once, before other CPUs are on. At [`FETCH`] there is a
//! second view of the first GiB from which the CPU may fetch instructions, for guests that misbehave on purpose.
//! Follows Arm ARM D8.3 (descriptors).

use crate::{board, cpu, ram};
use core::sync::atomic::{AtomicU64, Ordering};

/// Where the executable view of the devices begins.
pub const FETCH: u64 = 256 << 30;

const GIB: u64 = 1 << 30;
const DEVICE: u64 = 0x0060_0000_0000_0401;
const DEVICE_EXECUTABLE: u64 = 0x401;
const NORMAL: u64 = 0x0040_0000_0000_0705;

unsafe extern "C" {
    static rt_tables: [AtomicU64; 512];
}

/// Adds the blocks that start.S could not know.
pub(crate) fn complete() {
    for index in 2..256u64 {
        let start = index * GIB;
        // As many blocks as RAM has begun: the board puts no device into the rest of RAM's last GiB.
        let kind = if start < ram::end() { NORMAL } else { DEVICE };
        enter(index as usize, start | kind);
    }
    enter((FETCH / GIB) as usize, DEVICE_EXECUTABLE);
    cpu::barrier();
}

/// Fills an entry that was invalid, which needs no TLB maintenance (Arm ARM D8.17.1).
fn enter(index: usize, descriptor: u64) {
    // SAFETY: the table is in .data, aligned, 512 entries, and used only as atomics.
    let table = unsafe { &rt_tables };
    table[index].store(descriptor, Ordering::Release);
}

/// Returns an address in [`FETCH`] for a device address below RAM.
pub fn fetchable(address: u64) -> u64 {
    assert!(address < board::RAM, "only devices have an executable view");
    FETCH + address
}
