//! The Arm PrimeCell PL011 UART.
//!
//! Key type: [`Registers`], at the base of the device: 0x0900_0000 on QEMU's `virt`, 0xfe20_1000 (UART0) on a BCM2711; the
//! device tree says. All registers are 32 bits wide. The structure ends with the last register we use, because the BCM2711
//! has its UARTs 0x200 bytes apart.
//!
//! Follows the PL011 Technical Reference Manual (DDI 0183G), chapter 3; registers are named as there.

use tock_registers::interfaces::{ReadWriteable, Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite, WriteOnly};
use tock_registers::{register_bitfields, register_structs};

/// How many characters a receive FIFO may hold (32 from revision r1p5 on).
const FIFO: usize = 32;

register_bitfields! {u32,
    /// UARTDR, 3.3.1.
    DR [
        DATA OFFSET(0) NUMBITS(8) [],
        /// Framing, parity and break errors.
        ERROR OFFSET(8) NUMBITS(3) []
    ],
    /// UARTFR, 3.3.3.
    FR [BUSY OFFSET(3) NUMBITS(1) [], RXFE OFFSET(4) NUMBITS(1) [], TXFF OFFSET(5) NUMBITS(1) []],
    /// UARTLCR_H, 3.3.7.
    LCR_H [FEN OFFSET(4) NUMBITS(1) [], WLEN OFFSET(5) NUMBITS(2) [Bits8 = 3]],
    /// UARTCR, 3.3.8.
    CR [UARTEN OFFSET(0) NUMBITS(1) [], TXE OFFSET(8) NUMBITS(1) [], RXE OFFSET(9) NUMBITS(1) []],
    /// UARTIMSC, UARTRIS, UARTMIS and UARTICR, 3.3.10 to 3.3.13.
    INT [
        RX OFFSET(4) NUMBITS(1) [],
        TX OFFSET(5) NUMBITS(1) [],
        /// Receive timeout: characters wait, but too few for RX.
        RT OFFSET(6) NUMBITS(1) [],
        ALL OFFSET(0) NUMBITS(11) []
    ]
}

register_structs! {
    /// The registers, at the base of the device.
    pub Registers {
        (0x000 => dr: ReadWrite<u32, DR::Register>),
        (0x004 => _rsr),
        (0x018 => fr: ReadOnly<u32, FR::Register>),
        (0x01c => _ilpr),
        (0x024 => _ibrd_fbrd),
        (0x02c => lcr_h: ReadWrite<u32, LCR_H::Register>),
        (0x030 => cr: ReadWrite<u32, CR::Register>),
        (0x034 => _ifls),
        (0x038 => imsc: ReadWrite<u32, INT::Register>),
        (0x03c => _ris),
        (0x040 => mis: ReadOnly<u32, INT::Register>),
        (0x044 => icr: WriteOnly<u32, INT::Register>),
        (0x048 => _dmacr: ReadWrite<u32>),
        (0x04c => @END),
    }
}

impl Registers {
    /// Takes the port over from the firmware: interrupts off and cleared, sender and receiver on, speed as it was.
    ///
    /// A port that nobody has enabled (QEMU's without firmware) gets 8 bits and FIFOs; one in use keeps its format,
    /// because UARTLCR_H must not be written while the UART is on (3.3.7).
    pub fn adopt(&self) {
        self.imsc.set(0);
        self.icr.write(INT::ALL.val(0x7ff));
        if !self.cr.is_set(CR::UARTEN) {
            self.lcr_h.write(LCR_H::WLEN::Bits8 + LCR_H::FEN::SET);
        }
        self.cr.modify(CR::UARTEN::SET + CR::TXE::SET + CR::RXE::SET);
    }

    /// Queues a byte for sending, or returns false where the FIFO is full.
    pub fn put(&self, byte: u8) -> bool {
        if self.fr.is_set(FR::TXFF) {
            return false;
        }
        self.dr.set(u32::from(byte));
        true
    }

    /// Takes the next byte received without error, if there is one.
    pub fn get(&self) -> Option<u8> {
        // What came in with an error is skipped; a FIFO's worth of that is enough for one call.
        for _ in 0..FIFO {
            if self.fr.is_set(FR::RXFE) {
                return None;
            }
            let character = self.dr.extract();
            if character.read(DR::ERROR) == 0 {
                return u8::try_from(character.read(DR::DATA)).ok();
            }
        }
        None
    }

    /// Lets the UART interrupt when characters have come in, be it only one (by the receive timeout, 2.8).
    pub fn enable_rx_interrupt(&self) {
        self.imsc.modify(INT::RX::SET + INT::RT::SET);
    }

    /// Lets the UART interrupt when its FIFO has become half empty: it must have been filled before (2.8).
    pub fn enable_tx_interrupt(&self) {
        self.imsc.modify(INT::TX::SET);
    }

    /// Stops what [`enable_tx_interrupt`](Self::enable_tx_interrupt) began.
    pub fn disable_tx_interrupt(&self) {
        self.imsc.modify(INT::TX::CLEAR);
    }

    /// Stops what [`enable_rx_interrupt`](Self::enable_rx_interrupt) began; what comes in stays in the FIFO.
    pub fn disable_rx_interrupt(&self) {
        self.imsc.modify(INT::RX::CLEAR + INT::RT::CLEAR);
    }

    /// Clears the interrupts that are raised, but for those of characters that have come in: they fall as these are taken
    /// (2.8), and cleared before all are, they might not come again.
    pub fn acknowledge(&self) {
        self.icr.set(self.mis.get() & !(INT::RX::SET + INT::RT::SET).value);
    }

    /// Tells whether the last bit has left.
    pub fn is_idle(&self) -> bool {
        !self.fr.is_set(FR::BUSY)
    }
}
