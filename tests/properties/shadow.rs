//! A guest hypervisor and its guest over a pool that merges, compresses and balloons: what the hardware finds for the guest
//! is never more than the hypervisor's tables then ours allow, never older than the hypervisor's last TLBI, and holds what
//! was written last.

use flatland::addr::{Addr, CpuId, Ipa, Ipa2, Pa, Size, VmId};
use flatland::arm::desc::{Desc, Hole};
use flatland::arm::vmsa::{Geometry, PaRange, VmidBits};
use flatland::frames::hints::Match;
use flatland::frames::{Pool, Record, SharedPool};
use flatland::machine::Machine;
use flatland::memory::nested_walk::{Key, NestedFault, Wrong};
use flatland::memory::pack::Put;
use flatland::memory::shadow::{Fill, Scope};
use flatland::memory::share::PageClass;
use flatland::memory::{Access, Coherence, Granule, Layout, Memory, Miss, RAM_BASE};
use flatland::stage2::vmid::Vmids;
use flatland::stage2::walk::Found;
use harness::effort;
use harness::model::{Dice, Flaw, Model};
use harness::touch::{fill, resolve};
use std::collections::BTreeMap;

const BOARD: u64 = 0x8000_0000;
const BOARD_BYTES: u64 = 16 << 20;
const RAM_BYTES: u64 = 8 << 20;
/// The CPU that runs the guest, and the one that runs its hypervisor.
const GUEST: CpuId = CpuId(0);
const HYPERVISOR: CpuId = CpuId(1);
/// The hypervisor's tables: a root of level 1, one of level 2, and of level 3 for each block.
const TABLES: u64 = RAM_BASE.bits();
const BLOCKS: u64 = 3;
/// Where its guests' pages lie.
const PAGES: u64 = TABLES + (2 << 20);
/// VTCR_EL2 of a 4 KiB granule: T0SZ for 32 bits, SL0 1.
const VTCR: u64 = 32 | 1 << 6;
const MARKED: [u64; 6] = [0, 1, 2, 5, 300, 511];

/// What the hypervisor's tables say of a page: where it is, and whether it may be written.
type Mapping = Option<(u64, bool)>;

struct World<'w> {
    model: &'w Model,
    pool: &'w SharedPool<'w>,
    memory: Memory,
    vmids: Vmids,
    dice: Dice,
    /// What the hypervisor's tables say now, by block and page; and all they said since its last TLBI for it.
    now: BTreeMap<(u64, u64), Mapping>,
    lately: BTreeMap<(u64, u64), Vec<Mapping>>,
    /// Which blocks are one leaf.
    whole: [bool; BLOCKS as usize],
    /// What was written last, by the hypervisor's address.
    words: BTreeMap<u64, u64>,
    key: Key,
    tally: [u64; 6],
}

fn records() -> Vec<Record> {
    vec![Record::RESERVED; (BOARD_BYTES / 4096) as usize]
}

/// A pool of all the board's RAM.
fn pool(records: &mut [Record]) -> SharedPool<'_> {
    let ram = [(Addr::new(BOARD), BOARD_BYTES)];
    let mut pool = Pool::new(records, &ram).unwrap();
    pool.donate(ram[0]);
    SharedPool::new(pool, 7)
}

fn rule(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

impl<'w> World<'w> {
    fn new(model: &'w Model, pool: &'w SharedPool<'w>, seed: u64) -> Self {
        Self::of(model, pool, seed, RAM_BYTES)
    }

    /// One whose hypervisor has so many bytes of RAM.
    fn of(model: &'w Model, pool: &'w SharedPool<'w>, seed: u64, bytes: u64) -> Self {
        let geometry = Geometry::of_bits(32).unwrap();
        let layout = Layout {
            blocks: 0,
            owner: VmId(0),
            base: RAM_BASE,
            bytes,
            geometry,
            vtcr: geometry.vtcr(PaRange::from_mmfr0(4), VmidBits::Eight),
            granule: if seed.is_multiple_of(2) { Granule::Block } else { Granule::Page },
            coherence: Coherence::Cleaned,
        };
        let memory = Memory::new(model, pool, layout).unwrap();
        let vmids = Vmids::new(VmidBits::Eight, 2);
        model.enter(HYPERVISOR, memory.root().vttbr(model, &vmids, HYPERVISOR), geometry);
        let mut world = Self {
            model,
            pool,
            memory,
            vmids,
            dice: Dice::new(seed),
            now: BTreeMap::new(),
            lately: BTreeMap::new(),
            whole: [false; BLOCKS as usize],
            words: BTreeMap::new(),
            key: Key { vttbr: TABLES + (1 << 48), vtcr: VTCR },
            tally: [0; 6],
        };
        world.store(TABLES, TABLES + 0x1000 + 3);
        for block in 0..BLOCKS {
            world.store(TABLES + 0x1000 + block * 8, TABLES + 0x2000 + block * 0x1000 + 3);
        }
        world.enter();
        world
    }

    /// The hypervisor stores a word of its own memory.
    fn store(&mut self, at: u64, value: u64) {
        self.memory.write(self.model, self.pool, Addr::new(at), &value.to_le_bytes()).unwrap();
        self.words.insert(at, value);
    }

    /// The guest's CPU takes up its shadow.
    fn enter(&mut self) {
        let root = self.memory.shadow(self.model, self.pool, self.key).unwrap();
        let vttbr = root.vttbr(self.model, &self.vmids, GUEST);
        self.model.enter(GUEST, vttbr, self.memory.layout().geometry);
    }

    fn place(&mut self) -> (u64, u64) {
        (self.dice.below(BLOCKS), self.dice.pick(&MARKED))
    }

    /// The hypervisor maps, changes or unmaps a page or a block, and says so or not.
    fn edit(&mut self) {
        let (block, page) = self.place();
        let to = PAGES + (self.dice.below(2) << 21);
        let rights = self.dice.pick(&[0x40, 0xc0]);
        let leaf = 0x3c | 1 << 10 | rights;
        let writable = rights == 0xc0;
        let is_one = self.dice.one_in(5);
        if is_one || self.whole[block as usize] {
            // From table to block and back.
            let was = self.whole[block as usize];
            let back = was && !is_one;
            let at = TABLES + 0x1000 + block * 8;
            self.store(at, if back { TABLES + 0x2000 + block * 0x1000 + 3 } else { to | leaf | 1 });
            self.whole[block as usize] = !back;
            for page in 0..512 {
                let entry = self.words.get(&(TABLES + 0x2000 + block * 0x1000 + page * 8)).copied().unwrap_or(0);
                let of_page = (entry & 1 != 0).then_some((entry & 0xffff_f000, entry & 0x80 != 0));
                self.say(block, page, if back { of_page } else { Some((to + page * 4096, writable)) });
            }
            // A TLBI for any address of a block is one for all of it; pages take one each.
            let any = Addr::new(block << 21 | self.dice.below(512) << 12);
            let scope = if was { (any, 4096) } else { (Addr::new(block << 21), 2 << 20) };
            self.tlbi(Scope::Range(1, scope.0, scope.1), block, None);
            return;
        }
        let mapping = (!self.dice.one_in(4)).then(|| (to + (self.dice.pick(&MARKED) << 12), writable));
        let entry = mapping.map_or(0, |(at, _)| at | leaf | 3);
        self.store(TABLES + 0x2000 + block * 0x1000 + page * 8, entry);
        self.say(block, page, mapping);
        match self.dice.below(5) {
            0 => self.tlbi(Scope::All, block, None),
            1 => self.tlbi(Scope::Vmid(1), block, None),
            2 | 3 => self.tlbi(Scope::Range(1, Addr::new(block << 21 | page << 12), 4096), block, Some(page)),
            // Without one: the old translation may stay.
            _ => {}
        }
    }

    fn say(&mut self, block: u64, page: u64, mapping: Mapping) {
        self.now.insert((block, page), mapping);
        self.lately.entry((block, page)).or_insert_with(|| vec![None]).push(mapping);
    }

    fn tlbi(&mut self, scope: Scope, block: u64, page: Option<u64>) {
        self.memory.outer_forget(self.model, scope);
        let now = &self.now;
        self.lately.retain(|&(other, number), said| {
            let meant = match (scope, page) {
                (Scope::Range(..), Some(page)) => (other, number) == (block, page),
                (Scope::Range(..), None) => other == block,
                _ => true,
            };
            if meant {
                *said = vec![now.get(&(other, number)).copied().flatten()];
            }
            true
        });
    }

    /// Where the guest's CPU finds `at`, if it may use it so.
    fn reach(&self, at: Addr<Ipa2>, access: Access) -> Option<Addr<Pa>> {
        match self.model.translation(GUEST, Addr::new(at.bits())) {
            Some((pa, Desc::Leaf(_, attr))) if attr.rights.allows(access.rights()) => Some(pa),
            _ => None,
        }
    }

    /// The guest loads or stores.
    fn touch(&mut self) -> Result<(), String> {
        let (block, page) = self.place();
        let at: Addr<Ipa2> = Addr::new(block << 21 | page << 12 | self.dice.below(8) << 3);
        let access = if self.dice.one_in(2) { Access::Write } else { Access::Read };
        let says = self.now.get(&(block, page)).copied().flatten();
        for _ in 0..3 {
            if let Some(pa) = self.reach(at, access) {
                return self.use_word(at, pa, access, (block, page));
            }
            match fill(&mut self.memory, self.model, self.pool, self.key, at, access) {
                Ok(()) => self.tally[0] += 1,
                Err(Fill::Fault(fault)) => {
                    self.tally[1] += 1;
                    let denied = says.is_some_and(|(_, writable)| access == Access::Write && !writable);
                    let due = if denied { Wrong::Permission } else { Wrong::Translation };
                    return rule(fault.wrong == due && (denied || says.is_none()), || {
                        format!("{fault:?} for {says:x?}")
                    });
                }
                Err(Fill::Miss(Miss::Short)) => return Ok(()),
                Err(other) => return Err(format!("{other:?} at {at:?}")),
            }
        }
        Err(format!("{access:?} of {at:?} faults again and again"))
    }

    /// What the hardware found is what some table said since the last TLBI, then ours; and holds what it should.
    fn use_word(&mut self, at: Addr<Ipa2>, pa: Addr<Pa>, access: Access, place: (u64, u64)) -> Result<(), String> {
        let said = self.lately.get(&place).cloned().unwrap_or_default();
        let allowed = said.iter().flatten().filter(|(_, writable)| access != Access::Write || *writable);
        let found = allowed.map(|(page, _)| page | at.bits() & 0xfff).find(|ipa| {
            matches!(self.memory.table().walk(self.model, Addr::new(*ipa)), Found::Leaf(leaf)
                if leaf.output_of(Addr::new(*ipa)) == Some(pa) && leaf.attr.rights.allows(access.rights()))
        });
        let Some(ipa) = found else {
            let own = said.iter().flatten().map(|(page, _)| self.memory.table().walk(self.model, Addr::new(*page)));
            let own: Vec<_> = own.collect();
            return Err(format!("{access:?} of {at:?} reaches {pa:?}; said was {said:x?}, and ours is {own:?}"));
        };
        let is = self.model.cached(pa);
        let should = self.words.get(&ipa).copied().unwrap_or(0);
        rule(is == should, || format!("{is:#x}, not {should:#x}, at {ipa:#x}"))?;
        if access == Access::Write {
            let value = if self.dice.one_in(3) { 7 } else { self.dice.roll() };
            self.model.guest_store(pa, value);
            self.words.insert(ipa, value);
        }
        self.tally[2] += 1;
        Ok(())
    }

    /// Something happens to a page of the hypervisor's, its tables among them.
    fn stir(&mut self) -> Result<(), String> {
        let area = self.dice.pick(&[PAGES, PAGES, PAGES + (2 << 20), TABLES]);
        let at: Addr<Ipa> = Addr::new(area + (self.dice.pick(&MARKED) << 12));
        let (model, pool) = (self.model, self.pool);
        match self.dice.below(6) {
            0 | 1 => {
                while self.memory.evict(model, pool, at) == Put::Begun && !self.dice.one_in(50) {}
                self.tally[3] += 1;
            }
            2 => self.scan(at),
            3 if area != TABLES => {
                if self.memory.discard(model, pool, at, Hole::Ballooned).is_ok() {
                    for word in 0..512 {
                        self.words.remove(&(at.bits() + word * 8));
                    }
                    self.tally[4] += 1;
                }
            }
            4 => {
                let _ = self.memory.split(model, pool, at.align_down(Size::Block));
            }
            _ => {
                let dice = &mut self.dice;
                self.memory.sample(model, pool, true, || dice.roll());
            }
        }
        let checked = self.memory.check(model, pool);
        rule(checked.wrong == 0, || format!("the checker: {checked:?}"))
    }

    fn scan(&mut self, at: Addr<Ipa>) {
        let (model, pool, memory) = (self.model, self.pool, &mut self.memory);
        if memory.is_block(model, at) && memory.split(model, pool, at).is_err() {
            return;
        }
        let merged = match memory.classify(model, pool, at) {
            PageClass::Zero => memory.drop_zeroes(model, pool, at),
            PageClass::Same(found, hash) => {
                let frame = match found {
                    Match::Shared(frame) => Some(frame),
                    Match::Hint(_, page) => memory.freeze(model, pool, page, hash),
                };
                frame.is_some_and(|frame| memory.merge(model, pool, at, frame))
            }
            _ => false,
        };
        self.tally[5] += u64::from(merged);
    }

    fn step(&mut self) -> Result<(), String> {
        match self.dice.below(8) {
            0 | 1 => self.edit(),
            2 | 3 => self.stir()?,
            4 if self.dice.one_in(20) => {
                // Another guest of the hypervisor's is entered for a while; there are more than it has shadows for.
                let vmid = 2 + self.dice.below(30);
                let _ = self.memory.shadow(self.model, self.pool, Key { vttbr: TABLES + (vmid << 48), vtcr: VTCR });
                self.enter();
            }
            _ => self.touch()?,
        }
        match self.model.errors().first() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }
}

fn run(seed: u64, steps: u64, flaw: Flaw) -> Result<([u64; 6], [u64; 2]), (u64, String)> {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, seed, flaw);
    let mut records = records();
    let pool = pool(&mut records);
    let mut world = World::new(&model, &pool, seed);
    for step in 0..steps {
        world.step().map_err(|why| (step, why))?;
    }
    let counts = world.memory.shadow_counts();
    Ok((world.tally, [counts.killed, counts.dropped]))
}

#[test]
fn a_guests_guest_sees_what_both_tables_allow_and_what_was_written_last() {
    let mut ended = [0; 2];
    // The first drops no shadow.
    for seed in 0..effort(5).max(2) {
        let (tally, [killed, dropped]) = run(seed, 5000, Flaw::None).unwrap();
        println!(
            "seed {seed}: {tally:?}: filled, refused, used, put away, ballooned, merged; {killed} killed, {dropped} dropped"
        );
        assert!(tally.iter().all(|&n| n > 10), "{tally:?}");
        ended = [ended[0] + killed, ended[1] + dropped];
    }
    assert!(ended.iter().all(|&n| n > 0), "{ended:?} killed and dropped");
}

#[test]
fn a_shadow_that_is_forgotten_too_late_is_found() {
    for flaw in [Flaw::Forget, Flaw::Break, Flaw::Publish] {
        let found = (0..20).find_map(|seed| run(seed, 4000, flaw).err());
        let (step, why) = found.unwrap_or_else(|| panic!("{flaw:?} was not found"));
        println!("{flaw:?}: {why}, after {step} steps");
    }
}

/// Many addresses of guests for one page of the hypervisor's, each in one of several shadows: when the page goes, or may
/// only be read, no address of theirs leads to its frame any more, however many there are and whatever list is full.
#[test]
fn a_page_that_goes_takes_all_its_aliases_along() {
    for aliases in [0_u64, 1, 511, 512, 513, 514, 2000] {
        for shadows in (1..=8).step_by(if aliases == 2000 { 7 } else { 1 }) {
            for way in 0..3 {
                let displaced = alias(aliases, shadows, way).unwrap_or_else(|why| {
                    panic!("{aliases} aliases in {shadows} shadows, way {way}: {why}");
                });
                // The first of all, and the list's: for each of whatever more there are, one made way.
                assert_eq!(displaced, aliases.saturating_sub(513), "{aliases} aliases in {shadows} shadows");
            }
        }
    }
}

/// Returns how many leaves made way for others.
fn alias(aliases: u64, shadows: u64, way: u64) -> Result<u64, String> {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, aliases + shadows, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut world = World::new(&model, &pool, 1);
    // One page behind each address.
    for n in 0..aliases {
        let (block, page) = (n / 512, n % 512);
        world.store(TABLES + 0x1000 + block * 8, TABLES + 0x2000 + block * 0x1000 + 3);
        world.store(TABLES + 0x2000 + block * 0x1000 + page * 8, PAGES + 0x4ff);
    }
    let keys: Vec<_> = (0..shadows).map(|n| Key { vttbr: TABLES + ((n + 1) << 48), vtcr: VTCR }).collect();
    let page: Addr<Ipa> = Addr::new(PAGES);
    world.memory.write(&model, &pool, page, &[0x5a; 4096]).unwrap();
    let geometry = world.memory.layout().geometry;
    let enter = |world: &mut World<'_>, key: Key| {
        let root = world.memory.shadow(&model, &pool, key).unwrap();
        let vttbr = root.vttbr(&model, &world.vmids, GUEST);
        model.enter(GUEST, vttbr, geometry);
    };
    for n in 0..aliases {
        let key = keys[(n % shadows) as usize];
        enter(&mut world, key);
        let at: Addr<Ipa2> = Addr::new(n << 12);
        fill(&mut world.memory, &model, &pool, key, at, Access::Write).map_err(|why| format!("{why:?} of {at:?}"))?;
        rule(world.reach(at, Access::Write).is_some(), || format!("{at:?} was filled and is not there"))?;
    }
    let Found::Leaf(own) = world.memory.table().walk(&model, page) else { return Err("the page is gone".into()) };
    let frame = own.output_of(page).ok_or("the leaf is not the page's")?;
    let checked = world.memory.check(&model, &pool);
    rule(checked.wrong == 0, || format!("before: {checked:?}"))?;
    match way {
        0 => drop(world.memory.discard(&model, &pool, page, Hole::Ballooned)),
        1 => while world.memory.evict(&model, &pool, page) == Put::Begun {},
        _ => {
            let hash = pool.hash().of(model.frame(frame));
            let number = ((PAGES - RAM_BASE.bits()) >> 12) as u32;
            rule(world.memory.freeze(&model, &pool, number, hash).is_some(), || "it is not frozen".into())?;
        }
    }
    for key in keys {
        enter(&mut world, key);
        for n in 0..aliases {
            let reached = world.reach(Addr::new(n << 12), Access::Write);
            rule(reached.is_none_or(|pa| pa.align_down(Size::Page) != frame), || {
                format!("{n} still writes to {frame:?}")
            })?;
        }
    }
    let checked = world.memory.check(&model, &pool);
    rule(checked.wrong == 0, || format!("after: {checked:?}"))?;
    match model.errors().first() {
        Some(error) => Err(error.clone()),
        None => Ok(world.memory.shadow_counts().displaced),
    }
}

#[test]
fn forgetting_much_is_no_long_work() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 7, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut world = World::new(&model, &pool, 1);
    let pages = BLOCKS * 512;
    for n in 0..pages {
        world.store(TABLES + 0x2000 + n * 8, PAGES + (n << 12) + 0x4ff);
    }
    // All there is, one page, some pages: the last two take what they are for and no more.
    for (first, bytes, left) in [(0, 1 << 32, 0), (77, 4096, pages - 1), (512, 128 << 12, pages - 128)] {
        world.enter();
        for n in 0..pages {
            fill(&mut world.memory, &model, &pool, world.key, Addr::new(n << 12), Access::Write).unwrap();
        }
        let before = model.tally();
        world.memory.outer_forget(&model, Scope::Range(1, Addr::new(first << 12), bytes));
        let after = model.tally();
        let stores = after.stores - before.stores;
        assert!(stores <= 256 + 8, "{stores} stores for {bytes:#x} bytes");
        assert_eq!(world.memory.check(&model, &pool).leaves, left, "{bytes:#x}");
        for n in (0..pages).filter(|n| (first..first + (bytes >> 12)).contains(n)) {
            assert!(world.reach(Addr::new(n << 12), Access::Read).is_none(), "{n} is there");
        }
    }
    model.settle();
    assert_eq!(model.errors(), Vec::<String>::new());
}

/// A hypervisor whose guest finds one page at each 2 MiB of 4 GiB.
fn spread(world: &mut World<'_>) {
    for n in 0..512 {
        if n < 4 {
            world.store(TABLES + n * 8, TABLES + 0x1000 + 3);
        }
        world.store(TABLES + 0x1000 + n * 8, TABLES + 0x2000 + 3);
    }
    world.store(TABLES + 0x2000, PAGES + 0x4ff);
}

/// A guest hypervisor whose guests have a page at each 2 MiB, as far as addresses go, with tables of its own that are three
/// pages: shadows have no more tables than they may, and the leaf that was asked for is there all the same.
#[test]
fn shadows_have_no_more_tables_than_they_may() {
    const LIMIT: u64 = 400;
    /// The most frames that come free in one go: some, as often as it takes to get under the limit.
    const MOST: u64 = 2 * 16;
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 7, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut world = World::new(&model, &pool, 1);
    world.memory.prepare_shadows(1, LIMIT);
    spread(&mut world);
    let geometry = world.memory.layout().geometry;
    let before = world.memory.resident().tables;
    let mut dice = Dice::new(3);
    for n in 0..12_000_u64 {
        let key = Key { vttbr: TABLES + ((1 + dice.below(3)) << 48), vtcr: VTCR };
        let root = world.memory.shadow(&model, &pool, key).unwrap();
        let vttbr = root.vttbr(&model, &world.vmids, GUEST);
        model.enter(GUEST, vttbr, geometry);
        let at: Addr<Ipa2> = Addr::new((n % 2048) << 21);
        let had = world.memory.resident().shadows;
        fill(&mut world.memory, &model, &pool, key, at, Access::Write).unwrap();
        assert!(world.memory.resident().shadows + MOST >= had, "a leaf gave back more than {MOST} of {had} tables");
        assert!(world.reach(at, Access::Write).is_some(), "{at:?} was filled and is not there");
        let resident = world.memory.resident();
        assert!(resident.shadows <= LIMIT, "{resident:?}");
        // The roots of three, the tables of the own page, and what the leaves are found by.
        assert!(resident.tables - resident.shadows <= before + 3 * 2 + 8, "{resident:?}, before {before}");
    }
    assert!(world.memory.shadow_counts().dropped > 30, "{:?}", world.memory.shadow_counts());
    let checked = world.memory.check(&model, &pool);
    assert_eq!(checked.wrong, 0, "{checked:?}");
    // What no vCPU is in can be had back, and no more than that.
    let mut freed = 0;
    let dropped = world.memory.shadow_counts().dropped;
    while let n @ 1.. = world.memory.drop_idle_shadow(&model, &pool) {
        assert!(n <= MOST, "{n} at once");
        freed += n;
    }
    assert!(freed > 0);
    assert_eq!(world.memory.resident().shadows, 0, "nobody holds a root of these");
    let emptied = world.memory.shadow_counts().dropped.wrapping_sub(dropped);
    assert!((1..=3).contains(&emptied), "{emptied} of three");
    assert_eq!(model.errors(), Vec::<String>::new());
}

/// What shadows and what is kept for them hold goes back a few frames at a time when the VM is over, and all of it.
#[test]
fn shadows_end_in_steps() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 7, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut world = World::new(&model, &pool, 1);
    spread(&mut world);
    world.enter();
    for n in 0..300_u64 {
        fill(&mut world.memory, &model, &pool, world.key, Addr::new(n << 21), Access::Read).unwrap();
    }
    model.leave(GUEST);
    let (mut steps, mut had) = (0, world.memory.resident().tables);
    assert!(world.memory.resident().shadows >= 300, "{:?}", world.memory.resident());
    while !world.memory.is_released() {
        world.memory.release_some(&model, &pool, &mut || true);
        let has = world.memory.resident().tables;
        assert!(had - has <= 2 * 16, "{} tables in step {steps}", had - has);
        (steps, had) = (steps + 1, has);
    }
    assert!(steps > 300 / 16, "{steps} steps");
    assert_eq!(world.memory.resident().shadows, 0);
    world.memory.release_all(&model, &pool);
    assert_eq!(world.memory.check(&model, &pool).wrong, 0);
    assert_eq!(model.errors(), Vec::<String>::new());
}

/// A leaf that is part of a larger one of the hypervisor's goes with any part of that, though the shadow that it is in was
/// emptied to make room for it.
#[test]
fn a_leaf_that_made_room_for_itself_goes_with_the_larger_one_it_is_of() {
    const LIMIT: u64 = 64;
    const BLOCK: u64 = 511 << 21;
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 7, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut world = World::new(&model, &pool, 1);
    world.memory.prepare_shadows(1, LIMIT);
    spread(&mut world);
    world.store(TABLES + 0x1000 + 511 * 8, (PAGES & !0x1f_ffff) + 0x4fd);
    world.enter();
    for n in 0.. {
        if world.memory.resident().shadows + 3 > LIMIT {
            break;
        }
        fill(&mut world.memory, &model, &pool, world.key, Addr::new(n << 21), Access::Read).unwrap();
    }
    let at: Addr<Ipa2> = Addr::new(BLOCK);
    fill(&mut world.memory, &model, &pool, world.key, at, Access::Read).unwrap();
    assert_eq!(world.memory.shadow_counts().dropped, 1, "it was emptied for that");
    assert!(world.reach(at, Access::Read).is_some());
    world.memory.outer_forget(&model, Scope::Range(1, Addr::new(BLOCK + 0x5000), 4096));
    assert!(world.reach(at, Access::Read).is_none(), "any part of a leaf stands for all of it");
    assert_eq!(model.errors(), Vec::<String>::new());
}

/// The same where the leaf is a page, as ours are pages there; and a page of the hypervisor's goes with no other.
#[test]
fn a_page_that_is_part_of_a_larger_leaf_goes_with_any_part_of_that() {
    const BLOCK: u64 = 511 << 21;
    for is_block in [false, true] {
        let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 7, Flaw::None);
        let mut records = records();
        let pool = pool(&mut records);
        let mut world = World::new(&model, &pool, 1);
        world.memory.prepare_shadows(1, 64);
        spread(&mut world);
        let ram = PAGES & !0x1f_ffff;
        if is_block {
            world.store(TABLES + 0x1000 + 511 * 8, ram + 0x4fd);
        } else {
            world.store(TABLES + 0x1000 + 511 * 8, TABLES + 0x3000 + 3);
            for n in 0..512 {
                world.store(TABLES + 0x3000 + n * 8, ram + (n << 12) + 0x4ff);
            }
        }
        world.enter();
        // A look at a page with a hash that it does not have leaves ours in pages.
        let number = (ram - RAM_BASE.bits()) >> 12;
        let _ = resolve(&mut world.memory, &model, &pool, Addr::new(ram), Access::Write);
        assert_eq!(world.memory.freeze(&model, &pool, number as u32, 0), None);
        let at: Addr<Ipa2> = Addr::new(BLOCK + 0x3000);
        fill(&mut world.memory, &model, &pool, world.key, at, Access::Read).unwrap();
        assert!(world.reach(at, Access::Read).is_some());
        assert!(world.reach(Addr::new(BLOCK + 0x4000), Access::Read).is_none(), "it is a page");
        world.memory.outer_forget(&model, Scope::Range(1, Addr::new(BLOCK + 0x5000), 4096));
        assert_eq!(world.reach(at, Access::Read).is_none(), is_block);
        assert_eq!(model.errors(), Vec::<String>::new());
    }
}

/// What a leaf lacks is a fault of the hypervisor's to handle, at the level of the leaf.
#[test]
fn a_leaf_without_a_right_or_its_access_flag_is_a_fault_at_its_level() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 7, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut world = World::new(&model, &pool, 1);
    const ALL: u64 = 0x4fc;
    let (flag, read, write, exec) = (1 << 10, 1 << 6, 1 << 7, 1 << 54);
    for (lacks, has, access, wrong) in [
        (0, 0, Access::Write, None),
        (flag, 0, Access::Read, Some(Wrong::AccessFlag)),
        (read, 0, Access::Read, Some(Wrong::Permission)),
        (write, 0, Access::Write, Some(Wrong::Permission)),
        (write, 0, Access::Read, None),
        (0, exec, Access::Execute, Some(Wrong::Permission)),
        (0, exec, Access::Write, None),
        (flag | write, exec, Access::Write, Some(Wrong::AccessFlag)),
    ] {
        let leaf = PAGES & !0x1f_ffff | ALL & !lacks | has;
        for (level, at, word) in [(3, TABLES + 0x2000, leaf | 3), (2, TABLES + 0x1000, leaf | 1)] {
            world.store(TABLES + 0x1000, TABLES + 0x2000 + 3);
            world.store(at, word);
            world.memory.outer_forget(&model, Scope::All);
            let filled = fill(&mut world.memory, &model, &pool, world.key, Addr::new(0), access);
            let expected = match wrong {
                Some(wrong) => Err(Fill::Fault(NestedFault { wrong, level })),
                None => Ok(()),
            };
            assert_eq!(filled, expected, "{word:#x}, {access:?}");
        }
    }
}

/// What the hypervisor has changed without its TLBI so far is stale, and nothing else is.
#[test]
fn a_leaf_is_stale_from_the_change_to_its_tlbi() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 7, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut world = World::new(&model, &pool, 1);
    let leaf = |page: u64, rights: u64| PAGES + (page << 12) + 0x43f + rights;
    let (read, both) = (0x40, 0xc0);
    for (word, stale) in [(leaf(0, both), 0), (leaf(0, read), 1), (leaf(1, both), 1), (0, 1), (leaf(0, both), 0)] {
        world.store(TABLES + 0x2000, leaf(0, both));
        world.store(TABLES + 0x2008, leaf(7, both));
        world.enter();
        for n in 0..2 {
            fill(&mut world.memory, &model, &pool, world.key, Addr::new(n << 12), Access::Write).unwrap();
        }
        world.store(TABLES + 0x2000, word);
        let checked = world.memory.check(&model, &pool);
        assert_eq!((checked.leaves, checked.wrong, checked.stale), (2, 0, stale), "{word:#x}");
        world.memory.outer_forget(&model, Scope::Range(1, Addr::new(0), 4096));
        let checked = world.memory.check(&model, &pool);
        assert_eq!((checked.leaves, checked.wrong, checked.stale), (1, 0, 0), "{word:#x}");
    }
}

/// What shadows hold is given back some of it at a time, as often as it is asked.
#[test]
fn what_shadows_hold_goes_in_steps() {
    const SPREAD: u64 = 60;
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 7, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut world = World::of(&model, &pool, 1, 128 << 20);
    // A page in each of many blocks.
    for n in 0..SPREAD {
        world.store(TABLES + 0x2000 + n * 8, PAGES + (n << 21) + 0x4ff);
        fill(&mut world.memory, &model, &pool, world.key, Addr::new(n << 12), Access::Write).unwrap();
    }
    let mut steps = 0;
    while !world.memory.is_released() {
        let before = world.memory.resident();
        world.memory.release_some(&model, &pool, &mut || true);
        let after = world.memory.resident();
        if after.frames == before.frames && after.frames > 0 {
            assert!(before.tables - after.tables <= 10, "{before:?}, then {after:?}");
            steps += 1;
        }
    }
    assert!(steps >= SPREAD / 10, "{steps} steps");
    assert_eq!(model.errors(), Vec::<String>::new());
}

/// An alias that the hypervisor has taken back makes room for the next: none that is there makes way for it.
#[test]
fn an_alias_that_is_gone_takes_no_room() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 7, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut world = World::new(&model, &pool, 1);
    for n in 0..1536 {
        world.store(TABLES + 0x2000 + n * 8, PAGES + 0x4ff);
    }
    world.enter();
    for n in 0..1536 {
        let at: Addr<Ipa2> = Addr::new(n << 12);
        fill(&mut world.memory, &model, &pool, world.key, at, Access::Write).unwrap();
        world.memory.outer_forget(&model, Scope::Range(1, at, 4096));
    }
    assert_eq!(world.memory.shadow_counts().displaced, 0);
    assert_eq!(model.errors(), Vec::<String>::new());
}

/// The same of blocks: those for which there is no room make way, and what is left goes with a page of theirs.
#[test]
fn a_block_that_goes_takes_all_its_aliases_along_however_many_made_way() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 7, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut world = World::new(&model, &pool, 2);
    let blocks = [0, 1].map(|n| PAGES + (n << 21));
    // Each of 2048 addresses of blocks is one of 512.
    for n in 0..512 {
        if n < 4 {
            world.store(TABLES + n * 8, TABLES + 0x1000 + 3);
        }
        world.store(TABLES + 0x1000 + n * 8, blocks[(n % 2) as usize] + 0x4fd);
    }
    world.enter();
    for n in 0..1200 {
        let at: Addr<Ipa2> = Addr::new(n << 21);
        fill(&mut world.memory, &model, &pool, world.key, at, Access::Write).unwrap();
        assert!(world.reach(at + 0x5000, Access::Write).is_some(), "{n} is a block");
    }
    // The first of each block has a place of its own, and 512 have one together.
    assert_eq!(world.memory.shadow_counts().displaced, 1200 - 2 - 512);
    let there =
        |world: &World<'_>| (0..1200).filter(|n| world.reach(Addr::new(n << 21), Access::Read).is_some()).count();
    assert_eq!(there(&world), 514);
    let _ = world.memory.discard(&model, &pool, Addr::new(blocks[1] + 0x3000), Hole::Ballooned);
    assert_eq!(there(&world), 257);
    let _ = world.memory.discard(&model, &pool, Addr::new(blocks[0] + 0x3000), Hole::Ballooned);
    assert_eq!(there(&world), 0);
    let counts = world.memory.shadow_counts();
    assert_eq!((counts.filled, counts.moved, counts.killed), (1200, 2, 514), "{counts:?}");
    assert_eq!(world.memory.check(&model, &pool).wrong, 0);
    assert_eq!(model.errors(), Vec::<String>::new());
}

/// Parts of a leaf of 1 GiB go with any address in that; and a block is filled in pages where there are some already.
#[test]
fn parts_of_the_largest_leaf_go_with_any_part_of_it() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 7, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut world = World::new(&model, &pool, 2);
    let ram = RAM_BASE.bits();
    world.memory.outer_forget(&model, Scope::All);
    // The hypervisor's first GiB is its own.
    let mut root = [0; 4096];
    root[..8].copy_from_slice(&(ram | 0x4fd).to_le_bytes());
    world.memory.write(&model, &pool, Addr::new(TABLES), &root).unwrap();
    let (low, high) = (PAGES - ram + 0x3000, PAGES - ram + (4 << 20));
    for forgotten in [low, 0, (1 << 30) - 4096] {
        world.enter();
        for at in [low, high] {
            fill(&mut world.memory, &model, &pool, world.key, Addr::new(at), Access::Write).unwrap();
            assert!(world.reach(Addr::new(at), Access::Write).is_some(), "{at:#x}");
        }
        world.memory.outer_forget(&model, Scope::Range(1, Addr::new(forgotten), 4096));
        assert!([low, high].iter().all(|at| world.reach(Addr::new(*at), Access::Read).is_none()), "{forgotten:#x}");
    }
    assert_eq!(model.errors(), Vec::<String>::new());
}

#[test]
fn a_block_is_filled_in_pages_where_pages_are() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 7, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut world = World::new(&model, &pool, 2);
    world.store(TABLES + 0x2000, PAGES + 0x4ff);
    world.enter();
    fill(&mut world.memory, &model, &pool, world.key, Addr::new(0), Access::Write).unwrap();
    // By now it is a block to the hypervisor, whose TLBI is yet to come.
    world.store(TABLES + 0x1000, PAGES + 0x4fd);
    fill(&mut world.memory, &model, &pool, world.key, Addr::new(0x5000), Access::Write).unwrap();
    let there = |world: &World<'_>| [0, 0x4000, 0x5000].map(|at| world.reach(Addr::new(at), Access::Write).is_some());
    assert_eq!(there(&world), [true, false, true]);
    world.memory.outer_forget(&model, Scope::Range(1, Addr::new(0x7000), 4096));
    assert_eq!(there(&world), [false; 3], "all of a block goes with a part of it");
    assert_eq!(model.errors(), Vec::<String>::new());
}

/// Two blocks of a hypervisor's RAM that its guest finds twice each, one leaf of each in the list: when a page of one goes,
/// both leaves of its block go and none of the other's, which go with a page of theirs.
#[test]
fn a_block_that_goes_takes_its_own_aliases_along_and_no_others() {
    for first in [0_u64, 1] {
        let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 7, Flaw::None);
        let mut records = records();
        let pool = pool(&mut records);
        let mut world = World::new(&model, &pool, 2);
        let blocks = [0, 1].map(|n| PAGES + (n << 21));
        for n in 0..4 {
            world.store(TABLES + 0x1000 + n * 8, blocks[(n % 2) as usize] + 0x4fd);
        }
        world.enter();
        for n in 0..4 {
            fill(&mut world.memory, &model, &pool, world.key, Addr::new(n << 21), Access::Write).unwrap();
            assert!(world.reach(Addr::new((n << 21) + 0x5000), Access::Write).is_some(), "{n} is a block");
        }
        for gone in [first, 1 - first] {
            let _ = world.memory.discard(&model, &pool, Addr::new(blocks[gone as usize] + 0x3000), Hole::Ballooned);
            for n in 0..4 {
                let there = gone == first && n % 2 != first;
                assert_eq!(world.reach(Addr::new(n << 21), Access::Read).is_some(), there, "{n} after {gone}");
            }
            assert_eq!(world.memory.check(&model, &pool).wrong, 0);
        }
        assert_eq!(model.errors(), Vec::<String>::new());
    }
}

/// A shadow's leaf that allows what our own table does not is wrong, whatever the hypervisor allows.
#[test]
fn a_leaf_with_rights_that_ours_has_not_is_found() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 7, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut world = World::new(&model, &pool, 1);
    world.memory.prepare_shadows(1, 64);
    spread(&mut world);
    world.enter();
    let ram: Addr<Ipa> = Addr::new(PAGES);
    let frame = resolve(&mut world.memory, &model, &pool, ram, Access::Write).unwrap().output_of(ram).unwrap();
    let hash = pool.hash().of(model.frame(frame));
    let number = (ram.bits() - RAM_BASE.bits()) >> 12;
    world.memory.freeze(&model, &pool, number as u32, hash).expect("it is the VM's alone");
    let at: Addr<Ipa2> = Addr::new(5 << 21);
    fill(&mut world.memory, &model, &pool, world.key, at, Access::Read).unwrap();
    assert!(world.reach(at, Access::Read).is_some() && world.reach(at, Access::Write).is_none());
    assert_eq!(world.memory.check(&model, &pool).wrong, 0);
    // The descriptor, by the tables' addresses: 32 bits begin at level 2.
    let root = world.memory.shadow(&model, &pool, world.key).unwrap();
    let table = root.vttbr(&model, &world.vmids, GUEST) & 0xffff_ffff_f000;
    let leaf = Addr::new(model.load(Addr::new(table + (at.bits() >> 21) * 8)) & 0xffff_ffff_f000);
    model.store(leaf, model.load(leaf) | 1 << 7);
    let checked = world.memory.check(&model, &pool);
    assert_eq!((checked.leaves, checked.wrong), (1, 1), "{checked:?}");
}

/// A block of ours that is split is where it was: what hangs on it stays until a page of it goes, and the checker compares all of it.
#[test]
fn a_leaf_stays_while_the_block_it_is_of_is_split_and_all_of_that_is_checked() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 7, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut world = World::new(&model, &pool, 2);
    world.store(TABLES + 0x1000, PAGES + 0x4fd);
    world.enter();
    fill(&mut world.memory, &model, &pool, world.key, Addr::new(0), Access::Write).unwrap();
    world.memory.split(&model, &pool, Addr::new(PAGES)).unwrap();
    let is_there = |world: &World<'_>| world.reach(Addr::new(0x5000), Access::Write).is_some();
    assert!(is_there(&world));
    let check = |world: &mut World<'_>| {
        let checked = world.memory.check(&model, &pool);
        (checked.leaves, checked.wrong)
    };
    assert_eq!(check(&mut world), (1, 0));
    assert_eq!(model.errors(), Vec::<String>::new());
    // One page of it goes elsewhere, or may not be written any more, and nothing is said of that.
    let root = world.memory.root().vttbr(&model, &world.vmids, HYPERVISOR) & 0xffff_ffff_f000;
    let table = model.load(Addr::new(root + (PAGES >> 21) * 8)) & 0xffff_ffff_f000;
    let entry = table + 5 * 8;
    let was = model.load(Addr::new(entry));
    for changed in [was + 0x1000, was & !(1 << 7), 0] {
        model.store(Addr::new(entry), changed);
        assert_eq!(check(&mut world), (1, 1), "{changed:#x}");
    }
    model.store(Addr::new(entry), was);
    assert_eq!(check(&mut world), (1, 0));
    let _ = world.memory.discard(&model, &pool, Addr::new(PAGES + 0x5000), Hole::Ballooned);
    assert!(!is_there(&world));
    assert_eq!(check(&mut world), (0, 0));
}
