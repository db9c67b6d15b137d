//! Into the guest and back: what HVC, SVC and undefined instructions come as, at EL1 and EL0, with TGE, and illegal returns.

use crate::l2::{CODE, DATA, DATA_ABORT, FETCH, HVC, PROGRAM, SVC, Vm};
use crate::ops::{BRK, ERET, ISB, MOV_X0_SP, NOP, Sys, UDF, add, blr, hvc, ldr, str, svc};
use crate::tables::ALL;
use rt::el2::tlb::{self, Forget};
use rt::el2::{self, EL0, EL1H, EL1T, El1, Exit, Register, guest};
use rt::{check, check_eq, mmu};

/// Exception class: an illegal execution state.
const ILLEGAL: u64 = 0x0e;
/// Where nothing is, on QEMU's board and on a VM's.
const NOTHING: u64 = 0x0c00_0000;
/// DFSC and IFSC: an external abort.
const EXTERNAL: u64 = 0x10;
/// SPSR: what kind of branch came before.
const BTYPE: u64 = 3 << 10;
/// ESR: the instruction has 32 bits.
const IL: u64 = 1 << 25;

const CURRENT_EL: Sys = Sys(3, 0, 4, 2, 2);
const MIDR: Sys = Sys(3, 0, 0, 0, 0);
const MPIDR: Sys = Sys(3, 0, 0, 0, 5);
const HCR_EL2: Sys = Sys(3, 4, 1, 1, 0);

/// Runs the group.
pub(crate) fn run() {
    let mut vm = Vm::plain(1);
    calls(&mut vm);
    registers(&mut vm);
    stacks(&mut vm);
    own_exceptions(&mut vm);
    down_by_itself(&mut vm);
    if el2::is_vhe() {
        user_of_vhe(&mut vm)
    } else {
        all_to_us(&mut vm)
    }
    illegal(&mut vm);
}

fn calls(vm: &mut Vm) {
    for immediate in [0, 1, 0x7fff, 0xffff] {
        let exit = vm.exec(&[NOP, hvc(immediate)]);
        let want =
            Exit { vector: 8, esr: HVC << 26 | IL | u64::from(immediate), pc: PROGRAM + 8, pstate: EL1H, ..exit };
        check!(exit == want, "HVC #{immediate}", "{exit:x?}");
    }
    for flags in 0..16u64 {
        let pstate = flags << 28 | EL1H;
        let exit = vm.exec_in(pstate, &[hvc(0)]);
        check_eq!(exit.pstate & 0xf000_03ff, pstate, "SPSR_EL2 has the flags {flags:x} of the guest");
    }
    for masks in 0..16u64 {
        // SError, interrupts, FIQs: none is pending, so all may be open.
        let pstate = masks << 6 | 5;
        let exit = vm.exec_in(pstate, &[hvc(0)]);
        check_eq!(exit.pstate & 0x3ff, pstate, "SPSR_EL2 has the masks {masks:x} of the guest");
    }
    let exit = vm.exec_in(EL1T, &[hvc(2)]);
    check_eq!(exit.pstate & 0x1f, 4, "SPSR_EL2 has EL1t");
    check_eq!(exit.class(), HVC, "HVC at EL1t");
    let exit = vm.exec(&[CURRENT_EL.mrs(0), hvc(0)]);
    check!(exit.class() == HVC && vm.cpu.x[0] == 4, "CurrentEL is EL1 in the guest", "{:x}", vm.cpu.x[0]);
    // Several, from where the one before ended.
    vm.program(&[hvc(1), hvc(2), hvc(3)]);
    vm.cpu.pc = PROGRAM;
    for n in 1..=3 {
        check_eq!(vm.run().iss(), n, "HVC after HVC: number {n}");
    }
}

macro_rules! check_pair {
    ($got:expr, $want:expr, $name:literal) => {{
        let (got, want) = ($got, $want);
        check!(got == want, $name, "got {got:x?}, want {want:x?}");
    }};
}

fn registers(vm: &mut Vm) {
    let pattern: [u64; 31] = core::array::from_fn(|n| 0x0101_0101_0101_0101u64.wrapping_mul(n as u64 + 1));
    vm.cpu.x = pattern;
    let mut program = [hvc(0); 32];
    for n in 0..31 {
        program[n as usize] = add(n, n, n + 1);
    }
    let exit = vm.exec(&program);
    let want: [u64; 31] = core::array::from_fn(|n| pattern[n].wrapping_add(n as u64 + 1));
    check_eq!(exit.class(), HVC, "a program on all registers ends");
    check_pair!(vm.cpu.x, want, "x0 to x30 go in and come back");
    vm.cpu.x = [0; 31];
    let (midr, mpidr) = (Register::Vpidr.read(), Register::Vmpidr.read());
    Register::Vpidr.write(0x410f_d083);
    Register::Vmpidr.write(0x8000_0102);
    vm.exec(&[MIDR.mrs(0), MPIDR.mrs(1), hvc(0)]);
    check_eq!(vm.cpu.x[0], 0x410f_d083, "MIDR_EL1 is VPIDR_EL2 in the guest");
    check_eq!(vm.cpu.x[1], 0x8000_0102, "MPIDR_EL1 is VMPIDR_EL2 in the guest");
    Register::Vpidr.write(midr);
    Register::Vmpidr.write(mpidr);
    // What the guest writes is what is read here, and the other way round.
    let shared = [
        ("TTBR0_EL1", El1::Ttbr0, Sys(3, 0, 2, 0, 0), 0x4321_0000u64),
        ("TTBR1_EL1", El1::Ttbr1, Sys(3, 0, 2, 0, 1), 0x4322_0000),
        ("ELR_EL1", El1::Elr, Sys(3, 0, 4, 0, 1), 0x1234_5670),
        ("SPSR_EL1", El1::Spsr, Sys(3, 0, 4, 0, 0), EL1T),
        ("ESR_EL1", El1::Esr, Sys(3, 0, 5, 2, 0), 0x5600_0001),
        ("FAR_EL1", El1::Far, Sys(3, 0, 6, 0, 0), 0x1234_5678_9abc_def0),
        ("MAIR_EL1", El1::Mair, Sys(3, 0, 10, 2, 0), 0xff44_0400),
        ("TCR_EL1", El1::Tcr, Sys(3, 0, 2, 0, 2), 0x80_3519),
        ("CONTEXTIDR_EL1", El1::Contextidr, Sys(3, 0, 13, 0, 1), 0x77),
        ("CNTKCTL_EL1", El1::Cntkctl, Sys(3, 0, 14, 1, 0), 3),
        ("CNTV_CVAL_EL0", El1::CntvCval, Sys(3, 3, 14, 3, 2), 0x1234_5678_9abc),
        ("CNTP_CVAL_EL0", El1::CntpCval, Sys(3, 3, 14, 2, 2), 0x4234_5678_9abc),
    ];
    for (name, register, sys, value) in shared {
        let before = register.read();
        vm.cpu.x[1] = value;
        vm.exec(&[sys.msr(1), ISB, sys.mrs(2), hvc(0)]);
        check_eq!(vm.cpu.x[2], value, "the guest reads the {name} it wrote");
        check_eq!(register.read(), value, "{name} of the guest is seen at EL2");
        register.write(before);
        vm.exec(&[sys.mrs(2), hvc(0)]);
        check_eq!(vm.cpu.x[2], before, "the guest sees the {name} that EL2 wrote");
    }
}

fn stacks(vm: &mut Vm) {
    let (sp0, sp1) = (Register::SpEl0.read(), Register::SpEl1.read());
    Register::SpEl0.write(DATA + 0x100);
    Register::SpEl1.write(DATA + 0x200);
    for (pstate, want, name) in [(EL1T, DATA + 0x100, "EL1t"), (EL1H, DATA + 0x200, "EL1h")] {
        vm.exec_in(pstate, &[MOV_X0_SP, hvc(0)]);
        check_eq!(vm.cpu.x[0], want, "{name} has its stack pointer");
    }
    vm.exec_in(EL0, &[MOV_X0_SP, svc(0)]);
    check_eq!(vm.cpu.x[0], DATA + 0x100, "EL0 has SP_EL0");
    // ADD sp, sp, #16 at EL1h moves one and not the other.
    vm.exec(&[0x9100_43ff, hvc(0)]);
    check_eq!(Register::SpEl1.read(), DATA + 0x210, "the guest moves SP_EL1");
    check_eq!(Register::SpEl0.read(), DATA + 0x100, "and SP_EL0 stays");
    Register::SpEl0.write(sp0);
    Register::SpEl1.write(sp1);
}

/// Checks that an exception was taken by EL1's vector.
fn taken(what: &str, exit: Exit, vector: u64, esr: u64, elr: u64, spsr: u64) {
    check!(exit.class() == HVC && exit.iss() == guest::VECTOR + vector, "{what}: vector {vector} of EL1", "{exit:x?}");
    check_eq!(exit.pc, CODE + vector * 0x80 + 4, "{what}: at EL1's vector");
    check_eq!(exit.pstate & 0x3df, EL1H & 0x3df, "{what}: EL1's state in its vector");
    check_eq!(El1::Esr.read() & 0xffff_ffff, esr, "{what}: ESR_EL1");
    check_eq!(El1::Elr.read(), elr, "{what}: ELR_EL1");
    check_eq!(El1::Spsr.read() & 0xf010_03ff, spsr, "{what}: SPSR_EL1");
}

/// What EL1 has to take by itself.
fn own_exceptions(vm: &mut Vm) {
    let exit = vm.exec(&[svc(0x42)]);
    taken("SVC at EL1", exit, 4, SVC << 26 | IL | 0x42, PROGRAM + 4, EL1H);
    let exit = vm.exec_in(EL1T, &[svc(3)]);
    taken("SVC at EL1t", exit, 0, SVC << 26 | IL | 3, PROGRAM + 4, EL1T);
    let exit = vm.exec_in(EL0, &[svc(0x1234)]);
    taken("SVC at EL0", exit, 8, SVC << 26 | IL | 0x1234, PROGRAM + 4, EL0);
    let exit = vm.exec_in(EL0 | 0x6000_0000, &[NOP, svc(0)]);
    taken("SVC at EL0 with flags", exit, 8, SVC << 26 | IL, PROGRAM + 8, EL0 | 0x6000_0000);
    let exit = vm.exec_in(EL0, &[hvc(0)]);
    taken("HVC at EL0", exit, 8, IL, PROGRAM, EL0);
    let exit = vm.exec(&[UDF]);
    taken("UDF at EL1", exit, 4, IL, PROGRAM, EL1H);
    let exit = vm.exec_in(EL0, &[UDF]);
    taken("UDF at EL0", exit, 8, IL, PROGRAM, EL0);
    let exit = vm.exec(&[BRK]);
    taken("BRK at EL1", exit, 4, 0x3c << 26 | IL | 1, PROGRAM, EL1H);
    let exit = vm.exec(&[HCR_EL2.mrs(0)]);
    taken("HCR_EL2 at EL1", exit, 4, IL, PROGRAM, EL1H);
    vm.program(&[hvc(0)]);
    vm.cpu.pc = PROGRAM + 2;
    vm.cpu.pstate = EL1H;
    let exit = vm.run();
    taken("a PC that is not aligned", exit, 4, 0x22 << 26 | IL, PROGRAM + 2, EL1H);
    // Back by itself: the vector's HVC is followed by ERET.
    vm.exec(&[svc(1), hvc(0x55)]);
    vm.cpu.pc = CODE + 4 * 0x80 + 4;
    let exit = vm.run();
    check!(exit.iss() == 0x55 && exit.pc == PROGRAM + 8, "the guest returns from its exception", "{exit:x?}");
}

/// ERET of EL1's own, down to EL0, and an illegal one.
fn down_by_itself(vm: &mut Vm) {
    El1::Elr.write(PROGRAM + 8);
    El1::Spsr.write(EL0);
    let exit = vm.exec(&[ERET, NOP, svc(9)]);
    taken("SVC after EL1's own ERET to EL0", exit, 8, SVC << 26 | IL | 9, PROGRAM + 12, EL0);
    El1::Elr.write(PROGRAM + 8);
    El1::Spsr.write(EL1T);
    let exit = vm.exec(&[ERET, NOP, hvc(9)]);
    check!(exit.iss() == 9 && exit.pstate & 0x1f == 4, "EL1's own ERET to EL1t", "{exit:x?}");
    El1::Elr.write(PROGRAM + 8);
    El1::Spsr.write(0x3c9); // EL2h
    let exit = vm.exec(&[ERET, NOP, NOP]);
    taken("EL1's own ERET to EL2", exit, 4, ILLEGAL << 26 | IL, PROGRAM + 8, EL1H | 1 << 20);
}

/// TGE without E2H: what EL0 takes comes to EL2.
fn all_to_us(vm: &mut Vm) {
    let plain = vm.hcr;
    vm.hcr |= el2::TGE;
    for (name, word, esr, pc) in [
        ("SVC", svc(0x42), SVC << 26 | IL | 0x42, PROGRAM + 4),
        ("UDF", UDF, IL, PROGRAM),
        ("BRK", BRK, 0x3c << 26 | IL | 1, PROGRAM),
        ("HVC", hvc(1), IL, PROGRAM),
    ] {
        let exit = vm.exec_in(EL0, &[word]);
        let want = Exit { vector: 8, esr, pc, pstate: EL0, ..exit };
        check!(exit == want, "TGE: {name} at EL0 comes to EL2", "{exit:x?}");
    }
    // Whoever says that there is nothing says it to EL2.
    vm.map.map(NOTHING, NOTHING, 3, ALL);
    tlb::forget(Forget::Vm);
    for (name, word, class) in
        [("a load", ldr(2, 1), DATA_ABORT), ("a store", str(2, 1), DATA_ABORT), ("a branch", blr(1), FETCH)]
    {
        vm.cpu.x[1] = NOTHING;
        let exit = vm.exec_in(EL0, &[word]);
        let is_told = exit.class() == class
            && exit.iss() & 0x3f == EXTERNAL
            && exit.far == NOTHING
            && exit.pstate & !BTYPE == EL0;
        check!(is_told, "TGE: {name} of nothing by EL0 comes to EL2", "{exit:x?}");
    }
    vm.hcr = plain;
}

/// TGE with E2H: EL0 is that of EL2, with EL2's own map, and no stage 2.
fn user_of_vhe(vm: &mut Vm) {
    let plain = vm.hcr;
    vm.hcr |= el2::TGE;
    vm.cpu.x[0] = 0x55;
    for (name, word, esr, offset) in [
        ("SVC", svc(0x42), SVC << 26 | IL | 0x42, 8),
        ("UDF", UDF, IL, 4),
        ("BRK", BRK, 0x3c << 26 | IL | 1, 4),
        ("HVC", hvc(1), IL, 4),
    ] {
        vm.program(&[add(0, 0, 1), word]);
        let at = mmu::for_user(vm.ram.as_ptr() as u64 + 0x1000);
        vm.cpu.pc = at;
        vm.cpu.pstate = EL0;
        let exit = vm.run();
        let want = Exit { vector: 8, esr, pc: at + offset, pstate: EL0, ..exit };
        check!(exit == want, "TGE and E2H: {name} at EL0 comes to EL2", "{exit:x?}");
    }
    check_eq!(vm.cpu.x[0], 0x59, "TGE and E2H: EL0 runs in EL2's map");
    // Memory that is not EL0's.
    let at = vm.ram.as_ptr() as u64 + 0x1000;
    vm.cpu.pc = at;
    let exit = vm.run();
    let is_own = exit.class() == FETCH && exit.iss() & 0x3f == 0x0d && exit.far == at;
    check!(is_own, "TGE and E2H: EL2's memory is not EL0's to run", "{exit:x?}");
    vm.hcr = plain;
}

fn illegal(vm: &mut Vm) {
    for (name, spsr) in [("EL3", 0xd), ("no mode", 6), ("no mode of EL2", 0xa), ("EL0h", 1), ("AArch32", 0x1b)] {
        let fault = el2::illegal_return(spsr);
        check!(fault.is_some_and(|f| f.esr == ILLEGAL << 26 | IL), "an illegal return to {name}", "{fault:x?}");
        check_eq!(Register::CurrentEl.read(), 8, "an illegal return to {name} stays at EL2");
    }
    // To EL1, while TGE says that there is none.
    let hcr = Register::Hcr.read();
    Register::Hcr.write(hcr | el2::TGE);
    let fault = el2::illegal_return(EL1H);
    Register::Hcr.write(hcr);
    check!(fault.is_some_and(|f| f.esr == ILLEGAL << 26 | IL), "an illegal return to EL1 under TGE", "{fault:x?}");
    // IL of the guest's: it takes the exception itself.
    let exit = vm.exec_in(EL1H | 1 << 20, &[NOP]);
    taken("a guest entered with PSTATE.IL", exit, 4, ILLEGAL << 26 | IL, PROGRAM, EL1H | 1 << 20);
}
