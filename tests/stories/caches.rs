//! What is held in memory says how much there is of it.

use tessera::proto::{
    AudienceSigning, CreateAudienceRequest, CreateTenantRequest, ListSessionsRequest, LogoutRequest,
    SuspendTenantRequest, create_trusted_issuer_request::Keys,
};

use super::trusted_issuers::{ISSUER, register, with_keys};
use crate::support::{
    Home, Kind, Outcome, Registrar, asks, authorized, eventually, one_key, orders, stories,
};

stories! { each_memory_says_how_full_it_is }

const RSA: &str = "[signing]\nsession_algorithm = \"RS256\"\nrsa_pool = 4\n";

async fn each_memory_says_how_full_it_is(home: Home) -> Outcome {
    let server = home.start_with(RSA).await?;
    server.has_spare_keys(4).await?;
    server.stop().await?;
    let junk = if home.kind == Kind::Sqlite { "x'00'" } else { "'\\x00'" };
    let damaged = "(SELECT kid FROM spare_keys ORDER BY create_time LIMIT 1)";
    home.query(&format!("UPDATE spare_keys SET sealed_private_key = {junk} WHERE kid = {damaged}")).await?;

    let server = home.start_with(RSA).await?;
    let entries =
        async |cache: &str| server.metric(&format!("tessera_cache_entries{{cache=\"{cache}\"}}")).await;
    let registered = ["tenants", "audiences", "audience_rules", "trusted_issuers", "service_accounts"];
    for cache in registered {
        assert_eq!(entries(cache).await?, 0, "{cache}");
    }
    eventually("keys are opened ahead, and the damaged one is known", async || {
        Ok((entries("opened_spare_keys").await?, entries("damaged_spare_keys").await?) == (4, 1))
    })
    .await?;
    let (admin, registrar) = (server.admin().await?, Registrar::of(&server).await?);
    assert!(server.metric("tessera_hash_memory_bytes").await? > 0, "the next password finds it");

    registrar.audience("ledger", &["read", "write"]).await?;
    let reports = CreateAudienceRequest {
        name: "reports".to_owned(),
        signing: AudienceSigning::Hs256.into(),
        ..Default::default()
    };
    server.audiences().create_audience(authorized(&admin.access_token, reports)).await?;
    register(&server, &admin, with_keys(ISSUER, Keys::JwksJson(one_key("k1")?.1.to_string()))).await?;
    let blue = CreateTenantRequest { name: "blue".to_owned(), display_name: String::new() };
    let blue = server.tenants().create_tenant(authorized(&admin.access_token, blue)).await?.into_inner();
    let blue = SuspendTenantRequest { tenant_id: blue.tenant.ok_or("no tenant")?.tenant_id };
    server.tenants().suspend_tenant(authorized(&admin.access_token, blue)).await?;
    let account = registrar.create(orders()).await?;
    let (secret, _) = registrar.secret(&account).await?;
    server.service_token(asks(&account.client_id, &secret)).await?;
    for cache in registered {
        assert_eq!(entries(cache).await?, 1, "{cache}");
    }

    let anna = server.anna().await?;
    let list = authorized(&anna.access_token, ListSessionsRequest::default());
    server.session().list_sessions(list).await?;
    server.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await?;
    eventually("the log is told", async || Ok(entries("trust_log").await? >= 2)).await?;
    for cache in ["session_makers", "sessions_seen", "endorsed_keys", "checked_tokens", "revocations"] {
        assert!(entries(cache).await? > 0, "{cache}");
    }
    server.stop().await
}
