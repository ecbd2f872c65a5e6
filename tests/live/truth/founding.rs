//! Founding races: several founders at once, and founders that die while they found.

use std::thread;
use std::time::Duration;

use continuum_runtime::clock::Stopwatch;
use continuum_runtime::entropy;

use crate::book::Book;
use crate::federation::{Nodes, SOON};
use crate::http::{Answer, brief};
use crate::row::{Bench, Check, Row, holds, pause, wait_for, wait_until};
use crate::writers::{make_namespaces, settle, write_some};

/// Longest random pause between the steps of a race.
const JITTER_MS: u64 = 120;
/// Rounds after which some founder was killed before its answer and some after it: each has a chance of one half.
const ENOUGH: u32 = 16;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "founding.two-overlapping",
        expected: "two inits at once with common voters: one federation of all, each time",
        run: |bench| race(bench, &[(0, &[2, 3]), (1, &[2, 3])]),
    },
    Row {
        name: "founding.crossed",
        expected: "two inits at once that name each other: one federation of all, each time",
        run: |bench| race(bench, &[(0, &[1, 2]), (1, &[0, 3])]),
    },
    Row {
        name: "founding.three",
        expected: "three inits at once with common voters: one federation of all, each time",
        run: |bench| race(bench, &[(0, &[1, 3]), (1, &[2, 3]), (2, &[0, 3])]),
    },
    Row {
        name: "founding.disjoint",
        expected: "two federations that could not know of each other: at first contact the logs, /readyz and the \
                   status say so, and no entry is exchanged, each time",
        run: disjoint,
    },
    Row {
        name: "founding.founder-returns",
        expected: "the founder is killed at a random moment and restarted: no or one federation, and a repeated init \
                   ends in one, each time",
        run: |bench| founder_killed(bench, true),
    },
    Row {
        name: "founding.founder-gone",
        expected: "the founder is killed at a random moment for good: no or one federation, and the others can found \
                   one, each time",
        run: |bench| founder_killed(bench, false),
    },
];

/// A number below `bound`.
pub(crate) fn random(bound: u64) -> u64 {
    let bytes = entropy::identity();
    u64::from(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])) % bound.max(1)
}

fn jitter() {
    pause(Duration::from_millis(random(JITTER_MS)));
}

/// The nodes that a node lists as members. A node may be listed with an earlier store as well.
fn membership(nodes: &Nodes, at: usize) -> Vec<String> {
    let members = nodes.all[at].members();
    let mut ids: Vec<String> = members.iter().map(|member| member["node"].to_string()).collect();
    ids.sort();
    ids.dedup();
    ids
}

/// All of `who` are formed and ready and list the same members.
pub(crate) fn one_federation(nodes: &mut Nodes, who: &[usize]) -> Check {
    nodes.all_serve(who)?;
    let one = || {
        let all: Vec<Vec<String>> = who.iter().map(|at| membership(nodes, *at)).collect();
        all.iter().all(|members| *members == all[0] && members.len() == who.len())
    };
    wait_until(SOON, one, String::new).map(drop).map_err(|_| {
        let all: Vec<usize> = who.iter().map(|at| membership(nodes, *at).len()).collect();
        format!("the nodes list {all:?} members, and not the same ones of {}", who.len())
    })
}

/// Ends the row's round: data on all nodes of one federation.
fn finish(bench: &Bench, nodes: &Nodes, who: &[usize]) -> Check<u64> {
    make_namespaces(nodes.all[who[0]].api)?;
    let mut book = Book::default();
    write_some(&mut book, nodes, who, "");
    settle(bench, nodes, who, &book)?;
    Ok(book.committed())
}

/// Inits at once, each from its founder.
fn init_at_once(nodes: &Nodes, inits: &[(usize, &[usize])]) -> Vec<Option<Answer>> {
    thread::scope(|scope| {
        let start = |(founder, others): &(usize, &[usize])| {
            let (ask, api) = (nodes.ask_init(others), nodes.all[*founder].api);
            scope.spawn(move || {
                jitter();
                ask.send(api)
            })
        };
        let started: Vec<_> = inits.iter().map(start).collect();
        started.into_iter().map(|one| one.join().expect("an init")).collect()
    })
}

/// Repeats an init until this node is in a federation.
pub(crate) fn init_until_formed(nodes: &Nodes, founder: usize, others: &[usize]) -> Check {
    let mut last = None;
    let formed = wait_for(2 * SOON, || {
        if nodes.all[founder].is_formed() {
            return Some(());
        }
        last = nodes.init(founder, others);
        let is_formed = last.as_ref().is_some_and(|a| a.is_ok() || a.code() == "already_formed");
        is_formed.then_some(())
    });
    let ready = nodes.all[founder].ready().unwrap_or_default();
    holds(formed.is_some(), || {
        format!("a repeated init is answered {}; {}", brief(last.as_ref()), ready.body)
    })
}

/// Repeats a round, and says which one failed.
fn repeat(bench: &Bench, mut round: impl FnMut() -> Check<(String, u64)>) -> Check<String> {
    let (mut seen, mut committed) = (std::collections::BTreeMap::<String, u32>::new(), 0);
    for number in 1..=bench.rounds {
        let (observed, writes) = round().map_err(|error| format!("round {number}: {error}"))?;
        bench.progress(&format!("round {number} of {}: {observed}", bench.rounds));
        *seen.entry(observed).or_default() += 1;
        committed += writes;
    }
    let seen: Vec<String> = seen.iter().map(|(what, times)| format!("{times} x {what}")).collect();
    Ok(format!("{}; {committed} acknowledged writes on all nodes", seen.join(", ")))
}

fn race(bench: &Bench, inits: &[(usize, &[usize])]) -> Check<String> {
    let all = [0, 1, 2, 3];
    repeat(bench, || {
        let mut nodes = Nodes::new(bench, 4);
        nodes.start(&all)?;
        let answers = init_at_once(&nodes, inits);
        let mut won: Vec<String> = answers.iter().map(|answer| brief(answer.as_ref())).collect();
        let founders = answers.iter().flatten().filter(|answer| answer.is_ok()).count();
        holds(founders <= 1, || format!("{founders} inits succeeded: {won:?}"))?;
        // When all were refused, an operator tries again.
        init_until_formed(&nodes, inits[0].0, inits[0].1)?;
        one_federation(&mut nodes, &all)?;
        won.sort();
        Ok((won.join(" + "), finish(bench, &nodes, &all)?))
    })
}

/// How often a node's log, `/readyz` and status tell of a rival federation.
fn rival_signs(nodes: &Nodes, at: usize) -> [bool; 3] {
    let node = &nodes.all[at];
    let ready = node.ready().unwrap_or_default();
    let warned = |warnings: &[String]| warnings.iter().any(|code| code == "rival_federation");
    let status = node.status();
    let listed = status["warnings"].as_array().into_iter().flatten();
    let listed: Vec<String> = listed.filter_map(|w| w["code"].as_str().map(Into::into)).collect();
    [
        node.log_lines(&["another genesis"]) > 0 || node.log_lines(&["rival"]) > 0,
        warned(&ready.warnings),
        warned(&listed),
    ]
}

fn disjoint(bench: &Bench) -> Check<String> {
    let (left, right) = ([0, 1], [2, 3]);
    repeat(bench, || {
        let mut nodes = Nodes::new(bench, 4);
        nodes.introduce(&left);
        nodes.introduce(&right);
        nodes.start(&[0, 1, 2, 3])?;
        let answers = init_at_once(&nodes, &[(0, &[1]), (2, &[3])]);
        holds(answers.iter().flatten().filter(|answer| answer.is_ok()).count() == 2, || {
            format!(
                "not both inits succeeded: {:?}",
                answers.iter().map(|a| brief(a.as_ref())).collect::<Vec<_>>()
            )
        })?;
        let mut books = [Book::default(), Book::default()];
        for (book, side) in books.iter_mut().zip([left, right]) {
            one_federation(&mut nodes, &side)?;
            make_namespaces(nodes.all[side[0]].api)?;
            write_some(book, &nodes, &side, "-apart");
        }
        // First contact: one node of each side learns the other side's addresses.
        nodes.introduce(&[0, 1, 2, 3]);
        nodes.restart(&[0, 2])?;
        let told = || rival_signs(&nodes, 0) == [true; 3] && rival_signs(&nodes, 2) == [true; 3];
        wait_until(SOON, told, String::new).map_err(|_| {
            let signs = [rival_signs(&nodes, 0), rival_signs(&nodes, 2)];
            format!("a rival federation shows in [log, readyz, status] of n1 and n3: {signs:?}")
        })?;
        let mut committed = 0;
        for (mut book, side) in books.into_iter().zip([left, right]) {
            one_federation(&mut nodes, &side)?;
            write_some(&mut book, &nodes, &side, "-met");
            settle(bench, &nodes, &side, &book)?;
            committed += book.committed();
        }
        Ok(("two federations that know of each other".into(), committed))
    })
}

/// The time that a founding of three takes here, when nothing disturbs it: the median of three.
fn founding_takes(bench: &Bench) -> Check<Duration> {
    let mut took = Vec::new();
    for _ in 0..3 {
        let mut nodes = Nodes::new(bench, 3);
        nodes.start(&[0, 1, 2])?;
        let watch = Stopwatch::start();
        let answer = nodes.init(0, &[1, 2]);
        took.push(watch.elapsed());
        holds(answer.as_ref().is_some_and(Answer::is_ok), || brief(answer.as_ref()))?;
    }
    took.sort();
    Ok(took[1])
}

fn founder_killed(bench: &Bench, returns: bool) -> Check<String> {
    let takes = founding_takes(bench)?;
    // Half of the kills fall into the founding, the others right behind it.
    let window = u64::try_from(takes.as_micros()).unwrap_or(u64::MAX) * 2;
    let (mut before, mut after) = (0, 0);
    let observed = repeat(bench, || {
        let mut nodes = Nodes::new(bench, 3);
        nodes.start(&[0, 1, 2])?;
        let (ask, api) = (nodes.ask_init(&[1, 2]), nodes.all[0].api);
        let asked = thread::spawn(move || ask.send(api));
        pause(Duration::from_micros(random(window)));
        let _ = nodes.all[0].kill();
        let answer = asked.join().expect("an init");
        let was_told = answer.as_ref().is_some_and(Answer::is_ok);
        let who: &[usize] = if returns { &[0, 1, 2] } else { &[1, 2] };
        if returns {
            jitter();
            nodes.start(&[0])?;
            init_until_formed(&nodes, 0, &[1, 2])?;
            one_federation(&mut nodes, who)?;
        } else {
            found_without(&mut nodes, was_told)?;
        }
        *(if was_told { &mut after } else { &mut before }) += 1;
        let seen = if was_told { "after its answer" } else { "before its answer" };
        Ok((format!("killed {seen}"), finish(bench, &nodes, who)?))
    })?;
    holds(bench.rounds < ENOUGH || (before > 0 && after > 0), || {
        format!(
            "{before} founders were killed before their answer and {after} after it: the race did not take place"
        )
    })?;
    Ok(format!("a founding takes {} ms; {observed}", takes.as_millis()))
}

/// The founder is gone for good. The other two are in its federation, or found one of their own. A node that cannot
/// know the end of the founding says so, and its operator gives it an empty directory: it holds nothing yet.
fn found_without(nodes: &mut Nodes, was_told: bool) -> Check {
    let others = [1, 2];
    // A decision reaches both within a moment.
    let decided = Duration::from_secs(if was_told { 20 } else { 4 });
    let formed = || others.iter().all(|at| nodes.all[*at].is_formed());
    if wait_until(decided, formed, String::new).is_ok() {
        return nodes.all_serve(&others);
    }
    holds(!was_told, || "the founding was acknowledged, and is gone with its founder".into())?;
    for at in others {
        let ready = nodes.all[at].ready().unwrap_or_default();
        let is_known = ready.reasons.iter().any(|r| r == "founding_undecided" || r == "not_formed");
        holds(!ready.is_ready && is_known, || format!("n{} says {}", at + 1, ready.body))?;
        if ready.reasons.iter().any(|reason| reason == "founding_undecided") {
            holds(ready.body.contains("empty data directory"), || {
                format!("the hint names no way out: {}", ready.body)
            })?;
            nodes.all[at].stop();
            nodes.all[at].move_data_away();
            nodes.start(&[at])?;
        }
    }
    init_until_formed(nodes, 1, &[2])?;
    one_federation(nodes, &others)
}
