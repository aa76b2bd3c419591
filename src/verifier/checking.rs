//! One check of a token, step by step.

use chrono::{DateTime, Utc};

use super::{
    Expected, Refusal, SharedKey, Shown, Verifier,
    checked::Checked,
    claims::{check_claims, claims, claims_of_shared},
    header::Parts,
};
use crate::domain::claims::{ACCESS_TOKEN_TYPE, Claims};

impl Verifier {
    /// Checks signature, claims and revocation, in this order. A token that is bound to a key or a certificate is refused:
    /// for these there is [`Self::check_shown`].
    pub fn check(&self, token: &str, expected: &Expected, now: DateTime<Utc>) -> Result<Claims, Refusal> {
        self.check_shown(token, &Shown::default(), expected, now)
    }

    /// The same for a caller who has shown this beside its token.
    pub fn check_shown(
        &self,
        token: &str,
        shown: &Shown,
        expected: &Expected,
        now: DateTime<Utc>,
    ) -> Result<Claims, Refusal> {
        let claims = self.check_unbound(token, expected, now)?;
        shown.require(&claims)?;
        Ok(claims)
    }

    /// The same whoever holds it.
    pub(super) fn check_unbound(
        &self,
        token: &str,
        expected: &Expected,
        now: DateTime<Utc>,
    ) -> Result<Claims, Refusal> {
        self.check_with(token, self.shared.secrets_of(expected.audience.as_deref()), expected, now)
    }

    /// The same whoever holds it, with the secrets of the expected audience, for who keeps those of several.
    pub(crate) fn check_with(
        &self,
        token: &str,
        secrets: &[SharedKey],
        expected: &Expected,
        now: DateTime<Utc>,
    ) -> Result<Claims, Refusal> {
        let digest = self.checked.digest(token);
        if let Some((digest, known)) = digest.and_then(|digest| Some((digest, self.checked.get(&digest)?))) {
            if self.is_vouched_for(&known, expected, now) {
                self.check_standing(&known.claims, expected, now)?;
                return Ok(known.claims.clone());
            }
            self.checked.forget(&digest);
        }
        let token = &*self.signed(token)?;
        let parts = Parts::split(token)?;
        parts.require_type(ACCESS_TOKEN_TYPE)?;
        let kid = parts.kid()?;
        if let Some(secret) = secrets.iter().find(|secret| secret.kid() == kid) {
            let claims = claims_of_shared(&parts, secret, expected)?;
            self.check_standing(&claims, expected, now)?;
            return Ok(claims);
        }
        let checked = self.claims_of_genuine(&parts, expected, now)?;
        self.check_standing(&checked.claims, expected, now)?;
        let Some(digest) = digest else { return Ok(checked.claims) };
        let claims = checked.claims.clone();
        self.checked.remember(digest, checked);
        Ok(claims)
    }

    /// Whether what a remembered token rests on is still there. Where it isn't, only the whole check knows why.
    fn is_vouched_for(&self, known: &Checked, expected: &Expected, now: DateTime<Utc>) -> bool {
        self.issuer_key(&known.vouched_by).is_some()
            && known.vouched_until > (now - expected.leeway).timestamp()
    }

    fn check_standing(
        &self,
        claims: &Claims,
        expected: &Expected,
        now: DateTime<Utc>,
    ) -> Result<(), Refusal> {
        check_claims(claims, expected, now)?;
        if self.trust.is_revoked(claims) { Err(Refusal::Revoked) } else { Ok(()) }
    }

    /// The claims and who vouches for them, once the signature is known to be the issuer's or a key's that the
    /// issuer endorsed.
    fn claims_of_genuine(
        &self,
        parts: &Parts<'_>,
        expected: &Expected,
        now: DateTime<Utc>,
    ) -> Result<Checked, Refusal> {
        if let Some(key) = self.issuer_key(parts.kid()?) {
            parts.require_signature(&key)?;
            return Ok(Checked::by_issuer(claims(parts)?, key.kid()));
        }
        let endorsed = self.endorsed_key(parts, expected, now)?;
        parts.require_signature(&endorsed.key)?;
        let claims: Claims = claims(parts)?;
        let is_own_session = claims.sub == endorsed.user_id
            && claims.user.as_ref().is_some_and(|user| user.sid == endorsed.session_id);
        if !is_own_session {
            return Err(Refusal::Invalid("the endorsement is of another session"));
        }
        Ok(Checked::by_session(claims, &endorsed))
    }

    /// What a genuine token says, whether or not it is still good.
    #[cfg(feature = "server")]
    pub(crate) fn genuine(
        &self,
        token: &str,
        secrets: &[SharedKey],
        expected: &Expected,
        now: DateTime<Utc>,
    ) -> Result<Claims, Refusal> {
        let token = &*self.signed(token)?;
        let parts = Parts::split(token)?;
        parts.require_type(ACCESS_TOKEN_TYPE)?;
        let kid = parts.kid()?;
        match secrets.iter().find(|secret| secret.kid() == kid) {
            Some(secret) => claims_of_shared(&parts, secret, expected),
            None => Ok(self.claims_of_genuine(&parts, expected, now)?.claims),
        }
    }

    /// What makes a token worth asking the issuer about: a form, type, issuer, audience and time that would be good
    /// if only its key were known. Gives the id of that key. Nothing is believed yet.
    pub(crate) fn plausible(
        &self,
        token: &str,
        expected: &Expected,
        now: DateTime<Utc>,
    ) -> Result<String, Refusal> {
        let token = &*self.signed(token)?;
        let parts = Parts::split(token)?;
        parts.require_type(ACCESS_TOKEN_TYPE)?;
        let claims: Claims = claims(&parts)?;
        check_claims(&claims, expected, now)?;
        if self.trust.is_revoked(&claims) {
            return Err(Refusal::Revoked);
        }
        Ok(parts.kid()?.to_owned())
    }
}
