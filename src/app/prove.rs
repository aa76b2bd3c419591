//! Whether a service is who it says to be.

use std::{fmt, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::{
    App, Error,
    foreign_keys::ForeignKeys,
    service_cache::{Opened, Service},
};
use crate::{
    crypto::{client_secret::ClientSecret, digest::digest_of},
    domain::{
        certificate::{Certificate, Named},
        claims::MAX_LEEWAY_SECONDS,
        service_account::{Federated, Proof},
    },
    models::used_assertions,
    verifier::{ClientAssertion, Once, PublicKey},
};

/// What somebody proves itself with.
pub enum Presented {
    /// A client secret.
    ClientSecret(SecretString),
    /// An assertion: its own (RFC 7523), or a token of a trusted issuer.
    Assertion(SecretString),
    /// Nothing but the certificate that it has shown, if it has (RFC 8705).
    Certificate(Option<Arc<Certificate>>),
}

impl Presented {
    /// The thumbprint of the certificate that proves it.
    pub(super) fn certificate(&self) -> Option<&str> {
        match self {
            Self::Certificate(Some(certificate)) => Some(&certificate.thumbprint),
            _ => None,
        }
    }

    /// When that certificate ends.
    pub(super) fn expire_time(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Certificate(Some(certificate)) => Some(certificate.expire_time),
            _ => None,
        }
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientSecret(_) => "ClientSecret(..)",
            Self::Assertion(_) => "Assertion(..)",
            Self::Certificate(_) => "Certificate(..)",
        })
    }
}

impl Service {
    fn good(&self, now: DateTime<Utc>) -> impl Iterator<Item = &Opened> {
        self.credentials.iter().filter(move |opened| opened.credential.is_good(now))
    }

    fn good_keys(&self, now: DateTime<Utc>) -> impl Iterator<Item = &ForeignKeys> {
        self.good(now).filter_map(|opened| opened.keys.as_ref())
    }

    fn good_federations(&self, now: DateTime<Utc>) -> impl Iterator<Item = &Federated> {
        self.good(now).filter_map(|opened| match &opened.credential.proof {
            Proof::Federated(federated) => Some(federated),
            _ => None,
        })
    }

    fn good_certificates(&self, now: DateTime<Utc>) -> impl Iterator<Item = &Named> {
        self.good(now).filter_map(|opened| match &opened.credential.proof {
            Proof::Mtls(named) => Some(named),
            _ => None,
        })
    }
}

impl App {
    /// Refuses what is none of its credentials.
    pub(super) async fn prove(
        self: &Arc<Self>,
        service: &Service,
        presented: &Presented,
    ) -> Result<(), Error> {
        match presented {
            Presented::ClientSecret(secret) => {
                let secret = ClientSecret::parse(secret).ok_or(Error::InvalidCredentials)?;
                let mut proofs = service.good(self.now()).map(|opened| &opened.credential.proof);
                let is_known = |proof: &Proof| matches!(proof, Proof::ClientSecret(kept) if secret.is(kept));
                if proofs.any(is_known) { Ok(()) } else { Err(Error::InvalidCredentials) }
            }
            Presented::Assertion(assertion) => {
                let assertion = assertion.expose_secret();
                let own = service.account.id.to_string();
                match ClientAssertion::claimed_by(assertion) {
                    Ok(issuer) if issuer == own => {
                        Box::pin(self.prove_by_key(service, &own, assertion)).await
                    }
                    Ok(_) => Box::pin(self.prove_by_federation(service, assertion)).await,
                    Err(refusal) => Err(wrong_assertion(refusal.into())),
                }
            }
            Presented::Certificate(None) => Err(wrong("no certificate")),
            Presented::Certificate(Some(certificate)) => {
                let mut known = service.good_certificates(self.now());
                if known.any(|named| named.takes(certificate)) {
                    Ok(())
                } else {
                    Err(wrong("another certificate"))
                }
            }
        }
    }

    async fn prove_by_key(
        self: &Arc<Self>,
        service: &Service,
        client_id: &str,
        assertion: &str,
    ) -> Result<(), Error> {
        let expected = ClientAssertion { client_id, issuer: &self.settings.issuer };
        let check = |keys: &[PublicKey]| expected.check(assertion, keys, self.now(), self.settings.leeway);
        let mut outcome = Err(Error::InvalidCredentials);
        for keys in service.good_keys(self.now()) {
            outcome = self.check_foreign(keys, check).await;
            if outcome.is_ok() {
                break;
            }
        }
        self.use_once(service.account.id, &outcome.map_err(wrong_assertion)?).await
    }

    /// Such a token is its issuer's to make, and may come as often as that lets it live.
    async fn prove_by_federation(self: &Arc<Self>, service: &Service, token: &str) -> Result<(), Error> {
        if service.good_federations(self.now()).next().is_none() {
            return Err(wrong("a token of another issuer"));
        }
        let believed = self.believe(token).await.map_err(wrong_assertion)?;
        let mut known = service.good_federations(self.now());
        if known.any(|federated| federated.takes(&believed.claims)) {
            Ok(())
        } else {
            Err(wrong("a token of another workload"))
        }
    }

    /// Refuses what was used before, here or on another replica.
    async fn use_once(&self, whose: Uuid, once: &Once) -> Result<(), Error> {
        let digest = digest_of(&[whose.as_bytes(), once.jti.as_bytes()]);
        // No clock that counts is so far behind that it would be taken again after that.
        let forget_time = once.expire_time + self.settings.leeway + TimeDelta::seconds(MAX_LEEWAY_SECONDS);
        let marked =
            self.store.write(async |conn| used_assertions::insert_if_new(conn, &digest, forget_time).await);
        if marked.await?.value { Ok(()) } else { Err(wrong("an assertion that was used before")) }
    }
}

fn wrong_assertion(error: Error) -> Error {
    match error {
        Error::TokenInvalid(why) => wrong(why),
        Error::TokenExpired => wrong("an assertion that has expired"),
        Error::TokenMalformed => wrong("no assertion"),
        error => error,
    }
}

/// Why is for our logs: to who asks, nothing is told of what was nearly right.
fn wrong(why: &str) -> Error {
    tracing::info!(why, "a client's credential is not accepted");
    Error::InvalidCredentials
}
