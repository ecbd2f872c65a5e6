//! What replicas of shards say to each other.

use serde::{Deserialize, Serialize};

/// A message between two replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {}
