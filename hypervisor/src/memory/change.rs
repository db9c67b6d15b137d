//! Changing a VM's memory from our side: devices handed through, flash that is read, splitting and joining, giving
//! everything back.

use super::pack::vacate;
use super::{Access, Memory, Resident, give_back};
use crate::addr::{Addr, Ipa, Pa, Size};
use crate::arm::desc::{Attr, Hole, Marks, MemType, Rights};
use crate::frames::SharedPool;
use crate::machine::Machine;
use crate::stage2::Refusal;
use crate::stage2::join::Removed;
use crate::stage2::walk::Found;

impl Memory {
    /// Hands the device registers at `pa` through to the guest at `ipa`: `bytes`, in whole pages.
    ///
    /// Refuses, and changes nothing, where the range is RAM or something is there already ([`Refusal::Occupied`]), where it
    /// is no whole pages or beyond the table, or for want of table frames.
    pub fn map_device<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        ipa: Addr<Ipa>,
        pa: Addr<Pa>,
        bytes: u64,
    ) -> Result<(), Refusal> {
        let end = ipa.checked_add(bytes).ok_or(Refusal::Outside)?;
        pa.checked_add(bytes).ok_or(Refusal::Outside)?;
        if [ipa.bits(), pa.bits(), bytes].iter().any(|bits| bits % Size::Page.bytes() != 0) {
            return Err(Refusal::Unaligned);
        }
        let ram_end = self.layout.base.bits().saturating_add(self.layout.all_bytes());
        if ipa.bits() < ram_end && self.layout.base < end {
            return Err(Refusal::Occupied);
        }
        for done in (0..bytes).step_by(4096) {
            let (table, _, mut supply) = self.parts(m, pool);
            match table.prepare(m, ipa + done, Size::Page, &mut supply) {
                Ok(ready) => {
                    ready.commit(m, pa + done, Attr::DEVICE);
                }
                Err(refusal) => {
                    self.unmap_devices(m, ipa, done);
                    return Err(refusal);
                }
            }
        }
        Ok(())
    }

    /// Takes back the pages of a device that were mapped; tables stay until [`Memory::release_all`].
    fn unmap_devices<M: Machine>(&mut self, m: &M, ipa: Addr<Ipa>, bytes: u64) {
        for done in (0..bytes).step_by(4096) {
            // Refused where nothing is mapped, which is what is wanted.
            let _ = self.unmap(m, ipa + done, Hole::Absent);
        }
    }

    /// Lets the guest read, and fetch from, the page at `ipa`, which is no RAM: the frame at `frame`, which stays its owner's
    /// and which nobody writes until [`Memory::unmap_rom`].
    ///
    /// Refuses where something is mapped already, where it is beyond the table, or for want of table frames.
    pub fn map_rom<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        ipa: Addr<Ipa>,
        frame: Addr<Pa>,
    ) -> Result<(), Refusal> {
        self.map_kept(m, pool, ipa, frame, Rights::RX)
    }

    /// The same with other rights.
    pub fn map_kept<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        ipa: Addr<Ipa>,
        frame: Addr<Pa>,
        rights: Rights,
    ) -> Result<(), Refusal> {
        // It was written with caches, and the guest may read without; and what was there before may have been fetched.
        // That it may write, too, is not for this.
        let _ = self.show(m, frame, Size::Page, Access::Execute);
        // What was written to it must not be seen later than the leaf.
        m.publish();
        let attr = Attr { rights, marks: Marks::KEPT, ..self.ram_attr() };
        let (table, _, mut supply) = self.parts(m, pool);
        table.prepare(m, ipa, Size::Page, &mut supply)?.commit(m, frame, attr);
        Ok(())
    }

    /// Takes back the pages around `ipa` that were mapped so, 2 MiB in which there is nothing else. No shadow leaf hangs on
    /// them: to a guest's guest they are a device.
    pub fn unmap_rom<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, ipa: Addr<Ipa>) {
        let (table, tag, mut supply) = self.parts(m, pool);
        // Refused where none is mapped, which is what is wanted.
        let _ = table.prune(m, tag, ipa, &mut supply);
    }

    /// Makes 512 smaller leaves of the block of RAM around `ipa`. Nothing else changes for the guest.
    pub fn split<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, ipa: Addr<Ipa>) -> Result<(), Refusal> {
        let (table, tag, mut supply) = self.parts(m, pool);
        table.split(m, tag, ipa, &mut supply)
    }

    /// Makes one leaf of `size` of the 512 smaller ones around `ipa`, where they lie together as they do after a split; or
    /// one hole of 512 equal ones. The table's frame goes back to the pool.
    pub fn join<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        ipa: Addr<Ipa>,
        size: Size,
    ) -> Result<(), Refusal> {
        let (table, tag, mut supply) = self.parts(m, pool);
        table.join(m, tag, ipa, size, &mut supply)
    }

    /// Makes one hole of the 512 equal ones around `ipa`, if they are; leaves stay what they are.
    pub fn join_holes<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, ipa: Addr<Ipa>) -> Result<(), Refusal> {
        match self.table.walk(m, ipa) {
            Found::Gap(gap) if gap.level().span() == Size::Page.bytes() => self.join(m, pool, ipa, Size::Block),
            _ => Err(Refusal::Missing),
        }
    }

    /// Whether [`Memory::release_some`] has left nothing.
    pub const fn is_released(&self) -> bool {
        self.released > self.layout.all_bytes() >> 12
    }

    /// Does a part of [`Memory::release_all`]: gives RAM back to the pool until it `is_late`, which is asked after each page or block,
    /// and, once none is left, the tables. All its vCPUs must be off.
    pub fn release_some<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, is_late: &mut dyn FnMut() -> bool) {
        if !self.drop_shadows(m, pool, is_late) {
            return;
        }
        let pages = self.layout.all_bytes() >> 12;
        if self.released >= pages {
            self.clear(m, pool);
            self.released = pages + 1;
            return;
        }
        let at = self.layout.base + (self.released << 12);
        self.released += self.drop_pages(m, pool, at, pages - self.released, Hole::Absent, is_late);
    }

    /// Gives all RAM and all tables but the root back to the pool, after every CPU has forgotten them; devices handed through
    /// are gone, too. The VM may start again with the same [`super::Root`].
    ///
    /// All its vCPUs must be off. A CPU may still have its root in VTTBR_EL2: that leads nowhere.
    pub fn release_all<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>) {
        self.drop_shadows(m, pool, &mut || false);
        self.clear(m, pool);
        self.start_anew();
    }

    /// After [`Memory::is_released`]: the VM may start again.
    pub const fn start_anew(&mut self) {
        self.released = 0;
    }

    /// Gives back what the table leads to.
    fn clear<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>) {
        let owner = self.layout.owner;
        if let Some((_, filling)) = self.begun.block.take() {
            self.drop_frame(pool, filling.give_up());
        }
        let mut left = self.resident;
        let mut put_away: Resident = self.resident;
        let table = self.table;
        table.clear(m, &self.tag, |part| match part {
            Removed::Leaf(_, _, Attr { mem: MemType::Device, .. } | Attr { marks: Marks::KEPT, .. }) => {}
            Removed::Leaf(at, _, attr) if attr.is_shared() => {
                left.shared -= 1;
                pool.lock().release(at);
            }
            Removed::Leaf(at, size, _) => {
                left.frames -= size.frames();
                give_back(pool, at, size, owner);
            }
            Removed::Table(at) => {
                left.tables -= 1;
                give_back(pool, at, Size::Page, owner);
            }
            Removed::Hole(hole) => vacate(m, pool, &mut put_away, hole),
        });
        self.resident =
            Resident { frames: left.frames, tables: left.tables, shared: left.shared, ..Resident::default() };
        self.sample.clear();
        self.filling = 0;
        self.begun.zeroes = None;
        self.begun.expander.end();
    }

    /// Gives everything back, the root included. No CPU may have the root in VTTBR_EL2 any more: each must have loaded another
    /// first (VMID 0 and an empty table will do), since a CPU may walk from there whatever it runs.
    pub fn retire<M: Machine>(mut self, m: &M, pool: &SharedPool<'_>) {
        self.release_all(m, pool);
        self.retire_shadows(pool);
        if let Some(order) = crate::frames::Order::holding(self.layout.geometry.root_tables()) {
            give_back(pool, self.table.root(), order, self.layout.owner);
        }
    }
}
