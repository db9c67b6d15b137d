//! LZ4 blocks of one page, in steps of few instructions whatever the page holds: interrupts come between.
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

    /// Sets the word with number `n`.
    #[inline(always)]
    pub fn set_word(&mut self, n: usize, word: u64) {
        self.0[n % (PAGE / 8)] = word;
    }

    /// All words of the page.
    pub fn words(&self) -> &[u64] {
        &self.0[..PAGE / 8]
    }

    /// All words of the page, to be written.
    pub fn words_mut(&mut self) -> &mut [u64] {
        &mut self.0[..PAGE / 8]
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

/// What a step came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// There is more to do.
    More,
    /// It is done: so many bytes.
    Done(usize),
    /// It cannot be: there is not the room, or it is no block of exactly a page.
    Not,
}

/// What a step may cost, in looks: some 50 instructions each. A sequence costs a few of them, and so does a word that is copied.
/// Behind a step's looks a match can be as long as the page, and behind the last step of expanding the page is copied and hashed.
const STEP: usize = 170;
/// What a sequence costs, without what is copied.
const SEQUENCE: usize = 9;

/// How far the compression of a page is.
#[derive(Clone, Copy, Debug)]
pub struct Compression {
    /// Where it looks next, and the first byte that is in no sequence yet.
    at: usize,
    anchor: usize,
    /// How many bytes there are.
    len: usize,
}

impl Compression {
    /// Begins one, with a table that remembers nothing.
    pub fn begin(table: &mut Table) -> Self {
        table.fill(0);
        Self { at: 1, anchor: 0, len: 0 }
    }

    /// Goes on with compressing `page` into `room`, where it may be `most` bytes: not more than [`MOST`].
    #[inline(never)]
    pub fn step(&mut self, page: &Page, table: &mut Table, room: &mut Page, most: usize) -> Outcome {
        let mut out = Output { room, len: self.len, most: most.min(MOST) };
        let mut left = STEP;
        while left > 0 {
            let found = find(page, table, self.at, &mut left);
            let (at, before) = match found {
                Found::Match(at, before) => (at, before),
                Found::Nothing => {
                    // After the last match there are literals alone.
                    let fits = out.literals(page, self.anchor, PAGE, 0).is_some() && out.len <= out.most;
                    return if fits { Outcome::Done(out.len) } else { Outcome::Not };
                }
                Found::Late(at) => {
                    self.at = at;
                    break;
                }
            };
            let (start, before) = back(page, self.anchor, at, before);
            let end = forth(page, at, before.wrapping_add(at.wrapping_sub(start)));
            let matched = end.wrapping_sub(start).wrapping_sub(MIN);
            left = left.saturating_sub(SEQUENCE + end.wrapping_sub(self.anchor) / 8);
            if out.literals(page, self.anchor, start, matched).is_none() {
                return Outcome::Not;
            }
            let [low, high] = (start.wrapping_sub(before) as u16).to_le_bytes();
            out.byte(low);
            out.byte(high);
            out.length(matched);
            (self.at, self.anchor) = (end, end);
        }
        self.len = out.len;
        Outcome::More
    }
}

/// What looking for a match came to.
enum Found {
    /// Its place, and that of the same bytes before.
    Match(usize, usize),
    /// There is none.
    Nothing,
    /// It is to be gone on with from here.
    Late(usize),
}

/// The first place from `at` on whose four bytes the table remembers from elsewhere, and where that is. A look costs one of `left`.
#[inline(always)]
fn find(page: &Page, table: &mut Table, at: usize, left: &mut usize) -> Found {
    let (mut at, mut misses) = (at, 0_usize);
    // Looks get wider apart: as many as are left do not get farther than this, which costs less to ask than to count them down.
    let end = at.wrapping_add(*left / 2).wrapping_add((*left * *left) >> (PATIENCE + 1));
    let last = end.min(PAGE - LAST_MATCH);
    while at <= last {
        let here = page.at(at);
        let place = hash(here);
        // Zero, as at first, is a place as good as any: what is there is compared.
        let before = usize::from(table[place]);
        // Below 4096.
        table[place] = at as u16;
        if page.at(before) as u32 == here as u32 {
            *left = left.saturating_sub(misses);
            return Found::Match(at, before);
        }
        misses = misses.wrapping_add(1);
        at = at.wrapping_add(1 + (misses >> PATIENCE));
    }
    *left = 0;
    if at <= PAGE - LAST_MATCH { Found::Late(at) } else { Found::Nothing }
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

/// How far the expansion of a block is.
#[derive(Clone, Copy, Default, Debug)]
pub struct Expansion {
    /// Bytes of the block and of the page that are done.
    at: usize,
    out: usize,
}

impl Expansion {
    /// Goes on with expanding the block that the first `length` bytes of `packed` are into `page`.
    #[inline(never)]
    pub fn step(&mut self, packed: &Page, length: usize, page: &mut Page) -> Outcome {
        self.sequences(packed, length, page).unwrap_or(Outcome::Not)
    }

    #[inline(always)]
    fn sequences(&mut self, packed: &Page, length: usize, page: &mut Page) -> Option<Outcome> {
        let mut input = Input { bytes: packed, length: length.min(PAGE), at: self.at };
        let (mut out, mut left) = (self.out, STEP);
        while left > 0 {
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
                return (out == PAGE).then_some(Outcome::Done(PAGE));
            }
            left = left.saturating_sub(SEQUENCE + count / 8);
            let distance = usize::from(u16::from_le_bytes([input.byte()?, input.byte()?]));
            let count = input.length(token & 15)?.wrapping_add(MIN);
            if distance == 0 || distance > out || count > PAGE.wrapping_sub(out) {
                return None;
            }
            repeat(page, out, distance, count);
            out = out.wrapping_add(count);
            left = left.saturating_sub(count / 8);
        }
        (self.at, self.out) = (input.at, out);
        Some(Outcome::More)
    }
}

/// Writes at `out` the `count` bytes that are `distance` before, which may be some of those that this writes.
#[inline(always)]
fn repeat(page: &mut Page, out: usize, distance: usize, count: usize) {
    let (mut done, mut distance) = (0_usize, distance);
    if distance < 8 {
        // A pattern shorter than a word is written out once, and is one of a few times its length from there on.
        while done < count.min(8) {
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
