//! GICv3: affinity routing, redistributors, the CPU interface in system registers (IHI 0069H, chapters 11 and 12).

use super::{CTLR, EndMode, IGROUPR, Taken, To};
use crate::cpu::{self, write_register};
use crate::{args, board, mmio, read_register};
use core::sync::atomic::{AtomicU64, Ordering};

const GICR_TYPER: u64 = 0x08;
const GICR_WAKER: u64 = 0x14;
const IROUTER: u64 = 0x6000;
/// GICD_CTLR: a write is still on its way.
const RWP: u32 = 1 << 31;
/// GICD_CTLR: affinity routing, group 1 enabled.
const ARE_AND_GROUP1: u32 = 1 << 4 | 1 << 1;
const EOI_MODE: u64 = 2;

/// The redistributor of each CPU.
static FRAME: [AtomicU64; cpu::MAX] = [const { AtomicU64::new(0) }; cpu::MAX];

/// Returns the affinity as GICR_TYPER has it: Aff3 next to the others.
fn packed(mpidr: u64) -> u64 {
    mpidr & 0xff_ffff | mpidr >> 8 & 0xff00_0000
}

/// Returns the address of this CPU's redistributor.
pub(super) fn own_frame() -> u64 {
    let slot = &FRAME[cpu::index()];
    let known = slot.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let own = packed(args::mpidr(cpu::index()));
    let mut frame = board::GICR;
    loop {
        let typer = mmio::read64(frame + GICR_TYPER);
        if typer >> 32 == own {
            slot.store(frame, Ordering::Relaxed);
            return frame;
        }
        assert!(typer & 1 << 4 == 0, "no redistributor for CPU {}", cpu::index());
        frame += if typer & 2 != 0 { 0x4_0000 } else { 0x2_0000 };
    }
}

pub(super) fn wait_distributor() {
    while mmio::read32(board::GICD + CTLR) & RWP != 0 {
        cpu::relax();
    }
    while mmio::read32(own_frame() + CTLR) & 1 << 3 != 0 {
        cpu::relax();
    }
}

pub(super) fn enable_distributor() {
    mmio::write32(board::GICD + CTLR, ARE_AND_GROUP1);
}

pub(super) fn wake() {
    let waker = own_frame() + GICR_WAKER;
    mmio::write32(waker, mmio::read32(waker) & !2);
    while mmio::read32(waker) & 4 != 0 {
        cpu::relax();
    }
    mmio::write32(own_frame() + 0x1_0000 + IGROUPR, !0);
}

pub(super) fn enable_interface() {
    // SAFETY: registers of the CPU interface: only which interrupts come.
    unsafe {
        write_register!("icc_sre_el1", 7);
        cpu::isb();
        write_register!("icc_ctlr_el1", 0);
        write_register!("icc_ap1r0_el1", 0);
        write_register!("icc_bpr1_el1", 0);
        write_register!("icc_igrpen1_el1", 1);
    }
    cpu::isb();
}

pub(super) fn set_target(intid: u32, index: usize) {
    mmio::write64(board::GICD + IROUTER + u64::from(intid) * 8, args::mpidr(index) & 0xff_00ff_ffff);
}

pub(super) fn is_target(intid: u32, index: usize) -> bool {
    mmio::read64(board::GICD + IROUTER + u64::from(intid) * 8) == args::mpidr(index) & 0xff_00ff_ffff
}

#[inline(always)]
pub(super) fn send(intid: u32, to: To) {
    let one = |index| {
        let mpidr = args::mpidr(index);
        (mpidr >> 32 & 0xff) << 48
            | (mpidr >> 16 & 0xff) << 32
            | (mpidr >> 8 & 0xff) << 16
            | (mpidr >> 4 & 0xf) << 44
            | 1 << (mpidr & 0xf)
    };
    let whom = match to {
        To::Me => one(cpu::index()),
        To::Cpu(index) => one(index),
        To::Others => 1 << 40,
    };
    cpu::barrier();
    // SAFETY: makes an interrupt pending, no more.
    unsafe { write_register!("icc_sgi1r_el1", whom | u64::from(intid) << 24) };
    cpu::isb();
}

#[inline(always)]
pub(super) fn acknowledge() -> Taken {
    let raw = read_register!("icc_iar1_el1") as u32; // INTID is 24 bits
    cpu::barrier();
    Taken { raw, intid: raw }
}

#[inline(always)]
pub(super) fn end(taken: Taken) {
    // SAFETY: ends an interrupt, no more.
    unsafe { write_register!("icc_eoir1_el1", u64::from(taken.raw)) };
    cpu::isb();
}

pub(super) fn deactivate(taken: Taken) {
    // SAFETY: ends an interrupt, no more.
    unsafe { write_register!("icc_dir_el1", u64::from(taken.raw)) };
    cpu::isb();
}

pub(super) fn set_end_mode(mode: EndMode) {
    let others = read_register!("icc_ctlr_el1") & !EOI_MODE;
    let value = if mode == EndMode::DropOnly { others | EOI_MODE } else { others };
    // SAFETY: only how interrupts end.
    unsafe { write_register!("icc_ctlr_el1", value) };
    cpu::isb();
}

pub(super) fn set_mask(priority: u8) {
    // SAFETY: only which interrupts come.
    unsafe { write_register!("icc_pmr_el1", u64::from(priority)) };
    cpu::barrier();
}

pub(super) fn mask() -> u8 {
    read_register!("icc_pmr_el1") as u8 // bits above 7 are reserved
}

pub(super) fn set_binary_point(point: u32) {
    // SAFETY: only which interrupts preempt.
    unsafe { write_register!("icc_bpr1_el1", u64::from(point)) };
    cpu::isb();
}

pub(super) fn binary_point() -> u32 {
    (read_register!("icc_bpr1_el1") & 7) as u32 // three bits
}

pub(super) fn running_priority() -> u8 {
    read_register!("icc_rpr_el1") as u8 // what is above bit 7 is for NMIs
}

pub(super) fn highest_pending() -> u32 {
    read_register!("icc_hppir1_el1") as u32 // INTID is 24 bits
}
