//! Context tokens that no node gave out for this namespace: made up, altered, of another namespace or federation.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use continuum_core::api::Observed;
use continuum_core::codec;
use continuum_core::id::{Actor, Dot, Replica};
use serde_json::{Value, json};

use crate::book::{Answered, Book, EVENTUAL};
use crate::federation::{Nodes, SOON};
use crate::http::{Answer, Ask, brief};
use crate::row::{Bench, Check, Row, holds, wait_until};
use crate::writers::{Writers, answered, make_namespaces, must_write, put, settle};

const ALL: [usize; 3] = [0, 1, 2];
/// The code of the refusal of a token that nobody sealed for this place.
const FOREIGN: &str = "foreign_context";
/// The header that carries the context of a value.
const CONTEXT: &str = "Continuum-Context";
/// Dots that a made-up token claims to have seen.
const CLAIMED: u64 = 1000;

pub(crate) const ROWS: &[Row] = &[
    Row::new(
        "tokens.made-up",
        "contexts that name dots nobody read are refused by each route, nothing is lost, exports are equal",
        |bench| foreign(bench, made_up),
    ),
    Row::new(
        "tokens.altered",
        "a real token with flipped, cut or added bytes is refused by each route, nothing is lost",
        |bench| foreign(bench, altered),
    ),
    Row::new(
        "tokens.of-another-place",
        "tokens of another namespace, of a deleted one of that name and of another federation are refused",
        |bench| foreign(bench, of_another_place),
    ),
    Row::new(
        "tokens.real",
        "a real token is good at every node and after a restart of all, and repeating it loses nothing",
        real,
    ),
    Row::new(
        "tokens.rotated",
        "a token is good after its key was replaced once, and refused after twice; new tokens are good",
        rotated,
    ),
];

/// Reads a register's token.
fn token_of(api: SocketAddr, namespace: &str, key: &str) -> Check<String> {
    let path = format!("/v1/namespaces/{namespace}/kv/{key}");
    let answer = Ask::get(path).header("Accept", "application/json").send(api);
    let token = answer.as_ref().and_then(|a| a.json()["context"].as_str().map(String::from));
    token.ok_or_else(|| format!("{namespace}/{key} has no context: {}", brief(answer.as_ref())))
}

/// Every route that takes a token, with this one.
fn uses(token: &str) -> Vec<(&'static str, Ask<'static>)> {
    let path = |part: &str| format!("/v1/namespaces/{EVENTUAL}/{part}");
    let post = |part: &str, body: &Value| Ask::new("POST", path(part)).json(body);
    let tag = format!("\"c{token}\"");
    let edits = json!([{ "put": "doomed" }]);
    vec![
        ("put", Ask::new("PUT", path("kv/kb")).raw("doomed").header(CONTEXT, token)),
        ("if-match", Ask::new("PUT", path("kv/kb")).raw("doomed").header("If-Match", &tag)),
        ("delete", Ask::new("DELETE", path("kv/kb")).header("If-Match", &tag)),
        ("set", post("sets/tags", &json!({ "remove": ["doomed"], "context": token }))),
        ("record", post("records/kb", &json!({ "edits": edits, "context": token }))),
        (
            "batch",
            post(
                "batch",
                &json!({ "writes": [{ "key": "kb", "edits": edits, "context": token }] }),
            ),
        ),
    ]
}

/// A token as a client would make it up: the dots 1 to 1,000 of each member, without and with something behind them.
fn made_up(_: &Bench, nodes: &Nodes, _real: &str) -> Check<Vec<String>> {
    let mut tokens = Vec::new();
    for at in ALL {
        let node = &nodes.all[at];
        let replica = Replica { node: node.id, store: node.store().ok_or("no store")? };
        let actor = Actor { replica, boot: node.boot().ok_or("no boot")? };
        let dots = (1..=CLAIMED).map(|seq| Dot { actor, seq }).collect();
        for stamp in [0, 1 << 62, u64::MAX] {
            let context = Observed { dots: Vec::clone(&dots), stamp };
            let bytes = codec::encode(&context).to_vec();
            tokens.push(URL_SAFE_NO_PAD.encode(&bytes));
            for tail in [16, 32] {
                let with_tail = [&bytes[..], &vec![7; tail][..]].concat();
                tokens.push(URL_SAFE_NO_PAD.encode(&with_tail));
                tokens.push(URL_SAFE_NO_PAD.encode([&vec![7; tail][..], &bytes].concat()));
            }
        }
    }
    tokens.extend(["AQAA", "AAAA"].map(String::from));
    Ok(tokens)
}

/// A real token with one bit flipped at places all over it, cut, and with more behind it.
fn altered(_: &Bench, _: &Nodes, real: &str) -> Check<Vec<String>> {
    let bytes = URL_SAFE_NO_PAD.decode(real).map_err(|error| error.to_string())?;
    let flip = |bit: usize| {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        changed
    };
    let bits = bytes.len() * 8;
    let mut all: Vec<Vec<u8>> = (0..bits).step_by((bits / 48).max(1)).map(flip).collect();
    all.push(bytes[..bytes.len() - 1].to_vec());
    all.push(bytes[..bytes.len() / 2].to_vec());
    all.push([&bytes[..], &[0]].concat());
    all.push([&bytes[..], &bytes].concat());
    Ok(all.iter().map(|bytes| URL_SAFE_NO_PAD.encode(bytes)).collect())
}

/// Real tokens of another namespace, of a namespace that had this name, and of another federation.
fn of_another_place(bench: &Bench, nodes: &Nodes, _real: &str) -> Check<Vec<String>> {
    // Another federation has a namespace of the same name and number, and a key of the same name in it.
    let mut strangers = Nodes::new(bench, 1);
    strangers.form(1)?;
    let (api, there) = (nodes.all[0].api, strangers.all[0].api);
    make_namespaces(there)?;
    ok(&Ask::new("PUT", format!("/v1/namespaces/{EVENTUAL}/kv/kb")).raw("x"), there)?;
    let mut tokens = vec![token_of(there, EVENTUAL, "kb")?];
    for name in ["other", "reborn"] {
        make(api, name)?;
        ok(&Ask::new("PUT", format!("/v1/namespaces/{name}/kv/kb")).raw("x"), api)?;
        tokens.push(token_of(api, name, "kb")?);
    }
    Ok(tokens)
}

fn make(api: SocketAddr, name: &str) -> Check {
    let body = json!({ "name": name, "consistency": "eventual" });
    ok(&Ask::new("POST", "/v1/namespaces").json(&body), api)
}

/// A request that must succeed, soon.
fn ok(ask: &Ask<'_>, api: SocketAddr) -> Check {
    let mut last = None;
    let is_ok = || {
        last = ask.send(api);
        last.as_ref().is_some_and(Answer::is_ok)
    };
    wait_until(SOON, is_ok, String::new).map(drop).map_err(|_| brief(last.as_ref()))
}

/// Each token must be refused by each route at each node with a typed problem.
fn all_refused(nodes: &Nodes, tokens: &[String]) -> Check<u64> {
    let mut refused = 0;
    for (number, token) in tokens.iter().enumerate() {
        for (route, ask) in uses(token) {
            let answer = ask.send(nodes.all[number % ALL.len()].api);
            let code = answer.as_ref().map(Answer::code).unwrap_or_default();
            holds(code == FOREIGN, || {
                let shown: String = token.chars().take(24).collect();
                format!(
                    "{route} with token {number} ({shown}..) was answered {}",
                    brief(answer.as_ref())
                )
            })?;
            refused += 1;
        }
    }
    Ok(refused)
}

/// A federation that has a value everywhere, and the token of that value.
fn begin(bench: &Bench) -> Check<(Nodes, Book, String)> {
    let mut nodes = Nodes::new(bench, 3);
    nodes.form(3)?;
    make_namespaces(nodes.all[0].api)?;
    let mut book = Book::default();
    put(&mut book, nodes.all[0].api, EVENTUAL, "kb", "first");
    settle(bench, &nodes, &ALL, &book)?;
    let token = token_of(nodes.all[0].api, EVENTUAL, "kb")?;
    Ok((nodes, book, token))
}

/// Puts the value again, with a token.
fn put_after(api: SocketAddr, token: &str, value: &str) -> Option<Answer> {
    let path = format!("/v1/namespaces/{EVENTUAL}/kv/kb");
    Ask::new("PUT", path).raw(value).header(CONTEXT, token).send(api)
}

/// As [`put_after`], with a token that must be good.
fn taken(book: &mut Book, api: SocketAddr, (what, token): (&str, &str), value: &str) -> Check {
    let answer = put_after(api, token, value);
    book.put(EVENTUAL, "kb", value, answered(answer.as_ref()));
    holds(answer.as_ref().is_some_and(Answer::is_ok), || {
        format!("{what} was answered {}", brief(answer.as_ref()))
    })
}

fn foreign(bench: &Bench, tokens: fn(&Bench, &Nodes, &str) -> Check<Vec<String>>) -> Check<String> {
    let (mut nodes, mut book, token) = begin(bench)?;
    let mut tokens = tokens(bench, &nodes, &token)?;
    let reborn = rebirth(&nodes, &mut tokens)?;
    let writers = Writers::start(&nodes, &ALL, "");
    let checked = all_refused(&nodes, &tokens)
        .and_then(|refused| refused_in(&nodes, &reborn).map(|()| refused));
    writers.stop(&mut book);
    // The author of the dots that were claimed writes on, and so does everybody else.
    must_write(&mut book, &nodes, &ALL, "-after")?;
    put(&mut book, nodes.all[1].api, EVENTUAL, "kc", "honest");
    let kept = settle(bench, &nodes, &ALL, &book);
    let refused = checked?;
    kept?;
    nodes.restart(&ALL)?;
    nodes.all_serve(&ALL)?;
    must_write(&mut book, &nodes, &ALL, "-restarted")?;
    let settled = settle(bench, &nodes, &ALL, &book)?;
    Ok(format!("{refused} requests with {} tokens refused; {settled}", tokens.len()))
}

/// Deletes the namespace `reborn` and makes it again, if a token of it is among these. Its token is for its successor.
fn rebirth(nodes: &Nodes, tokens: &mut Vec<String>) -> Check<Option<String>> {
    let api = nodes.all[0].api;
    if !Ask::get("/v1/namespaces/reborn").send(api).is_some_and(|answer| answer.is_ok()) {
        return Ok(None);
    }
    ok(&Ask::new("DELETE", "/v1/namespaces/reborn"), api)?;
    make(api, "reborn")?;
    Ok(tokens.pop())
}

fn refused_in(nodes: &Nodes, reborn: &Option<String>) -> Check {
    let Some(token) = reborn else { return Ok(()) };
    let ask = Ask::new("PUT", "/v1/namespaces/reborn/kv/kb").raw("doomed").header(CONTEXT, token);
    let answer = ask.send(nodes.all[0].api);
    holds(answer.as_ref().is_some_and(|answer| answer.code() == FOREIGN), || {
        format!("the token of a deleted namespace was answered {}", brief(answer.as_ref()))
    })
}

fn real(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book, old) = begin(bench)?;
    for round in ["running", "restarted"] {
        for at in ALL {
            let (api, value) = (nodes.all[at].api, format!("{round}-{at}"));
            let token = token_of(api, EVENTUAL, "kb")?;
            if at == 0 && round == "running" {
                nodes.restart(&[1, 2])?;
                nodes.all_serve(&ALL)?;
            }
            taken(&mut book, api, ("a real token", &token), &value)?;
            settle(bench, &nodes, &ALL, &book)?;
        }
        nodes.restart(&ALL)?;
        nodes.all_serve(&ALL)?;
    }
    // A value that an old token never saw stays beside the new value.
    taken(&mut book, nodes.all[2].api, ("an old token", &old), "late")?;
    let read =
        Ask::get(format!("/v1/namespaces/{EVENTUAL}/kv/kb")).header("Accept", "application/json");
    let siblings =
        read.send(nodes.all[2].api).map_or(Value::Null, |answer| answer.json()["siblings"].clone());
    holds(siblings == json!(["late", "restarted-2"]), || format!("the siblings are {siblings}"))?;
    let settled = settle(bench, &nodes, &ALL, &book)?;
    Ok(format!("a real token is good everywhere; {settled}"))
}

fn rotated(bench: &Bench) -> Check<String> {
    let (nodes, mut book, token) = begin(bench)?;
    let rotate = |at: usize| -> Check {
        let (code, text) = nodes.all[at].cli(&["cluster", "rotate-key"]);
        holds(code == Some(0), || format!("rotate-key ended with {code:?}: {text}"))
    };
    rotate(0)?;
    taken(&mut book, nodes.all[1].api, ("a token of the key before", &token), "once")?;
    rotate(2)?;
    // Until a node knows of the new key it may still take the token.
    book.put(EVENTUAL, "kb", "twice", Answered::Unknown);
    let mut last = None;
    wait_until(
        SOON,
        || {
            last = put_after(nodes.all[1].api, &token, "twice");
            last.as_ref().is_some_and(|answer| answer.code() == FOREIGN)
        },
        String::new,
    )
    .map_err(|_| format!("a token of two keys before was answered {}", brief(last.as_ref())))?;
    settle(bench, &nodes, &ALL, &book)?;
    let fresh = token_of(nodes.all[2].api, EVENTUAL, "kb")?;
    taken(&mut book, nodes.all[0].api, ("a new token", &fresh), "new")?;
    settle(bench, &nodes, &ALL, &book)
}
