//! Tests of the layers, types and bounds of the settings.

use super::*;

fn sound() -> Settings {
    let mut settings = Settings { data: "/d".into(), ..Settings::default() };
    settings.peer.ca = "/ca.pem".into();
    settings.peer.cert = "/n.pem".into();
    settings.peer.key = "/n.key".into();
    settings
}

/// The keys that are refused after a change.
fn keys(change: impl FnOnce(&mut Settings)) -> Vec<String> {
    let mut settings = sound();
    change(&mut settings);
    let errors = settings.validate().unwrap_err();
    errors.iter().map(|error| error.key.clone()).collect()
}

/// The only key that is refused after a change.
fn refused(change: impl FnOnce(&mut Settings)) -> String {
    let keys = keys(change);
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys[0].clone()
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

fn variable(name: &str, value: &str) -> (OsString, OsString) {
    (name.into(), value.into())
}

/// The mistakes of layers, each as its key and the rest.
fn mistakes(layers: &Layered) -> Vec<(String, String)> {
    let errors = layers.settings().err();
    let errors = errors.iter().flat_map(SettingsErrors::iter);
    errors.map(|error| (error.key.clone(), format!("{}; {}", error.why, error.hint))).collect()
}

#[test]
fn each_bound_names_its_key() {
    assert_eq!(sound().validate(), Ok(()));
    assert_eq!(refused(|s| s.data = PathBuf::new()), "data");
    assert_eq!(refused(|s| s.api.listen = "0.0.0.0:1".parse().unwrap()), "api.listen");
    assert_eq!(refused(|s| s.peer.listen = "0.0.0.0:1".parse().unwrap()), "peer.advertise");
    assert_eq!(refused(|s| s.peer.advertise = Some("host".into())), "peer.advertise");
    assert_eq!(refused(|s| s.peer.bootstrap = vec!["h:0".into()]), "peer.bootstrap");
    for address in ["a b:1", "http://a:1", "a\n:1", "\u{1b}[2Ja:1"] {
        assert_eq!(refused(|s| s.peer.advertise = Some(address.into())), "peer.advertise");
    }
    for name in ["a\nb", "\u{1b}[2J", "\u{202e}a"] {
        assert_eq!(refused(|s| s.name = name.into()), "name", "{name:?}");
    }
    assert_eq!(refused(|s| s.peer.key = PathBuf::new()), "peer.key");
    let tls = keys(|s| s.api.tls = Some(TlsFiles::default()));
    assert_eq!(tls, ["api.tls.ca", "api.tls.cert", "api.tls.key"]);
    for name in ["", "a:1", "http://a", "*.a", "a b"] {
        assert_eq!(refused(|s| s.api.hosts = vec![name.into()]), "api.hosts", "{name}");
    }
    assert_eq!(refused(|s| s.api.connections_max = 0), "api.connections_max");
    let key = "api.connections_of_address_max";
    assert_eq!(refused(|s| s.api.connections_of_address_max = usize::MAX), key);
    assert_eq!(refused(|s| s.core.raft.heartbeat_ms = 0), "core.raft.heartbeat_ms");
    assert_eq!(refused(|s| s.disk.reserve_bytes = 1), "disk.reserve_bytes");
    assert_eq!(refused(|s| s.log.filter = "a=b=c=[[[".into()), "log.filter");
    assert_eq!(refused(|s| s.api.listen = s.peer.listen), "api.listen");
    let everywhere = |s: &mut Settings| {
        s.peer.listen = "0.0.0.0:7401".parse().unwrap();
        s.peer.advertise = Some("n1:7401".into());
    };
    assert_eq!(refused(everywhere), "api.listen");
    let free = |s: &mut Settings| {
        s.peer.listen.set_port(0);
        s.api.listen.set_port(0);
        s.name = "x".repeat(301);
    };
    assert_eq!(refused(free), "name", "a free port is another one for each listener");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let found = keys(|s| {
        s.data = PathBuf::new();
        s.log.filter = "[".into();
        s.core.raft.inflight_max = 0;
        s.core.gossip.pings = 0;
    });
    assert_eq!(found, ["data", "log.filter", "core.raft.inflight_max", "core.gossip.pings"]);
    let layers = Layered::gather(
        None,
        [variable("CONTINUUM_PEER__LISTNE", "x"), variable("CONTINUUM_NAME", "n")],
        &[pair("core.raft.heartbeat_ms", "-1"), pair("data", "d")],
    );
    let errors = layers.checked().unwrap_err();
    let found: Vec<&str> = errors.iter().map(|error| error.key.as_str()).collect();
    let unset = ["peer.ca", "peer.cert", "peer.key"];
    assert_eq!(found, [&["CONTINUUM_PEER__LISTNE", "core.raft.heartbeat_ms"], &unset[..]].concat());
}

#[test]
fn an_api_off_loopback_needs_tls() {
    let mut settings = sound();
    settings.api.listen = "0.0.0.0:7401".parse().unwrap();
    let message = settings.validate().unwrap_err().to_string();
    assert!(message.contains("loopback") && message.contains("[api.tls]"), "{message}");
    settings.api.tls = Some(TlsFiles { ca: "/a".into(), cert: "/b".into(), key: "/c".into() });
    assert_eq!(settings.validate(), Ok(()));
}

#[test]
fn flags_override_variables_which_override_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("n.toml");
    let text = "data = \"d\"\nname = \"file\"\n[peer]\nlisten = \"127.0.0.1:1\"\nca = \"ca.pem\"\n\
                cert = \"n.pem\"\nkey = \"/abs.key\"\n[core.raft]\nheartbeat_ms = 50\n";
    std::fs::write(&file, text).unwrap();
    let variables = [
        variable("CONTINUUM_NAME", "5"),
        variable("CONTINUUM_PEER__LISTEN", "127.0.0.1:2"),
        variable("CONTINUUM_PEER__BOOTSTRAP", "a:1, b:2"),
        variable("CONTINUUM_CORE__RAFT__HEARTBEAT_MS", "60"),
        variable("CONTINUUM_NODE", "http://127.0.0.1:9"),
        variable("HOME", "/root"),
    ];
    let flags = [pair("peer.listen", "127.0.0.1:3"), pair("peer.cert", "rel.pem")];
    let layers = Layered::gather(Some(&file), variables, &flags);
    let settings = layers.settings().unwrap();
    assert_eq!(settings.name, "5");
    assert_eq!(settings.peer.listen.port(), 3);
    assert_eq!(settings.peer.bootstrap, ["a:1", "b:2"]);
    assert_eq!(settings.core.raft.heartbeat_ms, 60);
    assert_eq!(settings.data, dir.path().join("d"), "a path of the file is relative to it");
    assert_eq!(settings.peer.key, Path::new("/abs.key"));
    assert_eq!(settings.peer.cert, Path::new("rel.pem"), "a flag's path is the shell's");
    assert_eq!(layers.origins()["peer.listen"], Origin::Flag);
    assert_eq!(layers.origins()["name"], Origin::Environment);
    assert_eq!(layers.origins()["peer.ca"], Origin::File);
}

#[test]
fn unknown_keys_and_wrong_types_are_named() {
    let of = |key: &str, value: &str| {
        let found = mistakes(&Layered::gather(None, [], &[pair(key, value)]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, key);
        found[0].1.clone()
    };
    assert!(of("core.raft.heartbeat", "1").contains("did you mean core.raft.heartbeat_ms?"));
    assert!(of("api.tls.caa", "x").contains("did you mean api.tls.ca?"));
    assert!(of("nothing.like.it", "x").contains("config init"));
    assert!(of("peer", "x").contains("not a key"));
    let number = of("core.raft.heartbeat_ms", "soon");
    assert!(number.contains("a whole number") && number.contains("ms:"), "{number}");
    assert!(of("peer.listen", "nowhere").contains("ip:port"));
    assert!(of("peer.listen", "node.example:7400").contains("peer.advertise"));
    assert!(of("api.listen", "node.example:7401").contains("api.hosts"));
    assert!(of("log.format", "xml").contains("pretty"));
}

#[test]
fn a_file_is_read_to_its_end_and_a_broken_one_is_the_only_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("n.toml");
    let text =
        "datta = \"d\"\npeer = 5\n[lgo]\n[core.raft]\nheartbeat_ms = \"x\"\ninflight_max = 2\n";
    std::fs::write(&file, text).unwrap();
    let layers = Layered::gather(Some(&file), [], &[]);
    let found: Vec<String> = mistakes(&layers).into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, ["core.raft.heartbeat_ms", "datta", "lgo", "peer"]);
    assert_eq!(layers.understood().core.raft.inflight_max, 2);
    // The value of a higher layer is the one that counts.
    let flag = [pair("core.raft.heartbeat_ms", "90")];
    assert_eq!(mistakes(&Layered::gather(Some(&file), [], &flag)).len(), 3);
    std::fs::write(&file, "data = ").unwrap();
    let errors = Layered::gather(Some(&file), [], &[]).checked().unwrap_err();
    assert_eq!(errors.iter().count(), 1, "{errors}");
    assert!(errors.to_string().contains("is not TOML"), "{errors}");
}

#[test]
fn unknown_variables_are_mistakes() {
    let gather = |variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| variable(name, value));
        mistakes(&Layered::gather(None, variables.collect::<Vec<_>>(), &[]))
    };
    let near = gather(&[("CONTINUUM_LOG_FORMAT", "json")]);
    assert!(near[0].1.contains("CONTINUUM_LOG__FORMAT, for log.format"), "{near:?}");
    let near = gather(&[("CONTINUUM_LOGG__FORMAT", "json")]);
    assert!(near[0].1.contains("CONTINUUM_LOG__FORMAT"), "{near:?}");
    assert_eq!(gather(&[("CONTINUUM_", "x"), ("CONTINUUM_ZZZZZZ", "x")]).len(), 2);
    assert_eq!(gather(&[("CONTINUUM_API_PORT", "7401")]).len(), 1);
    let commands = VARIABLES_OF_COMMANDS.map(|name| (name, "x"));
    assert_eq!(gather(&commands), []);
    // Kubernetes tells a container so of a service `continuum` and of a service `continuum-api`.
    let links = [
        ("CONTINUUM_SERVICE_HOST", "10.0.0.1"),
        ("CONTINUUM_SERVICE_PORT", "7401"),
        ("CONTINUUM_SERVICE_PORT_HTTP", "7401"),
        ("CONTINUUM_PORT", "tcp://10.0.0.1:7401"),
        ("CONTINUUM_PORT_7401_TCP_ADDR", "10.0.0.1"),
        ("CONTINUUM_API_SERVICE_HOST", "10.0.0.2"),
        ("CONTINUUM_API_SERVICE_PORT", "7401"),
        ("CONTINUUM_API_PORT", "tcp://10.0.0.2:7401"),
    ];
    assert_eq!(gather(&links), []);
}

#[test]
fn a_variable_that_is_not_text_is_a_mistake_only_if_it_is_ours() {
    use std::os::unix::ffi::OsStringExt as _;
    let raw = || OsString::from_vec(vec![0xff]);
    let variables = [("CONTINUUM_NAME".into(), raw()), ("OTHER".into(), raw()), (raw(), raw())];
    let found = mistakes(&Layered::gather(None, variables, &[]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "CONTINUUM_NAME");
}

#[test]
fn the_table_of_keys_is_complete() {
    fn leaves(table: &Table, prefix: &str, found: &mut Vec<String>) {
        for (key, value) in table {
            match value.as_table() {
                Some(inner) => leaves(inner, &format!("{prefix}{key}."), found),
                None => found.push(format!("{prefix}{key}")),
            }
        }
    }
    let mut found = Vec::new();
    leaves(&Table::try_from(complete()).unwrap(), "", &mut found);
    let mut listed: Vec<&str> = KEYS.iter().map(|key| key.key).collect();
    found.sort_unstable();
    listed.sort_unstable();
    assert_eq!(listed, found);
}

#[test]
fn the_annotated_file_says_what_it_was_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("n.toml");
    let flags = [
        pair("data", "/d"),
        pair("name", "n\"1"),
        pair("peer.ca", "/ca.pem"),
        pair("peer.cert", "/n.pem"),
        pair("peer.key", "/n.key"),
        pair("peer.bootstrap", "a:1,b:2"),
        pair("core.gossip.pings", "5"),
    ];
    let layers = Layered::gather(None, [], &flags);
    let settings = layers.checked().unwrap();
    let text = annotated(&settings, layers.origins());
    std::fs::write(&file, &text).unwrap();
    assert_eq!(Settings::load(Some(&file), [], &[]), Ok(settings.clone()));
    // Every other key is there with its default: without the comment signs the file says the same.
    let bare = text.lines().map(|line| format!("{}\n", line.strip_prefix("# ").unwrap_or(line)));
    std::fs::write(&file, bare.collect::<String>()).unwrap();
    let spelled = Layered::gather(Some(&file), [], &[]);
    assert_eq!(spelled.origins().len(), KEYS.len());
    let mut expected = settings;
    expected.peer.advertise = Some(String::new());
    expected.api.tls = Some(TlsFiles::default());
    assert_eq!(spelled.settings(), Ok(expected));
    assert!(text.lines().all(|line| line.len() <= 120));
}
