//! What members say to each other.

use serde::{Deserialize, Serialize};

/// A message between two members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {}
