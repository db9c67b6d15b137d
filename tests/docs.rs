//! What the documents say of the code: files, functions, tests, locks and budgets that they name are there.
//!
//! In `ARCHITECTURE.md` a line of a way through the code names a file, and functions behind it are in that file; above `el2/` a way
//! comes to each room once. `name` and a number behind it is a budget.

use harness::source::{File, root, tree};
use std::collections::BTreeMap;
use std::fs;

const DOCUMENTS: [&str; 4] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"];

/// What stands between backticks in `line`.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The text outside of blocks of code, a line at a time, with its number.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence && !line.starts_with("    ")
    })
}

/// Whether a quoted word is meant as the path of a file or directory of the tree.
fn is_path(word: &str) -> bool {
    let is_plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    let ends = [".rs", ".S", ".toml", ".md", ".sh", ".dts"].iter().any(|end| word.ends_with(end));
    is_plain && !word.starts_with(['.', '/', '-']) && (ends || word.ends_with('/')) && !word.contains("NAME")
}

struct Tree {
    files: BTreeMap<String, File>,
}

impl Tree {
    fn new() -> Self {
        Self { files: tree().into_iter().map(|file| (file.path.clone(), file)).collect() }
    }

    /// The file that a document means by `path`: from the root, or from the library's.
    fn find(&self, path: &str) -> Option<&File> {
        let whole = [String::new(), String::from("hypervisor/src/")].map(|base| base + path);
        whole.iter().find_map(|path| self.files.get(path))
    }

    fn has(&self, path: &str) -> bool {
        let is_below = |base: &str| self.files.keys().any(|file| file.starts_with(&format!("{base}{path}")));
        if path.ends_with('/') { is_below("") || is_below("hypervisor/src/") } else { self.find(path).is_some() }
    }
}

/// Whether `text` has a function, or a macro's or assembly's label, of this name.
fn has_function(text: &str, name: &str) -> bool {
    text.match_indices(&format!("fn {name}")).any(|(at, found)| text[at + found.len()..].starts_with(['(', '<']))
}

/// A complaint for each thing in this document that is not there.
fn complaints(tree: &Tree, document: &str, text: &str, budgets: &BTreeMap<String, u64>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in prose(text) {
        let mut complain = |what: String| complaints.push(format!("{document}:{number}: {what}"));
        for word in quoted(line).filter(|word| is_path(word) && !tree.has(word)) {
            complain(format!("there is no {word}"));
        }
        // Names of tests are long.
        for name in quoted(line).filter(|word| word.matches('_').count() > 3 && !word.contains(['-', ' ', '/'])) {
            let is_others = line.contains(&format!("KVM: `{name}`"));
            if !is_others && !tree.files.values().any(|file| has_function(&file.text, name)) {
                complain(format!("there is no test {name}"));
            }
        }
        for (at, name) in line.split('`').enumerate().filter(|(at, _)| at % 2 == 1) {
            let after = line.split('`').nth(at + 1).unwrap_or_default().trim_start();
            let claimed =
                after.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse::<u64>().ok());
            if let (Some(claimed), Some(budget)) = (claimed, budgets.get(name))
                && claimed != *budget
            {
                complain(format!("the budget of {name} is {budget}"));
            }
        }
    }
    complaints
}

fn budgets() -> BTreeMap<String, u64> {
    let text = fs::read_to_string(root().join("tests/budgets.toml")).expect("budgets");
    let rows = text.lines().filter_map(|line| line.split_once(" = "));
    let budgets: BTreeMap<_, _> = rows.map(|(name, value)| (name.into(), value.parse().expect("a number"))).collect();
    assert!(budgets.len() > 40, "only {} budgets", budgets.len());
    budgets
}

#[test]
fn documents_name_what_is_there() {
    let (tree, budgets) = (Tree::new(), budgets());
    let mut found = Vec::new();
    for document in DOCUMENTS {
        let text = &tree.files[document].text;
        assert!(prose(text).flat_map(|(_, line)| quoted(line)).count() > 2, "{document} names nothing");
        found.extend(complaints(&tree, document, text, &budgets));
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// What the steps of a way through the code have wrong: functions that are not in their files, rooms that are come to twice.
fn wrong_steps(tree: &Tree, way: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut rooms: Vec<String> = Vec::new();
    for (n, step) in way.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).enumerate() {
        let mut file = None;
        for (m, word) in quoted(step).enumerate() {
            if is_path(word) {
                file = tree.find(word);
                let room = word.split(['/', '.']).next().unwrap_or_default();
                // A file that stands in brackets, or further on in the line, is beside the way.
                if m == 0 && room != "el2" && rooms.last().is_none_or(|last| last != room) {
                    if rooms.iter().any(|earlier| earlier == room) {
                        complaints.push(format!("step {}: comes to {room} again", n + 1));
                    }
                    rooms.push(room.into());
                }
            } else if let Some(file) = file
                && word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                && !step.contains(&format!("KVM: `{word}`"))
                && !has_function(&file.text, word)
            {
                complaints.push(format!("step {}: {} has no function {word}", n + 1, file.path));
            }
        }
    }
    complaints
}

#[test]
fn ways_through_the_code_are_as_told_and_pass_each_room_once() {
    let tree = Tree::new();
    let text = &tree.files["ARCHITECTURE.md"].text;
    let ways = text.split("## Six ways").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("the ways");
    let ways: Vec<_> = ways.split("\n### ").skip(1).collect();
    assert_eq!(ways.len(), 6);
    for way in ways {
        let (title, steps) = way.split_once('\n').expect("steps");
        assert!((5..=10).contains(&steps.lines().filter(|line| line.starts_with(char::is_numeric)).count()), "{title}");
        assert_eq!(wrong_steps(&tree, steps), Vec::<String>::new(), "{title}");
    }
}

#[test]
fn locks_are_in_one_order_wherever_it_is_told() {
    let tree = Tree::new();
    let order = |path: &str| {
        let line = tree.files[path].text.lines().find(|line| line.contains("loader → ")).expect("an order of locks");
        line[line.find("loader").expect("it")..].split('`').next().expect("it").to_string()
    };
    assert_eq!(order("ARCHITECTURE.md"), order("hypervisor/src/lib.rs"));
}

#[test]
fn what_is_not_there_is_found() {
    let (tree, budgets) = (Tree::new(), budgets());
    let say = |text: &str| complaints(&tree, "X.md", text, &budgets).len();
    for (wrong, n) in [
        ("see `exit/attic.rs` and `attic/`", 2),
        ("`no_such_test_has_this_name`", 1),
        ("(`touch-4k` 2601 instructions)", 1),
        ("(`touch-4k` 2600), `exit/abort.rs`, `exit/`, `tests/budgets.toml`, `scripts/run`", 0),
        ("```\n`exit/attic.rs`\n```\n    `exit/attic.rs`", 0),
    ] {
        assert_eq!(say(wrong), n, "{wrong}");
    }
    let twice = "1. `exit.rs` `handle`\n2. `memory/fault.rs` `resolve`, `nothing_like_it` (KVM: `user_mem_abort`)\n3. `exit/abort.rs`: x";
    assert_eq!(wrong_steps(&tree, twice).len(), 2, "{:?}", wrong_steps(&tree, twice));
}
