//! A client that keeps itself signed in keeps its session, whatever becomes of the way to the issuer.

use std::time::Duration;

use tessera::{
    proto::{CreateTenantRequest, LoginRequest, ResumeTenantRequest, SuspendTenantRequest},
    verifier::{AccessToken, Login, SignIn, TokenError, TokenSource, TokenSourceBuilder},
};
use tonic::{Code, Request, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::{
    Home, Outcome, PASSWORD, Person, Proxy, Server, authorized, eventually, login_as, parts_of, timed_stories,
};

timed_stories! {
    a_reply_that_was_lost_ends_no_session,
    a_connection_that_leads_nowhere_is_not_waited_for,
    a_suspended_tenant_loses_no_session,
    a_call_keeps_its_deadline_while_the_issuer_is_silent,
}

fn anna(home: &Home, proxy: &Proxy) -> TokenSourceBuilder {
    let login = Login {
        username: "anna".to_owned(),
        password: PASSWORD.into(),
        device_type: "robot".to_owned(),
        ..Login::default()
    };
    TokenSource::sign_in(proxy.url(), SignIn::Password(login)).clock(home.clock.clone())
}

async fn calls(server: &Server, method: &str) -> Result<u64, Box<dyn std::error::Error>> {
    server.metric(&format!("tessera_grpc_calls_total{{method=\"/tessera.v1.Auth/{method}\"")).await
}

fn session_of(token: &AccessToken) -> Result<String, Box<dyn std::error::Error>> {
    Ok(parts_of(token.expose())?.1["sid"].as_str().ok_or("no sid")?.to_owned())
}

async fn a_reply_that_was_lost_ends_no_session(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let proxy = Proxy::to_address(server.address).await?;
    let source = anna(&home, &proxy).build()?;
    let first = source.token().await?;
    let logins = calls(&server, "Login").await?;

    home.clock.advance(3000);
    proxy.mute();
    let waiting = tokio::spawn({
        let source = source.clone();
        async move { source.token().await }
    });
    // It asks again only once it has given the first answer up.
    eventually("the server has answered twice", async || Ok(calls(&server, "Refresh").await? >= 2)).await?;
    proxy.cut();
    proxy.mend();
    let second = waiting.await??;
    assert_eq!(session_of(&second)?, session_of(&first)?);
    assert!(server.is_active(second.expose(), true).await?, "it was no theft");
    assert_eq!(calls(&server, "Login").await?, logins);
    server.stop().await
}

async fn a_connection_that_leads_nowhere_is_not_waited_for(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let proxy = Proxy::to_address(server.address).await?;
    let source = anna(&home, &proxy).build()?;
    let first = source.token().await?;
    proxy.freeze();
    home.clock.advance(3000);
    let second = source.token().await?;
    assert!(server.is_active(second.expose(), true).await?);
    assert_eq!(session_of(&second)?, session_of(&first)?);
    server.stop().await
}

async fn a_suspended_tenant_loses_no_session(home: Home) -> Outcome {
    let server = home.start().await?;
    let root = server.admin().await?;
    let blue = CreateTenantRequest { name: "blue".to_owned(), ..CreateTenantRequest::default() };
    let blue = server.tenants().create_tenant(authorized(&root.access_token, blue)).await?.into_inner();
    let tenant_id = blue.tenant.ok_or("no tenant")?.tenant_id;
    server.make_user_in(&root, "blue", "bert", &[]).await?;
    let login = LoginRequest { tenant: "blue".to_owned(), ..login_as("bert", PASSWORD, "web") };
    let bert: Person = server.auth().login(login).await?.into_inner().into();
    let sign_in = SignIn::RefreshToken(bert.refresh_token.into());
    let source = TokenSource::sign_in(server.url(), sign_in).clock(home.clock.clone()).build()?;
    source.token().await?;

    let suspend = SuspendTenantRequest { tenant_id: tenant_id.clone() };
    server.tenants().suspend_tenant(authorized(&root.access_token, suspend)).await?;
    home.clock.advance(3000);
    assert_eq!(source.token().await, Err(TokenError::Refused("TENANT_SUSPENDED".to_owned())));
    let root = server.admin().await?;
    let resume = ResumeTenantRequest { tenant_id };
    server.tenants().resume_tenant(authorized(&root.access_token, resume)).await?;
    eventually("it is signed in again", async || Ok(source.token().await.is_ok())).await?;
    assert_eq!(session_of(&source.token().await?)?, bert.session_id);
    server.stop().await
}

async fn a_call_keeps_its_deadline_while_the_issuer_is_silent(home: Home) -> Outcome {
    let server = home.start().await?;
    let proxy = Proxy::to_address(server.address).await?;
    proxy.mute();
    let source = anna(&home, &proxy).build()?;
    let service = Endpoint::from_shared(server.url())?.connect_lazy();
    let mut health = HealthClient::new(source.attach(service));
    let mut request = Request::new(HealthCheckRequest::default());
    request.set_timeout(Duration::from_millis(200));
    let status = health.check(request).await.expect_err("there is no token");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    proxy.mend();
    server.stop().await
}
