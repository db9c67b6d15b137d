//! EL1's exception vectors while a virtual EL2 runs at EL0: a page of ours in the upper range of addresses, EL1's alone, with an HVC in each
//! place. By them all that EL0 raises comes to EL2.
//!
//! Two frames hold them and the tables over them, which are in the VM's window of tables ([`super::el2_shadow`]): it can read them and not
//! write. Nobody may run instructions from what is Device memory, and which kinds MAIR_EL1 has is for the hypervisor to say: so the page is
//! there eight times, by each kind once.
//!
//! There is another such page, where the machine has code for it ([`Machine::el0_vectors`]): it does accesses to registers that are in the
//! vCPU's page ([`crate::arm::vncr`]) at EL1. Behind it by addresses are the pages that say which those are, and the pages of all vCPUs, which
//! EL1 writes. All this is memory of EL2's as well, in caches, and so it is used where the hypervisor has such memory, too. The VM may write the
//! pages of registers as it writes registers: who reads them takes anything.
//!
//! With a GICv3 the CPU interface is in system registers, and those of the virtual one are EL1's alone. Behind the vectors are instructions
//! that access them, each with an HVC behind it ([`interface_access`]): we have EL1 run them for virtual EL2.

use super::el2_walk::{register_leaf, vector_leaf};
use crate::addr::{Addr, Ipa, Pa, Size, VcpuId};
use crate::arm::desc::Desc;
use crate::arm::gic::Version;
use crate::arm::sysreg::Encoding;
use crate::arm::vmsa::{ENTRIES, Level};
use crate::arm::vncr;
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
/// How many frames there are: the vectors with HVCs, the tables over all, the vectors with the machine's code and the two pages of
/// offsets.
pub const FRAMES: usize = 5;

/// The kinds of memory that MAIR_EL1 has.
const KINDS: u64 = 8;
/// How many pages the vectors with code have by each kind: their own, those with offsets, those of vCPUs.
const STRIDE: u64 = ENTRIES / KINDS - 1;
/// The page of the first vCPU behind them.
const REGISTERS: u64 = 3;

/// Where page `n` of the upper range is.
const fn upper(n: u64) -> u64 {
    (u64::MAX << UPPER_BITS) + n * Size::Page.bytes()
}

/// Where the vectors are as memory of kind `kind`, which is below 8.
pub const fn vectors(kind: u8) -> u64 {
    upper(kind as u64)
}

/// Where those with code are.
pub const fn register_vectors(kind: u8) -> u64 {
    upper(KINDS + kind as u64 * STRIDE)
}

/// Where their code finds the page of `vcpu`; nothing where there is no room for so many vCPUs.
pub fn registers(kind: u8, vcpu: VcpuId) -> Option<u64> {
    let n = REGISTERS + u64::from(vcpu.0);
    (n < STRIDE).then(|| register_vectors(kind) + n * Size::Page.bytes())
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

/// What the code finds at `n` of the pages of offsets, for interrupt interfaces of `version`: [`vncr::Slot::code`]; 0 where the register is not in the page.
fn offset(n: u64, version: Version) -> u64 {
    const HALF: u64 = Size::Page.bytes() / 2;
    // CRn, CRm and op2 have 11 bits.
    let [op1, crn, crm, op2] = [n / HALF * 4, n >> 7 & 15, n >> 3 & 15, n & 7].map(|field| field as u16);
    let slot = vncr::slot(Encoding::new(3, op1, crn, crm, op2), version);
    slot.map_or(0, |slot| slot.code().into())
}

/// Fills the frames, which are at `window` and behind it in the VM. Says whether there are vectors with code.
pub fn write<M: Machine>(m: &M, frames: [Addr<Pa>; FRAMES], window: Addr<Ipa>, version: Version) -> bool {
    let [page, table, with_code, offsets @ ..] = frames;
    let code = m.el0_vectors();
    for (n, (plain, other)) in m.frame(page).iter().zip(m.frame(with_code)).enumerate() {
        let words = [n * 2, n * 2 + 1].map(|n| (word(n), code.get(n).copied().filter(|code| *code != 0)));
        let [low, high] = words.map(|(word, _)| u64::from(word));
        plain.store(low | high << 32, Relaxed);
        let [low, high] = words.map(|(word, code)| u64::from(code.unwrap_or(word)));
        other.store(low | high << 32, Relaxed);
    }
    for (n, at) in (0..).zip(offsets.iter().flat_map(|frame| m.frame(*frame))) {
        at.store((0..4).map(|k| offset(n * 4 + k, version) << (k * 16)).sum(), Relaxed);
    }
    for entry in 1..16 {
        m.store(page + ROOT + entry * 8, 0);
    }
    m.store(page + ROOT, Desc::Table((window + Size::Page.bytes()).bits()).encode(Level::L2));
    for kind in 0..KINDS {
        m.store(table + kind * 8, vector_leaf(kind) | window.bits());
        for n in 0..REGISTERS {
            let at = window + (2 + n) * Size::Page.bytes();
            m.store(table + (KINDS + kind * STRIDE + n) * 8, vector_leaf(kind) | at.bits());
        }
    }
    m.publish();
    !code.is_empty()
}

/// Lets EL1 have the page of registers of `vcpu`, which is at `ipa` in the VM. False where there is no room for it.
pub fn add_registers<M: Machine>(m: &M, frames: [Addr<Pa>; FRAMES], vcpu: VcpuId, ipa: Addr<Ipa>) -> bool {
    let [_, table, ..] = frames;
    let n = REGISTERS + u64::from(vcpu.0);
    if n >= STRIDE {
        return false;
    }
    for kind in 0..KINDS {
        m.store(table + (KINDS + kind * STRIDE + n) * 8, register_leaf(kind) | ipa.bits());
    }
    m.publish();
    true
}
