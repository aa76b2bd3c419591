//! `Login`: logins a second against hashes a second, with the same threads and on the same processors. Each login is
//! of another user and takes the place of a session that there was, so that it writes all that a login ever writes.

use tessera::proto::{LoginRequest, auth_client::AuthClient};
use tonic::{Status, transport::Channel};

use super::{
    Bench, Outcome, bare,
    case::{Case, Limit, Place, Rounds},
    load::{Caller, load, over},
    process::Process,
    report::Report,
    seed::{DEVICES, Seeder},
    support::{PASSWORD, login_as},
};

pub const NAME: &str = "login";
/// Logins at once, for each hashing thread: enough that none of them waits for a login.
const FOR_EACH_THREAD: u64 = 4;
/// A turn is so much longer than with other cases, since a login takes so long.
const LONGER: u32 = 2;

/// Signs in one user after another, none of whom another caller signs in.
pub struct LoginCaller {
    auth: AuthClient<Channel>,
    next: u64,
    step: u64,
    users: u64,
}

impl LoginCaller {
    fn request(&mut self) -> LoginRequest {
        self.next = (self.next + self.step) % self.users;
        login_as(&format!("u-{}", self.next), PASSWORD, DEVICES[0])
    }
}

impl Caller for LoginCaller {
    async fn call(&mut self) -> Result<(), Status> {
        let request = self.request();
        let tokens = self.auth.login(request).await?.into_inner().tokens;
        tokens.map(|_| ()).ok_or_else(|| Status::internal("no tokens"))
    }
}

/// As many callers as keep the hashing threads busy.
pub async fn callers(server: &Process, seeder: &Seeder) -> Outcome<Vec<LoginCaller>> {
    let step = seeder.hashing.threads as u64 * FOR_EACH_THREAD;
    // A multiple of the step, so that they keep out of each other's way when they begin again. The younger half's
    // sessions are left to others.
    let users = seeder.sessions / DEVICES.len() as u64 / 2 / step * step;
    let caller =
        |channel, number| LoginCaller { auth: AuthClient::new(channel), next: number as u64, step, users };
    over(server, usize::try_from(step)?, caller).await
}

/// Measures it.
pub async fn measure(
    bench: &Bench,
    report: &mut Report,
    server: &Process,
    seeder: &Seeder,
    place: Place,
) -> Outcome {
    if !bench.wants(NAME) {
        return Ok(());
    }
    let mut callers = callers(server, seeder).await?;
    let mut rounds = Rounds::default();
    for round in 0..=bench.pace.rounds {
        let signed_in = load(server, &mut callers, bench.pace.slice * LONGER).await?;
        let hashed = bare::argon2(&seeder.hashing, bench.pace.slice * LONGER)?;
        let (ratio, ceiling_us) = (signed_in.rate() / hashed.rate(), hashed.cpu_us());
        rounds.push(round, signed_in, hashed, ratio, ceiling_us);
    }
    report.add(Case::of(NAME, place, rounds, "argon2 on the same threads", Limit::AtLeast(0.9)))
}
