//! Which blocks of the swap area are used: a bit for each.
//!
//! A block is 4 KiB. What is in it is known by the descriptor that names it, and nothing else does.

use alloc::boxed::Box;
use alloc::vec;

/// The most blocks that are used: 1 GiB, a bitmap of 32 KiB.
const MOST: u32 = 1 << 18;

/// The blocks of the swap area.
#[derive(Debug, Default)]
pub struct Swap {
    /// Bit n of word w: block 64 w + n is used.
    words: Box<[u64]>,
    blocks: u32,
    used: u32,
    /// The word to look into first.
    cursor: usize,
}

impl Swap {
    /// An area of `blocks` blocks, or as many of them as are used at most.
    pub fn new(blocks: u32) -> Self {
        let blocks = blocks.min(MOST) & !63;
        Self { words: vec![0; blocks as usize / 64].into_boxed_slice(), blocks, used: 0, cursor: 0 }
    }

    /// How many blocks there are, and how many are used.
    pub fn counts(&self) -> (u32, u32) {
        (self.blocks, self.used)
    }

    /// Takes a block, if there is one.
    pub fn take(&mut self) -> Option<u32> {
        let n = self.words.len();
        for step in 0..n {
            let at = (self.cursor + step) % n;
            let word = self.words.get_mut(at)?;
            if *word != u64::MAX {
                let bit = word.trailing_ones();
                *word |= 1 << bit;
                self.cursor = at;
                self.used += 1;
                // Fewer than MOST.
                return Some(at as u32 * 64 + bit);
            }
        }
        None
    }

    /// Gives a block back.
    pub fn give(&mut self, block: u32) {
        if let Some(word) = self.words.get_mut(block as usize / 64)
            && *word >> (block % 64) & 1 != 0
        {
            *word &= !(1 << (block % 64));
            self.used -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Swap;

    #[test]
    fn a_block_is_one_page_s_until_it_is_given_back() {
        let mut swap = Swap::new(130);
        let blocks: alloc::vec::Vec<_> = core::iter::from_fn(|| swap.take()).collect();
        assert!(blocks.iter().copied().eq(0..128), "whole words");
        swap.give(70);
        swap.give(70);
        swap.give(1000);
        assert_eq!((swap.counts(), swap.take(), swap.take()), ((128, 127), Some(70), None));
        assert_eq!(Swap::default().take(), None);
    }
}
