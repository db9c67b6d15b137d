//! Every trap that a hypervisor may ask for: with the bit, the instruction comes to EL2 with its class and syndrome;
//! without it, it does not.
//!
//! Follows Arm ARM D24.2.48 (HCR_EL2), D24.2.32 (CPTR_EL2), D24.3.18 (MDCR_EL2), D24.10.2 (CNTHCTL_EL2).

mod list;

use crate::l2::{CODE, DATA, HVC, MORE, PROGRAM, SYSTEM, Vm};
use crate::ops::{BRK, FMOV, SEVL, SPIN, Sys, WFE, WFI, hvc, smc};
use rt::el2::{self, EL0, EL1H, El1, Exit, Register, guest};
use rt::{args, check, check_eq, println, psci};

/// Exception class: WFI and WFE.
const WAITED: u64 = 0x01;
/// Exception class: floating point.
const FP: u64 = 0x07;
/// Exception class: pointer authentication.
const PAC: u64 = 0x09;
/// Exception class: SMC.
const SMC: u64 = 0x17;
/// Exception class: SVE.
const SVE: u64 = 0x19;
/// Exception class: BRK.
const BROKEN: u64 = 0x3c;
/// ISS: the condition is valid, and `always`.
const ALWAYS: u64 = 1 << 24 | 0xe << 20;

/// A bit that makes something trap: set, or clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bit {
    /// Of HCR_EL2, set.
    Hcr(u32),
    /// Of HCR_EL2, clear.
    NotHcr(u32),
    /// Of another register, set.
    Set(Register, u32),
    /// Bits of another register, clear.
    Clear(Register, u64),
}

/// Runs instructions with a bit as it traps, or as it does not, and puts everything back.
fn run_with(vm: &mut Vm, bit: Bit, traps: bool, pstate: u64, words: &[u32]) -> Exit {
    let plain = vm.hcr;
    let put = |register: Register, mask: u64, is_set: bool| {
        let before = register.read();
        register.write(if is_set { before | mask } else { before & !mask });
        Some((register, before))
    };
    let before = match bit {
        Bit::Hcr(n) | Bit::NotHcr(n) => {
            let is_set = traps == matches!(bit, Bit::Hcr(_));
            vm.hcr = if is_set { plain | 1 << n } else { plain & !(1 << n) };
            None
        }
        Bit::Set(register, n) => put(register, 1 << n, traps),
        Bit::Clear(register, mask) => put(register, mask, !traps),
    };
    vm.cpu.x[1] = DATA;
    let exit = vm.exec_in(pstate, words);
    if let Some((register, value)) = before {
        register.write(value);
    }
    vm.hcr = plain;
    exit
}

/// Whether the guest went on, or took the instruction as undefined.
fn went_on(exit: Exit) -> bool {
    let is_undefined = exit.iss() == guest::VECTOR + 4 && El1::Esr.read() >> 26 == 0;
    exit.class() == HVC && (exit.iss() == 0x77 || is_undefined)
}

/// Checks an instruction at EL1 with the bit and without.
fn trap(vm: &mut Vm, name: &str, bit: Bit, word: u32, class: u64, iss: u64) {
    let exit = run_with(vm, bit, true, EL1H, &[word, hvc(0x77)]);
    let is_right = exit.class() == class && exit.iss() == iss && exit.esr >> 25 & 1 == 1;
    check!(is_right, "{name} traps by {bit:?}", "{exit:x?}, want class {class:x} iss {iss:x}");
    check!(exit.pc == PROGRAM && exit.pstate & 0x3df == EL1H & 0x3df, "{name} traps before it is done", "{exit:x?}");
    let exit = run_with(vm, bit, false, EL1H, &[word, hvc(0x77)]);
    check!(went_on(exit), "{name} does not trap without {bit:?}", "{exit:x?}");
}

/// Checks a read of a register.
fn read(vm: &mut Vm, name: &str, bit: Bit, sys: Sys) {
    trap(vm, name, bit, sys.mrs(1), SYSTEM, sys.iss(1, true));
}

/// Checks a write of a register, or an instruction of that space.
fn write(vm: &mut Vm, name: &str, bit: Bit, sys: Sys) {
    trap(vm, name, bit, sys.msr(1), SYSTEM, sys.iss(1, false));
}

/// Runs the group.
pub(crate) fn run() {
    let mut vm = Vm::plain(1);
    let vm = &mut vm;
    calls(vm);
    waits(vm);
    list::control_registers(vm);
    list::identity(vm);
    list::maintenance(vm);
    list::others(vm);
    emulated(vm);
    floating_point(vm);
    debug(vm);
    counters(vm);
    if args::gic_version() == 3 {
        crate::lists::clear();
        list::interrupts(vm);
        crate::lists::end();
    } else {
        println!("nest: traps: ICH_HCR_EL2 skipped: no GICv3");
    }
    println!("nest: traps: HSTR_EL2 and HCR_EL2.TID0 skipped: they are about AArch32");
}

fn calls(vm: &mut Vm) {
    // TSC: with its immediate; else firmware answers.
    for immediate in [0, 0x1234, 0xffff] {
        let exit = run_with(vm, Bit::Hcr(19), true, EL1H, &[smc(immediate), hvc(0x77)]);
        let is_right = exit.class() == SMC && exit.iss() == u64::from(immediate) && exit.pc == PROGRAM;
        check!(is_right, "SMC #{immediate} traps by HCR_EL2.TSC", "{exit:x?}");
    }
    vm.cpu.x[0] = psci::VERSION;
    let exit = run_with(vm, Bit::Hcr(19), false, EL1H, &[smc(0), hvc(0x77)]);
    let is_right = went_on(exit) && (exit.iss() != 0x77 || vm.cpu.x[0] >> 16 == 1);
    check!(is_right, "SMC reaches firmware without HCR_EL2.TSC, or is UNDEFINED", "{exit:x?} {:#x}", vm.cpu.x[0]);
    // HCD: HVC is undefined, in the usual vectors too: these have SMC. Only where there is no EL3.
    if Register::Pfr0.read() >> 12 & 15 == 0 {
        vm.program_at(MORE + 4 * 0x80, &[smc(0x104), SPIN]);
        El1::Vbar.write(MORE);
        vm.hcr |= 1 << 19;
        let exit = run_with(vm, Bit::Hcr(29), true, EL1H, &[hvc(0x77)]);
        let is_right = exit.class() == SMC && exit.iss() == 0x104 && El1::Elr.read() == PROGRAM;
        check!(is_right, "HVC is UNDEFINED by HCR_EL2.HCD", "{exit:x?}");
        check_eq!(El1::Esr.read() >> 26, 0, "HVC is UNDEFINED by HCR_EL2.HCD: ESR_EL1");
        vm.hcr &= !(1 << 19);
        El1::Vbar.write(CODE);
    }
}

fn waits(vm: &mut Vm) {
    // What lets it go on without the trap: a virtual interrupt, an event.
    let exit = run_with(vm, Bit::Hcr(13), true, EL1H, &[WFI, hvc(0x77)]);
    check!(exit.class() == WAITED && exit.iss() == ALWAYS, "WFI traps by HCR_EL2.TWI", "{exit:x?}");
    check_eq!(exit.pc, PROGRAM, "WFI traps before it is done");
    vm.cpu.pc += 4;
    let exit = vm.run();
    check_eq!(exit.iss(), 0x77, "behind WFI the guest goes on");
    vm.hcr |= 1 << 7;
    let exit = run_with(vm, Bit::Hcr(13), false, EL1H, &[WFI, hvc(0x77)]);
    check_eq!(exit.iss(), 0x77, "WFI does not trap without HCR_EL2.TWI");
    vm.hcr &= !(1 << 7);
    // An event may be there before: then the first does not wait.
    let exit = run_with(vm, Bit::Hcr(14), true, EL1H, &[WFE, WFE, WFE, hvc(0x77)]);
    if went_on(exit) {
        println!("nest: traps: HCR_EL2.TWE skipped: WFE never traps here, as with QEMU");
    } else {
        check!(exit.class() == WAITED && exit.iss() == ALWAYS | 1, "WFE traps by HCR_EL2.TWE", "{exit:x?}");
    }
    let exit = run_with(vm, Bit::Hcr(14), false, EL1H, &[SEVL, WFE, hvc(0x77)]);
    check_eq!(exit.iss(), 0x77, "WFE does not trap without HCR_EL2.TWE");
    // At EL0 SCTLR_EL1.nTWI comes first.
    let exit = run_with(vm, Bit::Hcr(13), true, EL0, &[WFI, hvc(0x77)]);
    check_eq!(exit.iss(), guest::VECTOR + 8, "WFI at EL0 is EL1's by SCTLR_EL1.nTWI");
    let sctlr = El1::Sctlr.read();
    El1::Sctlr.write(sctlr | 1 << 16);
    let exit = run_with(vm, Bit::Hcr(13), true, EL0, &[WFI, hvc(0x77)]);
    check!(exit.class() == WAITED && exit.pstate & 0x1f == 0, "WFI at EL0 traps by HCR_EL2.TWI", "{exit:x?}");
    // SCTLR_EL1.UCT: EL0 may read CTR_EL0.
    El1::Sctlr.write(sctlr | 1 << 15);
    let ctr = Sys(3, 3, 0, 0, 1);
    let exit = run_with(vm, Bit::Hcr(17), true, EL0, &[ctr.mrs(1), crate::ops::svc(0)]);
    let is_right = exit.class() == SYSTEM && exit.iss() == ctr.iss(1, true) && exit.pstate & 0x1f == 0;
    check!(is_right, "CTR_EL0 at EL0 traps by HCR_EL2.TID2", "{exit:x?}");
    El1::Sctlr.write(sctlr);
}

/// A trapped access is answered by the hypervisor; a write does nothing by itself.
fn emulated(vm: &mut Vm) {
    let pfr0 = Sys(3, 0, 0, 4, 0);
    vm.hcr |= 1 << 18 | 1 << 26;
    let exit = vm.exec(&[pfr0.mrs(7), hvc(0x77)]);
    check_eq!(exit.iss(), pfr0.iss(7, true), "a trapped read tells its register");
    vm.cpu.x[7] = 0x1234_5678;
    vm.cpu.pc += 4;
    let exit = vm.run();
    check!(exit.iss() == 0x77 && vm.cpu.x[7] == 0x1234_5678, "a trapped read is answered", "{exit:x?}");
    let exit = vm.exec(&[pfr0.mrs(31), hvc(0x77)]);
    check_eq!(exit.iss(), pfr0.iss(31, true), "a trapped read to XZR");
    let before = El1::Ttbr1.read();
    vm.cpu.x[9] = before ^ 0x1000;
    let ttbr1 = Sys(3, 0, 2, 0, 1);
    let exit = vm.exec(&[ttbr1.msr(9), hvc(0x77)]);
    check_eq!(exit.iss(), ttbr1.iss(9, false), "a trapped write tells its register");
    check_eq!(El1::Ttbr1.read(), before, "a trapped write does nothing by itself");
    vm.hcr &= !(1 << 18 | 1 << 26);
}

fn floating_point(vm: &mut Vm) {
    let bit = if el2::is_vhe() { Bit::Clear(Register::Cptr, 3 << 20) } else { Bit::Set(Register::Cptr, 10) };
    trap(vm, "FMOV", bit, FMOV, FP, ALWAYS);
    trap(vm, "FPCR", bit, Sys(3, 3, 4, 4, 0).mrs(1), FP, ALWAYS);
    // EL1's own trap comes first.
    El1::Cpacr.write(0);
    let exit = run_with(vm, bit, true, EL1H, &[FMOV, hvc(0x77)]);
    check_eq!(exit.iss(), guest::VECTOR + 4, "FMOV is EL1's by CPACR_EL1");
    El1::Cpacr.write(3 << 20);
    read(vm, "CPACR_EL1", Bit::Set(Register::Cptr, 31), Sys(3, 0, 1, 0, 2));
    write(vm, "CPACR_EL1", Bit::Set(Register::Cptr, 31), Sys(3, 0, 1, 0, 2));
    El1::Cpacr.write(3 << 20);
    if Register::Pfr0.read() >> 32 & 15 != 0 {
        El1::Cpacr.write(3 << 20 | 3 << 16);
        let bit = if el2::is_vhe() { Bit::Clear(Register::Cptr, 3 << 16) } else { Bit::Set(Register::Cptr, 8) };
        trap(vm, "RDVL", bit, 0x04bf_5020, SVE, 0);
        El1::Cpacr.write(3 << 20);
    } else {
        println!("nest: traps: SVE skipped: there is none");
    }
}

fn debug(vm: &mut Vm) {
    let mdcr = |n| Bit::Set(Register::Mdcr, n);
    read(vm, "MDSCR_EL1", mdcr(9), Sys(2, 0, 0, 2, 2));
    read(vm, "DBGBCR0_EL1", mdcr(9), Sys(2, 0, 0, 0, 5));
    read(vm, "OSLSR_EL1", mdcr(10), Sys(2, 0, 1, 1, 4));
    read(vm, "MDRAR_EL1", mdcr(11), Sys(2, 0, 1, 0, 0));
    let exit = run_with(vm, mdcr(8), true, EL1H, &[BRK]);
    check!(exit.class() == BROKEN && exit.iss() == 1 && exit.pc == PROGRAM, "BRK traps by MDCR_EL2.TDE", "{exit:x?}");
    let exit = run_with(vm, mdcr(8), false, EL1H, &[BRK]);
    check_eq!(exit.iss(), guest::VECTOR + 4, "BRK does not trap without MDCR_EL2.TDE");
    if matches!(Register::Dfr0.read() >> 8 & 15, 1..15) {
        read(vm, "PMCNTENSET_EL0", mdcr(6), Sys(3, 3, 9, 12, 1));
        read(vm, "PMCR_EL0", mdcr(6), Sys(3, 3, 9, 12, 0));
        let pmcr = Sys(3, 3, 9, 12, 0);
        if went_on(run_with(vm, mdcr(5), true, EL1H, &[pmcr.mrs(1), hvc(0x77)])) {
            println!("nest: traps: MDCR_EL2.TPMCR skipped: PMCR_EL0 never traps by it here, as with QEMU");
        } else {
            read(vm, "PMCR_EL0", mdcr(5), pmcr);
        }
    } else {
        println!("nest: traps: the PMU skipped: there is none");
    }
}

fn counters(vm: &mut Vm) {
    let shift = if el2::is_vhe() { 10 } else { 0 };
    let counter = Bit::Clear(Register::Cnthctl, 1 << shift);
    let timer = Bit::Clear(Register::Cnthctl, 2 << shift);
    read(vm, "CNTPCT_EL0", counter, Sys(3, 3, 14, 0, 1));
    for (op2, name) in [(0, "CNTP_TVAL_EL0"), (1, "CNTP_CTL_EL0"), (2, "CNTP_CVAL_EL0")] {
        read(vm, name, timer, Sys(3, 3, 14, 2, op2));
    }
    write(vm, "CNTP_CVAL_EL0", timer, Sys(3, 3, 14, 2, 2));
    // FEAT_ECV
    if Register::Mmfr0.read() >> 60 & 15 != 0 {
        read(vm, "CNTVCT_EL0", Bit::Set(Register::Cnthctl, 14), Sys(3, 3, 14, 0, 2));
        for (op2, name) in [(0, "CNTV_TVAL_EL0"), (1, "CNTV_CTL_EL0"), (2, "CNTV_CVAL_EL0")] {
            read(vm, name, Bit::Set(Register::Cnthctl, 13), Sys(3, 3, 14, 3, op2));
        }
    } else {
        println!("nest: traps: the virtual counter skipped: no FEAT_ECV");
    }
}

/// SGIs of a guest come to EL2 by IMO and FMO, whatever else is set.
fn sgis(vm: &mut Vm) {
    for (name, sys) in [
        ("ICC_SGI1R_EL1", Sys(3, 0, 12, 11, 5)),
        ("ICC_ASGI1R_EL1", Sys(3, 0, 12, 11, 6)),
        ("ICC_SGI0R_EL1", Sys(3, 0, 12, 11, 7)),
    ] {
        let exit = vm.exec(&[sys.msr(1), hvc(0x77)]);
        let is_right = exit.class() == SYSTEM && exit.iss() == sys.iss(1, false) && exit.pc == PROGRAM;
        check!(is_right, "{name} comes to EL2", "{exit:x?}");
    }
}
