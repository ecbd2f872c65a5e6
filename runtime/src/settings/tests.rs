//! Tests of the layers, types and bounds of the settings.

use super::*;

fn sound() -> Settings {
    let mut settings = Settings { data: "/d".into(), ..Settings::default() };
    settings.peer.ca = "/ca.pem".into();
    settings.peer.cert = "/n.pem".into();
    settings.peer.key = "/n.key".into();
    settings
}

fn refused(change: impl FnOnce(&mut Settings)) -> String {
    let mut settings = sound();
    change(&mut settings);
    settings.validate().unwrap_err().key
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

#[test]
fn each_bound_names_its_key() {
    assert_eq!(sound().validate(), Ok(()));
    assert_eq!(refused(|s| s.data = PathBuf::new()), "data");
    assert_eq!(refused(|s| s.api.listen = "0.0.0.0:1".parse().unwrap()), "api.listen");
    assert_eq!(refused(|s| s.peer.listen = "0.0.0.0:1".parse().unwrap()), "peer.advertise");
    assert_eq!(refused(|s| s.peer.advertise = Some("host".into())), "peer.advertise");
    assert_eq!(refused(|s| s.peer.bootstrap = vec!["h:0".into()]), "peer.bootstrap");
    assert_eq!(refused(|s| s.peer.key = PathBuf::new()), "peer.key");
    assert_eq!(refused(|s| s.api.tls = Some(TlsFiles::default())), "api.tls.ca");
    for name in ["", "a:1", "http://a", "*.a", "a b"] {
        assert_eq!(refused(|s| s.api.hosts = vec![name.into()]), "api.hosts", "{name}");
    }
    assert_eq!(refused(|s| s.core.raft.heartbeat_ms = 0), "core.raft.heartbeat_ms");
    assert_eq!(refused(|s| s.disk.reserve_bytes = 1), "disk.reserve_bytes");
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
        pair("CONTINUUM_NAME", "5"),
        pair("CONTINUUM_PEER__LISTEN", "127.0.0.1:2"),
        pair("CONTINUUM_PEER__BOOTSTRAP", "a:1, b:2"),
        pair("CONTINUUM_CORE__RAFT__HEARTBEAT_MS", "60"),
        pair("CONTINUUM_NODE", "http://127.0.0.1:9"),
        pair("HOME", "/root"),
    ];
    let flags = [pair("peer.listen", "127.0.0.1:3"), pair("peer.cert", "rel.pem")];
    let layers = Layered::gather(Some(&file), variables, &flags).unwrap();
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
    let gather = |flags: &[(String, String)]| {
        Layered::gather(None, [], flags).and_then(|layers| layers.settings()).unwrap_err()
    };
    assert_eq!(gather(&[pair("core.raft.heartbeat", "1")]).key, "core.raft.heartbeat");
    assert_eq!(gather(&[pair("core.raft.heartbeat_ms", "soon")]).key, "core.raft.heartbeat_ms");
    assert_eq!(gather(&[pair("peer.listen", "nowhere")]).key, "peer.listen");
    assert_eq!(gather(&[pair("api.tls.caa", "x")]).key, "api.tls.caa");
}
