//! A disk under a driver that does what Linux's does, and under one that does not; and the queue beneath it, with tables of indirect
//! descriptors and with event indexes.

use super::super::queue::{EVENT_IDX, INDIRECT_DESC, Segment};
use super::super::{Left, Ram, Stop, Violation};
use super::{Blk, Counts, Storage, Trouble};
use crate::addr::{Addr, Ipa};
use crate::devices::device::Device as _;
use alloc::vec;
use alloc::vec::Vec;

const RAM: u64 = 0x4000_0000;
const TABLE: u64 = RAM;
const AVAILABLE: u64 = RAM + 0x1000;
const USED: u64 = RAM + 0x1800;
const INDIRECT: u64 = RAM + 0x2000;
const HEADER: u64 = RAM + 0x3000;
const STATUS: u64 = RAM + 0x3800;
const DATA: u64 = RAM + 0x4000;
/// The queue's descriptors.
const SIZE: u64 = 8;
/// The disk's bytes.
const BYTES: usize = 32 << 10;

/// Flags of a descriptor.
const TO_READ: u16 = 0;
const TO_WRITE: u16 = 2;

/// The guest's memory and the disk's blocks.
struct Board {
    ram: Vec<u8>,
    disk: Vec<u8>,
    flushes: u32,
    /// How many accesses to guest memory until there is none to be had.
    until_short: usize,
    /// How many steps until it is late, once.
    until_late: usize,
    fails: bool,
}

impl Board {
    fn range(&mut self, at: Addr<Ipa>, length: usize) -> Result<core::ops::Range<usize>, Violation> {
        self.until_short = self.until_short.checked_sub(1).ok_or(Violation::Short)?;
        let start = at.bits().checked_sub(RAM).ok_or(Violation::Outside)? as usize;
        if start + length > self.ram.len() { Err(Violation::Outside) } else { Ok(start..start + length) }
    }

    fn piece(&mut self, offset: u64, guest: Segment) -> Result<(usize, core::ops::Range<usize>), Trouble> {
        assert!(offset % 4096 + u64::from(guest.bytes) <= 4096, "a step lies in a block");
        let range = self.range(guest.at, guest.bytes as usize)?;
        self.until_late = self.until_late.saturating_sub(1);
        if self.fails { Err(Trouble::Disk) } else { Ok((offset as usize, range)) }
    }
}

impl Ram for Board {
    fn read(&mut self, at: Addr<Ipa>, into: &mut [u8]) -> Result<(), Violation> {
        let range = self.range(at, into.len())?;
        into.copy_from_slice(&self.ram[range]);
        Ok(())
    }

    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), Violation> {
        let range = self.range(at, bytes.len())?;
        self.ram[range].copy_from_slice(bytes);
        Ok(())
    }
}

impl Storage for Board {
    fn load(&mut self, offset: u64, to: Segment) -> Result<(), Trouble> {
        let (at, range) = self.piece(offset, to)?;
        let length = range.len();
        self.ram[range].copy_from_slice(&self.disk[at..at + length]);
        Ok(())
    }

    fn store(&mut self, offset: u64, from: Segment) -> Result<(), Trouble> {
        let (at, range) = self.piece(offset, from)?;
        let length = range.len();
        self.disk[at..at + length].copy_from_slice(&self.ram[range]);
        Ok(())
    }

    fn clear(&mut self, offset: u64, bytes: u32) -> Result<(), Trouble> {
        assert!(offset % 4096 + u64::from(bytes) <= 4096, "a step lies in a block");
        self.until_late = self.until_late.saturating_sub(1);
        self.disk[offset as usize..][..bytes as usize].fill(0);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Trouble> {
        self.flushes += 1;
        if self.fails { Err(Trouble::Disk) } else { Ok(()) }
    }

    fn is_late(&self) -> bool {
        self.until_late == 0
    }
}

struct Guest {
    blk: Blk,
    board: Board,
    made: u16,
    features: u64,
}

impl Guest {
    /// A guest that agreed to `features` of the queue's and to all of the disk's.
    fn new(features: u64, is_read_only: bool) -> Self {
        let disk: Vec<u8> = (0..BYTES).map(|n| (n / 512) as u8 ^ (n % 251) as u8).collect();
        let board = Board {
            ram: vec![0; 1 << 16],
            disk,
            flushes: 0,
            until_short: usize::MAX,
            until_late: usize::MAX,
            fails: false,
        };
        let blk = Blk::new(BYTES as u64 / 512, is_read_only, "a-disk");
        let mut guest = Self { blk, board, made: 0, features };
        guest.set_up();
        guest
    }

    fn set_up(&mut self) {
        let own = if self.blk.is_read_only() { 0x424 } else { 0x6604 };
        let low = (own | self.features) & 0xffff_ffff;
        for (offset, value) in [(0x70, 0), (0x70, 3), (0x24, 1), (0x20, 1), (0x24, 0), (0x20, low), (0x70, 11)] {
            self.blk.write(offset, 4, value);
        }
        for (offset, value) in [(0x30, 0), (0x38, SIZE), (0x80, TABLE), (0x90, AVAILABLE), (0xa0, USED), (0x44, 1)] {
            self.blk.write(offset, 4, value);
        }
        self.blk.write(0x70, 4, 15);
        self.made = 0;
        self.board.ram[..0x2000].fill(0);
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        let start = (at - RAM) as usize;
        self.board.ram[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn get(&self, at: u64, bytes: usize) -> &[u8] {
        &self.board.ram[(at - RAM) as usize..][..bytes]
    }

    fn word(&self, at: u64) -> u16 {
        u16::from_le_bytes([self.get(at, 2)[0], self.get(at, 2)[1]])
    }

    fn table(&mut self, at: u64, chain: &[(u64, u32, u16)]) {
        for (n, (buffer, bytes, flags)) in chain.iter().enumerate() {
            let next = u16::from(n + 1 < chain.len());
            let mut descriptor = buffer.to_le_bytes().to_vec();
            descriptor.extend(bytes.to_le_bytes());
            descriptor.extend((flags | next).to_le_bytes());
            descriptor.extend((n as u16 + 1).to_le_bytes());
            self.put(at + n as u64 * 16, &descriptor);
        }
    }

    /// Makes a chain available: by way of a table where that was agreed on.
    fn offer(&mut self, chain: &[(u64, u32, u16)]) {
        if self.features & INDIRECT_DESC != 0 {
            self.table(INDIRECT, chain);
            self.table(TABLE, &[(INDIRECT, chain.len() as u32 * 16, 4)]);
        } else {
            self.table(TABLE, chain);
        }
        let slot = u64::from(self.made) % SIZE;
        self.put(AVAILABLE + 4 + slot * 2, &[0, 0]);
        self.made = self.made.wrapping_add(1);
        let made = self.made.to_le_bytes();
        self.put(AVAILABLE + 2, &made);
    }

    fn header(&mut self, kind: u32, sector: u64) {
        let mut header = kind.to_le_bytes().to_vec();
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        self.put(HEADER, &header);
        self.put(STATUS, &[0xee]);
    }

    /// A request with these buffers between header and status; what came of it, and how many bytes were written by the used ring.
    fn ask(&mut self, kind: u32, sector: u64, data: &[(u64, u32, u16)]) -> (u8, u32) {
        self.header(kind, sector);
        let mut chain = vec![(HEADER, 16, TO_READ)];
        chain.extend(data);
        chain.push((STATUS, 1, TO_WRITE));
        self.offer(&chain);
        self.blk.write(0x50, 4, 0);
        while self.blk.serve(&mut self.board) != Left::Nothing {}
        self.last()
    }

    fn last(&self) -> (u8, u32) {
        let slot = u64::from(self.made.wrapping_sub(1)) % SIZE;
        let written = self.get(USED + 4 + slot * 8 + 4, 4);
        (self.get(STATUS, 1)[0], u32::from_le_bytes([written[0], written[1], written[2], written[3]]))
    }
}

const FEATURES: [u64; 4] = [0, INDIRECT_DESC, EVENT_IDX, INDIRECT_DESC | EVENT_IDX];

#[test]
fn what_is_written_is_what_is_read_whatever_the_pieces() {
    for features in FEATURES {
        let mut guest = Guest::new(features, false);
        let bytes: Vec<u8> = (0..6144_u32).map(|n| (n * 7 + n / 256) as u8).collect();
        guest.put(DATA + 3, &bytes);
        // Sectors in pieces that are none, beginning anywhere.
        let pieces = [(0, 100), (100, 1), (101, 4095), (4196, 1948)];
        let data = |flags| pieces.map(|(at, bytes)| (DATA + 3 + at, bytes, flags));
        assert_eq!(guest.ask(1, 5, &data(TO_READ)), (0, 1));
        assert_eq!(guest.board.disk[5 * 512..][..6144], bytes);
        guest.put(DATA, &[0; 8192]);
        assert_eq!(guest.ask(0, 5, &data(TO_WRITE)), (0, 6145));
        assert_eq!(guest.get(DATA + 3, 6144), bytes);
        assert_eq!((guest.get(DATA, 3), guest.get(DATA + 3 + 6144, 3)), (&[0; 3][..], &[0; 3][..]), "and no more");
        assert_eq!(guest.blk.counts, Counts { requests: 2, read: 6144, written: 6144, errors: 0 });
        assert!(guest.blk.line());
    }
}

#[test]
fn what_cannot_be_is_an_error_and_touches_nothing() {
    let mut guest = Guest::new(INDIRECT_DESC, false);
    let before = guest.board.disk.clone();
    let last = BYTES as u64 / 512;
    for (kind, sector, bytes, flags, status) in [
        (0, last, 512, TO_WRITE, 1),
        (0, last - 1, 1024, TO_WRITE, 1),
        (0, u64::MAX, 512, TO_WRITE, 1),
        (1, last, 512, TO_READ, 1),
        (1, u64::MAX / 512, 512, TO_READ, 1),
        (0, 0, 100, TO_WRITE, 1),
        (1, 0, 513, TO_READ, 1),
        (2, 0, 512, TO_READ, 2),
        (77, 0, 512, TO_WRITE, 2),
        (11, 0, 8, TO_READ, 2),
    ] {
        assert_eq!(guest.ask(kind, sector, &[(DATA, bytes, flags)]), (status, 1), "{kind} at {sector}");
    }
    assert_eq!(guest.board.disk, before);
    assert_eq!((guest.blk.counts.requests, guest.blk.counts.errors), (10, 10));
    // Nothing at all is a request of no sectors.
    assert_eq!(guest.ask(0, last, &[]), (0, 1));
    let mut guest = Guest::new(0, true);
    for kind in [1, 11, 13] {
        assert_eq!(guest.ask(kind, 0, &[(DATA, 512, TO_READ)]), (1, 1), "{kind} on a disk that is only read");
    }
    assert_eq!(guest.ask(0, 0, &[(DATA, 512, TO_WRITE)]), (0, 513));
    assert_eq!(guest.board.disk, before);
}

#[test]
fn a_disk_that_fails_is_an_error_and_the_next_request_is_served() {
    let mut guest = Guest::new(0, false);
    guest.board.fails = true;
    assert_eq!(guest.ask(0, 0, &[(DATA, 512, TO_WRITE)]).0, 1);
    assert_eq!(guest.ask(4, 0, &[]).0, 1);
    guest.board.fails = false;
    assert_eq!(guest.ask(0, 0, &[(DATA, 512, TO_WRITE)]).0, 0);
    assert_eq!((guest.ask(4, 0, &[]).0, guest.board.flushes), (0, 2));
}

#[test]
fn ranges_are_cleared_in_steps_and_by_the_rules_of_each_kind() {
    let mut guest = Guest::new(0, false);
    let range = |guest: &mut Guest, kind: u32, sector: u64, count: u32, flags: u32| {
        let mut bytes = sector.to_le_bytes().to_vec();
        bytes.extend(count.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        guest.put(DATA, &bytes);
        guest.ask(kind, 0, &[(DATA, 16, TO_READ)]).0
    };
    let before = guest.board.disk.clone();
    for (kind, sector, count, flags, status) in
        [(11, 0, 1, 1, 2), (13, 0, 1, 2, 2), (13, 63, 2, 0, 1), (11, u64::MAX, 1, 0, 1), (13, 0, u32::MAX, 0, 1)]
    {
        assert_eq!(range(&mut guest, kind, sector, count, flags), status, "{kind} {sector} {count} {flags}");
    }
    assert_eq!(guest.board.disk, before);
    assert_eq!(range(&mut guest, 13, 3, 20, 1), 0);
    assert!(guest.board.disk[3 * 512..23 * 512].iter().all(|byte| *byte == 0));
    assert_eq!((&guest.board.disk[..1536], &guest.board.disk[23 * 512..]), (&before[..1536], &before[23 * 512..]));
    assert_eq!(range(&mut guest, 11, 40, 3, 0), 0);
}

#[test]
fn it_says_what_it_is() {
    let mut guest = Guest::new(0, false);
    assert_eq!(guest.ask(8, 0, &[(DATA, 20, TO_WRITE)]), (0, 21));
    assert_eq!(guest.get(DATA, 20), b"a-disk\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(guest.ask(8, 0, &[(DATA + 64, 3, TO_WRITE)]), (0, 4));
    assert_eq!(guest.get(DATA + 64, 4), b"a-d\0");
    let read = |at: u64| guest.blk.read(0x100 + at, 4);
    assert_eq!((guest.blk.read(8, 4), read(0), read(4), read(12), read(20)), (2, 64, 0, 254, 512));
    // The topology: an exponent, an alignment, and two bytes of the least.
    assert_eq!((guest.blk.read(0x118, 1), guest.blk.read(0x119, 1), guest.blk.read(0x11a, 2)), (3, 0, 1));
    assert_eq!([0x24, 0x28, 0x2c, 0x30, 0x34, 0x38, 0x3c].map(read), [1 << 21, 1, 8, 1 << 21, 1, 1, 0]);
    let large = Blk::new(0x1_2345_6789, true, "");
    assert_eq!([0x100, 0x104].map(|at| large.read(at, 4)), [0x2345_6789, 1]);
}

#[test]
fn a_request_goes_on_where_it_was_whenever_it_is_late_or_memory_is_short() {
    for features in FEATURES {
        for until in 1..40 {
            let mut guest = Guest::new(features, false);
            let bytes: Vec<u8> = (0..12288_u32).map(|n| (n * 13) as u8).collect();
            guest.put(DATA, &bytes);
            guest.header(1, 1);
            guest.offer(&[(HEADER, 16, TO_READ), (DATA, 12288, TO_READ), (STATUS, 1, TO_WRITE)]);
            guest.blk.write(0x50, 4, 0);
            guest.board.until_late = until % 5;
            guest.board.until_short = until;
            let first = guest.blk.serve(&mut guest.board);
            guest.board.until_short = usize::MAX;
            let mut times = 0;
            while guest.blk.has_work() {
                guest.board.until_late = 1;
                let _ = guest.blk.serve(&mut guest.board);
                times += 1;
            }
            assert!(first == Left::Nothing || times > 0, "what is left is not forgotten");
            assert_eq!((guest.last(), guest.word(USED + 2)), ((0, 1), 1), "{features:#x}, {until}");
            assert_eq!(guest.board.disk[512..][..12288], bytes);
        }
    }
}

/// What was under way when the device was reset, or its queue set up anew, is never given back.
#[test]
fn nothing_of_a_request_lands_after_a_reset() {
    for again in [0, 1, 2] {
        let mut guest = Guest::new(0, false);
        guest.header(0, 0);
        guest.offer(&[(HEADER, 16, TO_READ), (DATA, 8192, TO_WRITE), (STATUS, 1, TO_WRITE)]);
        guest.blk.write(0x50, 4, 0);
        guest.board.until_late = 1;
        assert_eq!(guest.blk.serve(&mut guest.board), Left::More);
        match again {
            0 => guest.blk.write(0x70, 4, 0),
            1 => guest.blk.reset(),
            // The queue alone.
            _ => [(0x30, 0), (0x44, 0), (0x44, 1)].into_iter().for_each(|(at, value)| guest.blk.write(at, 4, value)),
        }
        if again < 2 {
            guest.set_up();
        } else {
            guest.board.ram[..0x2000].fill(0);
            guest.made = 0;
        }
        guest.put(DATA, &[0x55; 8192]);
        guest.board.until_late = usize::MAX;
        guest.blk.write(0x50, 4, 0);
        while guest.blk.serve(&mut guest.board) != Left::Nothing {}
        assert_eq!((guest.word(USED + 2), guest.get(STATUS, 1)[0]), (0, 0xee), "{again}");
        assert!(guest.get(DATA, 8192).iter().all(|byte| *byte == 0x55));
        assert_eq!(guest.ask(0, 0, &[(DATA, 512, TO_WRITE)]), (0, 513), "the next is served");
    }
}

#[test]
fn who_is_told_of_what_is_by_its_event_indexes() {
    let mut guest = Guest::new(EVENT_IDX, false);
    let used_event = AVAILABLE + 4 + SIZE * 2;
    let avail_event = USED + 4 + SIZE * 8;
    for n in 0..20_u16 {
        // Every third is to be told of.
        let wanted = n.div_ceil(3) * 3;
        guest.put(used_event, &wanted.to_le_bytes());
        guest.blk.write(0x64, 4, 3);
        guest.ask(4, 0, &[]);
        assert_eq!(guest.blk.line(), n == wanted, "{n}");
        assert_eq!(guest.word(avail_event), n + 1, "it wants to be told of the next");
    }
    // Without, by a flag.
    let mut guest = Guest::new(0, false);
    guest.put(AVAILABLE, &[1, 0]);
    guest.ask(4, 0, &[]);
    assert!(!guest.blk.line());
    guest.put(AVAILABLE, &[0, 0]);
    guest.ask(4, 0, &[]);
    assert!(guest.blk.line());
    assert_eq!(guest.word(avail_event), 0);
}

#[test]
fn a_chain_that_breaks_the_rules_ends_the_driver() {
    type Break = fn(&mut Guest);
    let chain = [(HEADER, 16, TO_READ), (DATA, 512, TO_WRITE), (STATUS, 1, TO_WRITE)];
    let rules: [(u64, Break, &str); 12] = [
        (0, |guest| guest.table(TABLE, &[(INDIRECT, 48, 4)]), "not agreed on"),
        (INDIRECT_DESC, |guest| guest.table(INDIRECT, &[(INDIRECT, 48, 4)]), "in a table"),
        (INDIRECT_DESC, |guest| guest.table(TABLE, &[(INDIRECT, 48, 4), (DATA, 1, 2)]), "before others"),
        (INDIRECT_DESC, |guest| guest.table(TABLE, &[(INDIRECT, 0, 4)]), "length that cannot be"),
        (INDIRECT_DESC, |guest| guest.table(TABLE, &[(INDIRECT, 50, 4)]), "length that cannot be"),
        (INDIRECT_DESC, |guest| guest.table(TABLE, &[(INDIRECT, 257 * 16, 4)]), "length that cannot be"),
        (INDIRECT_DESC, |guest| guest.table(TABLE, &[(u64::MAX - 7, 48, 4)]), "not in RAM"),
        (INDIRECT_DESC, |guest| guest.table(TABLE, &[(INDIRECT, 32, 4)]), "next is none"),
        (0, |guest| guest.table(TABLE, &[(STATUS, 1, 2), (HEADER, 16, 0)]), "behind one to write"),
        (0, |guest| guest.table(TABLE, &[(HEADER, 15, 0), (STATUS, 1, 2)]), "without a header"),
        (0, |guest| guest.table(TABLE, &[(HEADER, 16, 0), (DATA, 512, 0)]), "without a header"),
        (0, |guest| guest.table(TABLE, &[(u64::MAX - 7, 16, 0), (STATUS, 1, 2)]), "last address"),
    ];
    for (features, damage, why) in rules {
        let mut guest = Guest::new(features, false);
        guest.header(0, 0);
        guest.offer(&chain);
        damage(&mut guest);
        guest.blk.write(0x50, 4, 0);
        while guest.blk.serve(&mut guest.board) != Left::Nothing {}
        let broken = guest.blk.broken().unwrap_or("nothing");
        assert!(broken.contains(why), "{broken}, not {why}");
        guest.blk.write(0x50, 4, 0);
        assert!(!guest.blk.has_work() && guest.word(USED + 2) == 0);
        guest.set_up();
        assert_eq!(guest.ask(4, 0, &[]).0, 0, "after a reset all is well");
    }
}

#[test]
fn a_request_that_gets_no_memory_fails_when_it_is_given_up() {
    let mut guest = Guest::new(0, false);
    guest.header(1, 0);
    guest.offer(&[(HEADER, 16, TO_READ), (DATA, 4096, TO_READ), (STATUS, 1, TO_WRITE)]);
    guest.blk.write(0x50, 4, 0);
    // Enough to begin with.
    guest.board.until_short = 4;
    assert_eq!(guest.blk.serve(&mut guest.board), Left::Stuck);
    guest.board.until_short = usize::MAX;
    guest.blk.give_up();
    while guest.blk.serve(&mut guest.board) != Left::Nothing {}
    assert_eq!(guest.last(), (1, 1));
    assert!(matches!(Trouble::from(Stop::Short), Trouble::Memory(Stop::Short)));
}
