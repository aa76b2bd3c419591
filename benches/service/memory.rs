//! The server's memory: at rest, and with a million sessions stored, every cache full and every path used.

use std::time::Duration;

use tessera::proto::{GetSessionRequest, auth_client::AuthClient, session_client::SessionClient};

use super::{
    Bench, Outcome,
    case::Case,
    home::Home,
    load::load,
    login,
    people::{self, Person},
    process::Process,
    proofs, refresh,
    report::Report,
    seed::Seeder,
    support::authorized,
    verify_token::asks,
};

/// More than any cache of sessions holds.
const PEOPLE: usize = 8_500;
/// How long it may go on with what it does once, after a start.
const REST: Duration = Duration::from_secs(1);
const REST_MIB: f64 = 40.0;
const FULL_MIB: f64 = 100.0;

/// Measures it.
pub async fn measure(bench: &Bench, report: &mut Report, home: &Home, seeder: &mut Seeder) -> Outcome {
    let mut people = seeder.add_people(home, PEOPLE).await?;
    home.settle().await?;
    let server = home.start(&bench.settings("")).await?;
    tokio::time::sleep(REST).await;
    let rest_mib = server.resident_mib()?;
    let parts = people.chunks_mut(PEOPLE.div_ceil(refresh::IN_FLIGHT));
    futures_util::future::try_join_all(parts.map(|part| use_caches(&server, part))).await?;
    proofs::fill(&server).await?;
    let signed_in = load(&server, &mut login::callers(&server, seeder).await?, bench.pace.slice).await?;
    let refreshed = load(&server, &mut refresh::callers(&server, &people).await?, bench.pace.slice).await?;
    let case = Case::of_memory(
        home.kind.name(),
        seeder.sessions,
        [(rest_mib, REST_MIB), (server.peak_mib()?, FULL_MIB)],
        signed_in.errors + refreshed.errors,
    );
    report.add(case);
    server.stop()
}

/// What remembers each of these sessions: its maker, its checked key, when it was seen.
async fn use_caches(server: &Process, people: &mut [Person]) -> Outcome {
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
