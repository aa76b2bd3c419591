//! Programs that authenticate: what they may ask for, what they prove themselves with, and how they are barred.

use tessera::{
    clock::{Clock, SystemClock},
    proto::{
        ClientSecret, CreateCredentialRequest, CreateServiceAccountRequest, CreateTenantRequest,
        DeleteServiceAccountRequest, DisableServiceAccountRequest, EnableServiceAccountRequest,
        GetJwksRequest, GetServiceAccountRequest, IssueServiceTokenRequest, ListServiceAccountsRequest,
        LoginRequest, PrivateKeyJwt, RevokeTokenRequest, ServiceAccountState, SuspendTenantRequest,
        UpdateAudienceRequest, UpdateServiceAccountRequest, VerifyTokenRequest, WordSet,
        create_credential_request::Kind, credential,
    },
    verifier::{Expected, Refusal, Verifier, wire},
};
use tonic::{Code, Status};

use crate::support::{
    Home, Kind as HomeKind, Outcome, PASSWORD, Person, Registrar, Server, asks, authorized, denied, device,
    invalid, invalid_token, not_found, orders, parts_of, refusal, stories, words, wrong,
};

stories! {
    a_service_gets_a_short_token_that_anybody_checks,
    nothing_is_given_that_is_not_allowed,
    a_disabled_account_is_refused_everywhere_at_once,
    what_is_taken_away_ends_the_tokens_that_may_carry_it,
    an_account_that_was_removed_leaves_nothing_behind,
    an_admin_reaches_the_accounts_of_its_own_tenant,
    a_suspended_tenant_has_no_services,
    one_token_of_a_service_is_revoked_by_its_admin,
    what_makes_no_sense_is_named,
}

/// The service's own name by default.
const ISSUER: &str = "http://127.0.0.1:50051";

impl Registrar<'_> {
    async fn disable(&self, id: &str) -> Result<(), Status> {
        let request = DisableServiceAccountRequest { service_account_id: id.to_owned() };
        let call =
            self.server.service_accounts().disable_service_account(authorized(&self.token, request)).await;
        let account = call?.into_inner().service_account.unwrap_or_default();
        assert_eq!(account.state(), ServiceAccountState::Disabled);
        Ok(())
    }

    async fn enable(&self, id: &str) -> Result<(), Status> {
        let request = EnableServiceAccountRequest { service_account_id: id.to_owned() };
        let call =
            self.server.service_accounts().enable_service_account(authorized(&self.token, request)).await;
        let account = call?.into_inner().service_account.unwrap_or_default();
        assert_eq!(account.state(), ServiceAccountState::Active);
        Ok(())
    }

    async fn update(&self, request: UpdateServiceAccountRequest) -> Result<(), Status> {
        self.server.service_accounts().update_service_account(authorized(&self.token, request)).await?;
        Ok(())
    }
}

async fn is_active(server: &Server, token: &str) -> Result<bool, Box<dyn std::error::Error>> {
    server.is_active(token, false).await
}

async fn a_service_gets_a_short_token_that_anybody_checks(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    assert_eq!(account.client_id, account.service_account_id);
    assert_eq!(account.allowed_grants, ["client_credentials"]);
    let (secret, credential_id) = registrar.secret(&account).await?;
    assert!(secret.starts_with("tcs_") && secret.len() == 47, "256 bits");

    let request = IssueServiceTokenRequest { scope: words(&["write"]), ..asks(&account.client_id, &secret) };
    let tokens = server.service_token(request).await?;
    assert_eq!((tokens.token_type.as_str(), tokens.scope.as_str()), ("Bearer", "write"));
    assert!(tokens.refresh_token.is_empty() && tokens.session_id.is_empty(), "it asks anew");

    let (header, claims) = parts_of(&tokens.access_token)?;
    let set = server.keys().get_jwks(GetJwksRequest::default()).await?.into_inner();
    assert!(set.keys.iter().any(|key| header["kid"] == key.kid.as_str()), "signed with an issuer key");
    assert_eq!(header["typ"], "at+jwt");
    assert!(header.get("skc").is_none());
    assert_eq!(
        (&claims["sub"], &claims["client_id"]),
        (&account.client_id.clone().into(), &account.client_id.clone().into())
    );
    assert_eq!(claims["aud"], serde_json::json!(["ledger"]));
    assert_eq!(claims["scope"], "write");
    assert_eq!(claims["ver"], 0);
    assert_eq!(claims["tenant_id"], account.tenant_id.as_str());
    assert_eq!(claims["exp"].as_i64().zip(claims["iat"].as_i64()).map(|(exp, iat)| exp - iat), Some(300));
    assert!(claims.get("sid").is_none() && claims.get("roles").is_none());

    let verifier = Verifier::from_jwks(&set.jwks_json)?;
    let expected = |audience: &str| Expected {
        issuer: ISSUER.to_owned(),
        audience: Some(audience.to_owned()),
        leeway: chrono::TimeDelta::seconds(30),
    };
    let now = if matches!(home.kind, HomeKind::Binary) { SystemClock.now() } else { home.clock.now() };
    let checked = verifier.check(&tokens.access_token, &expected("ledger"), now)?;
    assert_eq!(checked.service.map(|service| service.tenant_id.to_string()), Some(account.tenant_id.clone()));
    let elsewhere = verifier.check(&tokens.access_token, &expected("payments"), now);
    assert_eq!(elsewhere, Err(Refusal::Invalid("another audience")));

    let asked = VerifyTokenRequest {
        token: tokens.access_token.clone(),
        audience: "ledger".to_owned(),
        required_scopes: words(&["write"]),
        strict: true,
    };
    let answer = server.auth().verify_token(asked).await?.into_inner();
    assert!(answer.active, "{answer:?}");
    let told = answer.claims.ok_or("no claims")?;
    assert_eq!(
        (told.sub.as_str(), told.tenant_id.as_str()),
        (account.client_id.as_str(), account.tenant_id.as_str())
    );

    let shown = GetServiceAccountRequest { service_account_id: account.service_account_id.clone() };
    let shown = server.service_accounts().get_service_account(authorized(&registrar.token, shown)).await?;
    let shown = shown.into_inner().service_account.ok_or("no account")?;
    let [credential] = &shown.credentials[..] else { return Err("not one credential".into()) };
    assert_eq!(credential.credential_id, credential_id);
    assert_eq!(credential.kind, Some(credential::Kind::ClientSecret(ClientSecret {})));
    server.stop().await
}

async fn nothing_is_given_that_is_not_allowed(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    registrar.audience("ledger", &["read"]).await?;
    let allowed = CreateServiceAccountRequest { allowed_audiences: words(&["ledger", "mail"]), ..orders() };
    let account = registrar.create(allowed).await?;
    let (secret, _) = registrar.secret(&account).await?;
    let ask = |audience: &[&str], scope: &[&str]| {
        let request = IssueServiceTokenRequest {
            audience: words(audience),
            scope: words(scope),
            ..asks(&account.client_id, &secret)
        };
        server.issue(request)
    };
    ask(&["ledger"], &["read"]).await?;
    ask(&["mail"], &["read", "write"]).await?;
    ask(&["ledger", "mail"], &["read"]).await?;
    for (audience, scope) in [
        (&["ledger", "payments"][..], &[][..]),
        (&["Ledger"], &[]),
        (&["tessera"], &[]),
        (&[], &[]),
        (&["ledger"], &["read", "admin"]),
        (&["ledger"], &["write"]),
        (&["ledger", "mail"], &["write"]),
    ] {
        assert_eq!(refusal(ask(audience, scope).await), denied(), "{audience:?} {scope:?}");
    }
    let audience = tessera::proto::GetAudienceRequest { name: "ledger".to_owned(), ..Default::default() };
    let audience =
        server.audiences().get_audience(authorized(&registrar.token, audience)).await?.into_inner();
    let audience = audience.audience.ok_or("no audience")?;
    assert_eq!(audience.scopes, ["read"]);
    let wider = UpdateAudienceRequest {
        audience_id: audience.audience_id,
        scopes: Some(WordSet { words: words(&["read", "write"]) }),
        ..Default::default()
    };
    server.audiences().update_audience(authorized(&registrar.token, wider)).await?;
    ask(&["ledger"], &["write"]).await?;

    let exchanging = CreateServiceAccountRequest {
        name: "exchanging".to_owned(),
        allowed_grants: words(&["token_exchange"]),
        ..orders()
    };
    let account = registrar.create(exchanging).await?;
    let (secret, _) = registrar.secret(&account).await?;
    assert_eq!(refusal(server.issue(asks(&account.client_id, &secret)).await), denied());
    server.stop().await
}

async fn a_disabled_account_is_refused_everywhere_at_once(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let admin = server.admin().await?;
    let account = registrar.create(orders()).await?;
    let (secret, _) = registrar.secret(&account).await?;
    let id = &account.service_account_id;
    let tokens = server.service_token(asks(id, &secret)).await?;
    let mut watching = server.watch().await?;

    registrar.disable(id).await?;
    registrar.disable(id).await?;
    let disabled = (Code::PermissionDenied, "ACCOUNT_DISABLED".to_owned());
    assert_eq!(refusal(server.issue(asks(id, &secret)).await), disabled);
    assert_eq!(refusal(server.issue(asks(id, "tcs_wrong")).await), wrong(), "told only after the right one");
    assert!(!is_active(&server, &tokens.access_token).await?);
    let is_told = |entry: &tessera::proto::TrustEntry| {
        wire::revocation(entry).is_some_and(|(revocation, _)| {
            matches!(revocation, tessera::domain::trust::Revocation::UserVersion { user_id, version: 1 }
                if user_id.to_string() == *id)
        })
    };
    watching.until(|watching| watching.entries.iter().any(is_told)).await?;

    registrar.enable(id).await?;
    registrar.enable(id).await?;
    assert!(!is_active(&server, &tokens.access_token).await?, "what has ended stays so");
    let again = server.service_token(asks(id, &secret)).await?;
    assert!(is_active(&server, &again.access_token).await?);
    for action in ["disable_service_account", "enable_service_account"] {
        let events = server.events(&admin, action).await?;
        assert_eq!(events.len(), 1, "{action}");
        assert_eq!(events[0].target_name, "orders");
    }
    drop(watching);
    server.stop().await
}

async fn what_is_taken_away_ends_the_tokens_that_may_carry_it(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    let (secret, _) = registrar.secret(&account).await?;
    let id = || account.service_account_id.clone();
    let set = |set: &[&str]| Some(WordSet { words: words(set) });
    let write = || IssueServiceTokenRequest { scope: words(&["write"]), ..asks(&account.client_id, &secret) };
    let token = server.service_token(write()).await?.access_token;

    let more = UpdateServiceAccountRequest {
        service_account_id: id(),
        display_name: Some("Orders".to_owned()),
        allowed_scopes: set(&["write", "read", "audit"]),
        token_ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..Default::default()
    };
    registrar.update(more).await?;
    assert!(is_active(&server, &token).await?, "more is no reason to end anything");
    let short = server.service_token(write()).await?.access_token;
    let (_, claims) = parts_of(&short)?;
    assert_eq!(claims["exp"].as_i64().zip(claims["iat"].as_i64()).map(|(exp, iat)| exp - iat), Some(60));

    let less = UpdateServiceAccountRequest {
        service_account_id: id(),
        allowed_scopes: set(&["read"]),
        ..Default::default()
    };
    registrar.update(less).await?;
    assert!(!is_active(&server, &token).await? && !is_active(&server, &short).await?);
    assert_eq!(refusal(server.issue(write()).await), denied());
    server.service_token(asks(&account.client_id, &secret)).await?;
    let none = UpdateServiceAccountRequest {
        service_account_id: id(),
        allowed_grants: set(&[]),
        ..Default::default()
    };
    registrar.update(none).await?;
    assert_eq!(refusal(server.issue(asks(&account.client_id, &secret)).await), denied());
    server.stop().await
}

async fn an_account_that_was_removed_leaves_nothing_behind(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    let (secret, _) = registrar.secret(&account).await?;
    registrar.secret(&account).await?;
    let token = server.service_token(asks(&account.client_id, &secret)).await?.access_token;
    let delete = || DeleteServiceAccountRequest { service_account_id: account.service_account_id.clone() };
    server.service_accounts().delete_service_account(authorized(&registrar.token, delete())).await?;
    let twice =
        server.service_accounts().delete_service_account(authorized(&registrar.token, delete())).await;
    assert_eq!(refusal(twice), not_found());
    assert_eq!(refusal(server.issue(asks(&account.client_id, &secret)).await), wrong());
    assert!(!is_active(&server, &token).await?);
    for table in ["service_accounts", "service_credentials"] {
        assert_eq!(
            home.query(&format!("SELECT count(*) || '' AS first FROM {table}")).await?,
            ["0"],
            "{table}"
        );
    }
    let again = registrar.create(orders()).await?;
    assert_ne!(again.client_id, account.client_id, "a name may come again, an id never");
    server.stop().await
}

async fn an_admin_reaches_the_accounts_of_its_own_tenant(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let tenant = CreateTenantRequest { name: "blue".to_owned(), ..Default::default() };
    server.tenants().create_tenant(authorized(&registrar.token, tenant)).await?;
    let admin = server.admin().await?;
    server.make_user_in(&admin, "blue", "bert", &["admin"]).await?;
    server.make_user(&admin, "anna").await?;
    let login = LoginRequest {
        tenant: "blue".to_owned(),
        username: "bert".to_owned(),
        password: PASSWORD.to_owned(),
        device: device("cli"),
        ..Default::default()
    };
    let bert: Person = server.auth().login(login).await?.into_inner().into();
    let blue = Registrar { server: &server, token: bert.access_token.clone() };

    let ours = registrar.create(orders()).await?;
    let theirs = blue.create(orders()).await?;
    assert_ne!(ours.tenant_id, theirs.tenant_id, "a name is one of a kind in its tenant");
    assert_eq!(refusal(blue.try_create(orders()).await), (Code::AlreadyExists, "ALREADY_EXISTS".to_owned()));
    let (_, our_credential) = registrar.secret(&ours).await?;
    let (_, their_credential) = blue.secret(&theirs).await?;

    let into_ours = CreateServiceAccountRequest { tenant: "default".to_owned(), ..orders() };
    assert_eq!(refusal(blue.try_create(into_ours).await), not_found());
    let id = &ours.service_account_id;
    let get = GetServiceAccountRequest { service_account_id: id.clone() };
    let got = server.service_accounts().get_service_account(authorized(&blue.token, get)).await;
    assert_eq!(refusal(got), not_found());
    let request = CreateCredentialRequest {
        service_account_id: id.clone(),
        kind: Some(Kind::ClientSecret(ClientSecret {})),
        ..Default::default()
    };
    assert_eq!(refusal(blue.try_credential(request).await), not_found());
    // The server asks that address, from where it stands.
    let request = CreateCredentialRequest {
        service_account_id: theirs.service_account_id.clone(),
        kind: Some(Kind::PrivateKeyJwt(PrivateKeyJwt {
            jwks_uri: "http://127.0.0.1:1/keys".to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    };
    assert_eq!(refusal(blue.try_credential(request).await), denied());
    for refused in [
        blue.disable(id).await,
        blue.enable(id).await,
        blue.update(UpdateServiceAccountRequest { service_account_id: id.clone(), ..Default::default() })
            .await,
        blue.revoke(id, &our_credential).await,
        blue.revoke(&theirs.service_account_id, &our_credential).await,
        registrar.revoke(id, &their_credential).await,
    ] {
        assert_eq!(refusal(refused.map(tonic::Response::new)), not_found());
    }
    let list = async |token: &str, tenant: &str| {
        let request = ListServiceAccountsRequest { tenant: tenant.to_owned(), ..Default::default() };
        let reply = server.service_accounts().list_service_accounts(authorized(token, request)).await?;
        let accounts = reply.into_inner().service_accounts;
        Ok::<_, Status>(accounts.into_iter().map(|account| account.client_id).collect::<Vec<_>>())
    };
    assert_eq!(list(&blue.token, "").await?, [theirs.client_id.as_str()]);
    assert_eq!(list(&registrar.token, "blue").await?, [theirs.client_id.as_str()]);
    assert_eq!(list(&registrar.token, "").await?, [ours.client_id.as_str()]);
    registrar.disable(&theirs.service_account_id).await?;

    let anna = server.sign_in("anna", "web").await?;
    let nobody = Registrar { server: &server, token: anna.access_token };
    assert_eq!(refusal(nobody.try_create(orders()).await), denied());
    server.stop().await
}

async fn a_suspended_tenant_has_no_services(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let tenant = CreateTenantRequest { name: "blue".to_owned(), ..Default::default() };
    let tenant = server.tenants().create_tenant(authorized(&registrar.token, tenant)).await?.into_inner();
    let tenant_id = tenant.tenant.ok_or("no tenant")?.tenant_id;
    let account =
        registrar.create(CreateServiceAccountRequest { tenant: "blue".to_owned(), ..orders() }).await?;
    let (secret, _) = registrar.secret(&account).await?;
    let token = server.service_token(asks(&account.client_id, &secret)).await?.access_token;
    let suspend = SuspendTenantRequest { tenant_id };
    server.tenants().suspend_tenant(authorized(&registrar.token, suspend)).await?;
    let suspended = (Code::PermissionDenied, "TENANT_SUSPENDED".to_owned());
    assert_eq!(refusal(server.issue(asks(&account.client_id, &secret)).await), suspended);
    assert!(!is_active(&server, &token).await?);
    server.stop().await
}

async fn one_token_of_a_service_is_revoked_by_its_admin(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    let (secret, _) = registrar.secret(&account).await?;
    let first = server.service_token(asks(&account.client_id, &secret)).await?.access_token;
    let second = server.service_token(asks(&account.client_id, &secret)).await?.access_token;
    let anna = server.anna().await?;
    let revoke = |token: &str| RevokeTokenRequest { token: token.to_owned(), ..Default::default() };
    let refused = server.auth().revoke_token(authorized(&anna.access_token, revoke(&first))).await;
    assert_eq!(refusal(refused), denied());
    assert_eq!(
        refusal(server.session().list_sessions(authorized(&first, Default::default())).await),
        invalid_token(),
        "it is for somebody else",
    );
    server.auth().revoke_token(authorized(&registrar.token, revoke(&first))).await?;
    for strict in [false, true] {
        assert!(!server.is_active(&first, strict).await? && server.is_active(&second, strict).await?);
    }
    // What only the database knows, as on a replica that has not heard of it.
    home.query(&format!("UPDATE service_accounts SET token_version = 1 WHERE name = '{}'", account.name))
        .await?;
    assert!(server.is_active(&second, false).await? && !server.is_active(&second, true).await?);
    server.stop().await
}

async fn what_makes_no_sense_is_named(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    for request in [
        CreateServiceAccountRequest { name: String::new(), ..orders() },
        CreateServiceAccountRequest { name: "Orders".to_owned(), ..orders() },
        CreateServiceAccountRequest { name: "x".repeat(65), ..orders() },
        CreateServiceAccountRequest { display_name: "x".repeat(129), ..orders() },
        CreateServiceAccountRequest { allowed_audiences: words(&["two words"]), ..orders() },
        CreateServiceAccountRequest { allowed_audiences: words(&[""]), ..orders() },
        CreateServiceAccountRequest { allowed_scopes: words(&["a\"b"]), ..orders() },
        CreateServiceAccountRequest { allowed_grants: words(&["password"]), ..orders() },
        CreateServiceAccountRequest {
            allowed_audiences: (0..65).map(|number| format!("a{number}")).collect(),
            ..orders()
        },
        CreateServiceAccountRequest {
            token_ttl: Some(prost_types::Duration { seconds: 3601, nanos: 0 }),
            ..orders()
        },
        CreateServiceAccountRequest {
            token_ttl: Some(prost_types::Duration { seconds: 1, nanos: 5 }),
            ..orders()
        },
    ] {
        assert_eq!(refusal(registrar.try_create(request.clone()).await), invalid(), "{request:?}");
    }
    let account = registrar.create(orders()).await?;
    let credential = |kind| CreateCredentialRequest {
        service_account_id: account.service_account_id.clone(),
        kind,
        ..Default::default()
    };
    assert_eq!(refusal(registrar.try_credential(credential(None)).await), invalid());
    let secret = || Some(Kind::ClientSecret(ClientSecret {}));
    let long_ago = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
    let over = CreateCredentialRequest { expire_time: long_ago, ..credential(secret()) };
    assert_eq!(refusal(registrar.try_credential(over).await), invalid());
    for _ in 0..16 {
        registrar.try_credential(credential(secret())).await?;
    }
    assert_eq!(refusal(registrar.try_credential(credential(secret())).await), invalid(), "one too many");
    server.stop().await
}
