//! What an unattended VM sends: [`Stream`] makes whole, tame lines of it.
//!
//! Control sequences (ECMA-48) and control characters are dropped, so that no guest can move the cursor, clear the screen
//! or pretend to be another; what is not ASCII becomes `?`. Lines longer than [`LINE`] are folded.

use alloc::string::String;
use arrayvec::ArrayVec;

/// The longest line, in bytes.
pub(super) const LINE: usize = 200;

/// Where in a control sequence we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Skip {
    Nothing,
    Escape,
    Control,
}

/// One VM's output.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) name: String,
    /// ASCII alone.
    pub(super) line: ArrayVec<u8, LINE>,
    skip: Skip,
}

impl Stream {
    pub(super) fn new(name: &str) -> Self {
        Self { name: String::from(name), line: ArrayVec::new(), skip: Skip::Nothing }
    }

    /// Adds `byte`; whether the line is to be shown now.
    pub(super) fn feed(&mut self, byte: u8) -> bool {
        match (self.skip, byte) {
            (_, b'\n') => {
                self.skip = Skip::Nothing;
                return true;
            }
            (Skip::Nothing, 0x1B) => self.skip = Skip::Escape,
            (Skip::Escape, b'[') => self.skip = Skip::Control,
            (Skip::Escape, _) | (Skip::Control, b'@'..=b'~') => self.skip = Skip::Nothing,
            (Skip::Control, _) => {}
            (Skip::Nothing, b'\t') => self.line.push(b' '),
            (Skip::Nothing, b' '..=b'~') => self.line.push(byte),
            (Skip::Nothing, 0x80..) => self.line.push(b'?'),
            (Skip::Nothing, _) => {}
        }
        self.line.is_full()
    }

    /// The line so far; another begins.
    pub(super) fn take(&mut self) -> ArrayVec<u8, LINE> {
        self.skip = Skip::Nothing;
        core::mem::take(&mut self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::{LINE, Stream};

    #[test]
    fn a_line_is_shown_when_it_ends_or_is_full_and_never_grows_beyond() {
        let mut stream = Stream::new("vm");
        for (i, byte) in b"a\x1b[1;31mb\x1bMc\x1b[".iter().enumerate() {
            assert!(!stream.feed(*byte), "byte {i}");
        }
        assert!(stream.feed(b'\n'), "a sequence ends with the line");
        assert_eq!(&stream.take()[..], b"abc");
        assert_eq!((0..1000).filter(|_| stream.feed(b'x') && stream.take().len() == LINE).count(), 5);
    }
}
