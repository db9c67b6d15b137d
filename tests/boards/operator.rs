//! What the operator types, and what is answered, whatever guests do meanwhile.

use harness::model::Dice;
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
    // Its vCPUs are on CPUs that have nobody else to load: their registers can be looked at all the same.
    run.send(ESCAPE).send("pause debian\r").wait_for("paused", 10);
    run.send("regs debian\r").wait_for("SCTLR_EL1", 10);
    run.send("resume debian\r").wait_for("resumed", 10).send(ESCAPE);
    run.send("echo $((6 * 7)) fishes\n").wait_for("42 fishes", 20);
    run.send("poweroff -f\n");
    run.end().exits_with(0).has_line("flatland: debian: powered off");
}

/// So many letters that no two parts of them are alike.
fn letters(n: usize, seed: u64) -> String {
    let mut rng = Dice::new(seed);
    (0..n).map(|_| char::from(b'a' + rng.below(26) as u8)).collect()
}

/// A shell whose terminal passes everything through.
fn raw_shell(board: Board) -> Run {
    let mut run = Run::start(board, "linux", &[], 300);
    run.wait_for("flatland-guest: user space", 120).wait_for("# ", 60);
    run.send("stty raw -echo; echo ra''w\n").wait_for("raw\n", 20);
    run
}

#[track_caller]
fn paste(board: Board) {
    let pasted = letters(64 << 10, 1);
    let file = harness::qemu::write(&format!("pasted-{board:?}"), pasted.as_bytes());
    let sum = std::process::Command::new("sha256sum").arg(&file).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap()[..64].to_string();
    let mut run = raw_shell(board);
    run.send("head -c 65536 | sha256sum; echo e''nd\n").send(&pasted);
    run.wait_for("end\n", 200).send("poweroff -f\n");
    run.end().exits_with(0).has(&sum);
}

#[test]
fn a_paste_of_64_kib_arrives_whole() {
    paste(Board::Virt);
}

#[test]
fn a_paste_of_64_kib_arrives_whole_on_virt_gicv2() {
    paste(Board::VirtA72);
}

#[test]
fn a_paste_of_64_kib_arrives_whole_on_raspi4b() {
    paste(Board::Raspi4b);
}

/// A thousand bursts of random length at random times: all arrive, and the monitor answers.
fn bursts(board: Board) {
    let mut rng = Dice::new(2);
    let bursts: Vec<String> = (0..1_000).map(|n| letters(1 + rng.below(300) as usize, n)).collect();
    let total: usize = bursts.iter().map(String::len).sum();
    let mut run = raw_shell(board);
    run.send(&format!("head -c {total} | wc -c; echo e''nd\n"));
    for burst in bursts {
        run.send(&burst);
        std::thread::sleep(std::time::Duration::from_millis(rng.below(15)));
    }
    run.wait_for(&format!("{total}\n"), 120).wait_for("end\n", 20);
    run.send(ESCAPE).send("vms\r").wait_for("running", 20).send("stop debian\r");
    run.end().exits_with(0);
}

#[test]
fn after_a_thousand_bursts_the_monitor_answers() {
    bursts(Board::Virt);
}

#[test]
fn after_a_thousand_bursts_the_monitor_answers_on_virt_gicv2() {
    bursts(Board::VirtA72);
}

#[test]
fn after_a_thousand_bursts_the_monitor_answers_on_raspi4b() {
    bursts(Board::Raspi4b);
}

#[test]
fn a_guest_that_reads_nothing_keeps_nobody_from_the_monitor() {
    for board in [Board::Virt, Board::VirtA72, Board::Raspi4b] {
        let mut run = Run::start(board, &manifest(&[Vm::bare("spin", 1, "")]), &[], 120);
        run.wait_for("spin: 1 CPUs", 60).send(&letters(2_000, 3)).send(ESCAPE).send("vms\r");
        run.wait_for("flatland: spin: does not read what is typed", 40).wait_for("running", 20).send("stop spin\r");
        run.end().exits_with(0);
    }
}

#[test]
fn the_board_powers_off_when_told() {
    let mut run = Run::start(Board::VirtA72, &manifest(&[Vm::bare("spin", 1, "")]), &[], 60);
    run.wait_for("spin: 1 CPUs", 40).send(ESCAPE).send("reboot off\r");
    run.end().exits_with(1).has("powering off");
}
