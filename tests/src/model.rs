//! The machine as an adversary: everything the architecture allows and QEMU does not do.
//!
//! [`Model`] implements `Machine` over ordinary memory. Beside what CPUs see, it keeps what they *may* see:
//!
//! * a store to a descriptor may stay unseen by walkers until it is published: each walk sees old or new, by dice;
//! * stores to a page's contents are not ordered with the store of the descriptor that names it, unless published between;
//! * translations and pointers to tables are remembered, and other CPUs walk at any moment, before every step of ours;
//! * to forget a leaf drops what translates its first address, and no pointer to a table;
//! * what could be fetched once stays in instruction caches until they are invalidated;
//! * DRAM is apart from the caches: what is not cleaned is not seen with caches off;
//! * where it is told to ([`Model::let_scribble`]), guests on other CPUs write through whatever translation they have, at
//!   any moment, and what they wrote is reported for comparison;
//! * the disk, if [attached](Model::attach_disk), fails as often as it was told to, and leaves garbage when it does.
//!
//! It records an error when a valid descriptor gives way to another without a break that was published and forgotten,
//! when a frame is mapped before its zeroes, or what else was written to it, are published, or to be run while an instruction
//! cache may hold what was in it before, or swapped while a CPU may write to it, when two translations answer to one address,
//! and, in [`Model::settle`], when something is remembered that the table no longer says. [`Flaw`]s seed bugs to be found.

use flatland::addr::{Addr, CpuId, IntId, Ipa, Pa, Size, Vmid};
use flatland::arm::debug::Debug;
use flatland::arm::desc::{Attr, Desc, MemType, Rights, SOFTWARE_BITS, is_valid};
use flatland::arm::el1::{self, El1};
use flatland::arm::el2::El2Registers;
use flatland::arm::esr::Access;
use flatland::arm::gic::Interface;
use flatland::arm::vmsa::{Geometry, Level};
use flatland::machine::{Forget, Machine, Point, Whose, Words};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

/// Dice with a seed (xorshift), so that every run is the same.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall as `seed` says.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.roll() >> 16) % limit
    }

    /// True once in `times` on average.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of `all`, which is not empty.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// A bug to seed: one in four of these does not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// None: all is done as asked.
    None,
    /// A TLB invalidation.
    Forget,
    /// The store of an invalid descriptor over a valid one.
    Break,
    /// A barrier.
    Publish,
}

/// How often what was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Stores to descriptors.
    pub stores: u64,
    /// Barriers.
    pub publishes: u64,
    /// Invalidations of one leaf.
    pub leaves: u64,
    /// Invalidations of a VMID.
    pub vmids: u64,
    /// Invalidations of all.
    pub alls: u64,
    /// Walks and TLB hits of the modelled CPUs.
    pub accesses: u64,
    /// Bytes cleaned to the point of coherency.
    pub coherent: u64,
    /// Bytes cleaned to the point of unification, which invalidates instruction caches.
    pub unified: u64,
    /// Invalidations of whole instruction caches.
    pub instructions: u64,
}

/// What a CPU has in VTTBR_EL2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Context {
    vmid: Vmid,
    root: u64,
    geometry: Geometry,
}

/// Something remembered: the descriptor `word`, of `level`, found at `at`, speaks for the span from `input`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    context: Context,
    input: u64,
    level: Level,
    at: u64,
    word: u64,
}

impl Entry {
    fn covers(&self, ipa: u64) -> bool {
        ipa & !(self.level.span() - 1) == self.input
    }

    fn is_leaf(&self) -> bool {
        matches!(Desc::decode(self.word, self.level), Desc::Leaf(..))
    }
}

/// The disk: what was written to it, and how often it fails.
#[derive(Debug, Default)]
struct Disk {
    blocks: u32,
    kept: BTreeMap<u32, Vec<u64>>,
    /// One transfer in so many fails.
    failing: Option<u64>,
}

#[derive(Debug)]
struct State {
    /// What walkers may still see at an address.
    hidden: BTreeMap<u64, u64>,
    /// Frames zeroed and not published.
    fresh: BTreeSet<u64>,
    /// Frames that were handed out to be read or written since stores were published last, and their words at that time.
    handed_out: BTreeMap<u64, Box<[u64]>>,
    /// Frames of which an instruction cache may hold something, though no leaf lets anybody fetch it any more, and the hash of
    /// what that is.
    fetched: BTreeMap<u64, u64>,
    remembered: Vec<Entry>,
    cpus: BTreeMap<CpuId, Context>,
    hot: Vec<u64>,
    /// Whether guests write on their own.
    scribbles: bool,
    /// What they wrote: on which CPU, where, what.
    scribbled: Vec<(CpuId, u64, u64)>,
    errors: Vec<String>,
    dice: Dice,
    flaw: Flaw,
    tally: Tally,
    disk: Disk,
}

/// The most that is remembered; more pushes out older things by dice.
const CAPACITY: usize = 192;
/// What nobody has written.
const GARBAGE: u64 = 0xdead_beef_dead_beef;
/// How many addresses the other CPUs like to use.
const HOT: usize = 48;

/// The machine.
#[derive(Debug)]
pub struct Model {
    base: u64,
    words: Vec<Words>,
    dram: Vec<Words>,
    state: Mutex<State>,
}

fn frames(count: u64, word: u64) -> Vec<Words> {
    (0..count).map(|_| std::array::from_fn(|_| AtomicU64::new(word))).collect()
}

impl Model {
    /// A machine with `bytes` of RAM from `base`, full of what somebody left there.
    pub fn new(base: Addr<Pa>, bytes: u64, seed: u64, flaw: Flaw) -> Self {
        let count = bytes / Size::Page.bytes();
        let state = State {
            hidden: BTreeMap::new(),
            fresh: BTreeSet::new(),
            handed_out: BTreeMap::new(),
            fetched: BTreeMap::new(),
            remembered: Vec::new(),
            cpus: BTreeMap::new(),
            hot: Vec::new(),
            scribbles: false,
            scribbled: Vec::new(),
            errors: Vec::new(),
            dice: Dice::new(seed),
            flaw,
            tally: Tally::default(),
            disk: Disk::default(),
        };
        Self {
            base: base.bits(),
            words: frames(count, GARBAGE),
            dram: frames(count, GARBAGE),
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn words_at(&self, frame: Addr<Pa>) -> &Words {
        &self.words[((frame.bits() - self.base) >> 12) as usize]
    }

    fn word(&self, at: u64) -> &AtomicU64 {
        let offset = at - self.base;
        &self.words[(offset >> 12) as usize][(offset >> 3 & 511) as usize]
    }

    /// Loads VTTBR_EL2 on a CPU: from now on it may walk there at any moment.
    pub fn enter(&self, cpu: CpuId, vttbr: u64, geometry: Geometry) {
        let context = Context { vmid: Vmid((vttbr >> 48) as u16), root: vttbr & 0xffff_ffff_fffe, geometry };
        let mut state = self.state();
        state.cpus.remove(&cpu);
        let others = state.cpus.values().chain(state.remembered.iter().map(|entry| &entry.context));
        if let Some(other) = others.into_iter().find(|other| other.vmid == context.vmid && other.root != context.root) {
            let error = format!("{:?} is lent twice: {other:?} and {context:?}", context.vmid);
            state.errors.push(error);
        }
        state.cpus.insert(cpu, context);
    }

    /// The CPU has no guest's table in VTTBR_EL2 any more.
    pub fn leave(&self, cpu: CpuId) {
        self.state().cpus.remove(&cpu);
    }

    /// Uses an address as the guest on `cpu`: where it is in physical memory, or nothing for a fault. `cpu` must have entered.
    pub fn access(&self, cpu: CpuId, ipa: Addr<Ipa>) -> Option<Addr<Pa>> {
        let mut state = self.state();
        let context = state.cpus[&cpu];
        self.translate(&mut state, context, ipa.bits()).map(|(pa, _)| Addr::new(pa))
    }

    /// The same with the descriptor.
    pub fn translation(&self, cpu: CpuId, ipa: Addr<Ipa>) -> Option<(Addr<Pa>, Desc)> {
        let mut state = self.state();
        let context = state.cpus[&cpu];
        self.translate(&mut state, context, ipa.bits()).map(|(pa, desc)| (Addr::new(pa), desc))
    }

    /// From now on guests write to pages they may write to, of those they were tempted with, at any moment.
    pub fn let_scribble(&self) {
        self.state().scribbles = true;
    }

    /// What guests wrote on their own since the last call, in order.
    pub fn scribbled(&self) -> Vec<(CpuId, u64, u64)> {
        std::mem::take(&mut self.state().scribbled)
    }

    /// Tells the other CPUs of an address worth using.
    pub fn tempt(&self, ipa: Addr<Ipa>) {
        let mut state = self.state();
        if state.hot.len() < HOT {
            state.hot.push(ipa.bits());
        } else {
            let place = state.dice.below(HOT as u64) as usize;
            state.hot[place] = ipa.bits();
        }
    }

    /// The word at `pa` as a guest with caches on sees it.
    pub fn cached(&self, pa: Addr<Pa>) -> u64 {
        self.word(pa.bits()).load(Relaxed)
    }

    /// The word at `pa` as a guest with caches off sees it.
    pub fn uncached(&self, pa: Addr<Pa>) -> u64 {
        let offset = pa.bits() - self.base;
        self.dram[(offset >> 12) as usize][(offset >> 3 & 511) as usize].load(Relaxed)
    }

    /// A guest's store that reaches caches and DRAM.
    pub fn guest_store(&self, pa: Addr<Pa>, value: u64) {
        self.write_through(pa.bits(), value);
        self.note_guest_store(&mut self.state(), pa.bits());
    }

    /// A guest's store that stays in the caches of the CPU that it was on.
    pub fn cached_store(&self, pa: Addr<Pa>, value: u64) {
        self.word(pa.bits()).store(value, Relaxed);
        self.note_guest_store(&mut self.state(), pa.bits());
    }

    /// Gives the board a disk of this many blocks, full of garbage; none for 0.
    pub fn attach_disk(&self, blocks: u32) {
        self.state().disk = Disk { blocks, ..Disk::default() };
    }

    /// From now on one transfer in so many fails, or none.
    pub fn fail_transfers(&self, one_in: Option<u64>) {
        self.state().disk.failing = one_in;
    }

    /// How many blocks of the disk have been written so far.
    pub fn blocks_written(&self) -> usize {
        self.state().disk.kept.len()
    }

    /// Ends an operation: whatever is still remembered must be what the tables say, and nothing may be unpublished.
    pub fn settle(&self) {
        let mut state = self.state();
        if !state.hidden.is_empty() {
            state.errors.push("a store was not published".into());
        }
        let stale: Vec<Entry> = state.remembered.iter().filter(|entry| !self.is_true(entry)).copied().collect();
        if let Some(entry) = stale.first() {
            state.errors.push(format!("{} remembered and no longer true, such as {entry:x?}", stale.len()));
        }
        state.remembered.retain(|entry| !stale.contains(entry));
        state.hidden.clear();
    }

    /// Whether anything under the table at `root` is still remembered, or a CPU may walk it.
    pub fn knows(&self, root: Addr<Pa>) -> bool {
        let state = self.state();
        state.remembered.iter().any(|entry| entry.context.root == root.bits())
            || state.cpus.values().any(|context| context.root == root.bits())
    }

    /// What has gone wrong so far, and forgets it.
    pub fn errors(&self) -> Vec<String> {
        std::mem::take(&mut self.state().errors)
    }

    /// How often what was asked for so far.
    pub fn tally(&self) -> Tally {
        self.state().tally
    }

    /// Whether a walk by the truth comes by this descriptor.
    fn is_true(&self, entry: &Entry) -> bool {
        let Context { root, geometry, .. } = entry.context;
        let mut level = geometry.start();
        let mut at = root + geometry.root_index(entry.input).unwrap() * 8;
        loop {
            let word = self.word(at).load(Relaxed);
            if level == entry.level {
                return at == entry.at && (word ^ entry.word) & !SOFTWARE_BITS == 0;
            }
            match (Desc::decode(word, level), level.next()) {
                (Desc::Table(next), Some(below)) => {
                    level = below;
                    at = next + level.index(entry.input) * 8;
                }
                _ => return false,
            }
        }
    }

    fn translate(&self, state: &mut State, context: Context, ipa: u64) -> Option<(u64, Desc)> {
        state.tally.accesses += 1;
        let known: Vec<Entry> =
            state.remembered.iter().filter(|e| e.context == context && e.covers(ipa)).copied().collect();
        let mut hits = known.iter().filter(|entry| entry.is_leaf());
        if let Some(hit) = hits.next() {
            if let Some(other) = hits.find(|other| other.at != hit.at) {
                state.errors.push(format!("two translations of {ipa:#x}: {hit:x?} and {other:x?}"));
            }
            return output(hit, ipa);
        }
        let mut level = context.geometry.start();
        let mut at = context.root + context.geometry.root_index(ipa)? * 8;
        // A remembered pointer to a table may stand for the first part of the walk.
        let skip = known.iter().find(|_| state.dice.one_in(2));
        if let Some((Desc::Table(next), Some(below))) =
            skip.map(|entry| (Desc::decode(entry.word, entry.level), entry.level.next()))
        {
            level = below;
            at = next + level.index(ipa) * 8;
        }
        loop {
            let word = match state.hidden.get(&at) {
                Some(&old) if state.dice.one_in(2) => old,
                _ => self.word(at).load(Relaxed),
            };
            let entry = Entry { context, input: ipa & !(level.span() - 1), level, at, word };
            match Desc::decode(word, level) {
                Desc::Hole(_) => return None,
                // An access without the flag faults, and what faults is not remembered (Arm ARM D8.4.5).
                Desc::Leaf(_, attr) if !attr.accessed => return None,
                Desc::Leaf(..) => {
                    state.remember(entry);
                    return output(&entry, ipa);
                }
                Desc::Table(next) => {
                    state.remember(entry);
                    level = level.next()?;
                    at = next + level.index(ipa) * 8;
                }
            }
        }
    }

    /// The rule for what a leaf names: what was written there is seen before the leaf is.
    fn check_contents(&self, state: &mut State, at: u64, old: u64, new: u64) {
        let output = new & 0xffff_ffff_f000;
        // A leaf that was there already, or of something else than RAM, or a frame that nobody has looked into.
        if is_valid(old) || !is_ram_leaf(new) {
            return;
        }
        let changed = |frame: u64, words: &[u64]| {
            let there = self.words_at(Addr::new(frame));
            there.iter().zip(words).any(|(word, before)| word.load(Relaxed) != *before)
        };
        if let Some(words) = state.handed_out.get(&output)
            && changed(output, words)
        {
            state.errors.push(format!("{output:#x} is mapped at {at:#x} before what was written to it is seen"));
        }
    }

    /// The frames that the leaf `word` lets guests fetch from.
    fn fetchable(&self, word: u64) -> Range<u64> {
        const NO_EXEC: u64 = 1 << 54;
        const PAGE: u64 = 1 << 1;
        let output = word & 0xffff_ffff_f000;
        let bytes = if word & PAGE != 0 { 4096 } else { 2 << 20 };
        let is_fetched = is_valid(word) && is_ram_leaf(word) && word & NO_EXEC == 0;
        if is_fetched && self.has(output) { output..output + bytes } else { 0..0 }
    }

    fn has(&self, pa: u64) -> bool {
        pa.checked_sub(self.base).is_some_and(|offset| offset >> 12 < self.words.len() as u64)
    }

    /// What the frame holds, in short.
    fn hash(&self, frame: u64) -> u64 {
        let mix = |hash: u64, word: &AtomicU64| {
            (hash.rotate_left(5) ^ word.load(Relaxed)).wrapping_mul(0x517c_c1b7_2722_0a95)
        };
        self.words_at(Addr::new(frame)).iter().fold(0, mix)
    }

    /// The descriptor `old` makes way for `new`: whatever could be fetched by it or by tables below may be in an instruction
    /// cache, as it was.
    fn retire(&self, state: &mut State, old: u64, new: u64, depth: u32) {
        if !is_valid(old) || (self.fetchable(old) == self.fetchable(new) && depth == 0) {
            return;
        }
        for frame in self.fetchable(old).step_by(4096) {
            let hash = self.hash(frame);
            state.fetched.insert(frame, hash);
        }
        let table = old & 0xffff_ffff_f000;
        if !is_ram_leaf(old) && old & 2 != 0 && depth < 3 && self.has(table) {
            for index in 0..512 {
                self.retire(state, self.word(table + index * 8).load(Relaxed), 0, depth + 1);
            }
        }
    }

    /// The rule for what can be fetched from here on: no instruction cache knows it from before as something else
    /// (Arm ARM B2.4.4).
    fn check_fetch(&self, state: &mut State, at: u64, new: u64) {
        for frame in self.fetchable(new).step_by(4096) {
            if state.fetched.get(&frame).is_some_and(|hash| *hash != self.hash(frame)) {
                state.errors.push(format!(
                    "{frame:#x} is mapped at {at:#x} to be run while an instruction cache may hold another's"
                ));
            }
        }
    }

    /// Lets other CPUs do what they may at any moment.
    fn stir(&self, state: &mut State) {
        for _ in 0..2 {
            let contexts: Vec<(CpuId, Context)> = state.cpus.iter().map(|(cpu, context)| (*cpu, *context)).collect();
            if !contexts.is_empty() && !state.hot.is_empty() {
                let (cpu, context) = state.dice.pick(&contexts);
                let place = state.dice.below(state.hot.len() as u64) as usize;
                let ipa = state.hot[place] % context.geometry.limit();
                let found = self.translate(state, context, ipa);
                if let Some((pa, Desc::Leaf(_, attr))) = found
                    && state.scribbles
                    && attr.mem != MemType::Device
                    && attr.rights.allows(Rights::W)
                    && state.dice.one_in(32)
                {
                    let value = state.dice.pick(&[0, 1, 2, ipa]);
                    self.write_through(pa, value);
                    self.note_guest_store(state, pa);
                    // A guest's own store is not ours to order.
                    if let Some(words) = state.handed_out.get_mut(&(pa & !0xfff)) {
                        words[(pa >> 3 & 511) as usize] = value;
                    }
                    state.scribbled.push((cpu, ipa, value));
                }
            }
        }
    }

    /// A guest has written to a frame of its own: that an instruction cache knows it as it was is for the guest to mend.
    fn note_guest_store(&self, state: &mut State, pa: u64) {
        let frame = pa & !0xfff;
        if state.fetched.contains_key(&frame) {
            state.fetched.insert(frame, self.hash(frame));
        }
    }

    fn write_through(&self, pa: u64, value: u64) {
        let offset = pa - self.base;
        self.word(pa).store(value, Relaxed);
        self.dram[(offset >> 12) as usize][(offset >> 3 & 511) as usize].store(value, Relaxed);
    }
}

/// Whether a descriptor may be in a TLB: valid, and a leaf only with its access flag. In a table's descriptor the bit is
/// part of nothing, so bit 10 says it for blocks and pages; a table at an address with that bit clear is cached as well.
fn is_cached(word: u64) -> bool {
    is_valid(word) && !(is_ram_leaf(word) && word & 1 << 10 == 0)
}

/// Whether it is a block or page of RAM as `Desc` writes it: inner shareable; a table's descriptor has zeroes there.
fn is_ram_leaf(word: u64) -> bool {
    word & 3 << 8 == 3 << 8
}

fn output(entry: &Entry, ipa: u64) -> Option<(u64, Desc)> {
    match Desc::decode(entry.word, entry.level) {
        desc @ Desc::Leaf(output, _) => Some((output | ipa & (entry.level.span() - 1), desc)),
        _ => None,
    }
}

impl State {
    fn remember(&mut self, entry: Entry) {
        if self.remembered.contains(&entry) {
            return;
        }
        if self.remembered.len() == CAPACITY {
            let place = self.dice.below(CAPACITY as u64) as usize;
            self.remembered.swap_remove(place);
        }
        self.remembered.push(entry);
    }

    fn fails(&mut self, flaw: Flaw) -> bool {
        self.flaw == flaw && self.dice.one_in(4)
    }

    /// The rules for a transfer, and whether it works. On the way out the frame may still be read.
    fn begin_transfer(&mut self, block: u32, frame: u64, is_harmless: impl Fn(Attr) -> bool) -> bool {
        let maps = |entry: &&Entry| match Desc::decode(entry.word, entry.level) {
            Desc::Leaf(output, attr) => (output..output + entry.level.span()).contains(&frame) && !is_harmless(attr),
            _ => false,
        };
        if let Some(entry) = self.remembered.iter().find(maps) {
            self.errors.push(format!("{frame:#x} is swapped while it is in use by {entry:x?}"));
        }
        block < self.disk.blocks && !self.disk.failing.is_some_and(|times| self.dice.one_in(times))
    }

    /// The rules for a store of a valid descriptor.
    fn check_store(&mut self, at: u64, old: u64, new: u64) {
        let differs = |word: u64| is_cached(word) && (word ^ new) & !SOFTWARE_BITS != 0;
        if differs(old) {
            self.errors.push(format!("{old:#x} at {at:#x} became {new:#x} without a break"));
        }
        if self.hidden.get(&at).is_some_and(|word| differs(*word)) {
            self.errors.push(format!("the break at {at:#x} was not published"));
        }
        if self.remembered.iter().any(|entry| entry.at == at && differs(entry.word)) {
            self.errors.push(format!("the break at {at:#x} was not followed by forgetting"));
        }
        let output = new & 0xffff_ffff_f000;
        if self.fresh.range(output..output + 4096).next().is_some() {
            self.errors.push(format!("{output:#x} is mapped before its zeroes are seen"));
        }
    }
}

/// What stands for the code of EL1's vectors: NOP where the vector for EL0 is, and else whatever is to be there.
pub static EL0_VECTORS: [u32; 1024] = {
    let mut words = [0; 1024];
    words[0x400 / 4] = 0xd503_201f;
    words
};

impl Machine for Model {
    fn el0_vectors(&self) -> &[u32] {
        &EL0_VECTORS
    }

    fn load(&self, at: Addr<Pa>) -> u64 {
        self.word(at.bits()).load(Relaxed)
    }

    fn store(&self, at: Addr<Pa>, value: u64) {
        let mut state = self.state();
        self.stir(&mut state);
        state.tally.stores += 1;
        let at = at.bits();
        let old = self.word(at).load(Relaxed);
        if is_valid(value) {
            state.check_store(at, old, value);
            self.check_contents(&mut state, at, old, value);
            self.check_fetch(&mut state, at, value);
        } else if is_valid(old) && state.fails(Flaw::Break) {
            return;
        }
        self.retire(&mut state, old, value, 0);
        state.hidden.entry(at).or_insert(old);
        self.word(at).store(value, Relaxed);
    }

    fn frame(&self, frame: Addr<Pa>) -> &Words {
        assert!(frame.is_aligned(Size::Page), "{frame:?} is no frame");
        let mut state = self.state();
        self.stir(&mut state);
        let words = self.words_at(frame);
        let now = || words.iter().map(|word| word.load(Relaxed)).collect();
        state.handed_out.entry(frame.bits()).or_insert_with(now);
        words
    }

    fn zero(&self, start: Addr<Pa>, frames: u64) {
        assert!(start.is_aligned(Size::Page), "{start:?} is no frame");
        let mut state = self.state();
        let first = (start.bits() - self.base) >> 12;
        for frame in first..first + frames {
            self.words[frame as usize].iter().for_each(|word| word.store(0, Relaxed));
            state.fresh.insert(self.base + (frame << 12));
        }
    }

    fn publish(&self) {
        let mut state = self.state();
        self.stir(&mut state);
        state.tally.publishes += 1;
        if !state.fails(Flaw::Publish) {
            state.hidden.clear();
            state.fresh.clear();
            state.handed_out.clear();
        }
    }

    fn forget(&self, what: Forget) {
        let mut state = self.state();
        self.stir(&mut state);
        match what {
            Forget::Leaf(..) => state.tally.leaves += 1,
            Forget::Vmid(_) => state.tally.vmids += 1,
            Forget::All => state.tally.alls += 1,
        }
        if state.fails(Flaw::Forget) {
            return;
        }
        state.remembered.retain(|entry| match what {
            Forget::Leaf(vmid, ipa, size) => {
                assert!(ipa.is_aligned(size), "{ipa:?} is not aligned to {size:?}");
                entry.context.vmid != vmid || !entry.is_leaf() || !entry.covers(ipa.bits())
            }
            Forget::Vmid(vmid) => entry.context.vmid != vmid,
            Forget::All => false,
        });
    }

    fn invalidate_instructions(&self) {
        let mut state = self.state();
        state.fetched.clear();
        state.tally.instructions += 1;
    }

    fn clean(&self, start: Addr<Pa>, bytes: u64, point: Point) {
        match point {
            Point::Coherency => {
                self.state().tally.coherent += bytes;
                // Whole words of every line that is touched.
                for at in (start.bits() & !63..start.bits() + bytes).step_by(8) {
                    let offset = at - self.base;
                    let value = self.word(at).load(Relaxed);
                    self.dram[(offset >> 12) as usize][(offset >> 3 & 511) as usize].store(value, Relaxed);
                }
            }
            Point::Unification => {
                self.state().tally.unified += bytes;
                self.invalidate_instructions();
            }
        }
    }

    // The model is memory and translations; it has no vCPU loaded, no clock that moves and nobody to signal.
    fn get(&self, _register: El1) -> u64 {
        0
    }

    fn set(&self, _register: El1, _value: u64) {}

    fn exchange(&self, _off: &mut el1::Context, _on: &el1::Context, _el2: &El2Registers) {}

    fn load_debug(&self, _debug: &Debug, _at_el2: bool) {}

    fn has_abort(&self) -> bool {
        false
    }

    fn forget_stage1(&self) {}

    fn probe(&self, _va: u64, _access: Access, _whose: Whose) -> u64 {
        1
    }

    fn interface_type(&self) -> u64 {
        0
    }

    fn load_interface(&self, _interface: &Interface) {}

    fn save_interface(&self, _interface: &mut Interface, _lists: usize) {}

    fn caches(&self) -> [u64; 2] {
        [0; 2]
    }

    fn now(&self) -> u64 {
        0
    }

    fn signal(&self, _cpu: CpuId) {}

    fn nudge(&self, _cpu: CpuId) {}

    fn read_lists(&self, _lr: &mut [u64]) -> u32 {
        0
    }

    fn write_lists(&self, _lr: &[u64], _control: u32) {}

    fn interface(&self) -> u64 {
        0
    }

    fn release(&self, _intid: IntId) {}

    fn swap_blocks(&self) -> u32 {
        self.state().disk.blocks
    }

    fn swap_out(&self, block: u32, frame: Addr<Pa>) -> bool {
        let mut state = self.state();
        self.stir(&mut state);
        let works = state.begin_transfer(block, frame.bits(), |attr| !attr.rights.allows(Rights::W));
        let words = self.words_at(frame).iter().map(|word| if works { word.load(Relaxed) } else { GARBAGE }).collect();
        if block < state.disk.blocks {
            state.disk.kept.insert(block, words);
        }
        works
    }

    fn swap_in(&self, block: u32, frame: Addr<Pa>) -> bool {
        let mut state = self.state();
        self.stir(&mut state);
        let works = state.begin_transfer(block, frame.bits(), |_| false);
        let before = self.words_at(frame).iter().map(|word| word.load(Relaxed)).collect();
        state.handed_out.entry(frame.bits()).or_insert(before);
        let kept = state.disk.kept.get(&block).filter(|_| works);
        for (n, word) in self.words_at(frame).iter().enumerate() {
            word.store(kept.map_or(GARBAGE, |kept| kept[n]), Relaxed);
        }
        works
    }
}

#[cfg(test)]
mod tests {
    use super::{Flaw, Model};
    use flatland::addr::Addr;
    use flatland::machine::Machine;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn the_disk_keeps_blocks_and_fails_as_often_as_it_is_told_to() {
        let model = Model::new(Addr::new(0x4000_0000), 4 * 4096, 1, Flaw::None);
        let [from, to] = [0x4000_0000, 0x4000_2000].map(Addr::new);
        assert!(model.swap_blocks() == 0 && !model.swap_out(0, from), "no disk is there");
        model.attach_disk(4);
        let fill = |seed| model.frame(from).iter().zip(seed..).for_each(|(word, value)| word.store(value, Relaxed));
        for block in [3, 1] {
            fill(u64::from(block));
            assert!(model.swap_out(block, from));
        }
        assert!(model.swap_in(3, to));
        assert_eq!([0, 511].map(|n| model.frame(to)[n].load(Relaxed)), [3, 514]);
        assert!(!model.swap_out(4, from));
        model.fail_transfers(Some(1));
        assert!(!model.swap_in(1, to));
        assert_ne!(model.frame(to)[0].load(Relaxed), 1);
        model.fail_transfers(None);
        assert!(model.swap_in(1, to));
        assert_eq!((model.frame(to)[0].load(Relaxed), model.blocks_written()), (1, 2));
        assert_eq!(model.errors(), [""; 0]);
    }
}
