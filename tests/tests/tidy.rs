//! The house rules as a test: floors, sizes, headers, purity, plain words.
//!
//! The rules read text; see `house`. `cargo test --package continuum-tests --test tidy -- --nocapture arrows` prints
//! the floors and the imports between their rooms.

mod house;

use std::fs;
use std::path::Path;

use continuum_tests::root;

use house::{Source, arrows, holds_word, none, prose, shipped, sources};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;
const COLUMNS_MAX: usize = 120;
const README_LINES_MAX: usize = 150;

/// Length of every function, as (first line, lines), by the indentation that rustfmt gives to its closing brace.
fn functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_function = code.split('(').next().is_some_and(|head| {
            head.split_whitespace().any(|word| word == "fn") && !code.starts_with("//")
        });
        if !is_function {
            continue;
        }
        let indent = line.len() - code.len();
        let close = format!("{}}}", " ".repeat(indent));
        let end = lines[at..].iter().position(|later| {
            *later == close
                || later.ends_with(';') && { later.len() - later.trim_start().len() == indent }
        });
        found.push((at + 1, end.map_or(1, |end| end + 1)));
    }
    found
}

#[test]
fn arrows_point_down() {
    let sources = sources("rs");
    let mut complaints = Vec::new();
    for level in &arrows::HOUSE {
        println!("{}", arrows::picture(level, &sources));
        complaints.extend(arrows::complaints(level, &sources));
    }
    none("a room imports only rooms on lower floors", &complaints);
}

/// Every comment of every source, and every document.
fn all_prose() -> Vec<(String, Vec<prose::Found>)> {
    let rust = sources("rs").into_iter().map(|s| (s.name, prose::comments(&s.text)));
    let readme = fs::read_to_string(root().join("README.md")).expect("a README");
    let changes = fs::read_to_string(root().join("CHANGELOG.md")).expect("a CHANGELOG");
    let top = [("README.md", readme), ("CHANGELOG.md", changes)];
    let top = top.map(|(name, text)| (name.to_owned(), prose::document(&text)));
    let documents = sources("md").into_iter().map(|s| (s.name, prose::document(&s.text)));
    rust.chain(top).chain(documents).collect()
}

/// All that `rule` finds, as lines for [`none`].
fn found(rule: impl Fn(&[prose::Found]) -> Vec<prose::Found>) -> Vec<String> {
    let mut complaints = Vec::new();
    // The rule's own file spells out what it bans.
    for (name, text) in all_prose().into_iter().filter(|(name, _)| !name.ends_with("prose.rs")) {
        complaints.extend(rule(&text).into_iter().map(|(at, what)| format!("{name}:{at}: {what}")));
    }
    complaints
}

#[test]
fn sentences_use_plain_words() {
    none("prose has a plainer word for these", &found(prose::banned));
}

#[test]
fn sentences_name_their_subject() {
    none("a sentence that begins with Who or What asks", &found(prose::riddles));
}

#[test]
fn comments_say_more_than_one_word() {
    none("a comment says the unit, the bound or the reason, or goes", &found(prose::one_word));
}

#[test]
fn the_root_readme_is_short() {
    let readme = fs::read_to_string(root().join("README.md")).expect("a README");
    let lines = readme.lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines");
}

#[test]
fn functions_are_small() {
    let mut complaints = Vec::new();
    for Source { name, text } in sources("rs") {
        for (line, length) in functions(&text) {
            if length > FUNCTION_LINES_MAX {
                complaints.push(format!("{name}:{line}: {length} lines"));
            }
        }
    }
    none("a function has at most 70 lines", &complaints);
}

#[test]
fn files_are_small() {
    let mut complaints = Vec::new();
    for Source { name, text } in sources("rs") {
        let lines = shipped(&text).last().map_or(0, |(line, _)| line);
        if lines > FILE_LINES_MAX {
            complaints.push(format!("{name}: {lines} lines"));
        }
    }
    none("a file has at most 600 lines before its tests", &complaints);
}

#[test]
fn lines_are_short() {
    let mut complaints = Vec::new();
    for Source { name, text } in sources("rs") {
        for (at, line) in text.lines().enumerate() {
            if line.chars().count() > COLUMNS_MAX {
                complaints.push(format!("{name}:{}", at + 1));
            }
        }
    }
    none("a line has at most 120 columns", &complaints);
}

#[test]
fn every_module_says_what_it_is() {
    let headless =
        |source: &Source| !source.text.starts_with("//!") && !source.text.starts_with("#![");
    let complaints: Vec<String> =
        sources("rs").into_iter().filter(headless).map(|source| source.name).collect();
    none("a module begins with //!", &complaints);
}

#[test]
fn core_is_pure() {
    let banned = [
        "HashMap", "HashSet", "std::", "async fn", ".await", "f32", "f64", "unsafe", "tokio",
        "println!",
    ];
    let mut complaints = Vec::new();
    for Source { name, text } in sources("rs") {
        if !name.starts_with("core/src") {
            continue;
        }
        for (at, line) in shipped(&text) {
            let code = line.split("//").next().unwrap_or_default();
            let word = banned.iter().find(|word| holds_word(code, word));
            complaints.extend(word.map(|word| format!("{name}:{at}: {word}")));
        }
    }
    none("core has no IO, clock, thread, async, float, unsafe or random order", &complaints);
}

#[test]
fn core_has_few_dependencies() {
    let manifest = fs::read_to_string(root().join("core/Cargo.toml")).expect("core/Cargo.toml");
    let after = manifest.split("\n[dependencies]\n").nth(1).expect("a dependency table");
    let count =
        after.lines().take_while(|line| !line.starts_with('[')).filter(|l| l.contains('=')).count();
    assert!((1..=8).contains(&count), "core has {count} direct dependencies");
}

#[test]
fn every_select_is_biased() {
    let mut complaints = Vec::new();
    for Source { name, text } in sources("rs") {
        if name.ends_with("tidy.rs") {
            continue;
        }
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let opens = code.contains("select! {");
            if opens && lines.get(at + 1).is_none_or(|next| next.trim() != "biased;") {
                complaints.push(format!("{name}:{}", at + 1));
            }
        }
    }
    none("a select! begins with biased;: an unbiased one draws from ambient chance", &complaints);
}

#[test]
fn nothing_is_unfinished() {
    // Spelled in halves, so that this file does not find itself.
    let banned = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["todo", "!("].concat(),
        ["unimplemented", "!("].concat(),
        ["#[ign", "ore"].concat(),
        ["cfg(mad", "sim)"].concat(),
    ];
    let mut complaints = Vec::new();
    for Source { name, text } in sources("rs") {
        for (at, line) in text.lines().enumerate() {
            let word = banned.iter().find(|word| line.contains(word.as_str()));
            // The scenarios that run under madsim are the one place that may ask for it.
            let scenario = name == "runtime/tests/madsim.rs" && line.starts_with("#![cfg(");
            if let Some(word) = word.filter(|_| !scenario) {
                complaints.push(format!("{name}:{}: {word}", at + 1));
            }
        }
    }
    none("nothing is left for later", &complaints);
}

#[test]
fn the_top_level_is_as_designed() {
    let allowed = [
        "core",
        "runtime",
        "sim",
        "tests",
        "fuzz",
        "target",
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "rustfmt.toml",
        "clippy.toml",
        "deny.toml",
        "rust-toolchain.toml",
    ];
    let entries = fs::read_dir(root()).expect("a readable root");
    let names = entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned());
    let extra: Vec<String> =
        names.filter(|n| !n.starts_with('.') && !allowed.contains(&n.as_str())).collect();
    none("the top level holds what the house holds", &extra);
}

#[test]
fn every_mark_and_mutant_is_used() {
    use continuum_core::mark::instrument::{MARKS, MUTANTS};
    let text: String = sources("rs")
        .into_iter()
        .filter(|source| {
            source.name.starts_with("core/src")
                && Path::new(&source.name) != Path::new("core/src/mark/mod.rs")
        })
        .map(|source| source.text)
        .collect();
    // Macro calls may be broken over lines by rustfmt: compare without white space.
    let dense: String = text.split_whitespace().collect();
    let marks = MARKS.iter().filter(|name| !dense.contains(&format!("reach!(\"{name}\"")));
    let mutants =
        MUTANTS.iter().filter(|(name, _)| !dense.contains(&format!("mutant!(\"{name}\"")));
    let unused: Vec<String> =
        marks.map(ToString::to_string).chain(mutants.map(|(name, _)| name.to_string())).collect();
    none("a name in the tables has a site in the code", &unused);
}

#[test]
fn a_mutant_that_the_simulator_does_not_see_has_a_scenario() {
    let is_scenario = |name: &str| name.contains("tests/") && name.ends_with("_mutants.rs");
    let (mut scenarios, mut listed) = (String::new(), String::new());
    for source in sources("rs") {
        if is_scenario(&source.name) {
            scenarios.push_str(&source.text);
        } else if source.name == "sim/src/mutant.rs" {
            let list = source.text.split("OUT_OF_REACH: &[(&str, &str)] = &[").nth(1);
            let list = list.and_then(|list| list.split("];").next());
            listed = list.expect("the list of mutants").to_owned();
        }
    }
    let names: Vec<&str> = listed.split('"').filter(|text| known_mutant(text)).collect();
    assert!(!names.is_empty());
    // The random histories of `replication_mutants` try every mutant of these.
    let is_tried = |name: &str| name.starts_with("replication.") || name.starts_with("api.");
    let is_missing = |name: &&str| !is_tried(name) && !scenarios.contains(&format!("\"{name}\""));
    let missing: Vec<String> = names.into_iter().filter(is_missing).map(str::to_owned).collect();
    none("a mutant that only tests detect has a scenario in a file *_mutants.rs", &missing);
}

fn known_mutant(name: &str) -> bool {
    continuum_core::mark::instrument::MUTANTS.iter().any(|(known, _)| *known == name)
}

#[cfg(test)]
mod the_rules_themselves {
    use super::*;

    #[test]
    fn find_a_long_function() {
        let text = format!("fn a() {{\n{}}}\nfn b() {{\n}}\n", "    x();\n".repeat(70));
        assert_eq!(functions(&text), [(1, 72), (73, 2)]);
    }

    #[test]
    fn find_words_and_not_parts_of_words() {
        assert!(holds_word("let x: f64 = 1", "f64"));
        assert!(!holds_word("let leaf64 = 1", "f64"));
    }
}
