//! What a VM's memory consists of, and the smallest steps that all else is made of.

use super::shadows::Shadows;
use crate::addr::{Addr, CpuId, Ipa, Pa, Size, VmId};
use crate::arm::desc::{Attr, Hole, MemType};
use crate::arm::vmsa::{Geometry, vttbr};
use crate::frames::{Expander, Filling, Order, SharedPool, Use};
use crate::machine::{Forget, Machine};
use crate::stage2::vmid::{Tag, Vmids};
use crate::stage2::{Leaf, Refusal, Supply, Table};
use alloc::boxed::Box;
use alloc::sync::Arc;
use arrayvec::ArrayVec;

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
    /// How many bytes behind that are for blocks of disks ([`super::blocks`]); whole blocks of 2 MiB.
    pub blocks: u64,
    /// The shape of its table.
    pub geometry: Geometry,
    /// The value of VTCR_EL2 that goes with the shape.
    pub vtcr: u64,
    /// What a first touch allocates.
    pub granule: Granule,
    /// Whose business the guest's cache-off view is.
    pub coherence: Coherence,
}

impl Layout {
    /// All bytes from the start of RAM on: RAM, and what is for blocks of disks.
    pub const fn all_bytes(&self) -> u64 {
        self.bytes.saturating_add(self.blocks)
    }
}

/// Where a VM's memory is, in 4 KiB. What is in none of these was never touched, or is zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Resident {
    /// Frames of RAM that are this VM's alone.
    pub frames: u64,
    /// Frames of a block that is being made ready for its first touch.
    pub pending: u64,
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
    pub(super) base: Addr<Pa>,
    pub(super) vtcr: u64,
    pub(super) tag: Arc<Tag>,
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

/// How many pages are watched at a time.
pub(super) const SAMPLE: usize = 100;

/// In the place of a page that was touched. No page has this number.
pub(super) const COUNTED: u32 = u32::MAX;

/// The pages that are watched.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    pub(super) pages: ArrayVec<u32, SAMPLE>,
    pub(super) touched: u32,
}

impl Sample {
    /// A page without its access flag was touched, or one that was put away meanwhile. Counts once.
    pub(super) fn touched(&mut self, page: u32) {
        if let Some(place) = self.pages.iter_mut().find(|place| **place == page) {
            *place = COUNTED;
            self.touched += 1;
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// What is done in steps, as it is long, and how far that is.
#[derive(Default, Debug)]
pub(super) struct Begun {
    /// A block that is looked at to be dropped if it is full of zeroes, and how many of its pages were.
    pub(super) zeroes: Option<(Addr<Ipa>, u64)>,
    /// A page that is brought back from the store.
    pub(super) expander: Expander,
    /// A block that is being made ready for a first touch, and where.
    pub(super) block: Option<(Addr<Ipa>, Filling)>,
}

/// One VM's memory.
#[derive(Debug)]
pub struct Memory {
    pub(super) layout: Layout,
    pub(super) table: Table<Ipa, Pa>,
    pub(super) tag: Arc<Tag>,
    pub(super) resident: Resident,
    /// What a ballooned page is full of when it comes back, twice 32 bits.
    pub(super) filling: u64,
    pub(super) sample: Sample,
    pub(super) shadows: Shadows,
    pub(super) begun: Box<Begun>,
    /// How many pages of RAM [`Memory::release_some`] has done.
    pub(super) released: u64,
}

impl Memory {
    /// Memory with nothing in it. Takes the root's frames from the pool.
    ///
    /// Refuses RAM that is not whole pages ([`Refusal::Unaligned`]) or does not fit the shape ([`Refusal::Outside`]): the
    /// manifest is to blame; or for want of frames ([`Refusal::Short`]).
    pub fn new<M: Machine>(m: &M, pool: &SharedPool<'_>, layout: Layout) -> Result<Self, Refusal> {
        let end = layout.base.checked_add(layout.all_bytes()).ok_or(Refusal::Outside)?;
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
        let sample = Sample::default();
        Ok(Self {
            layout,
            table,
            tag: Arc::new(Tag::new()),
            resident,
            filling: 0,
            sample,
            shadows: Shadows::default(),
            begun: Box::default(),
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
    pub(super) const fn ram_attr(&self) -> Attr {
        match self.layout.coherence {
            Coherence::Cleaned => Attr::RAM,
            Coherence::Forced => Attr { mem: MemType::Forced, ..Attr::RAM },
        }
    }

    /// Takes the own leaf around `at` away and leaves `hole`, and with it the shadow leaves that hang on it.
    pub(super) fn unmap<M: Machine>(&mut self, m: &M, at: Addr<Ipa>, hole: Hole) -> Result<Leaf<Ipa, Pa>, Refusal> {
        let leaf = self.table.unmap(m, &self.tag, at, hole)?;
        self.kill(m, leaf.input, leaf.size, leaf.output);
        Ok(leaf)
    }

    /// Counts `pages` pages more, or less, in holes of this kind.
    pub(super) fn count(&mut self, hole: Hole, pages: i64) {
        if let Some(count) = self.resident.of(hole) {
            *count = count.saturating_add_signed(pages);
        }
    }

    /// The pool as the supply of this VM's tables, and all else apart from it.
    pub(super) fn parts<'s, 'p, M: Machine>(
        &'s mut self,
        m: &'s M,
        pool: &'s SharedPool<'p>,
    ) -> (&'s Table<Ipa, Pa>, &'s Tag, Tables<'s, 'p, M>) {
        let supply = Tables { m, pool, owner: self.layout.owner, held: &mut self.resident.tables };
        (&self.table, &self.tag, supply)
    }
}

/// Table frames from and to the pool, counted.
pub(super) struct Tables<'s, 'p, M> {
    pub(super) m: &'s M,
    pub(super) pool: &'s SharedPool<'p>,
    pub(super) owner: VmId,
    pub(super) held: &'s mut u64,
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
pub(super) fn give_back(pool: &SharedPool<'_>, at: Addr<Pa>, order: impl Into<Order>, owner: VmId) {
    give_back_run(pool, at, order.into(), owner);
}

fn give_back_run(pool: &SharedPool<'_>, at: Addr<Pa>, order: Order, owner: VmId) {
    pool.lock().free_held(at, order, owner);
}
