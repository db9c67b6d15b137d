//! Hypervisors as guests: Flatland in Flatland, twice, and Debian's KVM, with and without VHE; what they do is what they would
//! do on the board.

use harness::qemu::{Board, Ended, Run, Vm, manifest, manifest_with};

/// A Flatland with the bundle of this name, as a VM.
fn flatland(name: &'static str, vcpus: u32, memory: &'static str, bundle: &str, more: &str) -> Vm {
    let rest = format!("nested; kernel = \"flatland.img\"; initrd = \"{bundle}.cpio\"; {more}");
    Vm { name, vcpus, memory, rest }
}

/// What the outermost Flatland says of its shadow tables at the end; those inside have their names before it.
const SHADOWS: &str = "flatland: shadows: ";

/// Runs an example with the checker of shadow tables on.
fn checked(board: Board, example: &str, seconds: u32) -> Ended {
    let ended = Run::start(board, example, &["--monitor", "check on"], seconds).end();
    let line = ended.last_line(SHADOWS);
    assert!(line.contains(" wrong=0 ") && !line.contains(" checked=0 "), "{line}");
    ended
}

#[test]
fn flatland_in_flatland_runs_debian_on_two_cpus() {
    let ended = checked(Board::Virt, "nested", 400);
    ended.exits_with(0).has("flatland-workload: OK cpus=2 ").lacks("PANIC").lacks("Call trace");
    ended.has("flatland: outer: powered off").has("flatland: debian: powered off");
    // Both of them.
    assert_eq!(ended.output.matches("flatland: Flatland ").count(), 2);
}

#[test]
fn flatland_in_flatland_in_flatland_runs_debian_on_two_cpus() {
    let ended = checked(Board::Virt, "nested-l3", 600);
    ended.exits_with(0).has("flatland-workload: OK cpus=2 ").lacks("PANIC").lacks("Call trace");
    assert_eq!(ended.output.matches("flatland: Flatland ").count(), 3);
}

/// The same without FEAT_NV2, where virtual EL2 runs at EL0: on the boards that there are to buy.
#[test]
fn flatland_in_flatland_needs_no_help_of_the_cpu() {
    for board in [Board::VirtA72, Board::Raspi4b] {
        let ended = checked(board, "nested", 400);
        ended.exits_with(0).has("flatland-workload: OK cpus=2 ").lacks("PANIC").lacks("Call trace");
        ended.has("flatland: outer: powered off").has("flatland: debian: powered off");
        assert_eq!(ended.output.matches("flatland: Flatland ").count(), 2);
    }
}

#[test]
fn three_deep_needs_no_help_of_the_cpu() {
    let ended = checked(Board::VirtA72, "nested-l3", 600);
    ended.exits_with(0).has("flatland-workload: OK cpus=2 ").lacks("PANIC").lacks("Call trace");
    assert_eq!(ended.output.matches("flatland: Flatland ").count(), 3);
}

#[test]
fn debians_kvm_needs_no_help_of_the_cpu() {
    let ended = checked(Board::VirtA72, "nested-kvm-nvhe", 600);
    ended.exits_with(0).has("flatland-kvm: mode=nVHE").has("[L2] flatland-workload: OK cpus=2 ");
    ended.has("flatland-kvm: OK ").lacks("PANIC").lacks("Call trace");
}

/// Debian's Xen, which finds its dom0 as boot modules, with FEAT_NV2 and without.
#[test]
fn debians_xen_runs_a_debian_dom0() {
    for board in [Board::Virt, Board::VirtA72] {
        let ended = checked(board, "nested-xen", 400);
        ended.exits_with(0).has("(XEN) Xen version 4.20").has("flatland-workload: OK cpus=2 ");
        ended.has("(XEN) Hardware Dom0 halted").lacks("PANIC").lacks("Call trace");
    }
}

#[test]
fn debians_kvm_with_vhe_runs_a_debian_guest() {
    let ended = checked(Board::Virt, "nested-kvm", 600);
    ended.exits_with(0).has("flatland-kvm: mode=VHE").has("[L2] flatland-workload: OK cpus=2 ");
    ended.has("flatland-kvm: OK ").lacks("PANIC").lacks("Call trace");
}

#[test]
fn debians_kvm_without_vhe_runs_a_debian_guest() {
    let ended = checked(Board::Virt, "nested-kvm-nvhe", 600);
    ended.exits_with(0).has("flatland-kvm: mode=nVHE").has("[L2] flatland-workload: OK cpus=2 ");
    ended.has("flatland-kvm: OK ").lacks("PANIC").lacks("Call trace");
}

#[test]
fn two_hypervisors_side_by_side_share_pages_are_compressed_and_keep_every_word() {
    two_hypervisors_side_by_side(Board::Virt);
}

#[test]
fn two_hypervisors_side_by_side_need_no_help_of_the_cpu() {
    two_hypervisors_side_by_side(Board::VirtA72);
}

fn two_hypervisors_side_by_side(board: Board) {
    // Both have the same guests, which check what they keep; there is less memory than they want, and their pages are merged
    // and put away, the hypervisors' and their guests'.
    let vms = ["one", "two"].map(|name| flatland(name, 2, "192M", "churns", "domain = \"lab\"; min = \"24M\";"));
    let manifest = manifest_with(&vms, "policy { pool = \"140M\"; scan-cpu = <100>; };");
    let ended = Run::start(board, &manifest, &["--monitor", "stats on; check on"], 600).end();
    for name in ["one", "two"] {
        for guest in ["left", "right"] {
            ended.has(&format!("[{name}] [{guest}] guest churn: PASS"));
        }
    }
    ended.exits_with(0).lacks("FAIL").lacks("PANIC").lacks("wrong=1");
    let line = ended.last_line(SHADOWS);
    assert!(line.contains(" wrong=0 ") && !line.contains(" killed=0 "), "{line}");
}

#[test]
fn flatland_and_kvm_finish_their_work_on_less_memory_than_they_have() {
    // The examples `nested` and `nested-kvm` at once: merged, compressed and ballooned all the while. The second wants some
    // 230 MiB by itself, so there is too little even when the first is done before it has guests.
    let kvm = Vm {
        name: "kvm",
        vcpus: 2,
        memory: "640M",
        rest: "nested; min = \"64M\"; domain = \"lab\"; kernel = \"linux/Image\"; initrd = \"kvm/initrd.cpio\";
            bootargs = \"console=ttyAMA0 quiet panic=-1 flatland.mode=kvm work=1\";"
            .into(),
    };
    let vms = [flatland("outer", 2, "448M", "debian", "min = \"32M\"; domain = \"lab\";"), kvm];
    let manifest = manifest_with(&vms, "policy { pool = \"160M\"; scan-cpu = <100>; };");
    let ended = Run::start(Board::Virt, &manifest, &["--mem", "1536M", "--monitor", "check on"], 900).end();
    ended.has("[outer] flatland-workload: OK cpus=2 ").has("[kvm] [L2] flatland-workload: OK cpus=2 ");
    ended.has("[kvm] flatland-kvm: OK ").exits_with(0).lacks("PANIC").lacks("Call trace");
    let line = ended.last_line(SHADOWS);
    assert!(line.contains(" wrong=0 ") && !line.contains(" moved=0 ") && !line.contains(" killed=0 "), "{line}");
}

#[test]
fn a_guests_guest_finds_the_machine_that_it_should() {
    // Interrupt controller, timers, registers, PSCI, FP, memory, and what must not harm others, as bare guests check it.
    let ended =
        Run::start(Board::Virt, &manifest(&[flatland("one", 2, "256M", "bare", "")]), &["--monitor", "check on"], 500)
            .end();
    for guest in ["timers", "gic", "fp", "psci", "sysregs", "encodings", "windows", "debug", "memory", "hostile"] {
        ended.has(&format!("[{guest}] guest {guest}: PASS"));
    }
    ended.exits_with(0).lacks("FAIL").lacks("PANIC").has(" wrong=0 ");
}

#[test]
fn every_encoding_at_a_virtual_el2_gives_what_is_announced() {
    let vms = [("without", "strict"), ("with", "strict vhe")].map(|(name, arguments)| {
        let rest = format!("nested; kernel = \"encodings.bin\"; bootargs = \"{arguments}\";");
        Vm { name, vcpus: 1, memory: "64M", rest }
    });
    let ended = Run::start(Board::Virt, &manifest(&vms), &["--monitor", "check on"], 120).end();
    for name in ["without", "with"] {
        ended.has(&format!("[{name}] guest encodings: PASS"));
    }
    ended.exits_with(0).lacks("FAIL").lacks("PANIC");
}

#[test]
fn every_encoding_at_a_virtual_el2_at_el0_gives_what_is_announced() {
    let rest = "nested; nested-backend = \"trap\"; kernel = \"encodings.bin\"; bootargs = \"strict\";";
    let vms = [Vm { name: "without", vcpus: 1, memory: "64M", rest: rest.into() }];
    for (cpu, gic) in [("cortex-a72", "2"), ("max", "3")] {
        let ended =
            Run::start(Board::Virt, &manifest(&vms), &["--cpu", cpu, "--gic", gic, "--monitor", "check on"], 120).end();
        ended.has("guest encodings: PASS").lacks("are wrong").exits_with(0).lacks("FAIL").lacks("PANIC");
    }
}

/// The guest hypervisor that checks what is below it.
fn nest(name: &'static str, arguments: &str, more: &str) -> Vm {
    let rest = format!("nested; kernel = \"nest.bin\"; bootargs = \"{arguments}\"; {more}");
    Vm { name, vcpus: 4, memory: "96M", rest }
}

#[test]
fn hypervisors_with_several_guests_each_find_the_el2_that_they_should() {
    // Every trap, faults of every kind at every level and size, maintenance, interrupts, timers, AT, VMIDs; side by side, and
    // their pages are merged meanwhile, as there are CPUs with time for it.
    let vms = [nest("one", "", "domain = \"lab\";"), nest("two", "vhe", "domain = \"lab\";"), nest("three", "", "")];
    let manifest = manifest_with(&vms, "policy { scan-cpu = <100>; };");
    let ended = Run::start(Board::Virt, &manifest, &["--smp", "4", "--monitor", "check on"], 300).end();
    for name in ["one", "two", "three"] {
        ended.has(&format!("[{name}] nest: OK checks="));
    }
    ended.lacks("FAIL").lacks("PANIC").exits_with(0);
    let line = ended.last_line(SHADOWS);
    assert!(line.contains(" wrong=0 ") && !line.contains(" moved=0 "), "{line}");
}

/// The same checks where virtual EL2 runs at EL0: on CPUs without FEAT_NV2, with VHE and without, and on one that has both.
#[test]
fn hypervisors_find_the_el2_that_they_should_at_el0() {
    for (cpu, gic) in [("cortex-a72", "2"), ("cortex-a76", "3"), ("max", "3")] {
        let vms = [
            nest("one", "", "nested-backend = \"trap\"; domain = \"lab\";"),
            nest("two", "", "domain = \"lab\"; nested-backend = \"trap\";"),
        ];
        let manifest = manifest_with(&vms, "policy { scan-cpu = <100>; };");
        let ended = Run::start(
            Board::Virt,
            &manifest,
            &["--cpu", cpu, "--gic", gic, "--smp", "4", "--monitor", "check on"],
            300,
        )
        .end();
        for name in ["one", "two"] {
            ended.has(&format!("[{name}] nest: OK checks="));
        }
        ended.lacks("FAIL").lacks("PANIC").exits_with(0);
        let line = ended.last_line(SHADOWS);
        assert!(line.contains(" wrong=0 ") && !line.contains(" moved=0 "), "{line}");
    }
}

#[test]
fn a_guests_guest_finds_the_el2_that_it_should() {
    let ended =
        Run::start(Board::Virt, &manifest(&[flatland("one", 2, "320M", "nests", "")]), &["--monitor", "check on"], 400)
            .end();
    for guest in ["plain", "vhe"] {
        ended.has(&format!("[{guest}] nest: OK checks="));
    }
    ended.has(" wrong=0 ").lacks("FAIL").lacks("PANIC").exits_with(0);
}

#[test]
fn a_hypervisor_that_does_anything_harms_itself_alone() {
    harms_itself_alone(Board::Virt);
}

#[test]
fn a_hypervisor_at_el0_that_does_anything_harms_itself_alone() {
    harms_itself_alone(Board::VirtA72);
}

fn harms_itself_alone(board: Board) {
    let rogue = |name, vcpus| Vm {
        name,
        vcpus,
        memory: "16M",
        rest:
            "nested; kernel = \"rogue.bin\"; bootargs = \"lives=4000\"; on-crash = \"restart\"; watchdog-seconds = <1>;"
                .into(),
    };
    let mut good = Vm::linux("good", 1, "");
    good.rest.push_str(" shares = <4000>;");
    let vms = [rogue("one", 1), rogue("two", 2), rogue("three", 2), good];
    let mut run = Run::start(board, &manifest(&vms), &["--monitor", "check on"], 500);
    run.wait_for("[good] flatland-workload: OK", 400);
    for name in ["one", "two", "three"] {
        run.send(&format!("stop {name}\r"));
    }
    let ended = run.end();
    ended.lacks("PANIC").has("flatland: good: powered off").lacks("are wrong");
    let lives = ended.output.matches("rogue: seed").count();
    println!("{lives} lives");
    // How many fit in beside the other's work is this machine's time: each of the three began again at least.
    assert!(lives >= 6, "{lives} lives only");
}

/// The same debuggers in a guest of Debian's KVM: its hypervisor switches breakpoints, traps MDSCR_EL1 and steps.
#[test]
fn debuggers_work_in_a_guests_guest() {
    let ended = checked(Board::Virt, "nested-debug", 400);
    ended.exits_with(0).has("[L2] flatland-debug: OK break=1 watch=2 kernel=").has("flatland-kvm: OK").lacks("PANIC");
}
