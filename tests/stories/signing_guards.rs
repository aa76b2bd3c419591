//! A server that can't be sure of its key doesn't sign, and says so.

use std::time::Duration;

use tessera::proto::{ActivateKeyRequest, PrepareKeyRequest, RevokeKeyRequest};
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::support::{
    Home, Kind, Outcome, PASSWORD, Server, authorized, login_as, refresh_with, refusal, timed_stories,
};

timed_stories! { a_key_that_cannot_be_unsealed_does_not_sign_and_is_not_passed_over }

const QUICK: &str = "[database]\npoll_interval = \"10ms\"\n";

/// Waits until `Auth` has this status; without a limit of its own.
async fn auth_turns(server: &Server, status: ServingStatus) -> Result<(), Status> {
    let request = HealthCheckRequest { service: "tessera.v1.Auth".to_owned() };
    let mut stream = server.health().watch(request).await?.into_inner();
    while let Some(now) = stream.message().await? {
        if now.status() == status {
            return Ok(());
        }
    }
    Err(Status::unknown("the stream ended"))
}

async fn a_key_that_cannot_be_unsealed_does_not_sign_and_is_not_passed_over(home: Home) -> Outcome {
    let server = home.start_with(QUICK).await?;
    let admin = server.admin().await?;
    let anna = server.anna().await?;
    let request = authorized(&admin.access_token, PrepareKeyRequest::default());
    let kid = server.keys().prepare_key(request).await?.into_inner().key.ok_or("no key")?.kid;
    let junk = if home.kind == Kind::Postgres { "'\\x00'" } else { "x'00'" };
    home.query(&format!("UPDATE issuer_keys SET sealed_private_key = {junk} WHERE kid = '{kid}'")).await?;
    home.clock.advance(10 * 60);
    let request = authorized(&admin.access_token, ActivateKeyRequest { kid: kid.clone() });
    server.keys().activate_key(request).await?;

    auth_turns(&server, ServingStatus::NotServing).await?;
    let unavailable = (Code::Unavailable, "SIGNING_UNAVAILABLE".to_owned());
    assert_eq!(refusal(server.auth().login(login_as("anna", PASSWORD, "web")).await), unavailable);
    assert_eq!(refusal(server.auth().refresh(refresh_with(&anna.refresh_token)).await), unavailable);
    assert!(server.is_active(&anna.access_token, true).await?, "what was signed is as good as ever");

    let request = authorized(&admin.access_token, RevokeKeyRequest { kid });
    server.keys().revoke_key(request).await?.into_inner().successor.ok_or("no successor")?;
    auth_turns(&server, ServingStatus::Serving).await?;
    server.auth().refresh(refresh_with(&anna.refresh_token)).await?;
    server.sign_in("anna", "web").await?;
    server.stop().await
}

/// It takes a real minute, since the patience is measured by a clock that nobody sets.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_the_database_does_not_confirm_stops_signing() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let server = home.start_with(QUICK).await?;
    let anna = server.anna().await?;
    // Whoever can't see how far the log has come may have missed that its key was retired.
    home.query("ALTER TABLE trust_head RENAME TO trust_head_gone").await?;
    server.sign_in("anna", "early").await?;
    timeout(Duration::from_secs(120), auth_turns(&server, ServingStatus::NotServing)).await??;
    let refused = refusal(server.auth().login(login_as("anna", PASSWORD, "late")).await);
    assert_eq!(refused, (Code::Unavailable, "SIGNING_UNAVAILABLE".to_owned()));
    assert!(server.is_active(&anna.access_token, false).await?);
    home.query("ALTER TABLE trust_head_gone RENAME TO trust_head").await?;
    auth_turns(&server, ServingStatus::Serving).await?;
    server.sign_in("anna", "late").await?;
    server.stop().await
}
