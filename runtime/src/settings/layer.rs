//! The layers of the settings: defaults, file, variables, flags. Each key remembers which layer set it.
//!
//! A layer is read to its end: all mistakes are found at once. This module judges no value; it knows keys and types.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use toml::{Table, Value};

use super::keys::KEYS;
use super::{Settings, SettingsError, SettingsErrors, complete};
use crate::regular;

/// The prefix of this program's environment variables.
const PREFIX: &str = "CONTINUUM_";

/// Variables of that prefix which the command line reads itself. No setting has such a name.
pub const VARIABLES_OF_COMMANDS: [&str; 4] =
    ["CONTINUUM_NODE", "CONTINUUM_TLS_CA", "CONTINUUM_TLS_CERT", "CONTINUUM_TLS_KEY"];

/// No settings file is longer.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A key is proposed instead of an unknown one when they are at least this similar, from 0 to 1.
const SIMILAR: f64 = 0.6;

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

/// All layers merged, before their values are judged.
#[derive(Clone, Debug, Default)]
pub struct Layered {
    settings: Settings,
    origins: BTreeMap<String, Origin>,
    wrong: Vec<SettingsError>,
}

impl Layered {
    /// Reads the file (when given) and overlays the variables, then the flags. Each variable is a pair of its name and
    /// its value, each flag a pair of a key (`peer.listen`) and its value.
    #[must_use]
    pub fn gather(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[(String, String)],
    ) -> Self {
        let known = Table::try_from(complete()).unwrap_or_default();
        let mut merge = Merge { known: &known, table: Table::new(), found: Self::default() };
        if let Some(path) = file {
            merge.file(path);
        }
        merge.variables(variables.into_iter().collect());
        for (key, value) in flags {
            merge.set(key, key, value, Origin::Flag);
        }
        merge.finish(file.and_then(Path::parent))
    }

    /// The layer of each key that was set.
    #[must_use]
    pub const fn origins(&self) -> &BTreeMap<String, Origin> {
        &self.origins
    }

    /// The merged settings. Does not validate.
    ///
    /// # Errors
    ///
    /// [`SettingsErrors`]: what cannot be read, unknown keys and wrong types.
    pub fn settings(&self) -> Result<Settings, SettingsErrors> {
        SettingsErrors::unless_empty(self.wrong.clone()).map(|()| self.settings.clone())
    }

    /// The settings as far as they were understood, with defaults for the rest; it may be wrong.
    #[must_use]
    pub const fn understood(&self) -> &Settings {
        &self.settings
    }

    /// The merged settings, validated.
    ///
    /// # Errors
    ///
    /// [`SettingsErrors`]: all of [`Layered::settings`] and of [`Settings::validate`].
    pub fn checked(&self) -> Result<Settings, SettingsErrors> {
        let mut all = self.wrong.clone();
        let named: BTreeSet<&str> = self.wrong.iter().map(|error| error.key.as_str()).collect();
        // Without its file a node lacks everything; then that is the one mistake to tell. A key that could not be
        // understood has its default here, which says nothing.
        let is_whole = !self.wrong.iter().any(|error| error.is_of_a_whole_file);
        let judged = self.settings.mistakes().into_iter().filter(|_| is_whole);
        all.extend(judged.filter(|error| !named.contains(error.key.as_str())));
        SettingsErrors::unless_empty(all).map(|()| self.settings.clone())
    }
}

/// The merge under way.
struct Merge<'a> {
    /// Every key, with a value of its type.
    known: &'a Table,
    table: Table,
    found: Layered,
}

impl Merge<'_> {
    fn wrong(&mut self, key: &str, why: impl Into<String>, hint: impl Into<String>) {
        self.found.wrong.push(SettingsError::new(key, why, hint));
    }

    fn file(&mut self, path: &Path) {
        match read(path) {
            Ok(table) => self.leaves(&table, ""),
            Err(error) => self.found.wrong.push(error),
        }
    }

    /// Takes every leaf of the file that is a known key.
    fn leaves(&mut self, table: &Table, prefix: &str) {
        for (key, value) in table {
            let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match (value, find(self.known, &path)) {
                (Value::Table(inner), Some(Value::Table(_))) => self.leaves(inner, &path),
                (_, Some(_)) => self.take(&path, value.clone(), Origin::File),
                (_, None) => self.unknown(&path, &path),
            }
        }
    }

    fn variables(&mut self, all: Vec<(OsString, OsString)>) {
        let named: Vec<(String, OsString)> = all
            .into_iter()
            .filter(|(name, _)| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
            .collect();
        let names: BTreeSet<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
        for (name, value) in &named {
            if VARIABLES_OF_COMMANDS.contains(&name.as_str()) || is_service_link(name, &names) {
                continue;
            }
            let key = name[PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
            match value.to_str() {
                Some(value) => self.set(name, &key, value, Origin::Environment),
                None => self.wrong(name, "its value is not UTF-8", "set it to text"),
            }
        }
    }

    /// Takes a value that came as text. `name` is what the operator wrote.
    fn set(&mut self, name: &str, key: &str, text: &str, origin: Origin) {
        match find(self.known, key) {
            None | Some(Value::Table(_)) => self.unknown(name, key),
            Some(example) => self.take(key, value_of(text, example), origin),
        }
    }

    /// Takes a value if it has the type of its key.
    fn take(&mut self, key: &str, value: Value, origin: Origin) {
        let mut alone = Table::new();
        insert(&mut alone, key, value.clone());
        if let Err(error) = understand(alone) {
            let why = error.message().replace("usize", "u64");
            let why = ["u64", "u32"].iter().fold(why, |why, number| {
                why.replace(&format!("expected {number}"), "expected a whole number from 0 up")
            });
            return self.wrong(key, why, kind(key));
        }
        // A mistake of an earlier layer does not matter any more.
        self.found.wrong.retain(|error| error.key != key);
        insert(&mut self.table, key, value);
        self.found.origins.insert(key.to_owned(), origin);
    }

    fn unknown(&mut self, name: &str, key: &str) {
        let is_variable = name.starts_with(PREFIX);
        let similar = |known: &str| strsim::normalized_damerau_levenshtein(key, known);
        let nearest = KEYS.iter().map(|known| known.key).filter(|known| similar(known) >= SIMILAR);
        let nearest = nearest.max_by(|a, b| similar(a).total_cmp(&similar(b)));
        let hint = match nearest {
            Some(near) if is_variable => format!("did you mean {}, for {near}?", variable(near)),
            Some(near) => format!("did you mean {near}?"),
            None if is_variable => {
                "remove it; variables of settings are CONTINUUM_ and the key in upper case, with `__` between levels"
                    .to_owned()
            }
            None => "see `continuum config init` for all keys".to_owned(),
        };
        let why = if is_variable { "names no setting" } else { "not a key of the settings" };
        self.wrong(name, why, hint);
    }

    fn finish(mut self, base: Option<&Path>) -> Layered {
        match understand(self.table) {
            Ok(settings) => self.found.settings = settings,
            Err(error) => {
                let why = error.message().to_owned();
                self.found.wrong.push(SettingsError::new("settings", why, "report this"));
            }
        }
        // Paths in flags and variables are relative to the current directory, not to the file.
        for (key, path) in self.found.settings.paths() {
            let is_of_file = self.found.origins.get(key) == Some(&Origin::File);
            if let Some(base) = base.filter(|_| is_of_file && !path.as_os_str().is_empty()) {
                *path = base.join(&*path);
            }
        }
        self.found
    }
}

/// The kind of a key's value, as a hint.
fn kind(key: &str) -> String {
    let known = KEYS.iter().find(|known| known.key == key);
    known.map_or_else(String::new, |known| format!("{}: {}", known.kind, known.meaning))
}

/// The variable of a key.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

/// Whether Kubernetes made this variable: it tells each container the address of every service beside it, by the
/// service's name. Nobody wrote such a variable, so it is no mistake.
fn is_service_link(name: &str, all: &BTreeSet<&str>) -> bool {
    let ends = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"].iter();
    let mut stems: Vec<&str> = ends.filter_map(|end| name.strip_suffix(end)).collect();
    stems.extend(
        ["_SERVICE_PORT_", "_PORT_"].iter().filter_map(|part| Some(name.split_once(part)?.0)),
    );
    stems.iter().any(|stem| {
        [format!("{stem}_SERVICE_HOST"), format!("{stem}_SERVICE_PORT")]
            .iter()
            .all(|other| all.contains(other.as_str()))
    })
}

fn read(path: &Path) -> Result<Table, SettingsError> {
    let key = path.display().to_string();
    let of_file = |why, hint| SettingsError {
        is_of_a_whole_file: true,
        ..SettingsError::new(&key, why, hint)
    };
    let text = regular::read_text(path, FILE_BYTES_MAX).map_err(|error| {
        of_file(format!("cannot be read: {error}"), "give another file with --config")
    })?;
    text.parse::<Table>()
        .map_err(|error| of_file(format!("is not TOML: {error}"), "correct the line that it names"))
}

fn understand(table: Table) -> Result<Settings, toml::de::Error> {
    Value::Table(table).try_into()
}

/// Parses text as the type of the example: a number, a list (separated by commas) or, for anything else, a string.
fn value_of(text: &str, example: &Value) -> Value {
    let parsed = match example {
        Value::Integer(_) => text.replace('_', "").parse().ok().map(Value::Integer),
        Value::Boolean(_) => text.parse().ok().map(Value::Boolean),
        Value::Array(_) => Some(Value::Array(
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

pub(super) fn find<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((first, rest)) => find(table.get(first)?.as_table()?, rest),
    }
}

/// Inserts a leaf. Only known keys are inserted, so no leaf stands where a table should be.
pub(super) fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
            if let Some(inner) = inner.as_table_mut() {
                insert(inner, rest, value);
            }
        }
    }
}
