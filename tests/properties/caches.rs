//! Cache maintenance by set and way: what a guest has in the caches is in memory afterwards, in pieces nobody waits for
//! long. And what guests are told of speculation.

use super::memory::{BOARD, BOARD_BYTES, layout, pool, records};
use flatland::addr::{Addr, Ipa, Pa, VcpuId};
use flatland::arm::esr::ec;
use flatland::arm::speculation::{WORKAROUND_1, WORKAROUND_2, WORKAROUND_3};
use flatland::exit::{self, cache};
use flatland::host::Here;
use flatland::machine::Machine;
use flatland::memory::{Access, Granule, Memory, RAM_BASE, flush};
use flatland::next::Next;
use flatland::vcpu::Vcpu;
use flatland::vcpu::nested::{Guest, World, hcr, page};
use harness::cpu::{self, Cpu};
use harness::model::{Dice, Flaw, Model};
use harness::touch::resolve;
use std::collections::BTreeMap;

/// A cache of 2 ways and 256 sets of 64 bytes, and one of 16 ways and 1024 sets: a Cortex-A72's.
const CACHES: [(u64, u64); 2] = [(2, 256), (16, 1024)];

/// The operands of a loop over all of the cache of `level`.
fn operands(level: u64) -> impl DoubleEndedIterator<Item = u64> {
    let (ways, sets) = CACHES[level as usize];
    (0..ways).flat_map(move |way| (0..sets).map(move |set| way << (32 - ways.ilog2()) | set << 6 | level << 1))
}

/// Executes the instruction until it is done and returns how often that was.
fn execute(model: &Model, memory: &Memory, vcpu: &mut Vcpu, operand: u64) -> u32 {
    for turn in 1.. {
        let before = model.tally().coherent;
        let done = cache::by_set_way(model, memory, vcpu, operand);
        let cleaned = model.tally().coherent - before;
        assert!(cleaned <= flush::PIECE, "{cleaned} bytes in one go");
        assert!(operand >> 4 == 0 || done && cleaned == 0, "{operand:#x} is one of many");
        if done {
            return turn;
        }
    }
    unreachable!("it ends or the test does not")
}

#[test]
fn a_loop_over_sets_and_ways_empties_the_caches() {
    for granule in [Granule::Page, Granule::Block] {
        let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
        let mut records = records();
        let pool = pool(&mut records);
        let mut memory = Memory::new(&model, &pool, layout(0, 40, granule)).unwrap();
        let mut vcpu = Vcpu::new(VcpuId(0), 0, false, false);
        let mut dice = Dice::new(7);
        for round in 0..4 {
            let mut written = BTreeMap::new();
            for _ in 0..100 {
                let at: Addr<Ipa> = RAM_BASE + dice.below(5 << 20 >> 3) * 8;
                let leaf = resolve(&mut memory, &model, &pool, at, Access::Write).unwrap();
                let pa: Addr<Pa> = leaf.output_of(at).unwrap();
                let value = dice.roll();
                model.cached_store(pa, value);
                written.insert(pa, value);
            }
            let stale = written.iter().filter(|(pa, value)| model.uncached(**pa) != **value).count();
            assert!(stale > 90, "the caches keep what was written");
            let mut turns = 0;
            for level in [0, 1] {
                let mut run = |operand| turns += execute(&model, &memory, &mut vcpu, operand);
                if round % 2 == 0 {
                    operands(level).rev().for_each(&mut run)
                } else {
                    operands(level).for_each(&mut run)
                }
            }
            for (pa, value) in written {
                assert_eq!(model.uncached(pa), value, "{pa} by {granule:?}");
            }
            assert!(turns > 2 * 8448, "in more than one piece");
        }
        model.publish();
        assert_eq!(model.errors(), [""; 0]);
    }
}

#[test]
fn a_loop_of_a_handler_in_between_is_whole() {
    let model = Model::new(Addr::new(BOARD), BOARD_BYTES, 1, Flaw::None);
    let mut records = records();
    let pool = pool(&mut records);
    let mut memory = Memory::new(&model, &pool, layout(0, 40, Granule::Block)).unwrap();
    let leaf = resolve(&mut memory, &model, &pool, RAM_BASE, Access::Write).unwrap();
    let pa = leaf.output_of(RAM_BASE).unwrap();
    let mut vcpu = Vcpu::new(VcpuId(0), 0, false, false);
    vcpu.registers.pc = 0x1000;
    for _ in 0..3 {
        assert!(!cache::by_set_way(&model, &memory, &mut vcpu, 0), "a block has many pieces");
    }
    model.cached_store(pa, 42);
    vcpu.registers.pc = 0x2000;
    execute(&model, &memory, &mut vcpu, 0);
    assert_eq!(model.uncached(pa), 42);
    assert!(model.tally().coherent <= (4 << 20) + 3 * flush::PIECE, "what is not backed is stepped over");
}

/// ESR_EL2 of a trapped SYS of DC `crm` by set and way, with X0.
fn set_way(crm: u64) -> u64 {
    ec::SYSREG << 26 | 1 << 25 | 1 << 20 | 2 << 17 | 7 << 10 | crm << 1
}

/// What HCR_EL2.TSW of a guest's hypervisor is.
const TSW: u64 = 1 << 22;

#[test]
fn whoever_executes_it_goes_on_behind_it_when_all_is_done() {
    for (nested, in_guest, theirs) in [(false, false, 0), (true, false, TSW), (true, true, 0), (true, true, TSW)] {
        for crm in [6, 10, 14] {
            let model = Model::new(Addr::new(cpu::BOARD), cpu::BOARD_BYTES, 1, Flaw::None);
            let cpu = Cpu::new(&model);
            let host = cpu::host(&model, nested, false);
            let vm = &host.fleet.vms[0];
            let here = Here { host, vm, slot: vm.slot(VcpuId(0)).unwrap() };
            let at: Addr<Ipa> = RAM_BASE + 8;
            let leaf = resolve(&mut vm.memory.lock(), &cpu, &host.pool, at, Access::Write).unwrap();
            let pa: Addr<Pa> = leaf.output_of(at).unwrap();
            model.cached_store(pa, 42);
            let mut vcpu = here.slot.vcpu.lock();
            if let Some(nested) = vcpu.nested_mut() {
                nested.world = if in_guest { World::Guest(Guest::default()) } else { World::Hypervisor };
                nested.write(&cpu, page::HCR, hcr::RW | theirs);
            }
            cpu.load(here, &vcpu);
            vcpu.registers.pc = 0x4000_1000;
            vcpu.registers.x[0] = 0;
            let mut turns = 0;
            while vcpu.registers.pc == 0x4000_1000 {
                vcpu.registers.esr = set_way(crm);
                assert_eq!(exit::handle(here, &cpu, &mut vcpu), Next::Resume);
                turns += 1;
                assert!(turns < 100, "it ends");
            }
            if in_guest && theirs != 0 {
                assert!(vcpu.nested().unwrap().guest().is_none(), "it is its hypervisor's to do");
                assert_eq!(model.uncached(pa), 0);
            } else {
                assert_eq!(vcpu.registers.pc, 0x4000_1004, "{nested} {in_guest}");
                assert_eq!(model.uncached(pa), 42);
            }
        }
    }
}

#[test]
fn guests_are_told_how_it_stands_with_speculation() {
    let model = Model::new(Addr::new(cpu::BOARD), cpu::BOARD_BYTES, 1, Flaw::None);
    let cpu = Cpu::new(&model);
    let host = cpu::host(&model, false, false);
    let vm = &host.fleet.vms[0];
    let here = Here { host, vm, slot: vm.slot(VcpuId(0)).unwrap() };
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let mut call = |class: u64, function: u32, x1: u32| {
        vcpu.registers.esr = class << 26 | 1 << 25;
        vcpu.registers.x[..2].copy_from_slice(&[function.into(), x1.into()]);
        assert_eq!(exit::handle(here, &cpu, &mut vcpu), Next::Resume);
        vcpu.registers.x[0] as i64
    };
    const ARCH_FEATURES: u32 = 0x8000_0001;
    for class in [ec::HVC64, ec::SMC64] {
        // The board's firmware has the first alone; with it, branches overwrite a Cortex-A72's history.
        for (function, offered, called) in [(WORKAROUND_1, 0, 0), (WORKAROUND_2, -1, -1), (WORKAROUND_3, 0, 0)] {
            assert_eq!(call(class, ARCH_FEATURES, function), offered, "{function:#x}");
            assert_eq!(call(class, function, 1), called, "{function:#x}");
        }
        assert_eq!(call(class, ARCH_FEATURES, 0x8000_1234), -1);
        assert_eq!(call(class, 0x8400_000a, WORKAROUND_1), -1, "PSCI has no such function");
    }
}
