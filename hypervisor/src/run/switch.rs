//! Loading a vCPU onto a CPU and unloading it (KVM's `vcpu_load` and `vcpu_put`, Xen's `context_switch`).
//!
//! Its registers stay on the CPU when it sleeps or others wait, until they are needed for another, or its VM stops or is paused:
//! a CPU that wakes the vCPU it put to sleep loads nothing.

use super::{Cpu, Loaded, RunLoop, SERROR};
use crate::arm::el1::El1;
use crate::host::Here;
use crate::hwstate::nested::{lists, regime, registers};
use crate::hwstate::{self, debug, timers};
use crate::vcpu::{Vcpu, VcpuKind};
use crate::vm::{Power, Slot, State, Vm, request};
use core::sync::atomic::Ordering;

impl<'h> RunLoop<'h> {
    /// Puts a vCPU's registers onto this CPU. False if it turned out not to be ready.
    pub(super) fn load<C: Cpu>(&mut self, m: &C, vm: &'h Vm, slot: &'h Slot) -> bool {
        if let Some(loaded) = &self.loaded
            && core::ptr::eq(loaded.slot, slot)
        {
            return true;
        }
        self.unload(m);
        let Some(state) = vm.life.enter() else { return false };
        // A vCPU that was picked in its VM's former life is off in this one.
        if slot.power() == Power::Off || state == State::Loading && !self.host.fill_memory(m, vm) {
            vm.life.left();
            return false;
        }
        // What EL2 itself did since nobody was loaded is not the fault of who comes.
        if m.drain_serrors() {
            log::warn!("the board raised an SError while no VM ran on CPU {}", self.cpu.0);
        }
        let mut vcpu = slot.vcpu.lock();
        let here = Here { host: self.host, vm, slot };
        if slot.requests.fetch_and(!request::START, Ordering::SeqCst) & request::START != 0 {
            let (pc, x0) = slot.started();
            vcpu.reset(pc, x0);
            vm.vgic.lock().lower_ppis(vcpu.id);
            let Vcpu { common, kind } = &mut *vcpu;
            if let VcpuKind::Nested(nested) = kind {
                nested.reset_page(m, self.host.facts.midr, common.mpidr);
                regime::start(here, m, common, nested);
            }
        }
        m.load_context(&vcpu.saved, &registers::el2_registers(here, m, &vcpu, self.cpu));
        debug::arm(m, &vcpu, vcpu.saved.get(El1::Mdscr));
        // vCPUs of one VM share its VMID, but each has translations of its own: two may use an ASID for different spaces.
        if let Some(last) = self.last.get_mut(usize::from(vm.id.0))
            && last.replace(vcpu.id).is_some_and(|last| last != vcpu.id)
        {
            m.forget_stage1();
        }
        match vcpu.nested_mut().filter(|nested| nested.lends_interface()) {
            Some(nested) => lists::lend(m, nested),
            None => m.load_interface(&vcpu.interface),
        }
        if vcpu.timer_active {
            m.set_timer_active(true);
        }
        self.loaded = Some(Loaded { vm, slot, vcpu, fp: false });
        super::refill_before_run(slot);
        let set = self.host.queue.lock().loaded(slot.entity, self.cpu, m.now());
        self.host.queue.signal(m, set);
        true
    }

    /// Takes the loaded vCPU's registers off this CPU.
    pub(super) fn unload<C: Cpu>(&mut self, m: &C) {
        let Some(mut loaded) = self.loaded.take() else { return };
        // Now, or it would hit who comes next; with all registers still there for the report.
        if m.drain_serrors() {
            self.host.stop_with_report(m, loaded.vm, &loaded.vcpu, SERROR);
        }
        let _ = hwstate::lists::wakes(loaded.here(self.host), m, &mut loaded.vcpu);
        if loaded.vcpu.timer_active {
            m.set_timer_active(false);
        }
        let vcpu = &mut *loaded.vcpu;
        match vcpu.nested_mut().filter(|nested| nested.lends_interface()) {
            Some(nested) => lists::put_guests_away(m, nested),
            None => {
                let in_hardware = core::mem::take(&mut vcpu.in_hardware);
                m.save_interface(&mut vcpu.interface, in_hardware);
            }
        }
        if loaded.fp {
            m.save_fp(&mut loaded.vcpu.fp);
        }
        if let Some(nested) = loaded.vcpu.nested() {
            registers::keep_abort(m, nested);
        }
        m.save_context(&mut loaded.vcpu.saved);
        m.be_nobody();
        if loaded.vcpu.nested().is_some() {
            m.reset_traps();
        }
        let deadline = timers::sleep_deadline(loaded.vm, &loaded.vcpu, m);
        let entity = loaded.slot.entity;
        drop(loaded.vcpu);
        loaded.vm.life.left();
        let now = m.now();
        let mut queue = self.host.queue.lock();
        let set = queue.unloaded(entity, now);
        let more = queue.wake_by(entity, deadline, now);
        drop(queue);
        self.host.queue.signal(m, set);
        self.host.queue.signal(m, more);
    }
}
