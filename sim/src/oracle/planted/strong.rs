//! The strong namespace: what clients were told, compared with the log, and what a replica applied.

use bytes::Bytes;
use continuum_core::api::{
    Change, Edit, Expected, Fingerprint, Level, Mutation, Outcome, Query, Reason, Receipt,
    Register, Session, Value,
};
use continuum_core::id::{Index, SessionId, Term};
use continuum_core::raft::{Entry, Payload};
use continuum_core::state::session::Remembered;
use continuum_core::state::{self, Command, Reply};

use super::super::ledger::{GroupLedger, Known};
use super::super::witness::{EXACTLY_ONCE, Effect, SessionRules, Witness};
use super::super::{read_sees_acknowledged, session_applied_once, strong};
use super::{Planted, bad, good};
use crate::verdict::Verdict;
use crate::workload::history::{Body, Ending, History, Operation, Space};

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn change(key: &'static str, change: Change) -> Mutation {
    let edits = vec![Edit { field: Bytes::new(), change }];
    Mutation { key: bytes(key), edits, context: None }
}

fn put(key: &'static str, value: &'static str) -> Vec<Mutation> {
    vec![change(key, Change::Put(bytes(value)))]
}

fn delete(key: &'static str) -> Vec<Mutation> {
    vec![change(key, Change::Delete)]
}

fn cas(expected: Expected, value: &'static str) -> Vec<Mutation> {
    vec![change("k", Change::Cas { expected, value: Some(bytes(value)) })]
}

fn was(value: &'static str) -> Expected {
    Expected::Value(bytes(value))
}

const fn session(seq: u64) -> Option<Session> {
    Some(Session { id: SessionId([7; 16]), seq, request: Fingerprint([0; 16]) })
}

/// An entry of the log: session and mutations.
type Logged = (Option<Session>, Vec<Mutation>);

fn ledger(log: &[Logged]) -> GroupLedger {
    let mut ledger = GroupLedger::default();
    for (at, (session, mutations)) in (1..).zip(log) {
        let operation = state::Operation::Write { mutations: mutations.clone() };
        let command = Command { session: *session, operation };
        let payload = Payload::Command(command.encode().expect("it is short"));
        let entry = Entry { term: Term(1), time_ms: 0, payload };
        ledger.remember(Index(at), Known { entry, prev: None });
        ledger.commit_next(Term(1));
    }
    ledger
}

fn witness(log: &[Logged]) -> Result<Witness, crate::verdict::Broken> {
    let mut witness = Witness::new(SessionRules { most: 4, idle_ms: 1_000 });
    witness.follow(&ledger(log))?;
    Ok(witness)
}

fn operation(called: u64, returned: u64, body: Body, ended: Ending) -> Operation {
    Operation {
        client: 0,
        op_index: 0,
        space: Space::Strong,
        body,
        session: None,
        seen_at: 0,
        called,
        returned,
        ended,
        answered_by: None,
    }
}

fn write(called: u64, returned: u64, mutations: Vec<Mutation>, ended: Ending) -> Operation {
    operation(called, returned, Body::Write { mutations, level: Level::Durable }, ended)
}

fn with(session: Option<Session>, operation: Operation) -> Operation {
    Operation { session, ..operation }
}

fn at(index: u64) -> Ending {
    let receipt = Receipt { revision: Some(Index(index)), context: None, existed: false };
    Ending::Answered(Outcome::Committed { level: Level::Durable, receipt })
}

fn conflict(found: Option<u64>) -> Ending {
    Ending::Answered(Outcome::Rejected(Reason::Conflict { revision: found.map(Index), at: 0 }))
}

fn register(seen: Option<(&'static str, u64)>) -> Register {
    let (value, revision) = seen.unzip();
    Register { value: value.map(bytes), revision: revision.map(Index), ..Register::default() }
}

fn read(
    called: u64,
    returned: u64,
    key: &'static str,
    seen: Option<(&'static str, u64)>,
) -> Operation {
    let body = Body::Read(Query::Get { key: bytes(key), field: Bytes::new() });
    let ended = Ending::Answered(Outcome::Value(Value::Register(register(seen))));
    operation(called, returned, body, ended)
}

fn judge(log: &[Logged], operations: Vec<Operation>) -> Verdict {
    let history = History { operations, ..History::default() };
    strong::check(&history, &witness(log)?)
}

fn one(value: &'static str) -> Logged {
    (None, put("k", value))
}

pub(super) fn all() -> Vec<Planted> {
    [registers(), swaps(), unknowns(), log(), replies(), applied()].concat()
}

fn registers() -> Vec<Planted> {
    let a = || write(0, 1, put("k", "a"), at(1));
    let b = || write(2, 3, put("k", "b"), at(2));
    let both = || vec![one("a"), one("b")];
    let removed = || vec![one("a"), (session(0), delete("k"))];
    let remove = || with(session(0), write(2, 3, delete("k"), at(2)));
    vec![
        good("nothing happened", judge(&[], Vec::new())),
        good("a write is read", judge(&[one("a")], vec![a(), read(2, 3, "k", Some(("a", 1)))])),
        bad("stale read", strong::SEARCH, judge(&[one("a")], vec![a(), read(2, 3, "k", None)])),
        bad(
            "overwritten value read again",
            strong::SEARCH,
            judge(&both(), vec![a(), b(), read(4, 5, "k", Some(("a", 1)))]),
        ),
        bad(
            "read of a value never written",
            strong::SEARCH,
            judge(&[one("a")], vec![a(), read(2, 3, "k", Some(("x", 9)))]),
        ),
        bad(
            "read from the future",
            strong::SEARCH,
            judge(
                &both(),
                vec![a(), read(1, 2, "k", Some(("b", 2))), write(4, 5, put("k", "b"), at(2))],
            ),
        ),
        good("a removal is read", judge(&removed(), vec![a(), remove(), read(4, 5, "k", None)])),
        bad(
            "removed value comes back",
            strong::SEARCH,
            judge(&removed(), vec![a(), remove(), read(4, 5, "k", Some(("a", 1)))]),
        ),
        bad(
            "writes in the wrong order of the log",
            strong::WITNESS,
            judge(
                &[one("b"), one("a")],
                vec![write(0, 1, put("k", "a"), at(2)), write(2, 3, put("k", "b"), at(1))],
            ),
        ),
        bad(
            "read at another revision",
            strong::WITNESS,
            judge(
                &both(),
                vec![a(), write(2, 9, put("k", "b"), at(2)), read(3, 4, "k", Some(("b", 1)))],
            ),
        ),
    ]
}

fn swaps() -> Vec<Planted> {
    let log = || vec![one("a"), (None, cas(was("a"), "b")), (None, cas(was("a"), "c"))];
    let a = || write(0, 1, put("k", "a"), at(1));
    let b = |ended| write(2, 9, cas(was("a"), "b"), ended);
    let c = |ended| write(3, 9, cas(was("a"), "c"), ended);
    let pair = vec![change("k", Change::Put(bytes("a"))), change("l", Change::Put(bytes("a2")))];
    let two = || vec![one("0"), (None, pair.clone())];
    let twice = || write(0, 9, pair.clone(), at(2));
    vec![
        good("one of two swaps", judge(&log(), vec![a(), b(at(2)), c(conflict(Some(2)))])),
        bad("both swaps succeed", strong::SEARCH, judge(&log(), vec![a(), b(at(2)), c(at(3))])),
        bad(
            "swap refused by what it wanted",
            strong::SEARCH,
            judge(&log(), vec![a(), b(at(2)), c(conflict(Some(1)))]),
        ),
        good(
            "two keys at once",
            judge(
                &two(),
                vec![
                    twice(),
                    read(10, 11, "k", Some(("a", 2))),
                    read(12, 13, "l", Some(("a2", 2))),
                ],
            ),
        ),
        bad(
            "one of two keys of a write seen, then the other not",
            strong::WITNESS,
            judge(
                &two(),
                vec![
                    write(0, 1, put("k", "0"), at(1)),
                    twice(),
                    read(3, 4, "l", Some(("a2", 2))),
                    read(5, 6, "k", Some(("0", 1))),
                ],
            ),
        ),
    ]
}

fn unknowns() -> Vec<Planted> {
    let a = |ended| write(0, u64::MAX, put("k", "a"), ended);
    let seen = |called| read(called, called + 1, "k", Some(("a", 1)));
    let unseen = |called| read(called, called + 1, "k", None);
    vec![
        good(
            "unknown, and it happened",
            judge(&[one("a")], vec![a(Ending::Unknown), unseen(1), seen(3)]),
        ),
        good("unknown, and it did not happen", judge(&[], vec![a(Ending::Unknown), unseen(1)])),
        bad(
            "unknown, seen and then not",
            strong::SEARCH,
            judge(&[one("a")], vec![a(Ending::Unknown), seen(1), unseen(3)]),
        ),
        bad(
            "unknown, in no log, and seen",
            strong::SEARCH,
            judge(&[], vec![a(Ending::Unknown), unseen(1), seen(3), unseen(5)]),
        ),
        bad(
            "rejected, and it happened",
            EXACTLY_ONCE,
            judge(&[one("a")], vec![a(Ending::Nothing)]),
        ),
    ]
}

fn log() -> Vec<Planted> {
    let first = || (session(0), put("k", "a"));
    let told = |ended| with(session(0), write(0, 1, put("k", "a"), ended));
    vec![
        good(
            "a session's command twice in the log",
            judge(&[first(), one("b"), first()], vec![told(at(1))]),
        ),
        bad(
            "a retry answered differently",
            strong::WITNESS,
            judge(&[first(), one("b"), first()], vec![told(at(3))]),
        ),
        bad(
            "a write twice in the log",
            EXACTLY_ONCE,
            judge(&[one("a"), one("b"), one("a")], Vec::new()),
        ),
        bad(
            "acknowledged, and in no log",
            strong::WITNESS,
            judge(&[], vec![write(0, 1, put("k", "a"), at(1))]),
        ),
        bad(
            "acknowledged, and rejected in the log",
            strong::WITNESS,
            judge(
                &[one("a"), (None, cas(was("a"), "b")), (None, cas(was("a"), "c"))],
                vec![write(0, 1, put("k", "a"), at(1)), write(2, 3, cas(was("a"), "c"), at(3))],
            ),
        ),
    ]
}

fn replies() -> Vec<Planted> {
    let log = [one("a"), (session(0), delete("k")), one("b")];
    let witness = witness(&log).expect("it is a sound log");
    let judge = |floor, seen| {
        read_sees_acknowledged::check_read(
            &bytes("k"),
            Index(floor),
            &register(seen),
            Some(&witness),
        )
    };
    vec![
        good("a read of the latest value", judge(1, Some(("b", 3)))),
        good("nothing was acknowledged", judge(0, None)),
        good("absent since a removal", judge(2, None)),
        bad(
            "a reply older than what was acknowledged",
            read_sees_acknowledged::NAME,
            judge(3, Some(("a", 1))),
        ),
        bad("absent after a later write", read_sees_acknowledged::NAME, judge(3, None)),
    ]
}

fn applied() -> Vec<Planted> {
    let held = |seq, revision| Remembered {
        seq,
        request: Fingerprint([0; 16]),
        used: Index(revision),
        reply: Reply::Written { revision: Index(revision), existed: false },
        used_ms: 0,
    };
    let new = |held: Option<&Remembered>| {
        let session = session(4).expect("a session");
        session_applied_once::check_new(session, Effect::Written(Index(9)), held)
    };
    let at = |revision| {
        let id = SessionId([7; 16]);
        session_applied_once::check_untouched(
            id,
            &bytes("k"),
            &register(Some(("a", revision))),
            Index(9),
        )
    };
    vec![
        good("a session's answer is kept", new(Some(&held(4, 9)))),
        bad("a session forgotten", session_applied_once::NAME, new(None)),
        bad("another answer kept", session_applied_once::NAME, new(Some(&held(4, 8)))),
        bad(
            "the answer to another request kept",
            session_applied_once::NAME,
            new(Some(&Remembered { request: Fingerprint([1; 16]), ..held(4, 9) })),
        ),
        bad("an older answer kept", session_applied_once::NAME, new(Some(&held(3, 9)))),
        good("a repeat writes nothing", at(5)),
        bad("a repeat applied again", session_applied_once::NAME, at(9)),
    ]
}
