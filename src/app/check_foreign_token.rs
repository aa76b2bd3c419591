//! Checks tokens of trusted issuers.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{App, Caller, Error};
use crate::{
    domain::trusted_issuer::ClaimMapping,
    verifier::{ForeignIssuer, PublicKey},
};

/// A token of a trusted issuer that is good.
#[derive(Debug)]
pub struct ForeignToken {
    /// The issuer's registration.
    pub trusted_issuer_id: Uuid,
    /// Who it is about.
    pub subject: String,
    /// The claims as they are.
    pub claims: Map<String, Value>,
    /// What they say under our names.
    pub mapped: BTreeMap<String, String>,
}

/// The answer about a token.
#[derive(Debug)]
pub enum Answer {
    /// It is good.
    Active(Box<ForeignToken>),
    /// It is not; the reason is a word of the error table.
    Inactive(&'static str),
}

/// Checks a token of another issuer, for an admin who tries one out. Only what is no token at all is an error.
pub async fn check_foreign_token(app: &Arc<App>, caller: &Caller, token: &str) -> Result<Answer, Error> {
    caller.require_root()?;
    match app.believe(token).await {
        Ok(good) => Ok(Answer::Active(Box::new(good))),
        Err(refusal @ (Error::TokenInvalid(_) | Error::TokenExpired)) => {
            tracing::info!(%refusal, "a foreign token is not good");
            Ok(Answer::Inactive(refusal.reason()))
        }
        Err(error) => Err(error),
    }
}

impl App {
    /// Believes a token if a trusted issuer has signed it for one of its audiences.
    pub(super) async fn believe(self: &Arc<Self>, token: &str) -> Result<ForeignToken, Error> {
        let issuer = ForeignIssuer::claimed_by(token)?;
        let trusted = self.registry().trusted_issuer(&issuer);
        let trusted = trusted.ok_or(Error::TokenInvalid("not of an issuer that is trusted"))?;
        let leeway = self.settings.leeway;
        let check = |keys: &[PublicKey]| trusted.expected.check(token, keys, self.now(), leeway);
        let claims = self.check_foreign(&trusted.keys, check).await?;
        let mapped = trusted.record.claim_mapping.apply(&claims);
        let subject = ClaimMapping::subject(&mapped).ok_or(Error::TokenInvalid("about nobody"))?.to_owned();
        Ok(ForeignToken { trusted_issuer_id: trusted.record.id, subject, claims, mapped })
    }
}
