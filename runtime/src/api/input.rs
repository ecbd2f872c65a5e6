//! The input of clients: JSON bodies and queries, converted to the core's requests.
//!
//! Every problem says where it is: line and column when a body is not JSON or lacks a member, and the path of the
//! member (`writes[3].edits[0]`) when its parts do not fit together. The core checks the bounds of keys and values.

use std::collections::BTreeSet;

use bytes::Bytes;
use continuum_core::api::{
    Bound, Change, Context, Edit, Expected, Level, Mutation, Policy, Reason, Request, Strategy,
};
use continuum_core::limits::{
    BATCH_WRITES_MAX, EDITS_MAX, FIELD_BYTES_MAX, KEY_BYTES_MAX, PAGE_ROWS_MAX, VALUE_BYTES_MAX,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::json::{self, JsonBytes};
use super::media;
use super::problem::{MALFORMED_JSON, Problem};
use super::strict::{self, Object};
use super::token::{self, Cursor};
use super::uri;

/// Bytes of one body. The core's largest request fits even when JSON escapes or base64 make it longer.
pub const BODY_BYTES_MAX: usize = 4 << 20;

/// The body of a batch.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchBody {
    /// The writes, in order.
    #[serde(deserialize_with = "strict::objects")]
    pub writes: Vec<WriteBody>,
}

/// One atomic write of one key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteBody {
    /// The key.
    pub key: JsonBytes,
    /// Applied in order.
    #[serde(deserialize_with = "strict::objects")]
    pub edits: Vec<EditBody>,
    /// The context token of the read that this write follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

/// Changes of one field, applied in the order of the members here.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditBody {
    /// The field; empty for the key's own value.
    #[serde(default)]
    pub field: JsonBytes,
    /// Remove what was observed: the register, or with an empty field the whole record.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delete: bool,
    /// Set the register to this stored value.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "media::one")]
    pub put: Option<JsonBytes>,
    /// Set the register if it is as expected.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "strict::optional"
    )]
    pub cas: Option<CasBody>,
    /// Remove members from the set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<JsonBytes>,
    /// Add members to the set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<JsonBytes>,
    /// Add to the counter.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "json::optional_amount"
    )]
    pub count: Option<i64>,
}

/// A compare-and-set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CasBody {
    /// The required state of the register.
    #[serde(deserialize_with = "strict::object")]
    pub expected: ExpectedBody,
    /// The new stored value; without it the register is removed.
    #[serde(default, with = "media::one")]
    pub value: Option<JsonBytes>,
}

/// The required state of a register: exactly one of these.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedBody {
    /// Without a value.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub absent: bool,
    /// At this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// With this value; one without a media type stands for one with any.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "media::one")]
    pub value: Option<JsonBytes>,
}

/// The body of a change of a set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetBody {
    /// Members to add.
    #[serde(default)]
    pub add: Vec<JsonBytes>,
    /// Members to remove.
    #[serde(default)]
    pub remove: Vec<JsonBytes>,
    /// The context token of the read that this write follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

/// The body of a change of a counter.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountBody {
    /// The amount; negative to subtract.
    #[serde(deserialize_with = "json::amount")]
    pub add: i64,
}

/// The body of a change of a record.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordBody {
    /// Applied in order.
    #[serde(deserialize_with = "strict::objects")]
    pub edits: Vec<EditBody>,
    /// The context token of the read that this write follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

/// The body that creates a namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamespaceBody {
    /// Unique in the federation.
    pub name: String,
    /// How it is replicated.
    pub consistency: ConsistencyName,
    /// How a register with siblings is read; eventual only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<StrategyName>,
    /// Shards; eventual only. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u16>,
    /// Whether losers of the LWW order are dropped for good; eventual only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discard: bool,
}

/// How a namespace is replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ConsistencyName {
    /// Linearizable, by Raft.
    Strong,
    /// Always writable, as CRDTs.
    Eventual,
}

/// How a register with siblings is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum StrategyName {
    /// The latest write by hybrid logical clock wins.
    LastWriterWins,
    /// The write of the highest node id wins.
    HighestNodeWins,
}

/// The body of `init`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitBody {
    /// Peer addresses of the other first voters.
    #[serde(default)]
    pub voters: Vec<String>,
}

/// Reads a body as JSON.
///
/// # Errors
///
/// A problem that names line and column.
pub fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let read = serde_json::from_slice::<Object<T>>(body).map(|object| object.0);
    read.map_err(|error| {
        let empty = if body.is_empty() { "the body is empty: ".to_owned() } else { String::new() };
        Problem::new(&MALFORMED_JSON, format!("{empty}{error}"), "correct the body there")
            .with("line", error.line().into())
            .with("column", error.column().into())
    })
}

/// The problem of a member at this path.
fn misfit(path: &str, why: &str) -> Problem {
    Problem::new(&MALFORMED_JSON, format!("{path}: {why}"), "correct the body there")
        .with("path", path.into())
}

/// Reads a context token.
///
/// # Errors
///
/// A problem that names the path.
pub fn context(path: &str, token: Option<&str>) -> Result<Option<Context>, Problem> {
    let read = |token| {
        token::parse_context(token)
            .ok_or_else(|| misfit(path, "not a context token: use the one of a read, unchanged"))
    };
    token.map(read).transpose()
}

impl EditBody {
    /// The core's edits.
    fn edits(self, path: &str) -> Result<Vec<Edit>, Problem> {
        let mut changes = Vec::with_capacity(1);
        changes.extend(self.delete.then_some(Change::Delete));
        changes.extend(self.put.map(|value| Change::Put(value.0)));
        if let Some(cas) = self.cas {
            changes.push(cas.change(path)?);
        }
        changes.extend(self.remove.into_iter().map(|member| Change::Remove(member.0)));
        changes.extend(self.add.into_iter().map(|member| Change::Add(member.0)));
        changes.extend(self.count.map(Change::Count));
        if changes.is_empty() {
            return Err(misfit(
                path,
                "changes nothing: it needs put, delete, cas, add, remove or count",
            ));
        }
        let field = self.field.0;
        Ok(changes.into_iter().map(|change| Edit { field: field.clone(), change }).collect())
    }
}

impl CasBody {
    /// The core's change.
    ///
    /// # Errors
    ///
    /// A problem that names the path, when there is not exactly one expectation.
    pub fn change(self, path: &str) -> Result<Change, Problem> {
        let ExpectedBody { absent, revision, value } = self.expected;
        let expected = match (absent, revision, value) {
            (true, None, None) => Expected::Absent,
            (false, Some(revision), None) => Expected::Revision(revision),
            (false, None, Some(value)) => Expected::Value(value.0),
            _ => {
                return Err(misfit(
                    path,
                    "expected needs exactly one of absent, revision and value",
                ));
            }
        };
        Ok(Change::Cas { expected, value: self.value.map(|value| value.0) })
    }
}

/// Refuses a part that is longer than the core takes, and names it by its path.
fn bounded(path: &str, what: Bound, length: usize, limit: usize) -> Result<(), Problem> {
    if length <= limit {
        return Ok(());
    }
    let mut problem = Problem::from(Reason::OutOfBounds { what, limit: limit as u64 });
    problem.detail = format!("{path}: {}; nothing was written", problem.detail);
    Err(problem.with("path", path.into()))
}

/// Refuses an edit with a part that is too long.
fn check_edit(path: &str, edit: &Edit) -> Result<(), Problem> {
    bounded(path, Bound::Field, edit.field.len(), FIELD_BYTES_MAX)?;
    let value = |value: &Bytes| bounded(path, Bound::Value, value.len(), VALUE_BYTES_MAX);
    match &edit.change {
        Change::Put(one) | Change::Add(one) | Change::Remove(one) => value(one),
        Change::Cas { expected, value: new } => {
            if let Expected::Value(one) = expected {
                value(one)?;
            }
            new.as_ref().map_or(Ok(()), value)
        }
        Change::Delete | Change::Count(_) => Ok(()),
    }
}

/// The core's mutation of one key.
///
/// # Errors
///
/// A problem that names the path.
pub fn mutation(path: &str, write: WriteBody) -> Result<Mutation, Problem> {
    let dot = if path.is_empty() { "" } else { "." };
    let context = context(&format!("{path}{dot}context"), write.context.as_deref())?;
    let mut edits = Vec::with_capacity(write.edits.len());
    for (at, edit) in write.edits.into_iter().enumerate() {
        let path = format!("{path}{dot}edits[{at}]");
        let several = edit.edits(&path)?;
        several.iter().try_for_each(|edit| check_edit(&path, edit))?;
        edits.extend(several);
    }
    bounded(&format!("{path}{dot}edits"), Bound::Edits, edits.len(), EDITS_MAX)?;
    bounded(&format!("{path}{dot}key"), Bound::Key, write.key.0.len(), KEY_BYTES_MAX)?;
    if edits.is_empty() {
        return Err(misfit(path, "has no edits"));
    }
    if write.key.0.is_empty() {
        let why = format!("a key has 1 to {KEY_BYTES_MAX} bytes");
        return Err(misfit(&format!("{path}{dot}key"), &why));
    }
    Ok(Mutation { key: write.key.0, edits, context })
}

/// The core's mutations of a batch.
///
/// # Errors
///
/// A problem that names the path.
pub fn mutations(batch: BatchBody) -> Result<Vec<Mutation>, Problem> {
    if batch.writes.is_empty() || batch.writes.len() > BATCH_WRITES_MAX {
        return Err(misfit("writes", &format!("there must be 1 to {BATCH_WRITES_MAX} of them")));
    }
    let writes = batch.writes.into_iter().enumerate();
    writes.map(|(at, write)| mutation(&format!("writes[{at}]"), write)).collect()
}

impl NamespaceBody {
    /// The policy of the namespace.
    ///
    /// # Errors
    ///
    /// A problem, when a strong namespace is given what only eventual ones have.
    pub fn policy(&self) -> Result<Policy, Problem> {
        let eventual_only = self.strategy.is_some() || self.slots.is_some() || self.discard;
        match self.consistency {
            ConsistencyName::Strong if eventual_only => Err(misfit(
                "consistency",
                "strategy, slots and discard are for eventual namespaces",
            )),
            ConsistencyName::Strong => Ok(Policy::Strong),
            ConsistencyName::Eventual => Ok(Policy::Eventual {
                strategy: match self.strategy {
                    None | Some(StrategyName::LastWriterWins) => Strategy::LastWriterWins,
                    Some(StrategyName::HighestNodeWins) => Strategy::HighestNodeWins,
                },
                slots: self.slots.unwrap_or(1),
                discard: self.discard,
            }),
        }
    }
}

/// The parameters of a query. Each is taken out once, so that unknown ones are left over and refused.
#[derive(Debug)]
pub struct Params(Vec<(Bytes, Bytes)>);

impl Params {
    /// Reads a query.
    ///
    /// # Errors
    ///
    /// A problem for a broken escape, or for a parameter that is given twice.
    pub fn new(query: Option<&str>) -> Result<Self, Problem> {
        let all = uri::query(query.unwrap_or_default()).ok_or_else(|| {
            Problem::invalid("the query has a broken %-escape", "encode `%` itself as %25")
        })?;
        let mut names = BTreeSet::new();
        if let Some((name, _)) = all.iter().find(|(name, _)| !names.insert(name)) {
            let what = format!("the parameter `{}` is given twice", shown(name));
            return Err(Problem::invalid(what, "give each parameter once"));
        }
        Ok(Self(all))
    }

    /// Takes a parameter.
    pub fn take(&mut self, name: &str) -> Option<Bytes> {
        let at = self.0.iter().position(|(found, _)| found == name.as_bytes())?;
        Some(self.0.swap_remove(at).1)
    }

    /// A parameter that is left for another to take.
    pub fn get(&self, name: &str) -> Option<Bytes> {
        self.0.iter().find(|(found, _)| found == name.as_bytes()).map(|(_, value)| value.clone())
    }

    /// Takes a switch: a name alone, or with `true` or `false`.
    ///
    /// # Errors
    ///
    /// A problem for any other text.
    pub fn flag(&mut self, name: &str) -> Result<bool, Problem> {
        match self.take(name).as_deref() {
            None | Some(b"false") => Ok(false),
            Some(b"" | b"true") => Ok(true),
            Some(_) => Err(Problem::invalid(
                format!("`{name}` has an unknown value"),
                "give it alone, or with true or false",
            )),
        }
    }

    /// Takes the durability level of a write.
    ///
    /// # Errors
    ///
    /// A problem for any other text.
    pub fn level(&mut self) -> Result<Level, Problem> {
        let Some(text) = self.take("level") else { return Ok(Level::default()) };
        match std::str::from_utf8(&text).ok().and_then(token::parse_level) {
            // On no other disk.
            Some(Level::Replicated(0)) => Ok(Level::Durable),
            Some(level) => Ok(level),
            None => {
                let hint = "use applied, durable or replicated:N";
                Err(Problem::invalid("level is not a level", hint))
            }
        }
    }

    /// Takes the page size.
    ///
    /// # Errors
    ///
    /// A problem for any other text.
    pub fn limit(&mut self) -> Result<u32, Problem> {
        let most = u32::try_from(PAGE_ROWS_MAX).unwrap_or(u32::MAX);
        let Some(text) = self.take("limit") else { return Ok(most) };
        let number = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
        number.filter(|limit| (1..=most).contains(limit)).ok_or_else(|| {
            Problem::invalid("limit is out of range", format!("use a number from 1 to {most}"))
        })
    }

    /// Takes the cursor after which a page begins.
    ///
    /// # Errors
    ///
    /// A problem for any other text.
    pub fn after(&mut self) -> Result<Option<Cursor>, Problem> {
        let Some(text) = self.take("after") else { return Ok(None) };
        token::parse_cursor(&text).map(Some).ok_or_else(|| {
            Problem::invalid("after is not a cursor", "use `next` of the page before, unchanged")
        })
    }

    /// Ends the reading.
    ///
    /// # Errors
    ///
    /// A problem that names a parameter that nothing took.
    pub fn finish(self) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Problem::invalid(
                format!("the route has no parameter `{}`", shown(name)),
                "leave it out",
            )),
        }
    }
}

/// The beginning of a parameter's name, for an error.
fn shown(name: &Bytes) -> String {
    String::from_utf8_lossy(name).chars().take(100).collect()
}

/// The request of `init`.
#[must_use]
pub fn init(body: InitBody) -> Request {
    let voters = body.voters.into_iter().map(continuum_core::id::Address).collect();
    Request::Init { voters }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail<T: std::fmt::Debug>(result: Result<T, Problem>) -> String {
        result.map_or_else(|problem| problem.detail, |found| format!("no problem: {found:?}"))
    }

    #[test]
    fn a_list_is_no_object() {
        let good =
            "{\"writes\":[{\"key\":\"a\",\"edits\":[{\"cas\":{\"expected\":{\"absent\":true}}}]}]}";
        assert!(json::<BatchBody>(good.as_bytes()).is_ok());
        for wrong in [
            "[[]]",
            "{\"writes\":[[\"a\",[],null]]}",
            "{\"writes\":[{\"key\":\"a\",\"edits\":[[\"f\",true]]}]}",
            "{\"writes\":[{\"key\":\"a\",\"edits\":[{\"cas\":[{\"absent\":true},\"v\"]}]}]}",
            "{\"writes\":[{\"key\":\"a\",\"edits\":[{\"cas\":{\"expected\":[true]}}]}]}",
        ] {
            let detail = detail(json::<BatchBody>(wrong.as_bytes()));
            assert!(detail.contains("expected an object at line 1"), "{detail}");
        }
        assert!(json::<NamespaceBody>(b"[\"seqstruct\",\"strong\"]").is_err());
    }

    #[test]
    fn malformed_json_names_line_and_column() {
        let problem = json::<BatchBody>(b"{\n \"writes\": [}").err().map(|problem| problem.body());
        let body = problem.unwrap_or_default();
        assert_eq!((body["line"].as_u64(), body["column"].as_u64()), (Some(2), Some(13)), "{body}");
        assert_eq!(body["code"], "malformed_json");
    }

    #[test]
    fn another_shape_names_the_member() {
        assert!(detail(json::<SetBody>(br#"{"ad":["x"]}"#)).contains("unknown field `ad`"));
        assert!(detail(json::<CountBody>(br#"{"add":1.5}"#)).contains("line 1 column"));
        assert!(detail(json::<CountBody>(b"")).contains("the body is empty"));
    }

    #[test]
    fn an_edit_that_changes_nothing_is_named_by_its_path() {
        let text = br#"{"writes":[{"key":"a","edits":[{"put":"1"}]},{"key":"b","edits":[{"field":"f"}]}]}"#;
        let batch = json::<BatchBody>(text).and_then(mutations);
        assert!(detail(batch).starts_with("writes[1].edits[0]: changes nothing"));
    }

    #[test]
    fn an_edit_keeps_its_order() {
        let text =
            br#"{"key":"k","edits":[{"field":"f","add":["x","y"],"remove":["z"],"count":-2}]}"#;
        let mutation = json::<WriteBody>(text).and_then(|write| mutation("", write));
        let changes = mutation
            .map(|mutation| mutation.edits.into_iter().map(|edit| edit.change).collect::<Vec<_>>());
        let bytes = Bytes::from_static;
        let expected = [
            Change::Remove(bytes(b"z")),
            Change::Add(bytes(b"x")),
            Change::Add(bytes(b"y")),
            Change::Count(-2),
        ];
        assert_eq!(changes.ok().as_deref(), Some(&expected[..]));
    }

    #[test]
    fn a_cas_expects_exactly_one_thing() {
        let none = CasBody::default().change("cas");
        assert!(detail(none).contains("exactly one"));
        let two = json::<CasBody>(br#"{"expected":{"absent":true,"revision":3}}"#);
        assert!(detail(two.and_then(|cas| cas.change("cas"))).contains("exactly one"));
    }

    #[test]
    fn strong_namespaces_have_no_slots() {
        let body = json::<NamespaceBody>(br#"{"name":"a","consistency":"strong","slots":2}"#);
        assert!(detail(body.and_then(|body| body.policy())).contains("eventual"));
    }

    #[test]
    fn unknown_parameters_are_refused() {
        let params = Params::new(Some("levle=durable"));
        assert!(detail(params.and_then(Params::finish)).contains("levle"));
        let twice = Params::new(Some("limit=5&after=x&%6cimit=2"));
        assert_eq!(detail(twice), "the parameter `limit` is given twice");
        let mut params = Params(vec![(Bytes::from_static(b"limit"), Bytes::from_static(b"1001"))]);
        assert!(detail(params.limit()).contains("out of range"));
    }
}
