//! `export`: all rows of a namespace, in the format of a file.
//!
//! A strong namespace is exported as it was at one moment: one node keeps what is replaced until its pages are read.
//! They are kept in a temporary file until the last one is there, so that an export whose node gave it up begins again,
//! and no part of it was written. Replicas of an eventual namespace have no common moment, so its pages go out as they
//! come.

use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::time::Duration;

use continuum_core::api::{Content, Row};
use tempfile::SpooledTempFile;

use super::args::{Export, Source};
use super::whole::Notes;
use super::{jsonl, mcp, pairs};
use crate::api::problem::{EXPORT_EXPIRED, EXPORTS_BUSY};
use crate::api::{media, uri};
use crate::cli::client::{Call, Client};
use crate::cli::exit::{self, Failure};
use crate::cli::output::{Screen, say, spinner};

/// How often an export of a strong namespace begins that its node gives up, at most.
const TRIES: usize = 3;

/// How often it asks for room beside other exports, and the pause after each time.
const WAITS: usize = 60;
const PAUSE: Duration = Duration::from_secs(1);

/// Bytes of pages that are kept in memory before they go to a file.
const KEPT_BYTES: usize = 16 << 20;

/// `export ...`.
pub(in crate::cli) async fn run(
    export: &Export,
    mut client: Client,
    screen: &mut Screen,
) -> Result<(), Failure> {
    if export.format == Source::Wordnet {
        let hint = "choose another --format";
        return Err(Failure::usage("WordNet's format is only read", "", hint));
    }
    let ns = uri::encode(export.ns.as_bytes());
    let policy = client.send(&Call::get(format!("/v1/namespaces/{ns}"))).await?.json()?;
    client.pin();
    let bar = spinner("rows exported");
    let mut writer = Writer::new(export.format);
    if policy["consistency"] == "strong" {
        let pages = at_one_moment(&mut client, &ns).await?;
        bar.inc(writer.lines(pages, screen)?);
    } else {
        let mut after = String::new();
        loop {
            let (page, next) = page(&mut client, &ns, &after).await?;
            bar.inc(writer.lines(&page[..], screen)?);
            screen.finish()?;
            let Some(next) = next else { break };
            after = next;
        }
    }
    writer.end(screen)?;
    bar.finish_and_clear();
    Ok(())
}

/// A page of rows, and the query of the next one.
async fn page(
    client: &mut Client,
    ns: &str,
    after: &str,
) -> Result<(bytes::Bytes, Option<String>), Failure> {
    let answer = client.send(&Call::get(format!("/v1/namespaces/{ns}/rows{after}"))).await?;
    let next = match (answer.header("continuum-more"), answer.header("continuum-next")) {
        (Some("true"), Some(next)) => Some(format!("?after={next}")),
        _ => None,
    };
    Ok((answer.body, next))
}

/// All pages of a strong namespace, as they were at one moment.
async fn at_one_moment(client: &mut Client, ns: &str) -> Result<SpooledTempFile, Failure> {
    let (mut tries, mut waits) = (TRIES, WAITS);
    loop {
        let failure = match one_export(client, ns).await {
            Ok(pages) => return Ok(pages),
            Err(failure) => failure,
        };
        let left = match failure.code.as_str() {
            code if code == EXPORT_EXPIRED.code => &mut tries,
            code if code == EXPORTS_BUSY.code => {
                if waits == WAITS {
                    say("waiting for other exports of the namespace on this node");
                }
                tokio::time::sleep(PAUSE).await;
                &mut waits
            }
            _ => return Err(failure),
        };
        *left -= 1;
        if *left == 0 {
            return Err(failure);
        }
    }
}

/// One try to read all pages.
async fn one_export(client: &mut Client, ns: &str) -> Result<SpooledTempFile, Failure> {
    let mut pages = tempfile::spooled_tempfile(KEPT_BYTES);
    let mut after = "?export=true".to_owned();
    loop {
        let (page, next) = page(client, ns, &after).await?;
        pages.write_all(&page).map_err(|error| kept(&error))?;
        let Some(next) = next else { break };
        after = next;
    }
    pages.seek(SeekFrom::Start(0)).map_err(|error| kept(&error))?;
    Ok(pages)
}

fn kept(error: &io::Error) -> Failure {
    let hint = "free space in the directory for temporary files, which TMPDIR names";
    Failure::local("the pages of the export cannot be kept", error, hint)
}

/// Writes rows in a format.
struct Writer {
    format: Source,
    /// Rows written in this format.
    count: u64,
    /// The relations of an MCP file, which follow its entities.
    relations: SpooledTempFile,
    notes: Notes,
}

impl Writer {
    fn new(format: Source) -> Self {
        let relations = tempfile::spooled_tempfile(KEPT_BYTES);
        Self { format, count: 0, relations, notes: Notes::default() }
    }

    /// Writes the rows of canonical lines, and returns how many there were.
    fn lines(&mut self, lines: impl Read, screen: &mut Screen) -> Result<u64, Failure> {
        let (mut lines, mut line, mut count) = (BufReader::new(lines), Vec::new(), 0);
        while lines.read_until(b'\n', &mut line).map_err(|error| kept(&error))? > 0 {
            self.line(&line, screen)?;
            line.clear();
            count += 1;
        }
        Ok(count)
    }

    fn line(&mut self, line: &[u8], screen: &mut Screen) -> Result<(), Failure> {
        if matches!(self.format, Source::Jsonl | Source::Wordnet) {
            return screen.bytes(line);
        }
        let mut row = jsonl::row(line).map_err(|why| {
            let hint = "check that --node is the API of a node of this version";
            Failure::new(exit::MISMATCH, "not_rows", "the answer has no rows", why, hint)
        })?;
        self.plain(&mut row);
        let text = match self.format {
            Source::Consul => pairs::to_consul(&row, self.count == 0, &mut self.notes),
            Source::EtcdJson => pairs::to_etcd(&row, self.count == 0, &mut self.notes),
            _ => {
                let (entity, relations) = mcp::lines(&row, &mut self.notes);
                self.relations.write_all(&relations).map_err(|error| kept(&error))?;
                entity
            }
        };
        self.count += u64::from(text.is_some());
        text.map_or(Ok(()), |text| screen.bytes(&text))
    }

    /// Takes the media types from the values of a row, since no other format has a place for them.
    fn plain(&mut self, row: &mut Row) {
        for field in &mut row.fields {
            let Content::Register(values) = &mut field.content else { continue };
            for value in values {
                let (kind, plain) = media::split(value);
                if kind.is_some() {
                    self.notes.add("media types that were left out", &row.key.escape_ascii());
                }
                *value = plain;
            }
        }
    }

    /// Writes the end of the file, and says what was left out.
    fn end(mut self, screen: &mut Screen) -> Result<(), Failure> {
        match self.format {
            Source::Jsonl | Source::Wordnet => {}
            Source::Consul if self.count == 0 => screen.line("[]")?,
            Source::Consul => screen.bytes(b"\n]\n")?,
            Source::EtcdJson if self.count == 0 => screen.line("{\"header\":{}}")?,
            Source::EtcdJson => screen.line(format!("],\"count\":{}}}", self.count))?,
            Source::McpJsonl => {
                self.relations.seek(SeekFrom::Start(0)).map_err(|error| kept(&error))?;
                let (mut relations, mut line) = (BufReader::new(&mut self.relations), Vec::new());
                while relations.read_until(b'\n', &mut line).map_err(|error| kept(&error))? > 0 {
                    screen.bytes(&line)?;
                    line.clear();
                }
            }
        }
        self.notes.sentences().for_each(say);
        screen.finish()
    }
}
