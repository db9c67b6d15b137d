//! What is looked after from time to time: VMs that have a watchdog, and the alarms of their clocks.

use crate::exits::{here, model};
use crate::mmio::access;
use crate::pressure::{SECOND, manage};
use flatland::addr::CpuId;
use flatland::devices::{GICD, RTC, RTC_INTID};
use flatland::host::Host;
use flatland::machine::Machine;
use flatland::next::Cause;
use flatland::sched::EntityState;
use flatland::vcpu::Counter;
use flatland::vm::State;
use harness::cpu::{BoardPlan, Cpu, host, host_on, run_all};

/// A host with three VMs, whose watchdogs bite after two seconds.
fn watched<'m>(model: &'m harness::model::Model, cpu: &Cpu<'m>) -> &'static Host {
    let plan = BoardPlan {
        keys: &[("watchdog-seconds", &2_u32.to_be_bytes())],
        ..BoardPlan::new(1, &["one", "two", "three"])
    };
    let host = host_on(model, &plan);
    cpu.pass(SECOND * 100);
    for vm in &host.fleet.vms {
        vm.life.load();
        vm.life.run(cpu.now());
    }
    // The first vCPU of the second VM has run and waits for an interrupt, those of the others want to run. Who is second is off.
    let [one, two, three] = [0, 1, 2].map(|n| host.fleet.vms[n].slots[0].entity);
    let mut queue = host.queue.lock();
    let _ = queue.start(two, cpu.now());
    let _ = queue.pick(CpuId(0), cpu.now());
    queue.block(two, None, cpu.now());
    assert!(matches!(queue.state(two), EntityState::Blocked(None)));
    let _ = (queue.start(one, cpu.now()), queue.start(three, cpu.now()));
    drop(queue);
    host
}

/// Does what is due. Returns when something is due again.
fn look(host: &Host, cpu: &Cpu<'_>) -> u64 {
    manage(cpu, host);
    host.housekeeping(cpu).expect("memory is looked after each second")
}

#[test]
fn a_watchdog_stops_the_vm_that_shows_no_sign_of_life_and_no_other() {
    let model = model();
    let cpu = Cpu::new(&model);
    let host = watched(&model, &cpu);
    let [one, two, three] = [0, 1, 2].map(|n| &host.fleet.vms[n]);
    // The second waits, the third does something each quarter of a second.
    let first = cpu.now();
    let mut over = None;
    for _ in 0..20 {
        let now = cpu.now();
        let due = look(host, &cpu);
        assert!(due > now && due <= now + SECOND / 4, "it looks again in a quarter of a second");
        if one.life.state() != State::Running {
            over = over.or(Some(now - first));
        }
        three.slots[0].count(Counter::Hypercall);
        cpu.pass(SECOND / 4);
    }
    assert!(matches!(one.life.state(), State::Stopping(Cause::Crash(why)) if why.contains("watchdog")));
    assert_eq!(over, Some(2 * SECOND));
    assert_eq!((two.life.state(), three.life.state()), (State::Running, State::Running));
    // The third shows none from here on: two seconds after the last.
    for quarter in 0..9 {
        let _ = look(host, &cpu);
        assert_eq!(three.life.state() == State::Running, quarter < 8, "after {quarter} quarters of a second");
        cpu.pass(SECOND / 4);
    }
    // The second wakes: its time began when it was last found asleep, a quarter before.
    host.queue.wake(&cpu, two.slots[0].entity);
    for quarter in 0..9 {
        let _ = look(host, &cpu);
        assert_eq!(two.life.state() == State::Running, quarter < 7, "after {quarter} quarters of a second");
        cpu.pass(SECOND / 4);
    }
}

#[test]
fn a_paused_vm_is_not_watched() {
    let model = model();
    let cpu = Cpu::new(&model);
    let host = watched(&model, &cpu);
    let vm = &host.fleet.vms[0];
    let _ = look(host, &cpu);
    assert!(host.pause(&cpu, vm));
    for _ in 0..20 {
        cpu.pass(SECOND / 4);
        let _ = look(host, &cpu);
    }
    assert_eq!(vm.life.state(), State::Paused);
}

#[test]
fn an_alarm_comes_in_its_second_and_without_one_nothing_but_memory_is_due() {
    let model = model();
    let cpu = Cpu::new(&model);
    let host = host(&model, false, false);
    run_all(host);
    let here = here(host);
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    cpu.pass(SECOND * 21 / 2);
    let memory = SECOND * 23 / 2;
    assert_eq!(look(host, &cpu), memory);
    // RTCDR, RTCMR, RTCIMSC, RTCRIS and RTCICR (DDI 0224).
    let [dr, mr, imsc, ris, icr] = [0, 4, 0x10, 0x14, 0x1c].map(|offset| RTC + offset);
    let now = access(here, &cpu, &mut vcpu, dr, None);
    access(here, &cpu, &mut vcpu, mr, Some(now + 1));
    access(here, &cpu, &mut vcpu, imsc, Some(1));
    // GICD_ISPENDR1: its line is that of INTID 34.
    assert_eq!(RTC_INTID.0, 34);
    let is_up = |vcpu: &mut _| access(here, &cpu, vcpu, GICD + 0x204, None) >> 2 & 1 != 0;
    // At the first tick of the next second.
    assert_eq!(look(host, &cpu), 11 * SECOND);
    cpu.pass(SECOND / 2 - 1);
    assert_eq!((look(host, &cpu), is_up(&mut vcpu)), (11 * SECOND, false));
    assert_eq!(access(here, &cpu, &mut vcpu, ris, None), 0);
    cpu.pass(1);
    assert_eq!((look(host, &cpu), is_up(&mut vcpu)), (memory, true));
    assert_eq!(access(here, &cpu, &mut vcpu, ris, None), 1);
    access(here, &cpu, &mut vcpu, icr, Some(1));
    assert!(!is_up(&mut vcpu));
    assert_eq!(look(host, &cpu), memory);
    assert_eq!(host.fleet.vms[0].life.state(), State::Running);
}
