//! EL1's exception vectors while a virtual EL2 runs at EL0: a page of ours in the upper range of addresses, EL1's alone, with an HVC in each
//! place. By them all that EL0 raises comes to EL2.
//!
//! Two frames hold them and the tables over them, which are in the VM's window of tables ([`super::el2_shadow`]): it can read them and not
//! write. Nobody may run instructions from what is Device memory, and which kinds MAIR_EL1 has is for the hypervisor to say: so the page is
//! there eight times, by each kind once.

use super::el2_walk::vector_leaf;
use crate::addr::{Addr, Ipa, Pa, Size};
use crate::arm::desc::Desc;
use crate::arm::vmsa::Level;
use crate::machine::Machine;
use core::sync::atomic::Ordering::Relaxed;

/// Bits of the upper range: 64 - T1SZ, the fewest there can be without FEAT_TTST. With 4 KiB a walk begins at level 2, where 16 entries are.
pub const UPPER_BITS: u32 = 25;
/// The entries of a vector table, and the bytes of each (Arm ARM D1.3.1.5).
pub const N_VECTORS: u16 = 16;
const VECTOR_BYTES: usize = 0x80;
/// Where the root of the upper range is in the first frame, behind the vectors and aligned to its 16 entries.
const ROOT: u64 = 0x800;
/// How many frames there are.
pub const FRAMES: usize = 2;

/// Where the vectors are as memory of kind `kind`, which is below 8.
pub const fn vectors(kind: u8) -> u64 {
    (u64::MAX << UPPER_BITS) + kind as u64 * Size::Page.bytes()
}

/// What TTBR1_EL1 is where the first of the frames is at `window`.
pub fn root(window: Addr<Ipa>) -> u64 {
    (window + ROOT).bits()
}

/// The word at `n` of the page of vectors: an entry is HVC with the number of the vector, and what is never come to.
pub const fn word(n: usize) -> u32 {
    const HVC: u32 = 0xd400_0002;
    /// A branch to itself.
    const STOP: u32 = 0x1400_0000;
    let (vector, word) = (n * 4 / VECTOR_BYTES, n * 4 % VECTOR_BYTES);
    // Below 2^16.
    if word == 0 && vector < N_VECTORS as usize { HVC | (vector as u32) << 5 } else { STOP }
}

/// Fills the frames, which are at `window` and the next page in the VM.
pub fn write<M: Machine>(m: &M, frames: [Addr<Pa>; FRAMES], window: Addr<Ipa>) {
    let [page, table] = frames;
    for (n, pair) in m.frame(page).iter().take(ROOT as usize / 8).enumerate() {
        pair.store(u64::from(word(n * 2)) | u64::from(word(n * 2 + 1)) << 32, Relaxed);
    }
    m.store(page + ROOT, Desc::Table((window + Size::Page.bytes()).bits()).encode(Level::L2));
    for kind in 0..8 {
        m.store(table + kind * 8, vector_leaf(kind) | window.bits());
    }
    m.publish();
}
