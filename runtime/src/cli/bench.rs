//! `bench`: measures writes per second and their latency.
//!
//! It times whole round trips of durable writes, in namespaces that it creates and removes. Each client keeps one
//! connection; clients are spread over the given nodes. Every latency is kept, so percentiles are exact.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
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

/// The measurements of one client.
#[derive(Debug, Default)]
struct Samples {
    /// Microseconds of each request.
    latencies_us: Vec<u64>,
    /// Failed requests by the code of their error.
    failures: BTreeMap<String, u64>,
}

/// Measures all loads at all numbers of clients.
pub(super) async fn run(
    bench: &Bench,
    mut nodes: Vec<Client>,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let mut results = Vec::new();
    for load in &bench.load {
        let ns = format!(
            "bench-{:016x}",
            u64::from_le_bytes(entropy::identity()[..8].try_into().unwrap_or_default())
        );
        create(&ns, *load, &mut nodes).await?;
        for clients in &bench.clients {
            say(format!("{}, {clients} clients, {} s", name(*load), bench.seconds));
            let measured = measure(bench, *load, *clients, &ns, &nodes).await;
            results
                .push(measured.inspect_err(|_| say(format!("the namespace {ns} is left behind")))?);
        }
        nodes[0].send(&Call::delete(format!("/v1/namespaces/{ns}")).once()).await?;
    }
    report(bench, &results, screen)
}

const fn name(load: Load) -> &'static str {
    match load {
        Load::Strong => "strong put",
        Load::Eventual => "eventual put",
        Load::Batch => "eventual batch",
    }
}

/// Creates the namespace, and waits until every node serves it.
async fn create(ns: &str, load: Load, nodes: &mut [Client]) -> Result<(), Failure> {
    let consistency =
        if load == Load::Strong { ConsistencyName::Strong } else { ConsistencyName::Eventual };
    let body =
        NamespaceBody { name: ns.into(), consistency, strategy: None, slots: None, discard: false };
    nodes[0].send(&Call::post("/v1/namespaces", &body).once()).await?;
    let warm = Call::put(format!("/v1/namespaces/{ns}/kv/warm"), Bytes::from_static(b"up"));
    for node in nodes {
        let begun = Instant::now();
        while let Err(failure) = node.send(&warm).await {
            let is_new = failure.is_passing() || failure.code == "unknown_namespace";
            if !is_new || begun.elapsed() > Duration::from_secs(10) {
                return Err(failure);
            }
            tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
        }
    }
    Ok(())
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
            (Writer::new(bench, load, number, ns), ready.clone(), warmed.clone());
        tasks.push(tokio::spawn(async move {
            // The connection is made before the clock starts.
            let opened = client.send(&Call::get("/livez")).await;
            // Dropping it signals that this client is ready.
            drop(warmed);
            opened?;
            let until = ready.wait_for(Option::is_some).await.ok().and_then(|until| *until);
            Ok::<_, Failure>(drive(client, load, until.unwrap_or_else(Instant::now)).await)
        }));
    }
    drop(warmed);
    // Returns when every client has dropped its end.
    warm.recv().await;
    let begun = Instant::now();
    go.send_replace(Some(begun + Duration::from_secs(bench.seconds)));
    let mut all = Samples::default();
    for task in tasks {
        let samples = task.await.map_err(|error| {
            Failure::new(
                exit::LOCAL,
                "internal",
                "a client broke",
                error.to_string(),
                "report this",
            )
        })??;
        all.latencies_us.extend(samples.latencies_us);
        for (code, count) in samples.failures {
            *all.failures.entry(code).or_default() += count;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let writes = if load == Load::Batch { u64::from(bench.batch) } else { 1 };
    Ok(result(load, clients, writes, seconds, all))
}

/// Makes the writes of one client.
#[derive(Debug)]
struct Writer {
    load: Load,
    client: u16,
    ns: String,
    value: Bytes,
    batch: u16,
    next: u64,
}

impl Writer {
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

/// Writes one request after the other until the time is over.
async fn drive(mut client: Client, mut writer: Writer, until: Instant) -> Samples {
    let mut samples = Samples::default();
    loop {
        let call = writer.call();
        let begun = Instant::now();
        if begun >= until {
            return samples;
        }
        match client.send(&call).await {
            Ok(_) => {
                let us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                samples.latencies_us.push(us);
            }
            Err(failure) => {
                *samples.failures.entry(failure.code).or_default() += 1;
                tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
            }
        }
    }
}

/// The smallest latency that `percent` of all do not exceed.
fn percentile_ms(sorted_us: &[u64], percent: usize) -> f64 {
    let rank = (sorted_us.len() * percent).div_ceil(100).max(1);
    sorted_us.get(rank - 1).map_or(0.0, |us| *us as f64 / 1000.0)
}

fn result(load: Load, clients: u16, writes: u64, seconds: f64, mut samples: Samples) -> Value {
    samples.latencies_us.sort_unstable();
    let sorted = &samples.latencies_us;
    let count = sorted.len() as u64 * writes;
    json!({
        "load": name(load),
        "clients": clients,
        "writes_per_request": writes,
        "writes": count,
        "writes_per_s": (count as f64 / seconds.max(f64::EPSILON)).round(),
        "p50_ms": percentile_ms(sorted, 50),
        "p99_ms": percentile_ms(sorted, 99),
        "max_ms": percentile_ms(sorted, 100),
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
        row.push(format!("{:.0}", result["writes_per_s"].as_f64().unwrap_or(0.0)));
        row.extend([number("p50_ms"), number("p99_ms"), number("max_ms")]);
        row.push(failed(result));
        row
    };
    let names = ["load", "clients", "writes/s", "p50 ms", "p99 ms", "max ms", "failed"];
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

    #[test]
    fn percentiles_are_exact() {
        let sorted: Vec<u64> = (1..=200).map(|ms| ms * 1000).collect();
        let found = [50, 99, 100].map(|percent| percentile_ms(&sorted, percent).to_string());
        assert_eq!(found, ["100", "198", "200"]);
        assert_eq!(percentile_ms(&[], 99).to_string(), "0");
        assert_eq!(percentile_ms(&[7000], 50).to_string(), "7");
    }

    #[test]
    fn a_batch_counts_its_writes() {
        let failures = BTreeMap::from([("busy".to_owned(), 1)]);
        let samples = Samples { latencies_us: vec![3000, 1000], failures };
        let result = result(Load::Batch, 2, 100, 2.0, samples);
        assert_eq!(
            (result["writes"].as_u64(), result["writes_per_s"].as_f64()),
            (Some(200), Some(100.0))
        );
        assert_eq!((result["failed"].as_u64(), failed(&result)), (Some(1), "busy 1".to_owned()));
        assert_eq!((result["p50_ms"].as_f64(), result["max_ms"].as_f64()), (Some(1.0), Some(3.0)));
    }
}
