//! A keyed hash of a frame's words, by which pages with equal contents are nominated and damaged ones found out.
//!
//! Two words are mixed by one 64 by 64 bit multiplication whose halves are folded together, the sum so far with them: some
//! 2,000 instructions for a frame. The key is drawn at boot, so that no guest can make pages whose hashes collide. A hash
//! that says "equal" is never believed: contents are compared before anything is merged.

use crate::machine::Words;
use core::sync::atomic::Ordering::Relaxed;

/// The hash under one key.
#[derive(Clone, Copy, Debug)]
pub struct Hash {
    key: [u64; 2],
    /// The hash of a frame full of zeroes.
    zero: u64,
}

/// Odd, with as many ones as zeroes in each half: so that a key of little entropy mixes, too.
const ODD: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f];

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    // Both halves: the casts drop the other.
    product as u64 ^ (product >> 64) as u64
}

impl Hash {
    /// The hash under a key made of `seed`.
    pub fn new(seed: u64) -> Self {
        let first = fold(seed ^ ODD[0], ODD[1]) | 1;
        let second = fold(seed.rotate_left(32) ^ ODD[1], ODD[0] ^ first) | 1;
        let mut hash = Self { key: [first, second], zero: 0 };
        hash.zero = (0..256).fold(first, |sum, _| hash.mix(sum, 0, 0));
        hash
    }

    #[inline(always)]
    fn mix(&self, sum: u64, a: u64, b: u64) -> u64 {
        fold(a ^ sum, b ^ self.key[1])
    }

    /// The hash of what `words` are just now.
    #[inline(never)]
    pub fn of(&self, words: &Words) -> u64 {
        let (pairs, _) = words.as_chunks::<2>();
        pairs.iter().fold(self.key[0], |sum, [a, b]| self.mix(sum, a.load(Relaxed), b.load(Relaxed)))
    }

    /// The hash of `words`, if they are what `copy` has: read once.
    #[inline(never)]
    pub fn of_copy(&self, words: &Words, copy: &[u64]) -> Option<u64> {
        let (pairs, _) = words.as_chunks::<2>();
        let (copies, _) = copy.as_chunks::<2>();
        let (mut sum, mut differ) = (self.key[0], 0);
        for ([a, b], copy) in pairs.iter().zip(copies) {
            let (a, b) = (a.load(Relaxed), b.load(Relaxed));
            sum = self.mix(sum, a, b);
            differ |= (a ^ copy[0]) | (b ^ copy[1]);
        }
        (differ == 0).then_some(sum)
    }

    /// The hash of zeroes.
    pub const fn of_zeroes(&self) -> u64 {
        self.zero
    }
}

/// Whether all words are zero.
pub fn is_zero(words: &Words) -> bool {
    words.iter().all(|word| word.load(Relaxed) == 0)
}

/// Whether two frames hold the same.
pub fn is_equal(a: &Words, b: &Words) -> bool {
    a.iter().zip(b).all(|(a, b)| a.load(Relaxed) == b.load(Relaxed))
}

#[cfg(test)]
mod tests {
    use super::{Hash, is_equal, is_zero};
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

    #[test]
    fn every_bit_and_every_key_changes_the_hash() {
        let words = [const { AtomicU64::new(0) }; 512];
        let (one, two) = (Hash::new(1), Hash::new(2));
        assert_eq!(one.of(&words), one.of_zeroes());
        assert_ne!(one.of_zeroes(), two.of_zeroes());
        let mut seen = alloc::collections::BTreeSet::from([one.of_zeroes()]);
        for (place, word) in words.iter().enumerate() {
            word.store(1 << (place % 64), Relaxed);
            assert!(!is_zero(&words) && seen.insert(one.of(&words)), "word {place}");
            word.store(0, Relaxed);
        }
        assert!(is_zero(&words) && is_equal(&words, &words));
    }
}
