//! Stolen time for guests (Arm DEN0057, paravirtualized time): how long each vCPU could have run while others had the CPUs. Linux
//! shows it as `st`, and counts it to no process.
//!
//! Each vCPU has 64 bytes of a page that its VM may only read ([`STOLEN`]): revision, attributes, and nanoseconds of stolen time. They are
//! brought up to date whenever the vCPU gets a CPU, once its guest has asked where they are.

use crate::addr::VcpuId;
use crate::devices::STOLEN;
use crate::machine::Words;
use core::sync::atomic::{AtomicU64, Ordering};

/// The bytes of a vCPU's structure (DEN0057 3.2.2: 64-byte aligned).
const BYTES: u64 = 64;
/// Nobody has asked.
const UNASKED: u64 = u64::MAX;
/// Somebody has, and what had been waited by then is not known yet.
const ASKED: u64 = u64::MAX - 1;

/// Where the structure of a vCPU is, as its guest is told.
pub const fn address(vcpu: VcpuId) -> u64 {
    // Inside a page for 64 vCPUs.
    STOLEN + vcpu.0 as u64 * BYTES
}

/// What a vCPU has waited, as far as its guest is told.
#[derive(Debug)]
pub struct Stolen {
    /// What it had waited when its guest asked, in ticks; or [`UNASKED`], [`ASKED`].
    since: AtomicU64,
    /// What it had waited when it was told last.
    told: AtomicU64,
}

impl Default for Stolen {
    fn default() -> Self {
        Self { since: AtomicU64::new(UNASKED), told: AtomicU64::new(0) }
    }
}

impl Stolen {
    /// The guest asks where it is told: from now on it is.
    pub fn ask(&self) {
        // What it has been told stays true.
        let _ = self.since.compare_exchange(UNASKED, ASKED, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Its VM begins anew: nobody has asked.
    pub fn reset(&self) {
        self.since.store(UNASKED, Ordering::Relaxed);
    }

    /// Whether the guest has asked.
    #[inline(always)]
    pub fn is_asked(&self) -> bool {
        self.since.load(Ordering::Relaxed) != UNASKED
    }

    /// The vCPU has waited `ticks` in all: tells its guest of what is new, in the `page` of its VM. Only the CPU that runs it does.
    pub fn tell(&self, vcpu: VcpuId, ticks: u64, page: &Words, nanos: impl Fn(u64) -> u64) {
        let since = self.since.load(Ordering::Relaxed);
        if since == ASKED {
            self.since.store(ticks, Ordering::Relaxed);
        } else if self.told.load(Ordering::Relaxed) == ticks {
            return;
        }
        self.told.store(ticks, Ordering::Relaxed);
        let since = if since == ASKED { ticks } else { since };
        // Revision and attributes are in the word before, which stays 0.
        if let Some(word) = page.get(usize::from(vcpu.0) * 8 + 1) {
            word.store(nanos(ticks.saturating_sub(since)), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Stolen, address};
    use crate::addr::VcpuId;
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

    #[test]
    fn a_guest_is_told_what_was_stolen_since_it_asked() {
        let page = [const { AtomicU64::new(0) }; 512];
        let (stolen, vcpu) = (Stolen::default(), VcpuId(3));
        let told = || page[25].load(Relaxed);
        assert!(!stolen.is_asked());
        stolen.ask();
        assert!(stolen.is_asked());
        for (ticks, nanos) in [(1000, 0), (1000, 0), (1007, 70), (1007, 70), (1100, 1000)] {
            stolen.tell(vcpu, ticks, &page, |ticks| ticks * 10);
            assert_eq!(told(), nanos);
            // Asking once more changes nothing.
            stolen.ask();
        }
        stolen.reset();
        assert!(!stolen.is_asked());
        stolen.ask();
        stolen.tell(vcpu, 1100, &page, |ticks| ticks * 10);
        assert_eq!(told(), 0, "a kernel that is new counts from the beginning");
        assert!(page.iter().enumerate().all(|(n, word)| n == 25 || word.load(Relaxed) == 0));
        assert_eq!([0, 1, 63].map(|n| address(VcpuId(n)) & 0xfff), [0, 64, 4032]);
    }
}
