//! `import`: makes a namespace hold the rows of a file.
//!
//! The whole file is checked before the first write. Then rows go in chunks: each chunk is compared with what the
//! namespace holds, and only the difference is written. A chunk that got no sure answer is compared again before it is
//! sent again, so nothing is counted twice: a request that would be the same as the last one keeps its number in the
//! session, in case that one is still under way, and any other has the next number. Each connection has a session.
//! Chunks under way at once have no key in common.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use continuum_core::digest::Digest;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::args::Import;
use super::held;
use super::plan::{self, Kind};
use super::source::{Place, Placed, Rows, Source};
use crate::api::input::BatchBody;
use crate::api::uri;
use crate::cli::client::{Call, Client, FORGOTTEN};
use crate::cli::exit::{self, Failure};
use crate::cli::output::{Screen, bar, say};

/// The first pause before a retry; it doubles.
const PAUSE_MS: u64 = if cfg!(test) { 1 } else { 50 };
/// The longest pause before a retry.
const PAUSE_MS_MAX: u64 = 2_000;

/// How the progress of an import looks.
const BAR: &str = "{wide_bar} {human_pos}/{human_len} rows {per_sec} {eta}";

/// The hint for a row that its namespace cannot hold.
const MISFIT: &str = "change the row, or import into an eventual namespace";

/// The result of an import, or of a part of it.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    rows: u64,
    /// Rows that the namespace held already.
    unchanged: u64,
    batches: u64,
    retries: u64,
}

impl Totals {
    fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.unchanged += other.unchanged;
        self.batches += other.batches;
        self.retries += other.retries;
    }
}

/// The namespace that rows go to.
#[derive(Debug)]
struct Target {
    /// Its encoded name.
    ns: String,
    kind: Kind,
    is_dry: bool,
    /// The most writes in one request.
    writes_max: usize,
    patience: Duration,
}

/// `import ...`.
pub(in crate::cli) async fn run(
    import: &Import,
    mut client: Client,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let mut source = open(import).await?;
    let mut checked = check(source.rows()?)?;
    let (target, is_empty) = target(import, &mut client).await?;
    if target.kind.is_strong && checked.misfit.is_some() {
        source.simplify();
        checked = check(source.rows()?)?;
    }
    source.notes().sentences().for_each(say);
    if target.kind.is_strong
        && let Some((place, why)) = checked.misfit
    {
        return Err(place.broken(why, MISFIT));
    }
    let begun = Instant::now();
    let mut writer = Writer {
        target: Arc::new(target),
        idle: (0..import.concurrency).map(|_| client.another()).collect(),
        sending: VecDeque::new(),
        written: is_empty.then(BTreeSet::new),
        bar: bar(checked.rows, BAR),
        totals: Totals::default(),
    };
    let ended = writer.write_all(source.rows()?, usize::from(import.batch)).await;
    writer.bar.finish_and_clear();
    let totals = writer.totals;
    if let Err(failure) = ended {
        say(format!("{} rows were imported before this", totals.rows));
        return Err(failure);
    }
    report(import, &totals, begun.elapsed(), screen)
}

/// Opens the source on a thread of its own, because standard input may come slowly.
async fn open(import: &Import) -> Result<Source, Failure> {
    let (sender, receiver) = oneshot::channel();
    let (path, format) = (import.path.clone(), import.format);
    std::thread::spawn(move || drop(sender.send(Source::open(&path, format))));
    receiver.await.unwrap_or_else(|_| Err(internal("the source was not read")))
}

fn internal(what: &str) -> Failure {
    Failure::new(exit::LOCAL, "internal", what, "a thread ended early", "report this")
}

/// The result of reading the whole source without writing.
#[derive(Debug, Default)]
struct Checked {
    rows: u64,
    /// The first row that no strong namespace can hold.
    misfit: Option<(Place, String)>,
}

/// Checks every row against all bounds that do not depend on what a namespace holds.
fn check(rows: Rows) -> Result<Checked, Failure> {
    let strong = Kind { is_strong: true, discards: false };
    let mut checked = Checked::default();
    for row in rows {
        let Placed { place, row } = row?;
        if let Err(why) = plan::check(&row) {
            return Err(place.broken(why, "correct or remove the row; nothing was written"));
        }
        checked.rows += 1;
        if checked.misfit.is_none() {
            checked.misfit = plan::misfit(&row, strong).map(|why| (place, why));
        }
    }
    Ok(checked)
}

/// The namespace, and whether it holds nothing. From here on only the node that answered is asked.
async fn target(import: &Import, client: &mut Client) -> Result<(Target, bool), Failure> {
    let ns = uri::encode(import.ns.as_bytes());
    let policy = client.send(&Call::get(format!("/v1/namespaces/{ns}"))).await?.json()?;
    client.pin();
    let first = client.send(&Call::get(format!("/v1/namespaces/{ns}/rows?limit=1"))).await?;
    let kind =
        Kind { is_strong: policy["consistency"] == "strong", discards: policy["discard"] == true };
    let target = Target {
        ns,
        kind,
        is_dry: import.dry_run,
        writes_max: usize::from(import.batch),
        patience: Duration::from_secs(import.patience),
    };
    Ok((target, first.body.is_empty()))
}

/// Rows that are compared and written together. No two have one key.
#[derive(Debug, Default)]
struct Chunk {
    rows: Vec<Placed>,
    bytes: usize,
    /// Whether the namespace surely holds none of them yet.
    is_new: bool,
}

/// Writes chunks of rows, several at once.
struct Writer {
    target: Arc<Target>,
    idle: Vec<Client>,
    /// Chunks under way, oldest first, each with the names of its keys.
    sending: VecDeque<(BTreeSet<u64>, JoinHandle<Sent>)>,
    /// The names of all keys so far, if the namespace was empty.
    written: Option<BTreeSet<u64>>,
    bar: ProgressBar,
    totals: Totals,
}

/// A short name of a key. Two keys may have one name; that costs a read or a wait.
fn name(key: &Bytes) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = Digest::of(key).0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

impl Writer {
    async fn write_all(&mut self, rows: Rows, rows_max: usize) -> Result<(), Failure> {
        let (mut chunk, mut names) = (Chunk::default(), BTreeSet::new());
        for row in rows {
            // A broken row means that the file changed meanwhile. The rows before it are written.
            let placed = match row {
                Ok(placed) => placed,
                Err(failure) => {
                    self.send(chunk, names).await?;
                    self.finish().await?;
                    return Err(failure);
                }
            };
            let (name, size) = (name(&placed.row.key), plan::size(&placed.row));
            let is_new = self.written.as_mut().is_some_and(|written| written.insert(name));
            let is_full = chunk.rows.len() >= rows_max || chunk.bytes + size > plan::REQUEST_BYTES;
            if is_full || names.contains(&name) || chunk.is_new != is_new {
                self.send(std::mem::take(&mut chunk), std::mem::take(&mut names)).await?;
            }
            names.insert(name);
            chunk.bytes += size;
            chunk.is_new = is_new;
            chunk.rows.push(placed);
        }
        self.send(chunk, names).await?;
        self.finish().await
    }

    /// Sends a chunk once a client is idle and no chunk under way has one of its keys.
    async fn send(&mut self, chunk: Chunk, names: BTreeSet<u64>) -> Result<(), Failure> {
        if chunk.rows.is_empty() {
            return Ok(());
        }
        let clashes = |sending: &VecDeque<(BTreeSet<u64>, _)>| {
            sending.iter().any(|(others, _)| !others.is_disjoint(&names))
        };
        while self.idle.is_empty() || clashes(&self.sending) {
            self.await_oldest().await?;
        }
        if let Some(client) = self.idle.pop() {
            let target = Arc::clone(&self.target);
            self.sending.push_back((names, tokio::spawn(settle(client, target, chunk))));
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        while !self.sending.is_empty() {
            self.await_oldest().await?;
        }
        Ok(())
    }

    async fn await_oldest(&mut self) -> Result<(), Failure> {
        let Some((_, oldest)) = self.sending.pop_front() else { return Ok(()) };
        let sent = oldest.await.unwrap_or_else(|_| Err(internal("a batch was not sent")));
        let (client, totals) = sent?;
        self.idle.push(client);
        self.bar.inc(totals.rows);
        self.totals.add(totals);
        Ok(())
    }
}

/// A settled chunk, and the client that is idle again.
type Sent = Result<(Client, Totals), Failure>;

/// Writes a chunk. If it is refused for good, its rows are tried one by one, so that the refused one is named.
async fn settle(mut client: Client, target: Arc<Target>, mut chunk: Chunk) -> Sent {
    let mut totals = Totals::default();
    let settled = settle_rows(&mut client, &target, &chunk, &mut totals).await;
    let Err(mut failure) = settled else { return Ok((client, totals)) };
    if chunk.rows.len() > 1 && !failure.is_passing() {
        for row in std::mem::take(&mut chunk.rows) {
            let place = row.place.clone();
            let one = Chunk { rows: vec![row], bytes: 0, is_new: false };
            if let Err(of_row) = settle_rows(&mut client, &target, &one, &mut totals).await {
                failure = of_row;
                failure.what = format!("{place}: {}", failure.what);
                return Err(failure);
            }
        }
        return Ok((client, totals));
    }
    if let Some(first) = chunk.rows.first() {
        failure.what = format!("{}: {}", first.place, failure.what);
    }
    Err(failure)
}

/// Writes the rows of a chunk, and retries failures that pass with time.
async fn settle_rows(
    client: &mut Client,
    target: &Target,
    chunk: &Chunk,
    totals: &mut Totals,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut pause_ms = PAUSE_MS;
    let mut last = None;
    let mut changed = BTreeSet::new();
    let mut is_new = chunk.is_new;
    loop {
        let tried =
            try_rows(client, target, chunk, is_new, (&mut last, &mut changed, totals)).await;
        match tried {
            Ok(()) => break,
            Err(failure) if begun.elapsed() >= target.patience => return Err(failure),
            // This try did nothing. The rows are compared again, and written in another session.
            Err(failure) if failure.code == FORGOTTEN => last = None,
            Err(failure) if failure.is_passing() => {}
            Err(failure) => return Err(failure),
        }
        is_new = false;
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
        totals.retries += 1;
    }
    totals.rows += chunk.rows.len() as u64;
    totals.unchanged += (chunk.rows.len() - changed.len()) as u64;
    Ok(())
}

/// The last request, whose outcome may not be known.
type Last = Option<(Bytes, Call)>;

/// Compares the rows of a chunk with what the namespace holds, and writes the difference.
async fn try_rows(
    client: &mut Client,
    target: &Target,
    chunk: &Chunk,
    is_new: bool,
    (last, changed, totals): (&mut Last, &mut BTreeSet<Bytes>, &mut Totals),
) -> Result<(), Failure> {
    let held = if is_new {
        BTreeMap::new()
    } else {
        let keys = chunk.rows.iter().map(|placed| placed.row.key.clone()).collect();
        held::read(client, &target.ns, keys).await?
    };
    let mut writes = Vec::new();
    for Placed { row, .. } in &chunk.rows {
        let lacking = plan::writes(row, held.get(&row.key), target.kind);
        if !lacking.is_empty() {
            changed.insert(row.key.clone());
        }
        writes.extend(lacking);
    }
    if target.is_dry {
        return Ok(());
    }
    for batch in plan::requests(writes, target.writes_max) {
        let call = call(client, target, &batch, last);
        client.send(&call).await?;
        // Answered: an equal request after this one is another one.
        *last = None;
        totals.batches += 1;
    }
    Ok(())
}

/// The request of a batch. A batch equal to the last one has that one's number in the session.
fn call(client: &mut Client, target: &Target, batch: &BatchBody, last: &mut Last) -> Call {
    let body = Bytes::from(serde_json::to_vec(batch).unwrap_or_default());
    if let Some((before, call)) = last
        && *before == body
    {
        return call.clone();
    }
    let call = client.next(Call::post(format!("/v1/namespaces/{}/batch", target.ns), batch));
    *last = Some((body, call.clone()));
    call
}

fn report(
    import: &Import,
    totals: &Totals,
    elapsed: Duration,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let Totals { rows, unchanged, batches, retries } = *totals;
    let changed = rows - unchanged;
    if import.dry_run {
        say(format!(
            "{rows} rows can be imported: {changed} would change the namespace, {unchanged} are there; nothing was \
             written"
        ));
    } else {
        let (seconds, rate) = rate(rows, elapsed);
        say(format!(
            "{rows} rows in {seconds:.2} s, {rate} rows/s; {unchanged} were there already, {retries} tries were \
             repeated"
        ));
    }
    if !screen.is_json() {
        return Ok(());
    }
    let (seconds, rate) = rate(rows, elapsed);
    screen.json(&json!({
        "dry_run": import.dry_run,
        "rows": rows,
        "changed": changed,
        "unchanged": unchanged,
        "batches": batches,
        "retries": retries,
        "seconds": seconds,
        "rows_per_s": rate,
    }))
}

fn rate(rows: u64, elapsed: Duration) -> (f64, f64) {
    let seconds = elapsed.as_secs_f64();
    (seconds, (rows as f64 / seconds.max(f64::EPSILON)).round())
}
