//! From a page of a VM's own to the shadow leaves that hang on it.
//!
//! One word for each page and one for each block, in frames of the pool: which shadow, and where in it. A page that two
//! shadow leaves hang on has the others in a short list; where that is full, the one that was put there first makes way, and
//! with it its leaf.
//!
//! The words may be stale, never missing: a shadow leaf that went otherwise leaves its word, and who reads one looks whether
//! the shadow's leaf still names the page's frame. A word is overwritten only if that is not so.

use crate::addr::{Addr, Ipa2, Pa, Size};
use crate::machine::Machine;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

/// Pages of a block, and words of a frame.
const PAGES: u32 = 512;
/// Blocks whose words are in one frame. As many frames of these as a frame has words are 256 GiB, more than a VM can have.
const BLOCKS: usize = 256;
/// How many leaves the list holds.
const MORE: usize = 512;

/// A shadow leaf: the number of the shadow, and where the leaf starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RmapEntry {
    pub(super) shadow: u8,
    pub(super) at: Addr<Ipa2>,
}

const SET: u64 = 1 << 63;

impl RmapEntry {
    /// The shadow's number in bits 62:55, the page in 35:0.
    fn word(self) -> u64 {
        SET | u64::from(self.shadow) << 55 | self.at.bits() >> 12
    }

    fn of(word: u64) -> Option<Self> {
        // Eight bits.
        (word & SET != 0).then(|| Self { shadow: (word >> 55) as u8, at: Addr::new((word & 0xf_ffff_ffff) << 12) })
    }
}

/// What of an own page or block is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RmapKey {
    /// The page of this number.
    Page(u32),
    /// The block of this number.
    Block(u32),
}

impl RmapKey {
    /// The page of number `page`, or the block around it.
    pub(super) const fn new(page: u32, size: Size) -> Self {
        match size {
            Size::Page => Self::Page(page),
            Size::Block | Size::Giant => Self::Block(page / PAGES),
        }
    }

    /// The number of the block.
    const fn block(self) -> usize {
        match self {
            Self::Page(page) => (page / PAGES) as usize,
            Self::Block(block) => block as usize,
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

/// The words of a VM: a tree of three levels in frames of the pool. An entry of the root names the frame of [`BLOCKS`] blocks,
/// where each has two words: that of a leaf of its size, and the address of the frame with the words of its pages.
#[derive(Debug, Default)]
pub(super) struct Reverse {
    root: Option<Addr<Pa>>,
    more: Vec<(RmapKey, RmapEntry)>,
    /// Who makes way next, once the list is full.
    oldest: usize,
}

impl Reverse {
    /// Makes the room for the list that nothing has to be allocated for later.
    pub(super) fn prepare(&mut self) {
        self.more.reserve_exact(MORE);
    }

    /// The most frames it has for so many bytes of RAM.
    pub(super) const fn most_frames(bytes: u64) -> u64 {
        let blocks = bytes.div_ceil(Size::Block.bytes());
        1 + blocks.div_ceil(BLOCKS as u64) + blocks
    }

    /// Whether nothing ever hung on anything.
    pub(super) fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Entry `n` of the frame at `at`: the frame that it names.
    fn below<M: Machine>(m: &M, at: Addr<Pa>, n: usize) -> Option<Addr<Pa>> {
        let word = m.frame(at).get(n)?.load(Relaxed);
        (word != 0).then(|| Addr::new(word))
    }

    /// The frame with the words of a block, and the place of its two words in it.
    fn block<M: Machine>(&self, m: &M, of: RmapKey) -> Option<(Addr<Pa>, usize)> {
        let block = of.block();
        Some((Self::below(m, self.root?, block / BLOCKS)?, block % BLOCKS * 2))
    }

    /// The word of a page or block, if the frame is there that it is in.
    fn at<M: Machine>(&self, m: &M, of: RmapKey) -> Option<(Addr<Pa>, usize)> {
        let (blocks, at) = self.block(m, of)?;
        match of {
            RmapKey::Block(_) => Some((blocks, at)),
            RmapKey::Page(page) => Some((Self::below(m, blocks, at + 1)?, (page % PAGES) as usize)),
        }
    }

    /// A frame for the word of a page or block is missing.
    pub(super) fn lacks_frame<M: Machine>(&self, m: &M, of: RmapKey) -> bool {
        self.at(m, of).is_none()
    }

    /// Takes a zeroed frame on the way to the word of a page or block. At most three are missing.
    pub(super) fn give_frame<M: Machine>(&mut self, m: &M, of: RmapKey, frame: Addr<Pa>) {
        let place = match (self.root, self.block(m, of)) {
            (None, _) => {
                self.root = Some(frame);
                return;
            }
            (Some(root), None) => (root, of.block() / BLOCKS),
            (_, Some((blocks, at))) => (blocks, at + 1),
        };
        if let Some(slot) = m.frame(place.0).get(place.1) {
            slot.store(frame.bits(), Relaxed);
        }
    }

    /// The word of a page or block, and after it those in the list.
    pub(super) fn first<M: Machine>(&self, m: &M, of: RmapKey) -> Option<RmapEntry> {
        let (frame, at) = self.at(m, of)?;
        RmapEntry::of(m.frame(frame).get(at)?.load(Relaxed))
    }

    fn set_first<M: Machine>(&mut self, m: &M, of: RmapKey, word: u64) {
        if let Some((frame, at)) = self.at(m, of)
            && let Some(slot) = m.frame(frame).get(at)
        {
            slot.store(word, Relaxed);
        }
    }

    /// Remembers that `entry` hangs on a page or block, whose words exist. `is_live` tells whether another still does.
    /// Returns who made way for it, if the list was full: the caller takes that leaf, if it is there, out of its shadow.
    pub(super) fn add<M: Machine>(
        &mut self,
        m: &M,
        of: RmapKey,
        entry: RmapEntry,
        is_live: impl FnOnce(RmapKey, RmapEntry) -> bool,
    ) -> Option<(RmapKey, RmapEntry)> {
        match self.first(m, of) {
            Some(old) if old == entry => return None,
            Some(old) if is_live(of, old) => {}
            _ => {
                self.set_first(m, of, entry.word());
                return None;
            }
        }
        if self.more.contains(&(of, entry)) {
            return None;
        }
        if self.more.len() < MORE {
            self.more.push((of, entry));
            return None;
        }
        self.oldest = (self.oldest + 1) % MORE;
        self.more.get_mut(self.oldest).map(|slot| core::mem::replace(slot, (of, entry)))
    }

    /// Forgets the first that hangs on a page or block, and returns it.
    pub(super) fn take_first<M: Machine>(&mut self, m: &M, of: RmapKey) -> Option<RmapEntry> {
        let entry = self.first(m, of)?;
        self.set_first(m, of, 0);
        Some(entry)
    }

    /// Forgets those of the list for which `takes` returns true.
    pub(super) fn take_listed(&mut self, mut takes: impl FnMut(RmapKey, RmapEntry) -> bool) {
        self.more.retain(|&(of, entry)| !takes(of, entry));
    }

    /// Whether `entry` is remembered for a page or block.
    pub(super) fn knows<M: Machine>(&self, m: &M, of: RmapKey, entry: RmapEntry) -> bool {
        self.first(m, of) == Some(entry) || self.more.contains(&(of, entry))
    }

    /// Forgets all, and hands back `most` frames, or all that there are.
    pub(super) fn clear_some<M: Machine>(&mut self, m: &M, most: u32, mut give: impl FnMut(Addr<Pa>)) {
        self.more.clear();
        let Some(root) = self.root else { return };
        let mut left = most;
        // Those below first; the name goes with the frame.
        let mut cut = |at: Addr<Pa>, n: usize, frame: Addr<Pa>| {
            if let Some(slot) = m.frame(at).get(n) {
                slot.store(0, Relaxed);
            }
            give(frame);
            left -= 1;
            left == 0
        };
        for n in 0..PAGES as usize {
            let Some(blocks) = Self::below(m, root, n) else { continue };
            for at in (0..BLOCKS).map(|n| n * 2 + 1) {
                if Self::below(m, blocks, at).is_some_and(|frame| cut(blocks, at, frame)) {
                    return;
                }
            }
            if cut(root, n, blocks) {
                return;
            }
        }
        self.root = None;
        give(root);
    }
}
