//! What can a hypervisor do to others? It writes anything to EL2's registers, fills tables with anything, does TLB maintenance
//! without end, and returns to anywhere; its VM is started again and again, until `lives=N` (default 40) are over.
//!
//! It starts at EL2 (`nested`), with `on-crash = "restart"` or without. That the others fare well is for the others to say.

#![no_std]
#![no_main]

use core::sync::atomic::Ordering;
use rt::el2::{self, misuse};
use rt::random::Random;
use rt::{args, check, println, psci, ram, report, timer};

rt::guest!(main);

/// E2H, RW, TGE: what this program runs with.
const OURS: u64 = 0x4_8800_0000;
/// Words of the tables.
const TABLES: usize = 8 * 512;

/// A number of the kind that gets far: an address of RAM, a small one, a bit, or any.
fn number(random: &mut Random) -> u64 {
    let word = random.word();
    match random.below(6) {
        0 => rt::board::RAM | word & 0xff_ffff,
        1 => word & 0xffff,
        2 => 1 << (word & 63),
        3 => word & 0xffff_ffff_f000 | 0x7ff,
        4 => (rt::board::RAM | word & 0xff_f000) | (word >> 32 & 0xff) << 48,
        _ => word,
    }
}

fn main() {
    check!(el2::is_here(), "it starts at EL2");
    el2::become_vhe();
    // Another life each time.
    let seed = timer::now();
    let mut random = Random::new(seed);
    println!("rogue: seed {seed:#x}");
    if random.below(args::number("lives", 40)) == 0 {
        println!("rogue: enough");
        psci::system_off();
    }
    // What becomes of it is an exception, most often.
    report::live_again();
    let memory = ram::largest_free();
    let (tables, _) = memory.split_at(TABLES);
    let base = tables.as_ptr() as u64;
    for word in tables {
        // Tables that lead to themselves and into each other, pages and blocks anywhere, devices among them.
        let kind = random.one(&[1, 3, 3, 0x7fd, 0x7ff]);
        let at =
            if random.below(3) == 0 { number(&mut random) & 0xffff_ffff_f000 } else { base + random.below(8) * 4096 };
        word.store(at | kind, Ordering::Relaxed);
    }
    for _ in 0..2000 {
        let (register, value) = (random.below(misuse::N_REGISTERS), number(&mut random));
        match random.below(4) {
            0 => misuse::maintain(random.below(misuse::N_MAINTENANCES), value),
            1 => {
                let _ = misuse::read(register);
            }
            _ => misuse::write(register, value),
        }
    }
    // A stage 2 that can be walked, most of the time: VTTBR_EL2 and VTCR_EL2.
    if random.below(8) > 0 {
        misuse::write(0, base | random.below(3) << 48);
        misuse::write(1, random.one(&[32 | 1 << 6, 24 | 1 << 6, 25 | 1 << 6 | 2 << 14, 22 | 1 << 6 | 1 << 14]));
    }
    let hcr = OURS & !el2::TGE | 1 | random.word() & random.word() & !el2::TGE;
    // Or an EL0 that has no EL1.
    let hcr = if random.below(4) == 0 { hcr & !el2::E2H | el2::TGE } else { hcr };
    let (pc, spsr) = (number(&mut random), random.one(&[0x3c5, 0x3c4, 0x3c0, 0x5, 0x9, 0x1d0, 0x10, 0xf]));
    misuse::leave(if random.below(4) == 0 { random.word() } else { hcr }, pc, spsr);
}
