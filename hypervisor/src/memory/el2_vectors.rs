//! EL1's exception vectors while a virtual EL2 runs at EL0: a page of ours in the upper range of addresses, EL1's alone, with an HVC in each
//! place. By them all that EL0 raises comes to EL2.
//!
//! Two frames hold them and the tables over them, which are in the VM's window of tables ([`super::el2_shadow`]): it can read them and not
//! write. Nobody may run instructions from what is Device memory, and which kinds MAIR_EL1 has is for the hypervisor to say: so the page is
//! there eight times, by each kind once.
//!
//! With a GICv3 the CPU interface is in system registers, and those of the virtual one are EL1's alone. Behind the vectors are instructions
//! that access them, each with an HVC behind it ([`interface_access`]): we have EL1 run them for virtual EL2.

use super::el2_walk::vector_leaf;
use crate::addr::{Addr, Ipa, Pa, Size};
use crate::arm::desc::Desc;
use crate::arm::sysreg::Encoding;
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
/// Where the accesses to the interface are in it.
const ACCESSES: u64 = 0x900;
/// The bytes of an access: MRS or MSR, with X0, and HVC.
const ACCESS_BYTES: u64 = 8;
/// How many frames there are.
pub const FRAMES: usize = 2;

/// Where the vectors are as memory of kind `kind`, which is below 8.
pub const fn vectors(kind: u8) -> u64 {
    (u64::MAX << UPPER_BITS) + kind as u64 * Size::Page.bytes()
}

/// CRn, CRm and op2 of the interface's registers: op0 is 3 and op1 0 (IHI 0069H 12.2). ICC_DIR_EL1 and the SGI registers are not among
/// them, which trap at EL1, too, nor is ICC_SRE_EL1.
const INTERFACE: [[u16; 3]; 21] = [
    [4, 6, 0],
    [12, 8, 0],
    [12, 8, 1],
    [12, 8, 2],
    [12, 8, 3],
    [12, 8, 4],
    [12, 8, 5],
    [12, 8, 6],
    [12, 8, 7],
    [12, 9, 0],
    [12, 9, 1],
    [12, 9, 2],
    [12, 9, 3],
    [12, 11, 3],
    [12, 12, 0],
    [12, 12, 1],
    [12, 12, 2],
    [12, 12, 3],
    [12, 12, 4],
    [12, 12, 6],
    [12, 12, 7],
];

/// How far behind the vectors the access to a register of the interface is, if `encoding` is one. EL1 comes back from it by HVC with a number
/// that no vector has.
pub fn interface_access(encoding: Encoding, is_read: bool) -> Option<u64> {
    let [op0, op1, crn, crm, op2] = encoding.parts();
    let n = INTERFACE.iter().position(|register| (op0, op1) == (3, 0) && *register == [crn, crm, op2])?;
    Some(ACCESSES + (n as u64 * 2 + u64::from(!is_read)) * ACCESS_BYTES)
}

/// What TTBR1_EL1 is where the first of the frames is at `window`.
pub fn root(window: Addr<Ipa>) -> u64 {
    (window + ROOT).bits()
}

/// The word at `n` of the page of vectors: an entry is HVC with the number of the vector; an access, MRS or MSR and an HVC; and what is never
/// come to.
pub const fn word(n: usize) -> u32 {
    const HVC: u32 = 0xd400_0002;
    /// MRS X0 and MSR of a register with op0 3 and op1 0.
    const MRS: u32 = 0xd538_0000;
    const MSR: u32 = 0xd518_0000;
    /// A branch to itself.
    const STOP: u32 = 0x1400_0000;
    if let Some(at) = (n as u64 * 4).checked_sub(ACCESSES) {
        let (access, is_hvc) = ((at / ACCESS_BYTES) as usize, at % ACCESS_BYTES != 0);
        if access / 2 >= INTERFACE.len() {
            return STOP;
        }
        if is_hvc {
            return HVC | (N_VECTORS as u32) << 5;
        }
        let [crn, crm, op2] = INTERFACE[access / 2];
        let register = (crn as u32) << 12 | (crm as u32) << 8 | (op2 as u32) << 5;
        return if access % 2 == 0 { MRS | register } else { MSR | register };
    }
    let (vector, word) = (n * 4 / VECTOR_BYTES, n * 4 % VECTOR_BYTES);
    // Below 2^16.
    if word == 0 && vector < N_VECTORS as usize { HVC | (vector as u32) << 5 } else { STOP }
}

/// Fills the frames, which are at `window` and the next page in the VM.
pub fn write<M: Machine>(m: &M, frames: [Addr<Pa>; FRAMES], window: Addr<Ipa>) {
    let [page, table] = frames;
    for (n, pair) in m.frame(page).iter().enumerate() {
        pair.store(u64::from(word(n * 2)) | u64::from(word(n * 2 + 1)) << 32, Relaxed);
    }
    for entry in 1..16 {
        m.store(page + ROOT + entry * 8, 0);
    }
    m.store(page + ROOT, Desc::Table((window + Size::Page.bytes()).bits()).encode(Level::L2));
    for kind in 0..8 {
        m.store(table + kind * 8, vector_leaf(kind) | window.bits());
    }
    m.publish();
}
