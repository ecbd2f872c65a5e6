//! Exports against plain maps that are copied when they begin.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use proptest::prelude::*;

use super::keys::mutations;
use super::{apply, mutation, put, write};
use crate::api::{Change, Content, ExportCursor, ExportPage, Mutation, Reason, Row};
use crate::id::{ExportId, Index};
use crate::limits::{
    EXPORT_IDLE_MS, EXPORT_LOOKS_MAX, EXPORT_SLOT_BYTES, EXPORT_YIELD_MS, EXPORTS_MAX,
};
use crate::state::{Asked, Kind, Reply, StateMachine};
use crate::time::Instant;

type Model = BTreeMap<Bytes, Bytes>;

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Mutation>),
    Begin { prefix: Bytes, limit: u32, values: bool },
    Page { which: usize, limit: u32 },
    Again { which: usize },
    Capture,
    Slice(usize),
    Sweep(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let prefix = prop_oneof![3 => Just(Bytes::new()), 1 => (0..12_u8).prop_map(|b| vec![b].into())];
    prop_oneof![
        12 => mutations().prop_map(Step::Write),
        3 => (prefix, 1..6_u32, any::<bool>())
            .prop_map(|(prefix, limit, values)| Step::Begin { prefix, limit, values }),
        8 => (0..2_usize, 1..6_u32).prop_map(|(which, limit)| Step::Page { which, limit }),
        3 => (0..2_usize).prop_map(|which| Step::Again { which }),
        2 => Just(Step::Capture),
        2 => (1..64_usize).prop_map(Step::Slice),
        1 => (0..9_usize).prop_map(Step::Sweep),
    ]
}

/// The reader of an export.
#[derive(Debug)]
struct Reader {
    id: ExportId,
    prefix: Bytes,
    values: bool,
    /// The rows that it must be told, copied when it began.
    then: Model,
    at: Index,
    /// The last page that it asked for, and the answer.
    asked: (Option<ExportCursor>, u32),
    page: ExportPage,
    /// The bytes that its export must keep, by key.
    kept: BTreeMap<Bytes, u64>,
}

impl Reader {
    /// Asks for a page, and judges it.
    fn ask(
        &mut self,
        machine: &mut StateMachine,
        from: Option<ExportCursor>,
        limit: u32,
        now: Instant,
    ) {
        let (prefix, values) = (&self.prefix.clone(), self.values);
        let asked = Asked { from: from.as_ref(), prefix, limit, values };
        self.page = machine.export(asked, self.id, now).expect("it is under way");
        self.judge(from.as_ref(), limit);
        if let Some(from) = &from {
            self.kept.retain(|key, _| *key > from.after);
        }
        self.asked = (from, limit);
    }

    fn judge(&self, from: Option<&ExportCursor>, limit: u32) {
        let is_left = |(key, _): &(&Bytes, &Bytes)| from.is_none_or(|from| **key > from.after);
        let left: Vec<Row> =
            self.then.iter().filter(is_left).map(|(k, v)| self.row(k, v)).collect();
        let count = left.len().min(limit as usize);
        assert_eq!(self.page.rows, left[..count]);
        assert_eq!(self.page.at, self.at);
        let next = self.page.next.as_ref();
        assert!(next.is_none_or(|next| next.export == self.id));
        // A key that was created since may stand after the last row, so that a further page has nothing.
        assert!(next.is_some() || count == left.len());
    }

    fn row(&self, key: &Bytes, value: &Bytes) -> Row {
        let content = Content::Register(vec![value.clone()]);
        let field = crate::api::Field { field: Bytes::new(), content };
        Row { key: key.clone(), fields: if self.values { vec![field] } else { Vec::new() } }
    }

    fn confirmed(&self) -> Option<&Bytes> {
        self.asked.0.as_ref().map(|from| &from.after)
    }

    /// A key changes.
    fn changes(&mut self, key: &Bytes, before: Option<&Bytes>) {
        let is_needed = self.confirmed().is_none_or(|confirmed| key > confirmed);
        if is_needed && key.starts_with(&self.prefix) {
            let bytes = EXPORT_SLOT_BYTES + (key.len() + before.map_or(0, Bytes::len)) as u64;
            self.kept.entry(key.clone()).or_insert(bytes);
        }
    }
}

/// A machine, its model and its readers.
struct World {
    machine: StateMachine,
    model: Model,
    readers: Vec<Reader>,
    /// The state when a capture began.
    captured: Option<Vec<Bytes>>,
    chunks: Vec<Bytes>,
    ms: u64,
}

impl World {
    fn write(&mut self, mutations: Vec<Mutation>) {
        let reply = apply(&mut self.machine, 0, &write(None, mutations.clone()));
        let Reply::Written { .. } = reply else { return };
        for Mutation { key, edits, .. } in mutations {
            for edit in edits {
                let value = match edit.change {
                    Change::Put(value) | Change::Cas { value: Some(value), .. } => Some(value),
                    _ => None,
                };
                let before = self.model.get(&key).cloned();
                if value.is_some() || before.is_some() {
                    self.readers
                        .iter_mut()
                        .for_each(|reader| reader.changes(&key, before.as_ref()));
                }
                match value {
                    Some(value) => drop(self.model.insert(key.clone(), value)),
                    None => drop(self.model.remove(&key)),
                }
            }
        }
    }

    fn begin(&mut self, prefix: Bytes, limit: u32, values: bool) {
        let mut id = ExportId::default();
        id.0[..8].copy_from_slice(&self.ms.to_be_bytes());
        let then = self.model.iter().filter(|(key, _)| key.starts_with(&prefix));
        let then: Model = then.map(|(key, value)| (key.clone(), value.clone())).collect();
        let now = Instant::from_millis(self.ms);
        let at = self.machine.applied();
        let page = ExportPage { at, rows: Vec::new(), next: None };
        let (asked, kept) = ((None, limit), BTreeMap::new());
        let mut reader = Reader { id, prefix, values, then, at, asked, page, kept };
        let is_long = reader.then.len() > limit as usize;
        if is_long && self.readers.len() == EXPORTS_MAX {
            let read = |(_, reader): &(usize, &Reader)| reader.page.next.is_none();
            let Some((read, _)) = self.readers.iter().enumerate().find(read) else {
                let asked = Asked { from: None, prefix: &reader.prefix, limit, values };
                let refused = self.machine.export(asked, id, now);
                return assert_eq!(refused, Err(Reason::ExportsBusy));
            };
            // One that was read to its end makes room. Of two, the one that got there first.
            self.readers.remove(read);
        }
        reader.ask(&mut self.machine, None, limit, now);
        if is_long {
            self.readers.push(reader);
        }
    }

    /// A reader asks for its next page, or for the last one again.
    fn page(&mut self, which: usize, limit: Option<u32>) {
        let now = Instant::from_millis(self.ms);
        if which >= self.readers.len() {
            return;
        }
        let mut reader = self.readers.remove(which);
        let place = match (limit, reader.page.next.clone(), reader.asked.clone()) {
            (Some(limit), Some(next), _) => {
                reader.ask(&mut self.machine, Some(next), limit, now);
                // In the order in which they got further.
                self.readers.len()
            }
            (None, _, (Some(from), limit)) => {
                let (rows, is_last) = (reader.page.rows.clone(), reader.page.next.is_none());
                reader.ask(&mut self.machine, Some(from), limit, now);
                assert_eq!(reader.page.rows, rows, "a page that is asked for again");
                assert!(!is_last || reader.page.rows.len() <= limit as usize);
                which
            }
            _ => which,
        };
        self.readers.insert(place, reader);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Write(mutations) => self.write(mutations),
            Step::Begin { prefix, limit, values } => self.begin(prefix, limit, values),
            Step::Page { which, limit } => self.page(which, Some(limit)),
            Step::Again { which } => self.page(which, None),
            Step::Capture => {
                if self.machine.begin_capture() {
                    self.captured = Some(super::capture(&self.machine));
                }
            }
            Step::Slice(budget) => match self.machine.next_slice(budget) {
                crate::state::Slice::Chunk(chunk) => self.chunks.push(chunk),
                crate::state::Slice::More => {}
                crate::state::Slice::Done => {
                    if let Some(captured) = self.captured.take() {
                        assert_eq!(
                            core::mem::take(&mut self.chunks),
                            captured,
                            "no export is in it"
                        );
                    }
                }
            },
            Step::Sweep(slots) => drop(self.machine.sweep_exports(slots)),
        }
    }

    /// The exports count what they keep.
    fn check_counts(&mut self) {
        let mut kept: u64 = self.readers.iter().flat_map(|reader| reader.kept.values()).sum();
        let held =
            self.model.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>();
        assert_eq!(self.machine.bytes(), held + self.machine.exports().bytes());
        assert!(self.machine.exports().bytes() >= kept);
        assert!(self.machine.sweep_exports(usize::MAX));
        assert_eq!(self.machine.exports().bytes(), kept);
        assert_eq!(self.machine.exports().len(), self.readers.len());
        while self.machine.end_largest_export() {
            kept = self.machine.exports().open_bytes();
        }
        assert!(self.machine.sweep_exports(usize::MAX) && self.machine.exports().is_empty());
        assert_eq!((kept, self.machine.bytes()), (0, held));
    }
}

proptest! {
    #[test]
    fn the_pages_of_an_export_are_one_state(steps in proptest::collection::vec(step(), 0..150)) {
        let (machine, model) = (StateMachine::new(Kind::Keys), Model::new());
        let (readers, captured, chunks) = (Vec::new(), None, Vec::new());
        let mut world = World { machine, model, readers, captured, chunks, ms: 0 };
        let some = (0..12_u8).map(|byte| put(&[byte], &[byte, 1])).collect();
        world.write(some);
        for step in steps {
            world.ms += 1;
            world.take(step);
        }
        // Each reader reads to the end.
        for which in 0..world.readers.len() {
            while world.readers[which].page.next.is_some() {
                let mut reader = world.readers.remove(which);
                let next = reader.page.next.clone();
                reader.ask(&mut world.machine, next, 3, Instant::from_millis(world.ms));
                world.readers.insert(which, reader);
            }
        }
        world.check_counts();
    }
}

/// A machine with this many keys, and an export of which the first page was read.
fn begun(keys: u32, limit: u32) -> (StateMachine, ExportCursor) {
    let mut machine = StateMachine::new(Kind::Keys);
    for chunk in (0..keys).collect::<Vec<_>>().chunks(1000) {
        let all = chunk.iter().map(|key| put(&key.to_be_bytes(), b"old")).collect();
        apply(&mut machine, 0, &write(None, all));
    }
    let page = ask(&mut machine, None, limit, 0).expect("room");
    (machine, page.next.expect("further keys"))
}

fn ask(
    machine: &mut StateMachine,
    from: Option<&ExportCursor>,
    limit: u32,
    ms: u64,
) -> Result<ExportPage, Reason> {
    let asked = Asked { from, prefix: &Bytes::new(), limit, values: true };
    let mut id = ExportId([7; 16]);
    id.0[..8].copy_from_slice(&ms.to_be_bytes());
    machine.export(asked, id, Instant::from_millis(ms))
}

#[test]
fn an_export_that_nobody_reads_ends_and_one_that_is_read_goes_on() {
    let (mut machine, first) = begun(10, 3);
    let second = ask(&mut machine, Some(&first), 3, 40_000).unwrap().next.unwrap();
    assert_eq!(machine.end_idle_exports(Instant::from_millis(99_999)), 0);
    // The same page once more is no progress.
    assert!(ask(&mut machine, Some(&first), 3, 99_999).is_ok());
    assert_eq!(machine.end_idle_exports(Instant::from_millis(40_000 + EXPORT_IDLE_MS)), 1);
    assert_eq!(ask(&mut machine, Some(&second), 3, 100_000), Err(Reason::ExportExpired));
    assert!(machine.exports().is_empty());
}

#[test]
fn an_export_that_was_read_stays_a_moment_and_did_not_expire() {
    let (mut machine, first) = begun(10, 7);
    assert_eq!(ask(&mut machine, Some(&first), 7, 100).unwrap().next, None);
    let end = 100 + EXPORT_YIELD_MS;
    assert_eq!(machine.end_idle_exports(Instant::from_millis(end - 1)), 0);
    assert_eq!(ask(&mut machine, Some(&first), 7, end - 1).unwrap().rows.len(), 3);
    assert_eq!(machine.end_idle_exports(Instant::from_millis(end)), 0);
    assert_eq!(machine.exports().len(), 0);
}

#[test]
fn exports_that_are_read_are_safe_from_who_begins_others() {
    let (mut machine, first) = begun(100, 3);
    let mut second = ask(&mut machine, None, 3, 1).unwrap().next.unwrap();
    assert_eq!(ask(&mut machine, None, 3, 2), Err(Reason::ExportsBusy));
    // A single page needs no room.
    assert_eq!(ask(&mut machine, None, 100, 2).unwrap().next, None);
    for ms in (0..20_000).step_by(1000) {
        second = ask(&mut machine, Some(&second), 3, ms).unwrap().next.unwrap();
        let third = ask(&mut machine, None, 3, ms);
        assert_eq!(third.is_ok(), ms % EXPORT_YIELD_MS == 0 && ms > 0, "at {ms}: {third:?}");
    }
    assert_eq!(ask(&mut machine, Some(&first), 3, 20_000), Err(Reason::ExportExpired));
    assert!(ask(&mut machine, Some(&second), 3, 20_000).is_ok());
}

#[test]
fn a_cursor_of_another_export_prefix_or_place_is_refused() {
    let (mut machine, first) = begun(10, 3);
    let second = ask(&mut machine, Some(&first), 3, 1).unwrap().next.unwrap();
    assert!(ask(&mut machine, Some(&second), 3, 2).is_ok());
    // Rows that were confirmed may be gone.
    let refused = Err(Reason::ExportExpired);
    assert_eq!(ask(&mut machine, Some(&first), 3, 3), refused);
    let other = ExportCursor { export: ExportId([9; 16]), ..second.clone() };
    assert_eq!(ask(&mut machine, Some(&other), 3, 3), refused);
    let prefix = Bytes::from_static(&[0]);
    let asked = Asked { from: Some(&second), prefix: &prefix, limit: 3, values: true };
    assert_eq!(machine.export(asked, ExportId::default(), Instant::from_millis(3)), refused);
    assert!(ask(&mut machine, Some(&second), 3, 4).is_ok(), "none of them ended it");
}

#[test]
fn keys_that_were_created_since_do_not_make_a_page_long_work() {
    let (mut machine, first) = begun(2, 1);
    // All of them stand between the two keys.
    for many in 0..10_u16 {
        let key = |one: u16| [&[0; 4], &(many * 1000 + one).to_be_bytes()[..]].concat();
        let created = (0..1000).map(|one| put(&key(one), b"new")).collect();
        apply(&mut machine, 0, &write(None, created));
    }
    let page = ask(&mut machine, Some(&first), 10, 1).unwrap();
    let next = page.next.expect("it looked at as many keys as it may");
    assert!(page.rows.is_empty() && EXPORT_LOOKS_MAX < 10_000);
    let last = ask(&mut machine, Some(&next), 10, 2).unwrap();
    assert_eq!((last.rows.len(), last.next), (1, None));
    assert_eq!(last.rows[0].key[..], 1_u32.to_be_bytes());
}

#[test]
fn a_copy_and_a_restored_state_have_no_export() {
    let (mut machine, first) = begun(10, 3);
    apply(&mut machine, 0, &write(None, vec![mutation(&[0, 0, 0, 9], Change::Delete)]));
    let mut copy = machine.clone();
    let chunks = super::capture(&machine);
    let mut restored = StateMachine::restore(Kind::Keys, &chunks).expect("its own bytes");
    for other in [&mut copy, &mut restored] {
        assert_eq!(ask(other, Some(&first), 3, 1), Err(Reason::ExportExpired));
        assert_eq!((other.exports().bytes(), other.digest()), (0, machine.digest()));
    }
    let rest = ask(&mut machine, Some(&first), 100, 1).unwrap();
    assert_eq!((rest.rows.len(), rest.next), (7, None));
}
