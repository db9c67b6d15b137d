//! The True Random Number Generator firmware interface for guests (Arm DEN0098): Debian's kernel has it as `smccc_trng` and asks early at boot.

use crate::arm::smccc::{self, Call};
use crate::devices::entropy::Entropy;
use spin::mutex::SpinMutex;

/// TRNG_VERSION's answer: 1.0.
const VERSION: i64 = 0x1_0000;
/// Who implements it: a number of ours. Its first word is not all ones, which would be an error.
const UUID: [u64; 4] = [0x0e3e_0b83, 0x4f4c_4154, 0x8c1a_4e44, 0x544e_4721];
/// Registers of an answer.
const WORDS: usize = 3;

/// X0 to X3 for a call by `function` with `x1`; nothing if it is none of these, or if there is no `entropy` to be had.
pub fn answer(function: u32, x1: u64, entropy: Option<&SpinMutex<Entropy>>) -> Option<[u64; 4]> {
    let entropy = entropy?;
    let value = |x0: i64| [x0.cast_unsigned(), 0, 0, 0];
    Some(match Call::decode(function) {
        Call::TrngVersion => value(VERSION),
        // X1 is a function id.
        Call::TrngFeatures => value(match Call::decode((x1 & 0xffff_ffff) as u32) {
            Call::TrngVersion | Call::TrngFeatures | Call::TrngUuid | Call::TrngRandom => 0,
            _ => smccc::NOT_SUPPORTED,
        }),
        Call::TrngUuid => UUID,
        Call::TrngRandom => random(smccc::is_64bit(function), x1, entropy),
        _ => return None,
    })
}

/// So many bits, the lowest in X3, those that were not asked for zero. A register has 32 of them, or 64 (`wide`).
fn random(wide: bool, x1: u64, entropy: &SpinMutex<Entropy>) -> [u64; 4] {
    let width: u64 = if wide { 64 } else { 32 };
    let bits = if wide { x1 } else { x1 & 0xffff_ffff };
    if !(1..=width * WORDS as u64).contains(&bits) {
        return [smccc::INVALID_PARAMETERS.cast_unsigned(), 0, 0, 0];
    }
    let mut bytes = [[0; 8]; WORDS];
    entropy.lock().fill(bytes.as_flattened_mut());
    let mut answer = [0; 4];
    // X3 first: word n has bits from n times its width on.
    for ((n, word), x) in (0..).zip(bytes).zip(answer.iter_mut().rev()) {
        let wanted = bits.saturating_sub(n * width).min(width);
        // At most 64.
        *x = u64::from_le_bytes(word) & u64::MAX.checked_shr(64 - wanted as u32).unwrap_or(0);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::answer;
    use crate::devices::entropy::{Entropy, Seed};
    use spin::mutex::SpinMutex;

    const VERSION: u32 = 0x8400_0050;
    const FEATURES: u32 = 0x8400_0051;
    const UUID: u32 = 0x8400_0052;
    const RND32: u32 = 0x8400_0053;
    const RND64: u32 = 0xc400_0053;

    fn entropy() -> SpinMutex<Entropy> {
        let mut seed = Seed::default();
        seed.add(&[3; 32], 256);
        SpinMutex::new(seed.begin().unwrap())
    }

    #[test]
    fn what_there_is_is_found() {
        let entropy = entropy();
        let call = |function, x1| answer(function, x1, Some(&entropy));
        assert_eq!(call(VERSION, 0), Some([0x1_0000, 0, 0, 0]));
        for function in [VERSION, FEATURES, UUID, RND32, RND64] {
            assert_eq!(call(FEATURES, function.into()), Some([0; 4]), "{function:#x}");
            // Without a source it is not there.
            assert_eq!(answer(function, 1, None), None);
        }
        assert_eq!(call(FEATURES, 0x8400_0054), Some([u64::MAX, 0, 0, 0]));
        let uuid = call(UUID, 0).unwrap();
        assert!(uuid.iter().all(|word| *word < 1 << 32) && uuid[0] != 0xffff_ffff);
        for other in [0x8400_0000, 0x8400_0054, 0xc400_0050, 0xc400_0052] {
            assert_eq!(call(other, 0), None, "{other:#x}");
        }
    }

    /// Of each number of bits: no other is ever set, and each of these is now and then.
    #[test]
    fn as_many_bits_come_as_are_asked_for() {
        let entropy = entropy();
        for (function, width) in [(RND32, 32), (RND64, 64_u64)] {
            for bits in 1..=width * 3 {
                let mut seen = [0; 4];
                for _ in 0..64 {
                    let words = answer(function, bits, Some(&entropy)).unwrap();
                    seen.iter_mut().zip(words).for_each(|(seen, word)| *seen |= word);
                }
                let of = |n: u64| match bits.saturating_sub(n * width).min(width) {
                    64 => u64::MAX,
                    wanted => (1 << wanted) - 1,
                };
                assert_eq!(seen, [0, of(2), of(1), of(0)], "{bits} of {width}");
            }
            for bits in [0, width * 3 + 1, 1 << 31] {
                assert_eq!(answer(function, bits, Some(&entropy)), Some([(-2_i64).cast_unsigned(), 0, 0, 0]));
            }
        }
        // W1.
        assert_eq!(answer(RND32, 1 << 32 | 96, Some(&entropy)).unwrap()[0], 0);
        assert_ne!(answer(RND64, 1 << 32 | 96, Some(&entropy)).unwrap()[0], 0);
    }
}
