//! Virtual EL2s at EL0, on CPUs that keep what they have walked: whatever the hardware finds in a shadow of stage 1 the hypervisor's
//! tables have said since its last TLBI for it, and whatever they say is found once it was asked for.

use crate::memory::{layout, pool, records};
use flatland::addr::{Addr, CpuId, Ipa, Size, VcpuId};
use flatland::arm::desc::Rights;
use flatland::arm::gic::Version;
use flatland::arm::vmsa::VmidBits;
use flatland::frames::SharedPool;
use flatland::machine::Machine;
use flatland::memory::check::Checked;
use flatland::memory::el2_shadow::{El2Shadows, WINDOW};
use flatland::memory::el2_walk::{El2Leaf, El2Regime};
use flatland::memory::nested_walk::Reason;
use flatland::memory::{Access, Granule, Memory, RAM_BASE};
use flatland::stage2::vmid::Vmids;
use flatland::stage2::walk::Found;
use harness::effort;
use harness::model::{Dice, Flaw, Model};
use std::collections::BTreeMap;

const BOARD: u64 = 0x8000_0000;
const BOARD_BYTES: u64 = 16 << 20;
const VCPUS: u16 = 3;
/// The hypervisor's roots, of level 1 (39 bits), and below each a table of level 2 and some of level 3.
const ROOTS: [u64; 5] = [0, 1, 2, 3, 4];
const SETS: u64 = 0x1_0000;
const BLOCKS: u64 = 3;
/// TCR_EL2: T0SZ 25, PS 2.
const TCR: u64 = 25 | 2 << 16;

/// What a regime says of an address: nothing, or a leaf; and how much around it that is said of.
type Said = Result<El2Leaf, ()>;

/// A translation or a step of one that a CPU remembers: what it was of, and an address of a table or an entry.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Kept {
    asid: u64,
    level: u32,
    /// The address, down to what an entry of the level above spans.
    va: u64,
    table: u64,
}

struct World<'w> {
    model: &'w Model,
    pool: &'w SharedPool<'w>,
    memory: Memory,
    shadows: El2Shadows,
    dice: Dice,
    /// The regime of each vCPU, and its TTBR0_EL1.
    regimes: Vec<(El2Regime, u64)>,
    /// What each regime's tables have said of each marked address since the last TLBI for it.
    lately: BTreeMap<(u64, u64), Vec<Said>>,
    kept: Vec<Kept>,
    /// Entries that were valid leaves when they were walked.
    leaves: Vec<(Kept, u64)>,
    filled: u64,
    by_heart: u64,
}

fn marks() -> impl Iterator<Item = u64> {
    (0..BLOCKS).flat_map(|block| [0, 1, 5, 511].map(|page| block << 21 | page << 12))
}

fn regime(root: u64) -> El2Regime {
    // The last has its MMU off.
    let sctlr = u64::from(root != 4);
    El2Regime { ttbr0: RAM_BASE.bits() + root * SETS, tcr: TCR, sctlr, pa_bits: 40, has_hpds: false }
}

impl<'w> World<'w> {
    fn new(model: &'w Model, pool: &'w SharedPool<'w>, seed: u64, tables: usize) -> Self {
        let mut memory = Memory::new(model, pool, layout(0, 40, Granule::Block)).unwrap();
        let vmids = Vmids::new(VmidBits::Eight, 1);
        let geometry = memory.layout().geometry;
        model.enter(CpuId(0), memory.root().vttbr(model, &vmids, CpuId(0)), geometry);
        let shadows = El2Shadows::new(model, pool, &memory, (VCPUS, Version::V3), tables).unwrap();
        shadows.map(model, pool, &mut memory).unwrap();
        let mut world = Self {
            model,
            pool,
            memory,
            shadows,
            dice: Dice::new(seed),
            regimes: vec![(regime(0), 0); usize::from(VCPUS)],
            lately: BTreeMap::new(),
            kept: Vec::new(),
            leaves: Vec::new(),
            filled: 0,
            by_heart: 0,
        };
        for root in ROOTS {
            world.put(root, 0, world.table(root, 1) | 3);
            for block in 0..BLOCKS {
                world.put(root, 0x1000 + block * 8, world.table(root, 2 + block) | 3);
            }
            world.note(root);
        }
        for vcpu in 0..VCPUS {
            world.enter(vcpu, u64::from(vcpu));
        }
        world
    }

    fn table(&self, root: u64, n: u64) -> u64 {
        RAM_BASE.bits() + root * SETS + n * 0x1000
    }

    fn put(&mut self, root: u64, at: u64, word: u64) {
        let at: Addr<Ipa> = Addr::new(self.table(root, 0) + at);
        self.memory.write(self.model, self.pool, at, &word.to_le_bytes()).unwrap();
    }

    fn says(&mut self, root: u64, va: u64) -> Said {
        match self.memory.walk_el2(self.model, self.pool, &regime(root), Addr::new(va)) {
            Ok(leaf) => Ok(leaf),
            Err(Reason::Fault(_)) => Err(()),
            Err(Reason::Miss(miss)) => panic!("{miss:?}"),
        }
    }

    /// Remembers what the tables say by now.
    fn note(&mut self, root: u64) {
        for va in marks() {
            let now = self.says(root, va);
            let said = self.lately.entry((root, va)).or_default();
            if said.last() != Some(&now) {
                said.push(now);
            }
        }
    }

    fn enter(&mut self, vcpu: u16, root: u64) {
        let before = self.forgotten();
        let ttbr = self.shadows.enter(self.model, VcpuId(vcpu), &regime(root)).expect("there is one for each");
        self.regimes[usize::from(vcpu)] = (regime(root), ttbr);
        self.drop_if(before);
        let own: Vec<_> = self.regimes.iter().filter(|(_, other)| other >> 48 == ttbr >> 48).collect();
        assert!(own.iter().all(|(other, root)| *root == ttbr && other.ttbr0 == regime(root_of(other)).ttbr0));
        assert!(own.iter().all(|(other, _)| *other == regime(root_of(other)) && root_of(other) == root_of(&own[0].0)));
    }

    fn forgotten(&self) -> u64 {
        self.model.tally().vmids + self.model.tally().alls
    }

    /// The CPUs keep nothing across what made them forget.
    fn drop_if(&mut self, before: u64) {
        if self.forgotten() != before {
            self.kept.clear();
            self.leaves.clear();
        }
        self.model.settle();
    }

    /// Changes a table of a hypervisor's.
    fn edit(&mut self) {
        let root = self.dice.below(4);
        let block = self.dice.below(BLOCKS);
        let rights = self.dice.pick(&[0, 1 << 7, 1 << 54, 1 << 7 | 1 << 54]);
        let target = RAM_BASE.bits() + (self.dice.below(4) << 21);
        match self.dice.below(8) {
            0 => self.put(root, 0x1000 + block * 8, target | rights | 0x701),
            1 => self.put(root, 0x1000 + block * 8, 0),
            2 | 3 => self.put(root, 0x1000 + block * 8, self.table(root, 2 + block) | 3),
            // All of a GiB.
            4 if self.dice.one_in(4) => self.put(root, 0, RAM_BASE.bits() | rights | 0x701),
            4 => self.put(root, 0, self.table(root, 1) | 3),
            _ => {
                let page = self.dice.pick(&[0, 1, 5, 511]);
                let word =
                    if self.dice.one_in(3) { 0 } else { target + (self.dice.below(512) << 12) + (rights | 0x703) };
                self.put(root, 0x2000 + block * 0x1000 + page * 8, word);
            }
        }
        self.note(root);
    }

    /// A TLBI of a hypervisor's: it is for all regimes, as EL2 has no ASIDs.
    fn tlbi(&mut self) {
        let all: Vec<u64> = marks().collect();
        let va = self.dice.pick(&all);
        let range = match self.dice.below(6) {
            0 => None,
            1 => Some((va, 2 << 20)),
            2 => Some((va, 3 << 12)),
            3 => Some((va, 1 << 30)),
            _ => Some((va, 4096)),
        };
        let before = self.forgotten();
        self.shadows.forget(self.model, range);
        self.drop_if(before);
        for ((root, mark), said) in &mut self.lately {
            let now = self.memory.walk_el2(self.model, self.pool, &regime(*root), Addr::new(*mark)).map_err(drop);
            let covers = |leaf: &El2Leaf| {
                let Some((start, bytes)) = range else { return true };
                let (first, last) = (mark & !(leaf.bytes - 1), mark | (leaf.bytes - 1));
                start <= last && first < start + bytes
            };
            // What is no leaf is not kept.
            said.retain(|said| matches!(said, Ok(leaf) if !covers(leaf)));
            said.push(now);
        }
    }

    /// Where the word at `at`, an address of the VM's, is: in a page that the guest cannot write to.
    fn load(&self, at: u64) -> u64 {
        let at: Addr<Ipa> = Addr::new(at);
        let Found::Leaf(leaf) = self.memory.table().walk(self.model, at) else { panic!("no table at {at:?}") };
        assert!(at >= WINDOW && at < RAM_BASE && !leaf.attr.rights.allows(Rights::W), "{at:?}: {leaf:?}");
        self.model.load(leaf.output_of(at).unwrap())
    }

    /// The leaf that the hardware finds by `ttbr`, of what it has by heart or by a walk: its entry and size.
    fn find(&mut self, ttbr: u64, va: u64) -> Option<(u64, u64)> {
        let asid = ttbr >> 48;
        let span = |level: u32| 1_u64 << (39 - 9 * level);
        if self.dice.one_in(2) {
            let by_heart: Vec<_> = self
                .leaves
                .iter()
                .filter(|(kept, _)| kept.asid == asid && kept.va == va & !(span(kept.level) - 1))
                .copied()
                .collect();
            if !by_heart.is_empty() {
                self.by_heart += 1;
                let (kept, entry) = self.dice.pick(&by_heart);
                return Some((entry, span(kept.level)));
            }
        }
        let root = Kept { asid, level: 0, va: 0, table: ttbr & 0xffff_ffff_fffe };
        let mut starts = vec![root];
        starts.extend(self.kept.iter().filter(|kept| kept.asid == asid && kept.va == va & !(span(kept.level - 1) - 1)));
        let start = self.dice.pick(&starts);
        let mut table = start.table;
        for level in start.level..=3 {
            let entry = self.load(table + va / span(level) % 512 * 8);
            if entry & 1 == 0 {
                return None;
            }
            if level == 3 || entry & 2 == 0 {
                assert!(level > 0 && (level < 3 || entry & 2 != 0), "{entry:#x} at level {level}");
                self.leaves.push((Kept { asid, level, va: va & !(span(level) - 1), table }, entry));
                return Some((entry, span(level)));
            }
            table = entry & 0xffff_ffff_f000;
            self.kept.push(Kept { asid, level: level + 1, va: va & !(span(level) - 1), table });
        }
        unreachable!()
    }

    /// What EL0 finds, if it may.
    fn reach(&mut self, ttbr: u64, va: u64, access: Access) -> Option<u64> {
        let (entry, bytes) = self.find(ttbr, va)?;
        // AF, nG, AP[1], PXN: EL0's, and nothing for EL1 to execute.
        assert_eq!(entry & (1 << 53 | 1 << 11 | 1 << 10 | 1 << 6), 1 << 53 | 1 << 11 | 1 << 10 | 1 << 6, "{entry:#x}");
        let denied = match access {
            Access::Write => entry >> 7 & 1 != 0,
            Access::Execute => entry >> 54 & 1 != 0,
            _ => false,
        };
        let output = entry & 0xffff_ffff_f000 & !(bytes - 1) | va & (bytes - 1);
        if denied { None } else { Some(output) }
    }

    fn touch(&mut self) {
        let vcpu = self.dice.below(VCPUS.into()) as usize;
        let (regime, ttbr) = self.regimes[vcpu];
        let root = root_of(&regime);
        let all: Vec<u64> = marks().collect();
        let va = self.dice.pick(&all);
        let access = self.dice.pick(&[Access::Read, Access::Write, Access::Execute]);
        let may = |leaf: &El2Leaf, output: u64| leaf.ipa.bits() == output && leaf.allows(access);
        for _ in 0..3 {
            if let Some(output) = self.reach(ttbr, va, access) {
                let said = &self.lately[&(root, va)];
                assert!(said.iter().flatten().any(|leaf| may(leaf, output)), "{va:#x} to {output:#x}: {said:x?}");
                return;
            }
            let before = self.forgotten();
            let id = VcpuId(vcpu as u16);
            let filled = self.shadows.fill(self.model, self.pool, &mut self.memory, id, va, access);
            self.drop_if(before);
            let now = self.says(root, va);
            let allowed = now.is_ok_and(|leaf| leaf.allows(access));
            assert_eq!(filled.is_ok(), allowed, "{va:#x}: {filled:?}, {now:x?}");
            if !allowed {
                return;
            }
            self.filled += 1;
            // What is kept of a leaf that allowed less is kept no more: the hardware looks again after a fault.
            self.leaves.retain(|(kept, _)| kept.asid != ttbr >> 48);
            self.kept.retain(|kept| kept.asid != ttbr >> 48);
        }
        panic!("{va:#x} is never found");
    }
}

fn root_of(regime: &El2Regime) -> u64 {
    (regime.ttbr0 - RAM_BASE.bits()) / SETS
}

/// The checker sees leaves that are EL1's to execute, that all ASIDs have or EL0 has not, and what differs from the hypervisor's.
#[test]
fn what_is_wrong_with_a_shadow_is_seen() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut world = World::new(&model, &pool, 1, 64);
    let target = RAM_BASE.bits() + (1 << 21);
    world.put(0, 0x2000, target | 0x703);
    world.shadows.fill(&model, &pool, &mut world.memory, VcpuId(0), 0, Access::Read).unwrap();
    let check = |world: &mut World<'_>| {
        let Checked { leaves, wrong, stale } = world.shadows.check(&model, &pool, &mut world.memory);
        [leaves, wrong, stale]
    };
    assert_eq!(check(&mut world), [1, 0, 0]);
    let mut table = world.regimes[0].1 & 0xffff_ffff_fffe;
    let mut at = Addr::new(0);
    for level in 0..4 {
        let Found::Leaf(leaf) = world.memory.table().walk(&model, Addr::new(table)) else { panic!("no table") };
        at = leaf.output_of(Addr::new(table)).unwrap();
        if level < 3 {
            table = model.load(at) & 0xffff_ffff_f000;
        }
    }
    let entry = model.load(at);
    for (changed, expected) in [
        (entry & !(1 << 11), [1, 1, 0]),
        (entry & !(1 << 53), [1, 1, 0]),
        (entry & !(1 << 6), [1, 1, 0]),
        (entry ^ 0x1000, [1, 0, 1]),
        (entry | 1 << 7, [1, 0, 1]),
        (0, [0; 3]),
        (entry, [1, 0, 0]),
    ] {
        model.store(at, changed);
        assert_eq!(check(&mut world), expected, "{changed:#x}");
    }
    // A table that is not in use: the next that would be.
    let Found::Leaf(leaf) = world.memory.table().walk(&model, Addr::new(world.regimes[0].1 & 0xffff_ffff_fffe)) else {
        panic!("no root")
    };
    let root = leaf.output_of(Addr::new(world.regimes[0].1 & 0xffff_ffff_fffe)).unwrap();
    model.store(root, (table + 0x1000) | 3);
    assert_eq!(check(&mut world), [1, 1, 0]);
    // The hypervisor's leaf is gone.
    world.put(0, 0x2000, 0);
    model.store(root, (table - 0x2000) | 3);
    assert_eq!(check(&mut world), [1, 0, 1]);
}

#[test]
fn a_virtual_el2_at_el0_sees_what_its_tables_say() {
    for seed in 0..8 {
        let model = Model::new(Addr::new(BOARD), BOARD_BYTES, seed, Flaw::None);
        let mut records = records();
        let pool = pool(&mut records);
        // Few tables, and enough for all.
        let mut world = World::new(&model, &pool, seed, if seed % 2 == 0 { 0 } else { 64 });
        let mut checked = Checked::default();
        for n in 0..effort(5_000) {
            if n % 50 == 0 {
                checked += world.shadows.check(&model, &pool, &mut world.memory);
            }
            match world.dice.below(12) {
                0 | 1 => world.edit(),
                2 => world.tlbi(),
                3 => {
                    let (vcpu, root) = (world.dice.below(VCPUS.into()), world.dice.below(5));
                    world.enter(vcpu as u16, root);
                }
                _ => world.touch(),
            }
        }
        assert_eq!(model.errors(), Vec::<String>::new(), "seed {seed}");
        println!("seed {seed}: {} filled, {} by heart", world.filled, world.by_heart);
        assert!(world.filled > 0 && world.by_heart > 0);
        // What is stale is so by edits.
        assert!(checked.wrong == 0 && 0 < checked.stale && checked.stale < checked.leaves, "{checked:?}");
        let World { mut memory, shadows, .. } = world;
        memory.release_all(&model, &pool);
        shadows.retire(&pool);
        memory.retire(&model, &pool);
        assert_eq!(pool.lock().counts().free, crate::memory::BOARD_BYTES / Size::Page.bytes());
    }
}

/// Leaves stay where they are until their TLBI, which takes no others: nothing is filled twice, and no CPU has to forget what it need not.
#[test]
fn what_was_filled_stays_until_it_is_forgotten() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut world = World::new(&model, &pool, 1, 64);
    for block in 0..BLOCKS {
        for page in [0, 1, 5, 511] {
            world.put(0, 0x2000 + block * 0x1000 + page * 8, RAM_BASE.bits() + (2 << 20) + (page << 12) + 0x703);
        }
    }
    let ttbr = world.regimes[0].1;
    let fill = |world: &mut World<'_>, va| {
        world.shadows.fill(&model, &pool, &mut world.memory, VcpuId(0), va, Access::Write).unwrap();
    };
    marks().for_each(|va| fill(&mut world, va));
    marks().for_each(|va| fill(&mut world, va));
    assert_eq!(world.forgotten(), 0);
    let found = |world: &mut World<'_>| -> Vec<u64> {
        let there = |va: &u64| world.reach(ttbr, *va, Access::Write).is_some();
        marks().filter(there).collect()
    };
    assert_eq!(found(&mut world), marks().collect::<Vec<_>>());
    // By the page, by the block and a page behind it, of what is not there, of all.
    let page = |block: u64, page: u64| block << 21 | page << 12;
    for (range, gone) in [
        (Some((page(0, 1) + 0x123, 4096)), vec![page(0, 1)]),
        (Some((page(2, 511), 1)), vec![page(2, 511)]),
        (Some((page(1, 0), 0x20_1000)), vec![page(1, 0), page(1, 1), page(1, 5), page(1, 511), page(2, 0)]),
        (Some((page(7, 0), 1 << 29)), vec![]),
        (Some((page(0, 6), 4096)), vec![]),
        (None, marks().collect()),
    ] {
        let before = world.forgotten();
        world.shadows.forget(&model, range);
        assert_eq!(world.forgotten() - before, u64::from(!gone.is_empty()), "{range:x?}");
        world.drop_if(before);
        let left: Vec<u64> = marks().filter(|va| !gone.contains(va)).collect();
        assert_eq!(found(&mut world), left, "{range:x?}");
        marks().for_each(|va| fill(&mut world, va));
    }
    // A range of many pages, each by itself, is not gone through: all of it goes.
    let before = world.forgotten();
    world.shadows.forget(&model, Some((0x5000, (BLOCKS << 21) - 0x6000)));
    assert_eq!(world.forgotten() - before, 1);
    world.drop_if(before);
    assert!(found(&mut world).iter().all(|va| *va < 0x5000 || *va >= (BLOCKS << 21) - 0x1000));
    assert_eq!(model.errors(), Vec::<String>::new());
}

/// A vCPU that comes back to a regime finds what it had, if it was away for a short time; and no two share one by mistake.
#[test]
fn who_comes_back_finds_what_was_filled() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut world = World::new(&model, &pool, 1, 64);
    for root in 0..4 {
        world.put(root, 0x2000, RAM_BASE.bits() + (root << 21) + 0x703);
    }
    let enter = |world: &mut World<'_>, vcpu: u16, root: u64| {
        world.shadows.enter(&model, VcpuId(vcpu), &regime(root)).expect("there is one for each")
    };
    let ttbr = enter(&mut world, 0, 0);
    world.shadows.fill(&model, &pool, &mut world.memory, VcpuId(0), 0, Access::Read).unwrap();
    let bits = |regime: El2Regime| El2Regime {
        tcr: regime.tcr | 1 << 31 | 3 << 8,
        sctlr: regime.sctlr | 0x30c5_0834,
        ..regime
    };
    for away in [1, 2] {
        for n in 0..away {
            enter(&mut world, 0, 3 + n);
        }
        // Bits that decide nothing make no other of it.
        assert_eq!(world.shadows.enter(&model, VcpuId(0), &bits(regime(0))), Some(ttbr), "away for {away}");
        assert!(world.reach(ttbr, 0, Access::Read).is_some());
    }
    for other in [
        El2Regime { tcr: TCR | 1 << 20, ..regime(0) },
        El2Regime { sctlr: 1 | 1 << 19, ..regime(0) },
        El2Regime { ttbr0: regime(0).ttbr0 + 0x1000, ..regime(0) },
        El2Regime { sctlr: 0, ..regime(0) },
    ] {
        let ttbr = enter(&mut world, 0, 0);
        assert_ne!(world.shadows.enter(&model, VcpuId(0), &other), Some(ttbr), "{other:x?}");
    }
    // One that there is not has none; one that has entered none finds nothing.
    assert_eq!(world.shadows.enter(&model, VcpuId(VCPUS), &regime(0)), None);
    let mut memory = Memory::new(&model, &pool, layout(0, 40, Granule::Block)).unwrap();
    let mut shadows = El2Shadows::new(&model, &pool, &memory, (VCPUS, Version::V3), 0).unwrap();
    assert!(shadows.fill(&model, &pool, &mut memory, VcpuId(0), 0, Access::Read).is_err());
}

/// It takes as many frames as it may, and none where there are not enough.
#[test]
fn shadows_take_as_many_tables_as_they_may() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let memory = Memory::new(&model, &pool, layout(0, 40, Granule::Block)).unwrap();
    let free = || pool.lock().counts().free;
    for (asked, taken) in [(0, 8), (7, 8), (9, 9), (64, 64), (5000, 512)] {
        let before = free();
        let shadows = El2Shadows::new(&model, &pool, &memory, (VCPUS, Version::V3), asked).unwrap();
        // And five for EL1's vectors.
        assert_eq!(before - free(), taken + 5);
        shadows.retire(&pool);
        assert_eq!(free(), before);
    }
    let mut hoard = Vec::new();
    while free() > 20 {
        hoard.extend(pool.lock().take(Size::Page, memory.layout().owner, flatland::frames::Use::Table));
    }
    assert!(matches!(
        El2Shadows::new(&model, &pool, &memory, (VCPUS, Version::V3), 64),
        Err(flatland::stage2::Refusal::Short)
    ));
    assert_eq!(free(), 20);
    hoard.into_iter().for_each(std::mem::forget);
}
