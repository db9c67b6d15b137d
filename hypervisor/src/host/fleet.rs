//! The VMs, and what is known of them together.

use super::load::Loader;
use crate::vm::{State, Stopping, Vm};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use spin::mutex::SpinMutex;

/// The VMs.
pub struct Fleet {
    /// In the manifest's order.
    pub vms: Vec<Vm>,
    /// How many are stopping.
    pub stopping: Stopping,
    /// How many ended by a crash.
    pub(super) crashed: AtomicU32,
    /// What fills the memory of those that start. Its lock is taken before all others.
    pub(super) loader: SpinMutex<Loader>,
    /// Whether one has a watchdog or has set an alarm.
    pub(super) has_housekeeping: AtomicBool,
    /// For each: its signs of life when they last grew, and when that was.
    pub(super) watched: SpinMutex<Vec<(u64, u64)>>,
    /// What the operator wants of the board.
    pub shutdown: SpinMutex<Option<Shutdown>>,
}

/// What the operator wants of the board.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shutdown {
    /// That it starts again.
    Restart,
    /// That it powers off.
    Off,
}

impl Fleet {
    /// These VMs, none of which has started; `loader` will fill their memory.
    pub(super) fn new(vms: Vec<Vm>, loader: Loader) -> Self {
        Self {
            stopping: Stopping::default(),
            crashed: AtomicU32::new(0),
            loader: SpinMutex::new(loader),
            has_housekeeping: AtomicBool::new(vms.iter().any(|vm| vm.spec.watchdog.is_some())),
            watched: SpinMutex::new(vms.iter().map(|_| (0, 0)).collect()),
            shutdown: SpinMutex::new(None),
            vms,
        }
    }

    /// Whether every VM is over.
    pub fn all_over(&self) -> bool {
        self.vms.iter().all(|vm| matches!(vm.life.state(), State::Ended(_)))
    }

    /// How many VMs ended by a crash.
    pub fn crashed(&self) -> u32 {
        self.crashed.load(Ordering::Relaxed)
    }
}
