//! The redistributors' registers (GICv3): per vCPU, a frame of control and a frame of private interrupts (IHI 0069H 12.10
//! and 12.11).

use super::Vgic;
use super::dist::IIDR;
use super::words::{Write, bank_of, fits, read};
use crate::addr::VcpuId;
use crate::arm::gic::{Version, gicd, gicr};
use crate::next::Kicks;

impl Vgic {
    /// Reads `size` bytes at `offset` (0 to [`gicr::SIZE`]) of the redistributor of `frame`, whoever reads.
    pub fn redist_read(&self, frame: VcpuId, offset: u64, size: u8) -> u64 {
        if self.version != Version::V3 || usize::from(frame.0) >= self.locals.len() {
            return 0;
        }
        match (offset, size) {
            (gicr::TYPER, 8) => self.redist_typer(frame),
            _ if fits(offset, size) => read(self.redist_word(frame, offset & !3), offset, size),
            _ => 0,
        }
    }

    /// Writes `size` bytes at `offset` of the redistributor of `frame`.
    pub fn redist_write(&mut self, frame: VcpuId, offset: u64, size: u8, value: u64) -> Kicks {
        if self.version != Version::V3 || !fits(offset, size) {
            return Kicks::NONE;
        }
        let write = Write::new(offset, size, value);
        let cpu = usize::from(frame.0);
        if let Some(offset) = private(offset & !3) {
            return self.set_word(cpu, offset, write);
        }
        if offset & !3 == gicr::WAKER
            && let Some(local) = self.locals.get_mut(cpu)
        {
            // Interrupts come to a sleeper too: a guest that never wakes its redistributor runs on QEMU, so it runs here.
            local.asleep = write.over(waker(local.asleep)) & gicr::WAKER_PROCESSOR_SLEEP != 0;
        }
        Kicks::NONE
    }

    fn redist_word(&self, frame: VcpuId, offset: u64) -> u32 {
        let cpu = usize::from(frame.0);
        if let Some(offset) = private(offset) {
            return self.word(cpu, offset);
        }
        match offset {
            gicr::IIDR => IIDR,
            // The two halves.
            gicr::TYPER => self.redist_typer(frame) as u32,
            0x000c => (self.redist_typer(frame) >> 32) as u32,
            gicr::WAKER => self.locals.get(cpu).map_or(0, |local| waker(local.asleep)),
            0xffd0..0x1_0000 => super::v3::identity(offset, super::v3::Component::Redistributor),
            _ => 0,
        }
    }
}

/// The distributor's offset of an array word of private interrupts, if this is one.
fn private(offset: u64) -> Option<u64> {
    let offset = offset.checked_sub(gicr::SGI_FRAME)?;
    let arrays = matches!(offset, gicd::IGROUPR..gicd::ITARGETSR | gicd::ICFGR..gicd::ICFGR_END);
    (arrays && bank_of(offset) == 0).then_some(offset)
}

/// The children sleep as soon as they are told to.
const fn waker(asleep: bool) -> u32 {
    if asleep { gicr::WAKER_PROCESSOR_SLEEP | gicr::WAKER_CHILDREN_ASLEEP } else { 0 }
}
