//! Compressing a page and bringing it back, bit for bit or not at all.
//!
//! LZ4 over whole pages. In the store a page is a word, the upper 48 bits of its hash and 16 bits of its length, and the
//! compressed bytes, cut up into units; each unit begins with a word that names the next. What comes back is hashed again: a
//! page that is not what it was is never handed to a guest.

use super::hash::Hash;
use super::lz4::{self, Page, Table};
use super::store::{MOST_UNITS, UNIT, UnitId};
use crate::machine::Words;
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The words of a unit that hold something: all but the one that names the next unit.
const WORDS: usize = UNIT / 8 - 1;
/// The bytes that the units of a page hold: a compressed page that has more is not worth it.
const ROOM: usize = MOST_UNITS * WORDS * 8;

/// A page, compressed, in the room of the [`Compressor`].
#[derive(Clone, Copy, Debug)]
pub struct Packed {
    /// How many units of the store it takes.
    pub units: u32,
    head: u64,
}

/// Room to compress and expand, for one at a time.
pub struct Compressor {
    page: Box<Page>,
    packed: Box<Page>,
    table: Box<Table>,
}

impl core::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Compressor")
    }
}

impl Default for Compressor {
    fn default() -> Self {
        Self { page: Box::new(Page::ZERO), packed: Box::new(Page::ZERO), table: Box::new([0; lz4::HASHES]) }
    }
}

/// The words of a unit of the store.
pub type Unit<'w> = core::iter::Skip<core::slice::Iter<'w, AtomicU64>>;

/// What the first word of a unit says of the next.
fn link(next: Option<&UnitId>) -> u64 {
    next.map_or(0, |place| u64::from(place.0) + 1)
}

/// The unit that follows the one whose first word is `link`.
pub fn next(link: u64) -> Option<UnitId> {
    u32::try_from(link.checked_sub(1)?).ok().map(UnitId)
}

impl Compressor {
    /// Compresses a page that nobody writes meanwhile. Nothing if it does not get small enough to be worth it.
    pub fn pack(&mut self, hash: &Hash, words: &Words) -> Option<Packed> {
        for (n, word) in words.iter().enumerate() {
            self.page.set_word(n, word.load(Relaxed));
        }
        // The first word of the units is the head.
        let length = lz4::compress(&self.page, &mut self.table, &mut self.packed, ROOM - 8)?;
        let units = (1 + length.div_ceil(8)).div_ceil(WORDS);
        let head = hash.of(words) & !0xffff | length as u64;
        // At most MOST_UNITS.
        Some(Packed { units: units as u32, head })
    }

    /// Writes what [`Compressor::pack`] made to the units of `chain`, whose words `unit` finds.
    pub fn put<'w>(&self, packed: Packed, chain: &[UnitId], unit: impl Fn(UnitId) -> Option<Unit<'w>>) {
        let mut values = core::iter::once(packed.head).chain((0..ROOM / 8).map(|n| self.packed.word(n)));
        for (n, place) in chain.iter().enumerate() {
            let Some(mut words) = unit(*place) else { return };
            if let Some(first) = words.next() {
                first.store(link(chain.get(n + 1)), Relaxed);
            }
            words.take(WORDS).zip(&mut values).for_each(|(word, value)| word.store(value, Relaxed));
        }
    }

    /// Expands a page whose first unit is `first`, and returns its first word. Nothing if it is damaged.
    pub fn get<'w>(&mut self, first: UnitId, unit: impl Fn(UnitId) -> Option<Unit<'w>>) -> Option<u64> {
        let mut done = 0;
        let mut place = Some(first);
        let mut head = None;
        for _ in 0..MOST_UNITS {
            let Some(here) = place else { break };
            let mut words = unit(here)?;
            place = next(words.next()?.load(Relaxed));
            let mut values = words.take(WORDS).map(|word| word.load(Relaxed));
            if head.is_none() {
                head = values.next();
            }
            for value in values {
                self.packed.set_word(done, value);
                done += 1;
            }
        }
        let head = head?;
        let length = (head & 0xffff) as usize;
        lz4::expand(&self.packed, length, &mut self.page)?;
        Some(head)
    }

    /// The word with number `n` of the page that was expanded last.
    #[inline(always)]
    pub fn word(&self, n: u64) -> u64 {
        // A page has 512.
        self.page.word(n as usize)
    }
}

/// Whether `words` are the page whose first word in the store was `head`.
pub fn is_whole(hash: &Hash, head: u64, words: &Words) -> bool {
    hash.of(words) & !0xffff == head & !0xffff
}
