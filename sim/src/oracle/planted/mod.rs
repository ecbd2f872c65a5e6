//! Planted histories: small ones, good and bad, each with the law that must refuse it. They test the oracles, which a
//! sound system never does.

mod eventual;
mod peers;
mod raft;
mod strong;

use std::collections::BTreeSet;

use crate::verdict::Verdict;

/// A history, and the law that must refuse it; none for a good one.
#[derive(Clone)]
struct Planted {
    name: &'static str,
    refused_by: Option<&'static str>,
    verdict: Verdict,
}

fn good(name: &'static str, verdict: Verdict) -> Planted {
    Planted { name, refused_by: None, verdict }
}

fn bad(name: &'static str, refused_by: &'static str, verdict: Verdict) -> Planted {
    Planted { name, refused_by: Some(refused_by), verdict }
}

#[test]
fn each_planted_history_is_judged_right() {
    let all = [strong::all(), eventual::all(), raft::all(), peers::all()].concat();
    for planted in &all {
        let by = planted.verdict.as_ref().err().map(|broken| broken.oracle);
        assert_eq!(by, planted.refused_by, "{}: {:?}", planted.name, planted.verdict);
    }
    let names: BTreeSet<&str> = all.iter().map(|planted| planted.name).collect();
    assert_eq!(names.len(), all.len(), "two histories of one name");
    let refused = all.iter().filter(|planted| planted.refused_by.is_some()).count();
    assert!(refused >= 50 && all.len() - refused >= 25, "{refused} of {}", all.len());
}
