//! One test a sentence of what Ongaro's thesis and the field add to the Raft paper: pre-vote (9.6), check-quorum, reads
//! (6.4), hand-over (3.10), learners (4.2.1), snapshots (chapter 5). Numbers with # are threads of etcd where the bug
//! was.

use bytes::Bytes;
use continuum_core::config::RaftConfig;
use continuum_core::digest::Digest;
use continuum_core::id::{Index, Role, Term};
use continuum_core::raft::{Event, Header, Message, Position, Reconfiguration, Refused};
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

/// 9.6: a server that is cut off does not raise its term, however often it times out.
#[test]
fn a_lonely_server_keeps_its_term() {
    let mut net = Net::three(1);
    net.elect(1);
    for _ in 0..10 {
        net.timeout(3);
        net.wire.clear();
    }
    assert_eq!((net.raft(3).role(), net.raft(3).term()), (Role::PreCandidate, Term(1)));
}

/// 9.6: and when it is back, it follows the leader that there is.
#[test]
fn a_returning_server_disturbs_nobody() {
    let mut net = Net::three(1);
    net.elect(1);
    net.timeout(3);
    net.settle();
    assert_eq!((net.leaders(), net.raft(1).term()), (vec![1], Term(1)));
    net.timeout(1);
    net.settle();
    assert_eq!((net.raft(3).role(), net.raft(3).leader()), (Role::Follower, Some(replica(1))));
}

/// 9.6: a pre-vote is granted for a later term, by a log as up to date, without a leader; and changes nothing.
#[test]
fn a_pre_vote_is_granted_as_a_vote_would_be() {
    for (term, last, granted) in
        [(6, at(1, 2), true), (5, at(1, 2), false), (6, at(1, 1), false), (9, at(2, 1), true)]
    {
        let mut net = Net::three(1);
        net.preset(1, 5, &[1, 1]);
        let answer = Term(if granted { term } else { 5 });
        let expected = Message::PreVoted { term: answer, granted };
        assert_eq!(net.ask(2, 1, pre_vote(term, last)), [expected], "{term} {last:?}");
        assert_eq!((net.raft(1).term(), net.raft(1).vote()), (Term(5), None));
    }
}

/// 9.6 with 4.2.3: who heard of a leader within an election timeout grants no pre-vote, and ignores votes of later
/// terms.
#[test]
fn a_fresh_leader_is_protected() {
    let mut net = Net::three(1);
    net.elect(1);
    let denied = Message::PreVoted { term: Term(1), granted: false };
    assert_eq!(net.ask(3, 2, pre_vote(2, at(9, 9))), [denied]);
    let vote = Message::Vote { term: Term(7), last: at(9, 9), handed_over: false };
    assert_eq!(net.ask(3, 2, vote.clone()), []);
    assert_eq!(net.ask(3, 1, vote), []);
    assert_eq!((net.raft(1).term(), net.raft(2).term()), (Term(1), Term(1)));
}

/// #8334: a denial of a later term brings the asker to that term, so that it is not denied forever.
#[test]
fn a_denial_of_a_later_term_is_heeded() {
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

/// 6.2: one follower of two is a majority with the leader.
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

/// 4.2.3: a removed or foreign server is not heard when it asks for votes, or answers with a later term.
#[test]
fn strangers_disturb_nobody() {
    let mut net = Net::three(1);
    net.preset(1, 5, &[1, 1]);
    for message in [
        pre_vote(9, at(1, 1)),
        Message::Vote { term: Term(9), last: at(1, 1), handed_over: true },
        Message::Stale { term: Term(9) },
        Message::Voted { term: Term(9), granted: true },
    ] {
        assert_eq!(net.ask(77, 1, message), []);
        assert_eq!(net.raft(1).term(), Term(5));
    }
    assert_eq!(net.nodes[&1].rejected.len(), 4);
}

/// #10998: who does not know that it is a voter, or who the candidate is, still votes when the candidate's log is
/// longer.
#[test]
fn who_does_not_know_the_candidate_votes_by_its_log() {
    let mut net = Net::three(1);
    net.add(4);
    let vote = Message::Vote { term: Term(3), last: at(2, 5), handed_over: false };
    assert_eq!(net.ask(5, 4, vote), [Message::Voted { term: Term(3), granted: true }]);
    assert_eq!(net.raft(4).role(), Role::Learner);
}

/// 6.4: a leader answers no read before it has committed an entry of its term.
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

/// 6.4: the leader exchanges heartbeats with a majority before it answers, and these must be later than the read.
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
            let seen = Message::HeartbeatSeen { term: Term(1), round };
            net.step(1, received(from, seen.clone()));
            net.step(1, received(from, seen));
        }
    };
    let Message::Heartbeat { round, .. } = late[0].message else { panic!("a heartbeat") };
    answers(&mut net, round);
    assert_eq!(net.nodes[&1].reads, [], "late and repeated answers to an earlier round");
    answers(&mut net, round + 1);
    assert_eq!(net.nodes[&1].reads, [(1000, Ok(Index(1)))]);
}

/// 6.4: one round confirms all reads that wait for it.
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
    assert_eq!(rounds, 1, "the first read's round was under way; the second is for all others");
}

/// 6.4: a follower asks the leader, applies up to the answer, and serves the read itself; so does a learner.
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
        assert_eq!(net.raft(reader).commit(), Index(2), "told at once, without a heartbeat");
    }
}

/// 6.4: a leader of the past confirms nothing: the read is refused when it steps down.
#[test]
fn a_partitioned_leader_serves_no_read() {
    let mut net = Net::three(1);
    net.elect(1);
    net.step(1, Event::Read { ticket: 1000 });
    for _ in 0..6 {
        net.settle_if(without(1));
        net.timeout(1);
    }
    assert_eq!(net.nodes[&1].reads, [(1000, Err(Refused::LostLeadership))]);
}

/// Every read ends: one whose leader does not answer, by a timeout; one without a leader, at once.
#[test]
fn every_read_ends() {
    let mut net = Net::three(1);
    net.step(2, Event::Read { ticket: 1000 });
    assert_eq!(net.nodes[&2].reads, [(1000, Err(Refused::NotLeader(None)))]);
    net.elect(1);
    net.step(2, Event::Read { ticket: 1001 });
    net.wire.clear();
    net.advance_one(2, 1100);
    assert_eq!(net.nodes[&2].reads.last().map(|read| read.0), Some(1001));
}

/// 6.4: an answer to a read of an earlier life is no answer to a read of this one.
#[test]
fn an_answer_of_an_earlier_life_is_none() {
    let mut net = Net::three(1);
    net.elect(1);
    net.step(2, Event::Read { ticket: 1000 });
    let Message::Read { id } = net.wire[0].message else { panic!("a read") };
    net.crash(2, 0);
    net.restart(2);
    net.timeout(1);
    net.settle();
    net.step(2, Event::Read { ticket: 1001 });
    net.step(2, received(1, Message::ReadAnswer { id, index: Some(Index(1)) }));
    assert_eq!(net.nodes[&2].reads, []);
    net.settle();
    assert_eq!(net.nodes[&2].reads, [(1001, Ok(Index(1)))]);
}

/// 3.10: the heir is told to campaign once it has the whole log, and needs no timeout to win.
#[test]
fn leadership_is_handed_to_a_follower_with_the_whole_log() {
    let mut net = Net::three(1);
    net.elect(1);
    net.propose(1, 1, "x");
    net.lines.clear();
    net.step(1, Event::HandOver);
    let told = |net: &Net| net.lines.iter().any(|line| line.contains("TimeoutNow"));
    assert!(!told(&net), "nobody has the entry yet");
    net.settle();
    assert!(told(&net));
    assert_eq!((net.leaders().len(), net.raft(1).role()), (1, Role::Follower));
    assert_eq!(net.raft(net.leaders()[0]).term(), Term(2));
}

/// 3.10: meanwhile the leader takes no proposals, and no reads: its heir may already commit what it has not seen.
#[test]
fn nothing_is_served_during_a_hand_over() {
    let mut net = Net::three(1);
    net.elect(1);
    net.step(1, Event::HandOver);
    net.wire.clear();
    net.step(1, Event::Read { ticket: 1000 });
    net.propose(1, 1, "x");
    assert_eq!(net.nodes[&1].reads, [(1000, Err(Refused::LostLeadership))]);
    assert_eq!(net.nodes[&1].proposed, [(1, Err(Refused::NotLeader(None)))]);
}

/// 3.10: who has the leadership from one that gave it away does not give it back, and keeps it where nobody is left.
#[test]
fn of_voters_that_all_hand_over_one_keeps_it() {
    let mut net = Net::three(1);
    net.elect(1);
    for expected in [2, 3] {
        let leader = net.leaders()[0];
        net.step(leader, Event::HandOver);
        net.settle();
        assert_eq!(net.raft(net.leaders()[0]).term(), Term(expected));
    }
    let (first, last) = (1, net.leaders()[0]);
    assert_ne!(last, first);
    net.step(last, Event::HandOver);
    net.settle();
    assert_eq!((net.leaders(), net.raft(last).term()), (vec![last], Term(3)), "nobody is left");
    // It kept it: it may be handed to anybody again.
    net.step(last, Event::HandOver);
    net.settle();
    assert_eq!(net.raft(net.leaders()[0]).term(), Term(4));
}

/// 3.10: a heir that does not campaign within an election timeout loses its chance, and the leader serves again.
#[test]
fn a_hand_over_that_fails_is_given_up() {
    let mut net = Net::three(1);
    net.elect(1);
    net.step(1, Event::HandOver);
    for _ in 0..6 {
        net.timeout(1);
        net.settle_if(|envelope| !matches!(envelope.message, Message::TimeoutNow { .. }));
    }
    net.propose(1, 1, "x");
    assert_eq!(net.nodes[&1].proposed, [(1, Ok(at(1, 2)))]);
}

/// 4.2.1: a learner receives the log, is not counted, and does not campaign, even when told to.
#[test]
fn learners_are_not_counted_and_do_not_campaign() {
    let mut net = Net::new(1, &configuration(&[1, 2, 3], &[4, 5, 6]), RaftConfig::default());
    net.elect(1);
    net.propose(1, 1, "x");
    net.settle_if(|envelope| envelope.from > 3 || envelope.to > 3);
    assert_eq!(net.raft(1).commit(), Index(1), "three learners and no voter");
    net.advance_one(4, 10_000);
    assert_eq!(net.raft(4).role(), Role::Learner);
    net.ask(1, 4, Message::TimeoutNow { term: Term(1), spared: vec![replica(1)] });
    assert_eq!(net.raft(4).role(), Role::Learner);
}

/// 4.1: a configuration is in effect as soon as it is appended; the next one waits until it is committed.
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
    assert_eq!(net.nodes[&1].proposed.last(), Some(&(2, Err(Refused::InvalidChange))));
    net.settle();
    assert_eq!(net.terms(4), net.terms(1));
    net.step(1, next);
    net.settle();
    assert_eq!(net.raft(5).configuration(), &configuration(&[1, 2, 3], &[4, 5]));
}

/// 4.1: a configuration goes with the entry that held it.
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

/// Group time: a leader counts on from its predecessor's last entry by its own clock, whatever that clock shows.
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
    net.step(1, Event::HandOver);
    net.settle();
    let heir = net.leaders()[0];
    assert_eq!(time(&net, heir), Some(90), "no time passed between the two");
    net.advance_one(heir, 60);
    net.propose(heir, 2, "y");
    assert_eq!(time(&net, heir), Some(150));
}

/// A leader whose uncommitted entries exceed their budget says so; what is committed frees it.
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

/// A leader's followers with three commands and a checkpoint, and replica 3 without any of it.
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

/// Steps replica 1's heartbeat and delivers until a message that `until` names is on the wire.
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

/// Chapter 5: a follower whose entries are gone gets the state, and what follows it from the log.
#[test]
fn a_follower_without_its_entries_gets_the_state() {
    let mut net = with_a_gap();
    caught_up(&mut net);
    net.propose(1, 99, "more");
    caught_up(&mut net);
    net.crash(3, 0);
    net.restart(3);
    assert_eq!(net.raft(3).base(), at(1, 41));
}

/// Chapter 5: a receiver that restarts in the middle says that it forgot, and gets the snapshot again.
#[test]
fn a_receiver_may_restart_in_the_middle() {
    let mut net = with_a_gap();
    run_until(&mut net, |m| matches!(m, Message::Held { bytes: Some(256..), .. }));
    net.crash(3, 1);
    net.restart(3);
    caught_up(&mut net);
}

/// Chapter 5: chunks that were lost are sent again from where the receiver is.
#[test]
fn a_transfer_resumes_after_loss() {
    let mut net = with_a_gap();
    run_until(&mut net, |m| matches!(m, Message::Held { bytes: Some(256..), .. }));
    net.wire.clear();
    net.lines.clear();
    caught_up(&mut net);
    let again = net.lines.iter().filter(|line| line.contains("bytes from 0 on")).count();
    assert_eq!(again, 0, "what is held is not sent twice");
}

/// Chapter 5: another leader's newer snapshot supersedes one that is under way.
#[test]
fn a_newer_snapshot_supersedes() {
    let mut net = with_a_gap();
    run_until(&mut net, |m| matches!(m, Message::Held { bytes: Some(256..), .. }));
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

/// Chapter 5: a snapshot of what is committed already is not installed.
#[test]
fn an_old_snapshot_is_not_installed() {
    let mut net = with_a_gap();
    run_until(&mut net, |m| matches!(m, Message::Offer { .. }));
    let offer = net.wire.iter().find(|e| matches!(e.message, Message::Offer { .. })).cloned();
    run_until(&mut net, |m| matches!(m, Message::Chunk { .. }));
    let chunk = net.wire.iter().find(|e| matches!(e.message, Message::Chunk { .. })).cloned();
    caught_up(&mut net);
    net.propose(1, 99, "more");
    caught_up(&mut net);
    for late in [offer, chunk].into_iter().flatten() {
        let answer = net.ask(1, 3, late.message);
        assert_eq!(answer, [Message::Appended { term: Term(1), matched: at(1, 41) }]);
    }
    assert_eq!(net.raft(3).last(), at(1, 42));
}

/// A snapshot with other bytes than its digest says is dropped.
#[test]
fn a_corrupt_snapshot_is_not_installed() {
    let mut net = Net::three(1);
    let position = at(1, 9);
    let header = Header {
        position,
        time_ms: 0,
        configuration: configuration(&[1, 2, 3], &[]),
        digest: Digest::of(b"right"),
        length: 5,
    };
    net.ask(2, 1, Message::Offer { term: Term(1), header });
    let data = Bytes::from_static(b"wrong");
    assert_eq!(net.ask(2, 1, Message::Chunk { term: Term(1), position, offset: 0, data }), []);
    assert_eq!((net.raft(1).commit(), net.nodes[&1].rejected.len()), (Index(0), 1));
}
