//! Shadow tables of stage 1: a virtual EL2's addresses to the VM's, in tables that the hardware walks where it cannot walk the
//! hypervisor's own (shadow paging, on a CPU without FEAT_NV).
//!
//! Such an EL2 runs at EL0, with one of these in TTBR0_EL1. The tables lie in a window of the VM's addresses in which it has nothing, where
//! it may read and not write them, and lead to the VM's addresses, under its own stage 2: what becomes of a page there is no concern of
//! theirs. A leaf is made on a fault, of the hypervisor's leaf ([`super::el2_walk`]), and goes with the hypervisor's TLBI
//! ([`El2Shadows::forget`]). Until then the hardware may find what the hypervisor's tables said at any time since its last TLBI, as the
//! architecture has it (Arm ARM D8.16).
//!
//! Behind the tables in the window are EL1's exception vectors ([`super::el2_vectors`]) and, if these do accesses to them, the pages of
//! registers.
//!
//! There are as many tables as the VM was given. When they are used up all shadows are emptied and filled anew. A shadow is known by the
//! registers of its regime. It has an ASID of its own, as vCPUs with different ones may take turns on a CPU, and its leaves are not global.

mod check;

use super::el2_vectors;
use super::el2_walk::{El2Leaf, El2Regime};
use super::nested_walk::{NestedFault, Reason, Wrong};
use super::{Access, Memory, Root};
use crate::addr::{Addr, Ipa, Pa, Size, VcpuId, VmId};
use crate::arm::desc::{Desc, Rights, Stage1, is_valid};
use crate::arm::gic::Version;
use crate::arm::vmsa::{ENTRIES, Level};
use crate::frames::{SharedPool, Use};
use crate::machine::Machine;
use crate::stage2::Refusal;
use alloc::vec;
use alloc::vec::Vec;

/// Where the tables are: between the devices and RAM.
pub const WINDOW: Addr<Ipa> = Addr::new(0x2000_0000);
/// The most tables a VM can be given: the window has room for them, and 2 MiB is more than any hypervisor's EL2 needs.
pub const MOST_TABLES: usize = 512;

/// Where addresses end: TCR_EL1.T0SZ is 16, whatever the hypervisor's is.
const END: u64 = 1 << 48;
/// Shadows besides those that vCPUs are in: so that one is kept that is soon entered again.
const SPARE: usize = 2;
/// How many entries a TLBI of a range looks at, before the shadows that are left are emptied instead.
const MOST_STEPS: u32 = 1024;

/// How many tables a VM of so many vCPUs is given.
pub const fn tables_for(vcpus: u16) -> usize {
    // What a hypervisor maps of 1 GiB by blocks takes 4 a shadow; what it maps by pages, one for each 2 MiB.
    48 + 16 * vcpus as usize
}

/// How many frames these are, with EL1's vectors.
pub const fn frames_for(vcpus: u16) -> u64 {
    (tables_for(vcpus) + el2_vectors::FRAMES) as u64
}

#[derive(Clone, Debug)]
struct El2Shadow {
    /// Whose it is; nobody's to begin with.
    regime: Option<El2Regime>,
    /// When it was entered last.
    used: u64,
    is_empty: bool,
    /// Which entries of its root may be valid, a bit each: no more than there are tables.
    roots: [u64; (ENTRIES / 64) as usize],
    /// The size of the hypervisor's largest leaf of which it has a smaller one: a TLBI for any address in it is for all of it.
    parts_of: u64,
}

/// The shadows of a VM's virtual EL2s.
#[derive(Debug)]
pub struct El2Shadows {
    owner: VmId,
    /// What the VM is entered by: translations of stage 1 are known by its VMID.
    root: Root,
    /// The frames of all tables, in the order of the window. The first are the roots, one for each shadow.
    tables: Vec<Addr<Pa>>,
    /// The frames of EL1's vectors.
    vectors: [Addr<Pa>; el2_vectors::FRAMES],
    /// Whether among these are such that do accesses to the pages of registers.
    has_code: bool,
    /// Those pages, which are behind the vectors in the window, in the order of the vCPUs. They are somebody else's.
    registers: Vec<Addr<Pa>>,
    /// The first that is not used.
    next: usize,
    all: Vec<El2Shadow>,
    /// Which of them each vCPU is in.
    held: Vec<Option<usize>>,
    clock: u64,
}

impl El2Shadows {
    /// Shadows for so many vCPUs that have `tables` tables between them, or a few more if that is too few. Takes their frames from the
    /// pool; refuses where that has not enough ([`Refusal::Short`]).
    pub fn new<M: Machine>(
        m: &M,
        pool: &SharedPool<'_>,
        memory: &Memory,
        (vcpus, version): (u16, Version),
        tables: usize,
    ) -> Result<Self, Refusal> {
        let roots = usize::from(vcpus) + SPARE;
        let owner = memory.layout().owner;
        let shadow =
            El2Shadow { regime: None, used: 0, is_empty: true, roots: [0; (ENTRIES / 64) as usize], parts_of: 0 };
        let mut new = Self {
            owner,
            root: memory.root(),
            tables: Vec::new(),
            vectors: [Addr::new(0); el2_vectors::FRAMES],
            has_code: false,
            registers: Vec::new(),
            next: roots,
            all: vec![shadow; roots],
            held: vec![None; usize::from(vcpus)],
            clock: 0,
        };
        let tables = tables.min(MOST_TABLES).max(roots + Level::COUNT - 1);
        new.tables.reserve_exact(tables + el2_vectors::FRAMES);
        for _ in 0..tables + el2_vectors::FRAMES {
            let Some(frame) = pool.lock().take(Size::Page, owner, Use::Table) else {
                new.retire(pool);
                return Err(Refusal::Short);
            };
            new.tables.push(frame.zero(m).into_table());
        }
        for slot in &mut new.vectors {
            *slot = new.tables.pop().unwrap_or(*slot);
        }
        new.has_code = el2_vectors::write(m, new.vectors, Self::address(new.tables.len()), version);
        Ok(new)
    }

    /// What TTBR1_EL1 is.
    pub fn upper_root(&self) -> u64 {
        el2_vectors::root(Self::address(self.tables.len()))
    }

    /// Lets the VM's memory, which is new or was released, have the tables in its window.
    pub fn map<M: Machine>(&self, m: &M, pool: &SharedPool<'_>, memory: &mut Memory) -> Result<(), Refusal> {
        for (n, table) in self.tables.iter().chain(&self.vectors).enumerate() {
            memory.map_rom(m, pool, Self::address(n), *table)?;
        }
        let first = self.tables.len() + self.vectors.len();
        for (n, page) in (first..).zip(&self.registers) {
            memory.map_kept(m, pool, Self::address(n), *page, Rights::RW)?;
        }
        Ok(())
    }

    /// Has EL1's vectors do accesses to the page of registers of the next vCPU, which is in that frame. Says that vCPU's number, or nothing
    /// where they do not.
    pub fn add_registers<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        memory: &mut Memory,
        page: Addr<Pa>,
    ) -> Result<Option<VcpuId>, Refusal> {
        // There are fewer vCPUs than that.
        let vcpu = VcpuId(self.registers.len() as u16);
        let at = Self::address(self.tables.len() + self.vectors.len() + self.registers.len());
        if !self.has_code || !el2_vectors::add_registers(m, self.vectors, vcpu, at) {
            return Ok(None);
        }
        memory.map_kept(m, pool, at, page, Rights::RW)?;
        self.registers.push(page);
        Ok(Some(vcpu))
    }

    /// Gives the frames back. They are mapped nowhere any more.
    pub fn retire(self, pool: &SharedPool<'_>) {
        let vectors = self.vectors.into_iter().filter(|frame| frame.bits() != 0);
        for table in self.tables.into_iter().chain(vectors) {
            super::give_back(pool, table, Size::Page, self.owner);
        }
    }

    /// Where table `n` is.
    fn address(n: usize) -> Addr<Ipa> {
        WINDOW + n as u64 * Size::Page.bytes()
    }

    /// What TTBR0_EL1 is for `vcpu`, whose EL2 has this regime from now on.
    pub fn enter<M: Machine>(&mut self, m: &M, vcpu: VcpuId, regime: &El2Regime) -> Option<u64> {
        let regime = regime.canonical();
        self.clock += 1;
        // A vCPU that changes its mind leaves what it was in.
        *self.held.get_mut(usize::from(vcpu.0))? = None;
        let n = match self.all.iter().position(|shadow| shadow.regime == Some(regime)) {
            Some(n) => n,
            None => {
                let free = self.all.iter().enumerate().filter(|(n, _)| !self.held.contains(&Some(*n)));
                let (n, _) = free.min_by_key(|(_, shadow)| shadow.used)?;
                let changed = self.empty(m, n);
                self.settle(m, changed);
                self.all.get_mut(n)?.regime = Some(regime);
                n
            }
        };
        self.all.get_mut(n)?.used = self.clock;
        *self.held.get_mut(usize::from(vcpu.0))? = Some(n);
        // Below 2^8: there are fewer vCPUs. ASID 0 is nobody's.
        Some(Self::address(n).bits() | (n as u64 + 1) << 48)
    }

    /// Adds the leaf for `va` that allows `access` of the EL2 of `vcpu`.
    pub fn fill<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        memory: &mut Memory,
        vcpu: VcpuId,
        va: u64,
        access: Access,
    ) -> Result<(), Reason> {
        let n = self.held.get(usize::from(vcpu.0)).copied().flatten();
        let Some((n, regime)) = n.and_then(|n| Some((n, self.all.get(n)?.regime?))) else {
            // It has entered none.
            return Err(Reason::Fault(NestedFault { wrong: Wrong::Translation, level: 0 }));
        };
        let leaf = memory.walk_el2(m, pool, &regime, Addr::new(va))?;
        if !leaf.allows(access) {
            return Err(Reason::Fault(NestedFault { wrong: Wrong::Permission, level: leaf.level }));
        }
        // Where the tables are used up there are some after that.
        for _ in 0..2 {
            if self.place(m, n, regime.untagged(va), &leaf) {
                return Ok(());
            }
            self.empty_all(m);
        }
        Ok(())
    }

    /// Puts the hypervisor's leaf for `va` into shadow `n`, as large as the tables there allow. False where a table is missing.
    fn place<M: Machine>(&mut self, m: &M, n: usize, va: u64, leaf: &El2Leaf) -> bool {
        // From here on there may be tables in it, if no leaf.
        if let Some(shadow) = self.all.get_mut(n) {
            shadow.is_empty = false;
            let index = Level::L0.index(va);
            if let Some(word) = shadow.roots.get_mut((index / 64) as usize) {
                *word |= 1 << (index % 64);
            }
        }
        let (mut table, mut level) = (n, Level::L0);
        loop {
            let Some(at) = self.entry(table, level, va) else { return false };
            let old = m.load(at);
            let below = Self::below(old, level);
            let fits = |size: &Size| *size == Size::Page || leaf.bytes >= size.bytes();
            if let Some(size) = level.leaf().filter(fits).filter(|_| below.is_none()) {
                self.set(m, at, old, leaf.descriptor(size == Size::Page) | leaf.ipa.align_down(size).bits());
                if let Some(shadow) = self.all.get_mut(n).filter(|_| leaf.bytes > size.bytes()) {
                    shadow.parts_of = shadow.parts_of.max(leaf.bytes);
                }
                return true;
            }
            table = match below {
                Some(below) => below,
                None => {
                    let Some(new) = self.take(m) else { return false };
                    // A leaf that is there is larger than the hypervisor's is by now.
                    self.set(m, at, old, Desc::Table(Self::address(new).bits()).encode(level));
                    new
                }
            };
            let Some(next) = level.next() else { return false };
            level = next;
        }
    }

    /// Replaces an entry: break-before-make where it was valid (Arm ARM D8.16.1).
    fn set<M: Machine>(&self, m: &M, at: Addr<Pa>, old: u64, new: u64) {
        if old == new {
            return;
        }
        if is_valid(old) {
            m.store(at, 0);
            self.settle(m, true);
        }
        m.store(at, new);
        m.publish();
    }

    /// The next table that nobody uses, zeroed.
    fn take<M: Machine>(&mut self, m: &M) -> Option<usize> {
        let frame = *self.tables.get(self.next)?;
        m.zero(frame, 1);
        // It is linked next: a walk must not find what it held.
        m.publish();
        self.next += 1;
        Some(self.next - 1)
    }

    /// Where the entry for `va` is in table `n`, which is of `level`.
    fn entry(&self, n: usize, level: Level, va: u64) -> Option<Addr<Pa>> {
        Some(*self.tables.get(n)? + level.index(va) * 8)
    }

    /// Which table an entry at `level` leads to.
    fn below(entry: u64, level: Level) -> Option<usize> {
        let granule = Level::L3.shift();
        let Stage1::Table(at) = Stage1::decode(entry, granule, level.number(), level.shift()) else { return None };
        Some((Addr::<Ipa>::new(at).distance_from(WINDOW)? / Size::Page.bytes()) as usize)
    }

    /// Has every CPU forget what was removed, if something was.
    fn settle<M: Machine>(&self, m: &M, is_changed: bool) {
        if is_changed {
            m.publish();
            self.root.forget(m);
        }
    }

    /// The hypervisor's TLBI for EL2, of so many bytes from `va` on; of all there is where nothing is given. All its vCPUs forget it.
    pub fn forget<M: Machine>(&mut self, m: &M, range: Option<(u64, u64)>) {
        let Some((va, bytes)) = range else { return self.empty_all(m) };
        let (mut changed, mut steps) = (false, 0);
        for n in 0..self.all.len() {
            let Some(shadow) = self.all.get(n).filter(|shadow| !shadow.is_empty) else { continue };
            // Powers of two.
            let whole = shadow.parts_of.max(Size::Page.bytes());
            let end = (va % END).saturating_add(bytes.max(1)).min(END);
            changed |= match self.remove(m, n, (va % END) & !(whole - 1), end.next_multiple_of(whole), &mut steps) {
                Some(removed) => removed,
                None => self.empty(m, n),
            };
        }
        self.settle(m, changed);
    }

    /// Removes from shadow `n` what translates any address of a range; whether there was something. Nothing where that is long work. What was
    /// removed has to be published and forgotten.
    fn remove<M: Machine>(&self, m: &M, n: usize, start: u64, end: u64, steps: &mut u32) -> Option<bool> {
        let (mut at, mut removed) = (start, false);
        while at < end {
            let (mut table, mut level) = (n, Level::L0);
            loop {
                *steps += 1;
                if *steps > MOST_STEPS {
                    return None;
                }
                let place = self.entry(table, level, at)?;
                let entry = m.load(place);
                let is_all = at.is_multiple_of(level.span()) && end - at >= level.span();
                if let Some(below) = Self::below(entry, level).filter(|_| !is_all) {
                    (table, level) = (below, level.next()?);
                    continue;
                }
                if is_valid(entry) {
                    m.store(place, 0);
                    removed = true;
                }
                break;
            }
            at = (at & !(level.span() - 1)) + level.span();
        }
        Some(removed)
    }

    /// Takes all out of shadow `n`; whether there was something. That has to be published and forgotten; its tables are not used again
    /// before all shadows are emptied.
    fn empty<M: Machine>(&mut self, m: &M, n: usize) -> bool {
        let (Some(root), Some(shadow)) = (self.tables.get(n), self.all.get_mut(n)) else { return false };
        if shadow.is_empty {
            return false;
        }
        (shadow.is_empty, shadow.parts_of) = (true, 0);
        for (word, first) in shadow.roots.iter_mut().zip((0..).step_by(64)) {
            while *word != 0 {
                let at = *root + (first + u64::from(word.trailing_zeros())) * 8;
                *word &= *word - 1;
                // One by one, as a walk may be under way (Arm ARM B2.2.1).
                if is_valid(m.load(at)) {
                    m.store(at, 0);
                }
            }
        }
        true
    }

    /// Empties all shadows, and has all tables but the roots to use again.
    fn empty_all<M: Machine>(&mut self, m: &M) {
        let mut changed = false;
        for n in 0..self.all.len() {
            changed |= self.empty(m, n);
        }
        self.settle(m, changed);
        // Only now: until then a walk may have been in any of them.
        self.next = self.all.len();
    }
}
