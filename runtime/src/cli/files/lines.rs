//! The lines of a text file, numbered, as people's tools write them.
//!
//! A byte order mark, blank lines and CRLF are taken. A file that is no UTF-8 text is named by its kind, because a
//! parser's words about its first byte help nobody. This module does not parse lines.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;

use super::source::{Place, Placed};
use crate::cli::client::ANSWER_BYTES_MAX;
use crate::cli::exit::{self, Failure};
use continuum_core::api::Row;

/// The longest line: what one answer of a node may have, so that every line of an export can be read.
const BYTES_MAX: u64 = ANSWER_BYTES_MAX as u64;

pub(super) const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];

/// The first bytes of files that are no UTF-8 text, what they are, and how to read them.
const OTHER_KINDS: &[(&[u8], &str, &str)] = &[
    (&[0xff, 0xfe], "UTF-16 text", TO_UTF8),
    (&[0xfe, 0xff], "UTF-16 text", TO_UTF8),
    (b"{\0", "UTF-16 text", TO_UTF8),
    (b"\0{", "UTF-16 text", TO_UTF8),
    (b"[\0", "UTF-16 text", TO_UTF8),
    (b"\0[", "UTF-16 text", TO_UTF8),
    (&[0x1f, 0x8b], "compressed with gzip", "unpack it first, for example with `gunzip`"),
    (
        &[0x28, 0xb5, 0x2f, 0xfd],
        "compressed with zstd",
        "unpack it first, for example with `unzstd`",
    ),
    (
        &[0xfd, b'7', b'z', b'X', b'Z'],
        "compressed with xz",
        "unpack it first, for example with `unxz`",
    ),
    (b"BZh", "compressed with bzip2", "unpack it first, for example with `bunzip2`"),
    (b"PK\x03\x04", "a zip archive", "unpack it first, for example with `unzip`"),
    (b"SQLite format 3\0", "an SQLite database", "export its rows as lines of JSON first"),
];

const TO_UTF8: &str = "write it as UTF-8, for example with `iconv -f UTF-16 -t UTF-8`";

/// One line of a file, without its end.
#[derive(Debug)]
pub(super) struct Line {
    place: Place,
    text: Vec<u8>,
}

impl Line {
    /// Parses the line as a row. An error names the file and the line.
    pub(super) fn read(
        self,
        read: impl FnOnce(&[u8]) -> Result<Row, String>,
    ) -> Result<Placed, Failure> {
        match read(&self.text) {
            Ok(row) => Ok(Placed { place: self.place, row }),
            Err(why) => {
                Err(self.place.broken(why, "correct or remove the line, and check --format"))
            }
        }
    }

    /// Whether the line belongs to the licence of a data file of WordNet.
    pub(super) fn is_licence(&self) -> bool {
        self.text.starts_with(b"  ")
    }
}

/// The lines of a file, without the blank ones.
pub(super) fn of(
    name: &str,
    file: File,
) -> impl Iterator<Item = Result<Line, Failure>> + Send + use<> {
    in_reader(name.to_owned(), BufReader::new(file), BYTES_MAX)
}

fn in_reader(
    name: String,
    mut reader: impl BufRead + Send + 'static,
    bytes_max: u64,
) -> impl Iterator<Item = Result<Line, Failure>> + Send + 'static {
    let (mut number, mut is_over) = (0, false);
    std::iter::from_fn(move || {
        while !is_over {
            number += 1;
            let text = match next_text(&name, number, &mut reader, bytes_max) {
                Ok(None) => return None,
                Ok(Some(text)) => text,
                Err(failure) => {
                    is_over = true;
                    return Some(Err(failure));
                }
            };
            if !text.trim_ascii().is_empty() {
                return Some(Ok(Line { place: Place { file: name.clone(), line: number }, text }));
            }
        }
        None
    })
}

/// Reads one line; `None` at the end.
fn next_text(
    name: &str,
    number: u64,
    reader: &mut impl BufRead,
    bytes_max: u64,
) -> Result<Option<Vec<u8>>, Failure> {
    let mut text = Vec::new();
    let read = reader.take(bytes_max + 1).read_until(b'\n', &mut text).map_err(|error| {
        let what = format!("{name}:{number} cannot be read");
        Failure::local(what, &error, "check the file and its disk")
    })?;
    if read == 0 {
        return Ok(None);
    }
    if number == 1 {
        check_kind(name, &text)?;
        if text.starts_with(BYTE_ORDER_MARK) {
            text.drain(..BYTE_ORDER_MARK.len());
        }
    }
    if text.last() == Some(&b'\n') {
        text.pop();
    } else if text.len() as u64 > bytes_max {
        let why = format!("the line is longer than {bytes_max} bytes");
        let place = Place { file: name.to_owned(), line: number };
        return Err(place.broken(why, "divide it into several rows"));
    }
    if text.last() == Some(&b'\r') {
        text.pop();
    }
    Ok(Some(text))
}

/// Refuses a file that is no UTF-8 text.
pub(super) fn check_kind(name: &str, first: &[u8]) -> Result<(), Failure> {
    let Some((_, kind, hint)) = OTHER_KINDS.iter().find(|(start, ..)| first.starts_with(start))
    else {
        return Ok(());
    };
    let what = format!("{name} cannot be imported");
    Err(Failure::new(exit::LOCAL, "wrong_file", what, format!("the file is {kind}"), *hint))
}

/// Opens a file.
pub(super) fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| {
        let hint = "give the file, or for --format wordnet the directory with data.noun, data.verb, data.adj and \
                    data.adv (Debian: apt-get install wordnet-base, /usr/share/wordnet)";
        Failure::local(format!("{} cannot be opened", path.display()), &error, hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of these bytes with their numbers; the last may be a failure's words.
    fn read(bytes: &'static [u8], bytes_max: u64) -> Vec<(u64, String)> {
        let shown = |line: Result<Line, Failure>| match line {
            Ok(line) => (line.place.line, String::from_utf8_lossy(&line.text).into_owned()),
            Err(failure) => (0, failure.why),
        };
        in_reader("f".to_owned(), bytes, bytes_max).map(shown).collect()
    }

    fn line(number: u64, text: &str) -> (u64, String) {
        (number, text.to_owned())
    }

    #[test]
    fn marks_blank_lines_and_crlf_are_taken() {
        let text = b"\xef\xbb\xbf{1}\r\n\r\n \t\n{2}\n\n{3}";
        assert_eq!(read(text, 99), [line(1, "{1}"), line(4, "{2}"), line(6, "{3}")]);
        assert_eq!(read(b"", 99), []);
        assert_eq!(read(b"\xef\xbb\xbf", 99), []);
        assert_eq!(read(b"\n\n", 99), []);
    }

    #[test]
    fn a_file_of_another_kind_is_named() {
        for (start, kind, _) in OTHER_KINDS {
            let file: &'static [u8] = [start, &b"rest\n"[..]].concat().leak();
            assert_eq!(read(file, 99), [(0, format!("the file is {kind}"))]);
        }
    }

    #[test]
    fn a_line_has_a_bound_and_nothing_after_it_is_read() {
        assert_eq!(read(b"12345\n12\n", 5), [line(1, "12345"), line(2, "12")]);
        let too_long = (0, "the line is longer than 5 bytes".to_owned());
        assert_eq!(read(b"12\n123456\n12\n", 5), [line(1, "12"), too_long]);
    }
}
