//! The last lines of the hypervisor's log: [`Log`], a ring of bytes with a newline after each line.
//!
//! When it is full the oldest lines go, whole. A line longer than [`LINE`] is cut. Nothing is allocated after [`Log::new`].

use alloc::collections::VecDeque;
use core::fmt::{self, Write};

/// The bytes kept.
const ROOM: usize = 8 << 10;
/// The longest line kept, in bytes.
const LINE: usize = 240;

/// The last lines of the log.
#[derive(Debug)]
pub struct Log {
    bytes: VecDeque<u8>,
    n_lines: usize,
    /// Bytes of the line being written.
    line: usize,
    /// How many bytes have gone.
    gone: usize,
}

/// How far the last lines have been shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Shown {
    /// Of all bytes that there ever were.
    at: usize,
    /// Lines that are not shown.
    skip: usize,
    /// Lines that are.
    left: usize,
}

/// How many lines are passed over at a time.
const AT_A_TIME: usize = 8;

impl Default for Log {
    fn default() -> Self {
        Self::new()
    }
}

impl Log {
    /// An empty log.
    pub fn new() -> Self {
        Self { bytes: VecDeque::with_capacity(ROOM), n_lines: 0, line: 0, gone: 0 }
    }

    /// Adds a line. Control characters in it, newlines too, become spaces.
    pub fn line(&mut self, text: fmt::Arguments<'_>) {
        // Writing to the ring cannot fail.
        let _ = self.write_fmt(text);
        self.push(b'\n');
        self.line = 0;
        self.n_lines += 1;
    }

    /// What to begin with so that [`Log::show`] writes the last `n` lines.
    pub fn last(&self, n: usize) -> Shown {
        Shown { at: self.gone, skip: self.n_lines.saturating_sub(n), left: self.n_lines.min(n) }
    }

    /// Writes the next line of `shown`, the oldest first, or passes over some that are not to be shown. Those that went meanwhile are
    /// left out, and those that came are not shown. Nothing is written, and false said, where there is no more.
    pub fn show(&self, out: &mut dyn Write, shown: &mut Shown) -> bool {
        if shown.left == 0 {
            return false;
        }
        shown.at = shown.at.max(self.gone);
        let mut passed = 0;
        while let Some(&byte) = self.bytes.get(shown.at.wrapping_sub(self.gone)) {
            shown.at = shown.at.wrapping_add(1);
            if shown.skip == 0 {
                // What does not fit is counted as lost.
                let _ = out.write_char(char::from(byte));
            }
            if byte == b'\n' {
                if shown.skip == 0 {
                    shown.left -= 1;
                    return true;
                }
                shown.skip -= 1;
                passed += 1;
                if passed == AT_A_TIME {
                    return true;
                }
            }
        }
        false
    }

    fn push(&mut self, byte: u8) {
        if self.bytes.len() == ROOM {
            while let Some(old) = self.bytes.pop_front() {
                self.gone = self.gone.wrapping_add(1);
                if old == b'\n' {
                    self.n_lines -= 1;
                    break;
                }
            }
        }
        self.bytes.push_back(byte);
    }
}

impl Write for Log {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.line < LINE {
                self.line += 1;
                self.push(if byte.is_ascii_graphic() { byte } else { b' ' });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{LINE, Log, ROOM};
    use alloc::string::String;

    fn shown(log: &Log, n: usize) -> String {
        let mut out = String::new();
        let mut at = log.last(n);
        while log.show(&mut out, &mut at) {}
        out
    }

    #[test]
    fn the_last_lines_are_kept_whole_and_the_oldest_go() {
        let mut log = Log::new();
        for i in 0..2000 {
            log.line(format_args!("line {i}"));
        }
        assert_eq!(shown(&log, 2), "line 1998\nline 1999\n");
        let all = shown(&log, usize::MAX);
        assert!(all.len() > ROOM - 20 && all.starts_with("line ") && all.lines().count() == log.n_lines);
        assert_eq!(shown(&log, 0), "");
    }

    #[test]
    fn a_line_is_cut_and_cannot_smuggle_in_another() {
        let mut log = Log::new();
        log.line(format_args!("a\nb\x1b[2J{:500}", ""));
        assert_eq!(shown(&log, 9).lines().count(), 1);
        assert_eq!(shown(&log, 9).len(), LINE + 1);
        assert!(shown(&log, 9).starts_with("a b [2J"));
    }

    #[test]
    fn what_comes_while_it_is_shown_is_not_shown() {
        let mut log = Log::new();
        (0..4).for_each(|i| log.line(format_args!("{i}")));
        let (mut out, mut at) = (String::new(), log.last(2));
        assert!(log.show(&mut out, &mut at));
        log.line(format_args!("new"));
        assert!(log.show(&mut out, &mut at) && !log.show(&mut out, &mut at));
        assert_eq!(out, "2\n3\n");
    }

    #[test]
    fn what_is_not_shown_is_passed_over_in_parts() {
        let mut log = Log::new();
        for i in 0..100 {
            log.line(format_args!("{i}"));
        }
        let mut at = log.last(3);
        let (mut calls, mut out) = (0, String::new());
        while log.show(&mut out, &mut at) {
            calls += 1;
        }
        // 97 lines in parts, of which the last ends at the first that is shown; then that and two more.
        assert_eq!((calls, out.as_str()), (97 / super::AT_A_TIME + 3, "97\n98\n99\n"));
    }
}
