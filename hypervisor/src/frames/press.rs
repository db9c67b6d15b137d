//! Compressing a page and bringing it back, bit for bit or not at all.
//!
//! LZ4 over whole pages. In the store a page is a word, the upper 48 bits of its hash and 16 bits of its length, and the
//! compressed bytes. What comes back is hashed again: a page that is not what it was is never handed to a guest.

use super::hash::Hash;
use super::store::UNIT;
use crate::machine::Words;
use alloc::boxed::Box;
use core::sync::atomic::Ordering::Relaxed;
use lz4_flex::block::{compress_into, decompress_into};

const PAGE: usize = 4096;
/// The most units a compressed page may take: a quarter of the frame is saved at least.
pub const MOST_UNITS: usize = 12;
/// What the compressor wants for the worst case.
const ROOM: usize = 4608;

/// A page, compressed, in the room of the [`Press`].
#[derive(Clone, Copy, Debug)]
pub struct Packed {
    /// How many units of the store it takes.
    pub units: u32,
    head: u64,
}

/// Room to compress and expand, for one at a time.
pub struct Press {
    page: Box<[u8; PAGE]>,
    packed: Box<[u8; ROOM]>,
}

impl core::fmt::Debug for Press {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Press")
    }
}

impl Default for Press {
    fn default() -> Self {
        Self { page: Box::new([0; PAGE]), packed: Box::new([0; ROOM]) }
    }
}

/// How many units a page takes whose first word in the store is `head`.
pub fn units(head: u64) -> u32 {
    // At most 16 bits of length, so it fits.
    (8 + (head & 0xffff) as usize).div_ceil(UNIT) as u32
}

impl Press {
    /// Compresses a page that nobody writes meanwhile. Nothing if it does not get small enough to be worth it.
    pub fn pack(&mut self, hash: &Hash, words: &Words) -> Option<Packed> {
        for (bytes, word) in self.page.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *bytes = word.load(Relaxed).to_le_bytes();
        }
        // Takes 8 KiB of heap for as long as it lasts. Of the two ways to call it this one is compiled with its crate, for speed.
        let length = compress_into(&self.page[..], &mut self.packed[..]).ok()?;
        if 8 + length > MOST_UNITS * UNIT {
            return None;
        }
        let head = hash.of(words) & !0xffff | length as u64;
        Some(Packed { units: units(head), head })
    }

    /// Writes what [`Press::pack`] made to the words of its place in the store.
    pub fn put<'w>(&self, packed: Packed, words: impl Iterator<Item = &'w core::sync::atomic::AtomicU64>) {
        let bytes = self.packed.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let length = (packed.head & 0xffff).div_ceil(8) as usize + 1;
        for (word, value) in words.zip(core::iter::once(packed.head).chain(bytes)).take(length) {
            word.store(value, Relaxed);
        }
    }

    /// Expands a page from the words of its place in the store. False if it is damaged.
    pub fn get<'w>(&mut self, words: impl Iterator<Item = &'w core::sync::atomic::AtomicU64>) -> Option<u64> {
        let mut words = words.map(|word| word.load(Relaxed));
        let head = words.next()?;
        let length = (head & 0xffff) as usize;
        for (bytes, word) in self.packed.as_chunks_mut::<8>().0.iter_mut().zip(words).take(length.div_ceil(8)) {
            *bytes = word.to_le_bytes();
        }
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
