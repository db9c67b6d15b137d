//! The board's disk: the swap area, behind a lock under which only this CPU's clock is asked.

use super::machine::El2;
use super::mmio::{self, Mmio};
use super::{mmu, sysreg, timer};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use flatland::addr::{Addr, Pa};
use flatland::bundle::Diagnostic;
use flatland::machine::{Machine, Words};
use log::info;
use platform::blk::{Cpu, Disk, InitError, Queue, Registers, TransferError, Way};
use platform::board::Board;
use platform::gpt::{self, Block, Blocks};
use spin::mutex::SpinMutex;

static QUEUE: Queue = Queue::new();
static DISK: SpinMutex<Option<Disk<'static, Mmio<Registers>>>> = SpinMutex::new(None);
/// Where on the disk the swap area begins, and how many blocks it has, for who does not want to wait for the lock.
static FIRST: AtomicU32 = AtomicU32::new(0);
static BLOCKS: AtomicU32 = AtomicU32::new(0);

impl Cpu for El2 {
    fn fence(&self) {
        sysreg::dsb();
    }

    fn now(&self) -> u64 {
        Machine::now(self)
    }

    fn second(&self) -> u64 {
        timer::frequency()
    }
}

/// Takes the first disk that is of use. Nothing on it changes.
pub(crate) fn init(board: &Board) {
    for slot in &board.virtio {
        // SAFETY: the device tree says that a virtio-mmio slot lies there; drivers only touch its registers.
        let Ok(registers) = (unsafe { mmio::registers::<Registers>(slot.base) }) else { return };
        if !registers.is_disk() {
            continue;
        }
        let queue = mmu::image_pa((&raw const QUEUE) as u64);
        match if slot.is_coherent { Disk::open(registers, &QUEUE, queue, &El2) } else { Err(InitError::Incoherent) } {
            Ok(disk) => {
                *DISK.lock() = Some(disk);
                // The queue stays that disk's, so no other is looked for.
                return;
            }
            Err(why) => info!("the disk at {:#x} is not used: {why}", slot.base),
        }
    }
}

/// The blocks of the disk, as they are looked at before anything is written.
struct Reader {
    page: Box<Words>,
    blocks: u32,
}

impl Blocks for Reader {
    fn count(&self) -> u64 {
        self.blocks.into()
    }

    fn read(&mut self, n: u64, into: &mut Block) -> bool {
        let Ok(block) = u32::try_from(n) else { return false };
        // The heap is in the linear map.
        let frame = Addr::new((&raw const *self.page) as u64 - mmu::LINEAR);
        let is_there = transfer_at(Way::In, block, frame);
        for (bytes, word) in into.as_chunks_mut::<8>().0.iter_mut().zip(&*self.page) {
            *bytes = word.load(Ordering::Relaxed).to_le_bytes();
        }
        is_there
    }
}

/// Swaps to the partition of the disk that is called `name`, or, where there is no name, to all of a disk that is blank but for its head,
/// so that it stays so. The error is the operator's: there is no such partition.
pub(crate) fn swap_to(name: Option<&str>) -> Result<(), Diagnostic> {
    let blocks = DISK.lock().as_ref().map_or(0, Disk::blocks);
    let page: Box<Words> = Box::new([const { AtomicU64::new(0) }; 512]);
    let mut reader = Reader { page, blocks };
    let area = match name {
        Some(_) if blocks == 0 => return Err(refused("the board has no disk that can be swapped to")),
        Some(name) => gpt::find(&mut reader, name).map_err(refused)?,
        None if blocks == 0 => return Ok(()),
        None => match gpt::is_blank(&mut reader) {
            Some(true) => gpt::HEAD..u64::from(blocks).max(gpt::HEAD),
            Some(false) => {
                info!(
                    "the disk is not swapped to: something is on it; name a partition with policy {{ swap = \"NAME\"; }}"
                );
                return Ok(());
            }
            None => {
                info!("the disk is not used: it cannot be read");
                return Ok(());
            }
        },
    };
    // A disk that lies about its size would lose pages.
    let mut last = [0; gpt::BLOCK];
    if !area.is_empty() && !reader.read(area.end - 1, &mut last) {
        info!("the disk is not used: its last block cannot be read");
        return Ok(());
    }
    // Blocks of a disk that has fewer than 2^32.
    FIRST.store(area.start as u32, Ordering::Relaxed);
    BLOCKS.store((area.end - area.start) as u32, Ordering::Relaxed);
    info!("swap area: {} MiB on {}", (area.end - area.start) >> 8, name.map_or("a blank disk", |_| "its partition"));
    Ok(())
}

fn refused(why: impl ToString) -> Diagnostic {
    Diagnostic {
        place: String::from("/policy/swap"),
        what: why.to_string(),
        remedy: String::from("name a partition that there is, or leave the key out"),
    }
}

/// How many blocks there are to swap to.
pub(crate) fn blocks() -> u32 {
    BLOCKS.load(Ordering::Relaxed)
}

/// Transfers a block of the swap area, and says whether that worked.
pub(crate) fn transfer(way: Way, block: u32, frame: Addr<Pa>) -> bool {
    block < blocks() && transfer_at(way, FIRST.load(Ordering::Relaxed).saturating_add(block), frame)
}

/// Transfers a block of the disk.
fn transfer_at(way: Way, block: u32, frame: Addr<Pa>) -> bool {
    let mut own = DISK.lock();
    let Some(disk) = &mut *own else { return false };
    let done = disk.transfer(way, block, frame.bits(), &El2);
    if disk.blocks() == 0 {
        BLOCKS.store(0, Ordering::Relaxed);
    }
    drop(own);
    match done {
        Err(TransferError::Loose) => panic!("the disk neither answers nor resets, and may write to memory at any time"),
        Err(TransferError::Lost) => info!("the swap area is lost: the disk does not answer"),
        _ => {}
    }
    done.is_ok()
}
