//! Who may follow the trust log, and how long: services alone where it is so set, and nobody whose token was ended.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tessera::{
    clock::{Clock, SystemClock},
    proto::{
        CreateServiceAccountRequest, IssueServiceTokenRequest, LogoutRequest, ServiceAccount,
        UpdateServiceAccountRequest, WordSet, auth_client::AuthClient,
    },
    verifier::{
        AccessToken, CallToken, CallTokenFuture, ConnectBuilder, Denial, OnStale, Refusal, StartError,
        TokenError, Verifier,
    },
};
use tokio::{sync::Mutex, time::timeout};
use tonic::{Code, Status, transport::Channel};

use crate::support::{
    FENCE, Home, Kind, Outcome, Person, Registrar, Server, Watching, audience_token, authorized, eventually,
    orders, reason, stories, story, timed_stories, words,
};

stories! {
    services_alone_follow_where_it_is_so_set,
    whose_account_is_barred_hears_no_more,
    a_verifier_follows_with_a_token_of_its_own,
    a_verifier_whose_token_was_ended_gets_another_one,
}
timed_stories! {
    that_a_tokens_time_has_passed_ends_no_stream,
}
story!(a_verifier_asks_with_a_token_of_its_own, sqlite: Sqlite, postgres: Postgres);

const SERVICES: &str = "[server]\nwatch = \"services\"\n";
const REVOKED: Denial = Denial::Refused(Refusal::Revoked);

async fn refused(server: &Server, token: Option<&str>) -> (Code, String) {
    let watching = match token {
        Some(token) => server.watch_as(token).await,
        None => server.watch_from(Default::default()).await,
    };
    let status = watching.err().expect("it was to be refused");
    (status.code(), reason(&status))
}

fn unauthenticated(reason: &str) -> (Code, String) {
    (Code::Unauthenticated, reason.to_owned())
}

/// What a stream ends with, which it must.
async fn end_of(watching: &mut Watching) -> Result<(Code, String), Box<dyn Error>> {
    let ending = async {
        loop {
            if let Err(status) = watching.hear().await {
                return status;
            }
        }
    };
    let status = timeout(FENCE, ending).await.map_err(|_| "it goes on")?;
    Ok((status.code(), reason(&status)))
}

/// A service account that is `orders`, and what it asks for a token for Tessera's own API with.
async fn verifying(
    registrar: &Registrar<'_>,
) -> Result<(ServiceAccount, IssueServiceTokenRequest), Box<dyn Error>> {
    registrar.service(CreateServiceAccountRequest { own_audiences: words(&["orders"]), ..orders() }).await
}

async fn log_out(server: &Server, person: &Person) -> Outcome {
    server.auth().logout(authorized(&person.access_token, LogoutRequest {})).await?;
    Ok(())
}

async fn services_alone_follow_where_it_is_so_set(home: Home) -> Outcome {
    let server = home.start_with(SERVICES).await?;
    let registrar = Registrar::of(&server).await?;
    let (_, asks) = verifying(&registrar).await?;
    let anna = server.anna().await?;
    let token = server.service_token(asks.clone()).await?.access_token;
    let ledger = IssueServiceTokenRequest { audience: words(&["ledger"]), ..asks };
    let ledger = server.service_token(ledger).await?.access_token;

    assert_eq!(refused(&server, None).await, unauthenticated("TOKEN_MISSING"));
    assert_eq!(refused(&server, Some(&anna.access_token)).await, unauthenticated("TOKEN_INVALID"));
    assert_eq!(refused(&server, Some(&ledger)).await, unauthenticated("TOKEN_INVALID"), "for elsewhere");
    assert_eq!(
        refused(&server, Some("garbage")).await,
        (Code::InvalidArgument, "TOKEN_MALFORMED".to_owned())
    );
    let mut watching = server.watch_as(&token).await?;
    log_out(&server, &anna).await?;
    watching.until(|watching| watching.knows(&anna.session_id)).await?;
    assert!(!server.is_active(&anna.access_token, false).await?, "anyone may ask about a token all the same");
    drop(watching);
    server.stop().await
}

async fn whose_account_is_barred_hears_no_more(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let (account, asks) = verifying(&registrar).await?;
    let other = CreateServiceAccountRequest { name: "other".to_owned(), ..orders() };
    let (_, others) = registrar.service(other).await?;
    let token = server.service_token(asks).await?.access_token;
    let mut watching = server.watch_as(&token).await?;
    let mut another = server.watch_as(&server.service_token(others).await?.access_token).await?;
    let mut anonymous = server.watch().await?;
    registrar.bar(&account).await?;
    assert_eq!(end_of(&mut watching).await?, unauthenticated("TOKEN_REVOKED"));
    assert_eq!(refused(&server, Some(&token)).await, unauthenticated("TOKEN_REVOKED"));

    let anna = server.anna().await?;
    log_out(&server, &anna).await?;
    for going_on in [&mut another, &mut anonymous] {
        going_on.until(|watching| watching.knows(&anna.session_id)).await?;
    }
    drop((another, anonymous));
    server.stop().await
}

async fn that_a_tokens_time_has_passed_ends_no_stream(home: Home) -> Outcome {
    let server = home.start_with(SERVICES).await?;
    let registrar = Registrar::of(&server).await?;
    let (account, asks) = verifying(&registrar).await?;
    let token = server.service_token(asks).await?.access_token;
    let mut watching = server.watch_as(&token).await?;
    home.clock.advance(2 * 60 * 60);
    let anna = server.anna().await?;
    log_out(&server, &anna).await?;
    watching.until(|watching| watching.knows(&anna.session_id)).await?;
    assert_eq!(refused(&server, Some(&token)).await, unauthenticated("TOKEN_EXPIRED"), "nor begins one");

    // It ends with its account all the same.
    let registrar = Registrar::of(&server).await?;
    registrar.bar(&account).await?;
    assert_eq!(end_of(&mut watching).await?, unauthenticated("TOKEN_REVOKED"));
    server.stop().await
}

/// A service's own token, which it keeps until it is refused.
struct Own {
    issuer: AuthClient<Channel>,
    asks: IssueServiceTokenRequest,
    kept: Mutex<Option<AccessToken>>,
    got: AtomicUsize,
}

impl Own {
    fn new(server: &Server, asks: &IssueServiceTokenRequest) -> Arc<Self> {
        let (issuer, asks) = (server.auth(), asks.clone());
        Arc::new(Self { issuer, asks, kept: Mutex::default(), got: AtomicUsize::new(0) })
    }

    async fn get(&self) -> Result<AccessToken, Status> {
        self.got.fetch_add(1, Ordering::Relaxed);
        let reply = self.issuer.clone().issue_service_token(self.asks.clone()).await?.into_inner();
        Ok(AccessToken::from(secrecy::SecretString::from(reply.tokens.unwrap_or_default().access_token)))
    }
}

impl CallToken for Own {
    fn token(&self, refused: Option<AccessToken>) -> CallTokenFuture<'_> {
        Box::pin(async move {
            let mut kept = self.kept.lock().await;
            if let Some(token) = kept.clone().filter(|token| refused.as_ref() != Some(token)) {
                return Ok(token);
            }
            let token = self.get().await.map_err(|status| TokenError::Refused(reason(&status)))?;
            Ok(kept.insert(token).clone())
        })
    }
}

fn connect(home: &Home, server: &Server) -> ConnectBuilder {
    let clock: Arc<dyn Clock> = match home.kind {
        Kind::Sqlite | Kind::Postgres => home.clock.clone(),
        Kind::Binary | Kind::BinarySqlite => Arc::new(SystemClock),
    };
    Verifier::connect(server.url()).issuer("http://127.0.0.1:50051").audience("orders").clock(clock)
}

async fn a_verifier_follows_with_a_token_of_its_own(home: Home) -> Outcome {
    let server = home.start_with(SERVICES).await?;
    let registrar = Registrar::of(&server).await?;
    let (_, asks) = verifying(&registrar).await?;
    let own = Own::new(&server, &asks);
    server.anna().await?;
    let verifier = connect(&home, &server).authorization(own.clone()).start().await?;
    let token = audience_token(&server, "anna", &["orders", "tessera"], &[]).await?;
    verifier.check(&token).await?;
    server.auth().logout(authorized(&token, LogoutRequest {})).await?;
    eventually("the logout is heard", async || Ok(verifier.check(&token).await == Err(REVOKED))).await?;
    assert_eq!(own.got.load(Ordering::Relaxed), 1);

    let brief = Duration::from_millis(300);
    let without = connect(&home, &server).first_contact(brief).start().await;
    assert!(matches!(without, Err(StartError::IssuerAway(_))));
    let wrong = IssueServiceTokenRequest { client_secret: "tcs_wrong".to_owned(), ..asks };
    let wrong = connect(&home, &server).authorization(Own::new(&server, &wrong)).first_contact(brief);
    assert!(matches!(wrong.start().await, Err(StartError::IssuerAway(_))));
    server.stop().await
}

async fn a_verifier_whose_token_was_ended_gets_another_one(home: Home) -> Outcome {
    let server = home.start_with(SERVICES).await?;
    let registrar = Registrar::of(&server).await?;
    let (account, asks) = verifying(&registrar).await?;
    let own = Own::new(&server, &asks);
    let verifier = connect(&home, &server).authorization(own.clone()).start().await?;
    // A scope less, and every token that the account holds ends.
    let request = UpdateServiceAccountRequest {
        service_account_id: account.service_account_id,
        allowed_scopes: Some(WordSet::default()),
        ..Default::default()
    };
    server.service_accounts().update_service_account(authorized(&registrar.token, request)).await?;
    eventually("it has another one, and hears again", async || {
        let figures = verifier.figures();
        Ok(figures.disconnects == 1 && figures.is_connected && own.got.load(Ordering::Relaxed) == 2)
    })
    .await?;
    let anna = server.anna().await?;
    let token = audience_token(&server, "anna", &["orders", "tessera"], &[]).await?;
    assert_eq!(verifier.check(&token).await?.sub.to_string(), anna.user_id);
    server.auth().logout(authorized(&token, LogoutRequest {})).await?;
    eventually("the logout is heard", async || Ok(verifier.check(&token).await == Err(REVOKED))).await?;
    server.stop().await
}

async fn a_verifier_asks_with_a_token_of_its_own(home: Home) -> Outcome {
    // The one place is taken, so that it has to ask.
    let settings = "[server]\nmax_watchers = 1\n[tokens]\nintrospection = \"services\"\n";
    let server = home.start_with(settings).await?;
    let registrar = Registrar::of(&server).await?;
    let (_, asks) = verifying(&registrar).await?;
    server.anna().await?;
    let _only = server.watch().await?;
    let start = async |own: Option<Arc<Own>>| {
        let verifier = connect(&home, &server).on_stale(OnStale::AskIssuer).first_contact(Duration::ZERO);
        match own {
            Some(own) => verifier.authorization(own).start().await,
            None => verifier.start().await,
        }
    };
    let asking = start(Some(Own::new(&server, &asks))).await?;
    let token = audience_token(&server, "anna", &["orders", "tessera"], &["read"]).await?;
    assert!(asking.check(&token).await?.has_scope("read"));
    assert_eq!(start(None).await?.check(&token).await, Err(Denial::Unreachable), "nobody is told who it is");

    // Of what it is not, the issuer tells it nothing.
    let other = CreateServiceAccountRequest { name: "other".to_owned(), ..orders() };
    let (_, others) = registrar.service(other).await?;
    let stranger = start(Some(Own::new(&server, &others))).await?;
    assert!(matches!(stranger.check(&token).await, Err(Denial::Refused(Refusal::Invalid(_)))));

    server.auth().logout(authorized(&token, LogoutRequest {})).await?;
    assert_eq!(asking.check(&token).await, Err(REVOKED));
    server.stop().await
}
