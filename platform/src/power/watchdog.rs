//! Restarting and halting a BCM2835-family board by its watchdog.
//!
//! Key type: [`Registers`], at the base of the power management block: 0xfe10_0000 on a BCM2711 (0x7e10_0000 on its bus).
//! There is no register for a reset: the watchdog is set to run out at once. What happens then is the boot firmware's
//! choice, by the partition number that PM_RSTS keeps across the reset in its even bits 0 to 10: it boots from that
//! partition, and takes the number 63 for the wish to stay halted. QEMU ends when it sees 63.
//!
//! The block is not in "BCM2711 ARM Peripherals". The offsets and the password are public as part of the device tree
//! binding `brcm,bcm2835-pm` and of the operating systems that drive it.

use tock_registers::interfaces::{ReadWriteable, Readable, Writeable};
use tock_registers::registers::ReadWrite;
use tock_registers::{register_bitfields, register_structs};

/// A write counts only with this in bits 31 to 24.
const PASSWORD: u32 = 0x5a;
/// Where PM_RSTS keeps the six bits of the partition number.
const PARTITION: u32 = 0x555;
/// When the watchdog runs out, in ticks of 1/65536 s: some 150 microseconds.
const TICKS: u32 = 10;

register_bitfields! {u32,
    /// PM_RSTC, reset control.
    RSTC [PASSWORD OFFSET(24) NUMBITS(8) [], WRCFG OFFSET(4) NUMBITS(2) [FullReset = 2]],
    /// PM_RSTS, reset status.
    RSTS [PASSWORD OFFSET(24) NUMBITS(8) [], STATUS OFFSET(0) NUMBITS(24) []],
    /// PM_WDOG, the time left.
    WDOG [PASSWORD OFFSET(24) NUMBITS(8) [], TIME OFFSET(0) NUMBITS(20) []]
}

register_structs! {
    /// The registers, at the base of the power management block.
    pub Registers {
        (0x00 => _power),
        (0x1c => rstc: ReadWrite<u32, RSTC::Register>),
        (0x20 => rsts: ReadWrite<u32, RSTS::Register>),
        (0x24 => wdog: ReadWrite<u32, WDOG::Register>),
        (0x28 => @END),
    }
}

impl Registers {
    /// Restarts the board, within a millisecond; the caller has to wait for it.
    pub fn restart(&self) {
        self.reset(0);
    }

    /// Halts the board, within a millisecond; the caller has to wait for it. Only a new power supply, or what the
    /// firmware's own settings say, brings it back.
    pub fn halt(&self) {
        self.reset(PARTITION);
    }

    fn reset(&self, partition: u32) {
        let kept = self.rsts.read(RSTS::STATUS) & !PARTITION;
        self.rsts.write(RSTS::PASSWORD.val(PASSWORD) + RSTS::STATUS.val(kept | partition));
        self.wdog.write(WDOG::PASSWORD.val(PASSWORD) + WDOG::TIME.val(TICKS));
        self.rstc.modify(RSTC::PASSWORD.val(PASSWORD) + RSTC::WRCFG::FullReset);
    }
}
