//! Alternating runs of the peers, and the medians over them.
//!
//! Criterion finishes one benchmark before it begins the next, so a machine that slows down would punish the last peer.
//! Therefore each run of a peer is a separate criterion benchmark, and the peers take turns. Criterion warms up,
//! chooses the iterations, filters by name and writes its reports to `target/criterion`. This module takes the medians
//! over the runs.

use std::collections::BTreeMap;
use std::time::Duration;

use cpu_time::ThreadTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput};
use serde_json::{Value, json};

use crate::cpu::{CpuTime, keep_memory};

/// Runs of each peer on each work.
pub const RUNS: usize = 7;
/// Samples of one run: the fewest that criterion takes.
const SAMPLES: usize = 10;

/// Criterion with the settings of all benches, overridden by the command line. Called first in `main`.
pub fn criterion() -> Criterion<CpuTime> {
    keep_memory();
    Criterion::default()
        .with_measurement(CpuTime)
        .without_plots()
        .sample_size(SAMPLES)
        .warm_up_time(Duration::from_millis(20))
        .measurement_time(Duration::from_millis(100))
        .nresamples(1001)
        .configure_from_args()
}

/// The criterion group of one run.
pub fn group<'a>(
    criterion: &'a mut Criterion<CpuTime>,
    bench: &str,
    run: usize,
) -> BenchmarkGroup<'a, CpuTime> {
    let mut group = criterion.benchmark_group(format!("{bench}/run {}", run + 1));
    group.sampling_mode(SamplingMode::Flat);
    group
}

/// The result of each run in elements per CPU second, by work and peer.
#[derive(Debug, Default)]
pub struct Runs(BTreeMap<(String, &'static str), Vec<f64>>);

/// The summary of one peer's runs on one work, in elements per CPU second.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub runs: usize,
}

impl Runs {
    /// Measures one run. Each iteration makes a fresh state, does `work` on it, and checks it. Only `work` is measured;
    /// it handles `elements` elements.
    pub fn measure<S>(
        &mut self,
        group: &mut BenchmarkGroup<'_, CpuTime>,
        (work_name, peer): (&str, &'static str),
        elements: u64,
        fresh: impl Fn() -> S,
        work: impl Fn(&mut S),
        check: impl Fn(&mut S),
    ) {
        let mut samples = Vec::new();
        group.throughput(Throughput::Elements(elements));
        group.bench_function(format!("{work_name}/{peer}"), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    let mut state = fresh();
                    let started = ThreadTime::now();
                    work(&mut state);
                    total += started.elapsed();
                    check(&mut state);
                }
                samples.push((iterations * elements) as f64 / total.as_secs_f64());
                total
            });
        });
        // The first samples are criterion's warm-up.
        let warm = samples.split_off(samples.len().saturating_sub(SAMPLES));
        if let Some(Summary { median, .. }) = summary(&warm) {
            self.0.entry((work_name.into(), peer)).or_default().push(median);
        }
    }

    /// The summary of a peer's runs on a work; `None` if the command line excluded them.
    pub fn of(&self, work: &str, peer: &'static str) -> Option<Summary> {
        self.0.get(&(work.into(), peer)).and_then(|runs| summary(runs))
    }

    /// The median of a peer divided by the median of `other`.
    pub fn ratio(&self, work: &str, peer: &'static str, other: &'static str) -> Option<f64> {
        Some(self.of(work, peer)?.median / self.of(work, other)?.median)
    }
}

impl Summary {
    /// The figures as members of a JSON object.
    pub fn json(&self, unit: &str) -> Value {
        json!({
            unit: self.median as u64, "min": self.min as u64, "max": self.max as u64,
            "runs": self.runs,
        })
    }
}

/// Prints a row of a table to standard error.
pub fn print_row(cells: &[String]) {
    let text: Vec<String> = cells.iter().map(|cell| format!("{cell:>13}")).collect();
    eprintln!("{}", text.join("  "));
}

fn summary(figures: &[f64]) -> Option<Summary> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let half = sorted.len() / 2;
    let even = sorted.len().is_multiple_of(2);
    let median = if even { (sorted[half - 1] + sorted[half]) / 2.0 } else { sorted[half] };
    Some(Summary { median, min, max, runs: sorted.len() })
}

/// The smallest of these ratios, rounded; `null` if the command line excluded all of them.
pub fn least(ratios: impl Iterator<Item = Option<f64>>) -> Value {
    ratios.flatten().min_by(f64::total_cmp).map_or(Value::Null, |ratio| json!(rounded(ratio)))
}

/// Rounds a ratio to three decimals.
pub fn rounded(ratio: f64) -> f64 {
    (ratio * 1000.0).round() / 1000.0
}
