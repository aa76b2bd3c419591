//! Whose tenant a token is of: what a service of one tenant is told of another's, where the database is asked too.

use serde_json::{Value, json};
use tessera::proto::{
    AudienceSigning, CreateAudienceRequest, CreateServiceAccountRequest, CreateTenantRequest,
    IssueServiceTokenRequest, LoginRequest, VerifyTokenRequest,
};

use super::{Asking, about, inactive, nothing};
use crate::support::{
    Home, Outcome, PASSWORD, Person, Registrar, audience_token, authorized, login_as, orders, parts_of,
    sign_hs256, stories, words,
};

stories! {
    another_tenants_tokens_are_told_to_no_service_of_this_one,
    nobody_becomes_one_of_another_tenant_by_saying_so,
}

/// The tenant `blue`, where somebody registers services.
async fn blue<'s>(registrar: &Registrar<'s>) -> Result<Registrar<'s>, Box<dyn std::error::Error>> {
    let server = registrar.server;
    let blue = CreateTenantRequest { name: "blue".to_owned(), ..Default::default() };
    server.tenants().create_tenant(authorized(&registrar.token, blue)).await?;
    server.make_user_in(&server.admin().await?, "blue", "boss", &["admin"]).await?;
    let login = LoginRequest { tenant: "blue".to_owned(), ..login_as("boss", PASSWORD, "web") };
    let boss: Person = server.auth().login(login).await?.into_inner().into();
    Ok(Registrar { server, token: boss.access_token })
}

/// The token of a service of the registrar's tenant, for `orders`.
async fn of_service(registrar: &Registrar<'_>, audience: &str) -> Result<String, Box<dyn std::error::Error>> {
    let account = CreateServiceAccountRequest {
        name: "caller".to_owned(),
        allowed_audiences: words(&[audience]),
        ..orders()
    };
    let (_, asks) = registrar.service(account).await?;
    let asks = IssueServiceTokenRequest { audience: words(&[audience]), ..asks };
    Ok(registrar.server.service_token(asks).await?.access_token)
}

async fn another_tenants_tokens_are_told_to_no_service_of_this_one(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let of_blue = blue(&registrar).await?;
    let everybodys = Asking::new(&registrar, "orders", &["orders"]).await?;
    let blues = Asking::new(&of_blue, "orders", &["orders"]).await?;
    server.anna().await?;
    let annas = audience_token(&server, "anna", &["orders"], &[]).await?;
    let services = of_service(&registrar, "orders").await?;
    let ours = of_service(&of_blue, "orders").await?;
    for strict in [false, true] {
        for token in [&annas, &services] {
            let asked = VerifyTokenRequest { strict, ..about(token) };
            assert_eq!(blues.ask(asked.clone()).await?, nothing());
            assert!(everybodys.ask(asked).await?.active);
        }
        assert!(blues.ask(VerifyTokenRequest { strict, ..about(&ours) }).await?.active);
    }
    server.stop().await
}

/// The audience itself, which has its secret, writes whatever it wants into a token.
async fn nobody_becomes_one_of_another_tenant_by_saying_so(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let of_blue = blue(&registrar).await?;
    let request = CreateAudienceRequest {
        name: "reports".to_owned(),
        signing: AudienceSigning::Hs256.into(),
        ..Default::default()
    };
    let made = server.audiences().create_audience(authorized(&registrar.token, request)).await?.into_inner();
    let secret = made.secret.ok_or("no secret")?;
    let blues = Asking::new(&of_blue, "reports", &["reports"]).await?;
    let blues = &blues;
    let tenant_id = parts_of(&of_blue.token)?.1["tenant_id"].clone();
    server.anna().await?;
    for token in
        [audience_token(&server, "anna", &["reports"], &[]).await?, of_service(&registrar, "reports").await?]
    {
        let told = |token: String, strict: bool| {
            let asked = VerifyTokenRequest { strict, audience: "reports".to_owned(), ..about(&token) };
            async move { blues.ask(asked).await }
        };
        assert_eq!(told(token.clone(), true).await?, nothing());
        let (header, mut claims) = parts_of(&token)?;
        claims["tenant_id"] = tenant_id.clone();
        let forged = sign_hs256(&bytes_of(&secret.secret_jwk)?, &header, &claims)?;
        assert!(told(forged.clone(), false).await?.active, "the database knows better");
        assert_eq!(told(forged, true).await?, inactive("TOKEN_REVOKED"));
    }
    server.stop().await
}

fn bytes_of(secret_jwk: &str) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let jwk: Value = serde_json::from_str(secret_jwk)?;
    assert_eq!(jwk["kty"], json!("oct"));
    Ok(URL_SAFE_NO_PAD.decode(jwk["k"].as_str().ok_or("no k")?)?)
}
