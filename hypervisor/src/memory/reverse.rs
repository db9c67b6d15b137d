//! From a page of a VM's own to the shadow leaves that hang on it.
//!
//! One word for each page, in frames of the pool, and one for each block: which shadow, and where in it. A page that two
//! shadow leaves hang on has the others in a short list; where that is full, a whole shadow is dropped.
//!
//! The words may be stale, never missing: a shadow leaf that went otherwise leaves its word, and who reads one looks whether
//! the shadow's leaf still names the page's frame. A word is overwritten only if that is not so.

use crate::addr::{Addr, Ipa2, Pa, Size};
use crate::machine::Machine;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

/// Pages of a block.
const PAGES: u32 = 512;
/// How many leaves the list holds.
const MORE: usize = 512;

/// A shadow leaf: the number of the shadow, and where the leaf starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hanger {
    pub(super) shadow: u8,
    pub(super) at: Addr<Ipa2>,
}

const SET: u64 = 1 << 63;

impl Hanger {
    /// The shadow's number in bits 62:55, the page in 35:0.
    fn word(self) -> u64 {
        SET | u64::from(self.shadow) << 55 | self.at.bits() >> 12
    }

    fn of(word: u64) -> Option<Self> {
        // Eight bits.
        (word & SET != 0).then(|| Self { shadow: (word >> 55) as u8, at: Addr::new((word & 0xf_ffff_ffff) << 12) })
    }
}

/// The words of one block of own pages.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// Of a leaf of the block's size.
    whole: u64,
    /// The frame with the words of its pages, once one has one.
    pages: Option<Addr<Pa>>,
}

/// What of an own page or block is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Of {
    /// The page of this number.
    Page(u32),
    /// The block of this number.
    Block(u32),
}

impl Of {
    /// The page of number `page`, or the block around it.
    pub(super) const fn new(page: u32, size: Size) -> Self {
        match size {
            Size::Page => Self::Page(page),
            Size::Block | Size::Giant => Self::Block(page / PAGES),
        }
    }

    /// The number of its first page.
    pub(super) const fn page(self) -> u32 {
        match self {
            Self::Page(page) => page,
            Self::Block(block) => block * PAGES,
        }
    }
}

/// The words of a VM.
#[derive(Debug, Default)]
pub(super) struct Reverse {
    blocks: Vec<Block>,
    more: Vec<(Of, Hanger)>,
}

impl Reverse {
    /// Whether nothing ever hung on anything.
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Makes room for `pages` pages, once.
    pub(super) fn cover(&mut self, pages: u64) {
        if self.blocks.is_empty() {
            // A VM has at most 2^26 pages.
            self.blocks.resize(pages.div_ceil(u64::from(PAGES)) as usize, Block::default());
        }
    }

    /// The frame for the words of the pages around `page` is missing.
    pub(super) fn lacks_frame(&self, of: Of) -> bool {
        match of {
            Of::Page(page) => self.blocks.get((page / PAGES) as usize).is_some_and(|block| block.pages.is_none()),
            Of::Block(_) => false,
        }
    }

    /// Takes a zeroed frame for the words of the pages around `page`.
    pub(super) fn give_frame(&mut self, of: Of, frame: Addr<Pa>) {
        if let Of::Page(page) = of
            && let Some(block) = self.blocks.get_mut((page / PAGES) as usize)
        {
            block.pages = Some(frame);
        }
    }

    /// The word of a page or block, and after it those in the list.
    pub(super) fn first<M: Machine>(&self, m: &M, of: Of) -> Option<Hanger> {
        match of {
            Of::Page(page) => {
                let frame = self.blocks.get((page / PAGES) as usize)?.pages?;
                Hanger::of(m.frame(frame).get((page % PAGES) as usize)?.load(Relaxed))
            }
            Of::Block(block) => Hanger::of(self.blocks.get(block as usize)?.whole),
        }
    }

    fn set_first<M: Machine>(&mut self, m: &M, of: Of, word: u64) {
        match of {
            Of::Page(page) => {
                let frame = self.blocks.get((page / PAGES) as usize).and_then(|block| block.pages);
                if let Some(slot) = frame.and_then(|frame| m.frame(frame).get((page % PAGES) as usize)) {
                    slot.store(word, Relaxed);
                }
            }
            Of::Block(number) => {
                if let Some(block) = self.blocks.get_mut(number as usize) {
                    block.whole = word;
                }
            }
        }
    }

    /// Remembers that `hanger` hangs on a page or block, whose words exist. `is_live` tells whether another still does.
    /// False if the list is full.
    pub(super) fn hang<M: Machine>(
        &mut self,
        m: &M,
        of: Of,
        hanger: Hanger,
        mut is_live: impl FnMut(Of, Hanger) -> bool,
    ) -> bool {
        match self.first(m, of) {
            Some(old) if old == hanger => return true,
            Some(old) if is_live(of, old) => {}
            _ => {
                self.set_first(m, of, hanger.word());
                return true;
            }
        }
        if self.more.contains(&(of, hanger)) {
            return true;
        }
        if self.more.len() >= MORE {
            self.more.retain(|&(of, hanger)| is_live(of, hanger));
        }
        if self.more.len() >= MORE {
            return false;
        }
        self.more.push((of, hanger));
        true
    }

    /// The shadow that has most leaves in the list.
    pub(super) fn most_listed(&self) -> usize {
        let mut leaves = [0_u16; 1 << u8::BITS];
        for (_, hanger) in &self.more {
            // A number of eight bits; and the list is shorter than what 16 bits count.
            leaves[usize::from(hanger.shadow)] += 1;
        }
        (0..leaves.len()).max_by_key(|n| leaves.get(*n)).unwrap_or(0)
    }

    /// Calls `each` for all that may hang on a page or block, and forgets them.
    pub(super) fn take<M: Machine>(&mut self, m: &M, of: Of, mut each: impl FnMut(Hanger)) {
        if let Some(hanger) = self.first(m, of) {
            self.set_first(m, of, 0);
            each(hanger);
        }
        if !self.more.is_empty() {
            self.more.retain(|&(other, hanger)| {
                if other == of {
                    each(hanger);
                }
                other != of
            });
        }
    }

    /// Whether `hanger` is remembered for a page or block.
    pub(super) fn knows<M: Machine>(&self, m: &M, of: Of, hanger: Hanger) -> bool {
        self.first(m, of) == Some(hanger) || self.more.contains(&(of, hanger))
    }

    /// Forgets all, and hands back the frames.
    pub(super) fn clear(&mut self, mut give: impl FnMut(Addr<Pa>)) {
        for block in core::mem::take(&mut self.blocks) {
            if let Some(frame) = block.pages {
                give(frame);
            }
        }
        self.more.clear();
    }
}
