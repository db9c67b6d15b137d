//! The run queue of all CPUs: [`Queue`], weighted fair among VMs, with affinity.
//!
//! # What is fair
//!
//! VMs share, not vCPUs: a VM's shares are split over its vCPUs that could run at this moment, so one with eight busy
//! vCPUs gets no more than one with two, as long as both can use what they get. The split changes when a vCPU wakes or
//! blocks; whoever runs is charged at the old rate up to then ([`super::entity`] has the arithmetic).
//!
//! The next to run on a CPU is, among those in line that may run there, the one that could have interrupted somebody for the
//! longest: that has the least virtual time after a grain of its own. By the least virtual time alone, one with few shares, whose
//! grain is long, would be first, interrupt nobody, and keep back one with many that could. One line for all CPUs: who waits,
//! waits for every CPU it may run on, so that fairness holds across CPUs without balancing.
//!
//! # Nobody saves up
//!
//! Virtual times drift apart without anyone's merit: who sleeps stays behind, so does who has a CPU to itself because its
//! shares are more than one CPU; who ran alone is far ahead. Therefore each CPU has a clock, the virtual time it has come
//! to, and *whoever gets in line is at most a credit behind the latest clock of the CPUs it may run on*. This is the one
//! rule of placement. From it: a sleeper gets ahead by a credit at most; everyone in line is reached in bounded time, as
//! on the CPU of the latest clock nobody is further behind than a credit and all who run there move on.
//!
//! # Who does what
//!
//! A CPU calls [`Queue::pick`] when it has nothing to run, when it was kicked, and when its [`Queue::deadline`] has come;
//! it may be told to go on with the same. A CPU that runs nothing is idle (picked nothing) or about to pick. After
//! `pick`, the CPU looks at the vCPU's interrupts before it enters the guest: a wake before that is seen there, a later one
//! keeps the next [`Queue::block`] from blocking. So no wake is lost, whoever comes first.
//!
//! EL1 registers stay in a CPU until it needs them for another: [`Queue::loaded`]. Until then the vCPU runs nowhere else.
//!
//! A CPU has a slice end only while somebody else is in line for it, so a vCPU alone on its CPU sees no tick; it comes early where the
//! first in line is of another VM and overtakes before a slice is over. Of the CPUs
//! that an arrival could run on, one is kicked: an idle one, or the one whose vCPU has had most, and that one starts to
//! tick; when its slice is over, whom it puts back in line challenges the next. So does one that a CPU's timer woke and
//! the CPU did not take: its own may be the furthest behind.

mod line;

use super::CpuSet;
use super::entity::{Cpu, Entity, EntityId, EntityState, Group};
use super::time::earliest;
use crate::addr::{CpuId, VcpuId, VmId};
use alloc::vec::Vec;

/// The most vCPUs there can be.
const MAX: usize = 256;

/// There are 256 vCPUs already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// What a CPU does next.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// What it runs; nothing: it idles until kicked or until its [`Queue::deadline`].
    pub run: Option<EntityId>,
    /// Other CPUs it must kick.
    pub kick: CpuSet,
}

/// The run queue of all CPUs. All times are ticks of the system counter.
#[derive(Debug)]
pub struct Queue {
    /// How long one runs while others wait.
    slice: u64,
    /// How much running time one may be behind on getting in line.
    credit: u64,
    /// How much running time one must be behind to interrupt another's slice.
    grain: u64,
    cpus: Vec<Cpu>,
    groups: Vec<Group>,
    entities: Vec<Entity>,
    /// CPUs that picked nothing.
    idle: CpuSet,
    /// Idle CPUs that were kicked and have not picked since.
    kicked: CpuSet,
    tickets: u64,
}

impl Queue {
    /// An empty queue for `n_cpus` CPUs (at most 64), in which one runs for `slice` ticks while others wait.
    pub fn new(n_cpus: usize, slice: u64) -> Self {
        let slice = slice.max(4);
        let mut cpus = Vec::new();
        cpus.resize_with(n_cpus.min(64), Cpu::default);
        Self {
            slice,
            credit: slice / 2,
            grain: slice / 4,
            cpus,
            groups: Vec::new(),
            entities: Vec::new(),
            idle: CpuSet::EMPTY,
            kicked: CpuSet::EMPTY,
            tickets: 0,
        }
    }

    /// Adds a vCPU, off. `shares` are its VM's: the last word on them counts, 0 counts as 1. An affinity without any of
    /// the board's CPUs is the manifest's fault; such a vCPU never runs.
    pub fn add(&mut self, vm: VmId, vcpu: VcpuId, shares: u32, affinity: CpuSet) -> Result<EntityId, Full> {
        // Below MAX, so it fits.
        let id = EntityId(self.entities.len() as u16);
        if self.entities.len() >= MAX {
            return Err(Full);
        }
        let group = self.groups.iter().position(|group| group.vm == vm).unwrap_or_else(|| {
            self.groups.push(Group::new(vm, shares));
            self.groups.len() - 1
        });
        self.groups[group].set_shares(shares);
        self.entities.push(Entity {
            vm,
            vcpu,
            group,
            affinity: affinity & CpuSet::first(self.cpus.len()),
            state: EntityState::Off,
            paused: false,
            stopping: false,
            woken: false,
            again: false,
            loaded: None,
            last: None,
            vtime: 0,
            ticket: 0,
            spent: 0,
            since: 0,
            waited: 0,
        });
        Ok(id)
    }

    /// What `cpu` runs from `now` on. Charges what it ran, wakes whom its timer had to wake.
    pub fn pick(&mut self, cpu: CpuId, now: u64) -> Turn {
        let c = usize::from(cpu.0);
        self.idle = self.idle.without(cpu);
        self.kicked = self.kicked.without(cpu);
        let first = self.tickets;
        self.settle(c, now);
        for i in 0..self.entities.len() {
            if self.entities[i].last == Some(cpu) && self.due(i, now) {
                self.rouse(i, now);
            }
        }
        let before = self.cpus[c].running;
        let stays = before.filter(|&id| !self.put_back(id, cpu, now));
        let run = stays.or_else(|| self.best(cpu));
        let mut kick = CpuSet::EMPTY;
        match run {
            Some(id) => self.enter(id, cpu, now),
            None => {
                self.cpus[c].running = None;
                self.cpus[c].slice_end = None;
                self.idle |= CpuSet::one(cpu);
            }
        }
        // Whoever got in line by this, woken or put back, may have another CPU to go to.
        for i in 0..self.entities.len() {
            if self.entities[i].ticket >= first {
                kick |= self.challenge(i, now);
            }
        }
        kick |= self.employ();
        Turn { run, kick: kick.without(cpu) }
    }

    /// What `entity`, running, has come to: it waits for an interrupt, until `wake_at` at the longest (a past tick does
    /// not block, nor does a wake that came while it ran). Its CPU picks next.
    pub fn block(&mut self, entity: EntityId, wake_at: Option<u64>, now: u64) {
        let e = &mut self.entities[entity.index()];
        if core::mem::take(&mut e.woken) || wake_at.is_some_and(|at| at <= now) || e.stopping {
            return;
        }
        self.leave(entity, EntityState::Blocked(wake_at), now);
    }

    /// `entity`, running, turned itself off (PSCI CPU_OFF). If another started it again before this call, it stays ready.
    /// Its CPU picks next; if it was stopped meanwhile, that turns it off, and knows of a start since.
    pub fn off(&mut self, entity: EntityId, now: u64) {
        let e = &mut self.entities[entity.index()];
        if e.stopping || core::mem::take(&mut e.again) {
            return;
        }
        self.leave(entity, EntityState::Off, now);
    }

    /// What runs on `cpu` lets others go first; it stays ready. The CPU picks next.
    pub fn yield_now(&mut self, cpu: CpuId) {
        self.cpus[usize::from(cpu.0)].yielding = true;
    }

    /// Turns `entity` on, if it is off. Returns the CPUs to kick, as all that follow do; the caller may be among them and
    /// then needs to pick.
    pub fn start(&mut self, entity: EntityId, now: u64) -> CpuSet {
        let i = entity.index();
        match self.entities[i].state {
            EntityState::Off => self.rouse(i, now),
            EntityState::Running(_) => {
                self.entities[i].again = true;
                return CpuSet::EMPTY;
            }
            EntityState::Ready | EntityState::Blocked(_) => return CpuSet::EMPTY,
        }
        self.challenge(i, now)
    }

    /// Turns `entity` off: at once, or as soon as the kicked CPU has picked. A start in between turns it on again. If it was
    /// paused, it is so no more.
    pub fn stop(&mut self, entity: EntityId, now: u64) -> CpuSet {
        let i = entity.index();
        self.entities[i].again = false;
        self.entities[i].woken = false;
        let was = self.entities[i].runnable();
        self.entities[i].paused = false;
        if let EntityState::Running(cpu) = self.entities[i].state {
            self.entities[i].stopping = true;
            return CpuSet::one(cpu);
        }
        self.entities[i].state = EntityState::Off;
        if was {
            self.recount(i, -1, now);
        }
        CpuSet::EMPTY
    }

    /// An interrupt can be delivered to `entity`: it runs soon if it waits, and looks up if it runs.
    pub fn wake(&mut self, entity: EntityId, now: u64) -> CpuSet {
        let i = entity.index();
        match self.entities[i].state {
            EntityState::Off | EntityState::Ready => CpuSet::EMPTY,
            EntityState::Running(cpu) => {
                self.entities[i].woken = true;
                CpuSet::one(cpu)
            }
            EntityState::Blocked(_) => {
                self.rouse(i, now);
                self.challenge(i, now)
            }
        }
    }

    /// Wakes everyone whose time has come. [`Queue::pick`] does so for those its CPU has to wake.
    pub fn expire(&mut self, now: u64) -> CpuSet {
        let mut kick = CpuSet::EMPTY;
        for i in 0..self.entities.len() {
            if self.due(i, now) {
                self.rouse(i, now);
                kick |= self.challenge(i, now);
            }
        }
        kick
    }

    /// Keeps `entity` from running, until [`Queue::resume`]. Wakes are kept meanwhile.
    pub fn pause(&mut self, entity: EntityId, now: u64) -> CpuSet {
        let i = entity.index();
        let was_in_line = self.entities[i].in_line();
        self.entities[i].paused = true;
        if was_in_line {
            self.recount(i, -1, now);
        }
        match self.entities[i].state {
            EntityState::Running(cpu) => CpuSet::one(cpu),
            _ => CpuSet::EMPTY,
        }
    }

    /// Lets `entity` run again after [`Queue::pause`].
    pub fn resume(&mut self, entity: EntityId, now: u64) -> CpuSet {
        let i = entity.index();
        if !core::mem::take(&mut self.entities[i].paused) || self.entities[i].state != EntityState::Ready {
            return CpuSet::EMPTY;
        }
        self.rouse(i, now);
        self.challenge(i, now)
    }

    /// `cpu` has saved whatever EL1 registers it held and holds those of `entity` now.
    pub fn loaded(&mut self, entity: EntityId, cpu: CpuId, now: u64) -> CpuSet {
        let c = usize::from(cpu.0);
        let old = self.cpus[c].loaded.filter(|&old| old != entity);
        let kick = old.map_or(CpuSet::EMPTY, |old| self.unloaded(old, now));
        self.cpus[c].loaded = Some(entity);
        self.entities[entity.index()].loaded = Some(cpu);
        kick
    }

    /// The CPU that held the EL1 registers of `entity` has saved them: any may load them.
    pub fn unloaded(&mut self, entity: EntityId, now: u64) -> CpuSet {
        let i = entity.index();
        let Some(cpu) = self.entities[i].loaded.take() else { return CpuSet::EMPTY };
        self.cpus[usize::from(cpu.0)].loaded = None;
        if self.entities[i].in_line() { self.challenge(i, now) } else { CpuSet::EMPTY }
    }

    /// `entity`, if it waits, is woken at `wake_at` if not before: the timers that its CPU watched while it held its
    /// registers are watched by nobody any more.
    pub fn wake_by(&mut self, entity: EntityId, wake_at: Option<u64>, now: u64) -> CpuSet {
        let Some(old) = self.entities.get_mut(entity.index()) else { return CpuSet::EMPTY };
        let EntityState::Blocked(until) = old.state else { return CpuSet::EMPTY };
        old.state = EntityState::Blocked(earliest([until, wake_at]));
        match wake_at {
            Some(at) if at <= now => self.wake(entity, now),
            _ => CpuSet::EMPTY,
        }
    }

    /// When `cpu` must pick again so that others get their turn; nothing while nobody else waits for it.
    pub fn slice_end(&self, cpu: CpuId) -> Option<u64> {
        self.cpus[usize::from(cpu.0)].slice_end
    }

    /// When `cpu` must pick again: its slice end, or the first wake it is responsible for.
    pub fn deadline(&self, cpu: CpuId) -> Option<u64> {
        let wakes = self.entities.iter().filter(|e| e.last == Some(cpu)).filter_map(|e| match e.state {
            EntityState::Blocked(wake_at) => wake_at,
            _ => None,
        });
        wakes.chain(self.slice_end(cpu)).min()
    }

    /// What `cpu` runs.
    pub fn running(&self, cpu: CpuId) -> Option<EntityId> {
        self.cpus[usize::from(cpu.0)].running
    }

    /// What `entity` is doing.
    pub fn state(&self, entity: EntityId) -> EntityState {
        self.entities[entity.index()].state
    }

    /// Which CPU holds the EL1 registers of `entity`.
    pub fn loaded_on(&self, entity: EntityId) -> Option<CpuId> {
        self.entities[entity.index()].loaded
    }

    /// Whose vCPU `entity` is.
    pub fn name(&self, entity: EntityId) -> (VmId, VcpuId) {
        let e = &self.entities[entity.index()];
        (e.vm, e.vcpu)
    }

    /// The entity of a vCPU.
    pub fn find(&self, vm: VmId, vcpu: VcpuId) -> Option<EntityId> {
        // At most MAX, so it fits.
        self.entities.iter().position(|e| e.vm == vm && e.vcpu == vcpu).map(|i| EntityId(i as u16))
    }

    /// The ticks `entity` has waited for a CPU, when it ran last or runs.
    pub fn waited(&self, entity: EntityId) -> u64 {
        self.entities[entity.index()].waited
    }

    /// The ticks `entity` has run, up to `now`.
    pub fn spent(&self, entity: EntityId, now: u64) -> u64 {
        let e = &self.entities[entity.index()];
        let since = match e.state {
            EntityState::Running(cpu) => now.saturating_sub(self.cpus[usize::from(cpu.0)].since),
            _ => 0,
        };
        e.spent.saturating_add(since)
    }
}
