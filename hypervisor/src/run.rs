//! The loop that each CPU runs from the end of boot on: who runs here, until when, and what comes after.
//!
//! [`RunLoop::turn`] is one pass of it (KVM's `vcpu_run` with what the scheduler does around it; Xen's `idle_loop` and
//! `schedule`): settle VMs that stop, do what is due on this CPU, pick a vCPU from the queue, load it (`switch`), and run it
//! until something other than the guest wants the CPU. What touches registers is behind [`Cpu`]: EL2 on a board, a model in
//! the tests, which lets other CPUs run at any point where this one holds no lock.
//!
//! # Why no wake is lost
//!
//! Whoever wants something of a vCPU sets a bit of its slot's `requests`, *then* looks at `running`: on a CPU, that one is
//! interrupted; nowhere, the queue is told to wake it. The CPU that runs it does the opposite: `running` first, then `requests`,
//! before each entry; and `running` back to [`NOWHERE`], then `requests`, before it lets the vCPU sleep. All four are sequentially
//! consistent, so one of the two sees the other (Dekker). A wake that the queue hears while the vCPU runs is kept there
//! and keeps the next [`block`](crate::sched::Queue::block) from blocking.
//!
//! # What is held
//!
//! A CPU that has a vCPU loaded holds its lock for as long; no other lock is held while a guest runs, while this CPU sleeps, or from one
//! turn to the next. Interrupts stay masked at EL2: they are taken between steps, here (`irq`).

mod cpu;
mod irq;
mod switch;

pub use cpu::{Cpu, Exit, Irq};

use crate::addr::{CpuId, VcpuId};
use crate::host::operator;
use crate::host::{HOUSEKEEPING_CPU, Here, Host};
use crate::next::{Cause, Next};
use crate::sched::{EntityId, earliest};
use crate::vcpu::{Counter, Vcpu};
use crate::vm::{NOWHERE, Power, Slot, State, Vm, request};
use crate::{exit, hwstate};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use spin::mutex::SpinMutexGuard;

/// Why a VM ends that was running when the board raised an SError, or has just left.
const SERROR: Cause = Cause::Crash("the board raised an SError while it ran");

/// How often a part of settling VMs is done while vCPUs want this CPU, in microseconds: a part takes a tenth of that.
const SETTLING_US: u16 = 200;

/// The loop of one CPU, and what it has from one turn to the next.
pub struct RunLoop<'h> {
    host: &'h Host,
    cpu: CpuId,
    loaded: Option<Loaded<'h>>,
    /// For each VM, which of its vCPUs was loaded here last.
    last: Vec<Option<VcpuId>>,
}

/// A vCPU whose registers are on this CPU: nobody else can have it.
struct Loaded<'h> {
    vm: &'h Vm,
    slot: &'h Slot,
    vcpu: SpinMutexGuard<'h, Vcpu>,
    /// Whether its FP registers are here as well.
    fp: bool,
}

impl<'h> Loaded<'h> {
    fn here(&self, host: &'h Host) -> Here<'h> {
        Here { host, vm: self.vm, slot: self.slot }
    }
}

/// What comes of a vCPU's requests.
enum Requests {
    /// They were met: it may run.
    Met,
    /// It must leave the CPU.
    Leave,
    /// There is more to do before it runs.
    More,
}

impl<'h> RunLoop<'h> {
    /// The loop of this CPU, number `cpu`, nobody loaded.
    pub fn new<C: Cpu>(host: &'h Host, m: &C, cpu: CpuId) -> Self {
        m.be_nobody();
        m.trap_fp(true);
        Self { host, cpu, loaded: None, last: host.fleet.vms.iter().map(|_| None).collect() }
    }

    /// What a CPU does from the end of boot on.
    pub fn serve<C: Cpu>(mut self, m: &C) -> ! {
        loop {
            self.turn(m);
        }
    }

    /// One pass: picks who runs, and runs it until the queue has to be asked again; or sleeps, where there is nobody.
    pub fn turn<C: Cpu>(&mut self, m: &C) {
        let mut settling = self.settle_stopping(m);
        // The answer to what the operator typed, by a line.
        settling |= self.cpu == HOUSEKEEPING_CPU && !m.is_interrupt_pending() && operator::go_on(self.host, m);
        let now = m.now();
        let turn = self.host.queue.lock().pick(self.cpu, now);
        let due = if self.cpu == HOUSEKEEPING_CPU { self.keep_house(m, turn.run.is_some()) } else { None };
        // Whoever runs meanwhile is interrupted for what is left of settling, too.
        let settle = settling.then(|| now + self.host.facts.frequency.ticks_of_us(SETTLING_US));
        let due = earliest([due, settle]);
        self.host.queue.signal(m, turn.kick);
        // After the housekeeping: it may have something to say, and this CPU may sleep for long.
        self.send_console(m);
        // All this may have been long: whoever waits goes first. Not where nothing is to be decided anew: the loaded vCPU's maintenance
        // interrupt comes until its lists are filled, which is done before it runs.
        if m.is_interrupt_pending() && self.take_interrupts(m) == Next::Reschedule {
            return;
        }
        match turn.run {
            Some(entity) => self.run(m, entity, due),
            None => self.idle(m, due, settling),
        }
    }

    /// Unloads a vCPU whose VM is stopping, and settles the VMs that have none loaded: a part of that, true if there is more.
    fn settle_stopping<C: Cpu>(&mut self, m: &C) -> bool {
        if !self.host.fleet.stopping.is_any() {
            return false;
        }
        if let Some(loaded) = &self.loaded
            && matches!(loaded.vm.life.state(), State::Stopping(_))
        {
            self.unload(m);
        }
        self.interrupt_what_is_long(m);
        let more = self.host.settle(m);
        if self.host.fleet.all_over() {
            m.power_off(self.host);
        }
        more
    }

    /// Does what is due of the housekeeping, or a part of it where a vCPU `waits` to run here. Says when something is due again.
    fn keep_house<C: Cpu>(&self, m: &C, waits: bool) -> Option<u64> {
        if self.host.is_managing_due(m) {
            self.interrupt_what_is_long(m);
            self.host.manage(m, waits);
        }
        self.host.housekeeping(m)
    }

    /// Has whoever is to be woken meanwhile interrupt what this CPU does before it runs somebody: the last deadline is over, and the
    /// next would be set only then.
    fn interrupt_what_is_long<C: Cpu>(&self, m: &C) {
        m.set_deadline(self.host.queue.lock().deadline(self.cpu));
    }

    /// Sends what the console has to say since somebody looked.
    fn send_console<C: Cpu>(&self, m: &C) {
        if self.host.console.to_send.load(Ordering::Relaxed) && self.host.console.to_send.swap(false, Ordering::AcqRel)
        {
            m.send_console(self.host);
        }
    }

    /// Sleeps until an interrupt, or until housekeeping is `due`.
    fn idle<C: Cpu>(&mut self, m: &C, due: Option<u64>, settling: bool) {
        if self.loaded.as_ref().is_some_and(|loaded| loaded.vm.life.state() == State::Paused) {
            // For who wants to look at its registers.
            self.unload(m);
        }
        self.interrupt_what_is_long(m);
        let (scan, busy) = self.host.idle(m);
        let queue = self.host.queue.lock().deadline(self.cpu);
        m.set_deadline(earliest([queue, due, scan]));
        if !busy && !settling {
            m.wait_for_interrupt();
        }
        let _ = self.take_interrupts(m);
    }

    /// Runs `entity` until the queue has to be asked again.
    fn run<C: Cpu>(&mut self, m: &C, entity: EntityId, due: Option<u64>) {
        let Some((vm, slot)) = self.find(entity) else { return };
        if !self.load(m, vm, slot) {
            // Its images may be half there: whoever else has something to do on this CPU goes first.
            if m.is_interrupt_pending() {
                let _ = self.take_interrupts(m);
            }
            return;
        }
        slot.running.store(u32::from(self.cpu.0), Ordering::SeqCst);
        let Some(loaded) = &mut self.loaded else { return };
        let own = hwstate::timers::poll(loaded.here(self.host), m, &mut loaded.vcpu);
        // Asked only now: loading it may have unloaded another, whose timers are ours to watch from then on.
        let queue = self.host.queue.lock();
        let (deadline, waited) = (queue.deadline(self.cpu), queue.waited(entity));
        drop(queue);
        m.set_deadline(earliest([due, deadline, own]));
        if slot.stolen.is_asked() {
            let frequency = self.host.facts.frequency;
            slot.stolen.tell(loaded.vcpu.id, waited, m.frame(vm.stolen), |ticks| frequency.nanos(ticks));
        }
        let next = run_guest(loaded.here(self.host), m, &mut loaded.vcpu, &mut loaded.fp);
        self.leave(m, entity, next);
    }

    fn find(&self, entity: EntityId) -> Option<(&'h Vm, &'h Slot)> {
        let (vm, vcpu) = self.host.queue.lock().name(entity);
        let vm = self.host.fleet.vms.get(usize::from(vm.0))?;
        Some((vm, vm.slot(vcpu)?))
    }

    /// Takes the interrupts that wait for this CPU while it is not in a guest.
    fn take_interrupts<C: Cpu>(&mut self, m: &C) -> Next {
        let host = self.host;
        irq::take(host, m, self.loaded.as_mut().map(|loaded| (loaded.here(host), &mut *loaded.vcpu)))
    }

    /// What the end of a run means for the queue.
    fn leave<C: Cpu>(&mut self, m: &C, entity: EntityId, next: Next) {
        let Some(loaded) = &mut self.loaded else { return };
        let (vm, slot) = (loaded.vm, loaded.slot);
        match next {
            Next::Resume | Next::LoadFp | Next::Reschedule => {}
            Next::Yield => self.host.queue.lock().yield_now(self.cpu),
            Next::WaitForInterrupt | Next::WaitForMemory => self.wait(m, entity, next == Next::WaitForMemory),
            Next::Off => {
                // All this while its VM cannot be settled: in its next life it may have been turned on.
                slot.turn_off();
                if vm.slots.iter().all(|slot| slot.power() == Power::Off) {
                    self.host.stop(m, vm, Cause::Crash("all its vCPUs are off"));
                }
                self.unload(m);
                slot.running.store(NOWHERE, Ordering::SeqCst);
                self.host.queue.lock().off(entity, m.now());
            }
            Next::Stop(cause) => {
                self.host.stop_with_report(m, vm, &loaded.vcpu, cause);
            }
        }
    }

    /// The loaded vCPU waits: for an interrupt, unless there is one, or a little while `for_memory`.
    fn wait<C: Cpu>(&mut self, m: &C, entity: EntityId, for_memory: bool) {
        let Some(loaded) = &mut self.loaded else { return };
        let (slot, here) = (loaded.slot, loaded.here(self.host));
        let own = hwstate::timers::poll(here, m, &mut loaded.vcpu);
        // Requests from before this, of `poll` too, are in what `wakes` sees; later ones are seen below or by the queue.
        let asked = slot.requests.fetch_and(!request::REFILL, Ordering::SeqCst);
        let awake = hwstate::lists::wakes(here, m, &mut loaded.vcpu);
        if awake && !for_memory {
            refill_before_run(slot);
            return;
        }
        // Its balloon goes on when it enters again, and that may be what it waits for.
        let balloon = asked & request::SERVE != 0;
        let now = m.now();
        let retry = (for_memory || balloon).then(|| self.host.retry_at(now));
        let until = if for_memory { retry } else { earliest([own, retry]) };
        slot.running.store(NOWHERE, Ordering::SeqCst);
        self.host.queue.lock().block(entity, until, now);
        if slot.requests.load(Ordering::SeqCst) & request::REFILL != 0 {
            self.host.queue.wake(m, entity);
        }
        refill_before_run(slot);
    }
}

/// The inner loop: enters the guest, leaves it, handles why, for as long as the same vCPU goes on. `has_fp` is whether its FP
/// registers are on this CPU.
#[inline(never)]
fn run_guest<C: Cpu>(here: Here<'_>, m: &C, vcpu: &mut Vcpu, has_fp: &mut bool) -> Next {
    loop {
        if here.slot.requests.load(Ordering::Acquire) != 0 {
            match meet_requests(here, m, vcpu) {
                Requests::Leave => return Next::Reschedule,
                Requests::Met => {}
                // Its work is long: whoever else has something to do on this CPU goes first.
                Requests::More => match m.is_interrupt_pending().then(|| irq::take(here.host, m, Some((here, vcpu)))) {
                    None | Some(Next::Resume) => continue,
                    Some(next) => return next,
                },
            }
        }
        let next = match m.enter(&mut vcpu.registers) {
            Exit::Synchronous => exit::handle(here, m, vcpu),
            Exit::Interrupt => {
                here.slot.count(Counter::Interrupt);
                irq::take(here.host, m, Some((here, vcpu)))
            }
            // Not ours to be contained: the board reports an error that no access of EL2 caused. It goes to who ran.
            Exit::SError => Next::Stop(SERROR),
            Exit::Illegal => Next::Stop(Cause::Crash("its PSTATE is none that it may have")),
        };
        match next {
            Next::Resume => {}
            Next::LoadFp if !*has_fp => {
                m.load_fp(&vcpu.fp);
                *has_fp = true;
            }
            // Its hypervisor had it trap, and does not any more.
            Next::LoadFp if vcpu.nested().is_some() => m.trap_fp(false),
            // With its FP registers here nothing of it traps.
            Next::LoadFp => return Next::Stop(Cause::Crash("its FP registers trap though they are loaded")),
            next => return next,
        }
    }
}

/// The list registers of the vCPU in `slot`, loaded here, were read back or are another's: they are filled before it runs.
fn refill_before_run(slot: &Slot) {
    slot.requests.fetch_or(request::REFILL, Ordering::Relaxed);
}

/// Does what others asked of the loaded vCPU before it runs, or a part of it.
fn meet_requests<C: Cpu>(here: Here<'_>, m: &C, vcpu: &mut Vcpu) -> Requests {
    let mut more = false;
    let taken = request::REFILL | request::LEAVE | request::SEND | request::SERVE;
    let asked = here.slot.requests.fetch_and(!taken, Ordering::SeqCst);
    if asked & request::SEND != 0 {
        m.send_console(here.host);
    }
    if asked & request::SERVE != 0 {
        more = here.host.serve(m, here);
    }
    if asked & request::LEAVE != 0 {
        // Kept for when it comes back.
        here.slot.requests.fetch_or(asked & request::REFILL, Ordering::Relaxed);
        return Requests::Leave;
    }
    if asked & request::REFILL != 0 {
        hwstate::refill(here, m, vcpu);
    }
    if more { Requests::More } else { Requests::Met }
}
