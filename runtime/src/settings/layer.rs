//! The layers of the settings: defaults, file, variables, flags. Each key remembers which layer set it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Settings, SettingsError};

/// The prefix of this program's environment variables.
const PREFIX: &str = "CONTINUUM_";

/// The layer that set a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The settings file.
    File,
    /// A `CONTINUUM_*` variable.
    Environment,
    /// A flag of the command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
        })
    }
}

/// All layers merged, before they are parsed.
#[derive(Clone, Debug, Default)]
pub struct Layered {
    table: Table,
    origins: BTreeMap<String, Origin>,
    base: Option<PathBuf>,
}

impl Layered {
    /// Reads the file (when given) and overlays the variables, then the flags. Each variable is a pair of its name and
    /// its value, each flag a pair of a key (`peer.listen`) and its value, all as text.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] when the file cannot be read or is not TOML.
    pub fn gather(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
        flags: &[(String, String)],
    ) -> Result<Self, SettingsError> {
        let mut layers = Self::default();
        if let Some(path) = file {
            layers.table = read(path)?;
            layers.base = path.parent().map(Path::to_owned);
            note_leaves(&layers.table, "", &mut layers.origins);
        }
        let known = Table::try_from(Settings::default()).unwrap_or_default();
        for (name, value) in variables {
            if let Some(key) = key_of_variable(&name, &known) {
                layers.set(&key, &value, &known, Origin::Environment)?;
            }
        }
        for (key, value) in flags {
            layers.set(key, value, &known, Origin::Flag)?;
        }
        Ok(layers)
    }

    /// The layer of each key that was set.
    #[must_use]
    pub const fn origins(&self) -> &BTreeMap<String, Origin> {
        &self.origins
    }

    /// Parses the merged layers. Does not validate.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] that names a key which is unknown or has the wrong type.
    pub fn settings(&self) -> Result<Settings, SettingsError> {
        let mut table = self.table.clone();
        // Paths in flags and variables are relative to the current directory, not to the file.
        if let Some(base) = &self.base {
            let mut from_file = self.table.clone();
            for (key, origin) in &self.origins {
                if *origin != Origin::File {
                    remove(&mut from_file, key);
                }
            }
            let mut rebased = understand(from_file.clone())?;
            rebased.rebase(base);
            let absolute = Table::try_from(&rebased).unwrap_or_default();
            overlay_paths(&mut table, &from_file, &absolute);
        }
        understand(table)
    }

    fn set(
        &mut self,
        key: &str,
        text: &str,
        known: &Table,
        origin: Origin,
    ) -> Result<(), SettingsError> {
        let value = value_of(text, find(known, key));
        insert(&mut self.table, key, value).ok_or_else(|| {
            SettingsError::new(key, "not a key of the settings", "see `continuum config show`")
        })?;
        self.origins.insert(key.to_owned(), origin);
        Ok(())
    }
}

fn read(path: &Path) -> Result<Table, SettingsError> {
    let key = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        SettingsError::new(
            &key,
            format!("cannot be read: {error}"),
            "give another file with --config",
        )
    })?;
    text.parse::<Table>().map_err(|error| {
        SettingsError::new(&key, format!("is not TOML: {error}"), "correct the line that it names")
    })
}

fn understand(table: Table) -> Result<Settings, SettingsError> {
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
        let key = error.path().to_string();
        let why = error.into_inner().message().to_owned();
        SettingsError::new(&key, why, "see `continuum config show` for keys and their kinds")
    })
}

/// `CONTINUUM_PEER__LISTEN` is `peer.listen`. Variables whose first part is not a key are not settings, such as
/// `CONTINUUM_NODE`, a URL for the command line.
fn key_of_variable(name: &str, known: &Table) -> Option<String> {
    let key = name.strip_prefix(PREFIX)?.to_ascii_lowercase().replace("__", ".");
    let first = key.split('.').next()?;
    known.contains_key(first).then_some(key)
}

/// Parses text as the type of the default: a number, a list (separated by commas) or, for anything else, a string.
fn value_of(text: &str, default: Option<&Value>) -> Value {
    let parsed = match default {
        Some(Value::Integer(_)) => text.replace('_', "").parse().ok().map(Value::Integer),
        Some(Value::Boolean(_)) => text.parse().ok().map(Value::Boolean),
        Some(Value::Array(_)) => Some(Value::Array(
            text.split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(|part| Value::String(part.to_owned()))
                .collect(),
        )),
        _ => None,
    };
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn find<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((first, rest)) => find(table.get(first)?.as_table()?, rest),
    }
}

fn insert(table: &mut Table, key: &str, value: Value) -> Option<()> {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
            insert(inner.as_table_mut()?, rest, value)?;
        }
    }
    Some(())
}

fn remove(table: &mut Table, key: &str) {
    match key.split_once('.') {
        None => {
            table.remove(key);
        }
        Some((first, rest)) => {
            if let Some(inner) = table.get_mut(first).and_then(Value::as_table_mut) {
                remove(inner, rest);
            }
        }
    }
}

/// Takes from `absolute` every string that `from_file` sets: the two differ in paths alone.
fn overlay_paths(table: &mut Table, from_file: &Table, absolute: &Table) {
    for (key, value) in from_file {
        match (value, absolute.get(key), table.get_mut(key)) {
            (Value::Table(inner), Some(Value::Table(absolute)), Some(Value::Table(table))) => {
                overlay_paths(table, inner, absolute);
            }
            (Value::String(_), Some(absolute @ Value::String(_)), Some(slot)) => {
                *slot = absolute.clone();
            }
            _ => {}
        }
    }
}

fn note_leaves(table: &Table, prefix: &str, origins: &mut BTreeMap<String, Origin>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => note_leaves(inner, &path, origins),
            _ => {
                origins.insert(path, Origin::File);
            }
        }
    }
}
