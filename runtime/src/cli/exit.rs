//! How a command ends: exit codes, and failures that say what, why and a hint.
//!
//! `--help` documents the codes, and their meaning never changes. A write with an unknown outcome has a code of its
//! own, since it may have happened.

use std::fmt;

use serde_json::{Map, Value as Json, json};

use crate::api::problem::{KINDS, Kind};

/// A negative answer: an absent value, an unknown namespace.
pub(super) const NEGATIVE: u8 = 1;
/// The command line, a name or a setting is wrong.
pub(super) const USAGE: u8 = 2;
/// No answer from a node, no leader, or not ready.
pub(super) const UNREACHABLE: u8 = 3;
/// No answer in time: a write may have happened.
pub(super) const UNKNOWN: u8 = 4;
/// TLS or the authority refused.
pub(super) const REFUSED: u8 = 5;
/// A compare-and-set did not match, the thing exists already, or another process is this node.
pub(super) const CONFLICT: u8 = 6;
/// Over a limit or a quota.
pub(super) const LIMIT: u8 = 7;
/// A local file, pipe or directory failed, or its content is broken.
pub(super) const LOCAL: u8 = 8;
/// Versions or federations do not match.
pub(super) const MISMATCH: u8 = 9;
/// The write happened, and missed the level that was asked for.
#[cfg(test)]
pub(super) const MISSED: u8 = 10;
/// SIGINT or SIGTERM, as shells report it.
pub(super) const INTERRUPTED: u8 = 130;

/// The tables at the end of `--help`.
pub(super) const HELP: &str = "Exit codes:
    0  success
    1  a negative answer: an absent value, an unknown namespace
    2  wrong usage: arguments, names, settings
    3  no answer from a node, no leader, or not ready
    4  unknown outcome: no answer in time, a write may have happened
    5  refused by TLS or by the authority
    6  conflict: compare-and-set, something that exists, or a second process of this node
    7  over a limit: size, quota, too many requests under way
    8  a local file or directory failed, or its content is broken
    9  versions or federations do not match
   10  the write happened, but not on as many disks as was asked for
  130  interrupted

Environment:
  CONTINUUM_NODE     same as --node; without both, commands ask the running `continuum dev`
  CONTINUUM_TLS_CA, CONTINUUM_TLS_CERT, CONTINUUM_TLS_KEY
                     same as --tls-ca, --tls-cert and --tls-key
  CONTINUUM_<KEY>    a node's setting: CONTINUUM_PEER__LISTEN is peer.listen
  NO_COLOR           no colours";

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The exit code.
    pub(super) exit: u8,
    /// Programs match on it.
    pub(super) code: String,
    /// The event.
    pub(super) what: String,
    /// The cause; may be empty.
    pub(super) why: String,
    /// Advice for the user; may be empty.
    pub(super) hint: String,
    rest: Box<Rest>,
}

/// The parts that few failures have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rest {
    /// Further members for programs, such as the place of a refused write.
    members: Map<String, Json>,
    /// Further failures of the same command, which a mend of this one leaves.
    also: Vec<Failure>,
}

impl Failure {
    /// A failure of any kind.
    pub(super) fn new(
        exit: u8,
        code: &str,
        what: impl Into<String>,
        why: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let (code, what, why, hint) = (code.into(), what.into(), why.into(), hint.into());
        Self { exit, code, what, why, hint, rest: Box::default() }
    }

    /// Adds the members of an answer that say more than the failure itself.
    pub(super) fn with(mut self, answer: &Json) -> Self {
        let members = answer.as_object().into_iter().flatten();
        let further = members.filter(|(name, _)| !TOLD.contains(&name.as_str()));
        self.rest.members.extend(further.map(|(name, value)| (name.clone(), value.clone())));
        self
    }

    /// One failure of several, of which there is at least one. The first gives the exit code.
    pub(super) fn of_all(all: impl IntoIterator<Item = Self>) -> Self {
        let mut all = all.into_iter();
        let none = || Self::new(LOCAL, "internal", "a failure without a reason", "", "report this");
        let mut first = all.next().unwrap_or_else(none);
        first.rest.also = all.collect();
        first
    }

    /// The reader of a pipe went away. Not an error: nothing is printed and the exit code is 0.
    pub(super) fn pipe_closed() -> Self {
        Self::new(0, "", "", "", "")
    }

    /// A local file or stream failed.
    pub(super) fn local(
        what: impl Into<String>,
        error: &std::io::Error,
        hint: impl Into<String>,
    ) -> Self {
        Self::new(LOCAL, "local_io", what, error.to_string(), hint)
    }

    /// The arguments do not fit together.
    pub(super) fn usage(
        what: impl Into<String>,
        why: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::new(USAGE, "usage", what, why, hint)
    }

    /// The same failure with its texts changed.
    pub(super) fn with_texts(&self, change: &dyn Fn(&str) -> String) -> Self {
        let (what, why, hint) = (change(&self.what), change(&self.why), change(&self.hint));
        let members = self.rest.members.iter();
        let members = members.map(|(name, value)| (name.clone(), changed(value, change))).collect();
        let also = self.also().map(|other| other.with_texts(change)).collect();
        let rest = Box::new(Rest { members, also });
        Self { exit: self.exit, code: self.code.clone(), what, why, hint, rest }
    }

    /// For programs, with the names that a problem of HTTP has.
    pub(super) fn json(&self) -> Json {
        let Self { exit, code, what, why, hint, .. } = self;
        let mut json =
            json!({ "code": code, "exit": exit, "title": what, "detail": why, "hint": hint });
        for (name, value) in &self.rest.members {
            json[name] = value.clone();
        }
        if self.also().next().is_some() {
            json["also"] = self.also().map(Self::json).collect();
        }
        json
    }

    /// Further failures of the same command.
    pub(super) fn also(&self) -> impl Iterator<Item = &Self> {
        self.rest.also.iter()
    }

    /// Whether nothing is printed.
    pub(super) const fn is_silent(&self) -> bool {
        self.code.is_empty()
    }

    /// Whether a retry may succeed, because nothing is wrong with the request.
    pub(super) fn is_passing(&self) -> bool {
        const PASSING: [&str; 9] = [
            "busy",
            "disk_stalled",
            "no_leader",
            "not_ready",
            "stopping",
            "unknown_outcome",
            "unreachable",
            "connection_lost",
            "timeout",
        ];
        PASSING.contains(&self.code.as_str())
    }
}

/// Members of a problem that a failure has in its own fields, or that HTTP alone needs.
const TOLD: [&str; 8] = ["type", "title", "status", "code", "detail", "hint", "exit", "also"];

/// A value with its texts changed. A reader of JSON bounds its depth.
fn changed(value: &Json, change: &dyn Fn(&str) -> String) -> Json {
    match value {
        Json::String(text) => change(text).into(),
        Json::Array(list) => list.iter().map(|one| changed(one, change)).collect(),
        Json::Object(members) => {
            members.iter().map(|(name, one)| (change(name), changed(one, change))).collect()
        }
        other => other.clone(),
    }
}

/// One line for each part that is not empty, of each failure.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.code, self.what)?;
        for (name, part) in [("why", &self.why), ("hint", &self.hint)] {
            if !part.is_empty() {
                write!(f, "\n  {name}: {part}")?;
            }
        }
        self.also().try_for_each(|other| write!(f, "\n{other}"))
    }
}

/// The exit code of a problem. The HTTP status decides when the code is of a later version.
pub(super) fn of_problem(code: &str, status: u16) -> u8 {
    let kind = KINDS.iter().find(|kind: &&&Kind| kind.code == code);
    kind.map_or(
        match status {
            404 => NEGATIVE,
            401 | 403 => REFUSED,
            409 | 412 => CONFLICT,
            413 | 429 | 507 => LIMIT,
            408 | 504 => UNKNOWN,
            500..=599 => UNREACHABLE,
            _ => USAGE,
        },
        |kind| kind.exit,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_code_once() {
        let codes = [
            0,
            NEGATIVE,
            USAGE,
            UNREACHABLE,
            UNKNOWN,
            REFUSED,
            CONFLICT,
            LIMIT,
            LOCAL,
            MISMATCH,
            MISSED,
            INTERRUPTED,
        ];
        let listed: Vec<u8> =
            HELP.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
        assert_eq!(listed, codes);
    }

    #[test]
    fn an_unknown_outcome_is_not_a_failure_of_another_kind() {
        assert_eq!(of_problem("unknown_outcome", 504), UNKNOWN);
        assert_eq!(of_problem("conflict", 412), CONFLICT);
        assert_eq!(of_problem("absent", 404), NEGATIVE);
        assert_eq!(of_problem("unknown_namespace", 404), NEGATIVE);
        assert_eq!(of_problem("no_leader", 503), UNREACHABLE);
        assert_eq!(of_problem("busy", 429), LIMIT);
        assert_eq!(of_problem("of_a_later_version", 504), UNKNOWN);
    }

    #[test]
    fn several_failures_are_one_with_the_exit_code_of_the_first() {
        let one = Failure::new(2, "settings", "data", "none is set", "set it");
        let other = Failure::new(8, "credentials", "peer.ca", "no such file", "issue one");
        let both = Failure::of_all([one, other]);
        assert_eq!(both.exit, 2);
        let text = both.to_string();
        assert!(text.contains("error[settings]: data") && text.contains("error[credentials]"));
        let json = both.with_texts(&str::to_uppercase).json();
        assert_eq!(json["title"], "DATA");
        assert_eq!(
            (&json["also"][0]["exit"], &json["also"][0]["hint"]),
            (&8.into(), &"ISSUE ONE".into())
        );
    }

    #[test]
    fn a_failure_keeps_the_further_members_of_a_problem() {
        let mut problem =
            json!({ "code": "x", "status": 412, "exit": 9, "at": 2, "key": "a\u{1b}" });
        problem["all"] = json!([{ "b\u{1b}": "c\u{1b}" }]);
        let failure = Failure::new(6, "conflict", "what", "why", "hint").with(&problem);
        let json = failure.with_texts(&|text| text.replace('\u{1b}', "?")).json();
        assert_eq!(
            (&json["code"], &json["exit"], &json["at"]),
            (&"conflict".into(), &6.into(), &2.into())
        );
        assert_eq!((&json["key"], &json["all"]), (&"a?".into(), &json!([{ "b?": "c?" }])));
        assert_eq!(json["status"], Json::Null);
    }

    #[test]
    fn a_failure_says_what_why_and_a_hint() {
        let failure = Failure::new(3, "unreachable", "no node answers", "refused", "start it");
        assert_eq!(
            failure.to_string(),
            "error[unreachable]: no node answers\n  why: refused\n  hint: start it"
        );
    }
}
