//! A session of a run, and what clients and thieves have of it.

use tessera::proto::Tokens;

use super::{
    call::{Planned, make},
    chain::{Answer, Call, Chain},
    explain::Chains,
};
use crate::support::{Outcome, Server, eventually};

pub struct Held {
    pub id: String,
    /// Everything that it may be by now.
    pub chains: Chains,
    /// The refresh token of each generation that somebody was given.
    pub refresh: Vec<String>,
    /// Access tokens and their ends.
    access: Vec<(String, i64)>,
}

impl Held {
    pub fn new(id: &str, chain: Chain) -> Self {
        Self { id: id.to_owned(), chains: [chain].into(), refresh: Vec::new(), access: Vec::new() }
    }

    /// Keeps the tokens of a generation. Its refresh token is always the same one.
    pub fn keep(&mut self, generation: usize, tokens: Tokens, clock_turns: bool) -> Outcome {
        match self.refresh.get(generation) {
            None => self.refresh.push(tokens.refresh_token),
            Some(known) if *known == tokens.refresh_token => {}
            Some(_) => return Err(format!("there are two tokens of generation {generation}").into()),
        }
        let end = tokens.access_expire_time.map_or(0, |time| time.seconds);
        self.access.push((tokens.access_token, if clock_turns { end } else { i64::MAX }));
        Ok(())
    }

    /// Access tokens whose time has not passed.
    pub fn good(&self, now: i64) -> Vec<&String> {
        self.access.iter().filter(|(_, end)| *end > now).map(|(token, _)| token).collect()
    }

    /// Nothing of a session that has ended is good, with whomever one tries.
    pub async fn is_refused_everywhere(&self, servers: &[Server], now: i64) -> Outcome {
        let newest = self.refresh.last().ok_or("no token")?;
        for server in servers {
            for token in self.good(now).into_iter().rev().take(2) {
                if server.is_active(token, true).await? {
                    return Err("the session has ended, and a token of it is good".into());
                }
                eventually("a replica hears of the end", async || {
                    Ok(!server.is_active(token, false).await?)
                })
                .await?;
            }
            let call = Call::Refresh(self.refresh.len() - 1);
            let planned = Planned { call, token: newest.clone(), auth: server.auth(), patience: None };
            let heard = make(vec![planned], false).await?;
            if heard.iter().any(|heard| heard.answer != Some(Answer::Revoked)) {
                return Err("the session has ended, and its newest refresh token is not revoked".into());
            }
        }
        Ok(())
    }
}
