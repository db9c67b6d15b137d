//! Accesses to devices for which the architecture gives no valid syndrome, and cache operations by set and way.
//!
//! A driver never does this; a hypervisor must survive it (Arm ARM D24.2.40, ISS.ISV).

use crate::mmio::outside_ram;
use core::arch::asm;

/// A way to access memory that is not one plain load or store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odd {
    /// LDP.
    LoadPair,
    /// STP.
    StorePair,
    /// LDXR.
    LoadExclusive,
    /// STXR, without a load before.
    StoreExclusive,
    /// LDR with post-index.
    LoadWriteback,
    /// STR with pre-index.
    StoreWriteback,
    /// LDAR.
    LoadAcquire,
    /// STLR.
    StoreRelease,
    /// LDR of a SIMD register.
    LoadSimd,
    /// STR of a SIMD register.
    StoreSimd,
    /// LDRSW: a load with sign extension.
    LoadSigned,
    /// LDUR at an odd offset: unaligned.
    LoadUnaligned,
    /// DC ZVA.
    ZeroLine,
    /// DC CIVAC.
    CleanLine,
    /// PRFM.
    Prefetch,
    /// AT S1E1R.
    Translate,
}

/// All of them.
pub const ALL: [Odd; 16] = [
    Odd::LoadPair,
    Odd::StorePair,
    Odd::LoadExclusive,
    Odd::StoreExclusive,
    Odd::LoadWriteback,
    Odd::StoreWriteback,
    Odd::LoadAcquire,
    Odd::StoreRelease,
    Odd::LoadSimd,
    Odd::StoreSimd,
    Odd::LoadSigned,
    Odd::LoadUnaligned,
    Odd::ZeroLine,
    Odd::CleanLine,
    Odd::Prefetch,
    Odd::Translate,
];

impl Odd {
    /// Returns whether it may change a device.
    pub fn writes(self) -> bool {
        matches!(
            self,
            Odd::StorePair
                | Odd::StoreExclusive
                | Odd::StoreWriteback
                | Odd::StoreRelease
                | Odd::StoreSimd
                | Odd::ZeroLine
        )
    }
}

/// Runs one instruction at `{a}`, with `{v}` and `{w}` to use, after nothing else.
macro_rules! one {
    ($address:expr, $($line:literal),+) => {
        asm!(".arch_extension fp", ".arch_extension simd", $($line,)+ a = inout(reg) $address => _,
            v = inout(reg) 0u64 => _, w = inout(reg) 0u64 => _, options(nostack))
    };
}

/// Makes an access to `address`, which must lie outside RAM.
pub fn access(how: Odd, address: u64) {
    outside_ram(address);
    let at = address & !63; // room for what is wider than a word, DC ZVA included
    // SAFETY: no Rust object is outside RAM; q0 is not used by compiled code.
    unsafe {
        match how {
            Odd::LoadPair => one!(at, "ldp {v}, {w}, [{a}]"),
            Odd::StorePair => one!(at, "stp {v}, {w}, [{a}]"),
            Odd::LoadExclusive => one!(at, "ldxr {v}, [{a}]", "clrex", "mov {w}, xzr"),
            Odd::StoreExclusive => one!(at, "stxr {w:w}, {v}, [{a}]"),
            Odd::LoadWriteback => one!(at, "ldr {v}, [{a}], #8", "mov {w}, xzr"),
            Odd::StoreWriteback => one!(at, "str {v}, [{a}, #8]!", "mov {w}, xzr"),
            Odd::LoadAcquire => one!(at, "ldar {v:w}, [{a}]", "mov {w}, xzr"),
            Odd::StoreRelease => one!(at, "stlr {v:w}, [{a}]", "mov {w}, xzr"),
            Odd::LoadSimd => one!(at, "ldr q0, [{a}]", "mov {v}, {w}"),
            Odd::StoreSimd => one!(at, "str q0, [{a}]", "mov {v}, {w}"),
            Odd::LoadSigned => one!(at, "ldrsw {v}, [{a}]", "mov {w}, xzr"),
            Odd::LoadUnaligned => one!(at, "ldur {v}, [{a}, #3]", "mov {w}, xzr"),
            Odd::ZeroLine => one!(at, "dc zva, {a}", "mov {v}, {w}"),
            Odd::CleanLine => one!(at, "dc civac, {a}", "mov {v}, {w}"),
            Odd::Prefetch => one!(at, "prfm pldl1keep, [{a}]", "mov {v}, {w}"),
            Odd::Translate => one!(at, "at s1e1r, {a}", "mov {v}, {w}"),
        }
    }
}

/// Cleans, or cleans and invalidates, a cache line by set and way.
pub fn clean_by_set_way(set_way: u64, invalidate: bool) {
    // SAFETY: cleaning loses no data.
    unsafe {
        match invalidate {
            true => asm!("dc cisw, {}", in(reg) set_way, options(nostack)),
            false => asm!("dc csw, {}", in(reg) set_way, options(nostack)),
        }
    }
}
