//! Refreshes from two networks at once.

use std::collections::HashSet;

use futures_util::future::join_all;
use tessera::proto::Tokens;
use tonic::Status;

use crate::support::{
    BEHIND_A_PROXY, Home, Kind, Outcome, PASSWORD, Person, Server, login_as, reason, stories,
};

stories! {
    two_networks_at_once_have_one_successor,
    two_networks_at_once_and_one_may_go_on,
    two_networks_at_once_end_the_session_once,
}

const HOME: &str = "192.0.2.1";
const ELSEWHERE: &str = "198.51.100.7";

/// An admin, and a server where another network leads to this.
async fn start(home: &Home, reaction: &str) -> Result<(Server, Person), Box<dyn std::error::Error>> {
    let settings = format!("{BEHIND_A_PROXY}[sessions]\non_address_change = \"{reaction}\"\n");
    let server = home.start_with(&settings).await?;
    let admin = server.admin().await?;
    Ok((server, admin))
}

/// Somebody new at home.
async fn somebody(server: &Server, admin: &Person, name: &str) -> Result<Person, Box<dyn std::error::Error>> {
    server.make_user(admin, name).await?;
    server.sign_in_at(HOME, login_as(name, PASSWORD, "web")).await
}

/// The answers at home and those elsewhere.
async fn at_once(server: &Server, refresh_token: &str) -> [Vec<Result<Tokens, Status>>; 2] {
    let addresses: Vec<_> = [ELSEWHERE, HOME].into_iter().cycle().take(20).collect();
    let answers = join_all(addresses.iter().map(|address| server.refresh_at(address, refresh_token))).await;
    let (here, there): (Vec<_>, Vec<_>) =
        addresses.into_iter().zip(answers).partition(|(address, _)| *address == HOME);
    [here, there].map(|answers| answers.into_iter().map(|(_, answer)| answer).collect())
}

async fn two_networks_at_once_have_one_successor(home: Home) -> Outcome {
    for reaction in ["record", "ignore"] {
        let (server, admin) = start(&home, reaction).await?;
        for round in 0..5 {
            let person = somebody(&server, &admin, &format!("{reaction}-{round}")).await?;
            let answers = at_once(&server, &person.refresh_token).await;
            let successors: HashSet<String> = answers
                .into_iter()
                .flatten()
                .map(|tokens| Ok(tokens?.refresh_token))
                .collect::<Result<_, Status>>()?;
            assert_eq!(successors.len(), 1, "{reaction}");
            assert_eq!(server.session_of(&admin, &person.session_id).await?.generation, 1);
            for successor in successors {
                server.refresh_at(ELSEWHERE, &successor).await?;
            }
        }
        server.stop().await?;
    }
    Ok(())
}

async fn two_networks_at_once_and_one_may_go_on(home: Home) -> Outcome {
    let (server, admin) = start(&home, "reauthenticate").await?;
    for round in 0..5 {
        let person = somebody(&server, &admin, &format!("racer-{round}")).await?;
        let [here, there] = at_once(&server, &person.refresh_token).await;
        let successors: HashSet<String> =
            here.into_iter().map(|tokens| Ok(tokens?.refresh_token)).collect::<Result<_, Status>>()?;
        assert_eq!(successors.len(), 1);
        for answer in there {
            assert_eq!(answer.err().as_ref().map(reason).as_deref(), Some("REAUTHENTICATION_REQUIRED"));
        }
        let events = server.events(&admin, "refresh_address").await?;
        assert_eq!(events.iter().filter(|event| event.target_id == person.session_id).count(), 1);
    }
    server.stop().await
}

async fn two_networks_at_once_end_the_session_once(home: Home) -> Outcome {
    let (server, admin) = start(&home, "revoke").await?;
    let rounds = if home.kind == Kind::Binary { 2 } else { 5 };
    for round in 0..rounds {
        let person = somebody(&server, &admin, &format!("racer-{round}")).await?;
        let [here, there] = at_once(&server, &person.refresh_token).await;
        for tokens in here.into_iter().flatten() {
            assert!(!server.is_active(&tokens.access_token, false).await?, "it ended after that");
        }
        for answer in there {
            assert_eq!(answer.err().as_ref().map(reason).as_deref(), Some("TOKEN_REVOKED"));
        }
        let events = server.events(&admin, "refresh_address").await?;
        assert_eq!(events.iter().filter(|event| event.target_id == person.session_id).count(), 1);
    }
    let log = "SELECT CAST(count(*) AS TEXT) AS first FROM trust_log WHERE kind = 'session'";
    assert_eq!(home.query(log).await?, [rounds.to_string()]);
    server.stop().await
}
