//! Services that ask about tokens as who they are: what each is told, and who may ask at all.

mod tenants;

use std::error::Error;

use serde_json::json;
use tessera::{
    domain::algorithm::Algorithm,
    proto::{
        AudienceSigning, CreateAudienceRequest, CreateServiceAccountRequest, CreateTenantRequest,
        IssueServiceTokenRequest, LoginRequest, LogoutRequest, ServiceAccount, UpdateServiceAccountRequest,
        VerifyTokenRequest, VerifyTokenResponse, WordSet,
    },
};
use tonic::{Code, Request, Response, Status};

use crate::support::{
    Home, Key, Outcome, PASSWORD, Person, Registrar, Server, asks, audience_token, authorized, login_as,
    orders, parts_of, refusal, stories, timed_stories, words,
};

stories! {
    a_service_is_told_about_its_own_tokens_alone,
    what_was_made_up_says_nothing,
    a_service_knows_the_people_of_its_own_tenant,
    who_asks_must_be_who_it_says,
    services_alone_may_ask_where_it_is_so_set,
    what_an_account_is_is_kept_and_checked,
}
timed_stories! {
    a_token_that_has_expired_is_told_to_whom_it_was_for,
}

/// All that is told of a token that is not theirs.
fn nothing() -> VerifyTokenResponse {
    VerifyTokenResponse::default()
}

fn inactive(reason: &str) -> VerifyTokenResponse {
    VerifyTokenResponse { reason: reason.to_owned(), ..Default::default() }
}

fn unauthenticated(reason: &str) -> (Code, String) {
    (Code::Unauthenticated, reason.to_owned())
}

fn about(token: &str) -> VerifyTokenRequest {
    VerifyTokenRequest { token: token.to_owned(), ..Default::default() }
}

/// A service that asks.
struct Asking<'s> {
    server: &'s Server,
    account: ServiceAccount,
    asks: IssueServiceTokenRequest,
    token: String,
}

impl<'s> Asking<'s> {
    /// One that is these audiences, in the tenant of whoever makes it.
    async fn new(registrar: &Registrar<'s>, name: &str, own: &[&str]) -> Result<Self, Box<dyn Error>> {
        let request =
            CreateServiceAccountRequest { name: name.to_owned(), own_audiences: words(own), ..orders() };
        let (account, asks) = registrar.service(request).await?;
        let token = registrar.server.service_token(asks.clone()).await?.access_token;
        Ok(Self { server: registrar.server, account, asks, token })
    }

    async fn try_ask(&self, request: VerifyTokenRequest) -> Result<Response<VerifyTokenResponse>, Status> {
        self.server.auth().verify_token(authorized(&self.token, request)).await
    }

    async fn ask(&self, request: VerifyTokenRequest) -> Result<VerifyTokenResponse, Status> {
        Ok(self.try_ask(request).await?.into_inner())
    }

    /// Whether a token is told to be good, with all that it says; else nothing at all is told.
    async fn knows(&self, token: &str) -> Result<bool, Box<dyn Error>> {
        for strict in [false, true] {
            let told = self.ask(VerifyTokenRequest { strict, ..about(token) }).await?;
            if told == nothing() {
                return Ok(false);
            }
            assert!(told.active && told.reason.is_empty() && told.claims.is_some(), "{told:?}");
        }
        Ok(true)
    }
}

async fn set_own_audiences(registrar: &Registrar<'_>, account: &ServiceAccount, own: &[&str]) -> Outcome {
    let request = UpdateServiceAccountRequest {
        service_account_id: account.service_account_id.clone(),
        own_audiences: Some(WordSet { words: words(own) }),
        ..Default::default()
    };
    let updated = registrar
        .server
        .service_accounts()
        .update_service_account(authorized(&registrar.token, request))
        .await?;
    assert_eq!(updated.into_inner().service_account.ok_or("no account")?.own_audiences, own);
    Ok(())
}

async fn a_service_is_told_about_its_own_tokens_alone(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let orders = Asking::new(&registrar, "orders", &["orders", "shop"]).await?;
    let billing = Asking::new(&registrar, "billing", &["billing"]).await?;
    let nobody = Asking::new(&registrar, "nobody", &[]).await?;
    server.anna().await?;

    // Whoever does not say what it is, is what it is called.
    let nobodys = audience_token(&server, "anna", &["nobody"], &[]).await?;
    assert!(nobody.knows(&nobodys).await? && !orders.knows(&nobodys).await?);

    let annas = audience_token(&server, "anna", &["orders", "tessera"], &["read"]).await?;
    assert!(orders.knows(&annas).await? && !billing.knows(&annas).await? && !nobody.knows(&annas).await?);
    assert!(server.is_active(&annas, false).await?, "anyone may ask who brings no token");
    for (request, reason) in [
        (VerifyTokenRequest { required_scopes: words(&["write"]), ..about(&annas) }, "INSUFFICIENT_SCOPE"),
        (VerifyTokenRequest { audience: "shop".to_owned(), ..about(&annas) }, "TOKEN_INVALID"),
    ] {
        assert_eq!(orders.ask(request.clone()).await?, inactive(reason));
        assert_eq!(billing.ask(request).await?, nothing());
    }

    // But nobody else is Tessera's own API.
    let pretender = Asking::new(&registrar, "tessera", &[]).await?;
    assert!(!pretender.knows(&annas).await? && pretender.knows(&pretender.token).await?);

    // What was issued to it is its own, whoever it is for.
    let mut ledger = orders.asks.clone();
    ledger.audience = words(&["ledger"]);
    let ledger = server.service_token(ledger).await?.access_token;
    assert!(orders.knows(&ledger).await? && !billing.knows(&ledger).await?);
    assert!(orders.knows(&orders.token).await? && !billing.knows(&orders.token).await?);

    // What it is, it is from now on.
    set_own_audiences(&registrar, &billing.account, &["billing", "orders"]).await?;
    assert!(billing.knows(&annas).await?, "with the token that it had");
    set_own_audiences(&registrar, &billing.account, &["billing"]).await?;
    assert!(!billing.knows(&annas).await?);

    server.auth().logout(authorized(&annas, LogoutRequest {})).await?;
    assert_eq!(orders.ask(about(&annas)).await?, inactive("TOKEN_REVOKED"));
    assert_eq!(billing.ask(about(&annas)).await?, nothing(), "as if it were good");
    server.stop().await
}

async fn what_was_made_up_says_nothing(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let orders = Asking::new(&registrar, "orders", &["orders", "reports"]).await?;
    server.anna().await?;
    let token = audience_token(&server, "anna", &["orders"], &[]).await?;
    let (signed, _) = token.rsplit_once('.').ok_or("no signature")?;
    assert_eq!(orders.ask(about(&format!("{signed}.AAAA"))).await?, nothing());
    assert_eq!(
        refusal(orders.try_ask(about("garbage")).await),
        (Code::InvalidArgument, "TOKEN_MALFORMED".to_owned())
    );

    // Nobody learns what became of a token by making up one that says as much of itself, and to be for another one.
    let other = audience_token(&server, "anna", &["billing", "tessera"], &[]).await?;
    server.auth().logout(authorized(&other, LogoutRequest {})).await?;
    let (mut header, mut claims) = parts_of(&other)?;
    header = json!({"alg": "ES256", "typ": header["typ"], "kid": "made-up"});
    claims["aud"] = json!(["orders"]);
    let forged = Key::generate(Algorithm::Es256)?.sign(&header, &claims)?;
    assert_eq!(orders.ask(about(&forged)).await?, nothing());

    // A token that a secret signed counts where its audience is named, as for anyone.
    let request = CreateAudienceRequest {
        name: "reports".to_owned(),
        signing: AudienceSigning::Hs256.into(),
        ..Default::default()
    };
    server.audiences().create_audience(authorized(&registrar.token, request)).await?;
    let token = audience_token(&server, "anna", &["reports"], &[]).await?;
    let named = VerifyTokenRequest { audience: "reports".to_owned(), ..about(&token) };
    assert!(orders.ask(named.clone()).await?.active);
    assert_eq!(orders.ask(about(&token)).await?, nothing());
    let billing = Asking::new(&registrar, "billing", &["billing"]).await?;
    assert_eq!(billing.ask(named).await?, nothing());
    server.stop().await
}

async fn a_service_knows_the_people_of_its_own_tenant(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let blue = CreateTenantRequest { name: "blue".to_owned(), ..Default::default() };
    server.tenants().create_tenant(authorized(&registrar.token, blue)).await?;
    let admin = server.admin().await?;
    server.make_user_in(&admin, "blue", "bert", &["admin"]).await?;
    server.anna().await?;
    let in_blue = |audience: &str| LoginRequest {
        tenant: "blue".to_owned(),
        audience: words(&[audience]),
        ..login_as("bert", PASSWORD, audience)
    };
    let boss: Person = server.auth().login(in_blue("tessera")).await?.into_inner().into();
    let bert: Person = server.auth().login(in_blue("orders")).await?.into_inner().into();
    let anna = audience_token(&server, "anna", &["orders"], &[]).await?;

    let everybodys = Asking::new(&registrar, "orders", &["orders"]).await?;
    let of_blue = Registrar { server: &server, token: boss.access_token };
    let of_blue = Asking::new(&of_blue, "orders", &["orders"]).await?;
    assert!(everybodys.knows(&anna).await? && everybodys.knows(&bert.access_token).await?);
    assert!(of_blue.knows(&bert.access_token).await? && !of_blue.knows(&anna).await?);
    server.stop().await
}

/// What a call is answered that brings this with it.
async fn asked_with(server: &Server, authorization: &[&str], token: &str) -> Result<(), (Code, String)> {
    let mut request = Request::new(about(token));
    for value in authorization {
        request.metadata_mut().append("authorization", value.parse().expect("it is ASCII"));
    }
    let answer = server.auth().verify_token(request).await;
    if answer.is_ok() { Ok(()) } else { Err(refusal(answer)) }
}

async fn who_asks_must_be_who_it_says(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let orders = Asking::new(&registrar, "orders", &["orders"]).await?;
    let anna = server.anna().await?.access_token;
    let mut ledger = orders.asks.clone();
    ledger.audience = words(&["ledger"]);
    let ledger = server.service_token(ledger).await?.access_token;
    let bearer = |token: &str| format!("Bearer {token}");
    for (what, authorization, refused) in [
        ("for elsewhere", vec![bearer(&ledger)], unauthenticated("TOKEN_INVALID")),
        ("garbage", vec![bearer("garbage")], (Code::InvalidArgument, "TOKEN_MALFORMED".to_owned())),
        ("no bearer", vec!["Basic YTpi".to_owned()], unauthenticated("TOKEN_MISSING")),
        (
            "two",
            vec![bearer(&orders.token), bearer(&orders.token)],
            (Code::InvalidArgument, "TOKEN_MALFORMED".to_owned()),
        ),
    ] {
        let authorization: Vec<_> = authorization.iter().map(String::as_str).collect();
        assert_eq!(asked_with(&server, &authorization, &anna).await, Err(refused), "{what}");
    }
    assert_eq!(asked_with(&server, &[&bearer(&orders.token)], &anna).await, Ok(()));
    assert_eq!(asked_with(&server, &[], &anna).await, Ok(()));
    assert_eq!(asked_with(&server, &[&bearer(&anna)], &anna).await, Ok(()), "a person's client");
    registrar.bar(&orders.account).await?;
    assert_eq!(refusal(orders.try_ask(about(&anna)).await), unauthenticated("TOKEN_REVOKED"));
    server.stop().await
}

async fn services_alone_may_ask_where_it_is_so_set(home: Home) -> Outcome {
    let server = home.start_with("[tokens]\nintrospection = \"services\"\n").await?;
    let registrar = Registrar::of(&server).await?;
    let orders = Asking::new(&registrar, "orders", &["orders"]).await?;
    server.anna().await?;
    let anna = audience_token(&server, "anna", &["orders", "tessera"], &[]).await?;
    assert!(orders.knows(&anna).await?);
    assert_eq!(asked_with(&server, &[], &anna).await, Err(unauthenticated("TOKEN_MISSING")));
    let of_anna = format!("Bearer {anna}");
    assert_eq!(asked_with(&server, &[&of_anna], &anna).await, Err(unauthenticated("TOKEN_INVALID")));
    server.watch().await?;
    server.stop().await
}

async fn what_an_account_is_is_kept_and_checked(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let with = |own: Vec<String>| CreateServiceAccountRequest { own_audiences: own, ..orders() };
    let many = (0..65).map(|number| format!("a{number}")).collect();
    for own in [words(&["tessera"]), words(&["orders", "tessera"]), words(&["two words"]), words(&[""]), many]
    {
        let refused = refusal(registrar.try_create(with(own)).await);
        assert_eq!(refused, (Code::InvalidArgument, "INVALID_FIELD".to_owned()));
    }
    let account = registrar.create(with(words(&["orders", "shop", "orders"]))).await?;
    assert_eq!(account.own_audiences, ["orders", "shop"]);
    let (secret, _) = registrar.secret(&account).await?;
    let token = server.service_token(asks(&account.client_id, &secret)).await?.access_token;
    set_own_audiences(&registrar, &account, &[]).await?;
    assert!(server.is_active(&token, true).await?, "it may ask for as much as before");
    assert_eq!(home.query("SELECT own_audiences AS first FROM service_accounts").await?, [""]);
    server.stop().await
}

async fn a_token_that_has_expired_is_told_to_whom_it_was_for(home: Home) -> Outcome {
    let server = home.start_with("[tokens]\nservice_ttl = \"1h\"\n").await?;
    let registrar = Registrar::of(&server).await?;
    let orders = Asking::new(&registrar, "orders", &["orders"]).await?;
    let billing = Asking::new(&registrar, "billing", &["billing"]).await?;
    server.anna().await?;
    let token = audience_token(&server, "anna", &["orders"], &[]).await?;
    home.clock.advance(15 * 60 + 30);
    assert_eq!(orders.ask(about(&token)).await?, inactive("TOKEN_EXPIRED"));
    assert_eq!(billing.ask(about(&token)).await?, nothing());
    server.stop().await
}
