//! Is all RAM there, zero at first, and does it keep what is written, page by page and block by block?
//!
//! Boot argument `stride=2m` touches only one word in each 2 MiB block, `stride=4k` (the default) one in each page.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use rt::{args, check, check_eq, println, ram};

rt::guest!(main);

const PAGE: usize = 4096 / 8;
const BLOCK: usize = (2 << 20) / 8;

/// A value that tells every word from every other, and rounds too.
fn pattern(word: &AtomicU64, round: u64) -> u64 {
    (word.as_ptr() as u64 ^ round << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Calls `each` for one word in every `stride` words of free RAM, at a place that varies with the stride.
fn each_word(stride: usize, mut each: impl FnMut(&'static AtomicU64)) {
    ram::each_free(|run| {
        for chunk in run.chunks(stride) {
            each(&chunk[(chunk.as_ptr() as usize >> 12) % chunk.len().min(PAGE)]);
        }
    });
}

/// Writes every `stride`th word and reads all back when all are written.
fn fill_and_compare(stride: usize, round: u64) -> (u64, u64) {
    let (mut words, mut bad) = (0u64, 0u64);
    each_word(stride, |word| word.store(pattern(word, round), Ordering::Relaxed));
    each_word(stride, |word| {
        words += 1;
        bad += u64::from(word.load(Ordering::Relaxed) != pattern(word, round));
    });
    (words, bad)
}

/// Writes one word in each page, empties the caches by set and way, and reads all back.
fn empty_caches() {
    let mut bad = 0;
    each_word(PAGE, |word| word.store(pattern(word, 7), Ordering::Relaxed));
    let n = rt::cpu::clean_by_set_way();
    each_word(PAGE, |word| bad += u64::from(word.load(Ordering::Relaxed) != pattern(word, 7)));
    check!(n > 0 && bad == 0, "RAM keeps its pattern as the caches are emptied", "{bad} words do not");
    println!("memory: {n} sets and ways");
}

fn main() {
    let fine = if args::value("stride") == Some("2m") { BLOCK } else { PAGE };
    let mut pages = 0;
    ram::each_free(|run| pages += run.len() / PAGE);
    println!("memory: {pages} free pages of {}", (ram::end() - rt::board::RAM) >> 12);
    check!(pages > 0, "there is free RAM");

    let (mut first_bad, mut n_bad) = (0, 0u64);
    each_word(fine, |word| {
        if word.load(Ordering::Relaxed) != 0 {
            first_bad = word.as_ptr() as u64;
            n_bad += 1;
        }
    });
    check!(n_bad == 0, "RAM is zero at first", "{n_bad} words are not, the last at {first_bad:#x}");

    for (round, (stride, what)) in [(BLOCK, "one word in 2 MiB"), (fine, "one word a step")].into_iter().enumerate() {
        let (words, bad) = fill_and_compare(stride, round as u64);
        check_eq!(bad, 0, "{what} keeps its pattern");
        println!("memory: {words} words");
    }

    // A whole block, every word, at the end of RAM: the last pages are there too.
    let mut last: &'static [AtomicU64] = &[];
    ram::each_free(|run| last = run);
    let tail = &last[last.len().saturating_sub(BLOCK)..];
    tail.iter().for_each(|word| word.store(pattern(word, 7), Ordering::Relaxed));
    let bad = tail.iter().filter(|word| word.load(Ordering::Relaxed) != pattern(word, 7)).count();
    check_eq!(bad, 0, "the last 2 MiB of RAM keep every word");
    empty_caches();
}
