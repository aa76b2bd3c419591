//! The generated contract, `proto/tessera/v1`, and the silent `Debug` of messages that hold a secret.

mod codec;

use std::fmt;

#[allow(missing_docs, clippy::all)]
mod generated {
    tonic::include_proto!("tessera.v1");
}
pub use codec::ContractCodec;
pub use generated::*;

/// Every file of the contract with its imports, as reflection serves it.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tessera.bin"));

/// Writes the named fields and ends with `..` in place of the secret ones.
macro_rules! silent_debug {
    ($($message:ident { $($field:ident),* })*) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message))
                    $(.field(stringify!($field), &self.$field))*
                    .finish_non_exhaustive()
            }
        }
    )*};
}

silent_debug! {
    Tokens { session_id, access_expire_time, refresh_expire_time, scope }
    SignUpRequest { tenant, device, audience, scope }
    LoginRequest { tenant, device, audience, scope }
    RefreshRequest { device }
    ChangePasswordRequest { end_all_sessions }
    VerifyTokenRequest { audience, required_scopes, strict }
    CreateUserRequest { tenant, roles, password_change_required }
    NewAudienceSecret { kid, activate_time }
    CreateAudienceRequest { name, display_name, signing }
    UpdateAudienceRequest { audience_id, display_name, rotate_secret, activate_after }
    CheckForeignTokenRequest {}
    IssueServiceTokenRequest { client_id, audience, scope }
    ExchangeTokenRequest { subject_token_type, audience, scope }
    CreateCredentialResponse { credential }
    RevokeTokenRequest { jti }
    CreateCredentialRequest { service_account_id, expire_time }
    PrivateKeyJwt { jwks_uri }
}
