//! A VM starts, is held, goes on, stops, and starts again: what each takes, of its vCPUs, its memory and its devices.

use super::{Host, build, report};
use crate::addr::VcpuId;
use crate::bundle::OnCrash;
use crate::devices::flash::Bank;
use crate::machine::Machine;
use crate::next::{Cause, Kicks};
use crate::vcpu::Vcpu;
use crate::vm::Vm;
use core::sync::atomic::Ordering;

/// How often a VM that crashes is started again before it is left alone.
const MAX_RESTARTS: u32 = 10;

impl Host {
    /// Starts all VMs.
    pub fn begin_all<M: Machine>(&self, m: &M) {
        for vm in &self.fleet.vms {
            self.begin(m, vm);
        }
    }

    /// Starts `vm` from pristine images: its first vCPU, once it is picked, finds it `Loading` and fills its memory.
    pub fn begin<M: Machine>(&self, m: &M, vm: &Vm) {
        vm.life.load();
        build::furnish(m, &self.pool, &self.facts, vm);
        if let Some(first) = vm.slots.first()
            && first.turn_on(0, 0)
        {
            self.queue.start(m, vm, Kicks::one(VcpuId(0)));
        }
    }

    /// Holds `vm`; false unless it was running.
    pub fn pause<M: Machine>(&self, m: &M, vm: &Vm) -> bool {
        let held = vm.life.pause();
        if held {
            self.queue.send_off(m, vm, |queue, entity, now| queue.pause(entity, now));
            vm.life.left();
            self.queue.signal_all(m);
        }
        held
    }

    /// Lets `vm` go on; false unless it was paused.
    pub fn resume<M: Machine>(&self, m: &M, vm: &Vm) -> bool {
        let released = vm.life.resume();
        if released {
            for slot in &vm.slots {
                let set = self.queue.lock().resume(slot.entity, m.now());
                self.queue.signal(m, set);
            }
        }
        released
    }

    /// Starts stopping `vm` for `cause`; its vCPUs leave their CPUs, the last one settles it.
    pub fn stop<M: Machine>(&self, m: &M, vm: &Vm, cause: Cause) {
        if vm.life.stop(cause, &self.fleet.stopping) {
            self.queue.send_off(m, vm, |queue, entity, now| queue.stop(entity, now));
            vm.life.left();
            self.queue.signal_all(m);
        }
    }

    /// Stops `vm`, whose loaded vCPU gave `cause` for it; a crash is reported first.
    pub fn stop_with_report<M: Machine>(&self, m: &M, vm: &Vm, vcpu: &Vcpu, cause: Cause) {
        if let Cause::Crash(why) = cause {
            report::crash(self, m, vm, vcpu, why);
        }
        self.stop(m, vm, cause);
    }

    /// Settles the VMs that are stopping and have no vCPU loaded any more. A CPU calls it whenever it unloaded one: of
    /// the CPUs that hold vCPUs of a VM, the one that unloads last settles it.
    ///
    /// What they had is given back a part at a time: true if there is more to do at once.
    pub fn settle<M: Machine>(&self, m: &M) -> bool {
        let mut more = false;
        for vm in self.fleet.vms.iter().filter(|vm| vm.life.is_deserted()) {
            // What led here and a part of what follows are too much at once.
            if m.is_interrupt_pending() {
                more = true;
                continue;
            }
            let mut memory = vm.memory.lock();
            // Asked again: another CPU may have settled it since, and loaded its next life. It cannot from here on until this
            // lets go, as the last of what was has to be given back first.
            if !vm.life.is_deserted() {
                continue;
            }
            if !memory.is_released() {
                let late = self.facts.late(m);
                memory.release_some(m, &self.pool, &mut || late.is_now());
                more = true;
                continue;
            }
            drop(memory);
            if m.is_interrupt_pending() {
                more = true;
                continue;
            }
            if let Some(cause) = vm.life.settle(&self.fleet.stopping) {
                self.settled(m, vm, cause);
            }
        }
        more
    }

    /// `vm` is over for `cause`, none of its vCPUs is loaded: gives its memory back and decides what comes next.
    fn settled<M: Machine>(&self, m: &M, vm: &Vm, cause: Cause) {
        self.fleet.loader.lock().forget(vm.id);
        vm.memory.lock().start_anew();
        vm.starving.store(0, Ordering::Relaxed);
        vm.vgic.lock().reset();
        vm.bus.reset();
        vm.flash.lock().iter_mut().for_each(Bank::reset);
        for slot in &vm.slots {
            slot.requests.store(0, Ordering::SeqCst);
            slot.turn_off();
            slot.stolen.reset();
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
            Cause::Off => self.console.say(format_args!("{name}: powered off")),
            Cause::Operator => self.console.say(format_args!("{name}: stopped")),
            // A VM may reset itself for ever: the log tells of ever fewer.
            Cause::Reset if !vm.life.starts().is_power_of_two() => {}
            Cause::Reset => self.console.say(format_args!("{name}: reset, for the {}. time", vm.life.starts())),
            Cause::Restart => self.console.say(format_args!("{name}: restarted")),
            Cause::Crash(why) => {
                self.console
                    .say(format_args!("{name}: crashed: {why}{}", if again { "; starting it again" } else { "" }));
            }
        }
        if again {
            self.begin(m, vm);
        } else {
            if matches!(cause, Cause::Crash(_)) {
                self.fleet.crashed.fetch_add(1, Ordering::Relaxed);
            }
            vm.life.end(cause);
        }
    }
}
