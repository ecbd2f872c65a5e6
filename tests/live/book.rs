//! The book of writes that clients asked for and how each was answered, and the judge of exports against it.
//!
//! A committed write must be there. A rejected write must not. A write with an unknown outcome may be there. Nothing
//! else may be there. Registers that one client overwrites hold its last committed value, or one whose outcome is
//! unknown.

use std::collections::{BTreeMap, BTreeSet};

use continuum_runtime::api::json::{FieldBody, JsonBytes, RowBody};

/// The strong namespace of the rows.
pub(crate) const STRONG: &str = "facts";
/// The eventual one.
pub(crate) const EVENTUAL: &str = "notes";
/// The set and the counter that all clients share.
pub(crate) const SET: &str = "tags";
pub(crate) const COUNTER: &str = "visits";

/// How a write was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    Committed,
    Rejected,
    Unknown,
}

#[derive(Clone, Debug, Default)]
struct Register {
    committed: Option<String>,
    unknown: BTreeSet<String>,
    /// Values that were committed, and overwritten by this client.
    overwritten: BTreeSet<String>,
}

/// All writes of a row's clients.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    registers: BTreeMap<(&'static str, String), Register>,
    members: BTreeMap<String, Answered>,
    counted: i128,
    maybe_counted: i128,
    committed: u64,
}

/// The rows of one namespace on one node.
pub(crate) type Rows = BTreeMap<String, Vec<FieldBody>>;

/// One node's rows of both namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Export {
    pub(crate) strong: Rows,
    pub(crate) eventual: Rows,
}

/// The contents that an export lacks, and those that it should not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    pub(crate) lost: Vec<String>,
    pub(crate) wrong: Vec<String>,
}

fn text(bytes: &JsonBytes) -> String {
    String::from_utf8_lossy(&bytes.0).into_owned()
}

/// Reads the lines of an export. `None` when one is no row.
pub(crate) fn read_rows(lines: &str) -> Option<Rows> {
    let rows = lines.lines().map(|line| {
        let RowBody { key, fields } = serde_json::from_str(line).ok()?;
        Some((text(&key), fields))
    });
    rows.collect()
}

impl Book {
    /// Notes the answer to a put of a register.
    pub(crate) fn put(
        &mut self,
        namespace: &'static str,
        key: &str,
        value: &str,
        answered: Answered,
    ) {
        let register = self.registers.entry((namespace, key.into())).or_default();
        match answered {
            Answered::Committed => {
                register.overwritten.extend(register.committed.replace(value.into()));
            }
            Answered::Unknown => drop(register.unknown.insert(value.into())),
            Answered::Rejected => {}
        }
        self.committed += u64::from(answered == Answered::Committed);
    }

    /// Notes the answer to an addition to the set.
    pub(crate) fn add(&mut self, member: &str, answered: Answered) {
        self.members.insert(member.into(), answered);
        self.committed += u64::from(answered == Answered::Committed);
    }

    /// Notes the answer to an addition of one to the counter.
    pub(crate) fn count(&mut self, answered: Answered) {
        self.counted += i128::from(answered == Answered::Committed);
        self.maybe_counted += i128::from(answered == Answered::Unknown);
        self.committed += u64::from(answered == Answered::Committed);
    }

    /// The number of committed writes.
    pub(crate) const fn committed(&self) -> u64 {
        self.committed
    }

    /// Takes over what another client noted. Clients share no register.
    pub(crate) fn merge(&mut self, other: Self) {
        self.registers.extend(other.registers);
        self.members.extend(other.members);
        self.counted += other.counted;
        self.maybe_counted += other.maybe_counted;
        self.committed += other.committed;
    }

    /// The same writes, of which each may be there or not.
    pub(crate) fn doubted(mut self) -> Self {
        for register in self.registers.values_mut() {
            register.unknown.extend(register.committed.take());
            register.unknown.append(&mut register.overwritten);
        }
        self.members.values_mut().for_each(|answered| *answered = Answered::Unknown);
        self.maybe_counted += std::mem::take(&mut self.counted);
        self.committed = 0;
        self
    }

    /// Judges an export.
    pub(crate) fn judge(&self, export: &Export) -> Findings {
        let mut findings = Findings::default();
        for ((namespace, key), register) in &self.registers {
            judge_register(namespace, key, register, export, &mut findings);
        }
        self.judge_strangers(export, &mut findings);
        self.judge_set(export, &mut findings);
        self.judge_counter(export, &mut findings);
        findings
    }

    fn judge_strangers(&self, export: &Export, findings: &mut Findings) {
        for (namespace, rows) in [(STRONG, &export.strong), (EVENTUAL, &export.eventual)] {
            let known = |key: &String| {
                let is_shared = namespace == EVENTUAL && (key == SET || key == COUNTER);
                is_shared || self.registers.contains_key(&(namespace, key.clone()))
            };
            let strangers = rows.keys().filter(|key| !known(key));
            findings
                .wrong
                .extend(strangers.map(|key| format!("{namespace}/{key} was never asked for")));
        }
    }

    fn judge_set(&self, export: &Export, findings: &mut Findings) {
        let fields = export.eventual.get(SET).into_iter().flatten();
        let found: BTreeSet<String> =
            fields.filter_map(|f| f.set.as_ref()).flatten().map(text).collect();
        for (member, answered) in &self.members {
            match answered {
                Answered::Committed if !found.contains(member) => {
                    findings.lost.push(format!("{EVENTUAL}/{SET} lacks {member}"));
                }
                Answered::Rejected if found.contains(member) => {
                    findings
                        .wrong
                        .push(format!("{EVENTUAL}/{SET} has {member}, which was rejected"));
                }
                _ => {}
            }
        }
        let strangers = found.iter().filter(|member| !self.members.contains_key(*member));
        findings
            .wrong
            .extend(strangers.map(|m| format!("{EVENTUAL}/{SET} has {m}, never asked for")));
    }

    fn judge_counter(&self, export: &Export, findings: &mut Findings) {
        let fields = export.eventual.get(COUNTER).into_iter().flatten();
        let found: i128 = fields.filter_map(|field| field.counter).map(|count| count.0).sum();
        let missing = u32::try_from((self.counted - found).max(0)).unwrap_or(u32::MAX);
        for _ in 0..missing {
            findings
                .lost
                .push(format!("{EVENTUAL}/{COUNTER} is {found}, {} were counted", self.counted));
        }
        if found > self.counted + self.maybe_counted {
            let most = self.counted + self.maybe_counted;
            findings
                .wrong
                .push(format!("{EVENTUAL}/{COUNTER} is {found}, at most {most} were asked for"));
        }
    }
}

fn judge_register(
    namespace: &str,
    key: &str,
    register: &Register,
    export: &Export,
    findings: &mut Findings,
) {
    let rows = if namespace == STRONG { &export.strong } else { &export.eventual };
    let fields = rows.get(key).into_iter().flatten();
    let values: Vec<String> =
        fields.filter_map(|field| field.register.as_ref()).flatten().map(text).collect();
    let may_be = |value: &String| {
        register.committed.as_ref() == Some(value) || register.unknown.contains(value)
    };
    match (values.first(), &register.committed) {
        (None, Some(value)) => findings.lost.push(format!("{namespace}/{key} lacks {value}")),
        (Some(found), committed) if !may_be(found) => {
            let instead = committed.as_deref().unwrap_or("nothing");
            let what = format!("{namespace}/{key} is {found}, and {instead} was committed");
            // A value that was replaced by another one is gone as well.
            if committed.is_some() {
                findings.lost.push(what.clone());
            }
            findings.wrong.push(what);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRONG_ROWS: &str = r#"{"key":"hot","fields":[{"field":"","register":["2"]}]}
{"key":"sky","fields":[{"field":"","register":["blue"]}]}"#;
    const EVENTUAL_ROWS: &str = r#"{"key":"sea","fields":[{"field":"","register":["green"]}]}
{"key":"tags","fields":[{"field":"","set":["a","b"]}]}
{"key":"visits","fields":[{"field":"","counter":2}]}"#;

    fn book() -> Book {
        let mut book = Book::default();
        let committed = Answered::Committed;
        book.put(STRONG, "hot", "1", committed);
        book.put(STRONG, "hot", "2", committed);
        book.put(STRONG, "hot", "3", Answered::Rejected);
        book.put(STRONG, "hot", "4", Answered::Unknown);
        let mut other = Book::default();
        other.put(STRONG, "sky", "blue", committed);
        other.put(EVENTUAL, "sea", "green", committed);
        other.put(EVENTUAL, "maybe", "x", Answered::Unknown);
        for (member, answered) in
            [("a", committed), ("b", Answered::Unknown), ("c", Answered::Rejected)]
        {
            other.add(member, answered);
        }
        for answered in [committed, committed, Answered::Unknown] {
            other.count(answered);
        }
        book.merge(other);
        book
    }

    fn judged(replace: &[(&str, &str)]) -> (usize, usize) {
        let (mut strong, mut eventual) = (STRONG_ROWS.to_owned(), EVENTUAL_ROWS.to_owned());
        for (from, to) in replace {
            assert!(strong.contains(from) || eventual.contains(from), "{from} is planted");
            (strong, eventual) = (strong.replace(from, to), eventual.replace(from, to));
        }
        let rows = |lines: &str| read_rows(lines).expect("rows");
        let export = Export { strong: rows(&strong), eventual: rows(&eventual) };
        let Findings { lost, wrong } = book().judge(&export);
        (lost.len(), wrong.len())
    }

    #[test]
    fn a_right_export_is_accepted() {
        assert_eq!(book().committed(), 7);
        assert_eq!(judged(&[]), (0, 0));
        assert_eq!(judged(&[("\"2\"", "\"4\"")]), (0, 0), "its outcome was unknown");
        assert_eq!(judged(&[("\"a\",\"b\"", "\"a\"")]), (0, 0), "its outcome was unknown");
        assert_eq!(judged(&[("\"counter\":2", "\"counter\":3")]), (0, 0), "one more may be");
    }

    #[test]
    fn a_lost_write_is_found() {
        assert_eq!(judged(&[("sky", "sky2")]), (1, 1), "a register under another key");
        assert_eq!(judged(&[("\"a\",\"b\"", "\"b\"")]), (1, 0), "a member");
        assert_eq!(judged(&[("\"counter\":2", "\"counter\":0")]), (2, 0), "two counts");
        assert_eq!(judged(&[("\"2\"", "\"1\"")]), (1, 1), "an older value is back");
        let none = book().judge(&Export::default());
        assert_eq!((none.lost.len(), none.wrong.len()), (6, 0), "{none:?}");
    }

    #[test]
    fn doubted_writes_may_be_there_or_not() {
        let rows = |lines| read_rows(lines).expect("rows");
        let export = Export { strong: rows(STRONG_ROWS), eventual: rows(EVENTUAL_ROWS) };
        let doubted = book().doubted();
        assert_eq!(doubted.committed(), 0);
        assert_eq!(doubted.judge(&export), Findings::default());
        assert_eq!(doubted.judge(&Export::default()), Findings::default());
        let older = rows(&STRONG_ROWS.replace("\"2\"", "\"1\""));
        let export = Export { strong: older, eventual: Rows::new() };
        assert_eq!(doubted.judge(&export), Findings::default(), "the overwriting one was won over");
    }

    #[test]
    fn what_nobody_committed_is_found() {
        assert_eq!(judged(&[("\"blue\"", "\"forged\"")]), (1, 1), "another value");
        assert_eq!(judged(&[("\"2\"", "\"3\"")]), (1, 1), "a rejected value");
        assert_eq!(judged(&[("\"a\",\"b\"", "\"a\",\"c\"")]), (0, 1), "a rejected member");
        assert_eq!(judged(&[("\"a\",\"b\"", "\"a\",\"z\"")]), (0, 1), "a member of nobody");
        assert_eq!(judged(&[("\"counter\":2", "\"counter\":9")]), (0, 1), "too many counts");
        assert_eq!(read_rows("{\"key\":7}"), None);
    }
}
