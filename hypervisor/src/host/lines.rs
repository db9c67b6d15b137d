//! Inputs of a VM's interrupt controller, and the devices that they come from.

use super::{Here, Host};
use crate::addr::{IntId, VcpuId};
use crate::devices::RTC_INTID;
use crate::devices::UART_INTID;
use crate::devices::uart::Flow;
use crate::machine::Machine;
use crate::next::Next;
use crate::vgic::Line;
use crate::vm::{NEVER, Vm, request};
use core::sync::atomic::Ordering;

impl Host {
    /// Sets the input of a shared interrupt of `vm`.
    pub fn line<M: Machine>(&self, m: &M, vm: &Vm, intid: IntId, line: Line) {
        let kicks = vm.vgic.lock().set_line(VcpuId(0), intid, line);
        self.queue.kick(m, vm, kicks);
    }

    /// Sets the input of a private interrupt of the vCPU that is `here`, which looks before it runs again.
    pub fn private_line<M: Machine>(&self, m: &M, here: Here<'_>, vcpu: VcpuId, intid: IntId, line: Line) {
        let kicks = here.vm.vgic.lock().set_line(vcpu, intid, line);
        if kicks.contains(vcpu) {
            here.slot.requests.fetch_or(request::REFILL, Ordering::Relaxed);
        }
        self.queue.kick(m, here.vm, kicks.without(vcpu));
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
            self.console.closed.store(true, Ordering::Release);
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

    /// The line has room again: lets the UARTs that had to wait send.
    pub fn reopen<M: Machine>(&self, m: &M) {
        if !self.console.closed.swap(false, Ordering::AcqRel) {
            return;
        }
        for vm in &self.fleet.vms {
            let mut devices = vm.devices.lock();
            devices.uart.set_flow(Flow::Open);
            while let Some(byte) = devices.uart.take() {
                self.console.lock().put(vm.id, byte);
            }
            self.line(m, vm, UART_INTID, devices.uart.line().into());
        }
        self.console.to_send.store(true, Ordering::Release);
    }

    /// Brings `vm`'s clock to second `now`: its alarm's line, and when the alarm is due.
    pub fn ring<M: Machine>(&self, m: &M, vm: &Vm, now: u64) {
        let mut devices = vm.devices.lock();
        devices.rtc.tick(now);
        let alarm = devices.rtc.alarm();
        vm.alarm.store(alarm.unwrap_or(NEVER), Ordering::Relaxed);
        if alarm.is_some() {
            self.fleet.has_housekeeping.store(true, Ordering::Relaxed);
        }
        self.line(m, vm, RTC_INTID, devices.rtc.line().into());
    }
}
