//! Where a VM is in its life: who may do what to it when.
//!
//! ```text
//! Loading ──▶ Running ◀──▶ Paused
//!    ▲           │            │
//!    └── Settling ◀─ Stopping ◀─┘
//!           └──▶ Ended
//! ```
//!
//! While it is `Stopping` its vCPUs leave the CPUs one by one; the CPU that unloads the last one settles what comes next.

use crate::next::Cause;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use spin::mutex::SpinMutex;

/// Where a VM is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Its images are being copied in.
    Loading,
    /// Its vCPUs run when they want to.
    Running,
    /// The operator holds it.
    Paused,
    /// Its vCPUs are leaving, for this cause.
    Stopping(Cause),
    /// All have left; one CPU gives back what it had and decides what comes next.
    Settling,
    /// It is over, for this cause; its memory is back in the pool.
    Ended(Cause),
}

impl State {
    /// Whether it is stopping or over.
    const fn is_leaving(self) -> bool {
        matches!(self, Self::Stopping(_) | Self::Settling | Self::Ended(_))
    }

    /// One word for tables.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping(_) | Self::Settling => "stopping",
            Self::Ended(Cause::Crash(_)) => "crashed",
            Self::Ended(Cause::Operator) => "stopped",
            Self::Ended(_) => "off",
        }
    }
}

/// How many VMs are stopping: while there is one, CPUs that pass unload its vCPUs and look whether they can settle it.
#[derive(Debug, Default)]
pub struct Stopping(AtomicU32);

impl Stopping {
    /// Whether some VM is.
    pub fn is_any(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }
}

/// A VM's state, and how many CPUs have to do with it.
#[derive(Debug)]
pub struct Life {
    state: SpinMutex<State>,
    /// The CPUs that load its images, hold registers of its vCPUs, or are telling that it stops.
    present: AtomicU32,
    /// Whether the operator stopped it while it was settling.
    ordered: AtomicBool,
    /// How often it was started.
    starts: AtomicU32,
    /// How often it crashed.
    crashes: AtomicU32,
    /// When it was started last, by the system counter.
    since: AtomicU64,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            state: SpinMutex::new(State::Loading),
            present: AtomicU32::new(0),
            ordered: AtomicBool::new(false),
            starts: AtomicU32::new(0),
            crashes: AtomicU32::new(0),
            since: AtomicU64::new(0),
        }
    }
}

impl Life {
    /// Where it is.
    pub fn state(&self) -> State {
        *self.state.lock()
    }

    /// Starts stopping it for `cause`. False if it is stopping or over already: the first cause counts, but the operator's
    /// word is kept, so that a VM that resets itself for ever can be stopped at any moment of that.
    ///
    /// True: the caller counts as present until it says [`Life::left`], so that nobody settles the VM, and begins its next
    /// life, before the caller has told all that this one is over.
    pub fn stop(&self, cause: Cause, stopping: &Stopping) -> bool {
        let mut state = self.state.lock();
        match *state {
            State::Stopping(_) if cause == Cause::Operator => *state = State::Stopping(cause),
            State::Settling if cause == Cause::Operator => self.ordered.store(true, Ordering::Release),
            _ => {}
        }
        if state.is_leaving() {
            return false;
        }
        *state = State::Stopping(cause);
        self.present.fetch_add(1, Ordering::AcqRel);
        stopping.0.fetch_add(1, Ordering::AcqRel);
        if matches!(cause, Cause::Crash(_)) {
            self.crashes.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Begins its life anew. Only the CPU that settles it may say so, or the operator when it is over.
    pub fn load(&self) {
        *self.state.lock() = State::Loading;
    }

    /// Its images are in place.
    pub fn run(&self, now: u64) {
        self.starts.fetch_add(1, Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
        let mut state = self.state.lock();
        if *state == State::Loading {
            *state = State::Running;
        }
    }

    /// Pauses it; false unless it was running. True: the caller counts as present until it says [`Life::left`], so that its next
    /// life, if it ends now, is not told to pause.
    pub fn pause(&self) -> bool {
        let mut state = self.state.lock();
        let held = *state == State::Running;
        if held {
            *state = State::Paused;
            self.present.fetch_add(1, Ordering::AcqRel);
        }
        held
    }

    /// Lets it go on; false unless it was paused.
    pub fn resume(&self) -> bool {
        let mut state = self.state.lock();
        let released = *state == State::Paused;
        if released {
            *state = State::Running;
        }
        released
    }

    /// A CPU is about to load a vCPU, and with the first its images: it is present from now on, until [`Life::left`].
    /// Returns where the VM is; nothing, and the CPU is not present, if it is stopping or over.
    pub fn enter(&self) -> Option<State> {
        let state = self.state.lock();
        if state.is_leaving() {
            return None;
        }
        self.present.fetch_add(1, Ordering::AcqRel);
        Some(*state)
    }

    /// A CPU that was present is so no more.
    pub fn left(&self) {
        self.present.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether it is stopping and nobody is present any more.
    pub fn is_deserted(&self) -> bool {
        let state = self.state.lock();
        matches!(*state, State::Stopping(_)) && self.present.load(Ordering::Acquire) == 0
    }

    /// If it is stopping and nobody is present any more, says for which cause: to one caller alone, who settles it.
    pub fn settle(&self, stopping: &Stopping) -> Option<Cause> {
        let mut state = self.state.lock();
        match *state {
            State::Stopping(cause) if self.present.load(Ordering::Acquire) == 0 => {
                *state = State::Settling;
                stopping.0.fetch_sub(1, Ordering::AcqRel);
                Some(cause)
            }
            _ => None,
        }
    }

    /// Whether the operator stopped it while it was settling: asked once, before it would start again.
    pub fn was_ordered_to_stop(&self) -> bool {
        self.ordered.swap(false, Ordering::AcqRel)
    }

    /// It is over.
    pub fn end(&self, cause: Cause) {
        *self.state.lock() = State::Ended(cause);
    }

    /// How often it was started.
    pub fn starts(&self) -> u32 {
        self.starts.load(Ordering::Relaxed)
    }

    /// How often it crashed.
    pub fn crashes(&self) -> u32 {
        self.crashes.load(Ordering::Relaxed)
    }

    /// When it was started last.
    pub fn since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::{Life, State, Stopping};
    use crate::next::Cause;

    #[test]
    fn the_first_cause_counts_and_the_last_to_leave_settles() {
        let (life, stopping) = (Life::default(), Stopping::default());
        assert_eq!(life.enter(), Some(State::Loading));
        life.run(0);
        assert_eq!(life.enter(), Some(State::Running));
        assert!(life.stop(Cause::Off, &stopping) && stopping.is_any());
        assert!(!life.stop(Cause::Crash("late"), &stopping));
        assert_eq!(life.enter(), None);
        life.left();
        life.left();
        assert_eq!(life.settle(&stopping), None, "who stops it has not told all");
        life.left();
        assert_eq!(life.settle(&stopping), Some(Cause::Off));
        assert!(!stopping.is_any());
        assert_eq!(life.settle(&stopping), None);
        assert!(!life.stop(Cause::Operator, &stopping), "it is settling");
        assert!(life.was_ordered_to_stop() && !life.was_ordered_to_stop());
        life.end(Cause::Off);
        assert_eq!(life.state(), State::Ended(Cause::Off));
    }
}
