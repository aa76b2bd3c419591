//! Shows the issuer the key that tokens are to be bound to (RFC 9449), for whoever asks it for tokens.

use http::Uri;
use tonic::{Request, Response, Status};

use super::{AccessToken, Prover};
use crate::proto::Tokens;

/// Why tokens are not taken that are good in anybody's hands.
pub(in crate::verifier) const UNBOUND: &str = "its tokens are not bound to the key";

/// Shows a key to the issuer, where there is one to show.
pub(in crate::verifier) struct Showing {
    prover: Option<Prover>,
    /// The issuer's scheme, host and port, where they are known: what a proof may have to name beside the path.
    origin: Option<String>,
}

impl Showing {
    /// At the issuer that is reached there.
    pub(in crate::verifier) fn new(prover: Option<&Prover>, at: Option<&Uri>) -> Self {
        let origin = at.and_then(|uri| uri.scheme_str().zip(uri.authority()));
        let origin = origin.map(|(scheme, authority)| format!("{scheme}://{authority}"));
        Self { prover: prover.map(Prover::apart), origin }
    }

    /// The request, with a proof that is made for this method, and for the token that it carries.
    pub(in crate::verifier) fn shown<T>(
        &self,
        path: &str,
        token: Option<&AccessToken>,
        mut request: Request<T>,
    ) -> Request<T> {
        if let Some(prover) = &self.prover {
            let target = format!("{}{path}", self.origin.as_deref().unwrap_or_default());
            prover.show(request.metadata_mut().as_mut(), &target, token.map(AccessToken::expose));
        }
        request
    }

    /// Takes up what an answer tells of the next proof; says whether that is what this one lacked.
    pub(in crate::verifier) fn is_told<T>(&self, answer: &Result<Response<T>, Status>) -> bool {
        let Some(prover) = &self.prover else { return false };
        match answer {
            Ok(answer) => {
                prover.hear(answer.metadata().as_ref());
                false
            }
            Err(status) => prover.hear_refusal(status),
        }
    }

    /// Whether tokens are bound to the key, where they were to be.
    pub(in crate::verifier) fn has_bound(&self, tokens: &Tokens) -> bool {
        self.prover.is_none() || tokens.token_type.eq_ignore_ascii_case("dpop")
    }
}
