//! Anti-entropy: one replica pulls from another until nothing differs.
//!
//! Two replicas compare roots first. If the roots differ, each side pulls from the other in a session of its own. A
//! question carries all dots that the asker holds; the answerer keeps no state. If the writes that the asker has not
//! seen do not fit into one message, the answer is a *page* of them and says nothing else. Otherwise the answer is a
//! *view*: the rest of those writes and the answerer's context, both as of one instant. The asker then follows
//! differing fingerprints down to lists of live dots; each list is a part of another view.
//!
//! # Why no view covers too much
//!
//! Claim: every dot that a session covers is held, or a chain of superseding writes leads from it to a write that is
//! held, or to a removal; and what its write superseded is dead here.
//!
//! Let t be the instant of the session's first view. A dot covered at the answerer at t is live there or dead there. If
//! it is live, it was in the asker's context when it asked, or its write is in the view. (An asker's context never
//! shrinks: it was durable before the question left, so not even a crash takes a dot out of it.) If it is dead, a write
//! superseded it. Either the answerer had covered that write's dot by t, and the session covers this dot too. Or the
//! answerer was told of the death and not yet of that write, which was dead then where it was told, and so superseded
//! in its turn. So the first part follows along the chain, which is finite and ends in a live write or in a removal.
//!
//! The dots of dead writes are covered when the session is done, and not before. An element that is dead at t stays
//! dead, so the later views, each of a later instant, do not list it; and when no span differs any more, nothing that
//! the first view covered and that was dead there lives here. Were a removal covered with the first view, then this
//! replica would promise to hold it, the author might count on that, and the removed element might still live here if
//! the answerer were lost before the next view. The other way round is harmless: an element may die here before the
//! write that superseded it is covered.
//!
//! A page covers only the dots of the writes that it carries. A write that is refused here is skipped, and a view
//! covers all but its dot; the session does not ask for it again. But if the bytes of a write do not match its hash,
//! its dot is unknown, and the view covers nothing: its other writes are taken as those of a page are. All that a view
//! changes is one record, which is issued with the records of its writes, so no crash separates them.
//!
//! A view also carries a stamp that is at least that of every write in its context, so that an author of a discarding
//! shard stamps above writes of which it knows only that they are dead (see `write::hlc`).
//!
//! Two writes with one dot are possible only if a member lies. The one with the greater hash wins everywhere: an asker
//! that sees a greater hash in a list leaves the dot out of its next question, so that the answer brings the write.
//!
//! An asker believes a removal only within a view, because the view carries the writes that replaced what was removed.
//! A live element in a view may be dead at the asker; the answerer learns that when it pulls in turn.

pub(crate) mod ack;
pub(crate) mod lag;
pub(crate) mod message;
pub(crate) mod peer;
pub(crate) mod push;
pub(crate) mod receive;
pub(crate) mod session;
pub(crate) mod summary;

use alloc::vec::Vec;

use bytes::Bytes;

use crate::id::{Actor, Dot};
use crate::limits::{CONTEXT_BYTES_MAX, FRAME_BYTES_MAX, STAMP_MAX};
use crate::{codec, mutant, reach};

use self::message::{Answer, ListedWrite, PullError, View};
use super::shard::{
    Cover, Deferred, Dots, Join, LIST_BITS, LiveEdits, LiveWrite, LocalDot, Ranges, Shard, Span,
};
use super::write;

/// The most spans in one question.
pub(crate) const SPANS_MAX: usize = 32;
/// The most bytes of answers about spans in one view, without the last answer, which may have as many again.
const ANSWER_BYTES_MAX: usize = 128 << 10;
/// The most bytes of deferred removals in one view. A view leaves out the rest, which costs another session and no
/// element.
const DEFERRED_BYTES_MAX: usize = 64 << 10;
/// The bytes of a message beside its counted parts.
const ENVELOPE_BYTES: usize = 4 << 10;

/// An answer to a question.
pub(crate) enum Reply {
    /// Some of the writes that the asker has not seen.
    Page(Vec<Bytes>),
    /// One instant of this replica.
    View(View),
    /// The reason why there is no answer.
    Refused(PullError),
}

/// Answers a question. The asker holds the dots in `held`, or does not want them; at most about `page_bytes` bytes of
/// writes are sent.
pub(crate) fn answer(shard: &Shard, held: &Dots, spans: &[Span], page_bytes: usize) -> Reply {
    let mut view = View { context: shard.dots(), stamp: shard.stamp, ..View::default() };
    let context_bytes = codec::encoded_len(&view.context) + 10 * view.context.len();
    if context_bytes > CONTEXT_BYTES_MAX {
        reach!("replication.sync.context_too_large");
        return Reply::Refused(PullError::ContextTooLarge);
    }
    let mut used = context_bytes + ENVELOPE_BYTES;
    used += add_answers(shard, spans, &mut view.answers);
    used += add_deferred(shard, &mut view.deferred);
    used += add_covers(shard, &mut view.covers);
    let room = page_bytes.min(FRAME_BYTES_MAX.saturating_sub(used));
    let (writes, complete) = unseen_within(shard, held, room);
    if !complete && !mutant!("replication.sync.covers_early") {
        reach!("replication.sync.page");
        return Reply::Page(page(shard, held, page_bytes));
    }
    let total =
        |actor: &Actor| shard.number(actor).map_or(0, |number| shard.fingerprints.actor(number));
    view.totals = view.context.iter().map(|(actor, _)| total(actor)).collect();
    let writes = writes.into_iter();
    view.writes = writes.map(|live| (live.sealed.clone(), live.partial_edits())).collect();
    Reply::View(view)
}

/// The live writes that are not in `held`, in the order of the table.
fn unseen<'a>(shard: &'a Shard, held: &'a Dots) -> impl Iterator<Item = &'a LiveWrite> {
    shard.actors().flat_map(move |(actor, number)| {
        let seen = shard.seen(number);
        let rest = held.ranges(actor).map_or_else(|| seen.clone(), |ranges| seen.minus(ranges));
        let ranges: Vec<_> = rest.iter().collect();
        ranges.into_iter().flat_map(move |(low, high)| {
            shard.live.range((number, low)..=(number, high)).map(|(_, live)| live)
        })
    })
}

/// The unseen writes that fit into `room` bytes, and whether these are all.
fn unseen_within<'a>(shard: &'a Shard, held: &'a Dots, room: usize) -> (Vec<&'a LiveWrite>, bool) {
    let mut writes = Vec::new();
    let mut bytes = 0;
    for live in unseen(shard, held) {
        // The live edits of the longest write have 16 words.
        bytes += live.sealed.len() + if live.whole { 8 } else { 180 };
        if bytes > room {
            return (writes, false);
        }
        writes.push(live);
    }
    (writes, true)
}

/// The first unseen writes, at least one: every single write fits into a message of its own.
fn page(shard: &Shard, held: &Dots, page_bytes: usize) -> Vec<Bytes> {
    let mut bytes = 0;
    let fits = |live: &&LiveWrite| {
        let first = bytes == 0;
        bytes += live.sealed.len() + 8;
        first || bytes <= page_bytes
    };
    unseen(shard, held).take_while(fits).map(|live| live.sealed.clone()).collect()
}

/// Answers about spans, until their bytes reach a bound. Returns their bytes.
fn add_answers(shard: &Shard, spans: &[Span], answers: &mut Vec<Answer>) -> usize {
    let mut bytes = 0;
    for span in spans {
        if bytes > ANSWER_BYTES_MAX {
            break;
        }
        let answer = answer_span(shard, span);
        bytes += codec::encoded_len(&answer);
        answers.push(answer);
    }
    bytes
}

fn answer_span(shard: &Shard, span: &Span) -> Answer {
    let number = shard.number(&span.actor);
    if span.bits <= LIST_BITS {
        let Some(number) = number else { return Answer::List(Vec::new()) };
        return Answer::List(live_in(shard, number, span).map(list_write).collect());
    }
    let sum = |part| number.map_or(0, |number| shard.fingerprints.span(number, &part));
    Answer::Parts((0..span.parts()).map(|index| sum(span.part(index))).collect())
}

fn live_in<'a>(
    shard: &'a Shard,
    number: u32,
    span: &Span,
) -> impl Iterator<Item = (&'a LocalDot, &'a LiveWrite)> + use<'a> {
    shard.live.range((number, span.base)..=(number, span.last()))
}

fn list_write((dot, live): (&LocalDot, &LiveWrite)) -> ListedWrite {
    let hash = write::hash_of(&live.sealed).short();
    ListedWrite { seq: dot.1, hash, edits: live.partial_edits() }
}

/// Adds deferred removals, until their bytes reach a bound. Returns their bytes.
fn add_deferred(shard: &Shard, all: &mut Vec<(Dot, Deferred)>) -> usize {
    let mut bytes = 0;
    for (dot, deferred) in shard.deferred() {
        let entry = (dot, *deferred);
        bytes += codec::encoded_len(&entry);
        if bytes > DEFERRED_BYTES_MAX {
            return DEFERRED_BYTES_MAX;
        }
        all.push(entry);
    }
    bytes
}

/// Adds covers that wait, until their bytes reach a bound. Returns their bytes.
fn add_covers(shard: &Shard, all: &mut Vec<Cover>) -> usize {
    let mut bytes = 0;
    for cover in shard.waiting_covers() {
        let more = codec::encoded_len(&cover);
        if bytes + more > DEFERRED_BYTES_MAX {
            break;
        }
        bytes += more;
        all.push(cover);
    }
    bytes
}

/// Whether a view keeps the rules by which [`answer`] makes it.
pub(crate) fn is_valid(view: &View, asked: &[Span]) -> bool {
    let answer = |(span, answer): (&Span, &Answer)| match answer {
        Answer::List(list) => {
            span.bits <= LIST_BITS
                && list.windows(2).all(|pair| pair[0].seq < pair[1].seq)
                && list.iter().all(|listed| listed.edits.as_ref().is_none_or(LiveEdits::is_valid))
        }
        Answer::Parts(parts) => span.bits > LIST_BITS && parts.len() == usize::from(span.parts()),
    };
    view.context.is_valid()
        && view.stamp <= STAMP_MAX
        && view.totals.len() == view.context.len()
        && view.covers.iter().all(Cover::is_valid)
        && view.answers.len() <= asked.len()
        && view.writes.iter().all(|(_, edits)| edits.as_ref().is_none_or(LiveEdits::is_valid))
        && asked.iter().zip(&view.answers).all(answer)
}

/// The differences between this shard and the answers about spans.
#[derive(Debug, Default)]
pub(crate) struct Differences {
    /// For live writes here: the only edits that live at the peer.
    pub(crate) removals: Vec<(Dot, LiveEdits)>,
    /// Writes that have a greater hash at the peer.
    pub(crate) outranked: Vec<Dot>,
    /// The spans to look at next.
    pub(crate) next: Vec<Span>,
}

/// Compares this shard with the answers about spans.
pub(crate) fn compare(shard: &Shard, view: &View, asked: &[Span]) -> Differences {
    let mut found = Differences::default();
    for (span, answer) in asked.iter().zip(&view.answers) {
        let Some(number) = shard.number(&span.actor) else { continue };
        let Some(theirs) = view.context.ranges(&span.actor) else { continue };
        match answer {
            Answer::List(list) => {
                compare_list(shard, (number, span), theirs, list, &mut found);
            }
            Answer::Parts(parts) => {
                let each = (0..span.parts()).map(|index| span.part(index)).zip(parts);
                let differs =
                    |(part, sum): &(Span, &u64)| expected_sum(shard, number, part, theirs) != **sum;
                found.next.extend(each.filter(differs).map(|(part, _)| part));
            }
        }
    }
    found
}

/// Adds the live writes here that the peer has seen and lists without some of their elements, or does not list, and
/// those that it lists with a greater hash.
fn compare_list(
    shard: &Shard,
    (number, span): (u32, &Span),
    theirs: &Ranges,
    list: &[ListedWrite],
    differences: &mut Differences,
) {
    for (dot, live) in live_in(shard, number, span).filter(|(dot, _)| theirs.contains(dot.1)) {
        match list.binary_search_by_key(&dot.1, |listed| listed.seq) {
            Err(_) => {
                reach!("replication.sync.removal");
                differences.removals.push((shard.dot(*dot), LiveEdits::default()));
            }
            Ok(found) => {
                let listed = &list[found];
                let hash = write::hash_of(&live.sealed).short();
                if listed.hash != hash {
                    reach!("replication.sync.equivocation");
                    if listed.hash > hash {
                        differences.outranked.push(shard.dot(*dot));
                    }
                    continue;
                }
                let edits = listed.edits.as_ref();
                if let Some(edits) = edits.filter(|edits| !live.edits.minus(edits).is_empty()) {
                    reach!("replication.sync.partial_removal");
                    differences.removals.push((shard.dot(*dot), edits.clone()));
                }
            }
        }
    }
}

/// The spans of the actors whose live writes differ from those in the view.
pub(crate) fn differing(shard: &Shard, view: &View) -> Vec<Span> {
    let mut spans = Vec::new();
    for ((actor, ranges), total) in view.context.iter().zip(&view.totals) {
        let span = Span::whole(*actor, ranges.last().max(shard.last_seen(actor)));
        let Some(number) = shard.number(actor) else { continue };
        if expected_sum(shard, number, &span, ranges) != *total {
            spans.push(span);
        }
    }
    spans
}

/// The sum that the peer has over a span if both replicas are equal: that over the live writes here that it has seen.
fn expected_sum(shard: &Shard, number: u32, span: &Span, theirs: &Ranges) -> u64 {
    let mut sum = shard.fingerprints.span(number, span);
    let within = |ranges: &Ranges| ranges.within(span.base, span.last());
    for (low, high) in within(shard.seen(number)).minus(&within(theirs)).iter() {
        for (_, live) in shard.live.range((number, low)..=(number, high)) {
            sum = sum.wrapping_sub(live.leaf().short());
        }
    }
    sum
}

/// The content of a view beyond its writes, as far as it is new here. The shard must hold all writes of the view but
/// the refused ones.
pub(crate) fn changes(
    shard: &Shard,
    view: &View,
    mut removals: Vec<(Dot, LiveEdits)>,
    refused: &Dots,
) -> Join {
    let unseen = view.context.iter().map(|(actor, ranges)| {
        let seen = shard.number(actor).map(|number| shard.seen(number));
        (*actor, seen.map_or_else(|| ranges.clone(), |seen| ranges.minus(seen)))
    });
    let mut context = Dots::new(unseen.collect());
    if !mutant!("replication.session.covers_refused") {
        context.subtract(refused);
    }
    for (sealed, edits) in &view.writes {
        let dot = write::reopen(sealed).dot;
        let live = shard.number(&dot.actor).and_then(|number| shard.live.get(&(number, dot.seq)));
        if let (Some(edits), Some(live)) = (edits, live)
            && write::hash_of(&live.sealed) == write::hash_of(sealed)
            && !live.edits.minus(edits).is_empty()
        {
            removals.push((dot, edits.clone()));
        }
    }
    removals.extend(
        view.deferred
            .iter()
            .filter_map(|(dot, removal)| Some((*dot, shard.edits_without(dot, *removal)?))),
    );
    let is_new = |(dot, removal): &&(Dot, Deferred)| {
        !shard.contains(dot) && !view.context.contains(dot) && !shard.is_deferred(dot, removal)
    };
    let deferred = view.deferred.iter().filter(is_new).cloned().collect();
    let covers = view.covers.iter().filter(|cover| !shard.has_cover(cover)).cloned().collect();
    Join { context, deferred, covers, removals, stamp: view.stamp }
}
