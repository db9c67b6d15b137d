//! What does every encoding of MRS, MSR, SYS and SYSL give: what the ID registers announce, and UNDEFINED else?
//!
//! Runs at the Exception level at which it starts; at EL2 with E2H set if the boot arguments say `vhe`. With `strict`, what is
//! IMPLEMENTATION DEFINED must be UNDEFINED, too: a guest has nothing of the board's. With `mark=N`, another number for each
//! guest, it leaves that in a register that is not announced, and looks for those of others. On bare QEMU (`-cpu max` and
//! `-cpu cortex-a72`, with `virtualization=on` or without) it is a test of the test.

#![no_std]
#![no_main]

mod table;

use core::sync::atomic::{AtomicU64, Ordering};
use rt::code::{self, Encoding, Instruction};
use rt::exception::{Fault, UNDEF};
use rt::sweep::{self, Answer};
use rt::{args, check, check_eq, cpu, el2, expect_exception, println, read_register, timer};
use table::{Level, Row, When};

rt::guest!(main);

/// Exception class: a trapped system register.
const SYSTEM: u64 = 0x18;

/// The ID space, CRm 0 to 7.
static IDS: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];

/// What the ID register with this CRm and op2 reads as.
pub(crate) fn id(crm: u32, op2: u32) -> u64 {
    IDS[(crm * 8 + op2) as usize].load(Ordering::Relaxed)
}

fn read_ids() {
    for (n, slot) in (0..).zip(&IDS) {
        let mut value = 0;
        let instruction = Instruction::Mrs(Encoding::new(3, 0, 0, n >> 3, n & 7));
        // What cannot be read is found later.
        let _ = expect_exception(|| value = code::run(instruction, [0; 4])[0]);
        slot.store(value, Ordering::Relaxed);
    }
}

/// What an access must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Done,
    Undefined,
    Either,
}

/// What was found.
#[derive(Default)]
struct Tally {
    done: u32,
    undefined: u32,
    wrong: u32,
    /// Not announced, and there all the same, as no hypervisor can keep it away.
    open: u32,
}

fn main() {
    if args::flag("vhe") {
        el2::become_vhe();
    }
    read_ids();
    let level = match (el2::is_here(), args::flag("vhe")) {
        (false, _) => Level::El1,
        (true, false) => Level::El2,
        (true, true) => Level::Vhe,
    };
    let mut tally = Tally::default();
    sweep::all(|encoding, answer| look(level, encoding, answer, &mut tally));
    let Tally { done, undefined, wrong, open } = tally;
    println!("encodings: {done} done, {undefined} UNDEFINED, {wrong} wrong; {open} of those done are not announced");
    check_eq!(wrong, 0, "each encoding gives what the ID registers announce");
    check!(done > 200 && undefined > 90_000, "both kinds were met", "{done}, {undefined}");
    identity();
    if args::value("mark").is_some() {
        marks(args::number("mark", 0));
    }
}

/// What must come of reading and of writing `encoding`, and whether that is so only because nobody can keep it away.
fn wants(level: Level, encoding: Encoding) -> ([Want; 2], bool) {
    let (_, _, _, _, op2) = encoding.fields();
    let (mut wants, mut is_open) = ([Want::Undefined; 2], false);
    let rows = table::rows(encoding).chain(points(encoding)).filter(|row| row.has(encoding) && row.level <= level);
    for Row { reads, writes, when, open, .. } in rows {
        let is_announced = table::announces(when);
        let want = match when {
            _ if !is_announced && open => Want::Either,
            _ if !is_announced => continue,
            When::Free if args::strict() && is_implementation_defined(encoding) => continue,
            When::Free | When::Perhaps(_) => Want::Either,
            _ => Want::Done,
        };
        is_open |= !is_announced && open;
        for (slot, ops) in wants.iter_mut().zip([reads, writes]) {
            if ops >> op2 & 1 != 0 {
                *slot = want;
            }
        }
    }
    (wants, is_open)
}

fn is_implementation_defined(encoding: Encoding) -> bool {
    matches!(encoding.fields(), (1 | 3, _, 11 | 15, _, _))
}

/// Breakpoints and watchpoints.
fn points(encoding: Encoding) -> Option<Row> {
    let (op0, op1, crn, crm, op2) = encoding.fields();
    let is_point = (op0, op1, crn) == (2, 0, 0) && op2 >= 4;
    let shift = if op2 < 6 { 12 } else { 20 };
    let is_there = u64::from(crm) <= id(5, 0) >> shift & 15;
    let at = (op0, op1, crn, crm);
    (is_point && is_there).then_some(Row {
        at,
        reads: 0xf0,
        writes: 0xf0,
        when: When::Always,
        level: Level::El1,
        open: false,
    })
}

fn look(level: Level, encoding: Encoding, answer: Answer, tally: &mut Tally) {
    let (wants, is_open) = wants(level, encoding);
    let answers = [("read", answer.read.map(|_| ())), ("written", answer.written)];
    for (want, (how, got)) in wants.into_iter().zip(answers) {
        match got {
            Ok(()) => {
                tally.done += 1;
                tally.open += u32::from(is_open);
            }
            Err(_) => tally.undefined += 1,
        }
        let is_right = match (want, got) {
            (Want::Done, Ok(())) => true,
            (Want::Undefined, Err(fault)) => is_undefined(encoding, how, fault),
            (Want::Either, got) => got.err().is_none_or(|fault| is_undefined(encoding, how, fault)),
            _ => false,
        };
        if !is_right {
            tally.wrong += 1;
            if tally.wrong < 40 {
                println!("encodings: {encoding} {how}: {got:x?}, want {want:?}");
            }
        }
    }
}

/// Whether a fault says UNDEFINED. With FEAT_IDST, reads from the space of ID registers may come as trapped ones.
fn is_undefined(encoding: Encoding, how: &str, fault: Fault) -> bool {
    let is_id = matches!(encoding.fields(), (3, 0 | 1 | 3, 0, 0..8, _)) && id(7, 2) >> 36 & 15 != 0 && how == "read";
    fault.class() == UNDEF || is_id && fault.class() == SYSTEM
}

/// Registers that say where the program runs say what the device tree does.
fn identity() {
    let read = |encoding| code::run(Instruction::Mrs(encoding), [0; 4])[0];
    check_eq!(read(Encoding::new(3, 0, 0, 0, 5)) & 0xff_00ff_ffff, args::mpidr(0), "MPIDR_EL1 is the device tree's");
    let again = id(4, 0);
    check_eq!(read(Encoding::new(3, 0, 0, 4, 0)), again, "ID_AA64PFR0_EL1 has not changed");
}

/// DISR_EL1, which is VDISR_EL2 under a hypervisor that takes SErrors and does not trap, is nobody's but this guest's.
fn marks(own: u64) {
    if expect_exception(|| cpu::write_disr(0)).is_some() {
        println!("encodings: no DISR_EL1");
        return;
    }
    let (mut found, mut lost) = (0, 0);
    let end = timer::now() + 2 * timer::frequency();
    while timer::now() < end {
        match read_register!("S3_0_C12_C1_1") {
            mark if mark == own => {}
            0 => {
                lost += 1;
                cpu::write_disr(own);
            }
            _ => found += 1,
        }
    }
    println!("encodings: its mark was gone {lost} times");
    check_eq!(found, 0, "DISR_EL1 holds nothing of another guest's");
}
