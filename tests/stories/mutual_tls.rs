//! Services that prove themselves with the certificate of their connection (RFC 8705), and tokens that are good with that
//! certificate alone.

use std::error::Error;

use serde_json::json;
use tessera::{
    proto::{
        CreateCredentialRequest, DisableServiceAccountRequest, EventOutcome, ExchangeTokenRequest,
        GetServiceAccountRequest, IssueServiceTokenRequest, Mtls, ServiceAccount, Tokens,
        auth_client::AuthClient, create_credential_request::Kind, credential, mtls::Certificate as Which,
    },
    verifier::{Credential, Guard, IdentityError, Requirement, ServiceIdentity, Verifier},
};
use tonic::{
    Code, Request,
    transport::{Certificate, Channel, ServerTlsConfig},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::{
    Authority, Guarded, Home, Kind as HomeKind, Leaf, ORDERS_URI, Outcome, Registrar, Shop, asks,
    audience_token, authorized, deputy, invalid, invalid_token, orders, over_tls, parts_of, reason, refusal,
    stories, timed_stories, words, wrong,
};

stories! {
    a_certificate_proves_an_account_by_each_of_its_names,
    a_certificate_that_nobody_vouches_for_does_not_get_in,
    a_bound_token_is_good_over_its_certificate_alone,
    a_proxys_own_certificate_is_not_its_callers,
    an_identity_proves_itself_by_its_connection,
}
timed_stories! {
    a_certificate_that_ends_proves_nothing_more_on_its_connection,
    a_service_can_demand_a_bound_token,
}

pub(super) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Asks for a token for `ledger` with nothing but a name.
pub(super) fn bare(client_id: &str) -> IssueServiceTokenRequest {
    asks(client_id, "")
}

/// Gives an account a credential; gives its id.
pub(super) async fn credential(
    registrar: &Registrar<'_>,
    account: &ServiceAccount,
    which: Which,
) -> Result<String> {
    registrar.credential(account, Kind::Mtls(Mtls { certificate: Some(which) })).await
}

/// An account that may ask tokens for Tessera itself and exchange others for `ledger`, by the certificate of `orders`.
pub(super) async fn exchanger(registrar: &Registrar<'_>) -> Result<ServiceAccount> {
    let account = registrar.create(deputy()).await?;
    credential(registrar, &account, Which::SanUri(ORDERS_URI.to_owned())).await?;
    Ok(account)
}

/// Gets a token by the certificate that is shown.
pub(super) async fn token(
    auth: &AuthClient<Channel>,
    request: impl tonic::IntoRequest<IssueServiceTokenRequest>,
) -> Result<String> {
    let tokens = auth.clone().issue_service_token(request).await?.into_inner().tokens;
    Ok(tokens.ok_or("no tokens")?.access_token)
}

pub(super) fn exchanging(subject_token: &str) -> ExchangeTokenRequest {
    ExchangeTokenRequest {
        subject_token: subject_token.to_owned(),
        subject_token_type: "urn:ietf:params:oauth:token-type:access_token".to_owned(),
        audience: words(&["ledger"]),
        ..Default::default()
    }
}

async fn exchange(auth: &AuthClient<Channel>, request: Request<ExchangeTokenRequest>) -> Result<Tokens> {
    Ok(auth.clone().exchange_token(request).await?.into_inner().tokens.ok_or("no tokens")?)
}

async fn a_certificate_proves_an_account_by_each_of_its_names(home: Home) -> Outcome {
    let shop = Shop::new(&home).await?;
    let server = shop.start(&home, "").await?;
    let (registrar, admin) = (Registrar::of(&server).await?, server.admin().await?);
    let account = registrar.create(orders()).await?;
    let id = account.client_id.as_str();
    let nobody = shop.auth(&server, None)?;
    let by_orders = shop.auth(&server, Some(&shop.orders))?;
    let by_billing = shop.auth(&server, Some(&shop.billing))?;
    let refused = async |auth: &AuthClient<Channel>, what: &str| {
        assert_eq!(refusal(auth.clone().issue_service_token(bare(id)).await), wrong(), "{what}");
    };
    refused(&by_orders, "no credential").await;

    let thumbprint = shop.authority.thumbprint(&shop.billing).await?;
    for (which, good, other, leaf) in [
        (Which::SanUri(ORDERS_URI.to_owned()), &by_orders, &by_billing, &shop.orders),
        (Which::SanDns("billing.SHOP.example".to_owned()), &by_billing, &by_orders, &shop.billing),
        (Which::CertificateThumbprint(thumbprint), &by_billing, &by_orders, &shop.billing),
    ] {
        let what = format!("{which:?}");
        let credential_id = credential(&registrar, &account, which).await?;
        let claims = parts_of(&token(good, bare(id)).await?)?.1;
        let thumbprint = shop.authority.thumbprint(leaf).await?;
        assert_eq!(claims["cnf"], json!({"x5t#S256": thumbprint}), "{what}");
        assert_eq!(claims["sub"], id);
        refused(other, &what).await;
        refused(&nobody, &what).await;
        registrar.revoke(&account.service_account_id, &credential_id).await?;
        refused(good, &what).await;
    }
    for which in [
        Which::SanUri("spiffe://shop.example/order".to_owned()),
        Which::SanDns("shop.example".to_owned()),
        Which::SanDns("x.shop.example".to_owned()),
        Which::CertificateThumbprint(format!("{}Bwc", "BwcH".repeat(10))),
    ] {
        credential(&registrar, &account, which).await?;
    }
    refused(&by_orders, "other names").await;
    refused(&by_billing, "other names").await;
    let nobodys = uuid::Uuid::from_u128(7).to_string();
    for stranger in ["", "orders", &nobodys] {
        assert_eq!(refusal(by_orders.clone().issue_service_token(bare(stranger)).await), wrong());
    }
    let events = server.events(&admin, "issue_service_token").await?;
    assert_eq!(events.len(), 12, "each that names an account: {events:#?}");
    assert!(events.iter().all(|event| event.reason == "INVALID_CREDENTIALS" && event.actor_id.is_empty()));

    credential(&registrar, &account, Which::SanUri(ORDERS_URI.to_owned())).await?;
    token(&by_orders, bare(id)).await?;
    let request = GetServiceAccountRequest { service_account_id: account.service_account_id.clone() };
    let shown = server.service_accounts().get_service_account(authorized(&registrar.token, request)).await?;
    let shown = shown.into_inner().service_account.ok_or("no account")?.credentials;
    let newest = shown.first().and_then(|newest| newest.kind.clone());
    let certificate = Some(Which::SanUri(ORDERS_URI.to_owned()));
    assert_eq!(newest, Some(credential::Kind::Mtls(Mtls { certificate })));

    let request = DisableServiceAccountRequest { service_account_id: account.service_account_id.clone() };
    server.service_accounts().disable_service_account(authorized(&registrar.token, request)).await?;
    let disabled = (Code::PermissionDenied, "ACCOUNT_DISABLED".to_owned());
    assert_eq!(refusal(by_orders.clone().issue_service_token(bare(id)).await), disabled);
    let events = server.events(&admin, "issue_service_token").await?;
    let newest = events.first().ok_or("no event")?;
    assert_eq!((newest.outcome(), newest.actor_id.as_str()), (EventOutcome::Failure, id));
    server.stop().await
}

/// What is none of these is told to whoever makes a credential.
#[tokio::test(flavor = "multi_thread")]
async fn a_credential_names_a_certificate() -> Outcome {
    let home = Home::new(HomeKind::Sqlite).await?;
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    for certificate in [
        None,
        Some(Which::SanDns("*.shop.example".to_owned())),
        Some(Which::SanDns(String::new())),
        Some(Which::SanUri("orders".to_owned())),
        Some(Which::SanUri(format!("spiffe://{}", "a".repeat(3000)))),
        Some(Which::CertificateThumbprint("AB:CD".to_owned())),
    ] {
        let request = CreateCredentialRequest {
            service_account_id: account.service_account_id.clone(),
            kind: Some(Kind::Mtls(Mtls { certificate })),
            ..Default::default()
        };
        assert_eq!(refusal(registrar.try_credential(request).await), invalid());
    }
    // Where nobody can have a certificate, nothing is proved with one.
    assert_eq!(refusal(server.issue(bare(&account.client_id)).await), invalid());
    server.stop().await
}

async fn a_certificate_that_nobody_vouches_for_does_not_get_in(home: Home) -> Outcome {
    let shop = Shop::new(&home).await?;
    let server = shop.start(&home, "").await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    credential(&registrar, &account, Which::SanUri(ORDERS_URI.to_owned())).await?;
    let stranger = Authority::new().await?;
    let name = format!("URI:{ORDERS_URI}");
    let own = shop.authority.self_signed("own").await?;
    let pinned = shop.authority.thumbprint(&own).await?;
    credential(&registrar, &account, Which::CertificateThumbprint(pinned)).await?;
    for (what, leaf) in [
        ("another authority's", stranger.client("orders", &name, 30).await?),
        ("expired", shop.authority.client("former", &name, -1).await?),
        ("its own", own),
    ] {
        let answer = shop.auth(&server, Some(&leaf))?.issue_service_token(bare(&account.client_id)).await;
        let status = answer.expect_err(what);
        assert_eq!(reason(&status), "", "{what}: {status:?}");
    }
    token(&shop.auth(&server, Some(&shop.orders))?, bare(&account.client_id)).await?;
    // A certificate is nobody's duty.
    server.admin().await?;
    server.stop().await
}

async fn a_certificate_that_ends_proves_nothing_more_on_its_connection(home: Home) -> Outcome {
    let shop = Shop::new(&home).await?;
    let server = shop.start(&home, "").await?;
    let registrar = Registrar::of(&server).await?;
    let account = exchanger(&registrar).await?;
    credential(&registrar, &account, Which::SanDns("billing.shop.example".to_owned())).await?;
    let billing = shop.auth(&server, Some(&shop.billing))?;
    let own = IssueServiceTokenRequest { audience: words(&["tessera"]), ..bare(&account.client_id) };
    let early = token(&billing, own.clone()).await?;
    server.anna().await?;
    let end = |token: &str| Ok::<_, Box<dyn Error>>(parts_of(token)?.1["exp"].as_i64().ok_or("no exp")?);

    // It goes on as far as the certificate does, though the token that it is asked for with is near its end.
    home.clock.advance(200);
    let subject = audience_token(&server, "anna", &["orders"], &[]).await?;
    let acting = exchange(&billing, authorized(&early, exchanging(&subject))).await?;
    assert_eq!(end(&acting.access_token)?, home.now().timestamp() + 300);

    home.clock.advance(24 * 60 * 60 - 120 - 200);
    let own = token(&billing, own).await?;
    let subject = audience_token(&server, "anna", &["orders"], &[]).await?;
    let acting = exchange(&billing, authorized(&own, exchanging(&subject))).await?;
    let left = end(&own)? - home.now().timestamp();
    assert!((60..=120).contains(&left), "no longer than the certificate: {left}");
    assert_eq!(end(&acting.access_token)?, end(&own)?, "nor is what was exchanged");

    home.clock.advance(180);
    let late = billing.clone().exchange_token(authorized(&own, exchanging(&subject))).await;
    assert_eq!(refusal(late), (Code::Unauthenticated, "TOKEN_EXPIRED".to_owned()));
    assert_eq!(refusal(billing.clone().issue_service_token(bare(&account.client_id)).await), wrong());
    let again = shop.auth(&server, Some(&shop.billing))?.issue_service_token(bare(&account.client_id)).await;
    assert_eq!(reason(&again.expect_err("a new connection")), "");
    token(&shop.auth(&server, Some(&shop.orders))?, bare(&account.client_id)).await?;
    server.stop().await
}

async fn a_bound_token_is_good_over_its_certificate_alone(home: Home) -> Outcome {
    let shop = Shop::new(&home).await?;
    let server = shop.start(&home, "").await?;
    let registrar = Registrar::of(&server).await?;
    let account = exchanger(&registrar).await?;
    let (secret, _) = registrar.secret(&account).await?;
    let nobody = shop.auth(&server, None)?;
    let by_orders = shop.auth(&server, Some(&shop.orders))?;
    let by_billing = shop.auth(&server, Some(&shop.billing))?;
    server.anna().await?;
    let subject = audience_token(&server, "anna", &["orders"], &[]).await?;

    let audience = words(&["tessera"]);
    let request = IssueServiceTokenRequest { audience: audience.clone(), ..bare(&account.client_id) };
    let bound = token(&by_orders, request).await?;
    let exchanged = exchange(&by_orders, authorized(&bound, exchanging(&subject))).await?;
    let cnf = json!({"x5t#S256": shop.authority.thumbprint(&shop.orders).await?});
    assert_eq!(parts_of(&exchanged.access_token)?.1["cnf"], cnf, "who acts has it");
    for (what, other) in [("no certificate", &nobody), ("another", &by_billing)] {
        let refused = other.clone().exchange_token(authorized(&bound, exchanging(&subject))).await;
        assert_eq!(refusal(refused), invalid_token(), "{what}");
    }
    // Anybody may ask about it, and is told what it is bound to.
    assert!(server.is_active(&bound, true).await?);

    let request = IssueServiceTokenRequest { audience, ..asks(&account.client_id, &secret) };
    let bearer = token(&by_orders, request).await?;
    assert_eq!(parts_of(&bearer)?.1.get("cnf"), None, "it was not the certificate that proved it");
    for auth in [&by_orders, &by_billing, &nobody] {
        let exchanged = exchange(auth, authorized(&bearer, exchanging(&subject))).await?;
        assert_eq!(parts_of(&exchanged.access_token)?.1.get("cnf"), None);
    }
    server.stop().await
}

async fn a_proxys_own_certificate_is_not_its_callers(home: Home) -> Outcome {
    let shop = Shop::new(&home).await?;
    let server = shop.start(&home, "trusted_proxies = [\"127.0.0.1\"]").await?;
    let registrar = Registrar::of(&server).await?;
    let account = exchanger(&registrar).await?;
    let proxy = shop.auth(&server, Some(&shop.orders))?;
    // It need not say for whom it calls.
    assert_eq!(refusal(proxy.clone().issue_service_token(bare(&account.client_id)).await), wrong());
    server.stop().await?;

    // Nor where it could tell theirs.
    let more = "trusted_proxies = [\"127.0.0.1\"]\nclient_cert_header = \"client-cert\"";
    let server = shop.start(&home, more).await?;
    let proxy = shop.auth(&server, Some(&shop.orders))?;
    assert_eq!(refusal(proxy.clone().issue_service_token(bare(&account.client_id)).await), wrong());
    server.stop().await
}

async fn an_identity_proves_itself_by_its_connection(home: Home) -> Outcome {
    let shop = Shop::new(&home).await?;
    let server = shop.start(&home, "").await?;
    let account = exchanger(&Registrar::of(&server).await?).await?;
    let identity = |shown: Option<&Leaf>| {
        let over = shop.channel(&server, shown)?;
        let identity = ServiceIdentity::over(over, &account.client_id, Credential::connection()).build()?;
        Ok::<_, Box<dyn Error>>(identity)
    };
    let cnf = json!({"x5t#S256": shop.authority.thumbprint(&shop.orders).await?});
    let orders = identity(Some(&shop.orders))?;
    let own = orders.token(&["ledger"], &[]).await?;
    assert_eq!(parts_of(own.expose())?.1["cnf"], cnf);
    server.anna().await?;
    let subject = audience_token(&server, "anna", &["orders"], &[]).await?;
    let acting = orders.exchange(&subject, &["ledger"], &[]).await?;
    assert_eq!(parts_of(acting.expose())?.1["cnf"], cnf);
    for shown in [None, Some(&shop.billing)] {
        let refused = identity(shown)?.token(&["ledger"], &[]).await.err();
        assert_eq!(refused, Some(IdentityError::Refused("INVALID_CREDENTIALS".to_owned())));
    }
    server.stop().await
}

async fn a_service_can_demand_a_bound_token(home: Home) -> Outcome {
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    let shop = Shop::new(&home).await?;
    let server = shop.start(&home, "").await?;
    let registrar = Registrar::of(&server).await?;
    let account = exchanger(&registrar).await?;
    let (secret, _) = registrar.secret(&account).await?;
    let bound = token(&shop.auth(&server, Some(&shop.orders))?, bare(&account.client_id)).await?;
    let bearer = token(&server.auth(), asks(&account.client_id, &secret)).await?;

    let issuer = over_tls(server.address, shop.authority.client_tls(None)?)?;
    let verifier = Verifier::connect(issuer).issuer("http://127.0.0.1:50051").audience("ledger");
    let verifier = verifier.clock(home.clock.clone()).start().await?;
    let own = shop.authority.issue("ledger", "2").await?.identity()?;
    let clients = Certificate::from_pem(std::fs::read(shop.authority.certificate())?);
    for is_demanded in [true, false] {
        let requirement = Requirement::good_token();
        let requirement = if is_demanded { requirement.bound_to_certificate() } else { requirement };
        let guard = Guard::new(verifier.clone()).require(CHECK, requirement);
        let tls = ServerTlsConfig::new().identity(own.clone());
        let tls = tls.client_ca_root(clients.clone()).client_auth_optional(true);
        let ledger = Guarded::start_with_tls(guard, tls).await?;
        let calls = async |token: &str, shown: Option<&Leaf>| -> Result<(Code, String)> {
            let channel = over_tls(ledger.address, shop.authority.client_tls(shown)?)?.connect_lazy();
            let request = authorized(token, HealthCheckRequest::default());
            match HealthClient::new(channel).check(request).await {
                Ok(_) => Ok((Code::Ok, String::new())),
                Err(status) => Ok((status.code(), reason(&status))),
            }
        };
        let good = (Code::Ok, String::new());
        assert_eq!(calls(&bound, Some(&shop.orders)).await?, good);
        assert_eq!(calls(&bound, Some(&shop.billing)).await?, invalid_token());
        assert_eq!(calls(&bound, None).await?, invalid_token());
        for shown in [None, Some(&shop.orders)] {
            let expected = if is_demanded { invalid_token() } else { good.clone() };
            assert_eq!(calls(&bearer, shown).await?, expected);
        }
    }
    server.stop().await
}
