//! Blocks of disks that begin as an image: what a VM has changed of them lies in its own memory, behind its RAM.
//!
//! Each such disk has a stretch of IPAs there, a page for each block. A hole that was never touched says that the block is as in
//! the image, which is nobody's to write; all else is the block, and is looked after like any page: merged, compressed, swapped,
//! counted as the VM's, and given back when it ends. The VM's device tree does not tell of it. A guest that looks there all the
//! same finds its own disk, or nothing.
//!
//! A whole block that is read into a whole page is not copied where it is in a frame that may be shared: the page names that frame
//! until one of the two is written. So the page caches of all VMs on one image are one copy, without any scan.

use super::access::copy_words;
use super::{Access, Memory, Miss};
use crate::addr::{Addr, Ipa, Pa, Size};
use crate::arm::desc::{Attr, Hole, MemType};
use crate::frames::{SharedPool, Use};
use crate::machine::Machine;
use crate::stage2::Leaf;
use crate::stage2::walk::{Found, Gap};

const PAGE: usize = 4096;

/// A block as the image has it.
#[derive(Clone, Copy, Debug)]
pub struct Pristine<'a> {
    /// Its bytes; what is missing of 4 KiB is zero.
    pub bytes: &'a [u8],
    /// The frame that they fill, if they do: it can be read faster than bytes that lie anywhere.
    pub frame: Option<Addr<Pa>>,
    /// Whether guests may be lent that.
    pub is_lent: bool,
}

/// How a block came to where it was read to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loaded {
    /// Its frame was lent.
    Lent,
    /// Its bytes were copied.
    Copied,
}

/// A part of a block: the page behind RAM that is the block, and from where to where in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// The page.
    pub page: Addr<Ipa>,
    /// Where in it the part begins.
    pub offset: usize,
    /// Its bytes: not beyond the page.
    pub bytes: usize,
}

impl Part {
    const fn is_whole(&self) -> bool {
        self.offset == 0 && self.bytes == PAGE
    }
}

impl Memory {
    /// Whether all `bytes` from `at` are behind RAM, where blocks are.
    const fn is_blocks(&self, at: Addr<Ipa>, bytes: u64) -> bool {
        let layout = &self.layout;
        match at.distance_from(layout.base) {
            Some(offset) => {
                offset >= layout.bytes && offset <= layout.all_bytes() && bytes <= layout.all_bytes() - offset
            }
            None => false,
        }
    }

    /// Copies a part of a block to guest memory at `to`, or lends the guest its frame.
    pub fn load_block<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        part: Part,
        pristine: Pristine<'_>,
        to: Addr<Ipa>,
    ) -> Result<Loaded, Miss> {
        let Part { page, offset, bytes } = part;
        if !self.is_blocks(page, Size::Page.bytes()) || !self.is_ram(to, bytes as u64) {
            return Err(Miss::NotRam);
        }
        let found = self.table.walk(m, page);
        let frame = match found {
            Found::Gap(gap) if gap.hole() == Hole::Absent => pristine.frame.filter(|_| pristine.is_lent),
            Found::Leaf(leaf) if leaf.attr.is_shared() => leaf.output_of(page),
            _ => None,
        };
        if let Some(frame) = frame.filter(|_| part.is_whole() && to.is_aligned(Size::Page))
            && self.lend_over(m, pool, to, frame)
        {
            return Ok(Loaded::Lent);
        }
        match found {
            Found::Gap(gap) if gap.hole() == Hole::Absent => {
                if let Some(frame) = pristine.frame {
                    self.copy_block(m, pool, (frame, offset), (to, bytes), Access::Write)?;
                    return Ok(Loaded::Copied);
                }
                let (from, end) = (offset.min(pristine.bytes.len()), (offset + bytes).min(pristine.bytes.len()));
                let there = pristine.bytes.get(from..end).unwrap_or_default();
                self.write(m, pool, to, there)?;
                self.zero(m, pool, to + there.len() as u64, (bytes - there.len()) as u64)?;
            }
            Found::Gap(gap) if gap.hole() == Hole::Zero => self.zero(m, pool, to, bytes as u64)?,
            _ => {
                let block = self.resolve_block(m, pool, page, Access::Read, pristine)?;
                self.copy_block(m, pool, (block, offset), (to, bytes), Access::Write)?;
            }
        }
        Ok(Loaded::Copied)
    }

    /// Copies guest memory at `from` to a part of a block.
    pub fn store_block<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        part: Part,
        pristine: Pristine<'_>,
        from: Addr<Ipa>,
    ) -> Result<(), Miss> {
        let Part { page, offset, bytes } = part;
        if !self.is_blocks(page, Size::Page.bytes()) || !self.is_ram(from, bytes as u64) {
            return Err(Miss::NotRam);
        }
        let block = self.resolve_block(m, pool, page, Access::Write, pristine)?;
        self.copy_block(m, pool, (block, offset), (from, bytes), Access::Read)
    }

    /// Makes a part of a block zero.
    pub fn clear_block<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        part: Part,
        pristine: Pristine<'_>,
    ) -> Result<(), Miss> {
        let Part { page, offset, bytes } = part;
        if !self.is_blocks(page, Size::Page.bytes()) {
            return Err(Miss::NotRam);
        }
        let found = self.table.walk(m, page);
        let end = (offset + bytes).min(pristine.bytes.len());
        let is_zero = |gap: &Gap<Ipa>| match gap.hole() {
            Hole::Zero => true,
            Hole::Absent => pristine.bytes.get(offset..end).is_none_or(|part| part.iter().all(|byte| *byte == 0)),
            _ => false,
        };
        match found {
            Found::Gap(gap) if is_zero(&gap) => return Ok(()),
            // What is there of it goes, and its frame with it. Where there is no table yet, that is more than it would save.
            Found::Leaf(_) if part.is_whole() && self.discard(m, pool, page, Hole::Zero).is_ok() => return Ok(()),
            _ => {}
        }
        let block = self.resolve_block(m, pool, page, Access::Write, pristine)?;
        super::access::clear(m.frame(block), offset, bytes);
        Ok(())
    }

    /// The frame of the block at `page`, which may be accessed so; it is made what it takes.
    fn resolve_block<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        page: Addr<Ipa>,
        access: Access,
        pristine: Pristine<'_>,
    ) -> Result<Addr<Pa>, Miss> {
        // Each time a bounded part of it is done.
        loop {
            let leaf = match self.table.walk(m, page) {
                Found::Leaf(leaf) if leaf.attr.mem == MemType::Device => return Err(Miss::Denied),
                Found::Leaf(leaf) if leaf.attr.accessed && leaf.attr.rights.allows(access.rights()) => Ok(leaf),
                Found::Leaf(leaf) => self.upgrade(m, pool, page, access, leaf),
                Found::Gap(gap) => match gap.hole() {
                    Hole::Packed(_) | Hole::Swapped(..) => self.unpack(m, pool, (page, access), gap),
                    Hole::Poisoned => Err(Miss::Lost),
                    Hole::Zero => {
                        self.begin_block_with(m, pool, page, gap, Pristine { bytes: &[], frame: None, is_lent: false })
                    }
                    Hole::Absent | Hole::Ballooned => self.begin_block_with(m, pool, page, gap, pristine),
                },
                Found::Outside => return Err(Miss::NotRam),
            };
            match leaf {
                Err(Miss::Again) => {}
                Err(miss) => return Err(miss),
                Ok(leaf) => return leaf.output_of(page).ok_or(Miss::NotRam),
            }
        }
    }

    /// Puts a frame with the bytes of `pristine`, and zeroes behind them, where the block at `page` is.
    fn begin_block_with<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        page: Addr<Ipa>,
        gap: Gap<Ipa>,
        pristine: Pristine<'_>,
    ) -> Result<Leaf<Ipa, Pa>, Miss> {
        let frame = pool.lock().take(Size::Page, self.layout.owner, Use::Guest).ok_or(Miss::Short)?;
        let hole = gap.hole();
        let (_, _, mut supply) = self.parts(m, pool);
        let Ok(ready) = gap.prepare(page, Size::Page, &mut supply) else {
            pool.lock().give_back(frame);
            return Err(Miss::Short);
        };
        let frame = match pristine.frame {
            Some(from) => frame.copy(m, from),
            None => frame.of_bytes(m, pristine.bytes),
        };
        // The frame's last owner left something in DRAM, and a guest might look here.
        let rights = self.show(m, frame.start(), Size::Page, Access::Write);
        self.resident.frames += 1;
        self.count(hole, -1);
        Ok(ready.commit(m, frame.into_table(), Attr { rights, ..self.ram_attr() }))
    }

    /// Copies between a block's frame and guest memory: to that if it is accessed to be written, else from there.
    fn copy_block<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        (block, offset): (Addr<Pa>, usize),
        (guest, bytes): (Addr<Ipa>, usize),
        access: Access,
    ) -> Result<(), Miss> {
        let mut done = 0;
        while done < bytes {
            let here = guest + done as u64;
            let at = here.offset_in(Size::Page) as usize;
            let step = (PAGE - at).min(bytes - done);
            let frame = self.ram_frame(m, pool, here.align_down(Size::Page), access)?;
            let (block, frame) = ((m.frame(block), offset + done), (m.frame(frame), at));
            if access == Access::Write {
                copy_words(block, frame, step)
            } else {
                copy_words(frame, block, step)
            }
            done += step;
        }
        Ok(())
    }

    /// Lets the page of RAM at `to` name `frame`, which may be shared, whatever was there. False, and there may be nothing then, where
    /// that cannot be.
    fn lend_over<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, to: Addr<Ipa>, frame: Addr<Pa>) -> bool {
        match self.table.walk(m, to) {
            Found::Leaf(leaf) if leaf.attr.is_shared() && leaf.output_of(to) == Some(frame) => return true,
            Found::Leaf(_) if self.discard(m, pool, to, Hole::Absent).is_err() => return false,
            _ => {}
        }
        self.lend(m, pool, to, frame)
    }
}
