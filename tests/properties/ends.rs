//! How VMs end, one by one, and what is said and counted of that.

use crate::exits::model;
use flatland::memory::RAM_BASE;
use flatland::next::Cause;
use flatland::vm::State;
use harness::cpu::{Cpu, host_of, run_all, shown};

#[test]
fn each_end_is_told_once_and_crashes_are_counted() {
    let model = model();
    let cpu = Cpu::new(&model);
    let host = host_of(&model, &["one", "two", "three"], &[("kernel", &[0; 64])]);
    run_all(host);
    let causes = [
        (Cause::Crash("it fell"), "one: crashed: it fell", 1),
        (Cause::Off, "two: powered off", 1),
        (Cause::Crash("it fell, too"), "three: crashed: it fell, too", 2),
    ];
    for (vm, (cause, line, crashed)) in host.fleet.vms.iter().zip(causes) {
        assert!(!host.fleet.all_over());
        let _ = shown(host);
        host.stop(&cpu, vm, cause);
        assert!(matches!(vm.life.state(), State::Stopping(_)), "{}", vm.name);
        let steps = (0..10_000).take_while(|_| host.settle(&cpu)).count();
        assert!(steps < 10_000, "{} is never settled", vm.name);
        assert_eq!(vm.life.state(), State::Ended(cause));
        assert_eq!(host.fleet.crashed(), crashed, "{line}");
        let said = shown(host);
        assert_eq!(said.matches("flatland: ").count(), 1, "{said}");
        assert!(said.contains(line), "{said}");
        let resident = vm.memory.lock().resident();
        assert_eq!((resident.frames, resident.shared, resident.packed), (0, 0, 0), "{}", vm.name);
    }
    assert!(host.fleet.all_over());
}

#[test]
fn what_a_vm_had_is_given_back_in_parts_before_its_tables_go() {
    let model = model();
    let cpu = Cpu::new(&model);
    let host = host_of(&model, &["one", "two"], &[("kernel", &[0; 64])]);
    run_all(host);
    let vm = &host.fleet.vms[0];
    let free = host.pool.lock().counts().free;
    let mut written = 0;
    for page in (0..1024_u64).step_by(3) {
        let at = RAM_BASE + (page << 12);
        vm.memory.lock().write(&cpu, &host.pool, at, &page.to_le_bytes()).unwrap();
        written += 1;
    }
    assert!(free - host.pool.lock().counts().free >= written);
    host.stop(&cpu, vm, Cause::Off);
    // A page takes 1 us, by this clock: some of them are a part.
    cpu.pace.set(62);
    let (mut before, mut parts) = (u64::MAX, 0);
    loop {
        let memory = vm.memory.lock();
        let (frames, is_released) = (memory.resident().frames, memory.is_released());
        drop(memory);
        if is_released {
            assert_eq!(before, 0, "tables go when nothing is in them");
            break;
        }
        assert!(before == u64::MAX || frames < before || before == 0, "{frames} of {before} frames");
        assert!(before == u64::MAX || before - frames < 100, "{} in one part", before - frames);
        (before, parts) = (frames, parts + 1);
        assert!(host.settle(&cpu) && parts < 10_000);
    }
    assert!(parts > written / 20, "{parts} parts");
    while host.settle(&cpu) {}
    assert_eq!(vm.life.state(), State::Ended(Cause::Off));
    assert_eq!(host.pool.lock().counts().free, free);
}
