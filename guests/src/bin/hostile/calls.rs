//! Calls with garbage: PSCI functions with senseless arguments, unknown functions, any immediate.

use crate::Tally;
use rt::code::{self, Instruction};
use rt::psci::{self, Conduit};
use rt::random::Random;
use rt::{args, board};

/// Returns whether the call would end this guest, as it may.
fn ends(function: u64) -> bool {
    let number = function & 0xffff;
    // CPU_SUSPEND may sleep for ever with nothing to wake it; CPU_FREEZE, SYSTEM_SUSPEND and the 2nd reset likewise.
    function & 0x3f00_0000 == 0x0400_0000 && matches!(number, 1 | 2 | 8 | 9 | 0xb | 0xc | 0xe | 0x12 | 0x15)
}

/// Arguments that look like something, or like nothing. Entry points are all outside RAM.
fn arguments(random: &mut Random) -> [u64; 3] {
    let own = args::mpidr(0);
    let mut one = || match random.below(6) {
        0 => 0,
        1 => u64::MAX,
        2 => own,
        3 => 1 << random.below(64),
        4 => args::mpidr(0) | random.below(256) << (8 * random.below(5)),
        _ => random.word(),
    };
    let (a, b, c) = (one(), one(), one());
    // No target that is there: a CPU started at nowhere would fault for as long as the guest runs.
    let a = if (1..args::n_cpus()).any(|i| args::mpidr(i) == a & 0xff_00ff_ffff) { own } else { a };
    [a, b % board::RAM, c]
}

/// PSCI and SMCCC functions, known and unknown, 32-bit and 64-bit.
pub(crate) fn psci(random: &mut Random, rounds: u64) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..rounds {
        let function = match random.below(4) {
            0 | 1 => 0x8400_0000 | random.below(2) << 30 | random.below(0x20),
            2 => random.word() & 0xffff_ffff,
            _ => random.one(&[0x8000_0000, 0x8000_0001, 0x8000_8000, 0x8600_ff01, 0xc600_0000, 0xc500_0020]),
        };
        let function = if ends(function) { psci::VERSION } else { function };
        let [a, b, c] = arguments(random);
        let conduit = random.one(&[Conduit::Hvc, Conduit::Smc]);
        tally.attempt(|| _ = psci::call(conduit, [function, a, b, c]));
    }
    tally
}

/// HVC and SMC with immediates, which nobody defines.
pub(crate) fn immediates(random: &mut Random, rounds: u64) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..rounds {
        let immediate = 1 << random.below(16) | random.below(2) as u16; // one bit
        let instruction = random.one(&[Instruction::Hvc(immediate), Instruction::Smc(immediate)]);
        let function = random.one(&[0, psci::VERSION, 0x8400_00ff, u64::MAX]);
        tally.attempt(|| _ = code::run(instruction, [function, 0, 0, 0]));
    }
    tally
}
