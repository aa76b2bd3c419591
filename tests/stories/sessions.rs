//! Sessions: who sees them, what ends them.

use futures_util::future::try_join_all;
use tessera::proto::{
    CreateTenantRequest, GetSessionRequest, ListSessionsRequest, LoginRequest, LogoutAllRequest,
    LogoutRequest, RevokeSessionRequest, RevokeUserSessionsRequest, SessionInfo, SessionState,
};
use tonic::Code;

use crate::support::{
    Home, Outcome, PASSWORD, Person, Server, authorized, login_as, refresh_with, refusal, stories,
    timed_stories,
};

stories! {
    a_login_takes_the_place_of_the_one_on_the_same_type_of_device,
    fifty_logins_at_once_leave_one_live_session,
    several_sessions_on_a_type_of_device_when_allowed,
    the_oldest_session_gives_way_when_a_user_has_too_many,
    sessions_are_listed_in_pages,
    a_logout_is_obeyed_at_once,
    a_logout_of_all_ends_every_token,
    others_sessions_are_as_good_as_not_there,
    an_admin_ends_a_users_sessions,
    an_admin_of_a_tenant_reaches_its_own_users_alone,
}
timed_stories! {
    an_idle_session_expires,
    a_session_expires_however_busy,
}

async fn list(
    server: &Server,
    person: &Person,
    include_ended: bool,
) -> Result<Vec<SessionInfo>, tonic::Status> {
    let request = ListSessionsRequest { include_ended, ..Default::default() };
    let reply = server.session().list_sessions(authorized(&person.access_token, request)).await?;
    Ok(reply.into_inner().sessions)
}

async fn a_login_takes_the_place_of_the_one_on_the_same_type_of_device(home: Home) -> Outcome {
    let server = home.start().await?;
    let first = server.anna().await?;
    let phone = server.sign_in("anna", "mobile").await?;
    let second = server.sign_in("anna", "web").await?;
    assert_eq!(
        refusal(server.auth().logout(authorized(&first.access_token, LogoutRequest {})).await).1,
        "TOKEN_REVOKED"
    );
    let refresh = refresh_with(&first.refresh_token);
    assert_eq!(refusal(server.auth().refresh(refresh).await).1, "TOKEN_REVOKED");

    let live: Vec<String> = list(&server, &phone, false).await?.into_iter().map(|s| s.session_id).collect();
    assert_eq!(live, [second.session_id.clone(), phone.session_id.clone()]);
    let all = list(&server, &second, true).await?;
    assert_eq!(all.len(), 3);
    let replaced = all.iter().find(|session| session.session_id == first.session_id).ok_or("it is gone")?;
    assert_eq!(replaced.state(), SessionState::Ended);
    assert_eq!(replaced.end_reason, "replaced");
    assert!(replaced.end_time.is_some());
    server.stop().await
}

async fn fifty_logins_at_once_leave_one_live_session(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    server.make_user(&admin, "anna").await?;
    let logins = (0..50).map(|_| {
        let mut auth = server.auth();
        async move { auth.login(login_as("anna", PASSWORD, "web")).await }
    });
    let people: Vec<Person> =
        try_join_all(logins).await?.into_iter().map(|reply| reply.into_inner().into()).collect();

    let mut accepted = Vec::new();
    for person in &people {
        if let Ok(sessions) = list(&server, person, false).await {
            accepted.push((person.session_id.clone(), sessions));
        }
    }
    assert_eq!(accepted.len(), 1, "one of the fifty tokens is still good");
    let (session_id, sessions) = &accepted[0];
    assert_eq!(sessions.len(), 1);
    assert_eq!(&sessions[0].session_id, session_id);
    let live =
        "SELECT CAST(count(*) AS TEXT) AS first FROM sessions WHERE end_time IS NULL AND device_type = 'web'";
    assert_eq!(home.query(live).await?, ["1"]);
    let log = "SELECT CAST(max(revision) - count(*) AS TEXT) AS first FROM trust_log";
    assert_eq!(home.query(log).await?, ["0"], "the trust log has no gap");
    server.stop().await
}

async fn several_sessions_on_a_type_of_device_when_allowed(home: Home) -> Outcome {
    let server = home.start_with("[sessions]\nper_device_type = 2\n").await?;
    let first = server.anna().await?;
    let second = server.sign_in("anna", "web").await?;
    assert_eq!(list(&server, &first, false).await?.len(), 2);
    let third = server.sign_in("anna", "web").await?;
    assert_eq!(
        refusal(server.auth().logout(authorized(&first.access_token, LogoutRequest {})).await).1,
        "TOKEN_REVOKED"
    );
    let live: Vec<String> = list(&server, &third, false).await?.into_iter().map(|s| s.session_id).collect();
    assert_eq!(live, [third.session_id, second.session_id]);
    server.stop().await
}

async fn the_oldest_session_gives_way_when_a_user_has_too_many(home: Home) -> Outcome {
    let server = home.start_with("[sessions]\nper_user = 2\n").await?;
    let web = server.anna().await?;
    server.sign_in("anna", "mobile").await?;
    let desktop = server.sign_in("anna", "desktop").await?;
    assert_eq!(list(&server, &desktop, false).await?.len(), 2);
    let all = list(&server, &desktop, true).await?;
    let oldest = all.iter().find(|session| session.session_id == web.session_id).ok_or("it is gone")?;
    assert_eq!(oldest.end_reason, "limit");
    server.stop().await
}

async fn sessions_are_listed_in_pages(home: Home) -> Outcome {
    let server = home.start().await?;
    let mut newest = server.anna().await?;
    for kind in ["mobile", "desktop", "cli", "tv"] {
        newest = server.sign_in("anna", kind).await?;
    }
    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListSessionsRequest { page_size: 2, page_token, ..Default::default() };
        let reply =
            server.session().list_sessions(authorized(&newest.access_token, request)).await?.into_inner();
        assert!(reply.sessions.len() <= 2);
        seen.extend(reply.sessions.into_iter().filter_map(|session| Some(session.device?.r#type)));
        page_token = reply.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["tv", "cli", "desktop", "mobile", "web"]);
    server.stop().await
}

async fn a_logout_is_obeyed_at_once(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    server.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await?;
    assert_eq!(
        refusal(server.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await).1,
        "TOKEN_REVOKED"
    );
    let refresh = refresh_with(&anna.refresh_token);
    assert_eq!(
        refusal(server.auth().refresh(refresh).await),
        (Code::Unauthenticated, "TOKEN_REVOKED".to_owned())
    );
    server.stop().await
}

async fn a_logout_of_all_ends_every_token(home: Home) -> Outcome {
    let server = home.start().await?;
    let web = server.anna().await?;
    let phone = server.sign_in("anna", "mobile").await?;
    let reply = server.auth().logout_all(authorized(&web.access_token, LogoutAllRequest {})).await?;
    assert_eq!(reply.into_inner().ended_sessions, 2);
    for person in [&web, &phone] {
        assert_eq!(
            refusal(server.auth().logout(authorized(&person.access_token, LogoutRequest {})).await).1,
            "TOKEN_REVOKED"
        );
        let refresh = refresh_with(&person.refresh_token);
        assert_eq!(refusal(server.auth().refresh(refresh).await).1, "TOKEN_REVOKED");
    }
    let again = server.sign_in("anna", "web").await?;
    assert_eq!(list(&server, &again, false).await?.len(), 1, "a new login is not touched");
    server.stop().await
}

async fn others_sessions_are_as_good_as_not_there(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let admin = server.admin().await?;
    server.make_user(&admin, "bert").await?;
    let bert = server.sign_in("bert", "web").await?;
    let not_found = (Code::NotFound, "NOT_FOUND".to_owned());

    let session_id = anna.session_id.clone();
    let get = authorized(&bert.access_token, GetSessionRequest { session_id: session_id.clone() });
    assert_eq!(refusal(server.session().get_session(get).await), not_found);
    let revoke = authorized(&bert.access_token, RevokeSessionRequest { session_id: session_id.clone() });
    assert_eq!(refusal(server.session().revoke_session(revoke).await), not_found);
    let user_id = anna.user_id.clone();
    let list_hers = ListSessionsRequest { user_id: user_id.clone(), ..Default::default() };
    assert_eq!(
        refusal(server.session().list_sessions(authorized(&bert.access_token, list_hers)).await),
        not_found
    );
    let revoke_all = authorized(&bert.access_token, RevokeUserSessionsRequest { user_id });
    assert_eq!(refusal(server.session().revoke_user_sessions(revoke_all).await), not_found);
    let nowhere = GetSessionRequest { session_id: uuid::Uuid::from_u128(1).to_string() };
    assert_eq!(
        refusal(server.session().get_session(authorized(&bert.access_token, nowhere)).await),
        not_found
    );

    assert_eq!(list(&server, &anna, false).await?.len(), 1, "nothing happened to it");
    let own = authorized(&anna.access_token, RevokeSessionRequest { session_id });
    let ended = server.session().revoke_session(own).await?.into_inner().session.ok_or("no session")?;
    assert_eq!((ended.state(), ended.end_reason.as_str()), (SessionState::Ended, "revoked"));
    server.stop().await
}

async fn an_admin_ends_a_users_sessions(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let admin = server.admin().await?;
    let get = authorized(&admin.access_token, GetSessionRequest { session_id: anna.session_id.clone() });
    let session = server.session().get_session(get).await?.into_inner().session.ok_or("no session")?;
    assert_eq!(session.state(), SessionState::Active);
    assert_eq!(session.first_address, "127.0.0.1");
    assert!(session.user_agent.contains("tonic"));

    let revoke = RevokeUserSessionsRequest { user_id: anna.user_id.clone() };
    let reply = server.session().revoke_user_sessions(authorized(&admin.access_token, revoke)).await?;
    assert_eq!(reply.into_inner().ended_sessions, 1);
    assert!(list(&server, &anna, false).await.is_err());
    assert!(list(&server, &admin, false).await.is_ok(), "the admin's own session lives");
    server.stop().await
}

async fn an_admin_of_a_tenant_reaches_its_own_users_alone(home: Home) -> Outcome {
    let server = home.start().await?;
    let (anna, root) = (server.anna().await?, server.admin().await?);
    let blue = CreateTenantRequest { name: "blue".to_owned(), display_name: String::new() };
    server.tenants().create_tenant(authorized(&root.access_token, blue)).await?;
    server.make_user_in(&root, "blue", "boss", &["admin"]).await?;
    server.make_user_in(&root, "blue", "bert", &[]).await?;
    let in_blue = async |name: &str| {
        let login = LoginRequest { tenant: "blue".to_owned(), ..login_as(name, PASSWORD, "web") };
        Ok::<Person, tonic::Status>(server.auth().login(login).await?.into_inner().into())
    };
    let (boss, bert) = (in_blue("boss").await?, in_blue("bert").await?);
    let not_found = (Code::NotFound, "NOT_FOUND".to_owned());
    let token = &boss.access_token;

    let (session_id, user_id) = (anna.session_id.clone(), anna.user_id.clone());
    let get = GetSessionRequest { session_id: session_id.clone() };
    assert_eq!(refusal(server.session().get_session(authorized(token, get)).await), not_found);
    let revoke = RevokeSessionRequest { session_id };
    assert_eq!(refusal(server.session().revoke_session(authorized(token, revoke)).await), not_found);
    let list_hers = ListSessionsRequest { user_id: user_id.clone(), ..Default::default() };
    assert_eq!(refusal(server.session().list_sessions(authorized(token, list_hers)).await), not_found);
    let revoke_all = RevokeUserSessionsRequest { user_id };
    assert_eq!(
        refusal(server.session().revoke_user_sessions(authorized(token, revoke_all)).await),
        not_found
    );
    assert_eq!(list(&server, &anna, false).await?.len(), 1, "nothing happened to it");

    let list_his = ListSessionsRequest { user_id: bert.user_id.clone(), ..Default::default() };
    let his = server.session().list_sessions(authorized(token, list_his)).await?.into_inner().sessions;
    assert_eq!(his.iter().map(|session| &session.session_id).collect::<Vec<_>>(), [&bert.session_id]);
    let revoke = RevokeSessionRequest { session_id: bert.session_id.clone() };
    server.session().revoke_session(authorized(token, revoke)).await?;
    assert!(list(&server, &bert, false).await.is_err());
    let of_root = RevokeUserSessionsRequest { user_id: boss.user_id.clone() };
    server.session().revoke_user_sessions(authorized(&root.access_token, of_root)).await?;
    assert!(list(&server, &boss, false).await.is_err(), "an admin of `default` reaches everybody");
    server.stop().await
}

async fn an_idle_session_expires(home: Home) -> Outcome {
    let server = home.start_with("[sessions]\nidle_ttl = \"1h\"\n").await?;
    let anna = server.anna().await?;
    home.clock.advance(3600);
    let refresh = refresh_with(&anna.refresh_token);
    assert_eq!(
        refusal(server.auth().refresh(refresh).await),
        (Code::Unauthenticated, "TOKEN_EXPIRED".to_owned())
    );
    let again = server.sign_in("anna", "mobile").await?;
    let all = list(&server, &again, true).await?;
    let expired = all.iter().find(|session| session.session_id == anna.session_id).ok_or("it is gone")?;
    assert_eq!(expired.state(), SessionState::Expired);
    server.stop().await
}

async fn a_session_expires_however_busy(home: Home) -> Outcome {
    let server = home.start_with("[sessions]\nidle_ttl = \"1h\"\nabsolute_ttl = \"2h\"\n").await?;
    let mut anna = server.anna().await?;
    for _ in 0..3 {
        home.clock.advance(2300);
        let refresh = refresh_with(&anna.refresh_token);
        let tokens = server.auth().refresh(refresh).await?.into_inner().tokens.ok_or("no tokens")?;
        let ends = |time: Option<prost_types::Timestamp>| time.map(|time| time.seconds);
        assert!(
            ends(tokens.access_expire_time) <= ends(tokens.refresh_expire_time),
            "no token outlives its session"
        );
        anna.refresh_token = tokens.refresh_token;
    }
    home.clock.advance(300);
    let refresh = refresh_with(&anna.refresh_token);
    assert_eq!(refusal(server.auth().refresh(refresh).await).1, "TOKEN_EXPIRED");
    server.stop().await
}
