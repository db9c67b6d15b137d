//! What the operator types: a command is carried out by the CPU that has the housekeeping, its answer comes a line at a time, and what
//! is typed meanwhile waits.

use crate::exits::model;
use flatland::monitor::Typing;
use flatland::operator;
use flatland::vcpu::Counter;
use harness::cpu::{Cpu, host, shown};

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
