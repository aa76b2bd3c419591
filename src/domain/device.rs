//! The device that a person signs in from.

use super::{InvalidField, text};

/// A device as the client told it, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// A short lower-case word.
    pub kind: String,
    /// What the client calls this one device; may be empty.
    pub id: String,
    /// A name that a person recognises; may be empty.
    pub name: String,
}

impl Device {
    /// The type of a client that tells none.
    pub const DEFAULT_KIND: &'static str = "web";

    /// Checks what a client told; what it left out stays empty.
    pub fn parse(kind: &str, id: &str, name: &str) -> Result<Self, InvalidField> {
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if kind.len() > 32 || !kind.bytes().all(is_word) {
            return Err(InvalidField::new(
                "device.type",
                "is not 1 to 32 of lower-case letters, digits and '-'",
            ));
        }
        Ok(Self {
            kind: kind.to_owned(),
            id: text::shown("device.id", id, 128)?,
            name: text::shown("device.name", name, 128)?,
        })
    }

    /// The device of a new session, which has a type.
    pub fn with_kind(mut self) -> Self {
        if self.kind.is_empty() {
            Self::DEFAULT_KIND.clone_into(&mut self.kind);
        }
        self
    }

    /// Whether a request that names `other` may come from this device. What either side leaves out
    /// can't contradict.
    pub fn may_be(&self, other: &Self) -> bool {
        let agree = |a: &str, b: &str| a.is_empty() || b.is_empty() || a == b;
        agree(&self.kind, &other.kind) && agree(&self.id, &other.id)
    }
}
