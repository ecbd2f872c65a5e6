//! Three nodes with much strong state, and clients that write over three checkpoints.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::clients::{Clients, Done, load, refusals};
use super::watch::{Look, Watch, excess, is_beside_checkpoint, metrics, peak, sum};
use super::{MB, STRONG, begin, mb};
use crate::federation::Nodes;
use crate::honest::{ms, p99};
use crate::row::{Bench, Check, Row, holds, wait_for};

/// Bytes of one value.
const VALUE: usize = 64 << 10;
/// Clients over all nodes.
const CLIENTS: u64 = 64;
/// Checkpoints that each node completes.
const CHECKPOINTS: f64 = 3.0;
/// Three checkpoints are there within this and a second for each megabyte.
const PATIENCE: Duration = Duration::from_secs(120);
/// The p99 beside a checkpoint may be this many times the one without, and is not judged below the second figure.
const TIMES: u32 = 2;
const NOT_JUDGED: Duration = Duration::from_millis(20);

pub(super) const ROWS: &[Row] = &[Row {
    name: "size.checkpoints",
    expected: "three nodes with --mb of strong state and 64 clients over three checkpoints: no election, no refused \
               write, and the p99 beside a checkpoint is at most twice the one without, or 20 ms",
    run: checkpoints,
}];

/// The terms of all groups of a node, summed.
fn terms(nodes: &Nodes) -> Vec<u64> {
    let of = |status: Value| {
        let groups = status["groups"].as_array().cloned().unwrap_or_default();
        groups.iter().filter_map(|group| group["term"].as_u64()).sum()
    };
    nodes.all.iter().map(|node| of(node.status())).collect()
}

fn checkpoints(bench: &Bench) -> Check<String> {
    let nodes = begin(bench, 3)?;
    let apis: Vec<SocketAddr> = nodes.all.iter().map(|node| node.api).collect();
    let keys = (bench.sizes.mb * MB / VALUE as u64).max(CLIENTS);
    let while_loading = load(&apis, STRONG, keys, VALUE)?;
    bench.progress(&format!("{keys} values are loaded; {while_loading} refusals meanwhile"));
    let before = terms(&nodes);
    let completed =
        |api: &SocketAddr| metrics(*api).map(|page| sum(&page, "continuum_checkpoints_total"));
    let at_first: Vec<f64> = apis.iter().map(|api| completed(api).unwrap_or(0.0)).collect();
    let watch = Watch::start(apis.clone());
    let clients = Clients::start(&apis, STRONG, CLIENTS, (keys, VALUE));
    let patience = PATIENCE + Duration::from_secs(bench.sizes.mb);
    let all_done = wait_for(patience, || {
        let is_done = apis
            .iter()
            .zip(&at_first)
            .all(|(api, first)| completed(api).is_some_and(|now| now >= first + CHECKPOINTS));
        is_done.then_some(())
    });
    let done = clients.stop();
    let looks = watch.stop();
    let elections: u64 = terms(&nodes)
        .iter()
        .zip(&before)
        .map(|(after, before)| after.saturating_sub(*before))
        .max()
        .unwrap_or(0);
    let (seen, holds_up) = judge(&done, &looks, elections);
    let times = all_done.map_or_else(
        || format!("not three checkpoints each within {} s", patience.as_secs()),
        |((), seconds)| format!("three checkpoints each in {seconds:.1} s"),
    );
    let observed = format!("{} MB, {times}: {seen}", bench.sizes.mb);
    holds(holds_up && all_done.is_some(), || observed.clone())?;
    Ok(observed)
}

/// The observation, and whether it is as expected.
fn judge(done: &[Done], looks: &[Vec<Look>], elections: u64) -> (String, bool) {
    let committed: Vec<&Done> = done.iter().filter(|one| one.refusal.is_empty()).collect();
    let is_beside =
        |one: &&Done| is_beside_checkpoint(looks, one.at.saturating_sub(one.took), one.at);
    let (beside, without): (Vec<&Done>, Vec<&Done>) =
        committed.iter().copied().partition(is_beside);
    let took = |of: &[&Done]| p99(of.iter().map(|one| one.took));
    let (with, alone) = (took(&beside), took(&without));
    let longest = committed.iter().map(|one| one.took).max().unwrap_or_default();
    let refused = refusals(done);
    let nodes: Vec<String> = looks
        .iter()
        .map(|looks| format!("{} MB ({} above the law)", mb(peak(looks)), mb(excess(looks))))
        .collect();
    let seen = format!(
        "{elections} elections, refused {refused:?}, p99 of {} writes beside a checkpoint {}, of {} others {}, longest \
         {}; peak memory {}",
        beside.len(),
        ms(with),
        without.len(),
        ms(alone),
        ms(longest),
        nodes.join(", ")
    );
    let is_even = with <= (alone * TIMES).max(NOT_JUDGED);
    (seen, elections == 0 && refused.is_empty() && is_even)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(ms: u64, unfinished: f64) -> Look {
        Look { at: Duration::from_millis(ms), unfinished, ..Look::default() }
    }

    fn done(at_ms: u64, took_ms: u64, refusal: &str) -> Done {
        let (at, took) = (Duration::from_millis(at_ms), Duration::from_millis(took_ms));
        Done { at, took, refusal: refusal.into() }
    }

    #[test]
    fn writes_beside_a_checkpoint_may_take_twice_as_long() {
        let ats = [(0, 0.0), (1000, 0.0), (2000, 1.0), (3000, 0.0), (4000, 0.0)];
        let looks = [ats.map(|(ms, unfinished)| look(ms, unfinished)).to_vec()];
        let judged = |beside_ms| {
            judge(&[done(500, 30, ""), done(1500, beside_ms, ""), done(3900, 30, "")], &looks, 0)
        };
        let ((seen, even), (_, slow)) = (judged(60), judged(61));
        assert!(even && !slow, "{seen}");
        assert!(
            seen.contains("of 1 writes beside a checkpoint 60.0 ms, of 2 others 30.0 ms"),
            "{seen}"
        );
        let (seen, _) = judge(&[done(500, 30, ""), done(3900, 3000, "")], &looks, 0);
        assert!(seen.contains("of 1 writes beside"), "it lasts as long as the checkpoint: {seen}");
    }

    #[test]
    fn one_election_or_one_refusal_is_too_much() {
        let looks = [vec![look(0, 0.0)]];
        assert!(judge(&[done(1, 1, "")], &looks, 0).1);
        assert!(!judge(&[done(1, 1, "")], &looks, 1).1);
        assert!(!judge(&[done(1, 1, ""), done(1, 1, "429 busy")], &looks, 0).1);
    }
}
