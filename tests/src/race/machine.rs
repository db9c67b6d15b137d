//! A CPU of the board as the run loop and the rooms below it use it, and the operator at its UART.

use super::{ISTATUS, MOST_FRUITLESS, OPEN, Racer, SPI};
use flatland::addr::{Addr, CpuId, IntId, Pa, VcpuId};
use flatland::arm::debug::Debug;
use flatland::arm::el1::{Context, El1};
use flatland::arm::el2::El2Registers;
use flatland::arm::esr::Access;
use flatland::arm::exception::psr;
use flatland::arm::gic::Interface;
use flatland::devices::VIRTUAL_TIMER_INTID;
use flatland::host::Host;
use flatland::machine::{Forget, Machine, Point, Whose, Words};
use flatland::next::Cause;
use flatland::run::{Cpu, Exit, Irq};
use flatland::vcpu::{Fp, Registers};
use flatland::vm::{State, request};
use std::sync::atomic::Ordering::Relaxed;

impl Cpu for Racer<'_> {
    type Ack = Irq;

    fn enter(&self, registers: &mut Registers) -> Exit {
        self.board.count(|counts| counts.entries += 1);
        self.check_entry(registers);
        loop {
            if !self.board.pending(self.n).is_empty() {
                self.own(|own| own.fruitless += 1);
                let fruitless = self.own(|own| own.fruitless);
                assert!(fruitless < MOST_FRUITLESS, "guests on CPU {} are interrupted before they do anything", self.n);
                return Exit::Interrupt;
            }
            self.own(|own| own.fruitless = 0);
            let (vm, slot, n) = self.board.on(self.n);
            let asked = slot.requests.load(Relaxed);
            assert_eq!(asked & request::REFILL, 0, "CPU {} is not told of a request to the vCPU on it", self.n);
            let is_stale = vm.vgic.lock().needs_fill(VcpuId(n as u16));
            // Of several vCPUs one is told after the other.
            let is_told = (0..self.board.cpus.len()).any(|cpu| cpu != self.n && self.board.cpus[cpu].borrow().tells);
            assert!(!is_stale || is_told, "vCPU {n} of {} runs with list registers that are out of date", vm.name);
            self.check_timers();
            if let Some(exit) = self.step(registers) {
                assert_eq!(registers.pstate & psr::MODE, psr::EL1H);
                return exit;
            }
            self.board.pass(2000);
            self.give_way();
        }
    }

    fn drain_serrors(&self) -> bool {
        self.between();
        false
    }

    fn load_context(&self, context: &Context, el2: &El2Registers) {
        self.between();
        self.board.count(|counts| counts.loads += 1);
        self.own(|own| {
            assert!(own.el2.is_none(), "somebody is loaded");
            own.el1 = context.clone();
            own.el2 = Some(*el2);
        });
    }

    fn save_context(&self, context: &mut Context) {
        self.between();
        self.own(|own| *context = own.el1.clone());
    }

    fn be_nobody(&self) {
        self.own(|own| {
            own.el2 = None;
            own.el1.set(El1::CntvCtl, 0);
        });
        self.between();
    }

    fn reset_traps(&self) {}

    fn trap_fp(&self, trap: bool) {
        self.own(|own| own.fp_traps = trap);
    }

    fn load_fp(&self, fp: &Fp) {
        self.own(|own| (own.fp, own.fp_traps) = (fp.clone(), false));
    }

    fn save_fp(&self, fp: &mut Fp) {
        self.own(|own| {
            *fp = own.fp.clone();
            own.fp_traps = true;
        });
    }

    fn set_deadline(&self, at: Option<u64>) {
        self.between();
        self.own(|own| own.deadline = at);
        self.between();
    }

    fn set_timer_active(&self, active: bool) {
        self.own(|own| own.timer_active = active);
        self.between();
    }

    fn wait_for_interrupt(&self) {
        assert!(self.board.is_free(), "CPU {} sleeps with a lock held", self.n);
        let is_asked = self.board.pending(self.n).contains(&Irq::Maintenance);
        assert!(!is_asked, "CPU {} is to sleep, and a maintenance interrupt wakes it whose cause stays", self.n);
        self.board.count(|counts| counts.idles += 1);
        self.own(|own| own.asleep = true);
        while self.board.pending(self.n).is_empty() {
            self.sleep();
        }
        self.own(|own| own.asleep = false);
    }

    fn acknowledge(&self) -> Option<(Irq, Irq)> {
        self.between();
        let pending = self.board.pending(self.n);
        if pending.is_empty() {
            return None;
        }
        let irq = pending[self.board.below(pending.len() as u64) as usize];
        self.own(|own| match irq {
            Irq::Nudge => own.nudge = false,
            Irq::Signal => own.signal = false,
            Irq::VirtualTimer => own.timer_active = true,
            _ => {}
        });
        Some((irq, irq))
    }

    fn end(&self, irq: Irq, deactivate: bool) {
        if irq == Irq::VirtualTimer && deactivate {
            self.own(|own| own.timer_active = false);
        }
        self.between();
    }

    fn send_console(&self, host: &Host) {
        self.between();
        let mut console = host.console.lock();
        console.drain(|_| !self.board.one_in(8));
        if console.is_drained() {
            drop(console);
            host.resume_uarts(self);
        } else {
            // The FIFO is full: its interrupt comes when it is not.
            self.board.uart.set(true);
        }
    }

    fn serve_uart(&self, host: &Host) {
        self.board.uart.set(false);
        let vm = &host.fleet.vms[self.board.below(host.fleet.vms.len() as u64) as usize];
        let running = matches!(vm.life.state(), State::Running | State::Paused);
        match self.board.below(24) {
            0 => {
                self.board.count(|counts| counts.pauses += 1);
                host.pause(self, vm);
            }
            1 if running => {
                self.board.count(|counts| counts.stops += 1);
                host.resume(self, vm);
                host.stop(self, vm, if self.board.one_in(2) { Cause::Operator } else { Cause::Restart });
            }
            // A device's interrupt, as what is typed is one.
            2..20 => {
                let kicks = vm.vgic.lock().pend(VcpuId(0), IntId(SPI as u32));
                host.queue.kick(self, vm, kicks);
            }
            _ => {
                host.resume(self, vm);
                if matches!(vm.life.state(), State::Ended(_)) {
                    host.begin(self, vm);
                }
            }
        }
        self.send_console(host);
    }

    fn power_off(&self, _host: &Host) {
        // Somebody turns it on again.
        self.board.uart.set(true);
    }
}

impl Machine for Racer<'_> {
    fn is_interrupt_pending(&self) -> bool {
        self.between();
        !self.board.pending(self.n).is_empty()
    }

    fn load(&self, at: Addr<Pa>) -> u64 {
        self.board.model.load(at)
    }

    fn store(&self, at: Addr<Pa>, value: u64) {
        self.board.model.store(at, value);
    }

    fn frame(&self, frame: Addr<Pa>) -> &Words {
        self.board.model.frame(frame)
    }

    fn zero(&self, start: Addr<Pa>, frames: u64) {
        self.board.model.zero(start, frames);
    }

    fn publish(&self) {
        self.board.model.publish();
    }

    fn forget(&self, what: Forget) {
        self.board.model.forget(what);
    }

    fn clean(&self, start: Addr<Pa>, bytes: u64, point: Point) {
        self.board.model.clean(start, bytes, point);
    }

    fn invalidate_instructions(&self) {
        self.board.model.invalidate_instructions();
    }

    fn get(&self, register: El1) -> u64 {
        self.between();
        let cpu = self.board.cpus[self.n].borrow();
        let value = cpu.el1.get(register);
        let fires = self.board.fires_at(&cpu).is_some_and(|at| at <= self.board.time.get());
        if register == El1::CntvCtl && fires { value | ISTATUS } else { value }
    }

    fn set(&self, register: El1, value: u64) {
        self.own(|own| own.el1.set(register, value));
    }

    fn exchange(&self, _off: &mut Context, _on: &Context, _el2: &El2Registers) {
        panic!("no VM here has an EL2");
    }

    fn load_debug(&self, _debug: &Debug, _at_el2: bool) {}

    fn has_abort(&self) -> bool {
        false
    }

    fn forget_stage1(&self) {
        let vm = self.board.on(self.n).0;
        self.own(|own| own.tlb[usize::from(vm.id.0)] = None);
    }

    fn probe(&self, _va: u64, _access: Access, _whose: Whose) -> u64 {
        panic!("faults of these guests say where they are");
    }

    fn caches(&self) -> [u64; 2] {
        [0; 2]
    }

    fn now(&self) -> u64 {
        self.between();
        self.board.time.get()
    }

    fn signal(&self, cpu: CpuId) {
        self.board.cpus[usize::from(cpu.0)].borrow_mut().signal = true;
        self.telling();
    }

    fn nudge(&self, cpu: CpuId) {
        self.board.cpus[usize::from(cpu.0)].borrow_mut().nudge = true;
        self.telling();
    }

    fn read_lists(&self, lr: &mut [u64]) -> u32 {
        self.own(|own| {
            lr.copy_from_slice(&own.lr[..lr.len()]);
            own.hcr
        })
    }

    fn write_lists(&self, lr: &[u64], control: u32) {
        self.own(|own| {
            own.lr[..lr.len()].copy_from_slice(lr);
            own.hcr = control;
        });
    }

    fn interface_type(&self) -> u64 {
        self.board.model.interface_type()
    }

    fn load_interface(&self, _interface: &Interface) {
        self.own(|own| assert!(own.lr.iter().all(|lr| *lr == 0), "another's interrupts are in the list registers"));
    }

    fn save_interface(&self, _interface: &mut Interface, lists: usize) {
        self.own(|own| {
            own.lr[..lists].fill(0);
            own.hcr = 0;
        });
    }

    fn interface(&self) -> u64 {
        OPEN
    }

    fn release(&self, intid: IntId) {
        assert_eq!(intid, VIRTUAL_TIMER_INTID);
        self.own(|own| own.timer_active = false);
    }

    fn swap_blocks(&self) -> u32 {
        0
    }

    fn swap_out(&self, _block: u32, _frame: Addr<Pa>) -> bool {
        false
    }

    fn swap_in(&self, _block: u32, _frame: Addr<Pa>) -> bool {
        false
    }
}
