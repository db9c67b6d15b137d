//! Several guests in turn on one CPU, each with its own VMID, tables and registers, interrupted wherever they are.

use crate::l2::{CODE, DATA_ABORT, HVC, Vm};
use crate::memory;
use crate::tables::ALL;
use rt::el2::{self, El1, Register, guest};
use rt::{args, check, check_eq, gic, timer};

const N: usize = 4;
/// Pages each of them has at the same place.
const PAGES: u64 = 64;
const TARGET: u64 = 0xc000_0000;
/// The hypervisor's timer: PPI 10.
const TICK: u32 = 26;

/// One of them: what it is doing.
struct Turn {
    vm: Vm,
    round: u64,
    compares: bool,
    faults: u64,
    /// Microseconds it runs at a time.
    slice: u64,
    wrong: u64,
    odd: u64,
}

/// Runs the group.
pub(crate) fn run() {
    let rounds = args::number("rounds", 6);
    if args::gic_version() == 3 {
        gic::init();
        crate::lists::begin();
        gic::enable(TICK);
    }
    let mut turns: [Turn; N] = core::array::from_fn(|n| {
        let vm = Vm::plain(0x11 + n as u64);
        Turn { vm, round: 0, compares: true, faults: 0, slice: 25, wrong: 0, odd: 0 }
    });
    for (n, turn) in turns.iter_mut().enumerate() {
        turn.vm.load();
        for (register, value) in own(n) {
            register.write(value);
        }
        turn.vm.save();
        next(turn, n);
    }
    let (mut ticks, mut switches) = (0u64, 0u64);
    let start = timer::now();
    let patience = timer::micros(60_000_000);
    while turns.iter().any(|turn| turn.round < rounds) && timer::now() - start < patience {
        for (n, turn) in turns.iter_mut().enumerate() {
            if turn.round < rounds {
                ticks += u64::from(step(turn, n));
                switches += 1;
            }
        }
    }
    let done = turns.iter().all(|turn| turn.round >= rounds);
    check!(done, "all guests come to their end");
    for (n, turn) in turns.iter().enumerate() {
        check_eq!(turn.wrong, 0, "guest {n} finds what it wrote");
        check_eq!(turn.odd, 0, "guest {n} comes back for what it should, with its registers");
        check_eq!(turn.faults, PAGES, "guest {n} faults on each page once");
    }
    check!(switches > rounds * N as u64, "guests take turns", "{switches}");
    if args::gic_version() == 3 {
        check!(ticks > 0, "guests are interrupted", "{ticks}");
        Register::CnthpCtl.write(0);
        gic::disable(TICK);
        crate::lists::end();
    }
}

/// Registers that each has of its own.
fn own(n: usize) -> [(El1, u64); 5] {
    let value = 0x0101_0101_0101_0000 * (n as u64 + 1);
    [
        (El1::Elr, value),
        (El1::Far, value + 0x1111),
        (El1::Mair, value),
        (El1::Contextidr, n as u64 + 0x40),
        (El1::CntvCval, value),
    ]
}

/// What the guest is to do next: fill its pages, or compare them.
fn next(turn: &mut Turn, n: usize) {
    let words = PAGES * 512;
    turn.compares = !turn.compares;
    let x = &mut turn.vm.cpu.x;
    x[0] = TARGET;
    x[1] = words;
    x[2] = (n as u64) << 40 | turn.round << 32;
    turn.vm.cpu.pc = CODE + if turn.compares { guest::COMPARE } else { guest::FILL };
    turn.vm.cpu.pstate = el2::EL1H;
}

/// Lets a guest run until something happens; returns whether that was the tick.
fn step(turn: &mut Turn, n: usize) -> bool {
    turn.vm.load();
    let before = turn.vm.cpu.x[1];
    Register::CnthpCval.write(Register::Cntpct.read() + timer::micros(turn.slice));
    Register::CnthpCtl.write(1);
    let exit = turn.vm.run();
    turn.vm.save();
    Register::CnthpCtl.write(0);
    turn.odd += own(n).into_iter().filter(|(register, value)| turn.vm.saved(*register) != Some(*value)).count() as u64;
    if exit.vector == 9 {
        // Where entering takes as long as the slice, nobody would get anywhere.
        if turn.vm.cpu.x[1] == before {
            turn.slice = (turn.slice * 2).min(10_000);
        }
        turn.odd += u64::from(!matches!(crate::lists::finish(), TICK | 1023));
        return true;
    }
    match exit.class() {
        DATA_ABORT => {
            turn.faults += 1;
            let page = memory::take(0x1000, 0x1000);
            turn.vm.map.map(exit.ipa(), memory::address(page), 3, ALL);
        }
        HVC if exit.iss() == 1 => {
            if turn.compares {
                turn.wrong += turn.vm.cpu.x[3];
                turn.round += 1;
            }
            next(turn, n);
        }
        _ => turn.odd += 1,
    }
    false
}
