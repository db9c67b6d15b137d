//! Cold boot: from boot.S to a [`Host`] and CPUs that serve it. The steps are in `main.rs`; what each takes is here.

use super::mmu::{self, MapError};
use super::{heap, power, uart};
use arrayvec::ArrayVec;
use core::fmt::{self, Write};
use flatland::addr::{Addr, CpuId, Pa};
use flatland::frames::{HYPERVISOR, Order, Pool, Record, Use};
use platform::board::{Board, BoardError};
use platform::range::Range;
use platform::tree::{self, TreeError};

/// Bytes of heap: VMs, their records, the console's ring, room to unpack a kernel.
pub(crate) const HEAP: u64 = 448 * 1024;

/// The first CPU, from boot.S.
#[unsafe(no_mangle)]
extern "C" fn rust_entry(image: u64, dtb: u64) -> ! {
    crate::boot(image, dtb)
}

/// Every other CPU, from boot.S, with the number that `smp::start` gave it.
#[unsafe(no_mangle)]
extern "C" fn rust_secondary(n: u64) -> ! {
    // It was made from a CpuId.
    crate::join(CpuId(n as u16))
}

/// Says why the board cannot be brought up, and turns it off.
pub(crate) fn give_up(what: fmt::Arguments<'_>) -> ! {
    let _ = writeln!(uart::Emergency, "flatland: cannot start: {what}");
    power::off()
}

/// Bytes in the linear map.
///
/// # Safety
/// The range must be mapped RAM that is not written as long as the slice lives.
unsafe fn bytes(range: Range) -> &'static [u8] {
    let at = mmu::linear(Addr::new(range.start)) as *const u8;
    // SAFETY: the caller's promise; lengths of RAM fit.
    unsafe { core::slice::from_raw_parts(at, (range.end - range.start) as usize) }
}

/// Finds the board's device tree at physical address `dtb`, and makes it fit to be read.
fn tree_at(dtb: u64) -> Result<Range, TreeError> {
    let far = |_| TreeError { offset: 0, what: "it lies where EL2 cannot reach it" };
    let head = Range { start: dtb, end: dtb.saturating_add(8) };
    mmu::map_ram(head.frames_around()).map_err(far)?;
    // SAFETY: the boot protocol put the tree there, and nobody else runs.
    let size = tree::blob_size(unsafe { bytes(head) })?;
    let all = Range { start: dtb, end: dtb.saturating_add(size as u64) };
    mmu::map_ram(all.frames_around()).map_err(far)?;
    let at = mmu::linear(Addr::new(dtb)) as *mut u8;
    // SAFETY: as above; the slice is gone before the tree is read.
    tree::tidy(unsafe { core::slice::from_raw_parts_mut(at, size) })?;
    Ok(all)
}

/// Reads the board's device tree at physical address `dtb`, and where it lies. A board that cannot be made out is told so
/// on the line its tree names, or on one that says what it is.
#[inline(never)] // Its 30 KiB of stack are for it alone.
pub(crate) fn board(dtb: u64) -> (Board, Range) {
    let tree = tree_at(dtb);
    let read = tree.map_err(BoardError::from).and_then(|all| {
        // SAFETY: as in `tree_at`.
        let board = Board::from_tree(unsafe { bytes(all) })?;
        Ok((board, all))
    });
    match read {
        Ok((board, all)) => {
            if let Some(uart) = &board.uart {
                uart::init(uart);
            }
            power::init(&board);
            (board, all)
        }
        Err(why) => {
            // SAFETY: as above.
            match tree.ok().and_then(|all| Board::last_words(unsafe { bytes(all) })) {
                Some(uart) => uart::init(&uart),
                None => uart::guess(),
            }
            give_up(format_args!("{why}"))
        }
    }
}

/// The bundle, mapped with all of RAM by now.
pub(crate) fn bundle(board: &Board) -> &'static [u8] {
    match board.initrd {
        // SAFETY: the loader put it there, `memory` keeps it out of the pool, nobody writes it.
        Some(range) => unsafe { bytes(range) },
        None => &[],
    }
}

/// The most stretches that RAM is in: 16 of a board's, cut by 32 reservations.
const MOST: usize = 48;

/// What is left of RAM when the ranges of `taken` are cut out.
fn without(memory: &[Range], taken: &[Range]) -> ArrayVec<Range, MOST> {
    let mut left: ArrayVec<Range, MOST> = memory.iter().copied().collect();
    for hole in taken {
        let mut next = ArrayVec::new();
        for range in left {
            for part in [
                Range { start: range.start, end: range.end.min(hole.start) },
                Range { start: range.start.max(hole.end), end: range.end },
            ] {
                if part.start < part.end {
                    // More pieces than there is room for: what is lost is not used, and nothing breaks.
                    let _ = next.try_push(part);
                }
            }
        }
        left = next;
    }
    left
}

/// What the hypervisor keeps for itself.
pub(crate) struct Own {
    /// Bytes of the image, tables and the first stack included.
    pub(crate) image: u64,
    /// Bytes of frame records.
    pub(crate) records: u64,
    /// Bytes of heap.
    pub(crate) heap: u64,
    /// Bytes of the other CPUs' stacks.
    pub(crate) stacks: u64,
}

/// Maps RAM, makes the heap and the pool, and finds room for the other CPUs' stacks.
#[inline(never)] // As above.
pub(crate) fn memory(board: &Board, dtb: Range) -> Result<(Pool<'static>, ArrayVec<Addr<Pa>, 16>, Own), MapError> {
    // First what cannot be done without. The bundle may lie where memory is reserved: nobody may write there, we read.
    if let Some(range) = board.initrd {
        mmu::map_ram(range.frames_around())?;
    }
    for cpu in &board.cpus {
        if let platform::board::Enable::SpinTable { release } = cpu.enable {
            let page = Range { start: release & !0xfff, end: (release & !0xfff) + 4096 };
            mmu::map_ram(page)?;
        }
    }
    // The largest stretches come first: where there are more than there are tables for, the smallest are not used.
    let mut rest = without(&board.memory, &board.reserved);
    let mut mapped: ArrayVec<Range, MOST> = ArrayVec::new();
    while let Some((n, _)) = rest.iter().enumerate().max_by_key(|(_, range)| range.end - range.start) {
        let range = rest.swap_remove(n);
        if mmu::map_ram(range).is_ok() {
            mapped.push(range);
        }
    }
    let taken = [mmu::image_range(), dtb.frames_around(), board.initrd.unwrap_or(dtb).frames_around()];
    let mut free = without(&mapped, &taken);
    for range in &mut free {
        *range = range.frames_inside();
    }
    free.retain(|range| range.start < range.end);

    let ram: ArrayVec<(Addr<Pa>, u64), 16> =
        board.memory.iter().map(|range| (Addr::new(range.start), range.end - range.start)).collect();
    let n_records = Pool::records_for(&ram).unwrap_or(0);
    let records_bytes = ((n_records * size_of::<Record>()) as u64).next_multiple_of(4096);
    let n_stacks = board.cpus.len().saturating_sub(1) as u64;
    let stacks_bytes = n_stacks * mmu::STACK;
    let own = records_bytes + HEAP + stacks_bytes;
    let Some(home) = free.iter_mut().max_by_key(|range| range.end - range.start) else {
        give_up(format_args!("the board has no free RAM"));
    };
    if home.end - home.start < own {
        give_up(format_args!(
            "the board's largest free range of RAM is too small: {} KiB",
            (home.end - home.start) / 1024
        ));
    }
    home.end -= own;
    let start = home.end;
    // SAFETY: this RAM was just taken out of the free ranges: nobody else will have it, ever.
    unsafe { heap::init(mmu::linear(Addr::new(start + records_bytes)), HEAP as usize) };
    let at = mmu::linear(Addr::new(start)) as *mut Record;
    // SAFETY: as above; aligned to a page, `n_records` of them fit, and `Pool::new` overwrites them, for which any bits
    // are valid once zeroed.
    let records: &'static mut [Record] = unsafe {
        core::ptr::write_bytes(at, 0, n_records);
        core::slice::from_raw_parts_mut(at, n_records)
    };
    let mut pool = match Pool::new(records, &ram) {
        Ok(pool) => pool,
        Err(why) => give_up(format_args!("the board's RAM cannot be managed: {why:?}")),
    };
    for range in &free {
        pool.donate((Addr::new(range.start), range.end - range.start));
    }
    let first = start + records_bytes + HEAP;
    let stacks = (0..n_stacks).map(|n| Addr::new(first + n * mmu::STACK)).collect();
    let own = Own { image: mmu::image_bytes(), records: records_bytes, heap: HEAP, stacks: stacks_bytes };
    Ok((pool, stacks, own))
}

/// Makes the heap `bytes` bytes at least, with frames of the pool. False if it has not so many together.
pub(crate) fn grow_heap(pool: &mut Pool<'_>, own: &mut Own, bytes: u64) -> bool {
    let Some(more) = bytes.checked_sub(own.heap).filter(|more| *more > 0) else { return true };
    let order = Order::holding(more.div_ceil(4096));
    let Some((order, frame)) = order.and_then(|order| Some((order, pool.take(order, HYPERVISOR, Use::Hypervisor)?)))
    else {
        return false;
    };
    let (start, more) = (mmu::linear(frame.start()), order.frames() * 4096);
    pool.withhold(frame);
    // SAFETY: frames of the pool are mapped RAM; these were the hypervisor's alone, and are kept for good.
    unsafe { heap::grow(start, more as usize) };
    own.heap += more;
    true
}
