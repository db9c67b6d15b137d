//! The board's disk: the swap area, behind a lock under which only this CPU's clock is asked.

use super::machine::El2;
use super::mmio::{self, Mmio};
use super::{mmu, sysreg, timer};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use flatland::addr::{Addr, Pa};
use flatland::machine::{Machine, Words};
use log::info;
use platform::blk::{Cpu, Disk, InitError, Queue, Registers, TransferError, Way};
use platform::board::Board;
use spin::mutex::SpinMutex;

static QUEUE: Queue = Queue::new();
static DISK: SpinMutex<Option<Disk<'static, Mmio<Registers>>>> = SpinMutex::new(None);
/// How much the disk holds, for who does not want to wait for the lock.
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

/// Takes the first disk that is of use, reads its last block to see that it does what it says, and says so. Nothing on
/// it changes.
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
                let blocks = disk.blocks();
                *DISK.lock() = Some(disk);
                let page: Box<Words> = Box::new([const { AtomicU64::new(0) }; 512]);
                // The heap is in the linear map.
                if transfer(Way::In, blocks - 1, Addr::new((&raw const *page) as u64 - mmu::LINEAR)) {
                    return info!("swap area: {} MiB on the disk at {:#x}", blocks >> 8, slot.base);
                }
                // The queue stays that disk's, so no other is looked for.
                BLOCKS.store(0, Ordering::Relaxed);
                return info!("the disk at {:#x} is not used: it cannot be read", slot.base);
            }
            Err(why) => info!("the disk at {:#x} is not used: {why}", slot.base),
        }
    }
}

/// How many blocks there are to swap to.
pub(crate) fn blocks() -> u32 {
    BLOCKS.load(Ordering::Relaxed)
}

/// Transfers a block, and says whether that worked.
pub(crate) fn transfer(way: Way, block: u32, frame: Addr<Pa>) -> bool {
    let mut own = DISK.lock();
    let Some(disk) = &mut *own else { return false };
    let done = disk.transfer(way, block, frame.bits(), &El2);
    BLOCKS.store(disk.blocks(), Ordering::Relaxed);
    drop(own);
    match done {
        Err(TransferError::Loose) => panic!("the disk neither answers nor resets, and may write to memory at any time"),
        Err(TransferError::Lost) => info!("the swap area is lost: the disk does not answer"),
        _ => {}
    }
    done.is_ok()
}
