//! What calls are made of, one piece at a time and without a server: criterion repeats each until its figure is sure.

use std::{error::Error, hint::black_box};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use chrono::{DateTime, TimeDelta, Utc};
use criterion::{Criterion, criterion_group, criterion_main};
use prost::Message;
use secrecy::ExposeSecret;
use tessera::{
    clock::{Clock, SystemClock},
    crypto::{
        random::SystemRandomness,
        refresh_tag::TagKey,
        signing::{NewKey, SigningKey},
    },
    domain::{
        algorithm::Algorithm,
        claims::{ACCESS_TOKEN_TYPE, Claims},
        refresh_token::RefreshToken,
        trust::Revocation,
    },
    proto::{GetJwksResponse, JsonWebKey},
    verifier::{PublicKey, TrustState, Verifier},
};
use uuid::Uuid;

#[allow(unused, reason = "the tests use the rest of it")]
#[path = "../tests/support/mod.rs"]
mod support;

use support::{Issuer, parts_of};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Revocations that a busy service has had within the life of a token.
const REVOCATIONS: u128 = 100_000;

/// A token, and who made it when.
struct Made {
    issuer: Issuer,
    token: String,
    claims: Claims,
    endorsement: String,
    now: DateTime<Utc>,
}

impl Made {
    fn new() -> Outcome<Self> {
        let (issuer, now) = (Issuer::new()?, SystemClock.now());
        let token = issuer.new_session(now)?;
        let (header, claims) = parts_of(&token)?;
        let endorsement = header["skc"].as_str().ok_or("no endorsement")?.to_owned();
        Ok(Self { issuer, claims: serde_json::from_value(claims)?, endorsement, token, now })
    }

    fn verifier(&self) -> Outcome<Verifier> {
        Ok(Verifier::new(vec![PublicKey::from_jwk(self.issuer.jwk())?]))
    }
}

fn token_check(c: &mut Criterion) -> Outcome<()> {
    let made = Made::new()?;
    let (expected, now) = (Issuer::expected(), made.now);
    let new = made.verifier()?;
    // A refusal would be quick.
    let check = |verifier: &Verifier| verifier.check(black_box(&made.token), &expected, now);
    assert!(check(&new).is_ok(), "a token is refused");
    c.bench_function("token check, session known", |b| {
        b.iter(|| check(&new));
    });
    let remembers = made.verifier()?.with_token_cache(1);
    assert!(check(&remembers).is_ok() && check(&remembers).is_ok(), "a token is refused");
    assert_eq!(remembers.remembered_token_hits(), 1, "no token is remembered");
    c.bench_function("token check, token seen before", |b| {
        b.iter(|| check(&remembers));
    });
    c.bench_function("token check, session new", |b| {
        let keys = || vec![PublicKey::from_jwk(made.issuer.jwk()).expect("it made the key")];
        b.iter_batched(
            || Verifier::new(keys()),
            |verifier| check(&verifier),
            criterion::BatchSize::LargeInput,
        );
    });
    let (message, signature) = made.token.rsplit_once('.').ok_or("no signature")?;
    let (_, endorsement) = parts_of(&made.endorsement)?;
    let key = PublicKey::from_jwk(&serde_json::from_value(endorsement["cnf"]["jwk"].clone())?)?;
    assert!(key.verifies(message.as_bytes(), signature), "a signature is wrong");
    c.bench_function("token check, its signature alone", |b| {
        b.iter(|| key.verifies(black_box(message.as_bytes()), signature));
    });
    Ok(())
}

fn sign(c: &mut Criterion) -> Outcome<()> {
    let made = Made::new()?;
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa] {
        let NewKey { key, .. } = NewKey::generate(algorithm, 2048, &SystemRandomness)?;
        assert!(sign_access_token(&key, &made).is_some(), "nothing is signed");
        c.bench_function(&format!("sign an access token, {algorithm}"), |b| {
            b.iter(|| sign_access_token(&key, &made));
        });
    }
    let NewKey { pkcs8, .. } = NewKey::generate(Algorithm::Es256, 2048, &SystemRandomness)?;
    let bare = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.expose_secret())?;
    let (rng, message) = (SystemRandom::new(), made.token.as_bytes());
    c.bench_function("sign an access token, its ES256 signature alone", |b| {
        b.iter(|| bare.sign(&rng, message))
    });
    Ok(())
}

fn sign_access_token(key: &SigningKey, made: &Made) -> Option<String> {
    key.sign_jwt(ACCESS_TOKEN_TYPE, Some(&made.endorsement), black_box(&made.claims)).ok()
}

fn refresh_tag(c: &mut Criterion) -> Outcome<()> {
    let secret = vec![7; 32].into();
    let key = TagKey::derive(&secret, &[1; 16])?;
    let (session, token) = (Uuid::from_u128(5), key.token(Uuid::from_u128(5), 7)?);
    let text = token.to_text();
    let is_genuine = |text: &str| RefreshToken::parse(text).is_ok_and(|token| key.is_genuine(&token));
    assert!(is_genuine(&text), "a refresh token is refused");
    c.bench_function("refresh token, derive a session's tag key", |b| {
        b.iter(|| TagKey::derive(&secret, black_box(&[1; 16])));
    });
    c.bench_function("refresh token, make", |b| {
        b.iter(|| key.token(black_box(session), 7).map(|token| token.to_text()));
    });
    c.bench_function("refresh token, parse and check", |b| {
        b.iter(|| is_genuine(black_box(&text)));
    });
    Ok(())
}

fn trust_look_up(c: &mut Criterion) -> Outcome<()> {
    let (made, state) = (Made::new()?, TrustState::default());
    c.bench_function("trust state, look up among none", |b| {
        b.iter(|| state.is_revoked(black_box(&made.claims)))
    });
    let (until, held_since) = (made.now + TimeDelta::hours(1), std::time::Duration::ZERO);
    for number in 0..REVOCATIONS {
        state.admit(&Revocation::Session(Uuid::from_u128(number << 64 | number)), until, held_since);
        let token = Revocation::Token { jti: Uuid::from_u128(number), owner_id: Uuid::nil() };
        state.admit(&token, until, held_since);
    }
    assert!(!state.is_revoked(&made.claims), "a session is revoked");
    c.bench_function("trust state, look up among 100,000 sessions and tokens", |b| {
        b.iter(|| state.is_revoked(black_box(&made.claims)));
    });
    Ok(())
}

fn encode(c: &mut Criterion) -> Outcome<()> {
    let made = Made::new()?;
    let jwk = serde_json::to_value(made.issuer.jwk())?;
    let text = |name: &str| jwk[name].as_str().unwrap_or_default().to_owned();
    let key = JsonWebKey {
        kid: text("kid"),
        kty: text("kty"),
        alg: text("alg"),
        r#use: text("use"),
        crv: text("crv"),
        x: text("x"),
        y: text("y"),
        ..JsonWebKey::default()
    };
    let answer = GetJwksResponse {
        keys: vec![key; 3],
        jwks_json: serde_json::json!({ "keys": [jwk, jwk, jwk] }).to_string(),
        revision: 7,
        ..GetJwksResponse::default()
    };
    c.bench_function("JWK set of three keys, encode", |b| b.iter(|| black_box(&answer).encode_to_vec()));
    c.bench_function("claims, encode as JSON", |b| b.iter(|| serde_json::to_vec(black_box(&made.claims))));
    let json = serde_json::to_vec(&made.claims)?;
    assert!(serde_json::from_slice::<Claims>(&json).is_ok(), "claims can't be read");
    c.bench_function("claims, decode from JSON", |b| {
        b.iter(|| serde_json::from_slice::<Claims>(black_box(&json)));
    });
    Ok(())
}

/// Criterion's groups can't fail, and these need keys.
fn all(c: &mut Criterion) {
    for group in [token_check, sign, refresh_tag, trust_look_up, encode] {
        group(c).expect("keys are made");
    }
}

criterion_group!(inner, all);
criterion_main!(inner);
