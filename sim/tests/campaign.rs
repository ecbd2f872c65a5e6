//! Campaigns with the real program as worker: comparison of two processes, report files, refusals.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use continuum_sim::campaign::Campaign;
use continuum_sim::campaign::file::Report;
use continuum_sim::report::Record;
use serde_json::Value;

const SIM: &str = env!("CARGO_BIN_EXE_sim");

fn one_seed(seed: u64, slip_at: Option<u64>) -> Record {
    let (mutant, program) = (None, PathBuf::from(SIM));
    let observe_every = 1;
    let campaign = Campaign {
        program,
        mutant,
        once: false,
        jobs: 1,
        stop_early: false,
        observe_every,
        slip_at,
    };
    let mut records = Vec::new();
    campaign
        .run(std::iter::once(seed..seed + 1), |record| records.push(record))
        .expect("the worker works");
    records.pop().expect("one seed is one record")
}

/// An empty directory for one test.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder is made");
    folder
}

fn sim(folder: &Path, args: &[&str]) -> Output {
    Command::new(SIM).args(args).current_dir(folder).output().expect("sim starts")
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap_or_default()).expect("the last line is JSON")
}

#[test]
fn a_run_that_depends_on_memory_is_detected_at_its_first_event() {
    assert_eq!(one_seed(3, None).violation, None);
    let violation = one_seed(3, Some(2_000)).violation.expect("two processes, two runs");
    assert_eq!(violation.oracle, "determinism");
    let (events, first) =
        violation.what.split_once("; the first difference: ").expect("the event is named");
    assert!(events.contains("differ after event 1024 and by event 2048"), "{events}");
    // The same node takes the same step at another time.
    let (one, other) = first.split_once(" against ").expect("both are named");
    let parts = |text: &str| {
        let (at, event) = text.split_once(" node ").expect("time and event");
        (at.to_owned(), event.to_owned())
    };
    let ((at, event), (other_at, other_event)) = (parts(one), parts(other));
    assert_ne!(at, other_at);
    let step = |event: &str| event.split(" > ").next().map(str::to_owned);
    assert_eq!(step(&event), step(&other_event));
}

#[test]
fn an_interrupted_campaign_resumes_with_the_same_result() {
    let folder = folder("resume");
    let whole = ["swarm", "--seeds", "0..12", "--once", "--jobs", "1", "--report"];
    sim(&folder, &[&whole[..], &["whole.json"]].concat());
    // Enough time for one stretch of seeds.
    let short = ["cut.json", "--minutes", "0.002"];
    sim(&folder, &[&whole[..], &short[..]].concat());
    let load = |name: &str| Report::load(&folder.join(name)).expect("a report is there");
    assert_eq!(load("cut.json").done.count(), 8);
    let on = sim(&folder, &["swarm", "--resume", "cut.json", "--minutes", "5", "--jobs", "1"]);
    assert_eq!(json(&on)["seeds"], 12);
    let (mut cut, mut whole) = (load("cut.json").summary, load("whole.json").summary);
    for sum in [&mut cut, &mut whole] {
        (sum.cpu_us, sum.slowest) = (0, (0, 0));
    }
    assert_eq!(cut, whole);
    assert!(cut.marks.count() > 50, "{} marks", cut.marks.count());
}

#[test]
fn machines_run_their_shares_and_their_reports_add_up() {
    let folder = folder("report");
    for index in ["0", "1"] {
        let name = format!("{index}.json");
        let share = ["swarm", "--seeds", "0..8", "--index", index, "--of", "2", "--once"];
        sim(&folder, &[&share[..], &["--jobs", "1", "--report", &name]].concat());
    }
    let sum = json(&sim(&folder, &["report", "0.json", "1.json", "--out", "sum.json"]));
    assert_eq!((&sum["seeds"], &sum["done"]), (&8.into(), &serde_json::json!(["0..8"])));
    assert!(sum["pairs"].as_u64().is_some_and(|pairs| pairs >= 190));
    let again = sim(&folder, &["report", "0.json", "sum.json"]);
    assert_eq!(again.status.code(), Some(2));
    let error = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(error.contains("0.json and sum.json: both have done seeds 0..4"), "{error}");
    let text = std::fs::read_to_string(folder.join("1.json")).expect("a report");
    let build = serde_json::from_str::<Value>(&text).expect("JSON")["build"].to_string();
    let other = text.replace(&build, &format!("\"{}\"", "0".repeat(64)));
    std::fs::write(folder.join("other.json"), other).expect("a report is written");
    let refused = sim(&folder, &["swarm", "--resume", "other.json"]);
    assert_eq!(refused.status.code(), Some(2));
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("Build the commit of the report again"), "{error}");
}

#[test]
fn a_search_for_a_planted_bug_looks_at_the_seeds_that_were_asked_for() {
    let folder = folder("searched");
    let one = ["swarm", "--mutant", "node.canary", "--seeds", "700..710", "--jobs", "1"];
    let found = json(&sim(&folder, &one));
    let seed = found["seed"].as_u64().expect("a seed detects it");
    assert!((700..710).contains(&seed), "{found}");
    assert_eq!(found["seeds"].as_u64(), Some(seed - 699));
    let all = ["mutants", "--machine", "node.canary", "--seeds", "700..710", "--jobs", "1"];
    let found = json(&sim(&folder, &all));
    assert_eq!((&found["mutants"], &found["killed"]), (&1.into(), &1.into()), "{found}");
    assert_eq!(found["table"][0]["seed"], seed);
    // A search ends.
    let endless = sim(&folder, &["swarm", "--mutant", "node.canary", "--seeds", "700.."]);
    assert_eq!(endless.status.code(), Some(2));
}
