//! A row that makes no sense holds up nothing but itself.

use std::{error::Error, time::Duration};

use tessera::proto::{
    ActivateKeyRequest, AudienceSigning, CreateAudienceRequest, CreateTenantRequest, DisableUserRequest,
    EnableUserRequest, GetSessionRequest, ListTenantsRequest, LoginRequest, LogoutAllRequest, LogoutRequest,
    PrepareKeyRequest, ResumeTenantRequest, SessionState, SuspendTenantRequest, TenantSessions,
    UpdateUserRequest,
};
use tonic::Code;

use crate::support::{
    Home, Kind, Outcome, PASSWORD, Person, Server, authorized, eventually, login_as, refresh_with, refusal,
    stories, timed_stories,
};

stories! {
    a_spare_key_that_cannot_be_opened_is_passed_over,
    a_tenant_whose_row_is_damaged_gets_no_tokens_and_all_others_do,
    a_policy_that_is_out_of_bounds_is_damage,
    a_damaged_tenant_is_suspended_resumed_and_mended,
    a_session_whose_profile_is_damaged_ends_like_any_other,
    an_end_for_an_unknown_reason_is_an_end,
}
timed_stories! { an_active_key_that_makes_no_sense_does_not_sign_and_is_not_passed_over }

const QUICK: &str = "[database]\npoll_interval = \"10ms\"\n";
/// Tells servers that what is registered has changed, and that an issuer key has.
const SOMETHING_CHANGED: &str = "UPDATE trust_head SET registry = registry + 1";

const RSA: &str = "[signing]\nsession_algorithm = \"RS256\"\nrsa_pool = 4\n";

async fn a_spare_key_that_cannot_be_opened_is_passed_over(home: Home) -> Outcome {
    let server = home.start_with(RSA).await?;
    server.has_spare_keys(4).await?;
    server.stop().await?;
    let junk = if home.kind == Kind::Sqlite { "x'00'" } else { "'\\x00'" };
    let damaged = home.query("SELECT kid AS first FROM spare_keys ORDER BY create_time LIMIT 3").await?;
    let them = damaged.iter().map(|kid| format!("'{kid}'")).collect::<Vec<_>>().join(", ");
    home.query(&format!("UPDATE spare_keys SET sealed_private_key = {junk} WHERE kid IN ({them})")).await?;

    let server = home.start_with(RSA).await?;
    server.admin().await?;
    let kids = async || home.query("SELECT kid AS first FROM spare_keys").await;
    eventually("the pool is full again", async || Ok(kids().await?.len() == damaged.len() + 4)).await?;
    for _ in 0..4 {
        server.admin().await?;
    }
    let kept = kids().await?;
    assert!(damaged.iter().all(|kid| kept.contains(kid)), "nothing is thrown away: {kept:?}");
    server.stop().await
}

/// Makes the tenant `blue`, with `bert` in it who is signed in.
async fn blue(server: &Server, root: &Person) -> Result<(String, LoginRequest, Person), Box<dyn Error>> {
    let blue = CreateTenantRequest { name: "blue".to_owned(), display_name: String::new() };
    let made = server.tenants().create_tenant(authorized(&root.access_token, blue)).await?.into_inner();
    server.make_user_in(root, "blue", "bert", &[]).await?;
    let login = LoginRequest { tenant: "blue".to_owned(), ..login_as("bert", PASSWORD, "web") };
    let bert = server.auth().login(login.clone()).await?.into_inner().into();
    Ok((made.tenant.ok_or("no tenant")?.tenant_id, login, bert))
}

async fn a_tenant_whose_row_is_damaged_gets_no_tokens_and_all_others_do(home: Home) -> Outcome {
    let server = home.start().await?;
    let root = server.admin().await?;
    let (_, login, bert) = blue(&server, &root).await?;
    server.stop().await?;
    home.query("UPDATE tenants SET session_policy = '{' WHERE name = 'blue'").await?;

    let server = home.start().await?;
    server.anna().await?;
    assert_eq!(refusal(server.auth().login(login.clone()).await).0, Code::Internal);
    assert_eq!(refusal(server.auth().refresh(refresh_with(&bert.refresh_token)).await).0, Code::Internal);
    server.stop().await?;
    home.query("UPDATE tenants SET session_policy = NULL WHERE name = 'blue'").await?;

    let server = home.start().await?;
    server.auth().refresh(refresh_with(&bert.refresh_token)).await?;
    server.auth().login(login).await?;
    server.stop().await
}

async fn a_policy_that_is_out_of_bounds_is_damage(home: Home) -> Outcome {
    let server = home.start_with(QUICK).await?;
    let root = server.admin().await?;
    let (_, login, _) = blue(&server, &root).await?;
    let endless =
        r#"UPDATE tenants SET session_policy = '{"idle_ttl_us":9223372036854775807}' WHERE name = 'blue'"#;
    home.query(endless).await?;
    home.query(SOMETHING_CHANGED).await?;
    eventually("the policy is read", async || Ok(server.auth().login(login.clone()).await.is_err())).await?;
    let internal = (Code::Internal, "INTERNAL".to_owned());
    assert_eq!(refusal(server.auth().login(login).await), internal);
    server.anna().await?;
    server.stop().await
}

async fn a_damaged_tenant_is_suspended_resumed_and_mended(home: Home) -> Outcome {
    let server = home.start().await?;
    let root = server.admin().await?;
    let (tenant_id, login, bert) = blue(&server, &root).await?;
    home.query("UPDATE tenants SET session_policy = '{' WHERE name = 'blue'").await?;

    let list = authorized(&root.access_token, ListTenantsRequest::default());
    let listed = server.tenants().list_tenants(list).await?.into_inner().tenants;
    assert!(listed.iter().any(|tenant| tenant.tenant_id == tenant_id), "it is there to be found");
    let suspend = SuspendTenantRequest { tenant_id: tenant_id.clone() };
    let reply = server.tenants().suspend_tenant(authorized(&root.access_token, suspend)).await?;
    assert!(reply.into_inner().tenant.is_some_and(|tenant| tenant.suspend_time.is_some()));
    assert!(!server.is_active(&bert.access_token, false).await?);
    assert!(!server.is_active(&bert.access_token, true).await?);
    assert_eq!(home.query("SELECT session_policy AS first FROM tenants WHERE name = 'blue'").await?, ["{"]);
    let resume = ResumeTenantRequest { tenant_id: tenant_id.clone() };
    server.tenants().resume_tenant(authorized(&root.access_token, resume)).await?;
    assert!(server.is_active(&bert.access_token, true).await?);
    assert_eq!(refusal(server.auth().login(login.clone()).await).0, Code::Internal);

    let policy = TenantSessions { per_user: Some(3), ..TenantSessions::default() };
    server.set_session_policy(&root, &tenant_id, policy).await?;
    server.auth().login(login).await?;
    server.stop().await
}

async fn a_session_whose_profile_is_damaged_ends_like_any_other(home: Home) -> Outcome {
    let server = home.start().await?;
    let (admin, anna) = (server.admin().await?, server.anna().await?);
    let damaged = async || {
        let phone = server.sign_in("anna", "mobile").await?;
        home.query("UPDATE sessions SET profile = '{' WHERE device_type = 'mobile' AND end_time IS NULL")
            .await?;
        Ok::<_, Box<dyn Error>>(phone)
    };
    let phone = damaged().await?;
    assert_eq!(refusal(server.auth().refresh(refresh_with(&phone.refresh_token)).await).0, Code::Internal);
    let web = server.sign_in("anna", "web").await?;
    let update = UpdateUserRequest {
        user_id: anna.user_id.clone(),
        display_name: Some("Anna".to_owned()),
        ..UpdateUserRequest::default()
    };
    server.users().update_user(authorized(&admin.access_token, update)).await?;

    let disable = DisableUserRequest { user_id: anna.user_id.clone() };
    let reply = server.users().disable_user(authorized(&admin.access_token, disable)).await?;
    assert_eq!(reply.into_inner().ended_sessions, 2);
    for person in [&phone, &web] {
        assert!(!server.is_active(&person.access_token, true).await?);
    }
    let enable = EnableUserRequest { user_id: anna.user_id };
    server.users().enable_user(authorized(&admin.access_token, enable)).await?;

    let (phone, web) = (damaged().await?, server.sign_in("anna", "web").await?);
    let next = damaged().await?;
    assert!(!server.is_active(&phone.access_token, false).await?, "another one took its place");
    let everywhere = authorized(&web.access_token, LogoutAllRequest {});
    assert_eq!(server.auth().logout_all(everywhere).await?.into_inner().ended_sessions, 2);
    assert!(!server.is_active(&next.access_token, false).await?);
    server.stop().await
}

/// As a newer release may write it while this one still runs.
async fn an_end_for_an_unknown_reason_is_an_end(home: Home) -> Outcome {
    let server = home.start().await?;
    let (admin, anna) = (server.admin().await?, server.anna().await?);
    home.query(
        "UPDATE sessions SET end_time = create_time, end_reason = 'moonrise' WHERE device_type = 'web'",
    )
    .await?;
    let refused = refusal(server.auth().refresh(refresh_with(&anna.refresh_token)).await);
    assert_eq!(refused, (Code::Unauthenticated, "TOKEN_REVOKED".to_owned()));
    let get = GetSessionRequest { session_id: anna.session_id.clone() };
    let reply = server.session().get_session(authorized(&admin.access_token, get)).await?;
    let session = reply.into_inner().session.ok_or("no session")?;
    assert_eq!((session.state(), &*session.end_reason), (SessionState::Ended, "other"));
    server.sign_in("anna", "web").await?;
    server.stop().await
}

async fn an_active_key_that_makes_no_sense_does_not_sign_and_is_not_passed_over(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    server.stop().await?;
    home.query("UPDATE issuer_keys SET activate_time = NULL").await?;
    let server = home.start().await?;
    let cannot = (Code::Unavailable, "SIGNING_UNAVAILABLE".to_owned());
    assert_eq!(refusal(server.auth().login(login_as("anna", PASSWORD, "web")).await), cannot);
    assert_eq!(refusal(server.auth().refresh(refresh_with(&anna.refresh_token)).await), cannot);
    let active = "SELECT kid AS first FROM issuer_keys WHERE state = 'ACTIVE'";
    assert_eq!(home.query(active).await?.len(), 1, "nobody takes its place");
    server.stop().await?;
    home.query("UPDATE issuer_keys SET activate_time = create_time WHERE state = 'ACTIVE'").await?;

    // Whoever can't tell a verifier of a key doesn't sign with it.
    let damage = "UPDATE issuer_keys SET public_jwk = '{' WHERE state = 'ACTIVE'";
    let public = home.query("SELECT public_jwk AS first FROM issuer_keys WHERE state = 'ACTIVE'").await?;
    home.query(damage).await?;
    let server = home.start().await?;
    assert_eq!(refusal(server.auth().refresh(refresh_with(&anna.refresh_token)).await), cannot);
    server.stop().await?;
    let public = public.first().ok_or("no key")?;
    home.query(&format!("UPDATE issuer_keys SET public_jwk = '{public}' WHERE state = 'ACTIVE'")).await?;
    let server = home.start().await?;
    server.auth().refresh(refresh_with(&anna.refresh_token)).await?;
    server.stop().await
}

/// An entry about an issuer key, as a newer release may write it.
const KEY_ENTRY: &str = "
    UPDATE trust_head SET revision = revision + 1, registry = registry + 1;
    INSERT INTO trust_log (revision, kind, subject, create_time, expire_time, kid)
    SELECT revision, 'issuer_key', '00000000-0000-0000-0000-000000000000', '2026-01-01', '2100-01-01', 'newer'
    FROM trust_head";

/// It takes a real minute: a replica that can't be sure of its keys goes on signing for so long.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_do_not_understand_all_of_it_hear_revocations_and_go_on_signing() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let (here, there) = (home.start_with(QUICK).await?, home.start_with(QUICK).await?);
    let admin = here.admin().await?;
    let prepare = authorized(&admin.access_token, PrepareKeyRequest::default());
    let kid = here.keys().prepare_key(prepare).await?.into_inner().key.ok_or("no key")?.kid;
    home.clock.advance(10 * 60);
    here.keys().activate_key(authorized(&admin.access_token, ActivateKeyRequest { kid })).await?;
    let orders = CreateAudienceRequest {
        name: "orders".to_owned(),
        signing: AudienceSigning::Hs256.into(),
        ..CreateAudienceRequest::default()
    };
    here.audiences().create_audience(authorized(&admin.access_token, orders)).await?;
    let anna = here.anna().await?;
    let for_orders =
        LoginRequest { audience: vec!["orders".to_owned()], ..login_as("anna", PASSWORD, "orders") };
    let before = here.auth().login(for_orders.clone()).await?.into_inner().tokens.ok_or("no tokens")?;
    let mut watching = there.watch().await?;

    home.query(&format!(
        "UPDATE issuer_keys SET public_jwk = '{{' WHERE state = 'RETIRED';
         INSERT INTO issuer_keys (kid, algorithm, state, public_jwk, sealed_private_key, create_time, activate_time)
         SELECT 'newer', 'ML-DSA-44', 'ACTIVE', '{{\"kty\":\"AKP\"}}', sealed_private_key, create_time, activate_time
         FROM issuer_keys WHERE state = 'ACTIVE';
         ALTER TABLE audiences DROP CONSTRAINT audiences_signing_check;
         UPDATE audiences SET signing = 'HS512';
         {KEY_ENTRY}"
    ))
    .await?;
    here.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await?;
    eventually("the other one refuses", async || Ok(!there.is_active(&anna.access_token, false).await?))
        .await?;
    watching.until(|watching| watching.knows(&anna.session_id)).await?;

    tokio::time::sleep(Duration::from_secs(61)).await;
    let another = home.start_with(QUICK).await?;
    let cannot = (Code::Unavailable, "SIGNING_UNAVAILABLE".to_owned());
    for (server, kind) in [(&here, "here"), (&there, "there"), (&another, "another")] {
        let person = server.sign_in("anna", kind).await?;
        assert!(here.is_active(&person.access_token, true).await?);
        assert_eq!(refusal(server.auth().login(for_orders.clone()).await), cannot, "none of another kind");
        let again = refresh_with(&before.refresh_token);
        assert_eq!(refusal(server.auth().refresh(again).await), cannot, "none of another kind");
        assert_eq!(server.metric("tessera_trust_tail_failures").await?, 0);
    }
    drop(watching);
    for server in [here, there, another] {
        server.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_key_can_be_read_revocations_are_heard_and_keys_follow() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let (here, there) = (home.start_with(QUICK).await?, home.start_with(QUICK).await?);
    let (admin, anna) = (here.admin().await?, here.anna().await?);
    let mut watching = there.watch().await?;
    let (keys, place) = (watching.jwks_json.clone(), watching.place.clone());
    let prepare = authorized(&admin.access_token, PrepareKeyRequest::default());
    home.query(&format!("ALTER TABLE issuer_keys RENAME TO issuer_keys_gone; {KEY_ENTRY}")).await?;
    here.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await?;
    eventually("the other one refuses", async || Ok(!there.is_active(&anna.access_token, false).await?))
        .await?;
    watching.until(|watching| watching.knows(&anna.session_id)).await?;
    assert_eq!((&watching.jwks_json, &watching.place), (&keys, &place), "nobody believes to know the keys");
    home.query("ALTER TABLE issuer_keys_gone RENAME TO issuer_keys").await?;
    watching.until(|watching| watching.place.0 > place.0).await?;
    here.keys().prepare_key(prepare).await?;
    watching.until(|watching| watching.jwks_json != keys).await?;
    drop(watching);
    here.stop().await?;
    there.stop().await
}
