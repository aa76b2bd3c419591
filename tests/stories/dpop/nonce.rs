//! Nonces (RFC 9449 section 8): a proof must have been made of late, whatever the client's clock says, and any replica's will
//! do at any other.

use std::error::Error;

use serde_json::json;
use tessera::{
    domain::algorithm::Algorithm,
    proto::{ListSessionsRequest, LoginResponse},
};
use tonic::{Code, Response, Status, metadata::MetadataMap};

use super::{LIST, LOGIN, anna, invalid_proof, tokens_of};
use crate::support::{
    Holder, Home, Outcome, Server, proved, refresh_with, refusal, timed_stories, with_proofs,
};

timed_stories! {
    a_nonce_is_told_and_then_demanded,
    a_nonce_of_one_server_is_good_at_another,
    a_nonce_is_good_for_its_minute_and_the_next,
}

const REQUIRED: &str = "[tokens]\ndpop_nonce = \"required\"\n";

fn use_nonce() -> (Code, String) {
    (Code::Unauthenticated, "USE_DPOP_NONCE".to_owned())
}

fn nonce_in(metadata: &MetadataMap) -> Option<String> {
    Some(metadata.get("dpop-nonce")?.to_str().ok()?.to_owned())
}

/// A login whose proof carries this.
async fn login(
    home: &Home,
    server: &Server,
    holder: &Holder,
    nonce: Option<&str>,
) -> Result<Response<LoginResponse>, Status> {
    let more = nonce.map_or(json!({}), |nonce| json!({"nonce": nonce}));
    let proof = holder.proof_with(LOGIN, home.now(), None, more).expect("a proof");
    server.auth().login(with_proofs(&[&proof], anna())).await
}

/// What the server gives out now.
async fn nonce_of(home: &Home, server: &Server, holder: &Holder) -> Result<String, Box<dyn Error>> {
    let status = login(home, server, holder, None).await.err().ok_or("it was to be refused")?;
    Ok(nonce_in(status.metadata()).ok_or("no nonce")?)
}

async fn a_nonce_is_told_and_then_demanded(home: Home) -> Outcome {
    let server = home.start_with(REQUIRED).await?;
    server.anna().await?;
    let holder = Holder::new(Algorithm::Es256)?;
    assert_eq!(refusal(login(&home, &server, &holder, None).await), use_nonce());
    assert_eq!(refusal(login(&home, &server, &holder, Some("made-up")).await), use_nonce());
    let nonce = nonce_of(&home, &server, &holder).await?;
    let reply = login(&home, &server, &holder, Some(&nonce)).await?;
    assert_eq!(nonce_in(reply.metadata()), None, "it is the current one");
    let tokens = reply.into_inner().tokens.ok_or("no tokens")?;

    // So it is with each proof that counts.
    let token = tokens.access_token.as_str();
    let (now, carrying) = (home.now(), json!({"nonce": nonce}));
    let mut session = server.session();
    let without = holder.proof(LIST, now, Some(token))?;
    let refused = session.list_sessions(proved(token, &without, ListSessionsRequest::default())).await;
    assert_eq!(refusal(refused), use_nonce());
    let proof = holder.proof_with(LIST, now, Some(token), carrying.clone())?;
    session.list_sessions(proved(token, &proof, ListSessionsRequest::default())).await?;
    let again = session.list_sessions(proved(token, &proof, ListSessionsRequest::default())).await;
    assert_eq!(refusal(again), invalid_proof());
    let refresh = |proof: &str| {
        let request = tonic::Request::new(refresh_with(&tokens.refresh_token));
        let (mut auth, request) = (server.auth(), with_proofs(&[proof], request));
        async move { auth.refresh(request).await }
    };
    let without = holder.proof(super::REFRESH, now, None)?;
    assert_eq!(refusal(refresh(&without).await), use_nonce());
    let proof = holder.proof_with(super::REFRESH, now, None, carrying)?;
    assert_eq!(tokens_of(refresh(&proof).await?)?.token_type, "DPoP");

    // Whoever shows no key needs none.
    server.sign_in("anna", "mobile").await?;
    server.stop().await
}

async fn a_nonce_of_one_server_is_good_at_another(home: Home) -> Outcome {
    let server = home.start_with(REQUIRED).await?;
    server.anna().await?;
    let holder = Holder::new(Algorithm::Es256)?;
    let nonce = nonce_of(&home, &server, &holder).await?;
    if let Some(replica) = home.another(REQUIRED).await? {
        login(&home, &replica, &holder, Some(&nonce)).await?;
        replica.stop().await?;
    }
    server.stop().await?;
    let server = home.start_with(REQUIRED).await?;
    login(&home, &server, &holder, Some(&nonce)).await?;
    server.stop().await?;

    // One that doesn't demand it doesn't look at it.
    let server = home.start().await?;
    login(&home, &server, &holder, Some("made-up")).await?;
    server.stop().await?;

    let elsewhere = Home::new(home.kind).await?;
    let other = elsewhere.start_with(REQUIRED).await?;
    other.anna().await?;
    assert_eq!(refusal(login(&elsewhere, &other, &holder, Some(&nonce)).await), use_nonce());
    other.stop().await
}

async fn a_nonce_is_good_for_its_minute_and_the_next(home: Home) -> Outcome {
    let server = home.start_with(REQUIRED).await?;
    server.anna().await?;
    let holder = Holder::new(Algorithm::Es256)?;
    // The clock of the stories begins with a minute.
    let nonce = nonce_of(&home, &server, &holder).await?;
    home.clock.advance(59);
    let reply = login(&home, &server, &holder, Some(&nonce)).await?;
    assert_eq!(nonce_in(reply.metadata()), None);
    home.clock.advance(1);
    let reply = login(&home, &server, &holder, Some(&nonce)).await?;
    let next = nonce_in(reply.metadata()).ok_or("the next one is told")?;
    assert_ne!(next, nonce);
    home.clock.advance(59);
    login(&home, &server, &holder, Some(&nonce)).await?;
    home.clock.advance(1);
    assert_eq!(refusal(login(&home, &server, &holder, Some(&nonce)).await), use_nonce());
    login(&home, &server, &holder, Some(&next)).await?;
    server.stop().await
}
