//! What the board knows that nobody can guess: numbers of the boot loader, of the CPU (FEAT_RNG) and of the firmware (Arm DEN0098).

use super::{cpu, power};
use core::arch::asm;
use flatland::devices::entropy::Seed;
use platform::board::Board;

/// How many numbers of the CPU are taken, and how often it is asked for each.
const NUMBERS: usize = 4;
const TRIES: u32 = 16;

/// Collects all there is.
pub(crate) fn gather(board: &Board) -> Seed {
    let mut seed = Seed::default();
    // No secret, but not the same everywhere.
    seed.add(&flatland::machine::Machine::now(&super::machine::El2).to_le_bytes(), 0);
    if let Some(number) = board.seed {
        // The layout of a kernel may be made of it, too, which tells some of it.
        seed.add(&number.to_le_bytes(), 0);
    }
    let loader = &board.random;
    // Linux takes it as full of entropy, too.
    seed.add(loader, loader.len() as u32 * 8);
    for number in (0..NUMBERS).filter_map(|_| of_cpu()) {
        seed.add(&number.to_le_bytes(), 64);
    }
    if let Some(numbers) = power::firmware_random() {
        numbers.iter().for_each(|number| seed.add(&number.to_le_bytes(), 64));
    }
    seed
}

/// RNDR: nothing where the CPU has it not, or does not get one in time.
fn of_cpu() -> Option<u64> {
    // ID_AA64ISAR0_EL1.RNDR.
    if cpu::id_register(6, 0) >> 60 == 0 {
        return None;
    }
    (0..TRIES).find_map(|_| {
        let (number, failed): (u64, u64);
        // SAFETY: a read of RNDR, which sets NZCV and nothing else; Z where there was no number (Arm ARM D24.2.138).
        unsafe {
            asm!("mrs {}, S3_3_C2_C4_0", "cset {}, eq", out(reg) number, out(reg) failed, options(nostack, nomem));
        }
        (failed == 0).then_some(number)
    })
}
