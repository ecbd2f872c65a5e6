//! Rows in files: `import` and `export`.
//!
//! A source turns a file into rows, a plan compares rows with what a namespace holds, and the import sends the
//! difference. Nothing here depends on how a node stores a row.

pub(super) mod args;
pub(super) mod export;
mod held;
pub(super) mod import;
mod jsonl;
mod lines;
mod mcp;
mod pairs;
mod plan;
mod source;
#[cfg(test)]
mod tests;
mod whole;
mod wordnet;
