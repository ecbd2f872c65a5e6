//! The formats of the log, read a second time: records of a shard, its snapshot files, commands.
//!
//! The core writes these bytes and reads them back. An oracle that asked the core what they say would share each
//! mistake of the core's decoders, and a record that lost a part of a write would be right by definition. So this
//! folder decodes them by hand, field by field, from the text of the format: no `serde`, and none of the core's code
//! but the plain types of `id` and `api`. `dots` holds sets of dots with code of its own, for the same reason.
//!
//! Each reader is total and strict: bytes that end early, or are left over, or spell a number in more bytes than it
//! needs, say nothing. This folder applies nothing and states no law.

pub(crate) mod command;
pub(crate) mod dots;
mod reader;
pub(crate) mod shard;
pub(crate) mod write;
