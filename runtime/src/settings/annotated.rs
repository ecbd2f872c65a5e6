//! A settings file in which every key stands with its meaning: those that are set with their values, the others as
//! comments with their defaults.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use toml::{Table, Value};

use super::keys::{KEYS, Key};
use super::layer::{Origin, find};
use super::{Settings, complete};

/// Comments are broken at this column.
const COLUMNS: usize = 100;

/// The annotated file of these settings. Keys without an origin have their defaults.
#[must_use]
pub fn annotated(settings: &Settings, origins: &BTreeMap<String, Origin>) -> String {
    let values = Table::try_from(settings).unwrap_or_default();
    let defaults = Table::try_from(complete()).unwrap_or_default();
    let mut text = head(&settings.name);
    let mut table = "";
    for Key { key, kind, meaning } in KEYS {
        let (here, leaf) = key.rsplit_once('.').unwrap_or(("", key));
        let is_set = |key: &str| origins.contains_key(key) && find(&values, key).is_some();
        if here != table {
            table = here;
            // Without a value there is no such table: its header is a comment like its keys.
            let needs_values =
                here == "api.tls" && !origins.keys().any(|key| key.starts_with("api.tls."));
            let _ = write!(text, "\n{}[{here}]\n", if needs_values { "# " } else { "" });
        }
        let value = if is_set(key) { find(&values, key) } else { find(&defaults, key) };
        let value = value.map_or_else(String::new, Value::to_string);
        comment(&mut text, &format!("{meaning} ({})", kind.replace('`', "")));
        let _ = writeln!(text, "{}{leaf} = {value}", if is_set(key) { "" } else { "# " });
    }
    text
}

fn head(name: &str) -> String {
    format!(
        "## The settings of one node of Continuum. After one `#` a key has its default.\n\
         ## Relative paths are relative to this file. `continuum config check --config FILE` checks it.\n##\n\
         ## Before the first start, make the certificates:\n\
         ##   continuum pki init --out pki\n\
         ##   continuum pki issue --ca pki --out pki/{name}\n"
    )
}

/// Writes a comment, broken into lines.
fn comment(text: &mut String, words: &str) {
    text.push_str("\n##");
    let mut column = 2;
    for word in words.split(' ') {
        if column + 1 + word.len() > COLUMNS {
            text.push_str("\n##");
            column = 2;
        }
        let _ = write!(text, " {word}");
        column += 1 + word.len();
    }
    text.push('\n');
}
