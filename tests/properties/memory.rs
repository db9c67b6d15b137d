//! Three VMs over one pool that is too small for them: first touch, splitting, giving back, restarts, merging, compressing,
//! swapping, ballooning and sampling, while the guests write on other CPUs; and no VM ever sees a word that it has not
//! written, with caches on or off.

use flatland::addr::{Addr, CpuId, Ipa, Pa, Size, VcpuId, VmId};
use flatland::arm::desc::{Desc, Hole, MemType, Rights};
use flatland::arm::vmsa::{Geometry, PaRange, VmidBits};
use flatland::frames::hints::Match;
use flatland::frames::swap::Swap;
use flatland::frames::{Counts, Dirty, Frame, FrameState, HYPERVISOR, Order, Pool, Record, SharedPool, Use};
use flatland::machine::Machine;
use flatland::memory::pack::Put;
use flatland::memory::share::{PageClass, ZeroBlock};
use flatland::memory::{Access, Coherence, Granule, Layout, Memory, Miss, RAM_BASE};
use flatland::stage2::Leaf;
use flatland::stage2::Refusal;
use flatland::stage2::vmid::Vmids;
use flatland::stage2::walk::Found;
use harness::model::{Dice, Flaw, Model};
use harness::touch::resolve;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::ManuallyDrop;

pub(super) const BOARD: u64 = 0x8000_0000;
pub(super) const BOARD_BYTES: u64 = 14 << 20;
/// 12 MiB and a few pages: the last 2 MiB are not whole.
const RAM_BYTES: u64 = (12 << 20) + (5 << 12);
const GICV: Addr<Ipa> = Addr::new(0x0801_0000);
const GICV_PA: u64 = 0x084c_0000;

pub(super) fn layout(owner: u16, bits: u32, granule: Granule) -> Layout {
    let geometry = Geometry::of_bits(bits).unwrap();
    let range = PaRange::from_mmfr0(4);
    Layout {
        blocks: 0,
        owner: VmId(owner),
        base: RAM_BASE,
        bytes: RAM_BYTES,
        geometry,
        vtcr: geometry.vtcr(range, VmidBits::Eight),
        granule,
        coherence: Coherence::Cleaned,
    }
}

pub(super) fn records() -> Vec<Record> {
    vec![Record::RESERVED; (BOARD_BYTES / 4096) as usize]
}

pub(super) fn pool(records: &mut [Record]) -> SharedPool<'_> {
    let ram = [(Addr::new(BOARD), BOARD_BYTES)];
    let mut pool = Pool::new(records, &ram).unwrap();
    pool.donate(ram[0]);
    SharedPool::new(pool, 7)
}

pub(super) struct Guest {
    cpu: CpuId,
    pub(super) memory: Memory,
    /// What it has stored last, by address.
    words: BTreeMap<u64, u64>,
}

/// The guests, the board and what both have been through.
pub(super) struct World<'w> {
    pub(super) model: &'w Model,
    pub(super) pool: &'w SharedPool<'w>,
    pub(super) guests: Vec<Guest>,
    pub(super) dice: Dice,
    /// What somebody else has taken, so that the pool is nearly empty for a while.
    hoard: Vec<ManuallyDrop<Frame<Dirty>>>,
    pub(super) shorts: u64,
    blocks: u64,
    pub(super) tally: Tally,
}

/// How often what came to pass.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) merged: u64,
    pub(super) zeroed: u64,
    pub(super) packed: u64,
    pub(super) swapped: u64,
    pub(super) unshared: u64,
    /// Parts of first touches.
    pub(super) parts: u64,
    pub(super) returned: u64,
    /// Blocks of zeroes that were dropped.
    pub(super) blocks: u64,
}

impl<'w> World<'w> {
    fn new(model: &'w Model, pool: &'w SharedPool<'w>, seed: u64) -> Self {
        let vmids = Vmids::new(VmidBits::Eight, 3);
        let shapes = [(40, Granule::Block), (32, Granule::Page), (48, Granule::Block)];
        let guests = (0..).zip(shapes).map(|(number, (bits, granule))| {
            let mut memory = Memory::new(model, pool, layout(number, bits, granule)).unwrap();
            memory.map_device(model, pool, GICV, Addr::new(GICV_PA), 0x2000).unwrap();
            let cpu = CpuId(number);
            model.enter(cpu, memory.root().vttbr(model, &vmids, cpu), memory.layout().geometry);
            Guest { cpu, memory, words: BTreeMap::new() }
        });
        model.tempt(GICV);
        let guests = guests.collect();
        // The first two may share, the third only with itself.
        pool.lock().set_domain(VmId(1), 0);
        model.let_scribble();
        model.attach_disk(128);
        pool.lock().swap = Swap::new(128);
        let tally = Tally::default();
        Self { model, pool, guests, dice: Dice::new(seed), hoard: Vec::new(), shorts: 0, blocks: 0, tally }
    }

    /// The number of a word in its page; some are used more than others, so that what happens to them is seen.
    fn word(&mut self) -> u64 {
        let most = self.dice.pick(&[8, 512]);
        self.dice.below(most)
    }

    pub(super) fn address(&mut self) -> Addr<Ipa> {
        let block = self.dice.below(7) << 21;
        let page = self.dice.pick(&[0, 1, 3, 200, 511]) << 12;
        let at = RAM_BASE + (block | page | self.word() << 3);
        self.model.tempt(at);
        at
    }

    /// Learns what the guests wrote on their own.
    pub(super) fn absorb(&mut self) {
        for (cpu, at, value) in self.model.scribbled() {
            self.guests[usize::from(cpu.0)].words.insert(at & !7, value);
        }
    }

    /// Where the guest's CPU finds `at` for `access`, if it does not fault.
    fn reach(&self, number: usize, at: Addr<Ipa>, access: Access) -> Option<Addr<Pa>> {
        match self.model.translation(self.guests[number].cpu, at) {
            Some((pa, Desc::Leaf(_, attr))) if attr.rights.allows(access.rights()) => Some(pa),
            _ => None,
        }
    }

    /// A guest touches a word as hardware would: access, and on a fault resolve and try again.
    pub(super) fn touch(&mut self, number: usize) -> Result<(), String> {
        let (at, value, write) = (self.address(), self.dice.roll(), self.dice.one_in(2));
        let access = if write { Access::Write } else { self.dice.pick(&[Access::Read, Access::Execute]) };
        self.touch_word(number, at, access, value)
    }

    /// What an exit does: parts of what it takes, until an interrupt comes.
    fn resolve(&mut self, number: usize, at: Addr<Ipa>, access: Access) -> Result<Leaf<Ipa, Pa>, Miss> {
        loop {
            match self.guests[number].memory.resolve(self.model, self.pool, at, access) {
                Err(Miss::Again) if !self.dice.one_in(16) => self.tally.parts += 1,
                result => return result,
            }
        }
    }

    fn touch_word(&mut self, number: usize, at: Addr<Ipa>, access: Access, value: u64) -> Result<(), String> {
        let ram = self.guests[number].memory.is_ram(at, 8);
        let before = self.guests[number].memory.resident();
        let pa = match self.reach(number, at, access) {
            Some(pa) => pa,
            None => match self.resolve(number, at, access) {
                // An interrupt came, and somebody else ran.
                Err(Miss::Again) => return Ok(()),
                Ok(leaf) => {
                    self.blocks += u64::from(leaf.size == Size::Block);
                    let pa = self.reach(number, at, access).ok_or("a resolved page is mapped")?;
                    rule(Some(pa) == leaf.output_of(at), "the CPU goes where resolve said")?;
                    pa
                }
                Err(Miss::NotRam) => return rule(!ram, "RAM can be touched"),
                Err(Miss::Short) => {
                    self.shorts += 1;
                    rule(self.pool.lock().counts().free < 4, "short is short")?;
                    return self.make_room();
                }
                Err(Miss::Denied) => return Err("nothing was denied".into()),
                Err(Miss::Lost) => return Err("nothing is lost".into()),
            },
        };
        self.absorb();
        let guest = &mut self.guests[number];
        let after = guest.memory.resident();
        self.tally.unshared += u64::from(after.shared < before.shared);
        self.tally.returned += u64::from(after.packed + after.swapped < before.packed + before.swapped);
        rule(ram, "only RAM is backed")?;
        let expected = guest.words.get(&at.bits()).copied().unwrap_or(0);
        rule(self.model.cached(pa) == expected, "a guest sees what it wrote, or zeroes")?;
        rule(self.model.uncached(pa) == expected, "with caches off, too")?;
        if access == Access::Write {
            self.model.guest_store(pa, value);
            guest.words.insert(at.bits(), value);
        }
        Ok(())
    }

    /// Two guests come to have a page with the same contents.
    pub(super) fn twins(&mut self) -> Result<(), String> {
        let value = self.dice.pick(&[0, 5, 6]);
        for _ in 0..2 {
            let number = self.dice.below(3) as usize;
            let page = self.address().align_down(Size::Page);
            let guest = &mut self.guests[number];
            // Whatever keeps the page from going, its contents may then differ: it is no twin.
            let _ = guest.memory.discard(self.model, self.pool, page, Hole::Absent);
            self.absorb();
            let guest = &mut self.guests[number];
            if guest.memory.peek(self.model, page).is_none() && !guest.is_put_away(self.model, page) {
                guest.words.retain(|at, _| *at & !4095 != page.bits());
                if guest.memory.is_ram(page, 4096) {
                    self.touch_word(number, page + 8, Access::Write, value)?;
                }
            }
        }
        Ok(())
    }

    /// A guest fills a page with what cannot be compressed.
    pub(super) fn noise(&mut self, number: usize) -> Result<(), String> {
        let page = self.address().align_down(Size::Page);
        for word in 0..512 {
            let value = self.dice.roll();
            self.touch_word(number, page + word * 8, Access::Write, value)?;
        }
        let put = self.evict(number, page);
        self.tally.swapped += u64::from(put == Put::Swapped);
        self.absorb();
        Ok(())
    }

    /// What the scanner does with a page.
    pub(super) fn scan(&mut self, number: usize) -> Result<(), String> {
        let at = self.address().align_down(Size::Page);
        let (model, pool) = (self.model, self.pool);
        let memory = &mut self.guests[number].memory;
        if memory.is_block(model, at) && memory.split(model, pool, at).is_err() {
            return Ok(());
        }
        match memory.classify(model, pool, at) {
            PageClass::Zero => self.tally.zeroed += u64::from(memory.drop_zeroes(model, pool, at)),
            PageClass::Same(found, hash) => {
                let frame = match found {
                    Match::Shared(frame) => Some(frame),
                    Match::Hint(other, page) => {
                        let other = usize::from(other.0);
                        rule((other == 2) == (number == 2), "domains are kept apart")?;
                        let there = self.guests[other].memory.page_at(page);
                        self.meddle(other, there)?;
                        self.guests[other].memory.freeze(model, pool, page, hash)
                    }
                };
                self.absorb();
                self.meddle(number, at)?;
                let memory = &mut self.guests[number].memory;
                let merged = frame.is_some_and(|frame| memory.merge(model, pool, at, frame));
                self.tally.merged += u64::from(merged);
            }
            PageClass::Gap(_) | PageClass::Single | PageClass::Passed => {}
        }
        self.absorb();
        Ok(())
    }

    /// Now and then a guest changes a page while it is being merged.
    fn meddle(&mut self, number: usize, page: Addr<Ipa>) -> Result<(), String> {
        if !self.dice.one_in(4) {
            return Ok(());
        }
        let (word, value) = (self.word() << 3, self.dice.roll());
        self.touch_word(number, page + word, Access::Write, value)
    }

    /// Evicts a page, to the end or not.
    fn evict(&mut self, number: usize, at: Addr<Ipa>) -> Put {
        let mut put = Put::Begun;
        while put == Put::Begun && !self.dice.one_in(200) {
            put = self.guests[number].memory.evict(self.model, self.pool, at);
            self.absorb();
        }
        put
    }

    pub(super) fn put_away(&mut self, number: usize) {
        let at = self.address();
        match self.evict(number, at) {
            Put::Packed => self.tally.packed += 1,
            Put::Swapped => self.tally.swapped += 1,
            Put::Merged => self.tally.merged += 1,
            Put::Zero(512) => self.tally.blocks += 1,
            _ => {}
        }
        self.absorb();
    }

    /// A guest's balloon grows or shrinks.
    pub(super) fn balloon(&mut self, number: usize) -> Result<(), String> {
        let at = self.address().align_down(Size::Page);
        let pages = self.dice.pick(&[1, 3, 256, 512, 1024]);
        let guest = &mut self.guests[number];
        if self.dice.one_in(3) {
            guest.memory.take_back(self.model, self.pool, at, pages);
            return Ok(());
        }
        let at = if self.dice.one_in(2) { at.align_down(Size::Block) } else { at };
        let is_ram = guest.memory.is_ram(at, pages * 4096);
        // In steps, as long work is done.
        let mut done = 0;
        while done < pages {
            let mut left = self.dice.below(400);
            let late = &mut || {
                left = left.saturating_sub(1);
                left == 0
            };
            done += guest.memory.give_up(self.model, self.pool, at + done * 4096, pages - done, Hole::Ballooned, late);
        }
        self.absorb();
        let guest = &mut self.guests[number];
        let gone: Vec<u64> = (0..pages).map(|page| at.bits() + page * 4096).filter(|_| is_ram).collect();
        for page in gone {
            // For want of a table it may have to stay.
            let stays = guest.memory.peek(self.model, Addr::new(page)).is_some();
            rule(!stays || self.pool.lock().counts().free == 0, "a ballooned page is gone")?;
            if !stays && !guest.is_put_away(self.model, Addr::new(page)) {
                guest.words.retain(|at, _| *at & !4095 != page);
            }
        }
        Ok(())
    }

    pub(super) fn hoard(&mut self) {
        let mut pool = self.pool.lock();
        while pool.counts().free > 3 {
            let order = Order::holding(pool.counts().free / 2).unwrap_or(Order::PAGE);
            let frame = pool
                .take(order, HYPERVISOR, Use::Hypervisor)
                .or_else(|| pool.take(Size::Page, HYPERVISOR, Use::Hypervisor));
            // Not dropped when a test fails, which would be a second failure on top of it.
            self.hoard.extend(frame.map(ManuallyDrop::new));
        }
    }

    pub(super) fn let_go(&mut self) {
        self.hoard.drain(..).for_each(|frame| self.pool.lock().give_back(ManuallyDrop::into_inner(frame)));
    }

    fn make_room(&mut self) -> Result<(), String> {
        if self.dice.one_in(4) {
            self.let_go();
        }
        let number = self.dice.below(3) as usize;
        if self.dice.one_in(3) { self.restart(number) } else { (0..20).try_for_each(|_| self.discard(number)) }
    }

    /// Takes a page away from a guest.
    pub(super) fn discard(&mut self, number: usize) -> Result<(), String> {
        let at = self.address();
        let hole = self.dice.pick(&[Hole::Absent, Hole::Ballooned, Hole::Zero]);
        let guest = &mut self.guests[number];
        let backed = guest.memory.peek(self.model, at).is_some();
        let result = guest.memory.discard(self.model, self.pool, at, hole);
        self.absorb();
        let guest = &mut self.guests[number];
        match result {
            Ok(()) => {
                let page = at.align_down(Size::Page).bits();
                guest.words.retain(|at, _| *at & !4095 != page);
                rule(guest.memory.peek(self.model, at).is_none(), "a discarded page is gone")
            }
            Err(Refusal::Missing) => rule(!backed, "a backed page can be discarded"),
            Err(Refusal::Short) => rule(self.pool.lock().counts().free == 0, "short is short"),
            Err(refusal) => Err(format!("{refusal:?}")),
        }
    }

    /// Gives all of a guest's memory back; the guest starts again.
    pub(super) fn restart(&mut self, number: usize) -> Result<(), String> {
        let guest = &mut self.guests[number];
        // In steps, as it is done; and without, as where a VM is retired.
        let mut left = self.dice.one_in(2);
        while left {
            let before = guest.memory.resident();
            let (most, mut n) = (1 + self.dice.below(300), 0);
            guest.memory.release_some(self.model, self.pool, &mut || {
                n += 1;
                n >= most
            });
            let done = guest.memory.is_released();
            rule(n <= most, "no more is done when it is late")?;
            let after = guest.memory.resident();
            rule(before.frames - after.frames <= most * 512, "a step frees no more than its pages")?;
            left = !done;
            if done {
                let left = (after.frames, after.shared, after.packed, after.swapped);
                rule(left == (0, 0, 0, 0), "nothing is left of RAM")?;
            }
        }
        let guest = &mut self.guests[number];
        guest.memory.release_all(self.model, self.pool);
        self.absorb();
        let guest = &mut self.guests[number];
        guest.words.clear();
        rule(guest.memory.resident().frames == 0, "nothing is left")?;
        match guest.memory.map_device(self.model, self.pool, GICV, Addr::new(GICV_PA), 0x2000) {
            Ok(()) | Err(Refusal::Short) => Ok(()),
            Err(refusal) => Err(format!("{refusal:?}")),
        }
    }

    fn step(&mut self) -> Result<(), String> {
        let number = self.dice.below(3) as usize;
        let at = self.address();
        let (model, pool) = (self.model, self.pool);
        match self.dice.below(400) {
            256..290 => self.twins()?,
            290..380 => self.scan(number)?,
            380..391 => self.put_away(number),
            391 => self.noise(number)?,
            392..396 => self.balloon(number)?,
            396..400 => {
                let dice = &mut self.dice;
                self.guests[number].memory.sample(model, pool, false, || dice.roll() >> 8);
            }
            0..160 => self.touch(number)?,
            160..184 => self.discard(number)?,
            184..208 => drop(self.guests[number].memory.split(model, pool, at)),
            208..252 => drop(self.guests[number].memory.join(model, pool, at, Size::Block)),
            252 => self.hoard(),
            253 => self.let_go(),
            _ => self.restart(number)?,
        }
        self.settle()
    }

    /// Ends a step: the machine has nothing to complain of.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        self.absorb();
        self.model.settle();
        match self.model.errors().into_iter().next() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Every word of every page is what its guest wrote last, or zero. What was put away comes back for it. Says how many
    /// words there are.
    pub(super) fn look_at_all(&mut self) -> Result<u64, String> {
        self.let_go();
        let mut looked = 0;
        for number in 0..self.guests.len() {
            let pages: BTreeSet<u64> = self.guests[number].words.keys().map(|at| *at & !4095).collect();
            for page in pages {
                self.touch_word(number, Addr::new(page), Access::Read, 0)?;
            }
            self.settle()?;
            let Guest { memory, words, .. } = &self.guests[number];
            let mut wrong = None;
            memory.table().for_each(self.model, |leaf| {
                if leaf.attr.mem == MemType::Device {
                    return;
                }
                for offset in (0..leaf.size.bytes()).step_by(8) {
                    let (at, pa) = (leaf.input + offset, leaf.output + offset);
                    let expected = words.get(&at.bits()).copied().unwrap_or(0);
                    if self.model.cached(pa) != expected || self.model.uncached(pa) != expected {
                        wrong.get_or_insert(at);
                    }
                }
                looked += leaf.size.bytes() / 8;
            });
            if let Some(at) = wrong {
                return Err(format!("guest {number} does not see what it wrote at {at:?}"));
            }
        }
        Ok(looked)
    }

    /// Records, tables and counts against each other.
    pub(super) fn check(&self) -> Result<(), String> {
        let counts = self.pool.lock().check()?;
        let (mut frames, mut tables) = (0, 0);
        let mut named = BTreeSet::new();
        let mut shared: BTreeMap<u64, u32> = BTreeMap::new();
        for guest in &self.guests {
            let resident = guest.memory.resident();
            frames += resident.frames + resident.pending;
            tables += resident.tables;
            let mut own = 0;
            let mut twice = false;
            let mut sharing = 0;
            guest.memory.table().for_each(self.model, |leaf| {
                if leaf.attr.is_shared() {
                    sharing += 1;
                    *shared.entry(leaf.output.bits()).or_default() += 1;
                } else if leaf.attr.mem != MemType::Device {
                    own += leaf.size.frames();
                    twice |= (0..leaf.size.frames()).any(|page| !named.insert(leaf.output.bits() + page * 4096));
                }
            });
            rule(own == resident.frames, "the table names what is resident")?;
            rule(sharing == resident.shared, "and what is shared")?;
            rule(!twice, "no frame is named twice")?;
            let owner = guest.memory.layout().owner;
            rule(
                self.pool.lock().owned_by(owner) == resident.frames + resident.pending + resident.tables,
                "the owner owns that",
            )?;
        }
        let refs = |at: u64| self.pool.lock().record(Addr::new(at)).map(|record| (record.state(), record.refs()));
        let right = shared.iter().all(|(at, leaves)| refs(*at) == Some((FrameState::Shared, *leaves)));
        rule(right && shared.len() as u64 == counts.shared, "a shared frame counts the leaves that name it")?;
        rule((counts.guest, counts.table, counts.contradictions) == (frames, tables, 0), "the sums are right")
    }
}

impl Guest {
    /// Whether the page around `at` is in the store or in the swap area.
    fn is_put_away(&self, model: &Model, at: Addr<Ipa>) -> bool {
        let found = self.memory.table().walk(model, at);
        matches!(found, Found::Gap(gap) if matches!(gap.hole(), Hole::Packed(_) | Hole::Swapped(..)))
    }
}

fn rule(holds: bool, name: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(name.into()) }
}

/// What the pool has to give.
fn state(pool: &SharedPool<'_>) -> ([u32; Order::COUNT], Counts) {
    let pool = pool.lock();
    (*pool.free_runs(), pool.counts())
}

/// Runs `steps`, and says how often the pool was short and a block was given.
fn run(seed: u64, steps: u64, flaw: Flaw) -> Result<(u64, u64, Tally), (u64, String)> {
    live(seed, flaw, |world| {
        for step in 0..steps {
            world.step().map_err(|error| (step, error))?;
            if step % 500 == 0 {
                world.check().map_err(|error| (step, error))?;
            }
        }
        Ok((world.shorts, world.blocks, world.tally))
    })
}

/// Runs one life of the guests, from when the board is turned on until all is given back. An error comes with when it was.
pub(super) fn live<T>(
    seed: u64,
    flaw: Flaw,
    life: impl FnOnce(&mut World<'_>) -> Result<T, (u64, String)>,
) -> Result<T, (u64, String)> {
    const END: u64 = u64::MAX;
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, seed, flaw);
    let mut records = records();
    let pool = pool(&mut records);
    let start = state(&pool);
    let mut world = World::new(&model, &pool, seed);
    let lived = life(&mut world)?;
    world.check().map_err(|error| (END, error))?;
    world.look_at_all().map_err(|error| (END, error))?;
    let World { guests, hoard, .. } = world;
    hoard.into_iter().for_each(|frame| pool.lock().give_back(ManuallyDrop::into_inner(frame)));
    for guest in guests {
        let root = guest.memory.root();
        model.leave(guest.cpu);
        let table = guest.memory.table().root();
        guest.memory.retire(&model, &pool);
        rule(!model.knows(table), "nothing of a retired table is remembered").map_err(|error| (END, error))?;
        drop(root);
    }
    rule(start == state(&pool), "all comes back, and together").map_err(|error| (END, error))?;
    Ok(lived)
}

#[test]
fn no_guest_sees_what_another_wrote_and_nothing_is_lost() {
    let mut seen = (0, 0);
    for seed in 1..=4 {
        let steps = 12_000;
        let (shorts, blocks, tally) = run(seed, steps, Flaw::None).unwrap();
        println!("seed {seed}: {steps} steps, {shorts} times short, {blocks} blocks touched, {tally:?}");
        seen = (seen.0 + shorts, seen.1 + blocks);
        let Tally { merged, zeroed, packed, swapped, unshared, returned, parts, .. } = tally;
        assert!([merged, zeroed, packed, swapped, unshared, returned, parts].iter().all(|n| *n > 10), "{tally:?}");
    }
    assert!(seen.0 > 100 && seen.1 > 30);
}

#[test]
fn seeded_bugs_are_found_from_here_as_well() {
    for flaw in [Flaw::Forget, Flaw::Break, Flaw::Publish] {
        for seed in 1..=3 {
            let (step, error) = run(seed, 6000, flaw).expect_err("a seeded bug is found");
            println!("{flaw:?}, seed {seed}: found at step {step}: {error}");
        }
    }
}

#[test]
fn a_first_touch_takes_a_block_where_one_fits() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut memory = Memory::new(&model, &pool, layout(0, 40, Granule::Block)).unwrap();
    let mut size = |offset: u64, access| {
        resolve(&mut memory, &model, &pool, Addr::new(RAM_BASE.bits().wrapping_add(offset)), access)
            .map(|leaf| leaf.size)
    };
    assert_eq!(size(0x1234, Access::Read), Ok(Size::Block));
    assert_eq!(size((12 << 20) + 8, Access::Write), Ok(Size::Page), "the block is not all RAM");
    assert_eq!(size(RAM_BYTES, Access::Read), Err(Miss::NotRam));
    assert_eq!(size(0_u64.wrapping_sub(1), Access::Read), Err(Miss::NotRam));
    assert_eq!(size(u64::MAX >> 1, Access::Read), Err(Miss::NotRam));
    memory.map_device(&model, &pool, GICV, Addr::new(GICV_PA), 0x1000).unwrap();
    assert_eq!(resolve(&mut memory, &model, &pool, GICV, Access::Execute), Err(Miss::Denied));
    assert!(resolve(&mut memory, &model, &pool, GICV, Access::Write).is_ok());
    let inside = memory.map_device(&model, &pool, RAM_BASE + 0x1000, Addr::new(GICV_PA), 0x1000);
    assert_eq!(inside, Err(Refusal::Occupied));
    assert_eq!(memory.resident().frames, 513);
    memory.split(&model, &pool, RAM_BASE).unwrap();
    memory.join(&model, &pool, RAM_BASE, Size::Block).unwrap();
    memory.retire(&model, &pool);
}

#[test]
fn a_first_touch_of_a_page_is_a_handful_of_steps() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut memory = Memory::new(&model, &pool, layout(0, 40, Granule::Page)).unwrap();
    resolve(&mut memory, &model, &pool, RAM_BASE, Access::Read).unwrap();
    let before = model.tally();
    resolve(&mut memory, &model, &pool, RAM_BASE + 0x1000, Access::Read).unwrap();
    let after = model.tally();
    assert_eq!((after.stores - before.stores, after.publishes - before.publishes), (1, 2));
    assert_eq!((after.leaves, after.vmids, after.alls), (before.leaves, before.vmids, before.alls));
    memory.retire(&model, &pool);
}

#[test]
fn an_image_is_there_with_caches_off() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut dice = Dice::new(9);
    for granule in [Granule::Page, Granule::Block] {
        let mut memory = Memory::new(&model, &pool, layout(0, 40, granule)).unwrap();
        let mut mirror = vec![0_u8; 5 << 20];
        for _ in 0..200 {
            let start = dice.below(mirror.len() as u64 - 1) as usize;
            let limit = 1 << dice.below(20);
            let length = (dice.below(limit) as usize).min(mirror.len() - start);
            let at = RAM_BASE + start as u64;
            if dice.one_in(4) {
                mirror[start..start + length].fill(0);
                memory.zero(&model, &pool, at, length as u64).unwrap();
            } else {
                let bytes: Vec<u8> = (0..length).map(|_| dice.roll() as u8).collect();
                mirror[start..start + length].copy_from_slice(&bytes);
                memory.write(&model, &pool, at, &bytes).unwrap();
            }
            let mut back = vec![0; length];
            memory.read(&model, &pool, at, &mut back).unwrap();
            assert_eq!(back, mirror[start..start + length]);
        }
        memory.clean(&model, RAM_BASE, mirror.len() as u64);
        for (word, bytes) in mirror.as_chunks::<8>().0.iter().enumerate() {
            let at = RAM_BASE + word as u64 * 8;
            if memory.peek(&model, at).is_some() {
                let pa: Addr<Pa> =
                    resolve(&mut memory, &model, &pool, at, Access::Read).unwrap().output_of(at).unwrap();
                assert_eq!(model.uncached(pa), u64::from_le_bytes(*bytes));
            }
        }
        assert_eq!(memory.write(&model, &pool, RAM_BASE + (RAM_BYTES - 1), &[1, 2]), Err(Miss::NotRam));
        assert_eq!(memory.write(&model, &pool, Addr::new(u64::MAX), &[1, 2]), Err(Miss::NotRam));
        assert_eq!(memory.zero(&model, &pool, RAM_BASE, u64::MAX), Err(Miss::NotRam));
        memory.retire(&model, &pool);
    }
    assert_eq!(pool.lock().counts().free, BOARD_BYTES / 4096);
}

#[test]
fn memory_that_cannot_be_is_refused() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let whole = layout(0, 32, Granule::Page);
    let new = |layout| Memory::new(&model, &pool, layout).err();
    assert_eq!(new(Layout { bytes: 4 << 30, ..whole }), Some(Refusal::Outside));
    assert_eq!(new(Layout { bytes: u64::MAX, ..whole }), Some(Refusal::Outside));
    assert_eq!(new(Layout { bytes: 0x1800, ..whole }), Some(Refusal::Unaligned));
    assert_eq!(new(Layout { owner: VmId(64), ..whole }), Some(Refusal::Short));
    model.publish();
    assert_eq!(pool.lock().counts().free, BOARD_BYTES / 4096);
}

#[test]
fn a_page_given_to_the_balloon_comes_back_full_of_the_guest_s_poison() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    for granule in [Granule::Page, Granule::Block] {
        let mut memory = Memory::new(&model, &pool, layout(0, 40, granule)).unwrap();
        memory.set_filling(0xaaaa_aaaa);
        memory.write(&model, &pool, RAM_BASE, &[1; 8]).unwrap();
        memory.give_up(&model, &pool, RAM_BASE, 512, Hole::Ballooned, &mut || false);
        assert_eq!(memory.peek(&model, RAM_BASE), None);
        let word = |memory: &mut Memory, offset| {
            let leaf = resolve(memory, &model, &pool, RAM_BASE + offset, Access::Read).unwrap();
            let pa = leaf.output_of(RAM_BASE + offset).unwrap();
            (model.cached(pa), model.uncached(pa))
        };
        let poison = 0xaaaa_aaaa_aaaa_aaaa;
        assert_eq!(word(&mut memory, 8), (poison, poison), "caches on or off");
        assert_eq!(word(&mut memory, 4 << 20), (0, 0), "what was never given is zero");
        memory.retire(&model, &pool);
    }
}

#[test]
fn a_page_of_zeroes_in_a_block_with_others_comes_free_in_so_many_steps() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    for page in [0, 1, 2, 300, 511] {
        let mut memory = Memory::new(&model, &pool, layout(0, 40, Granule::Block)).unwrap();
        resolve(&mut memory, &model, &pool, RAM_BASE, Access::Write).unwrap();
        memory.write(&model, &pool, RAM_BASE + (page << 12), &[7; 8]).unwrap();
        let zero = RAM_BASE + 0x5000;
        // The block is gone through once, split, and the page dropped.
        let steps = (1..1000).find(|_| memory.evict(&model, &pool, zero) == Put::Zero(1));
        assert!(steps.is_some_and(|steps| steps <= 260), "page {page} is none of zeroes: {steps:?}");
        memory.retire(&model, &pool);
    }
}

#[test]
fn a_block_of_zeroes_is_dropped_in_steps_unless_it_is_written() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut memory = Memory::new(&model, &pool, layout(0, 40, Granule::Block)).unwrap();
    let touch = |memory: &mut Memory, access| resolve(memory, &model, &pool, RAM_BASE + 0x3000, access).unwrap();
    // Steps until it is no more of the same, and what that was.
    let drop = |memory: &mut Memory, most: u32| {
        (1..=most)
            .map(|step| (step, memory.drop_zero_block(&model, &pool, RAM_BASE + 0x5000)))
            .find(|(step, outcome)| *outcome != ZeroBlock::More || *step == most)
            .unwrap()
    };
    touch(&mut memory, Access::Write);
    assert_eq!(drop(&mut memory, 100), (100, ZeroBlock::More));
    assert!(!touch(&mut memory, Access::Read).attr.rights.allows(Rights::W), "it may be read meanwhile");
    assert_eq!(drop(&mut memory, 200), (157, ZeroBlock::Dropped), "two pages a step, and one that begins");
    assert_eq!((memory.resident().frames, memory.resident().zero), (0, 512));
    // What it has no page of can be in the balloon as well.
    memory.give_up(&model, &pool, RAM_BASE, 512, Hole::Ballooned, &mut || false);
    assert_eq!((memory.resident().zero, memory.resident().ballooned), (0, 512));
    // It is written while it is looked at: with zeroes, but who knows?
    touch(&mut memory, Access::Write);
    assert_eq!(drop(&mut memory, 100), (100, ZeroBlock::More));
    assert!(touch(&mut memory, Access::Write).attr.rights.allows(Rights::W));
    assert_eq!(drop(&mut memory, 1), (1, ZeroBlock::Differs));
    // Its last page is not zero.
    let last = RAM_BASE + (511 << 12);
    memory.write(&model, &pool, last, &[7; 8]).unwrap();
    assert_eq!(drop(&mut memory, 300), (257, ZeroBlock::Differs));
    let mut back = [0; 8];
    memory.read(&model, &pool, last, &mut back).unwrap();
    assert_eq!((back, memory.resident().frames), ([7; 8], 512));
    // It was split meanwhile.
    memory.write(&model, &pool, last, &[0; 8]).unwrap();
    assert_eq!(drop(&mut memory, 100), (100, ZeroBlock::More));
    memory.split(&model, &pool, RAM_BASE).unwrap();
    assert_eq!(drop(&mut memory, 100), (1, ZeroBlock::Differs));
    assert!(memory.drop_zeroes(&model, &pool, RAM_BASE), "a page goes by itself");
    touch(&mut memory, Access::Write);
    memory.retire(&model, &pool);
    assert_eq!(model.errors(), [] as [String; 0]);
    assert_eq!(pool.lock().counts().free, BOARD_BYTES / 4096);
}

/// A block that is made ready for a first touch is not put where its pages went into the balloon meanwhile, which come back full of the
/// guest's poison.
#[test]
fn a_block_is_not_what_it_was_begun_for_once_it_was_in_the_balloon() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    for given_up in [false, true] {
        let mut memory = Memory::new(&model, &pool, layout(0, 40, Granule::Block)).unwrap();
        memory.set_filling(0xaaaa_aaaa);
        resolve(&mut memory, &model, &pool, RAM_BASE, Access::Write).unwrap();
        let at = RAM_BASE + (2 << 20);
        assert_eq!(memory.resolve(&model, &pool, at, Access::Write), Err(Miss::Again));
        if given_up {
            memory.give_up(&model, &pool, at, 512, Hole::Ballooned, &mut || false);
            assert_eq!(memory.resident().ballooned, 512);
        }
        let leaf = resolve(&mut memory, &model, &pool, at, Access::Write).unwrap();
        let word = model.cached(leaf.output_of(at).unwrap());
        assert_eq!(word, if given_up { 0xaaaa_aaaa_aaaa_aaaa } else { 0 });
        memory.retire(&model, &pool);
    }
    assert_eq!(pool.lock().counts().free, BOARD_BYTES / 4096);
}

/// A device that cannot be handed through whole is not at all.
#[test]
fn a_device_is_handed_through_whole_or_not_at_all() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut memory = Memory::new(&model, &pool, layout(0, 40, Granule::Page)).unwrap();
    // The last two pages below RAM.
    let device = (1 << 30) - 0x2000;
    let at: Addr<Ipa> = Addr::new(device);
    assert_eq!(memory.map_device(&model, &pool, at, Addr::new(0x0310_0000), 0x4000), Err(Refusal::Occupied));
    for (bytes, expected) in [(0x2000, Ok(())), (0x1000, Err(Refusal::Occupied))] {
        assert_eq!(memory.map_device(&model, &pool, at, Addr::new(0x0310_0000), bytes), expected);
    }
    // Up to what is there already.
    let before: Addr<Ipa> = Addr::new(device - 0x3000);
    assert_eq!(memory.map_device(&model, &pool, before, Addr::new(0x0320_0000), 0x4000), Err(Refusal::Occupied));
    for page in 0..3 {
        let found = memory.table().walk(&model, before + page * 4096);
        assert!(matches!(found, Found::Gap(_)), "{page} stayed: {found:?}");
    }
    assert!(matches!(memory.table().walk(&model, at), Found::Leaf(_)), "what was there stays");
    memory.retire(&model, &pool);
    assert_eq!(pool.lock().counts().free, BOARD_BYTES / 4096);
}

/// A block that comes back from the balloon is full of the guest's poison from its first word to its last.
#[test]
fn a_block_from_the_balloon_is_full_of_poison() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    for (filling, expected) in [(0, 0), (0xa5a5_0001, 0xa5a5_0001_a5a5_0001)] {
        let mut memory = Memory::new(&model, &pool, layout(0, 40, Granule::Block)).unwrap();
        memory.set_filling(filling);
        for page in 0..512 {
            memory.write(&model, &pool, RAM_BASE + (page << 12), &[7; 4096]).unwrap();
        }
        memory.give_up(&model, &pool, RAM_BASE, 512, Hole::Ballooned, &mut || false);
        assert_eq!(memory.resident().ballooned, 512);
        let leaf = resolve(&mut memory, &model, &pool, RAM_BASE + 0x5000, Access::Read).unwrap();
        assert_eq!((leaf.size, memory.resident().ballooned), (Size::Block, 0));
        for at in (0..Size::Block.bytes()).step_by(8) {
            let pa = leaf.output_of(RAM_BASE + at).unwrap();
            assert_eq!([model.cached(pa), model.uncached(pa)], [expected; 2], "{at:#x}");
        }
        memory.retire(&model, &pool);
    }
}

/// A page that comes back is counted no more as what it was.
#[test]
fn a_page_that_comes_back_is_no_hole_any_more() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut memory = Memory::new(&model, &pool, layout(0, 40, Granule::Page)).unwrap();
    let touch = |memory: &mut Memory, page: u64| {
        resolve(memory, &model, &pool, RAM_BASE + (page << 12), Access::Write).unwrap();
    };
    (0..512).for_each(|page| touch(&mut memory, page));
    for page in 0..10 {
        while memory.evict(&model, &pool, RAM_BASE + ((20 + page) << 12)) == Put::Begun {}
        memory.give_up(&model, &pool, RAM_BASE + ((40 + page) << 12), 1, Hole::Ballooned, &mut || false);
    }
    let counts = |memory: &Memory| {
        let resident = memory.resident();
        [resident.frames, resident.zero, resident.ballooned]
    };
    let [frames, zero, ballooned] = counts(&memory);
    assert_eq!((frames + zero + ballooned, ballooned), (512, 10));
    // What is a hole can be in the balloon as well.
    while memory.evict(&model, &pool, RAM_BASE + (60 << 12)) == Put::Begun {}
    let [_, zero, _] = counts(&memory);
    memory.give_up(&model, &pool, RAM_BASE + (60 << 12), 1, Hole::Ballooned, &mut || false);
    assert_eq!(counts(&memory)[1..], [zero - 1, 11]);
    touch(&mut memory, 60);
    for n in 0..10 {
        touch(&mut memory, 20 + n);
        touch(&mut memory, 40 + n);
        let [now, zero, ballooned] = counts(&memory);
        assert_eq!((now + zero + ballooned, ballooned), (512, 9 - n));
    }
    memory.retire(&model, &pool);
}

/// What goes is what was named: of a block, where it begins or not, some pages or all.
#[test]
fn no_page_goes_that_was_not_given_up() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    for (first, pages) in [(0, 1), (0, 100), (0, 511), (0, 512), (0, 513), (1, 512), (511, 2), (300, 900)] {
        let mut memory = Memory::new(&model, &pool, layout(0, 40, Granule::Block)).unwrap();
        for page in 0..1536 {
            memory.write(&model, &pool, RAM_BASE + (page << 12), &[7; 8]).unwrap();
        }
        assert_eq!(memory.resident().frames, 1536);
        let mut done = 0;
        while done < pages {
            let at = RAM_BASE + ((first + done) << 12);
            done += memory.give_up(&model, &pool, at, pages - done, Hole::Ballooned, &mut || false);
        }
        assert_eq!((memory.resident().frames, memory.resident().ballooned), (1536 - pages, pages));
        for page in 0..1536 {
            let there = memory.peek(&model, RAM_BASE + (page << 12)).is_some();
            assert_eq!(there, !(first..first + pages).contains(&page), "{page} of {pages} from {first}");
        }
        memory.retire(&model, &pool);
    }
}

/// Cleaning a range reaches all of its pages, wherever they lie, and nothing but them.
#[test]
fn a_range_is_cleaned_page_by_page() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut memory = Memory::new(&model, &pool, layout(0, 40, Granule::Page)).unwrap();
    // Neighbours here are none there, and one is missing.
    let place = |memory: &mut Memory, page: u64| {
        let at = RAM_BASE + (page << 12);
        resolve(memory, &model, &pool, at, Access::Write).unwrap().output_of(at).unwrap()
    };
    let pages = [4, 1, 6, 0, 2, 5].map(|page| (page, place(&mut memory, page)));
    for (start, length) in [(0x800, 0x1000), (0x1ff8, 0x10), (0, 0x7000), (0x2800, 0x2000), (0x4008, 8), (0x5000, 0)] {
        let word = |page: u64, pa: Addr<Pa>, at: u64| (page << 12 | at, pa + at);
        let words: Vec<_> =
            pages.iter().flat_map(|(page, pa)| [0, 8, 0x800, 0xff8].map(|at| word(*page, *pa, at))).collect();
        for (at, pa) in &words {
            model.guest_store(*pa, 1);
            model.cached_store(*pa, 2 + *at);
        }
        memory.clean(&model, RAM_BASE + start, length);
        for (at, pa) in &words {
            let is_clean = model.uncached(*pa) == 2 + *at;
            let in_range = (start..start + length).contains(at);
            // Of lines of 64 bytes that are cleaned in part the rest may be.
            let beside = (start & !63..(start + length).next_multiple_of(64)).contains(at) && !in_range;
            assert!(is_clean == in_range || beside, "{at:#x} of {length:#x} at {start:#x}");
        }
    }
    memory.retire(&model, &pool);
}

/// Each page that is watched counts once, when it is touched; others do not.
#[test]
fn pages_that_are_watched_are_counted_when_they_are_touched() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut memory = Memory::new(&model, &pool, layout(0, 40, Granule::Page)).unwrap();
    let touch = |memory: &mut Memory, page: u64| {
        resolve(memory, &model, &pool, RAM_BASE + (page << 12), Access::Write).unwrap();
    };
    (0..200).for_each(|page| touch(&mut memory, page));
    let mut next = 0;
    memory.sample(&model, &pool, false, || {
        next += 1;
        next % 60
    });
    let (watched, touched) = memory.sampled();
    assert!(watched > 20 && touched == 0, "{watched}, {touched}");
    // The hardware says of these, and of no others, when they are used.
    let mut flags = [0; 2];
    memory.table().for_each(&model, |leaf| flags[usize::from(leaf.attr.accessed)] += 1);
    assert_eq!(flags, [watched, 200 - watched]);
    let counts: Vec<u32> = (0..200)
        .map(|page| {
            touch(&mut memory, page);
            touch(&mut memory, page);
            memory.sampled().1
        })
        .collect();
    assert!(counts.is_sorted_by(|a, b| *b == *a || *b == *a + 1) && counts[199] == watched, "{counts:?}");
    memory.retire(&model, &pool);
}

/// A table of nothing but equal holes comes free, and no other.
#[test]
fn a_table_of_holes_that_are_all_alike_comes_free() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut memory = Memory::new(&model, &pool, layout(0, 40, Granule::Page)).unwrap();
    for page in 0..512 {
        resolve(&mut memory, &model, &pool, RAM_BASE + (page << 12), Access::Write).unwrap();
    }
    let tables = memory.resident().tables;
    assert!(memory.join_holes(&model, &pool, RAM_BASE + 0x5000).is_err(), "pages are no holes");
    for page in 0..512 {
        assert!(memory.join_holes(&model, &pool, RAM_BASE).is_err(), "{page} are holes");
        assert_eq!(memory.resident().tables, tables);
        assert!(memory.drop_zeroes(&model, &pool, RAM_BASE + (page << 12)));
    }
    memory.join_holes(&model, &pool, RAM_BASE + 0x5000).unwrap();
    assert_eq!(memory.resident().tables, tables - 1);
    assert!(memory.join_holes(&model, &pool, RAM_BASE).is_err(), "there is none any more");
    memory.retire(&model, &pool);
    assert_eq!(pool.lock().counts().free, BOARD_BYTES / 4096);
}

#[test]
fn a_page_that_nobody_shares_any_more_can_be_put_away() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut memory = Memory::new(&model, &pool, layout(0, 40, Granule::Page)).unwrap();
    let [one, two] = [RAM_BASE, RAM_BASE + 0x1000];
    [one, two].into_iter().for_each(|page| memory.write(&model, &pool, page, &[7; 8]).unwrap());
    // Seen twice with the same contents, they are merged.
    let frame = [one, two, one, two].into_iter().find_map(|page| match memory.classify(&model, &pool, page) {
        PageClass::Same(Match::Hint(_, other), hash) => memory.freeze(&model, &pool, other, hash),
        _ => None,
    });
    let frame = frame.unwrap();
    let merged = [one, two].into_iter().filter(|page| memory.merge(&model, &pool, *page, frame)).count();
    assert_eq!((merged, memory.resident().shared), (1, 2));
    let evict = |memory: &mut Memory| loop {
        match memory.evict(&model, &pool, one) {
            Put::Begun => {}
            put => return put,
        }
    };
    assert_eq!(evict(&mut memory), Put::Nothing, "while it is shared it stays");
    assert_eq!(memory.next_own(&model, &pool, one), None);
    memory.write(&model, &pool, two, &[8; 8]).unwrap();
    assert_eq!(memory.next_own(&model, &pool, one), Some(one));
    assert_eq!(evict(&mut memory), Put::Packed);
    let mut back = [0; 8];
    memory.read(&model, &pool, one, &mut back).unwrap();
    assert_eq!((back, memory.resident().shared), ([7; 8], 0));
    memory.retire(&model, &pool);
    assert_eq!(pool.lock().counts().free, BOARD_BYTES / 4096);
}

/// Nobody takes away what is not RAM, or what has to stay where it is.
#[test]
fn a_device_and_a_page_that_the_hardware_knows_are_not_discarded() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut memory = Memory::new(&model, &pool, layout(0, 40, Granule::Block)).unwrap();
    memory.prepare_shadows(1, 64);
    let device: Addr<Ipa> = Addr::new(0x0800_0000);
    memory.map_device(&model, &pool, device, Addr::new(0x0300_0000), 4096).unwrap();
    assert_eq!(memory.discard(&model, &pool, device, Hole::Absent), Err(Refusal::Missing));
    let again = memory.map_device(&model, &pool, device, Addr::new(0x0300_0000), 4096);
    assert_eq!(again, Err(Refusal::Occupied), "it is still there");
    // One of two pages of a block.
    for page in [RAM_BASE, RAM_BASE + 0x1000] {
        memory.write(&model, &pool, page, &[7; 8]).unwrap();
    }
    let at = memory.pin(&model, &pool, VcpuId(0), RAM_BASE).unwrap();
    assert_eq!(memory.discard(&model, &pool, RAM_BASE + 8, Hole::Absent), Err(Refusal::Occupied));
    let leaf = resolve(&mut memory, &model, &pool, RAM_BASE, Access::Read).unwrap();
    assert_eq!(leaf.output_of(RAM_BASE), Some(at));
    assert_eq!(memory.discard(&model, &pool, RAM_BASE + 0x1000, Hole::Absent), Ok(()));
    assert!(memory.peek(&model, RAM_BASE + 0x1000).is_none());
}
