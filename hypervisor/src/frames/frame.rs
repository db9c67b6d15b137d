//! A run of frames in somebody's hands, and whether it may hold what another must not see.

use super::record::Order;
use crate::addr::{Addr, Pa, Size};
use crate::machine::Machine;
use core::marker::PhantomData;
use core::sync::atomic::Ordering::Relaxed;

/// Whether a frame may hold somebody's bytes. Implemented by [`Dirty`] and [`Clean`] alone.
pub trait Contents: sealed::Sealed {}

/// May hold anything, another VM's secrets included.
#[derive(Debug)]
pub enum Dirty {}

/// Holds what we have written to every byte of it, and every CPU sees that.
#[derive(Debug)]
pub enum Clean {}

mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for Dirty {}
impl sealed::Sealed for Clean {}
impl Contents for Dirty {}
impl Contents for Clean {}

/// A run of frames that has one holder: this value.
#[must_use = "a dropped frame is lost: map it or give it back"]
#[derive(Debug)]
pub struct Frame<C: Contents> {
    start: Addr<Pa>,
    order: Order,
    contents: PhantomData<C>,
}

impl<C: Contents> Frame<C> {
    /// Only the pool makes frames of addresses.
    pub(super) const fn new(start: Addr<Pa>, order: Order) -> Self {
        Self { start, order, contents: PhantomData }
    }

    /// The address of the first frame, aligned to the size of the run. To look at, not to map.
    pub const fn start(&self) -> Addr<Pa> {
        self.start
    }

    /// How many frames there are, as a power of two.
    pub const fn order(&self) -> Order {
        self.order
    }

    /// Takes the address and ends the value without an alarm.
    pub(super) fn release(self) -> (Addr<Pa>, Order) {
        let parts = (self.start, self.order);
        core::mem::forget(self);
        parts
    }
}

impl Frame<Dirty> {
    /// Fills all of it with zeroes, and waits until every CPU sees them.
    pub fn zero<M: Machine>(self, m: &M) -> Frame<Clean> {
        let (start, order) = self.release();
        m.zero(start, order.frames());
        // A descriptor that is stored later must not be seen earlier: stores to different addresses have no order of
        // their own, and on another CPU a vCPU of the same VM could read through the new leaf what was here before.
        m.publish();
        Frame::new(start, order)
    }

    /// Writes every word of it with what `word` gives for the word's number, and waits until every CPU sees that.
    pub fn fill<M: Machine>(self, m: &M, mut word: impl FnMut(u64) -> u64) -> Frame<Clean> {
        let (start, order) = self.release();
        for page in 0..order.frames() {
            let words = m.frame(start + page * Size::Page.bytes());
            for (number, place) in (page * 512..).zip(words) {
                place.store(word(number), Relaxed);
            }
        }
        m.publish();
        Frame::new(start, order)
    }
}

impl Frame<Dirty> {
    /// Fills it, one frame, with what the frame at `from` holds, and waits until every CPU sees that.
    pub fn copy<M: Machine>(self, m: &M, from: Addr<Pa>) -> Frame<Clean> {
        let (fours, _) = m.frame(from).as_chunks::<4>();
        self.of_fours(
            m,
            fours.iter().map(|[a, b, c, d]| [a.load(Relaxed), b.load(Relaxed), c.load(Relaxed), d.load(Relaxed)]),
        )
    }

    /// Fills it, one frame, with these words, and waits until every CPU sees that.
    pub fn of_words<M: Machine>(self, m: &M, words: &[u64]) -> Frame<Clean> {
        let (fours, _) = words.as_chunks::<4>();
        self.of_fours(m, fours.iter().copied())
    }

    /// Fills it, one frame, with these bytes and zeroes behind them, and waits until every CPU sees that.
    pub fn of_bytes<M: Machine>(self, m: &M, bytes: &[u8]) -> Frame<Clean> {
        let (whole, rest) = bytes.as_chunks::<32>();
        let mut last = [0; 32];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        let words = |bytes: &[u8; 32]| {
            let (words, _) = bytes.as_chunks::<8>();
            core::array::from_fn(|n| words.get(n).map_or(0, |word| u64::from_le_bytes(*word)))
        };
        self.of_fours(m, whole.iter().chain([&last]).map(words))
    }

    /// Four words at a time: a loop for each costs more than twice as much.
    #[inline(always)]
    fn of_fours<M: Machine>(self, m: &M, mut fours: impl Iterator<Item = [u64; 4]>) -> Frame<Clean> {
        let (start, order) = self.release();
        let (places, _) = m.frame(start).as_chunks::<4>();
        for [a, b, c, d] in places {
            let [one, two, three, four] = fours.next().unwrap_or_default();
            a.store(one, Relaxed);
            b.store(two, Relaxed);
            c.store(three, Relaxed);
            d.store(four, Relaxed);
        }
        m.publish();
        Frame::new(start, order)
    }

    /// It was filled by a device, which is done with it.
    pub fn written<M: Machine>(self, m: &M) -> Frame<Clean> {
        let (start, order) = self.release();
        m.publish();
        Frame::new(start, order)
    }
}

/// A run of frames that is being written, a piece at a time: all of a block would take long.
///
/// As an address in a table, it is its owner's to give back ([`Filling::give_up`]).
#[derive(Debug)]
pub struct Filling {
    start: Addr<Pa>,
    order: Order,
    word: u64,
    done: u64,
}

impl Filling {
    /// Begins to write `word` to all of `frame`.
    pub fn new(frame: Frame<Dirty>, word: u64) -> Self {
        let (start, order) = frame.release();
        Self { start, order, word, done: 0 }
    }

    /// What is written.
    pub const fn word(&self) -> u64 {
        self.word
    }

    /// Writes a piece more. Returns where it is and how many bytes it has: none once all is written.
    pub fn step<M: Machine>(&mut self, m: &M) -> (Addr<Pa>, u64) {
        // Zeroing a cache line is one instruction, writing it sixteen and more.
        let most: u64 = if self.word == 0 { 128 << 10 } else { 8 << 10 };
        let start = self.start + self.done;
        let bytes = most.min(self.order.bytes() - self.done);
        if self.word == 0 {
            m.zero(start, bytes >> 12);
        } else {
            for page in 0..bytes >> 12 {
                let words = m.frame(start + (page << 12));
                words.iter().for_each(|place| place.store(self.word, Relaxed));
            }
        }
        self.done += bytes;
        (start, bytes)
    }

    /// Ends it, and waits until every CPU sees what was written. It is its own error where it was not written to the end.
    pub fn finish<M: Machine>(self, m: &M) -> Result<Frame<Clean>, Self> {
        if self.done < self.order.bytes() {
            return Err(self);
        }
        m.publish();
        Ok(Frame::new(self.start, self.order))
    }

    /// Ends it as it is, to give the frame back.
    pub fn give_up(self) -> Frame<Dirty> {
        Frame::new(self.start, self.order)
    }
}

impl Frame<Clean> {
    /// Gives the address away for a table to hold: from here on the table is what knows of the frame, and
    /// [`Pool::free_held`](super::Pool::free_held) takes it back.
    pub fn into_table(self) -> Addr<Pa> {
        self.release().0
    }

    /// Forgets that it is clean, to give it back unused.
    pub fn into_dirty(self) -> Frame<Dirty> {
        let (start, order) = self.release();
        Frame::new(start, order)
    }
}

impl<C: Contents> Drop for Frame<C> {
    fn drop(&mut self) {
        debug_assert!(false, "{:?} is lost: a frame was dropped instead of mapped or given back", self.start);
    }
}
