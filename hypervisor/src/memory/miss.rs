//! Why a page is not to be had, and what an access takes.

use crate::arm::desc::Rights;
use crate::arm::esr::Access;

impl Access {
    /// The right it takes.
    pub const fn rights(self) -> Rights {
        match self {
            Self::Read => Rights::R,
            Self::Write => Rights::W,
            Self::Execute => Rights::X,
            Self::Maintain => Rights::RW,
        }
    }
}

/// Why there is no leaf for an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Miss {
    /// Neither RAM nor a device handed through. The guest's doing: a device to emulate, or the bus's error.
    NotRam,
    /// The pool has no frame. Nobody's fault: let the vCPU wait, find memory, try again.
    Short,
    /// A part of what it takes is done, as all of it is long: try again at once, when interrupts were let in and the lock was
    /// let go.
    Again,
    /// The page does not allow it. The guest's doing.
    Denied,
    /// Its contents cannot be brought back as they were: a damaged store or a disk that fails. The VM must stop.
    Lost,
}
