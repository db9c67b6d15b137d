//! System registers by random encodings, and cache maintenance by set and way.

use crate::Tally;
use rt::code::{self, Encoding, Instruction};
use rt::odd;
use rt::random::Random;

/// Chooses an encoding: among those that mostly exist (EL1 and EL0, low CRm) three times in four, else any.
fn encoding(random: &mut Random) -> Encoding {
    let bits = random.word() as u32; // cut into fields of a few bits each
    if bits >> 30 != 0 {
        let crn = random.one(&[0, 1, 2, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15]);
        return Encoding::new(3, random.one(&[0, 0, 3]), crn, bits >> 16 & random.one(&[1, 3, 15]), bits >> 20 & 3);
    }
    Encoding::new(2 + (bits & 1), bits >> 4, bits >> 12, bits >> 16, bits >> 20)
}

/// MRS of anything.
pub(crate) fn reads(random: &mut Random, rounds: u64) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..rounds {
        let register = encoding(random);
        tally.attempt(|| _ = code::run(Instruction::Mrs(register), [0; 4]));
    }
    tally
}

/// MSR of what cannot hurt this program itself.
pub(crate) fn writes(random: &mut Random, rounds: u64) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..rounds {
        let register = loop {
            let candidate = encoding(random);
            if candidate.is_harmless_to_write() {
                break candidate;
            }
        };
        // x0 also passes for a function identifier: keep it clear of those of firmware.
        let value = random.word() & 0xffff_ffff_00ff_ffff;
        tally.attempt(|| _ = code::run(Instruction::Msr(register), [value, 0, 0, 0]));
    }
    tally
}

/// DC CSW and DC CISW of random sets, ways and levels.
pub(crate) fn set_way(random: &mut Random, rounds: u64) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..rounds {
        let (word, invalidate) = (random.word() & 0xffff_ffff, random.below(2) == 0);
        tally.attempt(|| odd::clean_by_set_way(word, invalidate));
    }
    tally
}
