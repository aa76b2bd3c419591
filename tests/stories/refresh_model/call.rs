//! A call of a run, as it goes over the wire.

use std::{error::Error, time::Duration};

use futures_util::future::join_all;
use tessera::proto::{LogoutRequest, Tokens, VerifyTokenRequest, auth_client::AuthClient};
use tokio::time::timeout;
use tonic::{Code, Status, transport::Channel};

use super::chain::{Answer, Call};
use crate::support::{authorized, reason, refresh_with};

/// A call that is about to be made.
pub struct Planned {
    pub call: Call,
    /// The token that it is made with.
    pub token: String,
    /// Who is called.
    pub auth: AuthClient<Channel>,
    /// When the caller goes away, where it does not wait for the answer.
    pub patience: Option<Duration>,
}

/// What was heard of it; no answer where the caller, or the server, went away.
#[derive(Default)]
pub struct Heard {
    pub answer: Option<Answer>,
    pub tokens: Option<Tokens>,
    /// The service said that it had no time for it, which a busy machine makes true.
    is_put_off: bool,
}

impl From<Answer> for Heard {
    fn from(answer: Answer) -> Self {
        Self { answer: Some(answer), ..Self::default() }
    }
}

/// Makes calls at the same time. Who has patience gets an answer, unless servers go away.
pub async fn make(planned: Vec<Planned>, servers_go: bool) -> Result<Vec<Heard>, Box<dyn Error>> {
    let all = planned.into_iter().map(async |planned| {
        let Some(patience) = planned.patience else {
            let heard = planned.send().await?;
            let is_lost = heard.answer.is_none() && !heard.is_put_off && !servers_go;
            return if is_lost { Err("nobody went away, and there is no answer".into()) } else { Ok(heard) };
        };
        timeout(patience, planned.send()).await.unwrap_or_else(|_| Ok(Heard::default()))
    });
    join_all(all).await.into_iter().collect()
}

impl Planned {
    async fn send(self) -> Result<Heard, Box<dyn Error>> {
        let Self { call, token, mut auth, .. } = self;
        match call {
            Call::Refresh(_) => match auth.refresh(refresh_with(&token)).await {
                Ok(reply) => Ok(Heard { tokens: reply.into_inner().tokens, ..Answer::Tokens.into() }),
                Err(status) => refused(&status),
            },
            Call::Logout => match auth.logout(authorized(&token, LogoutRequest {})).await {
                Ok(_) => Ok(Answer::Done.into()),
                Err(status) => refused(&status),
            },
            Call::Verify => {
                let request = VerifyTokenRequest { token, strict: true, ..Default::default() };
                match auth.verify_token(request).await {
                    Ok(reply) if reply.get_ref().active => Ok(Answer::Active.into()),
                    Ok(_) => Ok(Answer::Inactive.into()),
                    Err(status) => refused(&status),
                }
            }
        }
    }
}

fn refused(status: &Status) -> Result<Heard, Box<dyn Error>> {
    match (status.code(), reason(status).as_str()) {
        (Code::Unauthenticated, "TOKEN_REUSED") => Ok(Answer::Reused.into()),
        (Code::Unauthenticated, "TOKEN_REVOKED") => Ok(Answer::Revoked.into()),
        (Code::Unauthenticated, "TOKEN_EXPIRED") => Ok(Answer::Expired.into()),
        (Code::Unavailable, "STORE_UNAVAILABLE") => Ok(Heard { is_put_off: true, ..Heard::default() }),
        // Only the client's own half says so without a reason: the connection is gone.
        (Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal, "") => Ok(Heard::default()),
        _ => Err(format!("an answer that is in no model: {status:?}").into()),
    }
}
