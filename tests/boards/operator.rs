//! What the operator types, and what is answered, whatever guests do meanwhile.

use harness::qemu::{Board, Run, Vm, manifest};

/// Leads to the monitor.
const ESCAPE: &str = "\x1d";

#[test]
fn the_monitor_answers_while_guests_spin() {
    let spin = Vm { name: "spin", ..Vm::bare("spin", 2, "") };
    let other = Vm { name: "other", rest: Vm::bare("spin", 2, "").rest, ..Vm::bare("spin", 2, "") };
    let mut run = Run::start(Board::Virt, &manifest(&[spin, other]), &[], 90);
    run.wait_for("[spin] spin: 2 CPUs", 60).wait_for("[other] spin: 2 CPUs", 30);
    run.send(ESCAPE).send("help\r").wait_for("start VM again from pristine images", 10);
    run.send("vms\r").wait_for("running", 10);
    run.send("mem\r").wait_for("hypervisor", 10).wait_for("board", 10);
    run.send("top\r").wait_for("SHARE", 10).wait_for("idle", 10);
    run.send("exits\r").wait_for("CAUSE", 10);
    run.send("pause other\r").wait_for("paused", 10);
    run.send("regs other\r").wait_for("SCTLR_EL1", 10);
    run.send("nonsense\r").wait_for("no command `nonsense`", 10);
    run.send("resume other\r").wait_for("resumed", 10);
    run.send("restart other\r").wait_for("flatland: other: restarted", 20);
    run.send("log 5\r").wait_for("restarted", 10);
    run.send("stop spin\r").wait_for("flatland: spin: stopped", 10);
    run.send("stop other\r");
    run.end().exits_with(0).lacks("counted twice").lacks("unaccounted").lacks("PANIC");
}

#[test]
fn a_shell_on_the_serial_line_hears_what_is_typed() {
    let mut run = Run::start(Board::Virt, "linux", &[], 120);
    run.wait_for("flatland-guest: user space", 60).wait_for("# ", 20);
    run.send("echo $((6 * 7)) fishes\n").wait_for("42 fishes", 20);
    run.send("poweroff -f\n");
    run.end().exits_with(0).has_line("flatland: debian: powered off");
}

#[test]
fn the_board_powers_off_when_told() {
    let mut run = Run::start(Board::VirtA72, &manifest(&[Vm::bare("spin", 1, "")]), &[], 60);
    run.wait_for("spin: 1 CPUs", 40).send(ESCAPE).send("reboot off\r");
    run.end().exits_with(1).has("powering off");
}
