//! The line the operator types: [`Editor`], which takes bytes one at a time and says by a [`Key`] what came of each.
//!
//! It knows Backspace, the arrows, Home, End and Delete as terminals send them (ECMA-48 control sequences), Ctrl-A, -B,
//! -C, -D, -E, -F, -K, -L, -N, -P, -U and -W, Tab for commands, and a history of [`HISTORY`] lines. Lines have at most
//! [`WIDTH`] characters, of ASCII alone; whatever else arrives is dropped. Nothing is allocated.
//!
//! It draws by writing the whole line again: a serial line is slow, but a line is short, and no state of the terminal has
//! to be known but that it understands `CR` and `ESC [ K`.

use super::commands;
use arrayvec::{ArrayString, ArrayVec};
use core::fmt;

/// The longest line, in characters.
const WIDTH: usize = 128;
/// How many lines are remembered.
const HISTORY: usize = 16;
/// What stands before the line.
const PROMPT: &str = "flatland> ";

type Text = ArrayString<WIDTH>;

/// What a byte came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// Nothing to show.
    Nothing,
    /// The line changed: draw it.
    Changed,
    /// The line is finished: [`Editor::take`] it.
    Finished,
    /// The line was given up: a new one begins below.
    Abandoned,
    /// Clear the screen, then draw.
    Clear,
}

/// How far we are in a control sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sequence {
    None,
    Escape,
    /// With its numeric parameter so far.
    Control(u8),
}

/// A line being typed.
#[derive(Debug)]
pub struct Editor {
    text: Text,
    /// Where the next character goes, in characters from the start.
    cursor: usize,
    history: ArrayVec<Text, HISTORY>,
    /// How far back in history we are: 0 for the line being typed.
    back: usize,
    /// The line being typed, while an older one is shown.
    kept: Text,
    sequence: Sequence,
    /// The last byte was CR: an LF after it is the same key.
    after_cr: bool,
}

impl Default for Editor {
    fn default() -> Self {
        Self::new()
    }
}

impl Editor {
    /// An empty line without history.
    pub const fn new() -> Self {
        Self {
            text: Text::new_const(),
            cursor: 0,
            history: ArrayVec::new_const(),
            back: 0,
            kept: Text::new_const(),
            sequence: Sequence::None,
            after_cr: false,
        }
    }

    /// The operator typed `byte`.
    pub fn key(&mut self, byte: u8) -> Key {
        let after_cr = core::mem::replace(&mut self.after_cr, byte == b'\r');
        match self.sequence {
            Sequence::None => {}
            Sequence::Escape => {
                // ESC [ and ESC O begin the same keys on different terminals.
                let begins = matches!(byte, b'[' | b'O');
                self.sequence = if begins { Sequence::Control(0) } else { Sequence::None };
                return Key::Nothing;
            }
            Sequence::Control(number) => return self.sequence(number, byte),
        }
        match byte {
            b'\n' if after_cr => return Key::Nothing,
            b'\r' | b'\n' => return Key::Finished,
            0x1B => {
                self.sequence = Sequence::Escape;
                return Key::Nothing;
            }
            0x03 => {
                self.clear();
                return Key::Abandoned;
            }
            0x0C => return Key::Clear,
            0x01 => self.cursor = 0,
            0x02 => self.left(),
            0x04 => self.delete(),
            0x05 => self.cursor = self.text.len(),
            0x06 => self.right(),
            0x08 | 0x7F => {
                if self.cursor == 0 {
                    return Key::Nothing;
                }
                self.cut(self.cursor - 1, self.cursor);
            }
            b'\t' => self.complete(),
            0x0B => self.text.truncate(self.cursor),
            0x0E => self.newer(),
            0x10 => self.older(),
            0x15 => self.cut(0, self.cursor),
            0x17 => self.cut_word(),
            b' '..=b'~' => self.insert(byte),
            _ => return Key::Nothing,
        }
        Key::Changed
    }

    /// The finished line, which goes into history; an empty one begins.
    pub fn take(&mut self) -> Text {
        let line = self.text;
        let is_news = self.history.last().is_none_or(|last| *last != line);
        if !line.trim_ascii().is_empty() && is_news {
            if self.history.is_full() {
                self.history.remove(0);
            }
            self.history.push(line);
        }
        self.clear();
        line
    }

    /// Draws the prompt and the line over whatever is in this line of the terminal, and puts the cursor in its place.
    pub fn draw(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "\r{PROMPT}{}\x1b[K", self.text)?;
        match self.text.len() - self.cursor {
            0 => Ok(()),
            behind => write!(out, "\x1b[{behind}D"),
        }
    }

    fn clear(&mut self) {
        self.text.clear();
        self.cursor = 0;
        self.back = 0;
    }

    /// Another byte of a control sequence: parameters, then the key.
    fn sequence(&mut self, number: u8, byte: u8) -> Key {
        match byte {
            b'0'..=b'9' => {
                self.sequence = Sequence::Control(number.saturating_mul(10).saturating_add(byte - b'0'));
                return Key::Nothing;
            }
            // More parameters and intermediate bytes: none of ours has any that counts.
            b' '..=b'?' => return Key::Nothing,
            _ => self.sequence = Sequence::None,
        }
        match (byte, number) {
            (b'A', _) => self.older(),
            (b'B', _) => self.newer(),
            (b'C', _) => self.right(),
            (b'D', _) => self.left(),
            (b'H', _) | (b'~', 1 | 7) => self.cursor = 0,
            (b'F', _) | (b'~', 4 | 8) => self.cursor = self.text.len(),
            (b'~', 3) => self.delete(),
            _ => return Key::Nothing,
        }
        Key::Changed
    }

    fn insert(&mut self, byte: u8) {
        let rest = Text::from(self.text.get(self.cursor..).unwrap_or("")).unwrap_or_default();
        if self.text.is_full() {
            return;
        }
        self.text.truncate(self.cursor);
        self.text.push(char::from(byte));
        self.text.push_str(&rest);
        self.cursor += 1;
    }

    /// Removes the characters `from..to`; the cursor is where they were.
    fn cut(&mut self, from: usize, to: usize) {
        let rest = Text::from(self.text.get(to..).unwrap_or("")).unwrap_or_default();
        self.text.truncate(from);
        self.text.push_str(&rest);
        self.cursor = from;
    }

    fn cut_word(&mut self) {
        let before = self.text.get(..self.cursor).unwrap_or("").trim_ascii_end();
        let from = before.rfind(' ').map_or(0, |space| space + 1);
        self.cut(from, self.cursor);
    }

    fn delete(&mut self) {
        if self.cursor < self.text.len() {
            self.cut(self.cursor, self.cursor + 1);
        }
    }

    fn left(&mut self) {
        self.cursor = self.cursor.saturating_sub(1);
    }

    fn right(&mut self) {
        self.cursor = (self.cursor + 1).min(self.text.len());
    }

    fn older(&mut self) {
        if self.back < self.history.len() {
            if self.back == 0 {
                self.kept = self.text;
            }
            self.show(self.back + 1);
        }
    }

    fn newer(&mut self) {
        if self.back > 0 {
            self.show(self.back - 1);
        }
    }

    fn show(&mut self, back: usize) {
        self.back = back;
        let older = self.history.len().checked_sub(back).and_then(|i| self.history.get(i)).copied();
        self.text = older.unwrap_or(self.kept);
        self.cursor = self.text.len();
    }

    /// Completes the command, when the cursor is at the end of the first word.
    fn complete(&mut self) {
        if self.cursor != self.text.len() || self.text.contains(' ') || self.text.is_empty() {
            return;
        }
        if let Some(rest) = commands::completion(&self.text) {
            // All commands together are shorter than a line.
            let _ = self.text.try_push_str(rest);
            if commands::is_command(&self.text) {
                let _ = self.text.try_push(' ');
            }
            self.cursor = self.text.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Editor, HISTORY, Key, WIDTH};
    use alloc::format;
    use alloc::string::String;

    fn typed(editor: &mut Editor, keys: &str) {
        for byte in keys.bytes() {
            editor.key(byte);
        }
    }

    fn line(keys: &str) -> String {
        let mut editor = Editor::new();
        typed(&mut editor, keys);
        assert!(editor.cursor <= editor.text.len());
        String::from(editor.text.as_str())
    }

    #[test]
    fn keys_edit_where_the_cursor_is() {
        assert_eq!(line("ac\x1b[Db"), "abc");
        assert_eq!(line("bc\x01a\x05d"), "abcd");
        assert_eq!(line("abx\x7fc"), "abc");
        assert_eq!(line("xabc\x1b[H\x1b[3~"), "abc");
        assert_eq!(line("abcd\x1b[1~\x1b[C\x0b"), "a");
        assert_eq!(line("abcd\x02\x15"), "d");
        assert_eq!(line("stop alpha  \x17"), "stop ");
        assert_eq!(line("\x17\x7f\x04\x1b[D\x1b[C\x15\x0b\x1b[A\x1b[B"), "");
        assert_eq!(line("abc\x1bOH\x1bOF!"), "abc!");
    }

    #[test]
    fn each_key_does_what_it_does_elsewhere() {
        for (keys, expected) in [
            // As in Emacs and readline.
            ("\x01", "Xabcd"),
            ("\x02", "abcXd"),
            ("\x02\x02\x06", "abcXd"),
            ("\x01\x05", "abcdX"),
            ("\x01\x04", "Xbcd"),
            ("\x08", "abcX"),
            ("\x7f", "abcX"),
            ("\x02\x02\x0b", "abX"),
            ("\x02\x15", "Xd"),
            ("\x17", "X"),
            // As terminals send them.
            ("\x1b[D", "abcXd"),
            ("\x1bOD\x1bOD\x1bOC", "abcXd"),
            ("\x1b[D\x1b[D\x1b[C", "abcXd"),
            ("\x1b[H", "Xabcd"),
            ("\x1b[1~", "Xabcd"),
            ("\x1b[7~", "Xabcd"),
            ("\x01\x1b[F", "abcdX"),
            ("\x01\x1b[4~", "abcdX"),
            ("\x01\x1b[8~", "abcdX"),
            ("\x01\x1b[3~", "Xbcd"),
            // Nothing is there.
            ("\x06\x1b[C\x04\x1b[3~", "abcdX"),
            ("\x01\x02\x1b[D\x08\x7f", "Xabcd"),
            ("\x01\x15\x17", "Xabcd"),
        ] {
            assert_eq!(line(&format!("abcd{keys}X")), expected, "{keys:?}");
        }
        let mut editor = Editor::new();
        assert_eq!([editor.key(b'a'), editor.key(0x0c), editor.key(b'b')], [Key::Changed, Key::Clear, Key::Changed]);
        assert_eq!(editor.text.as_str(), "ab", "the screen is cleared, and not the line");
        for (older, newer) in [("\x10", "\x0e"), ("\x1b[A", "\x1b[B"), ("\x1bOA", "\x1bOB")] {
            let mut editor = Editor::new();
            for word in ["one", "two"] {
                typed(&mut editor, word);
                editor.take();
            }
            typed(&mut editor, "now");
            for (key, expected) in [(older, "two"), (older, "one"), (older, "one"), (newer, "two"), (newer, "now")] {
                typed(&mut editor, key);
                assert_eq!(editor.text.as_str(), expected);
            }
        }
    }

    #[test]
    fn unknown_keys_and_foreign_bytes_leave_no_trace() {
        assert_eq!(line("a\x1b[1;5Cb\x1b[15~c\x1bxd\u{e9}\x00\x1b[999999999~e"), "abcde");
    }

    #[test]
    fn a_line_has_an_end_and_enter_is_one_key() {
        let mut editor = Editor::new();
        for _ in 0..1000 {
            editor.key(b'x');
        }
        assert_eq!(editor.text.len(), WIDTH);
        assert_eq!([editor.key(b'\r'), editor.key(b'\n')], [Key::Finished, Key::Nothing]);
        assert_eq!(editor.take().len(), WIDTH);
        assert_eq!([editor.key(b'\n'), editor.key(b'\n')], [Key::Finished, Key::Finished]);
    }

    #[test]
    fn history_goes_back_and_returns_to_the_line_being_typed() {
        let mut editor = Editor::new();
        for i in 0..HISTORY + 4 {
            typed(&mut editor, &format!("log {i}"));
            editor.take();
            editor.take();
        }
        typed(&mut editor, "new");
        for _ in 0..50 {
            typed(&mut editor, "\x1b[A");
        }
        assert_eq!(editor.text.as_str(), "log 4", "the oldest that is remembered");
        typed(&mut editor, "\x1b[B");
        assert_eq!(editor.text.as_str(), "log 5");
        for _ in 0..50 {
            typed(&mut editor, "\x1b[B");
        }
        assert_eq!(editor.text.as_str(), "new");
        assert_eq!(editor.key(0x03), Key::Abandoned);
        assert_eq!(editor.text.as_str(), "");
    }

    #[test]
    fn tab_completes_commands_alone() {
        assert_eq!(line("att\t"), "attach ");
        assert_eq!(line("re\t"), "re");
        assert_eq!(line("rest\tx"), "restart x");
        assert_eq!(line("stop a\t"), "stop a");
        assert_eq!(line("\t"), "");
        assert_eq!(line("zz\t"), "zz");
    }

    #[test]
    fn drawing_puts_the_cursor_in_its_place() {
        let mut editor = Editor::new();
        typed(&mut editor, "abc\x1b[D\x1b[D");
        let mut out = String::new();
        editor.draw(&mut out).unwrap();
        assert_eq!(out, "\rflatland> abc\x1b[K\x1b[2D");
    }

    #[test]
    fn what_is_under_the_cursor_goes_and_words_are_completed_at_the_end_of_the_first() {
        assert_eq!(line("abc\x01\x04"), "bc");
        assert_eq!(line("abc\x02\x04\x04"), "ab");
        assert_eq!(line("rest\t"), "restart ");
        assert_eq!(line("rest\x02\t"), "rest", "in the middle");
        assert_eq!(line("stop v\t"), "stop v", "a second word");
        assert_eq!(line("\t"), "");
    }
}
