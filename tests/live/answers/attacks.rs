//! Attacks on the HTTP API of one node, and a client beside them that only writes: it is never refused, and its waits
//! hardly grow.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::{ALL, begin, finish, make, path, written};
use crate::book::Book;
use crate::federation::Nodes;
use crate::honest::{Honest, Manner, Told, ms, p99};
use crate::http::{Ask, metric};
use crate::row::{Bench, Check, Row, holds, pause};

/// The client is watched for this long without an attack, and then with it.
pub(super) const WATCHED: Duration = Duration::from_secs(12);
/// The waits of the client grow by this factor at most.
const RATIO_MAX: f64 = 2.0;
/// Below this a wait is that of a machine on which attackers, clients and nodes share the processors.
const NOISE: Duration = Duration::from_millis(20);
/// The attacked node takes this much more memory at most: its budgets of requests and answers, and some.
const GROWTH_MAX: f64 = 512.0 * 1024.0 * 1024.0;

/// Attackers rest for this long between two requests.
const REST: Duration = Duration::from_millis(100);
/// Open files of this program and of a node, at least.
const FILES_MIN: u64 = 4000;

/// How an attack goes on: it opens, writes and reads until it is told to stop, and counts what it did.
type Attack = fn(SocketAddr, &Going);

/// Whether the attack goes on, and how much it did.
#[derive(Debug, Default)]
pub(super) struct Going {
    pub(super) is_over: AtomicBool,
    pub(super) acts: AtomicU64,
}

impl Going {
    pub(super) fn is_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self) {
        self.acts.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "attacks.slow-bodies",
        "200 bodies of 4 MiB at 1 byte a second, with a length and chunked: an honest client is refused \
                   nothing, and its p99 is at most twice that without",
        |bench| attacked(bench, slow_bodies),
    ),
    Row::new("attacks.slow-heads", "the same beside 500 heads that never end", |bench| {
        attacked(bench, slow_heads)
    }),
    Row::new(
        "attacks.many-connections",
        "the same beside 2,500 idle connections of its own address; /livez is answered throughout",
        |bench| attacked(bench, many_connections),
    ),
    Row::new(
        "attacks.huge-bodies",
        "the same beside 8 clients that each send 16 MiB in one body every second, with a length and chunked",
        |bench| attacked(bench, huge_bodies),
    ),
    Row::new(
        "attacks.many-values",
        "the same beside 8 clients that send batches of 1,400,000 empty edits",
        |bench| attacked(bench, many_values),
    ),
    Row::new(
        "attacks.deep-json",
        "the same beside 8 clients that send lists in lists, 100,000 deep",
        |bench| attacked(bench, deep_json),
    ),
    Row::new(
        "attacks.slow-readers",
        "the same beside 300 readers of large pages at 1 KiB a second",
        |bench| attacked(bench, slow_readers),
    ),
];

fn attacked(bench: &Bench, attack: Attack) -> Check<String> {
    raise_files(bench)?;
    let (mut nodes, mut book) = begin(bench, 3)?;
    large_page(&nodes)?;
    let api = nodes.all[0].api;
    let calm = |book: &mut Book, when: &str| {
        let honest = Honest::start(Manner::at(api), format!("{when}-attack"));
        pause(WATCHED);
        honest.stop(book)
    };
    let earlier = calm(&mut book, "before");
    let before = metric(api, "process_resident_memory_bytes");
    let going = Arc::new(Going::default());
    let seen = Arc::clone(&going);
    let attacker = std::thread::spawn(move || attack(api, &seen));
    // The attack is under way before the client is.
    pause(Duration::from_secs(1));
    let honest = Honest::start(Manner::at(api), "attacked".into());
    let (mut silent, mut most) = (0, before);
    for _ in 0..WATCHED.as_secs() * 2 {
        pause(Duration::from_millis(500));
        silent += u32::from(!Ask::get("/livez").send(api).is_some_and(|answer| answer.is_ok()));
        most = most.max(metric(api, "process_resident_memory_bytes"));
    }
    let under = honest.stop(&mut book);
    going.is_over.store(true, Ordering::Relaxed);
    attacker.join().map_err(|_| "the attacker broke")?;
    let acts = going.acts.load(Ordering::Relaxed);
    let told = judge([&earlier, &calm(&mut book, "after")], &under)?;
    holds(silent == 0, || format!("{told}; /livez was silent {silent} times"))?;
    holds(acts > 20, || format!("the attack did only {acts} acts"))?;
    let grown = most - before;
    let mib = grown / 1024.0 / 1024.0;
    holds(grown <= GROWTH_MAX, || format!("{told}; the node grew by {mib:.0} MiB"))?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("{told}; {acts} acts, the node grew by {mib:.0} MiB; {settled}"))
}

/// Compares the waits of the client with those before and after the attack. The longer ones of these count, since other
/// work on the machine comes and goes.
fn judge(calm: [&[Told]; 2], under: &[Told]) -> Check<String> {
    judge_above(NOISE, calm, under)
}

/// As [`judge`], with another wait that is never too long.
pub(super) fn judge_above(noise: Duration, calm: [&[Told]; 2], under: &[Told]) -> Check<String> {
    for (when, told) in [("before the", calm[0]), ("under", under), ("after the", calm[1])] {
        let refused: Vec<&str> =
            told.iter().map(|one| one.refusal.as_str()).filter(|text| !text.is_empty()).collect();
        holds(refused.is_empty(), || {
            let (few, all) = (refused.len(), told.len());
            format!("{when} attack {few} of {all} honest writes were refused: {}", refused[0])
        })?;
        holds(told.len() > 50, || format!("{when} attack only {} writes were made", told.len()))?;
    }
    let waits = |told: &[Told]| p99(told.iter().map(|one| one.took));
    let (without, with) = (calm.map(waits).into_iter().max().unwrap_or_default(), waits(under));
    let ratio = with.as_secs_f64() / without.as_secs_f64();
    let told = format!(
        "p99 {} of {} writes, {} without: ratio {ratio:.2}",
        ms(with),
        under.len(),
        ms(without)
    );
    holds(ratio <= RATIO_MAX || with <= noise, || told.clone())?;
    Ok(told)
}

/// Attacks need some thousand connections, each with a file at both ends.
pub(super) fn raise_files(bench: &Bench) -> Check {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|most| most < FILES_MIN) {
        return bench.skip(format!("a process may open fewer than {FILES_MIN} files here"));
    }
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).map_err(|error| error.to_string())
}

/// A page of rows that is far larger as JSON than in memory.
fn large_page(nodes: &Nodes) -> Check {
    let api = nodes.all[0].api;
    make(api, "pages", "eventual")?;
    for at in 0..2 {
        let put = Ask::new("PUT", path("pages", &format!("kv/{at}"))).raw(vec![0; 450 << 10]);
        written(put.send(api).as_ref(), || "a large value".into())?;
    }
    nodes.all[ALL[0]].becomes_ready()
}

/// A connection that has sent this much.
fn opened(api: SocketAddr, bytes: &[u8]) -> Option<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&api, Duration::from_secs(2)).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(bytes).ok()?;
    stream.set_nonblocking(true).ok()?;
    Some(stream)
}

/// Holds this many connections, each of which begins like this and goes on with one byte a second. One that the node
/// closed is opened anew.
fn trickle(
    api: SocketAddr,
    going: &Going,
    count: usize,
    begins: impl Fn(usize) -> Vec<u8>,
    byte: &[u8],
) {
    let mut all: Vec<Option<TcpStream>> = (0..count).map(|_| None).collect();
    while going.is_on() {
        for (at, slot) in all.iter_mut().enumerate() {
            let is_open = slot.as_mut().is_some_and(|stream| stream.write_all(byte).is_ok());
            if !is_open {
                *slot = opened(api, &begins(at));
                going.count();
            }
        }
        pause(Duration::from_secs(1));
    }
}

fn put_head(api: SocketAddr, more: &str) -> Vec<u8> {
    let path = path("pages", "kv/attack");
    format!("PUT {path} HTTP/1.1\r\nHost: {api}\r\n{more}\r\n").into_bytes()
}

fn slow_bodies(api: SocketAddr, going: &Going) {
    let begins = |at: usize| match at % 2 {
        0 => put_head(api, "Content-Length: 4194304\r\n"),
        _ => [put_head(api, "Transfer-Encoding: chunked\r\n"), b"400000\r\n".to_vec()].concat(),
    };
    trickle(api, going, 200, begins, b"v");
}

fn slow_heads(api: SocketAddr, going: &Going) {
    let begins = |_| format!("GET /livez HTTP/1.1\r\nHost: {api}\r\nX-Slow: ").into_bytes();
    trickle(api, going, 500, begins, b"v");
}

fn many_connections(api: SocketAddr, going: &Going) {
    let mut all: Vec<TcpStream> = Vec::new();
    while going.is_on() {
        let mut byte = [0];
        // One that was closed reads as the end.
        all.retain_mut(|stream| stream.read(&mut byte).is_err());
        while all.len() < 2500 && going.is_on() {
            let Some(stream) = opened(api, b"") else { break };
            all.push(stream);
            going.count();
        }
        pause(Duration::from_secs(1));
    }
}

/// Eight clients that send a request, read its answer, rest, and begin again.
fn repeat(going: &Going, requests: &[Vec<u8>], api: SocketAddr, rest: Duration) {
    std::thread::scope(|scope| {
        for request in requests.iter().cycle().take(8) {
            scope.spawn(move || {
                while going.is_on() {
                    let answer = crate::http::exchange(api, request, Duration::from_secs(8));
                    // The attack is none when it is not even received.
                    if answer.is_some() {
                        going.count();
                    }
                    pause(rest);
                }
            });
        }
    });
}

fn huge_bodies(api: SocketAddr, going: &Going) {
    let body = vec![b'v'; 16 << 20];
    let close = "Connection: close\r\n";
    let whole = put_head(api, &format!("{close}Content-Length: {}\r\n", body.len()));
    let chunked = put_head(api, &format!("{close}Transfer-Encoding: chunked\r\n"));
    let size = format!("{:x}\r\n", body.len());
    let requests = [
        [&whole[..], &body].concat(),
        [&chunked[..], size.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat(),
    ];
    // Without a rest, eight clients that only copy bytes would take a small machine for themselves.
    repeat(going, &requests, api, Duration::from_secs(1));
}

fn post(api: SocketAddr, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: \
         {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn many_values(api: SocketAddr, going: &Going) {
    let edits = "{},".repeat(1_390_000);
    let batch = format!("{{\"writes\":[{{\"key\":\"a\",\"edits\":[{edits}{{}}]}}]}}");
    let members = format!("{{\"add\":[{}\"\"]}}", "\"\",".repeat(1_390_000));
    let requests =
        [post(api, &path("pages", "batch"), &batch), post(api, &path("pages", "sets/s"), &members)];
    repeat(going, &requests, api, REST);
}

fn deep_json(api: SocketAddr, going: &Going) {
    let lists = "[".repeat(100_000) + &"]".repeat(100_000);
    let objects = "{\"a\":".repeat(100_000) + "1" + &"}".repeat(100_000);
    let requests = [
        post(api, &path("pages", "batch"), &format!("{{\"writes\":{lists}}}")),
        post(api, &path("pages", "batch"), &objects),
        post(api, "/v1/namespaces", &lists),
    ];
    repeat(going, &requests, api, REST);
}

fn slow_readers(api: SocketAddr, going: &Going) {
    let ask = format!("GET {} HTTP/1.1\r\nHost: {api}\r\n\r\n", path("pages", "rows"));
    let mut all: Vec<Option<TcpStream>> = (0..300).map(|_| None).collect();
    let mut piece = [0; 1024];
    while going.is_on() {
        for slot in &mut all {
            let is_open = match slot.as_mut().map(|stream| stream.read(&mut piece)) {
                Some(Ok(read)) => read > 0,
                Some(Err(error)) => error.kind() == std::io::ErrorKind::WouldBlock,
                None => false,
            };
            if !is_open {
                *slot = opened(api, ask.as_bytes());
                going.count();
            }
        }
        pause(Duration::from_secs(1));
    }
    for stream in all.into_iter().flatten() {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(ms: u64, refusal: &str) -> Told {
        let took = Duration::from_millis(ms);
        let (key, value) = (String::new(), String::new());
        Told { at: took, took, refusal: refusal.into(), key, value }
    }

    #[test]
    fn a_client_is_judged_by_its_refusals_and_its_waits() {
        let many = |ms| vec![told(ms, ""); 100];
        let calm = [many(10), many(30)];
        let judge = |under: &[Told]| judge([&calm[0], &calm[1]], under);
        assert!(judge(&many(60)).is_ok());
        assert!(judge(&many(61)).is_err());
        assert!(judge(&many(30)[..50]).is_err(), "it hardly wrote");
        let mut refused = many(30);
        refused.push(told(1, "429 busy"));
        assert!(judge(&refused).unwrap_err().contains("429 busy"));
    }

    #[test]
    fn the_attacks_are_requests() {
        let api = SocketAddr::from(([127, 0, 0, 1], 1));
        let request = post(api, "/v1/namespaces", &json!({ "name": 1 }).to_string());
        let text = String::from_utf8(request).expect("text");
        let body = text.split("\r\n\r\n").nth(1).expect("a body");
        assert_eq!(serde_json::from_str::<Value>(body).expect("JSON")["name"], 1);
        assert!(text.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert!(put_head(api, "").ends_with(b"\r\n\r\n"));
    }
}
