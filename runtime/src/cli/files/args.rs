//! The arguments of `import` and `export`, with their help texts.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// An import.
#[derive(Debug, Args)]
pub(in crate::cli) struct Import {
    /// The namespace
    #[arg(long, value_name = "NAME")]
    pub(super) ns: String,
    /// The format of the source
    #[arg(long, value_enum, default_value_t = Source::Jsonl)]
    pub(super) format: Source,
    /// The file (`-` for standard input); for WordNet the directory of its data files
    pub(super) path: PathBuf,
    /// Check the file and compare it with the namespace, and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Batches under way at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) concurrency: u16,
    /// Maximum number of rows in one batch
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(super) batch: u16,
    /// Seconds to retry a batch while the node is away or busy
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub(super) patience: u64,
}

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Source {
    /// Rows as lines of JSON
    Jsonl,
    /// The graph of an MCP memory server (memory.jsonl): entities, observations, relations
    McpJsonl,
    /// Pairs of `consul kv export`, or of Consul's HTTP API
    Consul,
    /// Pairs of `etcdctl get --prefix "" -w json`
    EtcdJson,
    /// The data files of `WordNet` 3, only read
    Wordnet,
}

/// An export.
#[derive(Debug, Args)]
pub(in crate::cli) struct Export {
    /// The namespace
    #[arg(long, value_name = "NAME")]
    pub(super) ns: String,
    /// The format of the file
    #[arg(long, value_enum, default_value_t = Source::Jsonl)]
    pub(super) format: Source,
}

/// How a file becomes rows, at the end of `import --help`.
pub(in crate::cli) const IMPORT_HELP: &str = "Examples:
  continuum import --ns notes notes.jsonl
  continuum import --ns memory --format mcp-jsonl memory.jsonl
  continuum import --ns config --format consul kv.json --dry-run
  continuum import --ns wordnet --format wordnet /usr/share/wordnet

A row of --format jsonl is one line, as `export` writes it:
  {\"key\":\"rain\",\"fields\":[{\"field\":\"\",\"register\":[\"wet\"]},{\"field\":\"seen\",\"counter\":3}]}
The field \"\" is the key's own value, the only one that a strong namespace has. A register lists its values; the first
is the one that is read. Bytes that are no UTF-8 are {\"base64\":\"...\"}, large numbers may be strings.

All lines are checked before anything is written. Then each row is compared with what the node holds, and the difference
is written: a register takes the file's values, a set the members that it lacks, a counter the file's value. Nothing is
removed, and a repeated import changes nothing.

  mcp-jsonl  an entity is a key; `type` is a register, `observations` and `rel:RELATION` are sets, and the register
             `mcp` keeps the order of observations and further members
  consul     a value is the key's own; a number that is not 0 is the register `flags`, in eventual namespaces
  etcd-json  a value is the key's own; revisions and leases are left out";

/// The end of `export --help`.
pub(in crate::cli) const EXPORT_HELP: &str = "Examples:
  continuum export --ns notes > notes.jsonl
  continuum export --ns notes | sha256sum
  continuum export --ns memory --format mcp-jsonl > memory.jsonl

A strong namespace is exported as it was at one moment. A format other than jsonl leaves out what it has no place for,
and says so on stderr.";
