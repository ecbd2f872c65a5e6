//! Certificates, key files and terminals: what must not be taken, followed or printed as it is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use continuum_core::id::{Address, NodeId};
use continuum_core::time::WallTime;
use continuum_runtime::clock::{Clock as _, SystemClock};
use continuum_runtime::entropy;
use continuum_runtime::tls::Credentials;
use continuum_runtime::tls::pki::Validity;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Purpose, IsCa, Issuer,
    KeyPair, SanType,
};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::json;

use super::{begin, begin_with, finish, is, make, path, written};
use crate::attack::Attacker;
use crate::federation::{Nodes, SOON, validity};
use crate::http::{Ask, PATIENCE};
use crate::row::{Bench, Check, Row, holds, wait_until};

/// The exit codes of a refused file, of a name that is taken, and of a refused certificate.
const LOCAL: i32 = 8;
const EXISTS: i32 = 6;
const TLS: i32 = 5;
/// A listener that refuses a certificate says so within this.
const TOLD: Duration = Duration::from_secs(2);
/// A second, in milliseconds.
const SECOND_MS: u64 = 1000;

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "papers.certificates",
        expected: "certificates without a purpose, for another purpose and of an authority between are refused by both \
                   listeners and counted; sound ones are taken",
        run: certificates,
    },
    Row {
        name: "papers.api-certificate",
        expected: "a node whose API certificate has expired does not start, `config check` says so, and the metrics \
                   have when a sound one ends",
        run: api_certificate,
    },
    Row {
        name: "papers.key-files",
        expected: "`pki init` and `node start` follow no symbolic link, take no file that was there before and no key \
                   that others may read",
        run: key_files,
    },
    Row {
        name: "papers.names",
        expected: "the name and the address that another node tells are escaped on a terminal and in the log, and \
                   forge no line",
        run: names,
    },
    Row {
        name: "papers.terminal",
        expected: "control characters of keys, values and names are escaped on a terminal and raw in a pipe",
        run: terminal,
    },
];

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The credentials of a node with these purposes, from the federation's own authority or from one below it.
pub(super) fn credentials(
    nodes: &Nodes,
    bench: &Bench,
    purposes: &[Purpose],
    below: bool,
) -> Check<Credentials> {
    let folder = bench.folder();
    nodes.authority.save(&folder).map_err(text)?;
    let key = fs::read_to_string(folder.join("ca.key")).map_err(text)?;
    let pair = KeyPair::from_pem(&key).map_err(text)?;
    let root = Issuer::from_ca_cert_pem(nodes.authority.certificate(), pair).map_err(text)?;
    let mut chain = String::new();
    let issuer = if below {
        let mut params = CertificateParams::new(Vec::new()).map_err(text)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, "between");
        let pair = KeyPair::generate().map_err(text)?;
        chain = params.signed_by(&pair, &root).map_err(text)?.pem();
        Issuer::new(params, pair)
    } else {
        root
    };
    let mut params = CertificateParams::new(Vec::new()).map_err(text)?;
    let uri = format!("spiffe://{}/node/{}", nodes.federation(), NodeId(entropy::identity()));
    params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(text)?)];
    params.extended_key_usages = purposes.to_vec();
    let pair = KeyPair::generate().map_err(text)?;
    let chain = params.signed_by(&pair, &issuer).map_err(text)?.pem() + &chain;
    let (ca, key) = (nodes.authority.certificate(), pair.serialize_pem());
    Credentials::from_pem(ca.as_bytes(), chain.as_bytes(), key.as_bytes()).map_err(text)
}

pub(super) fn connect(
    to: SocketAddr,
    config: Arc<ClientConfig>,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from("continuum").map_err(io::Error::other)?;
    let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(TOLD))?;
    Ok(StreamOwned::new(tls, stream))
}

/// Whether a listener keeps a client that shows a certificate and says nothing. With TLS 1.3 the refusal is an alert
/// after the client's own handshake.
fn is_kept(to: SocketAddr, config: Arc<ClientConfig>) -> Check<bool> {
    let mut stream = connect(to, config).map_err(text)?;
    stream.flush().map_err(text)?;
    match stream.read(&mut [0; 64]) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        other => Err(format!("a silent client is answered {other:?}")),
    }
}

/// The settings of an API with TLS and a certificate of this validity.
fn give_api_tls(nodes: &mut Nodes, bench: &Bench, validity: Validity) -> Check {
    let folder = bench.folder();
    let node = NodeId(entropy::identity());
    let issued = nodes.authority.issue_node(node, &["localhost".into()], validity).map_err(text)?;
    issued.save(&folder, "api").map_err(text)?;
    nodes.authority.save(&folder).map_err(text)?;
    let file = |name: &str| folder.join(name).display().to_string();
    nodes.all[0].settings = format!(
        "[api.tls]\nca = \"{}\"\ncert = \"{}\"\nkey = \"{}\"\n",
        file("ca.pem"),
        file("api.pem"),
        file("api.key")
    );
    Ok(())
}

/// Starts the node with its API on TLS.
pub(super) fn start_with_tls(nodes: &mut Nodes, bench: &Bench) -> Check {
    give_api_tls(nodes, bench, validity())?;
    let node = &mut nodes.all[0];
    node.start();
    let listens = || [node.peer, node.api].iter().all(|to| TcpStream::connect(to).is_ok());
    wait_until(SOON, listens, || "the node does not listen".into()).map(drop)
}

/// The page of metrics of a node with its API on TLS.
fn metrics(nodes: &Nodes, bench: &Bench) -> Check<String> {
    let sound = credentials(nodes, bench, &[Purpose::ClientAuth, Purpose::ServerAuth], false)?;
    let config = sound.api_client(Arc::new(SystemClock)).map_err(text)?;
    let mut stream = connect(nodes.all[0].api, config).map_err(text)?;
    let ask = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(ask.as_bytes()).map_err(text)?;
    let mut page = Vec::new();
    let read = stream.read_to_end(&mut page).map_err(text);
    let page = String::from_utf8_lossy(&page).into_owned();
    holds(page.starts_with("HTTP/1.1 200"), || format!("the metrics are {read:?}: {page}"))?;
    Ok(page)
}

/// The sum of the samples whose line has this part.
fn sample(page: &str, part: &str) -> f64 {
    let lines = page.lines().filter(|line| line.contains(part));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn certificates(bench: &Bench) -> Check<String> {
    let mut nodes = Nodes::new(bench, 1);
    start_with_tls(&mut nodes, bench)?;
    let (peer, api) = (nodes.all[0].peer, nodes.all[0].api);
    let all = [Purpose::ClientAuth, Purpose::ServerAuth];
    let asks: [(&str, &[Purpose], bool, bool); 5] = [
        ("a sound one", &all, false, true),
        ("one without a purpose", &[], false, false),
        ("one for servers alone", &[Purpose::ServerAuth], false, false),
        ("one to sign code", &[Purpose::CodeSigning], false, false),
        ("one of an authority between", &all, true, false),
    ];
    for (what, purposes, below, expected) in asks {
        let shown = credentials(&nodes, bench, purposes, below)?;
        let clock = Arc::new(SystemClock);
        let kept = [
            is_kept(peer, shown.peer_client(Arc::<SystemClock>::clone(&clock)).map_err(text)?)?,
            is_kept(api, shown.api_client(clock).map_err(text)?)?,
        ];
        holds(kept == [expected; 2], || {
            format!("{what}: kept by the peer and API listeners {kept:?}")
        })?;
    }
    let page = metrics(&nodes, bench)?;
    let refused: f64 = ["purpose", "path_length"]
        .iter()
        .map(|reason| {
            sample(&page, &format!("tls_handshake_failures_total{{reason=\"{reason}\"}}"))
        })
        .sum();
    holds(refused > 7.5, || format!("{refused} of 8 refusals are counted"))?;
    Ok(format!("1 kept and 4 refused by each of 2 listeners, {refused} refusals counted"))
}

fn api_certificate(bench: &Bench) -> Check<String> {
    let mut nodes = Nodes::new(bench, 1);
    let now = SystemClock.now().wall.0;
    let expired =
        Validity { from: WallTime(now - 3600 * SECOND_MS), until: WallTime(now - SECOND_MS) };
    give_api_tls(&mut nodes, bench, expired)?;
    nodes.all[0].start();
    let ended = nodes.all[0].ends(SOON);
    let last = nodes.all[0].last_line();
    let _ = nodes.all[0].kill();
    holds(ended.is_some_and(|(code, _)| code == TLS), || {
        format!("with an expired API certificate it ended {ended:?}: {last}")
    })?;
    let config = nodes.all[0].data.with_file_name("node.toml");
    let config = config.display().to_string();
    let checked = run(bench, &["config", "check", "--config", &config]);
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    holds(checked.status.code() == Some(TLS) && told.contains("api.tls"), || {
        format!("`config check` ends with {:?}: {told}", checked.status.code())
    })?;
    start_with_tls(&mut nodes, bench)?;
    let page = metrics(&nodes, bench)?;
    let ends = sample(&page, "tls_cert_expiry_timestamp_seconds{listener=\"api\"}");
    let expected = (validity().until.0 / SECOND_MS) as f64;
    holds((ends - expected).abs() < 60.0, || format!("it ends at {ends}, not at {expected}"))?;
    Ok(format!("exit {TLS} twice; the metric says {ends}"))
}

/// Runs the binary.
fn run(bench: &Bench, words: &[&str]) -> Output {
    let mut command = Command::new(&bench.binary);
    command.args(words).stdin(Stdio::null()).output().expect("the binary runs")
}

fn key_files(bench: &Bench) -> Check<String> {
    let folder: PathBuf = bench.folder();
    fs::create_dir_all(&folder).map_err(text)?;
    let victim = folder.join("victim");
    fs::write(&victim, "mine").map_err(text)?;
    let is_untouched = || fs::read(&victim).is_ok_and(|bytes| bytes == b"mine");
    for (number, name) in ["ca.key", "ca.key.new", "ca.pem", "ca.pem.new"].into_iter().enumerate() {
        let out = folder.join(format!("pki{number}"));
        fs::create_dir_all(&out).map_err(text)?;
        symlink(&victim, out.join(name)).map_err(text)?;
        let made = run(bench, &["pki", "init", "--out", &out.display().to_string()]);
        holds(is_untouched(), || format!("`pki init` wrote through the link {name}"))?;
        let key = fs::symlink_metadata(out.join("ca.key"));
        let is_link = key.as_ref().is_ok_and(fs::Metadata::is_symlink);
        let code = made.status.code();
        let is_refused = code == Some(LOCAL) || code == Some(EXISTS);
        holds(is_refused || (code == Some(0) && !is_link), || {
            format!("`pki init` beside the link {name} ends with {code:?}")
        })?;
    }
    // A file that another process made before, and holds open.
    let out = folder.join("made-before");
    fs::create_dir_all(&out).map_err(text)?;
    let made_before = out.join("ca.key.new");
    fs::write(&made_before, "").map_err(text)?;
    fs::set_permissions(&made_before, fs::Permissions::from_mode(0o666)).map_err(text)?;
    let mut held = File::open(&made_before).map_err(text)?;
    let _ = run(bench, &["pki", "init", "--out", &out.display().to_string()]);
    let mut seen = String::new();
    held.read_to_string(&mut seen).map_err(text)?;
    holds(seen.is_empty(), || "a key went into a file that another process holds".into())?;
    let started = keys_of_a_node(bench)?;
    Ok(format!("5 traps for `pki init`, none sprung; `node start`: {started}"))
}

/// A node with a key that is a link, or that others may read.
fn keys_of_a_node(bench: &Bench) -> Check<String> {
    let mut nodes = Nodes::new(bench, 1);
    let key = nodes.all[0].data.with_file_name("node.key");
    let moved = key.with_extension("elsewhere");
    fs::rename(&key, &moved).map_err(text)?;
    symlink(&moved, &key).map_err(text)?;
    let mut told = Vec::new();
    for what in ["link", "open"] {
        if what == "open" {
            fs::remove_file(&key).map_err(text)?;
            fs::rename(&moved, &key).map_err(text)?;
            fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).map_err(text)?;
        }
        nodes.all[0].start();
        let ended = nodes.all[0].ends(SOON);
        let last = nodes.all[0].last_line();
        let _ = nodes.all[0].kill();
        holds(ended.is_some_and(|(code, _)| code == LOCAL), || {
            format!("a node with such a key ({what}) ended {ended:?}: {last}")
        })?;
        told.push(format!("{what} {LOCAL}"));
    }
    Ok(told.join(", "))
}

/// Runs the command line on a terminal, and returns what it showed.
fn on_terminal(nodes: &Nodes, bench: &Bench, words: &[&str]) -> Check<Vec<u8>> {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).map_err(text)?;
    grantpt(&controller).map_err(text)?;
    unlockpt(&controller).map_err(text)?;
    let name = ptsname(&controller, Vec::new()).map_err(text)?;
    let name = Path::new(name.to_str().map_err(text)?).to_owned();
    let terminal = OpenOptions::new().read(true).write(true).open(name).map_err(text)?;
    let mut command = Command::new(&bench.binary);
    command.args(["--node", &format!("http://{}", nodes.all[0].api)]).args(words);
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command.stdout(terminal.try_clone().map_err(text)?).stderr(terminal);
    let mut child = command.spawn().map_err(text)?;
    // Only the child holds the terminal now: its end is the end of the reading.
    drop(command);
    let mut shown = Vec::new();
    // At the end a terminal gives an error.
    let _ = File::from(controller).read_to_end(&mut shown);
    let _ = child.wait().map_err(text)?;
    Ok(shown)
}

fn is_control(byte: &u8) -> bool {
    *byte < b' ' && !b"\r\n\t".contains(byte)
}

fn names(bench: &Bench) -> Check<String> {
    let mut nodes = Nodes::new(bench, 3);
    // A node at this level says where it finds nobody.
    nodes.all[0].variables.push(("CONTINUUM_LOG__FILTER".into(), "continuum_runtime=debug".into()));
    let mut book = begin_with(&mut nodes)?;
    // Settings refuse such names, so they come from a process that is not ours.
    let mut attacker = Attacker::stranger(&nodes);
    attacker.name = "\u{1b}[31mEVIL\u{1b}]0;owned\u{7}\nforged row\u{9b}2J".into();
    attacker.address = Address("\u{1b}[31mevil\nforged.example:1".into());
    let peers: Vec<SocketAddr> = nodes.all.iter().map(|node| node.peer).collect();
    drop(attacker.join(&peers)?);
    let missed = || nodes.all[0].members().iter().any(|member| member["health"] == "unhealthy");
    wait_until(SOON, missed, || "the attacker is not missed".into())?;
    let commands: [&[&str]; 3] =
        [&["cluster", "members"], &["cluster", "health"], &["cluster", "status"]];
    let mut named = 0;
    for words in commands {
        let shown = on_terminal(&nodes, bench, words)?;
        let text = String::from_utf8_lossy(&shown).into_owned();
        let forged = text.lines().any(|line| line.trim().starts_with("forged"));
        named += text.matches("\\u001b[31mEVIL").count();
        holds(!forged && !shown.iter().any(is_control) && !text.contains('\u{9b}'), || {
            format!("{words:?} on a terminal shows {text:?}")
        })?;
    }
    holds(named >= 2, || format!("the name is shown {named} times"))?;
    let log = fs::read(&nodes.all[0].log).map_err(text)?;
    let lines = String::from_utf8_lossy(&log).into_owned();
    let is_plain = !log.iter().any(is_control) && !lines.contains('\u{9b}');
    let forged = lines.lines().any(|line| line.trim().starts_with("forged"));
    holds(is_plain && !forged, || format!("the log has {lines:?}"))?;
    let is_logged = lines.contains("\\u001b[31mevil\\nforged.example");
    holds(is_logged, || "the log has no word of another node".into())?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("a name is shown {named} times as escapes, the log forges no line; {settled}"))
}

fn terminal(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    make(nodes.all[0].api, "t", "eventual")?;
    let api = nodes.all[0].api;
    let evil = "\u{1b}[31mred\u{1b}]0;owned\u{7}\r\nforged row\u{9b}2J";
    let put = Ask::new("PUT", path("t", "kv/%1B%5B31mkey%0Aforged%07")).raw(evil);
    written(put.send(api).as_ref(), || "a put".into())?;
    let edits = json!({ "edits": [
        { "field": evil, "put": evil },
        { "field": "set", "add": [evil] },
    ] });
    let record = Ask::new("POST", path("t", "records/r")).json(&edits).send(api);
    is(record.as_ref(), 200, "", || "a record".into())?;
    let key = "\u{1b}[31mkey\nforged\u{7}";
    let commands: [&[&str]; 6] = [
        &["kv", "list", "t"],
        &["kv", "get", "t", key],
        &["record", "get", "t", "r"],
        &["set", "members", "t", "r", "--field", "set"],
        &["ns", "list"],
        &["kv", "get", "t", "\u{1b}[31mabsent"],
    ];
    for words in commands {
        let shown = on_terminal(&nodes, bench, words)?;
        let text = String::from_utf8_lossy(&shown).into_owned();
        let is_raw = shown.iter().any(is_control) || text.contains('\u{9b}');
        // The lines of one value are its own.
        let forged = words[..2] != ["kv", "get"]
            && text.lines().any(|line| line.trim().starts_with("forged"));
        holds(!is_raw && !forged, || format!("{words:?} on a terminal shows {text:?}"))?;
    }
    let piped = nodes.all[0].run(&["kv", "get", "--raw", "t", key], b"");
    holds(piped.out == evil.as_bytes(), || format!("a pipe gets {:?}", piped.out))?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!(
        "{} commands show no control character, a pipe gets each byte; {settled}",
        commands.len()
    ))
}
