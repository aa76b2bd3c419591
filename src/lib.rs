//! Tessera signs people and services in, issues JSON Web Tokens, and lets every other service check
//! them by itself.
//!
//! | room | owns |
//! | --- | --- |
//! | [`proto`] | the generated contract |
//! | [`domain`] | what users, sessions, keys and claims are: values and transitions, no I/O |
//! | [`verifier`] | what other services import: token check, trust state and its feed, guard, token source, service identity |
//! | [`clock`] | the one place that reads the wall clock |
//! | [`crypto`] | secret bytes: randomness, hashing, keys, signing, sealing |
//! | [`fetch`] | small documents over HTTP: the keys of other issuers |
//! | [`models`] | diesel-async: pools, column types, schema, a file per table |
//! | [`app`] | the verbs, one per file; the only place where transactions open |
//! | [`rpc`] | gRPC in, gRPC out, a file per service; who may call what; errors as statuses |
//! | [`http`] | the same for HTTP: well-known documents and metrics |
//! | [`config`] | one typed [`config::Config`] from defaults, file, environment and flags |
//! | [`server`] | builds, serves, drains |
//! | [`cli`] | a file per command |
//!
//! Who may use whom: `main → cli → server → rpc, http → app → domain, models, crypto, verifier, fetch`.
//! With `default-features = false, features = ["verifier"]` only `proto`, `domain`, `clock` and
//! `verifier` are compiled, and no database with them.

#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[cfg(feature = "verifier")]
pub mod clock;
pub mod domain;
pub mod proto;
#[cfg(feature = "verifier")]
pub mod verifier;

#[cfg(feature = "server")]
pub mod app;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod crypto;
#[cfg(feature = "server")]
pub mod fetch;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod models;
#[cfg(feature = "server")]
pub mod rpc;
#[cfg(feature = "server")]
pub mod server;

/// The README's Rust compiles.
#[cfg(all(doctest, feature = "server"))]
#[doc = include_str!("../README.md")]
struct Readme;
