//! Errors of the operator's: where, what, and how to mend it; and how names and amounts stand in them.

use super::spec::MANIFEST;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// The most errors that are reported before the rest is only counted.
pub const MOST_DIAGNOSTICS: usize = 64;

/// One error of the operator's: where it is, what is wrong, and what mends it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// Where: a path in the manifest such as `/vms/alpha/memory`, or a place in the archive.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.what, self.remedy)
    }
}

/// Errors while they are being collected: the first [`MOST_DIAGNOSTICS`], and a count of the rest.
#[derive(Default, Debug)]
pub struct Findings {
    list: Vec<Diagnostic>,
    more: usize,
}

impl Findings {
    /// Adds one error.
    pub fn add(&mut self, place: impl ToString, what: impl ToString, remedy: impl ToString) {
        self.push(Diagnostic { place: place.to_string(), what: what.to_string(), remedy: remedy.to_string() });
    }

    /// Adds one error that is already in words.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.list.len() < MOST_DIAGNOSTICS {
            self.list.push(diagnostic);
        } else {
            self.more += 1;
        }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What was found and kept.
    pub fn kept(self) -> impl Iterator<Item = Diagnostic> {
        self.list.into_iter()
    }

    /// The `value` where nothing was found, else all that was: at most [`MOST_DIAGNOSTICS`] and one that counts the
    /// rest.
    pub fn unless<T>(mut self, value: T) -> Result<T, Vec<Diagnostic>> {
        if self.more > 0 {
            let what = format!("{} more errors are not shown", self.more);
            self.list.push(Diagnostic { place: MANIFEST.into(), what, remedy: "mend those above first".into() });
        }
        if self.list.is_empty() { Ok(value) } else { Err(self.list) }
    }
}

/// The `text` in quotes, made harmless for a terminal and cut where it is long.
pub(crate) fn quote(text: &str) -> String {
    const MOST: usize = 40;
    let mut quoted = String::from("\"");
    for (n, c) in text.chars().enumerate() {
        if n == MOST {
            quoted.push_str("...");
            break;
        }
        match c {
            ' '..='~' if c != '"' && c != '\\' => quoted.push(c),
            _ => quoted += &format!("\\u{{{:x}}}", u32::from(c)),
        }
    }
    quoted.push('"');
    quoted
}

/// A number of bytes, shown as manifests write it where it is a whole number of K, M or G.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Amount(pub u64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        match bytes {
            0 => f.write_str("0 bytes"),
            1 => f.write_str("1 byte"),
            _ if bytes % (1 << 30) == 0 => write!(f, "{}G", bytes >> 30),
            _ if bytes % (1 << 20) == 0 => write!(f, "{}M", bytes >> 20),
            _ if bytes % (1 << 10) == 0 => write!(f, "{}K", bytes >> 10),
            _ => write!(f, "{bytes} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Amount, Findings, MOST_DIAGNOSTICS, quote};
    use alloc::string::ToString;

    #[test]
    fn too_many_findings_are_counted_not_kept() {
        let mut findings = Findings::default();
        for n in 0..MOST_DIAGNOSTICS + 7 {
            findings.add(n, "what", "remedy");
        }
        let list = findings.unless(()).unwrap_err();
        assert_eq!(list.len(), MOST_DIAGNOSTICS + 1);
        assert_eq!(list[0].to_string(), "0: what; remedy");
        assert!(list[MOST_DIAGNOSTICS].what.starts_with("7 more"));
    }

    #[test]
    fn quoted_text_cannot_drive_a_terminal() {
        assert_eq!(quote("a\x1b[2J"), r#""a\u{1b}[2J""#);
        assert_eq!(quote("a b~"), r#""a b~""#);
        assert_eq!(quote("\"\\\u{1b}\u{7f}\u{e9}"), r#""\u{22}\u{5c}\u{1b}\u{7f}\u{e9}""#);
        assert!(quote(&"x".repeat(1000)).len() < 50);
        assert_eq!([40, 41].map(|n| quote(&"x".repeat(n)).len()), [42, 42 + 3]);
    }

    #[test]
    fn amounts_are_told_in_the_largest_unit_that_they_are_whole_in() {
        for (bytes, told) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (2, "2 bytes"),
            (1023, "1023 bytes"),
            (4097, "4097 bytes"),
            (128 << 20, "128M"),
            (4 << 30, "4G"),
            (1 << 10, "1K"),
            ((1 << 20) + 1024, "1025K"),
            (3 << 20, "3M"),
            (1 << 30, "1G"),
            ((1 << 30) + 1, "1073741825 bytes"),
        ] {
            assert_eq!(Amount(bytes).to_string(), told);
        }
    }
}
