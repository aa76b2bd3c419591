//! All that the server remembers, filled until it has to forget some of it, by its own metric.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tessera::{
    clock::{Clock, SystemClock},
    proto::{
        GetSessionRequest, IssueServiceTokenRequest, auth_client::AuthClient, session_client::SessionClient,
    },
};
use tonic::transport::Channel;

use super::{
    Outcome,
    accounts::{Registrar, largest_jwks},
    home::Home,
    people::{self, Person},
    process::Process,
    proofs, refresh,
    support::authorized,
    verify_token::asks,
};

/// Accounts that are made, and then used, at a time.
const ACCOUNTS: usize = 100;
/// How many of them at once: each waits for the disk, and no call may wait for five seconds.
const AT_ONCE: usize = 10;
/// How often, at most: as many as a tenant may have.
const BATCHES: usize = 100;
/// Sessions that were revoked while tokens of theirs could be alive.
const REVOCATIONS: usize = 10_000;
/// How long the server may take to read of them.
const PATIENCE: Duration = Duration::from_secs(20);

/// Fills them all. Proofs of keys come last, since they are over after a minute and a half.
pub async fn fill(home: &Home, server: &Process, people: &mut [Person]) -> Outcome {
    use_accounts(server).await?;
    revoke(home, server).await?;
    let each = people.len().div_ceil(refresh::IN_FLIGHT);
    try_join_all(people.chunks_mut(each).map(|some| use_sessions(server, some))).await?;
    for cache in ["session_makers", "endorsed_keys", "checked_tokens", "sessions_seen"] {
        let kept = server.entries_of(cache).await?;
        // It has forgotten some: there was no room for more.
        if kept == 0 || kept >= people.len() {
            return Err(format!("{cache} is not full: it has {kept} of {} entries", people.len()).into());
        }
    }
    let taken = proofs::fill(server).await?;
    for (cache, least) in [("revocations", REVOCATIONS), ("key_proofs", taken * 19 / 20)] {
        let kept = server.entries_of(cache).await?;
        if kept < least {
            return Err(format!("{cache} is not full: it has {kept} entries, not {least} at least").into());
        }
    }
    Ok(())
}

/// Uses service accounts with the largest key sets, until the server remembers no more of them however many there are.
async fn use_accounts(server: &Process) -> Outcome {
    let (registrar, jwks) = (Registrar::of(server).await?, largest_jwks()?);
    let (auth, mut most) = (AuthClient::new(server.channel().await?), 0);
    for batch in 0..BATCHES {
        // A change of any account makes the server look at each anew.
        let make = |first| create(registrar.clone(), batch, first, &jwks);
        let made = try_join_all((0..AT_ONCE).map(make)).await?;
        try_join_all(made.into_iter().map(|requests| issue(auth.clone(), requests))).await?;
        let (kept, used) = (server.entries_of("service_accounts").await?, (batch + 1) * ACCOUNTS);
        if kept < used && kept <= most + ACCOUNTS / 20 {
            return Ok(());
        }
        most = most.max(kept);
    }
    Err(format!("the server remembers {most} service accounts, and has room for more").into())
}

/// Makes those of a batch whose turn it is.
async fn create(
    mut registrar: Registrar,
    batch: usize,
    first: usize,
    jwks: &str,
) -> Outcome<Vec<IssueServiceTokenRequest>> {
    let mut requests = Vec::new();
    for number in (first..ACCOUNTS).step_by(AT_ONCE) {
        let request = registrar.create(format!("full-{batch}-{number}")).await?;
        registrar.add_keys(&request.client_id, jwks.to_owned()).await?;
        requests.push(request);
    }
    Ok(requests)
}

async fn issue(mut auth: AuthClient<Channel>, requests: Vec<IssueServiceTokenRequest>) -> Outcome {
    for request in requests {
        auth.issue_service_token(request).await?.into_inner().tokens.ok_or("no token")?;
    }
    Ok(())
}

/// Writes into the trust log of SQLite what as many logouts would, and waits until the server knows.
async fn revoke(home: &Home, server: &Process) -> Outcome {
    let now = SystemClock.now().timestamp_micros();
    let end = now + 3_600_000_000;
    let entries = format!(
        "UPDATE trust_head SET revision = revision + {REVOCATIONS};
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {REVOCATIONS})
         INSERT INTO trust_log (revision, kind, subject, create_time, expire_time)
         SELECT revision - i, 'session', randomblob(16), {now}, {end} FROM n, trust_head"
    );
    home.write(&entries).await?;
    let begun = Instant::now();
    while server.entries_of("revocations").await? < REVOCATIONS {
        if begun.elapsed() > PATIENCE {
            return Err("the server doesn't read of revocations".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// What remembers each of these sessions: its maker, its checked key and token, when it was seen.
async fn use_sessions(server: &Process, people: &mut [Person]) -> Outcome {
    people::introduce(server, people).await?;
    let channel = server.channel().await?;
    let (mut auth, mut session) = (AuthClient::new(channel.clone()), SessionClient::new(channel));
    for person in people {
        if !auth.verify_token(asks(&person.access_token)).await?.into_inner().active {
            return Err("a token is refused".into());
        }
        let request = GetSessionRequest { session_id: person.session_id.to_string() };
        session.get_session(authorized(&person.access_token, request)).await?;
    }
    Ok(())
}
