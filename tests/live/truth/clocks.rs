//! Wall clocks that lie: ahead, behind, fast or frozen, and then right again.

use std::time::Duration;

use serde_json::Value;

use crate::book::{Book, EVENTUAL, STRONG};
use crate::federation::Nodes;
use crate::http::{Answer, Ask, brief, metric};
use crate::row::{Bench, Check, Row, holds, pause, wait_for, wait_until};
use crate::writers::{Writers, make_namespaces, put, settle, write_some};

const HOUR_MS: i64 = 3600 * 1000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;
const ALL: [usize; 3] = [0, 1, 2];
/// The node whose clock is wrong.
const LIAR: usize = 2;
/// Once the clock is right, everything is visible everywhere within this.
const HEALS: Duration = Duration::from_secs(60);

/// The warnings of a node that was ahead of its present clock, and of one whose peers are ahead of it.
const SHOWN_AS: [&str; 2] = ["clock_ahead", "clock_behind_peers"];
/// The warnings end within this: a minute after the clock is right, says the manual.
const FADES: Duration = Duration::from_secs(150);

macro_rules! row {
    ($name:literal, $what:literal, $lie:expr) => {
        Row {
            name: $name,
            expected: concat!(
                "one clock ",
                $what,
                ": writes of before, during and after are visible everywhere, and the lead is shown while it lasts"
            ),
            run: |bench| lie(bench, $lie),
        }
    };
}

pub(crate) const ROWS: &[Row] = &[
    row!("clock.hour-ahead", "an hour ahead for 13 s", &Lie::jump(HOUR_MS, 13)),
    row!("clock.hour-behind", "an hour behind for 13 s", &Lie::jump(-HOUR_MS, 13)),
    row!("clock.year-ahead", "a year ahead for 13 s", &Lie::jump(YEAR_MS, 13)),
    row!(
        "clock.fast",
        "five times too fast for 20 s",
        &Lie { ahead_ms: 0, speed: 5000, seconds: 20 }
    ),
    row!("clock.frozen", "frozen for 20 s", &Lie { ahead_ms: 0, speed: 0, seconds: 20 }),
    Row {
        name: "clock.restarted-ahead",
        expected: "a node restarted with its clock an hour ahead, and again with it right: nothing is hidden or lost",
        run: restarted_ahead,
    },
];

/// A wrong clock.
struct Lie {
    ahead_ms: i64,
    speed: u32,
    seconds: u64,
}

impl Lie {
    const fn jump(ahead_ms: i64, seconds: u64) -> Self {
        Self { ahead_ms, speed: 1000, seconds }
    }

    /// Whether it is wrong by more than the nodes' bound of a minute.
    const fn is_shown(&self) -> bool {
        self.ahead_ms.abs() > 60_000 || self.speed > 1000
    }
}

/// Three nodes with clocks that this program sets, formed and with both namespaces.
fn begin(bench: &Bench) -> Check<Nodes> {
    let mut nodes = Nodes::new(bench, 3);
    nodes.all[LIAR].give_clock();
    nodes.form(3)?;
    make_namespaces(nodes.all[0].api)?;
    Ok(nodes)
}

/// An eventual write of one node, with its level, must be readable at all others.
fn visible_everywhere(nodes: &Nodes, book: &mut Book, round: &str) -> Check<f64> {
    let mut slowest = 0.0_f64;
    for from in ALL {
        let (key, value) = (format!("level-{round}-{from}"), format!("{round}-{from}"));
        let path = format!("/v1/namespaces/{EVENTUAL}/kv/{key}?level=replicated:2");
        let answer = Ask::new("PUT", path).raw(value.as_str()).send(nodes.all[from].api);
        book.put(EVENTUAL, &key, &value, crate::writers::answered(answer.as_ref()));
        holds(answer.as_ref().is_some_and(Answer::is_ok), || {
            format!(
                "{round}: replicated:2 at n{} was answered {}",
                from + 1,
                brief(answer.as_ref())
            )
        })?;
        // Two other disks have it, so it is read there at once. A poll allows for the request alone.
        for at in ALL {
            let path = format!("/v1/namespaces/{EVENTUAL}/kv/{key}");
            let read =
                || Ask::get(path.as_str()).send(nodes.all[at].api).is_some_and(|a| a.is_ok());
            let took = wait_until(Duration::from_secs(5), read, String::new).map_err(|_| {
                format!("{round}: replicated:2 of n{} is not readable at n{}", from + 1, at + 1)
            })?;
            slowest = slowest.max(took);
        }
    }
    Ok(slowest)
}

/// The same keyed strong write twice: one effect, one revision.
fn strong_session(nodes: &Nodes, book: &mut Book, round: &str) -> Check {
    let key = format!("session-{round}");
    let path = format!("/v1/namespaces/{STRONG}/kv/{key}");
    let mut revisions = Vec::new();
    for at in ALL {
        let ask = Ask::new("PUT", path.as_str()).raw("once").header("Idempotency-Key", &key);
        let answer = ask.send(nodes.all[at].api);
        let answer = answer.filter(Answer::is_ok);
        let answer =
            answer.ok_or_else(|| format!("{round}: the keyed write failed at n{}", at + 1))?;
        revisions.push(answer.json()["revision"].clone());
    }
    book.put(STRONG, &key, "once", crate::book::Answered::Committed);
    holds(revisions.windows(2).all(|pair| pair[0] == pair[1]), || {
        format!("{round}: a repeated write has revisions {revisions:?}")
    })
}

/// The places that show a lead: `/readyz`, the status and the metrics, each on some node.
fn shown(nodes: &Nodes) -> [bool; 3] {
    let mut shown = [false; 3];
    for at in ALL {
        let node = &nodes.all[at];
        let ready = node.ready().unwrap_or_default();
        shown[0] |=
            ready.is_ready && ready.warnings.iter().any(|code| SHOWN_AS.contains(&code.as_str()));
        shown[1] |= has_warning(&node.status());
        shown[2] |= metric(node.api, "continuum_clock_lead_seconds") > 0.0;
    }
    shown
}

/// Whether a status lists one of the warnings.
fn has_warning(status: &Value) -> bool {
    let warnings = status["warnings"].as_array().into_iter().flatten();
    let mut codes = warnings.filter_map(|warning| warning["code"].as_str());
    codes.any(|code| SHOWN_AS.contains(&code))
}

fn lie(bench: &Bench, lie: &Lie) -> Check<String> {
    let mut nodes = begin(bench)?;
    let mut book = Book::default();
    write_some(&mut book, &nodes, &ALL, "-before");
    visible_everywhere(&nodes, &mut book, "before")?;
    strong_session(&nodes, &mut book, "before")?;
    let writers = Writers::start(&nodes, &ALL, "");
    bench.progress("the clock is wrong");
    nodes.all[LIAR].set_clock(lie.ahead_ms, lie.speed);
    let was_shown = if lie.is_shown() {
        wait_for(Duration::from_secs(lie.seconds), || (shown(&nodes) == [true; 3]).then_some(()))
    } else {
        None
    };
    let was_shown = was_shown.map(|((), seconds)| seconds);
    let seen = shown(&nodes);
    pause(
        Duration::from_secs(lie.seconds)
            .saturating_sub(Duration::from_secs_f64(was_shown.unwrap_or(0.0))),
    );
    strong_session(&nodes, &mut book, "during")?;
    let during = visible_everywhere(&nodes, &mut book, "during");
    bench.progress("the clock is right again");
    nodes.all[LIAR].set_clock(0, 1000);
    let right = continuum_runtime::clock::Stopwatch::start();
    pause(Duration::from_secs(1));
    writers.stop(&mut book);
    nodes.all_serve(&ALL)?;
    write_some(&mut book, &nodes, &ALL, "-after");
    let settled = settle(bench, &nodes, &ALL, &book)?;
    let healed = right.elapsed();
    during?;
    visible_everywhere(&nodes, &mut book, "after")?;
    strong_session(&nodes, &mut book, "after")?;
    holds(healed <= HEALS, || format!("visible after {} s only", healed.as_secs()))?;
    if lie.is_shown() {
        holds(was_shown.is_some(), || {
            format!("the lead shows in [readyz, status, metrics]: {seen:?}")
        })?;
    }
    let gone = wait_until(FADES, || shown(&nodes) == [false; 3], || "the lead still shows".into())?;
    let shown = was_shown.map_or_else(String::new, |seconds| {
        format!("shown after {seconds:.1} s, gone after {gone:.1} s, ")
    });
    Ok(format!("{shown}visible {:.1} s after the clock was right; {settled}", healed.as_secs_f64()))
}

fn restarted_ahead(bench: &Bench) -> Check<String> {
    let mut nodes = begin(bench)?;
    let mut book = Book::default();
    write_some(&mut book, &nodes, &ALL, "-before");
    nodes.all[LIAR].set_clock(HOUR_MS, 1000);
    nodes.restart(&[LIAR])?;
    nodes.all_serve(&ALL)?;
    let writers = Writers::start(&nodes, &ALL, "");
    pause(Duration::from_secs(5));
    // All end while the clock is wrong, so that no node can know what it was before.
    writers.stop(&mut book);
    nodes.restart(&ALL)?;
    nodes.all_serve(&ALL)?;
    write_some(&mut book, &nodes, &ALL, "-during");
    nodes.all[LIAR].set_clock(0, 1000);
    nodes.restart(&ALL)?;
    nodes.all_serve(&ALL)?;
    let right = continuum_runtime::clock::Stopwatch::start();
    // An overwrite without a context supersedes what this node holds, also what was stamped ahead.
    for at in ALL {
        let key = format!("hot-n{}", at + 1);
        let answer = put(&mut book, nodes.all[at].api, EVENTUAL, &key, "overwritten");
        holds(answer.as_ref().is_some_and(Answer::is_ok), || {
            format!("an overwrite was answered {}", brief(answer.as_ref()))
        })?;
    }
    write_some(&mut book, &nodes, &ALL, "-after");
    let settled = settle(bench, &nodes, &ALL, &book)?;
    let healed = right.elapsed();
    holds(healed <= HEALS, || format!("visible after {} s only", healed.as_secs()))?;
    visible_everywhere(&nodes, &mut book, "after")?;
    Ok(format!("visible {:.1} s after the clock was right; {settled}", healed.as_secs_f64()))
}
