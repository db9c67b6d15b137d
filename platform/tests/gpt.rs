//! Partition tables as tools write them, and as nobody should.

use platform::gpt::{BLOCK, Block, Blocks, GptError, HEAD, find, is_blank};

/// A disk in memory; block numbers that cannot be read.
struct Disk(Vec<u8>, Vec<u64>);

impl Blocks for Disk {
    fn count(&self) -> u64 {
        (self.0.len() / BLOCK) as u64
    }

    fn read(&mut self, n: u64, into: &mut Block) -> bool {
        let Some(from) = (n as usize).checked_mul(BLOCK) else { return false };
        let Some(bytes) = self.0.get(from..from.saturating_add(BLOCK)).filter(|_| !self.1.contains(&n)) else {
            return false;
        };
        into.copy_from_slice(bytes);
        true
    }
}

/// CRC-32, from its definition as a remainder and so another way than the code has it.
fn crc(bytes: &[u8]) -> u32 {
    let mut rest = !0_u32;
    for byte in bytes {
        for bit in 0..8 {
            let top = rest >> 31 ^ u32::from(byte >> bit & 1);
            rest = rest << 1 ^ if top == 1 { 0x04c1_1db7 } else { 0 };
        }
    }
    !rest.reverse_bits()
}

fn put(disk: &mut [u8], at: usize, bytes: &[u8]) {
    disk[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Writes the header for entries at `entries` to the sector `lba`.
fn header(disk: &mut [u8], lba: u64, other: u64, entries: u64, count: u32) {
    let array = crc(&disk[entries as usize * 512..][..count as usize * 128]);
    let at = lba as usize * 512;
    put(disk, at, b"EFI PART");
    for (offset, value) in [(8, 0x1_0000), (12, 92), (16, 0), (80, count), (84, 128), (88, array)] {
        put(disk, at + offset, &u32::to_le_bytes(value));
    }
    for (offset, value) in [(24, lba), (32, other), (40, 34), (48, 2014), (72, entries)] {
        put(disk, at + offset, &u64::to_le_bytes(value));
    }
    let sum = crc(&disk[at..at + 92]);
    put(disk, at + 16, &sum.to_le_bytes());
}

/// A disk of 1 MiB with these partitions, by name, first and last sector.
fn disk(partitions: &[(&str, u64, u64)]) -> Disk {
    let mut disk = vec![0; 1 << 20];
    put(&mut disk, 510, &[0x55, 0xaa]);
    for (n, (name, first, last)) in partitions.iter().enumerate() {
        for start in [2, 2048 - 33] {
            let at = start * 512 + n * 128;
            put(&mut disk, at, &[7; 32]);
            put(&mut disk, at + 32, &first.to_le_bytes());
            put(&mut disk, at + 40, &last.to_le_bytes());
            let letters: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
            put(&mut disk, at + 56, &letters);
        }
    }
    header(&mut disk, 1, 2047, 2, 128);
    header(&mut disk, 2047, 1, 2048 - 33, 128);
    Disk(disk, Vec::new())
}

#[test]
fn a_partition_is_found_by_its_name() {
    assert_eq!(crc(b"123456789"), 0xcbf4_3926);
    let longest = "a-name-of-thirty-six-letters-0123456";
    let mut disk = disk(&[
        ("root", 40, 47),
        ("swap", 48, 1000),
        (longest, 1008, 1015),
        ("twice", 1016, 1023),
        ("twice", 1024, 1031),
    ]);
    assert_eq!(find(&mut disk, "root"), Ok(5..6));
    // What is left of the last block is none of it.
    assert_eq!(find(&mut disk, "swap"), Ok(6..125));
    assert_eq!(find(&mut disk, longest), Ok(126..127));
    assert_eq!(find(&mut disk, "twice"), Err(GptError::Several));
    for missing in ["", "swa", "swap1", "Swap", "none"] {
        assert_eq!(find(&mut disk, missing), Err(GptError::Missing), "{missing}");
    }
    assert_eq!(is_blank(&mut disk), Some(false));
}

#[test]
fn the_copy_counts_where_the_first_is_damaged() {
    let whole = || disk(&[("swap", 48, 1000)]);
    for at in [512, 512 + 16, 512 + 60, 512 + 91, 1024, 1024 + 127 * 128] {
        let mut disk = whole();
        disk.0[at] ^= 1;
        assert_eq!(find(&mut disk, "swap"), Ok(6..125), "byte {at}");
        disk.0[2047 * 512 + 20] ^= 1;
        assert_eq!(find(&mut disk, "swap"), Err(GptError::NoTable), "byte {at}, and the copy");
    }
    let mut disk = whole();
    disk.1 = vec![0];
    assert_eq!((find(&mut disk, "swap"), is_blank(&mut disk)), (Err(GptError::Unreadable), None));
    disk.1 = vec![1];
    assert_eq!(find(&mut disk, "swap"), Ok(6..125), "entries that cannot be read");
}

#[test]
fn a_partition_lies_in_the_disk_in_whole_blocks() {
    for (first, last, found) in [
        (8, 15, Ok(1..2)),
        (0, 15, Err(GptError::Misplaced)),
        (9, 100, Err(GptError::Misplaced)),
        (100, 90, Err(GptError::Misplaced)),
        (8, 2048, Err(GptError::Misplaced)),
        (8, u64::MAX, Err(GptError::Misplaced)),
        (u64::MAX - 7, u64::MAX, Err(GptError::Misplaced)),
    ] {
        assert_eq!(find(&mut disk(&[("swap", first, last)]), "swap"), found, "{first} to {last}");
    }
}

#[test]
fn a_table_that_cannot_be_is_none() {
    type Change = fn(&mut [u8], usize);
    let changes: [Change; 5] = [
        |disk, at| put(disk, at + 12, &91_u32.to_le_bytes()),
        |disk, at| put(disk, at + 12, &513_u32.to_le_bytes()),
        |disk, at| put(disk, at + 80, &257_u32.to_le_bytes()),
        |disk, at| put(disk, at + 84, &256_u32.to_le_bytes()),
        |disk, at| put(disk, at + 72, &(u64::MAX - 1).to_le_bytes()),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let mut disk = disk(&[("swap", 48, 1000)]);
        for at in [512, 2047 * 512] {
            change(&mut disk.0, at);
            // With a checksum that is right.
            put(&mut disk.0, at + 16, &[0; 4]);
            let size = u32::from_le_bytes(disk.0[at + 12..at + 16].try_into().unwrap()) as usize;
            let sum = crc(&disk.0[at..at + size.min(512)]);
            put(&mut disk.0, at + 16, &sum.to_le_bytes());
        }
        assert_eq!(find(&mut disk, "swap"), Err(GptError::NoTable), "change {n}");
    }
    for bytes in [0, BLOCK, 2 * BLOCK] {
        let mut small = Disk(vec![0; bytes], Vec::new());
        assert!(find(&mut small, "swap").is_err(), "{bytes}");
    }
}

#[test]
fn a_disk_is_blank_if_nobody_has_put_anything_there() {
    let empty = || Disk(vec![0; 1 << 20], Vec::new());
    assert_eq!(is_blank(&mut empty()), Some(true));
    // A boot sector, ext4's superblock, btrfs's, and what is behind them all.
    for (at, blank) in [(510, false), (1080, false), (0x1_0040, false), (HEAD as usize * BLOCK, true)] {
        let mut disk = empty();
        disk.0[at] = 1;
        assert_eq!(is_blank(&mut disk), Some(blank), "{at:#x}");
    }
    let mut disk = empty();
    put(&mut disk.0, 1024, &[1; 64]);
    put(&mut disk.0, BLOCK - 10, b"SWAPSPACE2");
    assert_eq!(is_blank(&mut disk), Some(true), "as mkswap leaves it");
    assert_eq!(is_blank(&mut Disk(vec![0; BLOCK], Vec::new())), Some(true));
}
