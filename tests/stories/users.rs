//! Users and tenants, and how far an admin reaches.

use tessera::proto::{
    CreateTenantRequest, CreateUserRequest, DisableUserRequest, EnableUserRequest, GetTenantRequest,
    GetUserRequest, ListSessionsRequest, ListTenantsRequest, ListUsersRequest, LoginRequest, RoleSet,
    UpdateUserRequest, UserState, VerifyTokenRequest,
};
use tonic::Code;

use crate::support::{
    Home, Outcome, PASSWORD, Person, Server, authorized, denied, login_as, not_found, refresh_with, refusal,
    stories,
};

stories! {
    a_user_is_made_shown_changed_and_listed,
    a_disabled_user_is_out_at_once_and_can_come_back,
    roles_that_are_taken_away_end_the_tokens_that_carry_them,
    nobody_locks_itself_out,
    a_tenants_admin_reaches_its_own_tenant_and_no_other,
    the_same_name_lives_in_two_tenants,
}

async fn a_user_is_made_shown_changed_and_listed(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    let user_id = server.make_user_in(&admin, "", "Anna", &["editor", "editor", "viewer"]).await?;
    let anna = server.sign_in("anna", "web").await?;

    let get = || GetUserRequest { user_id: user_id.clone() };
    let user = server
        .users()
        .get_user(authorized(&anna.access_token, get()))
        .await?
        .into_inner()
        .user
        .ok_or("none")?;
    assert_eq!(user.username, "anna");
    assert_eq!(user.roles, ["editor", "viewer"]);
    assert_eq!(user.state(), UserState::Active);

    let update = UpdateUserRequest {
        user_id: user_id.clone(),
        email: Some("anna@example.com".to_owned()),
        ..Default::default()
    };
    let user = server
        .users()
        .update_user(authorized(&admin.access_token, update))
        .await?
        .into_inner()
        .user
        .ok_or("none")?;
    assert_eq!(user.email, "anna@example.com");
    assert_eq!(user.roles, ["editor", "viewer"], "what is not given stays");
    let update =
        UpdateUserRequest { user_id: user_id.clone(), email: Some(String::new()), ..Default::default() };
    let user = server
        .users()
        .update_user(authorized(&admin.access_token, update))
        .await?
        .into_inner()
        .user
        .ok_or("none")?;
    assert_eq!(user.email, "");

    let list =
        server.users().list_users(authorized(&admin.access_token, ListUsersRequest::default())).await?;
    let names: Vec<String> = list.into_inner().users.into_iter().map(|user| user.username).collect();
    assert_eq!(names, ["anna", "admin"]);
    let nobody = GetUserRequest { user_id: uuid::Uuid::from_u128(1).to_string() };
    assert_eq!(refusal(server.users().get_user(authorized(&admin.access_token, nobody)).await), not_found());
    let admins = GetUserRequest { user_id: admin.user_id.clone() };
    assert_eq!(refusal(server.users().get_user(authorized(&anna.access_token, admins)).await), not_found());
    server.stop().await
}

async fn a_disabled_user_is_out_at_once_and_can_come_back(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let admin = server.admin().await?;
    let disable = || authorized(&admin.access_token, DisableUserRequest { user_id: anna.user_id.clone() });
    let reply = server.users().disable_user(disable()).await?.into_inner();
    assert_eq!(reply.ended_sessions, 1);
    assert_eq!(reply.user.ok_or("none")?.state(), UserState::Disabled);
    assert_eq!(server.users().disable_user(disable()).await?.into_inner().ended_sessions, 0, "it stays so");

    let list = authorized(&anna.access_token, ListSessionsRequest::default());
    assert_eq!(refusal(server.session().list_sessions(list).await).1, "TOKEN_REVOKED");
    let refresh = refresh_with(&anna.refresh_token);
    assert_eq!(refusal(server.auth().refresh(refresh).await).1, "TOKEN_REVOKED");
    let right = server.auth().login(login_as("anna", PASSWORD, "web")).await;
    assert_eq!(refusal(right), (Code::PermissionDenied, "ACCOUNT_DISABLED".to_owned()));
    let wrong = server.auth().login(login_as("anna", "some other words", "web")).await;
    assert_eq!(refusal(wrong).1, "INVALID_CREDENTIALS", "told only after the right password");

    let enable = authorized(&admin.access_token, EnableUserRequest { user_id: anna.user_id.clone() });
    server.users().enable_user(enable).await?;
    assert!(server.sign_in("anna", "web").await.is_ok());
    let refresh = refresh_with(&anna.refresh_token);
    assert_eq!(refusal(server.auth().refresh(refresh).await).1, "TOKEN_REVOKED", "what ended stays ended");
    server.stop().await
}

async fn roles_that_are_taken_away_end_the_tokens_that_carry_them(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    let user_id = server.make_user_in(&admin, "", "anna", &["admin"]).await?;
    let anna = server.sign_in("anna", "web").await?;
    let list = |token: &str| authorized(token, ListUsersRequest::default());
    assert!(server.users().list_users(list(&anna.access_token)).await.is_ok());

    let roles = Some(RoleSet { roles: vec!["viewer".to_owned()] });
    let update = UpdateUserRequest { user_id, roles, ..Default::default() };
    server.users().update_user(authorized(&admin.access_token, update)).await?;
    assert_eq!(refusal(server.users().list_users(list(&anna.access_token)).await).1, "TOKEN_REVOKED");

    let refresh = refresh_with(&anna.refresh_token);
    let tokens = server.auth().refresh(refresh).await?.into_inner().tokens.ok_or("no tokens")?;
    assert_eq!(refusal(server.users().list_users(list(&tokens.access_token)).await).1, "INSUFFICIENT_SCOPE");
    let request = VerifyTokenRequest { token: tokens.access_token, strict: true, ..Default::default() };
    let answer = server.auth().verify_token(request).await?.into_inner();
    assert_eq!(answer.claims.ok_or(answer.reason)?.roles, ["viewer"]);
    server.stop().await
}

async fn nobody_locks_itself_out(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    let user_id = admin.user_id.clone();
    let disable = authorized(&admin.access_token, DisableUserRequest { user_id: user_id.clone() });
    assert_eq!(refusal(server.users().disable_user(disable).await).1, "INVALID_FIELD");
    let update = UpdateUserRequest { user_id, roles: Some(RoleSet::default()), ..Default::default() };
    let answer = server.users().update_user(authorized(&admin.access_token, update)).await;
    assert_eq!(refusal(answer).1, "INVALID_FIELD");
    server.stop().await
}

/// Makes a tenant with an admin, and signs that admin in.
async fn tenant_admin(
    server: &Server,
    root: &Person,
    tenant: &str,
) -> Result<Person, Box<dyn std::error::Error>> {
    let create = CreateTenantRequest { name: tenant.to_owned(), display_name: String::new() };
    server.tenants().create_tenant(authorized(&root.access_token, create)).await?;
    server.make_user_in(root, tenant, "boss", &["admin"]).await?;
    sign_in_to(server, tenant, "boss").await
}

async fn sign_in_to(server: &Server, tenant: &str, name: &str) -> Result<Person, Box<dyn std::error::Error>> {
    let request = LoginRequest { tenant: tenant.to_owned(), ..login_as(name, PASSWORD, "web") };
    Ok(server.auth().login(request).await?.into_inner().into())
}

async fn a_tenants_admin_reaches_its_own_tenant_and_no_other(home: Home) -> Outcome {
    let server = home.start().await?;
    let root = server.admin().await?;
    let blue = tenant_admin(&server, &root, "blue").await?;
    let red = tenant_admin(&server, &root, "red").await?;
    let of_red = server.make_user_in(&red, "", "anna", &[]).await?;
    let anna = sign_in_to(&server, "red", "anna").await?;

    let get = |by: &Person| authorized(&by.access_token, GetUserRequest { user_id: of_red.clone() });
    assert!(server.users().get_user(get(&red)).await.is_ok());
    assert!(server.users().get_user(get(&root)).await.is_ok(), "the admins of `default` reach every tenant");
    assert_eq!(refusal(server.users().get_user(get(&blue)).await), not_found());
    let disable = authorized(&blue.access_token, DisableUserRequest { user_id: of_red.clone() });
    assert_eq!(refusal(server.users().disable_user(disable).await), not_found());
    let update =
        UpdateUserRequest { user_id: of_red.clone(), email: Some("x@y".to_owned()), ..Default::default() };
    assert_eq!(
        refusal(server.users().update_user(authorized(&blue.access_token, update)).await),
        not_found()
    );
    let list = |tenant: &str| ListUsersRequest { tenant: tenant.to_owned(), ..Default::default() };
    assert_eq!(
        refusal(server.users().list_users(authorized(&blue.access_token, list("red"))).await),
        not_found()
    );
    assert_eq!(
        refusal(server.users().list_users(authorized(&blue.access_token, list("nowhere"))).await),
        not_found()
    );
    let create = CreateUserRequest {
        tenant: "red".to_owned(),
        username: "mole".to_owned(),
        password: PASSWORD.to_owned(),
        ..Default::default()
    };
    assert_eq!(
        refusal(server.users().create_user(authorized(&blue.access_token, create)).await),
        not_found()
    );
    let sessions = ListSessionsRequest { user_id: anna.user_id.clone(), ..Default::default() };
    let sessions = authorized(&blue.access_token, sessions);
    assert_eq!(refusal(server.session().list_sessions(sessions).await), not_found());

    let tenant = |name: &str| GetTenantRequest { name: name.to_owned(), ..Default::default() };
    assert!(server.tenants().get_tenant(authorized(&blue.access_token, tenant("blue"))).await.is_ok());
    assert_eq!(
        refusal(server.tenants().get_tenant(authorized(&blue.access_token, tenant("red"))).await),
        not_found()
    );
    let scope = denied();
    let list = authorized(&blue.access_token, ListTenantsRequest::default());
    assert_eq!(refusal(server.tenants().list_tenants(list).await), scope);
    let create = CreateTenantRequest { name: "green".to_owned(), display_name: String::new() };
    assert_eq!(
        refusal(server.tenants().create_tenant(authorized(&blue.access_token, create.clone())).await),
        scope
    );

    server.tenants().create_tenant(authorized(&root.access_token, create.clone())).await?;
    let again = server.tenants().create_tenant(authorized(&root.access_token, create)).await;
    assert_eq!(refusal(again), (Code::AlreadyExists, "ALREADY_EXISTS".to_owned()));
    let all =
        server.tenants().list_tenants(authorized(&root.access_token, ListTenantsRequest::default())).await?;
    let names: Vec<String> = all.into_inner().tenants.into_iter().map(|tenant| tenant.name).collect();
    assert_eq!(names, ["green", "red", "blue", "default"]);
    server.stop().await
}

async fn the_same_name_lives_in_two_tenants(home: Home) -> Outcome {
    let server = home.start().await?;
    let root = server.admin().await?;
    tenant_admin(&server, &root, "blue").await?;
    let here = server.anna().await?;
    server.make_user_in(&root, "blue", "anna", &[]).await?;
    let there = sign_in_to(&server, "blue", "anna").await?;
    assert_ne!(here.user_id, there.user_id);
    let list = |person: &Person| authorized(&person.access_token, ListSessionsRequest::default());
    assert_eq!(server.session().list_sessions(list(&here)).await?.into_inner().sessions.len(), 1);
    assert_eq!(server.session().list_sessions(list(&there)).await?.into_inner().sessions.len(), 1);
    server.stop().await
}
