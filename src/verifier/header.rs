//! A compact JWS (RFC 7515 section 7.1) taken apart, with only the header parameters that are obeyed.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, de::IgnoredAny};

use super::Refusal;
use crate::domain::algorithm::Algorithm;

/// The longest token that is looked at, in bytes.
pub(super) const MAX_TOKEN_LEN: usize = 16 * 1024;

/// A key that checks signatures of its one algorithm.
pub(super) trait Checks {
    fn algorithm(&self) -> &'static str;
    fn verifies(&self, message: &[u8], signature: &str) -> bool;
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    kid: Option<String>,
    /// The endorsement of the key that signed.
    #[serde(default)]
    skc: Option<String>,
    // Parameters by which a token would choose its own key or demand what we don't know: such a token
    // is refused whole, rather than read without them (RFC 7515 section 4.1.11, RFC 8725 section 3.10).
    #[serde(default)]
    crit: Option<IgnoredAny>,
    #[serde(default)]
    jwk: Option<IgnoredAny>,
    #[serde(default)]
    jku: Option<IgnoredAny>,
    #[serde(default)]
    x5u: Option<IgnoredAny>,
    #[serde(default)]
    x5c: Option<IgnoredAny>,
}

/// The pieces of a compact JWS as they come; nothing in them is believed yet.
pub(super) struct Pieces<'t> {
    /// The JSON of the header.
    pub header: Vec<u8>,
    /// What is signed.
    pub signed: &'t str,
    /// The claims, in base64url.
    pub payload: &'t str,
    /// The signature, in base64url.
    pub signature: &'t str,
}

impl<'t> Pieces<'t> {
    /// Splits what is no longer than this, in bytes.
    pub(super) fn of(token: &'t str, longest: usize) -> Result<Self, Refusal> {
        if token.len() > longest {
            return Err(Refusal::Malformed);
        }
        let mut pieces = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (pieces.next(), pieces.next(), pieces.next(), pieces.next())
        else {
            return Err(Refusal::Malformed);
        };
        let signed = &token[..header.len() + 1 + payload.len()];
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| Refusal::Malformed)?;
        if payload.is_empty() {
            Err(Refusal::Malformed)
        } else {
            Ok(Self { header, signed, payload, signature })
        }
    }
}

/// RFC 8725 section 3.11: one kind of token is never taken for another.
pub(super) fn is_type(have: Option<&str>, typ: &str) -> bool {
    let have = have.unwrap_or_default();
    have.strip_prefix("application/").unwrap_or(have).eq_ignore_ascii_case(typ)
}

/// A token taken apart; nothing in it is believed yet.
pub(super) struct Parts<'t> {
    header: Header,
    signed: &'t str,
    payload: &'t str,
    signature: &'t str,
}

impl<'t> Parts<'t> {
    /// Splits the token and reads its header.
    pub(super) fn split(token: &'t str) -> Result<Self, Refusal> {
        let Pieces { header, signed, payload, signature } = Pieces::of(token, MAX_TOKEN_LEN)?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| Refusal::Malformed)?;
        let parts = Self { header, signed, payload, signature };
        parts.refuse_dangerous()?;
        Ok(parts)
    }

    fn refuse_dangerous(&self) -> Result<(), Refusal> {
        let header = &self.header;
        let dangerous = [&header.crit, &header.jwk, &header.jku, &header.x5u, &header.x5c];
        if dangerous.iter().any(|parameter| parameter.is_some()) {
            return Err(Refusal::Invalid("a header parameter that is not accepted"));
        }
        Ok(())
    }

    /// Refuses every other kind of token.
    pub(super) fn require_type(&self, typ: &str) -> Result<(), Refusal> {
        let is_it = is_type(self.header.typ.as_deref(), typ);
        if is_it { Ok(()) } else { Err(Refusal::Invalid("another type of token")) }
    }

    /// Whether it says of what type it is.
    pub(super) fn has_type(&self) -> bool {
        self.header.typ.is_some()
    }

    pub(super) fn kid(&self) -> Result<&str, Refusal> {
        self.maybe_kid().ok_or(Refusal::Invalid("no key id"))
    }

    pub(super) fn maybe_kid(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// The algorithm that it says to be signed with, where that is one of ours.
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        self.header.alg.parse().ok()
    }

    pub(super) fn endorsement(&self) -> Option<&str> {
        self.header.skc.as_deref()
    }

    pub(super) fn payload(&self) -> &str {
        self.payload
    }

    /// The key says which algorithm it is for; the header may only agree (RFC 8725 section 3.1).
    pub(super) fn require_signature(&self, key: &impl Checks) -> Result<(), Refusal> {
        if self.header.alg != key.algorithm() {
            return Err(Refusal::Invalid("another algorithm than the key's"));
        }
        if key.verifies(self.signed.as_bytes(), self.signature) {
            Ok(())
        } else {
            Err(Refusal::Invalid("bad signature"))
        }
    }
}
