//! Sealing: private keys and server secrets lie in the database under a key-encryption key that doesn't.

use std::{fmt, str::FromStr};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretBox, SecretSlice};

use super::{CryptoError, random::Randomness};

/// The first byte of a sealed value: the layout below.
const LAYOUT: u8 = 1;

/// Key-encryption keys by their ids: the first one seals, each one opens.
///
/// A sealed value is `layout, length of id, id, nonce, AES-256-GCM ciphertext and tag`. Nonces are
/// random, so one key should seal no more than 2^32 values (NIST SP 800-38D section 8.3): at ten logins
/// a second it lasts for thirteen years.
pub struct Sealer(Vec<Kek>);

/// One key-encryption key.
pub struct Kek {
    id: String,
    key: RandomizedNonceKey,
    text: SecretBox<str>,
}

/// The text holds no key-encryption keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadKek {
    /// Not `id:base64`.
    #[error("a key-encryption key is written id:base64, the id 1 to 32 of a-z, 0-9 and '-'")]
    Form,
    /// Not 32 bytes.
    #[error("a key-encryption key is 32 bytes in base64")]
    Length,
    /// Two have the same id.
    #[error("two key-encryption keys have the same id")]
    Repeated,
    /// There is none.
    #[error("there is no key-encryption key")]
    None,
}

/// A sealed value that can't be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotOpen {
    /// Its key-encryption key is not here.
    #[error("sealed under the key-encryption key `{0}`, which this server doesn't hold")]
    UnknownKek(String),
    /// Its key-encryption key has this id here and other bytes, or it was changed, or belongs to something else.
    #[error(
        "the key-encryption key `{0}` does not open it: the key is another one of this id, or the value is damaged"
    )]
    Refused(String),
    /// It is no sealed value.
    #[error("the sealed value is damaged")]
    Damaged,
}

impl Kek {
    /// Makes a new one.
    pub fn generate(rng: &dyn Randomness) -> Result<Self, CryptoError> {
        let id = rng.random_id()?.simple().to_string()[..8].to_owned();
        let text = format!("{id}:{}", STANDARD.encode(rng.bytes::<32>()?));
        text.parse().map_err(|_| CryptoError("making a key-encryption key"))
    }

    /// As it is written in a file or the environment.
    pub fn to_text(&self) -> &SecretBox<str> {
        &self.text
    }
}

impl FromStr for Kek {
    type Err = BadKek;

    fn from_str(text: &str) -> Result<Self, BadKek> {
        let (id, key) = text.trim().split_once(':').ok_or(BadKek::Form)?;
        let is_id_char = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !(1..=32).contains(&id.len()) || !id.bytes().all(is_id_char) {
            return Err(BadKek::Form);
        }
        let bytes = SecretSlice::from(STANDARD.decode(key).map_err(|_| BadKek::Form)?);
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes.expose_secret()).map_err(|_| BadKek::Length)?;
        Ok(Self { id: id.to_owned(), key, text: SecretBox::from(text.trim().to_owned().into_boxed_str()) })
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kek").field("id", &self.id).finish_non_exhaustive()
    }
}

impl FromStr for Sealer {
    type Err = BadKek;

    /// Reads `id:base64,…`.
    fn from_str(text: &str) -> Result<Self, BadKek> {
        let keks: Vec<Kek> = text
            .split([',', '\n'])
            .map(str::trim)
            .filter(|kek| !kek.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        if keks.is_empty() {
            return Err(BadKek::None);
        }
        let is_repeated = |index: usize| keks[..index].iter().any(|kek| kek.id == keks[index].id);
        if (0..keks.len()).any(is_repeated) {
            return Err(BadKek::Repeated);
        }
        Ok(Self(keks))
    }
}

impl Sealer {
    /// Seals a secret. `bound_to` is what it belongs to; it opens for nothing else.
    pub fn seal(&self, bound_to: &str, secret: &SecretSlice<u8>) -> Result<Vec<u8>, CryptoError> {
        let failed = CryptoError("sealing");
        let kek = self.0.first().ok_or(failed)?;
        let mut ciphertext = secret.expose_secret().to_vec();
        let nonce = kek
            .key
            .seal_in_place_append_tag(Aad::from(bound_to.as_bytes()), &mut ciphertext)
            .map_err(|_| failed)?;
        let mut sealed = vec![LAYOUT, u8::try_from(kek.id.len()).map_err(|_| failed)?];
        sealed.extend_from_slice(kek.id.as_bytes());
        sealed.extend_from_slice(nonce.as_ref());
        sealed.append(&mut ciphertext);
        Ok(sealed)
    }

    /// Whether a value is sealed under the key that seals.
    pub fn seals_like(&self, sealed: &[u8]) -> bool {
        self.0.first().is_some_and(|kek| kek_id(sealed) == Some(&*kek.id))
    }

    /// Opens what was sealed for `bound_to`.
    pub fn open(&self, bound_to: &str, sealed: &[u8]) -> Result<SecretSlice<u8>, CannotOpen> {
        let (id, sealed) = split_id(sealed).ok_or(CannotOpen::Damaged)?;
        let (nonce, ciphertext) = sealed.split_at_checked(NONCE_LEN).ok_or(CannotOpen::Damaged)?;
        let kek =
            self.0.iter().find(|kek| kek.id == id).ok_or_else(|| CannotOpen::UnknownKek(id.to_owned()))?;

        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| CannotOpen::Damaged)?;
        let mut bytes = ciphertext.to_vec();
        let length = kek
            .key
            .open_in_place(nonce, Aad::from(bound_to.as_bytes()), &mut bytes)
            .map_err(|_| CannotOpen::Refused(id.to_owned()))?
            .len();
        bytes.truncate(length);
        Ok(bytes.into())
    }
}

/// The id of the key-encryption key that a value is sealed under.
pub fn kek_id(sealed: &[u8]) -> Option<&str> {
    split_id(sealed).map(|(id, _)| id)
}

fn split_id(sealed: &[u8]) -> Option<(&str, &[u8])> {
    let [LAYOUT, length, rest @ ..] = sealed else {
        return None;
    };
    let (id, rest) = rest.split_at_checked((*length).into())?;
    Some((str::from_utf8(id).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::{super::random::SystemRandomness, *};

    fn text(kek: &Kek) -> String {
        kek.to_text().expose_secret().to_owned()
    }

    #[test]
    fn a_value_opens_only_under_its_key_and_for_what_it_was_sealed_for()
    -> Result<(), Box<dyn std::error::Error>> {
        let (old, new) = (Kek::generate(&SystemRandomness)?, Kek::generate(&SystemRandomness)?);
        let secret = SecretSlice::from(b"private".to_vec());
        let sealer: Sealer = text(&old).parse()?;
        let sealed = sealer.seal("key:a", &secret)?;
        assert!(!sealed.windows(7).any(|window| window == b"private"));

        let rotated: Sealer = format!("{},{}", text(&new), text(&old)).parse()?;
        assert_eq!(rotated.open("key:a", &sealed)?.expose_secret(), b"private");
        assert_eq!(kek_id(&sealed), Some(old.id.as_str()));
        assert_eq!(rotated.open("key:b", &sealed).err(), Some(CannotOpen::Refused(old.id.clone())));
        let other: Sealer = format!("{}:{}", old.id, STANDARD.encode([0; 32])).parse()?;
        assert_eq!(other.open("key:a", &sealed).err(), Some(CannotOpen::Refused(old.id.clone())));
        let without: Sealer = text(&new).parse()?;
        assert_eq!(without.open("key:a", &sealed).err(), Some(CannotOpen::UnknownKek(old.id.clone())));

        for index in 0..sealed.len() {
            let mut broken = sealed.clone();
            broken[index] ^= 1;
            assert!(sealer.open("key:a", &broken).is_err(), "bit flipped at {index}");
            assert!(sealer.open("key:a", &sealed[..index]).is_err(), "cut at {index}");
        }
        Ok(())
    }

    #[test]
    fn what_is_no_key_is_refused_by_name() {
        let parse = |text: &str| text.parse::<Sealer>().err();
        assert_eq!(parse(""), Some(BadKek::None));
        assert_eq!(parse("a"), Some(BadKek::Form));
        assert_eq!(parse("a:AAAA"), Some(BadKek::Length));
        let key = STANDARD.encode([0; 32]);
        assert_eq!(parse(&format!("A:{key}")), Some(BadKek::Form));
        assert_eq!(parse(&format!("a:{key},a:{key}")), Some(BadKek::Repeated));
    }
}
