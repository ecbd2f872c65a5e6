//! An operator's day with real processes: settings, readiness, metrics and `dev`.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use continuum_tests::process::{Dev, Guard, binary, free_ports, get, run, signal, wait_until};
use serde_json::Value;

/// Runs the binary in a directory, with variables. It must end.
fn run_in(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).envs(variables.iter().copied()).current_dir(folder);
    let mut process = Guard::start(command.stderr(Stdio::piped()));
    let what = format!("{arguments:?} ends");
    wait_until(&what, || process.0.try_wait().expect("a child").is_some());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    process.0.stdout.take().expect("a pipe").read_to_end(&mut stdout).expect("read");
    process.0.stderr.take().expect("a pipe").read_to_end(&mut stderr).expect("read");
    Output { status: process.wait(), stdout, stderr }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The annotated file of a node and its certificates, as a new operator makes them.
fn node(folder: &Path) {
    let steps: [&[&str]; 2] =
        [&["pki", "init", "--out", "pki"], &["pki", "issue", "--ca", "pki", "--out", "pki/n1"]];
    for step in steps {
        let made = run_in(folder, step, &[]);
        assert!(made.status.success(), "{step:?}: {}", text(&made.stderr));
    }
    let file = run_in(folder, &["config", "init"], &[]);
    assert!(file.status.success(), "{}", text(&file.stderr));
    fs::write(folder.join("n1.toml"), file.stdout).expect("written");
}

#[test]
fn config_check_refuses_what_node_start_refuses() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    node(folder);
    let check = ["config", "check", "--config", "n1.toml"];
    let start = ["node", "start", "--config", "n1.toml"];
    let sound = run_in(folder, &check, &[]);
    assert!(sound.status.success(), "{}", text(&sound.stderr));
    assert!(!folder.join("data").exists(), "a check changes nothing");

    let other = run_in(folder, &["pki", "init", "--out", "other"], &[]);
    assert!(other.status.success());
    let client = ["pki", "issue", "--ca", "pki", "--out", "pki/ann", "--client", "ann"];
    assert!(run_in(folder, &client, &[]).status.success());
    fs::copy(folder.join("pki/n1/node.key"), folder.join("open.key")).expect("copied");
    fs::set_permissions(folder.join("open.key"), fs::Permissions::from_mode(0o644)).expect("set");
    fs::write(folder.join("empty.pem"), "").expect("written");
    fs::create_dir(folder.join("full")).expect("made");
    fs::write(folder.join("full/thesis.txt"), "mine").expect("written");
    fs::set_permissions(folder.join("full"), fs::Permissions::from_mode(0o700)).expect("set");

    let sets: &[(&[&str], i32)] = &[
        (&["log.filter=a=b=c=[[["], 2),
        (&["peer.listen=nowhere"], 2),
        (&["api.listen=0.0.0.0:7401"], 2),
        (&["api.listen=127.0.0.1:7400"], 2),
        (&["core.raft.heartbeat_ms=400"], 2),
        (&["peer.ca=/nonexistent"], 8),
        (&["peer.key=/nonexistent"], 8),
        (&["peer.key=open.key"], 8),
        (&["peer.ca=empty.pem"], 5),
        (&["peer.ca=other/ca.pem"], 5),
        (&["peer.cert=pki/ann/client.pem", "peer.key=pki/ann/client.key"], 5),
        (&["peer.key=pki/ann/client.key"], 5),
        (&["api.tls.ca=/a", "api.tls.cert=/b", "api.tls.key=/c"], 8),
        (&["data=n1.toml"], 8),
        (&["data=n1.toml/below"], 8),
        (&["data=full"], 8),
        // Addresses of documentation (RFC 5737, RFC 3849): no machine has them.
        (&["peer.listen=192.0.2.1:7400"], 8),
        (&["peer.listen=[2001:db8::1]:7400"], 8),
        (&["api.listen=127.0.0.1:7401", "peer.listen=[::ffff:127.0.0.1]:7401"], 2),
    ];
    for (sets, exit) in sets {
        both_refuse(folder, sets, *exit);
    }
    for name in ["CONTINUUM_LOG_FORMAT", "CONTINUUM_LOGG__FORMAT", "CONTINUUM_PEER__LISTNE"] {
        let found = [&check, &start].map(|verb| run_in(folder, verb, &[(name, "json")]));
        assert!(found.iter().all(|output| output.status.code() == Some(2)), "{name}");
        assert!(found.iter().all(|output| text(&output.stderr).contains(name)), "{name}");
    }
}

/// A check and a start with these settings end with this code, and with the same words.
fn both_refuse(folder: &Path, sets: &[&str], exit: i32) {
    let flags: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
    let of = |verb: [&'static str; 2]| [&verb[..], &["--config", "n1.toml"], &flags].concat();
    let checked = run_in(folder, &of(["config", "check"]), &[]);
    let started = run_in(folder, &of(["node", "start"]), &[]);
    assert_eq!(checked.status.code(), Some(exit), "{sets:?}: {}", text(&checked.stderr));
    assert_eq!(started.status.code(), Some(exit), "{sets:?}: {}", text(&started.stderr));
    // A node says it in its log as well.
    let told = text(&started.stderr);
    let told: Vec<&str> = told.lines().filter(|line| !line.contains(" ERROR ")).collect();
    assert_eq!(text(&checked.stderr).lines().collect::<Vec<_>>(), told, "{sets:?}");
    assert!(told.iter().any(|line| line.contains("hint: ")), "{sets:?}: {told:?}");
}

fn pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo runs").success());
}

#[test]
fn no_configured_file_can_hang_a_check_or_a_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    node(folder);
    pipe(&folder.join("pipe"));
    let huge = fs::File::create(folder.join("huge")).expect("made");
    huge.set_len(1 << 40).expect("a file of holes");
    fs::set_permissions(folder.join("huge"), fs::Permissions::from_mode(0o600)).expect("set");
    for file in ["pipe", "pki", "/dev/zero", "/dev/tty", "huge"] {
        let set = |key: &str| format!("{key}={file}");
        for key in ["peer.ca", "peer.cert", "peer.key", "data"] {
            // A directory may be one for data, but this one holds something else.
            both_refuse(folder, &[&set(key)], 8);
        }
        let tls = ["api.tls.ca", "api.tls.cert", "api.tls.key"].map(set);
        both_refuse(folder, &tls.each_ref().map(String::as_str), 8);
        for verb in [["config", "check"], ["node", "start"]] {
            let refused = run_in(folder, &[&verb[..], &["--config", file]].concat(), &[]);
            assert_eq!(refused.status.code(), Some(2), "{file}: {}", text(&refused.stderr));
        }
        let tls = ["--tls-ca", file, "--tls-cert", file, "--tls-key", file];
        let ask = ["--node", "https://127.0.0.1:1", "ns", "list"];
        assert_eq!(run_in(folder, &[&tls[..], &ask].concat(), &[]).status.code(), Some(8));
    }
}

/// Starts node 1 on any ports and waits until its log is on its disk.
fn started(folder: &Path) -> Guard {
    let log = fs::File::create(folder.join("n1.log")).expect("a log");
    let mut command = Command::new(binary());
    command.args(["node", "start", "--config", "n1.toml"]).current_dir(folder);
    let process = Guard::start(command.stderr(log));
    wait_until("the store is in use", || folder.join("data/n1/BEGUN").exists());
    process
}

#[test]
fn config_check_refuses_the_damaged_stores_that_node_start_refuses() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    node(folder);
    let ports = free_ports(2);
    let (peer, api) = (format!("127.0.0.1:{ports}"), format!("127.0.0.1:{}", ports + 1));
    let sets = [format!("peer.listen={peer}"), format!("api.listen={api}")];
    let file = run_in(folder, &["config", "init", "--set", &sets[0], "--set", &sets[1]], &[]);
    fs::write(folder.join("n1.toml"), file.stdout).expect("written");
    let check = ["config", "check", "--config", "n1.toml", "-o", "json"];

    let mut process = started(folder);
    let answer = run_in(folder, &check, &[]);
    let answer: Value = serde_json::from_slice(&answer.stdout).expect("JSON");
    let in_use = answer["in_use"].to_string();
    assert!([peer.as_str(), &api, "data/n1"].iter().all(|part| in_use.contains(part)), "{answer}");
    signal(process.0.id().into(), "TERM");
    assert!(process.wait().success());
    let answer = run_in(folder, &check, &[]);
    assert_eq!(text(&answer.stdout), "{\"in_use\":[],\"valid\":true}\n");

    let data = folder.join("data/n1");
    let kept = folder.join("kept");
    let log =
        fs::read_dir(data.join("lane-0")).expect("a log").map(|e| e.expect("an entry").path());
    let log = log.filter(|path| path.extension().is_some_and(|end| end == "log")).min();
    let log = log.expect("a segment");
    let log = log.strip_prefix(&data).expect("a part of the store").to_str().expect("text");
    let folders = ["LOCK", "reserve", log].map(|part| (part, "folder"));
    let files = ["lane-0", "side"].map(|part| (part, "file"));
    let damages = folders.into_iter().chain(files);
    let pipes = ["LOCK", "STORE", "FENCED", "reserve", "lane-0", "side", log];
    let damages = damages.chain(pipes.map(|part| (part, "pipe")));
    let damages = damages.chain(["lane-0", log].map(|part| (part, "gone")));
    for (part, damage) in damages.chain([(log, "rot")]) {
        let path = data.join(part);
        let was_there = path.exists();
        if was_there {
            fs::rename(&path, &kept).expect("moved");
        }
        match damage {
            "folder" => fs::create_dir(&path).expect("made"),
            "file" => fs::write(&path, "mine").expect("written"),
            "pipe" => pipe(&path),
            // The first batch, behind the segment's header.
            "rot" => {
                let mut rotten = fs::read(&kept).expect("a segment");
                rotten[4096 + 20] ^= 1;
                fs::write(&path, rotten).expect("written");
            }
            _ => {}
        }
        both_refuse(folder, &[], 8);
        // A start makes the directory of the log that is missing.
        let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        if was_there {
            fs::rename(&kept, &path).expect("moved back");
        }
    }
    assert!(run_in(folder, &check, &[]).status.success(), "the store itself is sound");
}

#[test]
fn all_mistakes_of_settings_and_files_are_told_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    node(folder.path());
    let sets = ["log.filter=[", "peer.ca=/a", "peer.cert=/b", "core.gossip.pings=0", "nothing=1"];
    let flags: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
    let check = [&["config", "check", "--config", "n1.toml"], &flags[..]].concat();
    let checked = run_in(folder.path(), &check, &[("CONTINUUM_NAMES", "n")]);
    assert_eq!(checked.status.code(), Some(2));
    let errors = text(&checked.stderr);
    for key in ["log.filter", "peer.ca", "peer.cert", "core.gossip.pings", "nothing", "_NAMES"] {
        assert!(errors.contains(key), "{key} is not in\n{errors}");
    }
    assert_eq!(run(&["config", "check"]).status.code(), Some(2));
}

/// The status and the body of a node's answer.
fn ask(dev: &Dev, number: usize, path: &str) -> (u16, Value) {
    let answer = get(dev.api(number), path).expect("an answer");
    (answer.status, serde_json::from_str(&answer.body).expect("JSON"))
}

#[test]
fn a_node_whose_majority_is_dead_serves_eventual_memory_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(3, &folder.path().join("dev"));
    dev.ok(1, &["ns", "create", "facts", "--consistency", "strong"]);
    dev.ok(2, &["ns", "create", "notes", "--consistency", "eventual"]);
    dev.ok(1, &["kv", "put", "notes", "sea", "green"]);
    let listed = dev.ok(2, &["ns", "list", "-o", "json"]);
    assert!(listed.contains("\"notes\""), "who created a namespace sees it: {listed}");
    let all = serde_json::json!(["eventual", "strong"]);
    wait_until("node 1 serves everything", || ask(&dev, 1, "/readyz?strong").0 == 200);
    assert_eq!(ask(&dev, 1, "/readyz").1["serves"], all);
    wait_until("node 1 lists both", || dev.ok(1, &["ns", "list"]).contains("notes"));

    dev.kill(2);
    dev.kill(3);
    wait_until("node 1 lost all leaders", || {
        let leaderless = ask(&dev, 1, "/readyz").1["leaderless"].to_string();
        leaderless.contains("registry") && leaderless.contains("facts")
    });
    assert_eq!(ask(&dev, 1, "/readyz?strong").0, 503);
    let (status, ready) = ask(&dev, 1, "/readyz");
    assert_eq!((status, &ready["serves"]), (200, &serde_json::json!(["eventual"])));
    assert_eq!(ready["reasons"], serde_json::json!(["no_leader"]));
    assert!(ready["hint"].as_str().is_some_and(|hint| hint.contains("voters")), "{ready}");

    assert_eq!(dev.ok(1, &["kv", "get", "notes", "sea"]), "green\n");
    dev.ok(1, &["kv", "put", "notes", "sky", "blue"]);
    dev.ok(1, &["set", "add", "notes", "tags", "wet"]);
    let rows = dev.ok(1, &["export", "--ns", "notes"]);
    let file = folder.path().join("notes.jsonl");
    fs::write(&file, &rows).expect("written");
    let file = file.to_str().expect("a plain path");
    dev.ok(1, &["import", "--ns", "notes", file]);
    assert_eq!(dev.ok(1, &["export", "--ns", "notes"]), rows, "an import changes nothing twice");
    let listed: Value =
        serde_json::from_str(&dev.ok(1, &["ns", "list", "-o", "json"])).expect("JSON");
    assert_eq!(listed["view"], "local");
    assert!(listed["revision"].as_u64().is_some_and(|revision| revision > 0), "{listed}");
    let shown = dev.ok(1, &["cluster", "status"]);
    assert!(shown.contains("ready for eventual memory alone: no_leader"), "{shown}");
    assert!(shown.contains("notes") && shown.contains("facts"), "{shown}");

    for strong in [&["kv", "get", "facts", "sky"][..], &["ns", "list", "--consistent"]] {
        let refused = dev.run(1, strong);
        assert_eq!(refused.status.code(), Some(3), "{strong:?}");
        assert!(text(&refused.stderr).contains("no_leader"), "{strong:?}");
    }
}

#[test]
fn errors_are_json_for_programs() {
    let error = |arguments: &[&str], exit: i32| -> Value {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}");
        assert!(output.stdout.is_empty(), "data alone goes to stdout");
        let found: Value = serde_json::from_slice(&output.stderr).expect("one line of JSON");
        assert_eq!(found["error"]["exit"], exit);
        found["error"].clone()
    };
    let away = ["-o", "json", "--node", "http://127.0.0.1:1", "kv", "get", "a", "b"];
    assert_eq!(error(&away, 3)["code"], "unreachable");
    assert_eq!(error(&["config", "check", "-o", "json"], 2)["also"][0]["title"], "peer.ca");
    let mistyped = error(&["kv", "gte", "a", "b", "--output=json"], 2);
    assert_eq!(mistyped["code"], "usage");
    assert!(mistyped["title"].as_str().is_some_and(|title| title.contains("gte")), "{mistyped}");
}

/// A `dev` with a runtime directory of its own, so that commands without `--node` find it, and its line of JSON.
fn own_dev(folder: &Path, nodes: u16, arguments: &[&str]) -> (Guard, Value) {
    let port = free_ports(nodes).to_string();
    let mut command = Command::new(binary());
    command.args(["dev", "--nodes", &nodes.to_string(), "--api-port", &port]).args(arguments);
    command.env("XDG_RUNTIME_DIR", folder).env("TMPDIR", folder);
    let log = fs::File::create(folder.join("dev.log")).expect("a log file");
    let mut process = Guard::start(command.stderr(log));
    let mut line = String::new();
    let output = process.0.stdout.take().expect("a piped output");
    BufReader::new(output).read_line(&mut line).expect("a line");
    (process, serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
}

fn live(ready: &Value, number: usize) -> bool {
    get(ready["api"][number - 1].as_str().expect("an API"), "/livez").is_some()
}

#[test]
fn dev_ends_all_that_uses_its_data_also_when_its_terminal_closes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut dev, ready) = own_dev(folder.path(), 3, &[]);
    let root = ready["data"].as_str().expect("a path").to_owned();
    let runtime = [("XDG_RUNTIME_DIR", folder.path().to_str().expect("a plain path"))];
    let kill = |number: usize| {
        signal(ready["nodes"][number - 1]["pid"].as_u64().expect("a pid"), "KILL");
        wait_until("it is gone", || !live(&ready, number));
    };
    // One comes back through `dev`, another one by hand.
    kill(3);
    let back = run_in(folder.path(), &["dev", "restart", "3"], &runtime);
    assert!(back.status.success(), "{}", text(&back.stderr));
    assert!(live(&ready, 3));
    let none = run_in(folder.path(), &["dev", "restart", "4"], &runtime);
    assert_eq!(none.status.code(), Some(2), "{}", text(&none.stderr));
    kill(2);
    let words = ready["nodes"][1]["start"].as_array().expect("a command");
    let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
    let log = fs::File::create(folder.path().join("by-hand.log")).expect("a log file");
    let mut by_hand = Guard::start(Command::new(words[0]).args(&words[1..]).stderr(log));
    wait_until("it serves", || live(&ready, 2));

    signal(dev.0.id().into(), "HUP");
    assert!(dev.wait().success(), "a hangup ends `dev` in order");
    assert!((1..=3).all(|number| !live(&ready, number)), "nothing serves any more");
    assert!(by_hand.wait().success(), "also what was started by hand ended in order");
    assert!(!Path::new(&root).exists(), "the temporary directory is gone");
    assert!(!folder.path().join("continuum/dev.json").exists());
}

#[test]
fn a_hangup_makes_a_node_read_its_log_filter_and_does_not_end_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(1, &folder.path().join("dev"));
    let config = dev.data(1).with_file_name("node.toml");
    let log = || fs::read_to_string(dev.data(1).with_file_name("node.log")).expect("a log");
    let settings = fs::read_to_string(&config).expect("settings");
    assert!(!settings.contains("filter"), "{settings}");
    fs::write(&config, format!("{settings}\n[log]\nfilter = \"debug\"\n")).expect("written");
    signal(dev.pid(1), "HUP");
    wait_until("the filter is read", || log().contains("read the log filter again: debug"));
    fs::write(&config, "nonsense = 1\n").expect("written");
    signal(dev.pid(1), "HUP");
    wait_until("the mistake is told", || log().contains("the settings cannot be read again"));
    dev.ok(1, &["cluster", "status"]);
}

#[test]
fn bench_leaves_nothing_behind_and_passes_by_dead_nodes() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(3, &folder.path().join("dev"));
    dev.kill(3);
    let nodes = [dev.api(1), dev.api(2), dev.api(3)].join(",");
    let bench = ["--node", &nodes, "bench", "--clients", "2", "--seconds", "1", "-o", "json"];
    let output = run(&bench);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(dev.api(3)), "the dead node is named");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let results = report["results"].as_array().expect("results");
    let loads: Vec<&str> = results.iter().filter_map(|row| row["load"].as_str()).collect();
    let all = ["strong put", "eventual put", "eventual batch", "strong get", "eventual get"];
    assert_eq!(loads, all);
    for row in results {
        assert!(row["operations"].as_u64().is_some_and(|count| count > 0), "{row}");
        assert!(row["p50_ms"].as_f64() <= row["p99_ms"].as_f64(), "{row}");
    }
    assert!(!dev.ok(1, &["ns", "list", "--consistent"]).contains("bench-"));

    let mut long = Command::new(binary());
    long.args(["--node", &nodes, "bench", "--seconds", "60", "--clients", "2"]);
    let mut long = Guard::start(long.stderr(Stdio::null()));
    wait_until("it measures", || dev.ok(1, &["ns", "list"]).contains("bench-"));
    signal(long.0.id().into(), "INT");
    assert_eq!(long.wait().code(), Some(130));
    assert!(!dev.ok(1, &["ns", "list", "--consistent"]).contains("bench-"));
}

#[test]
fn absent_things_have_one_exit_code_and_health_can_be_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(3, &folder.path().join("dev"));
    dev.ok(1, &["ns", "create", "notes", "--consistency", "eventual"]);
    for read in [["kv", "get"], ["set", "members"], ["record", "get"]] {
        for format in ["table", "json"] {
            let absent = dev.run(1, &[&read[..], &["notes", "nothing", "-o", format]].concat());
            assert_eq!((absent.status.code(), absent.stdout.len()), (Some(1), 0), "{read:?}");
        }
    }
    assert_eq!(dev.ok(1, &["counter", "get", "notes", "nothing"]), "0\n");
    dev.ok(1, &["set", "add", "notes", "tags", "wet"]);
    assert_eq!(dev.ok(1, &["set", "members", "notes", "tags"]), "wet\n");
    let pki = folder.path().join("pki");
    let init = ["pki", "init", "--out", pki.to_str().expect("a plain path")];
    assert!(run(&init).status.success());
    assert_eq!(run(&init).status.code(), Some(6), "it exists already");

    dev.ok(1, &["cluster", "health", "--wait", "60"]);
    dev.kill(3);
    wait_until("node 3 is missed", || {
        let health = dev.run(1, &["cluster", "health"]);
        health.status.code() == Some(1) && text(&health.stderr).contains("node-3")
    });
}

#[test]
fn several_keys_change_together_if_all_are_as_expected() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(1, &folder.path().join("dev"));
    let made = dev.ok(1, &["ns", "create", "facts", "--consistency", "strong", "-o", "json"]);
    let made: Value = serde_json::from_str(&made).expect("JSON");
    assert_eq!(
        (&made["name"], &made["consistency"]),
        (&"facts".into(), &"strong".into()),
        "{made}"
    );
    assert!(made["id"].is_u64() && made["group"].is_u64(), "{made}");
    dev.ok(1, &["kv", "batch", "facts", "--put", "a=1", "--put=-b=2", "--expect-absent", "a"]);
    assert_eq!(dev.ok(1, &["kv", "list", "facts", "--values"]), "-b\t2\na\t1\n");

    let moved = [
        "kv", "batch", "facts", "--put", "c=1", "--delete", "a", "--expect", "a=1", "--expect",
        "-b=3",
    ];
    let refused = dev.run(1, &[&moved[..], &["-o", "json"]].concat());
    assert_eq!((refused.status.code(), text(&refused.stdout).as_str()), (Some(6), ""));
    let error: Value = serde_json::from_slice(&refused.stderr).expect("JSON");
    let error = &error["error"];
    assert_eq!((&error["code"], &error["key"]), (&"conflict".into(), &"-b".into()), "{error}");
    assert!(error["at"].is_u64() && error["revision"].is_u64(), "{error}");
    assert_eq!(dev.ok(1, &["kv", "list", "facts", "--count"]), "2\n", "nothing happened");

    dev.ok(1, &[&moved[..10], &["-b=2"]].concat());
    assert_eq!(dev.ok(1, &["kv", "list", "facts", "--values"]), "-b\t2\nc\t1\n");
    let gone = dev.run(1, &["kv", "del", "facts", "a"]);
    assert_eq!((gone.status.code(), gone.stdout.len()), (Some(1), 0));
    assert!(dev.ok(1, &["kv", "del", "facts", "c"]).starts_with("deleted at revision"));

    dev.ok(1, &["ns", "create", "notes", "--consistency", "eventual"]);
    dev.ok(1, &["set", "add", "notes", "tags", "wet", "cold"]);
    dev.ok(1, &["record", "put", "notes", "rain", "--add", "in=may", "--put", "on=sea"]);
    for removal in [
        &["set", "rm", "notes", "tags", "wet"][..],
        &["record", "put", "notes", "rain", "--remove", "in=may"],
        &["record", "put", "notes", "rain", "--delete", "on"],
        &["kv", "del", "notes", "tags"],
    ] {
        let done = dev.ok(1, &[removal, &["-o", "json"]].concat());
        let done: Value = serde_json::from_str(&done).expect("JSON");
        assert_eq!(done["existed"], true, "{removal:?}");
        let gone = dev.run(1, removal);
        assert_eq!((gone.status.code(), gone.stdout.len()), (Some(1), 0), "{removal:?}");
        let gone = dev.run(1, &[removal, &["-o", "json"]].concat());
        let error: Value = serde_json::from_slice(&gone.stderr).expect("JSON");
        assert_eq!(error["error"]["existed"], false, "{removal:?}");
    }
}
