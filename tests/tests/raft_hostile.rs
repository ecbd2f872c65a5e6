//! Hostile messages: none makes a machine panic or take back a committed entry.

use bytes::Bytes;
use continuum_core::config::RaftConfig;
use continuum_core::digest::Digest;
use continuum_core::id::{Index, Term};
use continuum_core::machine::{Machine as _, Now, Outbox};
use continuum_core::raft::{Entry, Event, Message, Payload, Position, Raft, SnapshotHeader};
use continuum_core::time::{Instant, WallTime};
use continuum_tests::raft::{Net, configuration, replica};
use proptest::prelude::*;

/// Numbers as an attacker would choose them.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..6, Just(u64::MAX), Just(u64::MAX - 1), Just(1 << 62), any::<u64>()]
}

fn position() -> impl Strategy<Value = Position> {
    (number(), number())
        .prop_map(|(term, index)| Position { term: Term(term), index: Index(index) })
}

fn message() -> impl Strategy<Value = Message> {
    let entry = (number(), any::<bool>()).prop_map(|(term, members)| Entry {
        term: Term(term),
        time_ms: 0,
        payload: if members {
            Payload::Configuration(configuration(&[], &[3, 1]))
        } else {
            Payload::Noop
        },
    });
    let term = || number().prop_map(Term);
    let index = || number().prop_map(Index);
    let bytes = || proptest::collection::vec(any::<u8>(), 0..4).prop_map(Bytes::from);
    let configurations = prop_oneof![
        Just(configuration(&[1, 2, 3], &[])),
        Just(configuration(&[], &[])),
        Just(configuration(&[9], &[1]))
    ];
    let header =
        (position(), number(), configurations).prop_map(|(position, length, configuration)| {
            SnapshotHeader {
                position,
                time_ms: length,
                configuration,
                digest: Digest::default(),
                length,
            }
        });
    prop_oneof![
        (term(), position()).prop_map(|(term, last)| Message::PreVote { term, last }),
        (term(), any::<bool>()).prop_map(|(term, granted)| Message::PreVoteReply { term, granted }),
        (term(), position(), any::<bool>()).prop_map(|(term, last, leadership_transfer)| {
            Message::Vote { term, last, leadership_transfer }
        }),
        (term(), any::<bool>()).prop_map(|(term, granted)| Message::VoteReply { term, granted }),
        (term(), position(), index(), proptest::collection::vec(entry, 0..4)).prop_map(
            |(term, prev, commit, entries)| Message::Append { term, prev, commit, entries }
        ),
        (term(), position()).prop_map(|(term, matched)| Message::AppendAck { term, matched }),
        (term(), index(), position()).prop_map(|(term, refused, hint)| Message::AppendRejected {
            term,
            refused,
            hint
        }),
        (term(), index(), number()).prop_map(|(term, commit, round)| Message::Heartbeat {
            term,
            commit,
            round
        }),
        (term(), number()).prop_map(|(term, round)| Message::HeartbeatAck { term, round }),
        term().prop_map(|term| Message::StaleTerm { term }),
        (term(), header).prop_map(|(term, header)| Message::SnapshotOffer { term, header }),
        (term(), position(), number(), bytes()).prop_map(|(term, position, offset, data)| {
            Message::SnapshotChunk { term, position, offset, data }
        }),
        (term(), position(), proptest::option::of(number()))
            .prop_map(|(term, position, bytes)| Message::SnapshotAck { term, position, bytes }),
        (term(), position(), any::<bool>()).prop_map(|(term, position, corrupt)| {
            Message::SnapshotRefused { term, position, corrupt }
        }),
        (term(), 0..20_u8).prop_map(|(term, transfer_excluded)| {
            let transfer_excluded = (0..transfer_excluded).map(replica).collect();
            Message::TimeoutNow { term, transfer_excluded }
        }),
        number().prop_map(|id| Message::ReadIndex { id }),
        (number(), proptest::option::of(index()))
            .prop_map(|(id, index)| Message::ReadIndexReply { id, index }),
    ]
}

/// A follower and a leader.
static MACHINES: std::sync::LazyLock<[Raft; 2]> = std::sync::LazyLock::new(|| {
    [2, 1].map(|leader| {
        let mut net = Net::new(1, &configuration(&[1, 2, 3], &[4]), RaftConfig::default());
        net.elect(leader);
        net.raft(1).clone()
    })
});

/// A federation whose learner's disk lied. The learner acknowledged every entry, lost them, and goes on with the first
/// entry and `stale` entries that are in no log any more. Its link broke with its process, or the leader noticed
/// nothing.
fn with_a_disk_that_lied(stale: usize, link_breaks: bool) -> Net {
    let mut net = Net::new(1, &configuration(&[1, 2, 3], &[4]), RaftConfig::default());
    net.elect(1);
    net.elect(2);
    (0..4).for_each(|ticket| net.propose(2, ticket, "x"));
    net.settle();
    assert_eq!(net.terms(4), net.terms(2));
    net.preset(4, 1, &vec![1; 1 + stale]);
    if link_breaks {
        net.step(2, Event::Unreachable { peer: replica(4).node });
    }
    net.lines.clear();
    net
}

/// The leader finds out what the learner still has and sends the rest again, in a bounded number of messages.
#[test]
fn a_learner_that_lost_acknowledged_entries_gets_them_again() {
    let broken = [(0, true, true), (2, true, true), (8, true, true)];
    let idle = [(0, false, false), (2, false, false), (0, true, false)];
    for (stale, link_breaks, writes) in
        [(0, false, true), (2, false, true)].into_iter().chain(broken).chain(idle)
    {
        let mut net = with_a_disk_that_lied(stale, link_breaks);
        if writes {
            net.propose(2, 9, "y");
        }
        for _ in 0..20 {
            net.advance_one(2, 50);
            net.settle();
        }
        assert_eq!(net.terms(4), net.terms(2), "{stale} {link_breaks} {writes}");
        assert_eq!(net.raft(4).commit(), net.raft(2).commit());
        let asked = net.lines.iter().filter(|line| line.contains("2 -> 4  Append")).count();
        assert!((1 + usize::from(writes)..20).contains(&asked), "{asked} appends");
    }
}

/// When the link breaks, the leader forgets what such a disk holds, so a heartbeat commits nothing there.
#[test]
fn a_heartbeat_commits_nothing_on_a_disk_that_may_have_lied() {
    let mut net = with_a_disk_that_lied(8, true);
    for _ in 0..5 {
        net.advance_one(2, 60);
        net.settle_if(|envelope| matches!(envelope.message, Message::Heartbeat { .. }));
    }
    let heartbeat = net.lines.iter().any(|line| line.starts_with("2 -> 4  Heartbeat"));
    assert!(heartbeat, "{:?}", net.lines);
    assert_eq!(net.raft(4).commit(), Index(0));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    /// No message makes a machine panic or take back a committed entry.
    #[test]
    fn no_message_makes_a_machine_panic(
        leads: bool, messages in proptest::collection::vec((1_u8..6, message()), 1..30),
    ) {
        let mut raft = MACHINES[usize::from(leads)].clone();
        let mut out = Outbox::new();
        for (ms, (from, message)) in (10_000..).step_by(90).zip(messages) {
            let commit = raft.commit();
            let now = Now {
                mono: Instant::from_millis(ms),
                wall: WallTime(0),
            };
            raft.step(now, Event::Received { from: replica(from), message }, &mut out);
            raft.step(now, Event::Persisted { writes: u64::MAX }, &mut out);
            out.drain().for_each(drop);
            prop_assert!(raft.commit() >= commit && raft.last().index >= raft.commit());
        }
    }
}
