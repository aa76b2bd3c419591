//! Values as operators write them.

use serde::{Deserialize, Deserializer};

/// Durations: `15m`, `14d`, and a bare `0`.
pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Number(i64),
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        match Written::deserialize(deserializer) {
            Ok(Written::Number(0)) => Ok(Duration::ZERO),
            Ok(Written::Text(text)) => humantime::parse_duration(&text).map_err(D::Error::custom),
            _ => Err(D::Error::custom("is not a duration as 15m or 14d")),
        }
    }

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }
}

/// A list: `["a", "b"]`, or `a,b` as it is easily written in the environment.
pub(super) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "is neither a list nor a text with commas")]
    enum Written {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::List(list) => list,
        Written::Text(text) => text.split(',').map(|item| item.trim().to_owned()).collect(),
    })
}
