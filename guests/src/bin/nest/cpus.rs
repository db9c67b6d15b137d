//! Two CPUs: the second comes on at EL2, runs the other vCPU of one guest, sees what the first forgets, and is sent SGIs.

use crate::costs::per;
use crate::l2::{CODE, DATA, DATA_ABORT, HVC, MORE, SYSTEM, Vm};
use crate::lists;
use crate::memory;
use crate::ops::{Sys, hvc};
use crate::tables::{ALL, PLAIN};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::el2::tlb::{self, Forget};
use rt::el2::{self, Exit, Register, guest};
use rt::gic::{self, To};
use rt::smp;
use rt::timer::{PATIENCE, wait_until};
use rt::{args, check, check_eq, cpu, println, psci};

const TARGET: u64 = 0xc000_0000;
/// The SGI that makes the other CPU look.
const KICK: u32 = 1;
/// The SGI of the guest.
const SGI: u32 = 5;
/// EL1, interrupts open.
const OPEN: u64 = el2::EL1H & !(1 << 7);
/// ICC_SGI1R_EL1.
const SGI1R: Sys = Sys(3, 0, 12, 11, 5);
const MPIDR: Sys = Sys(3, 0, 0, 0, 5);

/// Where the guest is that both run.
static ROOT: AtomicU64 = AtomicU64::new(0);
static RAM: AtomicU64 = AtomicU64::new(0);
/// What CPU 1 found out.
static FOUND: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
/// How often CPU 1's guest has faulted, and up to which time it may go on.
static FAULTS: AtomicU64 = AtomicU64::new(0);
static MENDED: AtomicU64 = AtomicU64::new(0);
static END: AtomicU64 = AtomicU64::new(0);
/// SGIs on their way to each vCPU.
static SENT: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Whether there is a second CPU to test with.
fn is_alone() -> bool {
    if args::n_cpus() < 2 {
        println!("nest: cpus skipped: there is one CPU");
    }
    args::n_cpus() < 2
}

/// Runs the group.
pub(crate) fn run() {
    if is_alone() {
        return;
    }
    let vm = Vm::plain(2);
    share(&vm);
    comes_on();
    forgets(&vm);
    if args::gic_version() == 3 {
        gic::init();
        calls_each_other(vm, 64);
        lists::end();
    }
}

/// Instructions from an SGI of a guest on CPU 0 to the answer's arrival, halved.
pub(crate) fn cost() -> Option<u64> {
    if is_alone() || args::gic_version() != 3 {
        return None;
    }
    let vm = Vm::plain(2);
    share(&vm);
    gic::init();
    let value = calls_each_other(vm, 256) / 2;
    lists::end();
    Some(value)
}

fn share(vm: &Vm) {
    ROOT.store(vm.map.vttbr(0), Ordering::SeqCst);
    RAM.store(memory::address(vm.ram), Ordering::SeqCst);
    for word in FOUND.iter().chain([&FAULTS, &MENDED, &END]).chain(&SENT) {
        word.store(0, Ordering::SeqCst);
    }
}

/// The other vCPU of the guest that CPU 0 has made: with a stack and a log of its own.
fn other() -> Vm {
    if args::flag("vhe") {
        el2::become_vhe();
    }
    let mut vm = Vm::other(PLAIN, 2, ROOT.load(Ordering::SeqCst), RAM.load(Ordering::SeqCst));
    vm.cpu.tpidr_el1 = MORE;
    vm.load();
    Register::Vmpidr.write(0x8000_0001);
    vm
}

fn start(job: smp::Job) {
    let answer = smp::start(1, job);
    check_eq!(answer as u64, psci::SUCCESS as u64, "CPU_ON by SMC");
}

fn wait_for_the_end() {
    let is_off = wait_until(PATIENCE, || smp::is_done(1) && smp::is_off(1));
    check!(is_off, "CPU 1 goes off again");
}

fn comes_on() {
    start(|_| {
        FOUND[0].store(Register::CurrentEl.read(), Ordering::SeqCst);
        FOUND[1].store(Register::Mpidr.read() & 0xff_00ff_ffff, Ordering::SeqCst);
        let mut vm = other();
        vm.program_at(MORE + 0x100, &[MPIDR.mrs(0), hvc(0x66)]);
        vm.cpu.pc = MORE + 0x100;
        let exit = vm.run();
        FOUND[2].store(exit.esr, Ordering::SeqCst);
        FOUND[3].store(vm.cpu.x[0], Ordering::SeqCst);
    });
    wait_for_the_end();
    let [el, mpidr, esr, seen] = [0, 1, 2, 3].map(|n| FOUND[n].load(Ordering::SeqCst));
    check_eq!(el, 8, "CPU 1 starts at EL2");
    check_eq!(mpidr, args::mpidr(1), "CPU 1 has its own MPIDR_EL1");
    check_eq!(esr, HVC << 26 | 1 << 25 | 0x66, "CPU 1 runs a guest");
    check_eq!(seen, 0x8000_0001, "CPU 1's guest has CPU 1's VMPIDR_EL2");
}

/// CPU 1's guest copies a word for ever; where its page is gone, CPU 1 waits until it is mended.
fn copy(_index: usize) {
    let mut vm = other();
    vm.cpu.x[0] = TARGET;
    vm.cpu.x[2] = MORE + 0x800;
    vm.cpu.x[3] = MORE + 0x808;
    vm.cpu.pc = CODE + guest::WATCH;
    loop {
        let exit = vm.run();
        let is_fault = exit.class() == DATA_ABORT && exit.far == TARGET && exit.hpfar == TARGET >> 8;
        FOUND[0].fetch_add(u64::from(!is_fault), Ordering::SeqCst);
        let n = FAULTS.fetch_add(1, Ordering::SeqCst) + 1;
        while MENDED.load(Ordering::SeqCst) < n && END.load(Ordering::SeqCst) == 0 {
            cpu::relax();
        }
        if END.load(Ordering::SeqCst) != 0 {
            break;
        }
    }
}

/// What CPU 0 forgets with IS is gone for CPU 1's guest too, while it runs.
fn forgets(vm: &Vm) {
    let pages = [memory::take(0x1000, 0x1000), memory::take(0x1000, 0x1000)];
    pages[0][0].store(0x1000, Ordering::SeqCst);
    vm.map.map(TARGET, memory::address(pages[0]), 3, ALL);
    let copied = || vm.read(MORE + 0x800);
    let count = || vm.read(MORE + 0x808);
    FOUND[0].store(0, Ordering::SeqCst);
    start(copy);
    let is_running = wait_until(PATIENCE, || copied() == 0x1000);
    check!(is_running, "CPU 1's guest copies");
    let ways = [Forget::Ipa(TARGET), Forget::LastLevel(TARGET), Forget::Vm, Forget::All];
    for round in 0..32u64 {
        let (old, new) = (pages[round as usize % 2], pages[(round as usize + 1) % 2]);
        let before = count();
        let goes_on = wait_until(PATIENCE, || count() > before + 10);
        vm.map.put(TARGET, 3, 0);
        let forget = ways[round as usize % 4];
        tlb::forget(forget);
        // Nobody may read this any more.
        old[0].store(0xbad, Ordering::SeqCst);
        let faults = wait_until(PATIENCE, || FAULTS.load(Ordering::SeqCst) == round + 1);
        check!(goes_on && faults, "{forget:?} on CPU 0 is seen by the guest on CPU 1, round {round}");
        if !(goes_on && faults) {
            break;
        }
        check!(copied() != 0xbad, "{forget:?}: nothing is read after it, round {round}");
        new[0].store(0x1001 + round, Ordering::SeqCst);
        vm.map.map(TARGET, memory::address(new), 3, ALL);
        MENDED.store(round + 1, Ordering::SeqCst);
        let is_new = wait_until(PATIENCE, || copied() != 0x1000 + round);
        check!(
            is_new && copied() == 0x1001 + round,
            "{forget:?}: the new page is read, round {round}",
            "{:#x}",
            copied()
        );
    }
    END.store(1, Ordering::SeqCst);
    vm.map.put(TARGET, 3, 0);
    tlb::forget(Forget::Vm);
    wait_for_the_end();
    check_eq!(FOUND[0].load(Ordering::SeqCst), 0, "CPU 1's guest has come back with these faults alone");
}

/// Runs a vCPU, and takes its SGIs to the other, until it ends or is told to; returns how it ended.
fn drive(vm: &mut Vm, me: usize) -> Exit {
    loop {
        let sent = SENT[me].swap(0, Ordering::SeqCst);
        if sent != 0 && !lists::inject(lists::pending(SGI)) {
            SENT[me].fetch_or(sent, Ordering::SeqCst);
        }
        let exit = vm.run();
        if exit.vector == 9 {
            lists::finish();
            if END.load(Ordering::SeqCst) != 0 {
                return exit;
            }
        } else if exit.class() == SYSTEM && exit.iss() & !(31 << 5) == SGI1R.iss(0, false) {
            let value = vm.cpu.x[(exit.iss() >> 5 & 31) as usize % 31];
            for other in (0..2).filter(|other| value >> other & 1 != 0) {
                SENT[other].fetch_or(1 << (value >> 24 & 15), Ordering::SeqCst);
                gic::send(KICK, To::Cpu(other));
            }
            vm.cpu.pc += 4;
        } else {
            return exit;
        }
    }
}

/// SGIs from one vCPU to the other and back, n times; returns instructions for each round.
fn calls_each_other(mut vm: Vm, n: u64) -> u64 {
    for word in [&END, &FOUND[0]] {
        word.store(0, Ordering::SeqCst);
    }
    lists::begin();
    gic::enable(KICK);
    start(|_| {
        let mut vm = other();
        lists::begin();
        gic::enable(KICK);
        FOUND[0].store(1, Ordering::SeqCst);
        vm.cpu.x[0] = MORE;
        vm.cpu.x[2] = u64::from(SGI) << 24 | 1;
        vm.cpu.pc = CODE + guest::ECHO;
        vm.cpu.pstate = OPEN;
        let exit = drive(&mut vm, 1);
        FOUND[1].store(exit.vector, Ordering::SeqCst);
        lists::end();
    });
    check!(wait_until(PATIENCE, || FOUND[0].load(Ordering::SeqCst) != 0), "CPU 1 is ready for SGIs");
    vm.load();
    for word in [DATA, MORE] {
        vm.write(word, 0);
    }
    let mut value = 0;
    for round in 0..2 {
        vm.cpu.x[0] = DATA;
        vm.cpu.x[1] = n;
        vm.cpu.x[2] = u64::from(SGI) << 24 | 2;
        vm.cpu.pc = CODE + guest::SEND;
        vm.cpu.pstate = OPEN;
        vm.write(DATA, 0);
        let start = crate::costs::ticks();
        let exit = drive(&mut vm, 0);
        value = per(start, n);
        check!(exit.class() == HVC && exit.iss() == 1, "SGIs between guests, round {round}", "{exit:x?}");
        check_eq!(lists::logged(&vm), n, "each SGI is answered once, round {round}");
        check_eq!(lists::last(&vm), u64::from(SGI), "and has its number, round {round}");
    }
    check_eq!(vm.read(MORE), 2 * n, "each SGI has arrived once");
    END.store(1, Ordering::SeqCst);
    gic::send(KICK, To::Cpu(1));
    wait_for_the_end();
    check_eq!(FOUND[1].load(Ordering::SeqCst), 9, "CPU 1's guest was interrupted to end it");
    value
}
