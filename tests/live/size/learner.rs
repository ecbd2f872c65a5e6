//! A new member that copies scattered eventual keys.

use std::time::Duration;

use super::clients::load_batches;
use super::watch::{Watch, excess, look, metrics, peak, sum};
use super::{EVENTUAL, begin, mb};
use crate::row::{Bench, Check, Row, holds, pause};
use continuum_runtime::clock::Stopwatch;

/// Bytes of one value.
const VALUE: usize = 32;
/// A copy that gains nothing in this time never ends.
const PROGRESS: Duration = Duration::from_secs(20);
/// The time between two looks at the copy.
const PACE: Duration = Duration::from_millis(200);
/// The most that a copy costs on the links, in thousandths of the state.
const TRAFFIC_PERMILLE: f64 = 1200.0;

pub(super) const ROWS: &[Row] = &[Row {
    name: "size.learner",
    expected: "a learner joins --keys eventual keys of which every second one was overwritten: it becomes equal, its \
               links carry at most 1.2 times the counted state, and it takes at most twice what it counts and 64 MB",
    run: learner,
}];

fn learner(bench: &Bench) -> Check<String> {
    let mut nodes = begin(bench, 1)?;
    let (api, keys) = (nodes.all[0].api, bench.sizes.keys);
    let refused = load_batches(api, EVENTUAL, (keys, 1), VALUE, 0)?
        + load_batches(api, EVENTUAL, (keys, 2), VALUE, 1)?;
    let first = metrics(api).ok_or("no metrics")?;
    let (live, state) = (sum(&first, "continuum_crdt_writes"), look(&first).counted);
    bench.progress(&format!("{live} live writes are loaded; {refused} refusals meanwhile"));
    nodes.add();
    nodes.introduce(&[0, 1]);
    let begun = Stopwatch::start();
    nodes.start(&[1])?;
    let learner = nodes.all[1].api;
    let watch = Watch::start(vec![learner]);
    let (mut most, mut gained, mut traffic) = (0.0, Stopwatch::start(), 0.0);
    let equal = loop {
        if let Some(page) = metrics(learner) {
            let held = sum(&page, "continuum_crdt_writes");
            traffic = sum(&page, "continuum_peer_received_bytes_total")
                + sum(&page, "continuum_peer_sent_bytes_total");
            if held >= live && sum(&page, "continuum_crdt_in_sync") >= 1.0 {
                break true;
            }
            if held > most {
                (most, gained) = (held, Stopwatch::start());
            }
        }
        if gained.elapsed() > PROGRESS {
            break false;
        }
        pause(PACE);
    };
    let took = begun.elapsed();
    let looks = watch.stop().remove(0);
    let times = traffic * 1000.0 / state.max(1) as f64;
    let end =
        if equal { "equal".into() } else { format!("no progress after {most} of {live} writes") };
    let observed = format!(
        "{keys} keys, {} MB counted: {end} after {:.1} s; {} MB on its links ({:.2} of the state); peak {} MB, {} MB \
         above the law",
        mb(state),
        took.as_secs_f64(),
        mb(traffic as u64),
        times / 1000.0,
        mb(peak(&looks)),
        mb(excess(&looks))
    );
    let is_so = equal && times <= TRAFFIC_PERMILLE && excess(&looks) == 0;
    holds(is_so, || observed.clone())?;
    Ok(observed)
}
