//! LZ4 blocks of one page, in few instructions, and never many: what it takes while interrupts are masked is bounded whatever
//! the page holds.
//!
//! A block is a row of sequences: a token, literals, and a match that repeats what came up to 64 KiB before (LZ4 Block Format
//! Description 1.6.2). The compressor looks four bytes at a time for what a table of hashes remembers, and looks the wider
//! apart the longer it finds nothing; who wants to save a quarter of a page gives up where the room for it ends. Both copy
//! eight bytes at a time, and more than there are if it must be.

/// The bytes of a page.
pub const PAGE: usize = 4096;
/// Bits of a hash: the table is as large as a quarter of the page.
const BITS: u32 = 10;
/// The shortest match.
const MIN: usize = 4;
/// The last bytes are literals, and the last match begins so far before the end (End of block conditions).
const LAST_LITERALS: usize = 5;
const LAST_MATCH: usize = 12;
/// After so many looks in vain, as a power of two, the next are a byte further apart.
const PATIENCE: u32 = 5;

/// The bytes of a page, or of a block that is not longer, as words with the first byte lowest, and a word behind them: who may not
/// load what is not aligned is faster so. Places are taken modulo the page's length, which costs less than to ask whether they
/// are within it.
#[derive(Clone)]
pub struct Page([u64; PAGE / 8 + 1]);

impl Page {
    /// Zeroes.
    pub const ZERO: Self = Self([0; PAGE / 8 + 1]);

    /// The word with number `n`.
    #[inline(always)]
    pub fn word(&self, n: usize) -> u64 {
        self.0[n % (PAGE / 8)]
    }

    /// Sets the word with number `n`.
    #[inline(always)]
    pub fn set_word(&mut self, n: usize, word: u64) {
        self.0[n % (PAGE / 8)] = word;
    }

    /// The word that `at` is in, and by how many bits it is beyond its start.
    #[inline(always)]
    fn place(at: usize) -> (usize, usize) {
        (at % PAGE / 8, at % 8 * 8)
    }

    #[inline(always)]
    fn byte(&self, at: usize) -> u8 {
        let (n, shift) = Self::place(at);
        // The lowest byte of it.
        (self.0[n] >> shift) as u8
    }

    #[inline(always)]
    fn set_byte(&mut self, at: usize, byte: u8) {
        let (n, shift) = Self::place(at);
        self.0[n] = self.0[n] & !(0xff << shift) | u64::from(byte) << shift;
    }

    /// The eight bytes at `at`.
    #[inline(always)]
    fn at(&self, at: usize) -> u64 {
        let (n, shift) = Self::place(at);
        // In two steps, as a shift by 64 is none.
        self.0[n] >> shift | self.0[n + 1] << 1 << (63 - shift)
    }

    /// Writes eight bytes at `at`.
    #[inline(always)]
    fn put(&mut self, at: usize, word: u64) {
        let (n, shift) = Self::place(at);
        let before = (1 << shift) - 1;
        self.0[n] = self.0[n] & before | word << shift;
        self.0[n + 1] = self.0[n + 1] & !before | word >> 1 >> (63 - shift);
    }
}

/// The most bytes of a compressed page. What a sequence has beside its literals (a token, a distance and both lengths) fits behind.
pub const MOST: usize = PAGE - 64;

/// How many hashes there are.
pub const HASHES: usize = 1 << BITS;

/// Where in the page each hash was seen last.
pub type Table = [u16; HASHES];

/// The output of a compressor: bytes so far, and how many there may be.
struct Output<'o> {
    room: &'o mut Page,
    len: usize,
    most: usize,
}

impl Output<'_> {
    /// Writes `length`, of which a token's four bits say up to 15, as the bytes that follow the token.
    #[inline(always)]
    fn length(&mut self, length: usize) {
        let Some(mut rest) = length.checked_sub(15) else { return };
        while rest >= 255 {
            self.byte(255);
            rest = rest.wrapping_sub(255);
        }
        // Below 255.
        self.byte(rest as u8);
    }

    #[inline(always)]
    fn byte(&mut self, byte: u8) {
        self.room.set_byte(self.len, byte);
        self.len = self.len.wrapping_add(1);
    }

    /// Writes a token and the literals from `from` to `to` of the page; `matched` is what the match has beyond the least.
    #[inline(always)]
    fn literals(&mut self, page: &Page, from: usize, to: usize, matched: usize) -> Option<()> {
        let count = to.wrapping_sub(from);
        if self.len.wrapping_add(count) > self.most {
            return None;
        }
        // Both at most 15.
        self.byte((count.min(15) << 4 | matched.min(15)) as u8);
        self.length(count);
        let end = self.len.wrapping_add(count);
        let mut done = 0_usize;
        while done < count {
            let value = page.at(from.wrapping_add(done));
            self.room.put(self.len.wrapping_add(done), value);
            done = done.wrapping_add(8);
        }
        self.len = end;
        Some(())
    }
}

/// Compresses `page` into `room`, where it may be `most` bytes: not more than [`MOST`]. Returns how many it is: nothing if that
/// is not enough.
#[inline(never)]
pub fn compress(page: &Page, table: &mut Table, room: &mut Page, most: usize) -> Option<usize> {
    table.fill(0);
    let mut out = Output { room, len: 0, most: most.min(MOST) };
    let (mut at, mut anchor) = (1, 0);
    loop {
        let found = find(page, table, at);
        // After the last match there are literals alone.
        let (start, before, end) = found.map_or((PAGE, 0, PAGE + MIN), |(at, before)| {
            let (start, before) = back(page, anchor, at, before);
            (start, before, forth(page, at, before.wrapping_add(at.wrapping_sub(start))))
        });
        let matched = end.wrapping_sub(start).wrapping_sub(MIN);
        out.literals(page, anchor, start, matched)?;
        if found.is_none() {
            return (out.len <= out.most).then_some(out.len);
        }
        let [low, high] = (start.wrapping_sub(before) as u16).to_le_bytes();
        out.byte(low);
        out.byte(high);
        out.length(matched);
        (at, anchor) = (end, end);
    }
}

/// The first place from `at` on whose four bytes the table remembers from elsewhere, and where that is.
#[inline(always)]
fn find(page: &Page, table: &mut Table, at: usize) -> Option<(usize, usize)> {
    let (mut at, mut misses) = (at, 0_u32);
    while at <= PAGE - LAST_MATCH {
        let here = page.at(at);
        let place = hash(here);
        // Zero, as at first, is a place as good as any: what is there is compared.
        let before = usize::from(table[place]);
        // Below 4096.
        table[place] = at as u16;
        if page.at(before) as u32 == here as u32 {
            return Some((at, before));
        }
        misses = misses.wrapping_add(1);
        at = at.wrapping_add(1 + (misses >> PATIENCE) as usize);
    }
    None
}

/// Where in the table the first four bytes of `word` are kept (a multiplicative hash, by the golden ratio).
#[inline(always)]
fn hash(word: u64) -> usize {
    ((word as u32).wrapping_mul(0x9e37_79b1) >> (u32::BITS - BITS)) as usize
}

/// How far a match of `at` and `before` goes back, not beyond `anchor`: both begins.
#[inline(always)]
fn back(page: &Page, anchor: usize, at: usize, before: usize) -> (usize, usize) {
    let (mut at, mut before) = (at, before);
    while at > anchor && before > 0 && page.byte(at.wrapping_sub(1)) == page.byte(before.wrapping_sub(1)) {
        (at, before) = (at.wrapping_sub(1), before.wrapping_sub(1));
    }
    (at, before)
}

/// Where a match of `at` and `before` ends, whose first [`MIN`] bytes are equal.
#[inline(always)]
fn forth(page: &Page, at: usize, before: usize) -> usize {
    let (mut at, mut before) = (at.wrapping_add(MIN), before.wrapping_add(MIN));
    loop {
        let differ = page.at(at) ^ page.at(before);
        let equal = (differ.trailing_zeros() / 8) as usize;
        (at, before) = (at.wrapping_add(equal), before.wrapping_add(equal));
        if equal < 8 || at >= PAGE - LAST_LITERALS {
            return at.min(PAGE - LAST_LITERALS);
        }
    }
}

/// Expands the block that the first `length` bytes of `packed` are into `page`. Nothing if they are not a block of exactly a page.
#[inline(never)]
pub fn expand(packed: &Page, length: usize, page: &mut Page) -> Option<()> {
    let mut input = Input { bytes: packed, length: length.min(PAGE), at: 0 };
    let mut out = 0_usize;
    loop {
        let token = usize::from(input.byte()?);
        let count = input.length(token >> 4)?;
        let from = input.at;
        input.at = from.wrapping_add(count);
        if input.at > input.length || count > PAGE.wrapping_sub(out) {
            return None;
        }
        let mut done = 0_usize;
        while done < count {
            page.put(out.wrapping_add(done), packed.at(from.wrapping_add(done)));
            done = done.wrapping_add(8);
        }
        out = out.wrapping_add(count);
        if input.at == input.length {
            return (out == PAGE).then_some(());
        }
        let distance = usize::from(u16::from_le_bytes([input.byte()?, input.byte()?]));
        let count = input.length(token & 15)?.wrapping_add(MIN);
        if distance == 0 || distance > out || count > PAGE.wrapping_sub(out) {
            return None;
        }
        repeat(page, out, distance, count);
        out = out.wrapping_add(count);
    }
}

/// Writes at `out` the `count` bytes that are `distance` before, which may be some of those that this writes.
#[inline(always)]
fn repeat(page: &mut Page, out: usize, distance: usize, count: usize) {
    let (mut done, mut distance) = (0_usize, distance);
    if distance < 8 {
        // A pattern shorter than a word is written out once, and is one of a few times its length from there on.
        while done < 8 {
            let value = page.byte(out.wrapping_add(done).wrapping_sub(distance));
            page.set_byte(out.wrapping_add(done), value);
            done = done.wrapping_add(1);
        }
        distance = distance.wrapping_mul([8, 8, 4, 3, 2, 2, 2, 2][distance & 7]);
    }
    while done < count {
        let at = out.wrapping_add(done);
        let value = page.at(at.wrapping_sub(distance));
        page.put(at, value);
        done = done.wrapping_add(8);
    }
}

/// The bytes of a block that is expanded.
struct Input<'i> {
    bytes: &'i Page,
    length: usize,
    at: usize,
}

impl Input<'_> {
    #[inline(always)]
    fn byte(&mut self) -> Option<u8> {
        if self.at >= self.length {
            return None;
        }
        let byte = self.bytes.byte(self.at);
        self.at = self.at.wrapping_add(1);
        Some(byte)
    }

    /// A length whose first four bits are `start`: no more than 255 times the bytes of the block.
    #[inline(always)]
    fn length(&mut self, start: usize) -> Option<usize> {
        let mut length = start;
        if start == 15 {
            loop {
                let more = self.byte()?;
                length = length.wrapping_add(usize::from(more));
                if more < 255 {
                    break;
                }
            }
        }
        Some(length)
    }
}
