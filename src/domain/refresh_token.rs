//! The shape of a refresh token: `trt_` and the base64url of version, session id, generation and tag.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

/// What a leaked token is recognised by.
pub const PREFIX: &str = "trt_";
const VERSION: u8 = 1;
/// Bytes of a tag: a full HMAC-SHA-256.
pub const TAG_LEN: usize = 32;
const BODY_LEN: usize = 1 + 16 + 8 + TAG_LEN;

/// A refresh token taken apart. Nothing is known of its truth before the tag is checked.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken {
    /// The session that it says to belong to.
    pub session_id: Uuid,
    /// Its position in the session's chain.
    pub generation: i64,
    /// The proof that Tessera made it.
    pub tag: [u8; TAG_LEN],
}

/// The text is no refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a refresh token")]
pub struct Malformed;

impl RefreshToken {
    /// What the tag is computed over.
    pub fn tagged_bytes(session_id: Uuid, generation: i64) -> [u8; BODY_LEN - TAG_LEN] {
        let mut bytes = [0; BODY_LEN - TAG_LEN];
        bytes[0] = VERSION;
        bytes[1..17].copy_from_slice(session_id.as_bytes());
        bytes[17..].copy_from_slice(&generation.to_be_bytes());
        bytes
    }

    /// Takes a token apart.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let body = text.strip_prefix(PREFIX).ok_or(Malformed)?;
        // Checked before decoding: nobody makes us decode a megabyte.
        if body.len() > BODY_LEN * 2 {
            return Err(Malformed);
        }
        let body: [u8; BODY_LEN] =
            URL_SAFE_NO_PAD.decode(body).map_err(|_| Malformed)?.try_into().map_err(|_| Malformed)?;
        let (head, tag) = body.split_at(BODY_LEN - TAG_LEN);
        let (version, head) = head.split_at(1);
        let (session_id, generation) = head.split_at(16);
        let generation = i64::from_be_bytes(generation.try_into().map_err(|_| Malformed)?);
        if version != [VERSION] || generation < 0 {
            return Err(Malformed);
        }
        Ok(Self {
            session_id: Uuid::from_slice(session_id).map_err(|_| Malformed)?,
            generation,
            tag: tag.try_into().map_err(|_| Malformed)?,
        })
    }

    /// The token as it is handed out.
    pub fn to_text(&self) -> String {
        let mut body = Vec::with_capacity(BODY_LEN);
        body.extend_from_slice(&Self::tagged_bytes(self.session_id, self.generation));
        body.extend_from_slice(&self.tag);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_round_trip_and_nothing_else_parses() {
        let token = RefreshToken { session_id: Uuid::from_u128(7), generation: 3, tag: [9; TAG_LEN] };
        let text = token.to_text();
        assert!(RefreshToken::parse(&text).is_ok_and(|parsed| parsed == token));
        let bad = [
            "".to_owned(),
            "trt_".to_owned(),
            text[4..].to_owned(),
            format!("{text}A"),
            text[..text.len() - 2].to_owned(),
            format!("trt_{}", "A".repeat(1 << 20)),
            RefreshToken { generation: -1, ..token }.to_text(),
        ];
        for text in bad {
            assert!(RefreshToken::parse(&text).is_err(), "{text:.40}");
        }
    }
}
