//! Raft: logs, votes, leaders, commits, snapshots, disks.

use bytes::Bytes;
use continuum_core::api::Outcome;
use continuum_core::id::{
    GroupId, Index, NodeId, Replica, SnapshotFile, SnapshotId, StoreId, Term,
};
use continuum_core::raft::{self, Configuration, Entry, Message, Payload, Position};
use continuum_core::wal::Write;

use super::super::ledger::GroupLedger;
use super::super::{
    Watched, applied_commit_last, committed_entry_replaced, durability_at_send, election_safety,
    file_before_record, leader_append_only, leader_completeness, log_matching, monotone,
    one_configuration, one_vote_per_term, recovery, snapshot_of_committed, state_machine_safety,
    transfer_ends, vote_for_up_to_date_log,
};
use super::{Planted, bad, good};
use crate::env::durable::{Durable, LogView};

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
        committed_entry_replaced::check(
            &watched,
            &self::committed(committed),
            Index(prev),
            &entries(new),
        )
    };
    let leader = |prev, new: &[u64]| {
        let mut watched = Watched { view: view(&[1, 1]), ..Watched::default() };
        (watched.view.term, watched.leads) = (Term(1), Some(Term(1)));
        leader_append_only::check(&watched, Index(prev), &entries(new))
    };
    vec![
        good("the same log twice", appends(&[], 0, &entries(&[1, 2]))),
        bad("different content at one index and term", log_matching::NAME, appends(&[], 0, &other)),
        bad(
            "different predecessors of one entry",
            log_matching::NAME,
            appends(&[2], 1, &entries(&[2])),
        ),
        bad("a hole in a log", log_matching::NAME, appends(&[], 1, &entries(&[2]))),
        good("a committed entry written again", rewrites(&[1, 1], 0, &[1, 1])),
        bad(
            "a committed entry replaced",
            committed_entry_replaced::NAME,
            rewrites(&[1, 1], 1, &[2]),
        ),
        bad("a committed entry removed", committed_entry_replaced::NAME, rewrites(&[1, 1], 1, &[])),
        good("a leader appends", leader(2, &[1])),
        bad("a leader overwrites", leader_append_only::NAME, leader(1, &[2])),
        bad("a leader truncates", leader_append_only::NAME, leader(1, &[])),
    ]
}

fn votes() -> Vec<Planted> {
    let mut voted = LogView::default();
    (voted.term, voted.vote) = (Term(5), Some(replica(1)));
    let asks = |theirs| {
        vote_for_up_to_date_log::check(
            at(2, 5),
            Some(replica(1)),
            Some((GroupId(1), replica(1).node, theirs)),
        )
    };
    vec![
        good("a vote in a later term", one_vote_per_term::check(&voted, Term(6), Some(replica(2)))),
        bad(
            "two votes in a term",
            one_vote_per_term::NAME,
            one_vote_per_term::check(&voted, Term(5), Some(replica(2))),
        ),
        bad(
            "a vote withdrawn",
            one_vote_per_term::NAME,
            one_vote_per_term::check(&voted, Term(5), None),
        ),
        bad(
            "a term that goes back",
            one_vote_per_term::NAME,
            one_vote_per_term::check(&voted, Term(4), None),
        ),
        good("a vote for a longer log", asks(at(2, 6))),
        bad("a vote for a shorter log", vote_for_up_to_date_log::NAME, asks(at(2, 4))),
        bad("a vote for an older log", vote_for_up_to_date_log::NAME, asks(at(1, 9))),
    ]
}

fn leaders() -> Vec<Planted> {
    let mut ledger = GroupLedger::default();
    let mut leads = |node, term| election_safety::check_leader(&mut ledger, node, Term(term));
    let (first, split) = (leads(1, 3), leads(2, 3));
    let completes =
        |log: &[u64]| leader_completeness::check(&view(log), &committed(&[1, 2]), Term(3));
    let names = |voters: &[u8]| Configuration {
        voters: voters.iter().map(|node| replica(*node)).collect(),
        learners: Vec::new(),
    };
    let mut known = one_configuration::Known::default();
    let transfers = |target, excluded: &[u8]| {
        let transfer_excluded = excluded.iter().map(|n| replica(*n)).collect();
        let message = Message::TimeoutNow { term: Term(2), transfer_excluded };
        transfer_ends::check(replica(1), replica(target), &message)
    };
    let mut configures =
        |voters: &[u8]| one_configuration::check_voters(&mut known, &names(voters));
    vec![
        good("one leader", first),
        bad("two leaders of a term", election_safety::NAME, split),
        good("a leader that has all entries", completes(&[1, 2])),
        bad("a leader that lacks an entry", leader_completeness::NAME, completes(&[1])),
        bad("a leader that has another entry", leader_completeness::NAME, completes(&[1, 1])),
        good("first voters", configures(&[1, 2, 3])),
        bad("other voters", one_configuration::NAME, configures(&[1, 2, 3, 4])),
        bad("no voters", one_configuration::NAME, configures(&[])),
        good("leadership transferred", transfers(3, &[1, 2])),
        bad("leadership transferred back", transfer_ends::NAME, transfers(2, &[1, 2])),
    ]
}

fn commits() -> Vec<Planted> {
    let watched = Watched { term: Term(2), commit: Index(5), ..Watched::default() };
    let moves = |term, commit| monotone::check_progress(&watched, Term(term), Index(commit));
    let applies = |log: &[u64]| {
        let watched = Watched { view: view(log), ..Watched::default() };
        state_machine_safety::check_applied(&watched, &mut committed(&[1, 2]), Index(2))
    };
    let names = |position| snapshot_of_committed::check(&committed(&[1, 2]), position);
    vec![
        good("a commit index that advances", moves(2, 6)),
        bad("a commit index that goes back", monotone::NAME, moves(2, 4)),
        bad("a reported term that goes back", monotone::NAME, moves(1, 6)),
        bad(
            "an applied index that goes back",
            monotone::NAME,
            monotone::check_applied(Index(3), Index(2)),
        ),
        good("applied, committed, last", applied_commit_last::check(Index(1), Index(2), Index(3))),
        bad(
            "applied before committed",
            applied_commit_last::NAME,
            applied_commit_last::check(Index(3), Index(2), Index(3)),
        ),
        bad(
            "committed beyond the log",
            applied_commit_last::NAME,
            applied_commit_last::check(Index(1), Index(4), Index(3)),
        ),
        good("the committed entry is applied", applies(&[1, 2])),
        bad("another entry is applied", state_machine_safety::NAME, applies(&[1, 3])),
        good("a snapshot of committed entries", names(at(2, 2))),
        bad(
            "a snapshot beyond the committed entries",
            snapshot_of_committed::NAME,
            names(at(2, 3)),
        ),
        bad("a snapshot of another entry", snapshot_of_committed::NAME, names(at(1, 2))),
        bad(
            "a stale snapshot installed",
            snapshot_of_committed::NAME,
            snapshot_of_committed::check_install(Index(2), at(2, 2), true),
        ),
    ]
}

fn disks() -> Vec<Planted> {
    let group = GroupId(1);
    let mut disk = Durable::default();
    *disk.group_mut(group) = view(&[1, 1]);
    (disk.group_mut(group).term, disk.group_mut(group).vote) = (Term(1), Some(replica(2)));
    let says = |message: Message| {
        durability_at_send::check_raft(&disk, replica(1), Some(replica(2)), group, &message)
    };
    let appended = |index| Message::AppendAck { term: Term(1), matched: at(1, index) };
    let votes = |term| Message::VoteReply { term: Term(term), granted: true };
    let mut held = view(&[1, 1]);
    (held.term, held.vote) = (Term(1), Some(replica(2)));
    let mut forgetful = held.clone();
    forgetful.vote = None;
    let mut shorter = view(&[1]);
    (shorter.term, shorter.vote) = (held.term, held.vote);
    let told = Outcome::Unknown { reached: None };
    let mut deleted = disk.clone();
    deleted.apply(&Write::Group { group, write: raft::Write::Forget });
    let said_before = |message: Message| {
        durability_at_send::check_raft(&deleted, replica(1), Some(replica(2)), group, &message)
    };
    let file = SnapshotFile::of(SnapshotId(7), &Bytes::from_static(b"state"));
    let names = |held: Option<u64>| {
        let mut disk = Durable::default();
        held.into_iter().for_each(|bytes| disk.hold_file(file.id, bytes));
        file_before_record::check(&disk, &file)
    };
    vec![
        good("a durable file named", names(Some(5))),
        bad(
            "a file named before its last piece is durable",
            file_before_record::NAME,
            names(Some(4)),
        ),
        bad("a file named that is not there", file_before_record::NAME, names(None)),
        good("an entry acknowledged before its group was deleted", said_before(appended(2))),
        bad(
            "an entry acknowledged that the deleted group never held",
            durability_at_send::NAME,
            said_before(appended(3)),
        ),
        good("a durable entry acknowledged", says(appended(2))),
        bad(
            "an entry acknowledged before it is durable",
            durability_at_send::NAME,
            says(appended(3)),
        ),
        good("a durable vote leaves", says(votes(1))),
        bad("a vote before it is durable", durability_at_send::NAME, says(votes(2))),
        good(
            "a reply that promises nothing",
            durability_at_send::check_reply(&disk, Default::default(), &told),
        ),
        good("all is recovered", recovery::check(&disk, group, &held)),
        bad(
            "a vote forgotten in a crash",
            recovery::NAME,
            recovery::check(&disk, group, &forgetful),
        ),
        bad("an entry lost in a crash", recovery::NAME, recovery::check(&disk, group, &shorter)),
    ]
}
