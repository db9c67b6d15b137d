//! Counters for a trace viewer (Perfetto, chrome://tracing): a process for the board and one for each VM, in each a
//! counter for each figure. Follows the Trace Event Format: `M` names a process, `C` is a counter, times in microseconds.

use super::{Figures, History};
use std::fmt::Write;

/// The board's process; those of VMs come behind it.
const BOARD: usize = 0;

/// The whole file.
pub(super) fn write(history: &History) -> String {
    let mut events = Vec::new();
    name(&mut events, BOARD, "board");
    for (vm, name_of) in history.vms.iter().enumerate() {
        name(&mut events, BOARD + 1 + vm, name_of);
    }
    for sample in &history.samples {
        // Whole microseconds of a board's uptime.
        let time = (sample.time.max(0.0) * 1e6).round() as u64;
        count(&mut events, BOARD, time, &sample.board);
        for (vm, figures) in &sample.vms {
            count(&mut events, BOARD + 1 + vm, time, figures);
        }
    }
    format!("{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n{}\n]}}\n", events.join(",\n"))
}

fn name(events: &mut Vec<String>, process: usize, name: &str) {
    let name = quote(name);
    events.push(format!("{{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":{process},\"args\":{{\"name\":{name}}}}}"));
}

fn count(events: &mut Vec<String>, process: usize, time: u64, figures: &Figures) {
    for (name, value) in figures {
        let name = quote(name);
        events.push(format!(
            "{{\"name\":{name},\"ph\":\"C\",\"ts\":{time},\"pid\":{process},\"args\":{{\"KiB\":{value}}}}}"
        ));
    }
}

/// A text as JSON has it.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}
