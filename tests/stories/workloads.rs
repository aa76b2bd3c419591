//! Services that prove themselves with what the place where they run gives them: a token of a trusted issuer.

use std::{collections::HashMap, error::Error};

use serde_json::{Value, json};
use tessera::proto::{
    CreateCredentialRequest, CreateServiceAccountRequest, Federated, IssueServiceTokenRequest,
    create_credential_request::Kind, create_trusted_issuer_request::Keys,
};

use super::trusted_issuers::{register, with_keys};
use crate::support::{
    Home, Key, KeyServer, Outcome, Registrar, invalid, one_key, orders, parts_of, refusal, stories, words,
    wrong,
};

stories! {
    a_pod_proves_itself_with_the_token_of_its_cluster,
    a_spiffe_id_proves_itself,
    a_trust_domain_vouches_for_its_own,
    only_issuers_that_are_trusted_may_vouch,
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub(super) const CLUSTER: &str = "https://kubernetes.default.svc.cluster.example";
pub(super) const TRUST_DOMAIN: &str = "https://spire.example";

/// What Kubernetes projects into a pod, with the audience `here`.
pub(super) fn of_pod(home: &Home, namespace: &str, account: &str) -> Value {
    let now = home.now().timestamp();
    json!({
        "aud": ["here"],
        "exp": now + 3600,
        "iat": now,
        "iss": CLUSTER,
        "jti": "7f5e2f0e-0f5c-4c1a-9f57-1a2b3c4d5e6f",
        "kubernetes.io": {
            "namespace": namespace,
            "node": {"name": "node-1", "uid": "0f5c"},
            "pod": {"name": format!("{account}-5d9c"), "uid": "9f57"},
            "serviceaccount": {"name": account, "uid": "4c1a"},
        },
        "nbf": now,
        "sub": format!("system:serviceaccount:{namespace}:{account}"),
    })
}

/// What an agent of SPIFFE gives a workload, with the audience `here`.
pub(super) fn svid(home: &Home, id: &str) -> Value {
    let now = home.now().timestamp();
    json!({"aud": ["here"], "exp": now + 300, "iat": now, "iss": TRUST_DOMAIN, "sub": id})
}

/// This set of one key as SPIFFE publishes it: for JWT-SVIDs, beside one for X.509-SVIDs.
pub(super) fn bundle(set: &Value) -> Result<Value> {
    let (mut for_jwt, mut for_x509) = (set["keys"][0].clone(), one_key("")?.1["keys"][0].clone());
    for_jwt["use"] = json!("jwt-svid");
    for_x509["use"] = json!("x509-svid");
    for_x509["x5c"] = json!(["MIIB"]);
    Ok(json!({"spiffe_sequence": 1, "spiffe_refresh_hint": 300, "keys": [for_x509, for_jwt]}))
}

pub(super) fn federated(issuer: &str, subject: &str, claims: &[(&str, &str)]) -> Kind {
    Kind::Federated(Federated {
        issuer: issuer.to_owned(),
        subject: subject.to_owned(),
        claims: claims.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    })
}

fn asks_with(client_id: &str, token: &str) -> IssueServiceTokenRequest {
    IssueServiceTokenRequest {
        client_id: client_id.to_owned(),
        client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned(),
        client_assertion: token.to_owned(),
        audience: words(&["ledger"]),
        ..Default::default()
    }
}

pub(super) fn sign(key: &Key, kid: &str, claims: &Value) -> Result<String> {
    key.sign(&json!({"alg": "ES256", "kid": kid}), claims)
}

async fn a_pod_proves_itself_with_the_token_of_its_cluster(home: Home) -> Outcome {
    let server = home.start().await?;
    let (registrar, admin) = (Registrar::of(&server).await?, server.admin().await?);
    let (key, set) = one_key("c1")?;
    let cluster = KeyServer::serving(&set).await?;
    register(&server, &admin, with_keys(CLUSTER, Keys::JwksUrl(cluster.url()))).await?;
    let account = registrar.create(orders()).await?;
    let of_shop =
        federated(CLUSTER, "system:serviceaccount:shop:orders", &[("kubernetes.io.namespace", "shop")]);
    registrar.credential(&account, of_shop).await?;
    let id = account.client_id.as_str();

    let token = sign(&key, "c1", &of_pod(&home, "shop", "orders"))?;
    for _ in 0..3 {
        let got = server.service_token(asks_with(id, &token)).await?;
        assert_eq!(parts_of(&got.access_token)?.1["sub"], id);
    }
    assert_eq!(cluster.asked(), 1, "its keys are kept");
    let with = |name: &str, value: Value| {
        let mut claims = of_pod(&home, "shop", "orders");
        claims[name] = value;
        claims
    };
    let (stranger, now) = (one_key("c1")?.0, home.now().timestamp());
    for (what, token) in [
        ("another account", sign(&key, "c1", &of_pod(&home, "shop", "payments"))?),
        ("another namespace", sign(&key, "c1", &with("kubernetes.io", json!({"namespace": "bank"})))?),
        ("no namespace", sign(&key, "c1", &with("kubernetes.io", Value::Null))?),
        ("another audience", sign(&key, "c1", &with("aud", json!(["vault"])))?),
        ("expired", sign(&key, "c1", &with("exp", json!(now - 31)))?),
        ("another issuer", sign(&key, "c1", &with("iss", json!("https://other.example")))?),
        ("another key", sign(&stranger, "c1", &of_pod(&home, "shop", "orders"))?),
        ("an unknown key", sign(&key, "c2", &of_pod(&home, "shop", "orders"))?),
    ] {
        assert_eq!(refusal(server.issue(asks_with(id, &token)).await), wrong(), "{what}");
    }
    let other = CreateServiceAccountRequest { name: "payments".to_owned(), ..orders() };
    let other = registrar.create(other).await?;
    assert_eq!(refusal(server.issue(asks_with(&other.client_id, &token)).await), wrong(), "another's pod");
    assert_eq!(refusal(server.issue(asks_with("", &token)).await), wrong(), "nobody's");
    let events = server.events(&admin, "issue_service_token").await?;
    assert_eq!(events.len(), 9, "each that names an account");
    server.stop().await
}

async fn a_spiffe_id_proves_itself(home: Home) -> Outcome {
    let server = home.start().await?;
    let (registrar, admin) = (Registrar::of(&server).await?, server.admin().await?);
    let (key, set) = one_key("s1")?;
    register(&server, &admin, with_keys(TRUST_DOMAIN, Keys::JwksJson(bundle(&set)?.to_string()))).await?;
    let account = registrar.create(orders()).await?;
    let id = account.client_id.as_str();
    let of_orders = federated(TRUST_DOMAIN, "spiffe://shop.example/ns/shop/sa/orders", &[]);
    registrar.credential(&account, of_orders).await?;
    let signed = |id: &str| key.sign(&json!({"alg": "ES256", "kid": "s1", "typ": "JWT"}), &svid(&home, id));
    server.service_token(asks_with(id, &signed("spiffe://shop.example/ns/shop/sa/orders")?)).await?;
    for subject in ["spiffe://shop.example/ns/shop/sa/orders/x", "spiffe://shop.example/ns/shop/sa/order", ""]
    {
        assert_eq!(refusal(server.issue(asks_with(id, &signed(subject)?)).await), wrong(), "{subject}");
    }
    server.stop().await
}

/// A JWT-SVID need not say `iss`, and may say that it is of the type JOSE.
async fn a_trust_domain_vouches_for_its_own(home: Home) -> Outcome {
    let server = home.start().await?;
    let (registrar, admin) = (Registrar::of(&server).await?, server.admin().await?);
    let (key, set) = one_key("s1")?;
    let domain = "spiffe://shop.example";
    register(&server, &admin, with_keys(domain, Keys::JwksJson(bundle(&set)?.to_string()))).await?;
    let account = registrar.create(orders()).await?;
    let id = account.client_id.as_str();
    let of_orders = federated(domain, "spiffe://shop.example/ns/shop/sa/orders", &[]);
    registrar.credential(&account, of_orders).await?;
    let signed = |typ: &str, subject: &str| {
        let mut claims = svid(&home, subject);
        claims.as_object_mut().ok_or("no object")?.remove("iss");
        key.sign(&json!({"alg": "ES256", "kid": "s1", "typ": typ}), &claims)
    };
    let orders = "spiffe://shop.example/ns/shop/sa/orders";
    for typ in ["JOSE", "JWT"] {
        server.service_token(asks_with(id, &signed(typ, orders)?)).await?;
    }
    for (typ, subject) in [
        ("JWE", orders),
        ("JWT", "spiffe://shop.example/ns/shop/sa/payments"),
        ("JWT", "spiffe://shop.example.net/ns/shop/sa/orders"),
        ("JWT", "spiffe://"),
        ("JWT", "orders"),
    ] {
        let refused = server.issue(asks_with(id, &signed(typ, subject)?)).await;
        assert_eq!(refusal(refused), wrong(), "{typ} {subject}");
    }
    // Nor for another domain's, though it names itself and an admin has mistaken it for that one.
    let strangers = "spiffe://bank.example/ns/bank/sa/teller";
    registrar.credential(&account, federated(domain, strangers, &[])).await?;
    let mut claims = svid(&home, strangers);
    claims["iss"] = json!(domain);
    let refused = server.issue(asks_with(id, &sign(&key, "s1", &claims)?)).await;
    assert_eq!(refusal(refused), wrong());
    server.stop().await
}

async fn only_issuers_that_are_trusted_may_vouch(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    let request = |kind| CreateCredentialRequest {
        service_account_id: account.service_account_id.clone(),
        kind: Some(kind),
        ..Default::default()
    };
    let many: HashMap<String, String> =
        (0..17).map(|number| (format!("c{number}"), "x".to_owned())).collect();
    for kind in [
        federated(CLUSTER, "system:serviceaccount:shop:orders", &[]),
        federated("kubernetes", "s", &[]),
        federated(CLUSTER, "", &[]),
        Kind::Federated(Federated { issuer: CLUSTER.to_owned(), subject: "s".to_owned(), claims: many }),
    ] {
        assert_eq!(refusal(registrar.try_credential(request(kind)).await), invalid());
    }
    server.stop().await
}
