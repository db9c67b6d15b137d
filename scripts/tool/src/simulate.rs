//! `simulate`: a trace against the memory policy, second by second.

use crate::Failure;
use crate::arguments::Arguments;
use flatland::policy::Settings;
use simulator::{Second, Simulation, Trace, mean_speed, phases, plot};
use std::path::PathBuf;

/// The seed of the dice.
const SEED: u64 = 1;

/// `simulate TRACE [--tax N] [--svg FILE]`
pub(crate) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let mut settings = Settings::default();
    if let Some(word) = arguments.option("--tax")? {
        let tax = word.to_str().and_then(|word| word.parse().ok()).filter(|tax| *tax <= 100);
        settings.tax = tax.ok_or_else(|| Failure::Usage(format!("--tax {} is no percentage", word.display())))?;
    }
    let picture = arguments.option("--svg")?.map(PathBuf::from);
    let [path] = arguments.places(["TRACE"])?;
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let trace = Trace::parse(&path.display().to_string(), &text)?;

    let mut simulation = Simulation::new(&trace, settings, SEED);
    print!("{:>6} {:>5} {:>6}", "s", "level", "free");
    for vm in &trace.vms {
        print!(" | {:>9.9}: has balloon entitl active  speed  waits", vm.name);
    }
    println!("      (MiB, %, pages)");
    let mut seconds = Vec::new();
    for _ in 0..trace.end {
        let second = simulation.second();
        print_second(&second);
        seconds.push(second);
    }
    summarise(&trace, settings, &seconds);
    if let Some(picture) = picture {
        let svg = plot::svg(&trace, &seconds);
        std::fs::write(&picture, svg).map_err(|error| format!("{}: {error}", picture.display()))?;
    }
    Ok(())
}

fn print_second(second: &Second) {
    print!("{:>6} {:>5} {:>6}", second.at, second.level.to_string(), second.free / 256);
    for row in &second.vms {
        let (used, balloon, entitled) = (row.used / 256, row.balloon / 256, row.entitled / 256);
        let (active, speed) = (tenths(row.active.into()), tenths(row.speed));
        print!(" | {used:>14} {balloon:>7} {entitled:>6} {active:>6} {speed:>6} {:>6}", row.faults);
    }
    println!();
}

/// Per mille as a percentage.
fn tenths(permille: u64) -> String {
    format!("{}.{}", permille / 10, permille % 10)
}

fn summarise(trace: &Trace, settings: Settings, seconds: &[Second]) {
    println!("\nWith a tax of {} %, in the second half of each phase:", settings.tax);
    for phase in phases(trace, seconds) {
        let (Some(first), Some(last)) = (phase.first(), phase.last()) else { continue };
        print!("{:>6} to {:>6} s:", first.at, last.at + 1);
        for (i, vm) in trace.vms.iter().enumerate() {
            let speed = tenths(mean_speed(phase, i));
            let waits: u64 = phase.iter().map(|second| second.vms[i].faults).sum();
            print!("  {} has {} MiB, speed {speed} %, {waits} waits;", vm.name, last.vms[i].used / 256);
        }
        println!();
    }
}
