//! `Auth.RevokeToken`: one token ends, and nothing else.

use futures_util::future::join_all;
use tessera::proto::{CreateTenantRequest, LoginRequest, RevokeTokenRequest, VerifyTokenRequest};
use tonic::{Code, Response, Status};

use crate::support::{
    Home, Outcome, PASSWORD, Person, Server, authorized, login_as, refresh_with, refusal, stories,
};

stories! {
    one_token_ends_and_its_session_goes_on,
    a_token_is_revoked_by_its_id,
    a_refresh_token_stands_for_its_session,
    what_is_not_known_is_no_error,
    others_tokens_are_not_for_a_user_to_end,
    an_admin_ends_tokens_of_its_tenant_alone,
    ids_without_end_are_refused,
    of_ids_at_once_no_more_are_taken,
    tokens_without_end_end_their_session,
    a_token_with_a_shared_secret_is_revoked,
}

async fn revoke(
    server: &Server,
    by: &Person,
    token: &str,
) -> Result<Response<tessera::proto::RevokeTokenResponse>, Status> {
    let request = RevokeTokenRequest { token: token.to_owned(), jti: String::new() };
    server.auth().revoke_token(authorized(&by.access_token, request)).await
}

async fn revoke_id(
    server: &Server,
    by: &Person,
    jti: &str,
) -> Result<Response<tessera::proto::RevokeTokenResponse>, Status> {
    let request = RevokeTokenRequest { token: String::new(), jti: jti.to_owned() };
    server.auth().revoke_token(authorized(&by.access_token, request)).await
}

async fn jti_of(server: &Server, token: &str) -> Result<String, Box<dyn std::error::Error>> {
    let request = VerifyTokenRequest { token: token.to_owned(), ..Default::default() };
    Ok(server.auth().verify_token(request).await?.into_inner().claims.ok_or("not active")?.jti)
}

async fn assert_revoked(server: &Server, token: &str) -> Outcome {
    assert!(!server.is_active(token, false).await?);
    assert!(!server.is_active(token, true).await?);
    Ok(())
}

async fn one_token_ends_and_its_session_goes_on(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let tokens = server.auth().refresh(refresh_with(&anna.refresh_token)).await?.into_inner().tokens;
    let next = tokens.ok_or("no tokens")?;
    revoke(&server, &anna, &next.access_token).await?;
    revoke(&server, &anna, &next.access_token).await?;
    assert_revoked(&server, &next.access_token).await?;
    assert!(server.is_active(&anna.access_token, true).await?, "the one before it is as good as ever");
    server.auth().refresh(refresh_with(&next.refresh_token)).await?;
    // Its own, last of all.
    revoke(&server, &anna, &anna.access_token).await?;
    assert_revoked(&server, &anna.access_token).await?;
    assert_eq!(refusal(revoke(&server, &anna, "x").await), (Code::Unauthenticated, "TOKEN_REVOKED".into()));
    server.stop().await
}

async fn a_token_is_revoked_by_its_id(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let phone = server.sign_in("anna", "mobile").await?;
    let jti = jti_of(&server, &phone.access_token).await?;
    let mut watching = server.watch().await?;
    revoke_id(&server, &anna, &jti).await?;
    assert_revoked(&server, &phone.access_token).await?;
    watching.until(|watching| !watching.entries.is_empty()).await?;
    let both = RevokeTokenRequest { token: phone.access_token.clone(), jti };
    let refused = server.auth().revoke_token(authorized(&anna.access_token, both)).await;
    assert_eq!(refusal(refused), (Code::InvalidArgument, "INVALID_FIELD".into()));
    let none = revoke_id(&server, &anna, "").await;
    assert_eq!(refusal(none), (Code::InvalidArgument, "INVALID_FIELD".into()));
    drop(watching);
    server.stop().await
}

async fn a_refresh_token_stands_for_its_session(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let phone = server.sign_in("anna", "mobile").await?;
    revoke(&server, &anna, &phone.refresh_token).await?;
    assert_revoked(&server, &phone.access_token).await?;
    assert_eq!(refusal(server.auth().refresh(refresh_with(&phone.refresh_token)).await).1, "TOKEN_REVOKED");
    assert!(server.is_active(&anna.access_token, true).await?);
    server.stop().await
}

async fn what_is_not_known_is_no_error(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let cut = &anna.refresh_token[..anna.refresh_token.len() - 2];
    for token in ["x", "a.b.c", "trt_", "trt_x", cut] {
        revoke(&server, &anna, token).await?;
    }
    revoke_id(&server, &anna, "01a21566-9292-7859-85ad-bd0ac417a539").await?;
    assert_eq!(
        refusal(revoke_id(&server, &anna, "x").await),
        (Code::InvalidArgument, "INVALID_FIELD".into())
    );
    let encrypted = refusal(revoke(&server, &anna, "a.b.c.d.e").await);
    assert_eq!(
        encrypted,
        (Code::InvalidArgument, "INVALID_FIELD".into()),
        "rather than not revoked in silence"
    );
    assert!(server.is_active(&anna.access_token, true).await?);
    // What can't be checked is taken by its id: it may be good again later, once its key is vouched for anew.
    let phone = server.sign_in("anna", "mobile").await?;
    revoke(&server, &anna, &format!("{}A", phone.access_token)).await?;
    assert_revoked(&server, &phone.access_token).await?;
    server.stop().await
}

async fn others_tokens_are_not_for_a_user_to_end(home: Home) -> Outcome {
    let server = home.start().await?;
    let root = server.admin().await?;
    let anna = server.anna().await?;
    server.make_user(&root, "berta").await?;
    let berta = server.sign_in("berta", "web").await?;
    for token in [&berta.access_token, &berta.refresh_token] {
        let refused = refusal(revoke(&server, &anna, token).await);
        assert_eq!(refused, (Code::PermissionDenied, "INSUFFICIENT_SCOPE".into()));
    }
    revoke_id(&server, &anna, &jti_of(&server, &berta.access_token).await?).await?;
    assert!(server.is_active(&berta.access_token, false).await?);
    assert!(server.is_active(&berta.access_token, true).await?);
    revoke(&server, &root, &berta.access_token).await?;
    assert_revoked(&server, &berta.access_token).await?;
    server.stop().await
}

async fn an_admin_ends_tokens_of_its_tenant_alone(home: Home) -> Outcome {
    let server = home.start().await?;
    let root = server.admin().await?;
    let anna = server.anna().await?;
    let blue = CreateTenantRequest { name: "blue".to_owned(), display_name: String::new() };
    server.tenants().create_tenant(authorized(&root.access_token, blue)).await?;
    server.make_user_in(&root, "blue", "boss", &["admin"]).await?;
    server.make_user_in(&root, "blue", "bert", &[]).await?;
    let in_blue = async |name| {
        let login = LoginRequest { tenant: "blue".to_owned(), ..login_as(name, PASSWORD, "web") };
        Ok::<Person, Status>(server.auth().login(login).await?.into_inner().into())
    };
    let (boss, bert) = (in_blue("boss").await?, in_blue("bert").await?);
    let refused = refusal(revoke(&server, &boss, &anna.access_token).await);
    assert_eq!(refused, (Code::PermissionDenied, "INSUFFICIENT_SCOPE".into()));
    revoke_id(&server, &boss, &jti_of(&server, &anna.access_token).await?).await?;
    assert!(server.is_active(&anna.access_token, true).await?, "an id of another tenant's token is none");
    revoke_id(&server, &boss, &jti_of(&server, &bert.access_token).await?).await?;
    assert_revoked(&server, &bert.access_token).await?;
    revoke_id(&server, &root, &jti_of(&server, &boss.access_token).await?).await?;
    assert_revoked(&server, &boss.access_token).await?;
    server.stop().await
}

async fn ids_without_end_are_refused(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    for id in 0..100 {
        revoke_id(&server, &anna, &uuid::Uuid::from_u128(id).to_string()).await?;
    }
    let id = uuid::Uuid::from_u128(100).to_string();
    let refused = refusal(revoke_id(&server, &anna, &id).await);
    assert_eq!(refused, (Code::ResourceExhausted, "RATE_LIMITED".into()));
    revoke(&server, &anna, &anna.access_token).await?;
    server.stop().await
}

async fn of_ids_at_once_no_more_are_taken(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let ids: Vec<_> = (0..150).map(|id| uuid::Uuid::from_u128(id).to_string()).collect();
    let revoked = join_all(ids.iter().map(|id| revoke_id(&server, &anna, id))).await;
    let (taken, refused): (Vec<_>, Vec<_>) = revoked.into_iter().partition(Result::is_ok);
    assert_eq!(taken.len(), 100);
    for refused in refused {
        assert_eq!(refusal(refused), (Code::ResourceExhausted, "RATE_LIMITED".into()));
    }
    let is_there = "SELECT CAST(count(*) AS TEXT) AS first FROM trust_log WHERE kind = 'token'";
    assert_eq!(home.query(is_there).await?, ["100"]);
    server.stop().await
}

async fn tokens_without_end_end_their_session(home: Home) -> Outcome {
    let server = home.start().await?;
    let mut anna = server.anna().await?;
    let mut tokens = Vec::new();
    for number in 0..110 {
        let reply = server.auth().refresh(refresh_with(&anna.refresh_token)).await?.into_inner();
        let next = reply.tokens.ok_or("no tokens")?;
        revoke(&server, &anna, &next.access_token).await?;
        tokens.push(next.access_token);
        anna.refresh_token = next.refresh_token;
        if number >= 100 {
            tokens.push(anna.access_token.clone());
            let refused = refusal(server.auth().refresh(refresh_with(&anna.refresh_token)).await);
            assert_eq!(refused, (Code::Unauthenticated, "TOKEN_REVOKED".into()), "{number}");
            anna = server.sign_in("anna", "web").await?;
        }
    }
    for token in &tokens {
        assert_revoked(&server, token).await?;
    }
    let kinds = "SELECT CAST(count(*) AS TEXT) AS first FROM trust_log WHERE kind IN ('token', 'session') \
                 GROUP BY kind ORDER BY kind";
    assert_eq!(home.query(kinds).await?, ["10", "100"], "a login for each further entry");
    assert!(server.is_active(&anna.access_token, true).await?);
    server.stop().await
}

async fn a_token_with_a_shared_secret_is_revoked(home: Home) -> Outcome {
    let server = home.start().await?;
    let root = server.admin().await?;
    let reports = tessera::proto::CreateAudienceRequest {
        name: "reports".to_owned(),
        signing: tessera::proto::AudienceSigning::Hs256.into(),
        ..Default::default()
    };
    server.audiences().create_audience(authorized(&root.access_token, reports)).await?;
    let anna = server.anna().await?;
    let login = LoginRequest { audience: vec!["reports".to_owned()], ..login_as("anna", PASSWORD, "mobile") };
    let shared: Person = server.auth().login(login).await?.into_inner().into();
    let is_active = async || {
        let request = VerifyTokenRequest {
            token: shared.access_token.clone(),
            audience: "reports".to_owned(),
            ..Default::default()
        };
        Ok::<_, Status>(server.auth().verify_token(request).await?.into_inner().active)
    };
    assert!(is_active().await?);
    revoke(&server, &anna, &shared.access_token).await?;
    assert!(!is_active().await?);
    server.stop().await
}
