//! Is the PL011 (and the PL031 clock beside it) what a driver expects: flags, identification, interrupts, both directions?
//!
//! With the boot argument `echo`, it asks for a line, receives it by interrupt and sends it back.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use rt::console::{self, BUSY, CR, DR, FR, ICR, IMSC, LCRH, MIS, RIS, RXFE, TXFE, TXFF};
use rt::timer::PATIENCE;
use rt::{args, board, check, check_eq, cpu, exception, gic, mmio, println, timer};

rt::guest!(main);

/// PL011: receive and receive-timeout interrupts.
const RX: u32 = 1 << 4 | 1 << 6;
const TX: u32 = 1 << 5;

static LINE: [AtomicU32; 128] = [const { AtomicU32::new(0) }; 128];
static LENGTH: AtomicUsize = AtomicUsize::new(0);
static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

fn id(base: u64) -> u64 {
    (0..8).map(|n| u64::from(mmio::read32(base + 0xfe0 + n * 4) & 0xff) << (n * 8)).sum()
}

fn main() {
    gic::init();
    println!("uart: the quick brown fox jumps over the lazy dog 0123456789");
    let pl011 = id(board::UART);
    check_eq!(pl011 & 0xffff_ffff_ff0f_ffff, 0xb105_f00d_0004_1011, "the UART says it is a PL011");
    check!(timer::wait_until(PATIENCE, || console::read(FR) & BUSY == 0), "the transmitter comes to rest");
    let flags = console::read(FR);
    check_eq!(flags & (TXFE | TXFF), TXFE, "at rest, the transmit FIFO is empty and not full");
    registers();
    transmit_interrupt();
    clock();
    if args::flag("echo") {
        echo();
    } else {
        check_eq!(console::read(FR) & RXFE, RXFE, "nothing was received");
    }
}

fn registers() {
    console::write(IMSC, TX | RX);
    check_eq!(console::read(IMSC), TX | RX, "IMSC reads as written");
    console::write(IMSC, 0);
    check_eq!(console::read(MIS), 0, "MIS is RIS under IMSC");
    console::write(LCRH, 0x70);
    check_eq!(console::read(LCRH), 0x70, "LCRH reads as written");
    check_eq!(console::read(CR) & 0x301, 0x301, "CR says on");
    console::write(0x24, 13);
    console::write(0x28, 1);
    check_eq!(console::read(0x24), 13, "IBRD reads as written");
    check_eq!(console::read(0x28), 1, "FBRD reads as written");
    check_eq!(mmio::read8(board::UART + FR) & 0x90, 0x90, "FR can be read as a byte");
    check_eq!(mmio::read16(board::UART + FR) & 0x90, 0x90, "FR can be read as 16 bits");
}

fn transmit_interrupt() {
    console::write(ICR, 0x7ff);
    console::write(IMSC, TX);
    console::put(b'\r');
    check!(timer::wait_until(PATIENCE, || console::read(RIS) & TX != 0), "sending sets the transmit interrupt");
    check_eq!(console::read(MIS) & TX, TX, "MIS shows it");
    console::write(ICR, TX);
    check_eq!(console::read(RIS) & TX, 0, "ICR clears it");
    console::write(IMSC, 0);
}

fn clock() {
    let rtc = id(board::RTC);
    check_eq!(rtc & 0xffff_ffff_ff0f_ffff, 0xb105_f00d_0004_1031, "the clock says it is a PL031");
    let before = mmio::read32(board::RTC);
    timer::delay(1_200_000);
    let passed = mmio::read32(board::RTC).wrapping_sub(before);
    println!("uart: clock at {before} s");
    check!((1..60).contains(&passed), "the clock goes", "{passed} s in 1.2 s");
    // Its alarm, one second on: RTCMR, RTCIMSC, RTCICR and the raised line at SPI 2 (ARM DDI 0224).
    mmio::write32(board::RTC + 0x1c, 1);
    mmio::write32(board::RTC + 0x10, 1);
    mmio::write32(board::RTC + 0x04, mmio::read32(board::RTC).wrapping_add(1));
    check!(timer::wait_until(PATIENCE, || gic::is_pending(34)), "the alarm rings");
    check_eq!(mmio::read32(board::RTC + 0x18), 1, "RTCMIS says so");
    mmio::write32(board::RTC + 0x1c, 1);
    check!(!gic::is_pending(34), "and is quiet when told");
}

/// Takes what was received; only with a real interrupt.
fn receive() {
    let taken = gic::acknowledge();
    if taken.intid == board::UART_IRQ {
        INTERRUPTS.fetch_add(1, Ordering::SeqCst);
        while console::read(FR) & RXFE == 0 {
            let byte = console::read(DR);
            let at = LENGTH.fetch_add(1, Ordering::SeqCst);
            LINE[at % LINE.len()].store(byte, Ordering::SeqCst);
        }
        console::write(ICR, RX);
    }
    if taken.intid < 1020 {
        gic::end(taken);
    }
}

fn ended() -> bool {
    let n = LENGTH.load(Ordering::SeqCst);
    n > 0 && matches!(LINE[(n - 1) % LINE.len()].load(Ordering::SeqCst) & 0xff, 10 | 13)
}

fn echo() {
    exception::set_irq_hook(receive);
    gic::enable(board::UART_IRQ);
    console::write(IMSC, RX);
    println!("uart: type a line");
    cpu::unmask();
    let came = timer::wait_until(args::number("patience", 20) * 1_000_000, ended);
    cpu::mask();
    console::write(IMSC, 0);
    check!(came, "a line came", "{} bytes", LENGTH.load(Ordering::SeqCst));
    check!(INTERRUPTS.load(Ordering::SeqCst) > 0, "it came by interrupt");
    let n = LENGTH.load(Ordering::SeqCst).min(LINE.len());
    let mut text = [0u8; 128];
    for (to, from) in text.iter_mut().zip(&LINE[..n]) {
        *to = from.load(Ordering::SeqCst) as u8; // error flags are above bit 7
    }
    println!("echo: {}", core::str::from_utf8(&text[..n]).unwrap_or("?").trim_end());
}
