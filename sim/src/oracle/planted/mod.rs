//! Planted histories: small good and bad ones, each bad one with the law that must refuse it. They test the oracles,
//! because a correct system never makes an oracle fail.

mod eventual;
mod overwritten;
mod peers;
mod raft;
mod spans;
mod strong;

use std::collections::BTreeSet;

use crate::verdict::Verdict;

/// A history, and the law that must refuse it; `None` for a good history.
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
fn each_planted_history_is_judged_correctly() {
    let all = [
        strong::all(),
        eventual::all(),
        raft::all(),
        peers::all(),
        spans::all(),
        overwritten::all(),
    ]
    .concat();
    for planted in &all {
        let by = planted.verdict.as_ref().err().map(|broken| broken.oracle);
        assert_eq!(by, planted.refused_by, "{}: {:?}", planted.name, planted.verdict);
    }
    let names: BTreeSet<&str> = all.iter().map(|planted| planted.name).collect();
    assert_eq!(names.len(), all.len(), "two histories have one name");
    let refused = all.iter().filter(|planted| planted.refused_by.is_some()).count();
    assert!(refused >= 50 && all.len() - refused >= 25, "{refused} of {}", all.len());
}
