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
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
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

/// A VM's state, and how many of its vCPUs are loaded on CPUs.
#[derive(Debug)]
pub struct Life {
    state: SpinMutex<State>,
    present: AtomicU32,
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

    /// Starts stopping it for `cause`. False if it is stopping or over already: the first cause counts.
    pub fn stop(&self, cause: Cause) -> bool {
        let mut state = self.state.lock();
        if matches!(*state, State::Stopping(_) | State::Settling | State::Ended(_)) {
            return false;
        }
        *state = State::Stopping(cause);
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

    /// Pauses it; false unless it was running.
    pub fn pause(&self) -> bool {
        self.change(State::Running, State::Paused)
    }

    /// Lets it go on; false unless it was paused.
    pub fn resume(&self) -> bool {
        self.change(State::Paused, State::Running)
    }

    fn change(&self, from: State, to: State) -> bool {
        let mut state = self.state.lock();
        let held = *state == from;
        if held {
            *state = to;
        }
        held
    }

    /// A vCPU was loaded on a CPU.
    pub fn entered(&self) {
        self.present.fetch_add(1, Ordering::AcqRel);
    }

    /// A vCPU was unloaded.
    pub fn left(&self) {
        self.present.fetch_sub(1, Ordering::AcqRel);
    }

    /// If it is stopping and nobody is loaded any more, says for which cause: to one caller alone, who settles it.
    pub fn settle(&self) -> Option<Cause> {
        let mut state = self.state.lock();
        match *state {
            State::Stopping(cause) if self.present.load(Ordering::Acquire) == 0 => {
                *state = State::Settling;
                Some(cause)
            }
            _ => None,
        }
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
    use super::{Life, State};
    use crate::next::Cause;

    #[test]
    fn the_first_cause_counts_and_the_last_to_leave_settles() {
        let life = Life::default();
        life.run(0);
        life.entered();
        life.entered();
        assert!(life.stop(Cause::Off));
        assert!(!life.stop(Cause::Crash("late")));
        life.left();
        assert_eq!(life.settle(), None);
        life.left();
        assert_eq!(life.settle(), Some(Cause::Off));
        assert_eq!(life.settle(), None);
        assert!(!life.stop(Cause::Operator), "it is settling");
        life.end(Cause::Off);
        assert_eq!(life.state(), State::Ended(Cause::Off));
    }
}
