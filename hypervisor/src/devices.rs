//! The devices of the virtual board: QEMU's `virt` by address and interrupt, so that what runs there runs here.
//!
//! [`at`] says whose an address is; the devices' registers are in [`uart`] and [`rtc`], the interrupt controller's in
//! [`crate::vgic`].

pub mod rtc;
pub mod uart;

use crate::addr::{Addr, Ipa};

/// Where RAM starts.
pub const RAM: Addr<Ipa> = Addr::new(0x4000_0000);
/// The GICv2 CPU interface, behind which the hardware's virtual one is mapped.
pub const GICC: Addr<Ipa> = Addr::new(0x0801_0000);
/// The interrupt of the virtual timer (PPI 11).
pub const VIRTUAL_TIMER_INTID: u32 = 27;
/// The interrupt of the physical timer (PPI 14).
pub const PHYSICAL_TIMER_INTID: u32 = 30;
/// The UART's interrupt (SPI 1).
pub const UART_INTID: u32 = 33;
/// The clock's interrupt (SPI 2).
pub const RTC_INTID: u32 = 34;
/// How many shared interrupts the virtual board has.
pub const SPIS: u32 = 96;

/// A device of the virtual board.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Region {
    /// The interrupt distributor.
    Gicd,
    /// The redistributors (GICv3), one after another.
    Gicr,
    /// The PL011.
    Uart,
    /// The PL031.
    Rtc,
    /// A virtio-mmio slot with nothing in it.
    Virtio,
}

/// Whose `ipa` is, and where in it: the distributor first, which is what is touched in numbers.
#[inline]
pub const fn at(ipa: Addr<Ipa>) -> Option<(Region, u64)> {
    let bits = ipa.bits();
    match bits >> 12 {
        0x0_8000..=0x0_800f => Some((Region::Gicd, bits & 0xffff)),
        0x0_80a0..=0x0_8fff => Some((Region::Gicr, bits - 0x080a_0000)),
        0x0_9000 => Some((Region::Uart, bits & 0xfff)),
        0x0_9010 => Some((Region::Rtc, bits & 0xfff)),
        0x0_a000..=0x0_a003 => Some((Region::Virtio, bits & 0x1ff)),
        _ => None,
    }
}

/// What an empty virtio-mmio slot reads: magic and version, device 0, which drivers pass over (virtio 1.3, 4.2.2).
pub const fn empty_virtio_read(offset: u64) -> u64 {
    match offset {
        0x000 => 0x7472_6976,
        0x004 => 2,
        0x00c => 0x464c_4154,
        _ => 0,
    }
}
