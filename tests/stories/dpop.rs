//! Tokens that are bound to a key (DPoP, RFC 9449): of no use to who takes them, by themselves or with their proof.

mod clients;
mod guards;
mod nonce;
mod proofs;
mod services;

use std::error::Error;

use serde_json::json;
use tessera::{
    domain::algorithm::Algorithm,
    proto::{
        ListEventsRequest, ListSessionsRequest, LoginRequest, LoginResponse, LogoutRequest, RefreshRequest,
        SignUpRequest, Tokens,
    },
};
use tonic::{Code, Request, Response, Status};

use crate::support::{
    Holder, Home, Outcome, PASSWORD, Server, authorized, bound, client, file, invalid_token, login_as,
    parts_of, proved, refresh_with, refusal, revoked, run_client, stories, story, with_proofs,
};

stories! {
    a_session_is_bound_to_the_key_that_began_it,
    a_refresh_is_for_the_holder_of_the_key,
    every_kind_of_key_will_do,
    whoever_signs_up_can_bind_its_session,
}
story!(a_client_in_python_holds_a_key, binary: Binary);
story!(a_client_in_javascript_holds_a_key, binary: Binary);

const LOGIN: &str = "/tessera.v1.Auth/Login";
const REFRESH: &str = "/tessera.v1.Auth/Refresh";
const LIST: &str = "/tessera.v1.Session/ListSessions";

fn invalid_proof() -> (Code, String) {
    (Code::Unauthenticated, "INVALID_DPOP_PROOF".to_owned())
}

fn anna() -> Request<LoginRequest> {
    Request::new(login_as("anna", PASSWORD, "web"))
}

/// Signs anna in with a key.
async fn sign_in(home: &Home, server: &Server, holder: &Holder) -> Result<LoginResponse, Box<dyn Error>> {
    let proof = holder.proof(LOGIN, home.now(), None)?;
    Ok(server.auth().login(with_proofs(&[&proof], anna())).await?.into_inner())
}

/// Lists the sessions of a token's user, with a proof of this key.
async fn list(
    home: &Home,
    server: &Server,
    holder: &Holder,
    token: &str,
) -> Result<Response<tessera::proto::ListSessionsResponse>, Status> {
    let proof = holder.proof(LIST, home.now(), Some(token)).expect("a proof");
    let request = proved(token, &proof, ListSessionsRequest::default());
    server.session().list_sessions(request).await
}

async fn a_session_is_bound_to_the_key_that_began_it(home: Home) -> Outcome {
    let server = home.start().await?;
    let unbound = server.anna().await?;
    let (holder, thief) = (Holder::new(Algorithm::Es256)?, Holder::new(Algorithm::Es256)?);
    let listed = list(&home, &server, &holder, &unbound.access_token).await;
    assert_eq!(refusal(listed), invalid_token(), "it is bound to no key");

    let login = sign_in(&home, &server, &holder).await?;
    let (tokens, session) = (login.tokens.ok_or("no tokens")?, login.session.ok_or("no session")?);
    assert_eq!((tokens.token_type.as_str(), session.dpop_jkt.as_str()), ("DPoP", holder.jkt()));
    let token = tokens.access_token.as_str();
    assert_eq!(parts_of(token)?.1["cnf"], json!({"jkt": holder.jkt()}));
    let listed = list(&home, &server, &holder, token).await?.into_inner();
    assert_eq!(listed.sessions[0].dpop_jkt, holder.jkt());

    assert_eq!(refusal(list(&home, &server, &thief, token).await), invalid_token());
    let sessions = || ListSessionsRequest::default();
    let mut calls = server.session();
    let by_itself = calls.list_sessions(authorized(token, sessions())).await;
    assert_eq!(refusal(by_itself), invalid_token());
    let proof = holder.proof(LIST, home.now(), Some(token))?;
    let as_bearer = with_proofs(&[&proof], authorized(token, sessions()));
    assert_eq!(refusal(calls.list_sessions(as_bearer).await), invalid_token(), "RFC 9449 section 7.2");
    assert_eq!(refusal(calls.list_sessions(bound(token, sessions())).await), invalid_proof());

    let proof = holder.proof("/tessera.v1.Auth/Logout", home.now(), Some(token))?;
    server.auth().logout(proved(token, &proof, LogoutRequest {})).await?;
    let ended = revoked();
    assert_eq!(refusal(list(&home, &server, &holder, token).await), ended);

    let before = server.sign_in("anna", "web").await?;
    calls.list_sessions(authorized(&before.access_token, sessions())).await?;
    server.stop().await
}

/// Refreshes with proofs of these keys.
async fn refresh(
    home: &Home,
    server: &Server,
    holders: &[&Holder],
    refresh_token: &str,
) -> Result<Response<tessera::proto::RefreshResponse>, Status> {
    let proofs = holders.iter().map(|holder| holder.proof(REFRESH, home.now(), None).expect("a proof"));
    let proofs: Vec<String> = proofs.collect();
    let proofs: Vec<&str> = proofs.iter().map(String::as_str).collect();
    let request: Request<RefreshRequest> = Request::new(refresh_with(refresh_token));
    server.auth().refresh(with_proofs(&proofs, request)).await
}

fn tokens_of(reply: Response<tessera::proto::RefreshResponse>) -> Result<Tokens, Box<dyn Error>> {
    Ok(reply.into_inner().tokens.ok_or("no tokens")?)
}

async fn a_refresh_is_for_the_holder_of_the_key(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let (holder, thief) = (Holder::new(Algorithm::Es256)?, Holder::new(Algorithm::Es256)?);
    let first = sign_in(&home, &server, &holder).await?.tokens.ok_or("no tokens")?;
    for _ in 0..2 {
        for holders in [&[][..], &[&thief]] {
            let refused = refresh(&home, &server, holders, &first.refresh_token).await;
            assert_eq!(refusal(refused), invalid_token());
        }
    }
    let both = refresh(&home, &server, &[&holder, &thief], &first.refresh_token).await;
    assert_eq!(refusal(both), invalid_proof());

    let second = tokens_of(refresh(&home, &server, &[&holder], &first.refresh_token).await?)?;
    assert_eq!(second.token_type, "DPoP");
    let (_, claims) = parts_of(&second.access_token)?;
    assert_eq!((&claims["gen"], &claims["cnf"]["jkt"]), (&json!(1), &json!(holder.jkt())));
    list(&home, &server, &holder, &second.access_token).await?;
    // The spent one in other hands ends nothing either; its owner may have lost the reply.
    assert_eq!(refusal(refresh(&home, &server, &[&thief], &first.refresh_token).await), invalid_token());
    let retried = tokens_of(refresh(&home, &server, &[&holder], &first.refresh_token).await?)?;
    assert_eq!(retried.refresh_token, second.refresh_token);

    // A server that doesn't have the session in memory knows its key too.
    server.stop().await?;
    let server = home.start().await?;
    assert_eq!(refusal(refresh(&home, &server, &[], &second.refresh_token).await), invalid_token());
    let third = tokens_of(refresh(&home, &server, &[&holder], &second.refresh_token).await?)?;
    assert_eq!(parts_of(&third.access_token)?.1["cnf"]["jkt"], holder.jkt());

    let admin = server.admin().await?;
    let events = ListEventsRequest { page_size: 100, ..Default::default() };
    let events = server.audit().list_events(authorized(&admin.access_token, events)).await?.into_inner();
    let told = events.events.iter().filter(|event| event.action == "refresh_key");
    let told: Vec<_> = told.map(|event| (&*event.reason, &*event.target_id)).collect();
    assert_eq!(told, [("TOKEN_INVALID", &*first.session_id); 2], "once for each generation");

    // What shows a key and is bound to none stays as it is.
    let unbound = server.sign_in("anna", "mobile").await?;
    let still = tokens_of(refresh(&home, &server, &[&holder], &unbound.refresh_token).await?)?;
    assert_eq!(
        (still.token_type.as_str(), &parts_of(&still.access_token)?.1["cnf"]),
        ("Bearer", &json!(null))
    );
    server.stop().await
}

async fn every_kind_of_key_will_do(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    for algorithm in Algorithm::ALL {
        let holder = Holder::new(algorithm)?;
        let tokens = sign_in(&home, &server, &holder).await?.tokens.ok_or("no tokens")?;
        assert_eq!(parts_of(&tokens.access_token)?.1["cnf"]["jkt"], holder.jkt());
        list(&home, &server, &holder, &tokens.access_token).await?;
    }
    server.stop().await
}

async fn whoever_signs_up_can_bind_its_session(home: Home) -> Outcome {
    let server = home.start_with("[accounts]\nsignup = \"open\"\n").await?;
    let holder = Holder::new(Algorithm::EdDsa)?;
    let request = SignUpRequest {
        username: "berta".to_owned(),
        password: PASSWORD.to_owned(),
        ..SignUpRequest::default()
    };
    let proof = holder.proof("https://auth.example:8443/tessera.v1.Auth/SignUp?a#b", home.now(), None)?;
    let reply = server.auth().sign_up(with_proofs(&[&proof], Request::new(request))).await?.into_inner();
    let tokens = reply.tokens.ok_or("no tokens")?;
    assert_eq!(
        (tokens.token_type.as_str(), reply.session.ok_or("no session")?.dpop_jkt.as_str()),
        ("DPoP", holder.jkt())
    );
    list(&home, &server, &holder, &tokens.access_token).await?;
    server.stop().await
}

async fn a_client_in_python_holds_a_key(home: Home) -> Outcome {
    let server = home.start_with("[tokens]\ndpop_nonce = \"required\"\n").await?;
    server.anna().await?;
    let mut python = client("dpop.py");
    python.args([&server.address.to_string(), "anna", PASSWORD]);
    assert_eq!(run_client(&mut python).await?.trim(), "signed in, called, refreshed, called, refused");
    server.stop().await
}

async fn a_client_in_javascript_holds_a_key(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let mut node = client("dpop.mjs");
    node.arg(file("proto")).args([&server.address.to_string(), "anna", PASSWORD]);
    assert_eq!(run_client(&mut node).await?.trim(), "signed in, called, refreshed, called, refused");
    server.stop().await
}
