//! Files of MCP memory servers: a knowledge graph, one entity or relation on each line.
//!
//! An entity is a key: its type is the register `type`, its observations are the set `observations`, and its relations
//! of a type are the set `rel:TYPE`, with the names of their targets. So two nodes may add observations at once and
//! lose none. The register `mcp` keeps what a set cannot: the order of observations, repeated ones, further members.
//! Files of real servers differ much, so reading is tolerant: it takes all that has a name, or from and to, and notes
//! what it wrote in another way.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use continuum_core::api::{Content, Field, Row};
use continuum_core::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::source::{Place, Placed};
use super::whole::{self, LineOf, Notes};
use crate::cli::exit::Failure;

const TYPE: &str = "type";
const OBSERVATIONS: &str = "observations";
const REST: &str = "mcp";
const RELATION: &str = "rel:";

/// Members of an entity that have a place of their own.
const ENTITY: [&str; 4] = ["type", "name", "entityType", "observations"];
/// Members of a relation that have a place of their own.
const PARTS: [&str; 4] = ["type", "from", "to", "relationType"];

/// The register `mcp`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Rest {
    /// Further members of the entity.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    members: Map<String, Value>,
    /// Short names of the observations in the order of the file, when that is not the order of a set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    order: Vec<String>,
    /// Further members of relations, by type and target.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    relations: BTreeMap<String, BTreeMap<String, Map<String, Value>>>,
}

/// All that a file says of one name.
#[derive(Debug)]
struct Node {
    place: Place,
    /// `None` when the name is only that of a relation.
    kind: Option<String>,
    observations: Vec<String>,
    members: Map<String, Value>,
    relations: BTreeMap<String, BTreeMap<String, Map<String, Value>>>,
}

/// The graph of a file while it is read.
struct Graph<'a> {
    file: &'a str,
    nodes: BTreeMap<String, Node>,
    notes: &'a mut Notes,
}

/// The rows of a file.
pub(super) fn rows(file: &str, text: &str, notes: &mut Notes) -> Result<Vec<Placed>, Failure> {
    let mut graph = Graph { file, nodes: BTreeMap::new(), notes };
    let (mut at, mut lines) = (0, LineOf::new(text));
    while let Some(start) = text[at..].find(|one: char| !one.is_whitespace()) {
        at += start;
        let place = graph.place(lines.offset(at));
        if !text[at..].starts_with(['{', '[']) {
            graph.notes.add("lines that are no JSON and were skipped", &place);
            at += text[at..].find('\n').unwrap_or(text.len() - at);
            continue;
        }
        let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                at += values.byte_offset();
                graph.take(&place, value, None)?;
            }
            Some(Err(error)) => {
                let line = place.line + (error.line() as u64).saturating_sub(1);
                let why = whole::without_line(&error);
                return Err(graph.place(line).broken(why, "correct or remove the line"));
            }
            None => break,
        }
    }
    let placed = graph.nodes.into_iter().map(|(name, node)| {
        let place = node.place.clone();
        Placed { place, row: node.row(name) }
    });
    Ok(placed.collect())
}

/// Takes the first of these members that is a text.
fn text(object: &mut Map<String, Value>, names: &[&str]) -> Option<String> {
    let name = names.iter().find(|name| object.get(**name).is_some_and(Value::is_string))?;
    match object.remove(*name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

impl Graph<'_> {
    fn place(&self, line: u64) -> Place {
        Place { file: self.file.to_owned(), line }
    }

    /// Takes a value: an entity, a relation, a graph, or a list of these. `owner` is the entity around it.
    fn take(&mut self, place: &Place, value: Value, owner: Option<&str>) -> Result<(), Failure> {
        match value {
            Value::Array(items) => {
                items.into_iter().try_for_each(|item| self.take(place, item, owner))
            }
            Value::Object(object) => self.object(place, object, owner),
            other => Err(place.broken(
                format!("{other} is neither an entity nor a relation"),
                "correct or remove the line, and check --format",
            )),
        }
    }

    fn object(
        &mut self,
        place: &Place,
        mut object: Map<String, Value>,
        owner: Option<&str>,
    ) -> Result<(), Failure> {
        let has = |name: &str| object.get(name).is_some_and(Value::is_string);
        let is_relation = object.get(TYPE).is_some_and(|kind| kind == "relation")
            || !has("name") && (has("to") || has("target"));
        if is_relation {
            return self.relation(place, object, owner);
        }
        if let Some(name) = text(&mut object, &["name", "entityName"]) {
            return self.entity(place, &name, object);
        }
        if object.get("entities").is_some_and(Value::is_array)
            || object.get("relations").is_some_and(Value::is_array)
        {
            for part in ["entities", "relations"] {
                let list = object.remove(part).unwrap_or(Value::Array(Vec::new()));
                self.take(place, list, None)?;
            }
            for name in object.keys() {
                self.notes.add(format!("the graph's own member `{name}` was left out"), place);
            }
            return Ok(());
        }
        Err(place.broken(
            "it has no name, and no from and to, so it is neither an entity nor a relation",
            "correct or remove the line, and check --format",
        ))
    }

    fn entity(
        &mut self,
        place: &Place,
        name: &str,
        mut object: Map<String, Value>,
    ) -> Result<(), Failure> {
        let tag = text(&mut object, &[TYPE]);
        if tag.is_none() {
            self.notes.add("entities without `type`", place);
        }
        let kind = text(&mut object, &["entityType", "entity_type", "label"]);
        let kind = kind.or_else(|| tag.filter(|tag| tag != "entity"));
        if kind.is_none() {
            self.notes.add("entities without `entityType`, which got an empty one", place);
        }
        let observations = self.observations(place, object.remove(OBSERVATIONS));
        if let Some(nested) = object.remove("relations") {
            self.notes.add("entities with relations inside", place);
            self.take(place, nested, Some(name))?;
        }
        for member in object.keys() {
            self.notes
                .add(format!("further members `{member}`, kept in the register `mcp`"), place);
        }
        let node = self.node(place, name);
        let known = node.kind.take();
        let is_again = known.is_some();
        node.kind = Some(kind.or(known).unwrap_or_default());
        // Repeats within one line are the file's own; another line of the entity only adds to it.
        let before: BTreeSet<String> = node.observations.iter().cloned().collect();
        node.observations.extend(observations.into_iter().filter(|one| !before.contains(one)));
        node.members.extend(object);
        if is_again {
            self.notes.add("entities on several lines, which were merged", place);
        }
        Ok(())
    }

    /// Observations of any form as texts.
    fn observations(&mut self, place: &Place, found: Option<Value>) -> Vec<String> {
        let plain = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let other = "observations that are no list of texts, and became texts";
        match found {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => {
                if items.iter().any(|item| !item.is_string()) {
                    self.notes.add(other, place);
                }
                items.into_iter().filter(|item| !item.is_null()).map(plain).collect()
            }
            Some(Value::Object(members)) => {
                self.notes.add(other, place);
                members
                    .into_iter()
                    .map(|(name, value)| format!("{name}: {}", plain(value)))
                    .collect()
            }
            Some(one) => {
                self.notes.add(other, place);
                vec![plain(one)]
            }
        }
    }

    fn relation(
        &mut self,
        place: &Place,
        mut object: Map<String, Value>,
        owner: Option<&str>,
    ) -> Result<(), Failure> {
        let from = text(&mut object, &["from", "source"]).or_else(|| owner.map(ToOwned::to_owned));
        let to = text(&mut object, &["to", "target"]);
        let kind = text(&mut object, &["relationType", "relation_type", "relation", "label"]);
        let tag = text(&mut object, &[TYPE]);
        if tag.is_none() {
            self.notes.add("relations without `type`", place);
        }
        let kind = kind.or_else(|| tag.filter(|tag| tag != "relation")).unwrap_or_default();
        let (Some(from), Some(to)) = (from, to) else {
            let hint = "correct or remove the line, and check --format";
            return Err(place.broken("a relation needs `from` and `to`", hint));
        };
        for member in object.keys() {
            self.notes
                .add(format!("further members `{member}`, kept in the register `mcp`"), place);
        }
        let targets = self.node(place, &from).relations.entry(kind).or_default();
        if let Some(known) = targets.get_mut(&to) {
            known.extend(object);
            self.notes.add("relations that stand there twice", place);
        } else {
            targets.insert(to, object);
        }
        Ok(())
    }

    fn node(&mut self, place: &Place, name: &str) -> &mut Node {
        self.nodes.entry(name.to_owned()).or_insert_with(|| Node {
            place: place.clone(),
            kind: None,
            observations: Vec::new(),
            members: Map::new(),
            relations: BTreeMap::new(),
        })
    }
}

/// A short name of an observation.
fn short(observation: &[u8]) -> String {
    Digest::of(observation).0[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Node {
    fn row(self, name: String) -> Row {
        let set: BTreeSet<&String> = self.observations.iter().collect();
        let is_plain = set.iter().copied().eq(&self.observations);
        let order = if is_plain { &[][..] } else { &self.observations[..] };
        let mut further = self.relations.clone();
        further.values_mut().for_each(|targets| targets.retain(|_, members| !members.is_empty()));
        further.retain(|_, targets| !targets.is_empty());
        let order = order.iter().map(|one| short(one.as_bytes())).collect();
        let rest = Rest { members: self.members, order, relations: further };
        let mut fields = Vec::new();
        let mut field = |name: String, content| {
            fields.push(Field { field: name.into(), content });
        };
        let bytes = |text: &String| Bytes::copy_from_slice(text.as_bytes());
        if rest != Rest::default() {
            let json = serde_json::to_vec(&rest).unwrap_or_default();
            field(REST.to_owned(), Content::Register(vec![json.into()]));
        }
        if !set.is_empty() {
            field(OBSERVATIONS.to_owned(), Content::Set(set.into_iter().map(bytes).collect()));
        }
        for (kind, targets) in &self.relations {
            field(format!("{RELATION}{kind}"), Content::Set(targets.keys().map(bytes).collect()));
        }
        if let Some(kind) = self.kind {
            field(TYPE.to_owned(), Content::Register(vec![kind.into()]));
        }
        Row { key: name.into(), fields }
    }
}

/// An entity as a server writes it.
#[derive(Serialize)]
struct EntityLine<'a> {
    r#type: &'static str,
    name: &'a str,
    #[serde(rename = "entityType")]
    kind: &'a str,
    observations: Vec<&'a str>,
    #[serde(flatten)]
    members: Map<String, Value>,
}

/// A relation as a server writes it.
#[derive(Serialize)]
struct RelationLine<'a> {
    r#type: &'static str,
    from: &'a str,
    to: &'a str,
    #[serde(rename = "relationType")]
    kind: &'a str,
    #[serde(flatten)]
    members: Map<String, Value>,
}

/// The line of a row's entity, if the row is one, and the lines of its relations. All else of the row is noted.
pub(super) fn lines(row: &Row, notes: &mut Notes) -> (Option<Vec<u8>>, Vec<u8>) {
    let place = row.key.escape_ascii();
    let Ok(name) = std::str::from_utf8(&row.key) else {
        notes.add("keys that are no text and were left out", &place);
        return (None, Vec::new());
    };
    let (mut kind, mut observations, mut rest) = (None, Vec::new(), Rest::default());
    let mut targets: Vec<(&str, Vec<&str>)> = Vec::new();
    for Field { field, content } in &row.fields {
        match (std::str::from_utf8(field).unwrap_or_default(), content) {
            (TYPE, Content::Register(values)) => {
                kind = texts(&values[..1], notes, &place).first().copied();
            }
            (REST, Content::Register(values)) => {
                rest = values
                    .first()
                    .and_then(|json| serde_json::from_slice(json).ok())
                    .unwrap_or_default();
            }
            (OBSERVATIONS, Content::Set(members)) => observations = texts(members, notes, &place),
            (field, Content::Set(members)) if field.starts_with(RELATION) => {
                targets.push((&field[RELATION.len()..], texts(members, notes, &place)));
            }
            _ => notes.add("fields that were left out, because the format has none", &place),
        }
        if matches!(content, Content::Register(values) if values.len() > 1) {
            notes.add("values beside the first that were left out", &place);
        }
    }
    let is_entity = kind.is_some() || !observations.is_empty();
    let observations = ordered(observations, &rest.order);
    let members = only(&ENTITY, std::mem::take(&mut rest.members));
    let kind = kind.unwrap_or_default();
    let entity = EntityLine { r#type: "entity", name, kind, observations, members };
    let mut lines = Vec::new();
    for (kind, targets) in targets {
        let mut further = rest.relations.remove(kind).unwrap_or_default();
        for to in targets {
            let members = only(&PARTS, further.remove(to).unwrap_or_default());
            lines.extend(json(&RelationLine { r#type: "relation", from: name, to, kind, members }));
        }
    }
    (is_entity.then(|| json(&entity)), lines)
}

fn json(line: &impl Serialize) -> Vec<u8> {
    let mut json = serde_json::to_vec(line).unwrap_or_default();
    json.push(b'\n');
    json
}

/// The members that stand beside those of the format.
fn only(own: &[&str], mut members: Map<String, Value>) -> Map<String, Value> {
    members.retain(|name, _| !own.contains(&name.as_str()));
    members
}

fn texts<'a>(values: &'a [Bytes], notes: &mut Notes, place: &impl ToString) -> Vec<&'a str> {
    let mut texts = Vec::new();
    for value in values {
        match std::str::from_utf8(value) {
            Ok(text) => texts.push(text),
            Err(_) => notes.add("values that are no text and were left out", place),
        }
    }
    texts
}

/// Observations in the order of the file that they came from, and newer ones after them.
fn ordered<'a>(observations: Vec<&'a str>, order: &[String]) -> Vec<&'a str> {
    let by_name: BTreeMap<String, &str> =
        observations.iter().map(|one| (short(one.as_bytes()), *one)).collect();
    let named: BTreeSet<&String> = order.iter().collect();
    let mut all: Vec<&str> = order.iter().filter_map(|name| by_name.get(name).copied()).collect();
    all.extend(observations.into_iter().filter(|one| !named.contains(&short(one.as_bytes()))));
    all
}
