//! A set of CPUs: [`CpuSet`], 64 bits, one a CPU.
//!
//! CPUs with numbers of 64 and above do not exist for the scheduler: inserting one changes nothing.

use crate::addr::CpuId;
use core::ops::{BitAnd, BitOr, BitOrAssign, Not};

/// A set of CPUs: an affinity, or who must be kicked.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuSet(u64);

impl CpuSet {
    /// No CPU.
    pub const EMPTY: Self = Self(0);
    /// Every CPU there can be.
    pub const ALL: Self = Self(u64::MAX);

    /// The CPUs whose bits are set: bit n is CPU n.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Bit n is CPU n.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// This CPU alone.
    pub const fn one(cpu: CpuId) -> Self {
        if cpu.0 < 64 { Self(1 << cpu.0) } else { Self(0) }
    }

    /// CPUs 0 to `n` - 1.
    pub const fn first(n: usize) -> Self {
        if n < 64 { Self((1 << n) - 1) } else { Self::ALL }
    }

    /// Whether nobody is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `cpu` is in it.
    pub const fn contains(self, cpu: CpuId) -> bool {
        self.0 & Self::one(cpu).0 != 0
    }

    /// The same without `cpu`.
    pub const fn without(self, cpu: CpuId) -> Self {
        Self(self.0 & !Self::one(cpu).0)
    }

    /// The CPU with the lowest number.
    pub const fn lowest(self) -> Option<CpuId> {
        // At most 63, so it fits.
        if self.0 == 0 { None } else { Some(CpuId(self.0.trailing_zeros() as u16)) }
    }
}

impl BitOr for CpuSet {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for CpuSet {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for CpuSet {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Not for CpuSet {
    type Output = Self;
    fn not(self) -> Self {
        Self(!self.0)
    }
}

impl Iterator for CpuSet {
    type Item = CpuId;
    fn next(&mut self) -> Option<CpuId> {
        let cpu = self.lowest()?;
        self.0 &= self.0 - 1;
        Some(cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::CpuSet;
    use crate::addr::CpuId;

    #[test]
    fn a_set_names_its_cpus_in_order_and_none_beyond_63() {
        let set = CpuSet::one(CpuId(5)) | CpuSet::one(CpuId(0)) | CpuSet::one(CpuId(63)) | CpuSet::one(CpuId(64));
        assert!(set.eq([0, 5, 63].map(CpuId)));
        assert!(!set.contains(CpuId(64)));
        assert!(set.without(CpuId(5)).eq([0, 63].map(CpuId)));
        assert_eq!(CpuSet::first(64), CpuSet::ALL);
        assert_eq!(CpuSet::first(2).bits(), 3);
    }
}
