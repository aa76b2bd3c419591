//! The keys of audiences whose tokens are signed or encrypted in a way of their own, opened.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretSlice};

use super::Error;
use crate::{
    crypto::{encryption::EncryptionKey, mac::MacKey, sealing::Sealer},
    domain::audience::{self, Secret, Signing},
    models::{audience_secrets::SealedSecret, audiences::Found},
    verifier::SharedKey,
};

/// What tokens for one audience are made with.
pub(super) struct AudienceKeys {
    name: String,
    /// How they are signed, or why that is not known here: then there are none.
    signing: Result<Signing, String>,
    encryption_jwk: Option<String>,
    /// Their times, in the order of what was opened.
    secrets: Vec<Secret>,
    opened: Vec<Opened<SecretKey>>,
    encryption: Option<Opened<EncryptionKey>>,
}

/// A key, or why it can't be used.
type Opened<K> = Result<Arc<K>, String>;

/// A secret, ready to sign and to check.
struct SecretKey {
    signs: MacKey,
    checks: SharedKey,
}

impl AudienceKeys {
    /// Opens what is stored. What `before` has opened is not opened again.
    pub(super) fn open(
        found: Found,
        stored: Vec<SealedSecret>,
        sealer: &Sealer,
        before: Option<&Self>,
    ) -> Self {
        let Found { name, audience, .. } = found;
        let (signing, encryption_jwk) = match audience {
            Ok(audience) => (Ok(audience.signing), audience.encryption_jwk),
            Err(error) => {
                tracing::error!(audience = name, %error, "can't use an audience; it gets no tokens");
                (Err(error.to_string()), None)
            }
        };
        let opened = stored.iter().map(|stored| {
            let known = before.and_then(|before| before.opened(&stored.secret.kid));
            known.map_or_else(|| open_secret(stored, sealer).map(Arc::new), Ok)
        });
        let opened: Vec<_> = opened.collect();
        let encryption = encryption_jwk.as_ref().map(|jwk| {
            let known = before.filter(|before| before.encryption_jwk.as_ref() == Some(jwk));
            match known.and_then(|before| before.encryption.clone()) {
                Some(Ok(key)) => Ok(key),
                _ => EncryptionKey::from_jwk(jwk).map(Arc::new).map_err(|error| error.to_string()),
            }
        });
        for error in opened.iter().filter_map(|key| key.as_ref().err()) {
            tracing::error!(audience = name, %error, "an audience's secret can't be used");
        }
        if let Some(Err(error)) = &encryption {
            tracing::error!(audience = name, %error, "an audience's encryption key can't be used");
        }
        let secrets = stored.into_iter().map(|stored| stored.secret).collect();
        Self { name, signing, encryption_jwk, secrets, opened, encryption }
    }

    fn opened(&self, kid: &str) -> Option<Arc<SecretKey>> {
        let (_, opened) = self.each().find(|(secret, _)| secret.kid == kid)?;
        opened.as_ref().ok().cloned()
    }

    fn each(&self) -> impl Iterator<Item = (&Secret, &Opened<SecretKey>)> {
        self.secrets.iter().zip(&self.opened)
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The secret that signs its tokens; `None` where they are signed as all others are.
    pub(super) fn signer(&self, now: DateTime<Utc>) -> Result<Option<&MacKey>, Error> {
        match &self.signing {
            Err(why) => return Err(self.cannot(why)),
            Ok(Signing::PublicKey) => return Ok(None),
            Ok(Signing::Hs256) => {}
        }
        let secret = audience::signing(&self.secrets, now);
        let (_, opened) = secret
            .and_then(|signs| self.each().find(|(secret, _)| *secret == signs))
            .ok_or_else(|| Error::CannotSign(format!("the audience {} has no secret", self.name())))?;
        opened.as_ref().map(|key| Some(&key.signs)).map_err(|why| self.cannot(why))
    }

    /// The key that its tokens are encrypted to, if any.
    pub(super) fn encryption(&self) -> Result<Option<&EncryptionKey>, Error> {
        let key = self.encryption.as_ref().map(|key| key.as_deref()).transpose();
        key.map_err(|why| self.cannot(why))
    }

    fn cannot(&self, why: &String) -> Error {
        Error::CannotSign(format!("for the audience {}: {why}", self.name()))
    }

    /// Whether tokens for it can be made.
    pub(super) fn check(&self, now: DateTime<Utc>) -> Result<(), Error> {
        self.signer(now)?;
        self.encryption()?;
        Ok(())
    }

    /// Whether it, or some key of it, can't be used.
    pub(super) fn is_damaged(&self) -> bool {
        self.signing.is_err()
            || self.opened.iter().any(Result::is_err)
            || self.encryption.as_ref().is_some_and(Result::is_err)
            || (self.signing == Ok(Signing::Hs256) && self.opened.is_empty())
    }

    /// Its secrets whose signatures are accepted; none where it is not known what they are for.
    pub(super) fn accepted(&self, longest_life: TimeDelta, now: DateTime<Utc>) -> Vec<SharedKey> {
        let is_alive = |secret: &Secret| audience::is_alive(secret, &self.secrets, longest_life, now);
        self.each()
            .filter(|(secret, _)| self.signing == Ok(Signing::Hs256) && is_alive(secret))
            .filter_map(|(_, opened)| Some(opened.as_ref().ok()?.checks.clone()))
            .collect()
    }
}

fn open_secret(stored: &SealedSecret, sealer: &Sealer) -> Result<SecretKey, String> {
    let kid = &stored.secret.kid;
    let bytes = sealer.open(&bound_to(kid), &stored.sealed).map_err(|error| error.to_string())?;
    let checks = SharedKey::new(kid, bytes.expose_secret()).map_err(|error| error.to_string())?;
    Ok(SecretKey { signs: MacKey::new(kid, &bytes), checks })
}

/// A secret as it is stored.
pub(super) fn seal(secret: &Secret, bytes: &SecretSlice<u8>, sealer: &Sealer) -> Result<Vec<u8>, Error> {
    Ok(sealer.seal(&bound_to(&secret.kid), bytes)?)
}

/// What a sealed secret opens for.
fn bound_to(kid: &str) -> String {
    format!("audience:{kid}")
}
