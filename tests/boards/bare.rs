//! Bare-metal guests that check themselves: one question each, on both `virt` boards.

use harness::qemu::{Board, Run, Vm, manifest};

#[track_caller]
fn passes(name: &'static str, vcpus: u32, bootargs: &str) {
    for board in Board::VIRT {
        let manifest = manifest(&[Vm::bare(name, vcpus, bootargs)]);
        let ended = Run::start(board, &manifest, &[], 120).end();
        assert!(ended.output.contains(&format!("guest {name}: PASS")), "on {board:?}:\n{}", ended.output);
        ended.exits_with(0).lacks("PANIC");
    }
}

macro_rules! guests {
    ($($test:ident: $name:literal, $vcpus:literal, $bootargs:literal;)*) => {$(
        #[test]
        fn $test() {
            passes($name, $vcpus, $bootargs);
        }
    )*};
}

guests! {
    hello: "hello", 1, "";
    processors_come_and_go: "smp", 4, "";
    memory_is_zero_at_first_and_keeps_what_it_is_given: "memory", 2, "";
    fp_registers_survive_switches: "fp", 4, "";
    breakpoints_watchpoints_and_steps_hit: "debug", 4, "";
    the_interrupt_controller_conforms: "gic", 4, "";
    timers_fire: "timers", 2, "";
    psci_answers: "psci", 2, "";
    system_registers_are_consistent: "sysregs", 2, "";
    every_encoding_gives_what_is_announced: "encodings", 1, "strict";
    every_offset_of_a_device_gives_what_its_register_does: "windows", 2, "strict sample=32";
    hostile_accesses_harm_the_guest_alone: "hostile", 2, "rounds=300";
    waiting_ends: "wfi", 8, "";
    the_uart_and_the_clock_work: "uart", 1, "echo=no";
    a_reset_starts_from_pristine_images: "reset", 4, "until=3000 strict";
}

#[test]
fn nobody_meets_anothers_breakpoints() {
    // The same program at the same addresses: one sets nothing, one lets all of them hit and sets none.
    let vms = [("", "debug"), ("none", "none"), ("unset", "unset"), ("", "other")].map(|(arguments, name)| {
        let rest = format!("kernel = \"debug.bin\"; bootargs = \"{arguments}\";");
        Vm { name, vcpus: 2, memory: "16M", rest }
    });
    let ended = Run::start(Board::Virt, &manifest(&vms), &[], 120).end();
    for name in ["debug", "none", "unset", "other"] {
        ended.has(&format!("[{name}] guest debug: PASS"));
    }
    ended.exits_with(0).lacks("FAIL").lacks("PANIC");
}

#[test]
fn nobody_finds_what_another_left_in_a_register() {
    let vms = [("one", 1), ("two", 2)].map(|(name, mark)| {
        let rest = format!("kernel = \"encodings.bin\"; bootargs = \"strict mark={mark}\";");
        Vm { name, vcpus: 1, memory: "16M", rest }
    });
    let ended = Run::start(Board::Virt, &manifest(&vms), &["--smp", "1"], 120).end();
    for name in ["one", "two"] {
        ended.has(&format!("[{name}] guest encodings: PASS")).has(&format!("[{name}] encodings: its mark was gone "));
    }
    ended.exits_with(0).lacks("FAIL").lacks("PANIC");
}

#[test]
fn a_crashed_guest_is_started_again_when_the_manifest_says_so() {
    let mut crash = Vm::bare("crash", 1, "how=undefined-loop");
    crash.rest.push_str(" on-crash = \"restart\";");
    let ended = Run::start(Board::Virt, &manifest(&[crash]), &[], 120).end();
    ended.exits_with(1).has("crashed: its exception vector raises exceptions; starting it again");
    ended.has_line("flatland: all VMs ended: 1 crashed");
}

#[test]
fn a_guest_whose_vcpus_are_all_off_has_crashed() {
    let ended = Run::start(Board::Virt, &manifest(&[Vm::bare("crash", 2, "how=off-all")]), &[], 60).end();
    ended.exits_with(1).has("crashed: all its vCPUs are off");
}

#[test]
fn a_watchdog_stops_a_guest_without_a_sign_of_life() {
    let mut spin = Vm::bare("spin", 2, "");
    spin.rest.push_str(" watchdog-seconds = <2>;");
    let mut busy = Vm::bare("wfi", 2, "wakes=2000 period=3000");
    busy.rest.push_str(" watchdog-seconds = <2>;");
    let ended = Run::start(Board::Virt, &manifest(&[spin, busy]), &[], 90).end();
    ended.exits_with(1).has_line("flatland: spin: crashed: its watchdog saw no sign of life");
    ended.has("[wfi] guest wfi: PASS").has_line("flatland: all VMs ended: 1 crashed");
}
