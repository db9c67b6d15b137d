//! A virtual EL2's own stage 1, walked in software: tables are made for an address by the rules of the Arm ARM (D8.2, D8.3), from the
//! page up, so what the walk has to find is known before it begins. Then one thing is made wrong.

use crate::memory::{layout, pool, records};
use flatland::addr::Addr;
use flatland::frames::SharedPool;
use flatland::memory::el2_walk::{El2Leaf, El2Regime};
use flatland::memory::nested_walk::{NestedFault, Reason, Wrong};
use flatland::memory::{Access, Granule, Memory, RAM_BASE};
use harness::effort;
use harness::model::{Dice, Flaw, Model};

const BOARD: u64 = 0x8000_0000;
const BOARD_BYTES: u64 = 16 << 20;

/// What is wrong with the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flawed {
    Nothing,
    /// A bit of the address above those that are translated.
    Address,
    /// The descriptor at this place on the way is none.
    Invalid(usize),
    /// It has a bit that no address has.
    Size(usize),
    /// The table that it is in is not in RAM.
    Outside(usize),
    /// TTBR0_EL2 has a bit that no address has.
    Root,
    /// The leaf's access flag.
    Flag,
    /// The granule, or the size of addresses.
    Reserved,
}

struct Case {
    regime: El2Regime,
    va: u64,
    expected: Result<El2Leaf, Reason>,
}

fn fault(wrong: Wrong, level: usize) -> Result<El2Leaf, Reason> {
    Err(Reason::Fault(NestedFault { wrong, level: level as u8 }))
}

/// The regime, by dice.
struct Shape {
    granule: u64,
    tg: u64,
    bits: u64,
    outputs: u64,
    ps: u64,
    pa_bits: u32,
    is_big: bool,
    wxn: bool,
    tbi: bool,
    hpd: bool,
    has_hpds: bool,
}

impl Shape {
    fn roll(dice: &mut Dice) -> Self {
        let (granule, tg) = dice.pick(&[(12, 0), (14, 2), (16, 1)]);
        let bits = 25 + dice.below(24);
        let (outputs, ps) = dice.pick(&[(32_u64, 0), (36, 1), (40, 2), (42, 3), (44, 4), (48, 5)]);
        let pa_bits = dice.pick(&[40, 44, 48]);
        let [is_big, wxn, tbi, hpd, has_hpds] = [0; 5].map(|_| dice.one_in(2));
        let outputs = outputs.min(u64::from(pa_bits));
        Self { granule, tg, bits, outputs, ps, pa_bits, is_big, wxn, tbi, hpd, has_hpds }
    }

    /// The indices of an address, from the last level to the first, whose has what is left.
    fn indices(&self, va: u64) -> Vec<u64> {
        let (mut left, mut rest, mut indices) = (va >> self.granule, self.bits - self.granule, Vec::new());
        while rest > 0 {
            let width = rest.min(self.granule - 3);
            indices.push(left & ((1 << width) - 1));
            (left, rest) = (left >> width, rest - width);
        }
        indices
    }

    /// How many bytes the root has, to which it is aligned: of an index of what the levels below leave, and 64 at least.
    const fn root_bytes(&self) -> u64 {
        let rest = (self.bits - self.granule) % (self.granule - 3);
        let bytes = 8 << if rest == 0 { self.granule - 3 } else { rest };
        if bytes < 64 { 64 } else { bytes }
    }

    /// The first level with blocks: with 4 KiB alone it is 1.
    const fn first_leaf(&self) -> usize {
        if self.granule == 12 { 1 } else { 2 }
    }

    fn flaw(&self, path: usize, dice: &mut Dice) -> Flawed {
        let place = dice.below(path as u64) as usize;
        match dice.below(9) {
            6 if self.outputs < 48 => Flawed::Root,
            0 if self.bits < 48 => Flawed::Address,
            1 => Flawed::Invalid(place),
            2 if self.outputs < 48 => Flawed::Size(place),
            3 => Flawed::Outside(place),
            4 => Flawed::Flag,
            5 if dice.one_in(4) => Flawed::Reserved,
            _ => Flawed::Nothing,
        }
    }

    fn tcr(&self, flawed: Flawed, dice: &mut Dice) -> u64 {
        let fields = self.tg << 14 | self.ps << 16 | u64::from(self.tbi) << 20 | u64::from(self.hpd) << 24;
        let (other, size) = match (flawed, dice.below(3)) {
            (Flawed::Reserved, 0) => (3 << 14, 64 - self.bits),
            (Flawed::Reserved, 1) => (0, dice.below(16)),
            (Flawed::Reserved, _) => (0, 40 + dice.below(24)),
            _ => (0, 64 - self.bits),
        };
        fields | other | size | 1 << 31 | 1 << 23
    }
}

/// The tables on the way to an address, and what they make of it.
struct Tables {
    flawed: Flawed,
    /// 64 KiB apart; one may lie where no RAM is.
    at: Vec<u64>,
    read_only: bool,
    no_exec: bool,
    leaf: u64,
}

impl Tables {
    /// The descriptor at place `n` of the way, at `level`; the last leads to `output`.
    fn descriptor(&mut self, shape: &Shape, (n, level): (usize, usize), output: u64, dice: &mut Dice) -> u64 {
        // What is ignored may be anything.
        let mut word = dice.roll() & (0xf << 55 | 1 << 59);
        let is_leaf = n + 1 == self.at.len();
        if is_leaf {
            word |= output | if level == 3 { 3 } else { 1 } | dice.roll() & 0xbfc | dice.roll() & (3 << 53);
            word |= if self.flawed == Flawed::Flag { 0 } else { 1 << 10 };
            let writes = !self.read_only && word >> 7 & 1 == 0;
            self.no_exec |= word >> 54 & 1 != 0 || shape.wxn && writes;
            self.read_only = !writes;
            self.leaf = word;
        } else {
            let [ro, xn] = [0; 2].map(|_| dice.one_in(2));
            word |= self.at[n + 1] | 3 | u64::from(ro) << 62 | u64::from(xn) << 60 | dice.roll() & (5 << 61);
            word = if ro { word } else { word & !(1 << 62) };
            if !(shape.hpd && shape.has_hpds) {
                (self.read_only, self.no_exec) = (self.read_only | ro, self.no_exec | xn);
            }
        }
        match self.flawed {
            // A block where there are none is as good as none.
            Flawed::Invalid(at) if at == n && !is_leaf && level < shape.first_leaf() && dice.one_in(2) => word & !2,
            Flawed::Invalid(at) if at == n => word & !1,
            Flawed::Size(at) if at == n => word | 1 << (shape.outputs + dice.below(48 - shape.outputs)),
            _ => word,
        }
    }
}

/// Makes tables for an address.
fn make(m: &Model, pool: &SharedPool<'_>, memory: &mut Memory, dice: &mut Dice) -> Case {
    let shape = Shape::roll(dice);
    let va = dice.roll() & ((1 << shape.bits) - 1);
    let indices = shape.indices(va);
    let start = 4 - indices.len();
    let first_leaf = start.max(shape.first_leaf());
    let leaf_level = first_leaf + dice.below(4 - first_leaf as u64) as usize;
    let path: Vec<usize> = (start..=leaf_level).collect();
    let flawed = shape.flaw(path.len(), dice);
    let span = shape.granule + (3 - leaf_level as u64) * (shape.granule - 3);
    let output = (dice.roll() & ((1 << shape.outputs) - 1)) >> span << span;
    let outside = |n| if flawed == Flawed::Outside(n) { 0x1000_0000 } else { 0 };
    let mut at: Vec<_> = (0..path.len()).map(|n| RAM_BASE.bits() + ((1 + n as u64) << 16) - outside(n)).collect();
    at[0] += dice.below(0x1_0000 / shape.root_bytes()) * shape.root_bytes();
    let mut tables = Tables { flawed, at, read_only: false, no_exec: false, leaf: 0 };
    for (n, level) in path.iter().enumerate() {
        let word = tables.descriptor(&shape, (n, *level), output, dice);
        if flawed != Flawed::Outside(n) {
            let bytes = if shape.is_big { word.to_be_bytes() } else { word.to_le_bytes() };
            memory.write(m, pool, Addr::new(tables.at[n] + 8 * indices[3 - level]), &bytes).unwrap();
        }
    }
    let beyond = if flawed == Flawed::Root { 1 << (shape.outputs + dice.below(48 - shape.outputs)) } else { 0 };
    let regime = El2Regime {
        // CnP and what is reserved below the address, and what would be an ASID.
        ttbr0: tables.at[0] | dice.below(shape.root_bytes()) | dice.below(0x1_0000) << 48 | beyond,
        tcr: shape.tcr(flawed, dice),
        sctlr: 1 | u64::from(shape.wxn) << 19 | u64::from(shape.is_big) << 25,
        pa_bits: shape.pa_bits,
        has_hpds: shape.has_hpds,
    };
    let expected = match flawed {
        Flawed::Nothing => Ok(El2Leaf {
            ipa: Addr::new(output | va & ((1 << span) - 1)),
            bytes: 1 << span,
            level: leaf_level as u8,
            writes: !tables.read_only,
            executes: !tables.no_exec,
            memory: (tables.leaf >> 2 & 7) as u8,
            shareability: (tables.leaf >> 8 & 3) as u8,
        }),
        Flawed::Address | Flawed::Reserved => fault(Wrong::Translation, 0),
        Flawed::Invalid(n) => fault(Wrong::Translation, path[n]),
        Flawed::Size(n) => fault(Wrong::AddressSize, path[n]),
        Flawed::Root => fault(Wrong::AddressSize, 0),
        Flawed::Outside(n) => fault(Wrong::External, path[n]),
        Flawed::Flag => fault(Wrong::AccessFlag, leaf_level),
    };
    let above = if flawed == Flawed::Address { 1 << (shape.bits + dice.below(56 - shape.bits)) } else { 0 };
    let top = if shape.tbi { dice.roll() & 0xff << 56 } else { 0 };
    Case { regime, va: va | above | top, expected }
}

#[test]
fn a_virtual_el2s_address_leads_where_its_tables_say() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 3, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut memory = Memory::new(&model, &pool, layout(0, 40, Granule::Page)).unwrap();
    let mut dice = Dice::new(17);
    let (mut found, mut faults) = (0_u32, [0_u32; 6]);
    for _ in 0..effort(20_000) {
        let case = make(&model, &pool, &mut memory, &mut dice);
        let walked = memory.walk_el2(&model, &pool, &case.regime, Addr::new(case.va));
        assert_eq!(walked, case.expected, "{:#x} by {:x?}", case.va, case.regime);
        match walked {
            Ok(leaf) => {
                found += 1;
                let wants = [Access::Read, Access::Write, Access::Execute].map(|access| leaf.allows(access));
                assert_eq!(wants, [true, leaf.writes, leaf.executes]);
            }
            Err(Reason::Fault(fault)) => faults[fault.wrong as usize] += 1,
            Err(miss) => panic!("{miss:?}"),
        }
    }
    println!("el2_walk: {found} leaves, {faults:?} faults");
    let [sizes, translations, flags, _, _, external] = faults;
    assert!([found, sizes, translations, flags, external].into_iter().all(|count| count > 0), "{found}, {faults:?}");
}

#[test]
fn with_its_stage_1_off_an_address_is_the_same_as_far_as_there_are_any() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 3, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut memory = Memory::new(&model, &pool, layout(0, 40, Granule::Page)).unwrap();
    for tbi in [0, 1 << 20] {
        let regime = El2Regime { ttbr0: u64::MAX, tcr: tbi, sctlr: 0x30c5_0830, pa_bits: 40, has_hpds: true };
        let mut walk = |va| memory.walk_el2(&model, &pool, &regime, Addr::new(va));
        for va in [0, 0x4000_0123, (1 << 40) - 1] {
            let leaf = walk(va).unwrap();
            assert_eq!((leaf.ipa.bits(), leaf.bytes), (va, 1 << 40));
            assert!(leaf.writes && leaf.executes);
        }
        assert_eq!(walk(1 << 40), fault(Wrong::AddressSize, 0));
        let tagged = walk(0xab << 56 | 0x4000_0000);
        assert_eq!(tagged.is_ok(), tbi != 0, "{tagged:?}");
    }
}

#[test]
fn a_leaf_is_the_same_to_a_program_at_el0() {
    let leaf =
        El2Leaf { ipa: Addr::new(0), bytes: 4096, level: 3, writes: true, executes: true, memory: 0, shareability: 0 };
    // nG, AF, AP[2:1] 0b01, PXN; a page, a block (Arm ARM D8.3.1).
    let base = 1 << 53 | 1 << 11 | 1 << 10 | 1 << 6;
    assert_eq!([true, false].map(|is_page| leaf.descriptor(is_page)), [base | 3, base | 1]);
    assert_eq!(El2Leaf { writes: false, ..leaf }.descriptor(true), base | 3 | 1 << 7);
    assert_eq!(El2Leaf { executes: false, ..leaf }.descriptor(true), base | 3 | 1 << 54);
    assert_eq!(El2Leaf { memory: 5, shareability: 3, ..leaf }.descriptor(true), base | 3 | 5 << 2 | 3 << 8);
}
