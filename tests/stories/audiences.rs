//! Audiences that want tokens made in a way of their own: how they are registered, and how their secrets are exchanged.

mod encrypted;
mod hs256;
mod rules;

use std::error::Error;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use tessera::proto::{
    Audience, AudienceSigning, CreateAudienceRequest, CreateTenantRequest, DeleteAudienceRequest,
    GetAudienceRequest, GetJwkRequest, GetJwksRequest, ListAudiencesRequest, ListEventsRequest, LoginRequest,
    NewAudienceSecret, Tokens, UpdateAudienceRequest, UpdateAudienceResponse, VerifyTokenRequest,
};
use tonic::{Code, Status};

use crate::support::{
    Home, Kind, Outcome, PASSWORD, Person, Server, authorized, eventually, login_as, parts_of, refresh_with,
    refusal, stories, timed_stories,
};

stories! {
    audiences_are_registered_shown_changed_and_removed,
    only_admins_of_the_tenant_default_may,
    a_secret_is_told_once,
    there_is_an_end_to_audiences,
    of_two_exchanges_at_once_one_begins,
    a_secret_that_cant_be_opened_stops_only_its_audience,
    other_replicas_hear_of_it,
}
timed_stories! {
    a_secret_is_exchanged_while_both_are_accepted,
    a_secret_can_be_exchanged_at_once,
}

/// The service's own name by default.
const ISSUER: &str = "http://127.0.0.1:50051";

/// An admin's hands.
struct Hands<'s> {
    server: &'s Server,
    token: String,
}

impl<'s> Hands<'s> {
    async fn of(server: &'s Server) -> Result<Self, Box<dyn Error>> {
        let login = login_as("admin", crate::support::ADMIN_PASSWORD, "hands");
        let admin: Person = server.auth().login(login).await?.into_inner().into();
        Ok(Self { server, token: admin.access_token })
    }

    async fn try_create(
        &self,
        request: CreateAudienceRequest,
    ) -> Result<tonic::Response<tessera::proto::CreateAudienceResponse>, Status> {
        self.server.audiences().create_audience(authorized(&self.token, request)).await
    }

    /// An audience that shares a secret, and the secret.
    async fn create_hs256(&self, name: &str) -> Result<(Audience, NewAudienceSecret), Box<dyn Error>> {
        let request = CreateAudienceRequest {
            name: name.to_owned(),
            signing: AudienceSigning::Hs256.into(),
            ..Default::default()
        };
        let reply = self.try_create(request).await?.into_inner();
        Ok((reply.audience.ok_or("no audience")?, reply.secret.ok_or("no secret")?))
    }

    async fn get(&self, name: &str) -> Result<Audience, Box<dyn Error>> {
        let request = GetAudienceRequest { name: name.to_owned(), ..Default::default() };
        let reply = self.server.audiences().get_audience(authorized(&self.token, request)).await?;
        Ok(reply.into_inner().audience.ok_or("no audience")?)
    }

    async fn try_update(
        &self,
        request: UpdateAudienceRequest,
    ) -> Result<tonic::Response<UpdateAudienceResponse>, Status> {
        self.server.audiences().update_audience(authorized(&self.token, request)).await
    }

    async fn delete(&self, audience: &Audience) -> Result<(), Status> {
        let request = DeleteAudienceRequest { audience_id: audience.audience_id.clone() };
        self.server.audiences().delete_audience(authorized(&self.token, request)).await.map(|_| ())
    }
}

/// A login of anna's for these audiences from a device of its own.
fn login_for(device: &str, audience: &[&str]) -> LoginRequest {
    let audience = audience.iter().map(|name| (*name).to_owned()).collect();
    LoginRequest { audience, ..login_as("anna", PASSWORD, device) }
}

async fn tokens_for(server: &Server, device: &str, audience: &[&str]) -> Result<Tokens, Box<dyn Error>> {
    let reply = server.auth().login(login_for(device, audience)).await?;
    Ok(reply.into_inner().tokens.ok_or("no tokens")?)
}

/// What `VerifyToken` says where this audience is named: nothing of a good token, else the reason.
async fn verify(server: &Server, token: &str, audience: &str) -> Result<String, Status> {
    let (token, audience) = (token.to_owned(), audience.to_owned());
    let request = VerifyTokenRequest { token, audience, ..Default::default() };
    Ok(server.auth().verify_token(request).await?.into_inner().reason)
}

fn bytes_of(secret: &NewAudienceSecret) -> Result<Vec<u8>, base64::DecodeError> {
    URL_SAFE_NO_PAD.decode(&secret.secret)
}

fn refused(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

async fn audiences_are_registered_shown_changed_and_removed(home: Home) -> Outcome {
    let server = home.start().await?;
    let hands = Hands::of(&server).await?;
    let named = |name: &str| CreateAudienceRequest { name: name.to_owned(), ..Default::default() };

    let reply = hands.try_create(named("https://orders.example/api")).await?.into_inner();
    assert_eq!(reply.secret, None, "it shares none");
    let made = reply.audience.ok_or("no audience")?;
    assert_eq!(made.signing(), AudienceSigning::PublicKey);
    assert_eq!((made.secrets.len(), made.encryption_jwk.as_str()), (0, ""));
    assert_eq!(hands.get("https://orders.example/api").await?, made);
    let (billing, _) = hands.create_hs256("billing").await?;

    let invalid = refused(Code::InvalidArgument, "INVALID_FIELD");
    for name in ["", "tessera", "two words", &"a".repeat(257), "caf\u{e9}"] {
        assert_eq!(refusal(hands.try_create(named(name)).await), invalid, "{name}");
    }
    let taken = refused(Code::AlreadyExists, "ALREADY_EXISTS");
    assert_eq!(refusal(hands.try_create(named("billing")).await), taken);
    let unknown = CreateAudienceRequest { signing: 7, ..named("new") };
    assert_eq!(refusal(hands.try_create(unknown).await), invalid);

    let list = ListAudiencesRequest { page_size: 1, ..Default::default() };
    let page = server.audiences().list_audiences(authorized(&hands.token, list)).await?.into_inner();
    assert_eq!(page.audiences, std::slice::from_ref(&billing));
    let list = ListAudiencesRequest { page_token: page.next_page_token, ..Default::default() };
    let page = server.audiences().list_audiences(authorized(&hands.token, list)).await?.into_inner();
    assert_eq!((page.audiences, page.next_page_token), (vec![made.clone()], String::new()));

    let update = |audience: &Audience| UpdateAudienceRequest {
        audience_id: audience.audience_id.clone(),
        display_name: Some("The orders".to_owned()),
        ..Default::default()
    };
    let changed = hands.try_update(update(&made)).await?.into_inner();
    assert_eq!(changed.secret, None);
    assert_eq!(hands.get(&made.name).await?.display_name, "The orders");
    let rotate = UpdateAudienceRequest { rotate_secret: true, ..update(&made) };
    assert_eq!(refusal(hands.try_update(rotate).await), invalid, "there is no secret");
    for seconds in [-1, 30 * 24 * 3600 + 1] {
        let activate_after = Some(prost_types::Duration { seconds, nanos: 0 });
        let rotate = UpdateAudienceRequest { rotate_secret: true, activate_after, ..update(&billing) };
        assert_eq!(refusal(hands.try_update(rotate).await), invalid, "{seconds}");
    }
    let activate_after = Some(prost_types::Duration::default());
    let no_rotation = UpdateAudienceRequest { activate_after, ..update(&billing) };
    assert_eq!(refusal(hands.try_update(no_rotation).await), invalid);

    hands.delete(&billing).await?;
    let not_found = refused(Code::NotFound, "NOT_FOUND");
    let get = GetAudienceRequest { audience_id: billing.audience_id.clone(), ..Default::default() };
    let got = server.audiences().get_audience(authorized(&hands.token, get)).await;
    assert_eq!(refusal(got), not_found);
    assert_eq!(refusal(hands.try_update(update(&billing)).await), not_found);
    assert_eq!(hands.delete(&billing).await.map_err(|status| status.code()), Err(Code::NotFound));
    assert!(home.query("SELECT kid AS first FROM audience_secrets").await?.is_empty());
    hands.create_hs256("billing").await?;

    let list = authorized(&hands.token, ListEventsRequest::default());
    let events = server.audit().list_events(list).await?.into_inner().events;
    let told: Vec<_> = events
        .iter()
        .filter(|event| event.target_type == "audience")
        .map(|event| (event.action.as_str(), event.target_name.as_str(), event.target_id.as_str()))
        .collect();
    let name = made.name.as_str();
    let (orders_id, billing_id) = (made.audience_id.as_str(), billing.audience_id.as_str());
    assert_eq!(
        told[1..],
        [
            ("delete_audience", "billing", billing_id),
            ("update_audience", name, orders_id),
            ("create_audience", "billing", billing_id),
            ("create_audience", name, orders_id),
        ]
    );
    server.stop().await
}

async fn only_admins_of_the_tenant_default_may(home: Home) -> Outcome {
    let server = home.start().await?;
    let hands = Hands::of(&server).await?;
    let (audience, _) = hands.create_hs256("orders").await?;
    let blue = CreateTenantRequest { name: "blue".to_owned(), display_name: String::new() };
    server.tenants().create_tenant(authorized(&hands.token, blue)).await?;
    let root = server.admin().await?;
    server.make_user_in(&root, "blue", "boss", &["admin"]).await?;
    let boss = LoginRequest { tenant: "blue".to_owned(), ..login_as("boss", PASSWORD, "web") };
    let boss: Person = server.auth().login(boss).await?.into_inner().into();
    let anna = server.anna().await?;

    let audience_id = audience.audience_id.clone();
    let by_id = GetAudienceRequest { audience_id: audience_id.clone(), ..Default::default() };
    let new = CreateAudienceRequest { name: "new".to_owned(), ..Default::default() };
    let update =
        UpdateAudienceRequest { audience_id: audience_id.clone(), rotate_secret: true, ..Default::default() };
    let mut client = server.audiences();
    for person in [&boss, &anna] {
        let token = &person.access_token;
        let answers = [
            refusal(client.create_audience(authorized(token, new.clone())).await),
            refusal(client.get_audience(authorized(token, by_id.clone())).await),
            refusal(client.list_audiences(authorized(token, ListAudiencesRequest::default())).await),
            refusal(client.update_audience(authorized(token, update.clone())).await),
            refusal(
                client
                    .delete_audience(authorized(
                        token,
                        DeleteAudienceRequest { audience_id: audience_id.clone() },
                    ))
                    .await,
            ),
        ];
        for answer in answers {
            assert_eq!(answer, refused(Code::PermissionDenied, "INSUFFICIENT_SCOPE"));
        }
    }
    assert_eq!(hands.get("orders").await?, audience);
    server.stop().await
}

async fn a_secret_is_told_once(home: Home) -> Outcome {
    let server = home.start().await?;
    let hands = Hands::of(&server).await?;
    let (audience, secret) = hands.create_hs256("orders").await?;
    let bytes = bytes_of(&secret)?;
    assert_eq!(bytes.len(), 32);
    let jwk: Value = serde_json::from_str(&secret.secret_jwk)?;
    let expected = serde_json::json!({
        "kty": "oct", "k": secret.secret, "kid": secret.kid, "alg": "HS256", "use": "sig",
    });
    assert_eq!(jwk, expected);
    assert_eq!(audience.secrets.len(), 1);
    assert_eq!(audience.secrets[0].kid, secret.kid);
    assert_eq!(audience.secrets[0].expire_time, None);
    let debug = format!("{secret:?}");
    assert!(debug.contains(&secret.kid) && !debug.contains(&secret.secret), "{debug}");

    let shown = format!("{:?}", hands.get("orders").await?);
    assert!(shown.contains(&secret.kid) && !shown.contains(&secret.secret), "{shown}");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let sealed = match home.database_url() {
        None => "lower(hex(sealed))",
        Some(_) => "encode(sealed, 'hex')",
    };
    let query = format!("SELECT kid || ' ' || {sealed} AS first FROM audience_secrets");
    let [row] = &*home.query(&query).await? else { return Err("not one row".into()) };
    assert!(row.starts_with(&secret.kid) && !row.contains(&hex) && !row.contains(&secret.secret), "{row}");

    let jwks = server.keys().get_jwks(GetJwksRequest::default()).await?.into_inner();
    let by_http = server.get("/.well-known/jwks.json").await?;
    let by_kid = server.get(&format!("/.well-known/jwks.json?kid={}", secret.kid)).await?;
    for told in [jwks.jwks_json, by_http, by_kid, server.said()] {
        assert!(!told.contains(&secret.secret) && !told.contains("oct"), "{told}");
    }
    let kid = secret.kid.clone();
    let answer = server.keys().get_jwk(GetJwkRequest { kid }).await;
    assert_eq!(refusal(answer), refused(Code::NotFound, "NOT_FOUND"));
    server.stop().await
}

async fn there_is_an_end_to_audiences(home: Home) -> Outcome {
    let server = home.start().await?;
    let hands = Hands::of(&server).await?;
    let rows = match home.database_url() {
        None => {
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 999)
                 SELECT randomblob(16), 'name-' || n, '', 'PUBLIC_KEY', 0, 0 FROM numbers"
        }
        Some(_) => {
            "SELECT gen_random_uuid(), 'name-' || n, '', 'PUBLIC_KEY', now(), now() FROM generate_series(1, 999) n"
        }
    };
    home.query(&format!(
        "INSERT INTO audiences (id, name, display_name, signing, create_time, update_time) {rows}"
    ))
    .await?;
    let (last, _) = hands.create_hs256("the-last").await?;
    let one_more = CreateAudienceRequest { name: "one-more".to_owned(), ..Default::default() };
    let full = refused(Code::FailedPrecondition, "OUT_OF_ORDER");
    assert_eq!(refusal(hands.try_create(one_more.clone()).await), full);
    hands.delete(&last).await?;
    hands.try_create(one_more).await?;
    server.stop().await
}

async fn of_two_exchanges_at_once_one_begins(home: Home) -> Outcome {
    let server = home.start().await?;
    let hands = Hands::of(&server).await?;
    let (audience, _) = hands.create_hs256("orders").await?;
    let exchange = || hands.try_update(rotate(&audience, None));
    let (one, other) = futures_util::future::join(exchange(), exchange()).await;
    let (done, late): (Vec<_>, Vec<_>) = [one, other].into_iter().partition(Result::is_ok);
    assert_eq!((done.len(), late.len()), (1, 1));
    for answer in late {
        assert_eq!(refusal(answer), refused(Code::FailedPrecondition, "OUT_OF_ORDER"));
    }
    assert_eq!(home.query("SELECT kid AS first FROM audience_secrets").await?.len(), 2);
    server.stop().await
}

async fn a_secret_that_cant_be_opened_stops_only_its_audience(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let hands = Hands::of(&server).await?;
    hands.create_hs256("damaged").await?;
    hands.create_hs256("sound").await?;
    let damaged = tokens_for(&server, "one", &["damaged"]).await?;
    server.stop().await?;
    home.query(
        "UPDATE audience_secrets SET sealed = (SELECT sealed FROM audience_secrets WHERE audience_id = \
         (SELECT id FROM audiences WHERE name = 'sound')) WHERE audience_id = \
         (SELECT id FROM audiences WHERE name = 'damaged')",
    )
    .await?;

    let server = home.start().await?;
    let hands = Hands::of(&server).await?;
    let cannot = refused(Code::Unavailable, "SIGNING_UNAVAILABLE");
    assert_eq!(refusal(server.auth().login(login_for("one", &["damaged"])).await), cannot);
    let refresh = refresh_with(&damaged.refresh_token);
    assert_eq!(refusal(server.auth().refresh(refresh).await), cannot);
    let sound = tokens_for(&server, "two", &["sound"]).await?;
    assert_eq!(verify(&server, &sound.access_token, "sound").await?, "");
    assert_eq!(verify(&server, &damaged.access_token, "damaged").await?, "TOKEN_INVALID");

    // Neither was a session ended nor a refresh token spent.
    hands.delete(&hands.get("damaged").await?).await?;
    let next = server.auth().refresh(refresh_with(&damaged.refresh_token)).await?.into_inner();
    let next = next.tokens.ok_or("no tokens")?.access_token;
    assert_eq!(parts_of(&next)?.1["gen"], 1);
    assert_eq!(verify(&server, &next, "damaged").await?, "");
    server.stop().await
}

async fn other_replicas_hear_of_it(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    if matches!(home.kind, Kind::Sqlite) {
        // An embedded database has one server.
        return server.stop().await;
    }
    let other = home.start_with("[database]\npoll_interval = \"50ms\"\n").await?;
    let hands = Hands::of(&server).await?;
    let (audience, secret) = hands.create_hs256("orders").await?;
    eventually("the other replica signs with the secret", async || {
        let token = tokens_for(&other, "there", &["orders"]).await?.access_token;
        Ok(parts_of(&token)?.0["kid"] == secret.kid.as_str())
    })
    .await?;
    let here = tokens_for(&server, "here", &["orders"]).await?.access_token;
    assert_eq!(verify(&other, &here, "orders").await?, "");
    hands.delete(&audience).await?;
    eventually("the other replica forgets the secret", async || {
        Ok(verify(&other, &here, "orders").await? == "TOKEN_INVALID")
    })
    .await?;
    other.stop().await?;
    server.stop().await
}

fn rotate(audience: &Audience, activate_after: Option<i64>) -> UpdateAudienceRequest {
    UpdateAudienceRequest {
        audience_id: audience.audience_id.clone(),
        rotate_secret: true,
        activate_after: activate_after.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        ..Default::default()
    }
}

async fn a_secret_is_exchanged_while_both_are_accepted(home: Home) -> Outcome {
    let server = home.start_with("[tokens]\naccess_ttl = \"1h\"\n").await?;
    server.anna().await?;
    let hands = Hands::of(&server).await?;
    let (audience, old) = hands.create_hs256("orders").await?;
    let kid_of = async |device: &str| -> Result<(String, String), Box<dyn Error>> {
        let token = tokens_for(&server, device, &["orders"]).await?.access_token;
        Ok((parts_of(&token)?.0["kid"].as_str().unwrap_or_default().to_owned(), token))
    };
    let reply = hands.try_update(rotate(&audience, None)).await?.into_inner();
    let new = reply.secret.ok_or("no secret")?;
    assert!(new.kid != old.kid && new.secret != old.secret);
    let seconds = |time: &Option<prost_types::Timestamp>| time.as_ref().map(|time| time.seconds);
    let made = seconds(&audience.create_time).ok_or("no time")?;
    let shown = reply.audience.ok_or("no audience")?.secrets;
    assert_eq!(shown.iter().map(|secret| &secret.kid).collect::<Vec<_>>(), [&old.kid, &new.kid]);
    // `signing.publish_before`, and then the longest life of a token with both clocks' leeway.
    assert_eq!(seconds(&shown[1].activate_time), Some(made + 600));
    assert_eq!(seconds(&new.activate_time), Some(made + 600));
    assert_eq!(seconds(&shown[0].expire_time), Some(made + 600 + 3600 + 60));
    assert_eq!(shown[1].expire_time, None);

    // What the new secret signs is accepted before it signs here.
    let (header, claims) = parts_of(&kid_of("zero").await?.1)?;
    let mut early = header;
    early["kid"] = new.kid.clone().into();
    let early = crate::support::sign_hs256(&bytes_of(&new)?, &early, &claims)?;
    assert_eq!(verify(&server, &early, "orders").await?, "");

    let out_of_order = refused(Code::FailedPrecondition, "OUT_OF_ORDER");
    assert_eq!(refusal(hands.try_update(rotate(&audience, Some(0))).await), out_of_order);
    home.clock.advance(599);
    let (kid, last_of_old) = kid_of("one").await?;
    assert_eq!(kid, old.kid);
    home.clock.advance(1);
    let (kid, of_new) = kid_of("two").await?;
    assert_eq!(kid, new.kid);
    for token in [&last_of_old, &of_new] {
        assert_eq!(verify(&server, token, "orders").await?, "");
    }

    home.clock.advance(3600 - 2);
    assert_eq!(verify(&server, &last_of_old, "orders").await?, "", "to its own end");
    home.clock.advance(62 - 1);
    let hands = Hands::of(&server).await?;
    assert_eq!(refusal(hands.try_update(rotate(&audience, Some(0))).await), out_of_order);
    // Signed by the old secret just now: it was stolen, or kept.
    let (header, mut claims) = parts_of(&kid_of("three").await?.1)?;
    let mut by_old = header;
    by_old["kid"] = old.kid.clone().into();
    claims["iat"] = home_now(&home).into();
    let by_old = crate::support::sign_hs256(&bytes_of(&old)?, &by_old, &claims)?;
    assert_eq!(verify(&server, &by_old, "orders").await?, "");
    home.clock.advance(1);
    assert_eq!(verify(&server, &by_old, "orders").await?, "TOKEN_INVALID");
    assert_eq!(hands.get("orders").await?.secrets.len(), 1);
    assert_eq!(home.query("SELECT kid AS first FROM audience_secrets").await?.len(), 2);
    hands.try_update(rotate(&audience, None)).await?;
    let mut kids = home.query("SELECT kid AS first FROM audience_secrets").await?;
    kids.retain(|kid| *kid == old.kid);
    assert!(kids.is_empty(), "the dead one is buried");
    server.stop().await
}

fn home_now(home: &Home) -> i64 {
    tessera::clock::Clock::now(&*home.clock).timestamp()
}

async fn a_secret_can_be_exchanged_at_once(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let hands = Hands::of(&server).await?;
    let (audience, old) = hands.create_hs256("orders").await?;
    let before = tokens_for(&server, "one", &["orders"]).await?.access_token;
    assert_eq!(parts_of(&before)?.0["kid"], old.kid.as_str());
    let reply = hands.try_update(rotate(&audience, Some(0))).await?.into_inner();
    let new = reply.secret.ok_or("no secret")?;
    home.clock.advance(1);
    let after = tokens_for(&server, "two", &["orders"]).await?.access_token;
    assert_eq!(parts_of(&after)?.0["kid"], new.kid.as_str());
    assert_eq!(verify(&server, &before, "orders").await?, "");
    assert_eq!(verify(&server, &after, "orders").await?, "");
    server.stop().await
}
