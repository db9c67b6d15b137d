//! Devices by way of the exits that reach them: an access of a guest's, from its abort to the device and back.

use crate::exits::{here, model};
use flatland::arm::el1::El1;
use flatland::arm::esr::ec;
use flatland::arm::exception::psr;
use flatland::arm::gic::gicr;
use flatland::devices::{GICC, GICD, GICR, GICR_STRIDE, RTC, UART};
use flatland::exit;
use flatland::host::Here;
use flatland::hwstate;
use flatland::machine::Machine;
use flatland::next::Next;
use flatland::vcpu::Vcpu;
use flatland::vm::device_tree::Gic;
use flatland::vm::request;
use harness::cpu::{BoardPlan, Cpu, host, host_on, shown};
use std::sync::atomic::Ordering;

/// Lets the guest load (nothing to write) or store a word with X3. Returns X3.
pub(crate) fn access(here: Here<'_>, cpu: &Cpu<'_>, vcpu: &mut Vcpu, ipa: u64, value: Option<u64>) -> u64 {
    vcpu.registers.x[3] = value.unwrap_or(0x5555_5555_5555_5555);
    (vcpu.registers.far, vcpu.registers.hpfar) = (ipa, ipa >> 12 << 4);
    // ISV, SAS, SRT, WnR; a translation fault at level 3.
    let iss = 1 << 24 | 2 << 22 | 3 << 16 | u64::from(value.is_some()) << 6 | 0b111;
    vcpu.registers.esr = ec::DABT_LOWER << 26 | 1 << 25 | iss;
    vcpu.registers.pc = 0x1_0000;
    assert_eq!(exit::handle(here, cpu, vcpu), Next::Resume);
    assert_eq!(vcpu.registers.pc, 0x1_0004);
    vcpu.registers.x[3]
}

#[test]
fn the_clock_tells_seconds_of_the_boards_counter() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, false, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    // RTCDR and RTCLR (DDI 0224).
    let (dr, lr) = (RTC, RTC + 8);
    let before = access(here, &cpu, &mut vcpu, dr, None);
    cpu.pass(62_500_000 * 1000);
    assert_eq!(access(here, &cpu, &mut vcpu, dr, None), before + 1000);
    access(here, &cpu, &mut vcpu, lr, Some(77));
    assert_eq!(access(here, &cpu, &mut vcpu, dr, None), 77);
    cpu.pass(62_500_000 * 3);
    assert_eq!(access(here, &cpu, &mut vcpu, dr, None), 80);
}

#[test]
fn what_is_sent_is_seen_on_the_console_with_who_sent_it() {
    let model = model();
    let cpu = Cpu::new(&model);
    let host = host(&model, false, false);
    let here = here(host);
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let _ = shown(host);
    for byte in b"hello\n" {
        access(here, &cpu, &mut vcpu, UART, Some(u64::from(*byte)));
    }
    let said = shown(host);
    assert!(said.contains("hello"), "{said}");
}

#[test]
fn what_is_in_the_list_registers_is_read_of_the_redistributor() {
    const PENDING: u64 = 1 << 62;
    const ACTIVE: u64 = 1 << 63;
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, false, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let sgis = GICR + gicr::SGI_FRAME;
    // All groups on, all private ones of group 1 and on, and SGI 5 pending.
    for (ipa, value) in [(GICD, 3), (sgis + 0x80, 0xffff_ffff), (sgis + 0x100, 0xffff_ffff), (sgis + 0x200, 1 << 5)] {
        access(here, &cpu, &mut vcpu, ipa, Some(value));
    }
    hwstate::refill(here, &cpu, &mut vcpu);
    assert_eq!(cpu.lists.borrow().0[0] & (PENDING | ACTIVE | 0x3ff), PENDING | 5);
    assert_eq!(access(here, &cpu, &mut vcpu, sgis + 0x200, None), 1 << 5, "it is pending");
    // The guest takes it: nobody but the list register knows.
    hwstate::refill(here, &cpu, &mut vcpu);
    cpu.lists.borrow_mut().0[0] ^= PENDING | ACTIVE;
    assert_eq!(access(here, &cpu, &mut vcpu, sgis + 0x300, None), 1 << 5, "it is active");
    assert_eq!(access(here, &cpu, &mut vcpu, sgis + 0x200, None), 0, "and not pending");
}

#[test]
fn what_is_in_the_list_registers_is_read_of_the_distributor() {
    const PENDING: u64 = 1 << 62;
    const ACTIVE: u64 = 1 << 63;
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, false, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    // Both groups on; SPI 33 is of group 1, on, and pending.
    for (offset, value) in [(0, 3), (0x84, 2), (0x104, 2), (0x204, 2)] {
        access(here, &cpu, &mut vcpu, GICD + offset, Some(value));
    }
    for (offset, before, after) in [(0x304, 0, 2), (0x204, 2, 0)] {
        hwstate::refill(here, &cpu, &mut vcpu);
        assert_eq!(access(here, &cpu, &mut vcpu, GICD + offset, None), before);
        hwstate::refill(here, &cpu, &mut vcpu);
        // The guest takes it.
        let taken = |lr: u64| if lr & PENDING != 0 { lr ^ (PENDING | ACTIVE) } else { lr };
        cpu.lists.borrow_mut().0.iter_mut().for_each(|lr| *lr = taken(*lr));
        assert_eq!(access(here, &cpu, &mut vcpu, GICD + offset, None), after, "{offset:#x}");
        // And ends it; it is pending again.
        hwstate::refill(here, &cpu, &mut vcpu);
        cpu.lists.borrow_mut().0.iter_mut().for_each(|lr| *lr &= !(PENDING | ACTIVE));
        access(here, &cpu, &mut vcpu, GICD + 0x204, Some(2));
    }
}

/// GICC_DIR, the one register of a GICv2's CPU interface that is not the hardware's.
#[test]
fn an_interrupt_is_deactivated_by_way_of_the_cpu_interface() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host_on(&model, &BoardPlan { gic: Gic::V2, ..BoardPlan::new(1, &["one"]) }));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    // GICD_ISACTIVER1: SPIs 33 and 34.
    access(here, &cpu, &mut vcpu, GICD + 0x304, Some(6));
    access(here, &cpu, &mut vcpu, GICC + 0x1000, Some(33));
    assert_eq!(access(here, &cpu, &mut vcpu, GICD + 0x304, None), 4);
    assert_eq!(access(here, &cpu, &mut vcpu, GICC + 0x1000, None), 0);
    // There is nothing beside it, and of a GICv3 not even that: an external abort.
    let v3 = super::exits::here(host(&model, false, false));
    let mut other = v3.slot.vcpu.lock();
    let refused = |here: Here<'_>, vcpu: &mut Vcpu, at: u64| {
        cpu.load(here, vcpu);
        (vcpu.registers.far, vcpu.registers.hpfar, vcpu.registers.pc) = (at, at >> 12 << 4, 0x1_0000);
        vcpu.registers.esr = ec::DABT_LOWER << 26 | 1 << 25 | 1 << 24 | 2 << 22 | 3 << 16 | 1 << 6 | 0b111;
        assert_eq!(exit::handle(here, &cpu, vcpu), Next::Resume);
        assert_eq!((cpu.get(El1::Esr) & 0x3f, vcpu.registers.pc), (0b01_0000, cpu.get(El1::Vbar) + 0x200), "{at:#x}");
    };
    refused(here, &mut vcpu, GICC + 0x1004);
    refused(here, &mut vcpu, GICC);
    refused(v3, &mut other, GICC + 0x1000);
    // There are as many redistributors as vCPUs.
    assert_eq!(v3.vm.slots.len(), 2);
    refused(v3, &mut other, GICR + 2 * GICR_STRIDE + 8);
}

/// ICC_SGI1R_EL1: to another vCPU, which gets to know, and to itself, which looks before it goes on.
#[test]
fn an_sgi_goes_to_whom_it_names() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, false, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let slots = &here.vm.slots;
    let sgis = |n: u64| GICR + n * GICR_STRIDE + gicr::SGI_FRAME;
    for n in 0..2 {
        // All of group 1 and on.
        access(here, &cpu, &mut vcpu, sgis(n) + 0x80, Some(0xffff_ffff));
        access(here, &cpu, &mut vcpu, sgis(n) + 0x100, Some(0xffff_ffff));
    }
    access(here, &cpu, &mut vcpu, GICD, Some(3));
    for (sgi, targets, who) in [(5, 0b10, [false, true]), (6, 0b01, [true, false]), (7, 0b11, [true, true])] {
        slots.iter().for_each(|slot| slot.requests.store(0, Ordering::Relaxed));
        // MSR S3_0_C12_C11_5, X7.
        vcpu.registers.x[7] = sgi << 24 | targets;
        vcpu.registers.esr = ec::SYSREG << 26 | 1 << 25 | 3 << 20 | 5 << 17 | 12 << 10 | 7 << 5 | 11 << 1;
        assert_eq!(exit::handle(here, &cpu, &mut vcpu), Next::Resume);
        let told = [0, 1].map(|n| slots[n].requests.load(Ordering::Relaxed) & request::REFILL != 0);
        assert_eq!(told, who, "SGI {sgi}");
        let pends = [0, 1].map(|n| access(here, &cpu, &mut vcpu, sgis(n) + 0x200, None) >> sgi & 1 != 0);
        assert_eq!(pends, who, "SGI {sgi}");
    }
}

/// ICC_DIR_EL1, where it traps.
#[test]
fn an_interrupt_is_deactivated_by_a_system_register() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, false, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    access(here, &cpu, &mut vcpu, GICD + 0x304, Some(6));
    here.slot.requests.store(0, Ordering::Relaxed);
    // MSR S3_0_C12_C11_1, X7.
    vcpu.registers.x[7] = 33;
    vcpu.registers.esr = ec::SYSREG << 26 | 1 << 25 | 3 << 20 | 1 << 17 | 12 << 10 | 7 << 5 | 11 << 1;
    assert_eq!(exit::handle(here, &cpu, &mut vcpu), Next::Resume);
    assert_eq!(access(here, &cpu, &mut vcpu, GICD + 0x304, None), 4);
    assert_ne!(here.slot.requests.load(Ordering::Relaxed) & request::REFILL, 0, "others have room in the lists");
}

#[test]
fn a_big_endian_guest_sees_a_devices_bytes_the_other_way_round() {
    const EE: u64 = 1 << 25;
    const E0E: u64 = 1 << 24;
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, false, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    // PCellID0 of the UART is 0x0d; UARTIBRD keeps 16 bits.
    for (state, sctlr, swaps) in [
        (psr::EL1H, 0, false),
        (psr::EL1H, EE, true),
        (psr::EL1H, E0E, false),
        (psr::EL1H, EE | E0E, true),
        (psr::EL0T, E0E, true),
        (psr::EL0T, EE, false),
        (psr::EL0T, EE | E0E, true),
    ] {
        vcpu.registers.pstate = state;
        cpu.set(El1::Sctlr, sctlr);
        let found = access(here, &cpu, &mut vcpu, UART + 0xff0, None);
        assert_eq!(found, if swaps { 0x0d00_0000 } else { 0x0d }, "{state:#x}, SCTLR_EL1 {sctlr:#x}");
        access(here, &cpu, &mut vcpu, UART + 0x24, Some(if swaps { 0x3412_0000 } else { 0x1234 }));
        cpu.set(El1::Sctlr, 0);
        assert_eq!(access(here, &cpu, &mut vcpu, UART + 0x24, None), 0x1234, "{state:#x}, SCTLR_EL1 {sctlr:#x}");
    }
}
