//! AT: what PAR_EL1 says of translations and of their faults, at both stages and of EL2's own map.
//!
//! Follows Arm ARM D24.2.153 (PAR_EL1).

use crate::faults::{PERMISSION, TRANSLATION};
use crate::l2::{BASE, DATA_ABORT, HVC, Vm, plain_hcr};
use crate::memory;
use crate::ops::{ISB, Sys, hvc};
use crate::stage1::{self, APART, LEAF, READ_ONLY, USER, VA};
use crate::tables::{AF, ALL, MEMORY, READ};
use core::sync::atomic::Ordering;
use rt::el2::Register;
use rt::el2::tlb::{self, At, Forget};
use rt::{args, check, check_eq, println};

const TARGET: u64 = 0xc000_0000;
/// PAR_EL1: it failed.
const F: u64 = 1;
/// PAR_EL1: on a walk of stage 1.
const PTW: u64 = 1 << 8;
/// PAR_EL1: at stage 2.
const S: u64 = 1 << 9;
const ADDRESS: u64 = 0xf_ffff_ffff_f000;

/// AT S1E1R, x1
const AT_S1E1R: u32 = Sys(1, 0, 7, 8, 0).msr(1);
const PAR: Sys = Sys(3, 0, 7, 4, 0);

fn translate(at: At, address: u64) -> u64 {
    tlb::translate(at, address, plain_hcr())
}

fn failed(par: u64) -> u64 {
    par & (F | PTW | S | 0x7e)
}

/// What PAR_EL1 says of a fault with this status.
fn fault(status: u64) -> u64 {
    F | status << 1
}

/// Runs the group.
pub(crate) fn run() {
    let mut vm = Vm::plain(1);
    let page = memory::address(memory::take(0x1000, 0x1000));
    vm.map.map(TARGET, page, 3, ALL);
    one_stage(&vm, page);
    two_stages(&mut vm, page);
    own();
}

/// With the guest's stage 1 off, stage 2 is all there is.
fn one_stage(vm: &Vm, page: u64) {
    for at in [At::S12E1R, At::S12E1W, At::S12E0R, At::S12E0W] {
        let par = translate(at, TARGET + 0x123);
        check!(par & F == 0 && par & ADDRESS == page, "{at:?}: a page", "{par:#x}");
        let par = translate(at, TARGET + 0x5000);
        check_eq!(failed(par), fault(TRANSLATION | 3) | S, "{at:?}: nothing at stage 2");
        let par = translate(at, BASE);
        check!(par & F == 0 && par & ADDRESS == memory::address(vm.ram), "{at:?}: the guest's RAM", "{par:#x}");
    }
    for at in [At::S1E1R, At::S1E1W, At::S1E0R] {
        for address in [TARGET + 0x123, TARGET + 0x5000] {
            let par = translate(at, address);
            let is_same = par & F == 0 && par & ADDRESS == address & !0xfff;
            check!(is_same, "{at:?}: stage 1 is off", "{par:#x}");
        }
    }
    vm.map.map(TARGET, page, 3, MEMORY | AF | READ);
    tlb::forget(Forget::Vm);
    check_eq!(translate(At::S12E1R, TARGET) & F, 0, "S12E1R: a page that may be read");
    if args::strict() {
        check_eq!(failed(translate(At::S12E1W, TARGET)), fault(PERMISSION | 3) | S, "S12E1W: a page that may be read");
    } else {
        println!("nest: translate: permission faults of stage 2 skipped without `strict`: QEMU 10.0 dies of them");
    }
    vm.map.map(TARGET, page, 3, MEMORY | READ);
    tlb::forget(Forget::Vm);
    check_eq!(failed(translate(At::S12E1R, TARGET)), fault(0x0b) | S, "S12E1R: no access flag");
    // A block in place of tables.
    let block = memory::address(memory::take(2 << 20, 2 << 20));
    vm.map.map(TARGET + (64 << 20), block, 2, ALL);
    let par = translate(At::S12E1R, TARGET + (64 << 20) + 0x5678);
    check!(par & F == 0 && par & ADDRESS == block + 0x5000, "S12E1R: inside a block", "{par:#x}");
    vm.map.map(TARGET, page, 3, ALL);
    tlb::forget(Forget::Vm);
}

fn two_stages(vm: &mut Vm, page: u64) {
    stage1::build(vm);
    let table = memory::take(0x1000, 0x1000);
    vm.map.map(APART, memory::address(table), 3, ALL);
    table[0].store(TARGET | LEAF, Ordering::SeqCst);
    table[1].store(TARGET | LEAF | READ_ONLY, Ordering::SeqCst);
    table[2].store(TARGET | LEAF | USER, Ordering::SeqCst);
    table[3].store((TARGET + 0x5000) | LEAF, Ordering::SeqCst);
    rt::el2::publish(&table[..8]);
    stage1::switch(true);
    tlb::forget(Forget::Vm);
    for (n, name, results) in [
        (0, "a page", [None, None, Some(PERMISSION | 3)]),
        (1, "a page to read", [None, Some(PERMISSION | 3), Some(PERMISSION | 3)]),
        (2, "a page of EL0", [None, None, None]),
        (4, "nothing", [Some(TRANSLATION | 3); 3]),
    ] {
        let va = VA + n * 0x1000 + 0x678;
        let both = [At::S12E1R, At::S12E1W, At::S12E0R].map(|at| (at, page));
        let first = [At::S1E1R, At::S1E1W, At::S1E0R].map(|at| (at, TARGET));
        for ((at, address), result) in both.into_iter().chain(first).zip(results.into_iter().cycle()) {
            let par = translate(at, va);
            match result {
                None => check!(par & F == 0 && par & ADDRESS == address, "{at:?}: {name} of stage 1", "{par:#x}"),
                Some(status) => check_eq!(failed(par), fault(status), "{at:?}: {name} of stage 1"),
            }
        }
    }
    // ID_AA64MMFR1_EL1.PAN: with S1E1RP from 2 on.
    if Register::Mmfr1.read() >> 20 & 15 >= 2 {
        check_eq!(translate(At::S1E1RP, VA) & F, 0, "S1E1RP: a page of EL1");
        check_eq!(failed(translate(At::S1E1RP, VA + 0x2000)), fault(PERMISSION | 3), "S1E1RP: a page of EL0");
    } else {
        println!("nest: translate: S1E1RP skipped: no FEAT_PAN2");
    }
    let va = VA + 3 * 0x1000;
    check_eq!(failed(translate(At::S12E1R, va)), fault(TRANSLATION | 3) | S, "S12E1R: stage 1 leads to nothing");
    let par = translate(At::S1E1R, va);
    check!(par & F == 0 && par & ADDRESS == TARGET + 0x5000, "S1E1R: though stage 2 has nothing", "{par:#x}");
    // By the guest itself.
    vm.cpu.x[1] = VA + 0x123;
    let exit = vm.exec(&[AT_S1E1R, ISB, PAR.mrs(0), hvc(0)]);
    let is_right = exit.class() == HVC && vm.cpu.x[0] & F == 0 && vm.cpu.x[0] & ADDRESS == TARGET;
    check!(is_right, "AT S1E1R in the guest gives the IPA", "{exit:x?} {:#x}", vm.cpu.x[0]);
    vm.cpu.x[1] = VA + 0x4000;
    vm.exec(&[AT_S1E1R, ISB, PAR.mrs(0), hvc(0)]);
    check_eq!(failed(vm.cpu.x[0]), fault(TRANSLATION | 3), "AT S1E1R in the guest, of nothing");
    // The table is not there.
    vm.map.put(APART, 3, 0);
    tlb::forget(Forget::Vm);
    for at in [At::S12E1R, At::S12E1W, At::S12E0R, At::S1E1R, At::S1E1W, At::S1E0R] {
        check_eq!(
            failed(translate(at, VA)),
            fault(TRANSLATION | 3) | S | PTW,
            "{at:?}: the table of stage 1 is not there"
        );
    }
    vm.cpu.x[1] = VA;
    let exit = vm.exec(&[AT_S1E1R, ISB, PAR.mrs(0), hvc(0)]);
    let is_right = exit.class() == DATA_ABORT && exit.iss() & 0xbf == 0x80 | TRANSLATION | 3;
    check!(is_right && exit.hpfar == APART >> 8, "AT S1E1R in the guest, whose table is not there", "{exit:x?}");
    stage1::switch(false);
}

fn own() {
    let here = memory::address(memory::take(0x1000, 0x1000));
    for at in [At::S1E2R, At::S1E2W] {
        let par = translate(at, here + 0x321);
        check!(par & F == 0 && par & ADDRESS == here, "{at:?}: EL2's own page", "{par:#x}");
        let par = translate(at, 310 << 30);
        check_eq!(failed(par), fault(TRANSLATION | 1), "{at:?}: where EL2 has nothing");
    }
}
