//! A command of the operator's and its answer, which is given a line at a time ([`Answer`]): all of it at once would keep interrupts
//! masked for long.

use super::{Command, log};

/// A command, and how far its answer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// What was asked.
    pub command: Command,
    /// The vCPU that it is at, where it is about several.
    pub vcpu: usize,
    /// The line that comes next; of `vcpu`, where that counts.
    pub line: usize,
    /// How far the log has been shown.
    pub log: log::Shown,
    /// Whether the command has been carried out, and lines of the answer follow.
    pub has_begun: bool,
}

impl Answer {
    /// The answer to a command that has not been carried out.
    pub fn new(command: Command) -> Self {
        Self { command, vcpu: 0, line: 0, log: log::Shown::default(), has_begun: false }
    }
}
