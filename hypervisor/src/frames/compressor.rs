//! Compressing a page and bringing it back, bit for bit or not at all, in steps ([`super::lz4`]).
//!
//! In the store a page is a word, the upper 48 bits of its hash and 16 bits of its length, and the compressed bytes, cut up into
//! units; each unit begins with a word that names the next. What comes back is hashed again: a page that is not what it was is
//! never handed to a guest.
//!
//! The [`Compressor`] is the pool's, and has one page at a time, of whichever VM: a copy, as its guest may write meanwhile. Whoever
//! needs memory goes on with it. An [`Expander`] is a VM's own, so that nobody else can keep it from what it has begun.

use super::hash::Hash;
use super::lz4::{self, Compression, Expansion, Outcome, Page, Table};
use super::store::{MOST_UNITS, UNIT, UnitId};
use crate::addr::{Addr, Ipa, VmId};
use crate::machine::Words;
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The words of a unit that hold something: all but the one that names the next unit.
const WORDS: usize = UNIT / 8 - 1;
/// The most words of a page in the store, the first of which is no part of the block.
const ROOM: usize = MOST_UNITS * WORDS;

/// A page, compressed, in the room of the [`Compressor`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packed {
    /// How many units of the store it takes.
    pub units: u32,
    length: usize,
}

/// What a step of a [`Compressor`] came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compressed {
    /// There is more to do.
    More,
    /// It is compressed.
    Done(Packed),
    /// It does not get small enough to be worth it.
    Large,
}

/// Room to compress one page at a time.
pub struct Compressor {
    page: Box<Page>,
    packed: Box<Page>,
    table: Box<Table>,
    job: Option<Job>,
}

/// Which page is being compressed, and how far that is.
#[derive(Clone, Copy, Debug)]
struct Job {
    of: (VmId, Addr<Ipa>),
    compression: Compression,
    /// What came of it, once it is over.
    over: Option<Compressed>,
    /// What it has cost so far, in ticks.
    spent: u64,
}

impl core::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Compressor({:?})", self.job)
    }
}

impl Default for Compressor {
    fn default() -> Self {
        Self { page: Box::new(Page::ZERO), packed: Box::new(Page::ZERO), table: Box::new([0; lz4::HASHES]), job: None }
    }
}

/// The words of a unit of the store.
pub type Unit<'w> = core::slice::Iter<'w, AtomicU64>;

/// What the first word of a unit says of the next.
fn link(next: Option<&UnitId>) -> u64 {
    next.map_or(0, |place| u64::from(place.0) + 1)
}

/// The unit that follows the one whose first word is `link`.
pub fn next(link: u64) -> Option<UnitId> {
    u32::try_from(link.checked_sub(1)?).ok().map(UnitId)
}

impl Compressor {
    /// Whose page is being compressed, and which.
    pub fn job(&self) -> Option<(VmId, Addr<Ipa>)> {
        self.job.map(|job| job.of)
    }

    /// Begins with the page `of` a VM, which holds `words`; what was begun before is given up.
    pub fn begin(&mut self, of: (VmId, Addr<Ipa>), words: &Words) {
        // Four at a time: a loop for each costs more than twice as much.
        let (copies, _) = self.page.words_mut().as_chunks_mut::<4>();
        let (fours, _) = words.as_chunks::<4>();
        for (copy, [a, b, c, d]) in copies.iter_mut().zip(fours) {
            *copy = [a.load(Relaxed), b.load(Relaxed), c.load(Relaxed), d.load(Relaxed)];
        }
        self.job = Some(Job { of, compression: Compression::begin(&mut self.table), over: None, spent: 0 });
    }

    /// Goes on with what was begun; it is over with whatever is not [`Compressed::More`], but its copy stays. What came of it is said a
    /// step after it did, as what follows is long, too.
    pub fn step(&mut self) -> Compressed {
        let Some(job) = &mut self.job else { return Compressed::Large };
        if let Some(over) = job.over {
            return over;
        }
        // The first word of the units is none of the block's.
        let most = (ROOM - 1) * 8;
        job.over = match job.compression.step(&self.page, &mut self.table, &mut self.packed, most) {
            Outcome::More => None,
            Outcome::Done(length) => {
                // At most MOST_UNITS.
                let units = (1 + length.div_ceil(8)).div_ceil(WORDS) as u32;
                Some(Compressed::Done(Packed { units, length }))
            }
            Outcome::Not => Some(Compressed::Large),
        };
        Compressed::More
    }

    /// Counts `ticks` to what the page costs.
    pub fn spend(&mut self, ticks: u64) {
        if let Some(job) = &mut self.job {
            job.spent = job.spent.wrapping_add(ticks);
        }
    }

    /// Ends what was begun, and says what it has cost.
    pub fn end(&mut self) -> u64 {
        self.job.take().map_or(0, |job| job.spent)
    }

    /// The hash of `words`, if they are the page that was begun with.
    pub fn hash_of_copy(&self, hash: &Hash, words: &Words) -> Option<u64> {
        hash.of_copy(words, self.page.words())
    }

    /// Writes a page that is compressed, and has this `hash`, to the units of `chain`, whose words `unit` finds.
    pub fn put<'w>(&self, packed: Packed, hash: u64, chain: &[UnitId], unit: impl Fn(UnitId) -> Option<Unit<'w>>) {
        let head = hash & !0xffff | packed.length as u64;
        let mut rest = self.packed.words();
        for (n, place) in chain.iter().enumerate() {
            let Some(mut words) = unit(*place) else { return };
            if let Some(first) = words.next() {
                first.store(link(chain.get(n + 1)), Relaxed);
            }
            let mut room = WORDS;
            if n == 0
                && let Some(second) = words.next()
            {
                second.store(head, Relaxed);
                room -= 1;
            }
            let (here, later) = rest.split_at(room.min(rest.len()));
            words.zip(here).for_each(|(word, value)| word.store(*value, Relaxed));
            rest = later;
        }
    }
}

/// Room to expand one page at a time.
pub struct Expander {
    page: Box<Page>,
    packed: Box<Page>,
    job: Option<Expanding>,
}

/// Which page is being expanded, and how far that is.
#[derive(Clone, Copy, Debug)]
struct Expanding {
    at: Addr<Ipa>,
    first: UnitId,
    head: u64,
    expansion: Expansion,
    is_done: bool,
    /// What it has cost so far, in ticks.
    spent: u64,
}

impl core::fmt::Debug for Expander {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Expander({:?})", self.job)
    }
}

impl Default for Expander {
    #[inline(never)]
    fn default() -> Self {
        Self { page: Box::new(Page::ZERO), packed: Box::new(Page::ZERO), job: None }
    }
}

impl Expander {
    /// Which page is being expanded, and where it lies in the store.
    pub fn job(&self) -> Option<(Addr<Ipa>, UnitId)> {
        self.job.map(|job| (job.at, job.first))
    }

    /// Begins with the page at `at`, whose first unit is `first`. False if it is damaged.
    pub fn begin<'w>(&mut self, at: Addr<Ipa>, first: UnitId, unit: impl Fn(UnitId) -> Option<Unit<'w>>) -> bool {
        self.job = self.gather(first, unit).map(|head| Expanding {
            at,
            first,
            head,
            expansion: Expansion::default(),
            is_done: false,
            spent: 0,
        });
        self.job.is_some()
    }

    /// Copies the units that begin with `first`, and returns the word before the block.
    fn gather<'w>(&mut self, first: UnitId, unit: impl Fn(UnitId) -> Option<Unit<'w>>) -> Option<u64> {
        let mut place = Some(first);
        let mut head = None;
        let mut done = 0;
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
        head
    }

    /// Goes on with what was begun; true once it is done. Nothing if it is damaged.
    pub fn step(&mut self) -> Option<bool> {
        let job = self.job.as_mut()?;
        let was_done = job.is_done;
        if !was_done {
            let length = (job.head & 0xffff) as usize;
            match job.expansion.step(&self.packed, length, &mut self.page) {
                Outcome::More => {}
                Outcome::Done(_) => job.is_done = true,
                Outcome::Not => return None,
            }
        }
        Some(was_done)
    }

    /// Counts `ticks` to what the page costs.
    pub fn spend(&mut self, ticks: u64) {
        if let Some(job) = &mut self.job {
            job.spent = job.spent.wrapping_add(ticks);
        }
    }

    /// Ends what was begun, and says what it has cost.
    pub fn end(&mut self) -> u64 {
        self.job.take().map_or(0, |job| job.spent)
    }

    /// The words of the page that was expanded last.
    pub fn words(&self) -> &[u64] {
        self.page.words()
    }

    /// Whether `words` are the page that was begun with.
    pub fn is_whole(&self, hash: &Hash, words: &Words) -> bool {
        self.job.is_some_and(|job| hash.of(words) & !0xffff == job.head & !0xffff)
    }
}
