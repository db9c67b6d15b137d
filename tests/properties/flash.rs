//! Flash: what drivers do with it, against bytes in a vector; what nobody should do with it; and on a CPU, what is mapped
//! when.

use super::exits::{here, model, turn_on};
use flatland::addr::{Addr, Pa};
use flatland::arm::el1::El1;
use flatland::arm::esr::ec;
use flatland::arm::exception::psr;
use flatland::devices::FLASH_BANK;
use flatland::devices::flash::{BLOCK, Bank};
use flatland::exit;
use flatland::host::Here;
use flatland::machine::Machine;
use flatland::next::{Cause, Next};
use flatland::vcpu::Vcpu;
use harness::cpu::{BOARD, BOARD_BYTES, Cpu, Op, Outcome, host_of};
use harness::model::{Dice, Flaw, Model};

const BYTES: u64 = 1 << 20;
const READY: u64 = 0x0080_0080;

/// A board whose RAM begins with a bank's array, erased.
fn erased() -> Model {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 5, Flaw::None);
    (0..BYTES).step_by(8).for_each(|at| model.cached_store(Addr::new(BOARD + at), u64::MAX));
    model
}

fn bank(is_writable: bool) -> Bank {
    Bank::new(Addr::new(BOARD), BYTES, is_writable)
}

/// The array's bytes.
fn array(model: &Model) -> Vec<u8> {
    (0..BYTES).step_by(8).flat_map(|at| model.cached(Addr::new(BOARD + at)).to_le_bytes()).collect()
}

/// Polls until it is ready; how often that took, and the status.
fn wait(model: &Model, bank: &mut Bank) -> (u32, u64) {
    for polls in 0..100 {
        let status = bank.read(model, 0, 4);
        if status & READY == READY {
            return (polls, status);
        }
    }
    panic!("it is busy for ever");
}

#[test]
fn drivers_program_and_erase_what_they_mean_to() {
    let (model, mut dice) = (erased(), Dice::new(3));
    let (mut bank, mut bytes) = (bank(true), vec![0xff_u8; BYTES as usize]);
    for _ in 0..3000 {
        let at = dice.below(BYTES / 4) * 4;
        let put = |bytes: &mut Vec<u8>, at: u64, value: u32| {
            for (to, from) in bytes[at as usize..].iter_mut().zip(value.to_le_bytes()) {
                *to &= from;
            }
        };
        match dice.below(20) {
            0 => {
                bank.write(&model, at, 4, 0x0020_0020);
                bank.write(&model, at, 4, 0x00d0_00d0);
                let (polls, status) = wait(&model, &mut bank);
                assert_eq!((polls, status), (63, READY), "a page with each poll");
                let block = (at & !(BLOCK - 1)) as usize;
                bytes[block..block + BLOCK as usize].fill(0xff);
            }
            1..10 => {
                let value = dice.roll() as u32;
                bank.write(&model, at, 4, 0x0040_0040);
                bank.write(&model, at, 4, value.into());
                assert_eq!(wait(&model, &mut bank), (0, READY));
                put(&mut bytes, at, value);
            }
            _ => {
                let first = (at & !255) + dice.below(32) * 4;
                let words = 1 + dice.below(32);
                let block = first & !(BLOCK - 1);
                bank.write(&model, block, 4, 0x00e8_00e8);
                assert_eq!(wait(&model, &mut bank), (0, READY));
                bank.write(&model, block, 4, (words - 1) << 16 | (words - 1));
                for n in 0..words {
                    let value = dice.roll() as u32;
                    bank.write(&model, first + 4 * n, 4, value.into());
                    put(&mut bytes, first + 4 * n, value);
                }
                bank.write(&model, block, 4, 0x00d0_00d0);
                assert_eq!(wait(&model, &mut bank), (0, READY));
            }
        }
        bank.write(&model, 0, 4, 0x00ff_00ff);
        assert!(bank.is_array());
        let word = u32::from_le_bytes(bytes[at as usize..][..4].try_into().unwrap());
        assert_eq!(bank.read(&model, at, 4), u64::from(word));
        assert_eq!(bank.read(&model, at + 1, 1), u64::from(word >> 8 & 0xff));
    }
    assert!(array(&model) == bytes, "the array is not what was written");
}

#[test]
fn it_says_what_it_is() {
    let model = erased();
    let mut bank = bank(true);
    bank.write(&model, 0x55 << 2, 4, 0x0098_0098);
    let mut query = |at: u64| bank.read(&model, at << 2, 4);
    let twice = |byte: u64| byte << 16 | byte;
    assert_eq!([0x10, 0x11, 0x12].map(&mut query), [b'Q', b'R', b'Y'].map(|letter| twice(letter.into())));
    assert_eq!([0x13, 0x14, 0x31, 0x32, 0x33].map(&mut query), [1, 0, 0x50, 0x52, 0x49].map(twice));
    assert_eq!(query(0x27), twice(19), "each chip has half");
    assert_eq!(query(0x2a), twice(7), "and half of the buffer");
    assert_eq!([0x2c, 0x2d, 0x2e, 0x2f, 0x30].map(&mut query), [1, 3, 0, 0, 2].map(twice), "4 blocks of 256 KiB");
    bank.write(&model, 0, 4, 0x0090_0090);
    assert_eq!([0, 4, 8].map(|at| bank.read(&model, at, 4)), [0x0089_0089, 0x0018_0018, 0]);
}

#[test]
fn what_is_read_only_stays_and_says_why() {
    let model = erased();
    let mut bank = bank(false);
    let tries: [(&[u64], u64); 3] = [(&[0x40, 0x1234], 0x92), (&[0x20, 0xd0], 0xa2), (&[0xe8, 0, 0x1234, 0xd0], 0x92)];
    for (writes, status) in tries {
        writes.iter().for_each(|value| bank.write(&model, 0x100, 4, value * 0x1_0001));
        assert_eq!(wait(&model, &mut bank), (0, status * 0x1_0001), "{writes:x?}");
        bank.write(&model, 0, 4, 0x50);
        assert!(bank.is_array());
    }
    assert!(array(&model).iter().all(|byte| *byte == 0xff));
}

#[test]
fn whatever_is_written_it_can_be_read_again_and_changes_a_piece_at_most() {
    let (model, mut dice) = (erased(), Dice::new(9));
    let mut bank = bank(true);
    let commands = [0x10, 0x20, 0x28, 0x40, 0x50, 0x60, 0x70, 0x90, 0x98, 0xd0, 0xe8, 0xff, 0, 1, 63, 64, u64::MAX];
    let mut before = array(&model);
    for round in 0..20_000 {
        let size = dice.pick(&[1, 2, 4, 8]);
        let at = dice.below(BYTES);
        if dice.one_in(3) {
            bank.read(&model, at, size);
        } else {
            let value = if dice.one_in(8) { dice.roll() } else { dice.pick(&commands) };
            bank.write(&model, at, size, value);
        }
        if round % 500 == 0 {
            // Out of whatever it was in: a count, words, a confirmation, erasing.
            for _ in 0..70 {
                bank.write(&model, 0, 4, 0x00ff_00ff);
                bank.read(&model, 0, 4);
            }
            assert!(bank.is_array(), "{bank:?}");
        }
        if round % 50 == 0 {
            let after = array(&model);
            let changed = before.iter().zip(&after).filter(|(old, new)| old != new).count();
            assert!(changed <= 50 * 4096);
            before = after;
        }
    }
}

/// A load or store of W1 at `va`, with all that the syndrome has of it, until it is done. The exits it took.
fn transfer(cpu: &Cpu<'_>, here: Here<'_>, vcpu: &mut Vcpu, op: Op, va: u64) -> u32 {
    for exits in 0..100 {
        let pc = vcpu.registers.pc;
        match cpu.access(vcpu, op, va) {
            Outcome::Exit => vcpu.registers.esr |= 1 << 24 | 2 << 22 | 1 << 16,
            Outcome::Done(pa) if op == Op::Read => {
                vcpu.registers.write(1, cpu.model.cached(Addr::new(pa.bits() & !7)) >> (8 * (va & 4)) & 0xffff_ffff);
                return exits;
            }
            other => panic!("{op:?} of {va:#x}: {other:?}"),
        }
        assert_eq!(exit::handle(here, cpu, vcpu), Next::Resume, "{op:?} of {va:#x}");
        if vcpu.registers.pc != pc {
            return exits + 1;
        }
    }
    panic!("{op:?} of {va:#x} is never done");
}

fn load(cpu: &Cpu<'_>, here: Here<'_>, vcpu: &mut Vcpu, va: u64) -> (u32, u64) {
    let exits = transfer(cpu, here, vcpu, Op::Read, va);
    (exits, vcpu.registers.read(1))
}

fn store(cpu: &Cpu<'_>, here: Here<'_>, vcpu: &mut Vcpu, va: u64, value: u64) {
    vcpu.registers.write(1, value);
    transfer(cpu, here, vcpu, Op::Write, va);
}

#[test]
fn a_guest_reads_it_as_memory_until_it_writes() {
    let model = model();
    let cpu = Cpu::new(&model);
    let images: [(&str, &[u8]); 2] = [("flash", b"\x11\x22\x33\x44code"), ("flash-variables", &[0x5a; 5000])];
    let here = here(host_of(&model, &["one"], &images));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let vcpu = &mut *vcpu;
    assert_eq!(load(&cpu, here, vcpu, 0), (1, 0x4433_2211));
    assert_eq!(load(&cpu, here, vcpu, 0x800), (0, 0xffff_ffff), "the page is mapped, and erased behind the image");
    vcpu.registers.pstate = psr::EL0T;
    assert!(matches!(cpu.insist(here, vcpu, Op::Fetch, 0x2000), (1, Some((Outcome::Done(_), _)))), "and may be run");
    vcpu.registers.pstate = psr::EL1H;
    // Whole pages to the point of unification, or all of the instruction caches.
    let invalidated = || model.tally().unified / 4096 + model.tally().instructions;
    let before = invalidated();
    assert_eq!(load(&cpu, here, vcpu, FLASH_BANK), (1, 0x5a5a_5a5a));
    assert!(invalidated() > before, "an instruction cache may know the frame from before");
    assert_eq!(load(&cpu, here, vcpu, FLASH_BANK + 0x7_0000).0, 1);
    // Written while two pages of it are mapped.
    store(&cpu, here, vcpu, FLASH_BANK + 8, 0x0040_0040);
    assert_eq!(load(&cpu, here, vcpu, FLASH_BANK), (1, READY), "its status, not its array");
    assert_eq!(load(&cpu, here, vcpu, FLASH_BANK + 0x7_0000), (1, READY));
    assert_eq!(load(&cpu, here, vcpu, 0), (0, 0x4433_2211), "the other bank is another");
    store(&cpu, here, vcpu, FLASH_BANK + 8, 0x00ff_0000);
    store(&cpu, here, vcpu, FLASH_BANK, 0x00ff_00ff);
    assert_eq!(load(&cpu, here, vcpu, FLASH_BANK + 8), (1, 0x5a_0000));
    let Outcome::Done(pa) = cpu.access(vcpu, Op::Read, FLASH_BANK + 8) else { panic!("it is not mapped") };
    let pa: Addr<Pa> = Addr::new(pa.bits() & !7);
    assert_eq!(model.uncached(pa), model.cached(pa), "a guest with its caches off sees it, too");
    // Pairs and cache maintenance have no transfer.
    assert_eq!(cpu.insist(here, vcpu, Op::Invalidate, FLASH_BANK).0, 1);
    assert!(matches!(cpu.insist(here, vcpu, Op::Write, FLASH_BANK), (1, Some((Outcome::Exit, Next::Resume)))));
    assert_eq!(load(&cpu, here, vcpu, FLASH_BANK + 8).1, 0x5a_0000, "which was refused");
    // So is what lies behind it: the guest takes an abort.
    let end = here.vm.flash.lock()[0].bytes();
    assert_eq!(load(&cpu, here, vcpu, end - 4).1, 0xffff_ffff);
    for at in [end, end + 4] {
        vcpu.registers.pc = 0x5000;
        let (exits, end) = cpu.insist(here, vcpu, Op::Read, at);
        assert!(exits == 1 && matches!(end, Some((Outcome::Exit, Next::Resume))), "{at:#x}: {exits}, {end:?}");
    }
    model.settle();
    assert_eq!(model.errors(), [""; 0]);
}

#[test]
fn tables_of_stage_1_may_lie_in_it() {
    let model = model();
    let cpu = Cpu::new(&model);
    // RAM's first 2 MiB at 0x4000_0000, by tables at 0x1000 and 0x2000.
    let mut image = vec![0_u8; 0x3000];
    image[0x1008..0x1010].copy_from_slice(&0x2003_u64.to_le_bytes());
    image[0x2000..0x2008].copy_from_slice(&(0x4000_0000_u64 | 1 << 10 | 3 << 8 | 1).to_le_bytes());
    let here = here(host_of(&model, &["one"], &[("flash", &image)]));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    turn_on(&cpu, 0x1000);
    // Where its array is not shown there is no table: who fetches is told of a fetch.
    here.vm.flash.lock()[0].write(&cpu, 0, 4, 0x70);
    for (op, class) in [(Op::Fetch, ec::IABT_SAME), (Op::Read, ec::DABT_SAME)] {
        (vcpu.registers.pstate, vcpu.registers.pc) = (psr::EL1H, 0x4000_0010);
        assert!(matches!(cpu.insist(here, &mut vcpu, op, 0x4000_0010), (1, Some((Outcome::Exit, Next::Resume)))));
        assert_eq!(cpu.get(El1::Esr) >> 26, class, "{op:?}");
    }
    here.vm.flash.lock()[0].write(&cpu, 0, 4, 0xff);
    for (op, exits) in [(Op::Write, 3), (Op::Read, 0)] {
        let (took, end) = cpu.insist(here, &mut vcpu, op, 0x4000_0010);
        assert!(took == exits && matches!(end, Some((Outcome::Done(_), _))), "{op:?}: {took} {end:?}");
    }
}

#[test]
fn a_reset_shows_the_array_with_what_was_written() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host_of(&model, &["one"], &[("flash", &[1; 64]), ("flash-variables", &[0xff; 64])]));
    let at = FLASH_BANK + 0x10;
    for round in 0..3_u64 {
        let mut vcpu = here.slot.vcpu.lock();
        cpu.load(here, &vcpu);
        let vcpu = &mut *vcpu;
        let so_far = 0xffff_ffff_u64 << (8 * round) & 0xffff_ffff;
        assert_eq!(load(&cpu, here, vcpu, at), (1, so_far), "round {round}");
        store(&cpu, here, vcpu, at, 0x0040_0040);
        store(&cpu, here, vcpu, at, so_far << 8);
        // It begins anew with tables of its own.
        let free = || {
            let counts = here.host.pool.lock().counts();
            counts.free + counts.table
        };
        let before = free();
        here.host.stop(&cpu, here.vm, Cause::Reset);
        while here.host.settle(&cpu) {}
        assert!(free() >= before, "the flash's frames are not the pool's");
    }
}

#[test]
fn what_changes_nothing_is_known_before() {
    let model = erased();
    let mut bank = bank(true);
    // Programming, buffered programming, erasing, locking, status, identification, query; two spellings of some.
    let commands = [0x10, 0x40, 0x20, 0xe8, 0x60, 0x70, 0x90, 0x98];
    for value in 0..0x100_u64 {
        let ignored = bank.ignores(value << 16 | value);
        // Back to the array from there, and clearing the status, which is seen later.
        let has_meaning = commands.contains(&value) || value == 0x50;
        assert_eq!(ignored, !has_meaning, "{value:#x}");
        if ignored {
            let before = format!("{bank:?}");
            bank.write(&model, 0, 4, value << 16 | value);
            assert_eq!(format!("{bank:?}"), before, "{value:#x}");
        }
    }
    // Within a command nothing is.
    bank.write(&model, 0, 4, 0x0040_0040);
    assert!(!bank.ignores(0x0001_0001));
}

/// Nothing behind its end is looked at, though the board's RAM ends there.
#[test]
fn it_ends_where_it_ends() {
    let model = Model::new(Addr::new(BOARD), BYTES, 5, Flaw::None);
    let mut bank = Bank::new(Addr::new(BOARD), BYTES, true);
    for at in [BYTES, BYTES + 4, BYTES * 2, u64::MAX - 3] {
        assert_eq!(bank.read(&model, at, 4), 0, "{at:#x}");
    }
}

#[test]
fn words_of_another_stretch_are_no_part_of_a_buffer() {
    let model = erased();
    for (second, is_refused) in [(4, false), (252, false), (256, true), (BLOCK, true)] {
        let mut bank = bank(true);
        for (at, value) in
            [(0, 0x00e8_00e8), (0, 0x0001_0001), (0, 0x1111_1111), (second, 0x2222_2222), (0, 0x00d0_00d0)]
        {
            bank.write(&model, at, 4, value);
        }
        let (_, status) = wait(&model, &mut bank);
        // Program and erase failed: a sequence that is none.
        assert_eq!(status & 0x30 != 0, is_refused, "at {second:#x}: {status:#x}");
        (0..BYTES).step_by(8).for_each(|at| model.cached_store(Addr::new(BOARD + at), u64::MAX));
    }
    // As many words as a buffer has, and no more.
    for (words, is_refused) in [(1, false), (63, false), (64, false), (65, true), (0x100, true)] {
        let mut bank = bank(true);
        bank.write(&model, 0, 4, 0x00e8_00e8);
        bank.write(&model, 0, 4, (words - 1) << 16 | (words - 1));
        let (_, status) = wait(&model, &mut bank);
        assert_eq!(status & 0x30 != 0, is_refused, "{words} words: {status:#x}");
    }
}
