//! The issuer's keys: their order by hand and by schedule, on one replica and on three, and what happens when one is
//! withdrawn or can't be used.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta};
use futures_util::future::{join_all, try_join_all};
use serde_json::Value;
use tessera::{
    clock::{Clock, SystemClock},
    proto::{
        ActivateKeyRequest, GetJwksRequest, IssuerKey, KeyState, ListKeysRequest, PrepareKeyRequest,
        RevokeKeyRequest, TenantSigning, UpdateTenantRequest,
    },
    verifier::{Expected, PublicKey, Refusal, Verifier},
};
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::support::{
    Home, Kind, Outcome, PASSWORD, Person, Server, authorized, eventually, login_as, refresh_with, refusal,
    stories, timed_stories,
};

stories! {
    keys_are_asked_for_only_when_they_changed,
    a_withdrawn_key_takes_everything_that_it_signed_along,
}
timed_stories! {
    by_hand_a_key_signs_only_in_its_turn,
    the_schedule_keeps_itself_for_a_year,
    a_key_that_nobody_rotates_stops_signing,
    a_tenant_moves_to_another_algorithm,
}

const QUICK: &str = "[database]\npoll_interval = \"10ms\"\n";
const MINUTE: i64 = 60;
const DAY: i64 = 24 * 60 * MINUTE;

impl Server {
    async fn issuer_keys(&self, admin: &Person) -> Result<Vec<IssuerKey>, Status> {
        let request = authorized(&admin.access_token, ListKeysRequest {});
        Ok(self.keys().list_keys(request).await?.into_inner().keys)
    }

    async fn prepare(&self, admin: &Person) -> Result<IssuerKey, Status> {
        let request = authorized(&admin.access_token, PrepareKeyRequest::default());
        Ok(self.keys().prepare_key(request).await?.into_inner().key.unwrap_or_default())
    }

    async fn activate(&self, admin: &Person, kid: &str) -> Result<IssuerKey, Status> {
        let request = authorized(&admin.access_token, ActivateKeyRequest { kid: kid.to_owned() });
        Ok(self.keys().activate_key(request).await?.into_inner().key.unwrap_or_default())
    }

    async fn revoke(&self, admin: &Person, kid: &str) -> Result<Option<IssuerKey>, Status> {
        let request = authorized(&admin.access_token, RevokeKeyRequest { kid: kid.to_owned() });
        Ok(self.keys().revoke_key(request).await?.into_inner().successor)
    }

    async fn published(&self) -> Result<Vec<String>, Status> {
        let reply = self.keys().get_jwks(GetJwksRequest::default()).await?.into_inner();
        Ok(reply.keys.into_iter().map(|key| key.kid).collect())
    }

    async fn health_of(&self, service: &str) -> Result<ServingStatus, Status> {
        let request = HealthCheckRequest { service: service.to_owned() };
        Ok(self.health().check(request).await?.into_inner().status())
    }
}

fn in_state(keys: &[IssuerKey], state: KeyState) -> Vec<String> {
    keys.iter().filter(|key| key.state() == state).map(|key| key.kid.clone()).collect()
}

/// The part of a token, as JSON.
fn part(token: &str, place: usize) -> Result<Value, Box<dyn Error>> {
    let part = token.split('.').nth(place).ok_or("no such part")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part)?)?)
}

/// The issuer key that vouches for the key of a session's token.
fn endorsed_by(token: &str) -> Result<String, Box<dyn Error>> {
    let skc = part(token, 0)?["skc"].as_str().ok_or("no endorsement")?.to_owned();
    Ok(part(&skc, 0)?["kid"].as_str().ok_or("no kid")?.to_owned())
}

async fn signing_kid(server: &Server) -> Result<String, Box<dyn Error>> {
    endorsed_by(&server.sign_in("anna", "probe").await?.access_token)
}

fn out_of_order<T: std::fmt::Debug>(result: Result<T, Status>) {
    let told = refusal(result.map(tonic::Response::new));
    assert_eq!(told, (Code::FailedPrecondition, "OUT_OF_ORDER".to_owned()));
}

async fn by_hand_a_key_signs_only_in_its_turn(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let admin = server.admin().await?;
    let [first] = &server.issuer_keys(&admin).await?[..] else { return Err("not one key".into()) };
    assert_eq!((first.state(), first.algorithm.as_str()), (KeyState::Active, "ES256"));
    out_of_order(server.activate(&admin, &first.kid).await);

    let next = server.prepare(&admin).await?;
    assert_eq!(next.state(), KeyState::Prepared);
    out_of_order(server.prepare(&admin).await);
    let published = server.published().await?;
    assert!(published.contains(&next.kid) && published.contains(&first.kid), "{published:?}");
    assert_eq!(signing_kid(&server).await?, first.kid);

    home.clock.advance(10 * MINUTE - 1);
    out_of_order(server.activate(&admin, &next.kid).await);
    home.clock.advance(1);
    assert_eq!(server.activate(&admin, &next.kid).await?.state(), KeyState::Active);
    assert_eq!(signing_kid(&server).await?, next.kid);
    out_of_order(server.activate(&admin, &first.kid).await);
    // What the old one vouched for is still good, and its session goes on with the new one's word.
    assert!(server.is_active(&admin.access_token, false).await?);
    let refreshed = server.auth().refresh(refresh_with(&admin.refresh_token)).await?.into_inner();
    assert_eq!(endorsed_by(&refreshed.tokens.ok_or("no tokens")?.access_token)?, next.kid);
    assert_eq!(
        in_state(&server.issuer_keys(&admin).await?, KeyState::Retired),
        std::slice::from_ref(&first.kid)
    );
    assert!(server.published().await?.contains(&first.kid));

    let unknown = server.activate(&admin, "unknown").await;
    assert_eq!(refusal(unknown.map(tonic::Response::new)), (Code::NotFound, "NOT_FOUND".to_owned()));
    server.stop().await
}

async fn keys_are_asked_for_only_when_they_changed(home: Home) -> Outcome {
    let server = home.start_with(QUICK).await?;
    let admin = server.admin().await?;
    let ask = async |known_revision| {
        Ok::<_, Status>(server.keys().get_jwks(GetJwksRequest { known_revision }).await?.into_inner())
    };
    let first = ask(0).await?;
    assert!(!first.unchanged && first.keys.len() == 1 && first.revision > 0, "{first:?}");
    assert_eq!(first.refresh_hint.ok_or("no hint")?.seconds, 300);
    let again = ask(first.revision).await?;
    assert!(again.unchanged && again.keys.is_empty() && again.jwks_json.is_empty(), "{again:?}");
    let etag = |page: &str| {
        let line = page.lines().find(|line| line.starts_with("etag: ")).map(str::to_owned);
        line.ok_or_else(|| page.to_owned())
    };
    let page = server.get("/.well-known/jwks.json").await?;
    assert!(page.contains("cache-control: public, max-age=300"), "{page}");
    let condition = etag(&page)?.replace("etag", "if-none-match");
    let path = |condition: &str| format!("/.well-known/jwks.json HTTP/1.1\r\n{condition}\r\nx-rest:");
    let page = server.get(&path(&condition)).await?;
    assert!(page.starts_with("HTTP/1.1 304"), "{page}");
    assert_eq!(etag(&page)?.replace("etag", "if-none-match"), condition);
    let page = server.get(&path("if-none-match: nonsense")).await?;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");

    server.prepare(&admin).await?;
    let second = ask(first.revision).await?;
    assert!(!second.unchanged && second.keys.len() == 2 && second.revision > first.revision, "{second:?}");
    let page = server.get(&path(&condition)).await?;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    for document in ["oauth-authorization-server", "openid-configuration"] {
        let page = server.get(&format!("/.well-known/{document}")).await?;
        let (head, body) = page.split_once("\r\n\r\n").ok_or("no body")?;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let told: Value = serde_json::from_str(body)?;
        assert_eq!(told["issuer"], "http://127.0.0.1:50051");
        assert_eq!(told["jwks_uri"], "http://127.0.0.1:50051/.well-known/jwks.json");
        assert_eq!(
            told.as_object().ok_or("no object")?.len(),
            4,
            "nothing is named that isn't there: {body}"
        );
    }
    server.stop().await
}

async fn a_withdrawn_key_takes_everything_that_it_signed_along(home: Home) -> Outcome {
    let server = home.start_with(QUICK).await?;
    let anna = server.anna().await?;
    let admin = server.admin().await?;
    let first = endorsed_by(&admin.access_token)?;
    let old = Verifier::from_jwks(
        &server.keys().get_jwks(GetJwksRequest::default()).await?.into_inner().jwks_json,
    )?;
    let standby = server.prepare(&admin).await?;

    // Long before its time, but nothing that the old one signed is believed any more anyway.
    let successor = server.revoke(&admin, &first).await?.ok_or("nobody signs")?;
    assert_eq!((successor.kid.as_str(), successor.state()), (standby.kid.as_str(), KeyState::Active));
    for token in [&anna.access_token, &admin.access_token] {
        assert!(!server.is_active(token, false).await?);
    }
    let refused = refusal(server.keys().list_keys(authorized(&admin.access_token, ListKeysRequest {})).await);
    assert_eq!(refused, (Code::Unauthenticated, "TOKEN_INVALID".to_owned()));
    assert_eq!(server.published().await?, std::slice::from_ref(&standby.kid));
    // Sessions live on: their next tokens have the new key's word.
    let refreshed = server.auth().refresh(refresh_with(&anna.refresh_token)).await?.into_inner();
    let token = refreshed.tokens.ok_or("no tokens")?.access_token;
    assert_eq!(endorsed_by(&token)?, standby.kid);
    assert!(server.is_active(&token, true).await?);
    // A verifier that takes the new set believes neither the old key's endorsements nor what it remembers of them.
    let expected = Expected {
        issuer: "http://127.0.0.1:50051".to_owned(),
        audience: None,
        leeway: TimeDelta::seconds(30),
    };
    let now = if home.kind == Kind::Binary { SystemClock.now() } else { home.clock.now() };
    assert!(old.check(&anna.access_token, &expected, now).is_ok());
    let keys = server.keys().get_jwks(GetJwksRequest::default()).await?.into_inner().jwks_json;
    old.set_issuer_keys(PublicKey::from_jwks(&keys)?);
    let refused = old.check(&anna.access_token, &expected, now).err();
    assert!(matches!(refused, Some(Refusal::Invalid(_) | Refusal::UnknownKey)), "{refused:?}");
    assert!(old.check(&token, &expected, now).is_ok());

    // Again, now without anyone who waits; and twice, as an anxious admin does.
    let admin = server.admin().await?;
    let successor = server.revoke(&admin, &standby.kid).await?.ok_or("nobody signs")?;
    let admin = server.admin().await?;
    assert_eq!(endorsed_by(&admin.access_token)?, successor.kid);
    assert_eq!(server.revoke(&admin, &standby.kid).await?, None);
    let keys = server.issuer_keys(&admin).await?;
    assert_eq!(in_state(&keys, KeyState::Active), [successor.kid]);
    assert_eq!(in_state(&keys, KeyState::Revoked).len(), 2);
    server.stop().await
}

async fn the_schedule_keeps_itself_for_a_year(home: Home) -> Outcome {
    let server = home.start_with(QUICK).await?;
    let replicas = if home.kind == Kind::Postgres { 2 } else { 0 };
    let others = try_join_all((0..replicas).map(|_| home.start_with(QUICK))).await?;
    server.anna().await?;
    let mut signed = vec![signing_kid(&server).await?];
    // A period counts from the turn.
    let mut since_turn = 0;
    for month in 1..=12 {
        let current = signed.last().ok_or("nobody signs")?.clone();
        home.clock.advance(30 * DAY - 10 * MINUTE - since_turn);
        eventually("the next key is published", async || Ok(server.published().await?.len() == 2)).await?;
        assert_eq!(signing_kid(&server).await?, current, "month {month}");
        home.clock.advance(10 * MINUTE - 1);
        assert_eq!(signing_kid(&server).await?, current, "month {month}, a second before its turn");
        let before = server.sign_in("anna", "before").await?;
        home.clock.advance(1);
        eventually("it takes its turn", async || Ok(signing_kid(&server).await? != current)).await?;
        signed.push(signing_kid(&server).await?);
        home.clock.advance(15 * MINUTE - 2);
        assert!(server.is_active(&before.access_token, false).await?, "a token outlives its issuer's turn");
        home.clock.advance(120 * MINUTE);
        eventually("the old one is forgotten", async || Ok(server.published().await?.len() == 1)).await?;
        since_turn = 15 * MINUTE - 2 + 120 * MINUTE;
    }
    signed.sort();
    signed.dedup();
    assert_eq!(signed.len(), 13);
    let made = "SELECT CAST(count(*) AS text) AS first FROM audit_events WHERE action = 'prepare_key'";
    assert_eq!(home.query(made).await?, ["12"], "one key for each turn, however many replicas");
    for other in others {
        other.stop().await?;
    }
    server.stop().await
}

async fn a_key_that_nobody_rotates_stops_signing(home: Home) -> Outcome {
    let server = home.start_with(QUICK).await?;
    let anna = server.anna().await?;
    assert_eq!(server.health_of("tessera.v1.Auth").await?, ServingStatus::Serving);
    // As on a machine that slept for two months.
    home.clock.advance(60 * DAY);
    eventually("Auth says so", async || {
        Ok(server.health_of("tessera.v1.Auth").await? == ServingStatus::NotServing)
    })
    .await?;
    assert_eq!(server.health_of("tessera.v1.Keys").await?, ServingStatus::Serving);
    let refused = refusal(server.auth().login(login_as("anna", PASSWORD, "web")).await);
    assert_eq!(refused, (Code::Unavailable, "SIGNING_UNAVAILABLE".to_owned()));
    eventually("the next key is published", async || Ok(server.published().await?.len() == 2)).await?;
    home.clock.advance(10 * MINUTE);
    eventually("Auth serves again", async || {
        Ok(server.health_of("tessera.v1.Auth").await? == ServingStatus::Serving)
    })
    .await?;
    let again = server.sign_in("anna", "web").await?;
    assert_ne!(endorsed_by(&again.access_token)?, endorsed_by(&anna.access_token)?);
    server.stop().await?;

    // After a start nothing is alive that a verifier could miss: a key signs at once.
    home.clock.advance(100 * DAY);
    let server = home.start_with(QUICK).await?;
    assert_eq!(server.health_of("tessera.v1.Auth").await?, ServingStatus::Serving);
    server.sign_in("anna", "web").await?;
    server.stop().await
}

async fn a_tenant_moves_to_another_algorithm(home: Home) -> Outcome {
    let server = home.start_with(QUICK).await?;
    let anna = server.anna().await?;
    let admin = server.admin().await?;
    let tenant_id = part(&anna.access_token, 1)?["tenant_id"].as_str().ok_or("no tenant")?.to_owned();
    let signing = |algorithm: &str, session_algorithm: &str| UpdateTenantRequest {
        tenant_id: tenant_id.clone(),
        display_name: None,
        signing: Some(TenantSigning {
            algorithm: algorithm.to_owned(),
            session_algorithm: session_algorithm.to_owned(),
        }),
        session_policy: None,
    };
    let wrong = server.tenants().update_tenant(authorized(&admin.access_token, signing("none", ""))).await;
    assert_eq!(refusal(wrong), (Code::InvalidArgument, "INVALID_FIELD".to_owned()));
    let changed =
        server.tenants().update_tenant(authorized(&admin.access_token, signing("EdDSA", "ES384"))).await?;
    assert_eq!(
        changed.into_inner().tenant.ok_or("no tenant")?.signing.ok_or("no signing")?.algorithm,
        "EdDSA"
    );

    let token = server.sign_in("anna", "second").await?.access_token;
    assert_eq!(part(&token, 0)?["alg"], "ES384", "new sessions follow at once");
    let skc = |token: &str| {
        Ok::<_, Box<dyn Error>>(part(part(token, 0)?["skc"].as_str().ok_or("none")?, 0)?["alg"].clone())
    };
    assert_eq!(skc(&token)?, "ES256", "the issuer's key of its algorithm is not there yet");
    eventually("it is published", async || Ok(server.published().await?.len() == 2)).await?;
    home.clock.advance(10 * MINUTE);
    eventually(
        "it signs",
        async || Ok(skc(&server.sign_in("anna", "third").await?.access_token)? == "EdDSA"),
    )
    .await?;
    // The session from before keeps its key, and its tokens are good.
    let refreshed = server.auth().refresh(refresh_with(&anna.refresh_token)).await?.into_inner();
    let old = refreshed.tokens.ok_or("no tokens")?.access_token;
    assert_eq!((part(&old, 0)?["alg"].clone(), skc(&old)?), ("ES256".into(), "EdDSA".into()));
    for token in [&old, &token] {
        assert!(server.is_active(token, true).await?);
    }
    server.stop().await
}

/// Three replicas and thirty rotations that everybody asks for at once: each is one step, taken once, in its time.
#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_rotate_thirty_times_as_one() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let servers = try_join_all((0..3).map(|_| home.start_with(QUICK))).await?;
    let kids: BTreeSet<_> =
        try_join_all(servers.iter().map(|server| server.published())).await?.into_iter().collect();
    assert_eq!(kids.len(), 1, "three that start at once make one key");
    servers[0].anna().await?;
    let mut published_at = BTreeMap::new();
    for round in 0..30 {
        let admin = servers[round % 3].admin().await?;
        let asked = join_all(servers.iter().map(|server| server.prepare(&admin))).await;
        let (made, refused): (Vec<_>, Vec<_>) = asked.into_iter().partition(Result::is_ok);
        let [made] = &made[..] else { return Err(format!("{} keys in round {round}", made.len()).into()) };
        let kid = made.as_ref().map_err(Clone::clone)?.kid.clone();
        refused.into_iter().for_each(out_of_order);
        eventually("every replica publishes it", async || {
            let published = try_join_all(servers.iter().map(|server| server.published())).await?;
            Ok(published.iter().all(|kids| kids.contains(&kid)))
        })
        .await?;
        published_at.insert(kid.clone(), home.clock.now());
        home.clock.advance(10 * MINUTE - 1);
        for server in &servers {
            out_of_order(server.activate(&admin, &kid).await);
            assert_ne!(signing_kid(server).await?, kid, "before its time");
        }
        home.clock.advance(1);
        let asked = join_all(servers.iter().map(|server| server.activate(&admin, &kid))).await;
        let done = asked.iter().filter(|asked| asked.is_ok()).count();
        assert_eq!(done, 1, "{asked:?}");
        asked.into_iter().filter(Result::is_err).for_each(out_of_order);
        eventually("every replica signs with it", async || {
            let mut all = true;
            for server in &servers {
                all &= signing_kid(server).await? == kid;
            }
            Ok(all)
        })
        .await?;
        let token = servers[(round + 1) % 3].sign_in("anna", "sample").await?.access_token;
        let issued = part(&token, 1)?["iat"].as_i64().and_then(|at| DateTime::from_timestamp(at, 0));
        assert!(issued.ok_or("no iat")? >= published_at[&kid] + TimeDelta::minutes(10));
        for server in &servers {
            assert!(server.is_active(&token, false).await?);
        }
    }
    let rows = home.query("SELECT count(*)::text AS first FROM issuer_keys WHERE state = 'ACTIVE'").await?;
    assert_eq!(rows, ["1"]);
    let made =
        home.query("SELECT count(*)::text AS first FROM audit_events WHERE action = 'prepare_key'").await?;
    assert_eq!(made, ["30"], "one key for each rotation");
    for server in servers {
        server.stop().await?;
    }
    Ok(())
}
