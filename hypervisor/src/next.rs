//! What comes out of handling an exit: a [`Next`] for the vCPU that left, and [`Kicks`] for vCPUs that must look up.

use crate::addr::VcpuId;
use core::ops::{BitOr, BitOrAssign};

/// What the CPU does next with the vCPU that left.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Run it again.
    Resume,
    /// Put its FP registers onto the CPU and run it again: it uses them.
    LoadFp,
    /// Ask the queue who is to run: something about that may have changed.
    Reschedule,
    /// Let another run first, it stays ready.
    Yield,
    /// It needs memory that is not there: it tries again a little later.
    WaitForMemory,
    /// It waits for an interrupt (WFI); it need not run until one can be delivered.
    WaitForInterrupt,
    /// It is off (PSCI CPU_OFF), until another vCPU turns it on.
    Off,
    /// Its whole VM stops.
    Stop(Cause),
}

/// Why a VM stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// PSCI SYSTEM_OFF: its own will.
    Off,
    /// PSCI SYSTEM_RESET: it starts again from pristine images.
    Reset,
    /// It cannot go on; the text says why.
    Crash(&'static str),
    /// The operator stopped it.
    Operator,
    /// The operator wants it started again.
    Restart,
}

/// Which vCPUs of one VM must look at their interrupts: a CPU that runs one of them is interrupted, one that waits is
/// woken.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Kicks(u64);

impl Kicks {
    /// Nobody.
    pub const NONE: Self = Self(0);

    /// This vCPU alone. Ids of 64 and above do not exist ([`crate::vm`] admits at most 64 vCPUs).
    pub const fn one(vcpu: VcpuId) -> Self {
        Self(1 << (vcpu.0 & 63))
    }

    /// Whether nobody is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `vcpu` is in it.
    pub const fn contains(self, vcpu: VcpuId) -> bool {
        self.0 >> (vcpu.0 & 63) & 1 != 0
    }

    /// The same without `vcpu`.
    pub const fn without(self, vcpu: VcpuId) -> Self {
        Self(self.0 & !(1 << (vcpu.0 & 63)))
    }
}

impl BitOr for Kicks {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Kicks {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl Iterator for Kicks {
    type Item = VcpuId;
    fn next(&mut self) -> Option<VcpuId> {
        if self.0 == 0 {
            return None;
        }
        // At most 63, so it fits.
        let vcpu = VcpuId(self.0.trailing_zeros() as u16);
        self.0 &= self.0 - 1;
        Some(vcpu)
    }
}
