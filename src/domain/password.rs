//! What a new password must be: long enough, not too long, not a known bad one. No rules of composition
//! and no forced change by time (NIST SP 800-63B-4 section 3.1.1.2).

use std::collections::HashSet;

use super::{InvalidField, text};

/// The passwords that attackers try first; an operator's own list is added to it.
const KNOWN_BAD: &str = include_str!("password_blocklist.txt");

/// The rules for new passwords.
#[derive(Debug)]
pub struct PasswordPolicy {
    min_length: usize,
    max_length: usize,
    blocklist: HashSet<String>,
}

impl PasswordPolicy {
    /// Lengths are in characters. `more_blocked` has one password in a line.
    pub fn new(min_length: usize, max_length: usize, more_blocked: &str) -> Self {
        let blocklist = KNOWN_BAD
            .lines()
            .chain(more_blocked.lines())
            .map(|line| text::one_form(line.trim()).to_lowercase())
            .filter(|line| !line.is_empty())
            .collect();
        Self { min_length, max_length, blocklist }
    }

    /// Checks a new password. `username` and what it contains is a guess that an attacker makes first.
    pub fn check_new(&self, field: &'static str, password: &str, username: &str) -> Result<(), InvalidField> {
        let length = password.chars().count();
        if length < self.min_length {
            return Err(InvalidField::new(field, format!("is shorter than {} characters", self.min_length)));
        }
        self.check_length(field, password)?;
        let folded = password.to_lowercase();
        if self.blocklist.contains(&folded) || folded == username {
            return Err(InvalidField::new(
                field,
                "is one of the passwords that are tried first; choose another",
            ));
        }
        Ok(())
    }

    /// Checks the one limit that also holds for a password to be compared: hashing a megabyte for a stranger
    /// is work for nothing.
    pub fn check_length(&self, field: &'static str, password: &str) -> Result<(), InvalidField> {
        if password.chars().count() > self.max_length {
            return Err(InvalidField::new(field, format!("is longer than {} characters", self.max_length)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_counted_in_characters_and_bad_ones_are_refused() {
        let policy = PasswordPolicy::new(8, 128, "Tr0ub4dor&3\n");
        let check = |password: &str| policy.check_new("password", password, "anna.example");
        assert!(check("éééééééé").is_ok());
        assert!(check("ééééééé").is_err());
        assert!(check(&"x".repeat(128)).is_ok());
        assert!(check(&"x".repeat(129)).is_err());
        assert!(check("password1").is_err(), "known bad");
        assert!(check("PassWord1").is_err(), "known bad in another case");
        assert!(check("tr0ub4dor&3").is_err(), "in the operator's list");
        assert!(check("Anna.Example").is_err(), "the user's own name");
    }
}
