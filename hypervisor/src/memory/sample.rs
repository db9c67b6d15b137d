//! Which pages are used: a few at random lose their access flag, and the first touch of each is counted.
//!
//! As ESX estimates working sets, but by stage 2's access flag, so that it needs no support in the hardware for setting
//! it: an access to a page without the flag faults, and [`super::fault`] sets it and counts.

use super::state::{Memory, SAMPLE};
use crate::addr::{Addr, Ipa, Size};
use crate::arm::desc::{Attr, MemType};
use crate::frames::SharedPool;
use crate::machine::Machine;
use crate::stage2::walk::Found;

/// How many blocks are split for a sample: their pages tell more than the block, but cost the guest its block.
const SPLITS: usize = 8;

impl Memory {
    /// How many pages are watched, and how many of these were touched so far.
    pub fn sampled(&self) -> (u32, u32) {
        // At most SAMPLE.
        (self.sample.pages.len() as u32, self.sample.touched)
    }

    /// Ends the watch and begins another of pages that `random` chooses, among those that are backed. Blocks are split for
    /// it where `split` allows.
    pub fn sample<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        split: bool,
        mut random: impl FnMut() -> u64,
    ) -> (u32, u32) {
        let ended = self.sampled();
        for page in core::mem::take(&mut self.sample).pages {
            // Those that were not touched; the others have the flag.
            let _ = self.table.wake(m, self.page_at(page));
        }
        let pages = self.layout.bytes >> 12;
        let mut splits = 0;
        for _ in 0..SAMPLE * 4 {
            if self.sample.pages.is_full() || pages == 0 {
                break;
            }
            // Below 2^26 pages, so it fits.
            let page = (random() % pages) as u32;
            let at = self.page_at(page);
            if split && splits < SPLITS && self.is_block(m, at) && self.split(m, pool, at).is_ok() {
                splits += 1;
            }
            if let Some(start) = self.rest(m, at) {
                // A block counts once, by its first page.
                self.sample.pages.push(self.page_number(start));
            }
        }
        ended
    }

    /// Takes the access flag of the leaf around `at` and says where the leaf starts; nothing if there is none, or it has no
    /// flag already.
    fn rest<M: Machine>(&mut self, m: &M, at: Addr<Ipa>) -> Option<Addr<Ipa>> {
        match self.table.walk(m, at) {
            Found::Leaf(leaf) if leaf.attr.mem != MemType::Device && leaf.attr.accessed && leaf.size <= Size::Block => {
                let attr = Attr { accessed: false, ..leaf.attr };
                let leaf = self.table.protect(m, &self.tag, at, attr).ok()?;
                // A guest's guest would use it unnoticed.
                self.kill(m, leaf.input, leaf.size, leaf.output);
                Some(leaf.input)
            }
            _ => None,
        }
    }
}
