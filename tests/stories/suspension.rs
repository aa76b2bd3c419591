//! A suspended tenant: nothing of it is accepted, and nothing is lost.

use tessera::proto::{
    CreateTenantRequest, GetTenantRequest, ListSessionsRequest, LoginRequest, ResumeTenantRequest,
    SignUpRequest, SuspendTenantRequest, trust_entry::Subject,
};
use tonic::{Code, Status};

use crate::support::{
    Home, Kind, Outcome, PASSWORD, Person, Server, authorized, eventually, login_as, refresh_with, refusal,
    stories,
};

stories! {
    nothing_of_a_suspended_tenant_is_accepted_until_it_is_resumed,
    only_an_admin_of_the_default_tenant_suspends_and_never_that_one,
}

const OPEN: &str = "[accounts]\nsignup = \"open\"\n";

async fn make_blue(server: &Server, root: &Person) -> Result<String, Box<dyn std::error::Error>> {
    let blue = CreateTenantRequest { name: "blue".to_owned(), display_name: String::new() };
    let made = server.tenants().create_tenant(authorized(&root.access_token, blue)).await?;
    server.make_user_in(root, "blue", "bert", &["admin"]).await?;
    Ok(made.into_inner().tenant.ok_or("no tenant")?.tenant_id)
}

async fn bert(server: &Server, password: &str) -> Result<Person, Status> {
    let login = LoginRequest { tenant: "blue".to_owned(), ..login_as("bert", password, "web") };
    Ok(server.auth().login(login).await?.into_inner().into())
}

async fn suspend(server: &Server, by: &Person, tenant_id: &str) -> Result<tonic::Response<()>, Status> {
    let request = SuspendTenantRequest { tenant_id: tenant_id.to_owned() };
    let reply = server.tenants().suspend_tenant(authorized(&by.access_token, request)).await?;
    assert!(reply.into_inner().tenant.is_some_and(|tenant| tenant.suspend_time.is_some()));
    Ok(tonic::Response::new(()))
}

async fn resume(server: &Server, by: &Person, tenant_id: &str) -> Result<tonic::Response<()>, Status> {
    let request = ResumeTenantRequest { tenant_id: tenant_id.to_owned() };
    let reply = server.tenants().resume_tenant(authorized(&by.access_token, request)).await?;
    assert!(reply.into_inner().tenant.is_some_and(|tenant| tenant.suspend_time.is_none()));
    Ok(tonic::Response::new(()))
}

async fn nothing_of_a_suspended_tenant_is_accepted_until_it_is_resumed(home: Home) -> Outcome {
    let server = home.start_with(OPEN).await?;
    let root = server.admin().await?;
    let blue = make_blue(&server, &root).await?;
    let session = bert(&server, PASSWORD).await?;
    let mut watching = server.watch().await?;
    suspend(&server, &root, &blue).await?;
    suspend(&server, &root, &blue).await?;
    let is_told = |suspended| {
        let blue = blue.clone();
        move |watching: &crate::support::Watching| {
            watching.entries.iter().any(|entry| match &entry.subject {
                Some(Subject::Tenant(tenant)) => tenant.tenant_id == blue && tenant.suspended == suspended,
                _ => false,
            })
        }
    };
    watching.until(is_told(true)).await?;

    let suspended = (Code::PermissionDenied, "TENANT_SUSPENDED".to_owned());
    let call = authorized(&session.access_token, ListSessionsRequest::default());
    assert_eq!(refusal(server.session().list_sessions(call).await).1, "TOKEN_REVOKED");
    assert!(!server.is_active(&session.access_token, false).await?);
    assert!(!server.is_active(&session.access_token, true).await?);
    assert_eq!(refusal(server.auth().refresh(refresh_with(&session.refresh_token)).await), suspended);
    let login = LoginRequest { tenant: "blue".to_owned(), ..login_as("bert", PASSWORD, "web") };
    assert_eq!(refusal(server.auth().login(login.clone()).await), suspended);
    let wrong = LoginRequest { password: "a wrong password".to_owned(), ..login };
    assert_eq!(refusal(server.auth().login(wrong).await).1, "INVALID_CREDENTIALS", "told to its users alone");
    let sign_up = SignUpRequest {
        tenant: "blue".to_owned(),
        username: "bella".to_owned(),
        password: PASSWORD.to_owned(),
        ..SignUpRequest::default()
    };
    assert_eq!(refusal(server.auth().sign_up(sign_up).await), suspended);
    assert!(server.is_active(&root.access_token, true).await?, "others go on");

    resume(&server, &root, &blue).await?;
    resume(&server, &root, &blue).await?;
    watching.until(is_told(false)).await?;
    assert!(server.is_active(&session.access_token, true).await?);
    server.auth().refresh(refresh_with(&session.refresh_token)).await?;
    bert(&server, PASSWORD).await?;
    drop(watching);
    server.stop().await
}

async fn only_an_admin_of_the_default_tenant_suspends_and_never_that_one(home: Home) -> Outcome {
    let server = home.start().await?;
    let root = server.admin().await?;
    let blue = make_blue(&server, &root).await?;
    let boss = bert(&server, PASSWORD).await?;
    let denied = (Code::PermissionDenied, "INSUFFICIENT_SCOPE".to_owned());
    assert_eq!(refusal(suspend(&server, &boss, &blue).await), denied);
    assert_eq!(refusal(resume(&server, &boss, &blue).await), denied);
    let named = GetTenantRequest { name: "default".to_owned(), tenant_id: String::new() };
    let default = server.tenants().get_tenant(authorized(&root.access_token, named)).await?.into_inner();
    let default = default.tenant.ok_or("no tenant")?.tenant_id;
    let refused = refusal(suspend(&server, &root, &default).await);
    assert_eq!(refused, (Code::InvalidArgument, "INVALID_FIELD".to_owned()));
    let unknown = refusal(suspend(&server, &root, &root.user_id).await);
    assert_eq!(unknown, (Code::NotFound, "NOT_FOUND".to_owned()));
    assert!(server.is_active(&boss.access_token, true).await?);
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_reaches_every_replica() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let (here, there) = (home.start().await?, home.start().await?);
    let root = here.admin().await?;
    let blue = make_blue(&here, &root).await?;
    let session = bert(&here, PASSWORD).await?;
    let is_active = async || there.is_active(&session.access_token, false).await;
    let refreshes = async || there.auth().refresh(refresh_with(&session.refresh_token)).await.is_ok();
    suspend(&here, &root, &blue).await?;
    eventually("it is refused there", async || Ok(!is_active().await?)).await?;
    // What is registered is read after the log, so that nothing holds up a revocation.
    eventually("it is not refreshed there", async || Ok(!refreshes().await)).await?;
    resume(&here, &root, &blue).await?;
    eventually("it is accepted there", async || is_active().await).await?;
    eventually("it is refreshed there", async || Ok(refreshes().await)).await?;
    there.stop().await?;
    here.stop().await
}
