//! Signing in and up, and passwords.

use futures_util::future::join_all;
use tessera::proto::{
    ChangePasswordRequest, ListSessionsRequest, LogoutRequest, SignUpRequest, VerifyTokenRequest,
};
use tonic::Code;

use crate::support::{
    ADMIN_PASSWORD, Home, Outcome, PASSWORD, authorized, device, login_as, refresh_with, refusal, stories,
    timed_stories,
};

stories! {
    a_login_gives_tokens_that_verify,
    unknown_user_unknown_tenant_and_wrong_password_get_one_answer,
    a_name_is_the_same_in_any_case_and_form,
    sign_up_is_closed_unless_opened,
    whoever_signs_up_is_signed_in,
    a_new_password_ends_the_other_sessions,
    a_new_password_can_end_all_sessions,
    a_bad_new_password_changes_nothing,
    a_password_that_must_change_allows_nothing_else,
}
timed_stories! { a_login_rehashes_when_the_parameters_changed }

async fn a_login_gives_tokens_that_verify(home: Home) -> Outcome {
    let server = home.start().await?;
    let reply = server.auth().login(login_as("admin", ADMIN_PASSWORD, "cli")).await?.into_inner();
    let tokens = reply.tokens.ok_or("no tokens")?;
    assert_eq!(tokens.token_type, "Bearer");
    assert!(tokens.refresh_token.starts_with("trt_"));
    assert!(!reply.password_change_required);

    let token = tokens.access_token.clone();
    let answer =
        server.auth().verify_token(VerifyTokenRequest { token, ..Default::default() }).await?.into_inner();
    assert!(answer.active, "{answer:?}");
    let claims = answer.claims.ok_or("no claims")?;
    let session = reply.session.ok_or("no session")?;
    assert_eq!(claims.sid, session.session_id);
    assert_eq!(claims.sub, session.user_id);
    assert_eq!(claims.aud, ["tessera"]);
    assert_eq!(claims.roles, ["admin"]);
    assert_eq!(claims.device_type, "cli");
    assert_eq!(claims.amr, ["pwd"]);
    assert_eq!(claims.expire_time, tokens.access_expire_time);
    assert!(claims.email.is_empty() && claims.preferred_username.is_empty(), "nobody asked for them");
    server.stop().await
}

async fn unknown_user_unknown_tenant_and_wrong_password_get_one_answer(home: Home) -> Outcome {
    let server = home.start().await?;
    let wrong_password = login_as("admin", PASSWORD, "cli");
    let unknown_user = login_as("nobody", PASSWORD, "cli");
    let mut unknown_tenant = login_as("admin", ADMIN_PASSWORD, "cli");
    unknown_tenant.tenant = "nowhere".to_owned();
    let mut answers = Vec::new();
    for request in [wrong_password, unknown_user, unknown_tenant] {
        let status = server.auth().login(request).await.expect_err("it was to be refused");
        answers.push((status.code(), status.message().to_owned(), status.details().to_owned()));
    }
    assert_eq!(answers[0].0, Code::Unauthenticated);
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    server.stop().await
}

async fn a_name_is_the_same_in_any_case_and_form(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    server.make_user(&admin, "Ångström").await?;
    // A with ring above; A and a combining ring; the sign for the unit.
    for name in ["\u{e5}ngström", "A\u{30a}ngstro\u{308}m", "\u{212b}NGSTRÖM"] {
        assert!(server.sign_in(name, "web").await.is_ok(), "{name}");
    }
    let taken = server.make_user(&admin, "ÅNGSTRÖM").await.expect_err("the name is taken");
    assert!(taken.to_string().contains("already"), "{taken}");
    server.stop().await
}

async fn sign_up_is_closed_unless_opened(home: Home) -> Outcome {
    let server = home.start().await?;
    let answer = server.auth().sign_up(sign_up("bert")).await;
    assert_eq!(refusal(answer), (Code::PermissionDenied, "SIGNUP_CLOSED".to_owned()));
    server.stop().await
}

fn sign_up(username: &str) -> SignUpRequest {
    SignUpRequest {
        username: username.to_owned(),
        password: PASSWORD.to_owned(),
        email: "bert@example.com".to_owned(),
        device: device("web"),
        scope: vec!["email".to_owned(), "profile".to_owned()],
        ..SignUpRequest::default()
    }
}

async fn whoever_signs_up_is_signed_in(home: Home) -> Outcome {
    let server = home.start_with("[accounts]\nsignup = \"open\"\n").await?;
    let reply = server.auth().sign_up(sign_up("bert")).await?.into_inner();
    let token = reply.tokens.ok_or("no tokens")?.access_token;
    let request =
        VerifyTokenRequest { token, required_scopes: vec!["email".to_owned()], ..Default::default() };
    let claims = server.auth().verify_token(request).await?.into_inner().claims.ok_or("no claims")?;
    assert_eq!(claims.email, "bert@example.com");
    assert_eq!(claims.preferred_username, "bert");
    assert!(claims.roles.is_empty());

    let again = server.auth().sign_up(sign_up("BERT")).await;
    assert_eq!(refusal(again), (Code::AlreadyExists, "ALREADY_EXISTS".to_owned()));
    let mut elsewhere = sign_up("bert");
    elsewhere.tenant = "nowhere".to_owned();
    assert_eq!(refusal(server.auth().sign_up(elsewhere).await).1, "INVALID_FIELD");
    server.stop().await
}

fn change(current: &str, new: &str, end_all_sessions: bool) -> ChangePasswordRequest {
    ChangePasswordRequest {
        current_password: current.to_owned(),
        new_password: new.to_owned(),
        end_all_sessions,
    }
}

async fn a_new_password_ends_the_other_sessions(home: Home) -> Outcome {
    let server = home.start().await?;
    let web = server.anna().await?;
    let phone = server.sign_in("anna", "mobile").await?;
    let request = authorized(&web.access_token, change(PASSWORD, "another secret", false));
    let reply = server.auth().change_password(request).await?.into_inner();
    assert_eq!(reply.ended_sessions, 1);

    let list = |token: &str| authorized(token, ListSessionsRequest::default());
    assert!(server.session().list_sessions(list(&web.access_token)).await.is_ok());
    let ended = server.session().list_sessions(list(&phone.access_token)).await;
    assert_eq!(refusal(ended), (Code::Unauthenticated, "TOKEN_REVOKED".to_owned()));
    assert_eq!(
        refusal(server.auth().login(login_as("anna", PASSWORD, "web")).await).1,
        "INVALID_CREDENTIALS"
    );
    assert!(server.auth().login(login_as("anna", "another secret", "web")).await.is_ok());
    server.stop().await
}

async fn a_new_password_can_end_all_sessions(home: Home) -> Outcome {
    let server = home.start().await?;
    let web = server.anna().await?;
    server.sign_in("anna", "mobile").await?;
    let request = authorized(&web.access_token, change(PASSWORD, "another secret", true));
    assert_eq!(server.auth().change_password(request).await?.into_inner().ended_sessions, 2);
    let logout = server.auth().logout(authorized(&web.access_token, LogoutRequest {})).await;
    assert_eq!(refusal(logout).1, "TOKEN_REVOKED");
    let refresh = refresh_with(&web.refresh_token);
    assert_eq!(refusal(server.auth().refresh(refresh).await).1, "TOKEN_REVOKED");
    server.stop().await
}

async fn a_bad_new_password_changes_nothing(home: Home) -> Outcome {
    let server = home.start().await?;
    let web = server.anna().await?;
    let long = "x".repeat(129);
    let cases = [
        (PASSWORD, "short", "INVALID_FIELD"),
        (PASSWORD, long.as_str(), "INVALID_FIELD"),
        (PASSWORD, "Password1", "INVALID_FIELD"),
        (PASSWORD, PASSWORD, "INVALID_FIELD"),
        (PASSWORD, "", "INVALID_FIELD"),
        ("not the password", "another secret", "INVALID_CREDENTIALS"),
    ];
    for (current, new, expected) in cases {
        let request = authorized(&web.access_token, change(current, new, true));
        assert_eq!(refusal(server.auth().change_password(request).await).1, expected, "{new:.20}");
    }
    assert!(server.sign_in("anna", "web").await.is_ok());
    server.stop().await
}

async fn a_password_that_must_change_allows_nothing_else(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    let request = tessera::proto::CreateUserRequest {
        username: "anna".to_owned(),
        password: PASSWORD.to_owned(),
        roles: vec!["admin".to_owned()],
        password_change_required: true,
        ..Default::default()
    };
    server.users().create_user(authorized(&admin.access_token, request)).await?;
    let mut login = login_as("anna", PASSWORD, "web");
    login.audience = vec!["orders".to_owned(), "tessera".to_owned()];
    let reply = server.auth().login(login).await?.into_inner();
    assert!(reply.password_change_required);
    let tokens = reply.tokens.ok_or("no tokens")?;

    let list = authorized(&tokens.access_token, ListSessionsRequest::default());
    let list = server.session().list_sessions(list).await;
    assert_eq!(refusal(list), (Code::PermissionDenied, "PASSWORD_CHANGE_REQUIRED".to_owned()));
    let token = tokens.access_token.clone();
    let request = VerifyTokenRequest { token, audience: "orders".to_owned(), ..Default::default() };
    assert!(!server.auth().verify_token(request).await?.into_inner().active, "good for no other service");

    let request = authorized(&tokens.access_token, change(PASSWORD, "another secret", false));
    server.auth().change_password(request).await?;
    let refresh = refresh_with(&tokens.refresh_token);
    let next = server.auth().refresh(refresh).await?.into_inner().tokens.ok_or("no tokens")?;
    let list = authorized(&next.access_token, ListSessionsRequest::default());
    assert!(server.session().list_sessions(list).await.is_ok());
    let request =
        VerifyTokenRequest { token: next.access_token, audience: "orders".to_owned(), ..Default::default() };
    assert!(server.auth().verify_token(request).await?.into_inner().active, "what was asked for at login");
    server.stop().await
}

async fn a_login_rehashes_when_the_parameters_changed(home: Home) -> Outcome {
    let hashes = "SELECT password_hash AS first FROM users WHERE username = 'admin'";
    let server = home.start_with("[passwords]\nargon2_memory_kib = 64\nargon2_time = 1\n").await?;
    assert!(home.query(hashes).await?[0].starts_with("$argon2id$v=19$m=64,t=1,p=1$"));
    server.stop().await?;

    let server = home.start_with("[passwords]\nargon2_memory_kib = 128\nargon2_time = 1\n").await?;
    server.admin().await?;
    assert!(home.query(hashes).await?[0].starts_with("$argon2id$v=19$m=128,t=1,p=1$"));
    server.admin().await?;
    server.stop().await?;

    // The first of them renews the hash that the others have compared.
    let server = home.start_with("[passwords]\nargon2_memory_kib = 64\nargon2_time = 2\n").await?;
    let logins = (0..6).map(|number| {
        let mut auth = server.auth();
        async move { auth.login(login_as("admin", ADMIN_PASSWORD, &format!("device-{number}"))).await }
    });
    for login in join_all(logins).await {
        login?;
    }
    server.stop().await
}
