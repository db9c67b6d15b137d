//! Reading a guest's own translation of an address, for crash reports.
//!
//! [`walk`] follows stage 1 of the EL1&0 regime by the values of TTBR0_EL1, TTBR1_EL1 and TCR_EL1, over a closure that
//! reads a word of guest memory. It changes nothing, reads at most four words, and believes nothing: a table may lie
//! anywhere or nowhere. Granules of 4, 16 and 64 KiB with up to 48 bits of virtual address; FEAT_LPA, FEAT_LPA2 and
//! table attributes are left out.
//!
//! Follows Arm ARM D8.2, D24.2 (TCR_EL1).

use crate::addr::{Addr, Ipa, Va};
use crate::arm::desc::Stage1;
use crate::arm::vmsa::granule_of;
use aarch64_cpu::registers::TCR_EL1;
use arrayvec::ArrayVec;
use core::fmt;

/// The registers of the regime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Regime {
    /// TTBR0_EL1: the low half.
    pub ttbr0: u64,
    /// TTBR1_EL1: the high half.
    pub ttbr1: u64,
    /// TCR_EL1.
    pub tcr: u64,
    /// SCTLR_EL1, for its M bit.
    pub sctlr: u64,
}

/// One descriptor on the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The level, as the Arm ARM counts.
    pub level: u8,
    /// Where the descriptor is.
    pub at: Addr<Ipa>,
    /// The descriptor, or nothing where no RAM is there.
    pub word: Option<u64>,
}

/// How a walk ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It is translated.
    Output(Addr<Ipa>),
    /// Stage 1 is off: the address is the same.
    Off,
    /// The address belongs to neither half, or its half is disabled (EPD).
    NoTable,
    /// TCR_EL1 says something that cannot be.
    BadTcr,
    /// The last descriptor is no translation.
    Fault,
    /// The last table is not in RAM.
    Unreadable,
}

/// A walk: its steps and how it ended. `Display` prints it in a line for each step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Walk {
    /// What was read, in order.
    pub steps: ArrayVec<Step, 4>,
    /// How it ended.
    pub end: End,
}

/// One half of the address space.
struct Half {
    table: u64,
    /// Bits of a virtual address.
    bits: u32,
    /// Bits of the granule.
    granule: u32,
}

impl Regime {
    /// The half that `va` belongs to.
    fn half(&self, va: u64) -> Result<Half, End> {
        let upper = va >> 55 & 1 != 0;
        let tcr = self.tcr;
        let (size, granule, epd, tbi, table) = if upper {
            let granule = match TCR_EL1::TG1.read(tcr) {
                1 => 14,
                2 => 12,
                3 => 16,
                _ => return Err(End::BadTcr),
            };
            (TCR_EL1::T1SZ, granule, TCR_EL1::EPD1, TCR_EL1::TBI1, self.ttbr1)
        } else {
            let granule = granule_of(TCR_EL1::TG0.read(tcr)).ok_or(End::BadTcr)?;
            (TCR_EL1::T0SZ, granule, TCR_EL1::EPD0, TCR_EL1::TBI0, self.ttbr0)
        };
        // Six bits, so the cast keeps them all; less than 16 bits of address would have no level to start at.
        let bits = 64 - size.read(tcr) as u32;
        if !(granule + 1..=48).contains(&bits) {
            return Err(End::BadTcr);
        }
        // All bits above those translated are those of the half; the top byte may be free.
        let ignored = if tbi.is_set(tcr) { 8 } else { 0 };
        let above = (va << ignored >> ignored) >> bits;
        let wanted = if upper { u64::MAX << ignored >> ignored >> bits } else { 0 };
        if above != wanted || epd.is_set(tcr) {
            return Err(End::NoTable);
        }
        Ok(Half { table, bits, granule })
    }
}

/// Walks to `va`, reading descriptors by `read`, which gives the aligned 64-bit word at an address or nothing.
pub fn walk(regime: &Regime, va: Addr<Va>, mut read: impl FnMut(Addr<Ipa>) -> Option<u64>) -> Walk {
    let mut steps = ArrayVec::new();
    let end = follow(regime, va.bits(), &mut read, &mut steps);
    Walk { steps, end }
}

fn follow(
    regime: &Regime,
    va: u64,
    read: &mut impl FnMut(Addr<Ipa>) -> Option<u64>,
    steps: &mut ArrayVec<Step, 4>,
) -> End {
    if regime.sctlr & 1 == 0 {
        return End::Off;
    }
    let Half { table, bits, granule } = match regime.half(va) {
        Ok(half) => half,
        Err(end) => return end,
    };
    let each = granule - 3;
    // 1 to 4, by the limits on `bits`.
    let levels = (bits - granule).div_ceil(each);
    let top = bits - granule - each * (levels - 1);
    // The root is aligned to its own size, at least 64 bytes; CnP and the ASID are beside it.
    let mut table = table & 0x0000_ffff_ffff_ffff & !((8_u64 << top).max(64) - 1);
    for down in (0..levels).rev() {
        // At most 3.
        let level = 3 - down as u8;
        let shift = granule + each * down;
        let width = if down + 1 == levels { top } else { each };
        let index = va >> shift & ((1 << width) - 1);
        let at = Addr::new(table | index << 3);
        let word = read(at);
        if steps.try_push(Step { level, at, word }).is_err() {
            return End::BadTcr;
        }
        match word.map(|word| Stage1::decode(word, granule, level, shift)) {
            None => return End::Unreadable,
            Some(Stage1::Fault) => return End::Fault,
            Some(Stage1::Table(next)) => table = next,
            Some(Stage1::Leaf(output)) => return End::Output(Addr::new(output | va & ((1 << shift) - 1))),
        }
    }
    End::Fault
}

impl fmt::Display for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Step { level, at, word } in &self.steps {
            match word {
                Some(word) => writeln!(f, "  stage 1 level {level} at {at}: {word:#018x}")?,
                None => writeln!(f, "  stage 1 level {level} at {at}: not in RAM")?,
            }
        }
        match self.end {
            End::Output(ipa) => write!(f, "  stage 1: IPA {ipa}"),
            End::Off => write!(f, "  stage 1: off"),
            End::NoTable => write!(f, "  stage 1: no table for the address"),
            End::BadTcr => write!(f, "  stage 1: TCR_EL1 makes no sense"),
            End::Fault => write!(f, "  stage 1: not mapped"),
            End::Unreadable => write!(f, "  stage 1: the table is not in RAM"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{End, Regime, walk};
    use crate::addr::Addr;
    use alloc::collections::BTreeMap;

    /// 39 bits on either side, 4 KiB granule, top byte of the low half ignored.
    const FOUR_K: u64 = 25 | 25 << 16 | 2 << 30 | 1 << 37;

    fn regime(tcr: u64) -> Regime {
        Regime { ttbr0: 0x0005_0000_4000_1001, ttbr1: 0x4000_2000, tcr, sctlr: 1 }
    }

    #[test]
    fn pages_and_blocks_of_both_halves_are_found() {
        let words = BTreeMap::from([
            (0x4000_2000 + 8 * 511, 0x4000_3003_u64),
            (0x4000_3000 + 8 * 2, 0x4000_4003),
            (0x4000_4000 + 8, 0x0060_0000_5000_0703),
            (0x4000_1000 + 8, 0x4000_0701),
        ]);
        let read = |at: Addr<_>| words.get(&at.bits()).copied();
        let high = walk(&regime(FOUR_K), Addr::new(0xffff_ffff_c040_1234), read);
        assert_eq!((high.end, high.steps.len()), (End::Output(Addr::new(0x5000_0234)), 3));
        let low = walk(&regime(FOUR_K), Addr::new(0x5500_0000_7654_3210), read);
        assert_eq!((low.end, low.steps.len()), (End::Output(Addr::new(0x7654_3210)), 1));
    }

    #[test]
    fn large_granules_have_their_own_levels() {
        // 64 KiB, 42 bits: two levels of 8192 descriptors.
        let tcr = 22 | 1 << 14;
        let words = BTreeMap::from([(0x4000_0000, 0x4001_0003_u64), (0x4001_0000 + 8, 0x5000_0003)]);
        let at = Regime { ttbr0: 0x4000_0000, ..regime(tcr) };
        let found = walk(&at, Addr::new(0x1_0042), |at| words.get(&at.bits()).copied());
        assert_eq!((found.end, found.steps.len()), (End::Output(Addr::new(0x5000_0042)), 2));
        // 16 KiB, 47 bits: three levels.
        let at = regime(17 | 2 << 14);
        assert_eq!(walk(&at, Addr::new(0), |_| Some(0x4000_0003)).steps.len(), 3);
        // 16 KiB, 48 bits: four levels, two descriptors in the root.
        assert_eq!(walk(&regime(16 | 2 << 14), Addr::new(0), |_| Some(0x4000_0003)).steps.len(), 4);
    }

    #[test]
    fn what_cannot_be_walked_is_named() {
        let end = |tcr, va| walk(&regime(tcr), Addr::new(va), |_| None).end;
        assert_eq!(end(FOUR_K, 0x80_0000_0000), End::NoTable);
        assert_eq!(end(FOUR_K | 1 << 7, 0), End::NoTable);
        assert_eq!(end(FOUR_K, 0), End::Unreadable);
        assert_eq!(end(60, 0), End::BadTcr);
        assert_eq!(end(0, 0), End::BadTcr);
        assert_eq!(end(25 | 3 << 14, 0), End::BadTcr);
        let off = Regime { sctlr: 0, ..regime(FOUR_K) };
        assert_eq!(walk(&off, Addr::new(1), |_| None).end, End::Off);
    }

    #[test]
    fn any_registers_and_any_memory_end_within_four_steps() {
        let mut seed = 1_u64;
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..20_000 {
            let regime = Regime { ttbr0: next(), ttbr1: next(), tcr: next(), sctlr: 1 };
            let va = Addr::new((next() as i64 >> (next() % 64)) as u64);
            let word = next() | 3;
            assert!(walk(&regime, va, |_| Some(word)).steps.len() <= 4);
        }
    }

    /// Of any granule, size and half, to a leaf of any level: the tables lie 16 MiB apart, each index on the way has its descriptor.
    #[test]
    fn an_address_of_any_shape_leads_where_its_tables_say() {
        let mut seed = 7_u64;
        let mut next = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        for _ in 0..4000 {
            // log2 of the granule, TG0 and TG1.
            let (granule, tg0, tg1) = [(12, 0, 2), (14, 2, 1), (16, 1, 3)][next(3) as usize];
            let (bits, is_high) = (25 + next(24), next(2) == 1);
            let low = next(1 << bits);
            // The upper half is all that has ones above.
            let va = if is_high { low | u64::MAX << bits } else { low };
            let levels = (bits - granule).div_ceil(granule - 3);
            let first_leaf = if granule == 12 { 1 } else { 2 }.max(4 - levels);
            let leaf = first_leaf + next(4 - first_leaf);
            let table = |level: u64| (1 + level) << 24;
            let span = |level: u64| granule + (3 - level) * (granule - 3);
            let output = next(1 << 44) >> span(leaf) << span(leaf);
            let mut words = BTreeMap::new();
            for level in 4 - levels..=leaf {
                let width = if level == 4 - levels { bits - span(level) } else { granule - 3 };
                let word =
                    if level < leaf { table(level + 1) | 3 } else { output | 1 << 10 | if level == 3 { 3 } else { 1 } };
                words.insert(table(level) | (low >> span(level) & ((1 << width) - 1)) << 3, word);
            }
            let size = 64 - bits;
            let other = 16;
            let (t0sz, t1sz) = if is_high { (other, size) } else { (size, other) };
            let tcr = t0sz | t1sz << 16 | tg0 << 14 | tg1 << 30;
            let [ttbr0, ttbr1] = if is_high { [0, table(4 - levels)] } else { [table(4 - levels), 0] };
            let regime = Regime { ttbr0, ttbr1, tcr, sctlr: 1 };
            let found = walk(&regime, Addr::new(va), |at: Addr<_>| words.get(&at.bits()).copied());
            let expected = End::Output(Addr::new(output | low & ((1 << span(leaf)) - 1)));
            assert_eq!((found.end, found.steps.len() as u64), (expected, leaf + levels - 3), "{va:#x} by {regime:x?}");
        }
    }

    #[test]
    fn a_root_begins_at_a_multiple_of_its_size() {
        // 39 bits: a root of 4096 bytes; 25 bits: two levels, a root of 128 bytes.
        for (t0sz, base, index, size) in [(25, 0x4000_1000_u64, 1_u64 << 30, 4096_u64), (39, 0x4000_1080, 1 << 21, 128)]
        {
            let tcr = FOUR_K & !0x3f | t0sz;
            let read = |at: Addr<_>| (at.bits() == base + 8).then_some(0x4000_0701_u64);
            // CnP, and what a driver should not have set.
            for below in [0, 1, size - 64, size - 2] {
                let regime = Regime { ttbr0: base | below, ..regime(tcr) };
                let end = walk(&regime, Addr::new(index), read).end;
                assert_eq!(end, End::Output(Addr::new(0x4000_0000)), "{t0sz}, {below:#x}");
            }
        }
    }
}
