//! A CPU as the run loop has it, by a script: what its guest does each time it is entered, which interrupts come; and a list of what
//! the loop had the CPU do. Where [`race`](crate::race) has all that may happen by dice, this has one thing at a time.

use crate::cpu::Cpu;
use flatland::arm::el1::Context;
use flatland::arm::el2::El2Registers;
use flatland::arm::esr::ec;
use flatland::host::{Host, operator};
use flatland::machine::Machine;
use flatland::run::{self, Exit, Irq};
use flatland::vcpu::{Fp, Registers};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// What the loop had its CPU do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Did {
    /// A vCPU became the CPU's.
    Loaded,
    /// Nobody's registers are on it.
    Nobody,
    /// EL2's control registers are those of a vCPU without an EL2.
    ResetTraps,
    /// A guest's use of FP traps from here on, or does not.
    TrappedFp(bool),
    /// FP registers were put on it.
    LoadedFp,
    /// They were taken off.
    SavedFp,
    /// When it is to be interrupted.
    Deadline(Option<u64>),
    /// The active state of the virtual timer's interrupt.
    TimerActive(bool),
    /// Its guest was entered.
    Entered,
    /// It slept.
    Slept,
    /// An interrupt was ended, and deactivated or not.
    Ended(Irq, bool),
    /// The console was sent.
    SentConsole,
    /// The UART's interrupt was served.
    ServedUart,
    /// All VMs were over.
    PoweredOff,
}

/// What a guest does from when it is entered until it leaves.
pub type Step = Box<dyn FnOnce(&Cpu<'_>, &mut Registers) -> Exit>;

/// What happens on a CPU, and what it did.
#[derive(Default)]
pub struct Script {
    /// What the guest does; after that it computes until it is interrupted: at the deadline, or by another CPU where there is none.
    guest: RefCell<VecDeque<Step>>,
    /// The interrupts that wait, the next first. That of the deadline waits from when it has come.
    pub irqs: RefCell<VecDeque<Irq>>,
    /// When the deadline is.
    deadline: Cell<Option<u64>>,
    did: RefCell<Vec<Did>>,
    /// Whether an SError is there to be drained.
    pub serror: Cell<bool>,
    /// What is typed while the UART's interrupt is served.
    pub typed: RefCell<Vec<u8>>,
}

impl Script {
    /// Has the guest do this next, after what it is to do already.
    pub fn then(&self, step: impl FnOnce(&Cpu<'_>, &mut Registers) -> Exit + 'static) {
        self.guest.borrow_mut().push_back(Box::new(step));
    }

    /// Has the guest leave with this exception class and syndrome.
    pub fn leave(&self, class: u64, iss: u64) {
        self.then(move |_, registers| {
            registers.esr = class << 26 | 1 << 25 | iss;
            Exit::Synchronous
        });
    }

    /// Has the guest wait for an interrupt.
    pub fn sleep(&self) {
        self.leave(ec::WFX, 0);
    }

    /// Has an interrupt come, after those that wait.
    pub fn interrupt(&self, irq: Irq) {
        self.irqs.borrow_mut().push_back(irq);
    }

    /// What the CPU did since somebody asked.
    pub fn did(&self) -> Vec<Did> {
        self.did.take()
    }

    fn note(&self, what: Did) {
        self.did.borrow_mut().push(what);
    }

    /// Whether an interrupt waits at `now`.
    pub fn waits(&self, now: u64) -> bool {
        !self.irqs.borrow().is_empty() || self.deadline.get().is_some_and(|at| at <= now)
    }
}

impl run::Cpu for Cpu<'_> {
    type Ack = Irq;

    fn enter(&self, registers: &mut Registers) -> Exit {
        self.script.note(Did::Entered);
        let step = self.script.guest.borrow_mut().pop_front();
        step.map_or_else(
            || {
                match self.script.deadline.get() {
                    Some(at) => self.pass(at.saturating_sub(self.now())),
                    None => self.script.interrupt(Irq::Signal),
                }
                Exit::Interrupt
            },
            |step| step(self, registers),
        )
    }

    fn drain_serrors(&self) -> bool {
        self.script.serror.take()
    }

    fn load_context(&self, context: &Context, el2: &El2Registers) {
        self.script.note(Did::Loaded);
        self.be(context, el2);
    }

    fn save_context(&self, context: &mut Context) {
        *context = self.context();
    }

    fn be_nobody(&self) {
        self.script.note(Did::Nobody);
    }

    fn reset_traps(&self) {
        self.script.note(Did::ResetTraps);
    }

    fn trap_fp(&self, trap: bool) {
        self.script.note(Did::TrappedFp(trap));
    }

    fn load_fp(&self, _fp: &Fp) {
        self.script.note(Did::LoadedFp);
    }

    fn save_fp(&self, _fp: &mut Fp) {
        self.script.note(Did::SavedFp);
    }

    fn set_deadline(&self, at: Option<u64>) {
        self.script.note(Did::Deadline(at));
        self.script.deadline.set(at);
    }

    fn set_timer_active(&self, active: bool) {
        self.script.note(Did::TimerActive(active));
    }

    fn wait_for_interrupt(&self) {
        self.script.note(Did::Slept);
        // To the end of its sleep, if that is known.
        if !self.script.waits(self.now())
            && let Some(at) = self.script.deadline.get()
        {
            self.pass(at.saturating_sub(self.now()));
        }
    }

    fn acknowledge(&self) -> Option<(Irq, Irq)> {
        let next = self.script.irqs.borrow_mut().pop_front();
        let deadline = || self.script.deadline.get().is_some_and(|at| at <= self.now()).then_some(Irq::Deadline);
        next.or_else(deadline).map(|irq| (irq, irq))
    }

    fn end(&self, irq: Irq, deactivate: bool) {
        self.script.note(Did::Ended(irq, deactivate));
    }

    fn send_console(&self, _host: &Host) {
        self.script.note(Did::SentConsole);
    }

    fn serve_uart(&self, host: &Host) {
        self.script.note(Did::ServedUart);
        self.script.typed.take().into_iter().for_each(|byte| operator::typed(host, self, byte));
    }

    fn power_off(&self, _host: &Host) {
        self.script.note(Did::PoweredOff);
    }
}
