//! All there is: the VMs, the pool, the queue, the console. One value, which the binary makes at boot and every CPU uses.
//!
//! [`Host`] knows how the parts reach each other: who is kicked when an interrupt arrives, what stopping a VM takes,
//! where a VM's output goes.

mod admit;
mod balloon;
mod build;
pub mod flash;
mod load;
pub mod overcommit;
mod relief;
mod report;
mod scan;
mod stats;
mod watch;

use crate::addr::{Addr, CpuId, IntId, Pa, VcpuId, VmId};
use crate::arm::idreg::IdRegs;
use crate::arm::speculation::Speculation;
use crate::arm::vmsa::{PaRange, VmidBits};
use crate::bundle::gzip::Workspace;
use crate::bundle::{Bundle, Diagnostic, OnCrash};
use crate::devices::flash::Bank;
use crate::devices::uart::Flow;
use crate::devices::{self, UART_INTID};
use crate::frames::{Pool, SharedPool};
use crate::machine::Machine;
use crate::monitor::{Console, Typing};
use crate::next::{Cause, Kicks, Next};
use crate::sched::{CpuSet, Frequency, Queue};
use crate::stage2::vmid::Vmids;
use crate::vcpu::Vcpu;
use crate::vgic::Line;
use crate::vm::{Gic, Slot, State, Stopping, Vm, request};
pub use admit::heap_for;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use load::Loader;
use overcommit::Overcommit;
pub use scan::Scanner;
use spin::mutex::SpinMutex;
pub use watch::HOUSEKEEPING_CPU;

/// What the board and its CPUs offer to VMs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// How many CPUs run vCPUs.
    pub n_cpus: usize,
    /// The version of the interrupt controller, the board's and so the VMs'.
    pub gic: Gic,
    /// Where the hardware's virtual CPU interface of a GICv2 lies.
    pub gicv: Option<u64>,
    /// How many list registers a CPU has.
    pub lists: u8,
    /// How far stage 2 reaches.
    pub pa_range: PaRange,
    /// How many VMIDs there are.
    pub vmid_bits: VmidBits,
    /// The ID registers every guest sees.
    pub ids: IdRegs,
    /// Those that a VM sees which starts at EL2; nothing if the CPUs cannot have such VMs (FEAT_NV2).
    pub nested_ids: Option<IdRegs>,
    /// MIDR_EL1.
    pub midr: u64,
    /// How it stands with attacks by speculation.
    pub speculation: Speculation,
    /// Of the system counter, in Hz.
    pub frequency: u64,
    /// Bytes of RAM that the hypervisor keeps for itself.
    pub own_bytes: u64,
    /// A number that guests cannot guess, as far as the board has one.
    pub seed: u64,
    /// Where the bundle lies, and where its first byte is in physical memory.
    pub images: (&'static [u8], Addr<Pa>),
}

impl Facts {
    /// How many vCPUs a VM may have.
    pub const fn max_vcpus(&self) -> u16 {
        match self.gic {
            Gic::V2 => 8,
            Gic::V3 => 16,
        }
    }
}

/// How long a vCPU runs while others wait, in nanoseconds.
const SLICE: u64 = 5_000_000;
/// How long work that can be done in parts goes on with interrupts masked, in nanoseconds: other VMs' timers, and CPUs that want
/// the same lock, wait meanwhile.
const LATE: u64 = 20_000;

/// A vCPU that left its guest, and where it belongs.
#[derive(Clone, Copy)]
pub struct Here<'a> {
    /// All there is.
    pub host: &'a Host,
    /// Its VM.
    pub vm: &'a Vm,
    /// Its slot there.
    pub slot: &'a Slot,
}

/// All there is.
pub struct Host {
    /// The VMs, in the manifest's order.
    pub vms: Vec<Vm>,
    /// The board's free memory.
    pub pool: SharedPool<'static>,
    /// Who runs where.
    pub queue: SpinMutex<Queue>,
    /// The board's UART, shared by all.
    pub console: SpinMutex<Console>,
    /// The ID registers every guest sees.
    pub ids: IdRegs,
    /// Those that a VM sees which starts at EL2; nothing if the CPUs cannot have such VMs.
    pub nested_ids: Option<IdRegs>,
    /// MIDR_EL1.
    pub midr: u64,
    /// How it stands with attacks by speculation.
    pub speculation: Speculation,
    /// The VMIDs in use.
    pub vmids: Vmids,
    /// Where the hardware's virtual CPU interface of a GICv2 lies.
    pub gicv: Option<u64>,
    /// The system counter's.
    pub frequency: Frequency,
    /// How many CPUs run vCPUs.
    pub n_cpus: usize,
    /// Bytes of RAM that the hypervisor keeps for itself.
    pub own_bytes: u64,
    /// How many VMs ended by a crash.
    pub crashed: AtomicU32,
    /// Set when the console has something to send: whoever sees it drives the UART.
    pub to_send: AtomicBool,
    /// How fast what is typed is taken. Whoever takes it has this, and nobody takes it while he has the console, a VM's devices
    /// or its interrupt controller.
    pub typing: SpinMutex<Typing>,
    /// Whether what is typed is held back until a guest has read some: who sees that has happened sets [`Self::to_send`].
    pub held: AtomicBool,
    /// How many VMs are stopping.
    pub stopping: Stopping,
    /// Whether some VM has a watchdog or has set an alarm.
    has_housekeeping: AtomicBool,
    /// Whether the UART of some VM waits for room on the line.
    closed: AtomicBool,
    /// For each VM: its signs of life when they last grew, and when that was.
    watched: SpinMutex<Vec<(u64, u64)>>,
    /// What the operator wants of the board.
    pub order: SpinMutex<Option<Order>>,
    /// The counter at the last `top`, and what each vCPU had run by then.
    pub(crate) top: SpinMutex<(u64, Vec<u64>)>,
    /// What fills the memory of VMs that start.
    loader: SpinMutex<Loader>,
    /// Chooses pages at random.
    dice: AtomicU64,
    /// Who looks for equal pages.
    pub scanner: SpinMutex<Scanner>,
    /// Whether pages of some VM are merged.
    merges: bool,
    /// Of what sharing saves, the part that must be there to be copied, in percent.
    risk: u8,
    /// The policy, and what it knows.
    pub overcommit: SpinMutex<Overcommit>,
    /// When memory has to be looked after next, by the system counter.
    managed: AtomicU64,
    /// The bundle, and where its first byte is in physical memory.
    images: (&'static [u8], Addr<Pa>),
}

/// What the operator wants of the board.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// That it starts again.
    Restart,
    /// That it powers off.
    Off,
}

/// How often a VM that crashes is started again before it is left alone.
const MAX_RESTARTS: u32 = 10;

impl Host {
    /// Builds the VMs of `bundle`. Every error of the operator's is returned, and nothing was started then.
    pub fn build<M: Machine>(
        m: &M,
        mut pool: Pool<'static>,
        facts: Facts,
        bundle: Bundle<'static>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut workspace = Workspace::new();
        let plans = bundle.plan(devices::RAM, &mut workspace)?;
        let admitted = admit::admit(m, &mut pool, &facts, &bundle)?;
        let pool = SharedPool::new(pool, facts.seed);
        let frequency = u32::try_from(facts.frequency).ok().and_then(Frequency::new);
        let frequency = frequency.or(Frequency::new(62_500_000)).ok_or_else(Vec::new)?;
        let mut queue = Queue::new(facts.n_cpus, frequency.ticks(SLICE));
        let mut vms = Vec::new();
        let mut errors = Vec::new();
        for (id, (spec, plan)) in (0_u16..).zip(bundle.vms.into_iter().zip(plans)) {
            match build::vm(m, &pool, &facts, &mut queue, VmId(id), (spec, plan), &admitted) {
                Ok(vm) => vms.push(vm),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let console = Console::new(vms.iter().map(|vm| vm.name.as_str()));
        Ok(Self {
            pool,
            queue: SpinMutex::new(queue),
            console: SpinMutex::new(console),
            ids: facts.ids,
            nested_ids: facts.nested_ids,
            midr: facts.midr,
            speculation: facts.speculation,
            gicv: facts.gicv,
            vmids: Vmids::new(facts.vmid_bits, facts.n_cpus),
            frequency,
            n_cpus: facts.n_cpus,
            own_bytes: facts.own_bytes,
            crashed: AtomicU32::new(0),
            to_send: AtomicBool::new(false),
            typing: SpinMutex::new(Typing::Open),
            held: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            stopping: Stopping::default(),
            has_housekeeping: AtomicBool::new(vms.iter().any(|vm| vm.spec.watchdog.is_some())),
            watched: SpinMutex::new(vms.iter().map(|_| (0, 0)).collect()),
            order: SpinMutex::new(None),
            top: SpinMutex::new((0, Vec::new())),
            loader: SpinMutex::new(Loader::new(workspace)),
            dice: AtomicU64::new(facts.seed | 1),
            scanner: SpinMutex::new(Scanner::default()),
            merges: vms.iter().any(|vm| vm.merges),
            risk: admitted.settings.risk,
            overcommit: SpinMutex::new(Overcommit::new(
                admitted.settings,
                admitted.total,
                vms.len(),
                admitted.is_overcommitted,
            )),
            managed: AtomicU64::new(0),
            images: facts.images,
            vms,
        })
    }

    /// Starts all VMs.
    pub fn begin_all<M: Machine>(&self, m: &M) {
        for vm in &self.vms {
            self.begin(m, vm);
        }
    }

    /// Makes the CPUs of `set` look up.
    pub fn signal<M: Machine>(&self, m: &M, set: CpuSet) {
        let mut rest = set;
        while let Some(cpu) = rest.lowest() {
            rest = rest.without(cpu);
            m.signal(cpu);
        }
    }

    /// Makes the vCPUs of `kicks` look at their interrupts.
    #[inline(always)]
    pub fn kick<M: Machine>(&self, m: &M, vm: &Vm, kicks: Kicks) {
        if !kicks.is_empty() {
            self.kick_some(m, vm, kicks);
        }
    }

    #[inline(never)]
    fn kick_some<M: Machine>(&self, m: &M, vm: &Vm, kicks: Kicks) {
        vm.ask(
            kicks,
            request::REFILL,
            |cpu| m.nudge(cpu),
            |entity| {
                let set = self.queue.lock().wake(entity, m.now());
                self.signal(m, set);
            },
        );
    }

    /// Starts the vCPUs of `kicks`, which were turned on.
    pub fn start<M: Machine>(&self, m: &M, vm: &Vm, kicks: Kicks) {
        for slot in kicks.filter_map(|vcpu| vm.slot(vcpu)) {
            let set = self.queue.lock().start(slot.entity, m.now());
            self.signal(m, set);
        }
    }

    /// Sets the input of a shared interrupt of `vm`.
    pub fn line<M: Machine>(&self, m: &M, vm: &Vm, intid: IntId, line: Line) {
        let kicks = vm.vgic.lock().set_line(VcpuId(0), intid, line);
        self.kick(m, vm, kicks);
    }

    /// Sets the input of a private interrupt of the vCPU that is `here`, which looks before it runs again.
    pub fn private_line<M: Machine>(&self, m: &M, here: Here<'_>, vcpu: VcpuId, intid: IntId, line: Line) {
        let kicks = here.vm.vgic.lock().set_line(vcpu, intid, line);
        if kicks.contains(vcpu) {
            here.slot.requests.fetch_or(request::REFILL, Ordering::Relaxed);
        }
        self.kick(m, here.vm, kicks.without(vcpu));
    }

    /// Starts stopping `vm` for `cause`; its vCPUs leave their CPUs, the last one settles it.
    pub fn stop<M: Machine>(&self, m: &M, vm: &Vm, cause: Cause) {
        if vm.life.stop(cause, &self.stopping) {
            self.send_off(m, vm, |queue, entity, now| queue.stop(entity, now));
            vm.life.left();
            self.signal_all(m);
        }
    }

    /// Settles the VMs that are stopping and have no vCPU loaded any more. A CPU calls it whenever it unloaded one: of
    /// the CPUs that hold vCPUs of a VM, the one that unloads last settles it.
    ///
    /// What they had is given back a part at a time: true if there is more to do at once.
    pub fn settle<M: Machine>(&self, m: &M) -> bool {
        let mut more = false;
        for vm in self.vms.iter().filter(|vm| vm.life.is_deserted()) {
            let mut memory = vm.memory.lock();
            // Asked again: another CPU may have settled it since, and loaded its next life. It cannot from here on until this
            // lets go, as the last of what was has to be given back first.
            if !vm.life.is_deserted() {
                continue;
            }
            if !memory.is_released() {
                let until = m.now().saturating_add(self.frequency.ticks(LATE));
                memory.release_some(m, &self.pool, || m.now() >= until);
                more = true;
                continue;
            }
            drop(memory);
            if let Some(cause) = vm.life.settle(&self.stopping) {
                self.settled(m, vm, cause);
            }
        }
        more
    }

    /// Holds `vm`; false unless it was running.
    pub fn pause<M: Machine>(&self, m: &M, vm: &Vm) -> bool {
        let held = vm.life.pause();
        if held {
            self.send_off(m, vm, |queue, entity, now| queue.pause(entity, now));
            vm.life.left();
            self.signal_all(m);
        }
        held
    }

    /// Lets `vm` go on; false unless it was paused.
    pub fn resume<M: Machine>(&self, m: &M, vm: &Vm) -> bool {
        let released = vm.life.resume();
        if released {
            for slot in &vm.slots {
                let set = self.queue.lock().resume(slot.entity, m.now());
                self.signal(m, set);
            }
        }
        released
    }

    /// Tells the vCPUs of `vm` to leave; [`Host::signal_all`] makes their CPUs look.
    fn send_off<M: Machine>(&self, m: &M, vm: &Vm, how: impl Fn(&mut Queue, crate::sched::EntityId, u64) -> CpuSet) {
        for slot in &vm.slots {
            // Every CPU is signalled when all were told.
            let _ = how(&mut self.queue.lock(), slot.entity, m.now());
            slot.requests.fetch_or(request::LEAVE, Ordering::SeqCst);
        }
    }

    /// A VM's registers may still be loaded on CPUs that idle or run others: they look, and unload.
    fn signal_all<M: Machine>(&self, m: &M) {
        for n in 0..self.n_cpus {
            m.signal(CpuId(n as u16));
        }
    }

    /// A guest wrote a register of its UART.
    pub fn uart_write<M: Machine>(&self, m: &M, here: Here<'_>, offset: u64, bytes: u8, value: u64) -> Next {
        let vm = here.vm;
        let mut devices = vm.devices.lock();
        let console = self.console.lock();
        if console.room() == 0 {
            // Its UART looks busy until the line has room again: see `reopen`. Whoever drains the console next, this CPU if
            // nobody else, finds it closed, as it is so before they can have the lock.
            devices.uart.set_flow(Flow::Closed);
            self.closed.store(true, Ordering::Release);
            here.slot.requests.fetch_or(request::SEND, Ordering::Relaxed);
        }
        drop(console);
        let effect = devices.uart.write(offset, bytes, value);
        self.line(m, vm, UART_INTID, devices.uart.line().into());
        drop(devices);
        if let Some(byte) = effect.out {
            self.console.lock().put(vm.id, byte);
            here.slot.requests.fetch_or(request::SEND, Ordering::Relaxed);
        }
        Next::Resume
    }

    /// A line of our own for the operator.
    pub fn say(&self, what: core::fmt::Arguments<'_>) {
        self.console.lock().log(what);
        self.to_send.store(true, Ordering::Release);
    }

    /// The line has room again: lets the UARTs that had to wait send.
    pub fn reopen<M: Machine>(&self, m: &M) {
        if !self.closed.swap(false, Ordering::AcqRel) {
            return;
        }
        for vm in &self.vms {
            let mut devices = vm.devices.lock();
            devices.uart.set_flow(Flow::Open);
            while let Some(byte) = devices.uart.take() {
                self.console.lock().put(vm.id, byte);
            }
            self.line(m, vm, UART_INTID, devices.uart.line().into());
        }
        self.to_send.store(true, Ordering::Release);
    }

    /// Wakes the vCPU of `slot` if it waits.
    pub fn wake<M: Machine>(&self, m: &M, slot: &Slot) {
        let set = self.queue.lock().wake(slot.entity, m.now());
        self.signal(m, set);
    }

    /// Starts `vm` from pristine images: its first vCPU, once it is picked, finds it `Loading` and fills its memory.
    pub fn begin<M: Machine>(&self, m: &M, vm: &Vm) {
        vm.life.load();
        // The first time it is there already.
        let _ = build::hand_through(m, &self.pool, &mut vm.memory.lock(), self.gicv);
        if let Some(first) = vm.slots.first()
            && first.turn_on(0, 0)
        {
            self.start(m, vm, Kicks::one(VcpuId(0)));
        }
    }

    /// Copies `vm`'s images into its memory, or a part of them; with the last, sets where its first vCPU starts. Stops it where
    /// that fails. The caller has entered its life. True if it can run.
    pub fn fill_memory<M: Machine>(&self, m: &M, vm: &Vm) -> bool {
        let mut loader = self.loader.lock();
        // Who found it loading may have waited here while another CPU copied the last piece: only now it is certain.
        if vm.life.state() == State::Loading {
            match loader.other(vm.id).and_then(|other| self.vms.get(usize::from(other.0))) {
                None => self.fill_some(m, vm, &mut loader),
                // If it is over, what was loaded of it is forgotten with the rest.
                Some(other) => {
                    if let Some(state) = other.life.enter() {
                        if state == State::Loading {
                            self.fill_some(m, other, &mut loader);
                        }
                        other.life.left();
                    }
                }
            }
        }
        vm.life.state() == State::Running
    }

    fn fill_some<M: Machine>(&self, m: &M, vm: &Vm, loader: &mut Loader) {
        let until = m.now().saturating_add(self.frequency.ticks(LATE));
        match loader.fill(self, m, vm, || m.now() >= until) {
            Ok(None) => {}
            Ok(Some((pc, x0))) => {
                if let Some(first) = vm.slots.first() {
                    first.aim(pc, x0);
                }
                let now = m.now();
                // The counter of a board goes on over a reset.
                // One with an EL2 sets its offset itself.
                if vm.life.starts() == 0 && !vm.spec.nested {
                    vm.offset.store(now, Ordering::Relaxed);
                }
                vm.life.run(now);
            }
            Err(why) => {
                loader.forget(vm.id);
                self.say(format_args!("{}: {why}", vm.name));
                self.stop(m, vm, Cause::Crash("its images could not be loaded"));
            }
        }
    }

    /// `vm` is over for `cause`, none of its vCPUs is loaded: gives its memory back and decides what comes next.
    fn settled<M: Machine>(&self, m: &M, vm: &Vm, cause: Cause) {
        self.loader.lock().forget(vm.id);
        vm.memory.lock().release_all(m, &self.pool);
        vm.starving.store(0, Ordering::Relaxed);
        vm.vgic.lock().reset();
        vm.devices.lock().reset();
        vm.flash.lock().iter_mut().for_each(Bank::reset);
        vm.balloon.lock().reset();
        for slot in &vm.slots {
            slot.requests.store(0, Ordering::SeqCst);
            slot.turn_off();
            // Who paused it may have said so only after it was stopped.
            let _ = self.queue.lock().stop(slot.entity, m.now());
        }
        let again = match cause {
            Cause::Off | Cause::Operator => false,
            Cause::Reset | Cause::Restart => true,
            Cause::Crash(_) => vm.on_crash() == OnCrash::Restart && vm.life.crashes() <= MAX_RESTARTS,
        };
        let stopped = again && vm.life.was_ordered_to_stop();
        let (cause, again) = if stopped { (Cause::Operator, false) } else { (cause, again) };
        let name = &vm.name;
        match cause {
            Cause::Off => self.say(format_args!("{name}: powered off")),
            Cause::Operator => self.say(format_args!("{name}: stopped")),
            // A VM may reset itself for ever: the log tells of ever fewer.
            Cause::Reset if !vm.life.starts().is_power_of_two() => {}
            Cause::Reset => self.say(format_args!("{name}: reset, for the {}. time", vm.life.starts())),
            Cause::Restart => self.say(format_args!("{name}: restarted")),
            Cause::Crash(why) => {
                self.say(format_args!("{name}: crashed: {why}{}", if again { "; starting it again" } else { "" }));
            }
        }
        if again {
            self.begin(m, vm);
        } else {
            if matches!(cause, Cause::Crash(_)) {
                self.crashed.fetch_add(1, Ordering::Relaxed);
            }
            vm.life.end(cause);
        }
    }

    /// Stops `vm`, whose loaded vCPU gave `cause` for it; a crash is reported first.
    pub fn stop_with_report<M: Machine>(&self, m: &M, vm: &Vm, vcpu: &Vcpu, cause: Cause) {
        if let Cause::Crash(why) = cause {
            report::crash(self, m, vm, vcpu, why);
        }
        self.stop(m, vm, cause);
    }

    /// Seconds since the board was turned on, at counter value `now`.
    pub fn seconds(&self, now: u64) -> u64 {
        now / u64::from(self.frequency.hz()).max(1)
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
