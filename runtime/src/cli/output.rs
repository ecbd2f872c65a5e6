//! The output of a command: data on stdout, messages on stderr. A reader that goes away causes no panic.
//!
//! Every byte of stdout goes through [`Screen`], whose writes are checked. A closed pipe ends the command quietly.
//! Names, keys and values come from others, and a terminal obeys control characters. So on a terminal they go through
//! [`visible`], and into a pipe they go unchanged. Nothing else of the command line writes to a standard stream.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal as _, Write};

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::args::Format;
use super::exit::Failure;
use crate::visible::{Keep, visible};

/// The standard output, with checked writes.
pub(super) struct Screen {
    format: Format,
    is_terminal: bool,
    out: BufWriter<Box<dyn Write + Send>>,
}

/// The text for stderr.
fn for_stderr(text: &str, keep: Keep) -> Cow<'_, str> {
    if io::stderr().is_terminal() { visible(text.as_bytes(), keep).into() } else { text.into() }
}

impl Screen {
    /// Standard output in a format.
    pub(super) fn new(format: Format) -> Self {
        Self::over(format, io::stdout().is_terminal(), io::stdout())
    }

    /// Any writer in a format.
    pub(super) fn over(
        format: Format,
        is_terminal: bool,
        out: impl Write + Send + 'static,
    ) -> Self {
        Self { format, is_terminal, out: BufWriter::new(Box::new(out)) }
    }

    /// Whether the output is JSON.
    pub(super) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Writes text that stands alone, such as a value or lines of JSON.
    ///
    /// # Errors
    ///
    /// A silent failure when the reader went away, or the operating system's.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.write(bytes, Keep::Lines)
    }

    /// Writes a line. No line within it can pass for another one.
    ///
    /// # Errors
    ///
    /// As [`Screen::bytes`].
    pub(super) fn line(&mut self, line: impl AsRef<[u8]>) -> Result<(), Failure> {
        self.write(line.as_ref(), Keep::Nothing)?;
        self.write(b"\n", Keep::Lines)
    }

    /// Writes a key and its value on one line, with a tab between them.
    ///
    /// # Errors
    ///
    /// As [`Screen::bytes`].
    pub(super) fn pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.write(key, Keep::Nothing)?;
        self.write(b"\t", Keep::Lines)?;
        self.line(value)
    }

    /// Writes JSON on one line. Its strings have escapes of their own, which a reader of JSON takes back.
    ///
    /// # Errors
    ///
    /// As [`Screen::bytes`].
    pub(super) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.line(value.to_string())
    }

    /// The one way to the writer.
    fn write(&mut self, bytes: &[u8], keep: Keep) -> Result<(), Failure> {
        let written = if self.is_terminal {
            self.out.write_all(visible(bytes, keep).as_bytes())
        } else {
            self.out.write_all(bytes)
        };
        written.map_err(|error| failed(&error))
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
        let shown = |cell: String| match self.is_terminal {
            true => visible(cell.as_bytes(), Keep::Nothing),
            false => cell,
        };
        table.add_rows(rows.into_iter().map(|row| row.into_iter().map(shown)));
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

/// A progress bar on a terminal, nothing on a pipe.
pub(super) fn bar(total: u64, style: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(style);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A counter on stderr, hidden when stdout is a terminal, where it would mix with the data.
pub(super) fn spinner(what: &'static str) -> ProgressBar {
    if io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{spinner} {human_pos} {msg} {per_sec}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner())).with_message(what)
}

/// Prints a message on stderr. A failure to print is ignored.
pub(super) fn say(text: impl AsRef<str>) {
    say_as_it_is(for_stderr(text.as_ref(), Keep::Nothing));
}

fn say_as_it_is(text: impl AsRef<str>) {
    drop(writeln!(io::stderr(), "{}", text.as_ref()));
}

/// Prints why a command failed: for people, or as one line of JSON.
pub(super) fn say_failure(failure: &Failure, format: Format) {
    if failure.is_silent() {
        return;
    }
    let failure = failure.with_texts(&|text| for_stderr(text, Keep::Nothing).into_owned());
    if format == Format::Json {
        return say_as_it_is(serde_json::json!({ "error": failure.json() }).to_string());
    }
    let text = failure.to_string();
    let is_plain = std::env::var_os("NO_COLOR").is_some() || !io::stderr().is_terminal();
    match text.split_once(": ") {
        Some((head, rest)) if !is_plain => say_as_it_is(format!("\x1b[1;31m{head}\x1b[0m: {rest}")),
        _ => say_as_it_is(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key that clears a screen, sets a title, hides what follows, and goes on in a line of its own.
    const HOSTILE: &str = "a\u{1b}[2J\u{1b}]0;b\u{7}\u{9b}c\u{202e}d\u{7f}\ne\t\r";

    fn printed(is_terminal: bool, print: impl FnOnce(&mut Screen)) -> Vec<u8> {
        let output = crate::cli::tests::Output::default();
        let mut screen = Screen::over(Format::Table, is_terminal, output.clone());
        print(&mut screen);
        screen.finish().expect("memory");
        output.bytes()
    }

    /// Every way to print, with a text and a number of lines that the command itself ends.
    fn ways() -> [fn(&mut Screen, &str); 5] {
        [
            |screen, text| screen.pair(text.as_bytes(), text.as_bytes()).expect("memory"),
            |screen, text| screen.line(text).expect("memory"),
            |screen, text| screen.json(&serde_json::json!({ "key": text })).expect("memory"),
            |screen, text| screen.table(&["key"], vec![vec![text.into()]]).expect("memory"),
            |screen, text| screen.bytes(text.as_bytes()).expect("memory"),
        ]
    }

    #[test]
    fn a_terminal_gets_no_control_character_of_others() {
        for (at, way) in ways().iter().enumerate() {
            let shown =
                String::from_utf8(printed(true, |screen| way(screen, HOSTILE))).expect("text");
            let harmless = |one: char| !one.is_control() && one != '\u{202e}' || one == '\n';
            let (is_pair, is_value) = (at == 0, at == 4);
            let tabs = shown.matches('\t').count();
            assert_eq!(tabs, usize::from(is_pair || is_value), "{shown:?}");
            assert!(shown.chars().all(|one| harmless(one) || one == '\t'), "{shown:?}");
            // A header and a row, or one line; a value alone keeps its own ends of lines.
            assert_eq!(shown.matches('\n').count(), [1, 1, 1, 2, 1][at], "{shown:?}");
            for kept in ["a", "b", "c", "d", "e"] {
                assert!(shown.contains(kept), "{shown:?}");
            }
        }
        assert_eq!(visible(b"\xff\x1bx", Keep::Nothing), "\\xff\\u001bx");
        assert_eq!(visible("\u{e4}\u{1f30a}".as_bytes(), Keep::Nothing), "\u{e4}\u{1f30a}");
    }

    #[test]
    fn json_on_a_terminal_is_still_json() {
        let value = serde_json::json!({ "key": HOSTILE });
        let shown = printed(true, |screen| screen.json(&value).expect("memory"));
        assert_eq!(serde_json::from_slice::<Value>(&shown).ok(), Some(value));
    }

    #[test]
    fn a_pipe_gets_every_byte() {
        let bytes = [HOSTILE.as_bytes(), b"\xff\x00"].concat();
        let line = printed(false, |screen| screen.line(&bytes).expect("memory"));
        assert_eq!(line, [&bytes[..], b"\n"].concat());
        assert_eq!(printed(false, |screen| screen.bytes(&bytes).expect("memory")), bytes);
    }

    /// Only this file may name a standard stream, so that nothing is printed beside the ways above.
    #[test]
    fn everything_is_printed_here() {
        const WAYS: [&str; 7] =
            ["println!", "print!", "io::stdout", "io::stderr", "dbg!", "io::Stdout", "/dev/tty"];
        let mut folders =
            vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli"))];
        let mut seen = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                if path.ends_with("cli/output.rs") {
                    continue;
                }
                // A question to clap's error prints nothing.
                let text = std::fs::read_to_string(&path).expect("a source");
                let text = text.replace("error.use_stderr()", "");
                for way in WAYS {
                    assert!(!text.contains(way), "{} prints with {way}", path.display());
                }
                seen += 1;
            }
        }
        assert!(seen > 15, "only {seen} files were found");
    }

    #[test]
    fn a_closed_pipe_is_silent_and_a_full_disk_is_not() {
        assert!(failed(&io::Error::from(io::ErrorKind::BrokenPipe)).is_silent());
        let full = failed(&io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!((full.exit, full.is_silent()), (super::super::exit::LOCAL, false));
    }
}
