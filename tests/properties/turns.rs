//! The turns of one CPU's run loop, one thing at a time: what it has the CPU do, in which order, and what it leaves alone. What comes of
//! several CPUs and all that may happen at once is in `run`.

use crate::exits::model;
use crate::pressure::SECOND;
use flatland::addr::{CpuId, IntId, VcpuId};
use flatland::arm::esr::ec;
use flatland::arm::gic::gicd;
use flatland::devices::virtio_intid;
use flatland::host::{Host, operator};
use flatland::machine::Machine;
use flatland::memory::RAM_BASE;
use flatland::next::Cause;
use flatland::run::{Exit, Irq, RunLoop};
use flatland::sched::EntityState;
use flatland::vcpu::Registers;
use flatland::vgic::Line;
use flatland::vm::{NOWHERE, Power, Slot, State, Vm, request};
use harness::cpu::{BoardPlan, Cpu, host_on, shown};
use harness::model::Model;
use harness::script::Did;
use std::sync::atomic::Ordering::SeqCst;

const ONE: BoardPlan<'_> = BoardPlan::new(1, &["one"]);

/// A CPU with its loop.
struct Turns<'m> {
    cpu: Cpu<'m>,
    host: &'static Host,
    run: RunLoop<'static>,
}

impl<'m> Turns<'m> {
    /// One whose VMs begin.
    fn new(model: &'m Model, plan: &BoardPlan<'_>) -> Self {
        let (cpu, host) = (Cpu::new(model), host_on(model, plan));
        host.begin_all(&cpu);
        let run = RunLoop::new(host, &cpu, CpuId(0));
        Self { cpu, host, run }
    }

    /// The same from when a guest was entered first.
    fn running(model: &'m Model, plan: &BoardPlan<'_>) -> Self {
        let mut turns = Self::new(model, plan);
        turns.until(Did::Entered);
        turns
    }

    fn vm(&self) -> &'static Vm {
        &self.host.fleet.vms[0]
    }

    fn slot(&self) -> &'static Slot {
        &self.vm().slots[0]
    }

    /// Has the loop make a turn. What it did.
    fn turn(&mut self) -> Vec<Did> {
        self.cpu.script.did();
        self.run.turn(&self.cpu);
        self.cpu.script.did()
    }

    /// Has it make turns until it did this; what it did in that one.
    fn until(&mut self, what: Did) -> Vec<Did> {
        for _ in 0..100 {
            let did = self.turn();
            if did.contains(&what) {
                return did;
            }
        }
        panic!("it never did {what:?}");
    }

    /// Has it make turns until memory has not to be looked after for a while. Until when.
    fn rest(&mut self) -> u64 {
        for _ in 0..100 {
            let due = self.host.housekeeping(&self.cpu).expect("memory is looked after each second");
            if due > self.cpu.now() + SECOND / 2 {
                return due;
            }
            self.cpu.script.then(|cpu, _| {
                cpu.pass(2000);
                cpu.script.interrupt(Irq::Signal);
                Exit::Interrupt
            });
            self.turn();
        }
        panic!("memory is always to be looked after");
    }

    /// The deadline in force when it did this.
    fn deadline_at(did: &[Did], what: Did) -> Option<u64> {
        let at = did.iter().position(|is| *is == what).unwrap_or_else(|| panic!("no {what:?} in {did:?}"));
        let set = did[..at].iter().rev().find_map(|is| if let Did::Deadline(at) = is { Some(*at) } else { None });
        set.unwrap_or_else(|| panic!("no deadline before {what:?} in {did:?}"))
    }

    fn count(did: &[Did], what: Did) -> usize {
        did.iter().filter(|is| **is == what).count()
    }

    /// Types a command for the monitor.
    fn command(&self, text: &str) {
        text.bytes().chain(*b"\r").for_each(|byte| operator::typed(self.host, &self.cpu, byte));
        shown(self.host);
    }
}

#[test]
fn the_operator_is_answered_by_the_cpu_that_keeps_house_and_after_what_waits() {
    let model = model();
    let mut turns = Turns::running(&model, &BoardPlan::new(2, &["one"]));
    operator::typed(turns.host, &turns.cpu, 0x1d);
    turns.command("help");
    let mut other = RunLoop::new(turns.host, &turns.cpu, CpuId(1));
    other.turn(&turns.cpu);
    assert_eq!(shown(turns.host), "", "another CPU answers");
    turns.cpu.script.interrupt(Irq::Other);
    turns.turn();
    assert_eq!(shown(turns.host), "", "an interrupt waits, and the operator is answered first");
    let (mut lines, mut interrupted) = (0, 0);
    while turns.host.console.answers.load(SeqCst) {
        let now = turns.cpu.now();
        let did = turns.turn();
        lines += 1;
        assert!(shown(turns.host).matches('\n').count() <= 1);
        // Whoever runs meanwhile is interrupted for the next line after 200 us, if not before for something else.
        let at = Turns::deadline_at(&did, Did::Entered).expect("memory is looked after each second");
        assert!(
            at <= now + 12_500 || !turns.host.console.answers.load(SeqCst),
            "the next line waits until {at} at {now}"
        );
        interrupted += u32::from(at == now + 12_500);
    }
    assert!(lines > 5 && interrupted > lines / 2, "{interrupted} of {lines}");
    let due = turns.rest();
    assert_eq!(Turns::deadline_at(&turns.turn(), Did::Entered), Some(due), "nothing is left to be answered");
}

#[test]
fn a_cpu_with_nobody_to_run_sleeps_until_something_is_due() {
    let model = model();
    let mut turns = Turns::running(&model, &BoardPlan::new(2, &["one"]));
    turns.cpu.script.sleep();
    turns.turn();
    let due = turns.host.housekeeping(&turns.cpu).expect("memory is looked after each second");
    let did = turns.turn();
    assert_eq!(Turns::deadline_at(&did, Did::Slept), Some(due));
    assert!(did.contains(&Did::Ended(Irq::Deadline, true)), "{did:?}");
    // Of another CPU it is none of its business; a virtual timer that nobody is loaded to end is ended here.
    let mut other = RunLoop::new(turns.host, &turns.cpu, CpuId(1));
    turns.cpu.script.did();
    turns.cpu.script.interrupt(Irq::Other);
    turns.cpu.script.interrupt(Irq::VirtualTimer);
    other.turn(&turns.cpu);
    let did = turns.cpu.script.did();
    assert_eq!(did[..2], [Did::Ended(Irq::Other, true), Did::Ended(Irq::VirtualTimer, true)], "{did:?}");
    assert_eq!(Turns::deadline_at(&did, Did::Slept), None);
}

#[test]
fn whoever_is_to_be_woken_interrupts_what_is_long() {
    let model = model();
    let mut turns = Turns::running(&model, &ONE);
    let slot = turns.slot();
    // It waits for its balloon, which gives it an end.
    let wait = move |_: &Cpu<'_>, registers: &mut Registers| {
        slot.requests.fetch_or(request::SERVE, SeqCst);
        registers.esr = ec::WFX << 26 | 1 << 25;
        Exit::Synchronous
    };
    let managed = turns.rest();
    turns.cpu.pass(managed - 10_000 - turns.cpu.now());
    turns.cpu.script.then(wait);
    turns.turn();
    let due = turns.host.queue.lock().deadline(CpuId(0));
    assert!(due.is_some_and(|at| at > managed), "{due:?}");
    // First memory is to be looked after, then only the vCPU is waited for.
    assert_eq!(Turns::deadline_at(&turns.turn(), Did::Slept), Some(managed));
    let did = turns.turn();
    assert_eq!(did[..2], [Did::Deadline(due), Did::Deadline(due)], "{did:?}");
    // A VM is to be cleared away, whose registers are here.
    turns.until(Did::Entered);
    turns.cpu.script.then(wait);
    turns.turn();
    turns.host.stop(&turns.cpu, turns.vm(), Cause::Restart);
    let did = turns.turn();
    assert_eq!(did[..2], [Did::Nobody, Did::Deadline(None)], "{did:?}");
}

#[test]
fn a_vcpu_that_sleeps_stays_loaded_unless_its_vm_is_paused() {
    let model = model();
    let mut turns = Turns::running(&model, &ONE);
    turns.cpu.script.sleep();
    turns.turn();
    for _ in 0..3 {
        let did = turns.turn();
        assert!(did.contains(&Did::Slept) && !did.contains(&Did::Nobody), "{did:?}");
    }
    assert!(turns.host.pause(&turns.cpu, turns.vm()));
    assert!(turns.until(Did::Slept).contains(&Did::Nobody), "somebody may want to look at its registers");
    assert!(turns.slot().vcpu.try_lock().is_some());
    assert!(turns.host.resume(&turns.cpu, turns.vm()));
    turns.host.queue.wake(&turns.cpu, turns.slot().entity);
    turns.until(Did::Loaded);
}

#[test]
fn the_console_is_sent_once_by_a_cpu_between_its_guests() {
    let model = model();
    let mut turns = Turns::running(&model, &ONE);
    turns.host.console.to_send.store(true, SeqCst);
    for sends in [1, 0, 0] {
        assert_eq!(Turns::count(&turns.turn(), Did::SentConsole), sends);
    }
}

#[test]
fn fp_registers_are_loaded_at_their_first_use_and_saved_with_the_others() {
    let model = model();
    let mut turns = Turns::running(&model, &BoardPlan::new(1, &["one", "two"]));
    turns.cpu.script.leave(ec::FP, 0);
    let did = turns.until(Did::LoadedFp);
    assert_eq!(Turns::count(&did, Did::Entered), 2, "{did:?}");
    // The other VM takes the CPU, by its slice at the latest.
    let did = turns.until(Did::Nobody);
    assert_eq!(Turns::count(&did, Did::SavedFp), 1, "{did:?}");
    let did = turns.until(Did::Nobody);
    assert_eq!(Turns::count(&did, Did::SavedFp), 0, "nobody has used FP since: {did:?}");
}

#[test]
fn fp_that_traps_though_it_is_loaded_ends_a_vm_without_an_el2() {
    for nested in [false, true] {
        let model = model();
        let mut turns = Turns::running(&model, &BoardPlan { nested, ..ONE });
        turns.cpu.script.leave(ec::FP, 0);
        turns.cpu.script.leave(ec::FP, 0);
        let did = turns.turn();
        assert_eq!(Turns::count(&did, Did::LoadedFp), 1, "{did:?}");
        if nested {
            // Its hypervisor had it trap, and does not any more.
            assert_eq!(did.iter().rev().find(|is| matches!(is, Did::TrappedFp(_))), Some(&Did::TrappedFp(false)));
            assert_eq!(turns.vm().life.state(), State::Running);
            continue;
        }
        assert!(!did.contains(&Did::TrappedFp(false)), "{did:?}");
        assert!(shown(turns.host).contains("its FP registers trap though they are loaded"));
        assert!(matches!(turns.vm().life.state(), State::Stopping(_)));
    }
}

/// GICD_ISPENDR1, as the first vCPU reads it.
fn pending(vm: &Vm, intid: IntId) -> bool {
    vm.vgic.lock().dist_read(VcpuId(0), gicd::ISPENDR + 4, 4) >> (intid.0 - 32) & 1 != 0
}

#[test]
fn what_is_asked_of_a_vcpu_is_done_before_it_is_entered_and_nothing_else_is() {
    /// Bits of ICH_HCR_EL2 that nobody sets.
    const UNTOUCHED: u32 = 0x5a << 16;
    let balloon = virtio_intid(0);
    for asked in 0..16 {
        let asked: u32 = [request::REFILL, request::LEAVE, request::SEND, request::SERVE]
            .into_iter()
            .enumerate()
            .filter_map(|(bit, request)| (asked >> bit & 1 != 0).then_some(request))
            .sum();
        let has = |request| asked & request != 0;
        let model = model();
        let mut turns = Turns::running(&model, &ONE);
        // So that the turns before have nothing left, and a device that is looked at would take its input back.
        turns.slot().requests.store(0, SeqCst);
        turns.host.line(&turns.cpu, turns.vm(), balloon, Line::High);
        turns.slot().requests.store(0, SeqCst);
        turns.cpu.lists.borrow_mut().1 = UNTOUCHED;
        let slot = turns.slot();
        slot.requests.store(asked, SeqCst);
        let left = std::rc::Rc::new(std::cell::Cell::new(None));
        let at_entry = left.clone();
        turns.cpu.script.then(move |cpu, _| {
            at_entry.set(Some(slot.requests.load(SeqCst)));
            cpu.script.interrupt(Irq::Signal);
            Exit::Interrupt
        });
        let did = turns.turn();
        let (served, filled) = (!pending(turns.vm(), balloon), turns.cpu.lists.borrow().1 != UNTOUCHED);
        let text = format!("requests {asked:#b}: {did:?}");
        assert_eq!(Turns::count(&did, Did::SentConsole), usize::from(has(request::SEND)), "{text}");
        assert_eq!(served, has(request::SERVE), "{text}");
        if has(request::LEAVE) {
            assert_eq!((left.get(), filled), (None, false), "{text}");
            assert_eq!(slot.requests.load(SeqCst), asked & request::REFILL, "{text}");
        } else {
            assert_eq!(filled, has(request::REFILL), "{text}");
            assert_eq!(left.get(), Some(0), "{text}");
        }
    }
}

#[test]
fn a_vcpu_that_waits_is_blocked_until_its_interrupt_or_its_balloon() {
    for asked in [0, request::SERVE, request::SEND, request::REFILL] {
        let model = model();
        let mut turns = Turns::running(&model, &ONE);
        let slot = turns.slot();
        turns.cpu.script.then(move |_, registers| {
            slot.requests.fetch_or(asked, SeqCst);
            registers.esr = ec::WFX << 26 | 1 << 25;
            Exit::Synchronous
        });
        let now = turns.cpu.now();
        turns.turn();
        let retry = (asked == request::SERVE).then(|| turns.host.retry_at(now));
        assert_eq!(turns.host.queue.lock().state(slot.entity), EntityState::Blocked(retry), "asked {asked:#b}");
    }
}

#[test]
fn interrupts_are_taken_until_none_waits_but_for_what_stays_until_the_lists_are_filled() {
    let model = model();
    let mut turns = Turns::running(&model, &ONE);
    for irqs in [
        vec![Irq::Nudge, Irq::Other, Irq::Signal],
        vec![Irq::Other, Irq::Uart, Irq::Nudge],
        vec![Irq::Signal, Irq::VirtualTimer, Irq::Nudge],
        vec![Irq::Nudge, Irq::Maintenance],
        vec![Irq::Signal; 16],
    ] {
        let coming = irqs.clone();
        turns.cpu.script.then(move |cpu, _| {
            coming.into_iter().for_each(|irq| cpu.script.interrupt(irq));
            Exit::Interrupt
        });
        let did = turns.turn();
        let ended: Vec<_> = did.iter().filter(|is| matches!(is, Did::Ended(..))).take(irqs.len()).copied().collect();
        // The virtual timer's is its guest's to deactivate.
        let expected: Vec<_> = irqs.iter().map(|irq| Did::Ended(*irq, *irq != Irq::VirtualTimer)).collect();
        assert_eq!(ended, expected);
        let at = did.iter().position(|is| *is == expected[expected.len() - 1]).unwrap();
        let again = did[at..].contains(&Did::Entered);
        let is_resumed = !irqs.iter().any(|irq| matches!(irq, Irq::Signal | Irq::Uart | Irq::Deadline));
        assert_eq!(again, is_resumed, "{irqs:?}: {did:?}");
        while !turns.cpu.script.irqs.borrow().is_empty() {
            turns.turn();
        }
    }
    // Of two that stay, the CPU takes one and fills the lists.
    turns.cpu.script.then(|cpu, _| {
        cpu.script.interrupt(Irq::Maintenance);
        cpu.script.interrupt(Irq::Maintenance);
        Exit::Interrupt
    });
    turns.cpu.script.then(|cpu, _| {
        assert_eq!(cpu.script.irqs.take().len(), 1);
        cpu.script.interrupt(Irq::Signal);
        Exit::Interrupt
    });
    let did = turns.turn();
    assert_eq!(Turns::count(&did, Did::Entered), 2, "{did:?}");
}

#[test]
fn an_serror_is_the_fault_of_who_ran() {
    let model = model();
    let mut turns = Turns::new(&model, &ONE);
    turns.cpu.script.serror.set(true);
    turns.until(Did::Entered);
    assert_eq!(turns.vm().life.state(), State::Running, "it was there before");
    turns.cpu.script.then(|_, _| Exit::SError);
    turns.turn();
    assert!(shown(turns.host).contains("the board raised an SError while it ran"));
    assert!(matches!(turns.vm().life.state(), State::Stopping(_)));

    let mut turns = Turns::running(&model, &BoardPlan::new(1, &["one", "two"]));
    turns.cpu.script.serror.set(true);
    turns.until(Did::Nobody);
    let ended = |state| matches!(state, State::Stopping(_) | State::Ended(_));
    let n_ended = turns.host.fleet.vms.iter().filter(|vm| ended(vm.life.state())).count();
    assert_eq!(n_ended, 1);
    assert!(shown(turns.host).contains("the board raised an SError while it ran"));
}

#[test]
fn a_vm_is_over_when_the_last_of_its_vcpus_is_off_and_then_the_board() {
    let off = |_: &Cpu<'_>, registers: &mut Registers| {
        registers.x[0] = 0x8400_0002;
        registers.esr = ec::HVC64 << 26 | 1 << 25;
        Exit::Synchronous
    };
    let model = model();
    let mut turns = Turns::running(&model, &ONE);
    let [first, second] = &turns.vm().slots[..] else { panic!("it has two vCPUs") };
    turns.cpu.script.then(|cpu, registers| {
        (registers.x[0], registers.x[1], registers.x[2]) = (0xc400_0003, 1, RAM_BASE.bits());
        registers.esr = ec::HVC64 << 26 | 1 << 25;
        cpu.script.interrupt(Irq::Signal);
        Exit::Synchronous
    });
    turns.turn();
    assert!(first.power() != Power::Off && second.power() != Power::Off);
    for (on, state) in [(1, State::Running), (0, State::Stopping(Cause::Crash("all its vCPUs are off")))] {
        turns.cpu.script.then(off);
        let did = turns.until(Did::Nobody);
        assert!(!did.contains(&Did::PoweredOff));
        assert_eq!(turns.vm().slots.iter().filter(|slot| slot.power() != Power::Off).count(), on);
        let mut off = turns.vm().slots.iter().filter(|slot| slot.power() == Power::Off);
        assert!(off.all(|slot| slot.running.load(SeqCst) == NOWHERE));
        assert_eq!(turns.vm().life.state(), state);
    }
    turns.until(Did::PoweredOff);
    assert!(shown(turns.host).contains("one: crashed: all its vCPUs are off"));
}
