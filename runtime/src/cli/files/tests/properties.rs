//! Any export imports to an equal export: also when the import is repeated, when requests of it fail in any way, and
//! when it was killed and begins again.

use continuum_core::api::Strategy as Choice;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::model::{Act, Federation, Whole, lines};
use super::*;
use crate::api::media;

fn eventual(slots: u16, strategy: Choice) -> Policy {
    Policy::Eventual { strategy, slots, discard: false }
}

fn choice() -> impl Strategy<Value = Choice> {
    prop_oneof![Just(Choice::LastWriterWins), Just(Choice::HighestNodeWins)]
}

/// The stored form of a value with a media type, or of one that looks as if it had one.
fn typed() -> impl Strategy<Value = Bytes> {
    let kind = proptest::option::of("[a-z]{1,3}/[a-z]{1,3}(; a=\"[ -~]{0,3}\")?");
    let head =
        prop_oneof![Just(&b""[..]), Just(&b"\xff\x00type"[..]), Just(&b"\xff\x00type\x01"[..])];
    let rest = proptest::collection::vec(any::<u8>(), 0..4);
    (kind, head, rest).prop_map(|(kind, head, rest)| {
        media::stored(kind.as_deref(), [head, &rest].concat().into())
    })
}

fn change() -> impl Strategy<Value = Change> {
    let text = || proptest::collection::vec(any::<u8>(), 0..4).prop_map(Bytes::from);
    let count = prop_oneof![Just(i64::MAX), Just(i64::MIN), Just(0), -9..9_i64, any::<i64>()];
    prop_oneof![
        6 => text().prop_map(Change::Put),
        2 => typed().prop_map(Change::Put),
        4 => text().prop_map(Change::Add),
        4 => count.prop_map(Change::Count),
        1 => text().prop_map(Change::Remove),
        1 => Just(Change::Delete),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let write = (0..3_u8, 0..6_u8, 0..3_u8, change(), any::<bool>());
    prop_oneof![
        8 => write.prop_map(|(at, key, field, change, blind)| Act::Write { at, key, field, change, blind }),
        1 => Just(Act::Meet),
    ]
}

/// How a write request of an import ends.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    /// It happens, and its answer is lost.
    Unanswered,
    /// It does not happen, and the node says so.
    Busy,
    /// A part of it happens, and the answer does not say which.
    Half,
    /// The import is killed before it: this request and all later ones fail.
    Killed,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        5 => Just(Fate::Answered),
        2 => Just(Fate::Unanswered),
        1 => Just(Fate::Busy),
        2 => Just(Fate::Half),
        1 => Just(Fate::Killed),
    ]
}

/// Serves a node, whose writes end as `fates` says, and later ones well.
async fn serve(whole: &Arc<Mutex<Whole>>, fates: Vec<Fate>) -> (Client, watch::Sender<bool>) {
    let (whole, mut fates, mut is_dead) = (Arc::clone(whole), fates.into_iter(), false);
    node(move |request| {
        let mut whole = whole.lock().expect("no panic holds it");
        let fate = match request {
            _ if is_dead => Fate::Killed,
            Request::Write { .. } => fates.next().unwrap_or(Fate::Answered),
            _ => Fate::Answered,
        };
        is_dead |= matches!(fate, Fate::Killed);
        match fate {
            Fate::Answered => whole.ask(request),
            Fate::Unanswered => {
                whole.ask(request);
                Outcome::Unknown { reached: None }
            }
            Fate::Busy => Outcome::Rejected(Reason::Busy),
            Fate::Half => {
                let Request::Write { namespace, mut mutations, level, .. } = request else {
                    unreachable!("only writes have this fate")
                };
                mutations.truncate(mutations.len() / 2);
                if !mutations.is_empty() {
                    whole.ask(Request::Write { namespace, mutations, level, session: None });
                }
                Outcome::Unknown { reached: None }
            }
            Fate::Killed => Outcome::Rejected(Reason::WrongConsistency),
        }
    })
    .await
}

/// Imports until it succeeds, then once more, and returns the export. The last import changes nothing.
async fn import_all(import: &Import, whole: Whole, mut fates: Vec<Fate>) -> String {
    let whole = Arc::new(Mutex::new(whole));
    loop {
        let kill = fates.iter().position(|fate| matches!(fate, Fate::Killed));
        let rest = kill.map(|at| fates.split_off(at + 1)).unwrap_or_default();
        let (client, _stop) = serve(&whole, std::mem::replace(&mut fates, rest)).await;
        match run_import(import, client).await {
            Ok(_) => break,
            Err(failure) => assert_eq!(failure.code, "wrong_consistency", "{failure}"),
        }
    }
    let (client, _stop) = serve(&whole, Vec::new()).await;
    let again = run_import(import, client.another()).await.expect("a repeated import");
    assert_eq!((again["batches"].as_u64(), again["changed"].as_u64()), (Some(0), Some(0)));
    run_export("notes", client).await.expect("an export")
}

/// Whether an import can take the export: one node counts 64 bits in each direction.
fn is_within_bounds(text: &str) -> bool {
    !text.lines().any(|line| {
        let row = super::super::jsonl::row(line.as_bytes()).expect("a row of an export");
        super::super::plan::check(&row).is_err()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_export_imports_to_an_equal_export(
        acts in proptest::collection::vec(act(), 1..60),
        (from, to) in (1..4_u16, 1..4_u16),
        (here, there) in (choice(), choice()),
        fates in proptest::collection::vec(fate(), 0..8),
        (batch, concurrency) in (1..6_u16, 1..4_u16),
    ) {
        let mut federation = Federation::new(from, here);
        acts.into_iter().for_each(|act| federation.perform(act));
        let text = federation.export();
        prop_assume!(is_within_bounds(&text));
        let folder = tempfile::tempdir().expect("a folder");
        let path = file(folder.path(), &text);
        let import = Import { batch, concurrency, ..arguments("notes", path) };
        let whole = Whole::new(eventual(to, there));
        let found = Runtime::new().expect("threads").block_on(import_all(&import, whole, fates));
        prop_assert_eq!(found, text);
    }
}

fn one_field(key: &str, field: &str, content: Content) -> Row {
    let fields = vec![Field { field: field.to_owned().into(), content }];
    Row { key: key.to_owned().into(), fields }
}

/// Rows of every size that a namespace may hold: none fits into one request.
#[tokio::test]
async fn rows_larger_than_a_request_come_back_equal() {
    let number = |at: usize| Bytes::from(format!("member {at:06}"));
    let values = |count: usize, bytes: usize| -> Vec<Bytes> {
        (0..count).map(|at| vec![b'a' + (at % 26) as u8; bytes].into()).collect()
    };
    let mut wide = one_field("record", "a", Content::Register(values(1, 512 << 10)));
    for at in 0..6 {
        let content = Content::Register(values(1, 300 << 10));
        wide.fields.push(Field { field: format!("b{at}").into(), content });
    }
    let most = i128::from(u64::MAX);
    let rows = [
        one_field("counter high", "", Content::Counter(most)),
        one_field("counter low", "", Content::Counter(-most)),
        one_field("members", "", Content::Set((0..3000).map(number).collect())),
        wide,
        one_field("siblings", "", Content::Register(values(64, 20 << 10))),
        one_field("value", "", Content::Register(vec![vec![7; 512 << 10].into()])),
    ];
    let text = lines(&rows);
    let folder = tempfile::tempdir().expect("a folder");
    let import = arguments("notes", file(folder.path(), &text));
    let whole = Whole::new(eventual(2, Choice::LastWriterWins));
    let found = import_all(&import, whole, vec![Fate::Unanswered, Fate::Half, Fate::Killed]).await;
    assert!(found == text, "the exports differ");
}

#[tokio::test]
async fn a_strong_namespace_comes_back_equal() {
    let value = |at: usize| Content::Register(vec![format!("value {at}").into()]);
    let rows: Vec<Row> =
        (0..2500).map(|at| one_field(&format!("k{at:04}"), "", value(at))).collect();
    let text = lines(&rows);
    let folder = tempfile::tempdir().expect("a folder");
    let import = Import { batch: 400, ..arguments("notes", file(folder.path(), &text)) };
    let found = import_all(&import, Whole::new(Policy::Strong), vec![Fate::Unanswered]).await;
    assert!(found == text, "the exports differ");
}

/// One key on several lines: the last line decides, however many batches are under way.
#[tokio::test]
async fn a_key_on_several_lines_is_written_in_their_order() {
    let count = |at: i128| one_field("visits", "", Content::Counter(at));
    let value = |at: i128| one_field("last", "", Content::Register(vec![at.to_string().into()]));
    let rows: Vec<Row> = (1..40).flat_map(|at| [count(at), value(at)]).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let import = arguments("notes", file(folder.path(), lines(&rows)));
    let whole = Arc::new(Mutex::new(Whole::new(eventual(1, Choice::LastWriterWins))));
    let (client, _stop) = serve(&whole, Vec::new()).await;
    run_import(&import, client.another()).await.expect("imported");
    let found = run_export("notes", client).await.expect("an export");
    assert_eq!(found, lines(&[value(39), count(39)]));
}

/// Each bound is found before the first write, with the file and the line.
#[tokio::test]
async fn a_row_out_of_bounds_stops_an_import_before_its_first_write() {
    let long = |bytes: usize| Content::Register(vec![vec![b'x'; bytes].into()]);
    let short = || Content::Register(vec![Bytes::from_static(b"1")]);
    let twice = || {
        let mut row = one_field("k", "f", short());
        row.fields.push(row.fields[0].clone());
        row
    };
    let siblings = Content::Register(vec![Bytes::from_static(b"1"); 65]);
    let set = |bytes: usize| Content::Set(vec![vec![b'x'; bytes].into()]);
    for (broken, what) in [
        (one_field(&"k".repeat(1025), "", short()), "1024"),
        (one_field("", "", short()), "empty"),
        (one_field("k", &"f".repeat(257), short()), "256"),
        (one_field("k", "", long((512 << 10) + 1)), "524288"),
        (one_field("k", "", set((512 << 10) + 1)), "524288"),
        (one_field("k", "", siblings), "64"),
        (one_field("k", "", Content::Counter(i128::from(u64::MAX) + 1)), "18446744073709551615"),
        (twice(), "already"),
    ] {
        let rows = [one_field("a", "", Content::Counter(5)), broken];
        let folder = tempfile::tempdir().expect("a folder");
        let import = arguments("notes", file(folder.path(), lines(&rows)));
        let (client, _stop) = node(|request| panic!("{request:?} before the check")).await;
        let failure = run_import(&import, client).await.expect_err("out of bounds");
        assert_eq!(failure.exit, exit::LOCAL);
        assert!(failure.what.contains("rows.jsonl:2 "), "{failure}");
        assert!(failure.why.contains(what), "{failure}");
    }
}

#[tokio::test]
async fn what_a_strong_namespace_cannot_hold_is_named_before_the_first_write() {
    let two = Content::Register(vec![Bytes::from_static(b"1"), Bytes::from_static(b"2")]);
    let one = || Content::Register(vec![Bytes::from_static(b"1")]);
    for broken in [
        one_field("k", "f", one()),
        one_field("k", "", two),
        one_field("k", "", Content::Set(vec![Bytes::from_static(b"1")])),
        one_field("k", "", Content::Counter(1)),
    ] {
        let rows = [one_field("a", "", one()), broken];
        let folder = tempfile::tempdir().expect("a folder");
        let import = arguments("notes", file(folder.path(), lines(&rows)));
        let whole = Arc::new(Mutex::new(Whole::new(Policy::Strong)));
        let (client, _stop) = serve(&whole, Vec::new()).await;
        let failure = run_import(&import, client.another()).await.expect_err("a misfit");
        assert!(failure.what.contains("rows.jsonl:2 "), "{failure}");
        assert_eq!(run_export("notes", client).await.expect("an export"), "");
    }
}

#[tokio::test]
async fn a_dry_run_counts_and_writes_nothing() {
    let rows: Vec<Row> =
        (0..30).map(|at| one_field(&format!("k{at:02}"), "", Content::Counter(at))).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let whole = Arc::new(Mutex::new(Whole::new(eventual(1, Choice::LastWriterWins))));
    let (client, _stop) = serve(&whole, Vec::new()).await;
    let part = arguments("notes", file(folder.path(), lines(&rows[..10])));
    run_import(&part, client.another()).await.expect("imported");
    let before = run_export("notes", client.another()).await.expect("an export");
    let dry = Import { dry_run: true, ..arguments("notes", file(folder.path(), lines(&rows))) };
    let report = run_import(&dry, client.another()).await.expect("a dry run");
    assert_eq!((report["changed"].as_u64(), report["unchanged"].as_u64()), (Some(20), Some(10)));
    assert_eq!(run_export("notes", client).await.expect("an export"), before);
}

/// Serves a strong node of 2,500 keys. After each page the first and the last key change at once. The export is given
/// up after each of the first `ends` pages.
async fn serve_changing(mut ends: usize) -> (Client, watch::Sender<bool>) {
    let put = |key: &str, value: String| Mutation {
        key: key.to_owned().into(),
        edits: vec![continuum_core::api::Edit {
            field: Bytes::new(),
            change: Change::Put(value.into()),
        }],
        context: None,
    };
    let mut whole = Whole::new(Policy::Strong);
    let write = move |whole: &mut Whole, mutations| {
        let (namespace, level) = ("notes".to_owned(), Level::Durable);
        let outcome = whole.ask(Request::Write { namespace, mutations, level, session: None });
        assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
    };
    write(&mut whole, (0..2500).map(|at| put(&format!("k{at:04}"), "0".into())).collect());
    let mut writes = 0;
    node(move |request| {
        let is_page = matches!(request, Request::Read { query: Query::Export { .. }, .. });
        let outcome = whole.ask(request);
        if is_page {
            writes += 1;
            let both = ["k0000", "k2499"].map(|key| put(key, writes.to_string()));
            write(&mut whole, both.to_vec());
            if ends > 0 {
                ends -= 1;
                // Nobody reads on for two minutes.
                whole.wait(120_000);
            }
        }
        outcome
    })
    .await
}

/// Two keys that one write changes never differ in an export.
#[tokio::test]
async fn a_strong_namespace_is_exported_as_it_was_at_one_moment() {
    for ends in [0, 1, 2] {
        let (client, _stop) = serve_changing(ends).await;
        let text = run_export("notes", client).await.expect("an export");
        let value = |line: &str| line.split("\"register\":").nth(1).map(ToOwned::to_owned);
        let (first, last) = (text.lines().next(), text.lines().last());
        assert_eq!(first.and_then(value), last.and_then(value), "begun {ends} times again");
        assert_eq!(text.lines().count(), 2500);
    }
    let (client, _stop) = serve_changing(usize::MAX).await;
    let failure = run_export("notes", client).await.expect_err("it is never read in time");
    assert_eq!((failure.code.as_str(), failure.exit), ("export_expired", exit::CONFLICT));
}
