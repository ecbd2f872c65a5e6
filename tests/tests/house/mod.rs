//! The sources that the tidy tests read, without what is compiled for tests alone.
//!
//! They read text and know no Rust beyond the shape that rustfmt gives it. They do not repeat what the compiler and
//! clippy enforce: docs, unsafe code, clocks.

pub(crate) mod arrows;
pub(crate) mod prose;

use std::fs;

use continuum_tests::{files, root};

const FOLDERS: [&str; 5] = ["core", "runtime", "sim", "tests", "fuzz"];

/// A source file: its path below the root, and its text.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Every file of the workspace with this ending, but for build output.
pub(crate) fn sources(ending: &str) -> Vec<Source> {
    let paths = FOLDERS.iter().flat_map(|folder| files(folder, ending));
    paths
        .map(|path| Source {
            name: path.strip_prefix(root()).expect("below the root").display().to_string(),
            text: fs::read_to_string(path).expect("a readable source"),
        })
        .collect()
}

/// The lines before the tests at the end of a file. A declaration of a test module above that, which is two lines, is
/// left out.
pub(crate) fn shipped(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let is_test = |at: usize| lines.get(at).is_some_and(|line| line.trim() == "#[cfg(test)]");
    let declares = |at: usize| lines.get(at).is_some_and(|line| line.ends_with(';'));
    let end = (0..lines.len()).find(|at| is_test(*at) && !declares(at + 1)).unwrap_or(lines.len());
    let kept: Vec<(usize, &str)> = (0..end)
        .filter(|at| !is_test(*at) && (*at == 0 || !is_test(at - 1)))
        .map(|at| (at + 1, lines[at]))
        .collect();
    kept.into_iter()
}

/// Fails with all complaints at once: one run reports every place.
pub(crate) fn none(rule: &str, complaints: &[String]) {
    assert!(complaints.is_empty(), "{rule}:\n{}", complaints.join("\n"));
}

/// Whether `code` holds `word` with no letter or digit right before or after it.
pub(crate) fn holds_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let part = |c: char| c.is_alphanumeric() || c == '_';
        let before = code[..at].chars().next_back().is_some_and(part);
        let after = code[at + word.len()..].chars().next().is_some_and(part);
        !before && !after
    })
}
