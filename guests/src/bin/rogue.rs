//! What can a hypervisor do to others? It writes anything to EL2's registers, fills tables with anything, does TLB maintenance
//! without end, and returns to anywhere; its VM is started again and again, until `lives=N` (default 40) are over.
//!
//! With a second vCPU that changes what the first runs and is translated by, meanwhile, and the registers of both where they lie in memory.
//!
//! It starts at EL2 (`nested`), with `on-crash = "restart"` or without. That the others fare well is for the others to say.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use rt::el2::{self, Register, misuse};
use rt::random::Random;
use rt::{args, check, println, psci, ram, report, smp, timer};

rt::guest!(main);

/// An instruction: most often one of the system's.
fn instruction(random: &mut Random) -> u32 {
    match random.below(8) {
        0 => random.word() as u32,
        1 => 0xd69f_03e0,
        2 => 0xd400_0002 | random.word() as u32 & 0x1f_ffff,
        3 => 0xd503_201f,
        _ => 0xd500_0000 | random.word() as u32 & 0x3f_ffff,
    }
}

/// Where the tables of this life are, for the second CPU.
static AT: AtomicU64 = AtomicU64::new(0);

/// What the second CPU does as long as the first lives, its MMU off: tables and instructions change while they are read, and so do EL2's
/// registers where they lie in memory (`El2Shadows::add_registers`).
fn meddle(_: usize) {
    let mut random = Random::new(timer::now());
    let at = AT.load(Ordering::SeqCst);
    let has_vhe = Register::Mmfr1.read() >> 8 & 15 != 0;
    let registers = 0x2000_0000 + (48 + 16 * args::n_cpus() as u64 + 5) * 4096;
    loop {
        let place = random.below(TABLES as u64) * 8;
        match random.below(4) {
            0 if !has_vhe => {
                misuse::put(registers + random.below(512 * args::n_cpus() as u64) * 8, number(&mut random));
            }
            1 => misuse::put(at + place, number(&mut random) & 0xffff_ffff_f000 | random.one(&[1, 3, 0x7fd, 0x7ff])),
            _ => {
                let two = u64::from(instruction(&mut random)) << 32 | u64::from(instruction(&mut random));
                misuse::put(at + place, two);
            }
        }
        if random.below(64) == 0 {
            misuse::maintain(random.below(misuse::N_MAINTENANCES), number(&mut random));
        }
    }
}

/// Ends of a life that only a hypervisor has whose own EL2 is not the hardware's: its tables, its instructions, what lies where nothing of
/// its own does.
fn end_without_vhe(random: &mut Random, tables: &[AtomicU64]) {
    let base = tables.as_ptr() as u64;
    match random.below(8) {
        // Its own translations by tables that lead anywhere.
        0 | 1 => {
            let any = random.word();
            let tcr =
                random.one(&[25 | 2 << 16, 16 | 2 << 16, 33 | 1 << 16, 22 | 1 << 14, 16 | 1 << 15 | 1 << 20, any]);
            misuse::translate_by(
                base + random.below(8) * 4096,
                tcr,
                random.one(&[0x30c5_1835, 0x30cd_1835, 0x32c5_1835, 0x30c5_0831]),
            );
        }
        // Any instructions, most of them of the system's; across the end of a page, too.
        2..=4 => {
            for word in tables {
                let two = u64::from(instruction(random)) << 32 | u64::from(instruction(random));
                word.store(two, Ordering::Relaxed);
            }
            let any = random.word() & 0xffc;
            misuse::run(base + random.below(8) * 4096 + random.one(&[0, 4, 0xff8, 0xffc, any]));
        }
        // What lies where nothing of its own does: vectors, tables, GICH.
        5 => {
            for _ in 0..200 {
                let at = random.one(&[0xffff_ffff_fe00_0000, 0x2000_0000, 0x0803_0000, 0x0804_0000]);
                misuse::touch(at + (random.word() & 0x1_fffc), random.below(2) == 0);
            }
        }
        6 => misuse::run(0xffff_ffff_fe00_0000 + random.below(0x8000) * 4),
        _ => {}
    }
}

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
    let has_vhe = Register::Mmfr1.read() >> 8 & 15 != 0;
    if has_vhe {
        el2::become_vhe();
    }
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
    AT.store(base, Ordering::SeqCst);
    if args::n_cpus() > 1 && random.below(3) > 0 {
        let _ = smp::start(1, meddle);
    }
    for _ in 0..2000 {
        let (what, value) = (random.below(4), number(&mut random));
        let register = random.below(if has_vhe { misuse::N_REGISTERS } else { misuse::N_PLAIN });
        match (what, has_vhe) {
            (0, _) => misuse::maintain(random.below(misuse::N_MAINTENANCES), value),
            (1, true) => {
                let _ = misuse::read(register);
            }
            (1, false) => {
                let _ = misuse::read_plain(register);
            }
            (_, true) => misuse::write(register, value),
            (_, false) => misuse::write_plain(register, value),
        }
    }
    if !has_vhe {
        end_without_vhe(&mut random, tables);
    }
    // A stage 2 that can be walked, most of the time: VTTBR_EL2 and VTCR_EL2.
    if random.below(8) > 0 {
        misuse::write(0, base | random.below(3) << 48);
        misuse::write(1, random.one(&[32 | 1 << 6, 24 | 1 << 6, 25 | 1 << 6 | 2 << 14, 22 | 1 << 6 | 1 << 14]));
    }
    let ours = if has_vhe { OURS } else { OURS & !(el2::TGE | el2::E2H) };
    let hcr = ours & !el2::TGE | 1 | random.word() & random.word() & !el2::TGE;
    // Or an EL0 that has no EL1.
    let hcr = if random.below(4) == 0 { hcr & !el2::E2H | el2::TGE } else { hcr };
    let (pc, spsr) = (number(&mut random), random.one(&[0x3c5, 0x3c4, 0x3c0, 0x5, 0x9, 0x1d0, 0x10, 0xf]));
    misuse::leave(if random.below(4) == 0 { random.word() } else { hcr }, pc, spsr);
}
