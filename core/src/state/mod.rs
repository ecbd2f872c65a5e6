//! What Raft applies: the registry of group 0, the keys of strong namespaces, client sessions.
