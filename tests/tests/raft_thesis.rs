//! Additions of Ongaro's thesis and of practice to the Raft paper, one test for each sentence: pre-vote (9.6),
//! check-quorum, reads (6.4), leadership transfer (3.10), learners (4.2.1), snapshots (chapter 5). A number with #
//! names the etcd issue that reported the bug.

use bytes::Bytes;
use continuum_core::config::RaftConfig;
use continuum_core::digest::Digest;
use continuum_core::id::{GroupId, Index, Role, Term};
use continuum_core::machine::{Machine as _, Now, Outbox};
use continuum_core::raft::{
    Action, Entry, Event, Message, Payload, Position, Raft, Reconfiguration, RefusalReason,
    Restored, SnapshotHeader,
};
use continuum_core::seed::Seed;
use continuum_core::time::{Instant, WallTime};
use continuum_tests::raft::{Envelope, Net, configuration, replica};

fn at(term: u64, index: u64) -> Position {
    Position { term: Term(term), index: Index(index) }
}

fn received(from: u8, message: Message) -> Event {
    Event::Received { from: replica(from), message }
}

fn without(n: u8) -> impl Fn(&Envelope) -> bool {
    move |envelope| envelope.from != n && envelope.to != n
}

fn pre_vote(term: u64, last: Position) -> Message {
    Message::PreVote { term: Term(term), last }
}

/// 9.6: an isolated server does not raise its term, however often it times out.
#[test]
fn an_isolated_server_keeps_its_term() {
    let mut net = Net::three(1);
    net.elect(1);
    for _ in 0..10 {
        net.timeout(3);
        net.wire.clear();
    }
    assert_eq!((net.raft(3).role(), net.raft(3).term()), (Role::PreCandidate, Term(1)));
}

/// 9.6: when the isolated server is back, it follows the present leader.
#[test]
fn a_returning_server_deposes_no_leader() {
    let mut net = Net::three(1);
    net.elect(1);
    net.timeout(3);
    net.settle();
    assert_eq!((net.leaders(), net.raft(1).term()), (vec![1], Term(1)));
    net.timeout(1);
    net.settle();
    assert_eq!((net.raft(3).role(), net.raft(3).leader()), (Role::Follower, Some(replica(1))));
}

/// 9.6: a voter without a leader grants a pre-vote for a later term to a log at least as up to date as its own. The
/// grant changes nothing.
#[test]
fn a_pre_vote_is_granted_as_a_vote_would_be() {
    for (term, last, granted) in
        [(6, at(1, 2), true), (5, at(1, 2), false), (6, at(1, 1), false), (9, at(2, 1), true)]
    {
        let mut net = Net::three(1);
        net.preset(1, 5, &[1, 1]);
        let answer = Term(if granted { term } else { 5 });
        let expected = Message::PreVoteReply { term: answer, granted };
        assert_eq!(net.ask(2, 1, pre_vote(term, last)), [expected], "{term} {last:?}");
        assert_eq!((net.raft(1).term(), net.raft(1).vote()), (Term(5), None));
    }
}

/// 9.6 with 4.2.3: a voter that heard from a leader within an election timeout grants no pre-vote and ignores vote
/// requests of later terms.
#[test]
fn a_fresh_leader_is_protected() {
    let mut net = Net::three(1);
    net.elect(1);
    let denied = Message::PreVoteReply { term: Term(1), granted: false };
    assert_eq!(net.ask(3, 2, pre_vote(2, at(9, 9))), [denied]);
    let vote = Message::Vote { term: Term(7), last: at(9, 9), leadership_transfer: false };
    assert_eq!(net.ask(3, 2, vote.clone()), []);
    assert_eq!(net.ask(3, 1, vote), []);
    assert_eq!((net.raft(1).term(), net.raft(2).term()), (Term(1), Term(1)));
}

/// #8334: a candidate that is denied by a later term enters that term, so that it is not denied forever.
#[test]
fn a_candidate_enters_the_later_term_of_a_denial() {
    let mut net = Net::three(1);
    net.preset(2, 6, &[]);
    net.timeout(1);
    net.settle_if(without(3));
    assert_eq!(net.raft(1).term(), Term(6));
    net.timeout(1);
    net.settle_if(without(3));
    assert_eq!((net.raft(1).role(), net.raft(1).term()), (Role::Leader, Term(7)));
}

/// 6.2: a leader that reaches no majority for an election timeout steps down.
#[test]
fn a_leader_without_a_majority_steps_down() {
    let mut net = Net::three(1);
    net.elect(1);
    for _ in 0..5 {
        net.timeout(1);
        net.wire.clear();
    }
    assert_eq!((net.raft(1).role(), net.raft(1).leader()), (Role::Follower, None));
}

/// 6.2: the leader and one of two followers are a majority.
#[test]
fn a_leader_with_a_majority_stays() {
    let mut net = Net::three(1);
    net.elect(1);
    for _ in 0..60 {
        net.timeout(1);
        net.settle_if(without(3));
    }
    assert_eq!(net.raft(1).role(), Role::Leader);
}

/// 4.2.3: vote requests and later terms of a removed or foreign server are ignored.
#[test]
fn strangers_depose_no_leader() {
    let mut net = Net::three(1);
    net.preset(1, 5, &[1, 1]);
    for message in [
        pre_vote(9, at(1, 1)),
        Message::Vote { term: Term(9), last: at(1, 1), leadership_transfer: true },
        Message::StaleTerm { term: Term(9) },
        Message::VoteReply { term: Term(9), granted: true },
    ] {
        assert_eq!(net.ask(77, 1, message), []);
        assert_eq!(net.raft(1).term(), Term(5));
    }
    assert_eq!(net.nodes[&1].rejected.len(), 4);
}

/// #10998: a replica that does not know that it is a voter, or does not know the candidate, still votes if the
/// candidate's log is longer.
#[test]
fn a_vote_for_an_unknown_candidate_depends_on_its_log() {
    let mut net = Net::three(1);
    net.add(4);
    let vote = Message::Vote { term: Term(3), last: at(2, 5), leadership_transfer: false };
    assert_eq!(net.ask(5, 4, vote), [Message::VoteReply { term: Term(3), granted: true }]);
    assert_eq!(net.raft(4).role(), Role::Learner);
}

/// 6.4: a leader answers no read before it has committed an entry of its own term.
#[test]
fn no_read_before_the_first_entry_is_committed() {
    let mut net = Net::three(1);
    net.timeout(1);
    net.settle_if(|envelope| !matches!(envelope.message, Message::Append { .. }));
    assert_eq!((net.raft(1).role(), net.raft(1).commit()), (Role::Leader, Index(0)));
    net.step(1, Event::Read { ticket: 1000 });
    net.settle_if(|envelope| !matches!(envelope.message, Message::Append { .. }));
    assert_eq!(net.nodes[&1].reads, []);
    net.timeout(1);
    net.settle();
    net.timeout(1);
    net.settle();
    assert_eq!(net.nodes[&1].reads, [(1000, Ok(Index(1)))]);
}

/// 6.4: before it answers a read, the leader exchanges heartbeats with a majority. Their round began after the read.
#[test]
fn a_read_needs_a_round_that_began_after_it() {
    let mut net = Net::three(1);
    net.elect(1);
    net.timeout(1);
    let late = net.wire.clone();
    net.wire.clear();
    net.step(1, Event::Read { ticket: 1000 });
    net.wire.clear();
    let answers = |net: &mut Net, round: u64| {
        for from in [2, 3] {
            let seen = Message::HeartbeatAck { term: Term(1), round };
            net.step(1, received(from, seen.clone()));
            net.step(1, received(from, seen));
        }
    };
    let Message::Heartbeat { round, .. } = late[0].message else { panic!("a heartbeat") };
    answers(&mut net, round);
    assert_eq!(
        net.nodes[&1].reads,
        [],
        "late and repeated answers to an earlier round confirm nothing"
    );
    answers(&mut net, round + 1);
    assert_eq!(net.nodes[&1].reads, [(1000, Ok(Index(1)))]);
}

/// 6.4: one round confirms all reads that wait.
#[test]
fn one_round_confirms_all_waiting_reads() {
    let mut net = Net::three(1);
    net.elect(1);
    for ticket in 1000..1100 {
        net.step(1, Event::Read { ticket });
    }
    net.lines.clear();
    net.settle();
    assert_eq!(net.nodes[&1].reads.len(), 100);
    let rounds = net.lines.iter().filter(|line| line.contains("1 -> 2  Heartbeat")).count();
    assert_eq!(rounds, 1, "the first read started a round; one more round serves all others");
}

/// 6.4: a follower asks the leader for an index, applies up to it, and serves the read itself. A learner does the same.
#[test]
fn followers_and_learners_serve_reads() {
    let mut net = Net::new(1, &configuration(&[1, 2, 3], &[4]), RaftConfig::default());
    net.elect(1);
    net.propose(1, 1, "x");
    net.settle();
    for reader in [2, 4] {
        net.step(reader, Event::Read { ticket: 1000 });
        net.settle();
        assert_eq!(net.nodes[&reader].reads, [(1000, Ok(Index(2)))]);
        assert_eq!(
            net.raft(reader).commit(),
            Index(2),
            "the leader reports the commit at once, before the next heartbeat"
        );
    }
}

/// 6.4: a stale leader confirms no read and refuses it when it steps down.
#[test]
fn a_partitioned_leader_serves_no_read() {
    let mut net = Net::three(1);
    net.elect(1);
    net.step(1, Event::Read { ticket: 1000 });
    for _ in 0..6 {
        net.settle_if(without(1));
        net.timeout(1);
    }
    assert_eq!(net.nodes[&1].reads, [(1000, Err(RefusalReason::LostLeadership))]);
}

/// Every read ends: after a timeout if the leader does not answer, and at once if there is no leader.
#[test]
fn every_read_ends() {
    let mut net = Net::three(1);
    net.step(2, Event::Read { ticket: 1000 });
    assert_eq!(net.nodes[&2].reads, [(1000, Err(RefusalReason::NotLeader(None)))]);
    net.elect(1);
    net.step(2, Event::Read { ticket: 1001 });
    net.wire.clear();
    net.advance_one(2, 1100);
    assert_eq!(net.nodes[&2].reads.last().map(|read| read.0), Some(1001));
}

/// 6.4: an answer to a read from before a restart does not answer a read from after it.
#[test]
fn an_answer_from_before_a_restart_is_ignored() {
    let mut net = Net::three(1);
    net.elect(1);
    net.step(2, Event::Read { ticket: 1000 });
    let Message::ReadIndex { id } = net.wire[0].message else { panic!("a read") };
    net.crash(2, 0);
    net.restart(2);
    net.timeout(1);
    net.settle();
    net.step(2, Event::Read { ticket: 1001 });
    net.step(2, received(1, Message::ReadIndexReply { id, index: Some(Index(1)) }));
    assert_eq!(net.nodes[&2].reads, []);
    net.settle();
    assert_eq!(net.nodes[&2].reads, [(1001, Ok(Index(1)))]);
}

/// 3.10: the leader tells the transfer target to campaign once the target has the whole log. The target wins without an
/// election timeout.
#[test]
fn leadership_goes_to_a_follower_with_the_whole_log() {
    let mut net = Net::three(1);
    net.elect(1);
    net.propose(1, 1, "x");
    net.lines.clear();
    net.step(1, Event::TransferLeadership);
    let told = |net: &Net| net.lines.iter().any(|line| line.contains("TimeoutNow"));
    assert!(!told(&net), "no follower has the entry yet");
    net.settle();
    assert!(told(&net));
    assert_eq!((net.leaders().len(), net.raft(1).role()), (1, Role::Follower));
    assert_eq!(net.raft(net.leaders()[0]).term(), Term(2));
}

/// 3.10: during a transfer the leader takes no proposals and no reads, because the target may already commit entries
/// that the leader has not seen.
#[test]
fn a_leader_serves_nothing_during_a_transfer() {
    let mut net = Net::three(1);
    net.elect(1);
    net.step(1, Event::TransferLeadership);
    net.wire.clear();
    net.step(1, Event::Read { ticket: 1000 });
    net.propose(1, 1, "x");
    assert_eq!(net.nodes[&1].reads, [(1000, Err(RefusalReason::LostLeadership))]);
    assert_eq!(net.nodes[&1].proposed, [(1, Err(RefusalReason::NotLeader(None)))]);
}

/// 3.10: a voter that got leadership by transfer does not transfer it back, and keeps it if no other target is left.
#[test]
fn when_all_voters_transfer_leadership_the_last_keeps_it() {
    let mut net = Net::three(1);
    net.elect(1);
    for expected in [2, 3] {
        let leader = net.leaders()[0];
        net.step(leader, Event::TransferLeadership);
        net.settle();
        assert_eq!(net.raft(net.leaders()[0]).term(), Term(expected));
    }
    let (first, last) = (1, net.leaders()[0]);
    assert_ne!(last, first);
    net.step(last, Event::TransferLeadership);
    net.settle();
    assert_eq!((net.leaders(), net.raft(last).term()), (vec![last], Term(3)), "no target is left");
    // It kept the leadership, so it may transfer it to any voter again.
    net.step(last, Event::TransferLeadership);
    net.settle();
    assert_eq!(net.raft(net.leaders()[0]).term(), Term(4));
}

/// 3.10: if the target does not campaign within an election timeout, the leader gives up the transfer and serves again.
#[test]
fn a_failed_transfer_is_abandoned() {
    let mut net = Net::three(1);
    net.elect(1);
    net.step(1, Event::TransferLeadership);
    for _ in 0..6 {
        net.timeout(1);
        net.settle_if(|envelope| !matches!(envelope.message, Message::TimeoutNow { .. }));
    }
    net.propose(1, 1, "x");
    assert_eq!(net.nodes[&1].proposed, [(1, Ok(at(1, 2)))]);
}

/// 4.2.1: a learner receives the log, does not count for commit, and does not campaign, even when told to.
#[test]
fn learners_are_not_counted_and_do_not_campaign() {
    let mut net = Net::new(1, &configuration(&[1, 2, 3], &[4, 5, 6]), RaftConfig::default());
    net.elect(1);
    net.propose(1, 1, "x");
    net.settle_if(|envelope| envelope.from > 3 || envelope.to > 3);
    assert_eq!(net.raft(1).commit(), Index(1), "three learners have the entry and no second voter");
    net.advance_one(4, 10_000);
    assert_eq!(net.raft(4).role(), Role::Learner);
    net.ask(1, 4, Message::TimeoutNow { term: Term(1), transfer_excluded: vec![replica(1)] });
    assert_eq!(net.raft(4).role(), Role::Learner);
}

/// 4.1: a configuration takes effect when it is appended. The next change waits until it is committed.
#[test]
fn a_configuration_is_effective_on_append_and_changes_one_at_a_time() {
    let mut net = Net::three(1);
    net.elect(1);
    net.add(4);
    net.add(5);
    net.step(1, Event::Reconfigure { ticket: 1, change: Reconfiguration::AddLearner(replica(4)) });
    assert_eq!(net.raft(1).configuration(), &configuration(&[1, 2, 3], &[4]));
    let next = Event::Reconfigure { ticket: 2, change: Reconfiguration::AddLearner(replica(5)) };
    net.step(1, next.clone());
    assert_eq!(net.nodes[&1].proposed.last(), Some(&(2, Err(RefusalReason::InvalidChange))));
    net.settle();
    assert_eq!(net.terms(4), net.terms(1));
    net.step(1, next);
    net.settle();
    assert_eq!(net.raft(5).configuration(), &configuration(&[1, 2, 3], &[4, 5]));
}

/// 4.1: truncating the entry of a configuration undoes the configuration.
#[test]
fn a_lost_configuration_is_undone() {
    let mut net = Net::three(1);
    net.elect(1);
    net.step(1, Event::Reconfigure { ticket: 1, change: Reconfiguration::AddLearner(replica(4)) });
    net.settle_if(without(1));
    net.advance_one(3, 1000);
    net.timeout(2);
    net.settle_if(without(1));
    net.timeout(2);
    net.settle();
    assert_eq!(net.raft(1).configuration(), &configuration(&[1, 2, 3], &[]));
    assert_eq!(net.terms(1), net.terms(2));
}

/// Group time: a leader continues from its predecessor's last entry. It adds only time that passed on its own clock.
#[test]
fn group_time_goes_on_under_the_next_leader() {
    let mut net = Net::three(1);
    net.elect(1);
    let time =
        |net: &Net, n: u8| net.raft(n).entry(net.raft(n).last().index).map(|entry| entry.time_ms);
    assert_eq!(time(&net, 1), Some(0), "the clock counts from the first election");
    net.advance_one(1, 90);
    net.propose(1, 1, "x");
    net.settle();
    assert_eq!(time(&net, 1), Some(90));
    net.advance_one(2, 1_000_000);
    net.step(1, Event::TransferLeadership);
    net.settle();
    let target = net.leaders()[0];
    assert_eq!(time(&net, target), Some(90), "no time passed between the two");
    net.advance_one(target, 60);
    net.propose(target, 2, "y");
    assert_eq!(time(&net, target), Some(150));
}

/// A leader refuses proposals while its uncommitted entries exceed their limit. Committed entries free it.
#[test]
fn a_leader_that_cannot_commit_refuses_more() {
    let config = RaftConfig { uncommitted_bytes_max: 200, ..RaftConfig::default() };
    let mut net = Net::new(1, &configuration(&[1, 2, 3], &[]), config);
    net.elect(1);
    (1..=9).for_each(|ticket| net.propose(1, ticket, "0123456789"));
    let refused = |net: &Net| net.nodes[&1].proposed.iter().filter(|(_, end)| end.is_err()).count();
    assert_eq!(refused(&net), 5);
    net.settle();
    net.propose(1, 10, "0123456789");
    assert_eq!(refused(&net), 5);
}

/// Replicas 1 and 2 with three commands and a checkpoint, and replica 3 with none of these.
fn with_a_gap() -> Net {
    let config = RaftConfig { retained_bytes_max: 0, ..RaftConfig::default() };
    let mut net = Net::new(1, &configuration(&[1, 2, 3], &[]), config);
    net.elect(1);
    for n in 0..40 {
        net.propose(1, n, "a command that is long enough to make several chunks");
        net.settle_if(without(3));
    }
    net.compact(1);
    assert_eq!(net.raft(1).first(), Index(42));
    net
}

/// Steps replica 1's heartbeats and delivers messages until one that satisfies `until` is on the wire.
fn run_until(net: &mut Net, until: impl Fn(&Message) -> bool) {
    for _ in 0..2000 {
        if net.wire.iter().any(|envelope| until(&envelope.message)) {
            return;
        }
        if net.wire.is_empty() {
            net.timeout(1);
        } else {
            net.deliver(0);
        }
        for n in [1, 2, 3] {
            net.sync(n, 9);
        }
        net.answer_capture(1, 64);
    }
    panic!("it never came");
}

fn caught_up(net: &mut Net) {
    for _ in 0..10 {
        net.timeout(1);
        net.settle();
    }
    assert_eq!(net.nodes[&3].state, net.nodes[&1].state);
    assert_eq!(net.raft(3).last(), net.raft(1).last());
}

/// Chapter 5: a follower whose entries are gone from the leader's log gets the snapshot and then the entries after it.
#[test]
fn a_follower_whose_entries_are_gone_gets_a_snapshot() {
    let mut net = with_a_gap();
    caught_up(&mut net);
    net.propose(1, 99, "more");
    caught_up(&mut net);
    net.crash(3, 0);
    net.restart(3);
    assert_eq!(net.raft(3).base(), at(1, 41));
}

/// Chapter 5: a receiver that restarts during a transfer reports that it holds nothing, and gets the snapshot again.
#[test]
fn a_receiver_may_restart_during_a_transfer() {
    let mut net = with_a_gap();
    run_until(&mut net, |m| matches!(m, Message::SnapshotAck { bytes: Some(256..), .. }));
    net.crash(3, 1);
    net.restart(3);
    caught_up(&mut net);
}

/// Chapter 5: after a loss the sender resumes where the receiver stopped.
#[test]
fn a_transfer_resumes_after_loss() {
    let mut net = with_a_gap();
    run_until(&mut net, |m| matches!(m, Message::SnapshotAck { bytes: Some(256..), .. }));
    net.wire.clear();
    net.lines.clear();
    caught_up(&mut net);
    let again = net.lines.iter().filter(|line| line.contains("bytes from 0 on")).count();
    assert_eq!(again, 0, "chunks that the receiver holds are not sent again");
}

/// Chapter 5: a newer snapshot of another leader replaces a transfer under way.
#[test]
fn a_newer_snapshot_supersedes() {
    let mut net = with_a_gap();
    run_until(&mut net, |m| matches!(m, Message::SnapshotAck { bytes: Some(256..), .. }));
    net.wire.clear();
    net.propose(1, 99, "more");
    net.settle_if(without(3));
    net.compact(2);
    net.crash(1, 9);
    net.advance_one(3, 2000);
    net.timeout(2);
    for _ in 0..10 {
        net.settle();
        net.timeout(2);
    }
    assert_eq!(net.nodes[&3].state, net.nodes[&2].state);
}

/// Chapter 5: a snapshot of entries that are already committed is not installed.
#[test]
fn an_old_snapshot_is_not_installed() {
    let mut net = with_a_gap();
    run_until(&mut net, |m| matches!(m, Message::SnapshotOffer { .. }));
    let offer =
        net.wire.iter().find(|e| matches!(e.message, Message::SnapshotOffer { .. })).cloned();
    run_until(&mut net, |m| matches!(m, Message::SnapshotChunk { .. }));
    let chunk =
        net.wire.iter().find(|e| matches!(e.message, Message::SnapshotChunk { .. })).cloned();
    caught_up(&mut net);
    net.propose(1, 99, "more");
    caught_up(&mut net);
    for late in [offer, chunk].into_iter().flatten() {
        let answer = net.ask(1, 3, late.message);
        assert_eq!(answer, [Message::AppendAck { term: Term(1), matched: at(1, 41) }]);
    }
    assert_eq!(net.raft(3).last(), at(1, 42));
}

/// A snapshot whose bytes do not match its digest is dropped, and its sender is told.
#[test]
fn a_corrupt_snapshot_is_not_installed() {
    let mut net = Net::three(1);
    let position = at(1, 9);
    let header = SnapshotHeader {
        position,
        time_ms: 0,
        configuration: configuration(&[1, 2, 3], &[]),
        digest: Digest::of(b"right"),
        length: 5,
    };
    net.ask(2, 1, Message::SnapshotOffer { term: Term(1), header });
    let data = Bytes::from_static(b"wrong");
    assert_eq!(
        net.ask(2, 1, Message::SnapshotChunk { term: Term(1), position, offset: 0, data }),
        [Message::SnapshotRefused { term: Term(1), position, corrupt: true }]
    );
    assert_eq!((net.raft(1).commit(), net.nodes[&1].rejected.len()), (Index(0), 1));
}

/// Chapter 5: what the log has is kept. Entries may reach the snapshot's end while the state machine looks at it.
#[test]
fn a_snapshot_that_the_log_overtakes_is_not_installed() {
    let genesis = configuration(&[1, 2, 3], &[]);
    let restored = Restored { genesis: genesis.clone(), ..Restored::default() };
    let config = RaftConfig::default();
    let seed = Seed::from_number(1);
    let mut machine = Raft::new(GroupId(1), replica(1), config, &seed, restored);
    let mut step = |event| {
        let mut out = Outbox::default();
        machine.step(Now { mono: Instant::ZERO, wall: WallTime(0) }, event, &mut out);
        let last = machine.last();
        (out.drain().collect::<Vec<Action>>(), last)
    };
    let (term, position, data) = (Term(1), at(1, 2), Bytes::from_static(b"state"));
    let (digest, length) = (Digest::of(b"state"), 5);
    let header = SnapshotHeader { position, time_ms: 0, configuration: genesis, digest, length };
    step(received(2, Message::SnapshotOffer { term, header }));
    let chunk = Message::SnapshotChunk { term, position, offset: 0, data };
    let (asked, _) = step(received(2, chunk));
    let id = asked.iter().find_map(|action| match action {
        Action::Check { id, .. } => Some(*id),
        _ => None,
    });
    let entry = Entry { term, time_ms: 0, payload: Payload::Noop };
    let (prev, commit, entries) = (at(0, 0), Index(0), vec![entry; 3]);
    step(received(2, Message::Append { term, prev, commit, entries }));
    let id = id.expect("the machine asks");
    let (actions, _) = step(Event::Checked { id, restores: true });
    assert!(actions.is_empty(), "{actions:?}");
    let (actions, last) = step(Event::FileWritten { id, bytes: 5 });
    assert!(matches!(actions[..], [Action::DropFile { .. }]), "{actions:?}");
    assert_eq!(last, at(1, 3));
}
