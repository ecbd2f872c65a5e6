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

/// The format of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Source {
    /// Lines as `export` writes them
    Jsonl,
    /// The data files of `WordNet` 3
    Wordnet,
}

/// An export.
#[derive(Debug, Args)]
pub(in crate::cli) struct Export {
    /// The namespace
    #[arg(long, value_name = "NAME")]
    pub(super) ns: String,
}
