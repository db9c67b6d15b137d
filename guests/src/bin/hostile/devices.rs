//! Loads, stores and fetches where devices are, and where nothing is.

use crate::Tally;
use rt::random::Random;
use rt::{args, board, code, gic, mmio, odd};

/// QEMU's `fw_cfg`: a write there starts a transfer to any place in RAM, which would be this program's own undoing.
const FW_CFG: u64 = 0x0902_0000;
/// Up to here the board has something now and then; beyond, up to RAM, there is PCI.
const LOW: u64 = 0x1000_0000;

/// Chooses an address: near a device's registers mostly, in a hole or above RAM otherwise.
fn address(random: &mut Random) -> u64 {
    let devices = [board::GICD, board::GICC, board::GICR, board::UART, board::RTC, board::VIRTIO];
    let at = match random.below(8) {
        0..=3 => random.one(&devices) + random.below(0x1000),
        4 => random.one(&devices) + random.below(0x2_0000),
        5 => random.below(LOW),
        6 => random.below(board::RAM - 64),
        _ => rt::ram::end() + random.below(64 << 30),
    };
    if at & !0xffff == FW_CFG { at + 0x1_0000 } else { at }
}

/// Returns whether a store there ends QEMU 10 itself: its GICv2 takes GICD_SPENDSGIR without a sender for one.
fn ends_qemu(at: u64) -> bool {
    gic::is_v2() && !args::strict() && (board::GICD + 0xec0..board::GICD + 0xf30).contains(&(at & !7))
}

/// Returns whether a store within 64 bytes of there would only hurt this program: spoil what it prints, or make its CPU
/// interface believe in active interrupts (GICC_APR, GICC_NSAPR), so that none would ever wake it again.
fn is_own_ruin(at: u64) -> bool {
    at & !0xfff == board::UART || gic::is_v2() && at & !0x3f == board::GICC + 0xc0
}

/// Single loads and stores of all sizes, aligned or not.
pub(crate) fn plain(random: &mut Random, rounds: u64) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..rounds {
        let at = address(random);
        let at = if random.below(4) == 0 { at } else { at & !7 };
        let value = random.word();
        let kind = random.below(if is_own_ruin(at) || ends_qemu(at) { 4 } else { 8 });
        tally.attempt(|| match kind {
            0 => _ = mmio::read8(at),
            1 => _ = mmio::read16(at),
            2 => _ = mmio::read32(at),
            3 => _ = mmio::read64(at),
            4 => mmio::write8(at, value as u8),
            5 => mmio::write16(at, value as u16),
            6 => mmio::write32(at, value as u32),
            _ => mmio::write64(at, value),
        });
    }
    tally
}

/// Accesses without a valid syndrome.
pub(crate) fn odd(random: &mut Random, rounds: u64) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..rounds {
        let at = address(random);
        let how = random.one(&odd::ALL);
        let how = if (is_own_ruin(at) || ends_qemu(at & !63)) && how.writes() { odd::Odd::LoadPair } else { how };
        tally.attempt(|| odd::access(how, at));
    }
    tally
}

/// Instruction fetches from devices that read as zeros there, and from holes.
pub(crate) fn fetch(random: &mut Random, rounds: u64) -> Tally {
    let mut tally = Tally::default();
    gic::init();
    for _ in 0..rounds {
        let at = match random.below(4) {
            0 => board::UART + 0x48 + random.below(0x100),
            1 => board::RTC + 0x20 + random.below(0x100),
            _ => 0x0b00_0000 + random.below(0x0080_0000),
        };
        tally.attempt(|| code::fetch_from_device(at));
    }
    tally
}
