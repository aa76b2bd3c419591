//! `tessera.v1.Auth`.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{convert, parse, peer};
use crate::{
    app::{
        App, Error, SignedIn,
        change_password::{self, ChangePassword},
        exchange_token::{self, ExchangeToken},
        issue_service_token::{self, IssueServiceToken, Presented},
        login::{self, Login},
        logout, refresh,
        revoke_token::{self, Which},
        sign_up::{self, SignUp},
        users::NewUser,
        verify_token::{self, Answer, VerifyToken},
    },
    domain::{InvalidField, refresh_token::RefreshToken, tenant, text, user},
    proto::{self, auth_server::Auth},
    verifier::{ClientAssertion, Refusal},
};

/// RFC 7523 section 2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// RFC 8693 section 3.
const TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";

pub(super) struct Service(pub(super) Arc<App>);

#[tonic::async_trait]
impl Auth for Service {
    async fn sign_up(
        &self,
        request: Request<proto::SignUpRequest>,
    ) -> Result<Response<proto::SignUpResponse>, Status> {
        let key = parse::key_proof(&request);
        let (origin, message) = parse::open(request);
        let user = NewUser {
            username: user::parse_username("username", &message.username)?,
            email: text::email("email", &message.email)?,
            display_name: text::shown("display_name", &message.display_name, 128)?,
            roles: Vec::new(),
            password_change_required: false,
        };
        let asked = SignUp {
            tenant: tenant::or_default(&message.tenant).to_owned(),
            user,
            password: parse::password("password", &message.password)?,
            wishes: parse::wishes(message.device.as_ref(), &message.audience, &message.scope, key)?,
        };
        let SignedIn { tokens, session, .. } = sign_up::sign_up(&self.0, asked, &origin).await?;
        Ok(Response::new(proto::SignUpResponse {
            tokens: Some(convert::tokens(&tokens)),
            session: Some(convert::session(session, self.0.now())),
        }))
    }

    async fn login(
        &self,
        request: Request<proto::LoginRequest>,
    ) -> Result<Response<proto::LoginResponse>, Status> {
        let key = parse::key_proof(&request);
        let (origin, message) = parse::open(request);
        let asked = Login {
            tenant: tenant::or_default(&message.tenant).to_owned(),
            username: user::parse_username("username", &message.username)?,
            password: parse::password("password", &message.password)?,
            wishes: parse::wishes(message.device.as_ref(), &message.audience, &message.scope, key)?,
        };
        let SignedIn { tokens, session, password_change_required } =
            login::login(&self.0, asked, &origin).await?;
        Ok(Response::new(proto::LoginResponse {
            tokens: Some(convert::tokens(&tokens)),
            session: Some(convert::session(session, self.0.now())),
            password_change_required,
        }))
    }

    async fn refresh(
        &self,
        request: Request<proto::RefreshRequest>,
    ) -> Result<Response<proto::RefreshResponse>, Status> {
        let key = parse::key_proof(&request);
        let (origin, message) = parse::open(request);
        let token = RefreshToken::parse(&message.refresh_token).map_err(|_| Error::TokenMalformed)?;
        let device = message.device.as_ref().map(parse::device).transpose()?;
        let tokens = refresh::refresh(&self.0, &token, device, key.as_deref(), &origin).await?;
        Ok(Response::new(proto::RefreshResponse { tokens: Some(convert::tokens(&tokens)) }))
    }

    async fn logout(
        &self,
        request: Request<proto::LogoutRequest>,
    ) -> Result<Response<proto::LogoutResponse>, Status> {
        let (caller, origin, _) = parse::open_known(request)?;
        logout::logout(&self.0, &caller, &origin).await?;
        Ok(Response::new(proto::LogoutResponse {}))
    }

    async fn logout_all(
        &self,
        request: Request<proto::LogoutAllRequest>,
    ) -> Result<Response<proto::LogoutAllResponse>, Status> {
        let (caller, origin, _) = parse::open_known(request)?;
        let ended = logout::logout_all(&self.0, &caller, &origin).await?;
        Ok(Response::new(proto::LogoutAllResponse { ended_sessions: convert::count(ended) }))
    }

    async fn change_password(
        &self,
        request: Request<proto::ChangePasswordRequest>,
    ) -> Result<Response<proto::ChangePasswordResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let change = ChangePassword {
            current: parse::password("current_password", &message.current_password)?,
            new: parse::password("new_password", &message.new_password)?,
            end_all_sessions: message.end_all_sessions,
        };
        let ended = change_password::change_password(&self.0, &caller, change, &origin).await?;
        Ok(Response::new(proto::ChangePasswordResponse { ended_sessions: convert::count(ended) }))
    }

    async fn verify_token(
        &self,
        request: Request<proto::VerifyTokenRequest>,
    ) -> Result<Response<proto::VerifyTokenResponse>, Status> {
        let (caller, _, message) = parse::open_maybe_service(request);
        let asked = VerifyToken {
            audience: Some(message.audience).filter(|audience| !audience.is_empty()),
            required_scopes: message.required_scopes,
            strict: message.strict,
        };
        let answer = verify_token::verify_token(&self.0, caller.as_ref(), &message.token, asked).await?;
        let answer = match answer {
            Answer::Active(claims) => proto::VerifyTokenResponse {
                active: true,
                reason: String::new(),
                claims: Some(convert::claims(*claims)),
            },
            Answer::Inactive(reason) => {
                proto::VerifyTokenResponse { active: false, reason: reason.to_owned(), claims: None }
            }
            Answer::NotTheirs => proto::VerifyTokenResponse::default(),
        };
        Ok(Response::new(answer))
    }

    async fn revoke_token(
        &self,
        request: Request<proto::RevokeTokenRequest>,
    ) -> Result<Response<proto::RevokeTokenResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let which = match (message.token.is_empty(), message.jti.is_empty()) {
            (false, true) => Which::Token(message.token),
            (true, false) => Which::Jti(parse::id("jti", &message.jti)?),
            _ => return Err(InvalidField::new("token", "or `jti` is to be given, and not both").into()),
        };
        revoke_token::revoke_token(&self.0, &caller, which, &origin).await?;
        Ok(Response::new(proto::RevokeTokenResponse {}))
    }

    async fn issue_service_token(
        &self,
        request: Request<proto::IssueServiceTokenRequest>,
    ) -> Result<Response<proto::IssueServiceTokenResponse>, Status> {
        let certificate = certificate(&self.0, &request);
        let key = parse::key_proof(&request);
        let (origin, message) = parse::open(request);
        let audience = text::audience("audience", &message.audience)?;
        let scope = text::scope("scope", &message.scope)?;
        let (client_id, proof) = presented(message, certificate)?;
        let asked = IssueServiceToken { client_id, proof, audience, scope, key };
        let token = issue_service_token::issue_service_token(&self.0, asked, &origin).await?;
        Ok(Response::new(proto::IssueServiceTokenResponse { tokens: Some(convert::service_token(token)) }))
    }

    async fn exchange_token(
        &self,
        request: Request<proto::ExchangeTokenRequest>,
    ) -> Result<Response<proto::ExchangeTokenResponse>, Status> {
        let key = parse::key_proof(&request);
        let (caller, origin, message) = parse::open_service(request)?;
        if ![TOKEN_TYPE, JWT_TYPE].contains(&message.subject_token_type.as_str()) {
            let problem = format!("is neither `{TOKEN_TYPE}` nor `{JWT_TYPE}`");
            return Err(InvalidField::new("subject_token_type", problem).into());
        }
        let asked = ExchangeToken {
            audience: text::audience("audience", &message.audience)?,
            scope: text::scopes("scope", &message.scope)?,
            actor_token: Some(message.actor_token).filter(|token| !token.is_empty()),
            subject_token: message.subject_token,
            key,
        };
        let token = exchange_token::exchange_token(&self.0, &caller, asked, &origin).await?;
        Ok(Response::new(proto::ExchangeTokenResponse {
            tokens: Some(convert::service_token(token)),
            issued_token_type: TOKEN_TYPE.to_owned(),
        }))
    }
}

/// The certificate of who asks, or that it has none, where it presents nothing else and could have one.
fn certificate(app: &App, request: &Request<proto::IssueServiceTokenRequest>) -> Option<Presented> {
    let message = request.get_ref();
    let is_bare = message.client_secret.is_empty() && message.client_assertion.is_empty();
    let asks = || peer::certificate(app, request.extensions(), request.metadata().as_ref());
    (is_bare && app.settings.takes_certificates()).then(|| Presented::Certificate(asks()))
}

/// Who says to ask, and what it proves that with. Whatever names no account is as good as a wrong credential.
fn presented(
    message: proto::IssueServiceTokenRequest,
    certificate: Option<Presented>,
) -> Result<(Uuid, Presented), Error> {
    let proto::IssueServiceTokenRequest {
        client_id,
        client_secret,
        client_assertion_type,
        client_assertion,
        ..
    } = message;
    let id_of = |client_id: &str| Uuid::try_parse(client_id).unwrap_or_default();
    if let Some(certificate) = certificate {
        return Ok((id_of(&client_id), certificate));
    }
    match (client_secret.is_empty(), client_assertion.is_empty()) {
        (false, true) => Ok((id_of(&client_id), Presented::ClientSecret(client_secret.into()))),
        (true, false) => {
            if client_assertion_type != ASSERTION_TYPE {
                let problem = format!("is not `{ASSERTION_TYPE}`");
                return Err(InvalidField::new("client_assertion_type", problem).into());
            }
            let client_id = match client_id.is_empty() {
                true => match ClientAssertion::claimed_by(&client_assertion) {
                    Err(Refusal::Malformed) => return Err(Error::TokenMalformed),
                    claimed => id_of(&claimed.unwrap_or_default()),
                },
                false => id_of(&client_id),
            };
            Ok((client_id, Presented::Assertion(client_assertion.into())))
        }
        _ => Err(InvalidField::new("client_secret", "or `client_assertion` is to be given, not both").into()),
    }
}
