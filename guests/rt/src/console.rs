//! The PL011 as console: a line is written by one CPU at a time, polled, with interrupts masked meanwhile.

use crate::{board, cpu, mmio};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

/// Data register.
pub const DR: u64 = 0x00;
/// Flag register.
pub const FR: u64 = 0x18;
/// Line control: 8 bits, FIFOs on.
pub const LCRH: u64 = 0x2c;
/// Control register.
pub const CR: u64 = 0x30;
/// Interrupt mask set.
pub const IMSC: u64 = 0x38;
/// Raw interrupt status.
pub const RIS: u64 = 0x3c;
/// Masked interrupt status.
pub const MIS: u64 = 0x40;
/// Interrupt clear.
pub const ICR: u64 = 0x44;
/// FR: transmit FIFO full.
pub const TXFF: u32 = 1 << 5;
/// FR: receive FIFO empty.
pub const RXFE: u32 = 1 << 4;
/// FR: busy.
pub const BUSY: u32 = 1 << 3;
/// FR: transmit FIFO empty.
pub const TXFE: u32 = 1 << 7;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Reads the UART register at `offset`.
#[inline(always)]
pub fn read(offset: u64) -> u32 {
    mmio::read32(board::UART + offset)
}

/// Writes the UART register at `offset`.
#[inline(always)]
pub fn write(offset: u64, value: u32) {
    mmio::write32(board::UART + offset, value);
}

/// Sets the UART up: 8 bits, FIFOs, no interrupt, transmitter and receiver on.
pub fn init() {
    write(CR, 0);
    write(IMSC, 0);
    write(ICR, 0x7ff);
    write(LCRH, 0x70);
    write(CR, 0x301);
}

/// Sends one byte, waiting for room.
pub fn put(byte: u8) {
    while read(FR) & TXFF != 0 {
        cpu::relax();
    }
    write(DR, u32::from(byte));
}

struct Uart;

impl Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                put(b'\r');
            }
            put(byte);
        }
        Ok(())
    }
}

/// Prints, alone on the UART; use [`println!`].
pub fn print(what: fmt::Arguments<'_>) {
    cpu::masked(|| {
        while TAKEN.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            cpu::relax();
        }
        let _ = Uart.write_fmt(what); // `write_str` cannot fail
        TAKEN.store(false, Ordering::Release);
    });
}

/// Lets go of the UART, for a panic inside [`print`].
pub(crate) fn break_lock() {
    TAKEN.store(false, Ordering::Release);
}

/// Prints a line.
#[macro_export]
macro_rules! println {
    ($($what:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($what)*))) };
}
