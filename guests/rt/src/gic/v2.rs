//! GICv2: targets by CPU interface number, the CPU interface in memory (IHI 0048B, chapter 4).

use super::{CTLR, EndMode, ITARGETSR, Taken, To};
use crate::{board, cpu, mmio};
use core::sync::atomic::{AtomicU8, Ordering};

/// Distributor: software generated interrupt.
const SGIR: u64 = 0xf00;
/// Distributor: SGI clear-pending, a byte of senders an SGI.
pub(super) const CPENDSGIR: u64 = 0xf10;
/// Distributor: SGI set-pending.
pub(super) const SPENDSGIR: u64 = 0xf20;

const GICC_CTLR: u64 = 0x00;
const GICC_PMR: u64 = 0x04;
const GICC_BPR: u64 = 0x08;
const GICC_IAR: u64 = 0x0c;
const GICC_EOIR: u64 = 0x10;
const GICC_RPR: u64 = 0x14;
const GICC_HPPIR: u64 = 0x18;
/// Active priorities, four words: what a guest that wrote garbage there must clear to be interrupted again.
const GICC_APR: u64 = 0xd0;
const GICC_DIR: u64 = 0x1000;
const EOI_MODE: u32 = 1 << 9;

/// The bit of each CPU's interface in the target registers, as it reads it itself.
static INTERFACE: [AtomicU8; cpu::MAX] = [const { AtomicU8::new(0) }; cpu::MAX];

fn read(offset: u64) -> u32 {
    mmio::read32(board::GICC + offset)
}

fn write(offset: u64, value: u32) {
    mmio::write32(board::GICC + offset, value);
}

fn bit_of(index: usize) -> u8 {
    match INTERFACE[index].load(Ordering::SeqCst) {
        0 => 1 << index, // not woken yet: CPUs are numbered as in the device tree
        bit => bit,
    }
}

pub(super) fn wait_distributor() {}

pub(super) fn enable_distributor() {
    mmio::write32(board::GICD + CTLR, 1);
}

pub(super) fn wake() {
    // The targets of a CPU's own interrupts read as that CPU (on a uniprocessor as 0).
    let own = mmio::read8(board::GICD + ITARGETSR);
    INTERFACE[cpu::index()].store(own, Ordering::SeqCst);
}

pub(super) fn enable_interface() {
    for word in 0..4 {
        write(GICC_APR + word * 4, 0);
    }
    write(GICC_BPR, 0);
    write(GICC_CTLR, 1);
}

pub(super) fn set_target(intid: u32, index: usize) {
    mmio::write8(board::GICD + ITARGETSR + u64::from(intid), bit_of(index));
}

pub(super) fn is_target(intid: u32, index: usize) -> bool {
    let own = bit_of(index);
    let got = mmio::read8(board::GICD + ITARGETSR + u64::from(intid));
    got == own || crate::args::n_cpus() == 1
}

#[inline(always)]
pub(super) fn send(intid: u32, to: To) {
    let filter = match to {
        To::Me => 2 << 24,
        To::Others => 1 << 24,
        To::Cpu(index) => u32::from(bit_of(index)) << 16,
    };
    cpu::barrier();
    mmio::write32(board::GICD + SGIR, filter | intid);
}

#[inline(always)]
pub(super) fn acknowledge() -> Taken {
    let raw = read(GICC_IAR);
    Taken { raw, intid: raw & 0x3ff }
}

#[inline(always)]
pub(super) fn end(taken: Taken) {
    write(GICC_EOIR, taken.raw);
}

pub(super) fn deactivate(taken: Taken) {
    write(GICC_DIR, taken.raw);
}

pub(super) fn set_end_mode(mode: EndMode) {
    let others = read(GICC_CTLR) & !EOI_MODE;
    write(GICC_CTLR, if mode == EndMode::DropOnly { others | EOI_MODE } else { others });
}

pub(super) fn set_mask(priority: u8) {
    write(GICC_PMR, u32::from(priority));
}

pub(super) fn mask() -> u8 {
    read(GICC_PMR) as u8 // bits above 7 are reserved
}

pub(super) fn set_binary_point(point: u32) {
    write(GICC_BPR, point);
}

pub(super) fn binary_point() -> u32 {
    read(GICC_BPR) & 7
}

pub(super) fn running_priority() -> u8 {
    read(GICC_RPR) as u8 // bits above 7 are reserved
}

pub(super) fn highest_pending() -> u32 {
    read(GICC_HPPIR) & 0x3ff
}
