//! Serial ports: the two kinds there are drivers for, behind one [`Port`].
//!
//! Invariants: no call waits for the line, except [`Port::flush`], which waits for a bounded time. The speed and format of
//! the line stay as the firmware set them up. Received characters with framing, parity or break errors are dropped.
//!
//! Not safe against itself on two CPUs at once in one respect: switching interrupts reads and writes back one register.
//! The owner of the port keeps it behind a lock.

pub mod mini;
pub mod pl011;

/// How often [`Port::flush`] looks before it gives up: a full FIFO takes some 2 ms at 115200 baud, a look at a device
/// register some 100 ns.
const FLUSH_POLLS: u32 = 1_000_000;

/// A serial port of either kind.
#[derive(Clone, Copy)]
pub enum Port<'a> {
    /// A PL011.
    Pl011(&'a pl011::Registers),
    /// A BCM2835 mini-UART.
    Mini(&'a mini::Registers),
}

impl Port<'_> {
    /// Takes the port over from the firmware: interrupts off, sender and receiver on, speed as it was.
    pub fn adopt(&self) {
        match self {
            Self::Pl011(registers) => registers.adopt(),
            Self::Mini(registers) => registers.adopt(),
        }
    }

    /// Queues a byte for sending, or returns false where the FIFO is full.
    pub fn put(&self, byte: u8) -> bool {
        match self {
            Self::Pl011(registers) => registers.put(byte),
            Self::Mini(registers) => registers.put(byte),
        }
    }

    /// Takes the next byte received, if there is one.
    pub fn get(&self) -> Option<u8> {
        match self {
            Self::Pl011(registers) => registers.get(),
            Self::Mini(registers) => registers.get(),
        }
    }

    /// Lets the port interrupt while something has come in: until [`get`](Self::get) has no more.
    pub fn enable_rx_interrupt(&self) {
        match self {
            Self::Pl011(registers) => registers.enable_rx_interrupt(),
            Self::Mini(registers) => registers.enable_rx_interrupt(),
        }
    }

    /// Stops what [`enable_rx_interrupt`](Self::enable_rx_interrupt) began: what comes in waits, and so does who sends it,
    /// where the line can tell.
    pub fn disable_rx_interrupt(&self) {
        match self {
            Self::Pl011(registers) => registers.disable_rx_interrupt(),
            Self::Mini(registers) => registers.disable_rx_interrupt(),
        }
    }

    /// Lets the port interrupt when there is room to [`put`](Self::put). Call it after `put` has returned false: a PL011
    /// interrupts when its FIFO *becomes* half empty, not because it is.
    pub fn enable_tx_interrupt(&self) {
        match self {
            Self::Pl011(registers) => registers.enable_tx_interrupt(),
            Self::Mini(registers) => registers.enable_tx_interrupt(),
        }
    }

    /// Stops what [`enable_tx_interrupt`](Self::enable_tx_interrupt) began.
    pub fn disable_tx_interrupt(&self) {
        match self {
            Self::Pl011(registers) => registers.disable_tx_interrupt(),
            Self::Mini(registers) => registers.disable_tx_interrupt(),
        }
    }

    /// Clears what has raised the interrupt, as far as the device keeps that apart from its FIFOs. What has come in is not
    /// cleared: that goes as it is taken.
    pub fn acknowledge(&self) {
        match self {
            Self::Pl011(registers) => registers.acknowledge(),
            Self::Mini(registers) => registers.acknowledge(),
        }
    }

    /// Waits until the last bit has left, or for about a tenth of a second. Returns whether it has left.
    pub fn flush(&self) -> bool {
        (0..FLUSH_POLLS).any(|_| match self {
            Self::Pl011(registers) => registers.is_idle(),
            Self::Mini(registers) => registers.is_idle(),
        })
    }
}
