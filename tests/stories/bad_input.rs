//! Bad input of each kind gets its row of the error table.

use http::uri::PathAndQuery;
use tessera::proto::{
    CreateTenantRequest, CreateUserRequest, GetJwkRequest, GetSessionRequest, GetTenantRequest,
    ListEventsRequest, ListSessionsRequest, ListTenantsRequest, ListUsersRequest, LoginRequest,
    LoginResponse,
};
use tonic::{Code, Request, Response, Status, transport::Channel};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

use crate::support::{
    ADMIN_PASSWORD, Home, Outcome, PASSWORD, authorized, invalid, login_as, not_found, refusal, stories,
    wrong,
};

stories! {
    fields_that_are_wrong_are_named,
    a_message_that_is_too_large_is_refused,
    a_message_that_is_not_utf8_is_refused,
    a_message_that_is_no_protobuf_is_refused,
    pages_are_checked,
    bearer_tokens_are_checked,
    a_method_that_is_not_there_is_unimplemented,
    texts_that_the_database_could_not_keep_are_refused_alike,
}

/// The field that a refusal names.
fn field<T: std::fmt::Debug>(result: Result<Response<T>, Status>) -> String {
    let status = result.expect_err("it was to be refused");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some("INVALID_FIELD"));
    let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    assert_eq!(violations.len(), 1);
    assert!(!violations[0].description.is_empty());
    violations[0].field.clone()
}

async fn fields_that_are_wrong_are_named(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    let good = || login_as("admin", ADMIN_PASSWORD, "web");
    let with = |change: &dyn Fn(&mut LoginRequest)| {
        let mut request = good();
        change(&mut request);
        request
    };
    let long = |length| "x".repeat(length);
    let cases = [
        ("username", LoginRequest::default()),
        ("username", with(&|r| r.username = long(129))),
        ("username", with(&|r| r.username = "two words".to_owned())),
        ("username", with(&|r| r.username = "nul\0".to_owned())),
        ("password", with(&|r| r.password = String::new())),
        ("password", with(&|r| r.password = long(129))),
        ("device.type", with(&|r| r.device = crate::support::device("Not A Word"))),
        ("device.type", with(&|r| r.device = crate::support::device(&long(33)))),
        ("device.name", with(&|r| r.device.as_mut().unwrap().name = "line\nbreak".to_owned())),
        ("device.id", with(&|r| r.device.as_mut().unwrap().id = long(129))),
        ("audience", with(&|r| r.audience = vec![String::new()])),
        ("audience", with(&|r| r.audience = vec![long(257)])),
        ("audience", with(&|r| r.audience = (0..17).map(|n| n.to_string()).collect())),
        ("scope", with(&|r| r.scope = vec!["two scopes".to_owned()])),
        ("scope", with(&|r| r.scope = vec!["quo\"te".to_owned()])),
        ("audience", with(&|r| r.audience = (0..5).map(|n| format!("{n}{}", long(250))).collect())),
        ("scope", with(&|r| r.scope = (0..10).map(|n| format!("{n}{}", long(120))).collect())),
        ("scope", with(&|r| r.scope = (0..65).map(|n| n.to_string()).collect())),
    ];
    for (expected, request) in cases {
        assert_eq!(field(server.auth().login(request).await), expected);
    }

    let user = |change: &dyn Fn(&mut CreateUserRequest)| {
        let mut request = CreateUserRequest {
            username: "anna".to_owned(),
            password: PASSWORD.to_owned(),
            ..CreateUserRequest::default()
        };
        change(&mut request);
        authorized(&admin.access_token, request)
    };
    let cases = [
        ("password", user(&|r| r.password = "short".to_owned())),
        ("password", user(&|r| r.password = "password".to_owned())),
        ("password", user(&|r| r.password = "PASSWORD".to_owned())),
        (
            "password",
            user(&|r| (r.username, r.password) = ("anna.maria".to_owned(), "Anna.Maria".to_owned())),
        ),
        ("email", user(&|r| r.email = "nobody".to_owned())),
        ("email", user(&|r| r.email = "a@b@c".to_owned())),
        ("display_name", user(&|r| r.display_name = long(129))),
        ("roles", user(&|r| r.roles = vec!["Admin".to_owned()])),
        ("roles", user(&|r| r.roles = vec!["two roles".to_owned()])),
    ];
    for (expected, request) in cases {
        assert_eq!(field(server.users().create_user(request).await), expected);
    }

    for name in ["", "UPPER", "-dash", "dash-", "do.t", &long(64)] {
        let request = CreateTenantRequest { name: name.to_owned(), display_name: String::new() };
        assert_eq!(
            field(server.tenants().create_tenant(authorized(&admin.access_token, request)).await),
            "name"
        );
    }
    let neither = authorized(&admin.access_token, GetTenantRequest::default());
    assert_eq!(field(server.tenants().get_tenant(neither).await), "tenant_id");
    let no_id = authorized(&admin.access_token, GetSessionRequest { session_id: "1".to_owned() });
    assert_eq!(field(server.session().get_session(no_id).await), "session_id");
    server.stop().await
}

/// A request of any shape to `Auth.Login`.
async fn login_with<M>(channel: Channel, message: M) -> Result<Response<LoginResponse>, Status>
where
    M: prost::Message + Send + Sync + 'static,
{
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static("/tessera.v1.Auth/Login");
    client.unary(Request::new(message), path, ProstCodec::<M, LoginResponse>::default()).await
}

/// A login as somebody sees it who thinks that names are bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct BytesLogin {
    #[prost(bytes, tag = "2")]
    username: Vec<u8>,
}

/// A login as somebody sees it who thinks that names are numbers.
#[derive(Clone, PartialEq, prost::Message)]
struct NumberLogin {
    #[prost(fixed64, tag = "2")]
    username: u64,
}

async fn a_message_that_is_too_large_is_refused(home: Home) -> Outcome {
    let server = home.start().await?;
    let mut request = login_as("admin", ADMIN_PASSWORD, "web");
    request.scope = vec!["x".repeat(1 << 20)];
    assert_eq!(refusal(server.auth().login(request).await), invalid());
    assert!(server.admin().await.is_ok(), "the same connection still works");
    server.stop().await
}

async fn a_message_that_is_not_utf8_is_refused(home: Home) -> Outcome {
    let server = home.start().await?;
    let answer = login_with(server.channel(), BytesLogin { username: vec![0xff, 0xfe] }).await;
    assert_eq!(refusal(answer), invalid());
    server.stop().await
}

async fn a_message_that_is_no_protobuf_is_refused(home: Home) -> Outcome {
    let server = home.start().await?;
    let answer = login_with(server.channel(), NumberLogin { username: 7 }).await;
    assert_eq!(refusal(answer), invalid());
    server.stop().await
}

async fn pages_are_checked(home: Home) -> Outcome {
    let server = home.start().await?;
    let token = server.admin().await?.access_token;
    for (page_size, page_token, wrong) in
        [(-1, "", "page_size"), (i32::MIN, "", "page_size"), (0, "x", "page_token")]
    {
        let page_token = page_token.to_owned();
        let list = ListSessionsRequest { page_size, page_token: page_token.clone(), ..Default::default() };
        assert_eq!(field(server.session().list_sessions(authorized(&token, list)).await), wrong);
        let list = ListUsersRequest { page_size, page_token: page_token.clone(), ..Default::default() };
        assert_eq!(field(server.users().list_users(authorized(&token, list)).await), wrong);
        let list = ListTenantsRequest { page_size, page_token: page_token.clone() };
        assert_eq!(field(server.tenants().list_tenants(authorized(&token, list)).await), wrong);
        let list = ListEventsRequest { page_size, page_token, ..Default::default() };
        assert_eq!(field(server.audit().list_events(authorized(&token, list)).await), wrong);
    }
    let huge = ListSessionsRequest { page_size: i32::MAX, ..Default::default() };
    assert!(
        server.session().list_sessions(authorized(&token, huge)).await.is_ok(),
        "more than there is gets the most"
    );
    server.stop().await
}

async fn bearer_tokens_are_checked(home: Home) -> Outcome {
    let server = home.start().await?;
    let token = server.admin().await?.access_token;
    let unauthenticated = |reason: &str| (Code::Unauthenticated, reason.to_owned());
    let malformed = (Code::InvalidArgument, "TOKEN_MALFORMED".to_owned());
    let call = |values: Vec<String>| {
        let mut request = Request::new(ListSessionsRequest::default());
        for value in values {
            request.metadata_mut().append("authorization", value.parse().expect("ASCII"));
        }
        let mut session = server.session();
        async move { session.list_sessions(request).await }
    };
    assert_eq!(refusal(call(vec![]).await), unauthenticated("TOKEN_MISSING"));
    assert_eq!(refusal(call(vec![format!("Basic {token}")]).await), unauthenticated("TOKEN_MISSING"));
    assert_eq!(refusal(call(vec![token.clone()]).await), malformed);
    let twice = vec![format!("Bearer {token}"), format!("Bearer {token}")];
    assert_eq!(refusal(call(twice).await), malformed, "which of the two?");
    assert!(call(vec![format!("bearer {token}")]).await.is_ok(), "schemes have no case (RFC 9110)");
    server.stop().await
}

async fn a_method_that_is_not_there_is_unimplemented(home: Home) -> Outcome {
    let server = home.start().await?;
    for path in ["/tessera.v1.Auth/Nothing", "/tessera.v1.Nothing/Login", "/nothing"] {
        let mut client = tonic::client::Grpc::new(server.channel());
        client.ready().await?;
        let answer = client
            .unary(Request::new(()), PathAndQuery::from_static(path), ProstCodec::<(), ()>::default())
            .await;
        assert_eq!(refusal(answer), (Code::Unimplemented, "UNIMPLEMENTED".to_owned()), "{path}");
    }
    server.stop().await
}

async fn texts_that_the_database_could_not_keep_are_refused_alike(home: Home) -> Outcome {
    let server = home.start().await?;
    let token = server.admin().await?.access_token;
    let mut login = login_as("admin", ADMIN_PASSWORD, "web");
    login.tenant = "nul\0".to_owned();
    assert_eq!(refusal(server.auth().login(login).await), wrong());
    let kid = format!("{}\0", "x".repeat(42));
    let answer = server.keys().get_jwk(GetJwkRequest { kid }).await;
    assert_eq!(refusal(answer), not_found());
    let events = ListEventsRequest { action: "nul\0".to_owned(), ..Default::default() };
    assert_eq!(field(server.audit().list_events(authorized(&token, events)).await), "action");
    let users = ListUsersRequest { tenant: "nul\0".to_owned(), ..Default::default() };
    let answer = server.users().list_users(authorized(&token, users)).await;
    assert_eq!(refusal(answer), not_found());
    server.stop().await
}
