//! The devices of the board and their registers, each with its widths and with what a write does to it.
//!
//! Follows IHI 0048 (GICv2, chapter 4), IHI 0069 (GICv3, chapter 12), ARM DDI 0183 (PL011), ARM DDI 0224 (PL031) and virtio
//! 1.2, 4.2.2. What is in no row is RES0.

use crate::Device;
use rt::{args, board, gic};

/// What a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Reads as this under this mask, whatever is written.
    Is(u32, u32),
    /// Reads the same before and after a write.
    Fixed,
    /// Keeps the bits of this mask.
    Keeps(u32),
    /// Ones of this mask set bits, which ones at an offset 0x80 further clear.
    Sets(u32),
    /// Ones clear bits, see there.
    Clears,
    /// Is read, and changes by itself or by what is done elsewhere; it is not written here.
    Live,
    /// Is written, and reads as zero.
    WriteOnly,
    /// Is there or is RES0, for each implementation to choose; Flatland's are RES0.
    Free,
}

/// Registers of one kind in a row, 4 bytes each.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// The first one's offset.
    pub(crate) from: u64,
    /// The offset behind the last.
    pub(crate) to: u64,
    /// What they are.
    pub(crate) kind: Kind,
    /// Widths, beside 4 bytes, that work, a bit for each: 1, 2, 8 bytes.
    pub(crate) widths: u64,
}

const fn row(from: u64, to: u64, kind: Kind) -> Row {
    Row { from, to, kind, widths: 4 }
}

const fn one(at: u64, kind: Kind) -> Row {
    row(at, at + 4, kind)
}

/// With bytes, too.
const fn bytes(from: u64, to: u64, kind: Kind) -> Row {
    Row { from, to, kind, widths: 1 | 4 }
}

/// With doublewords, too.
const fn wide(from: u64, to: u64, kind: Kind) -> Row {
    Row { from, to, kind, widths: 4 | 8 }
}

/// With all widths up to a word: what a driver reads as bytes (DDI 0183, 3.2: registers of 16 bits and fewer).
const fn narrow(at: u64, kind: Kind) -> Row {
    Row { from: at, to: at + 4, kind, widths: 1 | 2 | 4 }
}

/// The last eight registers of a PrimeCell: part number and revision, then 0xb105f00d in bytes.
macro_rules! prime_cell {
    ($low:literal) => {
        [
            narrow(0xfe0, Kind::Is($low, 0xff)),
            narrow(0xfe4, Kind::Is(0x10, 0xff)),
            // Revisions differ.
            narrow(0xfe8, Kind::Is(0x04, 0x0f)),
            narrow(0xfec, Kind::Is(0, 0xff)),
            narrow(0xff0, Kind::Is(0x0d, 0xff)),
            narrow(0xff4, Kind::Is(0xf0, 0xff)),
            narrow(0xff8, Kind::Is(0x05, 0xff)),
            narrow(0xffc, Kind::Is(0xb1, 0xff)),
        ]
    };
}

static UART: &[&[Row]] = &[
    &[
        one(0x00, Kind::Live),
        // The errors of what was received; a write clears them.
        narrow(0x04, Kind::Is(0, 0xff)),
        narrow(0x18, Kind::Live),
        narrow(0x20, Kind::Keeps(0xff)),
        narrow(0x24, Kind::Keeps(0xffff)),
        narrow(0x28, Kind::Keeps(0x3f)),
        narrow(0x2c, Kind::Keeps(0xff)),
        narrow(0x30, Kind::Keeps(0xff87)),
        narrow(0x34, Kind::Keeps(0x3f)),
        narrow(0x38, Kind::Keeps(0x7ff)),
        narrow(0x3c, Kind::Live),
        narrow(0x40, Kind::Live),
        narrow(0x44, Kind::WriteOnly),
        narrow(0x48, Kind::Keeps(0x7)),
    ],
    &prime_cell!(0x11),
];

static RTC: &[&[Row]] = &[
    &[
        one(0x00, Kind::Live),
        one(0x04, Kind::Keeps(!0)),
        one(0x08, Kind::Keeps(!0)),
        one(0x0c, Kind::Is(1, !0)),
        one(0x10, Kind::Keeps(1)),
        one(0x14, Kind::Live),
        one(0x18, Kind::Live),
        one(0x1c, Kind::WriteOnly),
    ],
    &prime_cell!(0x31),
];

static VIRTIO: &[&[Row]] = &[&[
    one(0x000, Kind::Is(0x7472_6976, !0)),
    // 1 is what QEMU calls legacy.
    one(0x004, Kind::Fixed),
    one(0x008, Kind::Fixed),
    one(0x00c, Kind::Fixed),
    one(0x010, Kind::Fixed),
    one(0x014, Kind::WriteOnly),
    one(0x020, Kind::WriteOnly),
    one(0x024, Kind::WriteOnly),
    one(0x030, Kind::WriteOnly),
    one(0x034, Kind::Fixed),
    one(0x038, Kind::WriteOnly),
    one(0x044, Kind::Live),
    one(0x050, Kind::WriteOnly),
    one(0x060, Kind::Fixed),
    one(0x064, Kind::WriteOnly),
    one(0x070, Kind::Live),
    row(0x080, 0x088, Kind::WriteOnly),
    row(0x090, 0x098, Kind::WriteOnly),
    row(0x0a0, 0x0a8, Kind::WriteOnly),
    one(0x0ac, Kind::WriteOnly),
    row(0x0b0, 0x0c0, Kind::Live),
    // QueueReset, of 1.2; and what legacy devices had at 0x028, 0x03c and 0x040.
    one(0x028, Kind::Free),
    row(0x03c, 0x044, Kind::Free),
    one(0x0c0, Kind::Free),
    one(0x0fc, Kind::Fixed),
    // Each device's own.
    row(0x100, 0x200, Kind::Live),
]];

/// The distributor, in which `n` interrupts have a bit or a field each.
fn distributor(n: u64) -> [Row; 32] {
    let is_v2 = gic::is_v2();
    // Private interrupts are the redistributors', with affinity routing.
    let v2_only = |kind| if is_v2 { kind } else { Kind::Is(0, !0) };
    let targets = v2_only(if args::n_cpus() > 1 { Kind::Keeps(0x0101_0101) } else { Kind::Is(0, !0) });
    let end = if is_v2 { 0xfd0 } else { 0xffd0 };
    let routes = if is_v2 { 0x6100 } else { 0x6000 + 8 * n.min(1020) };
    [
        one(0x000, Kind::Live),
        one(0x004, Kind::Fixed),
        one(0x008, Kind::Fixed),
        // TYPER2 and STATUSR.
        one(0x00c, Kind::Free),
        one(0x010, Kind::Free),
        // Message-based SPIs, which GICD_TYPER.MBIS announces.
        row(0x040, 0x060, Kind::Free),
        row(0x020, 0x040, Kind::Free),
        one(0x080, v2_only(Kind::Live)),
        row(0x084, 0x080 + n / 8, Kind::Keeps(!0)),
        // SGIs and PPIs of a GICv2: some are always enabled, some have a line.
        row(0x100, 0x104, v2_only(Kind::Live)),
        row(0x104, 0x100 + n / 8, Kind::Sets(!0)),
        row(0x180, 0x184, v2_only(Kind::Live)),
        row(0x184, 0x180 + n / 8, Kind::Clears),
        row(0x200, 0x204, v2_only(Kind::Live)),
        row(0x204, 0x200 + n / 8, Kind::Sets(!0)),
        row(0x280, 0x284, v2_only(Kind::Live)),
        row(0x284, 0x280 + n / 8, Kind::Clears),
        row(0x300, 0x304, v2_only(Kind::Live)),
        row(0x304, 0x300 + n / 8, Kind::Sets(!0)),
        row(0x380, 0x384, v2_only(Kind::Live)),
        row(0x384, 0x380 + n / 8, Kind::Clears),
        bytes(0x400, 0x420, v2_only(Kind::Keeps(0xf0f0_f0f0))),
        bytes(0x420, 0x400 + n, Kind::Keeps(0xf0f0_f0f0)),
        bytes(0x800, 0x820, v2_only(Kind::Fixed)),
        bytes(0x820, 0x800 + n, targets),
        row(0xc00, 0xc08, v2_only(Kind::Live)),
        row(0xc08, 0xc00 + n / 4, Kind::Keeps(0xaaaa_aaaa)),
        // PPISR, SPISR and their kind are the implementation's; NSACR is RES0 without security, and so is IGRPMODR.
        row(0xd00, 0xe00, v2_only(Kind::Free)),
        // SGIR, CPENDSGIR and SPENDSGIR.
        row(0xf00, 0xf30, v2_only(Kind::Live)),
        // Which are non-maskable.
        row(0xf84, 0xf80 + n / 8, Kind::Free),
        wide(0x6100, routes, Kind::Keeps(!0)),
        row(end, end + 0x30, Kind::Fixed),
    ]
}

/// A redistributor: its frame for itself and LPIs, and that for SGIs and PPIs.
static REDISTRIBUTOR: &[&[Row]] = &[&[
    one(0x0000, Kind::Live),
    one(0x0004, Kind::Fixed),
    wide(0x0008, 0x0010, Kind::Fixed),
    one(0x0010, Kind::Free),
    one(0x0014, Kind::Live),
    // MPAM and LPIs.
    row(0x0018, 0x0050, Kind::Free),
    row(0x0070, 0x0080, Kind::Free),
    row(0x00a0, 0x00c8, Kind::Free),
    row(0x0100, 0x0118, Kind::Free),
    row(0xc000, 0xc010, Kind::Free),
    row(0xffd0, 0x1_0000, Kind::Fixed),
    one(0x1_0080, Kind::Keeps(!0)),
    // SGIs alone: PPIs may have a line.
    one(0x1_0100, Kind::Sets(!0)),
    one(0x1_0180, Kind::Clears),
    one(0x1_0200, Kind::Sets(0xffff)),
    one(0x1_0280, Kind::Clears),
    one(0x1_0300, Kind::Sets(!0)),
    one(0x1_0380, Kind::Clears),
    bytes(0x1_0400, 0x1_0420, Kind::Keeps(0xf0f0_f0f0)),
    one(0x1_0c00, Kind::Is(0xaaaa_aaaa, !0)),
    one(0x1_0c04, Kind::Live),
    one(0x1_0f80, Kind::Free),
    row(0x1_ffd0, 0x2_0000, Kind::Free),
]];

/// The CPU interface of a GICv2, which Flatland leaves to the board's own virtual one: what reading it does is looked at.
static CPU_INTERFACE: &[&[Row]] = &[&[
    row(0x000, 0x004, Kind::Live),
    one(0x004, Kind::Keeps(0xf0)),
    row(0x008, 0x02c, Kind::Live),
    row(0x0d0, 0x0f0, Kind::Live),
    one(0x0fc, Kind::Fixed),
    row(0x02c, 0x0d0, Kind::Live),
    row(0x0f0, 0x0fc, Kind::Live),
    row(0x100, 0x2000, Kind::Live),
]];

/// Calls `each` with every device that the tree has.
pub(crate) fn all(mut each: impl FnMut(&Device<'_>)) {
    each(&Device { name: "UART", base: board::UART, size: 0x1000, rows: UART });
    each(&Device { name: "RTC", base: board::RTC, size: 0x1000, rows: RTC });
    let mut slots = 0;
    args::tree().walk(|p| {
        if p.name == "compatible" && rt::fdt::text(p.value) == "virtio,mmio" {
            slots += 1;
        }
    });
    for n in 0..slots.min(32) {
        each(&Device { name: "virtio", base: board::VIRTIO + 0x200 * n, size: 0x200, rows: VIRTIO });
    }
    let rows = distributor(u64::from(gic::n_interrupts()));
    let size = if gic::is_v2() { 0x1000 } else { 0x1_0000 };
    each(&Device { name: "GICD", base: board::GICD, size, rows: &[&rows] });
    if gic::is_v2() {
        each(&Device { name: "GICC", base: board::GICC, size: 0x2000, rows: CPU_INTERFACE });
    } else {
        for n in 0..args::n_cpus() as u64 {
            let base = board::GICR + 0x2_0000 * n;
            each(&Device { name: "GICR", base, size: 0x2_0000, rows: REDISTRIBUTOR });
        }
    }
}
