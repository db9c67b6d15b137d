//! The tables that answer the operator: plain data in, columns out, LF at the ends of lines.
//!
//! Columns stand where they stand whatever is in them, as far as 80 characters go, so that programs can read them too.
//! Sums add up: shares of time are rounded so that they and the idle time make up the whole. Memory has its tables in
//! [`super::memory`].

use core::fmt::{Result, Write};

/// A VM, for [`vms`].
#[derive(Clone, Copy, Debug)]
pub struct VmRow<'a> {
    /// Its number in the manifest.
    pub id: u16,
    /// Its name.
    pub name: &'a str,
    /// What it does, in a word.
    pub state: &'a str,
    /// How many of its vCPUs are on.
    pub vcpus_on: u16,
    /// How many it has.
    pub vcpus: u16,
    /// Its memory, in bytes.
    pub memory: u64,
    /// The time its vCPUs ran, in nanoseconds.
    pub cpu_nanos: u64,
    /// How often it was left.
    pub exits: u64,
    /// Whether it has the keyboard.
    pub attended: bool,
}

/// Writes the VMs; a `*` marks the attended one.
pub fn vms(out: &mut dyn Write, rows: &[VmRow<'_>]) -> Result {
    writeln!(out, "  ID NAME             STATE     VCPUS     MEMORY   CPU-TIME        EXITS")?;
    for row in rows {
        let VmRow { id, name, state, vcpus_on, vcpus, memory, cpu_nanos, exits, attended } = row;
        let mark = if *attended { '*' } else { ' ' };
        write!(out, "{mark} {id:>2} {name:<16} {state:<9} {vcpus_on:>2}/{vcpus:<2} ")?;
        writeln!(out, "{:>7} MiB {} {exits:>12}", memory >> 20, Seconds(*cpu_nanos))?;
    }
    Ok(())
}

/// A vCPU's time in a window, for [`top`].
#[derive(Clone, Copy, Debug)]
pub struct TopRow<'a> {
    /// Its VM's name.
    pub name: &'a str,
    /// Its number there.
    pub vcpu: u16,
    /// The CPU it is or was on.
    pub cpu: Option<u16>,
    /// What it does, in a word.
    pub state: &'a str,
    /// The ticks it ran in the window.
    pub ticks: u64,
}

/// Writes who had the CPUs in a window of `ticks` ticks on each of `n_cpus`, in percent of one CPU.
pub fn top(out: &mut dyn Write, ticks: u64, n_cpus: u16, rows: &[TopRow<'_>]) -> Result {
    writeln!(out, "NAME             VCPU  CPU  STATE       SHARE")?;
    let whole = ticks.saturating_mul(n_cpus.into());
    // Years may have gone by, of which a millionth does not show.
    let shift = if whole > u64::MAX >> 10 { 20 } else { 0 };
    let tenths = |ticks_so_far: u64| ((ticks_so_far >> shift) * 1000).checked_div(ticks >> shift).unwrap_or(0);
    // Each line is the difference of two rounded sums, so the lines add up to the rounded whole.
    let mut so_far = 0u64;
    for TopRow { name, vcpu, cpu, state, ticks } in rows {
        let before = tenths(so_far);
        so_far = so_far.saturating_add(*ticks).min(whole);
        let share = tenths(so_far) - before;
        write!(out, "{name:<16} {vcpu:>4} ")?;
        match cpu {
            Some(cpu) => write!(out, "{cpu:>4}  ")?,
            None => write!(out, "   -  ")?,
        }
        writeln!(out, "{state:<9} {:>5}.{} %", share / 10, share % 10)?;
    }
    let idle = tenths(whole) - tenths(so_far);
    writeln!(out, "{:<38}{:>5}.{} %", "idle", idle / 10, idle % 10)?;
    writeln!(out, "{:<38}{:>5}.{} %", "board", tenths(whole) / 10, tenths(whole) % 10)
}

/// A cause of exits, for [`exits`].
#[derive(Clone, Copy, Debug)]
pub struct ExitRow<'a> {
    /// What it is called.
    pub cause: &'a str,
    /// How often it was.
    pub count: u64,
}

/// Writes why guests were left, in the order given, and how often in all. Causes that never were are left out.
pub fn exits(out: &mut dyn Write, rows: &[ExitRow<'_>]) -> Result {
    writeln!(out, "CAUSE                           COUNT")?;
    let mut sum = 0u64;
    for ExitRow { cause, count } in rows.iter().filter(|row| row.count != 0) {
        sum = sum.saturating_add(*count);
        writeln!(out, "{cause:<20} {count:>16}")?;
    }
    writeln!(out, "{:<20} {sum:>16}", "all")
}

/// A vCPU's registers, for [`regs`].
#[derive(Clone, Copy, Debug)]
pub struct RegsRow<'a> {
    /// Its number.
    pub vcpu: u16,
    /// What it does, in a word.
    pub state: &'a str,
    /// X0 to X30.
    pub x: &'a [u64; 31],
    /// Where it is.
    pub pc: u64,
    /// PSTATE, as SPSR_EL2 has it.
    pub pstate: u64,
    /// System registers, by name.
    pub system: &'a [(&'a str, u64)],
}

/// Writes the registers of a VM's vCPUs.
pub fn regs(out: &mut dyn Write, rows: &[RegsRow<'_>]) -> Result {
    for RegsRow { vcpu, state, x, pc, pstate, system } in rows {
        writeln!(out, "vCPU {vcpu}, {state}: PC {pc:#018x}, PSTATE {pstate:#010x}")?;
        columns(out, x.len(), |out, i| write!(out, "X{i:<2} {:#018x}", x.get(i).unwrap_or(&0)))?;
        columns(out, system.len(), |out, i| {
            let (name, value) = system.get(i).unwrap_or(&("", 0));
            write!(out, "{name:<10} {value:#018x}")
        })?;
    }
    Ok(())
}

/// Writes `n` cells, three to a line.
fn columns(out: &mut dyn Write, n: usize, mut cell: impl FnMut(&mut dyn Write, usize) -> Result) -> Result {
    for i in 0..n {
        cell(out, i)?;
        out.write_str(if i % 3 == 2 || i + 1 == n { "\n" } else { "  " })?;
    }
    Ok(())
}

/// Nanoseconds, shown as seconds with three decimals, cut.
struct Seconds(u64);

impl core::fmt::Display for Seconds {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> Result {
        write!(f, "{:>6}.{:03}", self.0 / 1_000_000_000, self.0 / 1_000_000 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::{ExitRow, RegsRow, TopRow, VmRow, exits, regs, top, vms};
    use alloc::string::String;
    use alloc::vec::Vec;
    use core::fmt::{Result, Write};

    fn shown(write: impl FnOnce(&mut dyn Write) -> Result) -> String {
        let mut out = String::new();
        write(&mut out).unwrap();
        assert!(out.lines().all(|line| line.len() <= 80), "{out}");
        out
    }

    #[test]
    fn vms_stand_in_columns() {
        let one = VmRow {
            id: 0,
            name: "debian",
            state: "running",
            vcpus_on: 2,
            vcpus: 2,
            memory: 512 << 20,
            cpu_nanos: 12_345_678_901,
            exits: 98_765,
            attended: true,
        };
        let other = VmRow { id: 1, name: "other", vcpus_on: 0, attended: false, ..one };
        let out = shown(|out| vms(out, &[one, other]));
        let expected = [
            "  ID NAME             STATE     VCPUS     MEMORY   CPU-TIME        EXITS",
            "*  0 debian           running    2/2      512 MiB     12.345        98765",
            "   1 other            running    0/2      512 MiB     12.345        98765",
        ];
        assert!(out.lines().eq(expected), "{out}");
    }

    #[test]
    fn shares_of_time_add_up_to_the_board() {
        let row = |vcpu, ticks| TopRow { name: "vm", vcpu, cpu: Some(0), state: "ready", ticks };
        for (window, n_cpus) in [(3, 1), (7, 2), (1_000_003, 4), (0, 4)] {
            let rows: Vec<_> = (0..6).map(|i| row(i, window * u64::from(n_cpus) / 7)).collect();
            let out = shown(|out| top(out, window, n_cpus, &rows));
            let tenth = |line: &str| {
                let number = line.trim_end_matches(" %").rsplit(' ').next().unwrap();
                number.replace('.', "").parse::<u32>().unwrap()
            };
            let shares: Vec<_> = out.lines().skip(1).map(tenth).collect();
            let (board, parts) = shares.split_last().unwrap();
            assert_eq!(parts.iter().sum::<u32>(), *board, "{out}");
            assert_eq!(*board, if window == 0 { 0 } else { u32::from(n_cpus) * 1000 });
        }
    }

    #[test]
    fn exits_are_summed_and_those_that_never_were_are_left_out() {
        let row = |cause, count| ExitRow { cause, count };
        let out = shown(|out| exits(out, &[row("wfi", 10), row("hvc", 0), row("abort", 5)]));
        let lines: Vec<Vec<_>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines, [["CAUSE", "COUNT"], ["wfi", "10"], ["abort", "5"], ["all", "15"]]);
    }

    #[test]
    fn registers_fit_a_terminal() {
        let x = core::array::from_fn(|i| u64::MAX - i as u64);
        let system = [("SCTLR_EL1", 1), ("ELR_EL1", 2)];
        let row = RegsRow { vcpu: 1, state: "blocked", x: &x, pc: 0x4008_0000, pstate: 0x3C5, system: &system };
        let out = shown(|out| regs(out, &[row]));
        assert_eq!(out.lines().count(), 1 + 11 + 1);
        assert!(out.contains("X30 0xffffffffffffffe1") && out.contains("SCTLR_EL1  0x0000000000000001"));
    }
}
