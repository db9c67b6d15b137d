//! The identity map, 39 bits in 1 GiB blocks: RAM is Normal write-back, all else Device.
//!
//! start.S brings the first two blocks; the rest is added here, once, before other CPUs are on. At [`FETCH`] there is a
//! second view of the first GiB from which the CPU may fetch instructions, for guests that misbehave on purpose; at [`USER`]
//! a third view of RAM that EL0 may read and run, for programs at EL2 with an EL0 of their own. There are two tables with
//! the same map: one for EL2 as long as E2H is clear, and one for all else. Follows Arm ARM D8.3 (descriptors).

use crate::cpu::{self, write_register};
use crate::{board, ram, read_register};
use core::sync::atomic::{AtomicU64, Ordering};

/// Where the executable view of the devices begins.
pub const FETCH: u64 = 256 << 30;

/// Where the view that EL0 has of RAM begins.
pub const USER: u64 = 300 << 30;

const GIB: u64 = 1 << 30;
const DEVICE: u64 = 0x0060_0000_0000_0401;
const DEVICE_EXECUTABLE: u64 = 0x401;
const NORMAL: u64 = 0x0040_0000_0000_0705;
/// What differs for EL2 without E2H: AP[1] is RES1. Bits 54 and 53 are XN and RES0, as good as UXN and PXN here.
const EL2: u64 = 1 << 6;
const NORMAL_EL2: u64 = 0x745;

unsafe extern "C" {
    static rt_tables: [AtomicU64; 512];
    static rt_tables_el2: [AtomicU64; 512];
}

/// Adds the blocks that start.S could not know.
pub(crate) fn complete() {
    for index in 2..256u64 {
        let start = index * GIB;
        // As many blocks as RAM has begun: the board puts no device into the rest of RAM's last GiB.
        let is_ram = start < ram::end();
        enter(index as usize, start | if is_ram { NORMAL } else { DEVICE });
        enter_el2(index as usize, start | if is_ram { NORMAL_EL2 } else { DEVICE & !(1 << 53) | EL2 });
    }
    enter((FETCH / GIB) as usize, DEVICE_EXECUTABLE);
    // Normal, read-only for all, PXN.
    enter((USER / GIB) as usize, board::RAM | 0x0020_0000_0000_07c5);
    enter_el2((FETCH / GIB) as usize, DEVICE_EXECUTABLE | EL2);
    cpu::barrier();
}

/// Fills an entry that was invalid, which needs no TLB maintenance (Arm ARM D8.17.1).
fn enter(index: usize, descriptor: u64) {
    // SAFETY: the table is in .data, aligned, 512 entries, and used only as atomics.
    let table = unsafe { &rt_tables };
    table[index].store(descriptor, Ordering::Release);
}

/// The same for the table of EL2.
fn enter_el2(index: usize, descriptor: u64) {
    // SAFETY: as above.
    let table = unsafe { &rt_tables_el2 };
    table[index].store(descriptor, Ordering::Release);
}

/// Returns the address in [`USER`] of an address in the first GiB of RAM.
pub fn for_user(address: u64) -> u64 {
    assert!((board::RAM..board::RAM + GIB).contains(&address), "{address:#x} is not in the first GiB of RAM");
    USER + (address - board::RAM)
}

/// Returns an address in [`FETCH`] for a device address below RAM.
pub fn fetchable(address: u64) -> u64 {
    assert!(address < board::RAM, "only devices have an executable view");
    FETCH + address
}

/// Whether the CPU sets access flags itself (ID_AA64MMFR1_EL1.HAFDBS).
pub fn has_access_flags() -> bool {
    read_register!("id_aa64mmfr1_el1") & 0xf != 0
}

/// Lets this CPU set access flags itself, or not (TCR_EL1.HA).
pub fn set_access_flags(on: bool) {
    let others = read_register!("tcr_el1") & !(1 << 39);
    // SAFETY: the program's own tables have their access flags set; there is nothing to change in them.
    unsafe { write_register!("tcr_el1", others | u64::from(on) << 39) };
    cpu::isb();
}

/// Enters `tables` as entry `index` of the first table: a table whose first two entries are tables of pages, all of
/// Normal memory that is free. Returns the view of it.
pub fn view(index: usize, tables: &'static [AtomicU64]) -> &'static [AtomicU64] {
    assert!(tables.len() == 512, "a table has 512 entries");
    enter(index, tables.as_ptr() as u64 | 0b11);
    cpu::barrier();
    // SAFETY: 4 MiB that the tables map to free memory, which is only ever used as atomics; no object is at these addresses.
    unsafe { core::slice::from_raw_parts((index as u64 * GIB) as *const AtomicU64, (4 << 20) / 8) }
}
