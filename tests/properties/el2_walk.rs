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

/// Makes tables for an address.
fn make(m: &Model, pool: &SharedPool<'_>, memory: &mut Memory, dice: &mut Dice) -> Case {
    let (granule, tg) = dice.pick(&[(12, 0), (14, 2), (16, 1)]);
    let bits = 25 + dice.below(24);
    let (outputs, ps) = dice.pick(&[(32, 0), (36, 1), (40, 2), (42, 3), (44, 4), (48, 5)]);
    let pa_bits = dice.pick(&[40, 44, 48]);
    let outputs: u64 = outputs.min(u64::from(pa_bits));
    let coin = |dice: &mut Dice| dice.one_in(2);
    let [is_big, wxn, tbi, hpd, has_hpds] = [0; 5].map(|_| coin(dice));
    let va = dice.roll() & ((1 << bits) - 1);
    // The indices, from the last level to the first, whose has what is left.
    let (mut left, mut rest, mut indices) = (va >> granule, bits - granule, Vec::new());
    while rest > 0 {
        let width = rest.min(granule - 3);
        indices.push(left & ((1 << width) - 1));
        (left, rest) = (left >> width, rest - width);
    }
    let start = 4 - indices.len();
    // Where the leaf is: there are no blocks at level 0, and with 4 KiB alone at level 1.
    let first_leaf = if granule == 12 { 1 } else { 2 };
    let leaf_level = start.max(first_leaf) + dice.below(4 - start.max(first_leaf) as u64) as usize;
    let path: Vec<usize> = (start..=leaf_level).collect();
    let last = path.len() - 1;
    let flawed = match dice.below(8) {
        0 if !(tbi && bits + 8 > 56) => Flawed::Address,
        1 => Flawed::Invalid(dice.below(path.len() as u64) as usize),
        2 if outputs < 48 => Flawed::Size(dice.below(path.len() as u64) as usize),
        3 => Flawed::Outside(dice.below(path.len() as u64) as usize),
        4 => Flawed::Flag,
        5 if dice.one_in(4) => Flawed::Reserved,
        _ => Flawed::Nothing,
    };
    let span = granule + (3 - leaf_level as u64) * (granule - 3);
    let output = dice.roll() & ((1 << outputs) - 1) >> span << span;
    // Tables are 64 KiB apart; some lie where no RAM is.
    let table = |n: usize| {
        let outside = if flawed == Flawed::Outside(n) { 0x1000_0000 } else { 0 };
        RAM_BASE.bits() + ((1 + n as u64) << 16) - outside
    };
    let (mut read_only, mut no_exec) = (false, false);
    for (n, level) in path.iter().enumerate() {
        // What is above the level below, and what may be anything.
        let mut word = dice.roll() & (0xf << 55 | 1 << 59);
        if n < last {
            let [ro, xn] = [0; 2].map(|_| coin(dice));
            word |= table(n + 1) | 3 | u64::from(ro) << 62 | u64::from(xn) << 60 | dice.roll() & (1 << 61 | 1 << 63);
            if !(hpd && has_hpds) {
                (read_only, no_exec) = (read_only | ro, no_exec | xn);
            }
        } else {
            word |= output | if *level == 3 { 3 } else { 1 } | dice.roll() & (0xfd << 2 | 3 << 8 | 1 << 11) & 0xfff;
            word |= 1 << 10 | dice.roll() & (1 << 54 | 1 << 53);
            if flawed == Flawed::Flag {
                word &= !(1 << 10);
            }
        }
        if flawed == Flawed::Invalid(n) {
            // A block where there are none is as good as none.
            word &= if n < last && *level < first_leaf && coin(dice) { !2 } else { !1 };
        }
        if flawed == Flawed::Size(n) {
            word |= 1 << (outputs + dice.below(48 - outputs));
        }
        let bytes = if is_big { word.to_be_bytes() } else { word.to_le_bytes() };
        let at = Addr::new(table(n) + 8 * indices[3 - level]);
        if flawed != Flawed::Outside(n) {
            memory.write(m, pool, at, &bytes).unwrap();
        }
        if n == last {
            let writes = !read_only && word >> 7 & 1 == 0;
            (read_only, no_exec) = (!writes, no_exec || word >> 54 & 1 != 0 || wxn && writes);
            left = word;
        }
    }
    let t0sz = 64 - bits;
    let mut tcr = t0sz | tg << 14 | ps << 16 | u64::from(tbi) << 20 | u64::from(hpd) << 24 | 1 << 31 | 1 << 23;
    if flawed == Flawed::Reserved {
        // TG0 0b11, T0SZ below 16 or above 39.
        tcr = match dice.below(3) {
            0 => tcr | 3 << 14,
            1 => tcr & !0x3f | dice.below(16),
            _ => tcr & !0x3f | 40 + dice.below(24),
        };
    }
    let regime = El2Regime {
        // CnP, and what would be an ASID.
        ttbr0: table(0) | 1 | dice.below(0x1_0000) << 48,
        tcr,
        sctlr: 1 | u64::from(wxn) << 19 | u64::from(is_big) << 25,
        pa_bits,
        has_hpds,
    };
    let expected = match flawed {
        Flawed::Nothing => Ok(El2Leaf {
            ipa: Addr::new(output | va & ((1 << span) - 1)),
            bytes: 1 << span,
            level: leaf_level as u8,
            writes: !read_only,
            executes: !no_exec,
            memory: (left >> 2 & 7) as u8,
            shareability: (left >> 8 & 3) as u8,
        }),
        Flawed::Address | Flawed::Reserved => fault(Wrong::Translation, 0),
        Flawed::Invalid(n) => fault(Wrong::Translation, path[n]),
        Flawed::Size(n) => fault(Wrong::AddressSize, path[n]),
        Flawed::Outside(n) => fault(Wrong::External, path[n]),
        Flawed::Flag => fault(Wrong::AccessFlag, leaf_level),
    };
    let above = if flawed == Flawed::Address { 1 << (bits + dice.below(56 - bits)) } else { 0 };
    let top = if tbi { dice.roll() & 0xff << 56 } else { 0 };
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
    // nG clear, AF, AP[2:1] 0b01, PXN; a page, a block (Arm ARM D8.3.1).
    let base = 1 << 53 | 1 << 10 | 1 << 6;
    assert_eq!([true, false].map(|is_page| leaf.descriptor(is_page)), [base | 3, base | 1]);
    assert_eq!(El2Leaf { writes: false, ..leaf }.descriptor(true), base | 3 | 1 << 7);
    assert_eq!(El2Leaf { executes: false, ..leaf }.descriptor(true), base | 3 | 1 << 54);
    assert_eq!(El2Leaf { memory: 5, shareability: 3, ..leaf }.descriptor(true), base | 3 | 5 << 2 | 3 << 8);
}
