//! A verifier that hears of revocations and issuer keys as they happen, and knows how old what it knows is.
//!
//! A token is checked in-process as ever. The issuer is asked in two cases: a token whose key nobody vouches for in
//! its header, and, where its owner chose that, any token once contact was lost for too long.

mod ask;
mod builder;
mod contact;
mod denial;
mod feed;
mod figures;
mod lookups;
mod news;
mod state_file;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::{sync::watch, task::AbortHandle};

use super::{Expected, Refusal, Shown, Verifier};
use crate::{clock::Clock, domain::claims::Claims};
use ask::Issuer;
pub use builder::{ConnectBuilder, StartError};
use contact::Contact;
pub use contact::Standing;
pub use denial::Denial;
use figures::Counters;
pub use figures::Figures;
use lookups::Lookups;

/// What to do with a token once contact with the issuer was lost for longer than `max_staleness`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnStale {
    /// Refuse it with [`Denial::Stale`]: nobody who was revoked gets in.
    #[default]
    FailClosed,
    /// Go on with what is known: nobody is locked out. Where nothing was ever known, refuse.
    FailOpen,
    /// Ask `Auth.VerifyToken` about each one: good where the feed is lost and the issuer is not. One with
    /// `tokens.introspection = "services"` answers only where [`ConnectBuilder::authorization`] is given.
    AskIssuer,
}

/// Checks tokens of one issuer for one audience, and follows the issuer's trust log. Cheap to clone; it stops
/// following once the last clone is gone.
#[derive(Clone)]
pub struct ConnectedVerifier(Arc<Connected>);

struct Connected {
    core: Arc<Core>,
    _tasks: Vec<Task>,
}

/// What the tasks and the checks share.
struct Core {
    verifier: Verifier,
    expected: Expected,
    contact: Contact,
    clock: Arc<dyn Clock>,
    max_staleness: Duration,
    on_stale: OnStale,
    lookups: Lookups,
    issuer: Issuer,
    counters: Counters,
    revisions: watch::Sender<i64>,
}

/// Ends with its owner.
struct Task(AbortHandle);

impl Task {
    fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ConnectedVerifier {
    /// Checks a token. Asks the issuer only where [`Self::try_check`] has no answer. A token that is bound to a key or a
    /// certificate is refused: for these there is [`Self::check_shown`].
    ///
    /// # Errors
    /// Why the token is refused, or why nothing can be said of it now.
    pub async fn check(&self, token: &str) -> Result<Claims, Denial> {
        self.check_shown(token, &Shown::default()).await
    }

    /// The same for a caller who has shown this beside its token.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub async fn check_shown(&self, token: &str, shown: &Shown) -> Result<Claims, Denial> {
        let claims = match self.0.core.check_here(token) {
            Some(answer) => answer?,
            None => self.0.core.check_with_issuer(token).await?,
        };
        shown.require(&claims)?;
        Ok(claims)
    }

    /// Checks a token without asking anybody. `None` where the issuer has to be asked, which [`Self::check`] does.
    pub fn try_check(&self, token: &str) -> Option<Result<Claims, Denial>> {
        self.try_check_shown(token, &Shown::default())
    }

    /// The same for a caller who has shown this beside its token.
    pub fn try_check_shown(&self, token: &str, shown: &Shown) -> Option<Result<Claims, Denial>> {
        let bound = |claims| shown.require(&claims).map(|()| claims).map_err(Denial::from);
        Some(self.0.core.check_here(token)?.and_then(bound))
    }

    /// What time it is, and how far clocks may differ.
    pub(in crate::verifier) fn time(&self) -> (DateTime<Utc>, TimeDelta) {
        (self.0.core.clock.now(), self.0.core.expected.leeway)
    }

    /// How long ago the issuer's state was certainly the one that is known here; `None` if it was never heard of.
    /// While all is well it is below 5 s and what the issuer's server is behind its database, which is at most its
    /// `database.poll_interval`.
    pub fn staleness(&self) -> Option<Duration> {
        self.0.core.contact.staleness()
    }

    /// The revision of the trust log that was reached.
    pub fn revision(&self) -> i64 {
        self.0.core.verifier.trust().revision()
    }

    /// The same for who waits for more: the receiver learns of each revision once what came with it counts.
    pub fn revisions(&self) -> watch::Receiver<i64> {
        self.0.core.revisions.subscribe()
    }

    /// Whether it hears the issuer; the receiver learns of each change.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.0.core.contact.standing()
    }

    /// What there is to measure, for a service to export.
    pub fn figures(&self) -> Figures {
        self.0.core.figures()
    }
}

impl fmt::Debug for ConnectedVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectedVerifier").field("expected", &self.0.core.expected).finish_non_exhaustive()
    }
}

/// Who says whether a token is good.
enum Way {
    /// What is known here.
    Here,
    /// The issuer.
    Issuer,
    /// Nobody can, since what is known is so old; or nothing ever was.
    Nobody(Option<Duration>),
}

impl Core {
    fn way(&self) -> Way {
        let age = self.contact.staleness();
        if age.is_some_and(|age| age <= self.max_staleness) {
            return Way::Here;
        }
        match self.on_stale {
            OnStale::AskIssuer => Way::Issuer,
            OnStale::FailOpen if age.is_some() => Way::Here,
            OnStale::FailOpen | OnStale::FailClosed => Way::Nobody(age),
        }
    }

    fn check_here(&self, token: &str) -> Option<Result<Claims, Denial>> {
        let way = self.way();
        if let Way::Nobody(age) = way {
            self.counters.stale.fetch_add(1, Ordering::Relaxed);
            return Some(Err(Denial::Stale(age)));
        }
        let asks = matches!(way, Way::Issuer);
        match self.verifier.check_unbound(token, &self.expected, self.clock.now()) {
            Ok(_) if asks => None,
            Ok(claims) => Some(Ok(claims)),
            Err(Refusal::UnknownKey) => None,
            // Its key may be one that was not heard of.
            Err(Refusal::Invalid(_)) if asks => None,
            Err(refusal) => Some(Err(Denial::Refused(refusal))),
        }
    }

    async fn check_with_issuer(&self, token: &str) -> Result<Claims, Denial> {
        let kid = self.verifier.plausible(token, &self.expected, self.clock.now())?;
        if let Way::Issuer = self.way() {
            return self.ask(token).await;
        }
        self.find_key(&kid).await?;
        Ok(self.verifier.check_unbound(token, &self.expected, self.clock.now())?)
    }
}
