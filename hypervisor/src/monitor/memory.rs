//! Where the memory is: a table for people, a line at a time, and lines for programs. Plain data in, all of it in KiB.
//!
//! The words are esxtop's as far as it has them. Every sum is made of parts that were counted apart from it; what they
//! differ by has a line of its own.

use core::fmt::{Result, Write};

/// A VM's memory, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemRow<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it takes for its memory.
    pub configured: u64,
    /// Frames of its own.
    pub private: u64,
    /// Pages in frames that it shares.
    pub shared: u64,
    /// What that saves: these pages, less its part of the frames.
    pub saved: u64,
    /// Pages found full of zeroes, in no frame.
    pub zero: u64,
    /// Pages that are compressed.
    pub packed: u64,
    /// What they are compressed to.
    pub packed_in: u64,
    /// Pages in the swap area.
    pub swapped: u64,
    /// Its balloon, by its driver's word.
    pub balloon: u64,
    /// What its balloon was asked to be.
    pub target: u64,
    /// What it has been using lately, of what is charged to it; an estimate.
    pub active: u64,
    /// Its translation tables.
    pub tables: u64,
    /// What the policy means it to have.
    pub entitled: u64,
}

/// The board's memory, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Board<'a> {
    /// How short it is, in a word.
    pub level: &'a str,
    /// All RAM.
    pub total: u64,
    /// What the hypervisor has for itself: image, records, heap, stacks.
    pub hypervisor: u64,
    /// What nobody may have: the bundle but for [`Board::images`], what the firmware keeps, what the bundle's limit withholds.
    pub reserved: u64,
    /// Frames that guests have for themselves, as the pool counts them.
    pub private: u64,
    /// Translation tables, as the pool counts them.
    pub tables: u64,
    /// Shared frames, but for those of the bundle's images.
    pub shared: u64,
    /// The bundle's images, which guests share until they write.
    pub images: u64,
    /// The store of compressed pages.
    pub store: u64,
    /// What is free.
    pub free: u64,
    /// What all sharing saves.
    pub saved: u64,
    /// What copies could take at once, by the configured risk, and what could be had for them.
    pub reserve: (u64, u64),
    /// The swap area: how large, and how much of it is used.
    pub swap: (u64, u64),
    /// Pages scanned for merging, merged, zeroed, and found to differ; counts.
    pub scan: [u64; 4],
    /// Bytes of records for each frame.
    pub record_bytes: u64,
}

/// A number of KiB as MiB, to a tenth.
struct Mib(u64);

impl core::fmt::Display for Mib {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> Result {
        write!(f, "{:>5}.{}", self.0 >> 10, (self.0 & 1023) * 10 / 1024)
    }
}

/// Writes line `line` of where the memory is.
pub fn mem(out: &mut dyn Write, line: usize, board: &Board<'_>, rows: &[MemRow<'_>]) -> Option<Result> {
    let Some(n) = line.checked_sub(1) else {
        return Some(
            out.write_str("MiB          SIZE    PRIV  SHARED   SAVED    ZERO  PACKED    SWAP   BALLN  ACTIVE\n"),
        );
    };
    if let Some(row) = rows.get(n) {
        return Some(show(out, row));
    }
    let sum = rows.iter().fold(MemRow::default(), |sum, row| MemRow {
        name: "all",
        configured: sum.configured + row.configured,
        private: sum.private + row.private,
        shared: sum.shared + row.shared,
        saved: sum.saved + row.saved,
        zero: sum.zero + row.zero,
        packed: sum.packed + row.packed,
        swapped: sum.swapped + row.swapped,
        balloon: sum.balloon + row.balloon,
        active: sum.active + row.active,
        tables: sum.tables + row.tables,
        ..sum
    });
    let Some(n) = (n - rows.len()).checked_sub(1) else { return Some(show(out, &sum)) };
    let guests = [sum.private, board.shared, board.store, sum.tables, board.images];
    let known = guests.iter().sum::<u64>() + board.reserved + board.hypervisor + board.free;
    let differs = if known < board.total { "unaccounted" } else { "counted twice" };
    let parts = [
        ("guests' own", sum.private),
        ("shared", board.shared),
        ("store", board.store),
        ("tables", sum.tables),
        ("images", board.images),
        ("reserved", board.reserved),
        ("hypervisor", board.hypervisor),
        ("free", board.free),
        ("board", board.total),
        (differs, board.total.abs_diff(known)),
    ];
    // Where nothing differs, there is no such line.
    let parts = if known == board.total { &parts[..9] } else { &parts };
    if let Some((name, kib)) = parts.get(n) {
        return Some(writeln!(out, "{name:<16} {kib:>47} KiB"));
    }
    let Board { level, saved, reserve: (reserve, can), scan: [scanned, merged, zeroed, differed], .. } = board;
    Some(match n - parts.len() {
        0 => writeln!(
            out,
            "level {level}; sharing saves {saved} KiB; copies may take {reserve} KiB at once, {can} KiB can be had"
        ),
        1 => writeln!(out, "scanned {scanned} pages: {merged} merged, {zeroed} zero, {differed} changed meanwhile"),
        2 => {
            let (swap, used) = board.swap;
            writeln!(out, "swap area {swap} KiB, {used} used; {} bytes of records a frame", board.record_bytes)
        }
        _ => return None,
    })
}

fn show(out: &mut dyn Write, row: &MemRow<'_>) -> Result {
    let MemRow { name, configured, private, shared, saved, zero, packed, swapped, balloon, active, .. } = *row;
    write!(out, "{:<10}", name.get(..10).unwrap_or(name))?;
    for kib in [configured, private, shared, saved, zero, packed, swapped, balloon, active] {
        write!(out, " {}", Mib(kib))?;
    }
    writeln!(out)
}

/// Writes half (0 or 1) of the same for a program, in one line for the board; `millis` is when.
pub fn board_stats(out: &mut dyn Write, half: usize, millis: u64, board: &Board<'_>) -> Result {
    let Board { level, total, hypervisor, reserved, private, tables, shared, images, store, free, saved, .. } = board;
    if half == 0 {
        at(out, millis)?;
        write!(out, " board level={level} total={total} hypervisor={hypervisor} reserved={reserved} free={free}")?;
        return write!(out, " images={images} shared={shared} store={store} tables={tables} private={private}");
    }
    let [scanned, merged, zeroed, differed] = board.scan;
    write!(out, " saved={saved} reserve={} swap={} swapped={}", board.reserve.0, board.swap.0, board.swap.1)?;
    write!(out, " scanned={scanned} merged={merged} zeroed={zeroed} differed={differed}")
}

/// What such a line begins with.
fn at(out: &mut dyn Write, millis: u64) -> Result {
    write!(out, "stats t={}.{:03}", millis / 1000, millis % 1000)
}

/// In one line, what each kind of work on pages has cost.
pub fn cost_stats(out: &mut dyn Write, millis: u64, all: &[(&str, u64, u64)]) -> Result {
    at(out, millis)?;
    out.write_str(" costs")?;
    costs(out, all)
}

/// For each kind of work on pages `NAME=PAGES*NANOSECONDS`.
pub fn costs(out: &mut dyn Write, costs: &[(&str, u64, u64)]) -> Result {
    costs.iter().try_for_each(|(name, pages, nanos)| write!(out, " {name}={pages}*{nanos}"))
}

/// And half of a line for a VM.
pub fn vm_stats(out: &mut dyn Write, half: usize, millis: u64, row: &MemRow<'_>) -> Result {
    let MemRow { name, configured, private, shared, saved, zero, packed, packed_in, swapped, .. } = row;
    if half == 0 {
        at(out, millis)?;
        write!(out, " vm={name} configured={configured} private={private}")?;
        return write!(out, " shared={shared} saved={saved} zero={zero}");
    }
    let MemRow { balloon, target, active, tables, entitled, .. } = row;
    write!(out, " packed={packed} packed-in={packed_in} swapped={swapped}")?;
    write!(out, " balloon={balloon} target={target} active={active} tables={tables} entitled={entitled}")
}

#[cfg(test)]
mod tests {
    use super::{Board, MemRow, board_stats, cost_stats, mem, vm_stats};
    use alloc::string::String;

    #[test]
    fn memory_adds_up_or_says_by_how_much_it_does_not() {
        let rows = [
            MemRow { name: "a", configured: 1 << 19, private: 100 << 10, tables: 8, ..MemRow::default() },
            MemRow { name: "longer-than-ten", configured: 1 << 18, private: 28, shared: 512, ..MemRow::default() },
        ];
        let parts = (100 << 10) + 28 + 8 + 400 + 12 + 4096;
        let board = Board {
            level: "high",
            shared: 400,
            store: 12,
            hypervisor: 4000,
            reserved: 96,
            free: 5000,
            total: parts + 5000,
            ..Board::default()
        };
        let show = |board: &Board<'_>| {
            let mut out = String::new();
            let mut line = 0;
            while let Some(written) = mem(&mut out, line, board, &rows) {
                written.unwrap();
                line += 1;
            }
            assert!(out.lines().all(|line| line.len() <= 83), "{out}");
            out
        };
        let out = show(&board);
        assert!(!out.contains("unaccounted") && out.contains("longer-tha   256.0     0.0     0.5"), "{out}");
        let out = show(&Board { total: board.total + 8, ..board });
        assert!(out.contains("unaccounted") && out.contains(" 8 KiB"), "{out}");
        let out = show(&Board { free: board.free + 4, ..board });
        assert!(out.contains("counted twice"), "{out}");
    }

    /// A board on which each number is another.
    const BOARD: Board<'_> = Board {
        level: "soft",
        total: 65_536,
        hypervisor: 1_001,
        reserved: 1_002,
        private: 10_003,
        tables: 104,
        shared: 205,
        images: 306,
        store: 407,
        free: 508,
        saved: 609,
        reserve: (710, 811),
        swap: (912, 13),
        scan: [21, 22, 23, 24],
        record_bytes: 16,
    };

    #[test]
    fn each_number_is_in_its_place() {
        let rows = [
            MemRow {
                name: "a",
                configured: 4096,
                private: 2100,
                shared: 410,
                saved: 320,
                tables: 12,
                ..MemRow::default()
            },
            MemRow { name: "b", zero: 40, packed: 1530, swapped: 64, balloon: 900, active: 52, ..MemRow::default() },
        ];
        let mut out = String::new();
        let written =
            (0..).map_while(|line| mem(&mut out, line, &BOARD, &rows)).filter(|written| written.is_ok()).count();
        let lines: alloc::vec::Vec<_> = out.lines().collect();
        assert_eq!(lines.len(), written);
        let table = [
            "MiB          SIZE    PRIV  SHARED   SAVED    ZERO  PACKED    SWAP   BALLN  ACTIVE",
            "a              4.0     2.0     0.4     0.3     0.0     0.0     0.0     0.0     0.0",
            "b              0.0     0.0     0.0     0.0     0.0     1.4     0.0     0.8     0.0",
            "all            4.0     2.0     0.4     0.3     0.0     1.4     0.0     0.8     0.0",
        ];
        assert_eq!(lines[..4], table);
        let known = 2100 + 205 + 407 + 12 + 306 + 1_002 + 1_001 + 508;
        let parts: alloc::vec::Vec<_> =
            lines[4..14].iter().map(|line| (line[..16].trim_end(), line[16..].trim())).collect();
        let rest = alloc::format!("{} KiB", 65_536 - known);
        let expected = [
            ("guests' own", "2100 KiB"),
            ("shared", "205 KiB"),
            ("store", "407 KiB"),
            ("tables", "12 KiB"),
            ("images", "306 KiB"),
            ("reserved", "1002 KiB"),
            ("hypervisor", "1001 KiB"),
            ("free", "508 KiB"),
            ("board", "65536 KiB"),
            ("unaccounted", rest.as_str()),
        ];
        assert_eq!(parts, expected);
        let words = [
            "level soft; sharing saves 609 KiB; copies may take 710 KiB at once, 811 KiB can be had",
            "scanned 21 pages: 22 merged, 23 zero, 24 changed meanwhile",
            "swap area 912 KiB, 13 used; 16 bytes of records a frame",
        ];
        assert_eq!(lines[14..], words);
    }

    #[test]
    fn programs_get_each_number_by_its_name() {
        let mut out = String::new();
        for half in [0, 1] {
            board_stats(&mut out, half, 61_007, &BOARD).unwrap();
        }
        let expected = "stats t=61.007 board level=soft total=65536 hypervisor=1001 reserved=1002 free=508 images=306 \
                        shared=205 store=407 tables=104 private=10003 saved=609 reserve=710 swap=912 swapped=13 scanned=21 \
                        merged=22 zeroed=23 differed=24";
        assert_eq!(out, expected);
        let row = MemRow {
            name: "vm",
            configured: 1,
            private: 2,
            shared: 3,
            saved: 4,
            zero: 5,
            packed: 6,
            packed_in: 7,
            swapped: 8,
            balloon: 9,
            target: 10,
            active: 11,
            tables: 12,
            entitled: 13,
        };
        let mut out = String::new();
        for half in [0, 1] {
            vm_stats(&mut out, half, 999, &row).unwrap();
        }
        let expected = "stats t=0.999 vm=vm configured=1 private=2 shared=3 saved=4 zero=5 packed=6 packed-in=7 swapped=8 \
                        balloon=9 target=10 active=11 tables=12 entitled=13";
        assert_eq!(out, expected);
        let mut out = String::new();
        cost_stats(&mut out, 1_000, &[("pack", 3, 4_000), ("merge", 5, 60)]).unwrap();
        assert_eq!(out, "stats t=1.000 costs pack=3*4000 merge=5*60");
    }

    #[test]
    fn programs_get_a_line_of_names_and_numbers() {
        let mut out = String::new();
        for half in [0, 1] {
            vm_stats(&mut out, half, 12_034, &MemRow { name: "a", private: 7, ..MemRow::default() }).unwrap();
        }
        assert!(out.starts_with("stats t=12.034 vm=a configured=0 private=7 shared=0"), "{out}");
        assert!(out.contains(" zero=0 packed=0 ") && out.ends_with(" entitled=0"), "{out}");
    }

    #[test]
    fn the_last_row_is_the_sum_of_all() {
        // Each column has a number of its own, in MiB, so that none can stand for another.
        let row = |n: u64| MemRow {
            name: "one",
            configured: (100 + n) << 10,
            private: (7 * n) << 10,
            shared: (11 * n) << 10,
            saved: (13 * n) << 10,
            zero: (17 * n) << 10,
            packed: (19 * n) << 10,
            swapped: (23 * n) << 10,
            balloon: (29 * n) << 10,
            active: (31 * n) << 10,
            ..MemRow::default()
        };
        let rows = [row(2), row(3), row(5)];
        let write = |n: usize| {
            let mut out = String::new();
            mem(&mut out, n, &Board::default(), &rows).unwrap().unwrap();
            out
        };
        let numbers = |line: &str| line.split_whitespace().skip(1).map(String::from).collect::<alloc::vec::Vec<_>>();
        let columns = write(0).split_whitespace().count();
        for n in 1..4 {
            assert_eq!(numbers(&write(n)).len(), columns - 1);
        }
        let all = write(4);
        assert!(all.starts_with("all"), "{all}");
        let expected = [310, 70, 110, 130, 170, 190, 230, 290, 310].map(|mib| alloc::format!("{mib}.0"));
        assert_eq!(numbers(&all), expected, "{all}");
    }
}
