//! The floors of each crate, and the imports between its rooms.
//!
//! A room is a folder or a file right below the level that a table describes. An import may only go to a room on a
//! lower floor, so no circle runs between rooms. Files of one room may import each other. The level's own `lib.rs`,
//! `main.rs` and `mod.rs` are no rooms: they declare the rooms and re-export them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::{Source, shipped};

/// The rooms of one level, from the top floor down.
pub(crate) struct Level {
    pub(crate) folder: &'static str,
    pub(crate) floors: &'static [&'static [&'static str]],
}

/// The house.
pub(crate) const HOUSE: [Level; 4] = [
    Level {
        folder: "core/src",
        floors: &[
            &["node"],
            &["wal"],
            &["coordinator", "state"],
            &["discovery", "gossip", "raft", "replication"],
            &["api"],
            &["files", "hold"],
            &["id", "machine"],
            &["config", "counted", "digest"],
            &["codec", "fixed", "limits", "mark", "seed", "time"],
        ],
    },
    Level {
        folder: "core/src/replication",
        floors: &[
            &["dispatch", "replicator", "slices", "turns"],
            &["index"],
            &["local"],
            &["sync"],
            &["author", "log"],
            &["shard"],
            &["write"],
        ],
    },
    Level {
        folder: "runtime/src",
        floors: &[
            &["cli"],
            &["run"],
            &["driver"],
            &["error"],
            &["api", "disk", "link"],
            &["log", "tls"],
            &["settings"],
            &["clock", "entropy", "handle", "resolve"],
            &["metrics", "network", "regular", "visible"],
        ],
    },
    Level {
        folder: "sim/src",
        floors: &[
            &["commands"],
            &["cli", "stopwatch"],
            &["mutant"],
            &["campaign"],
            &["diagram", "shrink"],
            &["report"],
            &["run"],
            &["world"],
            &["oracle", "scene"],
            &["workload"],
            &["env"],
            &["plan"],
            &["format", "rng", "trace", "transcript", "verdict"],
        ],
    },
];

/// The rules that the sources break, each with a place where they do.
pub(crate) fn complaints(level: &Level, sources: &[Source]) -> Vec<String> {
    let floors = floor_of(level);
    let mut complaints = Vec::new();
    let mut rooms = BTreeSet::new();
    for source in below(level, sources) {
        let Some(room) = room(level, &source.name) else { continue };
        rooms.insert(room);
        let Some(floor) = floors.get(room) else {
            complaints.push(format!("{}: room {room} has no floor", source.name));
            continue;
        };
        for (line, path) in imports(source) {
            let Some(target) = room_of_path(level, &path).filter(|target| *target != room) else {
                continue;
            };
            if floors.get(target).is_some_and(|other| other >= floor) {
                complaints.push(format!("{}:{line}: {room} imports {target}", source.name));
            }
        }
    }
    complaints.dedup();
    let gone = floors.keys().filter(|room| !rooms.contains(*room));
    complaints.extend(gone.map(|room| format!("{}: there is no room {room}", level.folder)));
    complaints
}

/// The table and the arrows of a level as text, for a person.
pub(crate) fn picture(level: &Level, sources: &[Source]) -> String {
    let mut arrows: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let floors = floor_of(level);
    for source in below(level, sources) {
        let Some(room) = room(level, &source.name) else { continue };
        let paths = imports(source);
        let targets = paths.iter().filter_map(|(_, path)| room_of_path(level, path));
        let known =
            targets.filter_map(|target| floors.get_key_value(target).map(|(name, _)| *name));
        arrows.entry(room).or_default().extend(known.filter(|target| *target != room));
    }
    let mut text = format!("{}\n", level.folder);
    for (number, rooms) in level.floors.iter().enumerate() {
        for room in *rooms {
            let to: Vec<&str> = arrows.get(room).into_iter().flatten().copied().collect();
            let _ = writeln!(
                text,
                "  floor {:2}  {room:12} -> {}",
                level.floors.len() - number,
                to.join(" ")
            );
        }
    }
    text
}

fn floor_of(level: &Level) -> BTreeMap<&'static str, usize> {
    let floors = level.floors.iter().rev().enumerate();
    floors.flat_map(|(floor, rooms)| rooms.iter().map(move |room| (*room, floor))).collect()
}

/// The shipped sources of a level: tests and what only they use may look anywhere.
fn below<'a>(level: &'a Level, sources: &'a [Source]) -> impl Iterator<Item = &'a Source> {
    let is_test = |name: &str| {
        name.split('/').any(|part| part == "tests" || part == "testing" || part == "tests.rs")
    };
    sources.iter().filter(move |source| {
        let inside =
            source.name.strip_prefix(level.folder).is_some_and(|rest| rest.starts_with('/'));
        inside && !is_test(&source.name)
    })
}

/// The room that a file is in; none for the level's own files.
fn room<'a>(level: &Level, name: &'a str) -> Option<&'a str> {
    let first = name.strip_prefix(level.folder)?.strip_prefix('/')?.split('/').next()?;
    let room = first.strip_suffix(".rs").unwrap_or(first);
    (!["lib", "main", "mod"].contains(&room)).then_some(room)
}

/// The room that a path from the crate's root leads into.
fn room_of_path<'a>(level: &Level, path: &'a str) -> Option<&'a str> {
    let mut parts = path.split("::");
    let inside = level.folder.split("/src/").nth(1).into_iter().flat_map(|rest| rest.split('/'));
    for folder in inside {
        parts.next().filter(|part| *part == folder)?;
    }
    parts.next()
}

/// Every path of a file into its own crate, from the crate's root, with the line on which its statement begins.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let module = module_of(&source.name);
    let mut found = Vec::new();
    let mut statement: Option<(usize, String)> = None;
    for (at, line) in shipped(&source.text) {
        let code = line.split("//").next().unwrap_or_default().trim();
        let begins = code.starts_with("use ") || code.starts_with("pub") && code.contains(" use ");
        if statement.is_none() && begins {
            statement = Some((at, String::new()));
        }
        match &mut statement {
            Some((_, text)) => text.push_str(code),
            None => found.extend(paths_in(code).map(|path| (at, path))),
        }
        if let Some((at, text)) = statement.take_if(|(_, text)| text.ends_with(';')) {
            let path = text.split_once("use ").map_or("", |(_, path)| path);
            let path = path.trim_end_matches(';').replace(' ', "");
            found.extend(expand(&path).into_iter().map(|path| (at, path)));
        }
    }
    found.into_iter().filter_map(|(at, path)| Some((at, absolute(&module, &path)?))).collect()
}

/// The modules from the crate's root down to a file's own.
fn module_of(name: &str) -> Vec<&str> {
    let below = name.split_once("/src/").map_or("", |(_, below)| below).trim_end_matches(".rs");
    let mut parts: Vec<&str> = below.split('/').collect();
    parts.pop_if(|last| ["mod", "lib", "main"].contains(last));
    parts
}

/// The paths of expressions and types in a line of code.
fn paths_in(code: &str) -> impl Iterator<Item = String> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    code.split(move |c| !is_path(c))
        .filter(|path| path.starts_with("crate::") || path.starts_with("super::"))
        .map(ToOwned::to_owned)
}

/// The paths of a `use` with its braces multiplied out.
fn expand(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else { return vec![path.to_owned()] };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut begin, mut found) = (0, 0, Vec::new());
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.extend(expand(&format!("{before}{}", &inner[begin..at])));
                begin = at + 1;
            }
            _ => {}
        }
    }
    found
}

/// A path from the crate's root; none for a path into another crate.
fn absolute(module: &[&str], path: &str) -> Option<String> {
    let (first, rest) = path.split_once("::")?;
    match first {
        "crate" => Some(rest.to_owned()),
        "super" => {
            let (mut base, mut rest) = (module.to_vec(), rest);
            base.pop();
            while let Some(further) = rest.strip_prefix("super::") {
                base.pop();
                rest = further;
            }
            base.push(rest);
            Some(base.join("::"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod the_reader {
    use super::*;

    const LEVEL: Level = Level { folder: "x/src", floors: &[&["top"], &["low", "flat"]] };

    fn sources(files: &[(&str, &str)]) -> Vec<Source> {
        let source =
            |(name, text): &(&str, &str)| Source { name: (*name).into(), text: (*text).into() };
        files.iter().map(source).collect()
    }

    #[test]
    fn sees_an_import_that_goes_up_or_to_its_own_floor() {
        let house = sources(&[
            ("x/src/top.rs", "use crate::{low::{a, b}, flat};\n"),
            ("x/src/low/mod.rs", "#[cfg(test)]\nmod tests;\n\nuse super::top::T;\n"),
            ("x/src/low/deep.rs", "fn f() {\n    let x = crate::flat::X;\n}\n"),
            ("x/src/flat.rs", "#[cfg(test)]\nmod tests {\n    use crate::top;\n}\n"),
        ]);
        assert_eq!(
            complaints(&LEVEL, &house),
            ["x/src/low/mod.rs:4: low imports top", "x/src/low/deep.rs:2: low imports flat"]
        );
    }

    #[test]
    fn sees_a_room_without_a_floor_and_a_floor_without_a_room() {
        let house = sources(&[("x/src/top.rs", ""), ("x/src/low.rs", ""), ("x/src/attic.rs", "")]);
        assert_eq!(
            complaints(&LEVEL, &house),
            ["x/src/attic.rs: room attic has no floor", "x/src: there is no room flat"]
        );
    }

    #[test]
    fn multiplies_braces_out() {
        assert_eq!(expand("crate::{a,b::{self,c}}"), ["crate::a", "crate::b::self", "crate::b::c"]);
        assert_eq!(absolute(&["a", "b"], "super::super::c::D"), Some("c::D".to_owned()));
    }
}
