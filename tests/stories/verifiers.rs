//! Verifiers that others wrote agree on what a good token is: PyJWT, jose and Envoy, and the `verifier` beside them. What
//! they must refuse is signed with the server's own keys wherever the fault lies elsewhere.
//! Against the binary, since they look at the real clock.

use std::{
    collections::BTreeMap,
    error::Error,
    net::{SocketAddr, TcpListener},
    process::Stdio,
};

use chrono::TimeDelta;
use futures_util::future::try_join;
use serde_json::{Value, json};
use tessera::{
    clock::{Clock, SystemClock},
    domain::algorithm::Algorithm,
    verifier::{Expected, Verifier},
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::support::{
    Envoy, Forge, Home, Key, Kind, Outcome, PASSWORD, Provider, Server, client, login_as, parts_of, run,
    run_client, sign_hs256, story, unsigned,
};

story!(with_the_default_settings, sqlite: BinarySqlite);
story!(a_kept_jwks_checks_one_token_after_another, sqlite: BinarySqlite);
story!(encrypted_tokens_are_opened_and_checked, sqlite: BinarySqlite);

/// The matrix for each algorithm, once signed by sessions' keys and once by the issuer's.
macro_rules! matrix {
    ($($name:ident: $algorithm:ident),*) => {
        mod every_algorithm {
            use super::*;
            $(
                mod $name {
                    use super::*;

                    #[tokio::test(flavor = "multi_thread")]
                    async fn by_session_keys() -> Outcome {
                        all_agree(Algorithm::$algorithm, SignedBy::Session).await
                    }

                    #[tokio::test(flavor = "multi_thread")]
                    async fn by_issuer_keys() -> Outcome {
                        all_agree(Algorithm::$algorithm, SignedBy::Issuer).await
                    }
                }
            )*
        }
    };
}
matrix! { es256: Es256, es384: Es384, eddsa: EdDsa, rs256: Rs256, ps256: Ps256 }

async fn all_agree(algorithm: Algorithm, signed_by: SignedBy) -> Outcome {
    let user_tokens = if signed_by == SignedBy::Issuer { "issuer" } else { "session" };
    let settings = format!(
        "[signing]\nalgorithm = \"{algorithm}\"\nuser_tokens = \"{user_tokens}\"\nrsa_pool = 12\n\
         [sessions]\nper_device_type = 5\n"
    );
    let home = Home::new(Kind::BinarySqlite).await?;
    verifiers_agree(home, &settings, algorithm, signed_by).await
}

/// The service's own name by default.
const ISSUER: &str = "http://127.0.0.1:50051";
/// The service that the tokens are for.
const AUDIENCE: &str = "orders";
const JWKS_PATH: &str = "/.well-known/jwks.json";

/// Whose keys sign users' tokens: the setting `signing.user_tokens`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SignedBy {
    Session,
    Issuer,
}

/// Tokens by what is special in them.
type Tokens = BTreeMap<&'static str, String>;

/// What is put before the verifiers.
struct Case {
    good: Tokens,
    /// What every verifier refuses.
    bad: Tokens,
    /// What only those notice that read more than the signature, the issuer, the audience and the times: Envoy looks at
    /// neither the type nor the endorsement.
    bad_to_the_careful: Tokens,
    /// Good to whoever knows of endorsements.
    good_by_endorsement: Tokens,
}

async fn with_the_default_settings(home: Home) -> Outcome {
    verifiers_agree(home, "", Algorithm::Es256, SignedBy::Session).await
}

/// The matrix for a server with these settings, whose users' tokens are signed in this way.
async fn verifiers_agree(home: Home, settings: &str, algorithm: Algorithm, signed_by: SignedBy) -> Outcome {
    let server = home.start_with(settings).await?;
    if settings.contains("rsa_pool") && algorithm.is_rsa() && signed_by == SignedBy::Session {
        server.has_spare_keys(8).await?;
    }
    server.anna().await?;
    let token = token_for_orders(&server).await?;
    let (header, _) = parts_of(&token)?;
    let kid = header["kid"].as_str().ok_or("no kid")?;
    assert_eq!(header["alg"], algorithm.as_str());

    let forge = Forge::of(&home)?;
    let (signer, issuer, jwks_path) = match signed_by {
        SignedBy::Session => {
            let issuer = forge.issuer_key(&endorsed_by(&header)?).await?;
            (forge.session_key(kid).await?, issuer, format!("{JWKS_PATH}?kid={kid}"))
        }
        SignedBy::Issuer => {
            assert_eq!(header["skc"], Value::Null, "the issuer's own key needs no endorsement");
            (forge.issuer_key(kid).await?, forge.issuer_key(kid).await?, JWKS_PATH.to_owned())
        }
    };
    // Where an attacker's header points; whoever follows is noticed.
    let lure = TcpListener::bind("127.0.0.1:0")?;
    lure.set_nonblocking(true)?;
    let case = forge_case(&token, &signer, &issuer, &format!("http://{}", lure.local_addr()?))?;

    let mut algorithms = vec![algorithm.as_str(), issuer.algorithm().as_str()];
    algorithms.dedup();
    check_with_libraries(&home, server.address, &algorithms, &case).await?;
    let page = server.get(JWKS_PATH).await?;
    check_with_the_verifier(page.split_once("\r\n\r\n").ok_or("no body")?.1, &case)?;
    check_with_envoy(server.address, &jwks_path, &case).await?;
    let followed = lure.accept().map_err(|error| error.kind());
    assert_eq!(
        followed.err(),
        Some(std::io::ErrorKind::WouldBlock),
        "a key was looked for where a token said"
    );
    server.stop().await
}

/// A token of anna's for `orders`.
async fn token_for_orders(server: &Server) -> Result<String, Box<dyn Error>> {
    let mut login = login_as("anna", PASSWORD, "web");
    login.audience = vec![AUDIENCE.to_owned()];
    let reply = server.auth().login(login).await?.into_inner();
    Ok(reply.tokens.ok_or("no tokens")?.access_token)
}

/// The issuer's key that vouches for the key of a session's token.
fn endorsed_by(header: &Value) -> Result<String, Box<dyn Error>> {
    let (endorsement, _) = parts_of(header["skc"].as_str().ok_or("no endorsement")?)?;
    Ok(endorsement["kid"].as_str().ok_or("no kid")?.to_owned())
}

/// An object with some members set anew; those that are set to null are taken away.
fn with(object: &Value, changes: &Value) -> Value {
    let mut changed = object.clone();
    let members = changed.as_object_mut().expect("an object");
    members.extend(changes.as_object().expect("an object").clone());
    members.retain(|_, value| !value.is_null());
    changed
}

/// Everything that differs from a good token in one thing.
fn forge_case(token: &str, signer: &Key, issuer: &Key, lure: &str) -> Result<Case, Box<dyn Error>> {
    let (header, claims) = &parts_of(token)?;
    let now = SystemClock.now().timestamp();
    let hour = 3600;
    let jwk = serde_json::to_string(signer.jwk())?;
    let pem = signer.public_pem()?;
    let attacker = Key::generate(signer.algorithm())?;
    let attackers_issuer = Key::generate(issuer.algorithm())?;
    // Of sessions that are not anna's, or would be if the issuer had made them.
    let (own, other) = (Key::generate(signer.algorithm())?, Key::generate(signer.algorithm())?);
    let stranger =
        json!({"sub": "01a20d79-63ed-7fb8-8b6a-852fb2dade37", "sid": "01a20d79-644b-7ad0-acdb-7bc3f89d3e33"});

    let signed = |changed_header: Value, changed_claims: Value| {
        signer.sign(&with(header, &changed_header), &with(claims, &changed_claims))
    };
    let by_attacker = |changes: Value| attacker.sign(&with(header, &changes), claims);
    let endorse = |by: &Key, key: &Key, header_changes: Value, changes: Value| {
        let header = json!({"typ": "session-key+jwt", "alg": by.algorithm(), "kid": by.kid()});
        let endorsement = json!({
            "iss": claims["iss"], "sub": claims["sub"], "sid": claims["sid"], "exp": now + hour,
            "cnf": {"jwk": key.jwk()},
        });
        by.sign(&with(&header, &header_changes), &with(&endorsement, &changes))
    };
    let endorsed = |key: &Key, endorsement: String| {
        key.sign(&with(header, &json!({"kid": key.kid(), "skc": endorsement})), claims)
    };
    let none = || json!({});

    let good = Tokens::from([
        ("as it was issued", token.to_owned()),
        // What all the forgeries below begin with.
        ("signed by the test", signed(none(), none())?),
        ("for two audiences", signed(none(), json!({"aud": ["billing", AUDIENCE]}))?),
    ]);
    let good_by_endorsement = Tokens::from([(
        "a new key that the issuer endorses",
        endorsed(&own, endorse(issuer, &own, none(), none())?)?,
    )]);

    let [head, payload, signature]: [&str; 3] =
        token.split('.').collect::<Vec<_>>().try_into().map_err(|_| "not three parts")?;
    let flip = |part: &str| {
        let other = if part.as_bytes()[20] == b'A' { "B" } else { "A" };
        format!("{}{other}{}", &part[..20], &part[21..])
    };
    let greedy = unsigned(header, &with(claims, &json!({"roles": ["admin"]})));
    let greedy = greedy.split('.').nth(1).ok_or("no claims")?;
    let hs256 = |secret: &str, changes: Value| {
        sign_hs256(secret.as_bytes(), &with(&with(header, &json!({"alg": "HS256"})), &changes), claims)
    };
    let own_endorsement = match header["skc"].as_str() {
        Some(endorsement) => endorsement.to_owned(),
        None => endorse(issuer, &own, none(), none())?,
    };

    let mut bad = Tokens::from([
        (
            "expired",
            signed(none(), json!({"iat": now - 2 * hour, "nbf": now - 2 * hour, "exp": now - hour}))?,
        ),
        ("not yet valid", signed(none(), json!({"nbf": now + hour, "exp": now + 2 * hour}))?),
        ("another audience", signed(none(), json!({"aud": ["billing"]}))?),
        ("no audience", signed(none(), json!({"aud": null}))?),
        ("another issuer", signed(none(), json!({"iss": "http://127.0.0.1:50052"}))?),
        ("no issuer", signed(none(), json!({"iss": null}))?),
        ("changed claims", format!("{head}.{greedy}.{signature}")),
        ("changed signature", format!("{head}.{payload}.{}", flip(signature))),
        ("no signature", format!("{head}.{payload}.")),
        ("no token", "orders".to_owned()),
        ("unknown kid", signed(json!({"kid": other.kid()}), none())?),
        ("alg none", unsigned(&with(header, &json!({"alg": "none"})), claims)),
        ("alg none with a signature", {
            format!("{}{signature}", unsigned(&with(header, &json!({"alg": "none"})), claims))
        }),
        ("HS256 under the public JWK", hs256(&jwk, none())?),
        ("HS256 under the public PEM", hs256(&pem, none())?),
        ("HS256 under the public PEM, without a kid", hs256(&pem, json!({"kid": null}))?),
        ("an attacker's key under the real kid", by_attacker(none())?),
        ("an attacker's key without a kid", by_attacker(json!({"kid": null}))?),
        ("an attacker's key under its own kid", by_attacker(json!({"kid": attacker.kid()}))?),
        ("an attacker's key as jwk", by_attacker(json!({"jwk": attacker.jwk()}))?),
        ("an attacker's key as jwk under its own kid", {
            by_attacker(json!({"jwk": attacker.jwk(), "kid": attacker.kid(), "skc": null}))?
        }),
        ("an attacker's key behind jku", by_attacker(json!({"jku": format!("{lure}/jwks.json")}))?),
        ("an attacker's key behind jku under its own kid", {
            by_attacker(json!({"jku": format!("{lure}/jwks.json"), "kid": attacker.kid(), "skc": null}))?
        }),
        ("an attacker's key behind x5u", by_attacker(json!({"x5u": format!("{lure}/key.pem")}))?),
        ("another session's key and endorsement", {
            endorsed(&other, endorse(issuer, &other, none(), stranger.clone())?)?
        }),
        ("another session's key of the same user", {
            endorsed(&other, endorse(issuer, &other, none(), json!({"sid": stranger["sid"]}))?)?
        }),
        ("another session's endorsement", endorsed(&own, endorse(issuer, &other, none(), none())?)?),
        ("an attacker's endorsement", {
            endorsed(&attacker, endorse(&attackers_issuer, &attacker, none(), none())?)?
        }),
        ("an attacker's endorsement under the issuer's kid", {
            let kid = json!({"kid": issuer.kid()});
            endorsed(&attacker, endorse(&attackers_issuer, &attacker, kid, none())?)?
        }),
        ("an attacker's endorsement with its key as jwk", {
            let jwk = json!({"jwk": attackers_issuer.jwk()});
            endorsed(&attacker, endorse(&attackers_issuer, &attacker, jwk, none())?)?
        }),
        ("a session's key endorses another", {
            endorsed(&attacker, endorse(&own, &attacker, none(), none())?)?
        }),
        ("another issuer's endorsement", {
            endorsed(&own, endorse(issuer, &own, none(), json!({"iss": "http://127.0.0.1:50052"}))?)?
        }),
        (
            "an expired endorsement",
            endorsed(&own, endorse(issuer, &own, none(), json!({"exp": now - hour}))?)?,
        ),
        ("an endorsement without an end", {
            endorsed(&own, endorse(issuer, &own, none(), json!({"exp": null}))?)?
        }),
        ("an endorsement without a kid", {
            endorsed(&own, endorse(issuer, &own, json!({"kid": null}), none())?)?
        }),
        ("an access token as the endorsement", {
            endorsed(&own, endorse(issuer, &own, json!({"typ": "at+jwt"}), none())?)?
        }),
        ("an unsigned endorsement", {
            let header = json!({"typ": "session-key+jwt", "alg": "none", "kid": issuer.kid()});
            let (_, claims) = parts_of(&endorse(issuer, &attacker, none(), none())?)?;
            endorsed(&attacker, unsigned(&header, &claims))?
        }),
        ("an endorsement as the token", own_endorsement),
    ]);
    // An RSA key could sign in two ways, and does in one.
    let other_way = match signer.algorithm() {
        Algorithm::Rs256 => Some(Algorithm::Ps256),
        Algorithm::Ps256 => Some(Algorithm::Rs256),
        _ => None,
    };
    if let Some(other_way) = other_way {
        let token =
            signer.signing_with(other_way)?.sign(&with(header, &json!({"alg": other_way})), claims)?;
        bad.insert("another algorithm than the key's", token);
    }
    let bad_to_the_careful = Tokens::from([
        ("another type", signed(json!({"typ": "JWT"}), none())?),
        ("no type", signed(json!({"typ": null}), none())?),
        ("no end", signed(none(), json!({"exp": null}))?),
        ("no kid", signed(json!({"kid": null}), none())?),
    ]);
    Ok(Case { good, bad, bad_to_the_careful, good_by_endorsement })
}

/// PyJWT and jose, which walk the endorsement.
async fn check_with_libraries(home: &Home, issuer: SocketAddr, algorithms: &[&str], case: &Case) -> Outcome {
    let both = |one: &Tokens, other: &Tokens| -> Tokens {
        one.iter().chain(other).map(|(name, token)| (*name, token.clone())).collect()
    };
    let (good, bad) =
        (both(&case.good, &case.good_by_endorsement), both(&case.bad, &case.bad_to_the_careful));
    let file = home.dir().join("tokens.json");
    let given = json!({
        "issuer": ISSUER, "audience": AUDIENCE, "algorithms": algorithms,
        "jwks_url": format!("http://{issuer}{JWKS_PATH}"), "good": good, "bad": bad,
    });
    std::fs::write(&file, given.to_string())?;
    for script in ["check_tokens.py", "check_tokens.mjs"] {
        let said = run_client(client(script).arg(&file)).await?;
        assert_eq!(said.lines().count(), bad.len(), "{script} tells of every refusal:\n{said}");
    }
    Ok(())
}

/// This project's own. A new one for each token, so that none is judged by what an earlier one has taught.
fn check_with_the_verifier(jwks_json: &str, case: &Case) -> Outcome {
    let (issuer, audience) = (ISSUER.to_owned(), Some(AUDIENCE.to_owned()));
    let expected = Expected { issuer, audience, leeway: TimeDelta::seconds(30) };
    let check = |token: &str| -> Result<_, Box<dyn Error>> {
        Ok(Verifier::from_jwks(jwks_json)?.check(token, &expected, SystemClock.now()).err())
    };
    for (name, token) in case.good.iter().chain(&case.good_by_endorsement) {
        assert_eq!(check(token)?, None, "{name}: {token}");
    }
    for (name, token) in case.bad.iter().chain(&case.bad_to_the_careful) {
        assert!(check(token)?.is_some(), "accepted, though bad: {name}: {token}");
    }
    Ok(())
}

/// Envoy, which knows of no endorsement.
async fn check_with_envoy(jwks_address: SocketAddr, jwks_path: &str, case: &Case) -> Outcome {
    let provider = Provider {
        name: AUDIENCE,
        issuer: ISSUER,
        audience: AUDIENCE,
        jwks_address,
        jwks_path,
        keep_seconds: 300,
    };
    let envoy = Envoy::start(&[provider]).await?;
    for (name, token) in &case.good {
        let answer = envoy.get(AUDIENCE, token).await?;
        assert_eq!(answer.status, 200, "{name}: {}\n{}", answer.body, envoy.said());
    }
    for (name, token) in case.bad.iter().chain(&case.good_by_endorsement) {
        let answer = envoy.get(AUDIENCE, token).await?;
        assert!(matches!(answer.status, 401 | 403), "{name}: {answer:?}");
    }
    Ok(())
}

/// Starts a client that answers line by line, tells it two good tokens and a bad one, and ends its input.
async fn a_kept_jwks_checks_one_token_after_another(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let (header, claims) = parts_of(&token_for_orders(&server).await?)?;
    let issuer = Forge::of(&home)?.issuer_key(&endorsed_by(&header)?).await?;
    // As the service will sign tokens with the issuer's key.
    let header = with(&header, &json!({"kid": issuer.kid(), "skc": null}));
    let good = issuer.sign(&header, &claims)?;
    let bad = issuer.sign(&header, &with(&claims, &json!({"aud": ["billing"]})))?;
    let jwks_url = format!("http://{}{JWKS_PATH}", server.address);

    for script in ["keep_checking.py", "keep_checking.mjs"] {
        for (tokens, end, code) in [
            (&[&good, &good][..], "2 checked, 0 refused, 1 keys seen", 0),
            (&[&good, &bad, &good][..], "3 checked, 1 refused, 1 keys seen", 1),
        ] {
            let algorithm = issuer.algorithm().as_str();
            let mut process = client(script)
                .args([&jwks_url, ISSUER, AUDIENCE, algorithm, "60", "60"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let mut input = process.stdin.take().ok_or("its input is piped")?;
            let mut answers = BufReader::new(process.stdout.take().ok_or("its output is piped")?).lines();
            for token in tokens {
                input.write_all(format!("{token}\n").as_bytes()).await?;
                let answer = answers.next_line().await?.ok_or("no answer")?;
                if *token == &good {
                    assert_eq!(answer, format!("ok {}", issuer.kid()), "{script}");
                } else {
                    assert!(answer.starts_with("refused "), "{script}: {answer}");
                }
            }
            drop(input);
            assert_eq!(answers.next_line().await?.as_deref(), Some(end), "{script}");
            assert_eq!(process.wait().await?.code(), Some(code), "{script}");
        }
    }
    server.stop().await
}

/// What is encrypted for a service, it alone reads. Encrypted by the test, as long as no server does.
async fn encrypted_tokens_are_opened_and_checked(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let token = token_for_orders(&server).await?;
    let (_, claims) = parts_of(&token)?;
    let folder = home.dir().join("encrypted");
    std::fs::create_dir(&folder)?;
    run_client(client("encrypted_tokens.py").arg(&folder).arg(&token)).await?;

    let jwks_url = format!("http://{}{JWKS_PATH}", server.address);
    let decrypt = async |script: &str, algorithm: &str, name: &str| {
        let mut decrypt = client(script);
        decrypt.arg(folder.join(format!("{algorithm}.jwk"))).arg(folder.join(name));
        decrypt.args([&jwks_url, ISSUER, AUDIENCE]);
        run(decrypt).await
    };
    let mut tried = 0;
    for entry in std::fs::read_dir(&folder)? {
        let name = entry?.file_name().into_string().map_err(|_| "not UTF-8")?;
        let (algorithm, kind) = name.split_once('.').ok_or("no kind")?;
        if kind == "jwk" {
            continue;
        }
        let python = decrypt("decrypt.py", algorithm, &name);
        let (python, node) = try_join(python, decrypt("decrypt.mjs", algorithm, &name)).await?;
        for ended in [python, node] {
            if kind.starts_with("good") {
                assert_eq!(ended.code, Some(0), "{name}: {}", ended.stderr);
                assert_eq!(serde_json::from_str::<Value>(&ended.stdout)?, claims, "{name}");
            } else {
                assert!(ended.stderr.starts_with("refused: "), "{name}: {}", ended.stderr);
                assert_eq!(ended.code, Some(1), "{name}");
            }
        }
        tried += 1;
    }
    assert_eq!(tried, 14, "every file");
    server.stop().await
}
