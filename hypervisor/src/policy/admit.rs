//! Which VMs may start: [`admit`], so that what was promised can be kept.
//!
//! A VM's min and what the hypervisor needs for it must be free memory. What it may use beyond its min must be backed too, by
//! memory or by swap, unless the operator allows to overcommit: then balloons and compression have to do.

use crate::addr::VmId;
use core::fmt;

/// What a VM needs. Amounts are pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Demand {
    /// Its memory in any case. A manifest that gives none means max.
    pub min: u64,
    /// Its memory at most.
    pub max: u64,
    /// What the hypervisor needs for it: tables and vCPUs.
    pub overhead: u64,
}

/// What there is too little of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scarce {
    /// Free memory, for what the VM gets in any case.
    Memory,
    /// Free memory and swap together, for what it gets at most.
    Backing,
}

/// A VM that may not start, and those after it may not either. The manifest's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The place of the first that may not.
    pub vm: VmId,
    /// The pages it wants.
    pub wanted: u64,
    /// The pages that those before it leave.
    pub left: u64,
    /// What these are pages of.
    pub scarce: Scarce,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, of) = match self.scarce {
            Scarce::Memory => ("needs", "memory"),
            Scarce::Backing => ("may need", "memory and swap"),
        };
        let (wanted, left) = (self.wanted.saturating_mul(4), self.left.saturating_mul(4));
        write!(f, "VM {} {verb} {wanted} KiB, but only {left} KiB of {of} are left", self.vm)
    }
}

/// Whether all of `vms` may run, in the order of the manifest, on `free` pages of memory and `swap` pages of swap.
pub fn admit(vms: &[Demand], free: u64, swap: u64, overcommit: bool) -> Result<(), Refused> {
    let (mut memory, mut backing) = (free, free.saturating_add(swap));
    for (vm, number) in vms.iter().zip(0..) {
        let refused = |wanted, left, scarce| Refused { vm: VmId(number), wanted, left, scarce };
        let least = vm.min.saturating_add(vm.overhead);
        let most = vm.max.max(vm.min).saturating_add(vm.overhead);
        memory = memory.checked_sub(least).ok_or(refused(least, memory, Scarce::Memory))?;
        if !overcommit {
            backing = backing.checked_sub(most).ok_or(refused(most, backing, Scarce::Backing))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Demand, Refused, Scarce, admit};
    use crate::addr::VmId;
    use alloc::string::ToString;

    const VM: Demand = Demand { min: 100, max: 300, overhead: 10 };

    #[test]
    fn min_and_overhead_of_all_must_be_free() {
        assert_eq!(admit(&[VM; 3], 330, 0, true), Ok(()));
        let refused = Refused { vm: VmId(2), wanted: 110, left: 109, scarce: Scarce::Memory };
        assert_eq!(admit(&[VM; 3], 329, 9999, true), Err(refused));
        assert_eq!(refused.to_string(), "VM 2 needs 440 KiB, but only 436 KiB of memory are left");
    }

    #[test]
    fn without_overcommitting_swap_must_back_what_memory_does_not() {
        assert_eq!(admit(&[VM; 2], 620, 0, false), Ok(()));
        assert_eq!(admit(&[VM; 2], 320, 300, false), Ok(()));
        let refused = Refused { vm: VmId(1), wanted: 310, left: 309, scarce: Scarce::Backing };
        assert_eq!(admit(&[VM; 2], 320, 299, false), Err(refused));
    }

    #[test]
    fn demands_beyond_reason_are_refused() {
        let vast = Demand { min: u64::MAX, max: 0, overhead: u64::MAX };
        assert!(admit(&[vast], u64::MAX - 1, u64::MAX, true).is_err());
        assert_eq!(admit(&[], 0, 0, false), Ok(()));
    }
}
