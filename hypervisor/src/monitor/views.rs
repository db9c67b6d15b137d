//! The tables that answer the operator, a line at a time: plain data in, columns out, LF at the ends of lines. A line that there is
//! not is nothing.
//!
//! Columns stand where they stand whatever is in them, as far as 80 characters go, so that programs can read them too.
//! Sums add up: shares of time are rounded so that they and the idle time make up the whole. Memory has its tables in
//! [`super::memory`].

use crate::addr::Mac;
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

/// Writes line `line` of the VMs, of which `row` knows each by its number; a `*` marks the attended one.
pub fn vms<'a>(out: &mut dyn Write, line: usize, row: impl FnOnce(usize) -> Option<VmRow<'a>>) -> Option<Result> {
    let Some(n) = line.checked_sub(1) else {
        return Some(out.write_str("  ID NAME             STATE     VCPUS     MEMORY   CPU-TIME        EXITS\n"));
    };
    let VmRow { id, name, state, vcpus_on, vcpus, memory, cpu_nanos, exits, attended } = row(n)?;
    let mark = if attended { '*' } else { ' ' };
    let memory = memory >> 20;
    Some(writeln!(
        out,
        "{mark} {id:>2} {name:<16} {state:<9} {vcpus_on:>2}/{vcpus:<2} {memory:>7} MiB {} {exits:>12}",
        Seconds(cpu_nanos)
    ))
}

/// A disk, for [`disks`].
#[derive(Clone, Copy, Debug)]
pub struct DiskRow<'a> {
    /// Its VM's name.
    pub vm: &'a str,
    /// Its own.
    pub name: &'a str,
    /// Its bytes.
    pub bytes: u64,
    /// What it is and how it does, in a word.
    pub state: &'a str,
    /// How many requests there were.
    pub requests: u64,
    /// Bytes that were read.
    pub read: u64,
    /// Bytes that were written.
    pub written: u64,
    /// Blocks of 4 KiB that were lent when they were read, and not copied.
    pub lent: u64,
    /// Requests that failed.
    pub errors: u64,
}

/// Writes line `line` of the disks, of which `row` knows each by its number.
pub fn disks<'a>(out: &mut dyn Write, line: usize, row: impl FnOnce(usize) -> Option<DiskRow<'a>>) -> Option<Result> {
    let Some(n) = line.checked_sub(1) else {
        return Some(out.write_str(
            "NAME             DISK                SIZE STATE   REQUESTS  READ-KIB WRITE-KIB  LENT-KIB ERRORS\n",
        ));
    };
    let Some(DiskRow { vm, name, bytes, state, requests, read, written, lent, errors }) = row(n) else {
        return (n == 0).then(|| out.write_str("no VM has a disk\n"));
    };
    let (bytes, read, written, lent) = (bytes >> 20, read >> 10, written >> 10, lent << 2);
    Some(writeln!(
        out,
        "{vm:<16} {name:<15} {bytes:>4} MiB {state:<5} {requests:>10} {read:>9} {written:>9} {lent:>9} {errors:>6}"
    ))
}

/// A network device, for [`nets`].
#[derive(Clone, Copy, Debug)]
pub struct NetRow<'a> {
    /// Its VM's name.
    pub vm: &'a str,
    /// Its own.
    pub name: &'a str,
    /// Its switch's.
    pub switch: &'a str,
    /// Its address.
    pub mac: Mac,
    /// How it does, in a word.
    pub state: &'a str,
    /// Bytes that the VM sent.
    pub sent: u64,
    /// Bytes that it received.
    pub received: u64,
    /// Frames that it lost, as it had no room for them.
    pub dropped: u64,
    /// Frames of its own that were none or came from another's address.
    pub refused: u64,
}

/// Writes line `line` of the network devices, of which `row` knows each by its number.
pub fn nets<'a>(out: &mut dyn Write, line: usize, row: impl FnOnce(usize) -> Option<NetRow<'a>>) -> Option<Result> {
    let Some(n) = line.checked_sub(1) else {
        return Some(out.write_str(
            "NAME             NET             SWITCH          ADDRESS           STATE   SENT-KIB   RECV-KIB  DROPPED  REFUSED\n",
        ));
    };
    let Some(NetRow { vm, name, switch, mac, state, sent, received, dropped, refused }) = row(n) else {
        return (n == 0).then(|| out.write_str("no VM has a network device\n"));
    };
    let (sent, received) = (sent >> 10, received >> 10);
    Some(writeln!(
        out,
        "{vm:<16} {name:<15} {switch:<15} {mac} {state:<5} {sent:>10} {received:>10} {dropped:>8} {refused:>8}"
    ))
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

/// Writes line `line` of who had the CPUs in a window of `ticks` ticks on each of `n_cpus`, in percent of one CPU. `row` knows each
/// vCPU by its number, and what those before it ran.
pub fn top<'a>(
    out: &mut dyn Write,
    line: usize,
    (ticks, n_cpus): (u64, u16),
    row: impl FnOnce(usize) -> (u64, Option<TopRow<'a>>),
    n_rows: usize,
) -> Option<Result> {
    let Some(n) = line.checked_sub(1) else {
        return Some(out.write_str("NAME             VCPU  CPU  STATE       SHARE\n"));
    };
    let whole = ticks.saturating_mul(n_cpus.into());
    // Years may have gone by, of which a millionth does not show.
    let shift = if whole > u64::MAX >> 10 { 20 } else { 0 };
    let tenths = |so_far: u64| ((so_far.min(whole) >> shift) * 1000).checked_div(ticks >> shift).unwrap_or(0);
    let (before, row) = row(n);
    Some(match row {
        // Each line is the difference of two rounded sums, so the lines add up to the rounded whole.
        Some(row) => {
            let share = tenths(before.saturating_add(row.ticks)) - tenths(before);
            let TopRow { name, vcpu, state, .. } = row;
            write!(out, "{name:<16} {vcpu:>4} ")
                .and_then(|()| match row.cpu {
                    Some(cpu) => write!(out, "{cpu:>4}  "),
                    None => out.write_str("   -  "),
                })
                .and_then(|()| writeln!(out, "{state:<9} {:>5}.{} %", share / 10, share % 10))
        }
        None => {
            let (name, share) = match n - n_rows {
                0 => ("idle", tenths(whole) - tenths(before)),
                1 => ("board", tenths(whole)),
                _ => return None,
            };
            writeln!(out, "{name:<38}{:>5}.{} %", share / 10, share % 10)
        }
    })
}

/// A cause of exits, for [`exits`].
#[derive(Clone, Copy, Debug)]
pub struct ExitRow<'a> {
    /// What it is called.
    pub cause: &'a str,
    /// How often it was.
    pub count: u64,
}

/// Writes line `line` of why guests were left, in the order given, and how often in all. Causes that never were are left out.
pub fn exits<'a>(out: &mut dyn Write, line: usize, rows: impl Iterator<Item = ExitRow<'a>>) -> Option<Result> {
    let Some(n) = line.checked_sub(1) else {
        return Some(out.write_str("CAUSE                           COUNT\n"));
    };
    let (mut sum, mut at) = (0_u64, 0);
    for ExitRow { cause, count } in rows.filter(|row| row.count != 0) {
        if at == n {
            return Some(writeln!(out, "{cause:<20} {count:>16}"));
        }
        sum = sum.saturating_add(count);
        at += 1;
    }
    (at == n).then(|| writeln!(out, "{:<20} {sum:>16}", "all"))
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

/// Writes line `line` of a vCPU's registers, three of them to a line.
pub fn regs(out: &mut dyn Write, line: usize, row: &RegsRow<'_>) -> Option<Result> {
    let RegsRow { vcpu, state, x, pc, pstate, system } = row;
    let Some(n) = line.checked_sub(1) else {
        return Some(writeln!(out, "vCPU {vcpu}, {state}: PC {pc:#018x}, PSTATE {pstate:#010x}"));
    };
    let general = x.len().div_ceil(3);
    if n < general {
        let cells = x.iter().enumerate().skip(n * 3).take(3);
        return Some(columns(out, cells, |out, (i, value)| write!(out, "X{i:<2} {value:#018x}")));
    }
    let cells = system.chunks(3).nth(n - general)?;
    Some(columns(out, cells.iter(), |out, (name, value)| write!(out, "{name:<10} {value:#018x}")))
}

/// Writes cells in a line.
fn columns<T>(
    out: &mut dyn Write,
    cells: impl Iterator<Item = T>,
    mut cell: impl FnMut(&mut dyn Write, T) -> Result,
) -> Result {
    for (i, what) in cells.enumerate() {
        if i > 0 {
            out.write_str("  ")?;
        }
        cell(out, what)?;
    }
    out.write_str("\n")
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

    fn shown(mut write: impl FnMut(&mut dyn Write, usize) -> Option<Result>) -> String {
        let mut out = String::new();
        for line in 0.. {
            match write(&mut out, line) {
                Some(written) => written.unwrap(),
                None => break,
            }
        }
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
        let out = shown(|out, line| vms(out, line, |n| [one, other].get(n).copied()));
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
            let before = |n: usize| rows.iter().take(n).map(|row| row.ticks).sum();
            let row = |n: usize| (before(n), rows.get(n).copied());
            let out = shown(|out, line| top(out, line, (window, n_cpus), row, rows.len()));
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
    fn who_has_the_cpus_stands_in_columns() {
        let rows = [(Some(3), "running", 400), (None, "off", 0), (Some(12), "ready", 125)];
        let row = |n: usize| {
            let before = rows.iter().take(n).map(|(.., ticks)| ticks).sum();
            let row =
                rows.get(n).map(|&(cpu, state, ticks)| TopRow { name: "debian", vcpu: n as u16, cpu, state, ticks });
            (before, row)
        };
        let out = shown(|out, line| top(out, line, (1000, 2), row, rows.len()));
        let expected = [
            "NAME             VCPU  CPU  STATE       SHARE",
            "debian              0    3  running      40.0 %",
            "debian              1    -  off           0.0 %",
            "debian              2   12  ready        12.5 %",
            "idle                                    147.5 %",
            "board                                   200.0 %",
        ];
        assert!(out.lines().eq(expected), "{out}");
    }

    #[test]
    fn exits_are_summed_and_those_that_never_were_are_left_out() {
        let row = |cause, count| ExitRow { cause, count };
        let rows = [row("wfi", 10), row("hvc", 0), row("abort", 5)];
        let out = shown(|out, line| exits(out, line, rows.into_iter()));
        let lines: Vec<Vec<_>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines, [["CAUSE", "COUNT"], ["wfi", "10"], ["abort", "5"], ["all", "15"]]);
    }

    #[test]
    fn registers_fit_a_terminal() {
        let x = core::array::from_fn(|i| u64::MAX - i as u64);
        let system = [("SCTLR_EL1", 1), ("ELR_EL1", 2)];
        let row = RegsRow { vcpu: 1, state: "blocked", x: &x, pc: 0x4008_0000, pstate: 0x3C5, system: &system };
        let out = shown(|out, line| regs(out, line, &row));
        assert_eq!(out.lines().count(), 1 + 11 + 1);
        assert!(out.contains("X30 0xffffffffffffffe1") && out.contains("SCTLR_EL1  0x0000000000000001"));
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines[0], "vCPU 1, blocked: PC 0x0000000040080000, PSTATE 0x000003c5");
        assert_eq!(lines[1], "X0  0xffffffffffffffff  X1  0xfffffffffffffffe  X2  0xfffffffffffffffd");
        assert_eq!(lines[12], "SCTLR_EL1  0x0000000000000001  ELR_EL1    0x0000000000000002");
    }

    #[test]
    fn shares_of_a_window_of_years_are_those_of_a_short_one() {
        // Two CPUs, of which the first VM has a quarter of one and the second half of one.
        let table = |ticks: u64| {
            let row = |n: usize| {
                let row = (n < 2).then_some(TopRow {
                    name: "a",
                    vcpu: 0,
                    cpu: None,
                    state: "off",
                    ticks: ticks / 4 * (n as u64 + 1),
                });
                (
                    if n == 0 {
                        0
                    } else if n == 1 {
                        ticks / 4
                    } else {
                        ticks / 4 * 3
                    },
                    row,
                )
            };
            shown(|out, line| top(out, line, (ticks, 2), row, 2))
        };
        let short = table(4_000);
        assert_eq!(
            short.lines().map(|line| line.trim_end().rsplit("  ").next().unwrap().trim()).collect::<Vec<_>>(),
            ["SHARE", "25.0 %", "50.0 %", "125.0 %", "200.0 %"]
        );
        for ticks in [1 << 30, 1 << 52, 1 << 53, 1 << 62] {
            assert_eq!(table(ticks), short, "{ticks}");
        }
    }
}
