//! `tessera.v1.Users`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{convert, parse};
use crate::{
    app::{
        App,
        users::{self, Changes, NewUser},
    },
    domain::{InvalidField, text, user},
    proto::{self, users_server::Users},
};

pub(super) struct Service(pub(super) Arc<App>);

#[tonic::async_trait]
impl Users for Service {
    async fn create_user(
        &self,
        request: Request<proto::CreateUserRequest>,
    ) -> Result<Response<proto::CreateUserResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let new = NewUser {
            username: user::parse_username("username", &message.username)?,
            email: text::email("email", &message.email)?,
            display_name: text::shown("display_name", &message.display_name, 128)?,
            roles: text::roles("roles", &message.roles)?,
            password_change_required: message.password_change_required,
        };
        let password = parse::password("password", &message.password)?;
        let user = users::create(&self.0, &caller, &message.tenant, new, password, &origin).await?;
        Ok(Response::new(proto::CreateUserResponse { user: Some(convert::user(user)) }))
    }

    async fn get_user(
        &self,
        request: Request<proto::GetUserRequest>,
    ) -> Result<Response<proto::GetUserResponse>, Status> {
        let (caller, _, message) = parse::open_known(request)?;
        let user = users::get(&self.0, &caller, parse::id("user_id", &message.user_id)?).await?;
        Ok(Response::new(proto::GetUserResponse { user: Some(convert::user(user)) }))
    }

    async fn update_user(
        &self,
        request: Request<proto::UpdateUserRequest>,
    ) -> Result<Response<proto::UpdateUserResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let id = parse::id("user_id", &message.user_id)?;
        let changes = changes(&message)?;
        let user = users::update(&self.0, &caller, id, changes, &origin).await?;
        Ok(Response::new(proto::UpdateUserResponse { user: Some(convert::user(user)) }))
    }

    async fn list_users(
        &self,
        request: Request<proto::ListUsersRequest>,
    ) -> Result<Response<proto::ListUsersResponse>, Status> {
        let (caller, _, message) = parse::open_known(request)?;
        let page = parse::page(message.page_size, &message.page_token)?;
        let found = users::list(&self.0, &caller, &message.tenant, page).await?;
        Ok(Response::new(proto::ListUsersResponse {
            users: found.items.into_iter().map(convert::user).collect(),
            next_page_token: parse::next_page_token(found.next),
        }))
    }

    async fn disable_user(
        &self,
        request: Request<proto::DisableUserRequest>,
    ) -> Result<Response<proto::DisableUserResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let id = parse::id("user_id", &message.user_id)?;
        let (user, ended) = users::disable(&self.0, &caller, id, &origin).await?;
        Ok(Response::new(proto::DisableUserResponse {
            user: Some(convert::user(user)),
            ended_sessions: convert::count(ended),
        }))
    }

    async fn enable_user(
        &self,
        request: Request<proto::EnableUserRequest>,
    ) -> Result<Response<proto::EnableUserResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let id = parse::id("user_id", &message.user_id)?;
        let user = users::enable(&self.0, &caller, id, &origin).await?;
        Ok(Response::new(proto::EnableUserResponse { user: Some(convert::user(user)) }))
    }
}

fn changes(message: &proto::UpdateUserRequest) -> Result<Changes, InvalidField> {
    let email = message.email.as_deref().map(|email| text::email("email", email)).transpose()?;
    let display_name =
        message.display_name.as_deref().map(|name| text::shown("display_name", name, 128)).transpose()?;
    let roles = message.roles.as_ref().map(|set| text::roles("roles.roles", &set.roles)).transpose()?;
    Ok(Changes { email, display_name, roles })
}
