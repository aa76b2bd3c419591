//! Tenants whose sessions keep to rules of their own.

use prost_types::{Duration, Timestamp};
use tessera::proto::{
    CreateTenantRequest, GetTenantRequest, LoginRequest, SessionInfo, SessionReaction, Tenant, TenantSessions,
};
use tonic::Code;

use crate::support::{
    BEHIND_A_PROXY, Home, Kind, Outcome, PASSWORD, Person, Server, authorized, device, eventually, login_as,
    reason, refresh_at, refresh_with, refusal, stories, timed_stories,
};

stories! {
    a_tenant_has_as_many_sessions_as_it_wants,
    a_tenant_reacts_as_it_wants,
    rules_that_make_no_sense_are_refused,
}
timed_stories! {
    a_tenants_sessions_live_as_long_as_it_wants,
    a_session_follows_a_new_idle_limit_at_its_next_refresh,
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const HOUR: i64 = 3600;

fn hours(hours: i64) -> Option<Duration> {
    Some(Duration { seconds: hours * HOUR, nanos: 0 })
}

/// An admin, and a new tenant with a user `anna`.
async fn blue(server: &Server) -> Result<(Person, Tenant)> {
    let admin = server.admin().await?;
    let request = CreateTenantRequest { name: "blue".to_owned(), display_name: String::new() };
    let made = server.tenants().create_tenant(authorized(&admin.access_token, request)).await?;
    server.make_user_in(&admin, "blue", "anna", &[]).await?;
    Ok((admin, made.into_inner().tenant.ok_or("no tenant")?))
}

async fn sign_in(server: &Server, kind: &str) -> Result<(Person, SessionInfo)> {
    let login = LoginRequest { tenant: "blue".to_owned(), ..login_as("anna", PASSWORD, kind) };
    let reply = server.auth().login(login).await?.into_inner();
    let session = reply.session.clone().ok_or("no session")?;
    Ok((reply.into(), session))
}

/// Seconds from the one to the other.
fn between(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<i64> {
    Some(to?.seconds - from?.seconds)
}

async fn a_tenant_has_as_many_sessions_as_it_wants(home: Home) -> Outcome {
    let server = home.start().await?;
    let (admin, tenant) = blue(&server).await?;
    assert_eq!(tenant.session_policy, None);
    let policy = TenantSessions { per_device_type: Some(2), per_user: Some(3), ..TenantSessions::default() };
    let changed = server.set_session_policy(&admin, &tenant.tenant_id, policy).await?;
    assert_eq!(changed.session_policy, Some(policy));
    let get = GetTenantRequest { name: "blue".to_owned(), ..GetTenantRequest::default() };
    let shown = server.tenants().get_tenant(authorized(&admin.access_token, get)).await?.into_inner();
    assert_eq!(shown.tenant.and_then(|tenant| tenant.session_policy), Some(policy));

    let (first, _) = sign_in(&server, "web").await?;
    let (second, _) = sign_in(&server, "web").await?;
    let (third, _) = sign_in(&server, "web").await?;
    let ended = |person: &Person| {
        let id = person.session_id.clone();
        let (server, admin) = (&server, &admin);
        async move { Ok::<_, Box<dyn std::error::Error>>(server.session_of(admin, &id).await?.end_reason) }
    };
    assert_eq!((ended(&first).await?, ended(&second).await?), ("replaced".to_owned(), String::new()));
    sign_in(&server, "mobile").await?;
    sign_in(&server, "cli").await?;
    assert_eq!((ended(&second).await?, ended(&third).await?), ("limit".to_owned(), String::new()));

    server.make_user(&admin, "bert").await?;
    let bert = server.sign_in("bert", "web").await?;
    server.sign_in("bert", "web").await?;
    assert_eq!(ended(&bert).await?, "replaced", "other tenants follow the settings");

    let none = server.set_session_policy(&admin, &tenant.tenant_id, TenantSessions::default()).await?;
    assert_eq!(none.session_policy, None);
    sign_in(&server, "web").await?;
    assert_eq!(ended(&third).await?, "replaced", "it follows the settings again");
    server.stop().await
}

async fn a_tenant_reacts_as_it_wants(home: Home) -> Outcome {
    let server = home.start_with(BEHIND_A_PROXY).await?;
    let (admin, tenant) = blue(&server).await?;
    let mut policy = TenantSessions::default();
    policy.set_on_address_change(SessionReaction::Reauthenticate);
    policy.set_on_device_change(SessionReaction::Ignore);
    let told = server.set_session_policy(&admin, &tenant.tenant_id, policy).await?.session_policy;
    assert_eq!(told, Some(policy));
    let (anna, _) = sign_in(&server, "web").await?;
    let elsewhere = refresh_at("198.51.100.7", &anna.refresh_token, None);
    assert_eq!(
        refusal(server.auth().refresh(elsewhere).await),
        (Code::Unauthenticated, "REAUTHENTICATION_REQUIRED".to_owned())
    );
    let other_device = device("mobile");
    server.auth().refresh(refresh_at("127.0.0.1", &anna.refresh_token, other_device)).await?;

    server.make_user(&admin, "bert").await?;
    let bert = server.sign_in("bert", "web").await?;
    server.refresh_at("198.51.100.7", &bert.refresh_token).await?;
    server.stop().await
}

async fn rules_that_make_no_sense_are_refused(home: Home) -> Outcome {
    let server = home.start().await?;
    let (admin, tenant) = blue(&server).await?;
    let none = TenantSessions::default;
    let wrong = [
        TenantSessions { per_device_type: Some(0), ..none() },
        TenantSessions { per_user: Some(-1), ..none() },
        TenantSessions { idle_ttl: Some(Duration { seconds: 0, nanos: 999_999_999 }), ..none() },
        TenantSessions { idle_ttl: Some(Duration { seconds: -1, nanos: 0 }), ..none() },
        TenantSessions { absolute_ttl: hours(101 * 365 * 24), ..none() },
        TenantSessions { absolute_ttl: Some(Duration { seconds: i64::MAX, nanos: i32::MAX }), ..none() },
        TenantSessions { on_address_change: Some(0), ..none() },
        TenantSessions { on_device_change: Some(99), ..none() },
    ];
    for policy in wrong {
        let refused = server.set_session_policy(&admin, &tenant.tenant_id, policy).await;
        assert_eq!(
            refused.as_ref().map_err(|status| (status.code(), reason(status))),
            Err((Code::InvalidArgument, "INVALID_FIELD".to_owned())),
            "{policy:?}"
        );
    }
    let stored = "SELECT CAST(count(*) AS TEXT) AS first FROM tenants WHERE session_policy IS NOT NULL";
    assert_eq!(home.query(stored).await?, ["0"]);
    server.make_user_in(&admin, "blue", "boss", &["admin"]).await?;
    let login = LoginRequest { tenant: "blue".to_owned(), ..login_as("boss", PASSWORD, "web") };
    let boss: Person = server.auth().login(login).await?.into_inner().into();
    let refused = server.set_session_policy(&boss, &tenant.tenant_id, none()).await;
    assert_eq!(refused.map_err(|status| status.code()), Err(Code::PermissionDenied));
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_follows() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let quick = "[database]\npoll_interval = \"50ms\"\n";
    let (here, there) = (home.start_with(quick).await?, home.start_with(quick).await?);
    let (admin, tenant) = blue(&here).await?;
    let policy = TenantSessions { absolute_ttl: hours(1), ..TenantSessions::default() };
    here.set_session_policy(&admin, &tenant.tenant_id, policy).await?;
    eventually("the other one follows", async || {
        let (_, session) = sign_in(&there, "web").await?;
        Ok(between(session.create_time, session.expire_time) == Some(HOUR))
    })
    .await?;
    there.stop().await?;
    let again = home.start().await?;
    let (_, session) = sign_in(&again, "web").await?;
    assert_eq!(between(session.create_time, session.expire_time), Some(HOUR), "and so does one that starts");
    again.stop().await?;
    here.stop().await
}

async fn a_tenants_sessions_live_as_long_as_it_wants(home: Home) -> Outcome {
    let server = home.start().await?;
    let (admin, tenant) = blue(&server).await?;
    let (old, _) = sign_in(&server, "old").await?;
    let policy = TenantSessions { idle_ttl: hours(1), absolute_ttl: hours(2), ..TenantSessions::default() };
    server.set_session_policy(&admin, &tenant.tenant_id, policy).await?;
    let (new, session) = sign_in(&server, "web").await?;
    assert_eq!(between(session.create_time, session.idle_expire_time), Some(HOUR));
    assert_eq!(between(session.create_time, session.expire_time), Some(2 * HOUR));

    home.clock.advance(HOUR - 1);
    let refreshed = server.auth().refresh(refresh_with(&new.refresh_token)).await?.into_inner();
    let tokens = refreshed.tokens.ok_or("no tokens")?;
    assert_eq!(between(session.create_time, tokens.refresh_expire_time), Some(2 * HOUR - 1));
    home.clock.advance(HOUR);
    assert_eq!(
        refusal(server.auth().refresh(refresh_with(&tokens.refresh_token)).await).1,
        "TOKEN_EXPIRED",
        "it was idle for an hour"
    );
    server.auth().refresh(refresh_with(&old.refresh_token)).await?;
    let admin = server.admin().await?;
    let old = server.session_of(&admin, &old.session_id).await?;
    assert_eq!(between(old.create_time, old.expire_time), Some(90 * 24 * HOUR), "its end never moves");
    server.stop().await
}

async fn a_session_follows_a_new_idle_limit_at_its_next_refresh(home: Home) -> Outcome {
    let server = home.start().await?;
    let (admin, tenant) = blue(&server).await?;
    let (anna, _) = sign_in(&server, "web").await?;
    let policy = TenantSessions { idle_ttl: hours(1), ..TenantSessions::default() };
    server.set_session_policy(&admin, &tenant.tenant_id, policy).await?;
    home.clock.advance(2 * HOUR);
    let tokens = server.auth().refresh(refresh_with(&anna.refresh_token)).await?.into_inner().tokens;
    let tokens = tokens.ok_or("no tokens")?;
    home.clock.advance(HOUR);
    assert_eq!(refusal(server.auth().refresh(refresh_with(&tokens.refresh_token)).await).1, "TOKEN_EXPIRED");
    server.stop().await
}
