//! A stage-2 table against a map of leaves: map, unmap, protect, split, join, and a short supply of table frames.

use flatland::addr::{Addr, CpuId, Ipa, Pa, Size};
use flatland::arm::desc::{Attr, Desc, Hole, Marks, MemType, Rights};
use flatland::arm::vmsa::{Geometry, VmidBits, vttbr};
use flatland::machine::Machine;
use flatland::stage2::join::Removed;
use flatland::stage2::unlinked::Unlinked;
use flatland::stage2::vmid::{Tag, Vmids};
use flatland::stage2::walk::Found;
use flatland::stage2::{Leaf, Refusal, Supply, Table};
use harness::model::{Dice, Flaw, Model, Tally};
use std::collections::BTreeMap;

const RAM: u64 = 0x8000_0000;
const FRAMES: u64 = 30;
const CPU: CpuId = CpuId(0);
const SIZES: [Size; 3] = [Size::Page, Size::Block, Size::Giant];

/// Table frames beside the 16 kept for the root: few enough to run out.
struct Stock<'m> {
    model: &'m Model,
    free: Vec<Addr<Pa>>,
}

impl Supply for Stock<'_> {
    fn take(&mut self) -> Option<Addr<Pa>> {
        let frame = self.free.pop()?;
        self.model.zero(frame, 1);
        self.model.publish();
        Some(frame)
    }

    fn give(&mut self, table: Addr<Pa>) {
        assert!(!self.free.contains(&table), "{table:?} was given back twice");
        self.free.push(table);
    }
}

type Reference = BTreeMap<u64, Leaf<Ipa, Pa>>;

struct World<'m> {
    model: &'m Model,
    table: Table<Ipa, Pa>,
    tag: Tag,
    stock: Stock<'m>,
    leaves: Reference,
    dice: Dice,
    places: Vec<u64>,
    /// What was split last: the likeliest to go together again.
    last: Option<(Addr<Ipa>, Size)>,
    /// How often a split, a join, and a want of frames was seen: the test is worth nothing without them.
    seen: [u64; 3],
}

fn part_size(size: Size) -> Option<Size> {
    match size {
        Size::Giant => Some(Size::Block),
        Size::Block => Some(Size::Page),
        Size::Page => None,
    }
}

impl<'m> World<'m> {
    fn new(model: &'m Model, bits: u32, seed: u64) -> Self {
        let geometry = Geometry::of_bits(bits).unwrap();
        for frame in 0..16 {
            model.zero(Addr::new(RAM + frame * 4096), 1);
        }
        model.publish();
        let free = (16..FRAMES).map(|frame| Addr::new(RAM + frame * 4096)).collect();
        let end = geometry.limit();
        let places = vec![0, 1 << 30, (1 << 30) + (5 << 21), end / 2, end - (1 << 30), end - (1 << 21)];
        Self {
            model,
            table: Table::new(Addr::new(RAM), geometry),
            tag: Tag::new(),
            stock: Stock { model, free },
            leaves: Reference::new(),
            dice: Dice::new(seed),
            places,
            last: None,
            seen: [0; 3],
        }
    }

    fn place(&mut self) -> Addr<Ipa> {
        let base = self.dice.pick(&self.places);
        let block = self.dice.below(3) << 21;
        let page = self.dice.pick(&[0, 1, 2, 511]) << 12;
        let at = Addr::new((base + block + page) % self.table.geometry().limit());
        self.model.tempt(at);
        at
    }

    fn attr(&mut self) -> Attr {
        let rights = self.dice.pick(&[Rights::R, Rights::RX, Rights::RW, Rights::RWX]);
        let mem = self.dice.pick(&[MemType::Normal, MemType::Device]);
        Attr { mem, rights, marks: Marks::new(self.dice.below(16) as u8), accessed: true }
    }

    fn covering(&self, at: Addr<Ipa>) -> Option<Leaf<Ipa, Pa>> {
        let (_, leaf) = self.leaves.range(..=at.bits()).next_back()?;
        leaf.output_of(at).map(|_| *leaf)
    }

    fn overlaps(&self, at: Addr<Ipa>, size: Size) -> bool {
        self.covering(at).is_some() || self.leaves.range(at.bits()..at.bits() + size.bytes()).next().is_some()
    }

    fn hole(&self, at: Addr<Ipa>) -> Option<Hole> {
        match self.table.walk(self.model, at) {
            Found::Gap(gap) => Some(gap.hole()),
            _ => None,
        }
    }

    fn map(&mut self) -> Result<(), String> {
        let size = self.dice.pick(&SIZES);
        let at = self.place().align_down(size);
        let output = Addr::new(self.dice.below(1 << 17) << 30 | self.dice.below(1 << 18) << 12).align_down(size);
        let attr = self.attr();
        let spare = self.stock.free.len();
        let beside = at.align_down(Size::Block) + (self.dice.below(512) << 12);
        let hole = self.hole(beside);
        match self.table.prepare(self.model, at, size, &mut self.stock) {
            Ok(ready) if self.dice.one_in(8) => {
                ready.cancel(&mut self.stock);
                same(spare, self.stock.free.len(), "a cancelled change holds no frame")
            }
            Ok(ready) => {
                same(false, self.overlaps(at, size), "nothing is mapped twice")?;
                let leaf = ready.commit(self.model, output, attr);
                self.leaves.insert(at.bits(), leaf);
                if leaf.output_of(beside).is_none() {
                    same(hole, self.hole(beside), "a hole beside a new leaf stays what it was")?;
                }
                same(Leaf::new(at, output, size, attr), leaf, "what is mapped is what was asked for")
            }
            Err(refusal) => {
                same(spare, self.stock.free.len(), "a refused change holds no frame")?;
                self.seen[2] += u64::from(refusal == Refusal::Short);
                let why = match refusal {
                    Refusal::Short => spare < 3,
                    // A table may be in the way without a leaf; a join takes it out.
                    Refusal::Occupied => self.overlaps(at, size) || size != Size::Page,
                    Refusal::Outside => size == Size::Giant,
                    // A packed or swapped block does not fall apart.
                    Refusal::Uneven => size != Size::Giant,
                    _ => false,
                };
                same(true, why, &format!("{refusal:?} for {size:?} at {at:?} has a reason"))
            }
        }
    }

    fn unmap(&mut self) -> Result<(), String> {
        let at = self.place();
        let number = self.dice.roll() as u32;
        let all = [Hole::Absent, Hole::Absent, Hole::Absent, Hole::Ballooned, Hole::Zero, Hole::Packed(number)];
        let hole = self.dice.pick(&all);
        let expected = self.covering(at).ok_or(Refusal::Missing);
        same(expected, self.table.unmap(self.model, &self.tag, at, hole), "unmapping finds the leaf")?;
        if let Ok(leaf) = expected {
            self.leaves.remove(&leaf.input.bits());
            same(Some(hole), self.hole(at), "the hole says what it was told to")?;
            if !hole.is_divisible() && leaf.size != Size::Page {
                self.table.relabel(self.model, at, Hole::Absent).map_err(|refusal| format!("{refusal:?}"))?;
            }
        }
        Ok(())
    }

    fn protect(&mut self) -> Result<(), String> {
        let at = self.place();
        let attr = self.attr();
        let expected = self.covering(at).map(|leaf| Leaf { attr, ..leaf }).ok_or(Refusal::Missing);
        same(expected, self.table.protect(self.model, &self.tag, at, attr), "protecting changes one leaf")?;
        if let Ok(leaf) = expected {
            self.leaves.insert(leaf.input.bits(), leaf);
        }
        Ok(())
    }

    fn split(&mut self) -> Result<(), String> {
        let mut at = self.place();
        let large = self.leaves.values().find(|leaf| leaf.size != Size::Page);
        if let Some(leaf) = large.filter(|_| self.dice.one_in(4)) {
            at = leaf.input;
        }
        let expected = self.covering(at).filter(|leaf| leaf.size != Size::Page);
        let short = self.stock.free.is_empty();
        match (self.table.split(self.model, &self.tag, at, &mut self.stock), expected) {
            (Ok(()), Some(leaf)) => {
                self.seen[0] += 1;
                self.last = Some((leaf.input, leaf.size));
                self.leaves.remove(&leaf.input.bits());
                let size = part_size(leaf.size).unwrap();
                for part in (0..leaf.size.bytes()).step_by(size.bytes() as usize) {
                    let leaf = Leaf::new(leaf.input + part, leaf.output + part, size, leaf.attr);
                    self.leaves.insert(leaf.input.bits(), leaf);
                }
                Ok(())
            }
            (Err(Refusal::Missing), None) => Ok(()),
            (Err(Refusal::Short), Some(_)) if short => Ok(()),
            (result, expected) => Err(format!("split gave {result:?} for {expected:?}")),
        }
    }

    fn join(&mut self) -> Result<(), String> {
        let size = self.dice.pick(&[Size::Block, Size::Giant]);
        let at = self.place().align_down(size);
        let (at, size) = self.last.filter(|_| self.dice.one_in(3)).unwrap_or((at, size));
        let whole = self.joined(at, size);
        let spare = self.stock.free.len();
        match self.table.join(self.model, &self.tag, at, size, &mut self.stock) {
            Ok(()) => {
                same(spare + 1, self.stock.free.len(), "a join gives one frame")?;
                let end = at.bits() + size.bytes();
                let old: Vec<u64> = self.leaves.range(at.bits()..end).map(|(at, _)| *at).collect();
                same(true, whole.is_some() || old.is_empty(), "only what goes together is joined")?;
                for at in old {
                    self.leaves.remove(&at);
                }
                if let Some(leaf) = whole {
                    self.seen[1] += 1;
                    self.leaves.insert(at.bits(), leaf);
                }
                Ok(())
            }
            Err(_) if whole.is_none() => same(spare, self.stock.free.len(), "a refused join gives nothing"),
            Err(refusal) => Err(format!("{refusal:?} though {whole:?} is whole")),
        }
    }

    /// Unmaps all leaves of one block or more, so that there is room for large ones again.
    fn sweep(&mut self) -> Result<(), String> {
        let size = self.dice.pick(&[Size::Block, Size::Giant]);
        let at = self.place().align_down(size);
        if self.leaves.range(at.bits()..at.bits() + size.bytes()).count() > 100 && !self.dice.one_in(4) {
            // Parts of a split: better joined.
            return Ok(());
        }
        while let Some((&input, _)) = self.leaves.range(at.bits()..at.bits() + size.bytes()).next() {
            let done = self.table.unmap(self.model, &self.tag, Addr::new(input), Hole::Absent);
            same(self.leaves.remove(&input).ok_or(Refusal::Missing), done, "a sweep finds every leaf")?;
        }
        Ok(())
    }

    /// The leaf that 512 in the reference make, if they do.
    fn joined(&self, at: Addr<Ipa>, size: Size) -> Option<Leaf<Ipa, Pa>> {
        let part = part_size(size)?;
        let first = *self.leaves.get(&at.bits())?;
        let parts = self.leaves.range(at.bits()..at.bits() + size.bytes());
        let fits = |(at, leaf): (&u64, &Leaf<Ipa, Pa>)| {
            leaf.size == part
                && leaf.attr == first.attr
                && at - first.input.bits() == leaf.output.bits() - first.output.bits()
        };
        (first.output.is_aligned(size) && parts.clone().count() == 512 && parts.into_iter().all(fits))
            .then(|| Leaf::new(at, first.output, size, first.attr))
    }

    /// The table and the modelled CPUs against the reference, at one address.
    fn check(&mut self) -> Result<(), String> {
        let at = self.place();
        let expected = self.covering(at);
        let found = match self.table.walk(self.model, at) {
            Found::Leaf(leaf) => Some(leaf),
            _ => None,
        };
        same(expected, found, "a walk finds what was mapped")?;
        let seen = self.model.translation(CPU, at);
        let told = expected.and_then(|leaf| Some((leaf.output_of(at)?, leaf.attr.mem, leaf.attr.rights)));
        let seen = seen.map(|(pa, desc)| match desc {
            Desc::Leaf(_, attr) => (pa, attr.mem, attr.rights),
            _ => unreachable!(),
        });
        same(told, seen, "a CPU finds what was mapped")
    }

    fn step(&mut self) -> Result<(), String> {
        match self.dice.below(16) {
            0..5 => self.map()?,
            5..7 => self.unmap()?,
            7 => self.protect()?,
            8..11 => self.split()?,
            11 => self.sweep()?,
            _ => self.join()?,
        }
        self.model.settle();
        self.check()?;
        match self.model.errors().into_iter().next() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        let mut leaves = Reference::new();
        self.table.for_each(self.model, |leaf| {
            leaves.insert(leaf.input.bits(), leaf);
        });
        same(&self.leaves, &leaves, "all leaves are those that were mapped")?;
        let mut outputs = Vec::new();
        let mut tables = Vec::new();
        self.table.clear(self.model, &self.tag, |part| match part {
            Removed::Leaf(at, size, attr) => outputs.push((at, size, attr)),
            Removed::Table(at) => tables.push(at),
            Removed::Hole(_) => {}
        });
        self.model.settle();
        tables.into_iter().for_each(|table| self.stock.give(table));
        let all: Vec<_> = self.leaves.values().map(|leaf| (leaf.output, leaf.size, leaf.attr)).collect();
        same(all, outputs, "clearing shows every leaf")?;
        same((FRAMES - 16) as usize, self.stock.free.len(), "clearing gives every table back")?;
        same(Vec::<String>::new(), self.model.errors(), "nothing is remembered")
    }
}

fn same<T: PartialEq + std::fmt::Debug>(expected: T, found: T, rule: &str) -> Result<(), String> {
    if expected == found { Ok(()) } else { Err(format!("{rule}: expected {expected:x?}, found {found:x?}")) }
}

/// Runs `steps` and says what they took, or at which step what went wrong.
fn run(bits: u32, seed: u64, steps: u64, flaw: Flaw) -> Result<(Tally, [u64; 3]), (u64, String)> {
    let model = Model::new(Addr::new(RAM), FRAMES * 4096, seed, flaw);
    let mut world = World::new(&model, bits, seed);
    let vmids = Vmids::new(VmidBits::Eight, 1);
    let vmid = vmids.of(&model, CPU, &world.tag);
    model.enter(CPU, vttbr(Addr::new(RAM), vmid), world.table.geometry());
    for step in 0..steps {
        world.step().map_err(|error| (step, error))?;
    }
    world.finish().map_err(|error| (steps, error))?;
    Ok((model.tally(), world.seen))
}

#[test]
fn a_table_says_what_was_mapped_in_every_size_of_space() {
    for bits in [32, 34, 36, 39, 40, 43, 44, 48] {
        let steps = 12_000;
        let (tally, [splits, joins, shorts]) = run(bits, u64::from(bits), steps, Flaw::None).unwrap();
        println!("{bits} bits: {steps} steps, {splits} splits, {joins} joins, {shorts} times short, {tally:?}");
        assert!(splits > 20 && joins > 5 && shorts > 5);
    }
}

#[test]
fn seeded_bugs_are_found() {
    for flaw in [Flaw::Forget, Flaw::Break, Flaw::Publish] {
        let found: Vec<u64> = (1..=20)
            .map(|seed| match run(40, seed, 4000, flaw) {
                Ok(_) => panic!("{flaw:?} was not found with seed {seed}"),
                Err((step, error)) => {
                    if seed == 1 {
                        println!("{flaw:?}: {error}");
                    }
                    step
                }
            })
            .collect();
        println!("{flaw:?}: found after {} steps on average, {found:?}", found.iter().sum::<u64>() / 20);
    }
}

#[test]
fn one_leaf_costs_one_invalidation_of_its_own() {
    let model = Model::new(Addr::new(RAM), FRAMES * 4096, 1, Flaw::None);
    let mut world = World::new(&model, 40, 1);
    let vmids = Vmids::new(VmidBits::Eight, 1);
    let vmid = vmids.of(&model, CPU, &world.tag);
    model.enter(CPU, vttbr(Addr::new(RAM), vmid), world.table.geometry());
    for size in SIZES {
        let at = Addr::new(3 << 30);
        let ready = world.table.prepare(&model, at, size, &mut world.stock).unwrap();
        let before = model.tally();
        ready.commit(&model, Addr::new(1 << 30), Attr::RAM);
        assert_eq!((model.tally().leaves, model.tally().vmids), (before.leaves, before.vmids), "filling a hole");
        world.table.unmap(&model, &world.tag, at, Hole::Absent).unwrap();
        assert_eq!((model.tally().leaves, model.tally().vmids), (before.leaves + 1, before.vmids), "emptying it");
        world.table.clear(&model, &world.tag, |part| {
            if let Removed::<Pa>::Table(at) = part {
                world.stock.free.push(at);
            }
        });
    }
}

/// Tables that are unlinked from a root of any shape come back once each, a few at a time, and none is left.
#[test]
fn unlinked_tables_come_back_once_and_a_few_at_a_time() {
    const STOCK: u64 = 2_000;
    const MOST: u32 = 8;
    for (bits, spread) in [32, 39, 40, 44, 48].into_iter().flat_map(|bits| [(bits, 21), (bits, 30), (bits, 12)]) {
        let model = Model::new(Addr::new(RAM), (STOCK + 16) << 12, 5, Flaw::None);
        let mut world = World::new(&model, bits, 9);
        world.stock.free = (16..16 + STOCK).map(|frame| Addr::new(RAM + frame * 4096)).collect();
        let (table, mut dice) = (world.table, Dice::new(u64::from(bits)));
        let (mut parts, mut places) = (0, Vec::new());
        for _ in 0..500 {
            let at: Addr<Ipa> = Addr::new((dice.roll() >> 20 << spread) % table.geometry().limit());
            let attr = world.attr();
            if let Ok(ready) = table.prepare(&model, at, Size::Page, &mut world.stock) {
                ready.commit(&model, Addr::new(RAM), attr);
                parts |= table.root_part(at);
                places.push(at);
            }
        }
        let taken = STOCK - world.stock.free.len() as u64;
        let mut unlinked = Unlinked::default();
        table.unlink(&model, &world.tag, parts, |table, level| unlinked.push(&model, table, level));
        assert!(places.iter().all(|at| matches!(table.walk(&model, *at), Found::Gap(_))), "{bits} bits by {spread}");
        let mut steps = 0;
        while !unlinked.is_empty() {
            let had = world.stock.free.len();
            unlinked.free_some(&model, MOST, |table| world.stock.give(table));
            assert!(world.stock.free.len() - had <= MOST as usize);
            steps += 1;
            assert!(steps <= taken, "{bits} bits by {spread}: {steps} steps for {taken} tables");
        }
        assert_eq!(world.stock.free.len() as u64, STOCK, "{bits} bits by {spread}, of {taken}");
        assert!(steps >= taken / u64::from(MOST));
        // Links are between us; only descriptors have to be published.
        model.publish();
        model.settle();
        assert_eq!(model.errors(), Vec::<String>::new(), "{bits} bits by {spread}");
    }
}

#[test]
fn the_steps_to_an_address_are_one_for_each_level_that_there_is() {
    let model = Model::new(Addr::new(RAM), FRAMES * 4096, 1, Flaw::None);
    let mut world = World::new(&model, 40, 1);
    let attr = Attr::RAM;
    for (at, size) in [(0x4000_0000, Size::Giant), (0x8020_0000, Size::Block), (0x8040_3000, Size::Page)] {
        let ready = world.table.prepare(&model, Addr::new(at), size, &mut world.stock).unwrap();
        ready.commit(&model, Addr::new(at), attr);
    }
    for (at, levels) in [
        (0x4000_1000, vec![1]),
        (0x8020_1000, vec![1, 2]),
        (0x8040_3008, vec![1, 2, 3]),
        (0x8040_4000, vec![1, 2, 3]),
        (0, vec![1]),
    ] {
        let steps = world.table.steps(&model, Addr::new(at));
        assert_eq!(steps.iter().map(|step| step.level.number()).collect::<Vec<_>>(), levels, "{at:#x}");
        for step in &steps {
            assert_eq!(step.word, model.load(step.at), "{at:#x}");
        }
        // Each is the table that the one before names.
        for pair in steps.windows(2) {
            assert_eq!(pair[0].word & 0xffff_ffff_f000, pair[1].at.bits() & !0xfff, "{at:#x}");
        }
    }
}

#[test]
fn what_lies_together_but_not_as_a_block_does_is_not_joined() {
    let model = Model::new(Addr::new(RAM), FRAMES * 4096, 1, Flaw::None);
    let mut world = World::new(&model, 40, 1);
    for (at, start, joins) in
        [(0x20_0000, 0x60_0000, true), (0x40_0000, 0x60_1000, false), (0x60_0000, 0x70_0000, false)]
    {
        for page in 0..512 {
            let (at, output) = (Addr::new(at + page * 4096), Addr::new(start + page * 4096));
            let ready = world.table.prepare(&model, at, Size::Page, &mut world.stock).unwrap();
            ready.commit(&model, output, Attr::RAM);
        }
        let done = world.table.join(&model, &world.tag, Addr::new(at), Size::Block, &mut world.stock);
        assert_eq!(done, if joins { Ok(()) } else { Err(Refusal::Uneven) }, "{start:#x}");
        let Found::Leaf(leaf) = world.table.walk(&model, Addr::new(at + 0x5000)) else { panic!("it is mapped") };
        assert_eq!(leaf.output_of(Addr::new(at + 0x5000)), Some(Addr::new(start + 0x5000)));
    }
}
