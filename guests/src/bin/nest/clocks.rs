//! Timers: the guest's own, with an offset and their interrupts handed over; those of EL2, while a guest runs and not.
//!
//! Follows Arm ARM D12.2.

use crate::l2::{CODE, DATA, HVC, PROGRAM, Vm};
use crate::lists;
use crate::ops::{ISB, SPIN, Sys, WFI, hvc};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::el2::{self, El1, Register, guest};
use rt::timer::{PATIENCE, micros};
use rt::{args, board, check, check_eq, cpu, exception, gic, println, timer};

/// EL2's physical timer: PPI 10.
const HYPERVISOR_IRQ: u32 = 26;
/// EL2's virtual timer: PPI 12.
const HYPERVISOR_VIRTUAL_IRQ: u32 = 28;

const CNTPCT: Sys = Sys(3, 3, 14, 0, 1);
const CNTVCT: Sys = Sys(3, 3, 14, 0, 2);

static CAME: AtomicU64 = AtomicU64::new(0);

/// Runs the group.
pub(crate) fn run() {
    let mut vm = Vm::plain(1);
    offset(&mut vm);
    conditions(&mut vm);
    if args::gic_version() != 3 {
        println!("nest: timers: interrupts skipped: no GICv3, so no list registers in system registers");
        return;
    }
    gic::init();
    lists::begin();
    for sleeps in [false, true] {
        guest_timer(&mut vm, El1::CntvCtl, El1::CntvCval, board::VIRTUAL_TIMER_IRQ, sleeps);
        guest_timer(&mut vm, El1::CntpCtl, El1::CntpCval, board::PHYSICAL_TIMER_IRQ, sleeps);
    }
    own_timer(&mut vm, Register::CnthpCtl, Register::CnthpCval, HYPERVISOR_IRQ);
    if el2::is_vhe() {
        own_timer(&mut vm, Register::CnthvCtl, Register::CnthvCval, HYPERVISOR_VIRTUAL_IRQ);
        named_timer();
    }
    lists::end();
}

fn offset(vm: &mut Vm) {
    let now = Register::Cntpct.read();
    for offset in [0, 1 << 20, now, 1 << 40, 0u64.wrapping_sub(1 << 40), !0] {
        Register::Cntvoff.write(offset);
        vm.exec(&[ISB, CNTPCT.mrs(0), ISB, CNTVCT.mrs(1), ISB, CNTPCT.mrs(2), hvc(0)]);
        let [first, between, last] = [0, 1, 2].map(|n| vm.cpu.x[n]);
        let physical = between.wrapping_add(offset);
        let is_right = first <= physical && physical <= last;
        check!(is_right, "CNTVOFF_EL2 {offset:#x}: CNTVCT_EL0 of the guest", "{first:#x} {between:#x} {last:#x}");
        let (before, here) = (Register::Cntpct.read(), Register::Cntvct.read());
        let seen = here.wrapping_add(if el2::is_vhe() { 0 } else { offset });
        let is_right = before <= seen && seen <= Register::Cntpct.read();
        check!(is_right, "CNTVOFF_EL2 {offset:#x}: CNTVCT_EL0 at EL2", "{before:#x} {here:#x}");
    }
    Register::Cntvoff.write(0);
}

/// ISTATUS by either side, with an offset.
fn conditions(vm: &mut Vm) {
    let ctl = Sys(3, 3, 14, 3, 1);
    let cval = Sys(3, 3, 14, 3, 2);
    let tval = Sys(3, 3, 14, 3, 0);
    let offset = Register::Cntpct.read() / 2;
    Register::Cntvoff.write(offset);
    let now = Register::Cntpct.read() - offset;
    for (deadline, status, name) in [(now, 7, "past"), (now + (1 << 40), 3, "to come")] {
        vm.cpu.x[3] = deadline;
        vm.cpu.x[4] = 3;
        vm.exec(&[cval.msr(3), ctl.msr(4), ISB, ctl.mrs(0), cval.mrs(1), hvc(0)]);
        check_eq!(vm.cpu.x[0], status, "CNTV_CTL_EL0 of the guest, with a deadline {name}");
        check_eq!(vm.cpu.x[1], deadline, "CNTV_CVAL_EL0 of the guest, with a deadline {name}");
        check_eq!(El1::CntvCtl.read(), status, "CNTV_CTL_EL0 of the guest at EL2, with a deadline {name}");
        check_eq!(El1::CntvCval.read(), deadline, "CNTV_CVAL_EL0 of the guest at EL2, with a deadline {name}");
    }
    vm.cpu.x[3] = 1 << 30;
    vm.exec(&[ISB, CNTVCT.mrs(0), tval.msr(3), cval.mrs(1), tval.mrs(2), hvc(0)]);
    let ahead = vm.cpu.x[1].wrapping_sub(vm.cpu.x[0]);
    check!((1 << 30..2 << 30).contains(&ahead), "CNTV_TVAL_EL0 of the guest sets the deadline", "{ahead:#x}");
    check!(vm.cpu.x[2] <= 1 << 30 && vm.cpu.x[2] > 0, "CNTV_TVAL_EL0 of the guest counts down", "{:#x}", vm.cpu.x[2]);
    El1::CntvCtl.write(0);
    Register::Cntvoff.write(0);
}

/// A timer of the guest's: its interrupt ends the run, is handed over, and ended by the guest.
fn guest_timer(vm: &mut Vm, control: El1, deadline: El1, irq: u32, sleeps: bool) {
    lists::clear();
    gic::enable(irq);
    let is_virtual = control == El1::CntvCtl;
    // Not beyond the counter's own value: QEMU's timers do not fire where the sum of deadline and offset overflows.
    let half = Register::Cntpct.read() / 2;
    let offset = if is_virtual { half } else { 0 };
    Register::Cntvoff.write(half);
    vm.write(DATA, 0);
    for round in 1..=10 {
        let at = Register::Cntpct.read() + micros(300);
        deadline.write(at - offset);
        control.write(1);
        vm.cpu.x[0] = DATA;
        vm.cpu.x[1] = round;
        vm.cpu.pc = CODE + if sleeps { guest::SLEEP } else { guest::WAIT };
        vm.cpu.pstate = crate::interrupts::UNMASKED;
        let exit = vm.run();
        let came = Register::Cntpct.read();
        let taken = lists::take();
        check!(exit.vector == 9 && taken.intid == irq, "{control:?}: ends a run, round {round}", "{exit:x?} {taken:?}");
        check!(came >= at, "{control:?}: not before its deadline, round {round}", "{came:#x} {at:#x}");
        check_eq!(control.read(), 5, "{control:?}: its condition is met, round {round}");
        if taken.intid != irq {
            break;
        }
        lists::hand_over(taken);
        let exit = vm.run();
        check!(exit.class() == HVC && exit.iss() == 1, "{control:?}: the guest takes it, round {round}", "{exit:x?}");
        check_eq!(lists::last(vm), u64::from(irq), "{control:?}: by its number, round {round}");
        check_eq!(control.read() & 1, 0, "{control:?}: the guest has stopped it, round {round}");
        check!(!gic::is_active(irq) && !gic::is_pending(irq), "{control:?}: it is over, round {round}");
    }
    check_eq!(lists::logged(vm), 10, "{control:?}: once for each deadline");
    Register::Cntvoff.write(0);
    gic::disable(irq);
}

fn hook() {
    let taken = gic::acknowledge();
    Register::CnthpCtl.write(0);
    if el2::is_vhe() {
        Register::CnthvCtl.write(0);
    }
    if taken.intid < 1020 {
        gic::end(taken);
        gic::deactivate(taken);
        CAME.store(u64::from(taken.intid), Ordering::SeqCst);
    }
}

/// A timer of EL2's: it ends runs of guests that spin or wait, and interrupts EL2 itself.
fn own_timer(vm: &mut Vm, control: Register, deadline: Register, irq: u32) {
    lists::clear();
    gic::enable(irq);
    for (word, name) in [(SPIN, "spins"), (WFI, "waits")] {
        for round in 0..5 {
            let at = Register::Cntpct.read() + micros(300);
            deadline.write(at);
            control.write(1);
            let exit = vm.exec(&[word, SPIN]);
            let came = Register::Cntpct.read();
            check!(exit.vector == 9, "{control:?}: ends a run that {name}, round {round}", "{exit:x?}");
            check!(exit.pc == PROGRAM || exit.pc == PROGRAM + 4, "{control:?}: where it {name}", "{exit:x?}");
            check!(came >= at, "{control:?}: not before its deadline, round {round}", "{came:#x} {at:#x}");
            check_eq!(control.read(), 5, "{control:?}: its condition is met, round {round}");
            check_eq!(lists::finish(), irq, "{control:?}: it is that interrupt, round {round}");
            control.write(0);
        }
    }
    exception::set_irq_hook(hook);
    for round in 0..10 {
        CAME.store(0, Ordering::SeqCst);
        let at = Register::Cntpct.read() + micros(300);
        deadline.write(at);
        control.write(1);
        cpu::unmask();
        let came = if round % 2 == 0 {
            timer::wait_until(PATIENCE, || CAME.load(Ordering::SeqCst) != 0)
        } else {
            // Masked before it looks, or the interrupt could come in between.
            cpu::mask();
            while CAME.load(Ordering::SeqCst) == 0 {
                cpu::wfi();
                cpu::unmask();
                cpu::mask();
            }
            true
        };
        let now = Register::Cntpct.read();
        cpu::mask();
        check!(came && now >= at, "{control:?}: interrupts EL2 at its deadline, round {round}", "{now:#x} {at:#x}");
        check_eq!(CAME.load(Ordering::SeqCst), u64::from(irq), "{control:?}: by its number, round {round}");
    }
    deadline.write(Register::Cntpct.read());
    control.write(3);
    check!(!gic::is_pending(irq), "{control:?}: IMASK keeps its line down");
    control.write(1);
    check!(timer::wait_until(PATIENCE, || gic::is_pending(irq)), "{control:?}: its line is up");
    control.write(0);
    check!(timer::wait_until(PATIENCE, || !gic::is_pending(irq)), "{control:?}: its line is down again");
    gic::disable(irq);
}

/// With E2H the names of EL0's timers are EL2's, also for interrupts.
fn named_timer() {
    for (control, deadline, irq) in [
        (Register::NamedCntpCtl, Register::NamedCntpCval, HYPERVISOR_IRQ),
        (Register::NamedCntvCtl, Register::NamedCntvCval, HYPERVISOR_VIRTUAL_IRQ),
    ] {
        gic::enable(irq);
        CAME.store(0, Ordering::SeqCst);
        deadline.write(Register::Cntpct.read() + micros(300));
        control.write(1);
        cpu::unmask();
        let came = timer::wait_until(PATIENCE, || CAME.load(Ordering::SeqCst) != 0);
        cpu::mask();
        check!(came, "{control:?}: interrupts EL2 by EL0's name");
        check_eq!(CAME.load(Ordering::SeqCst), u64::from(irq), "{control:?}: by EL2's number");
        control.write(0);
        gic::disable(irq);
    }
}
