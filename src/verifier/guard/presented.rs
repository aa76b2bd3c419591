//! What a request shows of who calls.

use std::borrow::Cow;

use http::{Extensions, HeaderMap, Request, header};

use crate::verifier::{
    ClientCertificate, ConnectedVerifier, Denial, KeyProof, KeyProofs, ProofFor, Refusal, Shown,
};

/// How a token is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// By itself (RFC 6750 section 2.1).
    Bearer,
    /// With a proof of the key that it is bound to (RFC 9449 section 7.1).
    Dpop,
}

/// The one token of a request, and how it is sent.
///
/// # Errors
/// If there is none; or if there are two, since an intermediary and we might each believe another.
pub fn credentials(headers: &HeaderMap) -> Result<(Scheme, &str), Denial> {
    const MALFORMED: Denial = Denial::Refused(Refusal::Malformed);
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(Denial::Missing)?;
    if values.next().is_some() {
        return Err(MALFORMED);
    }
    let value = value.to_str().map_err(|_| MALFORMED)?;
    let (scheme, token) = value.split_once(' ').ok_or(MALFORMED)?;
    let scheme = match scheme {
        scheme if scheme.eq_ignore_ascii_case("bearer") => Scheme::Bearer,
        scheme if scheme.eq_ignore_ascii_case("dpop") => Scheme::Dpop,
        _ => return Err(Denial::Missing),
    };
    Ok((scheme, token.trim()))
}

/// The one bearer token of a request (RFC 6750 section 2.1).
///
/// # Errors
/// As [`credentials`], and if it comes with a proof.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Denial> {
    match credentials(headers)? {
        (Scheme::Bearer, token) => Ok(token),
        (Scheme::Dpop, _) => Err(Denial::Missing),
    }
}

/// What the caller has shown beside its token with its connection.
pub(super) fn shown(extensions: &Extensions) -> Shown {
    let certificate = extensions.get::<ClientCertificate>();
    Shown { certificate: certificate.map(|it| it.thumbprint().to_owned()), ..Shown::default() }
}

/// A token, and what is shown beside it. It lets nobody in by itself.
pub(super) struct Presented<'r> {
    pub token: Cow<'r, str>,
    pub shown: Shown,
    pub proof: Option<KeyProof>,
    /// What the next proof is to carry.
    pub next_nonce: Option<String>,
}

impl<'r> Presented<'r> {
    /// Reads it out of a request. A proof is looked at where the token comes with one.
    pub(super) fn of<B>(
        request: &'r Request<B>,
        proofs: &KeyProofs,
        verifier: &ConnectedVerifier,
    ) -> Result<Self, Denial> {
        let (scheme, token) = credentials(request.headers())?;
        let (proof, next_nonce) = match scheme {
            Scheme::Bearer => (None, None),
            Scheme::Dpop => {
                let made_for = ProofFor {
                    method: request.method().as_str(),
                    path: request.uri().path(),
                    token: Some(token),
                };
                let proof = KeyProof::in_headers(request.headers())?;
                let proof = proof.ok_or(Refusal::BadProof("there is none"))?;
                let (now, leeway) = verifier.time();
                let proof = proofs.check(proof, &made_for, now, leeway)?;
                let next_nonce = proofs.check_nonce(&proof, now, leeway);
                (Some(proof), next_nonce.map_err(|nonce| Denial::UseNonce { nonce })?)
            }
        };
        let key = proof.as_ref().map(|proof| proof.key().to_owned());
        let shown = Shown { key, ..shown(request.extensions()) };
        Ok(Self { token: token.into(), shown, proof, next_nonce })
    }

    /// The same apart from its request.
    pub(super) fn into_owned(self) -> Presented<'static> {
        let Self { token, shown, proof, next_nonce } = self;
        Presented { token: token.into_owned().into(), shown, proof, next_nonce }
    }
}
