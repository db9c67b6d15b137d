//! What the queue knows of one vCPU ([`Entity`]), of one VM ([`Group`]) and of one CPU ([`Cpu`]).
//!
//! # Virtual time
//!
//! An entity's `vtime` advances, while it runs, by ticks times its group's `rate`, which is 2^32 times the VM's runnable
//! vCPUs divided by its shares. So a VM with twice the shares ages half as fast, and a VM with four runnable vCPUs lets
//! each of them age four times as fast: together they get what one would. 128 bits never wrap (64 bits of ticks, at most
//! 48 of rate), and the only division is where a rate changes.

use super::CpuSet;
use crate::addr::{CpuId, VcpuId, VmId};

/// A vCPU's place in the queue: dense, from 0, in the order of [`super::Queue::add`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct EntityId(pub u16);

impl EntityId {
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What a vCPU is doing, as the queue sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntityState {
    /// Not started, or off (PSCI CPU_OFF): a wake does not reach it.
    Off,
    /// It waits for an interrupt, at the longest until this tick.
    Blocked(Option<u64>),
    /// It could run. Unless paused, it is in line.
    Ready,
    /// It runs on this CPU.
    Running(CpuId),
}

/// One vCPU.
#[derive(Debug)]
pub(super) struct Entity {
    pub(super) vm: VmId,
    pub(super) vcpu: VcpuId,
    /// Index of the VM's [`Group`].
    pub(super) group: usize,
    pub(super) affinity: CpuSet,
    pub(super) state: EntityState,
    /// The operator holds it: it is not in line.
    pub(super) paused: bool,
    /// To be off as soon as its CPU lets go of it.
    pub(super) stopping: bool,
    /// A wake came while it ran, so its next block does not block.
    pub(super) woken: bool,
    /// A start came while it still ran, so its next stop does not stop.
    pub(super) again: bool,
    /// The CPU that holds its EL1 registers: no other may run it.
    pub(super) loaded: Option<CpuId>,
    /// Where it ran last; that CPU's timer wakes it.
    pub(super) last: Option<CpuId>,
    pub(super) vtime: u128,
    /// Its number in the line: among equals the first come is served first.
    pub(super) ticket: u64,
    /// Ticks it ran.
    pub(super) spent: u64,
    /// Since when it is in line, where it is.
    pub(super) since: u64,
    /// Ticks it was in line before it ran.
    pub(super) waited: u64,
}

impl Entity {
    /// Whether `cpu` may run it, were it in line.
    pub(super) fn fits(&self, cpu: CpuId) -> bool {
        self.affinity.contains(cpu) && self.loaded.is_none_or(|holder| holder == cpu)
    }

    /// Whether it waits for a CPU.
    pub(super) fn in_line(&self) -> bool {
        matches!(self.state, EntityState::Ready) && !self.paused
    }

    /// Whether it counts among those its VM's shares are split over.
    pub(super) fn runnable(&self) -> bool {
        match self.state {
            EntityState::Ready => !self.paused,
            EntityState::Running(_) => true,
            EntityState::Off | EntityState::Blocked(_) => false,
        }
    }
}

/// With fewer shares a VM saves up no more virtual time.
const FEW: u64 = 250;

/// One VM.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) vm: VmId,
    shares: u32,
    runnable: u16,
    /// Virtual time per tick of each of its running vCPUs.
    pub(super) rate: u64,
}

impl Group {
    pub(super) fn new(vm: VmId, shares: u32) -> Self {
        let mut group = Self { vm, shares: shares.max(1), runnable: 0, rate: 0 };
        group.recount(0);
        group
    }

    pub(super) fn set_shares(&mut self, shares: u32) {
        self.shares = shares.max(1);
        self.recount(0);
    }

    /// One vCPU more (1) or less (-1) is runnable.
    pub(super) fn recount(&mut self, change: i16) {
        self.runnable = self.runnable.saturating_add_signed(change);
        self.rate = (u64::from(self.runnable.max(1)) << 32) / u64::from(self.shares);
    }

    /// The virtual time of `ticks` ticks that one of its vCPUs has not had: for few shares no more than for [`FEW`], as what it
    /// saved would be worth more virtual time than all that others, of many shares, may be behind.
    pub(super) fn credit(&self, ticks: u64) -> u128 {
        self.virtual_time((ticks / FEW).saturating_mul(u64::from(self.shares).min(FEW)))
    }

    /// The virtual time of `ticks` ticks of one of its vCPUs.
    pub(super) fn virtual_time(&self, ticks: u64) -> u128 {
        // 64 bits times 64 fit.
        u128::from(ticks).wrapping_mul(u128::from(self.rate))
    }
}

/// One CPU.
#[derive(Debug, Default)]
pub(super) struct Cpu {
    pub(super) running: Option<EntityId>,
    /// Whose EL1 registers are in it.
    pub(super) loaded: Option<EntityId>,
    /// Since when the running one's time is not yet charged.
    pub(super) since: u64,
    /// When the running one has had its turn; none while nobody else was seen to wait for this CPU.
    pub(super) slice_end: Option<u64>,
    /// The running one gives way at the next pick.
    pub(super) yielding: bool,
    /// The virtual time this CPU has come to. Never goes back.
    pub(super) clock: u128,
}
