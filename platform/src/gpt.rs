//! A disk's GUID partition table: where the partition of a name lies; and whether there is anything on a disk at all.
//!
//! Both ask for blocks of 4 KiB, the first ones of the disk and the last, and change nothing. The table is believed where its checksums
//! are right: the one at the disk's start, or else the copy at its end. Whatever is on the disk, no call panics, and each asks for
//! [`MOST_ENTRIES`] entries' worth of blocks at most.
//!
//! Follows UEFI 2.10, 5.3. Sectors are of 512 bytes, which is the unit of virtio and of SD cards.

use crate::range::FRAME;
use core::fmt;
use core::ops::Range;

/// The bytes of a block.
pub const BLOCK: usize = FRAME as usize;
/// The most partitions that are looked at; tools make room for 128.
pub const MOST_ENTRIES: u32 = 256;
/// How many blocks at a disk's start must be empty for it to be blank: file systems, partition tables and volume managers have what they
/// are known by in the first 64 KiB and a few sectors (btrfs at 64 KiB).
pub const HEAD: u64 = 18;

const SECTOR: usize = 512;
const SECTORS: u64 = (BLOCK / SECTOR) as u64;
/// The bytes of a header that count.
const HEADER: usize = 92;
/// The bytes of an entry.
const ENTRY: usize = 128;
/// How many letters of UTF-16 a partition's name has.
const NAME: usize = 36;
/// What `mkswap` leaves at the end of the first page.
const SWAP: &[u8; 10] = b"SWAPSPACE2";

/// A block of a disk.
pub type Block = [u8; BLOCK];

/// Why there is no such partition to be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GptError {
    /// The disk cannot be read.
    Unreadable,
    /// It has no partition table, or none whose checksums are right.
    NoTable,
    /// Its table has no partition of this name.
    Missing,
    /// It has several.
    Several,
    /// Its partition does not lie in the disk, or not in whole blocks of 4 KiB.
    Misplaced,
}

impl fmt::Display for GptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "the disk cannot be read",
            Self::NoTable => "the disk has no GUID partition table that is whole",
            Self::Missing => "the disk has no partition of this name",
            Self::Several => "the disk has several partitions of this name",
            Self::Misplaced => "the partition does not begin at a multiple of 4 KiB in the disk",
        })
    }
}

/// Reads blocks of a disk; false if that cannot be.
pub trait Blocks {
    /// How many there are.
    fn count(&self) -> u64;
    /// Reads block number `n`.
    fn read(&mut self, n: u64, into: &mut Block) -> bool;
}

/// CRC-32 as UEFI has it (5.3.2), a bit at a time: of a few KiB, once.
#[derive(Clone, Copy)]
struct Crc(u32);

impl Crc {
    const NEW: Self = Self(!0);

    fn add(self, bytes: &[u8]) -> Self {
        let step = |crc: u32, _| if crc & 1 != 0 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        Self(bytes.iter().fold(self.0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step)))
    }

    const fn value(self) -> u32 {
        !self.0
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// What a header says of the entries.
struct Header {
    /// Their first sector.
    entries: u64,
    count: u32,
    crc: u32,
}

/// The header in the sector with this number, if it is one.
fn header(disk: &mut impl Blocks, sector: u64, block: &mut Block) -> Option<Header> {
    if !disk.read(sector / SECTORS, block) {
        return None;
    }
    // Below a block.
    let at = (sector % SECTORS) as usize * SECTOR;
    let bytes = block.get(at..at + SECTOR)?;
    let size = u32_at(bytes, 12)? as usize;
    if !bytes.starts_with(b"EFI PART") || size < HEADER || u64_at(bytes, 24)? != sector {
        return None;
    }
    // Its own checksum counts as zero (5.3.2).
    let crc = Crc::NEW.add(bytes.get(..16)?).add(&[0; 4]).add(bytes.get(20..size)?);
    if crc.value() != u32_at(bytes, 16)? || u32_at(bytes, 84)? as usize != ENTRY {
        return None;
    }
    let (entries, count) = (u64_at(bytes, 72)?, u32_at(bytes, 80)?);
    (count <= MOST_ENTRIES).then_some(Header { entries, count, crc: u32_at(bytes, 88)? })
}

/// Shows each entry of `header` to `see`; false if they cannot be read or their checksum is wrong.
fn entries(disk: &mut impl Blocks, header: &Header, block: &mut Block, mut see: impl FnMut(&[u8])) -> bool {
    let mut crc = Crc::NEW;
    let mut there = None;
    for n in 0..u64::from(header.count) {
        // Four to a sector.
        let Some(sector) = header.entries.checked_add(n / 4) else { return false };
        if there != Some(sector / SECTORS) {
            if !disk.read(sector / SECTORS, block) {
                return false;
            }
            there = Some(sector / SECTORS);
        }
        // Below a block.
        let at = ((sector % SECTORS) as usize * 4 + (n % 4) as usize) * ENTRY;
        let Some(entry) = block.get(at..at + ENTRY) else { return false };
        crc = crc.add(entry);
        see(entry);
    }
    crc.value() == header.crc
}

/// Whether an entry is a partition that is called `name`.
fn is_called(entry: &[u8], name: &str) -> bool {
    let (Some(kind), Some(letters)) = (entry.get(..16), entry.get(56..56 + 2 * NAME)) else { return false };
    let letters = letters.as_chunks::<2>().0.iter().map(|letter| u16::from_le_bytes(*letter));
    kind.iter().any(|byte| *byte != 0) && letters.take_while(|letter| *letter != 0).eq(name.encode_utf16())
}

/// The blocks of the partition that is called `name`.
pub fn find(disk: &mut impl Blocks, name: &str) -> Result<Range<u64>, GptError> {
    let mut block = [0; BLOCK];
    if !disk.read(0, &mut block) {
        return Err(GptError::Unreadable);
    }
    let sectors = disk.count().saturating_mul(SECTORS);
    for sector in [1, sectors.saturating_sub(1)] {
        let Some(header) = header(disk, sector, &mut block) else { continue };
        let mut found = Err(GptError::Missing);
        let is_whole = entries(disk, &header, &mut block, |entry| {
            if is_called(entry, name) {
                found = match found {
                    Err(GptError::Missing) => blocks(entry, sectors).ok_or(GptError::Misplaced),
                    _ => Err(GptError::Several),
                };
            }
        });
        if is_whole {
            return found;
        }
    }
    Err(GptError::NoTable)
}

/// The whole blocks of an entry's partition, if it begins with one and lies in the disk.
fn blocks(entry: &[u8], sectors: u64) -> Option<Range<u64>> {
    let (first, last) = (u64_at(entry, 32)?, u64_at(entry, 40)?);
    let end = last.checked_add(1).filter(|end| *end <= sectors)?;
    (first.is_multiple_of(SECTORS) && first >= SECTORS && first < end).then_some(first / SECTORS..end / SECTORS)
}

/// Whether there is nothing on the disk that somebody might miss: its [head](HEAD) is empty, or is what `mkswap` leaves. Nothing if it cannot
/// be read.
pub fn is_blank(disk: &mut impl Blocks) -> Option<bool> {
    let mut block = [0; BLOCK];
    for n in 0..HEAD.min(disk.count()) {
        if !disk.read(n, &mut block) {
            return None;
        }
        if n == 0 && block.ends_with(SWAP) {
            return Some(true);
        }
        if block.iter().any(|byte| *byte != 0) {
            return Some(false);
        }
    }
    Some(true)
}
