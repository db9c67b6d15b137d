//! What can be typed: [`parse`] makes a [`Command`] of a line, or a [`CommandError`] that says what to type instead.
//!
//! A VM is named by its name or by its number in the manifest; names come first. Nothing is allocated.

use crate::addr::VmId;
use core::fmt;

/// What the operator asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Nothing: an empty line.
    Nothing,
    /// The list of commands.
    Help,
    /// The VMs and what they do.
    Vms,
    /// This VM gets the line; or none.
    Attach(Option<VmId>),
    /// This VM stands still.
    Pause(VmId),
    /// This VM goes on.
    Resume(VmId),
    /// This VM starts again from pristine images.
    Restart(VmId),
    /// This VM ends.
    Stop(VmId),
    /// The VMs' disks and what they do.
    Disks,
    /// The VMs' network devices and what they do.
    Nets,
    /// Where the memory is.
    Mem,
    /// This VM's balloon is to have so many bytes; or what the policy says.
    Balloon(VmId, Option<u64>),
    /// What was taken from this VM or given to it, and why.
    Why(VmId),
    /// Lines of statistics every second, or no more.
    Stats(bool),
    /// Whether the shadow tables of VMs that are hypervisors are checked every second.
    Check(bool),
    /// Who has the CPUs.
    Top,
    /// Why guests were left, of one VM or of all.
    Exits(Option<VmId>),
    /// The last lines of the log.
    Log(usize),
    /// The registers of this VM's vCPUs.
    Regs(VmId),
    /// The board starts again.
    Reboot,
    /// The board powers off.
    PowerOff,
}

/// The commands, with what they take and do: a line each.
pub const HELP: &[(&str, &str, &str)] = &[
    ("help", "", "this list"),
    ("vms", "", "the VMs and what they do"),
    ("attach", "VM|-", "give VM the keyboard and leave the monitor; - for nobody"),
    ("pause", "VM", "let VM stand still"),
    ("resume", "VM", "let VM go on"),
    ("restart", "VM", "start VM again from pristine images"),
    ("stop", "VM", "end VM"),
    ("disks", "", "the VMs' disks and what was read and written"),
    ("nets", "", "the VMs' network devices and what they sent and received"),
    ("mem", "", "where the memory is"),
    ("balloon", "VM N|-", "let VM's balloon have N bytes (64M); - for what the policy says"),
    ("why", "VM", "what memory VM was given or had to give, and why"),
    ("stats", "on|off", "a line of memory statistics for each VM every second"),
    ("check", "on|off", "check the shadow tables of VMs that are hypervisors every second"),
    ("top", "", "who has the CPUs"),
    ("exits", "[VM]", "why guests were left"),
    ("log", "[N]", "the last N lines of the hypervisor's log"),
    ("regs", "VM", "the registers of VM"),
    ("reboot", "[off]", "restart the board, or power it off"),
];

/// How many lines `log` shows unless told.
const LOG_LINES: usize = 20;

/// Why a line is no command, and what would be one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandError<'a> {
    /// There is no such command.
    Command(&'a str),
    /// There is no such VM.
    Vm(&'a str),
    /// The command needs a VM.
    NeedsVm(&'a str),
    /// Not a number.
    Number(&'a str),
    /// Not an amount of memory.
    Amount(&'a str),
    /// Neither on nor off.
    Switch(&'a str),
    /// The command takes no such word.
    TooMuch(&'a str, &'a str),
}

impl fmt::Display for CommandError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(word) => write!(f, "no command `{word}`; `help` lists them"),
            Self::Vm(word) => write!(f, "no VM `{word}`; `vms` lists them"),
            Self::NeedsVm(command) => write!(f, "`{command}` which VM? `{command} NAME`; `vms` lists them"),
            Self::Number(word) => write!(f, "`{word}` is not a number of lines; `log 50` shows fifty"),
            Self::Amount(word) => {
                write!(f, "`{word}` is not an amount; `balloon VM 64M` takes 64 MiB, `-` leaves it to the policy")
            }
            Self::Switch(word) => write!(f, "`{word}` is neither `on` nor `off`"),
            Self::TooMuch(command, word) => write!(f, "`{command}` does not take `{word}`; `help` says what it takes"),
        }
    }
}

/// Makes a command of `line`. `find` knows the VMs by name.
pub fn parse<'a>(
    line: &'a str,
    n_vms: usize,
    find: impl Fn(&str) -> Option<VmId>,
) -> Result<Command, CommandError<'a>> {
    let mut words = line.split_ascii_whitespace();
    let Some(name) = words.next() else { return Ok(Command::Nothing) };
    let argument = words.next();
    let number = |word: &str| word.parse().ok().filter(|&n| usize::from(n) < n_vms).map(VmId);
    let some = |word: &'a str| find(word).or_else(|| number(word)).ok_or(CommandError::Vm(word));
    let vm = || some(argument.ok_or(CommandError::NeedsVm(name))?);
    let switch = || match argument.unwrap_or("") {
        "on" => Ok(true),
        "off" => Ok(false),
        word => Err(CommandError::Switch(word)),
    };
    let (command, takes) = match name {
        "help" | "?" => (Command::Help, 0),
        "vms" => (Command::Vms, 0),
        "disks" => (Command::Disks, 0),
        "nets" => (Command::Nets, 0),
        "attach" if argument == Some("-") => (Command::Attach(None), 1),
        "attach" => (Command::Attach(Some(vm()?)), 1),
        "pause" => (Command::Pause(vm()?), 1),
        "resume" => (Command::Resume(vm()?), 1),
        "restart" => (Command::Restart(vm()?), 1),
        "stop" => (Command::Stop(vm()?), 1),
        "mem" => (Command::Mem, 0),
        "balloon" => {
            let vm = vm()?;
            let word = words.next().unwrap_or("");
            let size = if word == "-" { None } else { Some(amount(word).ok_or(CommandError::Amount(word))?) };
            (Command::Balloon(vm, size), 2)
        }
        "why" => (Command::Why(vm()?), 1),
        "stats" => (Command::Stats(switch()?), 1),
        "check" => (Command::Check(switch()?), 1),
        "top" => (Command::Top, 0),
        "exits" => (Command::Exits(argument.map(some).transpose()?), 1),
        "log" => {
            let lines = argument.map(|word| word.parse().map_err(|_| CommandError::Number(word)));
            (Command::Log(lines.transpose()?.unwrap_or(LOG_LINES)), 1)
        }
        "regs" => (Command::Regs(vm()?), 1),
        "reboot" if argument == Some("off") => (Command::PowerOff, 1),
        "reboot" => (Command::Reboot, 0),
        _ => return Err(CommandError::Command(name)),
    };
    let surplus = if takes == 0 { argument } else { words.next() };
    surplus.map_or(Ok(command), |word| Err(CommandError::TooMuch(name, word)))
}

/// Bytes, written with K, M or G behind.
fn amount(word: &str) -> Option<u64> {
    // Nothing is as much in any unit.
    if word == "0" {
        return Some(0);
    }
    let shift = match word.as_bytes().last()? {
        b'K' | b'k' => 10,
        b'M' | b'm' => 20,
        b'G' | b'g' => 30,
        _ => return None,
    };
    let number: u32 = word.get(..word.len() - 1)?.parse().ok()?;
    Some(u64::from(number) << shift)
}

/// The rest of the only command that `start` can become, or of what all that it can become have in common.
pub(super) fn completion(start: &str) -> Option<&'static str> {
    let mut fitting = HELP.iter().filter_map(|(name, ..)| name.strip_prefix(start));
    let first = fitting.next()?;
    let common = |a: &'static str, b: &str| {
        let n = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
        a.get(..n).unwrap_or("")
    };
    Some(fitting.fold(first, common))
}

/// Whether `start` names a command in full.
pub(super) fn is_command(start: &str) -> bool {
    HELP.iter().any(|(name, ..)| *name == start)
}

#[cfg(test)]
mod tests {
    use super::{Command, CommandError, HELP, completion, parse};
    use crate::addr::VmId;
    use alloc::string::ToString;

    fn read(line: &str) -> Result<Command, CommandError<'_>> {
        parse(line, 3, |name| ["alpha", "beta", "0"].iter().position(|n| *n == name).map(|i| VmId(i as u16)))
    }

    #[test]
    fn commands_are_read_with_vms_by_name_or_number() {
        assert_eq!(read("  attach\tbeta "), Ok(Command::Attach(Some(VmId(1)))));
        assert_eq!(read("pause 1"), Ok(Command::Pause(VmId(1))));
        assert_eq!(read("stop 0"), Ok(Command::Stop(VmId(2))), "a name comes before a number");
        assert_eq!(read("attach -"), Ok(Command::Attach(None)));
        assert_eq!(read("exits"), Ok(Command::Exits(None)));
        assert_eq!(read("exits alpha"), Ok(Command::Exits(Some(VmId(0)))));
        assert_eq!(read("log 7"), Ok(Command::Log(7)));
        assert_eq!(read("log"), Ok(Command::Log(20)));
        assert_eq!(read("balloon beta 64M"), Ok(Command::Balloon(VmId(1), Some(64 << 20))));
        assert_eq!(read("balloon beta 4096K"), Ok(Command::Balloon(VmId(1), Some(4 << 20))));
        assert_eq!(read("balloon beta 3G"), Ok(Command::Balloon(VmId(1), Some(3 << 30))));
        assert_eq!(read("balloon beta 8k"), Ok(Command::Balloon(VmId(1), Some(8 << 10))));
        assert_eq!(read("balloon beta 5m"), Ok(Command::Balloon(VmId(1), Some(5 << 20))));
        assert_eq!(read("balloon beta 1g"), Ok(Command::Balloon(VmId(1), Some(1 << 30))));
        assert_eq!(read("balloon beta 0"), Ok(Command::Balloon(VmId(1), Some(0))));
        assert_eq!(read("balloon beta -"), Ok(Command::Balloon(VmId(1), None)));
        assert_eq!(read("reboot off"), Ok(Command::PowerOff));
        assert_eq!(read("reboot"), Ok(Command::Reboot));
        assert_eq!(read(""), Ok(Command::Nothing));
    }

    #[test]
    fn refusals_name_the_remedy() {
        for (line, refusal) in [
            ("halt", "no command `halt`; `help` lists them"),
            ("stop", "`stop` which VM? `stop NAME`; `vms` lists them"),
            ("stop gamma", "no VM `gamma`; `vms` lists them"),
            ("stop 3", "no VM `3`; `vms` lists them"),
            ("stop 99999999999999", "no VM `99999999999999`; `vms` lists them"),
            ("log many", "`many` is not a number of lines; `log 50` shows fifty"),
            ("vms all", "`vms` does not take `all`; `help` says what it takes"),
            ("reboot now", "`reboot` does not take `now`; `help` says what it takes"),
            ("balloon alpha", "`` is not an amount; `balloon VM 64M` takes 64 MiB, `-` leaves it to the policy"),
            ("stats maybe", "`maybe` is neither `on` nor `off`"),
            ("stop alpha beta", "`stop` does not take `beta`; `help` says what it takes"),
        ] {
            assert_eq!(read(line).unwrap_err().to_string(), refusal);
        }
    }

    #[test]
    fn every_command_in_the_list_is_one() {
        for (name, takes, _) in HELP {
            let with = match *takes {
                "VM N|-" => " alpha 64M",
                "on|off" => " on",
                takes if takes.starts_with('V') => " alpha",
                _ => "",
            };
            let line = [*name, with].concat();
            assert!(read(&line).is_ok(), "{line}");
        }
    }

    #[test]
    fn completion_goes_as_far_as_it_is_certain() {
        assert_eq!(completion("v"), Some("ms"));
        assert_eq!(completion("re"), Some(""));
        assert_eq!(completion("rest"), Some("art"));
        assert_eq!(completion("x"), None);
    }
}
