//! Helpers that several test files share: the workspace's root, its source files, golden text.

pub mod fuzzing;
pub mod mutants;
pub mod process;
pub mod raft;

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the workspace.
///
/// # Panics
///
/// When this package has no parent folder.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").into()
}

/// All files below `folder` of the workspace whose name ends in `.ending`, sorted, without build output.
///
/// # Panics
///
/// If a folder cannot be read.
#[must_use]
pub fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|found| found == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Compares `actual` with the golden file `tests/data/<name>`. With `UPDATE=1` in the environment it rewrites the file.
///
/// # Panics
///
/// If they differ. The message shows the first line that differs.
pub fn golden(name: &str, actual: &str) {
    let path = root().join("tests/data").join(name);
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        fs::create_dir_all(path.parent().expect("golden files lie in a folder")).expect("made");
        fs::write(&path, actual).expect("written");
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if expected == actual {
        return;
    }
    let differs = expected.lines().zip(actual.lines()).position(|(old, new)| old != new);
    let line = differs.unwrap_or_else(|| expected.lines().count().min(actual.lines().count()));
    panic!(
        "{name} differs from line {}:\n  golden: {:?}\n  actual: {:?}\nUPDATE=1 rewrites it; commit the change only if \
         you understand why the text changed.",
        line + 1,
        expected.lines().nth(line),
        actual.lines().nth(line),
    );
}
