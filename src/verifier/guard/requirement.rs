//! What each path requires.

use std::collections::HashMap;

use uuid::Uuid;

#[cfg(doc)]
use crate::verifier::ClientCertificate;
use crate::{
    domain::claims::Claims,
    verifier::{Denial, Refusal},
};

/// What a token must carry beside being good.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Requirement {
    scopes: Vec<String>,
    roles: Vec<String>,
    /// Of each of these sets one.
    any_role: Vec<Vec<String>>,
    /// The same of clients.
    any_client: Vec<Vec<String>>,
    /// Of each of these.
    tenants: Vec<Uuid>,
    is_bound_to_certificate: bool,
    is_nobody: bool,
    is_bound_to_key: bool,
}

impl Requirement {
    /// Nothing beside.
    pub fn good_token() -> Self {
        Self::default()
    }

    /// What no token has.
    pub fn nobody() -> Self {
        Self { is_nobody: true, ..Self::default() }
    }

    /// Every one of these scopes.
    pub fn scopes<I: IntoIterator<Item: Into<String>>>(scopes: I) -> Self {
        Self { scopes: scopes.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// And every one of these roles.
    pub fn roles<I: IntoIterator<Item: Into<String>>>(mut self, roles: I) -> Self {
        self.roles.extend(roles.into_iter().map(Into::into));
        self
    }

    /// And at least one of these roles, of none nobody has one. Said twice, one of these and one of those.
    pub fn any_role<I: IntoIterator<Item: Into<String>>>(mut self, roles: I) -> Self {
        self.any_role.push(roles.into_iter().map(Into::into).collect());
        self
    }

    /// And a token that was issued to one of these clients, each by the `client_id` of its service account: then one of
    /// them calls, in its own name or acting for somebody, and nobody past it. People's own tokens are issued to none.
    pub fn any_client<I: IntoIterator<Item: Into<String>>>(mut self, clients: I) -> Self {
        self.any_client.push(clients.into_iter().map(Into::into).collect());
        self
    }

    /// And that whom it is about is of this tenant. Without it those of every tenant are let in: its admins say by themselves what
    /// its people and its services may ask for.
    pub fn tenant(mut self, tenant_id: Uuid) -> Self {
        self.tenants.push(tenant_id);
        self
    }

    /// And that it is bound to a certificate (RFC 8705), which its caller has shown: a [`ClientCertificate`]. A mere bearer
    /// token, which is good in anybody's hands, is refused as one that is not good.
    pub fn bound_to_certificate(mut self) -> Self {
        self.is_bound_to_certificate = true;
        self
    }

    /// And that the token is bound to a key (RFC 9449): one that somebody took is then of no use to them.
    pub fn bound_to_key(mut self) -> Self {
        self.is_bound_to_key = true;
        self
    }

    /// The claims, if they are enough.
    pub(super) fn admit(&self, claims: Claims) -> Result<Claims, Denial> {
        let is_bound = claims.cnf.as_ref().is_some_and(|cnf| cnf.x5t_s256.is_some());
        if self.is_bound_to_certificate && !is_bound {
            return Err(Refusal::Invalid("is bound to no certificate").into());
        }
        if self.is_bound_to_key && claims.cnf.as_ref().is_none_or(|cnf| cnf.jkt.is_none()) {
            return Err(Refusal::Invalid("bound to no key").into());
        }
        let roles = claims.user.as_ref().map(|user| &*user.roles).unwrap_or_default();
        let is_enough = !self.is_nobody
            && self.scopes.iter().all(|scope| claims.has_scope(scope))
            && self.roles.iter().all(|role| roles.contains(role))
            && self.any_role.iter().all(|set| set.iter().any(|role| roles.contains(role)))
            && self.tenants.iter().all(|tenant| claims.standing().is_some_and(|(_, its)| its == *tenant))
            && self.any_client.iter().all(|set| set.contains(&claims.client_id));
        if is_enough { Ok(claims) } else { Err(Denial::Insufficient { scope: self.scopes.join(" ") }) }
    }
}

/// What each path requires; `None` where it needs no token.
#[derive(Debug, Clone, Default)]
pub(super) struct Policy {
    methods: HashMap<String, Option<Requirement>>,
    /// By the path up to the last `/`, with it.
    services: HashMap<String, Option<Requirement>>,
    pub(super) others: Requirement,
}

impl Policy {
    pub(super) fn set(&mut self, path: &str, requirement: Option<Requirement>) {
        match path.strip_suffix('*').filter(|service| service.ends_with('/')) {
            Some(service) => self.services.insert(service.to_owned(), requirement),
            None => self.methods.insert(path.to_owned(), requirement),
        };
    }

    pub(super) fn of(&self, path: &str) -> Option<&Requirement> {
        let service = || self.services.get(&path[..=path.rfind('/')?]);
        match self.methods.get(path).or_else(service) {
            Some(requirement) => requirement.as_ref(),
            None => Some(&self.others),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::claims::{Confirmation, UserClaims};

    fn with_roles(roles: &[&str]) -> Claims {
        let user = UserClaims {
            sid: Uuid::nil(),
            generation: 0,
            ver: 0,
            tenant_id: Uuid::nil(),
            device_type: String::new(),
            auth_time: 0,
            amr: Vec::new(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            email: None,
            preferred_username: None,
        };
        let empty = String::new;
        Claims {
            iss: empty(),
            sub: Uuid::nil(),
            aud: Vec::new(),
            exp: 0,
            iat: 0,
            nbf: 0,
            jti: empty(),
            client_id: empty(),
            scope: empty(),
            user: Some(user),
            service: None,
            act: None,
            via: Vec::new(),
            cnf: None,
        }
    }

    #[test]
    fn of_each_set_of_roles_one_is_needed() {
        let any = |sets: &[&[&str]]| {
            sets.iter().fold(Requirement::good_token(), |all, set| all.any_role(set.iter().copied()))
        };
        let admits = |requirement: &Requirement, roles: &[&str]| requirement.admit(with_roles(roles)).is_ok();
        assert!(admits(&any(&[]), &[]));
        assert!(admits(&any(&[&["a", "b"]]), &["b"]));
        assert!(!admits(&any(&[&["a", "b"]]), &["c"]));
        assert!(!admits(&any(&[&[]]), &["a"]), "no role is one of none");
        assert!(!admits(&any(&[&["a", "b"], &["c"]]), &["a"]), "the second one widens nothing");
        assert!(admits(&any(&[&["a", "b"], &["c"]]), &["a", "c"]));
        assert!(!admits(&any(&[&["a"], &[]]), &["a"]));
    }

    #[test]
    fn a_call_comes_from_one_of_the_clients() {
        let admits = |clients: &[&str], client_id: &str| {
            let claims = Claims { client_id: client_id.to_owned(), ..with_roles(&[]) };
            Requirement::good_token().any_client(clients.iter().copied()).admit(claims).is_ok()
        };
        assert!(admits(&["a", "b"], "b"));
        assert!(!admits(&["a", "b"], "tessera") && !admits(&["a", "b"], "") && !admits(&[], "a"));
        let both = Requirement::good_token().any_client(["a", "b"]).any_client(["b"]);
        let of = |client_id: &str| Claims { client_id: client_id.to_owned(), ..with_roles(&[]) };
        assert!(both.admit(of("b")).is_ok() && both.admit(of("a")).is_err());
    }

    #[test]
    fn another_tenants_people_are_not_let_in() {
        let of =
            |tenant| Requirement::good_token().tenant(Uuid::from_u128(tenant)).admit(with_roles(&[])).is_ok();
        assert!(of(0) && !of(1));
        let nobodys = Claims { user: None, ..with_roles(&[]) };
        assert!(Requirement::good_token().tenant(Uuid::nil()).admit(nobodys).is_err());
    }

    #[test]
    fn a_bearer_token_is_not_bound() {
        let bound = Requirement::good_token().bound_to_certificate();
        let with = |jkt: Option<&str>, x5t_s256: Option<&str>| {
            let cnf = Confirmation { jkt: jkt.map(str::to_owned), x5t_s256: x5t_s256.map(str::to_owned) };
            bound.admit(Claims { cnf: Some(Box::new(cnf)), ..with_roles(&[]) }).is_ok()
        };
        assert!(with(None, Some("c")) && with(Some("k"), Some("c")) && !with(Some("k"), None));
        let refused = bound.admit(with_roles(&[]));
        assert!(matches!(refused, Err(Denial::Refused(Refusal::Invalid(_)))), "{refused:?}");
    }

    #[test]
    fn the_nearest_row_counts() {
        let mut policy = Policy::default();
        policy.set("/a.B/*", None);
        policy.set("/a.B/Delete", Some(Requirement::scopes(["delete"])));
        policy.set("/a.C/Get", None);
        assert!(policy.of("/a.B/Get").is_none());
        assert!(policy.of("/a.B/Delete").is_some_and(|row| row.scopes == ["delete"]));
        assert!(policy.of("/a.C/Get").is_none());
        for other in ["/a.C/Get/", "/a.C/Gets", "/a.Bx/Get", "/a.B", "/", "", "*", "/a.B/x/y"] {
            assert!(policy.of(other).is_some_and(|row| row.scopes.is_empty()), "{other}");
        }
    }
}
