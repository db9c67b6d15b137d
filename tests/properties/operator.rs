//! What the operator types: a command is carried out by the CPU that has the housekeeping, its answer comes a line at a time, and what
//! is typed meanwhile waits.

use crate::exits::model;
use crate::pressure::{SECOND, manage};
use flatland::addr::{CpuId, VmId};
use flatland::host::{Host, Shutdown, operator};
use flatland::machine::Machine;
use flatland::monitor::Typing;
use flatland::next::Cause;
use flatland::vcpu::Counter;
use flatland::vm::{Slot, State, Vm};
use harness::cpu::{BoardPlan, Cpu, host, host_of, host_on, run_all, shown};
use std::sync::atomic::Ordering;

#[test]
fn an_answer_comes_a_line_at_a_time_and_what_is_typed_waits_for_its_end() {
    let model = model();
    let cpu = Cpu::new(&model);
    let host = host(&model, false, true);
    let mut typing = Typing::Open;
    let commands = [
        ("help", 15, "this list"),
        ("vms", 2, "one"),
        ("mem", 14, "bytes of records a frame"),
        ("mem", 14, "\none            4.0     0.0 "),
        ("top", 5, "board"),
        ("exits", 2, "all"),
        ("why one", 1, "nothing was taken"),
        ("regs one", 30, "vCPU 1"),
        ("log 5", 1, ""),
        ("pause one", 1, "it does not run"),
        ("stats on", 1, "a line for each VM"),
    ];
    operator::typed(host, &cpu, 0x1d);
    // A timer's interrupt is counted as both.
    for counter in [Counter::Interrupt, Counter::Interrupt, Counter::Timer] {
        host.fleet.vms[0].slots[1].count(counter);
    }
    for (command, lines, has) in commands {
        host.console.say(format_args!("before {command}"));
        assert!(operator::may_take(host, &cpu, &mut typing));
        for byte in command.bytes().chain(*b"\r") {
            operator::typed(host, &cpu, byte);
        }
        assert!(!operator::may_take(host, &cpu, &mut typing), "{command}: what is typed is taken before its answer");
        shown(host);
        let (mut steps, mut text) = (0, String::new());
        loop {
            let more = operator::go_on(host, &cpu);
            let step = shown(host);
            assert!(step.matches('\n').count() <= 1, "{command} answers at once: {step}");
            text += &step;
            steps += 1;
            assert_eq!(
                text.contains("flatland> "),
                !more,
                "{command} asks for the next where it is at its end: {text}"
            );
            if !more {
                break;
            }
            assert!(!operator::may_take(host, &cpu, &mut typing));
        }
        if command == "regs one" {
            let rows = text.lines().filter(|line| line.starts_with("X0  0x")).count();
            assert!(rows == 2 && text.contains("  X1  0x") && !text.contains("   X"), "{text}");
        }
        if command == "exits" {
            let counts: Vec<_> =
                text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(_, count)| count).collect();
            assert!(counts.iter().filter(|count| **count == "2").count() == 2 && !text.contains("timer"), "{text}");
        }
        assert!(text.matches('\n').count() >= lines && text.contains(has) && steps < 100, "{command}: {text}");
        assert!(!operator::go_on(host, &cpu));
    }
    assert!(operator::may_take(host, &cpu, &mut typing));
}

#[test]
fn what_is_typed_waits_for_a_guest_that_reads_and_is_lost_for_one_that_does_not() {
    let model = model();
    let cpu = Cpu::new(&model);
    let host = host(&model, false, true);
    host.console.lock().attend(Some(VmId(0)));
    let mut typing = Typing::Open;
    let held = || host.console.held.load(Ordering::SeqCst);
    let waiting = || host.fleet.vms[0].bus.uart.lock().waiting();
    let _ = shown(host);
    let mut typed = 0;
    while operator::may_take(host, &cpu, &mut typing) {
        assert!(!held());
        operator::typed(host, &cpu, b'x');
        typed += 1;
        assert!(typed < 1000, "it is never full");
    }
    assert!(held() && waiting() > 0 && shown(host).is_empty());
    assert!(!operator::may_take(host, &cpu, &mut typing) && held());
    // Five seconds without a byte read: what comes is lost, which is said once.
    cpu.pass(5 * SECOND);
    for n in 0..3 {
        assert!(operator::may_take(host, &cpu, &mut typing) && !held());
        assert_eq!(shown(host).matches("does not read what is typed").count(), usize::from(n == 0), "{n}");
    }
}

/// Has a command carried out, and returns its answer.
fn command(host: &Host, cpu: &Cpu<'_>, line: &str) -> String {
    let _ = shown(host);
    line.bytes().chain(*b"\r").for_each(|byte| operator::typed(host, cpu, byte));
    while operator::go_on(host, cpu) {}
    shown(host)
}

#[test]
fn who_is_paused_can_be_stopped_and_restarted() {
    for (line, cause) in [("stop one", Cause::Operator), ("restart one", Cause::Restart)] {
        let model = model();
        let cpu = Cpu::new(&model);
        let host = host(&model, false, true);
        run_all(host);
        let vm = &host.fleet.vms[0];
        operator::typed(host, &cpu, 0x1d);
        command(host, &cpu, "pause one");
        assert_eq!(vm.life.state(), State::Paused);
        command(host, &cpu, line);
        assert_eq!(vm.life.state(), State::Stopping(cause), "{line}");
    }
}

#[test]
fn shadows_are_checked_for_whoever_wants_it() {
    let model = model();
    let cpu = Cpu::new(&model);
    let host = host(&model, false, true);
    operator::typed(host, &cpu, 0x1d);
    for (line, checks) in [("check on", true), ("check off", false), ("check on", true)] {
        let said = command(host, &cpu, line);
        assert_eq!(host.pressure.overcommit.lock().checks, checks, "{line}: {said}");
    }
}

/// A balloon is never larger than its VM, whatever is typed.
#[test]
fn a_balloon_is_no_larger_than_its_vm() {
    let model = model();
    let cpu = Cpu::new(&model);
    let host = host(&model, false, true);
    operator::typed(host, &cpu, 0x1d);
    for (amount, said) in [("1M", "1024 KiB"), ("64M", "4096 KiB")] {
        for byte in format!("balloon one {amount}\r").bytes() {
            operator::typed(host, &cpu, byte);
        }
        while operator::go_on(host, &cpu) {}
        cpu.pass(SECOND);
        manage(&cpu, host);
        let overcommit = host.pressure.overcommit.lock();
        let last = overcommit.policy.journal().of(VmId(0)).map(|event| event.to_string()).last().unwrap();
        assert!(last.ends_with(&format!("balloon set to {said}")), "{last}");
    }
}

/// Each command does what it says, says what it did, and says so where there is nothing to do.
#[test]
fn a_command_does_what_it_says_or_says_why_not() {
    let model = model();
    let cpu = Cpu::new(&model);
    let host = host_of(&model, &["one", "two"], &[("kernel", &[0; 64])]);
    run_all(host);
    let [one, two] = [0, 1].map(|n| &host.fleet.vms[n]);
    operator::typed(host, &cpu, 0x1d);
    let say = |line: &str, expected: &str| {
        let said = command(host, &cpu, line);
        assert!(said.contains(&format!("\x1b[K{expected}\r\n")), "{line}: {said}");
    };
    let over = |vm: &Vm| {
        while host.settle(&cpu) {}
        assert!(matches!(vm.life.state(), State::Ended(_)));
    };
    say("pause one", "paused");
    assert_eq!((one.life.state(), two.life.state()), (State::Paused, State::Running));
    say("pause one", "it does not run");
    say("resume one", "resumed");
    assert_eq!(one.life.state(), State::Running);
    say("resume one", "it is not paused");
    for (line, said, is_on) in
        [("stats on", "a line for each VM every second", true), ("stats off", "no more lines", false)]
    {
        say(line, said);
        assert_eq!(host.pressure.overcommit.lock().stats.is_on, is_on);
    }
    say("balloon one 1M", "it has no driver for its balloon; when it gets one, so be it");
    say("balloon one -", "it has no driver for its balloon; when it gets one, so be it");
    say("stop two", "stopping");
    over(two);
    say("stop two", "it is over already");
    say("balloon two 1M", "it does not run; when it does, so be it");
    say("pause two", "it does not run");
    say("restart two", "restarting");
    assert_eq!(two.life.state(), State::Loading);
    let vcpu = one.slots[0].vcpu.lock();
    say("regs one", "vCPU 0 is loaded on a CPU; `pause` it and look again");
    drop(vcpu);
    for (line, said, shutdown) in
        [("reboot", "restarting the board", Shutdown::Restart), ("reboot off", "powering off", Shutdown::Off)]
    {
        say(line, said);
        assert_eq!(*host.fleet.shutdown.lock(), Some(shutdown));
    }
    for (line, attended) in [("attach two", Some(VmId(1))), ("attach -", None), ("attach one", Some(VmId(0)))] {
        command(host, &cpu, line);
        assert_eq!(host.console.lock().attended(), attended, "{line}");
        operator::typed(host, &cpu, 0x1d);
    }
}

/// What VMs and vCPUs do, and what they have had, is told of each.
#[test]
fn what_vms_and_vcpus_do_stands_in_the_tables() {
    let model = model();
    let cpu = Cpu::new(&model);
    let host = host_on(&model, &BoardPlan::new(2, &["one", "two"]));
    run_all(host);
    operator::typed(host, &cpu, 0x1d);
    let row = |line: &str, name: &str, n: usize| {
        let said = command(host, &cpu, line);
        let rows: Vec<_> = said.lines().filter(|line| line.contains(name)).map(str::to_string).collect();
        rows.get(n).unwrap_or_else(|| panic!("{line}: {said}")).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let [one, two] = [0, 1].map(|n| &host.fleet.vms[n]);
    let now = cpu.now();
    // Of the first, one vCPU runs and one is in line; of the second one waits. All of them can have either CPU.
    let run = |n: u16, slot: &Slot| {
        slot.turn_on(0, 0);
        let _ = slot.started();
        let _ = host.queue.lock().start(slot.entity, now);
        assert_eq!(host.queue.lock().pick(CpuId(n), now).run, Some(slot.entity));
    };
    run(0, &one.slots[0]);
    for slot in [&one.slots[1], &two.slots[0]] {
        run(1, slot);
        host.queue.lock().block(slot.entity, None, now);
    }
    assert_eq!(host.queue.lock().pick(CpuId(1), now).run, None);
    let _ = host.queue.lock().wake(one.slots[1].entity, now);
    for (counter, times) in [(Counter::Hypercall, 3), (Counter::Timer, 9), (Counter::Wait, 2)] {
        (0..times).for_each(|_| one.slots[0].count(counter));
    }
    two.slots[1].count(Counter::Wait);
    command(host, &cpu, "top");
    cpu.pass(SECOND * 2);
    assert_eq!(row("top", "one ", 0), "one 0 - running 100.0 %");
    assert_eq!(row("top", "one ", 1), "one 1 - ready 0.0 %");
    assert_eq!(row("top", "two ", 0), "two 0 - waiting 0.0 %");
    assert_eq!(row("top", "two ", 1), "two 1 - off 0.0 %");
    assert_eq!(row("vms", "one", 0), "0 one running 2/2 4 MiB 2.000 5");
    assert_eq!(row("vms", "two", 0), "1 two running 1/2 4 MiB 0.000 1");
    host.pause(&cpu, two);
    assert_eq!(row("top", "two ", 0), "two 0 - paused 0.0 %");
    assert_eq!([row("exits", "wfx", 0), row("exits", "all", 0)], ["wfx 3", "all 6"]);
    assert_eq!([row("exits one", "wfx", 0), row("exits two", "all", 0)], ["wfx 2", "all 1"]);
    host.console.lock().attend(Some(VmId(1)));
    operator::typed(host, &cpu, 0x1d);
    assert_eq!(row("vms", "two", 0), "* 1 two paused 1/2 4 MiB 0.000 1");
}
