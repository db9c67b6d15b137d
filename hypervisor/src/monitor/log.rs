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
}

impl Default for Log {
    fn default() -> Self {
        Self::new()
    }
}

impl Log {
    /// An empty log.
    pub fn new() -> Self {
        Self { bytes: VecDeque::with_capacity(ROOM), n_lines: 0, line: 0 }
    }

    /// Adds a line. Control characters in it, newlines too, become spaces.
    pub fn line(&mut self, text: fmt::Arguments<'_>) {
        // Writing to the ring cannot fail.
        let _ = self.write_fmt(text);
        self.push(b'\n');
        self.line = 0;
        self.n_lines += 1;
    }

    /// Writes the last `n` lines, the oldest first.
    pub fn show(&self, out: &mut dyn Write, n: usize) -> fmt::Result {
        let mut skip = self.n_lines.saturating_sub(n);
        for &byte in &self.bytes {
            if skip == 0 {
                out.write_char(char::from(byte))?;
            } else if byte == b'\n' {
                skip -= 1;
            }
        }
        Ok(())
    }

    fn push(&mut self, byte: u8) {
        if self.bytes.len() == ROOM {
            while let Some(old) = self.bytes.pop_front() {
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
        log.show(&mut out, n).unwrap();
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
}
