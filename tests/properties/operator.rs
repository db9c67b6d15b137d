//! What the operator types: a command is carried out by the CPU that has the housekeeping, its answer comes a line at a time, and what
//! is typed meanwhile waits.

use crate::exits::model;
use crate::pressure::{SECOND, manage};
use flatland::addr::VmId;
use flatland::host::{Host, operator};
use flatland::monitor::Typing;
use flatland::next::Cause;
use flatland::vcpu::Counter;
use flatland::vm::State;
use harness::cpu::{Cpu, host, run_all, shown};
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
