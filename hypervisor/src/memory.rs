//! One VM's memory: the only room that writes its descriptors.
//!
//! [`Memory`] is a VM's RAM and the devices handed through to it, in one stage-2 table whose descriptors are the only
//! record of what backs a page. RAM is allocated on first touch: [`Memory::resolve`] is the one way to a page, for the
//! guest's faults and for our own copies ([`access`]) alike, so that a page comes back whoever asks, from wherever it is.
//! [`change`] maps devices, splits and joins, and gives everything back; [`share`] merges pages, [`pack`] compresses and
//! swaps them, [`balloon`] takes what the guest gives, [`sample`] notices which are used. [`stage1`] reads a guest's own
//! tables for crash reports.
//!
//! ```text
//!              ┌──────────── share ───────────┐        leaf, written by whoever may
//!  Absent ─touch─▶ Own ─────────────────▶ Shared       leaf, copied on write
//!     ▲             │  ◀─── write ────────────┘
//!     │ zero,       │ pack          swap
//!     │ balloon     ▼                               any hole ─touch─▶ Own, by `fault` alone
//!     └────────── Packed       Swapped
//! ```
//!
//! A vCPU enters by [`Root`], which needs no lock.
//!
//! # Caches
//!
//! A guest starts with its MMU and caches off and then reads past the caches, whatever stage 2 says: the stages combine to
//! the stricter type (Arm ARM D8.6). So the zeroes of a fresh page are cleaned to the point of coherency before it is
//! mapped, or the guest could read what another VM had left in DRAM. With FEAT_S2FWB ([`Coherence::Forced`]) stage 2
//! makes every access cacheable, and the cleaning is not needed.
//!
//! # Invariants
//!
//! * Each Normal leaf names frames that the pool has recorded as this VM's and that no other leaf names; or it is marked
//!   shared and read-only, and names a frame that the pool has recorded as shared, once for each leaf.
//! * A packed or swapped hole names a place in the store or the swap area that nothing else names.
//! * RAM and devices do not overlap; no device leaf is ever read or written by us.
//! * The caller holds the VM's memory lock (`&mut Memory`) and may not hold the pool's: it is taken inside.

pub mod access;
pub mod balloon;
pub mod change;
pub mod check;
pub mod fault;
pub mod flush;
pub mod outer;
pub mod pack;
mod reverse;
pub mod sample;
pub mod shadow;
pub mod share;
pub mod stage1;

pub use fault::{Access, Miss};

use crate::addr::{Addr, CpuId, Ipa, Pa, Size, VmId};
use crate::arm::desc::{Attr, Hole, MemType};
use crate::arm::vmsa::{Geometry, vttbr};
use crate::frames::{Order, SharedPool, Use};
use crate::machine::{Forget, Machine};
use crate::stage2::vmid::{Tag, Vmids};
use crate::stage2::{Leaf, Refusal, Supply, Table};
use alloc::sync::Arc;

/// Where the virtual board's RAM starts: as on QEMU's `virt`.
pub const RAM_BASE: Addr<Ipa> = Addr::new(0x4000_0000);

/// What a first touch allocates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Granule {
    /// 2 MiB where that much lies in RAM, is untouched, and the pool has it; else a page.
    Block,
    /// 4 KiB, always.
    Page,
}

/// Who sees to it that a guest whose caches are off sees what we wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coherence {
    /// We clean. For HCR_EL2.FWB clear.
    Cleaned,
    /// Stage 2 forces write-back. Only for HCR_EL2.FWB set.
    Forced,
}

/// What a VM's memory is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Whose.
    pub owner: VmId,
    /// Where RAM starts.
    pub base: Addr<Ipa>,
    /// How many bytes of RAM.
    pub bytes: u64,
    /// The shape of its table.
    pub geometry: Geometry,
    /// The value of VTCR_EL2 that goes with the shape.
    pub vtcr: u64,
    /// What a first touch allocates.
    pub granule: Granule,
    /// Whose business the guest's cache-off view is.
    pub coherence: Coherence,
}

/// Where a VM's memory is, in 4 KiB. What is in none of these was never touched, or is zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Resident {
    /// Frames of RAM that are this VM's alone.
    pub frames: u64,
    /// Frames of tables, the root included.
    pub tables: u64,
    /// Of these, those of shadows but for their roots.
    pub shadows: u64,
    /// Pages in shared frames.
    pub shared: u64,
    /// Pages that are compressed.
    pub packed: u64,
    /// What these take in the store, in units of 256 bytes.
    pub units: u64,
    /// Pages in the swap area.
    pub swapped: u64,
    /// Pages found full of zeroes and dropped.
    pub zero: u64,
    /// Pages in the balloon.
    pub ballooned: u64,
}

impl Resident {
    /// The count of pages in holes of this kind, if it is kept.
    pub(crate) const fn of(&mut self, hole: Hole) -> Option<&mut u64> {
        match hole {
            Hole::Ballooned => Some(&mut self.ballooned),
            Hole::Zero => Some(&mut self.zero),
            Hole::Packed(_) => Some(&mut self.packed),
            Hole::Swapped(..) => Some(&mut self.swapped),
            Hole::Absent | Hole::Poisoned => None,
        }
    }
}

/// What a CPU needs to enter the VM. Cloned once for each vCPU when the VM is built, and valid until
/// [`Memory::retire`].
#[derive(Clone, Debug)]
pub struct Root {
    base: Addr<Pa>,
    vtcr: u64,
    tag: Arc<Tag>,
}

impl Root {
    /// The value of VTCR_EL2.
    pub const fn vtcr(&self) -> u64 {
        self.vtcr
    }

    /// Makes every CPU forget all translations, stages 1 and 2, that were made through it.
    pub fn forget<M: Machine>(&self, m: &M) {
        if let Some(vmid) = self.tag.vmid() {
            m.forget(Forget::Vmid(vmid));
        }
    }

    /// The value of VTTBR_EL2 for `cpu`, which is about to load it; asks for a VMID. To be called whenever the CPU
    /// changes to this VM from another; afterwards it must be in VTTBR_EL2 before the guest is entered.
    pub fn vttbr<M: Machine>(&self, m: &M, vmids: &Vmids, cpu: CpuId) -> u64 {
        vttbr(self.base, vmids.of(m, cpu, &self.tag))
    }
}

/// One VM's memory.
#[derive(Debug)]
pub struct Memory {
    layout: Layout,
    table: Table<Ipa, Pa>,
    tag: Arc<Tag>,
    resident: Resident,
    /// What a ballooned page is full of when it comes back, twice 32 bits.
    filling: u64,
    sample: sample::Sample,
    shadows: shadow::Shadows,
    /// How many pages of RAM [`Memory::release_some`] has done.
    released: u64,
}

impl Memory {
    /// Memory with nothing in it. Takes the root's frames from the pool.
    ///
    /// Refuses RAM that is not whole pages ([`Refusal::Unaligned`]) or does not fit the shape ([`Refusal::Outside`]): the
    /// manifest is to blame; or for want of frames ([`Refusal::Short`]).
    pub fn new<M: Machine>(m: &M, pool: &SharedPool<'_>, layout: Layout) -> Result<Self, Refusal> {
        let end = layout.base.checked_add(layout.bytes).ok_or(Refusal::Outside)?;
        if end.bits() > layout.geometry.limit() {
            return Err(Refusal::Outside);
        }
        if !layout.base.is_aligned(Size::Page) || !end.is_aligned(Size::Page) {
            return Err(Refusal::Unaligned);
        }
        let tables = layout.geometry.root_tables();
        let order = Order::holding(tables).ok_or(Refusal::Outside)?;
        let root = pool.lock().take(order, layout.owner, Use::Table).ok_or(Refusal::Short)?;
        let table = Table::new(root.zero(m).into_table(), layout.geometry);
        let resident = Resident { tables, ..Resident::default() };
        let sample = sample::Sample::default();
        Ok(Self {
            layout,
            table,
            tag: Arc::new(Tag::new()),
            resident,
            filling: 0,
            sample,
            shadows: shadow::Shadows::default(),
            released: 0,
        })
    }

    /// What a CPU needs to enter the VM.
    pub fn root(&self) -> Root {
        Root { base: self.table.root(), vtcr: self.layout.vtcr, tag: Arc::clone(&self.tag) }
    }

    /// The table, to walk it for a report.
    pub const fn table(&self) -> &Table<Ipa, Pa> {
        &self.table
    }

    /// What it was made to be.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How much physical memory it holds. Costs nothing.
    pub const fn resident(&self) -> Resident {
        self.resident
    }

    /// Whether all `bytes` from `at` are RAM. Any numbers will do, a guest's too.
    pub const fn is_ram(&self, at: Addr<Ipa>, bytes: u64) -> bool {
        match at.distance_from(self.layout.base) {
            Some(offset) => offset <= self.layout.bytes && bytes <= self.layout.bytes - offset,
            None => false,
        }
    }

    /// The attributes of a page of RAM.
    const fn ram_attr(&self) -> Attr {
        match self.layout.coherence {
            Coherence::Cleaned => Attr::RAM,
            Coherence::Forced => Attr { mem: MemType::Forced, ..Attr::RAM },
        }
    }

    /// Takes the own leaf around `at` away and leaves `hole`, and with it the shadow leaves that hang on it.
    fn unmap<M: Machine>(&mut self, m: &M, at: Addr<Ipa>, hole: Hole) -> Result<Leaf<Ipa, Pa>, Refusal> {
        let leaf = self.table.unmap(m, &self.tag, at, hole)?;
        self.kill(m, leaf.input, leaf.size, leaf.output);
        Ok(leaf)
    }

    /// Counts `pages` pages more, or less, in holes of this kind.
    fn count(&mut self, hole: Hole, pages: i64) {
        if let Some(count) = self.resident.of(hole) {
            *count = count.saturating_add_signed(pages);
        }
    }

    /// The pool as the supply of this VM's tables, and all else apart from it.
    fn parts<'s, 'p, M: Machine>(
        &'s mut self,
        m: &'s M,
        pool: &'s SharedPool<'p>,
    ) -> (&'s Table<Ipa, Pa>, &'s Tag, Tables<'s, 'p, M>) {
        let supply = Tables { m, pool, owner: self.layout.owner, held: &mut self.resident.tables };
        (&self.table, &self.tag, supply)
    }
}

/// Table frames from and to the pool, counted.
struct Tables<'s, 'p, M> {
    m: &'s M,
    pool: &'s SharedPool<'p>,
    owner: VmId,
    held: &'s mut u64,
}

impl<M: Machine> Supply for Tables<'_, '_, M> {
    fn take(&mut self) -> Option<Addr<Pa>> {
        // Zeroed after the lock is let go.
        let frame = self.pool.lock().take(Size::Page, self.owner, Use::Table)?;
        *self.held += 1;
        Some(frame.zero(self.m).into_table())
    }

    fn give(&mut self, table: Addr<Pa>) {
        give_back(self.pool, table, Size::Page, self.owner);
        *self.held -= 1;
    }
}

/// Gives back what a table named; the pool counts it if its records contradict.
#[inline(always)]
fn give_back(pool: &SharedPool<'_>, at: Addr<Pa>, order: impl Into<Order>, owner: VmId) {
    give_back_run(pool, at, order.into(), owner);
}

fn give_back_run(pool: &SharedPool<'_>, at: Addr<Pa>, order: Order, owner: VmId) {
    let mut pool = pool.lock();
    if let Some(frame) = pool.reclaim(at, order, owner) {
        pool.give_back(frame);
    }
}
