//! What is shown: tokens and refusals, with names in the place of ids, so that it reads the same each time.

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tonic::Status;
use tonic_types::StatusExt;

use crate::Outcome;

/// Who has which id.
pub type Names = HashMap<String, &'static str>;

/// Of a token's header and claims, what tells who calls whom for whom.
#[derive(Serialize, Deserialize)]
struct Header {
    typ: String,
    alg: String,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    aud: Vec<String>,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Actor>,
}

#[derive(Serialize, Deserialize)]
struct Actor {
    sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Box<Actor>>,
}

impl Actor {
    fn name(&mut self, names: &Names) {
        self.sub = name(&self.sub, names);
        if let Some(act) = &mut self.act {
            act.name(names);
        }
    }
}

fn name(id: &str, names: &Names) -> String {
    names.get(id).map_or_else(|| "somebody unknown".to_owned(), |name| (*name).to_owned())
}

/// Shows what a service was called with. Nobody needs the signature for that.
pub fn token(service: &str, token: &str, names: &Names) -> Outcome {
    let mut parts = token.split('.');
    let header: Header = decoded(parts.next())?;
    let mut claims: Claims = decoded(parts.next())?;
    claims.sub = name(&claims.sub, names);
    if let Some(act) = &mut claims.act {
        act.name(names);
    }
    println!("  {service} is called with");
    println!("    {}.\n    {}", serde_json::to_string(&header)?, serde_json::to_string(&claims)?);
    Ok(())
}

fn decoded<T: DeserializeOwned>(part: Option<&str>) -> Outcome<T> {
    let json = URL_SAFE_NO_PAD.decode(part.ok_or("not a token")?)?;
    Ok(serde_json::from_slice(&json)?)
}

/// Shows that a call was refused, with this reason and no other: all else is a surprise.
pub fn refusal<T>(who: &str, answer: Result<T, Status>, reason: &str) -> Outcome {
    let Err(status) = answer else { return Err(format!("{who} let it in").into()) };
    let details = status.get_error_details();
    let told = details.error_info().map_or("no reason", |info| info.reason.as_str());
    if told != reason {
        return Err(format!("{who} refuses with {told}: {status}").into());
    }
    println!("  {who} refuses: {:?}, {reason}", status.code());
    Ok(())
}
