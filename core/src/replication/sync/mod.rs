//! Anti-entropy: one replica pulls from another until nothing differs.
//!
//! Roots are compared first. If they differ, each side pulls from the other in a session of its own. A question carries
//! all that the asker holds; the answerer keeps no state. If the writes that the asker has not seen do not fit into one
//! message the answer is a *page* of them and says nothing else. Otherwise it is a *view*: the rest of those writes and
//! the answerer's context, both as of one instant. The asker then follows differing fingerprints down to lists of live
//! dots, each list being part of another view.
//!
//! # Why no view covers too much
//!
//! Claim: after a view of instant t was applied, every dot that it covered is held, or superseded by what is held or
//! covered. A dot covered at the answerer at t is live there or dead there. Live ones were in the asker's context when
//! it asked, or are in the view. An asker's context never shrinks: it was durable before the question left, so not even
//! a crash takes a dot out of it. Dead ones were superseded by a write whose dot the answerer had covered by t, so this
//! dot is covered by the same view, and the chain of superseders, which is finite, ends in a live write or in a
//! removal. Pages cover nothing but the dots of the writes that they carry. A view of which one write was refused, or
//! whose context names a write that waits here for its stamp, covers nothing either: then its writes are taken like a
//! page. All that a view changes goes into one record after its writes, so no crash parts them.
//!
//! A death is believed only within a view, for the same reason: the superseder may be younger than the last view.
//! A live element in a view may be dead at the asker; the answerer will learn it when it pulls in turn.

pub(crate) mod ack;
pub(crate) mod message;
pub(crate) mod peer;
pub(crate) mod push;
pub(crate) mod receive;
pub(crate) mod session;

use alloc::vec::Vec;

use bytes::Bytes;

use crate::id::{Actor, Dot};
use crate::limits::{CONTEXT_BYTES_MAX, FRAME_BYTES_MAX};
use crate::reach;
use crate::{codec, mutant};

use self::message::{Answer, Fault, Listed, View};
use crate::replication::shard::{At, Doom, Dots, Join, LIST_BITS, Live, Mask, Ranges, Shard, Span};
use crate::replication::write;

/// Spans in one question.
pub(crate) const ASKS_MAX: usize = 32;
/// Bytes of answers about spans in one view, the last answer aside, which has at most as many again.
const ANSWER_BYTES_MAX: usize = 128 << 10;
/// Bytes of doomed parts in one view; more are left out, which costs a later session, no element.
const DOOMED_BYTES_MAX: usize = 64 << 10;
/// What a message takes beside its counted parts.
const ENVELOPE_BYTES: usize = 4 << 10;

/// An answer to a question.
pub(crate) enum Reply {
    /// Some writes.
    Page(Vec<Bytes>),
    /// An instant.
    Whole(View),
    /// None.
    Refused(Fault),
}

/// Answers a question: `held` is what the asker has, `page_bytes` how much may be sent.
pub(crate) fn answer(shard: &Shard, held: &Dots, asks: &[Span], page_bytes: usize) -> Reply {
    let mut view = View { context: shard.dots(), ..View::default() };
    let context_bytes = codec::encoded_len(&view.context) + 10 * view.context.len();
    if context_bytes > CONTEXT_BYTES_MAX {
        reach!("replication.sync.context_too_large");
        return Reply::Refused(Fault::ContextTooLarge);
    }
    let mut used = context_bytes + ENVELOPE_BYTES;
    used += answers(shard, asks, &mut view.answers);
    used += doomed(shard, &mut view.doomed);
    let room = page_bytes.min(FRAME_BYTES_MAX.saturating_sub(used));
    let (births, complete) = births(shard, held, room);
    if !complete && !mutant!("replication.sync.covers_early") {
        reach!("replication.sync.page");
        return Reply::Page(page(shard, held, page_bytes));
    }
    let number = |actor: &Actor| shard.number(actor).map_or(0, |n| shard.prints.actor(n));
    view.totals = view.context.iter().map(|(actor, _)| number(actor)).collect();
    view.births = births
        .into_iter()
        .map(|live| (live.sealed.clone(), (!live.whole).then(|| live.mask.clone())))
        .collect();
    Reply::Whole(view)
}

/// The live writes that are not in `held`, in the order of the table.
fn missing<'a>(shard: &'a Shard, held: &'a Dots) -> impl Iterator<Item = &'a Live> {
    shard.actors().flat_map(move |(actor, number)| {
        let seen = shard.seen(number);
        let rest = held.ranges(actor).map_or_else(|| seen.clone(), |ranges| seen.minus(ranges));
        let spans: Vec<_> = rest.iter().collect();
        spans.into_iter().flat_map(move |(low, high)| {
            shard.live.range((number, low)..=(number, high)).map(|(_, live)| live)
        })
    })
}

fn births<'a>(shard: &'a Shard, held: &'a Dots, room: usize) -> (Vec<&'a Live>, bool) {
    let mut births = Vec::new();
    let mut bytes = 0;
    for live in missing(shard, held) {
        // A mask of the longest write has 16 words.
        bytes += live.sealed.len() + if live.whole { 8 } else { 180 };
        if bytes > room {
            return (births, false);
        }
        births.push(live);
    }
    (births, true)
}

/// The first writes of those, at least one: a single write fits into a message of its own.
fn page(shard: &Shard, held: &Dots, page_bytes: usize) -> Vec<Bytes> {
    let mut bytes = 0;
    let fits = |live: &&Live| {
        let first = bytes == 0;
        bytes += live.sealed.len() + 8;
        first || bytes <= page_bytes
    };
    missing(shard, held).take_while(fits).map(|live| live.sealed.clone()).collect()
}

fn answers(shard: &Shard, asks: &[Span], answers: &mut Vec<Answer>) -> usize {
    let mut bytes = 0;
    for span in asks {
        if bytes > ANSWER_BYTES_MAX {
            break;
        }
        let answer = look(shard, span);
        bytes += codec::encoded_len(&answer);
        answers.push(answer);
    }
    bytes
}

fn look(shard: &Shard, span: &Span) -> Answer {
    let number = shard.number(&span.actor);
    if span.bits <= LIST_BITS {
        let Some(number) = number else { return Answer::List(Vec::new()) };
        return Answer::List(within(shard, number, span).map(listed).collect());
    }
    let parts = (0..span.parts()).map(|at| span.part(at));
    Answer::Parts(parts.map(|part| number.map_or(0, |n| shard.prints.span(n, &part))).collect())
}

fn within<'a>(
    shard: &'a Shard,
    number: u32,
    span: &Span,
) -> impl Iterator<Item = (&'a At, &'a Live)> + use<'a> {
    shard.live.range((number, span.base)..=(number, span.last()))
}

fn listed((at, live): (&At, &Live)) -> Listed {
    let mask = (!live.whole).then(|| live.mask.clone());
    Listed { seq: at.1, hash: write::hash_of(&live.sealed).short(), mask }
}

fn doomed(shard: &Shard, doomed: &mut Vec<(Dot, Doom)>) -> usize {
    let mut bytes = 0;
    for (dot, doom) in shard.doomed() {
        let entry = (dot, doom.clone());
        bytes += codec::encoded_len(&entry);
        if bytes > DOOMED_BYTES_MAX {
            return DOOMED_BYTES_MAX;
        }
        doomed.push(entry);
    }
    bytes
}

/// The sum over this shard's live writes in a span that the other side has seen: what its sum would be were we equal.
fn common(shard: &Shard, number: u32, span: &Span, theirs: &Ranges) -> u64 {
    let mut sum = shard.prints.span(number, span);
    for (low, high) in shard.seen(number).minus(theirs).iter() {
        let (low, high) = (low.max(span.base), high.min(span.last()));
        if low <= high {
            for (_, live) in shard.live.range((number, low)..=(number, high)) {
                sum = sum.wrapping_sub(live.leaf().short());
            }
        }
    }
    sum
}

/// The actors whose live writes differ from those in the view, as spans to look at.
pub(crate) fn differing(shard: &Shard, view: &View) -> Vec<Span> {
    let mut spans = Vec::new();
    for ((actor, ranges), total) in view.context.iter().zip(&view.totals) {
        let span = Span::whole(*actor, ranges.last().max(last(shard, actor)));
        let Some(number) = shard.number(actor) else { continue };
        if common(shard, number, &span, ranges) != *total {
            spans.push(span);
        }
    }
    spans
}

fn last(shard: &Shard, actor: &Actor) -> u64 {
    shard.number(actor).map_or(0, |number| shard.seen(number).last())
}

/// What the answers about spans teach: spans to look at next, and deaths. A write with two hashes comes back as `Err`.
pub(crate) fn compare(
    shard: &Shard,
    view: &View,
    asked: &[Span],
    spans: &mut Vec<Span>,
) -> Result<Vec<(Dot, Mask)>, Dot> {
    let mut deaths = Vec::new();
    for (span, answer) in asked.iter().zip(&view.answers) {
        let Some(number) = shard.number(&span.actor) else { continue };
        let Some(theirs) = view.context.ranges(&span.actor) else { continue };
        match answer {
            Answer::List(list) => deaths_in(shard, (number, span), theirs, list, &mut deaths)?,
            Answer::Parts(parts) => {
                let each = (0..span.parts()).map(|at| span.part(at)).zip(parts);
                let differs =
                    |(part, sum): &(Span, &u64)| common(shard, number, part, theirs) != **sum;
                spans.extend(each.filter(differs).map(|(part, _)| part));
            }
        }
    }
    Ok(deaths)
}

fn deaths_in(
    shard: &Shard,
    (number, span): (u32, &Span),
    theirs: &Ranges,
    list: &[Listed],
    deaths: &mut Vec<(Dot, Mask)>,
) -> Result<(), Dot> {
    for (at, live) in within(shard, number, span).filter(|(at, _)| theirs.contains(at.1)) {
        match list.binary_search_by_key(&at.1, |listed| listed.seq) {
            Err(_) => {
                reach!("replication.sync.death");
                deaths.push((shard.dot(*at), Mask::default()));
            }
            Ok(found) => {
                let listed = &list[found];
                if listed.hash != write::hash_of(&live.sealed).short() {
                    return Err(shard.dot(*at));
                }
                let mask = listed.mask.as_ref();
                if let Some(mask) = mask.filter(|mask| !live.mask.minus(mask).is_empty()) {
                    reach!("replication.sync.partial_death");
                    deaths.push((shard.dot(*at), mask.clone()));
                }
            }
        }
    }
    Ok(())
}

/// What a view teaches beyond its writes, which must all be held by now; only what is news.
pub(crate) fn teach(shard: &Shard, view: &View, mut deaths: Vec<(Dot, Mask)>) -> Join {
    let news = view.context.iter().map(|(actor, ranges)| {
        let seen = shard.number(actor).map(|number| shard.seen(number));
        (*actor, seen.map_or_else(|| ranges.clone(), |seen| ranges.minus(seen)))
    });
    let context = Dots::new(news.collect());
    for (sealed, mask) in &view.births {
        let dot = write::reopen(sealed).dot;
        let live = shard.number(&dot.actor).and_then(|number| shard.live.get(&(number, dot.seq)));
        if let (Some(mask), Some(live)) = (mask, live)
            && !live.mask.minus(mask).is_empty()
        {
            deaths.push((dot, mask.clone()));
        }
    }
    let unknown = |(dot, doom): &&(Dot, Doom)| {
        if shard.contains(dot) {
            shard.death_by(dot, doom).is_some()
        } else {
            !view.context.contains(dot) && !shard.is_doomed(dot, doom)
        }
    };
    Join { context, doomed: view.doomed.iter().filter(unknown).cloned().collect(), deaths }
}

/// Whether a view keeps the rules of its making.
pub(crate) fn is_valid(view: &View, asked: &[Span]) -> bool {
    let answer = |(span, answer): (&Span, &Answer)| match answer {
        Answer::List(list) => {
            span.bits <= LIST_BITS
                && list.windows(2).all(|pair| pair[0].seq < pair[1].seq)
                && list.iter().all(|listed| listed.mask.as_ref().is_none_or(Mask::is_valid))
        }
        Answer::Parts(parts) => span.bits > LIST_BITS && parts.len() == usize::from(span.parts()),
    };
    view.context.is_valid()
        && view.totals.len() == view.context.len()
        && view.answers.len() <= asked.len()
        && view.births.iter().all(|(_, mask)| mask.as_ref().is_none_or(Mask::is_valid))
        && asked.iter().zip(&view.answers).all(answer)
}
