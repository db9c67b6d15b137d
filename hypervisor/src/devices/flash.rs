//! Flash: [`Bank`], as QEMU's `virt` has two: Intel's command set 0001 behind the Common Flash Interface (JESD68), two
//! chips of 16 bits side by side.
//!
//! A bank that shows its array is memory, which its user maps read-only: this is asked for what is written, and for what
//! is read while it shows something else (status, identifier, query). A write programs, which only clears bits, or erases
//! a block, which sets all of its bits; erasing goes on by a page whenever the status is read, which is busy until then.
//!
//! ```text
//!            ┌ 40 ─▶ Program ──────── data ──────────────┐
//!            ├ E8 ─▶ Count ─ n ─▶ Fill ─ n words ─▶ Confirm ─ D0 ─┐
//!  Command ──┼ 20 ─▶ Erase ─────────── D0 ───────────────┤        │
//!     ▲      ├ 60 ─▶ Lock ──────────── any ──────────────┤        │
//!     │      └ FF, 70, 90, 98: what is read from now on ─┤        │
//!     └──────────────────────────────────────────────────┴────────┘
//! ```

use super::lane;
use crate::addr::{Addr, Pa, Size};
use crate::machine::Machine;
use core::ops::Range;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// What is erased at once: 128 KiB of each chip.
pub const BLOCK: u64 = 256 << 10;
/// The least bytes of a bank: room for the variables of EDK2.
const LEAST: u64 = 1 << 20;
/// What is written at once through the buffer, in bytes: within a stretch of that length.
const BUFFER: u64 = 256;
/// The bytes that a count of the buffer's counts in.
const WORD: u64 = 4;

/// Status: ready.
const READY: u8 = 1 << 7;
/// Status: erasing failed.
const ERASE_FAILED: u8 = 1 << 5;
/// Status: programming failed. With [`ERASE_FAILED`]: that was no sequence of commands.
const PROGRAM_FAILED: u8 = 1 << 4;
/// Status: the block is locked.
const LOCKED: u8 = 1 << 1;

/// Query bytes 0x10 to 0x3f, as QEMU's `virt` has them, but for those that [`Bank::query`] knows: command set 0001, whose table
/// is at 0x31; volts; how long things take, as powers of two; chips of 8 or 16 bits; one region of blocks; that table, which
/// offers nothing.
const QUERY: [u8; 48] = *b"QRY\x01\0\x31\0\0\0\0\0\x45\x55\0\0\x07\x07\x0a\0\x04\x04\x04\0\0\x02\0\0\0\x01\0\0\0\0\
                           PRI10\0\0\0\0\0\0\0\0\0\0";

/// The command that makes the status forget what failed.
const CLEAR: u8 = 0x50;

/// What is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Array,
    Status,
    Identifier,
    Query,
}

/// What is written next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    Command,
    Program,
    Erase,
    Lock,
    Count,
    /// So many more words, or the confirmation if none, for the stretch at this offset, which the first tells.
    Fill(u64, Option<u64>),
}

/// What is expected and read after a command; nothing if that is the array: after 0xff, [`CLEAR`] and what is no command.
const fn after(command: u8) -> Option<(Expected, Mode)> {
    Some(match command {
        0x10 | 0x40 => (Expected::Program, Mode::Status),
        0x20 => (Expected::Erase, Mode::Status),
        0x60 => (Expected::Lock, Mode::Status),
        0xe8 => (Expected::Count, Mode::Status),
        0x70 => (Expected::Command, Mode::Status),
        0x90 => (Expected::Command, Mode::Identifier),
        0x98 => (Expected::Command, Mode::Query),
        _ => return None,
    })
}

/// A bank of flash.
#[derive(Debug)]
pub struct Bank {
    start: Addr<Pa>,
    bytes: u64,
    is_writable: bool,
    /// The part of it, by offsets, outside of which nothing is mapped for the guest to read. Kept by its user.
    pub shown: Range<u64>,
    mode: Mode,
    expected: Expected,
    status: u8,
    /// What is left to be erased.
    erasing: Range<u64>,
    buffer: [u8; BUFFER as usize],
}

impl Bank {
    /// How many bytes a bank for an `image` of this length has: a power of two.
    pub const fn bytes_for(image: usize) -> u64 {
        let bytes = (image as u64).next_power_of_two();
        if bytes < LEAST { LEAST } else { bytes }
    }

    /// A bank whose array is the `bytes` from `start`, frames that are its own; after reset.
    pub const fn new(start: Addr<Pa>, bytes: u64, is_writable: bool) -> Self {
        Self {
            start,
            bytes,
            is_writable,
            shown: 0..0,
            mode: Mode::Array,
            expected: Expected::Command,
            status: READY,
            erasing: 0..0,
            buffer: [0xff; BUFFER as usize],
        }
    }

    /// Resets it: the array stays, what was to be erased further stays as it is.
    pub const fn reset(&mut self) {
        *self = Self::new(self.start, self.bytes, self.is_writable);
    }

    /// How many bytes it has.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where its array lies.
    pub const fn start(&self) -> Addr<Pa> {
        self.start
    }

    /// Whether what is read is the array.
    pub const fn is_array(&self) -> bool {
        matches!(self.mode, Mode::Array)
    }

    /// Whether writing `value` changes nothing at all: firmware that runs in it does so by mistake, too.
    pub const fn ignores(&self, value: u64) -> bool {
        let command = value as u8;
        self.is_array() && matches!(self.expected, Expected::Command) && command != CLEAR && after(command).is_none()
    }

    /// What the guest reads at `offset`, which is less than [`Bank::bytes`]: `size` bytes, at most 8.
    pub fn read<M: Machine>(&mut self, m: &M, offset: u64, size: u8) -> u64 {
        let unit = offset >> 2;
        let byte = match self.mode {
            Mode::Array => {
                let shift = 8 * (offset % 8) as u32;
                let word = self.word(m, offset).map_or(0, |word| word.load(Relaxed)) >> shift;
                return if size < 8 { word & ((1 << (8 * u32::from(size))) - 1) } else { word };
            }
            Mode::Status => self.poll(m),
            // Intel, a chip of 16 bits; no block is locked for good.
            Mode::Identifier => match unit & 0xff {
                0 => 0x89,
                1 => 0x18,
                _ => 0,
            },
            Mode::Query => self.query(unit & 0xff),
        };
        // Both chips answer.
        lane(u32::from(byte) * 0x1_0001, offset, size)
    }

    fn query(&self, at: u64) -> u8 {
        match at {
            // Half of the bank is in each chip.
            0x27 => self.bytes.trailing_zeros() as u8 - 1,
            // So has its half of the buffer.
            0x2a => BUFFER.trailing_zeros() as u8 - 1,
            // At most 256 blocks.
            0x2d => (self.bytes / BLOCK - 1) as u8,
            // The high byte of a block's size in 256 bytes, half again.
            0x30 => (BLOCK >> 17) as u8,
            _ => at.checked_sub(0x10).and_then(|at| QUERY.get(at as usize)).copied().unwrap_or(0),
        }
    }

    /// Goes on erasing. The status.
    fn poll<M: Machine>(&mut self, m: &M) -> u8 {
        if !self.erasing.is_empty() {
            for at in (self.erasing.start..).step_by(8).take(512) {
                self.word(m, at).inspect(|word| word.store(u64::MAX, Relaxed));
            }
            self.erasing.start += Size::Page.bytes();
            if self.erasing.is_empty() {
                self.status |= READY;
            }
        }
        self.status
    }

    /// The guest writes `value` at `offset`, which is less than [`Bank::bytes`]: `size` bytes, at most 8.
    pub fn write<M: Machine>(&mut self, m: &M, offset: u64, size: u8, value: u64) {
        if !self.erasing.is_empty() {
            // Busy. It cannot be suspended, as it says.
            return;
        }
        // Both chips are told the same.
        let command = value as u8;
        let expected = core::mem::replace(&mut self.expected, Expected::Command);
        if expected != Expected::Command {
            self.mode = Mode::Status;
        }
        match (expected, command) {
            (Expected::Command, _) => {
                if command == CLEAR {
                    self.status = READY;
                }
                (self.expected, self.mode) = after(command).unwrap_or((Expected::Command, Mode::Array));
            }
            (Expected::Program, _) => self.program(m, offset, &value.to_le_bytes()[..usize::from(size.min(8))]),
            (Expected::Erase, 0xd0) if self.is_writable => {
                let block = offset & !(BLOCK - 1);
                self.erasing = block..block + BLOCK;
                self.status &= !READY;
            }
            (Expected::Erase, 0xd0) => self.status |= ERASE_FAILED | LOCKED,
            (Expected::Count, _) if value & 0xffff < BUFFER / WORD => {
                self.buffer.fill(0xff);
                self.expected = Expected::Fill((value & 0xffff) + 1, None);
            }
            (Expected::Fill(0, Some(at)), 0xd0) => {
                let buffer = self.buffer;
                self.program(m, at, &buffer);
            }
            // The count may have come anywhere in the block: where the first word goes tells the stretch.
            (Expected::Fill(left @ 1.., at), _) if at.is_none_or(|at| at == offset & !(BUFFER - 1)) => {
                let place = self.buffer.iter_mut().skip((offset % BUFFER) as usize);
                for (to, from) in place.zip(value.to_le_bytes()).take(size.into()) {
                    *to = from;
                }
                self.expected = Expected::Fill(left - 1, Some(offset & !(BUFFER - 1)));
            }
            // Locked or not, blocks can be written if any can.
            (Expected::Lock, 0x01 | 0x2f | 0xd0) => {}
            (_, 0xff) => self.mode = Mode::Array,
            _ => self.status |= ERASE_FAILED | PROGRAM_FAILED,
        }
    }

    /// Clears the bits at `offset` that are clear in `bytes`, which lie in one block.
    fn program<M: Machine>(&mut self, m: &M, offset: u64, bytes: &[u8]) {
        if !self.is_writable {
            self.status |= PROGRAM_FAILED | LOCKED;
            return;
        }
        for (at, byte) in (offset..).zip(bytes) {
            let clear = u64::from(!byte) << (8 * (at % 8));
            if let Some(word) = self.word(m, at) {
                word.fetch_and(!clear, Relaxed);
            }
        }
    }

    /// The eight bytes around `offset`; nothing beyond the end.
    #[inline(never)]
    fn word<'m, M: Machine>(&self, m: &'m M, offset: u64) -> Option<&'m AtomicU64> {
        let at = self.start + offset.min(self.bytes - 1);
        let words = m.frame(at.align_down(Size::Page));
        // Less than 512, so it fits.
        words.get(at.offset_in(Size::Page) as usize / 8).filter(|_| offset < self.bytes)
    }
}
