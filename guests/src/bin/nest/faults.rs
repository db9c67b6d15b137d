//! Stage-2 faults: each kind, at each level and size of leaf, with what ESR, FAR and HPFAR have to say of it.
//!
//! Follows Arm ARM D8.15 (faults), D24.2.39 (HPFAR_EL2: not for permission faults that are not on a walk).

use crate::l2::{DATA_ABORT, FETCH, HVC, Vm};
use crate::memory;
use crate::ops::{Sys, blr, hvc, ldr, str};
use crate::tables::{AF, ALL, Geometry, MEMORY, PLAIN, PXN, READ, UXN, WRITE, XN, pa_bits};
use core::sync::atomic::Ordering;
use rt::el2::tlb::{self, Forget};
use rt::el2::{EL0, EL1H, Exit, Register};
use rt::{check, check_eq, println};

/// DFSC and IFSC: address size fault at level 0.
pub(crate) const ADDRESS_SIZE: u64 = 0x00;
/// DFSC and IFSC: translation fault at level 0.
pub(crate) const TRANSLATION: u64 = 0x04;
/// DFSC and IFSC: access flag fault at level 0.
pub(crate) const ACCESS_FLAG: u64 = 0x08;
/// DFSC and IFSC: permission fault at level 0.
pub(crate) const PERMISSION: u64 = 0x0c;
/// ISS: a write.
pub(crate) const WNR: u64 = 1 << 6;
/// ISS: on a walk of stage 1.
pub(crate) const S1PTW: u64 = 1 << 7;
/// ISS: what the instruction does is valid.
pub(crate) const ISV: u64 = 1 << 24;

/// Where nothing is.
const TARGET: u64 = 0xc000_0000;

/// A way to reach an address in x1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// LDR x2.
    Read,
    /// STR x3.
    Write,
    /// BLR.
    Run,
}

/// All of them.
pub(crate) const REACHES: [Reach; 3] = [Reach::Read, Reach::Write, Reach::Run];

/// Tries to reach `address` at EL1. What is there has to be code that returns, if it is run.
pub(crate) fn reach(vm: &mut Vm, how: Reach, address: u64) -> Exit {
    vm.cpu.x[1] = address;
    vm.cpu.x[3] = 0x3333;
    let word = match how {
        Reach::Read => ldr(2, 1),
        Reach::Write => str(3, 1),
        Reach::Run => blr(1),
    };
    vm.exec(&[word, hvc(0x77)])
}

/// Whether the guest got there.
pub(crate) fn got_there(exit: Exit) -> bool {
    exit.class() == HVC && exit.iss() == 0x77
}

/// Checks all that an exit says of a fault of stage 2.
pub(crate) fn check_fault(what: core::fmt::Arguments<'_>, exit: Exit, how: Reach, address: u64, status: u64) {
    let (class, iss) = match how {
        // 64 bits wide, of x2 and x3.
        Reach::Read => (DATA_ABORT, ISV | 3 << 22 | 2 << 16 | 1 << 15 | status),
        Reach::Write => (DATA_ABORT, ISV | 3 << 22 | 3 << 16 | 1 << 15 | WNR | status),
        Reach::Run => (FETCH, status),
    };
    check!(exit.class() == class && exit.iss() == iss, "{what}: {how:?}: ESR_EL2", "{exit:x?}, want iss {iss:x}");
    check_eq!(exit.far, address, "{what}: {how:?}: FAR_EL2");
    if status & 0x3c != PERMISSION {
        check_eq!(exit.hpfar, address >> 12 << 4, "{what}: {how:?}: HPFAR_EL2");
    }
}

/// Runs the group.
pub(crate) fn run() {
    shape(PLAIN);
    shape(Geometry { granule: 12, ipa: 40.min(pa_bits()), start: 1 }); // two tables concatenated
    shape(Geometry { granule: 12, ipa: 34, start: 2 }); // 16 tables concatenated
    shape(Geometry { granule: 12, ipa: 32, start: 2 });
    if pa_bits() >= 44 {
        shape(Geometry { granule: 12, ipa: 44, start: 0 });
    } else {
        println!("nest: faults: level 0 skipped: {} bits of physical address", pa_bits());
    }
    memory::reset();
    let mut vm = Vm::plain(1);
    syndromes(&mut vm);
    execute_never(&mut vm);
}

/// Other granules, where there are any.
pub(crate) fn granules() {
    let mmfr0 = Register::Mmfr0.read();
    let offered = |second: u32, first: u32, none: u64| match mmfr0 >> second & 15 {
        0 => mmfr0 >> first & 15 != none,
        field => field >= 2,
    };
    if offered(32, 20, 0) {
        shape(Geometry { granule: 14, ipa: 36, start: 2 });
        shape(Geometry { granule: 14, ipa: 40.min(pa_bits()), start: 2 }); // 16 tables concatenated
        if pa_bits() >= 42 {
            shape(Geometry { granule: 14, ipa: 42, start: 1 });
        }
    } else {
        println!("nest: granules: 16 KiB skipped: ID_AA64MMFR0_EL1 has none at stage 2");
    }
    if offered(36, 24, 15) {
        shape(Geometry { granule: 16, ipa: 36, start: 2 });
        shape(Geometry { granule: 16, ipa: 33, start: 3 }); // 16 tables concatenated
        if pa_bits() >= 44 {
            shape(Geometry { granule: 16, ipa: 44, start: 2 }); // four tables concatenated
        }
    } else {
        println!("nest: granules: 64 KiB skipped: ID_AA64MMFR0_EL1 has none at stage 2");
    }
}

/// Every kind of fault in tables of this shape.
fn shape(shape: Geometry) {
    memory::reset();
    let mut vm = Vm::new(shape, 5);
    let exit = vm.exec(&[hvc(0x77)]);
    check!(got_there(exit), "{shape:?}: a guest runs", "{exit:x?}");
    if !got_there(exit) {
        return;
    }
    // Another entry of the root than that of the guest's RAM.
    let target = TARGET | if shape.size(shape.start) > 1 << 30 { shape.size(shape.start) } else { 0 };
    let page = memory::take(0x1_0000, 0x1_0000);
    let pa = memory::address(page);
    // RET, in case it is run.
    page[0].store(0xd65f_03c0, Ordering::SeqCst);
    rt::el2::publish(&page[..8]);
    for level in shape.start..=3 {
        let is_leaf = level >= shape.first_leaf();
        // What comes before the page inside its block is the same on both sides.
        let at = target | if is_leaf { pa & (shape.size(level) - 1) } else { 0 };
        vm.map.put(at, level, 0);
        tlb::forget(Forget::Vm);
        for how in REACHES {
            let exit = reach(&mut vm, how, at + 8);
            check_fault(
                format_args!("{shape:?}, nothing at level {level}"),
                exit,
                how,
                at + 8,
                TRANSLATION | u64::from(level),
            );
        }
        too_far(&mut vm, at, level);
        if is_leaf {
            leaf(&mut vm, at, pa, level);
        } else if level > 0 || shape.granule == 12 {
            // A block where there is none, at level 0 or 1.
            vm.map.put(at, level, 1 | AF | READ);
            tlb::forget(Forget::Vm);
            let exit = reach(&mut vm, Reach::Read, at);
            check_fault(
                format_args!("{shape:?}, no block at level {level}"),
                exit,
                Reach::Read,
                at,
                TRANSLATION | u64::from(level),
            );
        }
        vm.map.put(at, level, 0);
        tlb::forget(Forget::Vm);
    }
    // Level 3 has no blocks.
    vm.map.put(target, 3, pa | ALL | 1);
    tlb::forget(Forget::Vm);
    let exit = reach(&mut vm, Reach::Read, target);
    check_fault(format_args!("{shape:?}, no block at level 3"), exit, Reach::Read, target, TRANSLATION | 3);
    vm.map.put(target, 3, 0);
    // Above what the tables are for.
    if shape.ipa < 48 && shape.ipa < pa_bits() {
        let beyond = 1 << shape.ipa;
        let exit = reach(&mut vm, Reach::Read, beyond);
        check_fault(format_args!("{shape:?}, beyond the tables"), exit, Reach::Read, beyond, TRANSLATION);
    }
}

/// Addresses of more bits than VTCR_EL2.PS says, in a leaf and in a table.
fn too_far(vm: &mut Vm, at: u64, level: u32) {
    let shape = vm.map.shape;
    if shape.ipa > 36 {
        return; // PS may not be smaller than the input
    }
    let vtcr = Register::Vtcr.read();
    let beyond = 1 << 36;
    Register::Vtcr.write(vtcr & !(7 << 16) | 1 << 16);
    for descriptor in [beyond | ALL | if level == 3 { 3 } else { 1 }, beyond | 3] {
        if descriptor & 2 == 0 && level < shape.first_leaf() {
            continue;
        }
        vm.map.put(at, level, descriptor);
        tlb::forget(Forget::Vm);
        let exit = reach(vm, Reach::Read, at);
        let what = format_args!("{shape:?}, {descriptor:#x} at level {level} with 36 bits");
        check_fault(what, exit, Reach::Read, at, ADDRESS_SIZE | u64::from(level));
    }
    vm.map.put(at, level, 0);
    Register::Vtcr.write(vtcr);
    tlb::forget(Forget::Vm);
}

/// What a leaf of this level admits.
fn leaf(vm: &mut Vm, at: u64, pa: u64, level: u32) {
    let shape = vm.map.shape;
    let fault = |kind: u64| kind | u64::from(level);
    let words = memory::at(pa, 0x1_0000);
    vm.map.map(at, pa, level, MEMORY | READ | WRITE);
    for how in REACHES {
        tlb::forget(Forget::Vm);
        let exit = reach(vm, how, at);
        check_fault(format_args!("{shape:?}, no access flag at level {level}"), exit, how, at, fault(ACCESS_FLAG));
    }
    for (flags, name, admitted) in [
        (XN, "nothing", [false, false, false]),
        (0, "run", [false, false, true]),
        (READ, "read and run", [true, false, true]),
        (WRITE | XN, "write", [false, true, false]),
        (READ | WRITE, "all", [true, true, true]),
        (READ | XN, "read", [true, false, false]),
        (READ | WRITE | XN, "read and write", [true, true, false]),
    ] {
        vm.map.map(at, pa, level, MEMORY | AF | flags);
        tlb::forget(Forget::Vm);
        for (how, is_admitted) in REACHES.into_iter().zip(admitted) {
            words[1].store(0x1234_5678, Ordering::SeqCst);
            let offset = if how == Reach::Run { 0 } else { 8 };
            vm.cpu.x[2] = 0;
            let exit = reach(vm, how, at + offset);
            let what = format_args!("{shape:?}, {name} at level {level}");
            if !is_admitted {
                check_fault(what, exit, how, at + offset, fault(PERMISSION));
                continue;
            }
            check!(got_there(exit), "{what}: {how:?} is admitted", "{exit:x?}");
            match how {
                Reach::Read => check_eq!(vm.cpu.x[2], 0x1234_5678, "{what}: reads what is there"),
                Reach::Write => check_eq!(words[1].load(Ordering::SeqCst), 0x3333, "{what}: writes what is there"),
                Reach::Run => {}
            }
        }
    }
}

/// The syndrome of each width, and of what has none.
fn syndromes(vm: &mut Vm) {
    let sse = 1 << 21;
    let sf = 1 << 15;
    let size = |log: u64| log << 22;
    let rt = |n: u64| n << 16;
    for (name, word, iss) in [
        ("LDRB", 0x3940_0022, ISV | rt(2)),
        ("LDRH", 0x7940_0023, ISV | size(1) | rt(3)),
        ("LDR w", 0xb940_0024, ISV | size(2) | rt(4)),
        ("LDR x", 0xf940_0025, ISV | size(3) | rt(5) | sf),
        ("LDRSB x", 0x3980_0026, ISV | sse | rt(6) | sf),
        ("LDRSB w", 0x39c0_0027, ISV | sse | rt(7)),
        ("LDRSH x", 0x7980_0028, ISV | size(1) | sse | rt(8) | sf),
        ("LDRSH w", 0x79c0_0029, ISV | size(1) | sse | rt(9)),
        ("LDRSW x", 0xb980_002a, ISV | size(2) | sse | rt(10) | sf),
        ("LDR xzr", 0xf940_003f, ISV | size(3) | rt(31) | sf),
        ("LDR x with an offset in a register", 0xf862_682b, ISV | size(3) | rt(11) | sf),
        ("LDUR w", 0xb840_002c, ISV | size(2) | rt(12)),
        ("STRB", 0x3900_0022, ISV | rt(2) | WNR),
        ("STRH", 0x7900_0023, ISV | size(1) | rt(3) | WNR),
        ("STR w", 0xb900_0024, ISV | size(2) | rt(4) | WNR),
        ("STR x", 0xf900_003e, ISV | size(3) | rt(30) | sf | WNR),
        ("STR wzr", 0xb900_003f, ISV | size(2) | rt(31) | WNR),
        ("LDP", 0xa940_0c22, 0),
        ("STP", 0xa900_0c22, WNR),
        ("LDR with post-index", 0xf840_8422, 0),
        ("STR with pre-index", 0xf800_8c22, WNR),
        ("LDR d0", 0xfd40_0020, 0),
    ] {
        vm.cpu.x = [0; 31];
        vm.cpu.x[1] = TARGET + 0x7040;
        let exit = vm.exec(&[word, hvc(0)]);
        // With pre-index the fault is 8 further.
        let address = TARGET + 0x7040 + if name.contains("pre-index") { 8 } else { 0 };
        let is_right = exit.class() == DATA_ABORT && exit.iss() == iss | TRANSLATION | 1;
        check!(is_right, "the syndrome of {name}", "{exit:x?}, want iss {:x}", iss | TRANSLATION | 1);
        check!(exit.far == address && exit.ipa() == address, "the address of {name}", "{exit:x?}");
        check_eq!(exit.pc, crate::l2::PROGRAM, "{name} can be done again");
    }
    // Made up by the hypervisor: the register gets a value, and the guest goes on behind the instruction.
    vm.cpu.x[1] = TARGET;
    let exit = vm.exec(&[0xb940_0024, hvc(3)]);
    check_eq!(exit.class(), DATA_ABORT, "a device read comes");
    vm.cpu.x[4] = 0xabcd;
    vm.cpu.pc += 4;
    let exit = vm.run();
    check!(exit.iss() == 3 && vm.cpu.x[4] == 0xabcd, "a device read is answered", "{exit:x?}");
    // Cache maintenance: a fault of CM. ISV is for a load or store.
    vm.cpu.x[1] = TARGET;
    let exit = vm.exec(&[Sys(1, 3, 7, 14, 1).msr(1), hvc(0)]);
    let iss = exit.iss() & !WNR;
    let is_right = got_or(exit, exit.class() == DATA_ABORT && iss == 1 << 8 | TRANSLATION | 1 && exit.iss() & WNR != 0);
    check!(is_right, "DC CIVAC where nothing is mapped", "{exit:x?}");
}

/// An emulator's caches are not there: it may let maintenance pass.
fn got_or(exit: Exit, otherwise: bool) -> bool {
    exit.class() == HVC || otherwise
}

/// XN for EL1 and EL0 apart (FEAT_XNX).
fn execute_never(vm: &mut Vm) {
    if Register::Mmfr1.read() >> 28 & 15 == 0 {
        println!("nest: faults: execute-never by level skipped: no FEAT_XNX");
        return;
    }
    let page = memory::take(0x1000, 0x1000);
    page[0].store(u64::from(hvc(0x77)) | u64::from(crate::ops::svc(0)) << 32, Ordering::SeqCst);
    rt::el2::publish(&page[..8]);
    for (flags, name, el1, el0) in [
        (0, "all", true, true),
        (PXN, "not EL1", false, true),
        (XN, "none", false, false),
        (UXN, "not EL0", true, false),
    ] {
        vm.map.map(TARGET, memory::address(page), 3, ALL | flags);
        tlb::forget(Forget::Vm);
        for (pstate, offset, is_admitted) in [(EL1H, 0, el1), (EL0, 4, el0)] {
            vm.cpu.pc = TARGET + offset;
            vm.cpu.pstate = pstate;
            let exit = vm.run();
            let denied = exit.class() == FETCH && exit.iss() == PERMISSION | 3 && exit.far == TARGET + offset;
            check!(
                exit.class() == HVC && is_admitted || denied && !is_admitted,
                "XN: {name}: {pstate:#x}",
                "{exit:x?}"
            );
        }
    }
}
