//! Consensus: logs, votes, leaders, commits, snapshots, disks.

use continuum_core::api::Outcome;
use continuum_core::id::{GroupId, Index, NodeId, Replica, StoreId, Term};
use continuum_core::raft::{Configuration, Entry, Message, Payload, Position};

use super::super::ledger::GroupLedger;
use super::super::{
    Watched, append_only, completeness, configurations, durability, election, handover,
    log_matching, monotone, progress, recovery, replaced, snapshots, state_safety, up_to_date,
    vote,
};
use super::{Planted, bad, good};
use crate::durable::{Durable, LogView};

pub(super) fn all() -> Vec<Planted> {
    [logs(), votes(), leaders(), commits(), disks()].concat()
}

fn entries(terms: &[u64]) -> Vec<Entry> {
    let entry = |term: &u64| Entry { term: Term(*term), time_ms: 0, payload: Payload::Noop };
    terms.iter().map(entry).collect()
}

fn view(terms: &[u64]) -> LogView {
    let mut view = LogView::default();
    view.append(Index(0), &entries(terms));
    view
}

fn committed(terms: &[u64]) -> GroupLedger {
    let mut ledger = GroupLedger::default();
    terms.iter().for_each(|term| ledger.commit_next(Term(*term)));
    ledger
}

const fn at(term: u64, index: u64) -> Position {
    Position { term: Term(term), index: Index(index) }
}

const fn replica(node: u8) -> Replica {
    Replica { node: NodeId([node; 16]), store: StoreId([1; 16]) }
}

fn logs() -> Vec<Planted> {
    let appends = |log: &[u64], prev, new: &[Entry]| {
        let mut ledger = GroupLedger::default();
        log_matching::check(&LogView::default(), &mut ledger, Index(0), &entries(&[1, 2]))?;
        log_matching::check(&view(log), &mut ledger, Index(prev), new)
    };
    let other = vec![Entry { term: Term(1), time_ms: 9, payload: Payload::Noop }];
    let rewrites = |committed: &[u64], prev, new: &[u64]| {
        let watched = Watched { commit: Index(2), ..Watched::default() };
        replaced::check(&watched, &self::committed(committed), Index(prev), &entries(new))
    };
    let leader = |prev, new: &[u64]| {
        let mut watched = Watched { view: view(&[1, 1]), ..Watched::default() };
        (watched.view.term, watched.leads) = (Term(1), Some(Term(1)));
        append_only::check(&watched, Index(prev), &entries(new))
    };
    vec![
        good("the same log twice", appends(&[], 0, &entries(&[1, 2]))),
        bad("another content at one place", log_matching::NAME, appends(&[], 0, &other)),
        bad("another past of one entry", log_matching::NAME, appends(&[2], 1, &entries(&[2]))),
        bad("a hole in a log", log_matching::NAME, appends(&[], 1, &entries(&[2]))),
        good("a committed entry written again", rewrites(&[1, 1], 0, &[1, 1])),
        bad("a committed entry replaced", replaced::NAME, rewrites(&[1, 1], 1, &[2])),
        bad("a committed entry cut off", replaced::NAME, rewrites(&[1, 1], 1, &[])),
        good("a leader appends", leader(2, &[1])),
        bad("a leader overwrites", append_only::NAME, leader(1, &[2])),
        bad("a leader cuts", append_only::NAME, leader(1, &[])),
    ]
}

fn votes() -> Vec<Planted> {
    let mut voted = LogView::default();
    (voted.term, voted.vote) = (Term(5), Some(replica(1)));
    let asks = |theirs| {
        up_to_date::check(at(2, 5), Some(replica(1)), Some((GroupId(1), replica(1).node, theirs)))
    };
    vec![
        good("a vote in a later term", vote::check(&voted, Term(6), Some(replica(2)))),
        bad("two votes in a term", vote::NAME, vote::check(&voted, Term(5), Some(replica(2)))),
        bad("a vote taken back", vote::NAME, vote::check(&voted, Term(5), None)),
        bad("a term that goes back", vote::NAME, vote::check(&voted, Term(4), None)),
        good("a vote for a longer log", asks(at(2, 6))),
        bad("a vote for a shorter log", up_to_date::NAME, asks(at(2, 4))),
        bad("a vote for an older log", up_to_date::NAME, asks(at(1, 9))),
    ]
}

fn leaders() -> Vec<Planted> {
    let mut ledger = GroupLedger::default();
    let mut leads = |node, term| election::check_leader(&mut ledger, node, Term(term));
    let (first, split) = (leads(1, 3), leads(2, 3));
    let completes = |log: &[u64]| completeness::check(&view(log), &committed(&[1, 2]), Term(3));
    let names = |voters: &[u8]| Configuration {
        voters: voters.iter().map(|node| replica(*node)).collect(),
        learners: Vec::new(),
    };
    let mut known = Vec::new();
    let hands_over = |heir, spared: &[u8]| {
        let spared = spared.iter().map(|n| replica(*n)).collect();
        let message = Message::TimeoutNow { term: Term(2), spared };
        handover::check(replica(1), replica(heir), &message)
    };
    let mut configures = |voters: &[u8]| configurations::check_voters(&mut known, &names(voters));
    vec![
        good("one leader", first),
        bad("a split brain", election::NAME, split),
        good("a leader that has all", completes(&[1, 2])),
        bad("a leader that lacks an entry", completeness::NAME, completes(&[1])),
        bad("a leader that has another entry", completeness::NAME, completes(&[1, 1])),
        good("first voters", configures(&[1, 2, 3])),
        bad("other voters", configurations::NAME, configures(&[1, 2, 3, 4])),
        bad("no voters", configurations::NAME, configures(&[])),
        good("leadership is handed on", hands_over(3, &[1, 2])),
        bad("leadership is handed back", handover::NAME, hands_over(2, &[1, 2])),
    ]
}

fn commits() -> Vec<Planted> {
    let watched = Watched { term: Term(2), commit: Index(5), ..Watched::default() };
    let moves = |term, commit| monotone::check_progress(&watched, Term(term), Index(commit));
    let applies = |log: &[u64]| {
        let watched = Watched { view: view(log), ..Watched::default() };
        state_safety::check_applied(&watched, &mut committed(&[1, 2]), Index(2))
    };
    let names = |position| snapshots::check(&committed(&[1, 2]), position);
    vec![
        good("a commit advances", moves(2, 6)),
        bad("a commit backs", monotone::NAME, moves(2, 4)),
        bad("a term backs", monotone::NAME, moves(1, 6)),
        bad("an applied index backs", monotone::NAME, monotone::check_applied(Index(3), Index(2))),
        good("applied, committed, last", progress::check(Index(1), Index(2), Index(3))),
        bad(
            "applied before committed",
            progress::NAME,
            progress::check(Index(3), Index(2), Index(3)),
        ),
        bad(
            "committed beyond the log",
            progress::NAME,
            progress::check(Index(1), Index(4), Index(3)),
        ),
        good("the committed entry is applied", applies(&[1, 2])),
        bad("another entry is applied", state_safety::NAME, applies(&[1, 3])),
        good("a snapshot of what is committed", names(at(2, 2))),
        bad("a snapshot beyond it", snapshots::NAME, names(at(2, 3))),
        bad("a snapshot of another entry", snapshots::NAME, names(at(1, 2))),
        bad(
            "a stale snapshot installed",
            snapshots::NAME,
            snapshots::check_install(Index(2), at(2, 2), true),
        ),
    ]
}

fn disks() -> Vec<Planted> {
    let group = GroupId(1);
    let mut disk = Durable::default();
    *disk.group_mut(group) = view(&[1, 1]);
    (disk.group_mut(group).term, disk.group_mut(group).vote) = (Term(1), Some(replica(2)));
    let says = |message: Message| {
        durability::check_raft(&disk, replica(1), Some(replica(2)), group, &message)
    };
    let shared = |index| Message::Appended { term: Term(1), matched: at(1, index) };
    let votes = |term| Message::Voted { term: Term(term), granted: true };
    let mut held = view(&[1, 1]);
    (held.term, held.vote) = (Term(1), Some(replica(2)));
    let mut forgetful = held.clone();
    forgetful.vote = None;
    let mut shorter = view(&[1]);
    (shorter.term, shorter.vote) = (held.term, held.vote);
    let told = Outcome::Unknown { reached: None };
    vec![
        good("an acknowledgement of what is durable", says(shared(2))),
        bad("an acknowledgement before the disk", durability::NAME, says(shared(3))),
        good("a durable vote leaves", says(votes(1))),
        bad("a vote before the disk", durability::NAME, says(votes(2))),
        good("nothing is promised", durability::check_reply(&disk, Default::default(), &told)),
        good("all is recovered", recovery::check(&disk, group, &held)),
        bad(
            "a vote forgotten in a crash",
            recovery::NAME,
            recovery::check(&disk, group, &forgetful),
        ),
        bad("an entry lost in a crash", recovery::NAME, recovery::check(&disk, group, &shorter)),
    ]
}
