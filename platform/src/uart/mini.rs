//! The mini-UART among the BCM2835's auxiliary peripherals, which the BCM2711 still has.
//!
//! Key type: [`Registers`], at AUX_MU_IO_REG: 0xfe21_5040 on a BCM2711 (0x7e21_5040 on its bus). 16550-like, one register
//! every four bytes, FIFOs of eight characters. Its interrupt is shared with two SPI masters of the same block; that it is
//! switched on at all (AUX_ENABLES) is the firmware's doing (`enable_uart=1`), and so is its speed, which hangs on the
//! core clock.
//!
//! Follows "BCM2711 ARM Peripherals", 2.2 (mini UART), with the known errata: AUX_MU_IER_REG enables the receive interrupt
//! by bit 0 and the transmit interrupt by bit 1, as a 16550 does and not as the table says, and wants bits 2 and 3 set for
//! receiving; AUX_MU_LCR_REG takes two bits for the data size, 3 meaning 8 bits.

use tock_registers::interfaces::{ReadWriteable, Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite};
use tock_registers::{register_bitfields, register_structs};

register_bitfields! {u32,
    /// AUX_MU_IER_REG.
    IER [
        RX OFFSET(0) NUMBITS(1) [],
        TX OFFSET(1) NUMBITS(1) [],
        /// Must be set for receive interrupts to come.
        RX_ALSO OFFSET(2) NUMBITS(2) []
    ],
    /// AUX_MU_LCR_REG.
    LCR [SIZE OFFSET(0) NUMBITS(2) [Bits8 = 3], DLAB OFFSET(7) NUMBITS(1) []],
    /// AUX_MU_LSR_REG.
    LSR [READY OFFSET(0) NUMBITS(1) [], TX_ROOM OFFSET(5) NUMBITS(1) [], TX_IDLE OFFSET(6) NUMBITS(1) []],
    /// AUX_MU_CNTL_REG.
    CNTL [RX OFFSET(0) NUMBITS(1) [], TX OFFSET(1) NUMBITS(1) []]
}

register_structs! {
    /// The registers, at AUX_MU_IO_REG.
    pub Registers {
        (0x00 => io: ReadWrite<u32>),
        (0x04 => ier: ReadWrite<u32, IER::Register>),
        (0x08 => iir: ReadWrite<u32>),
        (0x0c => lcr: ReadWrite<u32, LCR::Register>),
        (0x10 => _mcr: ReadWrite<u32>),
        (0x14 => lsr: ReadOnly<u32, LSR::Register>),
        (0x18 => _msr: ReadOnly<u32>),
        (0x1c => _scratch: ReadWrite<u32>),
        (0x20 => cntl: ReadWrite<u32, CNTL::Register>),
        (0x24 => _stat: ReadOnly<u32>),
        (0x28 => _baud: ReadWrite<u32>),
        (0x2c => @END),
    }
}

impl Registers {
    /// Takes the port over from the firmware: interrupts off, sender and receiver on, speed as it was.
    pub fn adopt(&self) {
        // The divisor latch hides AUX_MU_IO_REG and AUX_MU_IER_REG: close it first.
        self.lcr.modify(LCR::DLAB::CLEAR + LCR::SIZE::Bits8);
        self.ier.set(0);
        self.cntl.modify(CNTL::RX::SET + CNTL::TX::SET);
    }

    /// Queues a byte for sending, or returns false where the FIFO is full.
    pub fn put(&self, byte: u8) -> bool {
        if !self.lsr.is_set(LSR::TX_ROOM) {
            return false;
        }
        self.io.set(u32::from(byte));
        true
    }

    /// Takes the next byte received, if there is one. The mini-UART detects no framing errors.
    pub fn get(&self) -> Option<u8> {
        if !self.lsr.is_set(LSR::READY) {
            return None;
        }
        // Only bits 7 to 0 are the character.
        Some(self.io.get().to_le_bytes()[0])
    }

    /// Lets the UART interrupt while there are characters to take.
    pub fn enable_rx_interrupt(&self) {
        self.ier.modify(IER::RX::SET + IER::RX_ALSO.val(3));
    }

    /// Stops what [`enable_rx_interrupt`](Self::enable_rx_interrupt) began; what comes in stays in the FIFO.
    pub fn disable_rx_interrupt(&self) {
        self.ier.modify(IER::RX::CLEAR);
    }

    /// Lets the UART interrupt while its transmit FIFO is empty.
    pub fn enable_tx_interrupt(&self) {
        self.ier.modify(IER::TX::SET);
    }

    /// Stops what [`enable_tx_interrupt`](Self::enable_tx_interrupt) began.
    pub fn disable_tx_interrupt(&self) {
        self.ier.modify(IER::TX::CLEAR);
    }

    /// Looks at AUX_MU_IIR_REG. The interrupts follow the FIFOs; writing would clear the FIFOs, so nothing is written.
    pub fn acknowledge(&self) {
        let _ = self.iir.get();
    }

    /// Tells whether the last bit has left.
    pub fn is_idle(&self) -> bool {
        self.lsr.is_set(LSR::TX_IDLE)
    }
}
