//! Services that know nothing of this code: each kind of credential in the hands of grpcio, grpc-js and grpcurl. The tokens
//! are checked where they arrive, by PyJWT and by jose with the published keys; grpcurl has to ask about its own.

use std::{error::Error, ffi::OsStr};

use serde_json::{Value, json};
use tessera::proto::{
    CreateServiceAccountRequest, LoginRequest, PrivateKeyJwt, ServiceAccount,
    create_credential_request::Kind, create_trusted_issuer_request::Keys, mtls::Certificate as Which,
};

use super::{
    mutual_tls::credential,
    trusted_issuers::{register, with_keys},
    workloads::{CLUSTER, TRUST_DOMAIN, bundle, federated, of_pod, sign, svid},
};
use crate::support::{
    Grpcurl, Home, KeyServer, ORDERS_URI, Outcome, PASSWORD, Registrar, Server, Shop, client, file, login_as,
    one_key, orders, parts_of, process_stories, run_client, words,
};

process_stories! {
    a_secret_is_enough,
    a_key_of_its_own_is_enough,
    the_token_of_its_cluster_is_enough,
    its_spiffe_id_is_enough,
    its_certificate_is_enough,
    it_acts_for_others_and_asks_about_them,
}

const ISSUER: &str = "http://127.0.0.1:50051";
const ISSUE: &str = "tessera.v1.Auth/IssueServiceToken";
const VERIFY: &str = "tessera.v1.Auth/VerifyToken";
const PYTHON: &str = "service_token.py";
const SCRIPTS: [&str; 2] = [PYTHON, "service_token.mjs"];

/// Both scripts prove themselves so, with these further arguments. Each finds that its token is the account's, checks what
/// that is bound to, and is given none for a proof that is not good.
async fn scripts_prove_it(
    way: &str,
    server: &Server,
    account: &ServiceAccount,
    given: &[impl AsRef<OsStr>],
) -> Outcome {
    for script in SCRIPTS {
        script_proves_it(script, way, server, account, given).await?;
    }
    Ok(())
}

async fn script_proves_it(
    script: &str,
    way: &str,
    server: &Server,
    account: &ServiceAccount,
    given: &[impl AsRef<OsStr>],
) -> Outcome {
    let mut command = client(script);
    command.arg(way);
    // The other one learns the contract from the server.
    if script != PYTHON {
        command.arg(file("proto"));
    }
    command.args([&server.address.to_string(), ISSUER, &account.client_id, "ledger"]);
    let claims: Value = serde_json::from_str(&run_client(command.args(given)).await?)?;
    assert_eq!(claims["scope"], "read", "{script}: {claims}");
    Ok(())
}

/// A request for a token, with this proof in it.
fn asks(account: &ServiceAccount, proof: Value) -> Value {
    let mut asks = proof;
    asks["client_id"] = json!(account.client_id);
    asks["audience"] = json!(["ledger"]);
    asks["scope"] = json!(["write"]);
    asks
}

/// An assertion as the proof of a request.
fn asserted(assertion: &str) -> Value {
    json!({
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": assertion,
    })
}

impl Grpcurl {
    /// Asks for a service's token.
    async fn issue(&self, message: Value) -> Result<Result<String, String>, Box<dyn Error>> {
        let reply = self.call(ISSUE, message).await?;
        Ok(reply.map(|reply| reply["tokens"]["accessToken"].as_str().unwrap_or_default().to_owned()))
    }

    /// Proves itself so, and hears that the token is the account's. Gives what the server says of it.
    async fn proves_it(&self, account: &ServiceAccount, proof: Value) -> Result<Value, Box<dyn Error>> {
        let token = self.issue(asks(account, proof)).await??;
        let told = self.call(VERIFY, json!({"token": token, "audience": "ledger"})).await??;
        assert_eq!(told["active"], true, "{told}");
        let claims = &told["claims"];
        assert_eq!((&claims["sub"], &claims["scope"]), (&json!(account.client_id), &json!(["write"])));
        assert_eq!(claims["aud"], json!(["ledger"]));
        Ok(claims.clone())
    }

    /// This proves nothing.
    async fn is_refused(&self, account: &ServiceAccount, proof: Value) -> Outcome {
        let refused = self.issue(asks(account, proof)).await?;
        assert_eq!(refused, Err("INVALID_CREDENTIALS".to_owned()));
        Ok(())
    }
}

async fn a_secret_is_enough(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    let (secret, _) = registrar.secret(&account).await?;
    scripts_prove_it("secret", &server, &account, &[&secret]).await?;
    let grpcurl = Grpcurl::plain(&server);
    grpcurl.proves_it(&account, json!({"client_secret": secret})).await?;
    grpcurl.is_refused(&account, json!({"client_secret": "tcs_wrong"})).await?;
    server.stop().await
}

async fn a_key_of_its_own_is_enough(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    let key = |script: &str| home.dir().join(format!("{script}.pem"));
    for script in SCRIPTS {
        let jwks_json = run_client(client(script).arg("key").arg(key(script))).await?;
        let keys = PrivateKeyJwt { jwks_json, ..Default::default() };
        registrar.credential(&account, Kind::PrivateKeyJwt(keys)).await?;
        script_proves_it(script, "private_key_jwt", &server, &account, &[key(script)]).await?;
    }
    let mut python = client(PYTHON);
    python.args(["assertion", ISSUER, &account.client_id]).arg(key(PYTHON));
    let assertion = asserted(run_client(&mut python).await?.trim());
    let grpcurl = Grpcurl::plain(&server);
    grpcurl.proves_it(&account, assertion.clone()).await?;
    grpcurl.is_refused(&account, assertion).await?;
    server.stop().await
}

async fn the_token_of_its_cluster_is_enough(home: Home) -> Outcome {
    let (key, set) = one_key("c1")?;
    let subject = "system:serviceaccount:shop:orders";
    let of_shop = federated(CLUSTER, subject, &[("kubernetes.io.namespace", "shop")]);
    let token = |namespace| sign(&key, "c1", &of_pod(&home, namespace, "orders"));
    platforms_token_is_enough(&home, CLUSTER, &set, of_shop, &token("shop")?, &token("bank")?).await
}

async fn its_spiffe_id_is_enough(home: Home) -> Outcome {
    let (key, set) = one_key("s1")?;
    let id = "spiffe://shop.example/ns/shop/sa/orders";
    let of_orders = federated(TRUST_DOMAIN, id, &[]);
    let token = |id| sign(&key, "s1", &svid(&home, id));
    let (good, bad) = (token(id)?, token("spiffe://shop.example/ns/shop/sa/billing")?);
    platforms_token_is_enough(&home, TRUST_DOMAIN, &bundle(&set)?, of_orders, &good, &bad).await
}

/// The account is for the workload of the good token, which the platform puts into a file, as it publishes its keys.
async fn platforms_token_is_enough(
    home: &Home,
    issuer: &str,
    keys: &Value,
    workload: Kind,
    good: &str,
    bad: &str,
) -> Outcome {
    let server = home.start().await?;
    let (registrar, admin) = (Registrar::of(&server).await?, server.admin().await?);
    let published = KeyServer::serving(keys).await?;
    register(&server, &admin, with_keys(issuer, Keys::JwksUrl(published.url()))).await?;
    let account = registrar.create(orders()).await?;
    registrar.credential(&account, workload).await?;
    let token = home.dir().join("token");
    std::fs::write(&token, good)?;
    scripts_prove_it("federated", &server, &account, &[&token]).await?;
    let grpcurl = Grpcurl::plain(&server);
    grpcurl.proves_it(&account, asserted(good)).await?;
    grpcurl.is_refused(&account, asserted(bad)).await?;
    server.stop().await
}

async fn its_certificate_is_enough(home: Home) -> Outcome {
    let shop = Shop::new(&home).await?;
    let server = shop.start(&home, "").await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    credential(&registrar, &account, Which::SanUri(ORDERS_URI.to_owned())).await?;
    let files = [&shop.authority.certificate(), &shop.orders.cert, &shop.orders.key];
    scripts_prove_it("mtls", &server, &account, &files).await?;
    let over_tls = |shown| Grpcurl::over_tls(&server, &shop.authority, shown);
    let claims = over_tls(Some(&shop.orders)).proves_it(&account, json!({})).await?;
    assert_eq!(claims["cnf"], json!({"x5tS256": shop.authority.thumbprint(&shop.orders).await?}));
    for other in [None, Some(&shop.billing)] {
        over_tls(other).is_refused(&account, json!({})).await?;
    }
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
    let anybody = Grpcurl::plain(&server);
    let own = anybody.issue(asks).await??;
    let grpcurl = Grpcurl::plain(&server).with_token(&own);
    server.anna().await?;
    let token_for = async |audience: &str| {
        let (audience, device) = (words(&[audience]), audience);
        let login = LoginRequest { audience, scope: words(&["write"]), ..login_as("anna", PASSWORD, device) };
        let tokens = server.auth().login(login).await?.into_inner().tokens.ok_or("no tokens")?;
        Ok::<_, Box<dyn Error>>(tokens.access_token)
    };
    let (for_orders, for_others) = (token_for("orders").await?, token_for("billing").await?);

    let told = grpcurl.call(VERIFY, json!({"token": for_orders})).await??;
    assert_eq!((&told["active"], &told["claims"]["scope"]), (&json!(true), &json!(["write"])));
    let told = grpcurl.call(VERIFY, json!({"token": for_others})).await??;
    assert_eq!(told, json!({}), "inactive, and nothing more");
    let refused = anybody.call(VERIFY, json!({"token": for_orders})).await?;
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
    let reply = grpcurl.call(exchange, exchanging(&for_orders)).await??;
    let claims = parts_of(reply["tokens"]["accessToken"].as_str().ok_or("no token")?)?.1;
    assert_eq!(claims["act"]["sub"], account.client_id.as_str());
    let refused = grpcurl.call(exchange, exchanging(&for_others)).await?;
    assert_eq!(refused, Err("INSUFFICIENT_SCOPE".to_owned()));
    server.stop().await
}
