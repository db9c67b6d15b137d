//! The guest's serial line: [`Uart`], a PL011 (ARM DDI 0183, r1p4).
//!
//! What the guest sends leaves at once while the console has room ([`Board::send`]); when it has none, bytes gather in the
//! transmit FIFO until [`Uart::resume`], and the guest sees BUSY, a filling FIFO and TXFF, as on a slow line. What arrives waits
//! in the receive FIFO, and what is [typed](Uart::typed) before a guest without much memory or time comes to read it, before
//! that.
//!
//! Interrupts follow the levels *as they change*, as the hardware does: transmit when the FIFO drains to its trigger (a
//! byte that leaves at once has drained), receive when it fills to its trigger. The receive time-out, 32 bit times without
//! news on hardware, is over at once here. As on many boards, guests that never set UARTEN are served too: bare-metal
//! programs rely on it. Baud rate, parity and modem lines are remembered or absent; nothing depends on them.

use super::device::{Board, Device};
use super::{lane, prime_cell};

/// The depth of the FIFOs, in bytes.
const DEPTH: usize = 32;
/// How many bytes that were [typed](Uart::typed) can wait to get there.
pub const AHEAD: usize = 256;

const DR: u64 = 0x00;
const RSR: u64 = 0x04;
const FR: u64 = 0x18;
const ILPR: u64 = 0x20;
const IBRD: u64 = 0x24;
const FBRD: u64 = 0x28;
const LCR_H: u64 = 0x2C;
const CR: u64 = 0x30;
const IFLS: u64 = 0x34;
const IMSC: u64 = 0x38;
const RIS: u64 = 0x3C;
const MIS: u64 = 0x40;
const ICR: u64 = 0x44;
const DMACR: u64 = 0x48;

const FR_CTS: u32 = 1 << 0;
const FR_DSR: u32 = 1 << 1;
const FR_DCD: u32 = 1 << 2;
const FR_BUSY: u32 = 1 << 3;
const FR_RXFE: u32 = 1 << 4;
const FR_TXFF: u32 = 1 << 5;
const FR_RXFF: u32 = 1 << 6;
const FR_TXFE: u32 = 1 << 7;
const LCR_H_FEN: u32 = 1 << 4;
const CR_LBE: u32 = 1 << 7;
const INT_RX: u32 = 1 << 4;
const INT_TX: u32 = 1 << 5;
const INT_RT: u32 = 1 << 6;
const INT_OE: u32 = 1 << 10;
const INT_ALL: u32 = 0x7FF;
/// Overrun, in DR and in RSR.
const DR_OE: u32 = 1 << 11;
const RSR_OE: u32 = 1 << 3;

/// Bytes in the order they came.
#[derive(Clone, Debug)]
struct Fifo<const N: usize> {
    bytes: [u8; N],
    first: usize,
    len: usize,
}

impl<const N: usize> Fifo<N> {
    const fn new() -> Self {
        Self { bytes: [0; N], first: 0, len: 0 }
    }

    fn push(&mut self, byte: u8) {
        self.bytes[(self.first + self.len) % N] = byte;
        self.len = (self.len + 1).min(N);
    }

    fn first(&self) -> Option<u8> {
        (self.len > 0).then(|| self.bytes[self.first])
    }

    fn pop(&mut self) -> Option<u8> {
        let byte = self.first()?;
        self.len -= 1;
        self.first = (self.first + 1) % N;
        Some(byte)
    }
}

/// A PL011.
#[derive(Clone, Debug)]
pub struct Uart {
    tx: Fifo<DEPTH>,
    rx: Fifo<DEPTH>,
    /// What the operator typed that has not come yet: a line of the shell's, more or less.
    ahead: Fifo<AHEAD>,
    /// A byte was lost: the next one read says so.
    overrun: bool,
    rsr: u32,
    ilpr: u32,
    ibrd: u32,
    fbrd: u32,
    lcr_h: u32,
    cr: u32,
    ifls: u32,
    imsc: u32,
    ris: u32,
    dmacr: u32,
}

impl Default for Uart {
    fn default() -> Self {
        Self::new()
    }
}

impl Uart {
    /// A PL011 after reset.
    pub const fn new() -> Self {
        Self {
            tx: Fifo::new(),
            rx: Fifo::new(),
            ahead: Fifo::new(),
            overrun: false,
            rsr: 0,
            ilpr: 0,
            ibrd: 0,
            fbrd: 0,
            lcr_h: 0,
            cr: 0x300,
            ifls: 0x12,
            imsc: 0,
            ris: 0,
            dmacr: 0,
        }
    }

    /// A byte arrives. It is lost, and `false`, when the FIFO is full; the guest learns of it.
    pub fn receive(&mut self, byte: u8) -> bool {
        if self.rx.len >= self.depth() {
            self.overrun = true;
            self.rsr |= RSR_OE;
            self.ris |= INT_OE;
            return false;
        }
        self.rx.push(byte);
        self.ris |= if self.rx.len >= self.receive_trigger() { INT_RX } else { INT_RT };
        true
    }

    /// The operator typed a byte: it arrives when there is room. It is lost, and `false`, when too many wait.
    pub fn typed(&mut self, byte: u8) -> bool {
        if self.ahead.len == AHEAD {
            return false;
        }
        self.ahead.push(byte);
        self.fetch();
        true
    }

    /// How many bytes that were typed wait to arrive, of [`AHEAD`] at most.
    pub const fn waiting(&self) -> usize {
        self.ahead.len
    }

    /// Lets what was typed arrive for as long as there is room.
    fn fetch(&mut self) {
        while self.room() != 0
            && let Some(byte) = self.ahead.pop()
        {
            self.receive(byte);
        }
    }

    /// How many bytes [`Uart::receive`] would take.
    pub const fn room(&self) -> usize {
        self.depth().saturating_sub(self.rx.len)
    }

    /// Sends what waits, byte by byte, for as long as `send` takes it.
    pub fn resume(&mut self, send: &mut dyn FnMut(u8) -> bool) {
        while let Some(byte) = self.tx.first()
            && send(byte)
        {
            self.tx.pop();
            if self.tx.len <= self.transmit_trigger() {
                self.ris |= INT_TX;
            }
        }
    }

    /// With the FIFOs off, one byte each.
    const fn depth(&self) -> usize {
        if self.lcr_h & LCR_H_FEN == 0 { 1 } else { DEPTH }
    }

    /// An eighth, a quarter, a half, three quarters, seven eighths by the bits of IFLS.
    const fn trigger(&self, select: u32) -> usize {
        let eighths = match select & 7 {
            0 => 1,
            1 => 2,
            2 => 4,
            3 => 6,
            _ => 7,
        };
        self.depth() * eighths / 8
    }

    const fn transmit_trigger(&self) -> usize {
        self.trigger(self.ifls)
    }

    const fn receive_trigger(&self) -> usize {
        let trigger = self.trigger(self.ifls >> 3);
        if trigger == 0 { 1 } else { trigger }
    }

    const fn flags(&self) -> u32 {
        let mut flags = FR_CTS | FR_DSR | FR_DCD;
        if self.rx.len == 0 {
            flags |= FR_RXFE;
        }
        if self.rx.len >= self.depth() {
            flags |= FR_RXFF;
        }
        if self.tx.len == 0 {
            flags |= FR_TXFE;
        } else {
            flags |= FR_BUSY;
        }
        if self.tx.len >= self.depth() {
            flags |= FR_TXFF;
        }
        flags
    }

    fn read_data(&mut self) -> u32 {
        let byte = u32::from(self.rx.pop().unwrap_or(0));
        if self.rx.len < self.receive_trigger() {
            self.ris &= !INT_RX;
        }
        if self.rx.len == 0 {
            self.ris &= !INT_RT;
        } else if self.ris & INT_RX == 0 {
            // What is left and below the trigger is announced again: the guest may have cleared the time-out.
            self.ris |= INT_RT;
        }
        self.fetch();
        let overrun = if core::mem::take(&mut self.overrun) { DR_OE } else { 0 };
        byte | overrun
    }

    fn send(&mut self, byte: u8, board: &mut dyn Board) {
        if self.cr & CR_LBE != 0 {
            // Loopback: it leaves into our own receiver.
            self.receive(byte);
            self.ris |= INT_TX;
            return;
        }
        if self.tx.len == 0 && board.send(byte) {
            self.ris |= INT_TX;
            return;
        }
        if self.tx.len < self.depth() {
            self.tx.push(byte);
        }
        if self.tx.len > self.transmit_trigger() {
            self.ris &= !INT_TX;
        }
    }

    /// Switching the FIFOs off or on empties the receiver (DDI 0183, 3.3.7); what waits to be sent still is.
    fn set_line_control(&mut self, value: u32) {
        if (self.lcr_h ^ value) & LCR_H_FEN != 0 {
            self.rx = Fifo::new();
            self.ris &= !(INT_RX | INT_RT);
        }
        self.lcr_h = value;
        self.fetch();
    }
}

impl Device for Uart {
    /// Reading DR takes a byte; what is not a register reads as 0.
    fn read(&mut self, offset: u64, bytes: u8, board: &mut dyn Board) -> u64 {
        let word = match offset & !3 {
            DR => self.read_data(),
            RSR => self.rsr,
            FR => self.flags(),
            ILPR => self.ilpr,
            IBRD => self.ibrd,
            FBRD => self.fbrd,
            LCR_H => self.lcr_h,
            CR => self.cr,
            IFLS => self.ifls,
            IMSC => self.imsc,
            RIS => self.ris,
            MIS => self.ris & self.imsc,
            DMACR => self.dmacr,
            other => prime_cell(0x0014_1011, other).unwrap_or(0),
        };
        if self.ahead.len <= AHEAD / 2 {
            board.take_input();
        }
        lane(word, offset, bytes)
    }

    /// Bytes apart from the lowest of a register, and what is not a register, are ignored.
    fn write(&mut self, offset: u64, bytes: u8, value: u64, board: &mut dyn Board) {
        // Registers have 32 bits at most: the rest has nowhere to go.
        let value = lane(value as u32, 0, bytes) as u32;
        match offset {
            DR => self.send(value as u8, board),
            RSR => self.rsr = 0,
            ILPR => self.ilpr = value & 0xFF,
            IBRD => self.ibrd = value & 0xFFFF,
            FBRD => self.fbrd = value & 0x3F,
            LCR_H => self.set_line_control(value & 0xFF),
            CR => self.cr = value & 0xFF87,
            IFLS => self.ifls = value & 0x3F,
            IMSC => self.imsc = value & INT_ALL,
            ICR => self.ris &= !value,
            DMACR => self.dmacr = value & 7,
            _ => {}
        }
    }

    fn line(&self) -> bool {
        self.ris & self.imsc != 0
    }

    fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::{CR, DR, FR, FR_BUSY, FR_RXFE, FR_RXFF, FR_TXFE, FR_TXFF, ICR, IMSC, LCR_H, MIS, RIS, RSR, Uart};
    use super::{DMACR, FBRD, IBRD, IFLS, ILPR, INT_OE, INT_RT, INT_RX, INT_TX};
    use crate::devices::device::Device;
    use crate::devices::device::tests::Bench;
    use alloc::vec::Vec;

    fn read(uart: &mut Uart, offset: u64, bytes: u8) -> u64 {
        uart.read(offset, bytes, &mut Bench::default())
    }

    /// Writes while the console has room for so many bytes. Returns the byte that left.
    fn write_to(uart: &mut Uart, room: usize, (offset, bytes): (u64, u8), value: u64) -> Option<u8> {
        let mut bench = Bench { room, ..Bench::default() };
        uart.write(offset, bytes, value, &mut bench);
        bench.sent.first().copied()
    }

    fn write(uart: &mut Uart, offset: u64, bytes: u8, value: u64) -> Option<u8> {
        write_to(uart, 1, (offset, bytes), value)
    }

    /// Lets the UART send up to `most` of what waits.
    fn resume(uart: &mut Uart, most: usize) -> Vec<u8> {
        let mut sent = Vec::new();
        uart.resume(&mut |byte| {
            let sends = sent.len() < most;
            if sends {
                sent.push(byte);
            }
            sends
        });
        sent
    }

    #[test]
    fn a_register_has_the_bits_of_the_book() {
        let registers = [(ILPR, 0xff), (IBRD, 0xffff), (FBRD, 0x3f), (LCR_H, 0xff), (CR, 0xff87), (IFLS, 0x3f)];
        for (register, mask) in registers.into_iter().chain([(IMSC, 0x7ff), (DMACR, 7)]) {
            let mut uart = Uart::new();
            for value in [u64::from(u32::MAX), 0, 0x5555_5555, 0xaaaa_aaaa] {
                write(&mut uart, register, 4, value);
                assert_eq!(read(&mut uart, register, 4), value & mask, "{register:#x}");
            }
        }
    }

    /// DDI 0183, 3.3: tables 3-2, 3-3, 3-5, 3-11, 3-13.
    #[test]
    fn flags_and_interrupts_have_the_places_of_the_book() {
        assert_eq!([super::FR_CTS, super::FR_DSR, super::FR_DCD], [0x1, 0x2, 0x4]);
        assert_eq!([FR_BUSY, FR_RXFE, FR_TXFF, FR_RXFF, FR_TXFE], [0x8, 0x10, 0x20, 0x40, 0x80]);
        assert_eq!([INT_RX, INT_TX, INT_RT, INT_OE], [0x10, 0x20, 0x40, 0x400]);
        assert_eq!([super::LCR_H_FEN, super::CR_LBE, super::DR_OE, super::RSR_OE], [0x10, 0x80, 0x800, 0x8]);
    }

    fn with_fifos() -> Uart {
        let mut uart = Uart::new();
        write(&mut uart, LCR_H, 4, 0x70);
        uart
    }

    #[test]
    fn its_transmit_interrupt_goes_when_more_waits_than_the_trigger() {
        let mut uart = with_fifos();
        assert_eq!(write(&mut uart, DR, 4, 0x41), Some(0x41));
        assert_ne!(read(&mut uart, RIS, 4) & u64::from(INT_TX), 0, "it was sent");
        // Nothing leaves any more. The trigger is half of what it holds, after reset.
        let trigger = uart.transmit_trigger();
        assert_eq!(trigger * 2, uart.depth());
        for waits in 1..=uart.depth() {
            assert_eq!(write_to(&mut uart, 0, (DR, 4), 0x42), None);
            let asks = read(&mut uart, RIS, 4) & u64::from(INT_TX) != 0;
            assert_eq!(asks, waits <= trigger, "{waits} bytes wait");
        }
    }

    #[test]
    fn what_it_received_is_lost_where_its_fifos_are_switched_and_nowhere_else() {
        for (before, after, is_kept) in [(0x70, 0x60, false), (0x60, 0x70, false), (0x70, 0x10, true), (0x60, 0, true)]
        {
            let mut uart = Uart::new();
            write(&mut uart, LCR_H, 4, before);
            write(&mut uart, CR, 4, 0x301);
            assert!(uart.receive(b'a'));
            write(&mut uart, LCR_H, 4, after);
            let flags = read(&mut uart, FR, 4);
            assert_eq!(flags & u64::from(FR_RXFE) == 0, is_kept, "{before:#x} to {after:#x}");
            let waits = u64::from(INT_RX | INT_RT);
            assert_eq!(read(&mut uart, RIS, 4) & waits != 0, is_kept, "{before:#x} to {after:#x}");
        }
    }

    fn flag(uart: &mut Uart, flag: u32) -> bool {
        read(uart, FR, 4) & u64::from(flag) != 0
    }

    #[test]
    fn a_byte_leaves_at_once_and_announces_that_there_is_room() {
        let mut uart = with_fifos();
        assert!(!uart.line());
        assert_eq!(write(&mut uart, DR, 1, 0x41), Some(b'A'));
        assert!(flag(&mut uart, FR_TXFE) && !flag(&mut uart, FR_BUSY));
        write(&mut uart, IMSC, 2, u64::from(INT_TX));
        assert!(uart.line(), "TX stays until cleared or masked");
        write(&mut uart, ICR, 2, u64::from(INT_TX));
        assert!(!uart.line());
        assert_eq!(write(&mut uart, DR, 4, 0x142), Some(0x42), "a byte has eight bits");
        assert!(uart.line());
    }

    #[test]
    fn a_closed_line_fills_the_fifo_and_drains_in_order_when_it_opens() {
        let mut uart = with_fifos();
        write(&mut uart, IMSC, 4, u64::from(INT_TX));
        for byte in 0..40 {
            assert_eq!(write_to(&mut uart, 0, (DR, 1), byte), None);
            assert_eq!(flag(&mut uart, FR_TXFF), byte >= 31);
        }
        assert!(flag(&mut uart, FR_BUSY) && !uart.line());
        assert_eq!(resume(&mut uart, 0), []);
        for byte in 0..16 {
            assert_eq!(resume(&mut uart, 1), [byte]);
            assert_eq!(uart.line(), byte == 15, "the trigger is half of 32");
        }
        assert_eq!(write(&mut uart, DR, 1, 99), None, "bytes that wait go first");
        assert_eq!(resume(&mut uart, 40), (16..32).chain([99]).collect::<Vec<_>>());
        assert!(flag(&mut uart, FR_TXFE));
    }

    #[test]
    fn received_bytes_are_announced_below_the_trigger_by_time_out_and_at_it_by_level() {
        let mut uart = with_fifos();
        write(&mut uart, IMSC, 4, u64::from(INT_RX | INT_RT));
        assert!(uart.receive(1) && uart.line());
        assert_eq!(read(&mut uart, MIS, 4), u64::from(INT_RT));
        assert_eq!(read(&mut uart, DR, 4), 1);
        assert!(!uart.line() && flag(&mut uart, FR_RXFE));
        for byte in 0..16 {
            assert!(uart.receive(byte));
        }
        write(&mut uart, ICR, 4, u64::from(INT_RT));
        assert_eq!(read(&mut uart, MIS, 4), u64::from(INT_RX));
        assert_eq!(read(&mut uart, DR, 4), 0);
        assert_eq!(read(&mut uart, MIS, 4), u64::from(INT_RT), "the rest is below the trigger and is not forgotten");
        for byte in 1..16 {
            assert!(uart.line());
            assert_eq!(read(&mut uart, DR, 4), byte);
        }
        assert!(!uart.line());
    }

    #[test]
    fn an_overrun_is_told_with_the_next_byte() {
        let mut uart = with_fifos();
        for byte in 0..32 {
            assert!(uart.receive(byte));
        }
        assert!(flag(&mut uart, FR_RXFF) && uart.room() == 0);
        assert!(!uart.receive(99));
        assert_eq!(read(&mut uart, RIS, 4) & u64::from(INT_OE), u64::from(INT_OE));
        assert_eq!(read(&mut uart, DR, 4), 0x800);
        assert_eq!(read(&mut uart, DR, 4), 1);
        assert_eq!(read(&mut uart, RSR, 4), 8);
        write(&mut uart, RSR, 4, 0);
        assert_eq!(read(&mut uart, RSR, 4), 0);
    }

    #[test]
    fn what_is_typed_waits_for_the_guest() {
        let mut uart = with_fifos();
        write(&mut uart, IMSC, 4, u64::from(INT_RX | INT_RT));
        let n_taken = (0..400).filter(|n| uart.typed(*n as u8)).count();
        assert_eq!(n_taken, 32 + 256);
        for n in 0..n_taken {
            assert!(uart.line());
            assert_eq!(read(&mut uart, DR, 4), n as u64 & 0xff, "in order, none lost, no overrun told");
        }
        assert!(!uart.line() && flag(&mut uart, FR_RXFE));
    }

    #[test]
    fn without_fifos_one_byte_fits() {
        let mut uart = Uart::new();
        assert!(uart.receive(1) && !uart.receive(2));
        assert_eq!(read(&mut uart, RIS, 4) & u64::from(INT_RX), u64::from(INT_RX));
        assert_eq!(write_to(&mut uart, 0, (DR, 1), 1), None);
        assert!(flag(&mut uart, FR_TXFF));
    }

    #[test]
    fn loopback_comes_back_and_does_not_leave() {
        let mut uart = with_fifos();
        write(&mut uart, CR, 4, 0x381);
        assert_eq!(write(&mut uart, DR, 1, 7), None);
        assert_eq!(read(&mut uart, DR, 1), 7);
    }

    #[test]
    fn it_says_that_it_is_a_pl011() {
        let mut uart = Uart::new();
        let id: [u64; 8] = core::array::from_fn(|i| read(&mut uart, 0xFE0 + 4 * i as u64, 4));
        assert_eq!(id, [0x11, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1]);
        assert_eq!(read(&mut uart, 0xFDC, 4), 0);
        assert_eq!(read(&mut uart, u64::MAX, 8), 0);
    }

    #[test]
    fn more_is_asked_for_when_half_of_what_came_ahead_is_read() {
        let mut uart = with_fifos();
        // Its receiver is on.
        write(&mut uart, CR, 4, 0x301);
        for n in 0..super::AHEAD {
            let _ = uart.typed(n as u8);
        }
        let mut asked = Vec::new();
        while read(&mut uart, FR, 4) & u64::from(FR_RXFE) == 0 {
            let mut bench = Bench::default();
            let before = uart.ahead.len;
            uart.read(DR, 4, &mut bench);
            asked.push((uart.ahead.len, bench.takes_input));
            assert!(uart.ahead.len <= before);
        }
        assert!(asked.iter().all(|(ahead, asks)| *asks == (*ahead <= super::AHEAD / 2)), "{asked:?}");
        assert!(asked.iter().any(|(_, asks)| !asks) && asked.iter().any(|(_, asks)| *asks));
    }
}
