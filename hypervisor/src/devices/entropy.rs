//! Random numbers for guests: a generator of ours (ChaCha20), begun with what the board knows that nobody can guess.
//!
//! [`Seed`] collects that: numbers of the boot loader, of the CPU, of the firmware. Each is stirred into the key, so that a bad source spoils
//! nothing that a good one gave; whether it is enough is for those to say who brought it. [`Entropy`] then forgets its key with each answer:
//! who sees its memory learns nothing of what was given before.
//!
//! Guests have it by the Arm True Random Number Generator firmware interface ([`crate::vm::trng`]).

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};

/// The bytes of a key.
pub const KEY: usize = 32;
/// How many bits nobody can guess are enough: the strength that the interface is to have (Arm DEN0098 1.2).
pub const ENOUGH: u32 = 128;

/// What a generator begins with.
#[derive(Clone, Default, Debug)]
pub struct Seed {
    key: [u8; KEY],
    bits: u32,
}

/// A generator.
pub struct Entropy {
    key: [u8; KEY],
}

impl Seed {
    /// Stirs `bytes` in, of which `bits` nobody can guess.
    pub fn add(&mut self, bytes: &[u8], bits: u32) {
        for part in bytes.chunks(KEY) {
            for (old, new) in self.key.iter_mut().zip(part) {
                *old ^= new;
            }
            // Else a part of zeroes would be what an answer leaves behind.
            if let Some(last) = self.key.last_mut() {
                *last ^= part.len() as u8;
            }
            ChaCha20Rng::from_seed(self.key).fill_bytes(&mut self.key);
        }
        self.bits = self.bits.saturating_add(bits);
    }

    /// A generator, if that was enough.
    pub fn begin(&self) -> Option<Entropy> {
        (self.bits >= ENOUGH).then_some(Entropy { key: self.key })
    }
}

impl Entropy {
    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        let mut generator = ChaCha20Rng::from_seed(self.key);
        generator.fill_bytes(&mut self.key);
        generator.fill_bytes(out);
    }
}

#[cfg(test)]
mod tests {
    use super::{ENOUGH, Entropy, Seed};
    use alloc::vec::Vec;

    fn begin(sources: &[(&[u8], u32)]) -> Option<Entropy> {
        let mut seed = Seed::default();
        sources.iter().for_each(|(bytes, bits)| seed.add(bytes, *bits));
        seed.begin()
    }

    fn numbers(sources: &[(&[u8], u32)]) -> Vec<[u8; 24]> {
        let mut entropy = begin(sources).unwrap();
        (0..100)
            .map(|_| {
                let mut out = [0; 24];
                entropy.fill(&mut out);
                out
            })
            .collect()
    }

    #[test]
    fn there_is_none_without_enough() {
        assert!(begin(&[]).is_none() && begin(&[(&[5; 64], 0), (&[6; 8], ENOUGH - 1)]).is_none());
        assert!(begin(&[(&[6; 8], ENOUGH / 2), (&[7; 8], ENOUGH / 2)]).is_some());
        assert!(begin(&[(&[6; 8], u32::MAX), (&[7; 8], u32::MAX)]).is_some());
    }

    #[test]
    fn each_source_counts_and_nothing_comes_twice() {
        let sources: [&[(&[u8], u32)]; 6] = [
            &[(&[1; 32], 128)],
            &[(&[1; 32], 128), (&[0], 0)],
            &[(&[1; 33], 128)],
            &[(&[1; 32], 128), (&[1; 32], 128)],
            &[(&[2; 32], 128), (&[1; 32], 128)],
            &[(&[1; 32], 128), (&[2; 32], 128)],
        ];
        let mut all: Vec<[u8; 24]> = sources.iter().flat_map(|sources| numbers(sources)).collect();
        assert_eq!(numbers(sources[0]), numbers(sources[0]));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 600);
        let ones: u32 = all.iter().flatten().map(|byte| byte.count_ones()).sum();
        let bits = 600 * 24 * 8;
        assert!(ones.abs_diff(bits / 2) < bits / 100, "{ones} of {bits}");
    }

    /// The key goes with each answer: what is there afterwards is the keystream's first 32 bytes (RFC 8439's function, counter from 0).
    #[test]
    fn what_was_given_cannot_be_had_again() {
        let mut entropy = Entropy { key: [0; 32] };
        let mut out = [0; 4];
        entropy.fill(&mut out);
        // ChaCha20 of a key and a nonce of zeroes.
        assert_eq!(entropy.key[..8], [0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90]);
        assert_eq!(out, [0xda, 0x41, 0x59, 0x7c]);
    }
}
