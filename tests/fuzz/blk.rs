//! A disk under a driver that does almost what it should: the device does bounded work, stays within the disk and the memory that it was
//! given, and does nothing for a driver that broke the rules.

use crate::engine::{Rng, count, report};
use crate::guest::{Guest, RAM, nearly};
use flatland::addr::{Addr, Ipa};
use flatland::devices::device::Device as _;
use flatland::devices::virtio::blk::{Blk, Storage, Trouble};
use flatland::devices::virtio::queue::Segment;
use flatland::devices::virtio::{Left, Ram, Violation};

const BYTES: usize = 1 << 16;
/// How seldom something is not as it should be.
const SELDOM: usize = 60;
const DISK: u64 = 64 << 10;

struct Board {
    guest: Guest,
    is_read_only: bool,
}

impl Board {
    fn piece(&mut self, offset: u64, guest: Segment) -> Result<(), Trouble> {
        assert!(guest.bytes > 0 && offset % 4096 + u64::from(guest.bytes) <= 4096, "{offset} {guest:?}");
        assert!(offset + u64::from(guest.bytes) <= DISK, "{offset} {guest:?}");
        self.guest.range(guest.at, guest.bytes as usize)?;
        if self.guest.work.is_multiple_of(97) { Err(Trouble::Disk) } else { Ok(()) }
    }
}

impl Ram for Board {
    fn read(&mut self, at: Addr<Ipa>, into: &mut [u8]) -> Result<(), Violation> {
        self.guest.read(at, into)
    }

    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), Violation> {
        self.guest.write(at, bytes)
    }
}

impl Storage for Board {
    fn load(&mut self, offset: u64, to: Segment) -> Result<(), Trouble> {
        self.piece(offset, to)
    }

    fn store(&mut self, offset: u64, from: Segment) -> Result<(), Trouble> {
        assert!(!self.is_read_only);
        self.piece(offset, from)
    }

    fn clear(&mut self, offset: u64, bytes: u32) -> Result<(), Trouble> {
        assert!(!self.is_read_only && bytes > 0);
        assert!(offset % 4096 + u64::from(bytes) <= 4096 && offset + u64::from(bytes) <= DISK, "{offset} {bytes}");
        self.guest.work += 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Trouble> {
        self.guest.work += 1;
        Ok(())
    }

    fn is_late(&self) -> bool {
        self.guest.work.is_multiple_of(3)
    }
}

fn set_up(rng: &mut Rng, blk: &mut Blk) {
    let size = 1 << rng.below(9);
    let features = if rng.below(4) == 0 { rng.next() & 0x3000_6624 } else { 0x3000_0004 };
    for (offset, value) in [
        (0x70, 0),
        (0x70, 3),
        (0x24, 1),
        (0x20, 1),
        (0x24, 0),
        (0x20, features),
        (0x70, 11),
        (0x30, 0),
        (0x38, size),
        (0x80, RAM),
        (0x90, RAM + 0x1000),
        (0xa0, RAM + 0x1800),
        (0x44, 1),
        (0x70, 15),
    ] {
        let (offset, value) = (nearly(rng, offset, SELDOM), nearly(rng, value, SELDOM));
        blk.write(offset, if rng.below(300) == 0 { 1 << rng.below(4) } else { 4 }, value);
    }
}

/// Descriptors at `at`, most of them a chain of a header, data and a status.
fn chain(rng: &mut Rng, board: &mut Board, at: u64) {
    let data = [512, 1024, 4096, 8192, 100][rng.below(5)];
    let to_write = [0, 2][rng.below(2)];
    let table = RAM + 0x2000 + (rng.below(4) as u64) * 0x100;
    for (n, (buffer, bytes, flags)) in
        [(RAM + 0x3000, 16, 1), (RAM + 0x4000 + (rng.next() & 0x3fff), data, 1 | to_write), (RAM + 0x3800, 1, 2)]
            .into_iter()
            .enumerate()
    {
        let flags = match rng.below(30) {
            0 => rng.next() as u16,
            _ => flags,
        };
        let (buffer, bytes, flags) = match rng.below(6) {
            0 if n == 0 => (table, 48, 4),
            _ => (buffer, bytes, flags),
        };
        let mut descriptor = nearly(rng, buffer, SELDOM).to_le_bytes().to_vec();
        descriptor.extend((nearly(rng, bytes, SELDOM) as u32).to_le_bytes());
        descriptor.extend(flags.to_le_bytes());
        descriptor.extend((nearly(rng, n as u64 + 1, SELDOM) as u16).to_le_bytes());
        board.guest.put(at + n as u64 * 16, &descriptor);
    }
}

fn fill(rng: &mut Rng, board: &mut Board, turn: u16) {
    for table in 0..4 {
        chain(rng, board, RAM + 0x2000 + table * 0x100);
    }
    chain(rng, board, RAM);
    let kind = [0, 1, 4, 8, 11, 13][rng.below(6)];
    let mut header = (nearly(rng, kind, SELDOM) as u32).to_le_bytes().to_vec();
    header.extend([0; 4]);
    let sector = rng.below(130) as u64;
    header.extend(nearly(rng, sector, SELDOM).to_le_bytes());
    board.guest.put(RAM + 0x3000, &header);
    for slot in 0..8 {
        let head = nearly(rng, 0, SELDOM) as u16;
        board.guest.put(RAM + 0x1004 + slot * 2, &head.to_le_bytes());
    }
    let index = if rng.below(40) == 0 { rng.next() as u16 } else { turn };
    board.guest.put(RAM + 0x1002, &index.to_le_bytes());
}

#[test]
fn a_hostile_driver_costs_a_disk_bounded_work() {
    let mut rng = Rng::new("blk");
    let n = count(6000);
    let (mut requests, mut broken) = (0, 0);
    for _ in 0..n {
        let one = check(&mut rng);
        requests += one.0;
        broken += usize::from(one.1);
    }
    assert!(requests > n as u64 && broken > n / 20 && broken < n * 19 / 20, "{requests} {broken} of {n}");
    report("blk", n);
}

/// One life of a driver: how many requests it had, and whether it broke the rules.
pub(crate) fn check(rng: &mut Rng) -> (u64, bool) {
    let is_read_only = rng.below(4) == 0;
    let mut blk = Blk::new(DISK / 512, is_read_only, "disk");
    let mut board = Board { guest: Guest::new(rng, BYTES), is_read_only };
    set_up(rng, &mut blk);
    for turn in 1..12 {
        fill(rng, &mut board, turn);
        blk.write(0x50, 4, nearly(rng, 0, SELDOM));
        match rng.below(24) {
            0 => set_up(rng, &mut blk),
            1 => blk.reset(),
            2 => blk.give_up(),
            _ => {}
        }
        let was_broken = blk.broken().is_some();
        for _ in 0..8 {
            board.guest.work = 0;
            let left = blk.serve(&mut board);
            // A chain of 256 descriptors, each read by itself and with a piece of data, and then it is late.
            assert!(board.guest.work <= 700, "{} accesses at once", board.guest.work);
            assert!(!was_broken || board.guest.work == 0, "a driver that broke the rules is served");
            if left == Left::Nothing {
                break;
            }
        }
        for _ in 0..4 {
            let (offset, size) = (rng.edge(), 1 << rng.below(4));
            let value = blk.read(offset, size);
            assert!(size >= 8 || value >> (8 * size) == 0, "{value:#x} in {size} bytes at {offset:#x}");
        }
    }
    (blk.counts.requests, blk.broken().is_some())
}
