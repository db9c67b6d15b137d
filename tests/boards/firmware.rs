//! Firmware in flash, as Debian packages it for QEMU's `virt`: U-Boot and EDK2.

use harness::qemu::{Board, Run};

#[test]
fn u_boot_boots_linux_from_flash() {
    for (board, seconds) in [(Board::Virt, 120), (Board::VirtA72, 120), (Board::Raspi4b, 300)] {
        let ended = Run::start(board, "u-boot", &[], seconds).end();
        ended.exits_with(0).has("Loading Environment from Flash... OK").has_line("Starting kernel ...");
        ended.has("flatland-workload: OK cpus=2").has_line("flatland: debian: powered off");
    }
}

#[test]
fn what_u_boot_saves_outlives_a_reset() {
    for board in Board::VIRT {
        let mut run = Run::start(board, "u-boot", &[], 120);
        // What is typed is echoed, so what is waited for is what it prints of it.
        run.wait_for("Hit any key", 60).send("\r").wait_for("=> ", 20).look_away();
        run.send("md.l 0 1; setenv greeting hello; saveenv; echo saved-${greeting}\r").wait_for("saved-hello", 60);
        run.look_away().send("reset\r").wait_for("Loading Environment from Flash... OK", 60);
        run.wait_for("Hit any key", 60).send("\r").wait_for("=> ", 20).look_away();
        run.send("echo back-${greeting}; poweroff\r").wait_for("back-hello", 20);
        let ended = run.end();
        ended.exits_with(0).has("Writing to Flash... done").has_line("flatland: debian: reset, for the 1. time");
    }
}

#[test]
fn edk2_leads_to_its_shell_and_keeps_its_variables() {
    for board in Board::VIRT {
        let mut run = Run::start(board, "edk2", &[], 200);
        run.wait_for("Shell> ", 100).look_away();
        run.send_slowly("set greeting hello-there\r").wait_for("Shell> ", 20).look_away();
        run.send_slowly("reset\r").wait_for("UEFI Interactive Shell", 100).wait_for("Shell> ", 60).look_away();
        run.send_slowly("set greeting\r").wait_for("hello-there", 20).wait_for("Shell> ", 20);
        run.send_slowly("reset -s\r");
        run.end().exits_with(0).has_line("flatland: uefi: powered off");
    }
}
