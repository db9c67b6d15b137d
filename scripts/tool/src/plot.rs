//! Memory over time, from what the monitor's `stats` says in a log.
//!
//! [`History`] is what was read: a [`Sample`] for each line about the board, with the lines about VMs of the same time.
//! All figures are in KiB. `plot/svg.rs` draws it, `plot/trace.rs` writes it down for a trace viewer.

mod svg;
mod trace;

use crate::Failure;
use crate::arguments::Arguments;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The figures of a line, by name.
type Figures = BTreeMap<String, u64>;

/// The state of things at one time.
#[derive(Default, PartialEq, Debug)]
struct Sample {
    /// The board's time in seconds.
    time: f64,
    /// How short memory is, in the policy's words.
    level: String,
    /// What the board's line says.
    board: Figures,
    /// What the line of each VM says, by its place in [`History::vms`]. A VM that has ended has none.
    vms: BTreeMap<usize, Figures>,
}

impl Sample {
    /// A figure of the board's, nothing if it is not there.
    fn board(&self, name: &str) -> u64 {
        self.board.get(name).copied().unwrap_or(0)
    }

    /// A figure of a VM's, nothing if it is not there.
    fn vm(&self, vm: usize, name: &str) -> u64 {
        self.vms.get(&vm).and_then(|figures| figures.get(name)).copied().unwrap_or(0)
    }

    /// The sum of a figure over all VMs.
    fn all_vms(&self, name: &str) -> u64 {
        self.vms.keys().fold(0, |sum, &vm| sum.saturating_add(self.vm(vm, name)))
    }
}

/// What a log says about memory.
#[derive(Default, Debug)]
struct History {
    /// The names of the VMs, in the order in which the log tells of them.
    vms: Vec<String>,
    /// In the order of time.
    samples: Vec<Sample>,
}

/// `tool plot`.
pub(crate) fn plot(mut arguments: Arguments) -> Result<(), Failure> {
    let picture = arguments.option("-o")?.map(PathBuf::from);
    let events = arguments.option("--trace")?.map(PathBuf::from);
    let [log] = arguments.places(["LOG"])?;
    let text = std::fs::read(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let history = History::read(&String::from_utf8_lossy(&text));
    if history.samples.len() < 2 {
        let n = history.samples.len();
        return Err(Failure::Work(format!(
            "{}: {n} lines say `stats t=... board ...`, two are needed; the monitor's `stats` prints them",
            log.display()
        )));
    }
    let picture = match (&events, picture) {
        (None, None) => Some(log.with_extension("svg")),
        (_, picture) => picture,
    };
    if let Some(path) = picture {
        let name = log.file_name().unwrap_or_default().to_string_lossy();
        write(&path, &svg::draw(&history, &name))?;
    }
    if let Some(path) = events {
        write(&path, &trace::write(&history))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| Failure::Work(format!("{}: {error}", path.display())))
}

impl History {
    /// Reads all that a log says; other lines, and what is damaged, do not count.
    fn read(log: &str) -> Self {
        let lines: Vec<Line<'_>> = log.lines().filter_map(Line::read).collect();
        let mut history = Self::default();
        for line in lines.iter().filter(|line| line.vm.is_none()) {
            let level = line.level.to_owned();
            history.samples.push(Sample { time: line.time, level, board: line.figures.clone(), vms: BTreeMap::new() });
        }
        history.samples.sort_by(|a, b| a.time.total_cmp(&b.time));
        for line in &lines {
            let Some(name) = line.vm else { continue };
            let vm = history.vms.iter().position(|known| known == name).unwrap_or_else(|| {
                history.vms.push(name.to_owned());
                history.vms.len() - 1
            });
            if let Some(sample) = history.nearest(line.time) {
                sample.vms.insert(vm, line.figures.clone());
            }
        }
        history
    }

    /// The sample of this time: the clock may have gone on a little between a line and the next.
    fn nearest(&mut self, time: f64) -> Option<&mut Sample> {
        let after = self.samples.partition_point(|sample| sample.time < time);
        let gap = |n: usize| self.samples.get(n).map_or(f64::MAX, |sample| (sample.time - time).abs());
        let best = match after.checked_sub(1) {
            Some(before) if gap(before) <= gap(after) => before,
            _ => after,
        };
        self.samples.get_mut(best)
    }
}

/// One line about the board, or about a VM.
struct Line<'a> {
    time: f64,
    vm: Option<&'a str>,
    level: &'a str,
    figures: Figures,
}

impl<'a> Line<'a> {
    /// Reads `stats t=SECONDS board|vm=NAME KEY=VALUE...`, which must be said by the hypervisor: what a guest says begins
    /// with its name. The monitor's prompt may have stood there before.
    fn read(line: &'a str) -> Option<Self> {
        let line = line.trim_end();
        let line = line.rsplit(['\r', '\x1b']).next().unwrap_or(line);
        let line = line.strip_prefix("[K").unwrap_or(line);
        let line = line.strip_prefix("flatland: ").unwrap_or(line);
        let mut words = line.strip_prefix("stats ")?.split_ascii_whitespace();
        let time: f64 = words.next()?.strip_prefix("t=")?.parse().ok()?;
        let vm = match words.next()? {
            "board" => None,
            word => Some(word.strip_prefix("vm=").filter(|name| !name.is_empty())?),
        };
        let mut read = Self { time, vm, level: "", figures: Figures::new() };
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            match value.parse() {
                Ok(value) => drop(read.figures.insert(name.to_owned(), value)),
                Err(_) if name == "level" => read.level = value,
                Err(_) => {}
            }
        }
        time.is_finite().then_some(read)
    }
}

#[cfg(test)]
mod tests;
