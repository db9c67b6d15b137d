//! Copying to and from guest memory, by checked ranges, through [`Memory::resolve`].
//!
//! A guest may write while we copy, so its memory is words of `AtomicU64`, never a slice. Whole words are moved as such;
//! the ends of an odd range change their bytes in place by one exclusive-or, which keeps what the guest stores beside them.
//! The first byte is the word's lowest: guest, host and target are little-endian.
//!
//! Whoever loads an image calls [`Memory::clean`] afterwards. The guest starts with MMU and caches off: its loads go to
//! DRAM, so what we wrote has to be cleaned to the point of coherency. Its first fetch is a fault, which sees to the
//! instruction caches ([`super::fault`]).

use super::{Access, Memory, Miss};
use crate::addr::{Addr, Ipa, Pa, Size};
use crate::arm::desc::{Hole, MemType};
use crate::frames::SharedPool;
use crate::machine::{Machine, Point, Words};
use crate::stage2::walk::{Found, Gap};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

const PAGE: usize = 4096;

impl Memory {
    /// Writes `bytes` to guest memory at `at`, all of which must be RAM ([`Miss::NotRam`] otherwise, before anything is
    /// written). Stops where the pool is short; what is written by then stays.
    pub fn write<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), Miss> {
        let mut rest = bytes;
        self.pages(m, pool, at, bytes.len(), Access::Write, |words, offset, length| {
            let (now, later) = rest.split_at(length.min(rest.len()));
            copy_in(words, offset, now);
            rest = later;
        })
    }

    /// Reads guest memory at `at` into `into`; the blame as for [`Memory::write`].
    pub fn read<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        at: Addr<Ipa>,
        into: &mut [u8],
    ) -> Result<(), Miss> {
        let mut done = 0;
        self.pages(m, pool, at, into.len(), Access::Read, |words, offset, length| {
            if let Some(part) = into.get_mut(done..done + length) {
                copy_out(words, offset, part);
            }
            done += length;
        })
    }

    /// Makes `length` bytes at `at` read as zero. Pages that are zero without a frame stay so.
    pub fn zero<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, at: Addr<Ipa>, length: u64) -> Result<(), Miss> {
        if !self.is_ram(at, length) {
            return Err(Miss::NotRam);
        }
        let mut done = 0;
        while done < length {
            let here = at + done;
            let step = (Size::Page.bytes() - here.offset_in(Size::Page)).min(length - done);
            let is_zero = |gap: Gap<Ipa>| matches!(gap.hole(), Hole::Absent | Hole::Zero);
            if !matches!(self.table.walk(m, here), Found::Gap(gap) if is_zero(gap)) {
                // At most a page, so it fits.
                self.pages(m, pool, here, step as usize, Access::Write, |words, offset, length| {
                    clear(words, offset, length);
                })?;
            }
            done += step;
        }
        Ok(())
    }

    /// The frame of the page of RAM at `page`, made what such an access takes: of the VM's own if it is written.
    pub fn ram_frame<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        page: Addr<Ipa>,
        access: Access,
    ) -> Result<Addr<Pa>, Miss> {
        if !self.is_ram(page, Size::Page.bytes()) {
            return Err(Miss::NotRam);
        }
        Ok(self.place(m, pool, page, access)?.0)
    }

    /// The aligned 64-bit word at `at`, which must be RAM: what [`Memory::read`] would copy, for those who read one descriptor after
    /// another.
    pub fn read_word<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, at: Addr<Ipa>) -> Result<u64, Miss> {
        if !self.is_ram(at, 8) || !at.bits().is_multiple_of(8) {
            return Err(Miss::NotRam);
        }
        let (pa, _) = self.place(m, pool, at, Access::Read)?;
        let words = m.frame(pa.align_down(Size::Page));
        // A word of the page: less than 512.
        Ok(words.get(pa.offset_in(Size::Page) as usize / 8).map_or(0, |word| word.load(Relaxed)))
    }

    /// The aligned 64-bit word at `at`, if it is backed by RAM. Changes nothing: for crash reports.
    pub fn peek<M: Machine>(&self, m: &M, at: Addr<Ipa>) -> Option<u64> {
        match self.table.walk(m, at) {
            Found::Leaf(leaf) if leaf.attr.mem != MemType::Device => {
                let pa = leaf.output_of(at)?;
                let word = m.frame(pa.align_down(Size::Page)).get(pa.offset_in(Size::Page) as usize / 8)?;
                Some(word.load(Relaxed))
            }
            _ => None,
        }
    }

    /// Lets a guest without caches see what we wrote to `length` bytes at `at`. Only what is backed.
    pub fn clean<M: Machine>(&self, m: &M, at: Addr<Ipa>, length: u64) {
        if !self.is_ram(at, length) {
            return;
        }
        let mut done = 0;
        while done < length {
            let here = at + done;
            // A hole is stepped over page by page; that is a walk of at most four loads.
            let mut step = Size::Page.bytes() - here.offset_in(Size::Page);
            if let Found::Leaf(leaf) = self.table.walk(m, here)
                && let Some(pa) = leaf.output_of(here)
            {
                step = (leaf.size.bytes() - here.offset_in(leaf.size)).min(length - done);
                m.clean(pa, step, Point::Coherency);
            }
            done += step;
        }
    }

    /// Shows `copy` the words of each page in turn, with the offset of the first byte and how many there are.
    fn pages<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        at: Addr<Ipa>,
        length: usize,
        access: Access,
        mut copy: impl FnMut(&Words, usize, usize),
    ) -> Result<(), Miss> {
        if !self.is_ram(at, length as u64) {
            return Err(Miss::NotRam);
        }
        // Where the next byte lies, and how many of its leaf follow from there on: one walk for each leaf, not for each page.
        let (mut pa, mut known) = (Addr::new(0), 0);
        let mut done = 0;
        while done < length {
            if known == 0 {
                (pa, known) = self.place(m, pool, at + done as u64, access)?;
            }
            let offset = pa.offset_in(Size::Page) as usize;
            let step = (PAGE - offset).min(length - done);
            copy(m.frame(pa.align_down(Size::Page)), offset, step);
            done += step;
            pa = pa + step as u64;
            known = known.saturating_sub(step as u64);
        }
        Ok(())
    }

    /// Where the byte of RAM at `at` lies, made what such an access takes, and how many bytes of its leaf follow, it included.
    #[inline(always)]
    fn place<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        at: Addr<Ipa>,
        access: Access,
    ) -> Result<(Addr<Pa>, u64), Miss> {
        // By reference: a leaf that is moved is copied, byte by byte.
        let leaf = match &self.resolve_page(m, pool, at, access) {
            Ok(leaf) if leaf.attr.mem != MemType::Device => (leaf.output, leaf.size),
            Ok(_) => return Err(Miss::NotRam),
            Err(miss) => return Err(*miss),
        };
        let (output, offset) = (leaf.0, at.offset_in(leaf.1));
        Ok((output + offset, leaf.1.bytes() - offset))
    }
}

/// Splits a range of bytes in a page into an odd start, whole words, and an odd end: (bytes, first word, words, bytes).
fn cut(offset: usize, length: usize) -> (usize, usize, usize, usize) {
    let head = (offset.wrapping_neg() % 8).min(length);
    let first = (offset + head) / 8;
    (head, first, (length - head) / 8, (length - head) % 8)
}

/// Copies `bytes` to `offset`, which with them lies inside the page.
pub fn copy_in(words: &Words, offset: usize, bytes: &[u8]) {
    let (head, first, whole, tail) = cut(offset, bytes.len());
    let (odd, rest) = bytes.split_at(head);
    let (even, end) = rest.as_chunks::<8>();
    patch(words, offset, odd);
    store_words(words.get(first..first + whole).unwrap_or_default(), even);
    debug_assert_eq!(end.len(), tail);
    patch(words, (first + whole) * 8, end);
}

/// Copies from `offset` into `bytes`, the same way.
pub fn copy_out(words: &Words, offset: usize, bytes: &mut [u8]) {
    let (head, first, whole, _) = cut(offset, bytes.len());
    let (odd, rest) = bytes.split_at_mut(head);
    let (even, end) = rest.as_chunks_mut::<8>();
    extract(words, offset, odd);
    load_words(words.get(first..first + whole).unwrap_or_default(), even);
    extract(words, (first + whole) * 8, end);
}

/// Four words at a time: a loop for each costs more than twice as much.
fn store_words(words: &[AtomicU64], bytes: &[[u8; 8]]) {
    let ((fours, ones), (from, last)) = (words.as_chunks::<4>(), bytes.as_chunks::<4>());
    for ([a, b, c, d], [one, two, three, four]) in fours.iter().zip(from) {
        a.store(u64::from_le_bytes(*one), Relaxed);
        b.store(u64::from_le_bytes(*two), Relaxed);
        c.store(u64::from_le_bytes(*three), Relaxed);
        d.store(u64::from_le_bytes(*four), Relaxed);
    }
    ones.iter().zip(last).for_each(|(word, bytes)| word.store(u64::from_le_bytes(*bytes), Relaxed));
}

/// The same the other way.
fn load_words(words: &[AtomicU64], bytes: &mut [[u8; 8]]) {
    let ((fours, ones), (into, last)) = (words.as_chunks::<4>(), bytes.as_chunks_mut::<4>());
    for ([a, b, c, d], [one, two, three, four]) in fours.iter().zip(into) {
        *one = a.load(Relaxed).to_le_bytes();
        *two = b.load(Relaxed).to_le_bytes();
        *three = c.load(Relaxed).to_le_bytes();
        *four = d.load(Relaxed).to_le_bytes();
    }
    ones.iter().zip(last).for_each(|(word, bytes)| *bytes = word.load(Relaxed).to_le_bytes());
}

/// Copies `length` bytes from one page to another, each from an offset there.
pub fn copy_words((from, at): (&Words, usize), (to, offset): (&Words, usize), length: usize) {
    if at.is_multiple_of(8) && offset.is_multiple_of(8) && length.is_multiple_of(8) {
        let n = length / 8;
        let [from, to] =
            [(from, at / 8), (to, offset / 8)].map(|(words, at)| words.get(at..at + n).unwrap_or_default());
        let ((fours, ones), (into, last)) = (from.as_chunks::<4>(), to.as_chunks::<4>());
        for ([a, b, c, d], [one, two, three, four]) in fours.iter().zip(into) {
            one.store(a.load(Relaxed), Relaxed);
            two.store(b.load(Relaxed), Relaxed);
            three.store(c.load(Relaxed), Relaxed);
            four.store(d.load(Relaxed), Relaxed);
        }
        ones.iter().zip(last).for_each(|(from, to)| to.store(from.load(Relaxed), Relaxed));
        return;
    }
    let mut part = [0; 64];
    let mut done = 0;
    while done < length {
        let step = (length - done).min(part.len());
        let part = part.get_mut(..step).unwrap_or_default();
        copy_out(from, at + done, part);
        copy_in(to, offset + done, part);
        done += step;
    }
}

/// Zeroes `length` bytes from `offset`, the same way.
pub(super) fn clear(words: &Words, offset: usize, length: usize) {
    const ZEROES: [u8; 8] = [0; 8];
    let (head, first, whole, tail) = cut(offset, length);
    patch(words, offset, &ZEROES[..head]);
    words.iter().skip(first).take(whole).for_each(|word| word.store(0, Relaxed));
    patch(words, (first + whole) * 8, &ZEROES[..tail]);
}

/// Changes fewer than eight bytes, which lie in one word.
fn patch(words: &Words, offset: usize, bytes: &[u8]) {
    let Some(word) = words.get(offset / 8).filter(|_| !bytes.is_empty()) else { return };
    let mut place = word.load(Relaxed).to_le_bytes();
    let old = u64::from_le_bytes(place);
    for (to, from) in place.iter_mut().skip(offset % 8).zip(bytes) {
        *to = *from;
    }
    // Zero bits for bytes that are not ours: a store of the guest's to them is kept.
    word.fetch_xor(old ^ u64::from_le_bytes(place), Relaxed);
}

/// Reads fewer than eight bytes, which lie in one word.
fn extract(words: &Words, offset: usize, bytes: &mut [u8]) {
    let Some(word) = words.get(offset / 8).filter(|_| !bytes.is_empty()) else { return };
    let place = word.load(Relaxed).to_le_bytes();
    for (to, from) in bytes.iter_mut().zip(place.iter().skip(offset % 8)) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::{clear, copy_in, copy_out, copy_words};
    use alloc::{vec, vec::Vec};
    use core::sync::atomic::AtomicU64;

    #[test]
    fn any_range_of_bytes_comes_back_and_its_neighbours_stay() {
        let words = [const { AtomicU64::new(u64::MAX) }; 512];
        for offset in (0..24).chain(4070..4096) {
            for length in 0..(4096 - offset).min(40) {
                let bytes: Vec<u8> = (1..).take(length).collect();
                copy_in(&words, offset, &bytes);
                let mut all = [0; 4096];
                copy_out(&words, 0, &mut all);
                let mut part = vec![0; length];
                copy_out(&words, offset, &mut part);
                assert_eq!((&part, &all[offset..offset + length]), (&bytes, &bytes[..]));
                assert!(all[..offset].iter().chain(&all[offset + length..]).all(|byte| *byte == 0xff));
                clear(&words, offset, length);
                copy_out(&words, offset, &mut part);
                assert!(part.iter().all(|byte| *byte == 0));
                copy_in(&words, offset, &Vec::from_iter(core::iter::repeat_n(0xff, length)));
            }
        }
    }

    #[test]
    fn any_part_of_a_page_is_copied_to_any_place_of_another() {
        let page = |n: u8| {
            let words = [const { AtomicU64::new(0) }; 512];
            let bytes: Vec<u8> = (0..4096_u32).map(|at| (at * 7) as u8 ^ n).collect();
            copy_in(&words, 0, &bytes);
            (words, bytes)
        };
        for (at, offset, length) in [
            (0, 0, 4096),
            (8, 64, 256),
            (16, 8, 24),
            (3, 3, 700),
            (5, 8, 100),
            (1, 0, 4095),
            (0, 1, 4095),
            (4090, 0, 6),
            (0, 0, 0),
        ] {
            let ((from, bytes), (to, mut expected)) = (page(1), page(2));
            copy_words((&from, at), (&to, offset), length);
            expected[offset..offset + length].copy_from_slice(&bytes[at..at + length]);
            let mut there = vec![0; 4096];
            copy_out(&to, 0, &mut there);
            assert_eq!(there, expected, "{length} bytes from {at} to {offset}");
        }
    }
}
