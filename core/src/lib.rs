//! The pure half of Continuum: every protocol as a state machine that consumes events and emits actions.
//!
//! A driver owns one [`node::Node`], feeds it [`node::Event`]s and performs its [`node::Action`]s. The seeded simulator
//! and the tokio runtime are two such drivers of the same code. Each machine also works on its own, with a driver of
//! your own and the durability gate of [`hold`].
//!
//! # Code map
//!
//! | module | what it answers |
//! |---|---|
//! | [`machine`] | the one contract: `Machine`, `Outbox`, `Now` |
//! | [`time`], [`id`], [`seed`], [`fixed`], [`codec`], [`digest`] | time, identity, randomness, numbers, bytes |
//! | [`limits`], [`config`] | every bound, every knob |
//! | [`mark`] | what a simulated run reached, and the bugs that prove its oracles |
//! | [`counted`] | owners of memory, and the bytes of all of them together |
//! | [`hold`], [`files`] | which action waits for which write; snapshot files on their way to the disk |
//! | [`api`] | what clients ask and what they are told |
//! | [`raft`] | what must be agreed |
//! | [`replication`] | what must always be writable |
//! | [`gossip`], [`discovery`], [`coordinator`] | which nodes there are, at which addresses, and how healthy |
//! | [`state`] | what Raft applies: registry, keys, sessions |
//! | [`wal`] | the bytes of the log, and its writes recovered from them |
//! | [`node`] | the composition of all machines |
//!
//! # What is deliberately absent
//!
//! No IO, no clock, no thread, no `async`, no floating point, no `unsafe`, no iteration in random order, no ambient
//! randomness. Time enters as [`machine::Now`], randomness as [`seed::Seed`], bytes as events.

#![no_std]

extern crate alloc;

pub mod api;
pub mod codec;
pub mod config;
pub mod coordinator;
pub mod counted;
pub mod digest;
pub mod discovery;
pub mod files;
pub mod fixed;
pub mod gossip;
pub mod hold;
pub mod id;
pub mod limits;
pub mod machine;
pub mod mark;
pub mod node;
pub mod raft;
pub mod replication;
pub mod seed;
pub mod state;
pub mod time;
pub mod wal;
