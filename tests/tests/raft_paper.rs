//! The Raft paper, one test for each sentence of figure 2 and sections 5.1 to 5.4.3. The comment above a test gives the
//! sentence in our words. `raft_thesis.rs` covers what the thesis adds.

use bytes::Bytes;
use continuum_core::id::{Index, Role, Term};
use continuum_core::machine::Machine as _;
use continuum_core::raft::{Entry, Message, Payload, Position};
use continuum_tests::raft::{Net, replica};

fn at(term: u64, index: u64) -> Position {
    Position { term: Term(term), index: Index(index) }
}

fn entries(terms: &[u64]) -> Vec<Entry> {
    let entry = |term: &u64| Entry { term: Term(*term), time_ms: 0, payload: Payload::Noop };
    terms.iter().map(entry).collect()
}

fn append(term: u64, prev: Position, commit: u64, terms: &[u64]) -> Message {
    Message::Append { term: Term(term), prev, commit: Index(commit), entries: entries(terms) }
}

fn vote(term: u64, last: Position) -> Message {
    Message::Vote { term: Term(term), last, leadership_transfer: false }
}

fn voted(term: u64, granted: bool) -> Vec<Message> {
    vec![Message::VoteReply { term: Term(term), granted }]
}

fn appended(term: u64, matched: Position) -> Vec<Message> {
    vec![Message::AppendAck { term: Term(term), matched }]
}

/// 5.1: a leader that sees a later term in an answer becomes a follower of that term.
#[test]
fn a_later_term_in_an_answer_deposes() {
    let mut net = Net::three(1);
    net.elect(1);
    net.ask(2, 1, Message::StaleTerm { term: Term(9) });
    assert_eq!((net.raft(1).role(), net.raft(1).term()), (Role::Follower, Term(9)));
}

/// 5.1: a follower that sees a later term in a request enters that term and has not voted in it.
#[test]
fn a_later_term_in_a_request_is_entered() {
    let mut net = Net::three(1);
    net.ask(2, 1, append(9, at(0, 0), 0, &[]));
    assert_eq!((net.raft(1).term(), net.raft(1).vote()), (Term(9), None));
    assert_eq!(net.nodes[&1].disk.durable().term, Term(9));
}

/// Figure 2, AppendEntries 1 (5.1): an append of an earlier term is answered with the current one, and changes nothing.
#[test]
fn an_append_of_an_earlier_term_is_refused() {
    let mut net = Net::three(1);
    net.preset(1, 5, &[1]);
    assert_eq!(net.ask(2, 1, append(4, at(1, 1), 1, &[4])), [Message::StaleTerm { term: Term(5) }]);
    assert_eq!((net.terms(1), net.raft(1).commit()), (vec![1], Index(0)));
}

/// Figure 2, RequestVote 1 (5.1): a vote of an earlier term is denied.
#[test]
fn a_vote_of_an_earlier_term_is_denied() {
    let mut net = Net::three(1);
    net.preset(1, 5, &[]);
    assert_eq!(net.ask(2, 1, vote(4, at(3, 9))), voted(5, false));
}

/// Figure 2, RequestVote 2 (5.2): a vote goes to the first candidate with a good log, and again to the same candidate.
#[test]
fn a_vote_is_given_first_come_first_served() {
    let mut net = Net::three(1);
    assert_eq!(net.ask(2, 1, vote(1, at(0, 0))), voted(1, true));
    assert_eq!(net.ask(3, 1, vote(1, at(0, 0))), voted(1, false));
    assert_eq!(net.ask(2, 1, vote(1, at(0, 0))), voted(1, true));
}

/// 5.2: a server gives at most one vote in a term, even if it crashes in between.
#[test]
fn a_vote_survives_a_crash() {
    let mut net = Net::three(1);
    assert_eq!(net.ask(2, 1, vote(1, at(0, 0))), voted(1, true));
    net.crash(1, 0);
    net.restart(1);
    assert_eq!(net.raft(1).vote(), Some(replica(2)));
    assert_eq!(net.ask(3, 1, vote(1, at(0, 0))), voted(1, false));
}

/// Figure 2, state: persistent state is durable before an answer leaves. A crash before that loses the answer too.
#[test]
fn no_promise_leaves_before_the_disk_has_it() {
    let mut net = Net::three(1);
    let message = vote(1, at(0, 0));
    net.step(1, continuum_core::raft::Event::Received { from: replica(2), message });
    assert!(net.wire.is_empty(), "the vote waits");
    net.crash(1, 0);
    net.restart(1);
    assert_eq!((net.raft(1).vote(), net.raft(1).term()), (None, Term(0)));
    assert_eq!(net.ask(3, 1, vote(1, at(0, 0))), voted(1, true));
}

/// 5.4.1: a voter denies its vote to a log that is less up to date than its own: first by last term, then by length.
#[test]
fn a_vote_needs_a_log_as_up_to_date() {
    for (mine, theirs, granted) in [
        (&[1, 1][..], at(1, 2), true),
        (&[1, 1], at(1, 1), false),
        (&[1, 1], at(1, 3), true),
        (&[1, 2], at(1, 9), false),
        (&[1, 1, 1], at(2, 1), true),
        (&[], at(0, 0), true),
    ] {
        let mut net = Net::three(1);
        net.preset(1, 5, mine);
        assert_eq!(
            net.ask(2, 1, vote(6, theirs)),
            voted(6, granted),
            "{mine:?} against {theirs:?}"
        );
    }
}

/// Figure 2, AppendEntries 2 (5.3): a follower refuses entries if it lacks the entry before them.
#[test]
fn entries_need_the_one_before_them() {
    let mut net = Net::three(1);
    net.preset(1, 2, &[1, 2]);
    for (prev, hint) in [(at(2, 5), at(2, 2)), (at(1, 2), at(1, 1))] {
        let conflict = Message::AppendRejected { term: Term(2), refused: prev.index, hint };
        assert_eq!(net.ask(2, 1, append(2, prev, 0, &[2])), [conflict]);
    }
    assert_eq!(net.terms(1), [1, 2]);
}

/// Figure 2, AppendEntries 3 (5.3): a follower removes a conflicting entry and all entries after it.
#[test]
fn a_conflicting_entry_is_removed_with_all_after_it() {
    let mut net = Net::three(1);
    net.preset(1, 2, &[1, 2, 2, 2]);
    assert_eq!(net.ask(2, 1, append(3, at(1, 1), 0, &[3])), appended(3, at(3, 2)));
    assert_eq!(net.terms(1), [1, 3]);
    net.crash(1, 0);
    net.restart(1);
    assert_eq!(net.terms(1), [1, 3]);
}

/// Figure 2, AppendEntries 3 and 4 (5.3): only a conflict truncates the log; a late append does not.
#[test]
fn an_overtaken_append_truncates_nothing() {
    let mut net = Net::three(1);
    assert_eq!(net.ask(2, 1, append(1, at(0, 0), 0, &[1, 1, 1])), appended(1, at(1, 3)));
    assert_eq!(net.ask(2, 1, append(1, at(0, 0), 0, &[1])), appended(1, at(1, 1)));
    assert_eq!(net.ask(2, 1, append(1, at(1, 2), 0, &[])), appended(1, at(1, 2)));
    assert_eq!(net.terms(1), [1, 1, 1]);
}

/// Figure 2, AppendEntries 4: entries that are already in the log are not appended again.
#[test]
fn a_repeated_append_changes_nothing() {
    let mut net = Net::three(1);
    for _ in 0..2 {
        assert_eq!(net.ask(2, 1, append(1, at(0, 0), 0, &[1, 1])), appended(1, at(1, 2)));
    }
    assert_eq!(net.ask(2, 1, append(1, at(1, 1), 0, &[1, 1])), appended(1, at(1, 3)));
    assert_eq!(net.terms(1), [1, 1, 1]);
}

/// Figure 2, AppendEntries 5: the commit index follows the leader's, but not past the last entry of the append. Later
/// entries in the follower's log are of unknown origin.
#[test]
fn commit_stops_at_the_last_new_entry() {
    let mut net = Net::three(1);
    net.preset(1, 1, &[1, 1, 1]);
    net.ask(2, 1, append(2, at(1, 1), 9, &[1]));
    assert_eq!(net.raft(1).commit(), Index(2));
}

/// Figure 2, followers (5.2): a follower that hears no leader for an election timeout starts an election.
#[test]
fn a_silent_leader_is_replaced() {
    let mut net = Net::three(1);
    assert_eq!(net.raft(1).role(), Role::Follower);
    net.timeout(1);
    assert_eq!(net.raft(1).role(), Role::PreCandidate);
}

/// Figure 2, followers (5.2): a heartbeat postpones the election.
#[test]
fn a_heartbeat_postpones_the_election() {
    let mut net = Net::three(1);
    for _ in 0..20 {
        net.advance_one(1, 400);
        net.ask(2, 1, Message::Heartbeat { term: Term(1), commit: Index(0), round: 1 });
        assert_eq!(net.raft(1).role(), Role::Follower);
    }
}

/// Figure 2, candidates (5.2): a candidate enters the next term, votes for itself, and asks all others.
#[test]
fn a_candidate_votes_for_itself_and_asks_the_others() {
    let mut net = Net::three(1);
    net.timeout(1);
    net.ask(2, 1, Message::PreVoteReply { term: Term(1), granted: true });
    let raft = net.raft(1);
    assert_eq!(
        (raft.role(), raft.term(), raft.vote()),
        (Role::Candidate, Term(1), Some(replica(1)))
    );
    let asked: Vec<u8> = net.wire.iter().map(|envelope| envelope.to).collect();
    assert_eq!(asked, [2, 3]);
    assert!(net.wire.iter().all(|envelope| envelope.message == vote(1, at(0, 0))));
}

/// 5.2 with 3.8 of the thesis: a candidate requests no vote before its own vote is durable.
#[test]
fn a_candidate_requests_votes_once_its_own_is_durable() {
    let mut net = Net::three(1);
    net.timeout(1);
    net.wire.clear();
    let message = Message::PreVoteReply { term: Term(1), granted: true };
    net.step(1, continuum_core::raft::Event::Received { from: replica(2), message });
    assert!(net.wire.is_empty());
    net.sync(1, 9);
    assert_eq!(net.wire.len(), 2);
}

/// Figure 2, candidates (5.2): a candidate becomes leader with a majority of the votes, and not with fewer.
#[test]
fn a_majority_of_votes_makes_a_leader() {
    let mut net = Net::new(
        1,
        &continuum_tests::raft::configuration(&[1, 2, 3, 4, 5], &[]),
        continuum_core::config::RaftConfig::default(),
    );
    net.timeout(1);
    for voter in [2, 3] {
        net.ask(voter, 1, Message::PreVoteReply { term: Term(1), granted: true });
    }
    net.ask(2, 1, voted(1, true).remove(0));
    net.ask(2, 1, voted(1, true).remove(0));
    assert_eq!(net.raft(1).role(), Role::Candidate, "repeated votes of one voter count once");
    net.ask(3, 1, voted(1, true).remove(0));
    assert_eq!(net.raft(1).role(), Role::Leader);
}

/// Figure 2, candidates (5.2): a candidate that receives an append from a leader of its term becomes a follower.
#[test]
fn a_candidate_follows_a_leader_of_its_term() {
    let mut net = Net::three(1);
    net.timeout(1);
    net.ask(2, 1, Message::PreVoteReply { term: Term(1), granted: true });
    net.ask(3, 1, append(1, at(0, 0), 0, &[1]));
    assert_eq!((net.raft(1).role(), net.raft(1).leader()), (Role::Follower, Some(replica(3))));
}

/// Figure 2, candidates (5.2): a candidate whose timeout passes again starts another election.
#[test]
fn a_candidate_that_waits_too_long_starts_over() {
    let mut net = Net::three(1);
    net.timeout(1);
    net.ask(2, 1, Message::PreVoteReply { term: Term(1), granted: true });
    net.timeout(1);
    net.ask(2, 1, Message::PreVoteReply { term: Term(2), granted: true });
    assert_eq!((net.raft(1).role(), net.raft(1).term()), (Role::Candidate, Term(2)));
}

/// 5.2: election timeouts are drawn from an interval, so that split votes are rare and soon resolved.
#[test]
fn election_timeouts_are_spread_over_their_interval() {
    let timeouts: Vec<u64> = (0..64)
        .map(|seed| Net::three(seed).raft(1).deadline().expect("a voter has a timer").as_millis())
        .collect();
    assert!(timeouts.iter().all(|ms| (500..=1000).contains(ms)), "{timeouts:?}");
    assert!(timeouts.iter().any(|ms| *ms < 600) && timeouts.iter().any(|ms| *ms > 900));
}

/// Figure 2, leaders (5.2): a leader sends appends at once, and heartbeats before any election timeout.
#[test]
fn a_leader_announces_itself() {
    let mut net = Net::three(1);
    net.timeout(1);
    net.ask(2, 1, Message::PreVoteReply { term: Term(1), granted: true });
    net.wire.clear();
    net.step(
        1,
        continuum_core::raft::Event::Received {
            from: replica(2),
            message: voted(1, true).remove(0),
        },
    );
    assert_eq!(net.wire.iter().map(|envelope| envelope.to).collect::<Vec<_>>(), [2, 3]);
    net.wire.clear();
    net.timeout(1);
    assert_eq!(net.wire.len(), 2);
    assert!(matches!(net.wire[0].message, Message::Heartbeat { .. }));
}

/// Figure 2, leaders (5.3): a leader appends a command, replicates it, and answers once it is applied.
#[test]
fn a_command_is_committed_by_a_majority() {
    let mut net = Net::three(1);
    net.elect(1);
    net.propose(1, 7, "x");
    assert_eq!(net.nodes[&1].proposed, [(7, Ok(at(1, 2)))]);
    assert_eq!(net.raft(1).commit(), Index(1));
    net.settle_if(|envelope| envelope.from != 3);
    assert_eq!(net.nodes[&1].state, [Bytes::from_static(b"x")]);
}

/// 5.3: a leader's own disk is one voter among others: two followers commit without it.
#[test]
fn the_leaders_disk_is_one_voter_among_others() {
    let mut net = Net::three(1);
    net.elect(1);
    net.propose(1, 7, "x");
    while !net.wire.is_empty() {
        net.deliver(0);
        net.sync(2, 9);
        net.sync(3, 9);
    }
    assert_eq!((net.raft(1).commit(), net.raft(1).durable()), (Index(2), Index(1)));
}

/// 5.3, figure 7: a follower with missing or extra entries ends with the leader's log.
#[test]
fn followers_of_figure_7_end_with_the_leaders_log() {
    let leader = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    let followers: [&[u64]; 6] = [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    for follower in followers {
        let mut net = Net::three(1);
        net.preset(1, 7, &leader);
        net.preset(2, 7, follower);
        net.preset(3, 7, &leader[..1]);
        // The other five vote for the leader of term 8, even if this follower's log is longer.
        net.elect(1);
        let expected: Vec<u64> = leader.iter().copied().chain([8]).collect();
        assert_eq!(net.terms(2), expected, "{follower:?}");
    }
}

/// 5.3: a leader resolves a conflict one term at a time, not one entry at a time.
#[test]
fn a_conflict_is_resolved_in_few_messages() {
    let mut net = Net::three(1);
    net.preset(1, 3, &[[1; 5].as_slice(), &[3; 50]].concat());
    net.preset(2, 2, &[[1; 5].as_slice(), &[2; 60]].concat());
    net.preset(3, 3, &[1]);
    net.elect(1);
    let conflicts = net.lines.iter().filter(|line| line.contains("2 -> 1  AppendRejected")).count();
    assert_eq!(conflicts, 1);
    assert_eq!(net.terms(2), net.terms(1));
}

/// 5.3: a leader only appends to its own log, even if another replica claims to lead its term.
#[test]
fn a_leader_only_appends() {
    let mut net = Net::three(1);
    net.elect(1);
    net.ask(2, 1, append(1, at(0, 0), 0, &[]));
    assert_eq!((net.raft(1).role(), net.terms(1)), (Role::Leader, vec![1]));
    assert_eq!(net.nodes[&1].rejected.len(), 1);
}

/// 5.4.2, figure 8: counting replicas does not commit an entry of an older term; committing a newer entry does.
#[test]
fn only_a_newer_entry_commits_an_older_one() {
    let mut net = Net::three(1);
    net.preset(1, 2, &[1, 2]);
    net.timeout(1);
    net.settle_if(|envelope| !matches!(envelope.message, Message::Append { .. }));
    assert_eq!((net.raft(1).role(), net.terms(1)), (Role::Leader, vec![1, 2, 3]));
    net.ask(2, 1, appended(3, at(2, 2)).remove(0));
    net.ask(3, 1, appended(3, at(2, 2)).remove(0));
    assert_eq!(
        net.raft(1).commit(),
        Index(0),
        "the entry of term 2 is on all disks and not committed"
    );
    net.preset(2, 3, &[1, 2, 3]);
    net.ask(2, 1, appended(3, at(3, 3)).remove(0));
    assert_eq!(net.raft(1).commit(), Index(3));
}

/// 5.4.3: a candidate that lacks a committed entry cannot win, because a majority has that entry.
#[test]
fn a_candidate_without_a_committed_entry_cannot_win() {
    let mut net = Net::three(1);
    net.elect(1);
    net.propose(1, 7, "x");
    net.settle_if(|envelope| envelope.to != 3 && envelope.from != 3);
    net.crash(1, 0);
    net.advance_one(2, 1000);
    for _ in 0..5 {
        net.timeout(3);
        net.settle_if(|envelope| envelope.to != 1);
        assert_ne!(net.raft(3).role(), Role::Leader);
    }
}

/// 5.4.1 with asynchronous disks: a durable write proves nothing about the entry that replaced its entry. An entry of
/// term 1 is written, then one of term 2 replaces it at the same index, and only the first write becomes durable.
#[test]
fn a_durable_write_proves_nothing_about_its_replacement() {
    let mut net = Net::three(1);
    let event =
        |from, message| continuum_core::raft::Event::Received { from: replica(from), message };
    net.step(1, event(2, append(1, at(0, 0), 0, &[1, 1])));
    net.step(1, event(3, append(2, at(1, 1), 0, &[2])));
    // Term 1 and its entry are durable; term 2 and its entry are not.
    net.sync(1, 2);
    assert_eq!(net.raft(1).durable(), Index(1));
    net.sync(1, 9);
    assert_eq!(net.raft(1).durable(), Index(2));
}
