//! EL2's own stage-1 map: what boot.S began, made complete.
//!
//! | virtual | what | rights |
//! |---|---|---|
//! | `IMAGE` | the image, 4 KiB pages, each section its own | text RX, rodata RO, the rest RW |
//! | `LINEAR + pa` | all RAM of the board, largest leaves that fit | RW, never executed |
//! | `STACKS + n * 64 KiB` | each CPU's stack, an unmapped guard below | RW |
//! | `MMIO + pa` | device windows, 4 KiB pages, nGnRE | RW |
//!
//! One map for all CPUs, changed only while the first CPU boots, and only from invalid to valid: no break-before-make
//! is needed (Arm ARM D8.16), except for the boot identity map, which is invalidated for good.

use super::sysreg::{dsb, isb};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use flatland::addr::{Addr, Pa, Size};
use platform::range::Range;

/// Where the image is linked; the same number as in linker/flatland.ld.
pub(crate) const IMAGE: u64 = 0x8000_0000_0000;
/// Virtual address of physical address 0 in the linear map.
pub(crate) const LINEAR: u64 = 0x4000_0000_0000;
const STACKS: u64 = 0x9000_0000_0000;
const MMIO: u64 = 0xa000_0000_0000;
/// Bytes of one CPU's stack.
pub(crate) const STACK: u64 = 16 * 1024;
const STACK_STRIDE: u64 = 64 * 1024;
/// Physical addresses the linear and the device map can hold.
const PA_LIMIT: u64 = 0x1000_0000_0000;

const TABLE: u64 = 0b11;
const VALID: u64 = 1;
/// AF, inner shareable, RES1 AP\[1\], never executed.
const LEAF_RW: u64 = 1 << 54 | 1 << 10 | 3 << 8 | 1 << 6;
/// The same with memory attribute 1: Device nGnRE.
const LEAF_DEVICE: u64 = 1 << 54 | 1 << 10 | 1 << 6 | 1 << 2;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

#[repr(C, align(4096))]
struct Table([AtomicU64; 512]);

const N_TABLES: usize = 40;
/// How many of them RAM does not get: devices and stacks come later.
const KEPT: usize = 12;

/// Tables for the map: zeroed with .bss, handed out once each.
#[unsafe(link_section = ".tables")]
static TABLES: [Table; N_TABLES] = [const { Table([const { AtomicU64::new(0) }; 512]) }; N_TABLES];
static USED: AtomicUsize = AtomicUsize::new(0);
/// What to add to an image address for its physical address, modulo 2^64.
static IMAGE_OFFSET: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    static boot_l0: Table;
    static __image_end: u8;
}

/// Why the map could not be made.
#[derive(Debug)]
pub(crate) enum MapError {
    /// The board has more separate ranges than the map has tables for.
    OutOfTables,
    /// Beyond 16 TiB, which the map does not reach.
    TooHigh,
}

/// Remembers where the image was loaded.
pub(crate) fn init(image: u64) {
    IMAGE_OFFSET.store(image.wrapping_sub(IMAGE), Ordering::Relaxed);
}

/// The image in physical memory, page-aligned.
pub(crate) fn image_range() -> Range {
    let end = (&raw const __image_end) as u64;
    Range { start: image_pa(IMAGE), end: image_pa(end) }
}

/// The physical address of something in the image.
pub(crate) fn image_pa(va: u64) -> u64 {
    va.wrapping_add(IMAGE_OFFSET.load(Ordering::Relaxed))
}

/// Where RAM at `pa` is seen. RAM lies below [`LINEAR`], so that this is their sum, and nothing to be checked.
#[inline(always)]
pub(crate) fn linear(pa: Addr<Pa>) -> u64 {
    LINEAR | pa.bits()
}

fn root() -> &'static Table {
    // SAFETY: boot_l0 is a table in the image's .tables, zeroed and filled before Rust runs, mapped read-write, and
    // seen by Rust as atomics only.
    unsafe { &boot_l0 }
}

/// The table that `descriptor` points to.
fn table_at(descriptor: u64) -> &'static Table {
    let va = (descriptor & ADDRESS).wrapping_sub(IMAGE_OFFSET.load(Ordering::Relaxed));
    // SAFETY: every table descriptor of this map was made from a table in .tables (boot.S, `next`), so the address
    // lies in the image, aligned, and is only ever seen as atomics.
    unsafe { &*(va as *const Table) }
}

/// The table below `table` for `va` at `level`, made if there is none and fewer than `most` are in use.
fn next(table: &'static Table, va: u64, level: u32, most: usize) -> Result<&'static Table, MapError> {
    let entry = &table.0[index(va, level)];
    let old = entry.load(Ordering::Relaxed);
    if old & VALID != 0 {
        return Ok(table_at(old));
    }
    // Only the first CPU maps.
    let used = USED.load(Ordering::Relaxed);
    let new = TABLES.get(used).filter(|_| used < most).ok_or(MapError::OutOfTables)?;
    USED.store(used + 1, Ordering::Relaxed);
    entry.store(image_pa(core::ptr::from_ref(new) as u64) | TABLE, Ordering::Release);
    Ok(new)
}

const fn index(va: u64, level: u32) -> usize {
    // 9 bits: they fit.
    (va >> (39 - 9 * level) & 511) as usize
}

const fn level(size: Size) -> u32 {
    match size {
        Size::Giant => 1,
        Size::Block => 2,
        Size::Page => 3,
    }
}

/// Whether smaller leaves than `size` are there already.
fn is_table(va: u64, size: Size) -> bool {
    let mut table = root();
    for above in 0..=level(size) {
        let entry = table.0[index(va, above)].load(Ordering::Relaxed);
        if above == 3 || entry & TABLE != TABLE {
            return false;
        }
        table = table_at(entry);
    }
    true
}

/// Maps `pa..end` at `va` with the largest leaves that both allow. Already mapped leaves stay.
fn map(mut va: u64, mut pa: u64, end: u64, leaf: u64) -> Result<(), MapError> {
    let most = if va & LINEAR != 0 { N_TABLES - KEPT } else { N_TABLES };
    if end > PA_LIMIT {
        return Err(MapError::TooHigh);
    }
    while pa < end {
        let size = Size::ALL
            .into_iter()
            .find(|size| (va | pa) & (size.bytes() - 1) == 0 && pa + size.bytes() <= end && !is_table(va, *size))
            .unwrap_or(Size::Page);
        let level = level(size);
        let mut table = root();
        for above in 0..level {
            table = next(table, va, above, most)?;
        }
        let entry = &table.0[index(va, level)];
        if entry.load(Ordering::Relaxed) & VALID == 0 {
            let kind = if level == 3 { TABLE } else { VALID };
            entry.store(pa | leaf | kind, Ordering::Release);
        }
        va += size.bytes();
        pa += size.bytes();
    }
    // The walker sees the new entries from here on; none was valid before, so nothing has to be forgotten.
    dsb();
    isb();
    Ok(())
}

/// Maps RAM `range` (cut to whole pages) into the linear map.
pub(crate) fn map_ram(range: Range) -> Result<(), MapError> {
    let Range { start, end } = range.frames_inside();
    if end > PA_LIMIT {
        return Err(MapError::TooHigh);
    }
    map(LINEAR + start, start, end, LEAF_RW)
}

/// Maps the device window `range` (widened to whole pages) and returns where its first byte is seen.
pub(crate) fn map_device(range: Range) -> Result<u64, MapError> {
    let start = range.start & !0xfff;
    let end = (range.end + 0xfff) & !0xfff;
    map(MMIO + start, start, end, LEAF_DEVICE)?;
    Ok(MMIO + range.start)
}

/// Where the device register at `pa` is seen, once [`map_device`] has mapped it.
pub(crate) const fn device(pa: u64) -> u64 {
    MMIO + pa
}

/// Maps CPU `n`'s stack onto the RAM at `pa` and returns its top. The pages below it stay unmapped.
pub(crate) fn map_stack(n: usize, pa: Addr<Pa>) -> Result<u64, MapError> {
    let bottom = STACKS + n as u64 * STACK_STRIDE + STACK_STRIDE - STACK;
    map(bottom, pa.bits(), pa.bits() + STACK, LEAF_RW)?;
    Ok(bottom + STACK)
}

/// Drops the identity map that carried the CPUs through turning their MMU on. No CPU may start after this.
pub(crate) fn drop_identity() {
    let image = image_pa(IMAGE);
    root().0[index(image, 0)].store(0, Ordering::Release);
    dsb();
    // SAFETY: the only translations that change are those of the identity map, which nothing executes from or points
    // into any more.
    unsafe { asm!("tlbi alle2is", options(nostack, preserves_flags)) };
    dsb();
    isb();
}

/// Bytes of the image and its tables.
pub(crate) fn image_bytes() -> u64 {
    let range = image_range();
    range.end - range.start
}
