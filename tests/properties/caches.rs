//! Cache maintenance by set and way: what a guest has in the caches is in memory afterwards, in pieces nobody waits for long.

use super::memory::{BOARD, BOARD_BYTES, layout, pool, records};
use flatland::addr::{Addr, Ipa, Pa, VcpuId};
use flatland::exit::cache;
use flatland::machine::Machine;
use flatland::memory::{Access, Granule, Memory, RAM_BASE, flush};
use flatland::vcpu::Vcpu;
use harness::model::{Dice, Flaw, Model};
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
                let leaf = memory.resolve(&model, &pool, at, Access::Write).unwrap();
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
    let leaf = memory.resolve(&model, &pool, RAM_BASE, Access::Write).unwrap();
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
