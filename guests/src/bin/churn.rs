//! Does memory keep every word while its host takes pages away, merges, compresses and brings them back?
//!
//! Pages are zero, one of a few that are the same everywhere, of runs, or noise; each word follows from the page's address
//! and generation, so a word that is lost, stale or another page's shows. Time goes in rounds: the CPUs look at a quarter
//! of the pages and write about half of them anew, each its own, and look at the quarter before, each another's; the rest
//! lies idle. At the end all is looked at.
//!
//! Boot arguments: `set=MIB` (default 48) of memory, `rounds=N` (default 12), `pause=MS` after each (default 0), `seed=N`
//! (default 1): what is not the same everywhere is the same in two VMs of the same seed.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use rt::{args, check, check_eq, cpu, println, ram, smp, timer};

rt::guest!(main);

/// Words of a page.
const WORDS: usize = 4096 / 8;
/// Words of a run.
const RUN: u64 = 64;
/// Parts of the pages that are worked on in turn.
const QUARTERS: u64 = 4;

/// Words looked at and words wrong, of all CPUs and rounds.
static LOOKED: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(0);
/// Pages written.
static WRITTEN: AtomicU64 = AtomicU64::new(0);
/// The first word that was wrong: round, CPU, address, what it is, what it should be.
static FIRST: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];
/// How often a CPU has come to the end of a round.
static MET: AtomicU64 = AtomicU64::new(0);

/// Makes a number unlike all others (the finish of splitmix64).
#[inline(always)]
fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// What is in a page.
#[derive(Clone, Copy)]
enum Content {
    Zero,
    Common(u64),
    Runs(u64),
    Noise(u64),
}

impl Content {
    /// What a page is given in a round: three of eight can be had for nothing, three for less than they take.
    fn new(page: &[AtomicU64], round: u64, seed: u64) -> Self {
        let key = mix(page.as_ptr() as u64 ^ mix(seed << 32 | round));
        match key % 8 {
            0 => Self::Zero,
            1 | 2 => Self::Common(key >> 8 & 3),
            3..=5 => Self::Runs(key),
            _ => Self::Noise(key),
        }
    }

    /// The word at this place.
    #[inline(always)]
    fn word(self, at: u64) -> u64 {
        match self {
            Self::Zero => 0,
            Self::Common(which) => mix(which + 1) ^ at,
            Self::Runs(key) => mix(key ^ (at / RUN)),
            Self::Noise(key) => mix(key ^ at),
        }
    }
}

/// The pages, and when they are written.
struct Pages {
    /// Free RAM, cut to what is asked for: there are not more than four runs of it.
    runs: [&'static [AtomicU64]; 4],
    len: u64,
    seed: u64,
}

impl Pages {
    fn new() -> Self {
        let mut pages = Self { runs: [&[]; 4], len: 0, seed: args::number("seed", 1) };
        let mut left = (args::number("set", 48) << 20) as usize / 8;
        let mut slots = pages.runs.iter_mut();
        ram::each_free(|run| {
            let Some(slot) = slots.next() else { return };
            *slot = &run[..run.len().min(left) / WORDS * WORDS];
            left -= slot.len();
        });
        pages.len = pages.runs.iter().map(|run| (run.len() / WORDS) as u64).sum();
        pages
    }

    /// A page's words.
    fn page(&self, page: u64) -> &'static [AtomicU64] {
        let mut at = page as usize * WORDS;
        for run in self.runs {
            if at < run.len() {
                return &run[at..][..WORDS];
            }
            at -= run.len();
        }
        panic!("there is no page {page}")
    }

    /// The quarter that a page is in.
    fn quarter(&self, page: u64) -> u64 {
        page * QUARTERS / self.len
    }

    /// Whether a page is written in a round: all are in the first.
    fn is_due(&self, page: u64, round: u64) -> bool {
        let is_turn = self.quarter(page) == round % QUARTERS && mix(page << 32 ^ round) & 1 == 0;
        round == 0 || is_turn
    }

    /// What is in a page at the end of a round.
    fn content(&self, page: u64, round: u64) -> Content {
        let written = (0..=round).rev().find(|&round| self.is_due(page, round)).unwrap_or(0);
        Content::new(self.page(page), written, self.seed)
    }

    fn write(&self, page: u64, round: u64) {
        let content = self.content(page, round);
        for (at, word) in (0..).zip(self.page(page)) {
            word.store(content.word(at), Ordering::Relaxed);
        }
        WRITTEN.fetch_add(1, Ordering::Relaxed);
    }

    /// Compares a page with what it should be; `round` and `cpu` are for the report.
    fn look(&self, page: u64, content: Content, round: u64, cpu: usize) {
        for (at, word) in (0..).zip(self.page(page)) {
            let (is, should) = (word.load(Ordering::Relaxed), content.word(at));
            if is != should && WRONG.fetch_add(1, Ordering::SeqCst) == 0 {
                let report = [round, cpu as u64, word.as_ptr() as u64, is, should];
                FIRST.iter().zip(report).for_each(|(slot, value)| slot.store(value, Ordering::SeqCst));
            }
        }
        LOOKED.fetch_add(WORDS as u64, Ordering::Relaxed);
    }

    /// One CPU's share of a round.
    fn turn(&self, round: u64, cpu: usize) {
        let n_cpus = args::n_cpus() as u64;
        for page in 0..self.len {
            let is_own = page % n_cpus == cpu as u64;
            let is_neighbours = page % n_cpus == (cpu as u64 + 1) % n_cpus;
            let since = (round + QUARTERS - self.quarter(page)) % QUARTERS;
            if is_own && round == 0 {
                self.look(page, Content::Zero, round, cpu);
                self.write(page, round);
            } else if is_own && since == 0 {
                self.look(page, self.content(page, round - 1), round, cpu);
                if self.is_due(page, round) {
                    self.write(page, round);
                }
            } else if is_neighbours && since == 1 && round > 0 {
                self.look(page, self.content(page, round), round, cpu);
            }
        }
    }
}

/// Waits for all others to come to the end of this round.
fn meet(round: u64) {
    MET.fetch_add(1, Ordering::SeqCst);
    while MET.load(Ordering::SeqCst) < (round + 1) * args::n_cpus() as u64 {
        cpu::relax();
    }
}

fn job(cpu: usize) {
    let pages = Pages::new();
    let rounds = args::number("rounds", 12).max(1);
    for round in 0..rounds {
        pages.turn(round, cpu);
        meet(round);
        if cpu == 0 {
            println!("churn: round {round} done");
        }
        timer::delay(args::number("pause", 0) * 1000);
    }
    for page in (0..pages.len).filter(|page| (page + 1) % args::n_cpus() as u64 == cpu as u64) {
        pages.look(page, pages.content(page, rounds - 1), rounds, cpu);
    }
    meet(rounds);
}

fn main() {
    let pages = Pages::new();
    println!("churn: {} pages, {} CPUs", pages.len, args::n_cpus());
    check_eq!(pages.len, args::number("set", 48) << 8, "there is as much memory as is asked for");
    let start = timer::now();
    smp::on_all(job);
    let ticks = timer::now() - start;
    let [round, cpu, address, is, should] = [0, 1, 2, 3, 4].map(|n| FIRST[n].load(Ordering::SeqCst));
    let wrong = WRONG.load(Ordering::SeqCst);
    check!(
        wrong == 0,
        "every word is what was written last",
        "{wrong} are not; the first, in round {round} on CPU {cpu}: at {address:#x} is {is:#x}, not {should:#x}"
    );
    let looked = LOOKED.load(Ordering::SeqCst);
    check!(looked >= pages.len * 2 * WORDS as u64, "every page is looked at", "{looked} words");
    let written = WRITTEN.load(Ordering::SeqCst);
    let ms = ticks / (timer::frequency() / 1000).max(1);
    println!("churn: {written} pages written, {} looked at in {ms} ms", looked / WORDS as u64);
}
