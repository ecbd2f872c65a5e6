//! Files of other programs, with the shapes of real ones: each is imported into a whole node, exported in its format,
//! and equal; and the export imports to the same rows.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use continuum_core::api::Strategy;
use serde_json::{Value as Json, json};

use super::model::Whole;
use super::*;

fn eventual() -> Policy {
    Policy::Eventual { strategy: Strategy::default(), slots: 2, discard: false }
}

/// A client of a node with one namespace.
async fn fresh(policy: Policy) -> (Client, watch::Sender<bool>) {
    let mut whole = Whole::new(policy);
    node(move |request| whole.ask(request)).await
}

async fn exported(client: &Client, format: Source) -> String {
    let output = Output::default();
    let export = Export { ns: "notes".to_owned(), format };
    let mut screen = output.screen(Format::Table);
    export::run(&export, client.another(), &mut screen).await.expect("an export");
    output.text()
}

async fn import_text(
    client: &Client,
    format: Source,
    text: &[u8],
) -> Result<serde_json::Value, Failure> {
    let folder = tempfile::tempdir().expect("a folder");
    let import = Import { format, ..arguments("notes", file(folder.path(), text)) };
    run_import(&import, client.another()).await
}

/// Imports a text, and checks that its export imports to the same rows and exports to the same bytes. Returns the
/// export.
async fn round(policy: Policy, format: Source, text: &[u8]) -> String {
    let (client, _stop) = fresh(policy).await;
    import_text(&client, format, text).await.expect("imported");
    let again = import_text(&client, format, text).await.expect("imported again");
    assert_eq!(again["changed"], 0);
    let (rows, found) = (exported(&client, Source::Jsonl).await, exported(&client, format).await);
    let (other, _stop) = fresh(policy).await;
    import_text(&other, format, found.as_bytes()).await.expect("the export is a file");
    assert_eq!(exported(&other, Source::Jsonl).await, rows);
    assert_eq!(exported(&other, format).await, found);
    found
}

/// The lines of a graph, without an order among them.
fn graph(text: &str) -> BTreeSet<String> {
    let lines = text.lines().map(|line| serde_json::from_str::<Json>(line).expect("JSON"));
    lines.map(|line| line.to_string()).collect()
}

/// A file as the reference server writes it: everything comes back, the order of observations too.
#[tokio::test]
async fn a_graph_of_the_reference_server_comes_back_equal() {
    let text = r#"{"type":"entity","name":"Иван","entityType":"x","observations":["Русский","Đà Nẵng","小写","Русский"]}
{"type":"entity","name":"C:\\Users\\ann\\repo","entityType":"path","observations":["uses \"quotes\"\nand lines"]}
{"type":"entity","name":"empty","entityType":"topic","observations":[]}
{"type":"entity","name":"with members","entityType":"file","observations":["a"],"createdAt":"2025-03-01","by":{"id":7}}
{"type":"relation","from":"Иван","to":"C:\\Users\\ann\\repo","relationType":"works on"}
{"type":"relation","from":"Иван","to":"nobody here","relationType":"knows","weight":0.5}
{"type":"relation","from":"a name that is no entity","to":"empty","relationType":"mentions"}
"#;
    let found = round(eventual(), Source::McpJsonl, text.as_bytes()).await;
    assert_eq!(graph(&found), graph(text));
    let last_entity = found.rfind("\"type\":\"entity\"").expect("an entity");
    assert!(last_entity < found.find("\"type\":\"relation\"").expect("a relation"), "{found}");
    let observations = "[\"Русский\",\"Đà Nẵng\",\"小写\",\"Русский\"]";
    assert!(found.contains(observations), "{found}");
}

/// The ways in which real files differ.
#[tokio::test]
async fn files_of_other_servers_are_taken() {
    let shapes = "\u{feff}Here is the memory of the project.\r\n\r\n\
        {\"name\":\"no type\",\"entityType\":\"note\",\"observations\":[\"one\"]}\r\n\
        {\"type\":\"entity\",\"name\":\"twice\",\"entityType\":\"note\",\"observations\":[\"b\",\"a\"]}\r\n\
        {\"type\":\"entity\",\"name\":\"twice\",\"entityType\":\"note\",\"observations\":[\"c\",\"a\"]}\r\n\
        \r\n\
        {\"type\":\"entity\",\"name\":\"object\",\"label\":\"thing\",\"observations\":{\"size\":3,\"hue\":\"red\"}}\r\n\
        {\"type\":\"person\",\"name\":\"tagged\",\"observations\":\"only one\"}\r\n\
        {\"type\":\"entity\",\"name\":\"owner\",\"entityType\":\"team\",\"observations\":[],\
         \"relations\":[{\"to\":\"twice\",\"relationType\":\"owns\"}]}\r\n\
        {\"from\":\"owner\",\"to\":\"object\",\"relationType\":\"owns\"}";
    let expected = r#"{"type":"entity","name":"no type","entityType":"note","observations":["one"]}
{"type":"entity","name":"object","entityType":"thing","observations":["hue: red","size: 3"]}
{"type":"entity","name":"owner","entityType":"team","observations":[]}
{"type":"entity","name":"tagged","entityType":"person","observations":["only one"]}
{"type":"entity","name":"twice","entityType":"note","observations":["b","a","c"]}
{"type":"relation","from":"owner","to":"object","relationType":"owns"}
{"type":"relation","from":"owner","to":"twice","relationType":"owns"}
"#;
    assert_eq!(round(eventual(), Source::McpJsonl, shapes.as_bytes()).await, expected);
    let whole: Vec<Json> =
        expected.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (entities, relations) = whole.split_at(5);
    let one = json!({ "entities": entities, "relations": relations });
    for text in [one.to_string(), format!("{one:#}"), Json::from(whole.clone()).to_string()] {
        assert_eq!(round(eventual(), Source::McpJsonl, text.as_bytes()).await, expected);
    }
}

/// A set that was changed here: newer observations follow, and removed ones are gone.
#[test]
fn the_order_of_observations_follows_the_set() {
    let mut notes = Notes::default();
    let text = r#"{"type":"entity","name":"n","entityType":"t","observations":["z","a","m"]}"#;
    let mut rows = super::super::mcp::rows("f", text, &mut notes).expect("a graph");
    for field in &mut rows[0].row.fields {
        if let Content::Set(members) = &mut field.content {
            *members = ["b", "m", "z"].map(Bytes::from).to_vec();
        }
    }
    let (entity, _) = super::super::mcp::lines(&rows[0].row, &mut notes);
    let entity = String::from_utf8(entity.expect("an entity")).expect("text");
    assert!(entity.contains(r#"["z","m","b"]"#), "{entity}");
    assert_eq!(notes.sentences().count(), 0);
}

#[tokio::test]
async fn pairs_of_consul_come_back_equal() {
    let text = "[\n\t{\n\t\t\"key\": \"app/\",\n\t\t\"flags\": 0,\n\t\t\"value\": \"\"\n\t},\n\
        \t{\n\t\t\"key\": \"app/config\",\n\t\t\"flags\": 42,\n\t\t\"value\": \"eyJhIjogMX0=\"\n\t},\n\
        \t{\n\t\t\"key\": \"bytes\",\n\t\t\"flags\": 0,\n\t\t\"value\": \"/wD+\"\n\t}\n]\n";
    assert_eq!(round(eventual(), Source::Consul, text.as_bytes()).await, text);
    let marked = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    assert_eq!(round(eventual(), Source::Consul, marked.as_bytes()).await, text);
    let plain = text.replace("42", "0");
    assert_eq!(round(Policy::Strong, Source::Consul, text.as_bytes()).await, plain);
    let of_http = r#"[{"LockIndex":0,"Key":"app/","Flags":0,"Value":null,"CreateIndex":7,"ModifyIndex":7},
        {"LockIndex":0,"Key":"app/config","Flags":42,"Value":"eyJhIjogMX0=","CreateIndex":9,"ModifyIndex":9},
        {"LockIndex":0,"Key":"bytes","Flags":0,"Value":"/wD+","CreateIndex":9,"ModifyIndex":9}]"#;
    assert_eq!(round(eventual(), Source::Consul, of_http.as_bytes()).await, text);
    assert_eq!(round(eventual(), Source::Consul, b"[]").await, "[]\n");
}

#[tokio::test]
async fn pairs_of_etcd_come_back_equal() {
    let pair = |key: &[u8], value: &[u8]| {
        let mut pair = json!({ "key": STANDARD.encode(key), "create_revision": 2, "mod_revision": 5, "version": 3 });
        if !value.is_empty() {
            pair["value"] = STANDARD.encode(value).into();
        }
        pair
    };
    let kvs = [pair(b"a", b"1"), pair(b"b\xff", b""), pair(b"c", &[0, 255, 10])];
    let header = json!({ "cluster_id": 14841639068965178418_u64, "revision": 9, "raft_term": 2 });
    let answer = json!({ "header": header, "kvs": kvs, "count": 3 });
    let expected = "{\"header\":{},\"kvs\":[{\"key\":\"YQ==\",\"value\":\"MQ==\"},{\"key\":\"Yv8=\",\"value\":\"\"},\
        {\"key\":\"Yw==\",\"value\":\"AP8K\"}],\"count\":3}\n";
    for policy in [Policy::Strong, eventual()] {
        for text in [answer.to_string(), format!("{answer:#}")] {
            assert_eq!(round(policy, Source::EtcdJson, text.as_bytes()).await, expected);
        }
    }
    assert_eq!(round(eventual(), Source::EtcdJson, b"{\"header\":{}}").await, "{\"header\":{}}\n");
}

/// A defect is named with its file and line, and nothing is written before it is found.
#[tokio::test]
async fn defects_of_other_formats_are_named_with_their_line() {
    let long = format!(
        "[{{\"key\":\"a\",\"value\":\"\"}},\n{{\"key\":\"{}\",\"value\":\"\"}}]",
        "k".repeat(1025)
    );
    for (format, text, line, why) in [
        (
            Source::Consul,
            "[{\"key\":\"a\",\"value\":\"MQ==\"},\n {\"key\":\"b\",\"value\":\"!\"}]",
            2,
            "base64",
        ),
        (
            Source::Consul,
            "[{\"key\":\"a\",\"value\":\"MQ==\"},\n {\"value\":\"MQ==\"}]",
            2,
            "missing field `key`",
        ),
        (Source::Consul, "[{\"key\":\"a\",\n", 2, "EOF"),
        (Source::Consul, &long, 2, "1024"),
        (Source::EtcdJson, "{\"kvs\":[{\"key\":\"YQ==\"},\n{\"key\":\"?\"}]}", 2, "base64"),
        (Source::McpJsonl, "{\"name\":\"a\"}\n{\"name\":\"b\"", 2, "EOF"),
        (
            Source::McpJsonl,
            "{\"name\":\"a\"}\n{\"color\":\"b\"}",
            2,
            "neither an entity nor a relation",
        ),
        (
            Source::McpJsonl,
            "{\"name\":\"a\"}\n{\"type\":\"relation\",\"from\":\"b\"}",
            2,
            "`from` and `to`",
        ),
        (Source::McpJsonl, "{\"name\":\"a\"}\n{\"name\":\"\"}", 2, "empty"),
    ] {
        let (client, _stop) = fresh(eventual()).await;
        let failure = import_text(&client, format, text.as_bytes()).await.expect_err("a defect");
        assert!(failure.what.contains(&format!("rows.jsonl:{line} ")), "{failure}");
        assert!(failure.why.contains(why), "{failure}");
        assert_eq!(exported(&client, Source::Jsonl).await, "");
    }
    let (client, _stop) = fresh(eventual()).await;
    for (text, why) in
        [(&b"\xff\xfe[\0"[..], "UTF-16"), (b"\x1f\x8b", "gzip"), (b"{\"a\":\"\xff\"}", "utf-8")]
    {
        let failure = import_text(&client, Source::McpJsonl, text).await.expect_err("a defect");
        assert!(failure.why.contains(why), "{failure}");
    }
}

/// A format leaves out all that it has no place for, and nothing else.
#[tokio::test]
async fn an_export_leaves_out_what_its_format_cannot_say() {
    let rows = "{\"key\":\"a\",\"fields\":[{\"field\":\"\",\"register\":[\"1\",\"2\"]},\
                {\"field\":\"hits\",\"counter\":3}]}\n\
                {\"key\":\"b\",\"fields\":[{\"field\":\"tags\",\"set\":[\"x\"]}]}\n\
                {\"key\":{\"base64\":\"/w==\"},\"fields\":[{\"field\":\"\",\"register\":[\"3\"]}]}\n";
    let (client, _stop) = fresh(eventual()).await;
    import_text(&client, Source::Jsonl, rows.as_bytes()).await.expect("imported");
    let consul: Json =
        serde_json::from_str(&exported(&client, Source::Consul).await).expect("JSON");
    assert_eq!(consul, json!([{ "key": "a", "flags": 0, "value": "MQ==" }]));
    let etcd: Json =
        serde_json::from_str(&exported(&client, Source::EtcdJson).await).expect("JSON");
    assert_eq!(etcd["count"], 2);
    assert_eq!(exported(&client, Source::McpJsonl).await, "");
}

#[tokio::test]
async fn formats_without_media_types_hold_the_bare_values() {
    let value = "{\"text\":\"1\",\"type\":\"text/plain\"}";
    let line =
        format!("{{\"key\":\"a\",\"fields\":[{{\"field\":\"\",\"register\":[{value}]}}]}}\n");
    let (client, _stop) = fresh(Policy::Strong).await;
    import_text(&client, Source::Jsonl, line.as_bytes()).await.expect("imported");
    assert_eq!(exported(&client, Source::Jsonl).await, line);
    let pairs = exported(&client, Source::Consul).await;
    assert!(pairs.contains(&format!("\"value\": \"{}\"", STANDARD.encode("1"))), "{pairs}");
}

#[tokio::test]
async fn a_pair_that_looks_like_a_value_with_a_type_comes_back_equal() {
    let value = STANDARD.encode(b"\xff\x00type\x0atext/plain1");
    let text = format!("[{{\"key\":\"a\",\"flags\":0,\"value\":\"{value}\"}}]");
    let found = round(Policy::Strong, Source::Consul, text.as_bytes()).await;
    assert!(found.contains(&value), "{found}");
}
