//! Tells a verifier what the trust log says, from a place on.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    sync::broadcast,
    time::{Instant, Interval, interval_at, timeout},
};
use tokio_util::sync::CancellationToken;

pub use super::trust_feed::Place;
use super::{
    App, Error, ServiceCaller,
    trust_feed::{Heard, News, Since},
    trust_told::{Count, PART, Snapshot},
    watch_places::Admitted,
};
use crate::verifier::Until;

/// How long nothing is said at most.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a watcher waits for a server that is behind it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a watcher takes in.
#[derive(Debug)]
pub struct Message {
    /// What happened.
    pub event: Event,
    /// The place that the watcher has reached with it; none while a snapshot goes on.
    pub place: Option<Place>,
    /// How old this server's own knowledge of the log is.
    pub age: Duration,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A part of the whole state.
    Snapshot {
        /// The first part.
        is_first: bool,
        /// The last part.
        is_last: bool,
        /// What is not accepted.
        entries: Vec<Until>,
        /// The issuer's keys, with the first part.
        jwks_json: String,
    },
    /// What came to it.
    Changes {
        /// What is no longer accepted, or accepted again.
        entries: Vec<Until>,
        /// The issuer's keys where they have changed, else empty.
        jwks_json: String,
    },
    /// Nothing came to it.
    Heartbeat,
}

/// What is told next. One that doesn't read keeps none of it alive.
enum Telling {
    /// A snapshot, of which so many entries have been told.
    Snapshot(Weak<Snapshot>, usize),
    /// The rest of a snapshot: what came after so many.
    Rest(Count),
    /// What came after so many.
    Since(Count),
    /// What comes.
    News(broadcast::Receiver<Heard>),
}

/// Follows the log for one remote verifier.
pub struct Watcher {
    app: Arc<App>,
    telling: Telling,
    /// The issuer's keys have changed since the snapshot began, which told them.
    are_keys_due: bool,
    reached: Place,
    heartbeat: Interval,
    closing: CancellationToken,
    /// Who watches, where it is known.
    caller: Option<ServiceCaller>,
    _admitted: Admitted<String>,
}

/// Begins to watch, from where the watcher's own state has come to. It watches from this address.
pub async fn watch(
    app: &Arc<App>,
    from: &Place,
    caller: Option<ServiceCaller>,
    address: &str,
) -> Result<Watcher, Error> {
    let admitted = app.feed.admit(address)?;
    catch_up_with(app, from.revision).await?;
    let telling = match app.feed.find(from) {
        Some(by) => Telling::Since(by),
        None => snapshot(app),
    };
    Ok(Watcher {
        app: app.clone(),
        telling,
        are_keys_due: false,
        reached: Place::default(),
        heartbeat: interval_at(Instant::now() + HEARTBEAT, HEARTBEAT),
        closing: app.feed.closing(),
        caller,
        _admitted: admitted,
    })
}

/// Waits until this server has read the log for a watcher that is ahead of it, having watched another replica: a
/// snapshot of what was before would make it forget revocations. Where it is ahead even then, the log went back.
async fn catch_up_with(app: &App, revision: i64) -> Result<(), Error> {
    if revision <= app.feed.place().revision {
        return Ok(());
    }
    let asked = Instant::now();
    let mut attempts = app.feed.attempts();
    app.feed.wake();
    let attempt = async {
        let attempt = attempts.wait_for(|attempt| attempt.begun >= asked).await;
        attempt.is_ok_and(|attempt| attempt.is_good)
    };
    let closing = app.feed.closing();
    let is_good = tokio::select! {
        biased;
        () = closing.cancelled() => return Err(Error::Stopping),
        is_good = timeout(PATIENCE, attempt) => is_good,
    };
    if is_good == Ok(true) {
        return Ok(());
    }
    Err(Error::StoreUnavailable("the trust log can't be read to where a watcher has come".to_owned()))
}

fn snapshot(app: &App) -> Telling {
    Telling::Snapshot(app.feed.snapshot(app.verifier.trust()), 0)
}

impl Watcher {
    /// Waits for the next message. An error is the last thing that is said. Whose token was revoked hears no more: of the
    /// revocation itself it is told with the news, and of one that was missed with the next heartbeat.
    pub async fn next(&mut self) -> Result<Message, Error> {
        let message = self.next_for_anyone().await?;
        match &self.caller {
            Some(caller) if caller.is_revoked(self.app.verifier.trust()) => Err(Error::TokenRevoked),
            _ => Ok(message),
        }
    }

    async fn next_for_anyone(&mut self) -> Result<Message, Error> {
        loop {
            let message = match self.telling {
                Telling::Snapshot(..) => self.part(),
                Telling::Rest(by) => self.rest(by, false, Vec::new()),
                Telling::Since(by) => self.since(by),
                Telling::News(_) => self.hear().await?,
            };
            if let Some(message) = message {
                return Ok(message);
            }
            // What it missed is too much to tell, or not known any more: it gets the whole instead.
            self.telling = snapshot(&self.app);
            self.are_keys_due = false;
        }
    }

    /// The next part of a snapshot; `None` where that is gone.
    fn part(&mut self) -> Option<Message> {
        let Telling::Snapshot(snapshot, told) = &mut self.telling else { return None };
        let whole = snapshot.upgrade()?;
        let is_first = *told == 0;
        let entries: Vec<_> = whole.entries.iter().skip(*told).take(PART).cloned().collect();
        *told += entries.len();
        if *told >= whole.entries.len() {
            return self.rest(whole.by, is_first, entries);
        }
        let jwks_json = self.keys_if(is_first);
        let event = Event::Snapshot { is_first, is_last: false, entries, jwks_json };
        Some(Message { event, place: None, age: self.app.feed.age() })
    }

    /// These entries of a snapshot, and what came since: it may have been made for somebody else, a while ago.
    fn rest(&mut self, by: Count, is_first: bool, mut entries: Vec<Until>) -> Option<Message> {
        let News { entries: more, are_keys_new, place } = self.go_on(by, Telling::Rest)?;
        entries.extend(more);
        self.are_keys_due |= are_keys_new && !is_first;
        let is_last = matches!(self.telling, Telling::News(_));
        let jwks_json = self.keys_if(is_first);
        let event = Event::Snapshot { is_first, is_last, entries, jwks_json };
        if !is_last {
            return Some(Message { event, place: None, age: self.app.feed.age() });
        }
        self.reached = place;
        Some(self.message(event))
    }

    fn since(&mut self, by: Count) -> Option<Message> {
        let news = self.go_on(by, Telling::Since)?;
        Some(self.changes(&news))
    }

    /// Takes the next part of what came after so many; `None` where that is not known any more.
    fn go_on(&mut self, by: Count, more: impl FnOnce(Count) -> Telling) -> Option<News> {
        let Since { news, by, heard } = self.app.feed.since(by)?;
        self.telling = heard.map_or_else(|| more(by), Telling::News);
        Some(news)
    }

    /// Waits for what comes; `None` where it missed something.
    async fn hear(&mut self) -> Result<Option<Message>, Error> {
        if std::mem::take(&mut self.are_keys_due) {
            let place = self.reached.clone();
            return Ok(Some(self.changes(&News { are_keys_new: true, place, ..News::default() })));
        }
        let Self { telling: Telling::News(heard), closing, heartbeat, .. } = self else { return Ok(None) };
        let heard = tokio::select! {
            biased;
            () = closing.cancelled() => return Err(Error::Stopping),
            heard = heard.recv() => heard,
            _ = heartbeat.tick() => return Ok(Some(self.message(Event::Heartbeat))),
        };
        match heard {
            Ok(Heard::News(news)) => Ok(Some(self.changes(&news))),
            Ok(Heard::WentBack) | Err(broadcast::error::RecvError::Lagged(_)) => Ok(None),
            Err(broadcast::error::RecvError::Closed) => Err(Error::Stopping),
        }
    }

    fn changes(&mut self, news: &News) -> Message {
        self.reached = news.place.clone();
        if news.entries.is_empty() && !news.are_keys_new {
            return self.message(Event::Heartbeat);
        }
        let jwks_json = self.keys_if(news.are_keys_new);
        self.message(Event::Changes { entries: news.entries.clone(), jwks_json })
    }

    /// The newest, maybe newer than what they are told with: they are told as a whole each time.
    fn keys_if(&self, are_told: bool) -> String {
        if are_told { self.app.ring().json().to_owned() } else { String::new() }
    }

    fn message(&self, event: Event) -> Message {
        let place = self.app.feed.to_resume_with(&self.reached, self.app.now());
        Message { event, place: Some(place), age: self.app.feed.age() }
    }
}
