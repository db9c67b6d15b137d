//! Bundles that are damaged or ask for what cannot be had: a clear error, no panic.

use harness::qemu::{Board, Run, Vm, manifest, root, write};
use std::fs;
use std::process::Command;

fn bundle() -> Vec<u8> {
    let manifest = manifest(&[Vm::bare("hello", 1, "")]);
    let out = write("whole.cpio", b"");
    // Builds the guest, too.
    Run::start(Board::Virt, &manifest, &[], 60).end().exits_with(0);
    let made = Command::new(root().join("scripts/bundle")).args([&manifest, "-o", &out]).status();
    assert!(made.expect("scripts/bundle starts").success());
    fs::read(out).expect("it was made")
}

#[test]
fn a_truncated_bundle_is_refused_in_words() {
    let whole = bundle();
    for keep in [0, 50, 200, whole.len() / 2] {
        let cut = write("cut.cpio", &whole[..keep]);
        let ended = Run::start(Board::Virt, &cut, &[], 30).end();
        ended.exits_with(1).has("flatland: cannot start: ").lacks("PANIC");
    }
}

#[test]
fn every_error_of_a_manifest_is_named_at_once() {
    let dts = write(
        "bad.dts",
        b"/dts-v1/; / { compatible = \"flatland,bundle-1\"; vms {\n\
          one { memory = \"3 potatoes\"; kernel = \"missing.img\"; };\n\
          two { memry = \"64M\"; vcpus = <99>; kernel = \"missing.img\"; }; }; };\n",
    );
    let out = write("bad.cpio", b"");
    let made = Command::new(root().join("scripts/bundle")).args([&dts, "-o", &out]).output().expect("it starts");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(!made.status.success());
    for part in ["/vms/one/memory", "/vms/one/kernel", "unknown key \"memry\"", "/vms/two/vcpus", "missing.img"] {
        assert!(said.contains(part), "no {part} in:\n{said}");
    }
}

#[test]
fn an_image_that_does_not_fit_is_refused_with_the_amount() {
    let mut linux = Vm::linux("small", 1, "");
    linux.memory = "16M";
    let ended = Run::start(Board::Virt, &manifest(&[linux]), &[], 60).end();
    ended.exits_with(1).has("/vms/small/kernel").has("does not fit").has("or more").lacks("flatland: Flatland");
}

#[test]
fn a_vm_that_is_larger_than_the_board_is_refused_with_the_reason() {
    let mut hello = Vm::bare("hello", 1, "");
    hello.memory = "4G";
    let ended = Run::start(Board::Virt, &manifest(&[hello]), &[], 60).end();
    ended.exits_with(1).has("/vms/hello/memory").has("flatland: cannot start: ").lacks("PANIC");
}
