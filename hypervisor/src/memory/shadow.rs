//! Shadow tables: a guest hypervisor's stage 2 followed by the VM's own, in tables that the hardware walks.
//!
//! [`Memory::shadow`] finds the shadow of a stage 2, [`Memory::fill`] adds the leaf that a fault needs: the guest hypervisor's
//! leaf ([`super::nested_walk`]) then ours ([`Leaf::then`]). A leaf goes when what it was made of does: the hypervisor's by its
//! TLBI ([`Memory::outer_forget`]), ours when a page moves or loses rights, in the same hold of the lock
//! (`Memory::kill`, by `memory/reverse.rs`). So what the hardware finds is never more than our own table allows, and never
//! older than the hypervisor's last TLBI.
//!
//! A leaf's marks say how large the hypervisor's leaf was: a TLBI for any address in that has to reach all of it (Arm ARM
//! D8.14.5).

use super::nested_walk::{NestedFault, NestedLeaf, Reason};
use super::reverse::{Reverse, RmapEntry, RmapKey};
pub use super::shadows::ShadowCounts;
use super::shadows::{Key, Shadow, Shadows};
use super::{Access, Memory, Miss, Root, Tables, give_back};
use crate::addr::{Addr, Ipa, Ipa2, Pa, Size, VcpuId};
use crate::arm::desc::{Attr, Hole, Marks, MemType};
use crate::frames::{Order, SharedPool, Use};
use crate::machine::{Forget, Machine};
use crate::stage2::vmid::Tag;
use crate::stage2::walk::Found;
use crate::stage2::{Leaf, Refusal, Supply, Table};
use alloc::sync::Arc;

/// The most shadows of a VM, besides those that vCPUs are in.
const MOST: usize = 16;
/// The most frames that a leaf needs for tables: one for each level below the root.
const MOST_NEW: u64 = 3;

/// How many frames of tables, roots apart, the shadows of a VM with `bytes` of RAM may have on a board with `pool` frames. Guests
/// that have all that memory between them, in pages, need half of it; where more is wanted the shadow that was entered least
/// lately is emptied. A guest hypervisor can make tables for one page each, as many as its guests have addresses.
pub const fn most_tables(bytes: u64, pool: u64) -> u64 {
    let frames = bytes >> 12;
    64 + 2 * (if frames < pool { frames } else { pool }) / Size::Block.frames()
}

/// The most frames that shadows and what is kept for them take, for a VM of so many vCPUs, RAM and a board with `pool` frames.
pub const fn most_frames(bytes: u64, pool: u64, vcpus: u16) -> u64 {
    // A root is at most 16 tables (Arm ARM D8.2.5), and two for the 40 bits that VMs have.
    most_tables(bytes, pool) + Reverse::most_frames(bytes) + 2 * (MOST as u64 + vcpus as u64)
}

/// How many frames of tables that were unlinked are given back at once: some 15 us.
const SOME: u32 = 10;

/// How many leaves and holes of a shadow a TLBI of a range goes through, before all of the shadow is forgotten instead.
const MOST_FORGOTTEN: u32 = 256;

/// The key of a shadow that is not in use: no VTCR_EL2 is valid that is all ones.
const NOBODYS: Key = Key { vttbr: u64::MAX, vtcr: u64::MAX };
/// Marks of a shadow leaf: that the hypervisor's leaf is larger than a page, than a block.
const FROM_BLOCK: u8 = 1;
const FROM_GIANT: u8 = 2;

/// What a leaf of the hypervisor's spans at most that left these marks.
const fn marked(marks: u8) -> Size {
    match marks {
        0 => Size::Page,
        FROM_BLOCK => Size::Block,
        _ => Size::Giant,
    }
}

/// Why nothing was filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fill {
    /// The guest hypervisor's tables have no translation, or it does not allow the access.
    Fault(NestedFault),
    /// It leads to no RAM of the guest hypervisor's, but to this.
    Device(Addr<Ipa>),
    /// The page itself is not to be had.
    Miss(Miss),
}

/// What a guest hypervisor's TLBI is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// All that its guests have.
    All,
    /// All of a VMID.
    Vmid(u16),
    /// So many bytes from an address on, of a VMID.
    Range(u16, Addr<Ipa2>, u64),
}

impl Memory {
    fn find(&self, key: Key) -> Option<usize> {
        self.shadows.all.iter().position(|shadow| shadow.key == key)
    }

    /// Prepares it to have shadows: those of so many vCPUs have `limit` frames of tables at most ([`most_tables`]). Afterwards
    /// nothing more is allocated for them.
    pub fn prepare_shadows(&mut self, vcpus: u16, limit: u64) {
        let most = MOST + usize::from(vcpus);
        let shadows = &mut self.shadows;
        shadows.limit = Some(limit.max(64));
        shadows.all.reserve_exact(most);
        shadows.tags.resize_with(most, || Arc::new(Tag::new()));
        shadows.pins.reserve_exact(usize::from(vcpus));
        shadows.reverse.prepare();
    }

    /// How its shadows fare.
    pub const fn shadow_counts(&self) -> ShadowCounts {
        self.shadows.counts
    }

    /// What a CPU needs to enter the shadow of the stage 2 that is known by `key`. Where there are too many, the one that was
    /// entered least lately is emptied. The error is [`Miss::Short`].
    pub fn shadow<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, key: Key) -> Result<Root, Miss> {
        self.shadows.clock += 1;
        let at = match self.find(key) {
            Some(at) => at,
            None => self.add_shadow(m, pool, key)?,
        };
        let (clock, vtcr) = (self.shadows.clock, self.layout.vtcr);
        let shadow = self.shadows.all.get_mut(at).ok_or(Miss::Short)?;
        shadow.used = clock;
        Ok(Root { base: shadow.table.root(), vtcr, tag: Arc::clone(&shadow.tag) })
    }

    fn add_shadow<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, key: Key) -> Result<usize, Miss> {
        // A vCPU that is in one holds its tag.
        let idle = |shadow: &Shadow| Arc::strong_count(&shadow.tag) == 1;
        let free = self.shadows.all.iter().position(|shadow| shadow.key == NOBODYS && idle(shadow));
        let oldest = || {
            let idle = self.shadows.all.iter().enumerate().filter(|(_, shadow)| idle(shadow));
            idle.min_by_key(|(_, shadow)| shadow.used).map(|(at, _)| at)
        };
        let is_full = self.shadows.all.len() >= MOST;
        if let Some(at) = free.or_else(|| if is_full { oldest() } else { None }) {
            self.empty(m, at);
            self.shadows.counts.dropped += u64::from(free.is_none());
            if let Some(shadow) = self.shadows.all.get_mut(at) {
                shadow.key = key;
            }
            return Ok(at);
        }
        let geometry = self.layout.geometry;
        let order = Order::holding(geometry.root_tables()).ok_or(Miss::Short)?;
        let root = pool.lock().take(order, self.layout.owner, Use::Table).ok_or(Miss::Short)?;
        let table = Table::new(root.zero(m).into_table(), geometry);
        self.resident.tables += geometry.root_tables();
        let tag = self.shadows.tags.pop().unwrap_or_else(|| Arc::new(Tag::new()));
        self.shadows.all.push(Shadow { key, table, tag, used: 0, has_tables: false, root_parts: 0, parts: 0 });
        Ok(self.shadows.all.len() - 1)
    }

    /// Sees to it that a leaf more does not make it more tables than shadows may have: shadows are emptied that were entered
    /// least lately, and `n` last. Each time some of what they had is given back, more than a leaf needs.
    fn make_room<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, n: usize) {
        let Some(limit) = self.shadows.limit else { return };
        loop {
            self.free_unlinked(m, pool, SOME);
            if self.resident.shadows + MOST_NEW <= limit {
                return;
            }
            if self.shadows.unlinked.is_empty() {
                let full = self.shadows.all.iter().enumerate().filter(|(_, shadow)| shadow.has_tables);
                let Some((at, _)) = full.min_by_key(|(at, shadow)| (*at == n, shadow.used)) else { return };
                self.empty(m, at);
                self.shadows.counts.dropped += 1;
            }
        }
    }

    /// Gives back tables of the shadow that was entered least lately, of those that no vCPU is in. Returns how many frames
    /// came free: some, as often as it is asked, until there is no more.
    pub fn drop_idle_shadow<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>) -> u64 {
        if self.shadows.unlinked.is_empty() {
            let idle = |shadow: &Shadow| shadow.has_tables && Arc::strong_count(&shadow.tag) == 1;
            let idle = self.shadows.all.iter().enumerate().filter(|(_, shadow)| idle(shadow));
            let Some((at, _)) = idle.min_by_key(|(_, shadow)| shadow.used) else { return 0 };
            self.empty(m, at);
            self.shadows.counts.dropped += 1;
        }
        self.free_unlinked(m, pool, SOME)
    }

    /// Takes all leaves out of a shadow. Its tables are given back later.
    #[inline(never)]
    fn empty<M: Machine>(&mut self, m: &M, at: usize) {
        let Shadows { all, unlinked, .. } = &mut self.shadows;
        let Some(shadow) = all.get_mut(at).filter(|shadow| shadow.root_parts != 0) else { return };
        shadow.table.unlink(m, &shadow.tag, shadow.root_parts, |table, level| unlinked.push(m, table, level));
        (shadow.parts, shadow.has_tables, shadow.root_parts) = (0, false, 0);
    }

    /// Gives back some of the tables of shadows that were emptied. Returns how many frames.
    #[inline(never)]
    fn free_unlinked<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, most: u32) -> u64 {
        let owner = self.layout.owner;
        let mut freed = 0;
        self.shadows.unlinked.free_some(m, most, |table| {
            give_back(pool, table, Size::Page, owner);
            freed += 1;
        });
        self.resident.shadows -= freed;
        self.resident.tables -= freed;
        freed
    }

    /// Gives all that shadows hold back to the pool, until it `is_late`; true if that was all. No vCPU may be in one.
    #[inline(never)]
    pub(super) fn drop_shadows<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        is_late: &mut dyn FnMut() -> bool,
    ) -> bool {
        // The roots stay: a CPU may still have one in VTTBR_EL2. They are used again.
        for at in 0..self.shadows.all.len() {
            self.empty(m, at);
            if let Some(shadow) = self.shadows.all.get_mut(at) {
                shadow.key = NOBODYS;
            }
        }
        self.shadows.pins.clear();
        let owner = self.layout.owner;
        loop {
            let mut freed = 0;
            if self.shadows.unlinked.is_empty() {
                self.shadows.reverse.clear_some(m, SOME, |frame| {
                    give_back(pool, frame, Size::Page, owner);
                    freed += 1;
                });
                self.resident.tables -= freed;
                if freed == 0 {
                    return true;
                }
            } else {
                self.free_unlinked(m, pool, SOME);
            }
            if is_late() {
                return false;
            }
        }
    }

    /// Gives the roots back, too. No CPU may have one in VTTBR_EL2 any more.
    pub(super) fn retire_shadows(&mut self, pool: &SharedPool<'_>) {
        for shadow in self.shadows.all.drain(..) {
            let tables = shadow.table.geometry().root_tables();
            if let Some(order) = Order::holding(tables) {
                give_back(pool, shadow.table.root(), order, self.layout.owner);
            }
        }
    }

    /// Adds the leaf for `at` that allows `access` to the shadow that `key` knows. It was entered by [`Memory::shadow`];
    /// if it was given to another meanwhile, nothing is done.
    pub fn fill<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        key: Key,
        at: Addr<Ipa2>,
        access: Access,
    ) -> Result<(), Fill> {
        let (nested, ipa) = self.nested_ipa(m, pool, key, at, access).map_err(|reason| match reason {
            Reason::Fault(fault) => Fill::Fault(fault),
            Reason::Miss(miss) => Fill::Miss(miss),
        })?;
        if !self.is_ram(ipa.align_down(Size::Page), Size::Page.bytes()) {
            return self.enter_device(m, pool, key, at, ipa, &nested);
        }
        let own = self.resolve(m, pool, ipa, access).map_err(Fill::Miss)?;
        let Some(n) = self.find(key) else { return Ok(()) };
        let size = nested.leaf.size.min(own.size).min(Size::Block);
        let parts = if nested.bytes > Size::Block.bytes() {
            FROM_GIANT | FROM_BLOCK
        } else if nested.bytes > Size::Page.bytes() {
            FROM_BLOCK
        } else {
            0
        };
        let attr = Attr { marks: Marks::new(parts), accessed: true, ..nested.leaf.attr.common(own.attr) };
        self.enter(m, pool, n, (at, ipa), own, size, attr).map_err(Fill::Miss)
    }

    /// Puts a leaf of at most `size` into shadow `n`, where none or a lesser one is, and remembers on what it hangs.
    #[expect(clippy::too_many_arguments, reason = "one leaf, in its parts")]
    fn enter<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        n: usize,
        (at, ipa): (Addr<Ipa2>, Addr<Ipa>),
        own: Leaf<Ipa, Pa>,
        mut size: Size,
        attr: Attr,
    ) -> Result<(), Miss> {
        let Some(shadow) = self.shadows.all.get_mut(n) else { return Ok(()) };
        if matches!(shadow.table.walk(m, at), Found::Leaf(_)) {
            let _ = shadow.table.unmap(m, &shadow.tag, at, Hole::Absent);
        }
        self.make_room(m, pool, n);
        let owner = self.layout.owner;
        loop {
            let of = RmapKey::new(self.page_number(ipa), size);
            self.remember(m, pool, n, of, at.align_down(size))?;
            let Some(output) = own.output_of(ipa.align_down(size)) else { return Err(Miss::NotRam) };
            let Some(shadow) = self.shadows.all.get_mut(n) else { return Ok(()) };
            // Only now: it may have been emptied to make room.
            shadow.root_parts |= shadow.table.root_part(at);
            shadow.parts |= attr.marks.bits();
            let before = self.resident.tables;
            let mut supply = Tables { m, pool, owner, held: &mut self.resident.tables };
            let ready = shadow.table.prepare(m, at.align_down(size), size, &mut supply);
            shadow.has_tables |= self.resident.tables != before;
            self.resident.shadows += self.resident.tables - before;
            match ready {
                Ok(ready) => {
                    ready.commit(m, output, attr);
                    self.shadows.counts.filled += 1;
                    return Ok(());
                }
                // There are smaller ones around it.
                Err(Refusal::Occupied) if size != Size::Page => size = Size::Page,
                Err(Refusal::Short) => return Err(Miss::Short),
                Err(_) => return Err(Miss::NotRam),
            }
        }
    }

    /// Adds the page of a device that the VM itself has by a leaf of its own, which stays as long as the VM: there is nothing to remember.
    fn enter_device<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        key: Key,
        at: Addr<Ipa2>,
        ipa: Addr<Ipa>,
        nested: &NestedLeaf,
    ) -> Result<(), Fill> {
        let device = match self.table.walk(m, ipa) {
            Found::Leaf(leaf) if leaf.attr.mem == MemType::Device => leaf.output_of(ipa.align_down(Size::Page)),
            _ => None,
        };
        let (Some(output), Some(n)) = (device, self.find(key)) else { return Err(Fill::Device(ipa)) };
        self.make_room(m, pool, n);
        let owner = self.layout.owner;
        let Some(shadow) = self.shadows.all.get_mut(n) else { return Ok(()) };
        shadow.root_parts |= shadow.table.root_part(at);
        let before = self.resident.tables;
        let mut supply = Tables { m, pool, owner, held: &mut self.resident.tables };
        let ready = shadow.table.prepare(m, at.align_down(Size::Page), Size::Page, &mut supply);
        shadow.has_tables |= self.resident.tables != before;
        self.resident.shadows += self.resident.tables - before;
        match ready {
            Ok(ready) => {
                ready.commit(m, output, nested.leaf.attr.common(Attr::DEVICE));
                Ok(())
            }
            Err(Refusal::Short) => Err(Fill::Miss(Miss::Short)),
            // The access is refused by what is there.
            Err(_) => Err(Fill::Device(ipa)),
        }
    }

    /// Remembers that a leaf of shadow `n` at `at` hangs on an own page or block.
    fn remember<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        n: usize,
        of: RmapKey,
        at: Addr<Ipa2>,
    ) -> Result<(), Miss> {
        while self.shadows.reverse.lacks_frame(m, of) {
            let (_, _, mut supply) = self.parts(m, pool);
            let frame = supply.take().ok_or(Miss::Short)?;
            self.shadows.reverse.give_frame(m, of, frame);
        }
        // There are at most MOST, and one for each vCPU.
        let entry = RmapEntry { shadow: n as u8, at };
        let base = self.layout.base;
        let table = self.table;
        let Shadows { all, reverse, counts, .. } = &mut self.shadows;
        let live = |of: RmapKey, entry: RmapEntry| {
            let ipa = base + (u64::from(of.page()) << 12);
            let Found::Leaf(leaf) = table.walk(m, ipa) else { return None };
            let shadow = all.get(usize::from(entry.shadow))?;
            shadow.naming(m, entry.at, leaf.output_of(ipa)?).map(|_| shadow)
        };
        let displaced = reverse.add(m, of, entry, |of, entry| live(of, entry).is_some());
        if let Some((of, entry)) = displaced
            && let Some(shadow) = live(of, entry)
        {
            // It is there: that was looked at just now.
            let _ = shadow.table.unmap(m, &shadow.tag, entry.at, Hole::Absent);
            counts.displaced += 1;
        }
        Ok(())
    }

    /// The own leaf of `size` at `ipa`, which named `frame`, has gone or has lost rights: so do the shadow leaves that hang on
    /// it, and no others.
    #[inline]
    pub(super) fn kill<M: Machine>(&mut self, m: &M, ipa: Addr<Ipa>, size: Size, frame: Addr<Pa>) {
        if !self.shadows.reverse.is_empty() {
            self.kill_some(m, ipa, size, frame);
        }
    }

    #[cold]
    fn kill_some<M: Machine>(&mut self, m: &M, ipa: Addr<Ipa>, size: Size, frame: Addr<Pa>) {
        let page = self.page_number(ipa);
        let Shadows { all, reverse, counts, .. } = &mut self.shadows;
        counts.moved += 1;
        let mut one = |entry: RmapEntry, frame: Addr<Pa>| {
            if let Some(shadow) = all.get(usize::from(entry.shadow))
                && shadow.naming(m, entry.at, frame).is_some()
                && shadow.table.unmap(m, &shadow.tag, entry.at, Hole::Absent).is_ok()
            {
                counts.killed += 1;
            }
        };
        let block = RmapKey::new(page, Size::Block);
        // Below 2^26 pages.
        let pages = page..page + size.frames() as u32;
        let frame_of = |of: RmapKey| match of {
            RmapKey::Page(n) if pages.contains(&n) => Some(frame + u64::from(n - page) * 4096),
            RmapKey::Block(_) if of == block => Some(frame),
            _ => None,
        };
        for of in core::iter::once(block).chain(pages.clone().map(RmapKey::Page)) {
            if let (Some(entry), Some(frame)) = (reverse.take_first(m, of), frame_of(of)) {
                one(entry, frame);
            }
        }
        reverse.take_listed(|of, entry| frame_of(of).map(|frame| one(entry, frame)).is_some());
    }

    /// Does what a TLBI of the guest hypervisor's asks for.
    pub fn outer_forget<M: Machine>(&mut self, m: &M, scope: Scope) {
        for n in 0..self.shadows.all.len() {
            let Some(shadow) = self.shadows.all.get(n) else { return };
            match scope {
                Scope::All => self.empty(m, n),
                Scope::Vmid(vmid) if vmid == shadow.key.vmid() => self.empty(m, n),
                Scope::Range(vmid, start, bytes) if vmid == shadow.key.vmid() => {
                    // Any part of a leaf stands for all of it.
                    let wide = marked(shadow.parts);
                    let from = start.align_down(wide);
                    let end = start.bits().saturating_add(bytes).saturating_sub(1);
                    let to = Addr::<Ipa2>::new(end).align_down(wide).bits().saturating_add(wide.bytes());
                    if !self.forget_range(m, n, start, (from, to), end) {
                        self.empty(m, n);
                    }
                }
                Scope::Vmid(_) | Scope::Range(..) => {}
            }
        }
    }

    /// Takes those leaves of shadow `n` between `from` and `to` that a TLBI from `start` to `end` reaches; false if that would
    /// take long: to forget all of it takes less.
    fn forget_range<M: Machine>(
        &mut self,
        m: &M,
        n: usize,
        start: Addr<Ipa2>,
        (from, to): (Addr<Ipa2>, u64),
        end: u64,
    ) -> bool {
        let Some(shadow) = self.shadows.all.get(n) else { return true };
        let limit = to.min(shadow.table.geometry().limit());
        let mut at = from;
        for _ in 0..MOST_FORGOTTEN {
            if at.bits() >= limit {
                return true;
            }
            let step = match shadow.table.walk(m, at) {
                Found::Leaf(leaf) => {
                    // What the hypervisor's leaf spans.
                    let of = marked(leaf.attr.marks.bits());
                    let first = at.align_down(of).bits();
                    if first <= end && start.bits() < first + of.bytes() {
                        let _ = shadow.table.unmap(m, &shadow.tag, at, Hole::Absent);
                    }
                    leaf.size.bytes()
                }
                Found::Gap(gap) => gap.rest(at),
                Found::Outside => return true,
            };
            let Some(next) = at.checked_add(step) else { return true };
            at = next;
        }
        at.bits() >= limit
    }

    /// Makes every CPU forget the guests' stage 1 under this VMID of the guest hypervisor's.
    pub fn forget_stage1<M: Machine>(&self, m: &M, of: u16) {
        for shadow in self.shadows.all.iter().filter(|shadow| shadow.key.vmid() == of) {
            if let Some(vmid) = shadow.tag.vmid() {
                m.forget(Forget::Vmid(vmid));
            }
        }
    }

    /// Makes the page at `ipa` one that can be written and stays where it is, until another is pinned for this vCPU. Its
    /// frame is handed back.
    pub fn pin<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, vcpu: VcpuId, ipa: Addr<Ipa>) -> Option<Addr<Pa>> {
        let n = usize::from(vcpu.0);
        let page = ipa.align_down(Size::Page);
        if self.shadows.pins.len() <= n {
            self.shadows.pins.resize(n + 1, None);
        }
        *self.shadows.pins.get_mut(n)? = None;
        let leaf = self.resolve_page(m, pool, page, Access::Write).ok().filter(|_| self.is_ram(page, 4096))?;
        *self.shadows.pins.get_mut(n)? = Some(page);
        leaf.output_of(page)
    }

    /// Whether a page in the `size` block around `ipa` must stay where it is.
    pub(super) fn is_pinned(&self, ipa: Addr<Ipa>, size: Size) -> bool {
        self.shadows.pins.iter().flatten().any(|page| page.align_down(size) == ipa.align_down(size))
    }
}

#[cfg(test)]
mod tests {
    use super::{most_frames, most_tables};

    #[test]
    fn tables_of_shadows_are_bounded_by_the_memory_there_is() {
        const GIB: u64 = 1 << 30;
        // A block of 512 pages has a table; twice that and 64, for as many pages as a VM or the board has.
        let cases = [
            (GIB, GIB >> 12, 64 + 1024),
            (GIB, GIB >> 14, 64 + 256),
            (2 << 20, GIB >> 12, 66),
            (0, 0, 64),
            (GIB / 2, GIB >> 12, 64 + 512),
        ];
        for (bytes, pool, tables) in cases {
            assert_eq!(most_tables(bytes, pool), tables, "{bytes} bytes, {pool} frames");
            // Roots of 16 shadows and of those that vCPUs are in, two tables each; for what hangs on what a frame for each block, one for
            // 256 blocks, and one.
            let blocks = bytes.div_ceil(2 << 20);
            let reverse = 1 + blocks.div_ceil(256) + blocks;
            for vcpus in [1, 4] {
                assert_eq!(
                    most_frames(bytes, pool, vcpus),
                    tables + reverse + 32 + 2 * u64::from(vcpus),
                    "{bytes} bytes"
                );
            }
        }
    }
}
