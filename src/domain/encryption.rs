//! The keys that tokens are encrypted to: which are accepted, and for which one algorithm each.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jose_rs::jwk::{Jwk, jwk_to_software_key, thumbprint::thumbprint_sha256};

/// The one content encryption (RFC 7518 section 5.3).
pub const CONTENT_ENCRYPTION: &str = "A256GCM";
/// The `cty` of a token that lies encrypted in another (RFC 7519 section 5.2).
pub const NESTED_TOKEN: &str = "JWT";

/// The sizes of RSA keys that are accepted, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// The longest key id, in bytes: it stands in the header of every token.
const MAX_KID_LEN: usize = 256;

/// How the content's key reaches the recipient (RFC 7518 section 4). It follows from the type of the
/// recipient's key; nothing else chooses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyManagement {
    /// For an EC key on P-256.
    EcdhEsA256Kw,
    /// For an RSA key.
    RsaOaep256,
}

impl KeyManagement {
    /// The registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EcdhEsA256Kw => "ECDH-ES+A256KW",
            Self::RsaOaep256 => "RSA-OAEP-256",
        }
    }
}

impl fmt::Display for KeyManagement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key that no token can be encrypted to, or decrypted with. The text repeats nothing of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadEncryptionKey {
    /// No JSON, or not the JSON of one key.
    #[error("not a JWK")]
    NotJwk,
    /// No PEM, or the PEM of something else.
    #[error("not a private key in PEM (PKCS#8)")]
    NotPem,
    /// A private key where the public half belongs.
    #[error("this is a private key: give the public half alone, and take care of who saw this one")]
    Private,
    /// A public key where the private half belongs.
    #[error("this is the public half of a key, which decrypts nothing")]
    Public,
    /// Another type or curve.
    #[error("neither an EC key on P-256 nor an RSA key")]
    Type,
    /// An RSA key that is too weak, or too slow for every token.
    #[error("an RSA key of {0} bits: 2048 to 4096 are accepted")]
    Size(usize),
    /// Its `use` or `key_ops` say that it signs.
    #[error("the key is for signatures, not for encryption")]
    Use,
    /// Its `alg` is not what Tessera uses it for.
    #[error("the key is for another algorithm than {0}")]
    Algorithm(KeyManagement),
    /// Its `kid` can't stand in a header.
    #[error("the key id is empty or longer than {MAX_KID_LEN} bytes")]
    KeyId,
    /// Its parameters make no key.
    #[error("the parameters make no key")]
    Unusable,
}

/// Whether it holds anything that only its owner may know.
pub(crate) fn is_private(jwk: &Jwk) -> bool {
    let secrets = [&jwk.d, &jwk.p, &jwk.q, &jwk.dp, &jwk.dq, &jwk.qi, &jwk.k, &jwk.priv_];
    secrets.iter().any(|secret| secret.is_some()) || jwk.extra.contains_key("oth")
}

/// Checks a key, public or private, and leaves of it what is needed: its parameters, `kid`, `use` and `alg`.
///
/// The key keeps its own `kid`, by which its owner finds it in a set; without one it gets its RFC 7638
/// thumbprint.
pub(crate) fn accept(mut jwk: Jwk) -> Result<(KeyManagement, Jwk), BadEncryptionKey> {
    let management = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("EC", Some("P-256")) => KeyManagement::EcdhEsA256Kw,
        ("RSA", _) => KeyManagement::RsaOaep256,
        _ => return Err(BadEncryptionKey::Type),
    };
    let signs = |op: &String| op == "sign" || op == "verify";
    if jwk.use_.as_deref().is_some_and(|used| used != "enc")
        || jwk.key_ops.as_ref().is_some_and(|ops| ops.iter().any(signs))
    {
        return Err(BadEncryptionKey::Use);
    }
    if jwk.alg.as_deref().is_some_and(|alg| alg != management.as_str()) {
        return Err(BadEncryptionKey::Algorithm(management));
    }
    if management == KeyManagement::RsaOaep256 {
        let bits = modulus_bits(&jwk).ok_or(BadEncryptionKey::Unusable)?;
        if !RSA_BITS.contains(&bits) {
            return Err(BadEncryptionKey::Size(bits));
        }
    }
    jwk.use_ = Some("enc".to_owned());
    jwk.key_ops = None;
    jwk.alg = Some(management.to_string());
    jwk.extra.clear();
    // A point off the curve, an even modulus, a private half of another key.
    jwk_to_software_key(&jwk).map_err(|_| BadEncryptionKey::Unusable)?;
    if jwk.kid.is_none() {
        jwk.kid = Some(thumbprint_sha256(&jwk).map_err(|_| BadEncryptionKey::Unusable)?);
    }
    if !jwk.kid.as_ref().is_some_and(|kid| (1..=MAX_KID_LEN).contains(&kid.len())) {
        return Err(BadEncryptionKey::KeyId);
    }
    Ok((management, jwk))
}

fn modulus_bits(jwk: &Jwk) -> Option<usize> {
    let bytes = URL_SAFE_NO_PAD.decode(jwk.n.as_ref()?).ok()?;
    let start = bytes.iter().position(|byte| *byte != 0)?;
    let significant = &bytes[start..];
    Some(significant.len() * 8 - significant.first()?.leading_zeros() as usize)
}
