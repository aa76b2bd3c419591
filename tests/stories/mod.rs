//! What users do and what they get, a file for each part of the contract.

mod accounts;
