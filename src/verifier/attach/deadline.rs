//! How long a call may take, as its client says in the header `grpc-timeout`.

use std::time::Duration;

use http::HeaderMap;

/// How long the call with these headers may take, where they say so in the contract's form: up to eight digits and a
/// unit.
pub(super) fn of(headers: &HeaderMap) -> Option<Duration> {
    let told = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = told.split_at_checked(told.len().checked_sub(1)?)?;
    if number.len() > 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn it_is_read_in_each_unit() {
        let read = |told: &'static str| {
            of(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), HeaderValue::from_static(told))]))
        };
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(read("10000000u"), Some(Duration::from_secs(10)));
        assert_eq!([read("5m"), read("6n")], [Duration::from_millis(5), Duration::from_nanos(6)].map(Some));
        for other in ["", "S", "5", "5s", "-5S", "123456789S", "5 S"] {
            assert_eq!(read(other), None, "{other}");
        }
        assert_eq!(of(&HeaderMap::new()), None);
    }
}
