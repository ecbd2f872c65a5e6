//! Honest clients that write all the time: how long each write takes, and the gaps in which none is answered.
//!
//! All that they were promised goes into the book, so that the end of a row looks for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use continuum_runtime::clock::Stopwatch;

use crate::book::{Book, STRONG};
use crate::http::{Answer, Ask, Kept, brief};
use crate::row::pause;
use crate::writers::answered;

/// A client's pause between two writes.
const PACE: Duration = Duration::from_millis(10);

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// When it came, since the client began.
    pub(crate) at: Duration,
    pub(crate) took: Duration,
    /// Empty when the write was committed.
    pub(crate) refusal: String,
    pub(crate) key: String,
    pub(crate) value: String,
}

/// One client, as a thread.
#[derive(Debug)]
pub(crate) struct Honest {
    stop: Arc<AtomicBool>,
    client: Option<JoinHandle<(Vec<Told>, Book)>>,
}

/// The nodes that a client asks, and how.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    /// It asks the first one, and the next one after each refusal.
    pub(crate) apis: Vec<SocketAddr>,
    pub(crate) namespace: &'static str,
    /// Whether each request has a connection of its own.
    pub(crate) anew: bool,
    pub(crate) patience: Duration,
}

impl Manner {
    /// Strong writes to one node, each on a connection of its own.
    pub(crate) fn at(api: SocketAddr) -> Self {
        Self { apis: vec![api], namespace: STRONG, anew: true, patience: Duration::from_secs(8) }
    }
}

impl Honest {
    /// Starts a client. Names of clients differ over a row.
    pub(crate) fn start(manner: Manner, name: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let client = std::thread::spawn(move || write(&manner, &name, &seen));
        Self { stop, client: Some(client) }
    }

    /// Ends it. Returns its answers in order.
    pub(crate) fn stop(mut self, book: &mut Book) -> Vec<Told> {
        self.stop.store(true, Ordering::Relaxed);
        let client = self.client.take().expect("it runs");
        let (told, promised) = client.join().expect("a client does not panic");
        book.merge(promised);
        told
    }
}

impl Drop for Honest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write(manner: &Manner, name: &str, stop: &AtomicBool) -> (Vec<Told>, Book) {
    let (mut told, mut book) = (Vec::new(), Book::default());
    let (begun, mut at, mut kept) = (Stopwatch::start(), 0, None);
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let (key, value) = (format!("{name}-{:03}", number % 200), format!("v{number}"));
        let path = format!("/v1/namespaces/{}/kv/{key}", manner.namespace);
        let ask = Ask::new("PUT", path).raw(value.as_str()).within(manner.patience);
        let api = manner.apis[at % manner.apis.len()];
        let watch = Stopwatch::start();
        let answer = if manner.anew {
            ask.send(api)
        } else {
            let open = kept.take().or_else(|| Kept::open(api, manner.patience));
            open.and_then(|mut open: Kept| {
                let answer = open.ask(&ask);
                kept = answer.is_some().then_some(open);
                answer
            })
        };
        let took = watch.elapsed();
        book.put(manner.namespace, &key, &value, answered(answer.as_ref()));
        let is_ok = answer.as_ref().is_some_and(Answer::is_ok);
        let refusal = if is_ok { String::new() } else { brief(answer.as_ref()) };
        told.push(Told { at: begun.elapsed(), took, refusal, key, value });
        if !is_ok {
            at += 1;
            kept = None;
        }
        number += 1;
        pause(PACE);
    }
    (told, book)
}

/// The duration that 99 of 100 do not exceed.
pub(crate) fn p99(durations: impl IntoIterator<Item = Duration>) -> Duration {
    let mut all: Vec<Duration> = durations.into_iter().collect();
    all.sort_unstable();
    let at = (all.len() * 99).div_ceil(100);
    all.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

/// The longest time without a committed write over all these clients, which began together.
pub(crate) fn gap(clients: &[Vec<Told>], from: Duration, until: Duration) -> Duration {
    let mut at: Vec<Duration> = clients
        .iter()
        .flatten()
        .filter(|told| told.refusal.is_empty() && (from..=until).contains(&told.at))
        .map(|told| told.at)
        .collect();
    at.extend([from, until]);
    at.sort_unstable();
    at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// Milliseconds with one digit, for an observation.
pub(crate) fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(at_ms: u64, refusal: &str) -> Told {
        let at = Duration::from_millis(at_ms);
        let (key, value) = (String::new(), String::new());
        Told { at, took: Duration::from_millis(1), refusal: refusal.into(), key, value }
    }

    #[test]
    fn one_of_a_hundred_may_be_longer() {
        let span = |ms| Duration::from_millis(ms);
        assert_eq!(p99((1..=100).map(span)), span(99));
        assert_eq!(p99((1..=200).map(span)), span(198));
        assert_eq!(p99([span(7)]), span(7));
        assert_eq!(p99([]), Duration::ZERO);
    }

    #[test]
    fn a_gap_is_one_of_all_clients() {
        let span = |ms| Duration::from_millis(ms);
        let clients =
            [vec![told(10, ""), told(50, ""), told(90, "")], vec![told(30, ""), told(70, "503")]];
        assert_eq!(gap(&clients, span(10), span(90)), span(40));
        assert_eq!(gap(&clients, span(0), span(200)), span(110));
        assert_eq!(gap(&[], span(5), span(7)), span(2));
    }
}
