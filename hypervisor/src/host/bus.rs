//! The board on the other side of a VM's [bus](crate::devices::bus): what a device asks of it, and the inputs of the VM's
//! interrupt controller that the devices' lines are.

use super::{HOUSEKEEPING_CPU, Here, Host};
use crate::addr::{IntId, VcpuId};
use crate::devices::bus::{Port, Queues};
use crate::devices::device::{Board, Device};
use crate::devices::{UART_INTID, virtio_intid};
use crate::machine::Machine;
use crate::vgic::Line;
use crate::vm::{NEVER, Vm, request};
use core::sync::atomic::Ordering;

/// The board, as a device has it whose guest accesses it.
struct Attached<'a, M> {
    here: Here<'a>,
    m: &'a M,
    ticks: bool,
    serves: bool,
}

impl<M: Machine> Board for Attached<'_, M> {
    fn seconds(&self) -> u64 {
        self.here.host.facts.seconds(self.m.now())
    }

    fn send(&mut self, byte: u8) -> bool {
        // This CPU, if nobody else, drains the console before the vCPU runs again.
        self.here.slot.requests.fetch_or(request::SEND, Ordering::Relaxed);
        self.here.host.send(self.here.vm, byte)
    }

    fn take_input(&mut self) {
        if self.here.host.console.held.load(Ordering::SeqCst) {
            self.here.slot.requests.fetch_or(request::SEND, Ordering::Relaxed);
        }
    }

    fn tick_again(&mut self) {
        self.ticks = true;
    }

    fn serve(&mut self) {
        self.serves = true;
    }
}

impl Host {
    /// What the guest reads of the device at `port`, at an offset and so many bytes.
    pub fn read<M: Machine>(&self, m: &M, here: Here<'_>, port: Port<'_>, (offset, bytes): (u64, u8)) -> u64 {
        self.access(m, here, port, |device, board| device.read(offset, bytes, board))
    }

    /// The guest writes `value` to the device at `port`, at an offset and so many bytes.
    pub fn write<M: Machine>(&self, m: &M, here: Here<'_>, port: Port<'_>, (offset, bytes): (u64, u8), value: u64) {
        self.access(m, here, port, |device, board| device.write(offset, bytes, value, board));
    }

    /// Does `access` to the device at `port` of the VM that is `here`, and what the device asks for.
    fn access<M: Machine, T>(
        &self,
        m: &M,
        here: Here<'_>,
        port: Port<'_>,
        access: impl FnOnce(&mut dyn Device, &mut dyn Board) -> T,
    ) -> T {
        let mut board = Attached { here, m, ticks: false, serves: false };
        let mut device = port.device.lock();
        let was = device.line();
        let value = access(&mut *device, &mut board);
        let line = device.line();
        if line != was {
            self.line(m, here.vm, port.intid, line.into());
        }
        drop(device);
        if board.serves {
            self.serve_one(m, here, port.intid);
        }
        if board.ticks {
            self.tick_devices(m, here.vm, board.seconds());
            // The CPU that watches alarms may be asleep, or this one.
            m.signal(HOUSEKEEPING_CPU);
        }
        value
    }

    /// Does what the driver of the virtio device with this interrupt has asked for, or a part of it: what is left is done before the vCPU
    /// goes on.
    #[inline(never)]
    fn serve_one<M: Machine>(&self, m: &M, here: Here<'_>, intid: IntId) {
        let slot = intid.0.checked_sub(virtio_intid(0).0).and_then(|slot| u8::try_from(slot).ok());
        let _ = match slot.and_then(|slot| here.vm.bus.queues(slot)) {
            Some(Queues::Disk(disk)) => self.serve_disk(m, here, disk),
            Some(Queues::Nic(nic)) => self.serve_nic(m, here, nic),
            Some(Queues::Balloon) => self.serve_balloon(m, here),
            None => false,
        };
    }

    /// Does what the drivers of the VM's virtio devices have asked for, or a part of it. What is left is a request; true if it can go
    /// on at once, when interrupts have been let in.
    #[inline(never)]
    pub fn serve<M: Machine>(&self, m: &M, here: Here<'_>) -> bool {
        let mut more = self.serve_balloon(m, here);
        more |= self.serve_disks(m, here);
        self.serve_nics(m, here) || more
    }

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

    /// `vm` sends a byte to the console: false where that has no room, until [`Self::resume_uarts`].
    fn send(&self, vm: &Vm, byte: u8) -> bool {
        let mut console = self.console.lock();
        if console.room() == 0 {
            // Whoever drains the console next finds it so, as it is before they can have the lock.
            self.console.closed.store(true, Ordering::Release);
            return false;
        }
        console.put(vm.id, byte);
        true
    }

    /// The line has room again: lets the UARTs that had to wait send.
    pub fn resume_uarts<M: Machine>(&self, m: &M) {
        if !self.console.closed.swap(false, Ordering::AcqRel) {
            return;
        }
        for vm in &self.fleet.vms {
            let mut uart = vm.bus.uart.lock();
            uart.resume(&mut |byte| self.send(vm, byte));
            self.line(m, vm, UART_INTID, uart.line().into());
        }
        self.console.to_send.store(true, Ordering::Release);
    }

    /// Brings `vm`'s devices to second `now`: their lines, and when the next is to be ticked.
    pub fn tick_devices<M: Machine>(&self, m: &M, vm: &Vm, now: u64) {
        let ticking = vm.bus.ticking.lock();
        let mut next = NEVER;
        for port in vm.bus.ports() {
            let mut device = port.device.lock();
            next = next.min(device.tick(now).unwrap_or(NEVER));
            self.line(m, vm, port.intid, device.line().into());
        }
        vm.alarm.store(next, Ordering::Relaxed);
        drop(ticking);
        if next != NEVER {
            self.fleet.has_housekeeping.store(true, Ordering::Relaxed);
        }
    }
}
