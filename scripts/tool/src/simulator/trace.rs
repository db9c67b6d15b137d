//! What happens in a simulation: [`Trace`], a text file.
//!
//! ```text
//! # Sizes are pages, or bytes with K, M or G.
//! board 512M
//! vm NAME MAX MIN SHARES [dead-balloon | no-balloon]
//! TIME NAME touches SIZE [working-set]       from this second on, so much of its memory is in use
//! TIME end
//! ```

use std::fmt::Write;

/// What a VM's balloon driver is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Driver {
    /// It does as asked.
    #[default]
    Willing,
    /// It is there and does nothing.
    Dead,
    /// There is none.
    Missing,
}

/// A VM. Amounts are pages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// What it takes for its memory.
    pub max: u64,
    /// What it is left with in any case.
    pub min: u64,
    /// Its weight.
    pub shares: u32,
    /// Its balloon's driver.
    pub driver: Driver,
}

/// A change of a working set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// The second from whose start on it is so.
    pub at: u64,
    /// Whose: its place in [`Trace::vms`].
    pub vm: usize,
    /// How many pages are in use from then on.
    pub pages: u64,
}

/// What happens in a simulation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trace {
    /// The pages of the board.
    pub board: u64,
    /// The VMs.
    pub vms: Vec<Vm>,
    /// The changes, in the order of their times.
    pub changes: Vec<Change>,
    /// How many seconds it lasts.
    pub end: u64,
}

impl Trace {
    /// Reads a trace called `name` in messages; all errors at once.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut trace = Self::default();
        let mut errors = String::new();
        for (line, number) in text.lines().zip(1..) {
            let code = line.split('#').next().unwrap_or_default();
            let words: Vec<_> = code.split_whitespace().collect();
            if let Err(error) = trace.line(&words) {
                let _ = writeln!(errors, "{name}:{number}: {error}");
            }
        }
        let last = trace.changes.last().map_or(0, |change| change.at);
        for (is_wrong, error) in [
            (trace.board == 0, "there is no line `board SIZE`"),
            (trace.vms.is_empty(), "there is no VM"),
            (trace.vms.len() > flatland::policy::MOST_VMS, "there are more VMs than a board has"),
            (trace.end <= last, "there is no line `TIME end` behind the last change"),
        ] {
            if is_wrong && errors.is_empty() {
                let _ = writeln!(errors, "{name}: {error}");
            }
        }
        if errors.is_empty() { Ok(trace) } else { Err(errors) }
    }

    fn line(&mut self, words: &[&str]) -> Result<(), String> {
        match *words {
            [] => {}
            ["board", pages] => self.board = size(pages)?,
            ["vm", name, max, min, shares, ref driver @ ..] => {
                let driver = match driver {
                    [] => Driver::Willing,
                    ["dead-balloon"] => Driver::Dead,
                    ["no-balloon"] => Driver::Missing,
                    _ => return Err(format!("{}: a driver is `dead-balloon`, `no-balloon` or good", driver.join(" "))),
                };
                let (max, min) = (size(max)?, size(min)?);
                if min > max || self.vms.iter().any(|vm| vm.name == name) {
                    return Err(format!("{name}: its min is above its max, or there are two of this name"));
                }
                let shares = shares.parse().map_err(|_| format!("{shares} is no number of shares"))?;
                self.vms.push(Vm { name: name.into(), max, min, shares, driver });
            }
            [at, "end"] => self.end = time(at)?,
            [at, name, "touches", pages] | [at, name, "touches", pages, "working-set"] => {
                let vm = self.vms.iter().position(|vm| vm.name == name).ok_or(format!("there is no VM {name}"))?;
                let (at, pages) = (time(at)?, size(pages)?);
                if self.changes.last().is_some_and(|last| last.at > at) {
                    return Err(format!("{at} is earlier than the line before"));
                }
                if pages > self.vms[vm].max {
                    return Err(format!("{name} has less than that"));
                }
                self.changes.push(Change { at, vm, pages });
            }
            _ => return Err(format!("what does `{}` mean?", words.join(" "))),
        }
        Ok(())
    }
}

fn time(word: &str) -> Result<u64, String> {
    word.parse().ok().filter(|at| *at <= 1_000_000).ok_or(format!("{word} is no time in seconds"))
}

/// Pages of a word.
fn size(word: &str) -> Result<u64, String> {
    let wrong = || format!("{word} is no size: pages, or bytes with K, M or G");
    let (digits, pages, per) = match word.as_bytes().last() {
        Some(b'K') => (&word[..word.len() - 1], 1, 4),
        Some(b'M') => (&word[..word.len() - 1], 256, 1),
        Some(b'G') => (&word[..word.len() - 1], 256 << 10, 1),
        _ => (word, 1, 1),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(pages).map(|pages| pages / per).filter(|pages| *pages <= 1 << 40).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::{Change, Driver, Trace};

    #[test]
    fn a_trace_is_read() {
        let text = "# x\nboard 1G\nvm a 64M 4096K 1000\nvm b 100 0 5 dead-balloon # y\n0 a touches 2M\n\
                    7 b touches 50 working-set\n9 end\n";
        let trace = Trace::parse("x", text).unwrap();
        assert_eq!((trace.board, trace.end, trace.vms.len()), (262_144, 9, 2));
        assert_eq!((trace.vms[0].max, trace.vms[0].min, trace.vms[1].driver), (16_384, 1024, Driver::Dead));
        assert_eq!(trace.changes, [Change { at: 0, vm: 0, pages: 512 }, Change { at: 7, vm: 1, pages: 50 }]);
    }

    #[test]
    fn all_errors_are_told_with_their_lines() {
        let errors = Trace::parse("x", "board 1Q\nvm a 1 2 3\n5 c touches 1\nboo\n").unwrap_err();
        let lines: Vec<_> = errors.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(lines, ["x:1:", "x:2:", "x:3:", "x:4:"]);
        assert_eq!(Trace::parse("x", "board 1M\nvm a 1 1 1\n").unwrap_err().lines().count(), 1, "without an end");
    }
}
