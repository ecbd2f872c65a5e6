//! The output of a command: data on stdout, messages on stderr. A reader that goes away causes no panic.
//!
//! Every byte of stdout goes through [`Screen`], whose writes are checked. A closed pipe ends the command quietly.

use std::io::{self, BufWriter, IsTerminal as _, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use super::args::Format;
use super::exit::Failure;

/// The standard output, with checked writes.
pub(super) struct Screen {
    format: Format,
    out: BufWriter<Box<dyn Write + Send>>,
}

impl Screen {
    /// Standard output in a format.
    pub(super) fn new(format: Format) -> Self {
        Self::over(format, io::stdout())
    }

    /// Any writer in a format.
    pub(super) fn over(format: Format, out: impl Write + Send + 'static) -> Self {
        Self { format, out: BufWriter::new(Box::new(out)) }
    }

    /// Whether the output is JSON.
    pub(super) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Writes bytes unchanged.
    ///
    /// # Errors
    ///
    /// A silent failure when the reader went away, or the operating system's.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|error| failed(&error))
    }

    /// Writes a line.
    ///
    /// # Errors
    ///
    /// As [`Screen::bytes`].
    pub(super) fn line(&mut self, line: impl AsRef<[u8]>) -> Result<(), Failure> {
        self.bytes(line.as_ref())?;
        self.bytes(b"\n")
    }

    /// Writes JSON on one line.
    ///
    /// # Errors
    ///
    /// As [`Screen::bytes`].
    pub(super) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.line(value.to_string())
    }

    /// Writes columns under their names.
    ///
    /// # Errors
    ///
    /// As [`Screen::bytes`].
    pub(super) fn table(&mut self, names: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(names.iter().map(|name| name.to_uppercase()));
        table.add_rows(rows);
        let text = table.to_string();
        text.lines()
            .try_for_each(|line| self.line(line.strip_prefix(' ').unwrap_or(line).trim_end()))
    }

    /// Flushes everything to the reader.
    ///
    /// # Errors
    ///
    /// As [`Screen::bytes`].
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| failed(&error))
    }
}

fn failed(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::pipe_closed();
    }
    Failure::local("standard output cannot be written", error, "check where it is redirected to")
}

/// Prints a message on stderr. A failure to print is ignored.
pub(super) fn say(text: impl AsRef<str>) {
    drop(writeln!(io::stderr(), "{}", text.as_ref()));
}

/// Prints why a command failed.
pub(super) fn say_failure(failure: &Failure) {
    if failure.is_silent() {
        return;
    }
    let text = failure.to_string();
    let is_plain = std::env::var_os("NO_COLOR").is_some() || !io::stderr().is_terminal();
    match text.split_once(": ") {
        Some((head, rest)) if !is_plain => say(format!("\x1b[1;31m{head}\x1b[0m: {rest}")),
        _ => say(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_silent_and_a_full_disk_is_not() {
        assert!(failed(&io::Error::from(io::ErrorKind::BrokenPipe)).is_silent());
        let full = failed(&io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!((full.exit, full.is_silent()), (super::super::exit::LOCAL, false));
    }
}
