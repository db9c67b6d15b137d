//! Does anything a guest can do hang, or bring anybody else down? Each deed must give a result or an exception.
//!
//! Boot arguments: `seed=N` (default 1), `rounds=N` deeds of each kind (default 2000), `only=KIND`. It says what it counted
//! and ends with PASS when it got so far; what it did to others is for others to say.

#![no_std]
#![no_main]

mod calls;
mod devices;
mod registers;
mod storms;

use rt::exception::{self, Fault};
use rt::random::Random;
use rt::{args, check, check_eq, console, cpu, expect_exception, gic, println, timer};

rt::guest!(main);

/// What came of deeds of one kind.
#[derive(Default)]
pub(crate) struct Tally {
    results: u64,
    undefined: u64,
    aborts: u64,
    others: u64,
}

impl Tally {
    /// Does something, and counts what came of it.
    pub(crate) fn attempt(&mut self, deed: impl FnOnce()) -> Option<Fault> {
        let fault = expect_exception(deed);
        match fault.map(|fault| fault.class()) {
            None => self.results += 1,
            Some(exception::UNDEF) => self.undefined += 1,
            Some(exception::DATA_ABORT | exception::INSTRUCTION_ABORT) => self.aborts += 1,
            Some(_) => self.others += 1,
        }
        fault
    }
}

type Kind = (&'static str, fn(&mut Random, u64) -> Tally);

const KINDS: &[Kind] = &[
    ("mmio", devices::plain),
    ("odd", devices::odd),
    ("fetch", devices::fetch),
    ("mrs", registers::reads),
    ("msr", registers::writes),
    ("setway", registers::set_way),
    ("psci", calls::psci),
    ("call", calls::immediates),
    ("wfx", storms::waits),
    ("sgi", storms::sgis),
];

fn main() {
    let (seed, rounds) = (args::number("seed", 1), args::number("rounds", 2000));
    println!("hostile: seed {seed}, {rounds} rounds");
    let mut random = Random::new(seed);
    for (name, kind) in KINDS {
        if args::value("only").is_some_and(|only| only != *name) {
            continue;
        }
        cpu::mask();
        let start = timer::now();
        let tally = kind(&mut random, rounds);
        let ms = (timer::now() - start) * 1000 / timer::frequency();
        recover();
        let Tally { results, undefined, aborts, others } = tally;
        println!(
            "hostile: {name}: {results} results, {undefined} UNDEFINED, {aborts} aborts, {others} others, {ms} ms"
        );
        check_eq!(results + undefined + aborts + others, rounds, "{name}: every deed came back");
    }
    println!("hostile: {} SErrors", exception::n_serrors());
    check!(timer::now() > 0, "still here");
}

/// Makes the board usable again: the UART, timers and the interrupt controller may hold anything.
fn recover() {
    timer::Timer::Virtual.stop();
    timer::Timer::Physical.stop();
    console::init();
    gic::quiesce();
}
