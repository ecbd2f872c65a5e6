//! Clients that load data and go on writing: one connection each, one request after the other, no pause.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use continuum_runtime::clock::Stopwatch;
use serde_json::{Value, json};

use super::path;
use crate::http::{Answer, Ask, Kept, brief};
use crate::row::{Check, pause};

/// A refused request is sent again after this.
const AGAIN: Duration = Duration::from_millis(5);
/// Tries of one request that loads.
const TRIES: u32 = 4000;
/// The wait for one answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// One answered write.
#[derive(Clone, Debug)]
pub(super) struct Done {
    /// When it was answered, since its client began.
    pub(super) at: Duration,
    pub(super) took: Duration,
    /// Empty when it was committed.
    pub(super) refusal: String,
}

/// Clients that overwrite keys until they are stopped.
#[derive(Debug)]
pub(super) struct Clients {
    stop: Arc<AtomicBool>,
    all: Vec<JoinHandle<Vec<Done>>>,
}

/// The key with this number.
pub(super) fn key(number: u64) -> String {
    format!("k{number:09}")
}

/// A value of this many bytes that differs from the one before.
fn value(bytes: usize, number: u64) -> Vec<u8> {
    let mut value = format!("{number:020}").into_bytes();
    value.resize(bytes.max(value.len()), b'x');
    value
}

/// A put of a key in a strong namespace.
fn put(namespace: &str, number: u64, bytes: usize, round: u64) -> Ask<'static> {
    let part = format!("kv/{}", key(number));
    Ask::new("PUT", path(namespace, &part)).raw(value(bytes, round)).within(PATIENCE)
}

/// A batch of puts.
fn batch(
    namespace: &str,
    numbers: impl Iterator<Item = u64>,
    bytes: usize,
    round: u64,
) -> Ask<'static> {
    let text = |number| String::from_utf8(value(bytes, round << 32 | number)).expect("digits");
    let writes: Vec<Value> = numbers
        .map(|number| json!({ "key": key(number), "edits": [{ "put": text(number) }] }))
        .collect();
    Ask::new("POST", path(namespace, "batch")).json(&json!({ "writes": writes })).within(PATIENCE)
}

/// Sends a request until it happens. Returns how often it was refused.
fn insist(kept: &mut Option<Kept>, api: SocketAddr, ask: &Ask<'_>) -> Check<u64> {
    let mut last = None;
    for refused in 0..TRIES {
        last = send(kept, api, ask);
        if last.as_ref().is_some_and(Answer::is_ok) {
            return Ok(refused.into());
        }
        pause(AGAIN);
    }
    Err(format!("a request that loads is answered {}", brief(last.as_ref())))
}

fn send(kept: &mut Option<Kept>, api: SocketAddr, ask: &Ask<'_>) -> Option<Answer> {
    let mut open = kept.take().or_else(|| Kept::open(api, PATIENCE))?;
    let answer = open.ask(ask);
    *kept = answer.is_some().then_some(open);
    answer
}

/// Does pieces of work in several threads, each on a connection of its own. Returns the refusals.
fn share(
    apis: &[SocketAddr],
    threads: u64,
    pieces: u64,
    ask: impl Fn(u64) -> Ask<'static> + Sync,
) -> Check<u64> {
    std::thread::scope(|scope| {
        let work = |thread: u64| {
            let (api, ask) = (apis[thread as usize % apis.len()], &ask);
            scope.spawn(move || {
                let mut kept = None;
                let mine = (thread..pieces).step_by(threads as usize);
                mine.map(|piece| insist(&mut kept, api, &ask(piece))).sum::<Check<u64>>()
            })
        };
        let all: Vec<_> = (0..threads).map(work).collect();
        all.into_iter().map(|one| one.join().expect("a loader does not panic")).sum()
    })
}

/// Puts this many strong keys with values of this size. Returns the refusals.
pub(super) fn load(apis: &[SocketAddr], namespace: &str, keys: u64, bytes: usize) -> Check<u64> {
    share(apis, 16, keys, |number| put(namespace, number, bytes, 0))
}

/// Puts eventual keys, a thousand in a request: those below `keys` in steps of `step`.
pub(super) fn load_batches(
    api: SocketAddr,
    namespace: &str,
    (keys, step): (u64, u64),
    bytes: usize,
    round: u64,
) -> Check<u64> {
    const KEYS: u64 = 1000;
    let pieces = keys.div_ceil(KEYS * step);
    share(&[api], 4, pieces, |piece| {
        let from = piece * KEYS * step;
        let to = keys.min(from + KEYS * step);
        batch(namespace, (from..to).step_by(step as usize), bytes, round)
    })
}

/// Adds members to a set, a thousand in a request.
pub(super) fn load_set(api: SocketAddr, namespace: &str, set: &str, members: u64) -> Check<u64> {
    const MEMBERS: u64 = 1000;
    share(&[api], 4, members.div_ceil(MEMBERS), |piece| {
        let (from, to) = (piece * MEMBERS, members.min((piece + 1) * MEMBERS));
        let add: Vec<String> = (from..to).map(|number| format!("member-{number:09}")).collect();
        let part = format!("sets/{set}");
        Ask::new("POST", path(namespace, &part)).json(&json!({ "add": add })).within(PATIENCE)
    })
}

impl Clients {
    /// Starts clients that overwrite these strong keys, each its own share of them.
    pub(super) fn start(
        apis: &[SocketAddr],
        namespace: &'static str,
        clients: u64,
        (keys, bytes): (u64, usize),
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |client: u64| {
            let (api, stop) = (apis[client as usize % apis.len()], Arc::clone(&stop));
            std::thread::spawn(move || {
                let (mut done, mut kept, begun) = (Vec::new(), None, Stopwatch::start());
                let mine = (client..keys.max(client + 1)).step_by(clients as usize);
                let numbers =
                    (1_u64..).flat_map(|round| mine.clone().map(move |number| (number, round)));
                for (number, round) in numbers {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let watch = Stopwatch::start();
                    let answer = send(&mut kept, api, &put(namespace, number, bytes, round));
                    let took = watch.elapsed();
                    let is_ok = answer.as_ref().is_some_and(Answer::is_ok);
                    let refusal = if is_ok { String::new() } else { brief(answer.as_ref()) };
                    done.push(Done { at: begun.elapsed(), took, refusal });
                    if !is_ok {
                        pause(AGAIN);
                    }
                }
                done
            })
        };
        let all = (0..clients).map(client).collect();
        Self { stop, all }
    }

    /// Ends them. Returns all that they were answered.
    pub(super) fn stop(mut self) -> Vec<Done> {
        self.stop.store(true, Ordering::Relaxed);
        let all = self.all.drain(..);
        all.flat_map(|client| client.join().expect("a client does not panic")).collect()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The refusals by their words, most frequent first.
pub(super) fn refusals(done: &[Done]) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for one in done.iter().filter(|one| !one.refusal.is_empty()) {
        *counts.entry(&one.refusal).or_default() += 1;
    }
    let mut counts: Vec<_> =
        counts.into_iter().map(|(word, count)| (word.to_owned(), count)).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_its_size_and_differs() {
        assert_eq!(value(100, 1).len(), 100);
        assert_ne!(value(32, 1), value(32, 2));
    }

    #[test]
    fn refusals_are_counted_by_their_words() {
        let done = |refusal: &str| Done {
            at: Duration::ZERO,
            took: Duration::ZERO,
            refusal: refusal.into(),
        };
        let all = ["", "429 busy", "503 no_leader", "429 busy", ""].map(done);
        assert_eq!(refusals(&all), [("429 busy".into(), 2), ("503 no_leader".into(), 1)]);
    }
}
