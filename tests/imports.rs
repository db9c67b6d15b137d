//! Which file uses which: the graph of imports, drawn from the code.
//!
//! A file uses another if it names something that is defined there, by `use` or by a path, or that a file in between
//! re-exports from there. Above `el2/` nothing goes round in a circle, of files or of rooms: whoever reads a file reads on
//! downwards, and comes to an end. `ARCHITECTURE.md` shows the graph of the rooms, which has to be this one.

use harness::source::{File, root, tree};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// A path as it is written: `crate::vm::Slot` in three parts.
type Names = Vec<String>;

/// What a file says of others.
struct Source {
    path: String,
    /// Of the crate's root: where it stands.
    module: Names,
    /// What `use` brings in: the path, and its name here.
    uses: Vec<(Names, String)>,
    /// Paths in the code.
    paths: Vec<Names>,
}

/// The words and signs of `code` that make paths; everything else is a sign of its own.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        if !first.is_whitespace() {
            tokens.push(token);
        }
        rest = after;
    }
    tokens
}

fn is_word(token: &str) -> bool {
    token.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')
}

/// Reads one tree of a `use`, whose path so far is `before`; returns how many tokens it took.
fn read_tree(tokens: &[&str], before: &[String], uses: &mut Vec<(Names, String)>) -> usize {
    let mut path = before.to_vec();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match *token {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| *token != "}") {
                    at += read_tree(&tokens[at..], &path, uses);
                    at += usize::from(tokens.get(at) == Some(&","));
                }
                return at + 1;
            }
            "::" => at += 1,
            "*" => {
                uses.push((path, String::from("*")));
                return at + 1;
            }
            word if is_word(word) => {
                if word != "self" || path.is_empty() {
                    path.push(word.to_string());
                }
                at += 1;
                if tokens.get(at) != Some(&"::") {
                    let is_renamed = tokens.get(at) == Some(&"as");
                    let alias = if is_renamed { tokens.get(at + 1) } else { None };
                    let alias = alias.map_or_else(|| path.last().cloned().unwrap_or_default(), ToString::to_string);
                    uses.push((path, alias));
                    return at + if is_renamed { 2 } else { 0 };
                }
            }
            _ => return at + 1,
        }
    }
    at
}

impl Source {
    fn of(file: &File) -> Option<Self> {
        let place = file.path.strip_prefix("hypervisor/src/")?.strip_suffix(".rs")?;
        if place.ends_with("tests") || place == "main" {
            return None;
        }
        let module = place.split('/').filter(|part| *part != "lib").map(str::to_string).collect();
        let code = file.code_without_tests();
        let tokens = tokens(&code);
        let (mut uses, mut paths) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < tokens.len() {
            if tokens[at] == "use" {
                at += 1 + read_tree(&tokens[at + 1..], &[], &mut uses);
                continue;
            }
            let mut path = Vec::new();
            if is_word(tokens[at]) && (at == 0 || tokens[at - 1] != ".") {
                path.push(tokens[at].to_string());
                while tokens.get(at + 1) == Some(&"::") && tokens.get(at + 2).is_some_and(|token| is_word(token)) {
                    path.push(tokens[at + 2].to_string());
                    at += 2;
                }
            }
            if path.len() > 1 {
                paths.push(path);
            }
            at += 1;
        }
        Some(Self { path: file.path.clone(), module, uses, paths })
    }

    /// The room it belongs to.
    fn room(&self) -> &str {
        self.module.first().map_or("lib", String::as_str)
    }
}

/// The files, and who uses whom.
struct Graph {
    sources: Vec<Source>,
    /// For each file, by its number: whom it uses, and what of them.
    edges: Vec<BTreeMap<usize, BTreeSet<String>>>,
}

impl Graph {
    fn draw(files: &[File]) -> Self {
        let sources: Vec<_> = files.iter().filter_map(Source::of).collect();
        let mut graph = Self { edges: Vec::new(), sources };
        for from in 0..graph.sources.len() {
            let mut edges = BTreeMap::<usize, BTreeSet<String>>::new();
            let source = &graph.sources[from];
            let used = source.uses.iter().map(|(path, _)| path);
            for path in used.chain(&source.paths) {
                let Some(whole) = graph.absolute(source, path) else { continue };
                if let Some(to) = graph.definer(&whole, 0).filter(|to| *to != from) {
                    edges.entry(to).or_default().insert(whole.join("::"));
                }
            }
            graph.edges.push(edges);
        }
        graph
    }

    fn module(&self, names: &[String]) -> Option<usize> {
        self.sources.iter().position(|source| source.module == names)
    }

    /// `path`, as `source` writes it, from the root of the crate; nothing if it names what another crate has, or is local.
    fn absolute(&self, source: &Source, path: &[String]) -> Option<Names> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" | "flatland" => Some(rest.to_vec()),
            "self" => Some([&source.module, rest].concat()),
            "super" => {
                let ups = path.iter().take_while(|name| *name == "super").count();
                let base = source.module.len().checked_sub(ups)?;
                Some([&source.module[..base], &path[ups..]].concat())
            }
            name => {
                let child = [source.module.as_slice(), &path[..1]].concat();
                if self.module(&child).is_some() {
                    return Some([&source.module, path].concat());
                }
                let (used, _) = source.uses.iter().find(|(used, alias)| alias == name && used[0] != *name)?;
                Some([self.absolute(source, used)?, rest.to_vec()].concat())
            }
        }
    }

    /// The file that has what `whole` names, through whoever re-exports it.
    fn definer(&self, whole: &[String], depth: usize) -> Option<usize> {
        let (length, module) = (0..=whole.len()).rev().find_map(|n| Some((n, self.module(&whole[..n])?)))?;
        let source = &self.sources[module];
        let Some(item) = whole.get(length).filter(|_| depth < 8) else { return Some(module) };
        let used = source.uses.iter().find(|(_, alias)| alias == item);
        let through = used.and_then(|(path, _)| self.absolute(source, path)).filter(|path| path != whole);
        through.and_then(|path| self.definer(&[&path, &whole[length + 1..]].concat(), depth + 1)).or(Some(module))
    }

    /// The files above `el2/` that can be come to again from themselves, and by what.
    fn circles(&self) -> Vec<String> {
        let above = |n: &usize| self.sources[*n].room() != "el2";
        let reach: Vec<_> = (0..self.sources.len()).map(|from| self.reach(from)).collect();
        let mut complaints = Vec::new();
        for from in (0..self.sources.len()).filter(above) {
            for (to, what) in &self.edges[from] {
                if reach[*to].contains(&from) {
                    let what: Vec<_> = what.iter().map(String::as_str).collect();
                    let (from, to) = (&self.sources[from].path, &self.sources[*to].path);
                    complaints.push(format!("{from}: in a circle with {to}, of which it uses {}", what.join(", ")));
                }
            }
        }
        complaints
    }

    /// All that can be come to from `from`.
    fn reach(&self, from: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut left = vec![from];
        while let Some(next) = left.pop() {
            left.extend(self.edges[next].keys().filter(|to| found.insert(**to)));
        }
        found
    }

    /// Which room uses which, the library above `el2/` alone.
    fn rooms(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut rooms = BTreeMap::<&str, BTreeSet<&str>>::new();
        for (source, edges) in self.sources.iter().zip(&self.edges) {
            let room = source.room();
            if ["lib", "el2"].contains(&room) {
                continue;
            }
            let used = edges.keys().map(|to| self.sources[*to].room()).filter(|used| *used != room && *used != "lib");
            rooms.entry(room).or_default().extend(used);
        }
        rooms
    }
}

/// All rooms that `room` uses, by whatever way.
fn below<'a>(rooms: &BTreeMap<&'a str, BTreeSet<&'a str>>, room: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut left: Vec<_> = rooms.get(room).into_iter().flatten().collect();
    while let Some(next) = left.pop() {
        if found.insert(*next) {
            left.extend(rooms.get(next).into_iter().flatten());
        }
    }
    found
}

/// The lines of a graph of `rooms` in which an arrow that a longer way makes needless is left out.
fn drawing(rooms: &BTreeMap<&str, BTreeSet<&str>>) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for (room, used) in rooms {
        for to in used {
            if !used.iter().any(|between| between != to && below(rooms, between).contains(to)) {
                lines.insert(format!("{room} --> {to}"));
            }
        }
    }
    lines
}

/// The rooms that use themselves by way of another.
fn room_circles<'a>(rooms: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<&'a str> {
    rooms.keys().filter(|room| below(rooms, room).contains(*room)).copied().collect()
}

#[test]
fn nothing_above_el2_goes_round_in_a_circle() {
    let graph = Graph::draw(&tree());
    let edges: usize = graph.edges.iter().map(BTreeMap::len).sum();
    assert!(graph.sources.len() > 120 && edges > 500, "{} files, {edges} edges", graph.sources.len());
    let circles = graph.circles();
    assert!(circles.is_empty(), "\n{}\n", circles.join("\n"));
    assert_eq!(room_circles(&graph.rooms()), Vec::<&str>::new(), "rooms that use each other");
}

#[test]
fn the_architecture_shows_the_rooms_as_they_are() {
    let graph = Graph::draw(&tree());
    let drawn = drawing(&graph.rooms());
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let picture = text.split("```mermaid\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the picture");
    let shown = picture.lines().map(str::trim).filter(|line| line.contains("-->")).map(str::to_string).collect();
    let wanted: Vec<_> = drawn.iter().map(|line| format!("    {line}")).collect();
    assert!(drawn == shown, "the picture in ARCHITECTURE.md is another; it should be:\n{}\n", wanted.join("\n"));
}

#[test]
fn circles_are_found_however_they_are_closed() {
    let files = |b: &str| {
        vec![
            File::sample("hypervisor/src/lib.rs", "pub mod a;"),
            File::sample("hypervisor/src/a.rs", "mod low;\nmod top;\npub use low::{Low as Deep, other};\n"),
            File::sample("hypervisor/src/a/low.rs", b),
            File::sample("hypervisor/src/a/top.rs", "use super::Deep;\npub struct Top(Deep);\n"),
        ]
    };
    for closed in [
        "use super::top::Top;",
        "fn f() { crate::a::top::f() }",
        "use crate::a::{top::{self, Top as T}};",
        "use super::top;\nfn f() { top::f() }",
        "pub use super::top::*;",
    ] {
        let circles = Graph::draw(&files(closed)).circles();
        assert_eq!(circles.len(), 2, "{closed}: {circles:?}");
    }
    for open in [
        "// use super::top::Top;",
        "use core::top::Top;",
        "fn f(top: T) { top.f() }",
        "#[cfg(test)]\nmod tests { use super::super::top; }",
    ] {
        assert_eq!(Graph::draw(&files(open)).circles(), Vec::<String>::new(), "{open}");
    }
    // Two rooms, whose files go round in no circle.
    let rooms = [
        File::sample("hypervisor/src/lib.rs", ""),
        File::sample("hypervisor/src/a.rs", "use crate::b::low::L;"),
        File::sample("hypervisor/src/a/low.rs", ""),
        File::sample("hypervisor/src/b.rs", "use crate::a::low::L;"),
        File::sample("hypervisor/src/b/low.rs", ""),
    ];
    let graph = Graph::draw(&rooms);
    assert_eq!((graph.circles().len(), room_circles(&graph.rooms()).len()), (0, 2));
}
