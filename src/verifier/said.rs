//! What a token says of itself before anything of it is checked: where to look, never what to believe.

use serde::Deserialize;
use uuid::Uuid;

use super::{Verifier, claims::claims, header::Parts};
use crate::domain::claims::one_or_many;

impl Verifier {
    /// The one audience that a token says to be for, where it names one.
    pub fn audience_of(token: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct Said {
            #[serde(deserialize_with = "one_or_many")]
            aud: Vec<String>,
        }
        let Said { aud } = claims(&Parts::split(token).ok()?).ok()?;
        <[String; 1]>::try_from(aud).ok().map(|[only]| only)
    }

    /// The id that a token says to have.
    pub fn id_of(token: &str) -> Option<Uuid> {
        #[derive(Deserialize)]
        struct Said {
            jti: Uuid,
        }
        let Said { jti } = claims(&Parts::split(token).ok()?).ok()?;
        Some(jti)
    }
}
