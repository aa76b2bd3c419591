//! Used proofs of keys (DPoP): as many as the server remembers.

use tessera::{
    clock::{Clock, SystemClock},
    proto::{IssueServiceTokenRequest, auth_client::AuthClient},
    verifier::{HolderKey, ProofFor},
};
use tokio::task::JoinSet;
use tonic::{Code, Request, transport::Channel};

use super::{Outcome, issue_service_token::account, load::over, process::Process};

/// Keys, of which each may have a twentieth of the room.
const KEYS: usize = 64;
const CALL: ProofFor<'_> =
    ProofFor { method: "POST", path: "/tessera.v1.Auth/IssueServiceToken", token: None };

/// Has proofs taken until there is no room for another one.
pub async fn fill(server: &Process) -> Outcome {
    let request = account(server, "bench-proofs".to_owned()).await?;
    let mut tasks = JoinSet::new();
    for auth in over(server, KEYS, |channel, _| AuthClient::new(channel)).await? {
        tasks.spawn(use_up(auth, HolderKey::generate()?, request.clone()));
    }
    tasks.join_all().await.into_iter().collect::<Result<_, String>>().map_err(Into::into)
}

async fn use_up(
    mut auth: AuthClient<Channel>,
    key: HolderKey,
    request: IssueServiceTokenRequest,
) -> Result<(), String> {
    loop {
        let proof = key.prove(&CALL, None, SystemClock.now()).map_err(|error| error.to_string())?;
        let mut request = Request::new(request.clone());
        let proof = proof.parse().map_err(|_| "a proof is no metadata".to_owned())?;
        request.metadata_mut().insert("dpop", proof);
        match auth.issue_service_token(request).await {
            Ok(_) => {}
            Err(status) if status.code() == Code::ResourceExhausted => return Ok(()),
            Err(status) => return Err(status.to_string()),
        }
    }
}
