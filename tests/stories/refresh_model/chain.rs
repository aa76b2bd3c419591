//! What must hold of one session and its chain of refresh tokens. Times are seconds.

/// The settings that decide.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How long a spent token is taken for a retry.
    pub grace: i64,
    /// How long an access token lives.
    pub access_ttl: i64,
    /// A session that isn't refreshed for so long expires.
    pub idle_ttl: i64,
    /// A session expires so long after its login.
    pub absolute_ttl: i64,
}

/// What somebody does with a session's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Presents the refresh token of this generation.
    Refresh(usize),
    /// Logs out with an access token whose time has not passed.
    Logout,
    /// Asks the database whether such an access token is good.
    Verify,
}

/// What the service says to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The next tokens: those of the generation after the one that was presented.
    Tokens,
    /// `TOKEN_REUSED`.
    Reused,
    /// `TOKEN_REVOKED`.
    Revoked,
    /// `TOKEN_EXPIRED`.
    Expired,
    /// It is done.
    Done,
    /// The token is good.
    Active,
    /// It is not.
    Inactive,
}

/// Whether a session has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum End {
    No,
    /// While the calls at hand were made: who looked before may still say so.
    JustNow,
    Before,
}

/// A session as the database has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chain {
    /// The newest generation, which nobody has used.
    pub newest: usize,
    /// When it was made.
    made: i64,
    idle_end: i64,
    absolute_end: i64,
    end: End,
    /// Calls whose caller went away, and when they were made: each may still take effect, once, as one of then or of
    /// later.
    pending: Vec<(Call, i64)>,
}

impl Chain {
    /// A session that begins.
    pub fn new(rules: &Rules, now: i64) -> Self {
        let absolute_end = now + rules.absolute_ttl;
        let idle_end = absolute_end.min(now + rules.idle_ttl);
        Self { newest: 0, made: now, idle_end, absolute_end, end: End::No, pending: Vec::new() }
    }

    /// Whether it was ended.
    pub fn has_ended(&self) -> bool {
        self.end != End::No
    }

    /// Whether its time has passed.
    pub fn has_expired(&self, now: i64) -> bool {
        self.idle_end <= now
    }

    /// A newer login takes its place; one that has expired stays so.
    pub fn replaced(mut self, now: i64) -> Self {
        if !self.has_expired(now) {
            self.end = End::Before;
        }
        self
    }

    /// What may be answered to a call, and what the session is then.
    pub fn take(&self, call: Call, rules: &Rules, now: i64) -> Vec<(Answer, Self)> {
        match call {
            Call::Refresh(generation) => self.refresh(generation, rules, now),
            // A replica that has not heard of the end yet lets it in, and it changes nothing.
            Call::Logout if self.has_ended() => {
                vec![(Answer::Revoked, self.clone()), (Answer::Done, self.clone())]
            }
            Call::Logout => vec![(Answer::Done, self.ended())],
            Call::Verify if self.has_ended() => vec![(Answer::Inactive, self.clone())],
            Call::Verify => vec![(Answer::Active, self.clone())],
        }
    }

    fn refresh(&self, generation: usize, rules: &Rules, now: i64) -> Vec<(Answer, Self)> {
        let is_newest = generation == self.newest;
        let is_retry = generation + 1 == self.newest && now < self.made + rules.grace;
        match self.end {
            End::JustNow if !is_newest && !is_retry => {
                vec![(Answer::Revoked, self.clone()), (Answer::Reused, self.clone())]
            }
            End::JustNow | End::Before => vec![(Answer::Revoked, self.clone())],
            End::No if self.has_expired(now) => vec![(Answer::Expired, self.clone())],
            End::No if is_newest => {
                let idle_end = self.absolute_end.min(now + rules.idle_ttl);
                let next = Self { newest: self.newest + 1, made: now, idle_end, ..self.clone() };
                vec![(Answer::Tokens, next)]
            }
            End::No if is_retry => vec![(Answer::Tokens, self.clone())],
            End::No => vec![(Answer::Reused, self.ended())],
        }
    }

    fn ended(&self) -> Self {
        Self { end: End::JustNow, ..self.clone() }
    }

    /// The calls at hand are over.
    pub fn settled(mut self) -> Self {
        if self.end == End::JustNow {
            self.end = End::Before;
        }
        self
    }

    /// A call whose caller went away.
    pub fn with_pending(mut self, call: Call, now: i64) -> Self {
        self.pending.push((call, now));
        self
    }

    /// What it may be once one of the pending calls has taken effect. `instants` are those that have been.
    pub fn pending_done(&self, rules: &Rules, instants: &[i64]) -> Vec<Self> {
        let mut after = Vec::new();
        for index in 0..self.pending.len() {
            let mut without = self.clone();
            let (call, made) = without.pending.remove(index);
            for time in instants.iter().filter(|time| **time >= made) {
                after.extend(without.take(call, rules, *time).into_iter().map(|(_, chain)| chain));
            }
        }
        after
    }
}
