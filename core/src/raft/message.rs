//! What replicas of a group say to each other.

use serde::{Deserialize, Serialize};

/// A message between two replicas of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {}
