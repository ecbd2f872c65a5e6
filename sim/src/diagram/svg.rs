//! The shapes: a space-time diagram as SVG. Lanes run downward, and messages are arrows between them (Lamport 1978).
//!
//! Colours and widths are classes of the page's style. This module does not choose positions: `layout` does.

use std::fmt::Write as _;

use continuum_core::id::{GroupId, Role, Term};

use super::layout::{FAULTS_X, Item, Layout, TIME_X, TOP};
use super::page::escape;
use crate::env::clock::MS;
use crate::scene::words::{self, Protocol, cut};
use crate::scene::{Arrival, Lane, NodeEvent, Sent};

/// The most characters of a text beside an arrow.
const LABEL_MAX: usize = 34;
/// The most characters of a text beside the clients' lane.
const CLIENT_MAX: usize = 42;
/// A message that takes longer than this is marked as late.
const LATE_NS: u64 = 40 * MS;

/// The violation at the end of the picture.
#[derive(Debug)]
pub(crate) struct End<'a> {
    pub(crate) oracle: &'a str,
    pub(crate) what: &'a str,
    pub(crate) node: usize,
}

/// Draws the whole picture.
pub(crate) fn draw(layout: &Layout<'_>, end: &End<'_>) -> String {
    let lines = wrap(end.what, 150);
    let (wide, high) = (layout.width(), layout.height);
    let tall = high + 70.0 + 16.0 * lines.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide:.0} {tall:.0}\" \
         width=\"{wide:.0}\" height=\"{tall:.0}\" role=\"img\">\n{}",
        markers()
    );
    windows(&mut out, layout);
    lanes(&mut out, layout);
    roles(&mut out, layout);
    axis(&mut out, layout);
    layout.faint().for_each(|sent| faint(&mut out, layout, sent));
    let mut over = String::new();
    for (item, y) in layout.placed() {
        match item {
            Item::Leaves(number) => message(&mut out, layout, number, y),
            Item::Writes(number) => batch(&mut out, layout, number, y),
            Item::Node(number) => node_event(&mut over, layout, number, y),
            Item::Calls(number) => call(&mut out, layout, number, y),
            Item::Returns(number) => returned(&mut out, layout, number, y),
            Item::Begins(number) => fault(&mut out, layout, number, y),
            Item::Arrives(..) | Item::Synced(_) | Item::Ends(_) => {}
        }
    }
    out.push_str(&over);
    violation(&mut out, layout, end, &lines);
    out.push_str("</svg>\n");
    out
}

/// The style classes of a protocol.
fn class(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Raft(group) if group == GroupId::REGISTRY => "raft registry",
        Protocol::Raft(_) => "raft",
        Protocol::Replication => "replication",
        Protocol::Gossip => "gossip",
        Protocol::Requests => "requests",
        Protocol::Other => "other",
    }
}

fn marker_of(protocol: Protocol) -> &'static str {
    class(protocol).split(' ').next().unwrap_or_default()
}

fn markers() -> String {
    let mut out = "<defs>".to_owned();
    for name in ["raft", "replication", "gossip", "requests", "other", "lost", "unsent"] {
        let _ = write!(
            out,
            "<marker id=\"to-{name}\" class=\"{name}\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" \
             markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\"/></marker>"
        );
    }
    out.push_str("</defs>\n");
    out
}

fn text(out: &mut String, class: &str, (x, y): (f64, f64), words: &str) {
    let words = escape(words);
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>");
}

fn line(out: &mut String, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(
        out,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

fn rect(out: &mut String, class: &str, (x, y): (f64, f64), (w, h): (f64, f64), title: &str) {
    let (h, title) = (h.max(1.0), escape(title));
    let _ = writeln!(
        out,
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\">\
         <title>{title}</title></rect>"
    );
}

/// Draws faults as shaded parts of the lanes that they strike.
fn windows(out: &mut String, layout: &Layout<'_>) {
    for (number, window) in layout.scene.windows.iter().enumerate() {
        let begins = layout.y(Item::Begins(number));
        let (Some(from), Some(until)) = (begins, layout.y(Item::Ends(number))) else { continue };
        for node in &window.nodes {
            let x = layout.x_of(Lane::Node(*node));
            rect(out, "window", (x - 60.0, from), (120.0, until - from), &window.what);
        }
    }
}

fn lanes(out: &mut String, layout: &Layout<'_>) {
    let end = layout.height;
    line(out, "lane", (layout.clients_x, TOP - 14.0), (layout.clients_x, end));
    text(out, "head", (layout.clients_x, TOP - 24.0), "clients");
    text(out, "head left", (FAULTS_X, TOP - 24.0), "faults");
    text(out, "head right", (TIME_X, TOP - 24.0), "seconds");
    for node in 0..layout.scene.names.count() {
        let x = layout.x_of(Lane::Node(node));
        text(out, "head", (x, TOP - 24.0), &format!("node {node}"));
        for (from, until) in lives(layout, node) {
            line(out, "lane", (x, from), (x, until));
        }
    }
}

/// The times during which a node was up, as heights.
fn lives(layout: &Layout<'_>, node: usize) -> Vec<(f64, f64)> {
    let mut lives = Vec::new();
    let mut since = None;
    for moment in layout.scene.moments.iter().filter(|moment| moment.node == node) {
        match moment.event {
            NodeEvent::Start { .. } => since = Some(moment.at),
            NodeEvent::Crash { .. } => {
                if let Some(from) = since.take().filter(|_| moment.at >= layout.from) {
                    lives.push((height(layout, from), layout.y_at(moment.at)));
                }
            }
            _ => {}
        }
    }
    if let Some(from) = since {
        lives.push((height(layout, from), layout.height));
    }
    lives
}

/// The height of a time that may be before the picture.
fn height(layout: &Layout<'_>, at: u64) -> f64 {
    if at < layout.from { TOP - 14.0 } else { layout.y_at(at) }
}

/// Draws the role of each node in the group of the picture's focus, as a band on its lane.
fn roles(out: &mut String, layout: &Layout<'_>) {
    let Some(group) = layout.group() else { return };
    for node in 0..layout.scene.names.count() {
        let mut now: Option<(u64, Role, Term)> = None;
        for moment in layout.scene.moments.iter().filter(|moment| moment.node == node) {
            let next = match moment.event {
                NodeEvent::Role { group: of, role, term } if of == group => {
                    Some((moment.at, role, term))
                }
                NodeEvent::Crash { .. } => None,
                _ => continue,
            };
            if let Some(was) = now.filter(|_| moment.at >= layout.from) {
                band(out, layout, node, was, layout.y_at(moment.at));
            }
            now = next;
        }
        if let Some(was) = now {
            band(out, layout, node, was, layout.height);
        }
    }
}

fn band(
    out: &mut String,
    layout: &Layout<'_>,
    node: usize,
    (from, role, term): (u64, Role, Term),
    until: f64,
) {
    let (x, from) = (layout.x_of(Lane::Node(node)), height(layout, from));
    let class = format!("band {}", role_name(role));
    let title = format!("node {node}: {} in term {term}", role_name(role));
    rect(out, &class, (x - 4.0, from), (8.0, until - from), &title);
}

const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Learner => "learner",
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

/// Draws times at the left edge where there is room, and lines across where time is folded.
fn axis(out: &mut String, layout: &Layout<'_>) {
    let mut free = TOP;
    for (at, y) in &layout.rows {
        if *y >= free {
            text(out, "time", (TIME_X, y + 4.0), &seconds(*at));
            free = y + 30.0;
        }
    }
    for (y, passed) in &layout.folds {
        let wide = layout.width();
        line(out, "fold", (FAULTS_X, *y), (wide, *y));
        let words = format!("{:.1} s pass", *passed as f64 / 1e9);
        text(out, "fold-words", (layout.clients_x - 12.0, y - 4.0), &words);
    }
}

fn seconds(ns: u64) -> String {
    format!("{:.4}", ns as f64 / 1e9)
}

fn title_of(sent: &Sent, arrival: Option<&Arrival>) -> String {
    let lane = |lane: Lane| match lane {
        Lane::Clients => "clients".to_owned(),
        Lane::Node(node) => format!("node {node}"),
    };
    let arrives = match arrival {
        None => "lost".to_owned(),
        Some(arrival) if arrival.happened => {
            format!("{:.3} ms later", (arrival.at - sent.at) as f64 / MS as f64)
        }
        Some(arrival) => format!("due {}, and not received", seconds(arrival.at)),
    };
    let fate = sent.fate.map_or_else(String::new, |fate| format!(", {fate}"));
    format!(
        "{} to {} at {}, {arrives}{fate}\n{}\n{}",
        lane(sent.from),
        lane(sent.to),
        seconds(sent.at),
        sent.words.label,
        sent.words.detail
    )
}

/// Draws a routine message.
fn faint(out: &mut String, layout: &Layout<'_>, sent: &Sent) {
    let class = class(sent.words.protocol);
    let (x1, y1) = (layout.x_of(sent.from), layout.y_at(sent.at));
    for arrival in sent.arrivals.iter().filter(|arrival| arrival.happened) {
        let (x2, y2) = (layout.x_of(sent.to), layout.y_at(arrival.at));
        let title = escape(&cut(&title_of(sent, Some(arrival)), 160));
        let _ = writeln!(
            out,
            "<path class=\"faint {class}\" d=\"M{x1:.0} {y1:.1}L{x2:.0} {y2:.1}\"><title>{title}</title></path>"
        );
    }
}

/// Draws a prominent message with its label.
fn message(out: &mut String, layout: &Layout<'_>, number: usize, y: f64) {
    let sent = &layout.scene.sent[number];
    let class = class(sent.words.protocol);
    let (x1, x2) = (layout.x_of(sent.from), layout.x_of(sent.to));
    let unsent = sent.fate == Some(super::UNSENT);
    let _ = writeln!(out, "<g class=\"message {class}{}\">", if unsent { " unsent" } else { "" });
    let towards = if x2 > x1 { 1.0 } else { -1.0 };
    if sent.arrivals.is_empty() {
        let end = (x1 + towards * 96.0, y + 8.0);
        let marker = if unsent { "unsent" } else { "" };
        arrow(out, "lost", marker, ((x1, y), end), &title_of(sent, None));
        if !unsent {
            cross(out, end);
        }
    }
    for (which, arrival) in sent.arrivals.iter().enumerate() {
        let Some(to) = layout.y(Item::Arrives(number, which)) else { continue };
        let title = title_of(sent, Some(arrival));
        let is_in_flight = arrival.at > layout.until;
        let kind = match (arrival.happened, which) {
            (true, 0) => "",
            (true, _) => "twice",
            (false, _) => "lost",
        };
        let marker = if arrival.happened { marker_of(sent.words.protocol) } else { "" };
        let stop = if arrival.happened { x2 - towards * 5.0 } else { x2 - towards * 24.0 };
        arrow(out, kind, marker, ((x1, y), (stop, to)), &title);
        if !arrival.happened && !is_in_flight {
            cross(out, (stop, to));
        }
    }
    if layout.is_labelled(number) {
        let side = if towards > 0.0 { "label" } else { "label right" };
        let words = cut(&sent.words.label, LABEL_MAX) + &remark(sent);
        text(out, side, (x1 + towards * 17.0, y - 3.0), &words);
    }
    out.push_str("</g>\n");
}

/// The text behind a message's label: why it is lost, or by how much it is late.
fn remark(sent: &Sent) -> String {
    let late = sent.arrivals.first().map_or(0, |arrival| arrival.at - sent.at);
    match sent.fate {
        Some(fate) if fate != super::UNSENT => format!(" ({fate})"),
        None if late > LATE_NS => format!(" (+{} ms)", late / MS),
        _ => String::new(),
    }
}

type Point = (f64, f64);

fn arrow(
    out: &mut String,
    class: &str,
    marker: &str,
    ((x1, y1), (x2, y2)): (Point, Point),
    title: &str,
) {
    let path = format!("M{x1:.0} {y1:.1}L{x2:.0} {y2:.1}");
    let end = if marker.is_empty() {
        String::new()
    } else {
        format!(" marker-end=\"url(#to-{marker})\"")
    };
    let title = escape(title);
    let _ = writeln!(
        out,
        "<g><path class=\"hit\" d=\"{path}\"/><path class=\"arrow {class}\" d=\"{path}\"{end}/>\
         <title>{title}</title></g>"
    );
}

fn cross(out: &mut String, (x, y): Point) {
    let path = format!("M{:.1} {:.1}l8 8m0 -8l-8 8", x - 4.0, y - 4.0);
    let _ = writeln!(out, "<path class=\"cross\" d=\"{path}\"/>");
}

/// Draws writes on their way to the disk, beside the lane.
fn batch(out: &mut String, layout: &Layout<'_>, number: usize, y: f64) {
    let batch = &layout.scene.batches[number];
    let Some(done) = layout.y(Item::Synced(number)) else { return };
    let x = layout.x_of(Lane::Node(batch.node));
    let details: Vec<&str> = batch.writes.iter().map(|words| words.detail.as_str()).collect();
    let (class, end) = match (batch.done_at, batch.was_lost) {
        (Some(_), false) => ("disk", "durable"),
        (Some(_), true) => ("disk gone", "lost"),
        (None, _) => ("disk open", "not durable yet"),
    };
    let title = format!("disk of node {}: {end}\n{}", batch.node, cut(&details.join("\n"), 900));
    rect(out, class, (x + 7.0, y), (6.0, done - y), &title);
    if let Some(label) = layout.label_of(batch) {
        let last = batch.done_at.is_none() && batch.at == layout.until;
        let class = if last { "label written last" } else { "label written" };
        text(out, class, (x + 17.0, y + 4.0), &cut(&label, LABEL_MAX));
    }
}

/// Draws an event of a node, on its lane.
fn node_event(out: &mut String, layout: &Layout<'_>, number: usize, y: f64) {
    let moment = &layout.scene.moments[number];
    let x = layout.x_of(Lane::Node(moment.node));
    let (class, words) = match &moment.event {
        NodeEvent::Commit { index, .. } => {
            return text(
                out,
                "label right commit",
                (x - 10.0, y + 4.0),
                &format!("commits {index}"),
            );
        }
        NodeEvent::Role { role, term, .. } => {
            (role_name(*role), format!("{} t{term}", role_name(*role)))
        }
        NodeEvent::Start { is_restart: false } => ("start", "starts".to_owned()),
        NodeEvent::Start { is_restart: true } => ("start", "restarts".to_owned()),
        NodeEvent::Crash { sectors_lost: 0 } => ("crash", "crashes".to_owned()),
        NodeEvent::Crash { sectors_lost } => {
            ("crash", format!("crashes, loses {sectors_lost} sectors"))
        }
    };
    let wide = 14.0 + 6.2 * words.chars().count() as f64;
    let at = format!("{words} at {}", seconds(moment.at));
    rect(out, &format!("pill {class}"), (x - wide / 2.0, y - 7.0), (wide, 14.0), &at);
    text(out, &format!("pill-words on-{class}"), (x, y + 4.0), &words);
}

fn call(out: &mut String, layout: &Layout<'_>, number: usize, y: f64) {
    let operation = &layout.operations[number];
    let words = cut(&words::operation(operation), CLIENT_MAX);
    text(out, "call", (layout.clients_x - 12.0, y + 4.0), &words);
    line(out, "tick", (layout.clients_x - 8.0, y), (layout.clients_x, y));
}

fn returned(out: &mut String, layout: &Layout<'_>, number: usize, y: f64) {
    let operation = &layout.operations[number];
    let words = cut(&words::ended(operation), CLIENT_MAX);
    text(out, "call returned", (layout.clients_x - 12.0, y + 4.0), &words);
    line(out, "tick", (layout.clients_x - 8.0, y), (layout.clients_x, y));
}

/// Draws a fault's bar and text, at the left.
fn fault(out: &mut String, layout: &Layout<'_>, number: usize, y: f64) {
    let window = &layout.scene.windows[number];
    let until = layout.y(Item::Ends(number)).unwrap_or(layout.height);
    let x = FAULTS_X + (number % 5) as f64 * 7.0;
    let ms = |ns: u64| ns / MS;
    let end =
        window.until.map_or_else(|| "the end".to_owned(), |until| format!("{} ms", ms(until)));
    let title = format!("{} from {} ms to {end}", window.what, ms(window.at));
    rect(out, "fault", (x, y), (4.0, until - y), &title);
    text(out, "fault-words", (FAULTS_X + 40.0, y + 4.0), &window.what);
}

/// Draws the violation at its time.
fn violation(out: &mut String, layout: &Layout<'_>, end: &End<'_>, lines: &[String]) {
    let (y, wide) = (layout.height, layout.width());
    line(out, "end", (FAULTS_X, y), (wide, y));
    let x = layout.x_of(Lane::Node(end.node));
    let _ = writeln!(out, "<circle class=\"end\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"7\"/>");
    let words = format!("{} is broken at {} s", end.oracle, seconds(layout.until));
    text(out, "end-words", (FAULTS_X, y + 26.0), &words);
    for (number, words) in lines.iter().enumerate() {
        text(out, "end-lines", (FAULTS_X, y + 46.0 + 16.0 * number as f64), words);
    }
}

/// Breaks a text between words into lines of at most `most` characters.
fn wrap(words: &str, most: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in cut(words, 900).split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < most => {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
