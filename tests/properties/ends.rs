//! How VMs end, one by one, and what is said and counted of that.

use crate::exits::model;
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
