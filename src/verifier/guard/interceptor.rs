//! The same for one service of a tonic server, where a layer around them all is too much.

use tonic::{Request, Status, service::Interceptor};

use super::{Requirement, bearer, shown};
use crate::verifier::{ConnectedVerifier, Denial, not_begun};

/// Guards a service as a tonic interceptor, with one requirement for all of its methods: an interceptor doesn't know
/// which one is called. So it can't tell what a proof of a key was made for either: a token that is bound to one is refused.
/// Nor can it wait: a token for which the issuer has to be asked is refused with `ISSUER_UNAVAILABLE`. For all of that there
/// is [`Guard`](super::Guard).
#[derive(Debug, Clone)]
pub struct GuardInterceptor {
    verifier: ConnectedVerifier,
    requirement: Requirement,
}

impl GuardInterceptor {
    /// One that lets in whose token is good and meets the requirement.
    pub fn new(verifier: ConnectedVerifier, requirement: Requirement) -> Self {
        Self { verifier, requirement }
    }
}

impl Interceptor for GuardInterceptor {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let shown = shown(request.extensions());
        let checked = bearer(request.metadata().as_ref()).and_then(|token| {
            self.verifier.try_check_shown(token, &shown).unwrap_or(Err(Denial::Unreachable))
        });
        match checked.and_then(|claims| self.requirement.admit(claims)) {
            Ok(claims) => {
                not_begun::let_in(request.metadata_mut().as_mut());
                request.extensions_mut().insert(claims);
                Ok(request)
            }
            Err(denial) => {
                let mut status = Status::from(denial);
                not_begun::refused(request.metadata().as_ref(), status.metadata_mut().as_mut());
                Err(status)
            }
        }
    }
}
