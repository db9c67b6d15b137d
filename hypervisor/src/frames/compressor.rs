//! Compressing a page and bringing it back, bit for bit or not at all.
//!
//! LZ4 over whole pages. In the store a page is a word, the upper 48 bits of its hash and 16 bits of its length, and the
//! compressed bytes, cut up into units; each unit begins with a word that names the next. What comes back is hashed again: a
//! page that is not what it was is never handed to a guest.

use super::hash::Hash;
use super::store::{MOST_UNITS, Place, UNIT};
use crate::machine::Words;
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use lz4_flex::block::{compress_into, decompress_into};

const PAGE: usize = 4096;
/// The words of a unit that hold something: all but the one that names the next unit.
const WORDS: usize = UNIT / 8 - 1;
/// What the compressor wants for the worst case.
const ROOM: usize = 4608;

/// A page, compressed, in the room of the [`Compressor`].
#[derive(Clone, Copy, Debug)]
pub struct Packed {
    /// How many units of the store it takes.
    pub units: u32,
    head: u64,
}

/// Room to compress and expand, for one at a time.
pub struct Compressor {
    page: Box<[u8; PAGE]>,
    packed: Box<[u8; ROOM]>,
}

impl core::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Compressor")
    }
}

impl Default for Compressor {
    fn default() -> Self {
        Self { page: Box::new([0; PAGE]), packed: Box::new([0; ROOM]) }
    }
}

/// The words of a unit of the store.
pub type Unit<'w> = core::iter::Skip<core::slice::Iter<'w, AtomicU64>>;

/// What the first word of a unit says of the next.
fn link(next: Option<&Place>) -> u64 {
    next.map_or(0, |place| u64::from(place.0) + 1)
}

/// The unit that follows the one whose first word is `link`.
pub fn next(link: u64) -> Option<Place> {
    u32::try_from(link.checked_sub(1)?).ok().map(Place)
}

impl Compressor {
    /// Compresses a page that nobody writes meanwhile. Nothing if it does not get small enough to be worth it.
    pub fn pack(&mut self, hash: &Hash, words: &Words) -> Option<Packed> {
        for (bytes, word) in self.page.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *bytes = word.load(Relaxed).to_le_bytes();
        }
        // Takes 8 KiB of heap for as long as it lasts. Of the two ways to call it this one is compiled with its crate, for speed.
        let length = compress_into(&self.page[..], &mut self.packed[..]).ok()?;
        let units = (1 + length.div_ceil(8)).div_ceil(WORDS);
        if units > MOST_UNITS {
            return None;
        }
        let head = hash.of(words) & !0xffff | length as u64;
        // At most MOST_UNITS.
        Some(Packed { units: units as u32, head })
    }

    /// Writes what [`Compressor::pack`] made to the units of `chain`, whose words `unit` finds.
    pub fn put<'w>(&self, packed: Packed, chain: &[Place], unit: impl Fn(Place) -> Option<Unit<'w>>) {
        let bytes = self.packed.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let mut values = core::iter::once(packed.head).chain(bytes);
        for (n, place) in chain.iter().enumerate() {
            let Some(mut words) = unit(*place) else { return };
            if let Some(first) = words.next() {
                first.store(link(chain.get(n + 1)), Relaxed);
            }
            words.take(WORDS).zip(&mut values).for_each(|(word, value)| word.store(value, Relaxed));
        }
    }

    /// Expands a page whose first unit is `first`, and returns its first word. Nothing if it is damaged.
    pub fn get<'w>(&mut self, first: Place, unit: impl Fn(Place) -> Option<Unit<'w>>) -> Option<u64> {
        let mut room = self.packed.as_chunks_mut::<8>().0.iter_mut();
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
            // The room is longer than MOST_UNITS units: it does not end first.
            values.zip(&mut room).for_each(|(value, bytes)| *bytes = value.to_le_bytes());
        }
        let head = head?;
        let length = (head & 0xffff) as usize;
        let expanded = decompress_into(self.packed.get(..length)?, &mut self.page[..]).ok()?;
        (expanded == PAGE).then_some(head)
    }

    /// The words of the page that was expanded last.
    pub fn words(&self) -> impl Iterator<Item = u64> {
        self.page.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
    }
}

/// Whether `words` are the page whose first word in the store was `head`.
pub fn is_whole(hash: &Hash, head: u64, words: &Words) -> bool {
    hash.of(words) & !0xffff == head & !0xffff
}
