//! A real failure, shrunk and drawn. A planted bug is active in a whole process, so these tests have one of their own.

use std::sync::Once;

use continuum_core::mark::instrument;
use continuum_sim::plan::Plan;
use continuum_sim::shrink::{OPERATIONS_GOAL, shrink};
use continuum_sim::{diagram, run};

/// A planted bug that needs operations, a fault and more than one node.
const MUTANT: &str = "replication.delete.resurrects";
const SEEDS: u64 = 20;
const RUNS: u64 = 150;

/// The first plan of the swarm that fails.
fn failing() -> Plan {
    static HUSH: Once = Once::new();
    HUSH.call_once(run::hush_panics);
    assert!(instrument::activate(Some(MUTANT)));
    let mut plans = (0..SEEDS).map(Plan::from_seed);
    plans.find(|plan| run::run(plan).violation.is_some()).expect("some seed sees the mutant")
}

#[test]
fn a_shrunk_plan_is_small_and_breaks_the_same_law() {
    let plan = failing();
    let mut asked = 0;
    let shrunk = shrink(&plan, |progress| {
        asked += 1;
        progress.runs < RUNS
    });
    let shrunk = shrunk.expect("it fails");
    assert!(asked > 10 && shrunk.after.runs <= RUNS);
    assert_eq!(shrunk.before.faults, plan.faults.len());
    assert!(shrunk.after.faults < shrunk.before.faults);
    assert!(shrunk.after.operations < shrunk.before.operations / 2);
    let text = shrunk.plan.to_toml();
    let read = Plan::parse(&text).expect("a written plan can be read");
    let (first, again) = (run::run(&shrunk.plan), run::run(&read));
    assert_eq!(first, again, "the file replays the run");
    let violation = again.violation.expect("the small plan still fails");
    assert_eq!(violation.oracle, shrunk.oracle);
    if shrunk.after.operations <= OPERATIONS_GOAL {
        assert!(text.len() < 4096, "{} bytes", text.len());
    }
}

#[test]
fn without_a_budget_the_plan_is_unchanged() {
    let plan = failing();
    let shrunk = shrink(&plan, |_| false).expect("it fails");
    assert_eq!((shrunk.plan, shrunk.after.runs), (plan, 1));
}

#[test]
fn a_picture_is_one_self_contained_page() {
    let plan = failing();
    let picture = diagram::draw(&plan, Some("<b>&\"'"), "sim replay <x>").expect("it fails");
    assert_eq!(is_balanced(&picture.html), Ok(()));
    assert!(picture.html.len() < 1 << 20, "{} bytes", picture.html.len());
    assert!(picture.html.contains("&lt;b&gt;&amp;&quot;&#39;"));
    let others = picture.html.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http:", "https:", "src=", "@import", "<b>"] {
        assert!(!others.contains(outside), "{outside}");
    }
    let end = format!("{} is broken at", picture.oracle);
    for shown in [end.as_str(), "class=\"end\"", "class=\"arrow", "delta n", "class=\"call"] {
        assert!(picture.html.contains(shown), "{shown}");
    }
}

/// Whether every tag that is opened is closed, in order.
fn is_balanced(html: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').ok_or("an open bracket")?;
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        let name = tag.split([' ', '\n', '/']).find(|part| !part.is_empty()).unwrap_or_default();
        if tag.starts_with('/') {
            if open.pop() != Some(name) {
                return Err(format!("</{name}> closes nothing"));
            }
        } else if !tag.ends_with('/') && !["!DOCTYPE", "meta", "input"].contains(&name) {
            open.push(name);
            if ["style", "script"].contains(&name) {
                rest = &rest[rest.find("</").ok_or("an open style")?..];
            }
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("left open: {open:?}")) }
}

#[test]
fn an_unbalanced_page_is_detected() {
    assert!(is_balanced("<p><b></p>").is_err() && is_balanced("<p>").is_err());
    assert_eq!(is_balanced("<p class=\"a\">x<i/></p>"), Ok(()));
}
