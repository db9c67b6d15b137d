//! Distributor and redistributor registers: what reads as written, what is fixed, what is banked.

use crate::{SPI, SPI_2};
use rt::gic::{self, Trigger};
use rt::{board, check, check_eq, expect_exception, mmio, read_register};

pub(crate) fn check() {
    let n = gic::n_interrupts();
    check!(n >= 96, "at least 64 SPIs", "{n} interrupts");
    let revision = mmio::read32(board::GICD + if gic::is_v2() { 0xfe8 } else { 0xffe8 }) >> 4 & 15;
    let versions = if gic::is_v2() { 1..=2 } else { 3..=4 };
    check!(versions.contains(&revision), "PIDR2 names the architecture", "{revision}");
    let before = mmio::read32(board::GICD + gic::IIDR);
    mmio::write32(board::GICD + gic::IIDR, !before);
    check_eq!(mmio::read32(board::GICD + gic::IIDR), before, "IIDR is read-only");
    bits();
    priorities(n);
    triggers();
    targets();
    if !gic::is_v2() {
        version_3();
    }
}

fn bits() {
    for intid in [3, 20, SPI] {
        gic::enable(intid);
        check!(gic::is_enabled(intid), "interrupt {intid} can be enabled");
        gic::disable(intid);
        let fixed = intid < 16 && gic::is_v2(); // SGIs of a GICv2 may be always enabled
        check!(!gic::is_enabled(intid) || fixed, "interrupt {intid} can be disabled");
        gic::set_active(intid);
        check!(gic::is_active(intid), "interrupt {intid} can be made active");
        gic::clear_active(intid);
        check!(!gic::is_active(intid), "interrupt {intid} can be made inactive");
        gic::set_pending(intid);
        check!(gic::is_pending(intid), "interrupt {intid} can be made pending");
        gic::clear_pending(intid);
        check!(!gic::is_pending(intid), "interrupt {intid} can be made not pending");
    }
    gic::enable(SPI);
    gic::enable(SPI_2);
    mmio::write32(board::GICD + gic::ISENABLER + 4, 0);
    mmio::write32(board::GICD + gic::ICENABLER + 4, 1 << (SPI % 32));
    check!(!gic::is_enabled(SPI) && gic::is_enabled(SPI_2), "zeros in set and clear registers change nothing");
    let reads = mmio::read32(board::GICD + gic::ISENABLER + 4) == mmio::read32(board::GICD + gic::ICENABLER + 4);
    check!(reads, "set-enable and clear-enable read the same");
    gic::disable(SPI_2);
}

fn priorities(n: u32) {
    for intid in [5, 30, SPI, n.min(1020) - 1] {
        gic::set_priority(intid, 0x50);
        check_eq!(gic::priority(intid), 0x50, "priority of {intid} reads as written");
        gic::set_priority(intid, 0xff);
        let got = gic::priority(intid);
        check!(got >= 0xf0 && got.leading_ones() + got.trailing_zeros() == 8, "priority of {intid} cut", "{got:#x}");
        gic::set_priority(intid, gic::DEFAULT_PRIORITY);
    }
    let word = board::GICD + gic::IPRIORITYR + 40;
    mmio::write32(word, 0x4030_2010);
    check_eq!(gic::priority(41), 0x20, "a word of priorities is four bytes");
    mmio::write8(word + 3, 0x80);
    check_eq!(mmio::read32(word), 0x8030_2010, "a byte of priorities changes no other");
    for intid in 40..44 {
        gic::set_priority(intid, gic::DEFAULT_PRIORITY);
    }
}

fn triggers() {
    for trigger in [Trigger::Edge, Trigger::Level] {
        gic::set_trigger(SPI, trigger);
        check!(gic::trigger(SPI) == trigger, "an SPI can be {trigger:?}");
    }
    gic::set_trigger(5, Trigger::Level);
    check!(gic::trigger(5) == Trigger::Edge, "SGIs are edges");
}

fn targets() {
    let last = rt::args::n_cpus().min(8) - 1;
    for index in [last, 0] {
        gic::set_target(SPI, index);
        check!(gic::is_target(SPI, index), "an SPI can go to CPU {index}");
    }
    if gic::is_v2() {
        let own = mmio::read32(board::GICD + gic::ITARGETSR);
        mmio::write32(board::GICD + gic::ITARGETSR, !own);
        check_eq!(mmio::read32(board::GICD + gic::ITARGETSR), own, "targets of SGIs are read-only");
    }
}

fn version_3() {
    check_eq!(read_register!("icc_sre_el1") & 1, 1, "ICC_SRE_EL1.SRE is set");
    check_eq!(mmio::read32(board::GICD + gic::CTLR) & 0x10, 0x10, "GICD_CTLR.ARE is set");
    let bits = (read_register!("icc_ctlr_el1") >> 8 & 7) + 1;
    check!(bits >= 4, "at least 16 priorities", "{bits} bits");
    let (mut frame, mut n) = (board::GICR, 0);
    loop {
        let typer = mmio::read64(frame + 8);
        check_eq!(typer >> 8 & 0xffff, n, "redistributor {n} has its number");
        let mpidr = rt::args::mpidr(n as usize);
        check_eq!(typer >> 32, mpidr & 0xff_ffff | mpidr >> 8 & 0xff00_0000, "redistributor {n} has its affinity");
        let high = u64::from(mmio::read32(frame + 12));
        check_eq!(high, typer >> 32, "GICR_TYPER of {n} can be read by halves");
        n += 1;
        if typer & 1 << 4 != 0 || n as usize >= rt::args::n_cpus() {
            check!(typer & 1 << 4 != 0, "the last redistributor says so");
            break;
        }
        frame += 0x2_0000;
    }
    check_eq!(n, rt::args::n_cpus() as u64, "as many redistributors as CPUs");
    // What the distributor has for SGIs and PPIs is RES0 with affinity routing.
    mmio::write32(board::GICD + gic::ISENABLER, !0);
    check_eq!(mmio::read32(board::GICD + gic::ISENABLER), 0, "GICD_ISENABLER0 is RES0");
    let fault = expect_exception(|| {
        read_register!("icc_ap1r0_el1");
    });
    check!(fault.is_none(), "ICC_AP1R0_EL1 is there");
}
