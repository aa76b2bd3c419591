//! How a service reaches its issuer, and what goes along with the tokens that it gets so.

use http::Extensions;
use tonic::transport::Channel;

use super::IdentityError;
#[cfg(feature = "tls")]
use crate::verifier::{CertifiedChannel, certificate_files::OwnCertificate};
use crate::{proto::auth_client::AuthClient, verifier::attach::AccessToken};

/// How the issuer is reached.
pub(super) enum Reach {
    /// Over one channel.
    Channel(AuthClient<Channel>),
    /// Over connections that show a certificate which is replaced now and then.
    #[cfg(feature = "tls")]
    Certified(CertifiedChannel),
}

impl Reach {
    /// The issuer as it is asked for a token, and what goes along with that.
    pub(super) async fn anew(&self) -> Result<(AuthClient<Channel>, Extensions), IdentityError> {
        match self {
            Self::Channel(auth) => Ok((auth.clone(), Extensions::new())),
            #[cfg(feature = "tls")]
            Self::Certified(channel) => {
                let certificate = channel.look().await;
                let certificate =
                    certificate.map_err(|problem| IdentityError::Credential(problem.to_string()))?;
                let auth = showing(channel, &certificate)?;
                let mut beside = Extensions::new();
                beside.insert(certificate);
                Ok((auth, beside))
            }
        }
    }

    /// The issuer as it is called with a token that was got here.
    #[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "one channel is as good for all"))]
    pub(super) fn with(&self, token: &AccessToken) -> Result<AuthClient<Channel>, IdentityError> {
        match self {
            Self::Channel(auth) => Ok(auth.clone()),
            #[cfg(feature = "tls")]
            Self::Certified(channel) => {
                let certificate = token.beside().get::<OwnCertificate>();
                showing(channel, certificate.ok_or(IdentityError::Interrupted)?)
            }
        }
    }
}

#[cfg(feature = "tls")]
fn showing(
    channel: &CertifiedChannel,
    certificate: &OwnCertificate,
) -> Result<AuthClient<Channel>, IdentityError> {
    // The same was made of it before: it can only fail with whom to trust, as where the system's roots are gone.
    let channel = channel.showing(certificate);
    channel.map(AuthClient::new).map_err(|error| IdentityError::Credential(error.to_string()))
}
