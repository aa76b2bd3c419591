//! What is seen from outside: request ids, HTTP, metrics, the audit trail.

use std::error::Error;

use tessera::proto::{AuditEvent, EventOutcome, GetJwksRequest, ListEventsRequest, LogoutRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Request;

use crate::support::{
    ADMIN_PASSWORD, FENCE, Home, Outcome, PASSWORD, Server, authorized, eventually, login_as, stories,
};

stories! {
    every_reply_carries_the_requests_id,
    the_jwk_set_is_there_over_http,
    elsewhere_is_a_404,
    what_happens_is_counted,
    a_call_whose_client_leaves_is_counted_too,
    the_audit_trail_tells_who_did_what,
    the_audit_trail_is_final,
    no_secret_is_stored_in_the_clear,
    a_call_that_is_given_up_leaves_nothing_half_done,
    a_connection_that_never_says_what_it_speaks_is_closed,
}

/// One HTTP/1.1 request: status line with headers, and body.
async fn http(server: &Server, request_line: &str) -> Result<(String, String), Box<dyn Error>> {
    let mut stream = TcpStream::connect(server.address).await?;
    let request = format!("{request_line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    let (head, body) = reply.split_once("\r\n\r\n").ok_or("no body")?;
    Ok((head.to_owned(), body.to_owned()))
}

async fn every_reply_carries_the_requests_id(home: Home) -> Outcome {
    let server = home.start().await?;
    let id = |metadata: &tonic::metadata::MetadataMap| {
        metadata.get("x-request-id").and_then(|id| Some(id.to_str().ok()?.to_owned())).unwrap_or_default()
    };
    let reply = server.keys().get_jwks(GetJwksRequest::default()).await?;
    assert!(uuid::Uuid::parse_str(&id(reply.metadata())).is_ok());

    let mut request = Request::new(GetJwksRequest::default());
    request.metadata_mut().insert("x-request-id", "trace-17".parse()?);
    assert_eq!(id(server.keys().get_jwks(request).await?.metadata()), "trace-17");

    let mut request = Request::new(login_as("admin", PASSWORD, "web"));
    request.metadata_mut().insert("x-request-id", "trace-18".parse()?);
    let refused = server.auth().login(request).await.expect_err("the password is wrong");
    assert_eq!(id(refused.metadata()), "trace-18");

    let mut request = Request::new(LogoutRequest {});
    request.metadata_mut().insert("x-request-id", "two words\tor more".parse()?);
    let refused = server.auth().logout(request).await.expect_err("there is no token");
    assert!(uuid::Uuid::parse_str(&id(refused.metadata())).is_ok(), "an id that could forge a log line");
    server.stop().await
}

async fn the_jwk_set_is_there_over_http(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    let (head, body) = http(&server, "GET /.well-known/jwks.json").await?;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("content-type: application/jwk-set+json"), "{head}");
    assert!(head.contains("cache-control: public, max-age="), "{head}");
    assert_eq!(body, server.keys().get_jwks(GetJwksRequest::default()).await?.into_inner().jwks_json);

    let kid = "SELECT kid AS first FROM sessions";
    let kid = home.query(kid).await?.pop().ok_or("no session")?;
    let (head, body) = http(&server, &format!("GET /.well-known/jwks.json?kid={kid}")).await?;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&body)?["keys"][0]["kid"], kid);
    let (head, body) = http(&server, "GET /.well-known/jwks.json?kid=unknown").await?;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    assert!(body.contains("NOT_FOUND"), "{body}");
    let (head, body) = http(&server, "GET /.well-known/jwks.json?kid=a&kid=b").await?;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    assert!(body.contains("INVALID_FIELD"), "{body}");
    drop(admin);
    server.stop().await
}

async fn elsewhere_is_a_404(home: Home) -> Outcome {
    let server = home.start().await?;
    for line in
        ["GET /", "GET /favicon.ico", "POST /login", "GET /.well-known/", "GET /tessera.v1.Auth/Nothing"]
    {
        let (head, _) = http(&server, line).await?;
        assert!(head.starts_with("HTTP/1.1 404"), "{line}: {head}");
    }
    let (head, _) = http(&server, "POST /.well-known/jwks.json").await?;
    assert!(head.starts_with("HTTP/1.1 405"), "{head}");
    server.stop().await
}

async fn what_happens_is_counted(home: Home) -> Outcome {
    let server = home.start().await?;
    server.admin().await?;
    let _ = server.auth().login(login_as("admin", PASSWORD, "web")).await;
    let (head, body) = http(&server, "GET /metrics").await?;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    for line in [
        "tessera_grpc_calls_total{method=\"/tessera.v1.Auth/Login\",code=\"OK\"} 1",
        "tessera_grpc_calls_total{method=\"/tessera.v1.Auth/Login\",code=\"UNAUTHENTICATED\"} 1",
        "tessera_grpc_latency_seconds_count{method=\"/tessera.v1.Auth/Login\"} 2",
        "tessera_logins_total{outcome=\"OK\"} 1",
        "tessera_logins_total{outcome=\"INVALID_CREDENTIALS\"} 1",
        "tessera_refresh_reuses_total 0",
        "tessera_hash_waiting 0",
        "tessera_cache_entries{cache=\"session_makers\"} 1",
        "# EOF",
    ] {
        assert!(body.contains(line), "{line} is not in\n{body}");
    }
    assert!(body.contains("tessera_pool_connections{pool="), "{body}");
    server.stop().await
}

async fn a_call_whose_client_leaves_is_counted_too(home: Home) -> Outcome {
    let server = home.start_with("[passwords]\nargon2_memory_kib = 65536\nargon2_time = 10\n").await?;
    let mut request = Request::new(login_as("admin", PASSWORD, "web"));
    request.set_timeout(std::time::Duration::from_millis(20));
    server.auth().login(request).await.expect_err("there is no time for it");
    let counted = "tessera_grpc_calls_total{method=\"/tessera.v1.Auth/Login\",code=\"CANCELLED\"} 1";
    eventually("it is counted", async || Ok(http(&server, "GET /metrics").await?.1.contains(counted)))
        .await?;
    server.stop().await
}

async fn events(server: &Server, token: &str) -> Result<Vec<AuditEvent>, Box<dyn Error>> {
    let request = authorized(token, ListEventsRequest::default());
    Ok(server.audit().list_events(request).await?.into_inner().events)
}

async fn the_audit_trail_tells_who_did_what(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let _ = server.auth().login(login_as("anna", "a wrong password", "web")).await;
    let _ = server.auth().login(login_as("nobody", "a wrong password", "web")).await;
    let mut logout = authorized(&anna.access_token, LogoutRequest {});
    logout.metadata_mut().insert("x-request-id", "the-logout".parse()?);
    server.auth().logout(logout).await?;
    let admin = server.admin().await?;

    let events = events(&server, &admin.access_token).await?;
    let told: Vec<(&str, &str, bool)> = events
        .iter()
        .map(|event| (event.action.as_str(), event.reason.as_str(), event.target_id == anna.user_id))
        .collect();
    let expected = [
        ("login", "", false),
        ("logout", "", false),
        ("login", "INVALID_CREDENTIALS", false),
        ("login", "INVALID_CREDENTIALS", true),
        ("login", "", true),
        ("create_user", "", true),
        ("login", "", false),
        ("activate_key", "", false),
        ("bootstrap", "", false),
    ];
    assert_eq!(told, expected);
    let logout = &events[1];
    assert_eq!(
        (logout.actor_id.as_str(), logout.target_id.as_str()),
        (anna.user_id.as_str(), anna.session_id.as_str())
    );
    assert_eq!((logout.address.as_str(), logout.request_id.as_str()), ("127.0.0.1", "the-logout"));
    assert_eq!(logout.outcome(), EventOutcome::Success);
    assert_eq!(events[2].outcome(), EventOutcome::Failure);
    assert_eq!(events[2].target_id, "", "a name that may be a mistyped password is not kept");
    server.stop().await
}

async fn the_audit_trail_is_final(home: Home) -> Outcome {
    let server = home.start().await?;
    for statement in ["UPDATE audit_events SET action = 'nothing'", "DELETE FROM audit_events"] {
        let refused = home.query(statement).await.expect_err("it is append-only");
        let told = format!("{refused:?}");
        assert!(told.contains("append-only"), "{told}");
    }
    server.stop().await
}

async fn no_secret_is_stored_in_the_clear(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    server.stop().await?;
    let dump = match home.database_url() {
        None => std::fs::read(home.dir().join("data/tessera.db"))?,
        Some(_) => {
            let mut dump = String::new();
            for table in
                ["users", "sessions", "session_keys", "issuer_keys", "server_secrets", "audit_events"]
            {
                let rows = format!("SELECT CAST(t.* AS TEXT) AS first FROM {table} t");
                dump.extend(home.query(&rows).await?);
            }
            dump.into_bytes()
        }
    };
    let holds = |needle: &[u8]| dump.windows(needle.len()).any(|window| window == needle);
    assert!(holds(b"anna"), "the dump holds what is not secret");
    let tag = &anna.refresh_token[anna.refresh_token.len() - 40..];
    for secret in [PASSWORD, ADMIN_PASSWORD, tag, &anna.access_token[anna.access_token.len() - 40..]] {
        assert!(!holds(secret.as_bytes()), "{secret:.10}");
    }
    server_key_is_sealed(&home).await
}

/// A PKCS#8 key would begin with a SEQUENCE; a sealed one begins with its layout.
async fn server_key_is_sealed(home: &Home) -> Outcome {
    let hex = if home.database_url().is_some() {
        "encode(sealed_private_key, 'hex')"
    } else {
        "lower(hex(sealed_private_key))"
    };
    for table in ["issuer_keys", "session_keys"] {
        let keys = home.query(&format!("SELECT {hex} AS first FROM {table}")).await?;
        assert!(!keys.is_empty() && keys.iter().all(|key| key.starts_with("0108")), "{table}: {keys:?}");
    }
    Ok(())
}

async fn a_call_that_is_given_up_leaves_nothing_half_done(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    for number in 0..20 {
        server.make_user(&admin, &format!("hasty-{number}")).await?;
    }
    let give_up = (0..20u64).map(|number| {
        let mut auth = server.auth();
        async move {
            let request = login_as(&format!("hasty-{number}"), PASSWORD, "web");
            let patience = std::time::Duration::from_micros(500 * number);
            let _ = tokio::time::timeout(patience, auth.login(request)).await;
        }
    });
    futures_util::future::join_all(give_up).await;
    // Every connection and every transaction is usable: as many writes as there are places for them.
    for number in 0..20 {
        server.sign_in(&format!("hasty-{number}"), "mobile").await?;
    }
    let halves = "SELECT CAST(count(*) AS TEXT) AS first FROM sessions s \
                  LEFT JOIN session_keys k ON k.session_id = s.id WHERE k.kid IS NULL";
    assert_eq!(home.query(halves).await?, ["0"]);
    server.stop().await
}

async fn a_connection_that_never_says_what_it_speaks_is_closed(home: Home) -> Outcome {
    let server = home.start().await?;
    let mut connections = Vec::new();
    for said in ["", "P", "PRI *", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
        let mut stream = TcpStream::connect(server.address).await?;
        stream.write_all(said.as_bytes()).await?;
        connections.push(async move {
            let mut answer = [0];
            // Nothing, or word that it was cut.
            let closed = tokio::time::timeout(FENCE, stream.read(&mut answer)).await;
            assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{said}: {closed:?}");
        });
    }
    futures_util::future::join_all(connections).await;
    let (head, _) = http(&server, "POST /nowhere").await?;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    server.stop().await
}
