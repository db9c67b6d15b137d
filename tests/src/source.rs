//! The files of the tree, as rules about them see them: comments and the insides of literals blanked.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the tree.
pub struct File {
    /// From the root, with `/`.
    pub path: String,
    /// What is in it.
    pub text: String,
}

impl File {
    /// One that is not in the tree.
    pub fn sample(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// The code: comments and the insides of literals blanked.
    pub fn code(&self) -> String {
        blank(&self.text)
    }

    /// The code up to the test module at the end; nothing if all of it is tests.
    pub fn code_without_tests(&self) -> String {
        if self.path.ends_with("/tests.rs") || self.path.contains("/tests/") {
            return String::new();
        }
        let code = self.code();
        let lines: Vec<_> = code.lines().collect();
        let tests = lines.windows(2).position(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].contains("mod "));
        lines[..tests.unwrap_or(lines.len())].join("\n")
    }

    /// Whether it is under one of `places`.
    pub fn is_under(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }

    /// Whether it is source.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it is of the library: code that knows no machine.
    pub fn is_library(&self) -> bool {
        let hypervisor = self.is_under(&["hypervisor/src/"]) && !self.is_under(&["hypervisor/src/el2"]);
        self.is_rust()
            && (hypervisor && !self.is_under(&["hypervisor/src/main.rs"]) || self.is_under(&["platform/src/"]))
    }

    /// The room of the hypervisor it belongs to.
    pub fn room(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("hypervisor/src/")?.strip_suffix(".rs")?;
        let room = rest.split('/').next()?;
        (!["lib", "main", "el2"].contains(&room)).then_some(room)
    }

    /// A complaint for each line of `code` that `breaks` a rule.
    pub fn complain(&self, code: &str, what: &str, breaks: impl Fn(&str) -> bool) -> Vec<String> {
        let lines = code.lines().zip(1..).filter(|(line, _)| breaks(line));
        lines.map(|(_, number)| format!("{}:{number}: {what}", self.path)).collect()
    }
}

/// Where the tree is.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").into()
}

/// The text files of the tree, but for what is built or fetched.
pub fn tree() -> Vec<File> {
    let mut files = Vec::new();
    walk(&root(), "", &mut files);
    assert!(files.len() > 20, "this is not the whole tree");
    files
}

fn walk(root: &Path, under: &str, files: &mut Vec<File>) {
    for entry in fs::read_dir(root.join(under)).expect("a readable directory") {
        let entry = entry.expect("a readable entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if under.is_empty() { name.clone() } else { format!("{under}/{name}") };
        if name == ".git" || name == "target" {
            continue;
        }
        if entry.file_type().expect("a file type").is_dir() {
            walk(root, &path, files);
        } else if let Ok(text) = fs::read_to_string(entry.path()) {
            files.push(File { path, text });
        }
    }
}

/// `text` with comments and the insides of strings and character literals made spaces; lines stay lines.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut i = 0;
    while i < bytes.len() {
        let rest = &text.as_bytes()[i..];
        let before = i.checked_sub(1).map_or(b' ', |at| bytes[at]);
        let end = if rest.starts_with(b"//") {
            i + rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            i + rest.windows(2).position(|pair| pair == b"*/").map_or(rest.len(), |at| at + 2)
        } else if rest[0] == b'r' && !before.is_ascii_alphanumeric() && raw_hashes(&rest[1..]).is_some() {
            let hashes = raw_hashes(&rest[1..]).unwrap_or(0);
            let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
            let inside = i + hashes + 2;
            let tail = &bytes[inside..];
            inside + tail.windows(close.len()).position(|w| w == close).map_or(tail.len(), |at| at + close.len())
        } else if rest[0] == b'"' {
            i + quoted(rest, b'"')
        } else if rest[0] == b'\'' && (rest.get(1) == Some(&b'\\') || rest.get(2) == Some(&b'\'')) {
            i + quoted(rest, b'\'')
        } else {
            i += 1;
            continue;
        };
        out[i..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        i = end;
    }
    // Whole literals and comments were blanked, so what is left is as whole as it was.
    String::from_utf8(out).expect("text")
}

/// How many `#` stand before the quote of a raw string, if one begins here.
fn raw_hashes(rest: &[u8]) -> Option<usize> {
    let hashes = rest.iter().take_while(|&&b| b == b'#').count();
    (rest.get(hashes) == Some(&b'"')).then_some(hashes)
}

/// The length of the literal at the start of `rest`, both quotes included.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut i = 1;
    while i < rest.len() && rest[i] != quote {
        i += if rest[i] == b'\\' { 2 } else { 1 };
    }
    (i + 1).min(rest.len())
}
