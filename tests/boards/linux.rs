//! Debian guests: the demo on every board, more vCPUs than CPUs, neighbours that misbehave.

use harness::qemu::{Board, Run};

/// The workload's sums, the same on bare QEMU.
const OK: &str = "flatland-workload: OK cpus=2 sha=a69da05d3290a9fb ";

#[track_caller]
fn demo(board: Board, seconds: u32) {
    let ended = Run::start(board, "demo", &[], seconds).end();
    ended.exits_with(0).has(&format!("[alpha] {OK}")).has(&format!("[beta] {OK}"));
    ended.has_line("flatland: alpha: powered off").has_line("flatland: beta: powered off");
    ended.has_line("flatland: all VMs ended: ok").lacks("FAIL").lacks("PANIC");
}

#[test]
fn demo_on_virt() {
    demo(Board::Virt, 120);
}

#[test]
fn demo_on_virt_gicv2_a72() {
    demo(Board::VirtA72, 120);
}

#[test]
fn demo_on_raspi4b() {
    demo(Board::Raspi4b, 400);
}

/// Two guests write to their own copies of one image, and check all that is there; what both read as it is in the image is lent.
#[track_caller]
fn disks(board: Board, seconds: u32) {
    let ended = Run::start(board, "disks", &[], seconds).end();
    ended.exits_with(0).lacks("FAIL").lacks("PANIC").lacks("I/O error");
    for vm in ["alpha", "beta"] {
        ended.has(&format!("[{vm}] flatland-disk: OK disks=2 rounds=2 read="));
    }
    let line = ended.output.lines().find_map(|line| line.strip_prefix("flatland: disks: ")).expect("a sum");
    let value = |name: &str| -> u64 {
        let word = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{name}: {line}"))
    };
    // What cannot be read or written on purpose: behind the end, and what is read-only. By the kernel's driver, not by the disk.
    let [read, lent, errors] = ["read", "lent", "errors"].map(value);
    println!("{board:?}: {line}");
    // Both disks of both guests are read once as they are, 30 MiB each.
    assert!(lent > 60 << 10 && lent <= read && errors == 0, "{line}");
}

/// Three guests ping each other and fetch from each other what is checked; nothing is lost on the way but where nobody has room.
#[track_caller]
fn nets(board: Board, seconds: u32) {
    let ended = Run::start(board, "nets", &["--monitor", "nets"], seconds).end();
    ended.exits_with(0).lacks("FAIL").lacks("PANIC");
    for vm in ["alpha", "beta", "gamma"] {
        ended.has(&format!("[{vm}] flatland-net: OK peers=2 rounds=3 received="));
    }
    let line = ended.output.lines().find_map(|line| line.strip_prefix("flatland: nets: ")).expect("a sum");
    println!("{board:?}: {line}");
    // Each of the three has 4 MiB from both others, three times.
    let kib = line.split_whitespace().find_map(|word| word.strip_prefix("bytes=")?.parse::<u64>().ok());
    assert!(kib >= Some(3 * 2 * 3 * (4 << 10)) && line.contains(" refused=0 "), "{line}");
}

#[test]
fn nets_on_virt() {
    nets(Board::Virt, 300);
}

#[test]
fn nets_on_virt_gicv2_a72() {
    nets(Board::VirtA72, 300);
}

#[test]
fn disks_on_virt() {
    disks(Board::Virt, 300);
}

#[test]
fn disks_on_virt_gicv2_a72() {
    disks(Board::VirtA72, 300);
}

/// Two guests that are busy on one CPU know that each had half of it; one that had a CPU to itself knows that it had.
#[test]
fn guests_know_what_time_others_had() {
    let busy = |name| harness::qemu::Vm::linux(name, 1, "flatland.mode=busy seconds=8");
    for names in [&["one", "two"][..], &["one"]] {
        let vms: Vec<_> = names.iter().copied().map(busy).collect();
        let ended = Run::start(Board::Virt, &harness::qemu::manifest(&vms), &["--smp", "1"], 200).end();
        ended.exits_with(0);
        let steal: Vec<u32> =
            ended.output.lines().filter_map(|line| line.split_once("busy: steal=")?.1.trim().parse().ok()).collect();
        println!("{names:?}: {steal:?} hundredths of a second");
        assert_eq!(steal.len(), names.len());
        for steal in steal {
            // Of 8 seconds; the first guests are also starting meanwhile.
            assert!(if names.len() > 1 { steal > 400 } else { steal < 100 }, "{steal}");
        }
    }
}

#[test]
fn eight_vcpus_on_two_cpus() {
    let ended = Run::start(Board::Virt, "eight", &["--smp", "2"], 300).end();
    ended.exits_with(0);
    for name in ["one", "two", "three", "four"] {
        ended.has(&format!("[{name}] {OK}"));
    }
}

#[test]
fn a_crash_a_spin_and_a_reset_loop_leave_the_fourth_its_share() {
    for board in Board::VIRT {
        let mut run = Run::start(board, "hostile", &["--smp", "2"], 200);
        run.wait_for("flatland: crash: CRASH of vCPU 0", 60);
        run.wait_for("spin: 2 CPUs, interrupts masked", 60).wait_for("[reset] reset: started", 60);
        run.wait_for(&format!("[finisher] {OK}"), 120).wait_for("flatland: finisher: powered off", 20);
        // It wants two CPUs of two most of the time; the spinner wants as much, the one that resets itself wants one: with
        // equal shares it gets no less than a third of what it was there for, and the spinner no more.
        run.send("\x1dtop\r").wait_for("idle  ", 20);
        let output = run.output();
        let share = |vm: &str| {
            let rows = output.lines().filter(|line| line.starts_with(&format!("{vm} ")) && line.ends_with(" %"));
            rows.filter_map(|row| row.split_whitespace().rev().nth(1)?.parse::<f64>().ok()).sum::<f64>()
        };
        let [finisher, spin] = ["finisher", "spin"].map(share);
        println!("{board:?}: the one that works had {finisher:.1} %, the one that spins {spin:.1} %");
        assert!(finisher > 0.9 * spin && spin > 0.0, "{finisher} % is no fair share beside {spin} %");
        run.send("stop spin\rstop reset\r");
        let ended = run.end();
        ended.exits_with(1).has_line("flatland: spin: stopped").has_line("flatland: all VMs ended: 1 crashed");
    }
}

/// gdb's hardware breakpoint and watchpoint are met, perf's breakpoint in the kernel at each of 50 calls, with a step over it.
#[test]
fn debuggers_work_in_a_debian_guest() {
    for board in Board::VIRT {
        let ended = Run::start(board, "debug", &[], 200).end();
        ended.exits_with(0).has("flatland-debug: OK break=1 watch=2 kernel=").lacks("PANIC");
    }
}

#[test]
fn a_linux_that_panics_and_reboots_starts_again() {
    let mut run = Run::start(
        Board::Virt,
        &harness::qemu::manifest(&[harness::qemu::Vm::linux("debian", 2, "flatland.mode=crash")]),
        &[],
        120,
    );
    run.wait_for("flatland: debian: reset, for the 1. time", 60);
    run.wait_for("flatland: debian: reset, for the 2. time", 60);
    run.send("\x1dstop debian\r");
    run.end().exits_with(0).has("Kernel panic - not syncing: sysrq triggered crash");
}
