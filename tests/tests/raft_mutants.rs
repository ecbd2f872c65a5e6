//! Every planted bug of Raft, with the shortest scenario that exposes it. Each scenario passes without its mutant and
//! breaks an assertion, here or in an oracle, with it. This proves that tests of the same kind elsewhere can fail.
//!
//! The active mutant is global to the process, so this file holds a single test.

use continuum_core::config::RaftConfig;
use continuum_core::id::{Index, Term};
use continuum_core::mark::instrument;
use continuum_core::raft::{
    Entry, Event, Message, Payload, Position, Reconfiguration, SnapshotHeader,
};
use continuum_tests::raft::{Envelope, Net, configuration, replica};

fn at(term: u64, index: u64) -> Position {
    Position { term: Term(term), index: Index(index) }
}

fn append(term: u64, prev: Position, commit: u64, terms: &[u64]) -> Message {
    let entry = |term: &u64| Entry { term: Term(*term), time_ms: 0, payload: Payload::Noop };
    let entries = terms.iter().map(entry).collect();
    Message::Append { term: Term(term), prev, commit: Index(commit), entries }
}

fn vote(term: u64, last: Position) -> Message {
    Message::Vote { term: Term(term), last, leadership_transfer: false }
}

fn received(from: u8, message: Message) -> Event {
    Event::Received { from: replica(from), message }
}

fn granted(answers: &[Message]) -> bool {
    matches!(answers, [Message::VoteReply { granted: true, .. }])
}

fn without(n: u8) -> impl Fn(&Envelope) -> bool {
    move |envelope| envelope.from != n && envelope.to != n
}

fn a_vote_waits_for_the_disk() {
    let mut net = Net::three(1);
    net.step(1, received(2, vote(1, at(0, 0))));
}

fn an_acknowledgement_waits_for_the_disk() {
    let mut net = Net::three(1);
    net.step(1, received(2, append(1, at(0, 0), 0, &[1])));
}

fn a_vote_is_in_the_record_of_its_term() {
    let mut net = Net::three(1);
    assert!(granted(&net.ask(2, 1, vote(1, at(0, 0)))));
}

fn a_vote_is_given_once() {
    let mut net = Net::three(1);
    assert!(granted(&net.ask(2, 1, vote(1, at(0, 0)))));
    assert!(!granted(&net.ask(3, 1, vote(1, at(0, 0)))));
}

fn a_longer_log_of_an_older_term_gets_no_vote() {
    let mut net = Net::three(1);
    net.preset(1, 5, &[1, 2]);
    assert!(!granted(&net.ask(2, 1, vote(6, at(1, 9)))));
}

fn two_isolated_candidates_do_not_win() {
    let mut net = Net::three(1);
    for n in [1, 2] {
        net.timeout(n);
        net.sync(n, 9);
    }
    assert!(net.leaders().is_empty());
}

fn an_old_entry_on_all_disks_is_not_committed() {
    let mut net = Net::three(1);
    net.preset(1, 2, &[1, 2]);
    net.timeout(1);
    net.settle_if(|envelope| !matches!(envelope.message, Message::Append { .. }));
    for n in [2, 3] {
        net.preset(n, 3, &[1, 2]);
        net.step(1, received(n, Message::AppendAck { term: Term(3), matched: at(2, 2) }));
    }
    assert_eq!(net.raft(1).commit(), Index(0));
}

fn a_leader_counts_its_own_disk_only_when_it_has_the_entry() {
    let mut net = Net::three(1);
    net.elect(1);
    net.propose(1, 1, "x");
    net.deliver(0);
    net.sync(2, 9);
    let answer = net.wire.iter().position(|envelope| envelope.to == 1).expect("replica 2 answers");
    net.deliver(answer);
    assert_eq!(net.raft(1).commit(), Index(1));
}

fn commit_stops_at_the_last_new_entry() {
    let mut net = Net::three(1);
    net.preset(1, 1, &[1, 1, 1]);
    net.ask(2, 1, append(2, at(1, 1), 9, &[1]));
    assert_eq!(net.raft(1).commit(), Index(2));
}

fn entries_need_the_one_before_them() {
    let mut net = Net::three(1);
    net.preset(1, 3, &[1, 2]);
    let answers = net.ask(2, 1, append(3, at(1, 2), 0, &[3]));
    assert!(matches!(answers[..], [Message::AppendRejected { .. }]));
}

fn an_overtaken_append_cuts_nothing() {
    let mut net = Net::three(1);
    net.ask(2, 1, append(1, at(0, 0), 0, &[1, 1, 1]));
    net.ask(2, 1, append(1, at(0, 0), 0, &[1]));
    assert_eq!(net.terms(1), [1, 1, 1]);
}

fn durable_bytes_prove_nothing_about_their_replacement() {
    let mut net = Net::three(1);
    net.step(1, received(2, append(1, at(0, 0), 0, &[1, 1])));
    net.step(1, received(3, append(2, at(1, 1), 0, &[2])));
    net.sync(1, 2);
    assert_eq!(net.raft(1).durable(), Index(1));
}

fn an_isolated_leader_confirms_no_read() {
    let mut net = Net::three(1);
    net.elect(1);
    net.step(1, Event::Read { ticket: 1000 });
    net.settle_if(without(1));
    assert_eq!(net.nodes[&1].reads, []);
}

fn a_new_leader_answers_no_read_before_its_first_entry() {
    let mut net = Net::three(1);
    net.timeout(1);
    let passes = |envelope: &Envelope| !matches!(envelope.message, Message::Append { .. });
    net.settle_if(passes);
    net.step(1, Event::Read { ticket: 1000 });
    net.settle_if(passes);
    assert_eq!(net.nodes[&1].reads, []);
}

fn a_later_term_deposes_a_leader() {
    let mut net = Net::three(1);
    net.elect(1);
    net.advance_one(3, 1000);
    net.timeout(2);
    net.settle_if(without(1));
    net.timeout(2);
    net.settle();
    assert_eq!(net.leaders(), [2]);
}

fn an_old_snapshot_is_not_installed() {
    let mut net = Net::three(1);
    net.elect(1);
    net.propose(1, 1, "x");
    net.settle();
    let snapshot = net.capture(1, 1 << 10);
    for _ in 0..2 {
        net.propose(1, 2, "y");
        net.settle();
    }
    let header = header_of(&snapshot);
    net.ask(1, 3, Message::SnapshotOffer { term: Term(1), header });
    let (position, data) = (snapshot.position, snapshot.chunks[0].clone());
    net.ask(1, 3, Message::SnapshotChunk { term: Term(1), position, offset: 0, data });
    assert_eq!(net.raft(3).last(), at(1, 4));
}

fn header_of(snapshot: &continuum_core::raft::Snapshot) -> SnapshotHeader {
    SnapshotHeader {
        position: snapshot.position,
        time_ms: snapshot.time_ms,
        configuration: snapshot.configuration.clone(),
        digest: snapshot.digest,
        length: snapshot.length(),
    }
}

/// Replica 1 leads, 3 is behind, and the leader offers it a snapshot of `chunks` chunks.
fn offered(chunks: usize) -> (Net, continuum_core::raft::Snapshot) {
    let mut net = Net::three(1);
    net.elect(1);
    net.propose(1, 1, "x");
    net.settle_if(without(3));
    let whole = net.capture(1, usize::MAX);
    let snapshot = net.capture(1, (whole.length() as usize).div_ceil(chunks));
    let header = header_of(&snapshot);
    net.ask(1, 3, Message::SnapshotOffer { term: Term(1), header });
    let (position, data) = (snapshot.position, snapshot.chunks[0].clone());
    net.wire.clear();
    net.step(3, received(1, Message::SnapshotChunk { term: Term(1), position, offset: 0, data }));
    (net, snapshot)
}

fn a_chunk_is_acknowledged_once_it_is_durable() {
    let (mut net, _) = offered(2);
    let acknowledged = |net: &Net| {
        let is_it =
            |e: &Envelope| matches!(e.message, Message::SnapshotAck { bytes: Some(1..), .. });
        net.wire.iter().any(is_it)
    };
    assert!(!acknowledged(&net));
    net.sync(3, usize::MAX);
    assert!(acknowledged(&net));
}

fn a_snapshot_is_installed_once_its_file_is_durable() {
    let (mut net, snapshot) = offered(1);
    assert_eq!(net.raft(3).base(), at(0, 0));
    net.sync(3, usize::MAX);
    assert_eq!(net.raft(3).base(), snapshot.position);
}

/// The bytes of a snapshot changed on their way, twice: the leader offers the next one an election timeout later.
fn what_changed_on_its_way_is_soon_sent_again() {
    let config = RaftConfig { retained_bytes_max: 0, ..RaftConfig::default() };
    let timeout = config.election_timeout_ms;
    let mut net = Net::new(1, &configuration(&[1, 2, 3], &[]), config);
    net.elect(1);
    for ticket in 0..9 {
        net.propose(1, ticket, "a command of some length");
        net.settle_if(without(3));
    }
    net.compact(1);
    let offer_within = |net: &mut Net, ms: u64| {
        for _ in 0..ms / 20 {
            net.advance_one(1, 20);
            net.answer_capture(1, usize::MAX);
            let is_heard = |envelope: &Envelope| {
                !matches!(
                    envelope.message,
                    Message::SnapshotOffer { .. } | Message::SnapshotChunk { .. }
                )
            };
            while let Some(heard) = net.wire.iter().position(is_heard) {
                net.deliver(heard);
                (1..=3).for_each(|n| net.sync(n, usize::MAX));
            }
            let offered = net.wire.iter().find_map(|envelope| match &envelope.message {
                Message::SnapshotOffer { header, .. } => Some(header.position),
                _ => None,
            });
            net.wire.clear();
            if offered.is_some() {
                return offered;
            }
        }
        None
    };
    for _ in 0..3 {
        let position = offer_within(&mut net, 3 * timeout).expect("an offer");
        let refused = Message::SnapshotRefused { term: Term(1), position, corrupt: true };
        net.step(1, received(3, refused));
    }
}

/// A snapshot with a right digest that no state machine restores is refused: nothing durable names it, and the replica
/// goes on with its log.
fn what_does_not_restore_is_not_recorded() {
    let mut net = Net::three(1);
    net.elect(1);
    net.propose(1, 1, "x");
    net.settle();
    let data = bytes::Bytes::from_static(&[0xff; 19]);
    let header = SnapshotHeader {
        position: at(1, 9),
        time_ms: 0,
        configuration: net.raft(3).configuration().clone(),
        digest: continuum_core::digest::Digest::of(&data),
        length: 19,
    };
    let offer = Message::SnapshotOffer { term: Term(1), header };
    net.ask(1, 3, offer.clone());
    let chunk = Message::SnapshotChunk { term: Term(1), position: at(1, 9), offset: 0, data };
    let refused = Message::SnapshotRefused { term: Term(1), position: at(1, 9), corrupt: false };
    assert_eq!(net.ask(1, 3, chunk), std::slice::from_ref(&refused));
    assert_eq!(net.ask(1, 3, offer), [refused], "it does not transfer the same one again");
    assert_eq!((net.raft(3).last(), net.raft(3).base()), (at(1, 2), at(0, 0)));
    net.propose(1, 2, "y");
    net.settle();
    net.crash(3, usize::MAX);
    net.restart(3);
    assert_eq!((net.raft(3).last(), net.raft(3).base()), (at(1, 3), at(0, 0)));
}

fn a_candidate_reports_its_last_entry_truthfully() {
    let mut net = Net::three(1);
    net.preset(1, 5, &[1, 2]);
    net.timeout(1);
    let said = net.wire.iter().find_map(|envelope| match envelope.message {
        Message::PreVote { last, .. } | Message::Vote { last, .. } => Some(last),
        _ => None,
    });
    assert_eq!(said, Some(at(2, 2)));
}

fn a_leader_never_truncates_its_log() {
    let mut net = Net::three(1);
    net.elect(1);
    net.propose(1, 1, "x");
    let conflict = Message::AppendRejected { term: Term(1), refused: Index(2), hint: at(1, 1) };
    net.step(1, received(2, conflict));
    assert_eq!(net.raft(1).last(), at(1, 2));
}

fn an_idle_leader_learns_what_a_learner_lost() {
    let mut net = Net::new(1, &configuration(&[1, 2, 3], &[4]), RaftConfig::default());
    net.elect(1);
    net.propose(1, 1, "x");
    net.settle();
    net.preset(4, 1, &[1]);
    for _ in 0..20 {
        net.advance_one(1, 50);
        net.settle();
    }
    assert_eq!(net.terms(4), net.terms(1));
}

fn an_append_stays_within_its_byte_limit() {
    let mut net = Net::three(1);
    net.elect(1);
    let long = "x".repeat(150 << 10);
    for ticket in 1..=3 {
        net.propose(1, ticket, &long);
        net.settle_if(without(3));
    }
    let conflict = Message::AppendRejected { term: Term(1), refused: Index(4), hint: at(1, 1) };
    net.step(1, received(3, conflict));
    let sent = net.wire.iter().filter_map(|envelope| match &envelope.message {
        Message::Append { entries, .. } => Some(entries.len()),
        _ => None,
    });
    assert_eq!(sent.max(), Some(1));
}

fn a_follower_never_lowers_its_commit_index() {
    let mut net = Net::three(1);
    net.ask(2, 1, append(1, at(0, 0), 2, &[1, 1]));
    net.ask(2, 1, Message::Heartbeat { term: Term(1), commit: Index(1), round: 1 });
    assert_eq!(net.raft(1).commit(), Index(2));
}

fn a_learner_does_not_vote() {
    let mut net = Net::three(1);
    net.elect(1);
    let change = Reconfiguration::AddLearner(replica(4));
    net.step(1, Event::Reconfigure { ticket: 9, change });
    let configuration = net.raft(1).configuration();
    assert_eq!((configuration.voters.len(), configuration.learners.len()), (3, 1));
}

fn an_overtaken_append_cuts_nothing_committed() {
    let mut net = Net::three(1);
    net.step(1, received(2, append(1, at(0, 0), 0, &[1, 1])));
    net.settle();
    net.step(1, received(2, append(1, at(1, 2), 2, &[])));
    net.step(1, received(2, append(1, at(0, 0), 2, &[1])));
    net.settle();
    net.crash(1, 0);
    net.restart(1);
    assert_eq!(net.raft(1).last(), at(1, 2));
}

fn leadership_is_not_transferred_back() {
    let mut net = Net::three(1);
    net.elect(1);
    for _ in 0..3 {
        net.step(net.leaders()[0], Event::TransferLeadership);
        net.settle();
    }
    assert_eq!(net.raft(net.leaders()[0]).term(), Term(3), "the last voter keeps the leadership");
}

fn a_restarted_voter_may_lead_again() {
    let mut net = Net::three(1);
    net.elect(1);
    for _ in 0..2 {
        net.step(net.leaders()[0], Event::TransferLeadership);
        net.settle();
    }
    let last = net.leaders()[0];
    net.step(last, Event::Unreachable { peer: replica(1).node });
    for _ in 0..2 {
        net.advance(100);
        net.settle();
    }
    net.step(last, Event::TransferLeadership);
    net.settle();
    assert_eq!(net.leaders(), [1]);
}

/// Three voters, the first of which leads, and a learner, which is the fourth.
fn with_a_learner() -> Net {
    let mut net = Net::three(1);
    net.elect(1);
    net.step(1, Event::Reconfigure { ticket: 9, change: Reconfiguration::AddLearner(replica(4)) });
    net.settle();
    net
}

fn a_learner_joins_beside_the_others() {
    let mut net = with_a_learner();
    net.step(1, Event::Reconfigure { ticket: 8, change: Reconfiguration::AddLearner(replica(5)) });
    net.settle();
    assert_eq!(net.raft(1).configuration().learners, [replica(4), replica(5)]);
}

fn a_cut_entry_takes_its_configuration_with_it() {
    let mut net = Net::three(1);
    net.elect(1);
    net.step(1, Event::Reconfigure { ticket: 9, change: Reconfiguration::AddLearner(replica(4)) });
    net.sync(1, usize::MAX);
    net.wire.clear();
    let position = net.raft(1).last();
    net.step(1, received(2, append(9, at(1, position.index.0 - 1), 0, &[9])));
    assert_eq!(net.raft(1).configuration().learners, []);
}

fn group_time_goes_on_under_a_new_leader() {
    let mut net = Net::three(1);
    net.elect(1);
    net.advance(100);
    net.propose(1, 1, "late");
    net.settle();
    net.elect(2);
}

fn an_isolated_leader_confirms_no_forwarded_read() {
    let mut net = Net::three(1);
    net.elect(1);
    net.step(1, received(2, Message::ReadIndex { id: 7 }));
    let confirmed = net.wire.iter().filter(|e| matches!(e.message, Message::ReadIndexReply { .. }));
    assert_eq!(confirmed.count(), 0);
}

fn leadership_is_taken_over() {
    let mut net = Net::three(1);
    net.elect(1);
    net.step(1, Event::TransferLeadership);
    net.settle();
    assert_ne!(net.leaders(), [1]);
}

fn a_learner_does_not_lead() {
    let mut net = with_a_learner();
    for message in [
        Message::Heartbeat { term: Term(9), commit: Index(0), round: 1 },
        append(9, at(0, 0), 0, &[9]),
        Message::TimeoutNow { term: Term(9), transfer_excluded: Vec::new() },
    ] {
        net.step(2, received(4, message));
        assert_eq!((net.raft(2).term(), net.raft(2).leader()), (Term(1), Some(replica(1))));
    }
}

fn a_learners_term_deposes_no_leader() {
    let mut net = with_a_learner();
    for message in [
        Message::StaleTerm { term: Term(1 << 62) },
        Message::HeartbeatAck { term: Term(9), round: 1 },
        Message::AppendAck { term: Term(9), matched: at(1, 1) },
    ] {
        net.step(1, received(4, message));
        assert_eq!((net.raft(1).term(), net.leaders()), (Term(1), vec![1]));
    }
}

fn a_majority_commits() {
    let mut net = Net::three(1);
    net.elect(1);
    net.crash(3, 0);
    net.propose(1, 1, "late");
    net.settle();
    assert_eq!(net.raft(1).commit(), net.raft(1).last().index);
}

fn an_isolated_voter_keeps_its_term() {
    let mut net = Net::three(1);
    net.elect(1);
    net.advance(5_000);
    net.step(3, Event::Tick);
    net.sync(3, usize::MAX);
    assert_eq!(net.raft(3).term(), Term(1));
}

fn an_idle_leader_keeps_its_office() {
    let mut net = Net::three(1);
    net.elect(1);
    for _ in 0..100 {
        net.advance(50);
        net.step(1, Event::Tick);
        net.settle();
    }
    assert_eq!((net.raft(1).term(), net.leaders()), (Term(1), vec![1]));
}

fn a_voter_moves_no_group_to_the_last_term() {
    let far = (1 << 32) + 1;
    for message in [
        Message::Heartbeat { term: Term(1 + far), commit: Index(0), round: 1 },
        append(1 + far, at(0, 0), 0, &[]),
        vote(1 + far, at(1 + far, 99)),
        Message::Vote { term: Term(1 << 62), last: at(9, 99), leadership_transfer: true },
        Message::TimeoutNow { term: Term(1 + far), transfer_excluded: Vec::new() },
        Message::StaleTerm { term: Term(1 + far) },
        Message::VoteReply { term: Term(1 + far), granted: false },
        Message::AppendAck { term: Term(u64::MAX), matched: at(1, 1) },
    ] {
        let mut net = Net::three(1);
        net.elect(1);
        let term = net.raft(1).term();
        for voter in [1, 2] {
            net.step(voter, received(3, message.clone()));
            assert_eq!(net.raft(voter).term(), term, "{message:?}");
        }
    }
    // A voter that was away for years of elections leads all the same.
    let mut net = Net::three(1);
    net.elect(1);
    let later = net.raft(2).term().0 + (1 << 32);
    net.step(2, received(3, append(later, at(0, 0), 0, &[])));
    assert_eq!(net.raft(2).term(), Term(later));
}

const SCENARIOS: &[(&str, fn())] = &[
    ("raft.ack.before_fsync", an_acknowledgement_waits_for_the_disk),
    ("raft.append.aba", durable_bytes_prove_nothing_about_their_replacement),
    ("raft.append.cuts_committed", an_overtaken_append_cuts_nothing_committed),
    ("raft.commit.old_term", an_old_entry_on_all_disks_is_not_committed),
    ("raft.commit.own_disk_ignored", a_leader_counts_its_own_disk_only_when_it_has_the_entry),
    ("raft.commit.unverified", commit_stops_at_the_last_new_entry),
    ("raft.transfer.hands_back", leadership_is_not_transferred_back),
    ("raft.match.skipped", entries_need_the_one_before_them),
    ("raft.quorum.off_by_one", two_isolated_candidates_do_not_win),
    ("raft.read.stale_round", an_isolated_leader_confirms_no_read),
    ("raft.read.forwarded_unconfirmed", an_isolated_leader_confirms_no_forwarded_read),
    ("raft.read.without_noop", a_new_leader_answers_no_read_before_its_first_entry),
    ("raft.snapshot.stale_installed", an_old_snapshot_is_not_installed),
    ("raft.term.bumped_by_heartbeat", a_later_term_deposes_a_leader),
    ("raft.truncate.stale", an_overtaken_append_cuts_nothing),
    ("raft.vote.forgotten", a_vote_is_in_the_record_of_its_term),
    ("raft.vote.index_only", a_longer_log_of_an_older_term_gets_no_vote),
    ("raft.vote.not_persisted", a_vote_waits_for_the_disk),
    ("raft.vote.twice", a_vote_is_given_once),
    ("raft.vote.boasts", a_candidate_reports_its_last_entry_truthfully),
    ("raft.conflict.unsaid", an_idle_leader_learns_what_a_learner_lost),
    ("raft.conflict.gives_way", a_leader_never_truncates_its_log),
    ("raft.append.unbounded", an_append_stays_within_its_byte_limit),
    ("raft.commit.goes_back", a_follower_never_lowers_its_commit_index),
    ("raft.membership.drops_learner", a_learner_joins_beside_the_others),
    ("raft.membership.survives_truncation", a_cut_entry_takes_its_configuration_with_it),
    ("raft.time.falls", group_time_goes_on_under_a_new_leader),
    ("raft.transfer.excludes_restarted", a_restarted_voter_may_lead_again),
    ("raft.transfer.ignored", leadership_is_taken_over),
    ("raft.membership.learner_votes", a_learner_does_not_vote),
    ("raft.leader.any", a_learner_does_not_lead),
    ("raft.snapshot.acked_before_durable", a_chunk_is_acknowledged_once_it_is_durable),
    ("raft.snapshot.named_before_durable", a_snapshot_is_installed_once_its_file_is_durable),
    ("raft.snapshot.rests_after_corruption", what_changed_on_its_way_is_soon_sent_again),
    ("raft.snapshot.recorded_unchecked", what_does_not_restore_is_not_recorded),
    ("raft.term.unbounded", a_voter_moves_no_group_to_the_last_term),
    ("raft.term.of_a_learner", a_learners_term_deposes_no_leader),
    ("raft.commit.waits_for_all", a_majority_commits),
    ("raft.election.no_pre_vote", an_isolated_voter_keeps_its_term),
    ("raft.quorum.idle_is_lost", an_idle_leader_keeps_its_office),
    ("raft.transfer.untold", leadership_is_taken_over),
];

#[test]
fn each_scenario_fails_with_its_mutant_and_passes_without() {
    let known =
        instrument::MUTANTS.iter().map(|(name, _)| *name).filter(|n| n.starts_with("raft."));
    assert!(
        known.eq(SCENARIOS.iter().map(|(name, _)| *name)),
        "every mutant has its scenario, in the order of the table"
    );
    continuum_tests::mutants::expose(SCENARIOS);
}
