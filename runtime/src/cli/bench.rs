//! `bench`: measures writes and reads per second and their latency.
//!
//! It times whole round trips, in namespaces that it creates and removes, however it ends. Each client keeps one
//! connection and asks one thing after the other; clients are spread over those of the given nodes that answer. Its
//! percentiles are within a thousandth of the true ones.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::args::{Bench, Load};
use super::client::{Call, Client};
use super::exit::{self, Failure};
use super::output::{Screen, say};
use crate::api::input::{BatchBody, ConsistencyName, EditBody, NamespaceBody, WriteBody};
use crate::api::json::JsonBytes;
use crate::entropy;

/// Keys of each client: enough to spread the writes, few enough to stay in memory.
const KEYS: u64 = 1000;
/// A refused client pauses for this.
const PAUSE_MS: u64 = 5;

/// A node that takes longer for its first answer is left out.
const FIRST_ANSWER: Duration = Duration::from_secs(2);
/// A new namespace must be served everywhere within this.
const SERVED_WITHIN: Duration = Duration::from_secs(10);
/// Digits of a latency that are kept.
const DIGITS: u8 = 3;
/// The longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 3600 * 1_000_000;

/// The measurements of one client.
#[derive(Debug)]
struct Samples {
    /// Microseconds of each request.
    latencies_us: Histogram<u64>,
    /// Failed requests by the code of their error.
    failures: BTreeMap<String, u64>,
}

impl Samples {
    fn new() -> Result<Self, Failure> {
        let made = Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS);
        let latencies_us = made.map_err(|error| internal(&error))?;
        Ok(Self { latencies_us, failures: BTreeMap::new() })
    }
}

fn internal(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(exit::LOCAL, "internal", "a client broke", error.to_string(), "report this")
}

/// Measures all loads at all numbers of clients, and removes what it made, also when it is interrupted.
pub(super) async fn run(
    bench: &Bench,
    nodes: Vec<Client>,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let mut nodes = super::interruptible(answering(nodes)).await?;
    let mut made = Vec::new();
    let measured = super::interruptible(measure_all(bench, &nodes, &mut made)).await;
    for ns in made {
        if let Err(failure) = remove(&ns, &mut nodes[0]).await {
            say(format!("{ns} is left behind ({failure}); remove it: continuum ns delete {ns}"));
        }
    }
    report(bench, &measured?, screen)
}

/// The nodes that answer; at least one.
async fn answering(nodes: Vec<Client>) -> Result<Vec<Client>, Failure> {
    let (mut answering, mut last) = (Vec::new(), None);
    for mut node in nodes {
        let livez = Call::get("/livez");
        let asked = tokio::time::timeout(FIRST_ANSWER, node.send(&livez)).await;
        let failure = match asked {
            Ok(Ok(_)) => {
                answering.push(node);
                continue;
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure::new(exit::UNREACHABLE, "timeout", "no answer", "", "see its log"),
        };
        say(format!("{} is left out: {}", node.url(), failure.what));
        last = Some(failure);
    }
    match last {
        Some(failure) if answering.is_empty() => Err(failure),
        _ => Ok(answering),
    }
}

async fn measure_all(
    bench: &Bench,
    nodes: &[Client],
    made: &mut Vec<String>,
) -> Result<Vec<Value>, Failure> {
    let mut results = Vec::new();
    for load in &bench.load {
        let [a, b, c, d, e, f, g, h, ..] = entropy::identity();
        let ns = format!("bench-{:016x}", u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        // Noted first: an interrupted creation may have happened.
        made.push(ns.clone());
        create(&ns, *load, bench, nodes).await?;
        for clients in &bench.clients {
            say(format!("{}, {clients} clients, {} s", name(*load), bench.seconds));
            results.push(measure(bench, *load, *clients, &ns, nodes).await?);
        }
    }
    Ok(results)
}

/// Removes a namespace. One that never came to be is removed already.
async fn remove(ns: &str, node: &mut Client) -> Result<(), Failure> {
    match node.send(&Call::delete(format!("/v1/namespaces/{ns}")).once()).await {
        Err(failure) if failure.code != "unknown_namespace" => Err(failure),
        _ => Ok(()),
    }
}

const fn name(load: Load) -> &'static str {
    match load {
        Load::Strong => "strong put",
        Load::Eventual => "eventual put",
        Load::Batch => "eventual batch",
        Load::StrongGet => "strong get",
        Load::EventualGet => "eventual get",
    }
}

const fn is_get(load: Load) -> bool {
    matches!(load, Load::StrongGet | Load::EventualGet)
}

/// Creates the namespace, and waits until every node serves it; for reads, writes what is to be read.
async fn create(ns: &str, load: Load, bench: &Bench, nodes: &[Client]) -> Result<(), Failure> {
    let is_strong = matches!(load, Load::Strong | Load::StrongGet);
    let consistency = if is_strong { ConsistencyName::Strong } else { ConsistencyName::Eventual };
    let body =
        NamespaceBody { name: ns.into(), consistency, strategy: None, slots: None, discard: false };
    let mut nodes: Vec<Client> = nodes.iter().map(Client::another).collect();
    nodes[0].send(&Call::post("/v1/namespaces", &body).once()).await?;
    let warm = Call::put(format!("/v1/namespaces/{ns}/kv/warm"), Bytes::from_static(b"up"));
    for node in &mut nodes {
        until_served(node, &warm).await?;
    }
    if !is_get(load) {
        return Ok(());
    }
    let value = Bytes::from(vec![b'x'; bench.value_bytes as usize]);
    for key in 0..KEYS {
        let path = format!("/v1/namespaces/{ns}/kv/{}", read_key(key));
        let put = nodes[0].next(Call::put(path, value.clone()));
        nodes[0].send(&put).await?;
    }
    // An eventual write arrives at the other nodes later; the last one comes with all before it.
    let last = Call::get(format!("/v1/namespaces/{ns}/kv/{}", read_key(KEYS - 1)));
    for node in &mut nodes {
        until_served(node, &last).await?;
    }
    Ok(())
}

/// Sends a call until it succeeds, while what it asks for may still arrive.
async fn until_served(node: &mut Client, call: &Call) -> Result<(), Failure> {
    let begun = Instant::now();
    while let Err(failure) = node.send(call).await {
        let is_new = failure.is_passing()
            || ["unknown_namespace", "absent"].contains(&failure.code.as_str());
        if !is_new || begun.elapsed() > SERVED_WITHIN {
            return Err(failure);
        }
        tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
    }
    Ok(())
}

fn read_key(number: u64) -> String {
    format!("r{number}")
}

/// Measures one load at one number of clients.
async fn measure(
    bench: &Bench,
    load: Load,
    clients: u16,
    ns: &str,
    nodes: &[Client],
) -> Result<Value, Failure> {
    let mut tasks = Vec::with_capacity(usize::from(clients));
    let (go, ready) = tokio::sync::watch::channel(None);
    let (warmed, mut warm) = tokio::sync::mpsc::channel::<()>(1);
    for number in 0..clients {
        let mut client = nodes[usize::from(number) % nodes.len()].another();
        let (load, mut ready, warmed) =
            (Asker::new(bench, load, number, ns), ready.clone(), warmed.clone());
        tasks.push(tokio::spawn(async move {
            // The connection is made before the clock starts.
            let opened = client.send(&Call::get("/livez")).await;
            // Dropping it signals that this client is ready.
            drop(warmed);
            opened?;
            let until = ready.wait_for(Option::is_some).await.ok().and_then(|until| *until);
            drive(client, load, until.unwrap_or_else(Instant::now)).await
        }));
    }
    drop(warmed);
    // Returns when every client has dropped its end.
    warm.recv().await;
    let begun = Instant::now();
    go.send_replace(Some(begun + Duration::from_secs(bench.seconds)));
    let mut all = Samples::new()?;
    for task in tasks {
        let samples = task.await.map_err(|error| internal(&error))??;
        all.latencies_us.add(&samples.latencies_us).map_err(|error| internal(&error))?;
        for (code, count) in samples.failures {
            *all.failures.entry(code).or_default() += count;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let writes = if load == Load::Batch { u64::from(bench.batch) } else { 1 };
    Ok(result(load, clients, writes, seconds, &all))
}

/// Makes the requests of one client.
#[derive(Debug)]
struct Asker {
    load: Load,
    client: u16,
    ns: String,
    value: Bytes,
    batch: u16,
    next: u64,
}

impl Asker {
    fn new(bench: &Bench, load: Load, client: u16, ns: &str) -> Self {
        let value = Bytes::from(vec![b'x'; bench.value_bytes as usize]);
        Self { load, client, ns: ns.into(), value, batch: bench.batch, next: 0 }
    }

    fn key(&mut self) -> String {
        self.next = (self.next + 1) % KEYS;
        format!("c{}-{}", self.client, self.next)
    }

    fn call(&mut self) -> Call {
        let ns = self.ns.clone();
        if is_get(self.load) {
            self.next = (self.next + 1) % KEYS;
            return Call::get(format!("/v1/namespaces/{ns}/kv/{}", read_key(self.next)));
        }
        if self.load != Load::Batch {
            return Call::put(format!("/v1/namespaces/{ns}/kv/{}", self.key()), self.value.clone());
        }
        let writes = (0..self.batch).map(|_| {
            let edit = EditBody { put: Some(JsonBytes(self.value.clone())), ..EditBody::default() };
            WriteBody { key: JsonBytes(self.key().into()), edits: vec![edit], context: None }
        });
        let batch = BatchBody { writes: writes.collect() };
        Call::post(format!("/v1/namespaces/{ns}/batch"), &batch)
    }
}

/// Sends one request after the other until the time is over.
async fn drive(mut client: Client, mut asker: Asker, until: Instant) -> Result<Samples, Failure> {
    let mut samples = Samples::new()?;
    loop {
        let call = asker.call();
        let begun = Instant::now();
        if begun >= until {
            return Ok(samples);
        }
        match client.send(&call).await {
            Ok(_) => {
                let us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                samples.latencies_us.saturating_record(us);
            }
            Err(failure) => {
                *samples.failures.entry(failure.code).or_default() += 1;
                tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
            }
        }
    }
}

fn result(load: Load, clients: u16, per_request: u64, seconds: f64, samples: &Samples) -> Value {
    let latencies = &samples.latencies_us;
    let ms = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    let count = latencies.len() * per_request;
    json!({
        "load": name(load),
        "clients": clients,
        "operations_per_request": per_request,
        "operations": count,
        "operations_per_s": (count as f64 / seconds.max(f64::EPSILON)).round(),
        "p50_ms": ms(0.5),
        "p99_ms": ms(0.99),
        "p999_ms": ms(0.999),
        "max_ms": ms(1.0),
        "failed": samples.failures.values().sum::<u64>(),
        "failures": samples.failures,
    })
}

fn report(bench: &Bench, results: &[Value], screen: &mut Screen) -> Result<(), Failure> {
    if screen.is_json() {
        let (seconds, bytes) = (bench.seconds, bench.value_bytes);
        return screen
            .json(&json!({ "seconds": seconds, "value_bytes": bytes, "results": results }));
    }
    let row = |result: &Value| {
        let number = |name: &str| format!("{:.2}", result[name].as_f64().unwrap_or(0.0));
        let load = result["load"].as_str().unwrap_or_default().to_owned();
        let mut row = vec![load, result["clients"].to_string()];
        row.push(format!("{:.0}", result["operations_per_s"].as_f64().unwrap_or(0.0)));
        row.extend(["p50_ms", "p99_ms", "p999_ms", "max_ms"].map(number));
        row.push(failed(result));
        row
    };
    let names = ["load", "clients", "per s", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "failed"];
    screen.table(&names, results.iter().map(row).collect())
}

/// The failed requests by code, or 0.
fn failed(result: &Value) -> String {
    let failures = result["failures"].as_object().into_iter().flatten();
    let reasons: Vec<String> = failures.map(|(code, count)| format!("{code} {count}")).collect();
    if reasons.is_empty() { "0".to_owned() } else { reasons.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(latencies_us: impl IntoIterator<Item = u64>) -> Samples {
        let mut samples = Samples::new().expect("sound bounds");
        latencies_us.into_iter().for_each(|us| samples.latencies_us.saturating_record(us));
        samples
    }

    #[test]
    fn percentiles_are_within_a_thousandth() {
        let found = result(Load::Strong, 1, 1, 1.0, &samples((1..=200).map(|ms| ms * 1000)));
        for (name, expected) in [("p50_ms", 100.0), ("p99_ms", 198.0), ("max_ms", 200.0)] {
            let found = found[name].as_f64().expect("a number");
            assert!((found - expected).abs() <= expected / 1000.0, "{name}: {found}");
        }
        let none = result(Load::Strong, 1, 1, 1.0, &samples([]));
        assert_eq!((none["p99_ms"].as_f64(), none["operations"].as_u64()), (Some(0.0), Some(0)));
        let long = result(Load::Strong, 1, 1, 1.0, &samples([u64::MAX]));
        assert_eq!(long["operations"], 1, "a latency past the bound still counts");
    }

    #[test]
    fn a_batch_counts_its_writes() {
        let mut samples = samples([3000, 1000]);
        samples.failures.insert("busy".to_owned(), 1);
        let result = result(Load::Batch, 2, 100, 2.0, &samples);
        assert_eq!(
            (result["operations"].as_u64(), result["operations_per_s"].as_f64()),
            (Some(200), Some(100.0))
        );
        assert_eq!((result["failed"].as_u64(), failed(&result)), (Some(1), "busy 1".to_owned()));
    }
}
