//! The memory of a guest whose driver is fuzzed: it ends somewhere, and now and then there is none to be had.

use crate::engine::Rng;
use flatland::addr::{Addr, Ipa};
use flatland::devices::virtio::{Ram, Violation};

/// Where it begins.
pub(crate) const RAM: u64 = 0x4000_0000;

/// A guest's memory.
pub(crate) struct Guest {
    bytes: Vec<u8>,
    /// Accesses since this was reset.
    pub(crate) work: usize,
    /// Every so many accesses there is no memory; never where it is zero.
    short: usize,
}

impl Guest {
    /// So many bytes of what mostly are zeroes.
    pub(crate) fn new(rng: &mut Rng, bytes: usize) -> Self {
        let bytes = (0..bytes).map(|_| rng.next() as u8 & rng.next() as u8 & rng.next() as u8).collect();
        Self { bytes, work: 0, short: if rng.below(3) == 0 { 3 + rng.below(40) } else { 0 } }
    }

    /// Where in its bytes an access is, which counts.
    pub(crate) fn range(&mut self, at: Addr<Ipa>, length: usize) -> Result<std::ops::Range<usize>, Violation> {
        self.work += 1;
        if self.short > 0 && self.work.is_multiple_of(self.short) {
            return Err(Violation::Short);
        }
        let start = at.bits().checked_sub(RAM).ok_or(Violation::Outside)? as usize;
        let end = start.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or(Violation::Outside)?;
        Ok(start..end)
    }

    /// The guest writes to its own memory.
    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
        let start = (at - RAM) as usize;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }
}

impl Ram for Guest {
    fn read(&mut self, at: Addr<Ipa>, into: &mut [u8]) -> Result<(), Violation> {
        let range = self.range(at, into.len())?;
        into.copy_from_slice(&self.bytes[range]);
        Ok(())
    }

    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), Violation> {
        let range = self.range(at, bytes.len())?;
        self.bytes[range].copy_from_slice(bytes);
        Ok(())
    }
}

/// A value, or once in so many times another.
pub(crate) fn nearly(rng: &mut Rng, value: u64, seldom: usize) -> u64 {
    if rng.below(seldom) == 0 { rng.edge() } else { value }
}
