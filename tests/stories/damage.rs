//! A row that makes no sense holds up nothing but itself.

use tessera::proto::{CreateTenantRequest, GetSessionRequest, LoginRequest, SessionState};
use tonic::Code;

use crate::support::{
    Home, Kind, Outcome, PASSWORD, authorized, eventually, login_as, refresh_with, refusal, stories,
};

stories! {
    a_spare_key_that_cannot_be_opened_is_passed_over,
    a_tenant_whose_row_is_damaged_gets_no_tokens_and_all_others_do,
    an_end_for_an_unknown_reason_is_an_end,
}

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

async fn a_tenant_whose_row_is_damaged_gets_no_tokens_and_all_others_do(home: Home) -> Outcome {
    let server = home.start().await?;
    let root = server.admin().await?;
    let blue = CreateTenantRequest { name: "blue".to_owned(), display_name: String::new() };
    server.tenants().create_tenant(authorized(&root.access_token, blue)).await?;
    server.make_user_in(&root, "blue", "bert", &[]).await?;
    let login = LoginRequest { tenant: "blue".to_owned(), ..login_as("bert", PASSWORD, "web") };
    let bert = server.auth().login(login.clone()).await?.into_inner().tokens.ok_or("no tokens")?;
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
