//! Planted bugs of the node's doors: who may say what, who may join, what a halted group says, what a full or hung
//! disk and a stop do to requests, what an export holds, and where recovery looks. Each scenario passes without its
//! mutant and fails with it. A single node is enough: it leads its federation of one, and the test speaks for its
//! peers.
//!
//! The active mutant is global to the process, so this file holds a single test.

use continuum_core::api::{
    Change, Content, Edit, ExportCursor, ExportPage, Level, Mutation, Outcome, Query, Request, Row,
    Unready, Value,
};
use continuum_core::config::Config;
use continuum_core::gossip;
use continuum_core::id::{
    Address, AskId, Boot, Contact, GenesisId, GroupId, Lineage, NamespaceId, NodeId, Replica,
    RequestId, ShardId, StoreId, Term, Token,
};
use continuum_core::machine::{Machine as _, Now, Outbox};
use continuum_core::node::{Action, Event, Message, Node, Refusal};
use continuum_core::raft;
use continuum_core::replication::Message as Replicated;
use continuum_core::time::{Instant, WallTime};
use continuum_core::wal::Write;
use std::collections::BTreeMap;

mod solo;

use solo::{EXPORT_BYTES, ME, PEER, Solo, start};

const OTHER: Replica = Replica { node: NodeId([8; 16]), store: StoreId([8; 16]) };

fn an_earlier_process_is_refused() {
    let mut solo = Solo::new();
    solo.admit();
    let first = Boot { count: 1, nonce: 9 };
    solo.step(Event::Unreachable { peer: PEER.node });
    assert!(solo.connect_as(PEER, Boot { count: 2, nonce: 8 }, Lineage::default().after(first)));
    solo.step(Event::Unreachable { peer: PEER.node });
    assert!(!solo.connect_as(PEER, first, Lineage::default()), "a later one was there");
    assert!(!solo.connect_as(PEER, Boot { count: 2, nonce: 7 }, Lineage::default().after(first)));
}

fn a_restarted_node_refuses_an_earlier_process() {
    let mut solo = Solo::new();
    solo.admit();
    let first = Boot { count: 1, nonce: 9 };
    solo.step(Event::Unreachable { peer: PEER.node });
    assert!(solo.connect_as(PEER, Boot { count: 2, nonce: 8 }, Lineage::default().after(first)));
    solo.restart();
    assert!(!solo.connect_as(PEER, first, Lineage::default()));
}

/// The disk of an earlier moment, started more often since than the one that the node knows.
fn a_rolled_back_disk_is_refused_however_often_it_started() {
    let mut solo = Solo::new();
    solo.admit();
    let first = Boot { count: 1, nonce: 9 };
    let after_first = || Lineage::default().after(first);
    solo.step(Event::Unreachable { peer: PEER.node });
    assert!(solo.connect_as(PEER, Boot { count: 2, nonce: 8 }, after_first()));
    solo.step(Event::Unreachable { peer: PEER.node });
    let other = after_first().after(Boot { count: 2, nonce: 7 });
    assert!(!solo.connect_as(PEER, Boot { count: 3, nonce: 6 }, other));
}

fn a_strangers_refusals_are_nothing() {
    let mut solo = Solo::new();
    let known = Boot { count: 1, nonce: 2 };
    solo.receive(PEER, Message::Refused { refusal: Refusal::Cloned, known });
    assert_eq!(solo.rejected, ["a voter's message of no voter"]);
}

fn a_learners_leader_messages_reach_no_machine() {
    let mut solo = Solo::new();
    solo.admit();
    let message =
        raft::Message::Heartbeat { term: Term(9), commit: continuum_core::id::Index(0), round: 1 };
    let genesis = solo.genesis();
    solo.receive(PEER, Message::Raft { genesis, group: GroupId::REGISTRY, message });
    assert_eq!(solo.rejected, ["a voter's message of no voter"]);
}

fn a_strangers_contacts_are_not_taken() {
    let mut solo = Solo::new();
    let known = solo.node.discovery().known();
    let contact = Contact { node: None, address: Address("victim:1".into()) };
    solo.receive(PEER, Message::Contacts(vec![contact]));
    assert_eq!(solo.node.discovery().known(), known);
}

fn a_strangers_writes_reach_no_machine() {
    let mut solo = Solo::new();
    let shard = ShardId { namespace: NamespaceId(1), slot: 0 };
    let (genesis, message) = (solo.genesis(), Replicated::Delta { shard, writes: Vec::new() });
    solo.receive(PEER, Message::Replication { genesis, message });
    assert_eq!(solo.rejected, ["a member's message of no member"]);
}

/// Gossip of the peer, in the name of the process with this nonce.
fn ping(solo: &Solo, nonce: u64) -> Message {
    let boot = Boot { count: 1, nonce };
    let sender = gossip::Update {
        replica: PEER,
        incarnation: gossip::Incarnation { boot, refutations: 0 },
        state: gossip::State::Alive,
        address: Address("peer:1".into()),
        confirmations: Vec::new(),
    };
    let (body, updates, loads) = (gossip::Body::Ping { number: 1 }, Vec::new(), Vec::new());
    let message = gossip::Message { body, sender: sender.into(), updates, loads };
    Message::Gossip { genesis: solo.genesis(), message }
}

fn a_strangers_gossip_reaches_no_machine() {
    let mut solo = Solo::new();
    solo.receive(PEER, ping(&solo, 9));
    assert_eq!(solo.rejected, ["a member's message of no member"]);
}

fn a_member_gossips_as_the_process_of_its_link() {
    let mut solo = Solo::new();
    solo.admit();
    solo.receive(PEER, ping(&solo, 9));
    assert!(solo.rejected.is_empty());
    solo.receive(PEER, ping(&solo, 8));
    assert_eq!(solo.rejected, ["gossip of another process than the link's"]);
}

fn a_learner_asks_for_no_votes() {
    let mut solo = Solo::new();
    solo.admit();
    let last = raft::Position { term: Term(9), index: continuum_core::id::Index(99) };
    let message = raft::Message::Vote { term: Term(9), last, leadership_transfer: true };
    let genesis = solo.genesis();
    solo.receive(PEER, Message::Raft { genesis, group: GroupId::REGISTRY, message });
    assert_eq!(solo.rejected, ["a voter's message of no voter"]);
}

fn a_strangers_requests_are_not_served() {
    let mut solo = Solo::new();
    let request = Request::DeleteNamespace { name: "facts".into(), session: None };
    let id = AskId { nonce: 9, number: 3 };
    solo.receive(PEER, Message::Forward { id, open: 1, request });
    solo.wait(500);
    let Outcome::Value(Value::Namespaces(known)) = solo.ask(Request::Namespaces) else {
        panic!("a list")
    };
    assert_eq!(known.len(), 1);
}

fn a_member_lets_nobody_in() {
    let mut solo = Solo::new();
    solo.admit();
    solo.join(PEER, OTHER, 2);
    solo.wait(500);
    assert_eq!(solo.node.members().len(), 2);
}

fn a_member_changes_its_entry_at_a_bounded_rate() {
    let mut solo = Solo::new();
    solo.admit();
    let last = |solo: &Solo| solo.node.raft(GroupId::REGISTRY).expect("formed").last().index.0;
    let before = last(&solo);
    (2..102).for_each(|number| solo.join(PEER, PEER, number));
    let logged = last(&solo) - before;
    assert!((1..=16).contains(&logged), "{logged} entries in four seconds");
}

fn a_node_with_a_halted_group_is_not_ready() {
    // A record that this build does not know, as a later build would have left it.
    let mut solo = Solo::new();
    let command = bytes::Bytes::from_static(&[0xff; 9]);
    let writes = halted_log(&mut solo, command);
    solo.node = writes;
    for _ in 0..400 {
        solo.wait(10);
    }
    let halted = |reason: &Unready| matches!(reason, Unready::GroupHalted { .. });
    assert!(solo.node.unready().iter().any(halted), "{:?}", solo.node.unready());
}

/// A node that starts from the log of a federation of one whose group 1 has this command.
fn halted_log(solo: &mut Solo, command: bytes::Bytes) -> Node {
    use continuum_core::id::Index;
    use continuum_core::raft::{Configuration, Entry, Payload, Write as R};
    let group = GroupId::REGISTRY;
    let configuration = Configuration { voters: vec![ME], learners: Vec::new() };
    let entry = Entry { term: Term(1), time_ms: 0, payload: Payload::Command(command) };
    let writes = [
        R::Genesis { configuration, id: GenesisId(7) },
        R::Hard { term: Term(1), vote: Some(ME) },
        R::Append { prev: Index(0), entries: vec![entry] },
    ];
    let token = |at: usize| Token { lane: 0, seq: at as u64 + 1 };
    let writes = writes.into_iter().enumerate();
    let writes = writes.map(|(at, write)| (token(at), Write::Group { group, write })).collect();
    solo.ms += 1000;
    Node::restore(start(2), writes, BTreeMap::new()).expect("our own records")
}

/// A solo node whose disk takes nothing: its writes are kept, and not reported as durable.
fn hung(solo: &mut Solo, event: Event) -> (Vec<Action>, Option<Token>) {
    let now = Now { mono: Instant::from_millis(solo.ms), wall: WallTime(solo.ms) };
    let mut out = Outbox::new();
    solo.node.step(now, event, &mut out);
    let actions: Vec<Action> = out.drain().collect();
    let token = |action: &Action| match action {
        Action::Persist { token, .. } => Some(*token),
        _ => None,
    };
    let newest = actions.iter().filter_map(token).next_back();
    (actions, newest)
}

fn write(key: &str, change: Change) -> Request {
    let edits = vec![Edit { field: bytes::Bytes::new(), change }];
    let key = bytes::Bytes::copy_from_slice(key.as_bytes());
    let mutations = vec![Mutation { key, edits, context: None }];
    Request::Write { namespace: "facts".into(), mutations, level: Level::Durable, session: None }
}

fn put(key: &str, length: usize) -> Request {
    write(key, Change::Put(vec![7; length].into()))
}

fn delete(key: &str) -> Request {
    write(key, Change::Delete)
}

fn is_committed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Committed { .. })
}

fn a_disk_that_takes_nothing_is_noticed() {
    let mut solo = Solo::new();
    let (_, newest) = hung(&mut solo, Event::Requested { id: RequestId(77), request: put("k", 1) });
    let stalled = |solo: &Solo| solo.node.unready().contains(&Unready::DiskStalled);
    solo.ms += 2 * Config::default().raft.election_timeout_ms;
    hung(&mut solo, Event::Tick);
    assert!(stalled(&solo), "{:?}", solo.node.unready());
    solo.step(Event::Persisted { token: newest.expect("it is logged") });
    assert!(!stalled(&solo));
}

fn a_full_disk_takes_deletions() {
    let mut solo = Solo::new();
    assert!(is_committed(&solo.ask(put("k", 1))));
    solo.step(Event::StorageFull { full: true, room: 64 << 20 });
    assert!(!is_committed(&solo.ask(put("k", 1))));
    assert!(is_committed(&solo.ask(write("k", Change::Delete))));
}

fn a_full_disk_is_checkpointed() {
    let mut solo = Solo::new();
    for _ in 0..40 {
        assert!(is_committed(&solo.ask(put("k", 500_000))));
    }
    solo.released.clear();
    solo.step(Event::StorageFull { full: true, room: 64 << 20 });
    (0..100).for_each(|_| drop(solo.wait(10)));
    assert!(!solo.released.is_empty(), "nothing is released");
}

/// A full disk holds the snapshot file of what was deleted since, and nearly no log.
fn a_full_disk_drops_the_file_of_what_was_deleted() {
    let mut solo = Solo::new();
    let key = |number| format!("k{}", number % 60);
    // Enough for a checkpoint of all 60.
    (0..300).for_each(|number| assert!(is_committed(&solo.ask(put(&key(number), 500_000)))));
    (0..200).for_each(|_| drop(solo.wait(10)));
    solo.step(Event::StorageFull { full: true, room: 64 << 20 });
    (0..60).for_each(|number| assert!(is_committed(&solo.ask(delete(&key(number))))));
    let files = solo.discarded;
    solo.step(Event::StorageFull { full: true, room: 64 << 20 });
    (0..200).for_each(|_| drop(solo.wait(10)));
    assert!(solo.discarded > files, "the large file stays");
}

fn a_checkpoint_is_a_window_ahead_of_the_disk() {
    let mut solo = Solo::new();
    for round in 0..60 {
        assert!(is_committed(&solo.ask(put(&format!("k{}", round % 6), 500_000))));
    }
    solo.unwritten = Some(0);
    solo.step(Event::StorageFull { full: true, room: 64 << 20 });
    (0..100).for_each(|_| drop(solo.wait(10)));
    assert!(matches!(solo.unwritten, Some(4..=6)), "{:?} of 12 pieces", solo.unwritten);
}

fn a_stopping_node_answers_what_it_logged() {
    let mut solo = Solo::new();
    let (_, newest) = hung(&mut solo, Event::Requested { id: RequestId(77), request: put("k", 1) });
    hung(&mut solo, Event::Stopping);
    let answers = solo.step(Event::Persisted { token: newest.expect("it is logged") });
    assert!(matches!(answers[..], [Outcome::Committed { .. }]), "{answers:?}");
}

/// A disk wrote the last batch of a log behind the end of an earlier segment.
fn a_batch_behind_an_earlier_segments_end_is_found() {
    use continuum_core::wal::{Header, LogWriter, RecoverError, recover};
    let mut writer = LogWriter::new(Header::default()).with_segment_bytes(16 << 10);
    let mut segments: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut next = |seq| {
        let token = Token { lane: 0, seq };
        writer.encode(&[(token, Write::Contacts { contacts: Vec::new() })])
    };
    let mut seq = 0;
    while segments.len() < 2 {
        seq += 1;
        let batch = next(seq);
        segments.entry(batch.segment).or_default().extend_from_slice(&batch.bytes);
    }
    let astray = next(seq + 1);
    assert!(!astray.opens_segment);
    segments.values_mut().next().expect("the first").extend_from_slice(&astray.bytes);
    let found = recover(segments.into_iter().map(|(id, bytes)| (id, bytes.into())).collect());
    assert!(matches!(found, Err(RecoverError::Misdirected { .. })), "a shorter log is accepted");
}

/// A page of an export of all keys, in pages of one key.
fn page(solo: &mut Solo, from: Option<&ExportCursor>) -> Option<ExportPage> {
    let (from, prefix) = (from.cloned(), bytes::Bytes::new());
    let query = Query::Export { from, prefix, limit: 1, values: true };
    match solo.ask(Request::Read { namespace: "facts".into(), query }) {
        Outcome::Value(Value::Export(page)) => Some(page),
        _ => None,
    }
}

/// A node with the keys `a`, `c` and `e`, of this many bytes, and an export of which the first page was read.
fn exporting(length: usize) -> (Solo, ExportCursor) {
    let mut solo = Solo::new();
    for key in ["a", "c", "e"] {
        assert!(is_committed(&solo.ask(put(key, length))));
    }
    let first = page(&mut solo, None).expect("a page");
    (solo, first.next.expect("further keys"))
}

/// Reads the export to its end: its keys, and the lengths of their values.
fn rest(solo: &mut Solo, first: ExportCursor) -> Vec<(String, usize)> {
    let (mut rows, mut next) = (Vec::new(), Some(first));
    while let Some(from) = next {
        let page = page(solo, Some(&from)).expect("the export is there");
        rows.extend(page.rows);
        next = page.next;
    }
    let length = |row: &Row| match &row.fields[0].content {
        Content::Register(values) => values[0].len(),
        _ => 0,
    };
    let key = |row: &Row| String::from_utf8_lossy(&row.key).into_owned();
    rows.iter().map(|row| (key(row), length(row))).collect()
}

fn an_export_has_what_the_first_change_replaced() {
    let (mut solo, next) = exporting(5);
    for write in [put("c", 6), write("e", Change::Delete), put("c", 7), put("e", 8)] {
        assert!(is_committed(&solo.ask(write)));
    }
    assert_eq!(rest(&mut solo, next), [("c".to_owned(), 5), ("e".to_owned(), 5)]);
}

fn an_export_has_no_key_that_was_created_since() {
    let (mut solo, next) = exporting(5);
    for key in ["b", "d", "f"] {
        assert!(is_committed(&solo.ask(put(key, 6))));
    }
    assert_eq!(rest(&mut solo, next), [("c".to_owned(), 5), ("e".to_owned(), 5)]);
}

fn a_page_that_is_asked_for_again_is_the_same() {
    let (mut solo, next) = exporting(5);
    assert!(is_committed(&solo.ask(put("c", 6))));
    let before = page(&mut solo, Some(&next));
    assert!(is_committed(&solo.ask(put("c", 7))));
    assert!(before.is_some() && page(&mut solo, Some(&next)) == before);
}

fn an_export_that_nobody_reads_ends() {
    let (mut solo, next) = exporting(5);
    solo.wait(62_000);
    assert_eq!((page(&mut solo, Some(&next)), solo.node.exports().open), (None, 0));
}

fn the_memory_of_exports_is_counted() {
    let (mut solo, _next) = exporting(10_000);
    let before = solo.node.memory_bytes();
    for key in ["c", "e"] {
        assert!(is_committed(&solo.ask(put(key, 10_000))));
    }
    assert!(solo.node.memory_bytes() >= before + 20_000);
}

fn an_export_that_keeps_too_much_ends() {
    let (mut solo, next) = exporting(500_000);
    for key in ["a", "c", "e"] {
        assert!(is_committed(&solo.ask(put(key, 1))));
    }
    assert!(solo.node.exports().bytes <= EXPORT_BYTES && page(&mut solo, Some(&next)).is_none());
}

/// The log says how far the registry is committed, so that a node which restarts alone knows its namespaces.
fn the_log_knows_what_was_created() {
    let solo = Solo::new();
    let commits = |(_, write): &(Token, Write)| match write {
        Write::Group { group: GroupId::REGISTRY, write: raft::Write::Commit { index } } => {
            Some(*index)
        }
        _ => None,
    };
    let last = solo.writes.iter().filter_map(commits).max();
    assert_eq!(last, solo.node.raft(GroupId::REGISTRY).map(raft::Raft::commit));
}

/// A snapshot file was dropped and begun again under its name: what is durable of the first says nothing of the second.
fn a_dropped_file_says_nothing_of_its_successor() {
    use continuum_core::files::{Files, Piece};
    use continuum_core::id::{GroupId, Owner, SnapshotId};
    let (mut files, mut written) = (Files::new(64), Vec::new());
    let (snapshot, owner) = (SnapshotId(7), Owner::Group(GroupId(1)));
    let piece = Piece { snapshot, offset: 0, data: "state".into(), is_last: false };
    let first = files.issue(owner, &piece);
    files.drop_file(snapshot);
    files.issue(owner, &piece);
    files.written(first, &mut written);
    assert!(written.is_empty(), "{written:?}");
}

const SCENARIOS: &[(&str, fn())] = &[
    ("files.dropped_pieces_count", a_dropped_file_says_nothing_of_its_successor),
    ("node.apply.commit_unrecorded", the_log_knows_what_was_created),
    ("node.capture.ignores_the_window", a_checkpoint_is_a_window_ahead_of_the_disk),
    ("node.checkpoint.keeps_large_files", a_full_disk_drops_the_file_of_what_was_deleted),
    ("node.checkpoint.never_when_full", a_full_disk_is_checkpointed),
    ("node.halted.ready", a_node_with_a_halted_group_is_not_ready),
    ("node.join.relayed", a_member_lets_nobody_in),
    ("node.join.unbounded", a_member_changes_its_entry_at_a_bounded_rate),
    ("node.peers.forgets_boots", a_restarted_node_refuses_an_earlier_process),
    ("node.peers.lineage_ignored", a_rolled_back_disk_is_refused_however_often_it_started),
    ("node.peers.old_welcome", an_earlier_process_is_refused),
    ("node.standing.anyone_refuses", a_strangers_refusals_are_nothing),
    ("node.standing.learner_campaigns", a_learner_asks_for_no_votes),
    ("node.standing.learner_leads", a_learners_leader_messages_reach_no_machine),
    ("node.standing.strangers_contacts", a_strangers_contacts_are_not_taken),
    ("node.standing.strangers_data", a_strangers_writes_reach_no_machine),
    ("node.standing.strangers_gossip", a_strangers_gossip_reaches_no_machine),
    ("node.standing.strangers_requests", a_strangers_requests_are_not_served),
    ("node.stop.answers_at_once", a_stopping_node_answers_what_it_logged),
    ("node.storage.refuses_deletes", a_full_disk_takes_deletions),
    ("node.storage.waits_for_ever", a_disk_that_takes_nothing_is_noticed),
    ("node.wire.gossip_of_any_boot", a_member_gossips_as_the_process_of_its_link),
    ("state.export.drops_unconfirmed", a_page_that_is_asked_for_again_is_the_same),
    ("state.export.keeps_the_last", an_export_has_what_the_first_change_replaced),
    ("state.export.never_idle", an_export_that_nobody_reads_ends),
    ("state.export.shows_created", an_export_has_no_key_that_was_created_since),
    ("state.export.unbounded", an_export_that_keeps_too_much_ends),
    ("state.export.uncounted", the_memory_of_exports_is_counted),
    ("wal.recover.skips_earlier_tails", a_batch_behind_an_earlier_segments_end_is_found),
];

#[test]
fn each_scenario_fails_with_its_mutant_and_passes_without() {
    continuum_tests::mutants::expose(SCENARIOS);
}
