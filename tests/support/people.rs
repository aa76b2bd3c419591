//! People who use the service.

use std::error::Error;

use tessera::proto::{
    CreateUserRequest, Device, LoginRequest, LoginResponse, RefreshRequest, VerifyTokenRequest,
};
use tonic::{Request, metadata::MetadataValue};

use super::Server;

/// The first admin's.
pub const ADMIN_PASSWORD: &str = "the admin's own words";
/// Everybody else's.
pub const PASSWORD: &str = "nobody guesses this";

/// Somebody who is signed in.
#[derive(Debug, Clone)]
pub struct Person {
    /// The user.
    pub user_id: String,
    /// The session.
    pub session_id: String,
    /// The access token.
    pub access_token: String,
    /// The refresh token.
    pub refresh_token: String,
}

impl From<LoginResponse> for Person {
    fn from(reply: LoginResponse) -> Self {
        let tokens = reply.tokens.unwrap_or_default();
        let session = reply.session.unwrap_or_default();
        Self {
            user_id: session.user_id,
            session_id: session.session_id,
            access_token: tokens.access_token,
            refresh_token: tokens.refresh_token,
        }
    }
}

/// A request with a bearer token.
pub fn authorized<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = MetadataValue::try_from(format!("Bearer {token}")).expect("a token is ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

/// A device of this type.
pub fn device(kind: &str) -> Option<Device> {
    Some(Device { r#type: kind.to_owned(), ..Device::default() })
}

/// A login with this name, password and type of device.
pub fn login_as(username: &str, password: &str, kind: &str) -> LoginRequest {
    LoginRequest {
        username: username.to_owned(),
        password: password.to_owned(),
        device: device(kind),
        ..LoginRequest::default()
    }
}

/// A refresh with this token, from a client that tells nothing of its device.
pub fn refresh_with(refresh_token: &str) -> RefreshRequest {
    RefreshRequest { refresh_token: refresh_token.to_owned(), device: None }
}

impl Server {
    /// Whether it says that a token is good.
    pub async fn is_active(&self, token: &str, strict: bool) -> Result<bool, Box<dyn Error>> {
        let token = token.to_owned();
        let request = VerifyTokenRequest { token, strict, ..Default::default() };
        Ok(self.auth().verify_token(request).await?.into_inner().active)
    }

    /// The first admin, signed in.
    pub async fn admin(&self) -> Result<Person, Box<dyn Error>> {
        Ok(self.auth().login(login_as("admin", ADMIN_PASSWORD, "cli")).await?.into_inner().into())
    }

    /// Makes a user without roles in the tenant `default`.
    pub async fn make_user(&self, admin: &Person, username: &str) -> Result<String, Box<dyn Error>> {
        self.make_user_in(admin, "", username, &[]).await
    }

    /// Makes a user with roles in a tenant.
    pub async fn make_user_in(
        &self,
        admin: &Person,
        tenant: &str,
        username: &str,
        roles: &[&str],
    ) -> Result<String, Box<dyn Error>> {
        let request = CreateUserRequest {
            tenant: tenant.to_owned(),
            username: username.to_owned(),
            password: PASSWORD.to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            ..CreateUserRequest::default()
        };
        let made = self.users().create_user(authorized(&admin.access_token, request)).await?;
        Ok(made.into_inner().user.unwrap_or_default().user_id)
    }

    /// Signs a user of the tenant `default` in from this type of device.
    pub async fn sign_in(&self, username: &str, kind: &str) -> Result<Person, Box<dyn Error>> {
        Ok(self.auth().login(login_as(username, PASSWORD, kind)).await?.into_inner().into())
    }

    /// Makes `anna` and signs her in from the web.
    pub async fn anna(&self) -> Result<Person, Box<dyn Error>> {
        // Not in the place of an admin whom the test has signed in.
        let setup = login_as("admin", ADMIN_PASSWORD, "setup");
        let admin = self.auth().login(setup).await?.into_inner().into();
        self.make_user(&admin, "anna").await?;
        self.sign_in("anna", "web").await
    }
}
