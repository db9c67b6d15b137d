//! What a guest hypervisor pays for what its guests do, in instructions: prints `bench NAME VALUE`, as the guest `bench`.
//!
//! The hypervisor does the least that is possible, so what is counted is what is below it. Under `-icount shift=0` an
//! instruction is a nanosecond of the board's time.

use crate::l2::{CODE, DATA_ABORT, HVC, Vm};
use crate::memory;
use crate::tables::ALL;
use rt::el2::{self, Register, guest};
use rt::{check_eq, println};

/// How often each is done.
const N: u64 = 1024;
const TARGET: u64 = 0xc000_0000;

/// Runs it.
pub(crate) fn run() {
    let mut vm = Vm::plain(1);
    for round in 0..2 {
        let show = |name: &str, vm: &mut Vm, offset: u64, class: u64, first: u64| {
            let value = loop_of(vm, offset, class, first);
            if round == 1 {
                println!("bench {name} {value}");
            }
        };
        show("l2-hvc", &mut vm, guest::CALL, HVC, 0);
        show("l2-device-read", &mut vm, guest::READ, DATA_ABORT, TARGET);
        vm.hcr |= 1 << 18;
        show("l2-id-register", &mut vm, guest::IDENTIFY, crate::l2::SYSTEM, 0);
        vm.hcr &= !(1 << 18);
    }
    println!("bench el2-register {}", register());
    println!("bench l2-touch-4k {}", touches(&mut vm));
    if let Some(value) = crate::cpus::cost() {
        println!("bench l2-ipi {value}");
    }
}

/// A read of a register of EL2's that FEAT_NV2 has in memory.
fn register() -> u64 {
    let start = ticks();
    for _ in 0..N {
        let _ = Register::Vttbr.read();
    }
    per(start, N)
}

/// The physical counter.
pub(crate) fn ticks() -> u64 {
    rt::cpu::isb();
    Register::Cntpct.read()
}

/// Instructions for each of `n` since `start`.
pub(crate) fn per(start: u64, n: u64) -> u64 {
    (ticks() - start) * 1_000_000_000 / rt::timer::frequency() / n
}

/// Starts the code at `offset`, and lets the guest go on behind what it comes back for until it is done.
fn loop_of(vm: &mut Vm, offset: u64, class: u64, first: u64) -> u64 {
    vm.cpu.x[0] = first;
    vm.cpu.x[1] = N;
    vm.cpu.x[2] = 0;
    vm.cpu.pc = CODE + offset;
    vm.cpu.pstate = el2::EL1H;
    Register::Hcr.write(vm.hcr);
    let skip = if class == HVC { 0 } else { 4 };
    let mut n = 0u64;
    let start = ticks();
    loop {
        let exit = vm.cpu.enter_to_exit();
        if exit.class() != class || exit.iss() == 1 {
            check_eq!(exit.class(), HVC, "the measured loop ends");
            break;
        }
        n += 1;
        vm.cpu.pc += skip;
    }
    let value = per(start, N);
    check_eq!(n, N, "what is measured came as often as it should");
    value
}

/// A page that nobody has touched, mapped when the guest faults on it.
fn touches(vm: &mut Vm) -> u64 {
    const PAGES: u64 = 512;
    let block = memory::take(PAGES * 0x1000, 2 << 20);
    let pa = memory::address(block);
    vm.map.slot(TARGET, 3);
    vm.cpu.x[0] = TARGET;
    vm.cpu.x[1] = PAGES;
    vm.cpu.x[2] = 0x1000;
    vm.cpu.pc = CODE + guest::READ;
    vm.cpu.pstate = el2::EL1H;
    Register::Hcr.write(vm.hcr);
    let mut n = 0u64;
    let start = ticks();
    loop {
        let exit = vm.cpu.enter_to_exit();
        if exit.class() != DATA_ABORT {
            break;
        }
        let page = exit.ipa() & !0xfff;
        let index = (page - TARGET) >> 12 & 511;
        vm.map.put(page, 3, (pa + (index << 12)) | ALL | 3);
        n += 1;
    }
    let value = per(start, PAGES);
    check_eq!(n, PAGES, "each page was touched once");
    value
}
