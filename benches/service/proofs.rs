//! Used proofs of keys (DPoP): as many as the server remembers.

use std::time::Duration;

use tessera::{
    clock::{Clock, SystemClock},
    proto::{IssueServiceTokenRequest, auth_client::AuthClient},
    verifier::{HolderKey, ProofFor},
};
use tokio::{task::JoinSet, time::timeout};
use tonic::{Code, Request, transport::Channel};

use super::{Outcome, accounts::Registrar, load::over, process::Process};

/// Keys, of which each may have a twentieth of the room.
const KEYS: usize = 64;
/// In less than that the first of them are over, and there is always room.
const DEADLINE: Duration = Duration::from_secs(80);
const CALL: ProofFor<'_> =
    ProofFor { method: "POST", path: "/tessera.v1.Auth/IssueServiceToken", token: None };

/// Has proofs taken until there is no room for another one, and tells how many.
pub async fn fill(server: &Process) -> Outcome<usize> {
    let request = Registrar::of(server).await?.create("bench-proofs".to_owned()).await?;
    let mut tasks = JoinSet::new();
    for auth in over(server, KEYS, |channel, _| AuthClient::new(channel)).await? {
        tasks.spawn(use_up(auth, HolderKey::generate()?, request.clone()));
    }
    let taken = timeout(DEADLINE, tasks.join_all()).await;
    let taken = taken.map_err(|_| "proofs of keys are taken so slowly that there is always room")?;
    Ok(taken.into_iter().sum::<Result<usize, String>>()?)
}

async fn use_up(
    mut auth: AuthClient<Channel>,
    key: HolderKey,
    request: IssueServiceTokenRequest,
) -> Result<usize, String> {
    let mut taken = 0;
    loop {
        let proof = key.prove(&CALL, None, SystemClock.now()).map_err(|error| error.to_string())?;
        let mut request = Request::new(request.clone());
        let proof = proof.parse().map_err(|_| "a proof is no metadata".to_owned())?;
        request.metadata_mut().insert("dpop", proof);
        match auth.issue_service_token(request).await {
            Ok(_) => taken += 1,
            Err(status) if status.code() == Code::ResourceExhausted => return Ok(taken),
            Err(status) => return Err(status.to_string()),
        }
    }
}
