//! Networks between VMs: frames from a VM's network device through a switch to others'.
//!
//! What a guest's driver sends is carried to its receivers while the sender's CPU is out of the guest for that, a bounded part at a time;
//! the rest waits as a request until it enters again. A frame is copied once, from page to page, with both memories locked.
//!
//! Locks, in this order: what a device is sending ([`Nic::sending`]), the switch; one device; the memories of two VMs, that of the lower
//! number first. Of two devices only one is locked at a time, so that two VMs may send to each other at once.

use super::guest_ram::GuestRam;
use super::relief::Relief;
use super::{Here, Host};
use crate::addr::{Addr, Ipa};
use crate::devices::device::Device;
use crate::devices::net::{Nic, Sending};
use crate::devices::virtio::net::{Fault, Frame, Net, Wire};
use crate::devices::virtio::queue::Chain;
use crate::devices::virtio::{Left, Ram, Violation};
use crate::devices::virtio_intid;
use crate::machine::Machine;
use crate::vm::{State, Vm, request};
use core::sync::atomic::Ordering;

/// The memories of a sender and of a receiver.
struct Both<'a, M: Machine> {
    from: GuestRam<'a, M>,
    to: GuestRam<'a, M>,
}

impl<'a, M: Machine> Both<'a, M> {
    fn new(host: &'a Host, m: &'a M, from: &'a Vm, to: &'a Vm) -> Self {
        if from.id < to.id {
            let from = GuestRam::new(host, from, m);
            Self { from, to: GuestRam::new(host, to, m) }
        } else {
            let to = GuestRam::new(host, to, m);
            Self { from: GuestRam::new(host, from, m), to }
        }
    }
}

impl<M: Machine> Ram for Both<'_, M> {
    fn read(&mut self, at: Addr<Ipa>, into: &mut [u8]) -> Result<(), Violation> {
        self.to.read(at, into)
    }

    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), Violation> {
        self.to.write(at, bytes)
    }
}

impl<M: Machine> Wire for Both<'_, M> {
    fn copy(&mut self, from: Addr<Ipa>, to: Addr<Ipa>, bytes: u32) -> Result<(), Fault> {
        self.from.copy_to(&mut self.to, (from, to), bytes)
    }
}

impl Host {
    /// Carries out what the drivers of the VM's network devices have sent, or a part of it. What is left is a request; true if it can go
    /// on at once, when interrupts have been let in.
    pub(super) fn serve_nics<M: Machine>(&self, m: &M, here: Here<'_>) -> bool {
        let mut more = false;
        for nic in &here.vm.bus.nics {
            more |= self.serve_nic(m, here, nic);
        }
        more
    }

    pub(super) fn serve_nic<M: Machine>(&self, m: &M, here: Here<'_>, nic: &Nic) -> bool {
        let mut sending = nic.sending.lock();
        if sending.frame.is_none() && !nic.net.lock().has_work() {
            return false;
        }
        let late = self.facts.late(m);
        let left = loop {
            let left = self.send_step(m, here.vm, nic, &mut sending);
            if left != Left::More || late.is_now() {
                break left;
            }
        };
        if left == Left::Nothing {
            return false;
        }
        nic.net.lock().postpone();
        drop(sending);
        here.slot.requests.fetch_or(request::SERVE, Ordering::Relaxed);
        // Where its own pages cannot be had, some are looked for; it goes on with the vCPU, or waits with it.
        left == Left::More || self.relieve(m, &mut || m.is_interrupt_pending()) != Relief::None
    }

    /// Takes the next frame, or brings it to one receiver, or gives its chain back.
    fn send_step<M: Machine>(&self, m: &M, vm: &Vm, nic: &Nic, sending: &mut Sending) -> Left {
        let (lan, port) = nic.at;
        let Some(lan) = self.lans.get(lan) else { return Left::Nothing };
        let Some((frame, to)) = &mut sending.frame else {
            let next = self.with_nic(m, vm, nic, |net| net.next(&mut GuestRam::new(self, vm, m), &mut sending.chain));
            return match next {
                Ok(None) => Left::Nothing,
                Err(left) => left,
                Ok(Some(frame)) => {
                    let now = self.facts.seconds(m.now());
                    let route = || lan.switch.lock().route(port, frame.source, frame.destination, now);
                    sending.frame = Some((frame, if frame.is_sound() { route() } else { None }));
                    Left::More
                }
            };
        };
        let is_refused = to.is_none();
        let before = *to;
        let Some(port) = to.as_mut().and_then(|to| to.take()) else {
            let left = self.with_nic(m, vm, nic, |net| net.sent(&mut GuestRam::new(self, vm, m), frame, is_refused));
            sending.frame = None;
            return if left == Left::Nothing { Left::More } else { left };
        };
        match self.deliver(m, vm, (frame, &sending.chain), lan.ports.get(usize::from(port))) {
            Ok(()) => Left::More,
            Err(Violation::Short) => {
                *to = before;
                Left::Stuck
            }
            Err(Violation::Outside) => {
                sending.frame = None;
                self.with_nic(m, vm, nic, |net| net.fail("a frame is not in RAM"));
                Left::Nothing
            }
        }
    }

    /// Brings `frame` of `vm` to the device at a port.
    fn deliver<M: Machine>(
        &self,
        m: &M,
        vm: &Vm,
        (frame, chain): (&Frame, &Chain),
        to: Option<&(usize, usize)>,
    ) -> Result<(), Violation> {
        let receiver = to.and_then(|(to, nth)| {
            let to = self.fleet.vms.get(*to)?;
            Some((to, to.bus.nics.get(*nth)?))
        });
        // Nobody has two devices at a switch.
        let Some((to, nic)) = receiver.filter(|(to, _)| to.id != vm.id) else { return Ok(()) };
        self.with_nic(m, to, nic, |net| {
            if !net.is_up() {
                return Ok(());
            }
            let mut both = Both::new(self, m, vm, to);
            // Asked with its memory locked: from the moment on that it is stopped, that is given back.
            if !matches!(to.life.state(), State::Running | State::Paused) {
                return Ok(());
            }
            net.receive(&mut both, frame, chain.readable())
        })
    }

    /// Does something with a device, and says what has become of its interrupt.
    fn with_nic<M: Machine, T>(&self, m: &M, vm: &Vm, nic: &Nic, act: impl FnOnce(&mut Net) -> T) -> T {
        let mut net = nic.net.lock();
        let was = net.line();
        let result = act(&mut net);
        let line = net.line();
        if line != was {
            self.line(m, vm, virtio_intid(nic.slot), line.into());
        }
        result
    }
}
