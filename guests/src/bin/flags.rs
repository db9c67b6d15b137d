//! Does the CPU set access flags in translation tables that its host keeps write-protected, because it merged them?
//!
//! Two tables with the same descriptors, all without access flags, are left alone for a while; then each page is loaded
//! through both. The walk has to write the table (TCR_EL1.HA, FEAT_HAFDBS; Arm ARM D8.5.3) that the load only reads.
//!
//! Boot argument `pause=MS`: how long the tables are left alone (default 3000). Without FEAT_HAFDBS nothing is tested.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use rt::{args, check, check_eq, mmu, println, ram, timer};

rt::guest!(main);

/// Words of a page, and entries of a table.
const ENTRIES: usize = 512;
/// The entry of the first table that leads to ours: 300 GiB.
const INDEX: usize = 300;
const ACCESSED: u64 = 1 << 10;
const TABLE: u64 = 0b11;
/// A page: Normal memory as [`mmu`] has it, inner shareable, not to be fetched from, not accessed.
const PAGE: u64 = 0x0040_0000_0000_0307;

/// The first word of a page. Many pages are the same, so that it pays to break their block up.
fn value(page: usize) -> u64 {
    page as u64 % 7 + 1
}

fn main() {
    if !mmu::has_access_flags() {
        println!("flags: the CPU sets none");
        check!(true, "no flags to set");
        return;
    }
    let pages = ram::largest_free();
    check!(pages.len() >= (3 + ENTRIES) * ENTRIES, "there is memory for it");
    let (tables, pages) = pages.split_at(3 * ENTRIES);
    let (top, tables) = tables.split_at(ENTRIES);
    for (page, words) in pages.chunks(ENTRIES).take(ENTRIES).enumerate() {
        words[0].store(value(page), Ordering::Relaxed);
    }
    for (entry, table) in top.iter().zip(tables.chunks(ENTRIES)) {
        for (entry, page) in table.iter().zip(pages.chunks(ENTRIES)) {
            entry.store(page.as_ptr() as u64 | PAGE, Ordering::Relaxed);
        }
        entry.store(table.as_ptr() as u64 | TABLE, Ordering::Release);
    }
    timer::delay(args::number("pause", 3000) * 1000);
    mmu::set_access_flags(true);
    let view = mmu::view(INDEX, top);
    for number in 0..2 * ENTRIES {
        let (table, page) = (number / ENTRIES, number % ENTRIES);
        let word = view[number * ENTRIES].load(Ordering::Relaxed);
        check_eq!(word, value(page), "page {page} through table {table}");
    }
    let unset =
        |table: &[AtomicU64]| table.iter().filter(|entry| entry.load(Ordering::Relaxed) & ACCESSED == 0).count();
    check_eq!(unset(tables), 0, "every page that was loaded has its flag");
}
