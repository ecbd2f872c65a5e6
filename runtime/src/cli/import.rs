//! `import`: writes the rows of a file, or of WordNet, in batches.
//!
//! A file is read twice: the first time checks every line, so that a broken one is found before anything is written.
//! Each batch has its own idempotency key, and is retried on the same node while that node is away or busy.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::args::{Import, Source};
use super::client::{Call, Client};
use super::exit::{self, Failure};
use super::output::{Screen, say};
use super::{jsonl, lines, wordnet};
use crate::api::input::{BatchBody, WriteBody};
use crate::api::uri;

/// Approximate bytes of keys and values in one batch: half the core's largest request, so that the encoding always
/// fits.
const BATCH_BYTES: usize = 512 << 10;
/// The first pause before a retry; it doubles.
const PAUSE_MS: u64 = 50;
/// The longest pause before a retry.
const PAUSE_MS_MAX: u64 = 2_000;

/// The writes of each row of the source.
type Rows = Box<dyn Iterator<Item = Result<Vec<WriteBody>, Failure>> + Send>;

/// The result of an import.
#[derive(Debug, Default)]
struct Totals {
    rows: u64,
    batches: u64,
    retries: u64,
}

/// `import ...`.
pub(super) async fn run(
    import: &Import,
    mut client: Client,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let is_stream = import.path.as_os_str() == "-";
    let total = if is_stream { None } else { Some(check(import)?) };
    let ns = uri::encode(import.ns.as_bytes());
    // Finds an unknown namespace before the first batch. From here on only the node that answered is asked.
    client.send(&Call::get(format!("/v1/namespaces/{ns}"))).await?;
    client.pin();
    let begun = Instant::now();
    let bar = bar(total);
    let mut totals = Totals::default();
    let ended = write_all(import, &client, rows(import)?, &bar, &mut totals).await;
    bar.finish_and_clear();
    if let Err(failure) = ended {
        say(format!("{} rows were imported before this", totals.rows));
        return Err(failure);
    }
    report(&totals, begun.elapsed(), screen)
}

fn report(totals: &Totals, elapsed: Duration, screen: &mut Screen) -> Result<(), Failure> {
    let seconds = elapsed.as_secs_f64();
    let rate = (totals.rows as f64 / seconds.max(f64::EPSILON)).round();
    say(format!(
        "{} rows in {seconds:.2} s, {rate} rows/s, {} batches sent again",
        totals.rows, totals.retries
    ));
    if !screen.is_json() {
        return Ok(());
    }
    screen.json(&json!({
        "rows": totals.rows,
        "batches": totals.batches,
        "retries": totals.retries,
        "seconds": seconds,
        "rows_per_s": rate,
    }))
}

/// Reads the whole source without writing, and returns the number of rows.
fn check(import: &Import) -> Result<u64, Failure> {
    rows(import)?.try_fold(0, |count, row| row.map(|_| count + 1))
}

/// Sends all rows, with up to `concurrency` batches at once.
async fn write_all(
    import: &Import,
    client: &Client,
    rows: Rows,
    bar: &ProgressBar,
    totals: &mut Totals,
) -> Result<(), Failure> {
    let path = format!("/v1/namespaces/{}/batch", uri::encode(import.ns.as_bytes()));
    let patience = Duration::from_secs(import.patience);
    let mut idle: Vec<Client> = (0..import.concurrency).map(|_| client.another()).collect();
    let mut sending = VecDeque::new();
    let mut broken = None;
    for batch in Batches::new(rows, usize::from(import.batch)) {
        let (rows, batch) = match batch {
            Ok(batch) => batch,
            Err(failure) => {
                broken = Some(failure);
                break;
            }
        };
        if idle.is_empty() {
            idle.extend(await_oldest(&mut sending, bar, totals).await?);
        }
        let Some(client) = idle.pop() else { break };
        let call = Call::post(&path, &batch).once();
        sending.push_back(tokio::spawn(send(client, call, rows, patience)));
    }
    while !sending.is_empty() {
        await_oldest(&mut sending, bar, totals).await?;
    }
    broken.map_or(Ok(()), Err)
}

/// A sent batch: its client, its rows, and the number of retries.
type Sent = Result<(Client, u64, u64), Failure>;

/// Waits for the oldest batch.
async fn await_oldest(
    sending: &mut VecDeque<JoinHandle<Sent>>,
    bar: &ProgressBar,
    totals: &mut Totals,
) -> Result<Option<Client>, Failure> {
    let Some(oldest) = sending.pop_front() else { return Ok(None) };
    let sent = oldest.await.unwrap_or_else(|error| {
        Err(Failure::new(
            exit::LOCAL,
            "internal",
            "a batch was not sent",
            error.to_string(),
            "report this",
        ))
    });
    let (client, rows, retries) = sent?;
    totals.rows += rows;
    totals.batches += 1;
    totals.retries += retries;
    bar.inc(rows);
    Ok(Some(client))
}

/// Sends a batch, and retries failures that pass with time.
async fn send(mut client: Client, call: Call, rows: u64, patience: Duration) -> Sent {
    let begun = Instant::now();
    let mut pause_ms = PAUSE_MS;
    let mut retries = 0;
    loop {
        match client.send(&call).await {
            Ok(_) => return Ok((client, rows, retries)),
            Err(failure) if failure.is_passing() && begun.elapsed() < patience => {}
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
        retries += 1;
    }
}

/// Groups rows into batches.
struct Batches {
    rows: std::iter::Peekable<Rows>,
    rows_max: usize,
}

impl Batches {
    fn new(rows: Rows, rows_max: usize) -> Self {
        Self { rows: rows.peekable(), rows_max }
    }
}

impl Iterator for Batches {
    type Item = Result<(u64, BatchBody), Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        let (mut rows, mut bytes) = (0, 0);
        let mut writes: Vec<WriteBody> = Vec::new();
        loop {
            // The rows before a broken one are sent first; the next call returns the broken one.
            let row = match self.rows.peek() {
                Some(Ok(row)) => row,
                Some(Err(_)) if !writes.is_empty() => break,
                Some(Err(_)) => return self.rows.next()?.err().map(Err),
                None => break,
            };
            let size: usize = row.iter().map(encoded_size).sum();
            let is_full = writes.len() + row.len() > self.rows_max || bytes + size > BATCH_BYTES;
            if is_full && !writes.is_empty() {
                break;
            }
            let Some(Ok(row)) = self.rows.next() else { break };
            writes.extend(row);
            bytes += size;
            rows += 1;
        }
        (!writes.is_empty()).then_some(Ok((rows, BatchBody { writes })))
    }
}

/// The approximate size of a write in the core's encoding, in bytes.
fn encoded_size(write: &WriteBody) -> usize {
    let edits = write.edits.iter().map(|edit| {
        let parts = edit.put.iter().chain(&edit.add).chain(&edit.remove);
        parts.map(|part| part.0.len() + edit.field.0.len() + 16).sum::<usize>() + 32
    });
    write.key.0.len() + 64 + edits.sum::<usize>()
}

/// The rows of the source, in order.
fn rows(import: &Import) -> Result<Rows, Failure> {
    match import.format {
        Source::Jsonl => {
            let lines = lines::of(&import.path)?;
            Ok(Box::new(lines.map(|line| line.and_then(|line| line.read(jsonl::writes)))))
        }
        Source::Wordnet => {
            let mut all: Vec<Rows> = Vec::new();
            for (name, letter) in wordnet::FILES {
                all.push(synsets(&import.path.join(name), letter)?);
            }
            Ok(Box::new(all.into_iter().flatten()))
        }
    }
}

fn synsets(path: &Path, letter: char) -> Result<Rows, Failure> {
    let concept = move |text: &[u8]| {
        let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
        if wordnet::is_licence(text) {
            Ok(Vec::new())
        } else {
            Ok(vec![wordnet::concept(letter, text)?])
        }
    };
    let rows = lines::of(path)?.map(move |line| line.and_then(|line| line.read(concept)));
    Ok(Box::new(rows.filter(|row| !matches!(row, Ok(writes) if writes.is_empty()))))
}

/// A progress bar on a terminal, nothing on a pipe.
fn bar(total: Option<u64>) -> ProgressBar {
    let Some(total) = total else { return spinner("rows imported") };
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let style =
        ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} rows {per_sec} {eta}");
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::api::input::EditBody;
    use crate::api::json::JsonBytes;

    fn import(path: PathBuf, format: Source) -> Import {
        Import { ns: "n".into(), format, path, concurrency: 1, batch: 2, patience: 1 }
    }

    fn write(bytes: usize) -> WriteBody {
        let edit = EditBody { put: Some(JsonBytes(vec![0; bytes].into())), ..EditBody::default() };
        WriteBody { key: JsonBytes::from("k"), edits: vec![edit], context: None }
    }

    fn sizes(rows: Vec<Result<Vec<WriteBody>, Failure>>) -> Vec<Option<usize>> {
        let batches = Batches::new(Box::new(rows.into_iter()), 2);
        batches.map(|batch| batch.map(|(_, batch)| batch.writes.len()).ok()).collect()
    }

    #[test]
    fn batches_are_bounded_in_rows_and_bytes() {
        let row = |bytes| Ok(vec![write(bytes)]);
        assert_eq!(sizes(vec![row(1), row(1), row(1)]), [Some(2), Some(1)]);
        assert_eq!(sizes(vec![row(BATCH_BYTES), row(1), row(1)]), [Some(1), Some(2)]);
        // A row is never divided, even if it is larger than a batch.
        assert_eq!(sizes(vec![Ok(vec![write(1), write(1), write(1)]), row(1)]), [Some(3), Some(1)]);
    }

    #[test]
    fn rows_before_a_broken_one_are_not_lost() {
        let broken = Err(Failure::usage("broken", "", ""));
        assert_eq!(sizes(vec![Ok(vec![write(1)]), broken]), [Some(1), None]);
    }

    #[test]
    fn a_broken_line_is_named_before_anything_is_sent() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rows.jsonl");
        fs::write(
            &path,
            "{\"key\":\"a\",\"fields\":[{\"field\":\"\",\"register\":[\"1\"]}]}\nnonsense\n",
        )
        .expect("written");
        let failure = check(&import(path.clone(), Source::Jsonl)).expect_err("a broken line");
        assert_eq!(failure.exit, exit::LOCAL);
        assert_eq!(failure.what, format!("{}:2 cannot be imported", path.display()));
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
        let import = import(folder.path().to_owned(), Source::Wordnet);
        assert_eq!(check(&import).expect("sound files"), 4);
        fs::remove_file(folder.path().join("data.adv")).expect("removed");
        assert_eq!(check(&import).expect_err("a missing file").exit, exit::LOCAL);
    }
}
