//! The source of an import: a file in some format, as rows with their places.
//!
//! A source is read twice, once to check it and once to write it. So what can be read only once, such as standard input
//! or a pipe, is copied to a temporary file first.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use continuum_core::api::Row;
use tempfile::NamedTempFile;

use super::args::Source as Format;
use super::whole::{self, Notes};
use super::{jsonl, lines, mcp, pairs, wordnet};
use crate::cli::exit::{self, Failure};

/// A row with its place in its file.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    /// Where it stands.
    pub(super) place: Place,
    /// The row.
    pub(super) row: Row,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The file as the user named it.
    pub(super) file: String,
    /// Its line, from 1.
    pub(super) line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl Place {
    /// The failure of a row that stands here.
    pub(super) fn broken(&self, why: impl Into<String>, hint: &str) -> Failure {
        let what = format!("{self} cannot be imported");
        Failure::new(exit::LOCAL, "broken_line", what, why, hint)
    }
}

/// Rows in the order of their source.
pub(super) type Rows = Box<dyn Iterator<Item = Result<Placed, Failure>> + Send>;

/// A source that can be read again and again.
#[derive(Debug)]
pub(super) struct Source {
    format: Format,
    file: Readable,
    /// The rows, when the file was read as a whole.
    rows: Vec<Placed>,
    notes: Notes,
}

/// A file that can be read again.
#[derive(Debug)]
pub(super) struct Readable {
    /// The file as the user named it.
    pub(super) name: String,
    path: PathBuf,
    /// Removes the copy at the end.
    _copy: Option<NamedTempFile>,
}

impl Readable {
    /// A file or a directory as it is; a copy of anything else.
    fn of(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        if path.as_os_str() == "-" {
            return Self::copy(name, &mut io::stdin().lock());
        }
        let is_stream = |kind: fs::FileType| !kind.is_file() && !kind.is_dir();
        if fs::metadata(path).is_ok_and(|found| is_stream(found.file_type())) {
            let mut stream = lines::open(path)?;
            return Self::copy(name, &mut stream);
        }
        Ok(Self { name, path: path.to_owned(), _copy: None })
    }

    fn copy(name: String, stream: &mut impl io::Read) -> Result<Self, Failure> {
        let copied = NamedTempFile::new().and_then(|mut copy| {
            io::copy(stream, &mut copy)?;
            Ok(copy)
        });
        let copy = copied.map_err(|error| {
            let hint = "name a file, or free space in the directory for temporary files, which TMPDIR names";
            Failure::local(format!("{name} cannot be copied"), &error, hint)
        })?;
        Ok(Self { name, path: copy.path().to_owned(), _copy: Some(copy) })
    }

    /// Opens it for reading.
    pub(super) fn open(&self) -> Result<File, Failure> {
        lines::open(&self.path)
    }
}

impl Source {
    /// Opens the source of an import.
    pub(super) fn open(path: &Path, format: Format) -> Result<Self, Failure> {
        Self::of(format, Readable::of(path)?)
    }

    fn of(format: Format, file: Readable) -> Result<Self, Failure> {
        let mut notes = Notes::default();
        let rows = match format {
            Format::Jsonl | Format::Wordnet => Vec::new(),
            Format::McpJsonl => mcp::rows(&file.name, &whole::read(&file)?, &mut notes)?,
            Format::Consul => pairs::consul(&file.name, &whole::read(&file)?)?,
            Format::EtcdJson => pairs::etcd(&file.name, &whole::read(&file)?, &mut notes)?,
        };
        Ok(Self { format, file, rows, notes })
    }

    /// Leaves out what a strong namespace has no place for although its format has: Consul's numbers.
    pub(super) fn simplify(&mut self) {
        for Placed { place, row } in self.rows.iter_mut().filter(|_| self.format == Format::Consul)
        {
            let before = row.fields.len();
            row.fields.retain(|field| field.field != pairs::FLAGS);
            if row.fields.len() < before {
                let what = "flags that were left out, because a strong namespace has no fields";
                self.notes.add(what, &*place);
            }
        }
    }

    /// All that the rows do not keep as the file has it.
    pub(super) const fn notes(&self) -> &Notes {
        &self.notes
    }

    /// The rows, from the beginning.
    pub(super) fn rows(&self) -> Result<Rows, Failure> {
        match self.format {
            Format::Jsonl => {
                let lines = lines::of(&self.file.name, self.file.open()?);
                Ok(Box::new(lines.map(|line| line.and_then(|line| line.read(jsonl::row)))))
            }
            Format::McpJsonl | Format::Consul | Format::EtcdJson => {
                Ok(Box::new(self.rows.clone().into_iter().map(Ok)))
            }
            Format::Wordnet => {
                let mut all: Vec<Rows> = Vec::new();
                for (name, letter) in wordnet::FILES {
                    all.push(synsets(&self.file.path.join(name), letter)?);
                }
                Ok(Box::new(all.into_iter().flatten()))
            }
        }
    }
}

fn synsets(path: &Path, letter: char) -> Result<Rows, Failure> {
    let lines = lines::of(&path.display().to_string(), lines::open(path)?);
    let concepts = lines.filter(|line| !matches!(line, Ok(line) if line.is_licence()));
    let concept = move |text: &[u8]| {
        let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
        wordnet::concept(letter, text)
    };
    Ok(Box::new(concepts.map(move |line| line.and_then(|line| line.read(concept)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &Path, format: Format) -> Source {
        Source::open(path, format).expect("a source")
    }

    #[test]
    fn all_four_files_are_read_without_their_licence() {
        let folder = tempfile::tempdir().expect("a folder");
        let licence = "  1 This is licensed.  \n  2 So is this.  \n";
        for (name, letter) in wordnet::FILES {
            let tail = if letter == 'v' { " 00" } else { "" };
            let line = format!("00000001 03 {letter} 01 word 0 000{tail} | gloss  \n");
            fs::write(folder.path().join(name), format!("{licence}{line}")).expect("written");
        }
        let source = source(folder.path(), Format::Wordnet);
        let rows: Vec<Placed> =
            source.rows().expect("files").map(|row| row.expect("a row")).collect();
        let places: Vec<u64> = rows.iter().map(|row| row.place.line).collect();
        assert_eq!(places, [3; 4]);
        fs::remove_file(folder.path().join("data.adv")).expect("removed");
        assert_eq!(source.rows().err().map(|failure| failure.exit), Some(exit::LOCAL));
    }

    #[test]
    fn a_stream_is_read_twice() {
        let line = "{\"key\":\"a\",\"fields\":[{\"field\":\"\",\"register\":[\"1\"]}]}\n";
        let file = Readable::copy("-".to_owned(), &mut line.as_bytes()).expect("a copy");
        let source = Source::of(Format::Jsonl, file).expect("a source");
        for _ in 0..2 {
            let rows: Vec<Placed> =
                source.rows().expect("a copy").map(|row| row.expect("a row")).collect();
            assert_eq!(rows.len(), 1);
            assert_eq!(rows[0].place.to_string(), "-:1");
        }
    }
}
