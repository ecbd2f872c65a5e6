//! The layout: which time range of a run is drawn, which items are prominent, and the position of each.
//!
//! Time runs downward, but not evenly: a prominent item has a row of its own, and idle time is folded. Routine messages
//! are drawn faintly between the rows, at their time. This module does not know shapes and colours.

use std::collections::BTreeMap;

use continuum_core::id::{GroupId, Term};

use crate::env::clock::MS;
use crate::oracle::{
    ack_from_pinged_member, answer_to_its_own_try, bounded_memory, cheapest_is_chosen,
    context_covers_what_is_known, dead_write_stays_dead, dot_minted_once, durability_at_send,
    eventual, eventual_specification, health_hysteresis, hybrid_clock, incarnation_precedence,
    liveness, one_process_per_identity, one_reply, recovery, supersedes_what_was_seen,
    suspect_is_told, suspicion_before_death, suspicion_refuted, verified_contacts_only,
};
use crate::run::NO_PANIC;
use crate::scene::words::Protocol;
use crate::scene::{Batch, Lane, Moment, NodeEvent, Scene, Sent};
use crate::workload::history::{Operation, Space};

/// The most prominent messages; the picture begins late enough for that.
const SENT_MAX: usize = 150;
/// The most faint messages; the last ones are kept.
const FAINT_MAX: usize = 400;
/// The height of a row of text, in pixels.
const ROW: f64 = 15.0;
/// Characters that fit between a lane and the middle to the next; longer text takes the next column too.
const HALF_CHARS: usize = 19;
/// The height of folded time, in pixels.
const IDLE: f64 = 44.0;
/// Idle time above this is folded, and its length is shown.
const IDLE_NS: u64 = 250 * MS;

/// The positions and widths of columns, in pixels.
pub(crate) const TIME_X: f64 = 66.0;
pub(crate) const FAULTS_X: f64 = 86.0;
const FAULTS_WIDE: f64 = 210.0;
const CLIENTS_WIDE: f64 = 290.0;
const EMPTY_WIDE: f64 = 80.0;
const NODE_STEP: f64 = 260.0;
/// The height at which time begins.
pub(crate) const TOP: f64 = 64.0;

/// The part of the system that the broken law concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Focus {
    /// Raft, of one group or of all.
    Raft(Option<GroupId>),
    /// The eventual namespaces.
    Replication,
    /// Gossip: membership and failure detection.
    Gossip,
    /// All protocols.
    All,
}

impl Focus {
    /// The focus of a law. `group` is the group of the node's last Raft message or change.
    pub(crate) fn of(oracle: &str, what: &str, group: Option<GroupId>) -> Self {
        let named = what.split("group ").nth(1).and_then(|rest| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok().map(GroupId)
        });
        match oracle {
            eventual::CONVERGENCE
            | eventual::LOST
            | eventual::PHANTOM
            | eventual_specification::NAME
            | supersedes_what_was_seen::NAME
            | dead_write_stays_dead::NAME
            | context_covers_what_is_known::NAME
            | hybrid_clock::NAME
            | dot_minted_once::NAME => Self::Replication,
            incarnation_precedence::NAME
            | suspicion_before_death::NAME
            | suspicion_refuted::NAME
            | suspect_is_told::NAME
            | health_hysteresis::NAME
            | ack_from_pinged_member::NAME
            | verified_contacts_only::NAME => Self::Gossip,
            durability_at_send::NAME if what.contains("Dot") => Self::Replication,
            recovery::NAME if named.is_none() => Self::All,
            NO_PANIC
            | bounded_memory::NAME
            | answer_to_its_own_try::NAME
            | one_reply::NAME
            | liveness::NAME
            | one_process_per_identity::NAME
            | cheapest_is_chosen::NAME => Self::All,
            _ => Self::Raft(named.or(group)),
        }
    }

    fn shows(self, protocol: Protocol) -> bool {
        match (self, protocol) {
            (Self::All, _) => true,
            (Self::Raft(None), Protocol::Raft(_)) => true,
            (Self::Raft(Some(group)), Protocol::Raft(of)) => group == of,
            (Self::Replication, Protocol::Replication) => true,
            (Self::Gossip, Protocol::Gossip) => true,
            (Self::Gossip, Protocol::Requests) => false,
            (_, Protocol::Requests) => true,
            _ => false,
        }
    }

    const fn shows_space(self, space: Space) -> bool {
        match self {
            Self::All => true,
            Self::Raft(_) => matches!(space, Space::Strong),
            Self::Replication => !matches!(space, Space::Strong),
            Self::Gossip => false,
        }
    }
}

/// An item that has a row, with its index in the scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Item {
    /// A message leaves.
    Leaves(usize),
    /// One copy of a message arrives, or is lost on the way.
    Arrives(usize, usize),
    /// An event of a node.
    Node(usize),
    /// A disk begins to write a batch.
    Writes(usize),
    /// A batch is durable, or lost.
    Synced(usize),
    /// A fault begins.
    Begins(usize),
    /// A fault ends.
    Ends(usize),
    /// A client begins an operation.
    Calls(usize),
    /// An operation ends.
    Returns(usize),
}

/// A column of the picture in which texts must not overlap.
type Cell = i64;
const FAULT_CELL: Cell = -4;
const CLIENT_CELL: Cell = -3;

/// The layout of one picture.
#[derive(Debug)]
pub(crate) struct Layout<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) operations: &'a [Operation],
    pub(crate) from: u64,
    pub(crate) until: u64,
    pub(crate) focus: Focus,
    /// The position of the clients' lane.
    pub(crate) clients_x: f64,
    /// Time and height of each row, both in ascending order.
    pub(crate) rows: Vec<(u64, f64)>,
    heights: BTreeMap<Item, f64>,
    /// Folded time: height and length in nanoseconds.
    pub(crate) folds: Vec<(f64, u64)>,
    pub(crate) height: f64,
}

impl<'a> Layout<'a> {
    pub(crate) fn new(
        scene: &'a Scene,
        operations: &'a [Operation],
        focus: Focus,
        until: u64,
    ) -> Self {
        let mut layout = Self {
            scene,
            operations,
            from: 0,
            until,
            focus,
            clients_x: 0.0,
            rows: Vec::new(),
            heights: BTreeMap::new(),
            folds: Vec::new(),
            height: TOP,
        };
        layout.from = layout.begin();
        let items = layout.items();
        let any = |is: fn(&Item) -> bool| items.iter().any(|(_, item)| is(item));
        let faults = any(|item| matches!(item, Item::Begins(_)));
        let clients = any(|item| matches!(item, Item::Calls(_) | Item::Returns(_)));
        layout.clients_x = FAULTS_X
            + if faults { FAULTS_WIDE } else { EMPTY_WIDE }
            + if clients { CLIENTS_WIDE } else { 0.0 };
        layout.place();
        layout
    }

    /// The position of a lane.
    pub(crate) fn x_of(&self, lane: Lane) -> f64 {
        match lane {
            Lane::Clients => self.clients_x,
            Lane::Node(node) => self.clients_x + 150.0 + node as f64 * NODE_STEP,
        }
    }

    /// The width of the picture.
    pub(crate) fn width(&self) -> f64 {
        self.x_of(Lane::Node(self.scene.names.count().saturating_sub(1))) + 220.0
    }

    /// The time at which the picture begins, late enough for `SENT_MAX` prominent messages.
    fn begin(&self) -> u64 {
        let shown = self.scene.sent.iter().filter(|sent| self.is_prominent(sent));
        let times: Vec<u64> = shown.map(|sent| sent.at).collect();
        let first = times.len().checked_sub(SENT_MAX).map_or(0, |first| times[first]);
        // Before the first message there is nothing to see.
        times.first().map_or(0, |at| at.saturating_sub(50 * MS)).max(first)
    }

    /// Whether a message has a row of its own.
    pub(crate) fn is_prominent(&self, sent: &Sent) -> bool {
        let client = sent.from == Lane::Clients || sent.to == Lane::Clients;
        let shown = self.focus.shows(sent.words.protocol) && !sent.words.is_routine;
        shown && sent.at >= self.from && (!client || self.shows_client(sent))
    }

    /// Whether a client's message concerns the focus of the picture.
    fn shows_client(&self, sent: &Sent) -> bool {
        let named = sent.words.label.split([',', ':']).next().unwrap_or_default();
        let mut operations = self.operations.iter();
        operations
            .find(|operation| named == format!("c{}.{}", operation.client, operation.op_index))
            .is_none_or(|operation| self.focus.shows_space(operation.space))
    }

    /// The last `FAINT_MAX` messages that have no row.
    pub(crate) fn faint(&self) -> impl Iterator<Item = &'a Sent> {
        let faint = self.scene.sent.iter().filter(|s| !self.is_prominent(s) && s.at >= self.from);
        let all: Vec<&Sent> = faint.collect();
        let skipped = all.len().saturating_sub(FAINT_MAX);
        all.into_iter().skip(skipped)
    }

    /// Whether an event of a node is shown.
    fn shows_moment(&self, moment: &Moment) -> bool {
        let shown = match &moment.event {
            NodeEvent::Role { group, term, .. } => {
                *term > Term(0) && self.focus.shows(Protocol::Raft(*group))
            }
            NodeEvent::Commit { group, .. } => {
                matches!(self.focus, Focus::Raft(_)) && self.focus.shows(Protocol::Raft(*group))
            }
            NodeEvent::Start { .. } | NodeEvent::Crash { .. } => true,
        };
        shown && moment.at >= self.from
    }

    /// The text of a batch's writes; `None` if none is shown.
    pub(crate) fn label_of(&self, batch: &Batch) -> Option<String> {
        let shown = batch.writes.iter().filter(|words| {
            !words.is_routine && !words.label.is_empty() && self.focus.shows(words.protocol)
        });
        let labels: Vec<&str> = shown.map(|words| words.label.as_str()).collect();
        match labels.len() {
            0 => None,
            1..=2 => Some(labels.join("; ")),
            more => Some(format!("{}; {} more", labels[0], more - 1)),
        }
    }

    fn shows_operation(&self, operation: &Operation) -> bool {
        self.focus.shows_space(operation.space)
    }

    /// All items, in the order of time.
    fn items(&self) -> Vec<(u64, Item)> {
        let mut all = Vec::new();
        let scene = self.scene;
        for (number, sent) in scene.sent.iter().enumerate().filter(|(_, s)| self.is_prominent(s)) {
            all.push((sent.at, Item::Leaves(number)));
            for (which, arrival) in sent.arrivals.iter().enumerate() {
                all.push((arrival.at.min(self.until), Item::Arrives(number, which)));
            }
        }
        let moments = scene.moments.iter().enumerate();
        all.extend(
            moments.filter(|(_, m)| self.shows_moment(m)).map(|(n, m)| (m.at, Item::Node(n))),
        );
        for (number, batch) in scene.batches.iter().enumerate() {
            if batch.at >= self.from && self.label_of(batch).is_some() {
                all.push((batch.at, Item::Writes(number)));
                all.push((batch.done_at.unwrap_or(self.until), Item::Synced(number)));
            }
        }
        for (number, window) in scene.windows.iter().enumerate() {
            let until = window.until.unwrap_or(self.until);
            if until >= self.from {
                all.push((window.at.max(self.from), Item::Begins(number)));
                all.push((until, Item::Ends(number)));
            }
        }
        for (number, operation) in self.operations.iter().enumerate() {
            if !self.shows_operation(operation) {
                continue;
            }
            if operation.called >= self.from {
                all.push((operation.called, Item::Calls(number)));
            }
            if operation.returned >= self.from && operation.returned > 0 {
                all.push((operation.returned, Item::Returns(number)));
            }
        }
        all.sort_by_key(|(at, _)| *at);
        all
    }

    /// Gives each item its height: not above earlier items, and below the items in the same cells.
    fn place(&mut self) {
        let mut cells: BTreeMap<Cell, f64> = BTreeMap::new();
        let (mut y, mut last) = (TOP, self.from);
        for (at, item) in self.items() {
            let passed = at - last;
            if passed > IDLE_NS {
                self.folds.push((y + IDLE / 2.0 + 4.0, passed));
            }
            y += gap(passed);
            let (above, below, taken) = self.extent(item);
            let lowest = taken.iter().filter_map(|cell| cells.get(cell)).copied();
            y = lowest.map(|bottom| bottom + above).fold(y, f64::max);
            for cell in taken {
                cells.insert(cell, y + below);
            }
            last = at;
            self.rows.push((at, y));
            self.heights.insert(item, y);
        }
        let passed = self.until.saturating_sub(last);
        if passed > IDLE_NS {
            self.folds.push((y + IDLE / 2.0 + 4.0, passed));
        }
        y += gap(passed) + 2.0 * ROW;
        self.rows.push((self.until, y));
        self.height = y;
    }

    /// The room that an item takes above and below its height, and its cells.
    fn extent(&self, item: Item) -> (f64, f64, Vec<Cell>) {
        let text = 0.5 * ROW;
        match item {
            Item::Leaves(number) => {
                let sent = &self.scene.sent[number];
                let long = self.is_labelled(number)
                    && sent.words.label.chars().count() + sent.fate.map_or(0, str::len)
                        > HALF_CHARS;
                let right = sent.to > sent.from;
                let above = if self.is_labelled(number) { ROW - 3.0 } else { 3.0 };
                (above, 3.0, beside(sent.from, right, long))
            }
            Item::Arrives(number, _) => {
                let sent = &self.scene.sent[number];
                (4.0, 4.0, beside(sent.to, sent.from > sent.to, false))
            }
            Item::Node(number) => {
                let Moment { node, event, .. } = &self.scene.moments[number];
                let lane = Lane::Node(*node);
                let mut cells = beside(lane, false, false);
                if !matches!(event, NodeEvent::Commit { .. }) {
                    cells.extend(beside(lane, true, false));
                }
                (text, text, cells)
            }
            Item::Writes(number) => {
                let batch = &self.scene.batches[number];
                let label = self.label_of(batch).unwrap_or_default();
                let long = label.chars().count() > HALF_CHARS;
                (text, text, beside(Lane::Node(batch.node), true, long))
            }
            Item::Begins(_) => (text, text, vec![FAULT_CELL]),
            Item::Calls(_) | Item::Returns(_) => (text, text, vec![CLIENT_CELL]),
            Item::Synced(_) | Item::Ends(_) => (0.0, 0.0, Vec::new()),
        }
    }

    /// Whether a message has a label. Of equal messages that a node sends at once to one side, only the first has one.
    pub(crate) fn is_labelled(&self, number: usize) -> bool {
        let sent = &self.scene.sent[number];
        let before = self.scene.sent[..number].iter().rev().take_while(|other| other.at == sent.at);
        let same = |other: &Sent| {
            other.from == sent.from
                && (other.to > other.from) == (sent.to > sent.from)
                && other.words.label == sent.words.label
                && self.is_prominent(other)
        };
        !before.into_iter().any(same)
    }

    /// The group whose roles are drawn on the lanes.
    pub(crate) fn group(&self) -> Option<GroupId> {
        match self.focus {
            Focus::Raft(Some(group)) => Some(group),
            Focus::Replication | Focus::Gossip => None,
            Focus::Raft(None) | Focus::All => {
                let groups = self.scene.moments.iter().filter_map(|moment| match moment.event {
                    NodeEvent::Role { group, .. } => Some(group),
                    _ => None,
                });
                groups.max()
            }
        }
    }

    /// The height of an item, if it has a row.
    pub(crate) fn y(&self, item: Item) -> Option<f64> {
        self.heights.get(&item).copied()
    }

    /// The height of a time.
    pub(crate) fn y_at(&self, at: u64) -> f64 {
        let after = self.rows.partition_point(|(time, _)| *time <= at);
        let next = self.rows.get(after).copied();
        let (last_at, last_y) =
            after.checked_sub(1).map_or((self.from, TOP), |last| self.rows[last]);
        let Some((next_at, next_y)) = next else { return self.height };
        let share = (at.max(last_at) - last_at) as f64 / (next_at - last_at).max(1) as f64;
        last_y + (next_y - last_y) * share
    }

    /// All items that have a row, with their heights.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (Item, f64)> + '_ {
        self.heights.iter().map(|(item, y)| (*item, *y))
    }
}

/// The cell beside a lane, and for long text the one behind it.
fn beside(lane: Lane, right: bool, long: bool) -> Vec<Cell> {
    // Two cells lie between two lanes, counted from the clients' lane.
    let at = match lane {
        Lane::Clients => 0,
        Lane::Node(node) => 2 * (node as Cell + 1),
    };
    match (right, long) {
        (true, false) => vec![at],
        (true, true) => vec![at, at + 1],
        (false, false) => vec![at - 1],
        (false, true) => vec![at - 1, at - 2],
    }
}

/// The distance in pixels between two rows, for the nanoseconds that pass between them.
fn gap(passed: u64) -> f64 {
    if passed == 0 {
        return 0.0;
    }
    if passed > IDLE_NS {
        return IDLE;
    }
    (2.0 + (1.0 + passed as f64 / 50_000.0).log2() * 1.6).min(IDLE / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_law_decides_the_focus_of_the_picture() {
        let group = Some(GroupId(1));
        assert_eq!(Focus::of("election-safety", "nodes 1 and 2", group), Focus::Raft(group));
        let named = Focus::of("durability-at-send", "group 0: Appended", group);
        assert_eq!(named, Focus::Raft(Some(GroupId(0))));
        assert_eq!(Focus::of("durability-at-send", "Dot {", group), Focus::Replication);
        assert_eq!(Focus::of("convergence", "", None), Focus::Replication);
        assert_eq!(Focus::of("suspect-is-told", "", None), Focus::Gossip);
    }

    #[test]
    fn only_idle_time_is_folded() {
        assert!(gap(1_000) < gap(1_000_000) && gap(1_000_000) < gap(IDLE_NS + 1));
        assert_eq!(gap(10 * IDLE_NS), gap(1_000 * IDLE_NS));
    }
}
