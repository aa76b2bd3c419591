//! Tokens whose holder must show more than the token (RFC 7800).

use super::Refusal;
use crate::domain::claims::{Claims, Confirmation};

/// What a caller has shown beside its token, and is known to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// The thumbprint (RFC 7638) of a key, by a proof that was made for this token and this call (RFC 9449). A token that is
    /// bound to no key is refused beside one.
    pub key: Option<String>,
    /// The SHA-256 of its certificate's DER, in base64url (RFC 8705 section 3.1).
    pub certificate: Option<String>,
}

impl Shown {
    /// Refuses a token that is bound to what was not shown, and one that is bound to no key where one was.
    pub(crate) fn require(&self, claims: &Claims) -> Result<(), Refusal> {
        let is_met = match &claims.cnf {
            Some(cnf) => self.has(cnf) && (self.key.is_none() || cnf.jkt.is_some()),
            None => self.key.is_none(),
        };
        if is_met { Ok(()) } else { Err(Refusal::NotHolder) }
    }

    /// Nobody has what a confirmation asks for of which nothing is understood here.
    fn has(&self, cnf: &Confirmation) -> bool {
        let has = |asked: &Option<String>, shown: &Option<String>| asked.is_none() || asked == shown;
        *cnf != Confirmation::default() && has(&cnf.jkt, &self.key) && has(&cnf.x5t_s256, &self.certificate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_asked_for_must_be_shown() {
        let some = |text: &str| Some(text.to_owned());
        let both = Confirmation { jkt: some("k"), x5t_s256: some("c") };
        let key = Confirmation { x5t_s256: None, ..both.clone() };
        let shown = |key: Option<&str>, certificate: Option<&str>| Shown {
            key: key.map(str::to_owned),
            certificate: certificate.map(str::to_owned),
        };
        assert!(shown(Some("k"), Some("c")).has(&both) && shown(Some("k"), None).has(&key));
        assert!(!shown(Some("k"), None).has(&both) && !shown(None, Some("c")).has(&both));
        assert!(!shown(Some("c"), Some("k")).has(&both) && !shown(None, Some("k")).has(&key));
        assert!(!shown(Some("k"), Some("c")).has(&Confirmation::default()));
    }
}
