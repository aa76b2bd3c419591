//! Reads and writes the trusted issuers of [`super::keys`].

use std::collections::HashMap;

use crate::{
    app::{
        Error,
        check_foreign_token::Answer,
        trusted_issuers::{Changes, IssuerInfo, NewIssuer},
    },
    domain::{
        InvalidField, text,
        trusted_issuer::{self, ClaimMapping, KeySource},
    },
    proto::{
        self, create_trusted_issuer_request::Keys as NewKeys, trusted_issuer::Keys as ToldKeys,
        update_trusted_issuer_request::Keys as OtherKeys,
    },
};

use super::convert;

const AUDIENCE: &str = "audience";
const ALGORITHM: &str = "algorithm";
const CLAIM_MAPPING: &str = "claim_mapping";
const JWKS_JSON: &str = "jwks_json";
const JWKS_URL: &str = "jwks_url";

fn display_name(name: &str) -> Result<String, InvalidField> {
    text::shown("display_name", name, 128)
}

fn claim_mapping(pairs: &HashMap<String, String>) -> Result<ClaimMapping, InvalidField> {
    ClaimMapping::parse(CLAIM_MAPPING, pairs)
}

pub(super) fn new(message: &proto::CreateTrustedIssuerRequest) -> Result<NewIssuer, InvalidField> {
    let keys = match &message.keys {
        Some(NewKeys::JwksJson(json)) => KeySource::json(JWKS_JSON, json)?,
        Some(NewKeys::JwksUrl(url)) => KeySource::url(JWKS_URL, url)?,
        None => return Err(InvalidField::new(JWKS_URL, "or `jwks_json` is to be given")),
    };
    Ok(NewIssuer {
        issuer: trusted_issuer::parse_issuer("issuer", &message.issuer)?,
        display_name: display_name(&message.display_name)?,
        keys,
        audiences: trusted_issuer::parse_audiences(AUDIENCE, &message.audience)?,
        algorithms: trusted_issuer::parse_algorithms(ALGORITHM, &message.algorithm)?,
        claim_mapping: claim_mapping(&message.claim_mapping)?,
    })
}

pub(super) fn changes(message: &proto::UpdateTrustedIssuerRequest) -> Result<Changes, InvalidField> {
    let keys = message.keys.as_ref().map(|keys| match keys {
        OtherKeys::JwksJson(json) => KeySource::json(JWKS_JSON, json),
        OtherKeys::JwksUrl(url) => KeySource::url(JWKS_URL, url),
    });
    let audiences = message.audiences.as_ref();
    let algorithms = message.algorithms.as_ref();
    let mapping = message.claim_mapping.as_ref();
    Ok(Changes {
        display_name: message.display_name.as_deref().map(display_name).transpose()?,
        keys: keys.transpose()?,
        audiences: audiences
            .map(|all| trusted_issuer::parse_audiences(AUDIENCE, &all.audience))
            .transpose()?,
        algorithms: algorithms
            .map(|all| trusted_issuer::parse_algorithms(ALGORITHM, &all.algorithm))
            .transpose()?,
        claim_mapping: mapping.map(|mapping| claim_mapping(&mapping.claims)).transpose()?,
    })
}

pub(super) fn told(info: IssuerInfo) -> proto::TrustedIssuer {
    let IssuerInfo { issuer, fetch } = info;
    proto::TrustedIssuer {
        trusted_issuer_id: issuer.id.to_string(),
        issuer: issuer.issuer,
        display_name: issuer.display_name,
        keys: Some(match issuer.keys {
            KeySource::Json(json) => ToldKeys::JwksJson(json),
            KeySource::Url(url) => ToldKeys::JwksUrl(url),
        }),
        audience: issuer.audiences,
        algorithm: issuer.algorithms.iter().map(|algorithm| algorithm.as_str().to_owned()).collect(),
        claim_mapping: issuer.claim_mapping.pairs().clone().into_iter().collect(),
        fetch_time: fetch.fetch_time.and_then(convert::timestamp),
        fetch_error: fetch.error.unwrap_or_default(),
        create_time: convert::timestamp(issuer.create_time),
        update_time: convert::timestamp(issuer.update_time),
    }
}

/// As a list shows it: without a text that may be long.
pub(super) fn told_in_list(info: IssuerInfo) -> proto::TrustedIssuer {
    let mut told = told(info);
    told.keys = told.keys.filter(|keys| matches!(keys, ToldKeys::JwksUrl(_)));
    told
}

pub(super) fn answer(answer: Answer) -> Result<proto::CheckForeignTokenResponse, Error> {
    Ok(match answer {
        Answer::Active(token) => proto::CheckForeignTokenResponse {
            active: true,
            trusted_issuer_id: token.trusted_issuer_id.to_string(),
            subject: token.subject,
            claims_json: serde_json::to_string(&token.claims)
                .map_err(|error| Error::Internal(error.to_string()))?,
            mapped: token.mapped.into_iter().collect(),
            ..Default::default()
        },
        Answer::Inactive(reason) => {
            proto::CheckForeignTokenResponse { reason: reason.to_owned(), ..Default::default() }
        }
    })
}
