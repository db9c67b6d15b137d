//! A CPU as a seat for vCPUs: who is loaded, loading and unloading, and running until something else is to be done.

use super::context;
use super::guest::{self, Exit};
use super::lists;
use super::machine::El2;
use super::timer;
use super::{irq, uart};
use aarch64_cpu::asm::wfi;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use flatland::addr::{CpuId, VcpuId};
use flatland::arm::el1::El1;
use flatland::exit::{self, Here};
use flatland::host::{Host, WATCHMAN};
use flatland::machine::Machine;
use flatland::next::{Cause, Next};
use flatland::sched::{EntityId, earliest};
use flatland::vcpu::{Counter, Timer, Vcpu};
use flatland::vm::{NOWHERE, Power, Slot, State, Vm, request};
use spin::mutex::SpinMutexGuard;

/// Why a VM ends that was running when the board raised an SError, or has just left.
const BROKEN: Cause = Cause::Crash("the board raised an SError while it ran");

/// How often a part of settling VMs is done while vCPUs want this CPU, in nanoseconds: a part takes a tenth of that.
const SETTLING: u64 = 200_000;

/// One CPU.
pub(crate) struct Seat {
    host: &'static Host,
    cpu: CpuId,
    loaded: Option<Loaded>,
    /// For each VM, which of its vCPUs was loaded here last.
    last: Vec<Option<VcpuId>>,
}

/// A vCPU whose registers are on this CPU: nobody else can have it.
struct Loaded {
    vm: &'static Vm,
    slot: &'static Slot,
    vcpu: SpinMutexGuard<'static, Vcpu>,
    /// Whether its FP registers are here as well.
    fp: bool,
    /// Whether its lists were folded and have to be filled before it runs.
    folded: bool,
}

impl Loaded {
    fn here(&self, host: &'static Host) -> Here<'static> {
        Here { host, vm: self.vm, slot: self.slot }
    }
}

impl Seat {
    /// The seat of this CPU, `cpu`, nobody on it.
    pub(crate) fn new(host: &'static Host, cpu: CpuId) -> Self {
        context::unload();
        context::trap_fp(true);
        Self { host, cpu, loaded: None, last: host.vms.iter().map(|_| None).collect() }
    }

    /// What a CPU does from the end of boot on.
    pub(crate) fn serve(mut self) -> ! {
        loop {
            let settling = self.part_with_the_leaving();
            let now = El2.now();
            let turn = self.host.queue.lock().pick(self.cpu, now);
            let chores = if self.cpu == WATCHMAN { self.host.chores(&El2) } else { None };
            // Whoever runs meanwhile is interrupted for what is left of settling, too.
            let settle = settling.then(|| now + self.host.frequency.ticks(SETTLING));
            let chores = earliest([chores, settle]);
            self.host.signal(&El2, turn.kick);
            // After the chores: they may have something to say, and this CPU may sleep for long.
            self.send();
            match turn.run {
                Some(entity) => self.run(entity, chores),
                None => self.idle(chores, settling),
            }
        }
    }

    /// Unloads a vCPU whose VM is stopping, and settles the VMs that have none loaded: a part of that, true if there is more.
    fn part_with_the_leaving(&mut self) -> bool {
        if !self.host.stopping.is_any() {
            return false;
        }
        if let Some(loaded) = &self.loaded
            && matches!(loaded.vm.life.state(), State::Stopping(_))
        {
            self.unload();
        }
        let more = self.host.settle(&El2);
        if self.host.all_over() {
            super::power::all_over(self.host);
        }
        more
    }

    /// Sends what the console has to say since somebody looked.
    fn send(&self) {
        if self.host.to_send.load(Ordering::Relaxed) && self.host.to_send.swap(false, Ordering::AcqRel) {
            uart::drain(self.host);
        }
    }

    /// Sleeps until an interrupt, or until `chores` are to be done.
    fn idle(&mut self, chores: Option<u64>, settling: bool) {
        if self.loaded.as_ref().is_some_and(|loaded| loaded.vm.life.state() == State::Paused) {
            // For who wants to look at its registers.
            self.unload();
        }
        let (scan, busy) = self.host.idle(&El2);
        let queue = self.host.queue.lock().deadline(self.cpu);
        timer::set(earliest([queue, chores, scan]));
        if !busy && !settling {
            // Interrupts are masked; a pending one ends WFI all the same (Arm ARM D1.6.1).
            wfi();
        }
        let _ = self.interrupt();
    }

    /// Runs `entity` until the queue has to be asked again.
    fn run(&mut self, entity: EntityId, chores: Option<u64>) {
        let Some((vm, slot)) = self.find(entity) else { return };
        if !self.load(vm, slot) {
            // Its images may be half there: whoever else has something to do on this CPU goes first.
            if irq::is_pending() {
                let _ = self.interrupt();
            }
            return;
        }
        slot.running.store(u32::from(self.cpu.0), Ordering::SeqCst);
        let Some(loaded) = &mut self.loaded else { return };
        let own = exit::sysreg::poll_timer(loaded.here(self.host), &El2, &mut loaded.vcpu);
        // Asked only now: loading it may have unloaded another, whose timers are ours to watch from then on.
        let queue = self.host.queue.lock().deadline(self.cpu);
        timer::set(earliest([chores, queue, own]));
        let next = self.stay();
        self.leave(entity, next);
    }

    fn find(&self, entity: EntityId) -> Option<(&'static Vm, &'static Slot)> {
        let (vm, vcpu) = self.host.queue.lock().name(entity);
        let vm = self.host.vms.get(usize::from(vm.0))?;
        Some((vm, vm.slot(vcpu)?))
    }

    /// The inner loop: enter, leave, handle, as long as the same vCPU goes on.
    fn stay(&mut self) -> Next {
        let Some(loaded) = &mut self.loaded else { return Next::Look };
        let here = loaded.here(self.host);
        if core::mem::take(&mut loaded.folded) {
            loaded.slot.requests.fetch_or(request::REFILL, Ordering::Relaxed);
        }
        loop {
            if loaded.slot.requests.load(Ordering::Acquire) != 0 {
                match attend(self.host, loaded) {
                    Attended::Leave => return Next::Look,
                    Attended::Ready => {}
                    // Its work is long: whoever else has something to do on this CPU goes first.
                    Attended::More => match irq::is_pending().then(|| irq::handle(here, &mut loaded.vcpu)) {
                        None | Some(Next::Resume) => continue,
                        Some(next) => return next,
                    },
                }
            }
            let next = match guest::run(&mut loaded.vcpu.registers) {
                Exit::Synchronous => exit::handle(here, &El2, &mut loaded.vcpu),
                Exit::Interrupt => {
                    loaded.slot.count(Counter::Interrupt);
                    irq::handle(here, &mut loaded.vcpu)
                }
                // Not ours to be contained: the board reports an error that no access of EL2 caused. It goes to who ran.
                Exit::SError => Next::Stop(BROKEN),
                Exit::Illegal => Next::Stop(Cause::Crash("its PSTATE is none that it may have")),
            };
            match next {
                Next::Resume => {}
                Next::Fp if !loaded.fp => {
                    context::load_fp(&loaded.vcpu.fp);
                    loaded.fp = true;
                }
                // Its hypervisor had it trap, and does not any more.
                Next::Fp if loaded.vcpu.nested.is_some() => context::trap_fp(false),
                // With its FP registers here nothing of it traps.
                Next::Fp => return Next::Stop(Cause::Crash("its FP registers trap though they are loaded")),
                next => return next,
            }
        }
    }

    /// An interrupt while this CPU is not in a guest.
    fn interrupt(&mut self) -> Next {
        match &mut self.loaded {
            Some(loaded) => irq::handle(loaded.here(self.host), &mut loaded.vcpu),
            None => irq::handle_alone(self.host),
        }
    }

    /// What the end of a run means for the queue.
    fn leave(&mut self, entity: EntityId, next: Next) {
        let Some(loaded) = &mut self.loaded else { return };
        let (vm, slot) = (loaded.vm, loaded.slot);
        match next {
            Next::Resume | Next::Fp | Next::Look => {}
            Next::Yield => self.host.queue.lock().yield_now(self.cpu),
            Next::Wait | Next::Rest => {
                let here = loaded.here(self.host);
                // Requests from before this are in what `wakes` sees; later ones are seen below or by the queue.
                let asked = slot.requests.fetch_and(!request::REFILL, Ordering::SeqCst);
                let own = exit::sysreg::poll_timer(here, &El2, &mut loaded.vcpu);
                let awake = exit::irq::wakes(here, &El2, &mut loaded.vcpu);
                loaded.folded = true;
                if awake && next == Next::Wait {
                    return;
                }
                let rest = || self.host.rest_until(El2.now());
                let until = match next {
                    Next::Rest => Some(rest()),
                    // Its balloon goes on when it enters again, and that may be what it waits for.
                    _ if asked & request::SERVE != 0 => earliest([own, Some(rest())]),
                    _ => own,
                };
                slot.running.store(NOWHERE, Ordering::SeqCst);
                let mut queue = self.host.queue.lock();
                queue.block(entity, until, El2.now());
                if slot.requests.load(Ordering::SeqCst) & request::REFILL != 0 {
                    let set = queue.wake(entity, El2.now());
                    drop(queue);
                    self.host.signal(&El2, set);
                }
            }
            Next::Off => {
                self.unload();
                slot.running.store(NOWHERE, Ordering::SeqCst);
                slot.turn_off();
                self.host.queue.lock().off(entity, El2.now());
                if vm.slots.iter().all(|slot| slot.power() == Power::Off) {
                    self.host.stop(&El2, vm, Cause::Crash("all its vCPUs are off"));
                }
            }
            Next::Stop(cause) => {
                self.host.stop_with_report(&El2, vm, &loaded.vcpu, cause);
            }
        }
    }

    /// Puts a vCPU's registers onto this CPU. False if it turned out not to be ready.
    fn load(&mut self, vm: &'static Vm, slot: &'static Slot) -> bool {
        if let Some(loaded) = &self.loaded
            && core::ptr::eq(loaded.slot, slot)
        {
            return true;
        }
        self.unload();
        let Some(state) = vm.life.enter() else { return false };
        // A vCPU that was picked in its VM's former life is off in this one.
        if slot.power() == Power::Off || state == State::Loading && !self.host.fill_memory(&El2, vm) {
            vm.life.left();
            return false;
        }
        // What EL2 itself did since nobody was loaded is not the fault of who comes.
        if guest::drain() {
            log::warn!("the board raised an SError while no VM ran on CPU {}", self.cpu.0);
        }
        let mut vcpu = slot.vcpu.lock();
        if slot.requests.fetch_and(!request::START, Ordering::SeqCst) & request::START != 0 {
            let (pc, x0) = slot.started();
            vcpu.reset(pc, x0);
            if let Some(nested) = &vcpu.nested {
                nested.reset_page(&El2, self.host.midr, vcpu.mpidr);
            }
        }
        let here = Here { host: self.host, vm, slot };
        context::load(&vcpu.saved, &exit::nested::enter::role(here, &El2, &vcpu, self.cpu));
        exit::sysreg::arm(&El2, &vcpu, vcpu.saved.get(El1::Mdscr));
        // vCPUs of one VM share its VMID, but each has translations of its own: two may use an ASID for different spaces.
        if let Some(last) = self.last.get_mut(usize::from(vm.id.0))
            && last.replace(vcpu.id).is_some_and(|last| last != vcpu.id)
        {
            context::forget_stage1();
        }
        if vcpu.lends_interface() {
            exit::nested::lists::lend(&El2, &mut vcpu);
        } else {
            lists::load(&vcpu.interface);
        }
        if vcpu.timer_active {
            irq::set_timer_active(true);
        }
        self.loaded = Some(Loaded { vm, slot, vcpu, fp: false, folded: true });
        let set = self.host.queue.lock().loaded(slot.entity, self.cpu, El2.now());
        self.host.signal(&El2, set);
        true
    }

    /// Takes the loaded vCPU's registers off this CPU.
    fn unload(&mut self) {
        let Some(mut loaded) = self.loaded.take() else { return };
        // Now, or it would hit who comes next; with all registers still there for the report.
        if guest::drain() {
            self.host.stop_with_report(&El2, loaded.vm, &loaded.vcpu, BROKEN);
        }
        let _ = exit::irq::wakes(loaded.here(self.host), &El2, &mut loaded.vcpu);
        if loaded.vcpu.timer_active {
            irq::set_timer_active(false);
        }
        if loaded.vcpu.lends_interface() {
            exit::nested::lists::put_guests_away(&El2, &mut loaded.vcpu);
        } else {
            let in_hardware = core::mem::take(&mut loaded.vcpu.in_hardware);
            lists::save(&mut loaded.vcpu.interface, in_hardware);
        }
        if loaded.fp {
            context::save_fp(&mut loaded.vcpu.fp);
        }
        exit::nested::enter::keep_abort(&El2, &loaded.vcpu);
        context::save(&mut loaded.vcpu.saved);
        context::unload();
        if loaded.vcpu.nested.is_some() {
            context::uncontrol();
        }
        let deadline = sleep_deadline(loaded.vm, &loaded.vcpu, El2.now());
        let entity = loaded.slot.entity;
        drop(loaded.vcpu);
        loaded.vm.life.left();
        let now = El2.now();
        let mut queue = self.host.queue.lock();
        let set = queue.unloaded(entity, now);
        let more = queue.wake_by(entity, deadline, now);
        drop(queue);
        self.host.signal(&El2, set);
        self.host.signal(&El2, more);
    }
}

/// What comes of a vCPU's requests.
enum Attended {
    /// It may run.
    Ready,
    /// It must not.
    Leave,
    /// There is more to do before it runs.
    More,
}

/// Does what others asked of the loaded vCPU before it runs, or a part of it.
fn attend(host: &'static Host, loaded: &mut Loaded) -> Attended {
    let mut more = false;
    let taken = request::REFILL | request::LEAVE | request::SEND | request::SERVE;
    let asked = loaded.slot.requests.fetch_and(!taken, Ordering::SeqCst);
    if asked & request::SEND != 0 {
        uart::drain(host);
    }
    if asked & request::SERVE != 0 {
        more = host.serve_balloon(&El2, loaded.here(host));
    }
    if asked & request::LEAVE != 0 {
        loaded.folded |= asked & request::REFILL != 0;
        return Attended::Leave;
    }
    if asked & request::REFILL != 0 {
        exit::irq::refill(loaded.here(host), &El2, &mut loaded.vcpu);
    }
    if more { Attended::More } else { Attended::Ready }
}

/// When a vCPU that waits has to be woken because one of its timers fires, now that the hardware does not watch them.
fn sleep_deadline(vm: &Vm, vcpu: &Vcpu, now: u64) -> Option<u64> {
    if vcpu.nested.is_some() {
        let own = exit::nested::timers::saved_deadline(vcpu, &El2);
        return earliest([own, exit::nested::timers::deadline(vcpu, &El2, now)]);
    }
    let timer = Timer::new(vcpu.saved.get(El1::CntvCtl), vcpu.saved.get(El1::CntvCval));
    // An interrupt that is active already fires no more.
    let own =
        (timer.is_armed() && !vcpu.timer_active).then(|| timer.cval.wrapping_add(vm.offset.load(Ordering::Relaxed)));
    let emulated = exit::sysreg::timer_deadline(vcpu).filter(|at| *at > now);
    earliest([own, emulated])
}
