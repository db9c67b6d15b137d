//! A virtual machine, built from its parts: memory, vCPUs, interrupt controller, devices, and where it is in its life.
//!
//! A [`Vm`] is made once per manifest entry and lives as long as the board is up; a reset empties and refills it. Its
//! parts have a lock each (order: see the crate's front page). A vCPU's lock is held by the CPU it is loaded on for as
//! long as it is loaded, so nobody waits for it; what others want of it they leave in [`Slot::requests`].

pub mod device_tree;
pub mod dtb;
pub mod life;
pub mod psci;
pub mod stolen;
pub mod trng;

use crate::addr::{Addr, CpuId, Pa, VcpuId, VmId};
use crate::bundle::image::Plan;
use crate::bundle::{OnCrash, VmSpec};
use crate::devices::bus::Bus;
use crate::devices::flash::Bank;
use crate::memory::el2_shadow::El2Shadows;
use crate::memory::{Memory, Root};
use crate::next::Kicks;
use crate::sched::EntityId;
use crate::vcpu::{Counter, Vcpu};
use crate::vgic::Vgic;
use alloc::string::String;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
pub use device_tree::Gic;
pub use life::{Life, State, Stopping};
use spin::mutex::SpinMutex;
use stolen::Stolen;

/// Something others want of a vCPU; it looks before it enters its guest.
#[allow(missing_docs)]
pub mod request {
    /// Its list registers no longer say what the interrupt controller does.
    pub const REFILL: u32 = 1;
    /// Its VM stops or pauses, or it was asked to give way.
    pub const LEAVE: u32 = 2;
    /// It made output, which its CPU sends on.
    pub const SEND: u32 = 8;
    /// Its balloon has more to do.
    pub const SERVE: u32 = 16;
    /// It was turned on (PSCI CPU_ON): start at the entry in its slot.
    pub const START: u32 = 4;
}

/// Whether a vCPU is on, as PSCI's AFFINITY_INFO tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Power {
    /// Off.
    Off = 0,
    /// On.
    On = 1,
    /// CPU_ON was accepted, it has not started yet.
    Pending = 2,
}

/// When an alarm that is not set is due.
pub const NEVER: u64 = u64::MAX;

/// On which CPU a vCPU runs: none.
pub const NOWHERE: u32 = u32::MAX;

/// A vCPU and what others may say to it.
#[derive(Debug)]
pub struct Slot {
    /// Its registers; locked while loaded.
    pub vcpu: SpinMutex<Vcpu>,
    /// What others want of it: bits of [`request`].
    pub requests: AtomicU32,
    /// The CPU that is about to run it or runs it, or [`NOWHERE`].
    pub running: AtomicU32,
    power: AtomicU8,
    start_pc: AtomicU64,
    start_x0: AtomicU64,
    /// Its name in the run queue.
    pub entity: EntityId,
    /// Its MPIDR affinity.
    pub mpidr: u64,
    /// What its guest is told of the time that others had.
    pub stolen: Stolen,
    counts: [AtomicU64; Counter::ALL.len()],
}

impl Slot {
    /// A slot for a vCPU that is off.
    pub fn new(vcpu: Vcpu, entity: EntityId) -> Self {
        let mpidr = vcpu.mpidr & 0xff_00ff_ffff;
        Self {
            vcpu: SpinMutex::new(vcpu),
            requests: AtomicU32::new(0),
            running: AtomicU32::new(NOWHERE),
            power: AtomicU8::new(Power::Off as u8),
            start_pc: AtomicU64::new(0),
            start_x0: AtomicU64::new(0),
            entity,
            mpidr,
            stolen: Stolen::default(),
            counts: [const { AtomicU64::new(0) }; Counter::ALL.len()],
        }
    }

    /// Counts an exit. Only the CPU that has the vCPU loaded does.
    #[inline(always)]
    pub fn count(&self, counter: Counter) {
        if let Some(count) = self.counts.get(counter as usize) {
            count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// How often it left its guest.
    pub fn exits(&self) -> u64 {
        Counter::ALL.into_iter().filter(|counter| *counter != Counter::Timer).map(|counter| self.counted(counter)).sum()
    }

    /// A number that grows as long as the vCPU shows signs of life: it does something that leaves the guest, or takes its
    /// timer's interrupts. One that spins with interrupts masked does neither.
    pub fn life(&self) -> u64 {
        Counter::ALL
            .into_iter()
            .filter(|counter| *counter != Counter::Interrupt)
            .map(|counter| self.counted(counter))
            .sum()
    }

    /// How often it was left for `counter`.
    pub fn counted(&self, counter: Counter) -> u64 {
        self.counts.get(counter as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Whether it is on.
    pub fn power(&self) -> Power {
        match self.power.load(Ordering::Acquire) {
            0 => Power::Off,
            1 => Power::On,
            _ => Power::Pending,
        }
    }

    /// Turns it on to start at `pc` with `x0`; false if it was not off.
    pub fn turn_on(&self, pc: u64, x0: u64) -> bool {
        let (off, pending) = (Power::Off as u8, Power::Pending as u8);
        if self.power.compare_exchange(off, pending, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return false;
        }
        self.start_pc.store(pc, Ordering::Relaxed);
        self.start_x0.store(x0, Ordering::Relaxed);
        self.requests.fetch_or(request::START | request::REFILL, Ordering::SeqCst);
        true
    }

    /// Records that it is off.
    pub fn turn_off(&self) {
        self.power.store(Power::Off as u8, Ordering::Release);
    }

    /// Changes where a vCPU that was turned on starts.
    pub fn aim(&self, pc: u64, x0: u64) {
        self.start_pc.store(pc, Ordering::Relaxed);
        self.start_x0.store(x0, Ordering::Relaxed);
    }

    /// Takes up a request to start: where and with which X0.
    pub fn started(&self) -> (u64, u64) {
        self.power.store(Power::On as u8, Ordering::Release);
        (self.start_pc.load(Ordering::Relaxed), self.start_x0.load(Ordering::Relaxed))
    }
}

/// A virtual machine.
#[derive(Debug)]
pub struct Vm {
    /// Its place in the manifest.
    pub id: VmId,
    /// Its name there.
    pub name: String,
    /// What the manifest asks for; the images stay in the bundle, pristine.
    pub spec: VmSpec<'static>,
    /// Where these go.
    pub plan: Plan<'static>,
    /// The device tree that it finds each time it starts.
    pub tree: Vec<u8>,
    /// How many pages there are from the start of its RAM on: RAM, and behind that what is for blocks of its disks.
    pub pages: u64,
    /// Its memory.
    pub memory: SpinMutex<Memory>,
    /// The shadows of its EL2s' stage 1, where they run at EL0. Locked before `memory`.
    pub el2_shadows: Option<SpinMutex<El2Shadows>>,
    /// The frame that tells its vCPUs what time was stolen from them.
    pub stolen: Addr<Pa>,
    /// Its interrupt controller.
    pub vgic: SpinMutex<Vgic>,
    /// Its other devices.
    pub bus: Bus,
    /// Its vCPUs.
    pub slots: Vec<Slot>,
    /// Where it is in its life.
    pub life: Life,
    /// What entering its memory takes, kept here so that it takes no lock.
    pub root: Root,
    /// The version of its interrupt controller.
    pub gic: Gic,
    /// What its virtual counter lags behind the system counter, in ticks.
    pub offset: AtomicU64,
    /// The second at which one of its devices is to be ticked, or [`NEVER`]: kept here so that looking takes no lock.
    pub alarm: AtomicU64,
    /// Since when a vCPU of it waits for memory, by the system counter; 0 if none does.
    pub starving: AtomicU64,
    /// Frames of RAM it should have, by the policy's last word.
    pub entitled: AtomicU64,
    /// Whether it has to stand still where it needs memory: the policy's last word.
    pub blocked: AtomicBool,
    /// Its banks of flash, two or none; to be locked before its memory.
    pub flash: SpinMutex<ArrayVec<Bank, 2>>,
    /// Whether its pages are looked at for merging.
    pub merges: bool,
    /// Places whose strange accesses were logged: each is told once.
    pub logged: SpinMutex<LogOnce>,
}

impl Vm {
    /// The slot of `vcpu`.
    pub fn slot(&self, vcpu: VcpuId) -> Option<&Slot> {
        self.slots.get(usize::from(vcpu.0))
    }

    /// Leaves `request` with every vCPU of `kicks` and says which CPUs must be signalled for it; who runs nowhere has to
    /// be woken by the caller.
    pub fn ask(&self, kicks: Kicks, request: u32, mut signal: impl FnMut(CpuId), mut wake: impl FnMut(EntityId)) {
        for vcpu in kicks {
            let Some(slot) = self.slot(vcpu) else { continue };
            slot.requests.fetch_or(request, Ordering::SeqCst);
            match slot.running.load(Ordering::SeqCst) {
                NOWHERE => wake(slot.entity),
                // A CPU number: it was stored from one.
                cpu => signal(CpuId(cpu as u16)),
            }
        }
    }

    /// What is done when it crashes.
    pub fn on_crash(&self) -> OnCrash {
        self.spec.on_crash
    }
}

/// The places already logged: bounded, so a guest cannot fill memory or the log.
#[derive(Debug, Default)]
pub struct LogOnce {
    places: ArrayVec<u64, MAX_TOLD>,
}

/// How many different places are logged for a VM before it is told no more.
const MAX_TOLD: usize = 32;

impl LogOnce {
    /// Whether `place` is new; it is not from now on.
    pub fn is_new(&mut self, place: u64) -> bool {
        !self.places.contains(&place) && self.places.try_push(place).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{LogOnce, MAX_TOLD};

    #[test]
    fn a_place_is_told_once_and_not_too_many_are() {
        let mut logged = LogOnce::default();
        assert!(logged.is_new(7) && !logged.is_new(7) && logged.is_new(8));
        assert_eq!((100..1000).filter(|place| logged.is_new(*place)).count(), MAX_TOLD - 2);
        assert!(!logged.is_new(7) && !logged.is_new(5000));
    }
}
