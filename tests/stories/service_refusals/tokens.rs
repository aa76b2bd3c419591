//! Tokens that are signed: a service's own assertions, and what the place where it runs gives it.

use serde_json::{Value, json};
use tessera::{
    domain::algorithm::Algorithm,
    proto::{
        Federated, IssueServiceTokenRequest, PrivateKeyJwt, create_credential_request::Kind as Credential,
        create_trusted_issuer_request::Keys,
    },
};

use super::{ASSERTION_TYPE, DISABLED, Result, Trail, WRONG, account_with, credential};
use crate::{
    stories::trusted_issuers::with_keys,
    support::{
        Home, Key, KeyServer, Outcome, Registrar, asks, authorized, eventually, jwks, parts_of, stories,
    },
};

stories! {
    each_kind_of_token_is_refused_with_its_row,
    a_used_assertion_is_refused_by_each_replica_and_after_a_restart,
}

const ISSUER: &str = "http://127.0.0.1:50051";

/// Who makes such tokens, and of what they speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The service, whose key is registered.
    Registered,
    /// The service, which publishes its key.
    Published,
    /// Kubernetes, for a pod.
    Pod,
    /// SPIFFE: a JWT-SVID.
    Svid,
    /// A CI system, for a job.
    Job,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Registered, Self::Published, Self::Pod, Self::Svid, Self::Job];

    fn name(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Published => "published",
            Self::Pod => "pod",
            Self::Svid => "svid",
            Self::Job => "job",
        }
    }

    /// Whether the service itself signs.
    fn is_own(self) -> bool {
        matches!(self, Self::Registered | Self::Published)
    }

    /// Where it is made, by whoever is not the service.
    fn issuer(self) -> &'static str {
        match self {
            Self::Registered | Self::Published => "",
            Self::Pod => "https://kubernetes.default.svc.cluster.example",
            Self::Svid => "https://spire.example",
            Self::Job => "https://token.actions.example",
        }
    }

    fn subject(self) -> &'static str {
        match self {
            Self::Registered | Self::Published => "",
            Self::Pod => "system:serviceaccount:shop:orders",
            Self::Svid => "spiffe://shop.example/ns/shop/sa/orders",
            Self::Job => "repo:shop/orders:environment:production",
        }
    }

    fn federated(self) -> Credential {
        let claims: &[(&str, &str)] = match self {
            Self::Pod => &[("kubernetes.io.namespace", "shop")],
            Self::Job => &[("repository", "shop/orders"), ("ref", "refs/heads/main")],
            _ => &[],
        };
        Credential::Federated(Federated {
            issuer: self.issuer().to_owned(),
            subject: self.subject().to_owned(),
            claims: claims.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        })
    }

    fn header(self) -> Value {
        match self {
            Self::Pod => json!({"alg": "ES256", "kid": "k1"}),
            Self::Job => json!({"typ": "JWT", "alg": "RS256", "x5t": "k1", "kid": "k1"}),
            _ => json!({"alg": "ES256", "kid": "k1", "typ": "JWT"}),
        }
    }

    /// The claims of a good one.
    fn claims(self, client_id: &str, now: i64) -> Value {
        let mut claims = match self {
            Self::Registered | Self::Published => json!({
                "iss": client_id, "sub": client_id, "aud": ISSUER, "exp": now + 60,
                "jti": fastrand::u128(..).to_string(),
            }),
            Self::Pod => json!({
                "aud": ["here"], "exp": now + 3600, "nbf": now,
                "jti": "7f5e2f0e-0f5c-4c1a-9f57-1a2b3c4d5e6f",
                "kubernetes.io": {
                    "namespace": "shop",
                    "pod": {"name": "orders-5d9c", "uid": "9f57"},
                    "serviceaccount": {"name": "orders", "uid": "4c1a"},
                },
            }),
            Self::Svid => json!({"aud": ["here", "elsewhere"], "exp": now + 300}),
            Self::Job => json!({
                "aud": "here", "exp": now + 300, "nbf": now - 5,
                "jti": "4a1c", "ref": "refs/heads/main", "repository": "shop/orders",
                "repository_owner": "shop", "environment": "production", "run_attempt": "1",
                "job_workflow_ref": "shop/orders/.github/workflows/deploy.yml@refs/heads/main",
            }),
        };
        claims["iat"] = json!(now);
        if !self.is_own() {
            claims["iss"] = json!(self.issuer());
            claims["sub"] = json!(self.subject());
        }
        claims
    }
}

/// Whoever signs such tokens for a service.
struct Signer {
    kind: Kind,
    key: Key,
    /// Where the key is published, unless it is registered.
    published: Option<KeyServer>,
}

impl Signer {
    async fn new(kind: Kind) -> Result<Self> {
        let key = Key::generate(if kind == Kind::Job { Algorithm::Rs256 } else { Algorithm::Es256 })?;
        let published = match kind {
            Kind::Registered | Kind::Svid => None,
            _ => Some(KeyServer::serving(&jwks(&[("k1", &key)])).await?),
        };
        Ok(Self { kind, key, published })
    }

    /// The credential of a service that it signs for. Its issuer becomes a trusted one.
    async fn credential(&self, registrar: &Registrar<'_>) -> Result<Credential> {
        let json = jwks(&[("k1", &self.key)]).to_string();
        if self.kind.is_own() {
            return Ok(Credential::PrivateKeyJwt(match &self.published {
                Some(published) => PrivateKeyJwt { jwks_uri: published.url(), ..Default::default() },
                None => PrivateKeyJwt { jwks_json: json, ..Default::default() },
            }));
        }
        let keys = self.published.as_ref().map_or(Keys::JwksJson(json), |it| Keys::JwksUrl(it.url()));
        let request = authorized(&registrar.token, with_keys(self.kind.issuer(), keys));
        registrar.server.keys().create_trusted_issuer(request).await?;
        Ok(self.kind.federated())
    }

    fn asks_by(&self, key: &Key, client_id: &str, claims: &Value) -> Result<IssueServiceTokenRequest> {
        Ok(IssueServiceTokenRequest {
            client_assertion_type: ASSERTION_TYPE.to_owned(),
            client_assertion: key.sign(&self.kind.header(), claims)?,
            ..asks(client_id, "")
        })
    }

    /// Asks with a good one.
    fn asks(&self, home: &Home, client_id: &str) -> Result<IssueServiceTokenRequest> {
        self.asks_by(&self.key, client_id, &self.kind.claims(client_id, home.now().timestamp()))
    }
}

async fn each_kind_of_token_is_refused_with_its_row(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let mut trail = Trail::of(&registrar);
    for kind in Kind::ALL {
        let signer = Signer::new(kind).await?;
        let proof = signer.credential(&registrar).await?;
        let (account, credential_id) = account_with(&registrar, kind.name(), proof.clone()).await?;
        let id = account.client_id.as_str();
        let got = server.service_token(signer.asks(&home, id)?).await?;
        assert_eq!(parts_of(&got.access_token)?.1["sub"], id, "{kind:?}");

        let stranger = Key::generate(signer.key.algorithm())?;
        let now = home.now().timestamp();
        let with = |name: &str, value: Value| {
            let mut claims = kind.claims(id, now);
            claims[name] = value;
            signer.asks_by(&signer.key, id, &claims)
        };
        for (what, request) in [
            ("another key", signer.asks_by(&stranger, id, &kind.claims(id, now))?),
            ("expired", with("exp", json!(now - 31))?),
            ("for another audience", with("aud", json!("https://other.example"))?),
            ("about another one", with("sub", json!("somebody"))?),
            ("too long", with("more", json!("x".repeat(20_000)))?),
        ] {
            let what = format!("{kind:?}: {what}");
            trail.tells(&server, &account, &what, server.issue(request).await, WRONG).await?;
        }
        let again = signer.asks(&home, id)?;
        server.service_token(again.clone()).await?;
        if kind.is_own() {
            let what = format!("{kind:?}: used");
            trail.tells(&server, &account, &what, server.issue(again).await, WRONG).await?;
        } else {
            server.service_token(again).await?;
        }

        registrar.revoke(&account.service_account_id, &credential_id).await?;
        let revoked = server.issue(signer.asks(&home, id)?).await;
        trail.tells(&server, &account, &format!("{kind:?}: revoked"), revoked, WRONG).await?;
        credential(&registrar, &account, proof).await?;
        server.service_token(signer.asks(&home, id)?).await?;
        registrar.bar(&account).await?;
        let disabled = server.issue(signer.asks(&home, id)?).await;
        trail.tells(&server, &account, &format!("{kind:?}: disabled"), disabled, DISABLED).await?;
        trail.tells_nothing(&server).await?;
    }
    server.stop().await
}

async fn a_used_assertion_is_refused_by_each_replica_and_after_a_restart(home: Home) -> Outcome {
    let server = home.start().await?;
    let mut used = Vec::new();
    for kind in [Kind::Registered, Kind::Published] {
        let registrar = Registrar::of(&server).await?;
        let mut trail = Trail::of(&registrar);
        let signer = Signer::new(kind).await?;
        let (account, _) =
            account_with(&registrar, kind.name(), signer.credential(&registrar).await?).await?;
        let id = account.client_id.as_str();
        let once = signer.asks(&home, id)?;
        server.service_token(once.clone()).await?;
        if let Some(replica) = home.another("").await? {
            eventually("it knows the account", async || {
                Ok(replica.issue(signer.asks(&home, id)?).await.is_ok())
            })
            .await?;
            let here = signer.asks(&home, id)?;
            replica.service_token(here.clone()).await?;
            trail.news(&server).await?;
            let what = format!("{kind:?}: used elsewhere");
            trail.tells(&server, &account, &what, replica.issue(once.clone()).await, WRONG).await?;
            trail.tells(&server, &account, &what, server.issue(here).await, WRONG).await?;
            replica.stop().await?;
        }
        used.push((signer, account, once));
    }
    server.stop().await?;
    let server = home.start().await?;
    let mut trail = Trail::of(&Registrar::of(&server).await?);
    trail.news(&server).await?;
    for (signer, account, once) in used {
        let what = format!("{:?}: used before the restart", signer.kind);
        trail.tells(&server, &account, &what, server.issue(once).await, WRONG).await?;
        server.service_token(signer.asks(&home, &account.client_id)?).await?;
    }
    server.stop().await
}
