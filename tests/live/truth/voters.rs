//! First voters that are down, killed or wiped, and inits that would make a second federation.

use std::time::Duration;

use continuum_runtime::clock::Stopwatch;
use serde_json::json;

use crate::book::Book;
use crate::federation::{Nodes, SOON};
use crate::http::{Answer, Ask, brief, metric};
use crate::row::{Bench, Check, Row, holds, pause, wait_until};
use crate::writers::{make_namespaces, settle, write_some};

use super::founding::{init_until_formed, one_federation, random};

const ALL: [usize; 3] = [0, 1, 2];
/// The exit codes with which `cluster init` refuses: it conflicts, or federations do not match.
const REFUSES: [i32; 2] = [6, 9];
/// After this many seconds a node has reached its peers.
const KNOWS_S: f64 = 5.0;
/// A group that lost its leader has another one within this.
const ELECTS: Duration = Duration::from_secs(30);

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "voters.down-at-init",
        expected: "a named first voter is down: init is refused and names it, nothing is formed, and a repeat succeeds \
                   once it runs",
        run: down_at_init,
    },
    Row {
        name: "voters.killed-at-answer",
        expected: "a first voter killed around init's answer is a voter in its own eyes, and any single loss leaves a \
                   leader, each time",
        run: killed_at_answer,
    },
    Row {
        name: "voters.wiped",
        expected: "a wiped voter says store_replaced and not not_formed, its init is refused, it becomes a learner, \
                   and the federation stays one",
        run: wiped,
    },
    Row {
        name: "voters.linked-init",
        expected: "init on an unformed node that is linked to a formed one is refused and names that peer",
        run: linked_init,
    },
];

fn down_at_init(bench: &Bench) -> Check<String> {
    let mut nodes = Nodes::new(bench, 3);
    nodes.start(&[0, 1])?;
    let address = nodes.all[2].peer.to_string();
    let answer = nodes.init(0, &[1, 2]);
    let refused = answer.as_ref().is_some_and(|a| a.code() == "voter_unavailable");
    let names_it = answer.as_ref().is_some_and(|answer| answer.body.contains(&address));
    holds(refused && names_it, || {
        let body = answer.as_ref().map_or_else(String::new, |answer| answer.body.clone());
        format!("init was answered {}: {body}", brief(answer.as_ref()))
    })?;
    for at in [0, 1] {
        holds(!nodes.all[at].is_formed(), || format!("n{} is formed", at + 1))?;
        let ready = nodes.all[at].ready().unwrap_or_default();
        // A voter that accepted learns within a moment that the founding was aborted.
        let is_free = || nodes.all[at].ready().unwrap_or_default().reasons == ["not_formed"];
        wait_until(SOON, is_free, || format!("n{} says {}", at + 1, ready.body))?;
    }
    nodes.start(&[2])?;
    init_until_formed(&nodes, 0, &[1, 2])?;
    one_federation(&mut nodes, &ALL)?;
    make_namespaces(nodes.all[0].api)?;
    let mut book = Book::default();
    write_some(&mut book, &nodes, &ALL, "");
    settle(bench, &nodes, &ALL, &book)
}

/// A namespace can be made at a node: group 0 has a leader and commits.
fn group_zero_commits(nodes: &Nodes, at: usize, name: &str) -> Check<f64> {
    let body = json!({ "name": name, "consistency": "strong" });
    let mut last = None;
    let made = || {
        last = Ask::new("POST", "/v1/namespaces").json(&body).send(nodes.all[at].api);
        last.as_ref().is_some_and(|a| a.is_ok() || a.code() == "namespace_exists")
    };
    wait_until(ELECTS, made, String::new).map_err(|_| {
        let roles: Vec<String> =
            ALL.iter().map(|at| nodes.all[*at].group(0)["role"].to_string()).collect();
        format!("group 0 commits nothing: {}, roles {roles:?}", brief(last.as_ref()))
    })
}

fn killed_at_answer(bench: &Bench) -> Check<String> {
    let mut longest = 0.0_f64;
    for round in 1..=bench.rounds {
        let mut nodes = Nodes::new(bench, 3);
        killed_once(bench, &mut nodes, &mut longest)
            .map_err(|error| format!("round {round}: {error}"))?;
        bench.progress(&format!("round {round} of {}", bench.rounds));
    }
    Ok(format!(
        "{} rounds of 3 losses, group 0 without a leader for {longest:.1} s at most",
        bench.rounds
    ))
}

fn killed_once(bench: &Bench, nodes: &mut Nodes, longest: &mut f64) -> Check {
    nodes.start(&ALL)?;
    // Half of the kills come right after the answer, the others when the founder is formed: before it tells.
    if random(2) == 0 {
        let answer = nodes.init(0, &[1, 2]);
        holds(answer.as_ref().is_some_and(Answer::is_ok), || brief(answer.as_ref()))?;
        let _ = nodes.all[2].kill();
    } else {
        let (ask, api) = (nodes.ask_init(&[1, 2]), nodes.all[0].api);
        let asked = std::thread::spawn(move || ask.send(api));
        let formed = wait_until(SOON, || nodes.all[0].is_formed(), || "n1 is not formed".into());
        let _ = nodes.all[2].kill();
        let answer = asked.join().expect("an init");
        formed?;
        holds(answer.as_ref().is_some_and(Answer::is_ok), || brief(answer.as_ref()))?;
    }
    nodes.start(&[2])?;
    one_federation(nodes, &ALL)?;
    let role = nodes.all[2].group(0)["role"].clone();
    holds(role != "learner", || "the killed first voter is a learner in its own eyes".into())?;
    make_namespaces(nodes.all[0].api)?;
    let mut book = Book::default();
    // The voter that was killed gets the longest log while another one is down.
    for lost in [1, 0, 2] {
        let _ = nodes.all[lost].kill();
        let rest: Vec<usize> = ALL.into_iter().filter(|at| *at != lost).collect();
        *longest = longest.max(group_zero_commits(nodes, rest[0], &format!("without-{lost}"))?);
        nodes.all_serve(&rest)?;
        write_some(&mut book, nodes, &rest, &format!("-without-{lost}"));
        // The next one is lost before this one has caught up.
        let _ = nodes.all[rest[0]].kill();
        nodes.start(&[lost])?;
        *longest = longest.max(group_zero_commits(nodes, lost, &format!("back-{lost}"))?);
        nodes.start(&[rest[0]])?;
        nodes.all_serve(&ALL)?;
    }
    settle(bench, nodes, &ALL, &book).map(drop)
}

fn wiped(bench: &Bench) -> Check<String> {
    let mut nodes = Nodes::new(bench, 3);
    nodes.form(3)?;
    make_namespaces(nodes.all[0].api)?;
    let mut book = Book::default();
    write_some(&mut book, &nodes, &ALL, "-before");
    settle(bench, &nodes, &ALL, &book)?;
    let _ = nodes.all[2].kill();
    nodes.all[2].move_data_away();
    nodes.start(&[2])?;
    // Until it has reached a peer it cannot know. From then on it is not told that it may found.
    let watch = Stopwatch::start();
    let mut said: Vec<(f64, String)> = Vec::new();
    let mut look = || {
        let ready = nodes.all[2].ready().unwrap_or_default();
        let all = [&ready.reasons[..], &ready.warnings].concat();
        said.push((watch.elapsed().as_secs_f64(), all.join("+")));
        all.iter().any(|word| word == "store_replaced")
    };
    let told = wait_until(SOON, &mut look, String::new);
    for _ in 0..40 {
        look();
        pause(Duration::from_millis(50));
    }
    let late =
        said.iter().filter(|(at, _)| *at > KNOWS_S).find(|(_, words)| words.contains("not_formed"));
    let mut words: Vec<&String> = said.iter().map(|(_, words)| words).collect();
    words.dedup();
    holds(told.is_ok(), || format!("the wiped voter says {words:?}"))?;
    holds(late.is_none(), || {
        format!("the wiped voter said {late:?}: its hint is to found a federation")
    })?;
    let said = format!("{words:?}");
    let (code, text) = nodes.all[2].cli(&["cluster", "init"]);
    holds(code.is_some_and(|code| REFUSES.contains(&code)), || {
        format!("init on the wiped voter ended with {code:?}: {text}")
    })?;
    one_federation(&mut nodes, &ALL)?;
    let role = nodes.all[2].group(0)["role"].clone();
    holds(role == "learner", || format!("the wiped voter came back as {role}"))?;
    write_some(&mut book, &nodes, &ALL, "-after");
    let settled = settle(bench, &nodes, &ALL, &book)?;
    Ok(format!("it said {said}, init was refused with {code:?}; {settled}"))
}

fn linked_init(bench: &Bench) -> Check<String> {
    let mut nodes = Nodes::new(bench, 4);
    nodes.start(&ALL)?;
    let answer = nodes.init(0, &[1, 2]);
    holds(answer.as_ref().is_some_and(Answer::is_ok), || brief(answer.as_ref()))?;
    nodes.all_serve(&ALL)?;
    make_namespaces(nodes.all[0].api)?;
    let mut book = Book::default();
    write_some(&mut book, &nodes, &ALL, "");
    settle(bench, &nodes, &ALL, &book)?;
    // Without a majority nobody can let the new node in, so it stays unformed, and is linked.
    let _ = nodes.all[1].kill();
    let _ = nodes.all[2].kill();
    nodes.start(&[3])?;
    let is_linked = || metric(nodes.all[3].api, "continuum_peers_connected") > 0.0;
    wait_until(SOON, is_linked, || "the new node is not linked".into())?;
    let (code, text) = nodes.all[3].cli(&["cluster", "init"]);
    let (peer, id) = (nodes.all[0].peer.to_string(), nodes.all[0].id.to_string());
    holds(code.is_some_and(|code| REFUSES.contains(&code)), || {
        format!("init beside a formed peer ended with {code:?}: {text}")
    })?;
    holds(text.contains(&peer) || text.contains(&id), || format!("the peer is not named: {text}"))?;
    holds(!nodes.all[3].is_formed(), || "the new node is formed".into())?;
    nodes.start(&[1, 2])?;
    one_federation(&mut nodes, &[0, 1, 2, 3])?;
    write_some(&mut book, &nodes, &[0, 1, 2, 3], "-joined");
    let settled = settle(bench, &nodes, &[0, 1, 2, 3], &book)?;
    Ok(format!("refused with {code:?} and the peer's name; {settled}"))
}
