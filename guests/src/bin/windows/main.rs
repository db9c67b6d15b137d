//! Is each register of the board's devices where its specification has it, with its widths, and is there nothing between?
//!
//! Every offset of UART, RTC, virtio slots and interrupt controller is read with 1, 2, 4 and 8 bytes, and written. A register
//! gives what its table says; what is no register is RES0, or an external abort; a width that a register does not have
//! gives what the right one would, or zero, or an abort. With `sample=N`, one in N of the words without a register is looked
//! at. Runs on bare QEMU, too, as a test of the test; with `strict`, what
//! an implementation may leave out is RES0.

#![no_std]
#![no_main]

mod table;

use rt::{args, check, check_eq, console, expect_exception, gic, mmio, println};
use table::{Kind, Row};

rt::guest!(main);

/// A device and its registers.
pub(crate) struct Device<'a> {
    pub(crate) name: &'static str,
    pub(crate) base: u64,
    pub(crate) size: u64,
    pub(crate) rows: &'a [&'a [Row]],
}

/// What was counted of a device. What is wrong is kept till the end: the UART is among them.
#[derive(Default)]
struct Tally {
    accesses: u32,
    aborts: u32,
    wrong: u32,
    first: [Option<Wrong>; 12],
}

/// An answer that was not the table's.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code)] // It is printed.
struct Wrong {
    offset: u64,
    what: &'static str,
    got: u64,
    want: u64,
    kind: Kind,
}

impl Device<'_> {
    /// What the table says of the word at `offset`.
    fn row(&self, offset: u64) -> Row {
        let found = self.rows.iter().copied().flatten().find(|row| (row.from..row.to).contains(&offset));
        let none = Row { from: offset, to: offset + 4, kind: Kind::Is(0, !0), widths: 0 };
        found.copied().unwrap_or(none)
    }
}

impl Tally {
    /// Reads; nothing if that is an external abort.
    fn read(&mut self, at: u64, width: u64) -> Option<u64> {
        let mut value = 0;
        let fault = expect_exception(|| {
            value = match width {
                1 => mmio::read8(at).into(),
                2 => mmio::read16(at).into(),
                4 => mmio::read32(at).into(),
                _ => mmio::read64(at),
            }
        });
        self.accesses += 1;
        self.aborts += u32::from(fault.is_some());
        match fault {
            None => Some(value),
            Some(fault) if fault.is_external_abort() => None,
            Some(fault) => {
                self.note(at, "another fault", fault.esr, 0, Kind::Free);
                None
            }
        }
    }

    /// Writes; an external abort is an answer, too.
    fn write(&mut self, at: u64, width: u64, value: u64) {
        // The cuts are the width.
        let fault = expect_exception(|| match width {
            1 => mmio::write8(at, value as u8),
            2 => mmio::write16(at, value as u16),
            4 => mmio::write32(at, value as u32),
            _ => mmio::write64(at, value),
        });
        self.accesses += 1;
        self.aborts += u32::from(fault.is_some());
        if let Some(fault) = fault.filter(|fault| !fault.is_external_abort()) {
            self.note(at, "another fault", fault.esr, 0, Kind::Free);
        }
    }

    fn note(&mut self, offset: u64, what: &'static str, got: u64, want: u64, kind: Kind) {
        if let Some(slot) = self.first.get_mut(self.wrong as usize) {
            *slot = Some(Wrong { offset, what, got, want, kind });
        }
        self.wrong += 1;
    }

    fn expect(&mut self, at: u64, what: &'static str, want: u64, mask: u32, kind: Kind) {
        let got = self.read(at, 4).unwrap_or(0) & u64::from(mask);
        if got != want & u64::from(mask) {
            self.note(at, what, got, want, kind);
        }
    }
}

fn main() {
    let sample = args::number("sample", 1).max(1);
    gic::init();
    table::all(|device| {
        let mut tally = Tally::default();
        for offset in (0..device.size).step_by(4) {
            let row = device.row(offset);
            // Those of which no table speaks have no widths.
            if row.widths != 0 || (offset / 4).is_multiple_of(sample) {
                word(device, offset, row, &mut tally);
            }
        }
        recover(device.name);
        let Tally { accesses, aborts, wrong, first } = tally;
        println!("windows: {} at {:#x}: {accesses} accesses, {aborts} aborts, {wrong} wrong", device.name, device.base);
        for wrong in first.into_iter().flatten() {
            println!("windows: {wrong:x?}");
        }
        check_eq!(wrong, 0, "each offset and width gives what its table says");
        check!(accesses > 100, "it was looked at", "{accesses}");
    });
}

/// Makes usable again what a device may hold after all that.
fn recover(name: &str) {
    if name == "UART" {
        console::init();
    }
    gic::quiesce();
}

/// One word: what it reads as, what it keeps, and its other widths.
fn word(device: &Device<'_>, offset: u64, row: Row, tally: &mut Tally) {
    let (at, kind) = (device.base + offset, row.kind);
    let before = if is_read_once(device, offset) { 0 } else { tally.read(at, 4).unwrap_or(0) };
    match kind {
        Kind::Free if args::strict() => tally.expect(at, "is left out", 0, !0, kind),
        Kind::Is(value, mask) => {
            tally.expect(at, "is", value.into(), mask, kind);
            tally.write(at, 4, !u64::from(value));
            tally.expect(at, "is, written", value.into(), mask, kind);
        }
        Kind::Fixed => {
            tally.write(at, 4, !before);
            tally.expect(at, "is fixed", before, !0, kind);
        }
        Kind::Keeps(mask) => keeps(device, at, before, mask, tally),
        Kind::Sets(mask) => sets(at, mask, tally),
        Kind::WriteOnly => tally.expect(at, "is for writes", 0, !0, kind),
        Kind::Clears | Kind::Live | Kind::Free => {}
    }
    if !is_read_once(device, offset) {
        widths(device, at, row, tally);
    }
}

/// Whether a read takes something: what was received, or an interrupt.
fn is_read_once(device: &Device<'_>, offset: u64) -> bool {
    matches!((device.name, offset), ("UART", 0) | ("GICC", 0xc | 0x20))
}

/// Each pattern is kept within the mask, and then what was there before.
fn keeps(device: &Device<'_>, at: u64, before: u64, mask: u32, tally: &mut Tally) {
    let offset = at - device.base;
    // An affinity: Aff2 to Aff0, then Aff3.
    let mask = match (device.name, offset) {
        ("GICD", 0x6100..0x8000) if offset.is_multiple_of(8) => 0x00ff_ffff,
        ("GICD", 0x6100..0x8000) => 0xff,
        _ => mask,
    };
    for pattern in [0x5555_5555u32, 0xaaaa_aaaa, 0, !0, 0x1234_5678] {
        tally.write(at, 4, (pattern & mask).into());
        tally.expect(at, "keeps", pattern.into(), mask, Kind::Keeps(mask));
    }
    tally.write(at, 4, before);
    tally.expect(at, "has back", before, mask, Kind::Keeps(mask));
}

/// Bits are set here and cleared 0x80 further, where they read the same.
fn sets(at: u64, mask: u32, tally: &mut Tally) {
    let clear = at + 0x80;
    let kind = Kind::Sets(mask);
    tally.write(clear, 4, !0);
    for pattern in [0x5555_5555u32, 0xaaaa_aaaa, 0x8000_0001] {
        let pattern = pattern & mask;
        tally.write(at, 4, pattern.into());
        tally.write(at, 4, 0);
        tally.expect(at, "sets", pattern.into(), mask, kind);
        tally.expect(clear, "reads the same", pattern.into(), mask, kind);
        tally.write(clear, 4, 0);
        tally.expect(at, "zeros clear nothing", pattern.into(), mask, kind);
        tally.write(clear, 4, pattern.into());
        tally.expect(at, "clears", 0, mask, kind);
    }
}

/// The other widths, read: what the word has there, or nothing.
fn widths(device: &Device<'_>, at: u64, row: Row, tally: &mut Tally) {
    let live = matches!(row.kind, Kind::Live | Kind::Free);
    let Some(word) = tally.read(at, 4) else { return };
    for width in [1, 2] {
        for lane in (0..4).step_by(width as usize) {
            let mask = (1 << (8 * width)) - 1;
            let has = word >> (8 * lane) & mask;
            let got = tally.read(at + lane, width);
            let is_right = match got {
                // QEMU's PrimeCells show their low part in each lane.
                Some(got) if !args::strict() && got == word & mask => true,
                Some(got) => got == has || live || got == 0 && row.widths & width == 0,
                None => row.widths & width == 0,
            };
            if !is_right {
                tally.note(at + lane - device.base, "a part", got.unwrap_or(u64::MAX), has, row.kind);
            }
        }
    }
    if !at.is_multiple_of(8) || is_read_once(device, at + 4 - device.base) {
        return;
    }
    let (got, high) = (tally.read(at, 8), tally.read(at + 4, 4).unwrap_or(0));
    let both = word | high << 32;
    let is_right = match got {
        Some(got) if row.widths & 8 != 0 => got == both,
        Some(got) => live || got == both || got == word || got == 0,
        None => row.widths & 8 == 0,
    };
    if !is_right && !matches!(device.row(at + 4 - device.base).kind, Kind::Live | Kind::Free) {
        tally.note(at - device.base, "a doubleword", got.unwrap_or(u64::MAX), both, row.kind);
    }
}
