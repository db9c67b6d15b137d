//! Images are loaded in steps: whoever takes them, and whichever VM is stopped between, each VM begins with its own images,
//! whole.

use super::exits::model;
use flatland::addr::{Addr, Ipa, VcpuId};
use flatland::bundle::gzip::pack;
use flatland::host::Host;
use flatland::memory::RAM_BASE;
use flatland::next::Cause;
use flatland::vm::{State, Vm};
use harness::cpu::{BoardPlan, Cpu, host_of, try_host};
use harness::model::Dice;
use std::sync::atomic::Ordering;

/// What a CPU that picked the first vCPU of `vm` does; whether it may run now.
fn pick(cpu: &Cpu<'_>, host: &Host, vm: &Vm) -> bool {
    let Some(state) = vm.life.enter() else { return false };
    let ready = state != State::Loading || host.fill_memory(cpu, vm);
    vm.life.left();
    ready
}

/// Another CPU goes on that found `vm` loading some time ago.
fn go_on(cpu: &Cpu<'_>, host: &Host, vm: &Vm) {
    let ready = host.fill_memory(cpu, vm);
    assert_eq!(ready, vm.life.state() == State::Running, "{} may run once it is whole", vm.name);
    vm.life.left();
}

fn read(cpu: &Cpu<'_>, host: &Host, vm: &Vm, at: Addr<Ipa>, bytes: usize) -> Vec<u8> {
    let mut into = vec![0; bytes];
    vm.memory.lock().read(cpu, &host.pool, at, &mut into).unwrap();
    into
}

#[test]
fn every_vm_begins_with_its_images_whole() {
    let model = model();
    let cpu = Cpu::new(&model);
    let mut dice = Dice::new(11);
    let kernel: Vec<u8> = (0..300_000).map(|n| (dice.roll() >> (n % 7)) as u8 & 0x3f).collect();
    let initrd: Vec<u8> = (0..123_457).map(|_| dice.roll() as u8).collect();
    for file in [kernel.clone(), pack(&kernel)] {
        let host = host_of(&model, &["one", "two", "three"], &[("kernel", &file), ("initrd", &initrd)]);
        host.begin_all(&cpu);
        // Each look at the counter is late, so each step is one piece.
        cpu.pace.set(1 << 20);
        let mut offsets = [0; 3];
        let (mut steps, mut resets, mut late, mut left) = (0, 0, 0, 30);
        // One that another CPU has found loading, and not gone on with yet.
        let mut found: Option<&Vm> = None;
        while left > 0 {
            let vm = &host.fleet.vms[dice.below(3) as usize];
            let stops = match vm.life.state() {
                State::Loading => dice.one_in(120),
                _ => dice.one_in(400),
            };
            if stops || dice.one_in(200) {
                if let Some(vm) = found.take() {
                    late += u32::from(vm.life.state() == State::Running);
                    go_on(&cpu, host, vm);
                }
            } else if found.is_none() && vm.life.state() == State::Loading {
                found = vm.life.enter().map(|_| vm);
            }
            if stops {
                resets += 1;
                host.stop(&cpu, vm, Cause::Reset);
                while host.settle(&cpu) {}
            }
            steps += 1;
            let states = || host.fleet.vms.iter().map(|vm| vm.life.state()).collect::<Vec<_>>();
            assert!(steps < 100_000, "with {left} to come, they are {:?}", states());
            let was = vm.life.state();
            if !pick(&cpu, host, vm) {
                continue;
            }
            assert_eq!(vm.life.state(), State::Running);
            if was == State::Running {
                continue;
            }
            assert!(read(&cpu, host, vm, RAM_BASE + 0x8_0000, kernel.len()) == kernel, "the kernel of {}", vm.name);
            let at = vm.plan.initrd.unwrap().start;
            assert!(read(&cpu, host, vm, at, initrd.len()) == initrd, "the initrd of {}", vm.name);
            assert_eq!(read(&cpu, host, vm, vm.plan.dtb, 4), [0xd0, 0x0d, 0xfe, 0xed]);
            assert_eq!(vm.slot(VcpuId(0)).unwrap().started().0, vm.plan.entry.bits());
            // Its counter begins with its first life, and goes on over a reset.
            let (offset, first) = (vm.offset.load(Ordering::Relaxed), &mut offsets[usize::from(vm.id.0)]);
            assert!(offset > 0 && (*first == 0 || *first == offset), "{offset} of {}, {first} before", vm.name);
            *first = offset;
            left -= 1;
        }
        assert!(
            steps > 30 * (300_000 + 123_457) / 4096 && resets > 5 && late > 5,
            "{steps} steps, {resets} resets, {late} late"
        );
        println!("{steps} steps, {resets} resets, {late} found loading what ran when they went on");
    }
}

/// Pages of an image that lie on a page in the bundle are lent to whoever merges, and are the guest's own once it writes to them.
#[test]
fn pages_of_an_image_are_lent_to_vms_that_merge() {
    let kernel: Vec<u8> = (0..100_000_u32).map(|n| (n / 4096 + n % 251) as u8).collect();
    for merges in [true, false] {
        let model = model();
        let cpu = Cpu::new(&model);
        let plan = BoardPlan { merges, lends: true, ..BoardPlan::new(1, &["one", "two"]) };
        let host = try_host(&model, &plan, &[("kernel", &kernel)]).unwrap();
        let free = host.pool.lock().counts().free;
        host.begin_all(&cpu);
        for vm in &host.fleet.vms {
            while !pick(&cpu, host, vm) {}
            assert!(read(&cpu, host, vm, RAM_BASE + 0x8_0000, kernel.len()) == kernel, "the image is whole");
            // All of its 25 pages but the last, of which it has a part.
            let shared = vm.memory.lock().resident().shared;
            assert_eq!(shared, if merges { 24 } else { 0 });
            let at = RAM_BASE + 0x8_1000;
            vm.memory.lock().write(&cpu, &host.pool, at, &[0xee; 8]).unwrap();
            assert_eq!(vm.memory.lock().resident().shared, if merges { 23 } else { 0 });
            assert_eq!(read(&cpu, host, vm, at, 8), [0xee; 8]);
        }
        assert!(host.pool.lock().counts().free < free);
    }
    // What is unpacked lies nowhere in the bundle.
    let model = model();
    let cpu = Cpu::new(&model);
    let plan = BoardPlan { merges: true, lends: true, ..BoardPlan::new(1, &["one"]) };
    let packed = pack(&kernel);
    let host = try_host(&model, &plan, &[("kernel", &packed)]).unwrap();
    host.begin_all(&cpu);
    let vm = &host.fleet.vms[0];
    while !pick(&cpu, host, vm) {}
    assert!(read(&cpu, host, vm, RAM_BASE + 0x8_0000, kernel.len()) == kernel, "the image is whole");
    assert_eq!(vm.memory.lock().resident().shared, 0);
}
