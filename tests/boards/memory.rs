//! More guest memory than RAM: balloons, merging, compression, swapping and the policy, under Debian and under a guest that
//! checks every word.

use harness::qemu::{Board, Run, Vm, manifest, manifest_with};
use std::time::{Duration, Instant};

/// Leads to the monitor.
const ESCAPE: &str = "\x1d";

/// The last value of `key` in the lines of statistics of `who`: `board`, or `vm=NAME`.
fn last(output: &str, who: &str, key: &str) -> Option<u64> {
    let line = output.lines().rev().find(|line| line.contains("stats t=") && line.contains(&format!(" {who} ")))?;
    line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
}

/// Waits until the last value is as `wanted`; fails after `seconds`.
#[track_caller]
fn wait_until(run: &mut Run, who: &str, key: &str, seconds: u64, wanted: impl Fn(u64) -> bool) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        let output = run.output();
        if let Some(value) = last(&output, who, key).filter(|value| wanted(*value)) {
            return value;
        }
        let tail: Vec<_> = output.lines().rev().take(12).collect();
        assert!(Instant::now() < deadline, "{who} {key} is not as wanted within {seconds} s:\n{}", tail.join("\n"));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[track_caller]
fn overcommit(board: Board, example: &str, seconds: u32) {
    let ended = Run::start(board, example, &[], seconds).end();
    ended.exits_with(0).lacks("FAIL").lacks("PANIC").lacks("Kernel panic");
    for name in ["one", "two", "three", "four", "five", "six", "seven", "eight"] {
        ended.has(&format!("[{name}] flatland-memory: OK set=40 "));
    }
    ended.has_line("flatland: all VMs ended: ok");
}

#[test]
fn eight_guests_of_128_mib_work_on_512_mib() {
    overcommit(Board::Virt, "overcommit", 300);
}

#[test]
fn eight_guests_of_128_mib_work_on_512_mib_of_gicv2_a72() {
    overcommit(Board::VirtA72, "overcommit", 400);
}

#[test]
fn eight_guests_of_128_mib_work_on_448_mib_of_raspi4b() {
    // QEMU emulates four CPUs at once here, whatever this machine has.
    overcommit(Board::Raspi4b, "raspi-overcommit", 1200);
}

/// A Debian guest with a shell and a balloon.
fn shell(name: &'static str, more: &str) -> Vm {
    let mut vm = Vm::linux(name, 1, "flatland.mode=shell");
    vm.rest.push_str(more);
    vm
}

#[test]
fn a_balloon_shrinks_a_guest_and_gives_it_back_and_free_pages_are_reported() {
    let mut run = Run::start(Board::Virt, &manifest(&[shell("debian", "")]), &[], 200);
    run.wait_for("balloon features=0,1,2,3,5,32", 60).wait_for("# ", 20);
    let fill = "dd if=/dev/zero of=/tmp/x bs=1M count=64 2>/dev/null; echo writ''ten\n";
    run.send_slowly(fill).wait_for("written", 30);
    run.send(ESCAPE).send("stats on\r");
    let full = wait_until(&mut run, "vm=debian", "private", 20, |kib| kib > 90 << 10);
    let before = wait_until(&mut run, "board", "free", 5, |_| true);
    // What it does not need any more goes into the balloon, and the pool has as much more.
    run.send(ESCAPE).send_slowly("rm /tmp/x\n");
    run.send(ESCAPE).send("balloon debian 64M\r").wait_for("asking it for 65536 KiB", 10);
    wait_until(&mut run, "vm=debian", "balloon", 60, |kib| kib == 64 << 10);
    let private = wait_until(&mut run, "vm=debian", "private", 10, |kib| kib <= 64 << 10);
    let after = wait_until(&mut run, "board", "free", 5, |free| free > before + (30 << 10));
    println!("private {full} KiB, {private} KiB with a balloon of 65536 KiB; the pool has {} KiB more", after - before);
    // And back: the guest can use all of it again.
    run.send("balloon debian 0M\r");
    wait_until(&mut run, "vm=debian", "balloon", 60, |kib| kib == 0);
    run.send(ESCAPE).send_slowly(&fill.replace("writ''ten", "a''gain")).wait_for("again", 30);
    wait_until(&mut run, "vm=debian", "private", 20, |kib| kib > 80 << 10);
    // Without a balloon: what it gives up it reports by itself, some seconds later.
    run.send_slowly("rm /tmp/x\n");
    let reported = wait_until(&mut run, "vm=debian", "private", 60, |kib| kib < 60 << 10);
    println!("{reported} KiB once its free pages were reported");
    run.send_slowly("poweroff -f\n");
    run.end().exits_with(0).lacks("PANIC").lacks("Call trace");
}

#[test]
fn a_guest_that_runs_out_of_memory_gets_its_balloon_back() {
    let mut run =
        Run::start(Board::Virt, &manifest(&[Vm::linux("debian", 1, "flatland.mode=oom set=60 seconds=30")]), &[], 200);
    run.wait_for("balloon features=", 60);
    run.send(ESCAPE).send("balloon debian 70M\r").wait_for("asking it", 10).wait_for("flatland-oom: ", 100);
    let ended = run.end();
    ended.exits_with(0).has("flatland-oom: OK set=60 ").lacks("deflated=0 ").lacks("PANIC");
}

#[test]
fn a_guest_that_zeroes_what_is_free_finds_it_so() {
    // Debian's kernel cannot poison free pages with another word (CONFIG_PAGE_POISONING); tests/properties does.
    let vm = Vm::linux("zeroes", 1, "flatland.mode=memory set=16 rounds=6 pause=3 init_on_free=1");
    let ended = Run::start(Board::Virt, &manifest(&[vm]), &[], 200).end();
    ended.has("flatland-guest: balloon features=0,1,2,3,4,5,32").has("flatland-memory: OK set=16 ");
    ended.exits_with(0).lacks("corrupt").lacks("FAIL").lacks("PANIC");
}

/// A bare guest that checks every word of what it keeps while it changes it on two vCPUs.
fn churn(name: &'static str, args: &str, more: &str) -> Vm {
    let rest = format!("kernel = \"churn.bin\"; bootargs = \"{args} seed={}\"; {more}", name.len());
    Vm { name, vcpus: 2, memory: "64M", rest }
}

#[test]
fn pages_that_are_merged_while_they_are_written_keep_every_word() {
    // Time for the scanner, however slow this machine is: between rounds nothing is written.
    let args = "set=32 rounds=40 pause=50";
    for board in Board::VIRT {
        let vms = [
            churn("one", args, "domain = \"lab\";"),
            churn("three", args, "domain = \"lab\";"),
            churn("other", args, "domain = \"else\";"),
        ]
        .map(|vm| Vm { vcpus: 1, ..vm });
        // Time for the scanner whatever the guests do.
        let manifest = manifest_with(&vms, "policy { scan-cpu = <100>; };");
        let ended = Run::start(board, &manifest, &["--smp", "4", "--monitor", "stats on"], 300).end();
        for name in ["one", "three", "other"] {
            ended.has(&format!("[{name}] guest churn: PASS"));
        }
        ended.exits_with(0).lacks("FAIL").lacks("PANIC");
        let merged = last(&ended.output, "board", "merged");
        println!("{board:?}: {merged:?} pages merged");
        assert!(merged > Some(200), "little was merged");
    }
}

#[test]
fn pages_that_are_compressed_and_swapped_while_they_are_written_keep_every_word() {
    let vms = ["one", "three", "other"].map(|name| churn(name, "set=40 rounds=12", "min = \"8M\";"));
    let manifest = manifest_with(&vms, "policy { pool = \"84M\"; };");
    let ended = Run::start(Board::Virt, &manifest, &["--disk", "128M", "--monitor", "stats on"], 300).end();
    for name in ["one", "three", "other"] {
        ended.has(&format!("[{name}] guest churn: PASS"));
    }
    ended.exits_with(0).lacks("FAIL").lacks("PANIC").has("swap area: ");
    let costs = ended.last_line("flatland: memory: ");
    assert!(
        !costs.contains(" pack=0*") && !costs.contains(" swap-out=0*") && !costs.contains(" swap-in=0*"),
        "{costs}"
    );
}

/// A disk with two partitions, `data` and `swap`, and noise wherever there is no table; what it holds.
fn disk_with_partitions(name: &str) -> (std::path::PathBuf, Vec<u8>) {
    let mut bytes: Vec<u8> =
        (0..160_u64 << 17).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    bytes[..1 << 16].fill(0);
    let path = harness::qemu::write(name, &bytes);
    let table = "label: gpt\nstart=2048, size=64M, name=data\nsize=64M, name=swap\n";
    let mut sfdisk = std::process::Command::new("sfdisk")
        .args(["-q", &path])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("scripts/setup --for test installs it");
    std::io::Write::write_all(&mut sfdisk.stdin.take().unwrap(), table.as_bytes()).unwrap();
    assert!(sfdisk.wait().unwrap().success());
    let bytes = std::fs::read(&path).unwrap();
    (path.into(), bytes)
}

#[test]
fn swap_is_the_partition_that_is_named_and_nothing_else_of_a_disk_is_written() {
    let (path, before) = disk_with_partitions("partitions.img");
    let disk = path.to_str().unwrap();
    let run = |policy: &str| {
        let vms = ["one", "three"].map(|name| churn(name, "set=40 rounds=6", "min = \"8M\";"));
        let manifest = manifest_with(&vms, &format!("policy {{ pool = \"56M\"; {policy} }};"));
        Run::start(Board::Virt, &manifest, &["--disk", disk], 200).end()
    };
    let ended = run("swap = \"swap\";");
    ended.exits_with(0).lacks("FAIL").has("swap area: 64 MiB on its partition");
    let costs = ended.last_line("flatland: memory: ");
    assert!(!costs.contains(" swap-out=0*") && !costs.contains(" swap-in=0*"), "{costs}");
    let after = std::fs::read(&path).unwrap();
    let swap = (1 + 64) << 20..(1 + 128) << 20;
    assert!(before[swap.clone()] != after[swap.clone()], "pages are there");
    assert!(before[..swap.start] == after[..swap.start] && before[swap.end..] == after[swap.end..], "and nowhere else");
    // Without a name, a disk on which there is something is left alone.
    let ended = run("");
    ended.has("the disk is not swapped to: something is on it");
    let ended = run("swap = \"swop\";");
    ended.exits_with(1).has("/policy/swap: the disk has no partition of this name");
    assert!(after == std::fs::read(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
}

/// Everything at once, for five minutes and more a board; `FLATLAND_ROUNDS=N` is for how long:
///
/// ```text
/// scripts/setup --for test && cargo test -p flatland-tests --test boards -- --ignored --nocapture --test-threads=1 for_minutes
/// ```
#[test]
#[ignore = "takes ten minutes"]
fn pages_that_are_moved_in_every_way_for_minutes_keep_every_word() {
    let rounds =
        std::env::var("FLATLAND_ROUNDS").map_or(36, |rounds| rounds.parse().expect("FLATLAND_ROUNDS is a number"));
    for board in Board::VIRT {
        let lab = "min = \"8M\"; domain = \"lab\";";
        let files = format!("flatland.mode=memory set=40 rounds={}", rounds / 3);
        let args = format!("set=40 rounds={rounds}");
        let mut debian = Vm::linux("debian", 2, &files);
        debian.rest.push_str(" min = \"24M\"; domain = \"lab\";");
        let vms = [churn("one", &args, lab), churn("three", &args, lab), debian];
        let manifest = manifest_with(&vms, "policy { pool = \"72M\"; scan-cpu = <100>; };");
        let options = ["--smp", "4", "--disk", "256M", "--monitor", "stats on"];
        let start = Instant::now();
        let ended = Run::start(board, &manifest, &options, 3600).end();
        let seconds = start.elapsed().as_secs();
        let costs = ended.output.lines().rev().find(|line| line.contains(" costs ")).unwrap_or_default();
        println!("{board:?}: {seconds} s: {costs}");
        for line in
            ended.output.lines().filter(|line| line.contains("flatland-memory: OK") || line.contains("looked at"))
        {
            println!("{line}");
        }
        for name in ["one", "three"] {
            ended.has(&format!("[{name}] guest churn: PASS"));
        }
        ended.has("[debian] flatland-memory: OK ").exits_with(0).lacks("FAIL").lacks("PANIC");
        for work in ["merge", "copy", "pack", "unpack", "swap-out", "swap-in", "inflate"] {
            assert!(!costs.contains(&format!(" {work}=0*")), "{work}: {costs}");
        }
    }
}

/// Fills 35 MB of a guest's memory with text of which no two pages are the same: copies of an odd number of bytes.
const FILL: &str = "seq 1 100000 >/tmp/c; for i in $(seq 60); do cat /tmp/c; done >/tmp/a; rm /tmp/c";
/// Reads all of it, again and again, into a buffer: `cat` would have the kernel hand it on without a look at it.
const USE: &str = "touch /tmp/use; while [ -e /tmp/use ]; do dd if=/tmp/a of=/dev/null bs=64k; done 2>/dev/null &";
const REST: &str = "rm /tmp/use; wait";

/// Has a guest's shell do something; returns when it is done.
#[track_caller]
fn tell(run: &mut Run, vm: &str, command: &str, step: u32) {
    run.send(ESCAPE).send(&format!("attach {vm}\r")).wait_for("# ", 10);
    // A background job's `&` ends a command as well.
    let end = if command.ends_with('&') { "" } else { ";" };
    run.send_slowly(&format!("{command}{end} echo do''ne {step}\n")).wait_for(&format!("done {step}"), 300);
}

/// Waits until memory has moved to the guest `busy`: it has `more` KiB at least, and the guest `idle` has `less` at most.
/// Returns what they have.
#[track_caller]
fn wait_for_a_move(run: &mut Run, (busy, more): (&str, u64), (idle, less): (&str, u64)) -> [u64; 2] {
    let start = Instant::now();
    loop {
        let output = run.output();
        let [has, left] = [busy, idle].map(|vm| last(&output, &format!("vm={vm}"), "private").unwrap_or(0));
        let seconds = start.elapsed().as_secs();
        if has >= more && left <= less {
            println!("{busy} has {has} KiB, {idle} {left} KiB after {seconds} s");
            return [has, left];
        }
        assert!(seconds < 240, "{busy} has {has} KiB, not {more}; {idle} has {left} KiB, not {less}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn memory_moves_from_an_idle_guest_to_a_busy_one_and_back() {
    // What is merged would be in both.
    let vms = ["one", "two"].map(|name| shell(name, "min = \"24M\"; domain = \"none\";"));
    let mut run = Run::start(Board::Virt, &manifest_with(&vms, "policy { pool = \"128M\"; };"), &[], 600);
    run.wait_for("[one] flatland-guest: balloon", 60).wait_for("[two] flatland-guest: balloon", 60);
    run.send(ESCAPE).send("stats on\r");
    tell(&mut run, "one", FILL, 1);
    let alone = wait_until(&mut run, "vm=one", "private", 10, |kib| kib > 48 << 10);
    println!("one has {alone} KiB");
    // One rests; two wants as much and uses it.
    tell(&mut run, "two", &format!("{FILL}; {USE}"), 2);
    let [busy, idle] = wait_for_a_move(&mut run, ("two", 46 << 10), ("one", (alone - (8 << 10)).min(44 << 10)));
    // The other way round.
    tell(&mut run, "two", REST, 3);
    tell(&mut run, "one", USE, 4);
    wait_for_a_move(&mut run, ("one", idle + (6 << 10)), ("two", busy - (8 << 10)));
    run.send(ESCAPE).send("stats off\r").send("why two\r").wait_for("above its entitlement", 10);
    run.send("stop one\r").send("stop two\r");
    run.end().exits_with(0).lacks("PANIC").lacks("Out of memory");
}

#[test]
fn a_guest_that_cannot_have_its_least_is_refused_with_the_reason() {
    let vms = ["one", "two"].map(|name| Vm { memory: "256M", ..shell(name, "min = \"192M\";") });
    let ended = Run::start(Board::Virt, &manifest(&vms), &["--mem", "384M"], 60).end();
    ended.exits_with(1).has("/vms/two/memory: ").has("or write with \"min\" how little will do");
}

/// A VM that gives up its memory in one buffer and in page numbers that are each of another block, and starts again with all of
/// it touched: beside it timers come and memory keeps its words.
#[test]
fn work_that_a_guest_makes_long_harms_nobody_else() {
    for (board, memory) in [(Board::Virt, "512M"), (Board::Raspi4b, "256M")] {
        let mut hog = Vm { name: "hog", memory, ..Vm::bare("hog", 1, "until=9000") };
        hog.rest += "\ngranule = \"4K\";";
        let late = Vm { name: "late", ..Vm::bare("late", 1, "until=9500") };
        let churn = Vm { name: "churn", memory: "64M", ..Vm::bare("churn", 2, "set=32 rounds=4") };
        let ended = Run::start(board, &manifest(&[hog, late, churn]), &[], 200).end();
        // How often it starts again depends on this machine.
        ended.exits_with(0).lacks("FAIL").lacks("PANIC");
        for name in ["hog", "late", "churn"] {
            ended.has(&format!("[{name}] guest {name}: PASS"));
        }
        let worst = ended.last_line("[late] late: ");
        println!("{board:?}: {worst}");
    }
}

/// As many VMs, vCPUs and CPUs as there may be, half of the VMs hypervisors, one with as much memory as a VM may have.
#[test]
fn all_limits_are_reached_in_one_bundle() {
    let vms: Vec<Vm> = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"]
        .into_iter()
        .map(|name| {
            let nested = name >= "i";
            let mut vm = Vm { name, memory: "16M", ..Vm::bare(if nested { "hello" } else { "smp" }, 16, "") };
            if nested {
                vm.rest += "\nnested;";
            }
            if name == "p" {
                vm.memory = "255G";
                vm.rest += "\nmin = \"2M\";";
            }
            vm
        })
        .collect();
    let options = ["--smp", "16", "--mem", "3G", "--monitor", "check on"];
    let mut run = Run::start(Board::Virt, &manifest(&vms), &options, 300);
    run.wait_for("allocations from the heap since boot began", 100);
    let ended = run.end();
    ended.exits_with(0).lacks("PANIC").has("flatland: Flatland 0.1.0 on 16 CPUs");
    for vm in vms {
        let said = if vm.name >= "i" { "ok this CPU is the first of the tree" } else { "guest smp: PASS" };
        ended.has(&format!("[{}] {said}", vm.name));
    }
}

/// A guest that makes its host's work as long as it can and resets itself, and on a board that has them two hypervisors whose
/// guests find a page at each place there is, one of them promised far more memory than there is: beside one that measures its
/// timer and one that checks each word of its memory. For as many seconds as FLATLAND_SIEGE says, or a few.
fn siege(board: Board, has_hypervisors: bool) {
    let seconds: u32 = std::env::var("FLATLAND_SIEGE").ok().and_then(|text| text.parse().ok()).unwrap_or(15);
    let until = seconds * 1000;
    let bare = |name, kernel: &str, memory, arguments: &str, more: &str| Vm {
        name,
        vcpus: 1,
        memory,
        rest: format!("kernel = \"{kernel}.bin\"; bootargs = \"{arguments}\"; {more}"),
    };
    let mut vms = vec![
        bare("late", "late", "16M", &format!("until={until}"), "shares = <8000>;"),
        bare("churn", "churn", "64M", &format!("set=32 rounds={} pause=500", seconds * 2 / 3 + 2), "domain = \"lab\";"),
        bare("hog", "hog", "256M", &format!("until={until}"), "granule = \"4K\";"),
    ];
    if has_hypervisors {
        let arguments = format!("only=spread until={until}");
        vms.push(bare("eater", "nest", "64M", &arguments, "nested;"));
        vms.push(bare("giant", "nest", "64G", &arguments, "nested; min = \"64M\";"));
    }
    let mut run = Run::start(board, &manifest(&vms), &["--mem", "1G"], seconds * 2 + 200);
    run.send("\x1dcheck on\r\x1d");
    let ended = run.end();
    ended.last_line("[late] late:");
    for (vm, verdict) in [("late", "guest late: PASS"), ("churn", "guest churn: PASS"), ("hog", "guest hog: PASS")] {
        ended.has(&format!("[{vm}] {verdict}"));
    }
    if has_hypervisors {
        ended.has("[eater] nest: OK").has("[giant] nest: OK");
        ended.last_line("flatland: shadows:");
    }
    let resets = ended.output.matches(": reset, for the ").count();
    // How many there are in that time is for the machine to say.
    println!("{resets} lines of resets");
    ended.lacks("FAIL").lacks("PANIC").lacks("crashed:").exits_with(0);
}

#[test]
fn hostile_work_harms_nobody_else_on_virt() {
    siege(Board::Virt, true);
}

#[test]
fn hostile_work_harms_nobody_else_on_raspi4b() {
    siege(Board::Raspi4b, false);
}
