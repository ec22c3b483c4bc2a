//! bcai presents remote, versioned, content-addressed datasets as ordinary files.
//!
//! The layers, what each module owns and what it may import are drawn in
//! `docs/ARCHITECTURE.md`; `tests/architecture.rs` holds the source to that page.

pub mod api;
pub mod chain;
pub mod chunking;
pub mod cli;
pub mod codec;
pub mod config;
pub mod crypto;
pub mod fetch;
pub mod id;
pub mod ingest;
pub mod log;
pub mod manifest;
pub mod net;
pub mod node;
pub mod origin;
pub mod pack;
pub mod replicate;
pub mod store;
pub mod supervisor;
pub mod swarm;
pub mod validator;
pub mod view;
