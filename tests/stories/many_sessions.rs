//! A verifier before more sessions than it remembers.

use tessera::{
    clock::Clock,
    verifier::{PublicKey, Verifier},
};

use crate::support::{Issuer, Outcome, TestClock};

#[test]
fn a_verifier_checks_more_sessions_than_it_remembers() -> Outcome {
    let issuer = Issuer::new()?;
    let verifier = Verifier::new(vec![PublicKey::from_jwk(issuer.jwk())?]);
    let (expected, now) = (Issuer::expected(), TestClock::default().now());
    let first = issuer.new_session(now)?;
    verifier.check(&first, &expected, now)?;
    for _ in 0..Verifier::REMEMBERS_AT_MOST + 1_000 {
        let token = issuer.new_session(now)?;
        verifier.check(&token, &expected, now)?;
        assert!(verifier.remembered_keys() <= Verifier::REMEMBERS_AT_MOST);
    }
    assert!(verifier.remembered_keys() > Verifier::REMEMBERS_AT_MOST / 2, "it does remember");
    verifier.check(&first, &expected, now)?;
    Ok(())
}
