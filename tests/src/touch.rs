//! First touches as exits do them where no interrupt comes: part after part, until all is done.

use flatland::addr::{Addr, Ipa, Ipa2, Pa};
use flatland::arm::esr::Access;
use flatland::frames::SharedPool;
use flatland::machine::Machine;
use flatland::memory::nested_walk::Key;
use flatland::memory::shadow::Fill;
use flatland::memory::{Memory, Miss};
use flatland::stage2::Leaf;

/// More parts than anything takes.
const MANY: u32 = 1000;

/// [`Memory::resolve`] to the end.
pub fn resolve<M: Machine>(
    memory: &mut Memory,
    m: &M,
    pool: &SharedPool<'_>,
    at: Addr<Ipa>,
    access: Access,
) -> Result<Leaf<Ipa, Pa>, Miss> {
    let parts = (0..MANY).map(|_| memory.resolve(m, pool, at, access));
    parts.into_iter().find(|result| *result != Err(Miss::Again)).expect("it comes to an end")
}

/// [`Memory::fill`] to the end.
pub fn fill<M: Machine>(
    memory: &mut Memory,
    m: &M,
    pool: &SharedPool<'_>,
    key: Key,
    at: Addr<Ipa2>,
    access: Access,
) -> Result<(), Fill> {
    let mut parts = (0..MANY).map(|_| memory.fill(m, pool, key, at, access));
    parts.find(|result| *result != Err(Fill::Miss(Miss::Again))).expect("it comes to an end")
}
