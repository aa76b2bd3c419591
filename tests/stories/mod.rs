//! What users do and what they get, a file for each part of the contract.

mod accounts;
mod audiences;
mod bad_input;
mod crash;
mod foreign;
mod many_sessions;
mod outside;
mod process;
mod refresh;
mod rotation;
mod rotation_under_load;
mod sealing;
mod sessions;
mod settings;
mod storage;
mod tls;
mod tokens;
mod trust;
mod trusted_issuers;
mod trusted_issuers_keys;
mod users;
mod verifiers;
