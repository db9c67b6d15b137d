//! Which blocks of the swap area are used, and by pages of what hash.
//!
//! A block is 4 KiB. The hashes, 32 bits for each block, say whether what comes back is what went out; they are all the
//! memory the area takes.

use alloc::boxed::Box;
use alloc::vec;

/// The blocks of the swap area.
#[derive(Debug, Default)]
pub struct Swap {
    /// For each block what it holds: 0 nothing, or the upper bits of a hash, made odd.
    blocks: Box<[u32]>,
    used: u32,
    cursor: u32,
}

/// A block that is taken, its contents not known yet.
const TAKEN: u32 = 1;

fn mark(hash: u64) -> u32 {
    // The upper half.
    (hash >> 32) as u32 | 1
}

impl Swap {
    /// An area of `blocks` blocks.
    pub fn new(blocks: u32) -> Self {
        Self { blocks: vec![0; blocks as usize].into_boxed_slice(), used: 0, cursor: 0 }
    }

    /// How many blocks there are, and how many are used.
    pub fn counts(&self) -> (u32, u32) {
        // As many as `new` was told.
        (self.blocks.len() as u32, self.used)
    }

    /// Takes a block, if there is one.
    pub fn take(&mut self) -> Option<u32> {
        let n = self.blocks.len() as u32;
        if self.used >= n {
            return None;
        }
        // One is free, so this ends.
        let block = (0..n).map(|step| ((u64::from(self.cursor) + u64::from(step)) % u64::from(n)) as u32);
        let free = |block: &u32| self.blocks.get(*block as usize) == Some(&0);
        let block = block.into_iter().find(free)?;
        *self.blocks.get_mut(block as usize)? = TAKEN;
        self.cursor = block + 1;
        self.used += 1;
        Some(block)
    }

    /// Remembers the hash of what was written to a block that was taken.
    pub fn keep(&mut self, block: u32, hash: u64) {
        if let Some(place) = self.blocks.get_mut(block as usize) {
            *place = mark(hash);
        }
    }

    /// Whether a page with this hash is what was written to the block.
    pub fn is_whole(&self, block: u32, hash: u64) -> bool {
        self.blocks.get(block as usize) == Some(&mark(hash))
    }

    /// Gives a block back.
    pub fn give(&mut self, block: u32) {
        if let Some(place) = self.blocks.get_mut(block as usize)
            && *place != 0
        {
            *place = 0;
            self.used -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Swap;

    #[test]
    fn a_block_is_one_page_s_until_it_is_given_back() {
        let mut swap = Swap::new(3);
        let blocks = [swap.take(), swap.take(), swap.take()];
        assert_eq!((blocks, swap.take()), ([Some(0), Some(1), Some(2)], None));
        swap.keep(1, 77 << 32);
        assert!(swap.is_whole(1, 77 << 32) && !swap.is_whole(1, 79 << 32) && !swap.is_whole(9, 0));
        swap.give(1);
        swap.give(1);
        assert_eq!((swap.counts(), swap.take()), ((3, 2), Some(1)));
    }
}
