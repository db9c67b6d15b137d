//! The board's serial line, shared: [`Console`].
//!
//! *Out.* What the attended VM sends goes straight through. Of all others only whole lines appear, each with its VM's name
//! before it, stripped of control sequences; the hypervisor's own lines begin with `flatland: `. A line that comes while
//! another stands unfinished goes below it, and what stood there is written again: no line of anybody is ever torn.
//!
//! *In.* Bytes go to the attended VM. Ctrl-] leads to the monitor and back; so does any key while nobody is attended.
//!
//! Everything waits in one ring until [`Console::drain`] finds the UART ready. Guests may fill part of it only: past that,
//! [`Console::room`] is 0 and their UARTs look busy; while the monitor is open their part is small, so that answers come
//! soon. Whoever sends without room loses bytes, which are counted. Nothing is allocated after [`Console::new`].

use super::commands::{self, Command};
use super::line::{Editor, Key};
use super::log::Log;
use super::stream::{LINE, Stream};
use crate::addr::VmId;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::fmt::{self, Write};

/// The bytes of the ring.
const RING: usize = 16 << 10;
/// What guests may fill.
const GUESTS: usize = 12 << 10;
/// What they may fill while the monitor is open.
const GUESTS_BESIDE_MONITOR: usize = 2 << 10;
/// How much of an unfinished line is written again.
const UNFINISHED: usize = 256;
/// What one line may come to, with names, prompts and repetition.
const MOST: usize = LINE + 2 * UNFINISHED;
/// Ctrl-].
const ESCAPE: u8 = 0x1D;

/// What a byte from the operator came to.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// Nothing for anybody else.
    Nothing,
    /// This VM's UART receives it.
    Guest(VmId, u8),
    /// To be carried out, and answered by [`Console::answer`].
    Command(Command),
}

/// Who has the keyboard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Focus {
    Guest,
    Monitor,
}

/// The board's serial line.
#[derive(Debug)]
pub struct Console {
    ring: VecDeque<u8>,
    streams: Vec<Stream>,
    attended: Option<VmId>,
    focus: Focus,
    /// What the attended VM has sent of its line, as far as it fits.
    unfinished: ArrayVec<u8, UNFINISHED>,
    /// It sent CR: what follows, if not LF, is written over the line.
    returned: bool,
    editor: Editor,
    log: Log,
    lost: u64,
    /// An answer has begun that is not at its end.
    answers: bool,
}

impl Console {
    /// A console for the VMs with these names. The only VM is attended; of several, none.
    pub fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let streams: Vec<_> = names.map(Stream::new).collect();
        Self {
            ring: VecDeque::with_capacity(RING),
            attended: (streams.len() == 1).then_some(VmId(0)),
            streams,
            focus: Focus::Guest,
            unfinished: ArrayVec::new(),
            returned: false,
            editor: Editor::new(),
            log: Log::new(),
            lost: 0,
            answers: false,
        }
    }

    /// How many bytes guests may send before they must wait.
    pub fn room(&self) -> usize {
        let part = if self.focus == Focus::Monitor { GUESTS_BESIDE_MONITOR } else { GUESTS };
        part.saturating_sub(self.ring.len())
    }

    /// `vm` sent `byte`.
    pub fn put(&mut self, vm: VmId, byte: u8) {
        if self.ring.len() > GUESTS {
            self.lost += 1;
        } else if self.focus == Focus::Guest && self.attended == Some(vm) {
            self.pass(byte);
        } else {
            self.collect(vm, byte);
        }
    }

    /// `vm` has ended: what it sent of its line is all there will be.
    pub fn finish(&mut self, vm: VmId) {
        if self.focus == Focus::Guest && self.attended == Some(vm) && !self.unfinished.is_empty() {
            self.pass(b'\r');
            self.pass(b'\n');
        } else if self.streams.get(usize::from(vm.0)).is_some_and(|stream| !stream.line.is_empty()) {
            self.show_line(vm);
        }
    }

    /// The hypervisor has something to say: it is shown and kept in the log.
    pub fn log(&mut self, text: fmt::Arguments<'_>) {
        self.log.line(text);
        self.show(text);
    }

    /// The same, of what is not kept in the log.
    pub fn show(&mut self, text: fmt::Arguments<'_>) {
        self.below(|out| {
            out.write_str("flatland: ")?;
            out.write_fmt(text)
        });
    }

    /// The last lines of the log.
    pub fn history(&self) -> &Log {
        &self.log
    }

    /// The operator typed `byte`.
    pub fn receive(&mut self, byte: u8) -> Input {
        if byte == ESCAPE {
            match self.focus {
                Focus::Guest => self.open(),
                Focus::Monitor => self.close(),
            }
            return Input::Nothing;
        }
        if self.focus == Focus::Guest {
            if let Some(vm) = self.attended {
                return Input::Guest(vm, byte);
            }
            self.open();
        }
        match self.editor.key(byte) {
            Key::Nothing => {}
            Key::Changed => self.prompt(),
            Key::Abandoned => {
                self.text("\r\n");
                self.prompt();
            }
            Key::Clear => {
                self.text("\x1b[H\x1b[2J");
                self.prompt();
            }
            Key::Finished => return self.obey(),
        }
        Input::Nothing
    }

    /// Writes the answer to a command, and asks for the next.
    pub fn answer(&mut self, write: impl FnOnce(&mut dyn Write) -> fmt::Result) {
        self.begin_answer();
        // What does not fit is counted as lost.
        let _ = write(&mut Lines(self));
        self.end_answer();
    }

    /// Begins an answer of several lines: the next command is asked for behind it.
    pub fn begin_answer(&mut self) {
        self.text("\r\x1b[K");
        self.answers = true;
    }

    /// Writes a line of the answer that was begun. False if there is none: `write` says nothing.
    pub fn answer_line(&mut self, write: impl FnOnce(&mut dyn Write) -> Option<fmt::Result>) -> bool {
        // What does not fit is counted as lost.
        write(&mut Lines(self)).is_some()
    }

    /// Ends the answer, and asks for the next command.
    pub fn end_answer(&mut self) {
        self.answers = false;
        if self.focus == Focus::Monitor {
            self.prompt();
        }
    }

    /// Gives the line to `vm`, or to nobody, and leaves the monitor.
    pub fn attend(&mut self, vm: Option<VmId>) {
        if self.focus == Focus::Guest {
            self.end_line();
        }
        self.attended = vm.filter(|vm| usize::from(vm.0) < self.streams.len());
        self.focus = Focus::Monitor;
        self.close();
    }

    /// The guest that has the keyboard.
    pub fn keyboard(&self) -> Option<VmId> {
        self.attended.filter(|_| self.focus == Focus::Guest)
    }

    /// Who has the line.
    pub fn attended(&self) -> Option<VmId> {
        self.attended
    }

    /// Offers byte after byte to `send`, until it refuses or none is left.
    pub fn drain(&mut self, mut send: impl FnMut(u8) -> bool) {
        while let Some(&byte) = self.ring.front() {
            if !send(byte) {
                return;
            }
            self.ring.pop_front();
        }
    }

    /// Whether all has been sent.
    pub fn is_drained(&self) -> bool {
        self.ring.is_empty()
    }

    /// How many bytes were lost for want of room.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn open(&mut self) {
        self.end_line();
        self.focus = Focus::Monitor;
        self.prompt();
    }

    /// Leaves the monitor: the attended VM's line is shown as far as it got.
    fn close(&mut self) {
        self.focus = Focus::Guest;
        self.text("\r\x1b[K");
        let Some(vm) = self.attended else {
            self.text("nobody is attended; Ctrl-] or any key for the monitor\r\n");
            return;
        };
        let Some(stream) = self.streams.get_mut(usize::from(vm.0)) else { return };
        let line = stream.take();
        let name = core::mem::take(&mut stream.name);
        self.text("attached to ");
        self.text(&name);
        self.text("; Ctrl-] for the monitor\r\n");
        if let Some(stream) = self.streams.get_mut(usize::from(vm.0)) {
            stream.name = name;
        }
        for byte in line {
            self.pass(byte);
        }
    }

    /// The operator finished a line.
    fn obey(&mut self) -> Input {
        self.text("\r\n");
        let line = self.editor.take();
        let find = |name: &str| {
            // There are at most as many VMs as VmId has numbers.
            self.streams.iter().position(|stream| stream.name == name).map(|i| VmId(i as u16))
        };
        match commands::parse(&line, self.streams.len(), find) {
            Ok(Command::Nothing) => self.prompt(),
            Ok(Command::Attach(Some(vm))) => self.attend(Some(vm)),
            Ok(Command::Attach(None)) => {
                self.attended = None;
                self.answer(|out| writeln!(out, "nobody is attended"));
            }
            Ok(command) => return Input::Command(command),
            Err(refusal) => self.answer(|out| writeln!(out, "{refusal}")),
        }
        Input::Nothing
    }

    /// A byte of the attended VM.
    fn pass(&mut self, byte: u8) {
        self.send(byte);
        match byte {
            b'\n' => {
                self.unfinished.clear();
                self.returned = false;
            }
            b'\r' => self.returned = true,
            _ => {
                if core::mem::take(&mut self.returned) {
                    self.unfinished.clear();
                }
                // What does not fit is not written again.
                let _ = self.unfinished.try_push(byte);
            }
        }
    }

    /// A byte of another.
    fn collect(&mut self, vm: VmId, byte: u8) {
        let Some(stream) = self.streams.get_mut(usize::from(vm.0)) else { return };
        if stream.feed(byte) {
            self.show_line(vm);
        }
    }

    /// Shows the line that `vm` has collected, and begins another.
    fn show_line(&mut self, vm: VmId) {
        let Some(stream) = self.streams.get_mut(usize::from(vm.0)) else { return };
        let line = stream.take();
        let name = core::mem::take(&mut stream.name);
        self.below(|out| {
            // Only ASCII was collected.
            write!(out, "[{name}] {}", core::str::from_utf8(&line).unwrap_or(""))
        });
        if let Some(stream) = self.streams.get_mut(usize::from(vm.0)) {
            stream.name = name;
        }
    }

    /// Writes a line below what stands unfinished, and that again below it.
    fn below(&mut self, write: impl FnOnce(&mut dyn Write) -> fmt::Result) {
        if RING - self.ring.len() < MOST {
            self.lost += 1;
            return;
        }
        let monitor = self.focus == Focus::Monitor;
        if monitor {
            self.text("\r\x1b[K");
        } else if !self.unfinished.is_empty() {
            self.text("\r\n");
        }
        // What does not fit is counted as lost.
        let _ = write(&mut Lines(self));
        self.text("\r\n");
        if monitor {
            self.prompt();
        } else {
            for byte in self.unfinished.clone() {
                self.send(byte);
            }
        }
    }

    /// Ends the attended VM's unfinished line on the screen.
    fn end_line(&mut self) {
        if !self.unfinished.is_empty() {
            self.text("\r\n");
            self.unfinished.clear();
        }
        self.returned = false;
    }

    fn prompt(&mut self) {
        if self.answers {
            return;
        }
        let editor = core::mem::take(&mut self.editor);
        // What does not fit is counted as lost.
        let _ = editor.draw(&mut Lines(self));
        self.editor = editor;
    }

    fn text(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.send(byte));
    }

    fn send(&mut self, byte: u8) {
        if self.ring.len() < RING {
            self.ring.push_back(byte);
        } else {
            self.lost += 1;
        }
    }
}

/// Text with LF as it is written, and CR LF as a terminal wants it.
struct Lines<'a>(&'a mut Console);

impl Write for Lines<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.0.send(b'\r');
            }
            self.0.send(byte);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Console, GUESTS, Input, RING};
    use crate::addr::VmId;
    use crate::monitor::Command;
    use alloc::string::String;
    use alloc::vec::Vec;

    const A: VmId = VmId(0);
    const B: VmId = VmId(1);

    fn two() -> Console {
        Console::new(["a", "b"].into_iter())
    }

    fn say(console: &mut Console, vm: VmId, text: &str) {
        text.bytes().for_each(|byte| console.put(vm, byte));
    }

    fn typed(console: &mut Console, text: &str) -> Vec<Input> {
        text.bytes().map(|byte| console.receive(byte)).filter(|input| *input != Input::Nothing).collect()
    }

    fn shown(console: &mut Console) -> String {
        let mut out = Vec::new();
        console.drain(|byte| {
            out.push(byte);
            true
        });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_of_unattended_vms_are_named_whole_and_tame() {
        let mut console = two();
        say(&mut console, A, "hel");
        say(&mut console, B, "\x1b[31mred\x1b[0m\x07\r\n");
        say(&mut console, A, "lo\r\n\u{e9}\t.\n");
        assert_eq!(shown(&mut console), "[b] red\r\n[a] hello\r\n[a] ?? .\r\n");
        say(&mut console, A, &"x".repeat(250));
        console.finish(A);
        let out = shown(&mut console);
        assert_eq!(out.lines().map(str::len).collect::<Vec<_>>(), [204, 54], "folded");
    }

    #[test]
    fn the_line_of_a_vm_that_ends_is_shown_as_far_as_it_came() {
        let mut console = two();
        console.attend(Some(A));
        shown(&mut console);
        say(&mut console, A, "in the");
        say(&mut console, B, "half");
        console.finish(B);
        assert_eq!(shown(&mut console), "in the\r\n[b] half\r\nin the");
        console.finish(A);
        assert_eq!(shown(&mut console), "\r\n");
        console.finish(A);
        console.finish(B);
        assert_eq!(shown(&mut console), "", "nothing was left");
        // The line goes to another.
        say(&mut console, A, "half");
        console.attend(Some(B));
        let out = shown(&mut console);
        assert!(out.starts_with("half\r\n") && !out.ends_with("half"), "{out:?}");
        say(&mut console, B, "own");
        assert_eq!(typed(&mut console, "\x1d"), []);
        assert!(shown(&mut console).starts_with("own\r\n"));
    }

    #[test]
    fn the_only_vm_is_attended_and_goes_straight_through() {
        let mut console = Console::new(["solo"].into_iter());
        say(&mut console, A, "login: \x1b[1m");
        assert_eq!(shown(&mut console), "login: \x1b[1m");
        assert_eq!(typed(&mut console, "x\r"), [Input::Guest(A, b'x'), Input::Guest(A, b'\r')]);
    }

    #[test]
    fn a_line_below_an_unfinished_one_tears_neither() {
        let mut console = two();
        console.attend(Some(A));
        shown(&mut console);
        say(&mut console, A, "one\r\nlog");
        say(&mut console, B, "hi\n");
        console.log(format_args!("beware"));
        say(&mut console, A, "in: \r\n");
        say(&mut console, B, "ho\n");
        let out = shown(&mut console);
        assert_eq!(out, "one\r\nlog\r\n[b] hi\r\nlog\r\nflatland: beware\r\nlogin: \r\n[b] ho\r\n");
    }

    #[test]
    fn the_monitor_opens_on_escape_and_what_it_cannot_do_goes_to_the_caller() {
        let mut console = two();
        console.attend(Some(A));
        assert_eq!(typed(&mut console, "\x1dvms\r"), [Input::Command(Command::Vms)]);
        console.answer(|out| out.write_str("table\n"));
        assert!(shown(&mut console).ends_with("table\r\n\rflatland> \x1b[K"));
        assert_eq!(typed(&mut console, "pause b\r"), [Input::Command(Command::Pause(B))]);
        shown(&mut console);
        say(&mut console, A, "prom");
        say(&mut console, B, "hi\n");
        assert_eq!(shown(&mut console), "\r\x1b[K[b] hi\r\n\rflatland> \x1b[K");
        say(&mut console, A, "pt# ");
        assert_eq!(typed(&mut console, "\x1dx"), [Input::Guest(A, b'x')]);
        assert!(shown(&mut console).ends_with("monitor\r\nprompt# "), "the line it began is shown");
    }

    #[test]
    fn any_key_opens_the_monitor_while_nobody_is_attended() {
        let mut console = two();
        assert_eq!(typed(&mut console, "mem\r"), [Input::Command(Command::Mem)]);
        assert_eq!(typed(&mut console, "attach b\r!"), [Input::Guest(B, b'!')]);
        assert_eq!(console.attended(), Some(B));
        assert_eq!(typed(&mut console, "\x1dattach -\rtop\r"), [Input::Command(Command::Top)]);
        assert_eq!(console.attended(), None);
        shown(&mut console);
        assert_eq!(typed(&mut console, "halt\rhelp\r\r"), [Input::Command(Command::Help)]);
        let out = shown(&mut console);
        assert!(out.contains("no command `halt`; `help` lists them\r\n"));
    }

    #[test]
    fn an_answer_of_several_lines_asks_for_the_next_command_at_its_end() {
        let mut console = two();
        typed(&mut console, "mem\r");
        shown(&mut console);
        console.begin_answer();
        assert!(console.answer_line(|out| Some(writeln!(out, "one"))));
        console.log(format_args!("between"));
        assert!(console.answer_line(|out| Some(writeln!(out, "two"))));
        assert!(!console.answer_line(|_| None));
        assert!(!shown(&mut console).contains("flatland> "), "it asks before its answer is at its end");
        console.end_answer();
        assert!(shown(&mut console).contains("flatland> "));
    }

    #[test]
    fn guests_cannot_fill_the_line_so_far_that_the_monitor_is_mute() {
        let mut console = two();
        assert_eq!(console.lost(), 0);
        for i in 0..100_000u32 {
            say(&mut console, if i % 3 == 0 { A } else { B }, if i % 50 == 0 { "\n" } else { "y" });
            assert!(console.ring.len() < GUESTS + 1024);
        }
        assert_eq!(console.room(), 0);
        assert!(console.lost() > 0);
        typed(&mut console, "halt\r");
        console.log(format_args!("still here"));
        let out = shown(&mut console);
        assert!(out.contains("lists them") && out.contains("flatland: still here"));
        assert!(console.is_drained() && console.room() > 0);
        let mut sent = 0;
        console.answer(|out| (0..RING).try_for_each(|_| out.write_str("z\n")));
        console.drain(|_| {
            sent += 1;
            sent < 10
        });
        assert!(console.ring.len() < RING && console.ring.capacity() < 2 * RING);
    }

    #[test]
    fn nobody_attends_a_vm_that_there_is_not() {
        let mut console = two();
        for (vm, attended) in [(1, Some(B)), (2, None), (0, Some(A)), (u16::MAX, None)] {
            console.attend(Some(VmId(vm)));
            assert_eq!(console.attended(), attended);
        }
    }

    #[test]
    fn the_keyboard_is_a_guests_while_the_monitor_is_closed() {
        let mut console = two();
        console.attend(Some(B));
        assert_eq!((console.keyboard(), console.attended()), (Some(B), Some(B)));
        assert_eq!(typed(&mut console, "\x1d"), []);
        assert_eq!((console.keyboard(), console.attended()), (None, Some(B)));
        console.attend(None);
        assert_eq!((console.keyboard(), console.attended()), (None, None));
    }
}
