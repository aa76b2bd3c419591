//! The rules for short texts that callers give: names, addresses, scopes, audiences.

use unicode_normalization::UnicodeNormalization;

use super::InvalidField;

/// The one form of a text that people type: Unicode's compatibility form (NFKC), so that the same name or
/// password typed on another keyboard is the same (NIST SP 800-63B-4 section 3.1.1.2).
pub fn one_form(text: &str) -> String {
    text.nfkc().collect()
}

/// Whether it can be an issuer: an http or https URL without a query or a fragment (RFC 8414 section 2).
pub fn is_issuer(text: &str) -> bool {
    let url = text.parse::<http::Uri>().ok();
    url.is_some_and(|url| {
        matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some() && url.query().is_none()
    }) && !text.contains('#')
}

/// A text for people: at most `max` characters, no control characters, may be empty.
pub fn shown(field: &'static str, text: &str, max: usize) -> Result<String, InvalidField> {
    if text.chars().count() > max {
        return Err(InvalidField::new(field, format!("longer than {max} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidField::new(field, "has a control character"));
    }
    Ok(text.to_owned())
}

/// An e-mail address as far as it can be told without sending to it: something, one `@`, something.
pub fn email(field: &'static str, text: &str) -> Result<Option<String>, InvalidField> {
    if text.is_empty() {
        return Ok(None);
    }
    let text = shown(field, text, 254)?;
    let parts = text.split_once('@').filter(|(local, domain)| {
        !local.is_empty()
            && !domain.is_empty()
            && !domain.contains('@')
            && !text.contains(char::is_whitespace)
    });
    match parts {
        Some(_) => Ok(Some(text)),
        None => Err(InvalidField::new(field, "is not an e-mail address")),
    }
}

/// Scopes that stand in a token, without repetition, joined by spaces.
pub fn scope(field: &'static str, scopes: &[String]) -> Result<String, InvalidField> {
    let scopes = self::scopes(field, scopes)?;
    not_too_long(field, &scopes)?;
    Ok(scopes.join(" "))
}

/// Scopes as RFC 6749 section 3.3 writes them, without repetition.
pub fn scopes(field: &'static str, scopes: &[String]) -> Result<Vec<String>, InvalidField> {
    let is_scope_char =
        |byte: u8| byte == 0x21 || (0x23..=0x5b).contains(&byte) || (0x5d..=0x7e).contains(&byte);
    distinct(field, scopes, 64, 128, |scope| scope.bytes().all(is_scope_char))
}

/// Audiences that stand in a token, without repetition.
pub fn audience(field: &'static str, audiences: &[String]) -> Result<Vec<String>, InvalidField> {
    let audiences = visible(field, audiences, 16)?;
    not_too_long(field, &audiences)?;
    Ok(audiences)
}

/// Audiences that may be asked for, without repetition.
pub fn audiences(field: &'static str, audiences: &[String]) -> Result<Vec<String>, InvalidField> {
    visible(field, audiences, 64)
}

/// Each a visible ASCII string.
fn visible(field: &'static str, items: &[String], most: usize) -> Result<Vec<String>, InvalidField> {
    distinct(field, items, most, 256, |item| item.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// Role names without repetition.
pub fn roles(field: &'static str, roles: &[String]) -> Result<Vec<String>, InvalidField> {
    let is_role_char =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.:".contains(&byte);
    distinct(field, roles, 32, 64, |role| role.bytes().all(is_role_char))
}

/// They stand in a token, which stands in a header; those are often limited to 8 KiB in all.
fn not_too_long(field: &'static str, items: &[String]) -> Result<(), InvalidField> {
    const MOST: usize = 1024;
    if items.iter().map(String::len).sum::<usize>() > MOST {
        return Err(InvalidField::new(field, format!("is longer than {MOST} characters in all")));
    }
    Ok(())
}

fn distinct(
    field: &'static str,
    items: &[String],
    most: usize,
    longest: usize,
    is_allowed: impl Fn(&str) -> bool,
) -> Result<Vec<String>, InvalidField> {
    if items.len() > most {
        return Err(InvalidField::new(field, format!("more than {most} items")));
    }
    let mut seen: Vec<String> = Vec::with_capacity(items.len());
    for item in items {
        if item.is_empty() || item.len() > longest || !is_allowed(item) {
            return Err(InvalidField::new(
                field,
                format!(
                    "an item is empty, longer than {longest} characters or has a character that is not allowed"
                ),
            ));
        }
        if !seen.contains(item) {
            seen.push(item.clone());
        }
    }
    Ok(seen)
}
