//! The rules of the house that a program can check.
//!
//! Each rule is a function from a file to complaints, each complaint `file:line: what`; the tests run the rules over the
//! tree, and over samples that break them, so that no rule is kept for nothing. Rules look at the code alone: comments and
//! the insides of strings are blanked first, and what stands in test modules is not bound by rules for code a guest reaches.

use harness::source::{File, blank, root, tree};
use std::fs;

/// Where `unsafe` may stand: in `el2/`, in the run-time of the guests, and where tests of the drivers lay their
/// registers over plain memory.
const UNSAFE: &[&str] = &["hypervisor/src/el2/", "guests/rt/", "platform/tests/"];

fn assert_clean(rule: impl Fn(&File) -> Vec<String>) {
    let complaints: Vec<_> = tree().iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Whether `word` stands in `line` on its own.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// The floors of the rooms, from the table at the top of the library.
fn floors() -> Vec<(String, u32)> {
    let lib = fs::read_to_string(root().join("hypervisor/src/lib.rs")).expect("the library");
    let mut floors = Vec::new();
    for line in lib.lines().filter_map(|line| line.strip_prefix("//! |")) {
        let Some((floor, rooms)) = line.split_once('|') else { continue };
        let Ok(floor) = floor.trim().parse() else { continue };
        floors.extend(rooms.split('`').skip(1).step_by(2).map(|room| (room.to_string(), floor)));
    }
    assert!(floors.len() > 10, "the table of floors is gone");
    floors
}

/// The rooms that `code` names by a path from the crate.
fn named_rooms(code: &str) -> Vec<(usize, String)> {
    let mut rooms = Vec::new();
    for (at, found) in code.match_indices("crate::") {
        let line = code[..at].lines().count().max(1);
        let rest = &code[at + found.len()..];
        let word =
            |text: &str| text.trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_owned);
        let Some(group) = rest.strip_prefix('{') else {
            rooms.extend(word(rest).map(|room| (line, room)));
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (i, c) in group.char_indices() {
            if begins && depth == 0 && !c.is_whitespace() {
                rooms.extend(word(&group[i..]).map(|room| (line, room)));
                begins = false;
            }
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' => begins = true,
                _ => {}
            }
        }
    }
    rooms.retain(|(_, room)| !room.is_empty());
    rooms
}

/// A room uses lower floors, and itself; floor 0 is of words, which may name each other.
fn rooms_look_down(file: &File, floors: &[(String, u32)]) -> Vec<String> {
    let Some(room) = file.room() else { return Vec::new() };
    let floor = |room: &str| floors.iter().find(|(name, _)| name == room).map(|(_, floor)| *floor);
    let Some(own) = floor(room) else { return vec![format!("{}:1: room `{room}` has no floor in lib.rs", file.path)] };
    let named = named_rooms(&file.code_without_tests());
    let wrong = named.iter().filter(|(_, other)| {
        other != room && floor(other).is_some_and(|other| other >= own && !(own == 0 && other == 0))
    });
    wrong.map(|(line, other)| format!("{}:{line}: `{room}` may not use `{other}`", file.path)).collect()
}

fn unsafe_stays_below(file: &File) -> Vec<String> {
    if !file.is_rust() || file.is_under(UNSAFE) {
        return Vec::new();
    }
    file.complain(&file.code(), "`unsafe` outside of el2", |line| has_word(line, "unsafe"))
}

fn unsafe_is_argued(file: &File) -> Vec<String> {
    if !file.is_rust() {
        return Vec::new();
    }
    let text: Vec<_> = file.text.lines().collect();
    let code = file.code();
    let mut complaints = Vec::new();
    for (i, line) in code.lines().enumerate() {
        if !line.contains("unsafe {") && !line.contains("unsafe impl") {
            continue;
        }
        // The comment stands above the statement, which may have begun a few lines before.
        let above = &text[i.saturating_sub(8)..=i];
        if !above.iter().any(|line| line.contains("SAFETY:")) {
            complaints.push(format!("{}:{}: `unsafe` without SAFETY", file.path, i + 1));
        }
    }
    complaints
}

fn library_is_plain(file: &File) -> Vec<String> {
    if !file.is_library() {
        return Vec::new();
    }
    let code = file.code();
    let is_static = |line: &str| {
        let line = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        line.starts_with("static ")
    };
    let mut complaints = file.complain(&code, "`static` in the library", is_static);
    complaints.extend(file.complain(&code, "`cfg(target_*)` in the library", |line| {
        line.contains("cfg") && (line.contains("target_arch") || line.contains("target_os"))
    }));
    let lines: Vec<_> = code.lines().collect();
    for (i, line) in lines.iter().enumerate().filter(|(_, line)| line.contains("cfg") && has_word(line, "test")) {
        let guards = lines[i + 1..].iter().find(|line| !line.trim().is_empty());
        if line.trim() != "#[cfg(test)]" || !guards.is_some_and(|line| has_word(line, "mod")) {
            complaints.push(format!("{}:{}: `cfg(test)` on something else than a module", file.path, i + 1));
        }
    }
    complaints
}

fn begins_with_its_purpose(file: &File) -> Vec<String> {
    if !file.is_rust() || file.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![format!("{}:1: does not say what it owns (`//!`)", file.path)]
}

fn does_not_give_up(file: &File) -> Vec<String> {
    if !file.is_library() {
        return Vec::new();
    }
    file.complain(&file.code_without_tests(), "gives up where a guest may reach", |line| {
        [".unwrap()", ".expect(", "todo!", "unimplemented!", "unreachable!"].iter().any(|way| line.contains(way))
    })
}

fn names_no_machine(file: &File) -> Vec<String> {
    // Put together here, so that this file does not name them.
    let homes = ["work", "home", "root", "Users"].map(|place| format!("/{place}/"));
    file.complain(&file.text, "an absolute path of somebody's machine", |line| {
        homes.iter().any(|home| {
            line.match_indices(home.as_str()).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "._-/}$*>".contains(c))
            })
        })
    })
}

#[test]
fn rooms_use_lower_floors_alone() {
    let floors = floors();
    assert_clean(|file| rooms_look_down(file, &floors));
}

#[test]
fn unsafe_stands_in_el2_alone() {
    assert_clean(unsafe_stays_below);
}

#[test]
fn every_unsafe_block_is_argued_for() {
    assert_clean(unsafe_is_argued);
}

#[test]
fn the_library_has_no_statics_and_knows_neither_target_nor_test() {
    assert_clean(library_is_plain);
}

#[test]
fn every_file_says_first_what_it_owns() {
    assert_clean(begins_with_its_purpose);
}

#[test]
fn code_that_a_guest_reaches_does_not_give_up() {
    assert_clean(does_not_give_up);
}

#[test]
fn the_tree_names_nobodys_machine() {
    assert_clean(names_no_machine);
}

#[test]
fn blanking_leaves_the_code_and_its_lines() {
    let text = "let a = \"x // \\\" y\"; // unsafe\nr#\"unsafe \" \"# b'\\'' 'u' 'a: &'a str /* unsafe\n */ end";
    let code = blank(text);
    assert_eq!(code.lines().count(), 3);
    assert_eq!(code.len(), text.len());
    let words: Vec<_> = code.split_whitespace().collect();
    assert_eq!(words, ["let", "a", "=", ";", "b", "'a:", "&'a", "str", "end"]);
}

#[test]
fn rules_find_what_breaks_them() {
    let floors = floors();
    let upward = "//! x\nuse crate::{addr::{Addr, vm}, vgic,\n exit::Exit};\nfn f() { crate::monitor::g() }\nuse crate::arm::desc;\n";
    let complaints = rooms_look_down(&File::sample("hypervisor/src/vgic/lists.rs", upward), &floors);
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    assert_eq!(rooms_look_down(&File::sample("hypervisor/src/attic.rs", ""), &floors).len(), 1);
    let in_tests = "//! x\n#[cfg(test)]\nmod tests {\n use crate::vm::Vm; fn f() { x.unwrap() }\n}";
    assert_eq!(rooms_look_down(&File::sample("hypervisor/src/vgic.rs", in_tests), &floors).len(), 0);

    let library = |text: &str| File::sample("hypervisor/src/vgic.rs", text);
    assert_eq!(unsafe_stays_below(&library("unsafe { f() } // unsafe\n#![forbid(unsafe_code)]")).len(), 1);
    assert_eq!(unsafe_stays_below(&File::sample("hypervisor/src/main.rs", "unsafe fn f() {}")).len(), 1);
    assert_eq!(unsafe_stays_below(&File::sample("hypervisor/src/el2/mmu.rs", "unsafe { f() }")).len(), 0);
    assert_eq!(unsafe_is_argued(&library("x\nunsafe { f() }")).len(), 1);
    assert_eq!(unsafe_is_argued(&library("// SAFETY: it is so.\nlet x =\n unsafe { f() };")).len(), 0);
    for bad in ["static X: u8 = 0;", "#[cfg(target_arch = \"x\")]", "#[cfg(test)]\nfn f() {}", "if cfg!(test) {}"] {
        assert_eq!(library_is_plain(&library(bad)).len(), 1, "{bad}");
    }
    for good in
        ["fn f(x: &'static str) {}", "// static X", "#[cfg(test)]\nmod tests {}", "#[cfg(test)]\npub mod model;"]
    {
        assert_eq!(library_is_plain(&library(good)).len(), 0, "{good}");
    }
    assert_eq!(begins_with_its_purpose(&library("// x")).len(), 1);
    assert_eq!(does_not_give_up(&library("x.unwrap();\ny.expect(\"z\");\ntodo!()\n\".unwrap()\"")).len(), 3);
    assert_eq!(does_not_give_up(&library(in_tests)).len(), 0);
    for (home, complaints) in [("work", 1), ("home", 1), ("net", 0)] {
        assert_eq!(names_no_machine(&library(&format!("see /{home}/x"))).len(), complaints);
    }
    assert_eq!(names_no_machine(&library("target/work/x")).len(), 0);
}

#[test]
fn every_script_tells_what_it_is_called_with_by_its_own_name() {
    let files = tree();
    let scripts: Vec<_> = files
        .iter()
        .filter(|file| file.path.starts_with("scripts/") && file.text.starts_with("#!") && !file.path.contains('.'))
        .filter(|file| file.path.matches('/').count() == 1)
        .collect();
    assert!(scripts.len() >= 9, "only {} scripts", scripts.len());
    for script in scripts {
        let told = std::process::Command::new(root().join(&script.path)).arg("--help").output().expect("a script");
        let text = String::from_utf8_lossy(&told.stdout);
        assert!(told.status.success(), "{} --help fails: {}", script.path, String::from_utf8_lossy(&told.stderr));
        assert!(text.contains(&script.path), "{} --help calls itself otherwise:\n{text}", script.path);
    }
}
