//! A guest hypervisor's stage-2 tables, whatever they say: walks end, and lead to what the hypervisor has.

use flatland::addr::{Addr, Ipa2, VmId};
use flatland::arm::vmsa::{Geometry, PaRange, VmidBits};
use flatland::frames::{Pool, Record, SharedPool};
use flatland::memory::nested_walk::Key;
use flatland::memory::shadow::Fill;
use flatland::memory::{Access, Coherence, Granule, Layout, Memory, RAM_BASE};
use harness::model::{Flaw, Model};

const BOARD: u64 = 0x8000_0000;
const BYTES: u64 = 1 << 20;
/// What of the hypervisor's RAM the input fills.
const TABLES: u64 = 4 * 4096;

/// `input` is VTTBR_EL2, VTCR_EL2, three addresses, and then tables.
pub(crate) fn check(input: &[u8]) {
    let model = Model::new(Addr::new(BOARD), BYTES, 1, Flaw::None);
    let mut records = vec![Record::RESERVED; (BYTES / 4096) as usize];
    let ram = [(Addr::new(BOARD), BYTES)];
    let mut pool = Pool::new(&mut records, &ram).expect("one range");
    pool.donate(ram[0]);
    let pool = SharedPool::new(pool, 7);
    let geometry = Geometry::of_bits(40).expect("a size that there is");
    let layout = Layout {
        blocks: 0,
        owner: VmId(0),
        base: RAM_BASE,
        bytes: 2 << 20,
        geometry,
        vtcr: geometry.vtcr(PaRange::from_mmfr0(4), VmidBits::Eight),
        granule: Granule::Page,
        coherence: Coherence::Cleaned,
    };
    let mut memory = Memory::new(&model, &pool, layout).expect("it fits");
    memory.prepare_shadows(1, 64);
    let (head, tables) = input.split_at(input.len().min(40));
    let word = |n: usize| {
        let bytes = head.get(8 * n..8 * n + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    let tables = &tables[..tables.len().min(TABLES as usize)];
    memory.write(&model, &pool, RAM_BASE, tables).expect("it is RAM");
    let key = Key { vttbr: word(0), vtcr: word(1) };
    for (n, access) in [Access::Read, Access::Write, Access::Execute].into_iter().enumerate() {
        let at: Addr<Ipa2> = Addr::new(word(2 + n));
        let found = memory.nested_ipa(&model, &pool, key, at, access);
        if let Ok((nested, ipa)) = found {
            assert!(nested.leaf.attr.rights.allows(access.rights()));
            assert_eq!(nested.leaf.output_of(at), Some(ipa));
        }
        if memory.shadow(&model, &pool, key).is_ok() {
            match memory.fill(&model, &pool, key, at, access) {
                Ok(()) | Err(Fill::Fault(_) | Fill::Device(_) | Fill::Miss(_)) => {}
            }
        }
    }
    let checked = memory.check(&model, &pool);
    assert_eq!(checked.wrong, 0);
    memory.retire(&model, &pool);
    assert_eq!(model.errors(), [""; 0]);
}
