//! The guard in front of a service: who is let in, and what everybody else is told, over gRPC and over HTTP.

use std::{sync::Arc, time::Duration};

use tessera::{
    proto::{LogoutRequest, RoleSet, UpdateUserRequest},
    verifier::{ConnectBuilder, Guard, GuardInterceptor, Requirement, Verifier},
};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;

use crate::support::{
    Guarded, Home, Outcome, Server, ShiftedClock, TestClock, audience_token, authorized, eventually, refusal,
    story, timed_stories,
};

timed_stories! {
    each_refusal_has_its_row,
    a_path_requires_scopes_and_roles,
    one_service_is_guarded_by_an_interceptor,
}
story!(a_verifier_that_lost_contact_says_so, sqlite: BinarySqlite);

const CHECK: &str = "/grpc.health.v1.Health/Check";

fn connect(server: &Server, clock: Arc<TestClock>) -> ConnectBuilder {
    Verifier::connect(server.url()).issuer("http://127.0.0.1:50051").audience("orders").clock(clock)
}

/// What the service answers over gRPC; OK and nothing where the call gets past the guard.
async fn by_grpc(service: &Guarded, token: &str) -> Result<(Code, String), Box<dyn std::error::Error>> {
    let request = authorized(token, HealthCheckRequest::default());
    match service.health()?.check(request).await {
        Ok(_) => Ok((Code::Ok, String::new())),
        Err(status) => Ok(refusal::<()>(Err(status))),
    }
}

/// What it answers over HTTP: the status, and the challenge or when to try again.
async fn by_http(
    service: &Guarded,
    path: &str,
    authorization: &[&str],
) -> Result<(u16, String), Box<dyn std::error::Error>> {
    let page = service.get(path, authorization).await?;
    let status = page.split(' ').nth(1).ok_or("no status")?.parse()?;
    let told = page.lines().find_map(|line| {
        line.strip_prefix("www-authenticate: ").or_else(|| line.strip_prefix("retry-after: "))
    });
    Ok((status, told.unwrap_or_default().to_owned()))
}

async fn each_refusal_has_its_row(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let long = Duration::from_secs(100_000);
    let verifier = connect(&server, home.clock.clone()).max_staleness(long).start().await?;
    let service = Guarded::start(Guard::new(verifier.clone()).allow_anonymous("/public")).await?;

    let expired = audience_token(&server, "anna", &["orders"], &[]).await?;
    home.clock.advance(2000);
    let revoked = audience_token(&server, "anna", &["orders", "tessera"], &[]).await?;
    server.auth().logout(authorized(&revoked, LogoutRequest {})).await?;
    eventually("the logout is heard", async || Ok(verifier.check(&revoked).await.is_err())).await?;
    let foreign = audience_token(&server, "anna", &["billing"], &[]).await?;
    let good = audience_token(&server, "anna", &["orders"], &[]).await?;

    let invalid = |told: &str| format!("Bearer error=\"invalid_token\", error_description=\"{told}\"");
    for (token, code, reason, status, challenge) in [
        (&good, Code::Ok, "", 200, String::new()),
        (&expired, Code::Unauthenticated, "TOKEN_EXPIRED", 401, invalid("the token has expired")),
        (&revoked, Code::Unauthenticated, "TOKEN_REVOKED", 401, invalid("the token was revoked")),
        (&foreign, Code::Unauthenticated, "TOKEN_INVALID", 401, invalid("the token is not valid here")),
        (&"a.b.c".to_owned(), Code::InvalidArgument, "TOKEN_MALFORMED", 400, {
            "Bearer error=\"invalid_request\", error_description=\"not a token\"".to_owned()
        }),
    ] {
        assert_eq!(by_grpc(&service, token).await?, (code, reason.to_owned()));
        let bearer = format!("Bearer {token}");
        assert_eq!(by_http(&service, "/greet", &[&bearer]).await?, (status, challenge), "{reason}");
    }

    let missing = (Code::Unauthenticated, "TOKEN_MISSING".to_owned());
    assert_eq!(refusal(service.health()?.check(HealthCheckRequest::default()).await), missing);
    assert_eq!(by_http(&service, "/greet", &[]).await?, (401, "Bearer".to_owned()));
    assert_eq!(by_http(&service, "/greet", &["Basic YTpi"]).await?, (401, "Bearer".to_owned()));
    let bearer = format!("Bearer {good}");
    assert_eq!(by_http(&service, "/greet", &[&bearer, &bearer]).await?.0, 400, "two tokens");
    assert_eq!(by_http(&service, "/greet", &["Bearer"]).await?.0, 400);
    let lower = format!("bearer {good}");
    assert!(service.get("/greet", &[&lower]).await?.ends_with(&format!("hello {}", anna.user_id)));

    assert!(service.get("/public", &[]).await?.ends_with("hello"), "nobody is known there");
    assert!(service.get("/public", &[&bearer]).await?.ends_with("hello"), "whoever it is");
    assert_eq!(by_http(&service, "/public/", &[]).await?.0, 401, "another path");
    let posing = service.get_with("/greet", &["content-type: application/grpc".to_owned()]).await?;
    assert!(posing.starts_with("HTTP/1.1 401"), "it is no gRPC call: {posing}");
    server.stop().await
}

async fn a_path_requires_scopes_and_roles(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let admin = server.admin().await?;
    let roles = ["clerk", "night"].map(str::to_owned).to_vec();
    let change = UpdateUserRequest {
        user_id: anna.user_id.clone(),
        roles: Some(RoleSet { roles }),
        ..Default::default()
    };
    server.users().update_user(authorized(&admin.access_token, change)).await?;
    let verifier = connect(&server, home.clock.clone()).start().await?;
    let token = audience_token(&server, "anna", &["orders"], &["orders:read", "orders:write"]).await?;
    let insufficient = (Code::PermissionDenied, "INSUFFICIENT_SCOPE".to_owned());
    let passes = (Code::Ok, String::new());

    for (requirement, expected) in [
        (Requirement::good_token(), &passes),
        (Requirement::scopes(["orders:read"]), &passes),
        (Requirement::scopes(["orders:read", "orders:write"]), &passes),
        (Requirement::scopes(["orders:read", "orders:delete"]), &insufficient),
        (Requirement::good_token().roles(["clerk", "night"]), &passes),
        (Requirement::good_token().roles(["clerk", "day"]), &insufficient),
        (Requirement::good_token().any_role(["clerk", "day"]), &passes),
        (Requirement::good_token().any_role(["day"]), &insufficient),
        (Requirement::scopes(["orders:delete"]).any_role(["clerk"]), &insufficient),
        (Requirement::nobody(), &insufficient),
    ] {
        let by_method = Guard::new(verifier.clone()).require(CHECK, requirement.clone());
        let by_service = Guard::new(verifier.clone())
            .others(Requirement::nobody())
            .require("/grpc.health.v1.Health/*", requirement.clone());
        let by_default = Guard::new(verifier.clone()).others(requirement.clone());
        for guard in [by_method, by_service, by_default] {
            let service = Guarded::start(guard).await?;
            assert_eq!(by_grpc(&service, &token).await?, *expected, "{requirement:?}");
        }
    }

    let guard = Guard::new(verifier).require("/greet", Requirement::scopes(["a", "b"]));
    let service = Guarded::start(guard).await?;
    let (status, challenge) = by_http(&service, "/greet", &[&format!("Bearer {token}")]).await?;
    assert_eq!(status, 403);
    assert!(challenge.starts_with("Bearer error=\"insufficient_scope\""), "{challenge}");
    assert!(challenge.ends_with(", scope=\"a b\""), "{challenge}");
    server.stop().await
}

async fn one_service_is_guarded_by_an_interceptor(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let verifier = connect(&server, home.clock.clone()).start().await?;
    let token = audience_token(&server, "anna", &["orders"], &["orders:read"]).await?;
    for (requirement, expected) in [
        (Requirement::scopes(["orders:read"]), (Code::Ok, "")),
        (Requirement::scopes(["orders:write"]), (Code::PermissionDenied, "INSUFFICIENT_SCOPE")),
    ] {
        let service =
            Guarded::start_intercepted(GuardInterceptor::new(verifier.clone(), requirement)).await?;
        assert_eq!(by_grpc(&service, &token).await?, (expected.0, expected.1.to_owned()));
        assert_eq!(refusal(service.health()?.check(HealthCheckRequest::default()).await).1, "TOKEN_MISSING");
        assert_eq!(by_grpc(&service, "a.b.c").await?.1, "TOKEN_MALFORMED");
    }
    server.stop().await
}

async fn a_verifier_that_lost_contact_says_so(home: Home) -> Outcome {
    let server = home.start_with("[signing]\nendorse_in_header = false\n").await?;
    server.anna().await?;
    let token = audience_token(&server, "anna", &["orders"], &[]).await?;
    let clock = Arc::new(ShiftedClock::default());
    let verifier = Verifier::connect(server.url()).issuer("http://127.0.0.1:50051").audience("orders");
    let verifier = verifier.lookups_per_second(1).clock(clock.clone()).start().await?;
    let service = Guarded::start(Guard::new(verifier.clone())).await?;
    let bearer = format!("Bearer {token}");
    assert_eq!(by_grpc(&service, &token).await?.0, Code::Ok, "its key is asked for");
    let other = audience_token(&server, "anna", &["orders"], &[]).await?;
    assert_eq!(by_grpc(&service, &other).await?, (Code::ResourceExhausted, "OVERLOADED".to_owned()));
    let other = format!("Bearer {other}");
    assert_eq!(by_http(&service, "/greet", &[&other]).await?, (429, "1".to_owned()));

    server.kill().await?;
    clock.shift(31);
    assert_eq!(by_grpc(&service, &token).await?, (Code::Unavailable, "ISSUER_UNAVAILABLE".to_owned()));
    assert_eq!(by_http(&service, "/greet", &[&bearer]).await?, (503, "1".to_owned()));
    Ok(())
}
