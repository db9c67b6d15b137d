//! PSCI as a guest's kernel calls it (DEN0022): what each call answers, and what it does to the vCPUs.

use super::exits::model;
use flatland::addr::{Addr, VcpuId};
use flatland::arm::desc::Rights;
use flatland::memory::Access;
use flatland::next::{Cause, Kicks, Next};
use flatland::stage2::walk::Found;
use flatland::vcpu::Vcpu;
use flatland::vm::psci::{self, Outcome};
use flatland::vm::{Power, Vm};
use harness::cpu::{Cpu, host};

const INVALID_PARAMETERS: i64 = -2;

fn call(vm: &Vm, x: [u64; 4]) -> Outcome {
    let mut vcpu = Vcpu::new(VcpuId(0), 0x8000_0000, true, true);
    vcpu.registers.x[..4].copy_from_slice(&x);
    psci::call(vm, &vcpu)
}

fn answer(vm: &Vm, x: [u64; 4]) -> i64 {
    let outcome = call(vm, x);
    assert_eq!((outcome.next, outcome.kicks), (Next::Resume, Kicks::NONE), "{x:x?}");
    outcome.x0.expect("it returns").cast_signed()
}

#[test]
fn processors_are_turned_on_once_and_say_what_they_are() {
    let (on, info) = (0xc400_0003, 0xc400_0004);
    let model = model();
    let vm = &host(&model, false, false).fleet.vms[0];
    let slot = &vm.slots[1];
    slot.turn_off();
    assert_eq!(answer(vm, [info, slot.mpidr, 0, 0]), 1, "off");
    assert_eq!(answer(vm, [info, slot.mpidr, 1, 0]), INVALID_PARAMETERS, "of a cluster nothing is known");
    assert_eq!(answer(vm, [info, 77, 0, 0]), INVALID_PARAMETERS);
    assert_eq!(answer(vm, [on, 77, 0x4008_0000, 0]), INVALID_PARAMETERS);
    let outcome = call(vm, [on, slot.mpidr, 0x4008_0000, 7]);
    assert_eq!((outcome.next, outcome.kicks, outcome.x0), (Next::Resume, Kicks::one(VcpuId(1)), Some(0)));
    assert_eq!(answer(vm, [info, slot.mpidr, 0, 0]), 2, "on its way");
    assert_eq!(answer(vm, [on, slot.mpidr, 0x4000_0000, 0]), -5, "ON_PENDING");
    assert_eq!(slot.started(), (0x4008_0000, 7));
    assert_eq!((answer(vm, [info, slot.mpidr, 0, 0]), slot.power()), (0, Power::On));
    assert_eq!(answer(vm, [on, slot.mpidr, 0x4000_0000, 0]), -4, "ALREADY_ON");
}

#[test]
fn calls_of_32_bits_have_arguments_of_32() {
    let dirt = 0xdead_beef << 32;
    let model = model();
    let vm = &host(&model, false, false).fleet.vms[0];
    let slot = &vm.slots[1];
    slot.turn_off();
    assert_eq!(answer(vm, [dirt | 0x8400_0004, dirt | slot.mpidr, dirt, 0]), 1);
    assert_eq!(answer(vm, [0xc400_0004, dirt | slot.mpidr, 0, 0]), INVALID_PARAMETERS, "64 bits are 64");
    assert_eq!(call(vm, [dirt | 0x8400_0003, dirt | slot.mpidr, dirt | 0x4008_0000, dirt | 7]).x0, Some(0));
    assert_eq!(slot.started(), (0x4008_0000, 7));
}

#[test]
fn what_ends_a_vcpu_or_its_vm_does_not_return() {
    let model = model();
    let vm = &host(&model, false, false).fleet.vms[0];
    for (id, x1, next, x0) in [
        (0x8400_0001, 0, Next::WaitForInterrupt, Some(0)),
        (0xc400_0001, 1 << 30, Next::WaitForInterrupt, Some(0)),
        (0x8400_0002, 0, Next::Off, None),
        (0x8400_0008, 0, Next::Stop(Cause::Off), None),
        (0x8400_0009, 0, Next::Stop(Cause::Reset), None),
        (0x8400_0012, 0, Next::Stop(Cause::Reset), None),
        (0xc400_0012, 0, Next::Stop(Cause::Reset), None),
    ] {
        assert_eq!(call(vm, [id, x1, 0, 0]), Outcome { next, kicks: Kicks::NONE, x0 }, "{id:#x}");
    }
    assert_eq!(answer(vm, [0x8400_0012, 1 << 31, 0, 0]), INVALID_PARAMETERS, "a reset of the vendor's");
    assert_eq!(answer(vm, [0x8400_0005, 0, 0, 0]), -1, "MIGRATE");
}

#[test]
fn stolen_time_is_told_where_the_guest_is_told_to_look_and_only_to_be_read() {
    let model = model();
    let host = host(&model, false, false);
    let vm = &host.fleet.vms[0];
    assert!(!vm.slots[0].stolen.is_asked());
    assert_eq!(answer(vm, [0xc500_0021, 0, 0, 0]), 0x90a_0000);
    assert!(vm.slots[0].stolen.is_asked() && !vm.slots[1].stolen.is_asked());
    let cpu = Cpu::new(&model);
    host.begin(&cpu, vm);
    let memory = vm.memory.lock();
    let at = Addr::new(0x90a_0000);
    let Found::Leaf(leaf) = memory.table().walk(&cpu, at) else { panic!("nothing is there") };
    assert_eq!((leaf.output, leaf.attr.rights), (vm.stolen, Rights::R));
    assert!(!memory.allows(&cpu, at, Access::Write));
}

/// What needs no VM to be answered: versions, features, that no trusted OS is there, and that there is no such call (DEN0022, DEN0028).
#[test]
fn facts_are_the_same_whoever_asks() {
    for (function, x1, answer) in [
        (0x8400_0000, 0, Some(0x1_0001)),
        (0x8000_0000, 0, Some(0x1_0001)),
        (0x8400_0006, 0, Some(2)),
        (0x8400_000a, 0x8400_0000, Some(0)),
        (0x8400_000a, 0xc400_0003, Some(0)),
        (0x8400_000a, 0x8400_00ff, Some(-1)),
        (0x8000_0001, 0x8000_0000, Some(0)),
        (0x8000_0001, 0x8000_3f00, Some(-1)),
        // ARCH_WORKAROUND_1: whoever knows the CPU has to say.
        (0x8000_0001, 0x8000_8000, None),
        // PV time: found by SMCCC's features and not by PSCI's; the address is a vCPU's own.
        (0x8000_0001, 0xc500_0020, Some(0)),
        (0x8000_0001, 0xc500_0021, Some(-1)),
        (0x8400_000a, 0xc500_0020, Some(-1)),
        (0xc500_0020, 0xc500_0020, Some(0)),
        (0xc500_0020, 0xc500_0021, Some(0)),
        (0xc500_0020, 0xc500_0022, Some(-1)),
        (0xc500_0021, 0, None),
        (0xdead_beef, 0, Some(-1)),
        (0x8400_0002, 0, None),
        (0xc400_0003, 0, None),
    ] {
        assert_eq!(psci::fact(function, x1), answer, "{function:#x} of {x1:#x}");
    }
}
