//! `export`: all rows of a namespace, in the format of a file.
//!
//! A strong namespace is exported as it was at one moment. A single page is one read. Several pages are kept in a
//! temporary file until the last one is there; then the node must have applied nothing to the namespace's group since
//! the first, or the export begins again. Replicas of an eventual namespace have no common moment, so its pages go out
//! as they come.

use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom, Write as _};

use continuum_core::api::{Content, Row};
use serde_json::Value;
use tempfile::SpooledTempFile;

use super::args::{Export, Source};
use super::whole::Notes;
use super::{jsonl, mcp, pairs};
use crate::api::{media, uri};
use crate::cli::client::{Call, Client};
use crate::cli::exit::{self, Failure};
use crate::cli::output::{Screen, say, spinner};

/// How often an export of a strong namespace begins, at most.
const TRIES: usize = 20;

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
        let pages = at_one_moment(&mut client, &ns, &policy["group"]).await?;
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
async fn at_one_moment(
    client: &mut Client,
    ns: &str,
    group: &Value,
) -> Result<SpooledTempFile, Failure> {
    for _ in 0..TRIES {
        let before = applied(client, group).await?;
        let mut pages = tempfile::spooled_tempfile(KEPT_BYTES);
        let (mut after, mut count) = (String::new(), 0);
        loop {
            let (page, next) = page(client, ns, &after).await?;
            pages.write_all(&page).map_err(|error| kept(&error))?;
            count += 1;
            let Some(next) = next else { break };
            after = next;
        }
        if count == 1 || before.is_some() && applied(client, group).await? == before {
            pages.seek(SeekFrom::Start(0)).map_err(|error| kept(&error))?;
            return Ok(pages);
        }
    }
    Err(Failure::new(
        exit::CONFLICT,
        "changed",
        "the namespace cannot be exported as it was at one moment",
        format!("it was written to during each of {TRIES} tries, or the node does not hold it"),
        "export while fewer writes arrive, and ask a voter with --node",
    ))
}

/// The last entry of the group that the node has applied; `None` when the node does not hold the group.
async fn applied(client: &mut Client, group: &Value) -> Result<Option<u64>, Failure> {
    let status = client.send(&Call::get("/v1/status")).await?.json()?;
    let groups = status["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(groups.iter().find(|found| found["group"] == *group).and_then(|g| g["applied"].as_u64()))
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
