//! A guest hypervisor's stage 2, walked in software: tables are made for an address by the rules of the Arm ARM (D8.2, D8.3), of any
//! granule, start and size, so what the walk has to find is known before it begins. Then one thing is made wrong.

use crate::memory::{layout, pool, records};
use flatland::addr::{Addr, Ipa2, Size};
use flatland::arm::desc::{MemType, Rights};
use flatland::frames::SharedPool;
use flatland::memory::nested_walk::{Key, NestedFault, Reason, Wrong};
use flatland::memory::{Granule, Memory, RAM_BASE};
use harness::effort;
use harness::model::{Dice, Flaw, Model};

const BOARD: u64 = 0x8000_0000;
const BOARD_BYTES: u64 = 16 << 20;
/// Where tables but the root are, 64 KiB apart; no root is as large.
const BELOW: u64 = 4 << 20;

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
    /// VTTBR_EL2 has a bit that no address has.
    Root,
    /// The leaf's access flag.
    Flag,
    /// VTCR_EL2 says what is reserved, or does not go together.
    Reserved,
}

/// A leaf, as the book has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Found {
    ipa: u64,
    bytes: u64,
    level: u8,
    size: Size,
    rights: Rights,
    mem: MemType,
}

struct Case {
    key: Key,
    at: u64,
    expected: Result<Found, Reason>,
}

fn fault(wrong: Wrong, level: u64) -> Result<Found, Reason> {
    Err(Reason::Fault(NestedFault { wrong, level: level as u8 }))
}

/// VTCR_EL2, by dice.
struct Shape {
    granule: u64,
    tg: u64,
    bits: u64,
    start: u64,
    sl0: u64,
    outputs: u64,
    ps: u64,
}

impl Shape {
    fn roll(dice: &mut Dice) -> Self {
        let (granule, tg) = dice.pick(&[(12, 0), (14, 2), (16, 1)]);
        let sl0 = dice.below(3);
        let start = if granule == 12 { 2 - sl0 } else { 3 - sl0 };
        let (outputs, ps) = dice.pick(&[(32_u64, 0), (36, 1), (40, 2), (42, 3), (44, 4), (48, 5)]);
        let mut shape = Self { granule, tg, bits: 0, start, sl0, outputs, ps };
        // One bit of the root's index at least, and as many as sixteen tables have at most.
        let low = shape.shift(start);
        shape.bits = (low + 1 + dice.below(granule + 1)).min(48);
        shape
    }

    fn shift(&self, level: u64) -> u64 {
        self.granule + (3 - level) * (self.granule - 3)
    }

    fn vtcr(&self, flawed: Flawed, dice: &mut Dice) -> u64 {
        let of = |tg: u64, sl0: u64, bits: u64| (64 - bits) | sl0 << 6 | tg << 14 | self.ps << 16;
        // SH0, ORGN0, IRGN0, RES1.
        let other = 0x3f00 | 1 << 31;
        let low = self.shift(self.start);
        other
            | match (flawed, dice.below(5)) {
                (Flawed::Reserved, 0) => of(3, self.sl0, self.bits),
                (Flawed::Reserved, 1) => of(self.tg, 3, self.bits),
                (Flawed::Reserved, 2) => of(self.tg, self.sl0, low.max(1)),
                (Flawed::Reserved, 3) if low + self.granule + 2 <= 48 => of(self.tg, self.sl0, low + self.granule + 2),
                (Flawed::Reserved, _) => of(self.tg, self.sl0, 49 + dice.below(15)),
                _ => of(self.tg, self.sl0, self.bits),
            }
    }
}

fn flaw(dice: &mut Dice, shape: &Shape, path: usize) -> Flawed {
    let place = dice.below(path as u64) as usize;
    match dice.below(10) {
        0 => Flawed::Address,
        1 => Flawed::Invalid(place),
        2 if shape.outputs < 48 => Flawed::Size(place),
        3 => Flawed::Outside(place),
        4 => Flawed::Flag,
        5 if dice.one_in(3) => Flawed::Reserved,
        6 if shape.outputs < 48 => Flawed::Root,
        _ => Flawed::Nothing,
    }
}

/// Makes tables for an address.
fn make(m: &Model, pool: &SharedPool<'_>, memory: &mut Memory, dice: &mut Dice) -> Case {
    let shape = Shape::roll(dice);
    let at = dice.roll() & ((1 << shape.bits) - 1);
    let first_leaf = shape.start.max(if shape.granule == 12 { 1 } else { 2 });
    let leaf_level = first_leaf + dice.below(4 - first_leaf);
    let levels: Vec<u64> = (shape.start..=leaf_level).collect();
    let flawed = flaw(dice, &shape, levels.len());
    let span = shape.shift(leaf_level);
    let output = (dice.roll() & ((1 << shape.outputs) - 1)) >> span << span;
    let root_bytes = 8_u64 << (shape.bits - shape.shift(shape.start));
    let mut tables: Vec<u64> = (0..levels.len() as u64).map(|n| RAM_BASE.bits() + BELOW + (n << 16)).collect();
    tables[0] = RAM_BASE.bits() + dice.below(BELOW / root_bytes.max(1 << 12)) * root_bytes.max(1 << 12);
    let lies = |n: usize| if flawed == Flawed::Outside(n) { tables[n] - 0x1000_0000 } else { tables[n] };
    let mut leaf = 0;
    for (n, level) in levels.iter().enumerate() {
        let is_leaf = *level == leaf_level;
        // What is ignored may be anything: bits 58 to 55 and 51 of a leaf, all attributes of a table.
        let mut word = if is_leaf {
            leaf = dice.roll() & (0xf << 55 | 1 << 54 | 0x3fc) | 1 << 10 | output;
            if flawed == Flawed::Flag { leaf & !(1 << 10) } else { leaf }
        } else {
            dice.roll() & (0xf << 55) | lies(n + 1)
        };
        word |= if is_leaf && *level < 3 { 1 } else { 3 };
        match flawed {
            Flawed::Invalid(place) if place == n && (*level == 3 || !is_leaf && *level < first_leaf_of(&shape)) => {
                word &= if dice.one_in(2) { !2 } else { !1 };
            }
            Flawed::Invalid(place) if place == n => word &= !1,
            Flawed::Size(place) if place == n => word |= 1 << (shape.outputs + dice.below(48 - shape.outputs)),
            _ => {}
        }
        if lies(n) == tables[n] {
            let shift = shape.shift(*level);
            let index = if n == 0 { at >> shift } else { at >> shift & ((1 << (shape.granule - 3)) - 1) };
            memory.write(m, pool, Addr::new(tables[n] + index * 8), &word.to_le_bytes()).unwrap();
        }
    }
    let beyond = if flawed == Flawed::Root { 1 << (shape.outputs + dice.below(48 - shape.outputs)) } else { 0 };
    // The VMID, and CnP.
    let key =
        Key { vttbr: dice.below(0x1_0000) << 48 | lies(0) | beyond | dice.below(2), vtcr: shape.vtcr(flawed, dice) };
    let expected = match flawed {
        Flawed::Nothing => Ok(Found {
            ipa: output | at & ((1 << span) - 1),
            bytes: 1 << span,
            level: leaf_level as u8,
            size: match span {
                30.. => Size::Giant,
                21.. => Size::Block,
                _ => Size::Page,
            },
            rights: [(leaf >> 6 & 1, Rights::R), (leaf >> 7 & 1, Rights::W), (leaf >> 54 & 1 ^ 1, Rights::X)]
                .into_iter()
                .fold(Rights::NONE, |all, (is_set, right)| if is_set != 0 { all | right } else { all }),
            mem: match leaf >> 2 & 0xf {
                0..4 => MemType::Device,
                0xf => MemType::Normal,
                _ => MemType::NonCacheable,
            },
        }),
        Flawed::Address | Flawed::Reserved => fault(Wrong::Translation, 0),
        Flawed::Invalid(n) => fault(Wrong::Translation, levels[n]),
        Flawed::Size(n) => fault(Wrong::AddressSize, levels[n]),
        Flawed::Root => fault(Wrong::AddressSize, 0),
        Flawed::Outside(n) => fault(Wrong::External, levels[n]),
        Flawed::Flag => fault(Wrong::AccessFlag, leaf_level),
    };
    let above = if flawed == Flawed::Address { 1 << (shape.bits + dice.below(56 - shape.bits)) } else { 0 };
    Case { key, at: at | above, expected }
}

fn first_leaf_of(shape: &Shape) -> u64 {
    if shape.granule == 12 { 1 } else { 2 }
}

#[test]
fn a_guests_address_leads_where_its_hypervisors_tables_say() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 3, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut memory = Memory::new(&model, &pool, layout(0, 40, Granule::Page)).unwrap();
    let mut dice = Dice::new(19);
    let (mut found, mut faults) = (0_u32, [0_u32; 6]);
    for _ in 0..effort(20_000) {
        let case = make(&model, &pool, &mut memory, &mut dice);
        let at: Addr<Ipa2> = Addr::new(case.at);
        let walked = memory.walk_nested(&model, &pool, case.key, at).map(|nested| Found {
            ipa: nested.leaf.output_of(at).expect("it is around the address").bits(),
            bytes: nested.bytes,
            level: nested.level,
            size: nested.leaf.size,
            rights: nested.leaf.attr.rights,
            mem: nested.leaf.attr.mem,
        });
        assert_eq!(walked, case.expected, "{at:?} by {:x?}", case.key);
        match walked {
            Ok(_) => found += 1,
            Err(Reason::Fault(fault)) => faults[fault.wrong as usize] += 1,
            Err(miss) => panic!("{miss:?}"),
        }
    }
    println!("nested_walk: {found} leaves, {faults:?} faults");
    let [sizes, translations, flags, _, _, external] = faults;
    assert!([found, sizes, translations, flags, external].into_iter().all(|count| count > 0), "{found}, {faults:?}");
}
