//! Files that are read as a whole, because their rows may stand anywhere in them, and the notes of what was changed.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde_json::value::RawValue;

use super::lines;
use super::source::{Place, Readable};
use crate::cli::exit::{self, Failure};

/// Bytes of such a file. It is parsed in memory.
const BYTES_MAX: u64 = 256 << 20;

/// The text of a file, without a byte order mark.
pub(super) fn read(file: &Readable) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = file.open()?.take(BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| {
        let hint = "name a file, and check it and its disk";
        Failure::local(format!("{} cannot be read", file.name), &error, hint)
    })?;
    let wrong = |why: String, hint: &str| {
        let what = format!("{} cannot be imported", file.name);
        Failure::new(exit::LOCAL, "wrong_file", what, why, hint)
    };
    if bytes.len() as u64 > BYTES_MAX {
        let why = format!("the file is longer than {BYTES_MAX} bytes");
        return Err(wrong(why, "divide it into several files"));
    }
    lines::check_kind(&file.name, &bytes)?;
    let start = if bytes.starts_with(lines::BYTE_ORDER_MARK) { 3 } else { 0 };
    bytes.drain(..start);
    String::from_utf8(bytes)
        .map_err(|error| wrong(error.to_string(), "write it as UTF-8, with base64 for other bytes"))
}

/// A JSON value with its line in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<'a> {
    pub(super) line: u64,
    pub(super) json: &'a RawValue,
}

/// The lines at which parts of a text stand. Parts are asked for in their order.
pub(super) struct LineOf<'a> {
    text: &'a str,
    at: usize,
    line: u64,
}

impl<'a> LineOf<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1 }
    }

    /// The line of this part of the text.
    pub(super) fn part(&mut self, part: &str) -> u64 {
        self.offset((part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize))
    }

    /// The line at this offset.
    pub(super) fn offset(&mut self, to: usize) -> u64 {
        let passed = self.text.as_bytes().get(self.at..to).unwrap_or_default();
        self.line += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.at = self.at.max(to);
        self.line
    }
}

/// The JSON values of a text, one after the other. The items of a list stand for the list.
///
/// # Errors
///
/// Where the text is no JSON.
pub(super) fn items<'a>(name: &str, text: &'a str) -> Result<Vec<Item<'a>>, Failure> {
    let mut lines = LineOf::new(text);
    let mut items = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        let value = value.map_err(|error| {
            let place = Place { file: name.to_owned(), line: error.line() as u64 };
            place.broken(without_line(&error), "check --format, and that the file is complete")
        })?;
        if value.get().starts_with('[') {
            // It was parsed once already, so it is a list of values.
            let list: Vec<&RawValue> = serde_json::from_str(value.get()).unwrap_or_default();
            items.extend(list.into_iter().map(|json| Item { line: lines.part(json.get()), json }));
        } else {
            items.push(Item { line: lines.part(value.get()), json: value });
        }
    }
    Ok(items)
}

/// The words of an error with its column. Its line is told beside the name of the file.
pub(super) fn without_line(error: &serde_json::Error) -> String {
    let words = error.to_string();
    let words = words.split_once(" at line ").map_or(words.as_str(), |(words, _)| words);
    format!("{words} at column {}", error.column())
}

/// Cases that a format has no place for, or writes in another way: how often, and where first.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes(BTreeMap<String, (u64, String)>);

impl Notes {
    /// Notes one case.
    pub(super) fn add(&mut self, what: impl Into<String>, place: &impl ToString) {
        self.0.entry(what.into()).or_insert_with(|| (0, place.to_string())).0 += 1;
    }

    /// A sentence for each kind.
    pub(super) fn sentences(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(what, (count, first))| format!("{what}: {count}, first at {first}"))
    }
}
