//! The addresses and interrupts of the board that the guests are written for.
//!
//! They are those of QEMU's `virt` machine, which Flatland's virtual board shares; only what differs between its
//! variants (RAM size, CPUs, GIC version) is read from the device tree.

/// First byte of RAM.
pub const RAM: u64 = 0x4000_0000;
/// GIC distributor.
pub const GICD: u64 = 0x0800_0000;
/// GICv2 CPU interface.
pub const GICC: u64 = 0x0801_0000;
/// GICv3 redistributors.
pub const GICR: u64 = 0x080a_0000;
/// PL011 UART.
pub const UART: u64 = 0x0900_0000;
/// PL031 real-time clock.
pub const RTC: u64 = 0x0901_0000;
/// First virtio-mmio slot.
pub const VIRTIO: u64 = 0x0a00_0000;
/// Interrupt of the UART: SPI 1.
pub const UART_IRQ: u32 = 33;
/// Interrupt of the virtual timer: PPI 11.
pub const VIRTUAL_TIMER_IRQ: u32 = 27;
/// Interrupt of the EL1 physical timer: PPI 14.
pub const PHYSICAL_TIMER_IRQ: u32 = 30;
