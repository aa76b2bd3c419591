//! A service at a terminal: each kind of credential, and what a service does with its token, by grpcurl alone.

use std::error::Error;

use serde_json::{Value, json};
use tessera::{
    clock::{Clock, SystemClock},
    proto::{
        CreateCredentialRequest, CreateServiceAccountRequest, Federated, LoginRequest, PrivateKeyJwt,
        ServiceAccount, create_credential_request::Kind, create_trusted_issuer_request::Keys,
    },
};
use tokio::process::Command;

use super::trusted_issuers::{register, with_keys};
use crate::support::{
    Home, Outcome, PASSWORD, Registrar, Server, client, installed, login_as, one_key, orders, parts_of,
    run_client, story, words,
};

story!(a_secret_is_enough, binary: Binary, sqlite: BinarySqlite);
story!(a_key_of_its_own_is_enough, binary: Binary, sqlite: BinarySqlite);
story!(the_token_of_its_cluster_is_enough, binary: Binary, sqlite: BinarySqlite);
story!(it_acts_for_others_and_asks_about_them, binary: Binary, sqlite: BinarySqlite);

const ISSUER: &str = "http://127.0.0.1:50051";
const CLUSTER: &str = "https://kubernetes.default.svc.cluster.example";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What grpcurl prints: the reply, or of a refusal its reason.
async fn grpcurl(
    server: &Server,
    token: Option<&str>,
    method: &str,
    message: Value,
) -> Result<Result<Value, String>, Box<dyn Error>> {
    let mut command = Command::new(installed("TESTS_GRPCURL", "python/bin/grpcurl"));
    command.arg("-plaintext");
    if let Some(token) = token {
        command.args(["-H", &format!("authorization: Bearer {token}")]);
    }
    command.args(["-d", &message.to_string(), &server.address.to_string(), method]);
    let output = command.kill_on_drop(true).output().await?;
    if output.status.success() {
        return Ok(Ok(serde_json::from_slice(&output.stdout)?));
    }
    let complained = String::from_utf8(output.stderr)?;
    let (_, rest) = complained.split_once("\"reason\":\"").ok_or_else(|| complained.clone())?;
    Ok(Err(rest.split('"').next().unwrap_or_default().to_owned()))
}

/// Asks for a service's token.
async fn issue(server: &Server, message: Value) -> Result<Result<String, String>, Box<dyn Error>> {
    let reply = grpcurl(server, None, "tessera.v1.Auth/IssueServiceToken", message).await?;
    Ok(reply.map(|reply| reply["tokens"]["accessToken"].as_str().unwrap_or_default().to_owned()))
}

/// The token is the account's, for the ledger alone.
fn assert_is_of(token: &str, account: &ServiceAccount) -> Outcome {
    let claims = parts_of(token)?.1;
    assert_eq!((claims["sub"].as_str(), &claims["aud"]), (Some(&*account.client_id), &json!(["ledger"])));
    assert_eq!(claims["scope"], "write");
    Ok(())
}

async fn give(registrar: &Registrar<'_>, account: &ServiceAccount, kind: Kind) -> Outcome {
    let request = CreateCredentialRequest {
        service_account_id: account.service_account_id.clone(),
        kind: Some(kind),
        ..Default::default()
    };
    registrar.try_credential(request).await?;
    Ok(())
}

async fn a_secret_is_enough(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    let (secret, _) = registrar.secret(&account).await?;
    let asks = |secret: &str| json!({"client_id": account.client_id, "client_secret": secret, "audience": ["ledger"], "scope": ["write"]});
    assert_is_of(&issue(&server, asks(&secret)).await??, &account)?;
    assert_eq!(issue(&server, asks("tcs_wrong")).await?, Err("INVALID_CREDENTIALS".to_owned()));
    server.stop().await
}

async fn a_key_of_its_own_is_enough(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    let file = home.dir().join("private.pem");
    let jwks_json = run_client(client("service_token.py").arg("key").arg(&file)).await?;
    give(&registrar, &account, Kind::PrivateKeyJwt(PrivateKeyJwt { jwks_json, ..Default::default() }))
        .await?;
    let mut python = client("service_token.py");
    python.args(["assertion", ISSUER, &account.client_id]).arg(&file).arg("ES256");
    let assertion = run_client(&mut python).await?;
    let asks = json!({
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion.trim(),
        "audience": ["ledger"],
        "scope": ["write"],
    });
    assert_is_of(&issue(&server, asks.clone()).await??, &account)?;
    assert_eq!(issue(&server, asks).await?, Err("INVALID_CREDENTIALS".to_owned()), "it is good once");
    server.stop().await
}

async fn the_token_of_its_cluster_is_enough(home: Home) -> Outcome {
    let server = home.start().await?;
    let (registrar, admin) = (Registrar::of(&server).await?, server.admin().await?);
    let (key, set) = one_key("c1")?;
    register(&server, &admin, with_keys(CLUSTER, Keys::JwksJson(set.to_string()))).await?;
    let account = registrar.create(orders()).await?;
    let subject = "system:serviceaccount:shop:orders".to_owned();
    let claims = [("kubernetes.io.namespace".to_owned(), "shop".to_owned())].into();
    let federated = Federated { issuer: CLUSTER.to_owned(), subject: subject.clone(), claims };
    give(&registrar, &account, Kind::Federated(federated)).await?;
    let asks = |namespace: &str| {
        let now = SystemClock.now().timestamp();
        let claims = json!({
            "iss": CLUSTER, "sub": subject, "aud": ["here"], "iat": now, "nbf": now, "exp": now + 600,
            "kubernetes.io": {"namespace": namespace},
        });
        let token = key.sign(&json!({"alg": "ES256", "kid": "c1"}), &claims)?;
        Ok::<_, Box<dyn Error>>(json!({
            "client_id": account.client_id,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": token,
            "audience": ["ledger"],
            "scope": ["write"],
        }))
    };
    assert_is_of(&issue(&server, asks("shop")?).await??, &account)?;
    assert_eq!(issue(&server, asks("bank")?).await?, Err("INVALID_CREDENTIALS".to_owned()));
    server.stop().await
}

async fn it_acts_for_others_and_asks_about_them(home: Home) -> Outcome {
    let server = home.start_with("[tokens]\nintrospection = \"services\"\n").await?;
    let registrar = Registrar::of(&server).await?;
    let request = CreateServiceAccountRequest {
        own_audiences: words(&["orders"]),
        allowed_grants: words(&["client_credentials", "token_exchange"]),
        ..orders()
    };
    let (account, asks) = registrar.service(request).await?;
    let asks = json!({
        "client_id": account.client_id, "client_secret": asks.client_secret, "audience": ["tessera"],
    });
    let own = issue(&server, asks).await??;
    server.anna().await?;
    let token_for = async |audience: &str| {
        let (audience, device) = (words(&[audience]), audience);
        let login = LoginRequest { audience, scope: words(&["write"]), ..login_as("anna", PASSWORD, device) };
        let tokens = server.auth().login(login).await?.into_inner().tokens.ok_or("no tokens")?;
        Ok::<_, Box<dyn Error>>(tokens.access_token)
    };
    let (for_orders, for_others) = (token_for("orders").await?, token_for("billing").await?);

    let verify = "tessera.v1.Auth/VerifyToken";
    let told = grpcurl(&server, Some(&own), verify, json!({"token": for_orders})).await??;
    assert_eq!((&told["active"], &told["claims"]["scope"]), (&json!(true), &json!(["write"])));
    let told = grpcurl(&server, Some(&own), verify, json!({"token": for_others})).await??;
    assert_eq!(told, json!({}), "inactive, and nothing more");
    let refused = grpcurl(&server, None, verify, json!({"token": for_orders})).await?;
    assert_eq!(refused, Err("TOKEN_MISSING".to_owned()));

    let exchanging = |token: &str| {
        json!({
            "subject_token": token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "audience": ["ledger"],
            "scope": ["write"],
        })
    };
    let exchange = "tessera.v1.Auth/ExchangeToken";
    let reply = grpcurl(&server, Some(&own), exchange, exchanging(&for_orders)).await??;
    let claims = parts_of(reply["tokens"]["accessToken"].as_str().ok_or("no token")?)?.1;
    assert_eq!(claims["act"]["sub"], account.client_id.as_str());
    let refused = grpcurl(&server, Some(&own), exchange, exchanging(&for_others)).await?;
    assert_eq!(refused, Err("INSUFFICIENT_SCOPE".to_owned()));
    server.stop().await
}
