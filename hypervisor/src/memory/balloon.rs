//! What the guest gives: pages in the balloon, and pages that are free just now.
//!
//! A given page has no contents and no frame. The guest may touch it at any time, whatever its driver promised: it finds
//! zeroes then, or what it said its free pages are full of. Blocks go, and come back, as blocks.

use super::{Memory, give_back};
use crate::addr::{Addr, Ipa, Size};
use crate::arm::desc::{Hole, MemType};
use crate::frames::SharedPool;
use crate::machine::Machine;
use crate::stage2::Refusal;
use crate::stage2::walk::Found;

/// How many frames of a block are taken out of the chains of contents at a time.
const UNCHAINED: u32 = 64;
const PAGE: usize = 4096;

impl Memory {
    /// What a page that the guest gave is full of when it touches it again: its driver's word, twice.
    pub fn set_filling(&mut self, word: u32) {
        self.filling = u64::from(word) << 32 | u64::from(word);
    }

    /// Takes `pages` pages from `at` on from the guest, contents and all, and leaves `hole`, one without a place of its
    /// own. What is no RAM is left out. After each page, or block that goes whole, `is_late` is asked. Returns how many pages
    /// are done.
    pub fn give_up<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        at: Addr<Ipa>,
        pages: u64,
        hole: Hole,
        is_late: &mut dyn FnMut() -> bool,
    ) -> u64 {
        let first = at.align_down(Size::Page);
        if !self.is_ram(first, pages.saturating_mul(Size::Page.bytes())) {
            return pages;
        }
        self.drop_pages(m, pool, first, pages, hole, is_late)
    }

    /// The same, where it is known that all of it is RAM or behind that.
    pub(super) fn drop_pages<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        first: Addr<Ipa>,
        pages: u64,
        hole: Hole,
        is_late: &mut dyn FnMut() -> bool,
    ) -> u64 {
        let mut next = first;
        let Some(end) = next.checked_add(pages.saturating_mul(Size::Page.bytes())) else { return pages };
        while next < end {
            let whole = next.is_aligned(Size::Block) && end.bits() - next.bits() >= Size::Block.bytes();
            let step = match self.table.walk(m, next) {
                // Never touched, all around it.
                Found::Gap(gap) if gap.level().span() > Size::Block.bytes() => {
                    next = Addr::new(next.bits().saturating_add(gap.rest(next)).min(end.bits()));
                    continue;
                }
                // A block that goes whole is dropped whole.
                Found::Leaf(leaf) if leaf.size == Size::Block && whole && !self.is_pinned(next, Size::Block) => {
                    // Whoever comes again finds less to do.
                    let mut parts = (0..Size::Block.bytes()).step_by(UNCHAINED as usize * PAGE);
                    if parts.any(|offset| {
                        let any = pool.lock().forget_contents(leaf.output + offset, UNCHAINED);
                        any && is_late()
                    }) {
                        break;
                    }
                    self.drop_leaf(m, pool, next, hole);
                    Size::Block
                }
                Found::Gap(gap) if whole && gap.admits(Size::Block) && gap.level().span() == Size::Block.bytes() => {
                    self.relabel(m, pool, next, gap.hole(), hole, Size::Block);
                    Size::Block
                }
                _ => {
                    // For want of a table the page stays: it is the guest's all the same.
                    let _ = self.discard(m, pool, next, hole);
                    Size::Page
                }
            };
            let last = next.align_down(Size::Block);
            next = next + step.bytes();
            if step == Size::Page && (next.is_aligned(Size::Block) || next == end) {
                // Once the last page of a block is gone, its table can go, too.
                let _ = self.join(m, pool, last, Size::Block);
            }
            if is_late() {
                break;
            }
        }
        (next.bits() - first.bits()) >> 12
    }

    /// The guest uses `pages` pages from `at` on again: they are as if it had never touched them.
    pub fn take_back<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, at: Addr<Ipa>, pages: u64) {
        for page in 0..pages {
            let Some(at) = at.checked_add(page << 12).filter(|at| self.is_ram(*at, 1)) else { return };
            if self.filling == 0
                && let Found::Gap(gap) = self.table.walk(m, at)
                && gap.hole() == Hole::Ballooned
                && gap.level().span() == Size::Page.bytes()
            {
                self.relabel(m, pool, at, Hole::Ballooned, Hole::Absent, Size::Page);
            }
        }
    }

    fn relabel<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, at: Addr<Ipa>, old: Hole, new: Hole, size: Size) {
        if old != new && self.table.relabel(m, at, new).is_ok() {
            // At most 2^18 pages, so it fits.
            let pages = size.frames() as i64;
            if old.is_divisible() {
                self.count(old, -pages);
            } else {
                self.vacate(m, pool, old);
            }
            self.count(new, pages);
        }
    }

    /// Unmaps the leaf around `at`, leaves `hole`, and gives back what it named.
    fn drop_leaf<M: Machine>(&mut self, m: &M, pool: &SharedPool<'_>, at: Addr<Ipa>, hole: Hole) {
        let Ok(leaf) = self.unmap(m, at, hole) else { return };
        if leaf.attr.is_shared() {
            pool.lock().release(leaf.output);
            self.resident.shared -= 1;
        } else {
            give_back(pool, leaf.output, leaf.size, self.layout.owner);
            self.resident.frames -= leaf.size.frames();
        }
        self.count(hole, leaf.size.frames() as i64);
    }

    /// Takes the page of RAM around `ipa` away, contents and all, and leaves `hole`. Splits the block it is part of. The
    /// next touch finds zeroes if `hole` is one that is filled by a touch.
    pub fn discard<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        ipa: Addr<Ipa>,
        hole: Hole,
    ) -> Result<(), Refusal> {
        loop {
            match self.table.walk(m, ipa) {
                Found::Leaf(leaf) if leaf.attr.mem == MemType::Device => return Err(Refusal::Missing),
                Found::Leaf(leaf) if leaf.size == Size::Page && self.is_pinned(ipa, Size::Page) => {
                    return Err(Refusal::Occupied);
                }
                Found::Leaf(leaf) if leaf.size == Size::Page => break,
                // At most twice: the leaf gets smaller.
                Found::Leaf(_) => self.split(m, pool, ipa)?,
                Found::Gap(gap) if gap.hole() == hole => return Ok(()),
                Found::Gap(gap) if gap.level().span() == Size::Page.bytes() => {
                    self.relabel(m, pool, ipa, gap.hole(), hole, Size::Page);
                    return Ok(());
                }
                // Never touched, all around it: nothing is held, so nothing is gained by a table that says so.
                Found::Gap(_) => return Err(Refusal::Missing),
                Found::Outside => return Err(Refusal::Outside),
            }
        }
        self.drop_leaf(m, pool, ipa, hole);
        Ok(())
    }
}
