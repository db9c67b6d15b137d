//! The devices of the virtual board, and where they are.
//!
//! The map is that of QEMU's `virt`, so that what runs there runs here, and is nowhere else: the device tree is made of it
//! ([`crate::vm::device_tree`]), [`at`] finds the [`Region`] of an IPA, the constants name the interrupts. A VM's devices are on its
//! [`bus::Bus`]: [`uart::Uart`] is a PL011, [`rtc::Rtc`] a PL031, [`virtio::balloon::Balloon`] a balloon, [`EmptySlot`] a slot for a
//! virtio device that is not there, [`disk::Disk`] a disk, [`net::Nic`] a network device at a [`switch::Switch`]. [`flash::Bank`] is a bank of flash, which is memory as long as it is only read ([`flash_at`]).

pub mod bus;
pub mod device;
pub mod disk;
pub mod entropy;
pub mod flash;
pub mod net;
pub mod rtc;
pub mod switch;
pub mod uart;
pub mod virtio;

use crate::addr::{Addr, IntId, Ipa};
pub use crate::bundle::image::FLASH_BANK;
pub use crate::memory::RAM_BASE;
use device::{Board, Device};

/// GICD: the distributor.
pub const GICD: u64 = 0x0800_0000;
/// GICC: the CPU interface of a GICv2, in memory.
pub const GICC: u64 = 0x0801_0000;
/// GICH: the virtual interface control of a GICv2, of VMs that start at EL2.
pub const GICH: u64 = 0x0803_0000;
/// GICV: what such a VM gives its guests as their GICC.
pub const GICV: u64 = 0x0804_0000;
/// The bytes of GICC and GICV that the hardware has (IHI 0048B 4.4, 5.4).
pub const GICV_BYTES: u64 = 0x2000;
/// GICR: the redistributors of a GICv3, one [`GICR_STRIDE`] for each vCPU.
pub const GICR: u64 = 0x080A_0000;
/// The bytes of a redistributor: RD_base and SGI_base, 64 KiB each.
pub const GICR_STRIDE: u64 = 0x2_0000;
/// How many redistributors there is room for.
pub const GICR_FRAMES: u64 = 123;
/// The PL011.
pub const UART: u64 = 0x0900_0000;
/// The PL031.
pub const RTC: u64 = 0x0901_0000;
/// The page that tells vCPUs what time was stolen from them, at the place that QEMU has for it.
pub const STOLEN: u64 = 0x090A_0000;
/// The first virtio-mmio slot.
pub const VIRTIO: u64 = 0x0A00_0000;
/// The bytes of a virtio-mmio slot.
pub const VIRTIO_STRIDE: u64 = 0x200;
/// How many slots there are.
pub const VIRTIO_SLOTS: u64 = 32;
/// How many shared interrupts there are.
pub const SPIS: u32 = 96;

/// The PL011's interrupt: SPI 1.
pub const UART_INTID: IntId = IntId(33);
/// The PL031's interrupt: SPI 2.
pub const RTC_INTID: IntId = IntId(34);
/// The interrupt of the first virtio slot, SPI 16; the others follow.
const VIRTIO_INTID: IntId = IntId(48);
/// The maintenance interrupt of the GIC: PPI 9.
pub const MAINTENANCE_INTID: IntId = IntId(25);
/// The hypervisor timer: PPI 10.
pub const HYP_TIMER_INTID: IntId = IntId(26);
/// The virtual timer: PPI 11.
pub const VIRTUAL_TIMER_INTID: IntId = IntId(27);
/// EL2's virtual timer.
pub const HYP_VIRTUAL_TIMER_INTID: IntId = IntId(28);
/// The secure physical timer, of which the device tree speaks and which nobody has: PPI 13.
pub const SECURE_TIMER_INTID: IntId = IntId(29);
/// The physical timer: PPI 14.
pub const PHYSICAL_TIMER_INTID: IntId = IntId(30);

/// What lies at an IPA below RAM. Whether a VM has a GICC or redistributors, and how many, is for its GIC to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Region {
    /// The distributor.
    Gicd,
    /// The CPU interface in memory.
    Gicc,
    /// The virtual interface control.
    Gich,
    /// The redistributor of the vCPU with this number.
    Gicr(u16),
    /// The PL011.
    Uart,
    /// The PL031.
    Rtc,
    /// The virtio-mmio slot with this number.
    Virtio(u8),
}

/// The region that `ipa` lies in, and how far inside, in bytes; nothing where there is no device.
// On the way of every access to a device.
#[inline(always)]
pub const fn at(ipa: Addr<Ipa>) -> Option<(Region, u64)> {
    let at = ipa.bits();
    // The whole board lies in 1 GiB; its 64 KiB pieces tell the devices apart.
    if at >= RAM_BASE.bits() {
        return None;
    }
    match at & !0xFFFF {
        GICD => Some((Region::Gicd, at - GICD)),
        GICC => Some((Region::Gicc, at - GICC)),
        GICH if at - GICH < 0x1000 => Some((Region::Gich, at - GICH)),
        UART if at - UART < 0x1000 => Some((Region::Uart, at - UART)),
        RTC if at - RTC < 0x1000 => Some((Region::Rtc, at - RTC)),
        VIRTIO if at - VIRTIO < VIRTIO_SLOTS * VIRTIO_STRIDE => {
            // Less than 32, so it fits.
            let slot = (at - VIRTIO) / VIRTIO_STRIDE;
            Some((Region::Virtio(slot as u8), at % VIRTIO_STRIDE))
        }
        _ if at >= GICR && at - GICR < GICR_FRAMES * GICR_STRIDE => {
            // Less than 123, so it fits.
            let frame = (at - GICR) / GICR_STRIDE;
            Some((Region::Gicr(frame as u16), (at - GICR) % GICR_STRIDE))
        }
        _ => None,
    }
}

/// The bank of flash that has `ipa` in its 64 MiB, and how far inside, in bytes.
pub const fn flash_at(ipa: Addr<Ipa>) -> Option<(usize, u64)> {
    let bank = ipa.bits() / FLASH_BANK;
    // Less than 2, so it fits.
    if bank < 2 { Some((bank as usize, ipa.bits() % FLASH_BANK)) } else { None }
}

/// The interrupt of the virtio-mmio slot with this number.
pub const fn virtio_intid(slot: u8) -> IntId {
    // Below 2^9.
    IntId(VIRTIO_INTID.0 + slot as u32)
}

/// A virtio-mmio slot without a device: it reads as the magic, version 2 and device 0, which means nobody is there (virtio 1.2,
/// 4.2.2), and writes to it do nothing.
#[derive(Debug, Default)]
pub struct EmptySlot;

impl Device for EmptySlot {
    fn read(&mut self, offset: u64, bytes: u8, _: &mut dyn Board) -> u64 {
        let word = match offset & !3 {
            0x000 => u32::from_le_bytes(*b"virt"),
            0x004 => 2,
            _ => 0,
        };
        lane(word, offset, bytes)
    }

    fn write(&mut self, _: u64, _: u8, _: u64, _: &mut dyn Board) {}

    fn line(&self) -> bool {
        false
    }

    fn reset(&mut self) {}
}

/// What an access of `size` bytes at `offset` sees of the 32-bit register that holds it. An access that reaches beyond the
/// register reads 0 there.
const fn lane(word: u32, offset: u64, size: u8) -> u64 {
    // At most 24, so it fits.
    let shifted = word as u64 >> (8 * (offset & 3) as u32);
    match size {
        1 => shifted & 0xFF,
        2 => shifted & 0xFFFF,
        _ => shifted,
    }
}

/// The identification of a PrimeCell (ARM DDI 0183, 3.3.14 on): bytes at 0xFE0 to 0xFFC, of `part`, designer and revision
/// in PeriphID and the class in PCellID.
const fn prime_cell(periph_id: u32, offset: u64) -> Option<u32> {
    match offset {
        0xFE0 | 0xFE4 | 0xFE8 | 0xFEC => Some(periph_id >> (2 * (offset - 0xFE0)) as u32 & 0xFF),
        0xFF0 | 0xFF4 | 0xFF8 | 0xFFC => Some(0xB105_F00D >> (2 * (offset - 0xFF0)) as u32 & 0xFF),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::device::Device;
    use super::device::tests::Bench;
    use super::{EmptySlot, Region, at, flash_at};
    use crate::addr::Addr;

    #[test]
    fn devices_are_where_qemu_has_them() {
        for (ipa, region, offset) in [
            (0x0800_0000, Region::Gicd, 0),
            (0x0800_FFFC, Region::Gicd, 0xFFFC),
            (0x0801_0010, Region::Gicc, 0x10),
            (0x080A_0000, Region::Gicr(0), 0),
            (0x080D_0080, Region::Gicr(1), 0x1_0080),
            (0x08FF_FFFF, Region::Gicr(122), 0x1_FFFF),
            (0x0900_0018, Region::Uart, 0x18),
            (0x0901_0FFC, Region::Rtc, 0xFFC),
            (0x0A00_0000, Region::Virtio(0), 0),
            (0x0A00_3FFC, Region::Virtio(31), 0x1FC),
        ] {
            assert_eq!(at(Addr::new(ipa)), Some((region, offset)), "{ipa:#x}");
        }
        for nowhere in [0, 0x07FF_FFFF, 0x0802_0000, 0x0808_0000, 0x0900_1000, 0x0902_0000, 0x0A00_4000, 0x4000_0000] {
            assert_eq!(at(Addr::new(nowhere)), None, "{nowhere:#x}");
        }
        assert_eq!(at(Addr::new(u64::MAX)), None);
    }

    #[test]
    fn flash_lies_below_all_devices() {
        assert_eq!(flash_at(Addr::new(0)), Some((0, 0)));
        assert_eq!(flash_at(Addr::new(0x03ff_ffff)), Some((0, 0x03ff_ffff)));
        assert_eq!(flash_at(Addr::new(0x0400_0010)), Some((1, 0x10)));
        assert_eq!(flash_at(Addr::new(0x0800_0000)), None);
        assert_eq!(flash_at(Addr::new(u64::MAX)), None);
    }

    #[test]
    fn an_empty_slot_says_that_nobody_is_there() {
        let read = |offset, bytes| EmptySlot.read(offset, bytes, &mut Bench::default());
        assert_eq!(read(0, 4), 0x7472_6976);
        assert_eq!(read(1, 1), u64::from(b'i'));
        assert_eq!(read(4, 4), 2);
        assert_eq!(read(8, 4), 0);
        assert_eq!(read(0x1FC, 8), 0);
    }

    #[test]
    fn an_access_sees_its_bytes_of_a_register_and_no_more() {
        let word = 0x8765_4321;
        for (offset, size, expected) in [
            (0, 4, 0x8765_4321),
            (0, 2, 0x4321),
            (2, 2, 0x8765),
            (0, 1, 0x21),
            (1, 1, 0x43),
            (3, 1, 0x87),
            (0x102, 1, 0x65),
            (1, 2, 0x6543),
            (3, 2, 0x87),
            (0, 8, 0x8765_4321),
        ] {
            assert_eq!(super::lane(word, offset, size), expected, "{size} bytes at {offset:#x}");
        }
        // Each region ends where it ends.
        let last = super::GICR + super::GICR_FRAMES * super::GICR_STRIDE;
        for (first_behind, inside) in
            [(super::VIRTIO + 0x4000, Region::Virtio(31)), (last, Region::Gicr(super::GICR_FRAMES as u16 - 1))]
        {
            assert_eq!(at(Addr::new(first_behind - 4)).map(|(region, _)| region), Some(inside));
            assert_ne!(at(Addr::new(first_behind)).map(|(region, _)| region), Some(inside));
        }
        assert_eq!(at(Addr::new(super::VIRTIO + 0x4000)), None);
    }
}
