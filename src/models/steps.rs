//! Steps along refresh chains. Those that come while the database is busy with others are taken together afterwards:
//! on SQLite under one commit, on PostgreSQL in one statement. At rest each is taken at once and by itself.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use chrono::{DateTime, Utc};
use diesel::{
    BoolExpressionMethods, ExpressionMethods, IntoSql, QueryDsl, QueryResult, QueryableByName,
    RunQueryDsl as Here, SqliteConnection, sql_query,
    sql_types::{Array, BigInt, Bool, Text},
};
use diesel_async::RunQueryDsl;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};
use uuid::Uuid;

use super::{
    Cached, Conn, Store, Stored,
    columns::{DbTime, DbUuid, IdCol, TimeCol},
    conn::{Either, PgConn, SqliteConn},
    on,
    schema::sessions,
    sessions::read_profile,
    store::{Done, PATIENCE, unavailable},
};
use crate::domain::claims::Profile;

/// Steps that are taken together, at most.
const TOGETHER: usize = 256;
/// Groups of them at once. More would each be smaller, and PostgreSQL has as much to do for one step as for many.
const GROUPS: usize = 2;

/// [`advance`] for a group of sessions. One that somebody else holds is passed over, so that no group waits for another
/// one, and no step for another session.
const ADVANCE_MANY: &str = "UPDATE \"sessions\" SET generation = step.generation + 1, refresh_time = step.now, \
    idle_expire_time = step.idle_expire_time, last_address = step.address, last_network = step.network \
    FROM (SELECT asked.* FROM \
        unnest($1, $2, $3, $4, $5, $6, $7) \
            AS asked (id, generation, now, idle_expire_time, address, network, is_from_anywhere) \
        JOIN sessions here ON here.id = asked.id \
        WHERE (here.last_network = asked.network OR here.last_network = '' OR asked.is_from_anywhere) \
            AND here.generation = asked.generation AND here.end_time IS NULL \
            AND here.idle_expire_time > asked.now \
        FOR UPDATE OF here SKIP LOCKED) step \
    WHERE sessions.id = step.id RETURNING sessions.id, sessions.profile";

/// A step along the refresh chain.
#[derive(Debug, Clone)]
pub struct Step {
    /// The generation that is spent.
    pub generation: i64,
    /// When.
    pub now: DateTime<Utc>,
    /// When the session expires from now on unless it is refreshed before.
    pub idle_expire_time: DateTime<Utc>,
    /// Who asks.
    pub address: String,
    /// The network of that; empty where it is not known.
    pub network: String,
    /// It may come from another network than the step before.
    pub is_from_anywhere: bool,
}

/// One statement: of any number of steps at once from one generation, one succeeds.
macro_rules! advancing {
    ($id:expr, $step:expr) => {{
        let (id, step): (Uuid, &Step) = ($id, $step);
        let is_from_there = sessions::last_network
            .eq(&step.network)
            .or(sessions::last_network.eq(""))
            .or(step.is_from_anywhere.into_sql::<Bool>());
        let is_here = sessions::id
            .eq(IdCol(id))
            .and(is_from_there)
            .and(sessions::generation.eq(step.generation))
            .and(sessions::end_time.is_null())
            .and(sessions::idle_expire_time.gt(TimeCol(step.now)));
        let update = diesel::update(sessions::table.filter(is_here)).set((
            sessions::generation.eq(step.generation + 1),
            sessions::refresh_time.eq(TimeCol(step.now)),
            sessions::idle_expire_time.eq(TimeCol(step.idle_expire_time)),
            sessions::last_address.eq(&step.address),
            sessions::last_network.eq(&step.network),
        ));
        Cached(update.returning(sessions::profile))
    }};
}

/// Takes a step along the refresh chain. Gives what the next token says; `None` where the session is not at this
/// generation, has ended or expired, or where the step comes from elsewhere and must not.
pub async fn advance(conn: &mut Conn, id: Uuid, step: &Step) -> Stored<Option<Profile>> {
    let profiles: Vec<String> = on!(conn, c => RunQueryDsl::get_results(advancing!(id, step), c).await)?;
    read_first(&profiles)
}

fn advance_here(conn: &mut SqliteConnection, id: Uuid, step: &Step) -> QueryResult<Vec<String>> {
    Here::get_results(advancing!(id, step), conn)
}

fn read_first(profiles: &[String]) -> Stored<Option<Profile>> {
    Ok(profiles.first().map(|json| read_profile(json)).transpose()?)
}

/// A session that [`ADVANCE_MANY`] advanced.
#[derive(QueryableByName)]
struct Advanced {
    #[diesel(sql_type = DbUuid)]
    id: IdCol,
    #[diesel(sql_type = Text)]
    profile: String,
}

async fn advance_many(conn: &mut PgConn, steps: &[(Uuid, Step)]) -> QueryResult<HashMap<Uuid, String>> {
    let column = |of: fn(&Step) -> &str| steps.iter().map(|(_, step)| of(step)).collect::<Vec<_>>();
    let times =
        |of: fn(&Step) -> DateTime<Utc>| steps.iter().map(|(_, step)| TimeCol(of(step))).collect::<Vec<_>>();
    let ids: Vec<IdCol> = steps.iter().map(|(id, _)| IdCol(*id)).collect();
    let generations: Vec<i64> = steps.iter().map(|(_, step)| step.generation).collect();
    let anywhere: Vec<bool> = steps.iter().map(|(_, step)| step.is_from_anywhere).collect();
    let update = sql_query(ADVANCE_MANY)
        .bind::<Array<DbUuid>, _>(ids)
        .bind::<Array<BigInt>, _>(generations)
        .bind::<Array<DbTime>, _>(times(|step| step.now))
        .bind::<Array<DbTime>, _>(times(|step| step.idle_expire_time))
        .bind::<Array<Text>, _>(column(|step| &step.address))
        .bind::<Array<Text>, _>(column(|step| &step.network))
        .bind::<Array<Bool>, _>(anywhere);
    let advanced: Vec<Advanced> = RunQueryDsl::get_results(Cached(update), conn).await?;
    Ok(advanced.into_iter().map(|row| (row.id.0, row.profile)).collect())
}

/// What became of a step that was taken with others.
enum Taken {
    /// What [`advance`] says.
    Done(Stored<Option<Profile>>),
    /// It was passed over.
    No,
}

/// A step whose caller waits.
struct Waiting {
    number: u64,
    id: Uuid,
    step: Step,
    /// Told nothing, its caller can't know whether it was taken.
    told: oneshot::Sender<Taken>,
}

/// The steps that wait, and the right to take them.
pub(super) struct Steps {
    waiting: Mutex<Vec<Waiting>>,
    /// How many have ever waited.
    count: AtomicU64,
    groups: Arc<Semaphore>,
}

impl Default for Steps {
    fn default() -> Self {
        let groups = Arc::new(Semaphore::new(GROUPS));
        Self { waiting: Mutex::default(), count: AtomicU64::default(), groups }
    }
}

impl Steps {
    /// Adds a step, and gives its number and what is heard of it.
    fn push(&self, id: Uuid, step: Step) -> (u64, oneshot::Receiver<Taken>) {
        let (told, hears) = oneshot::channel();
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        self.waiting().push(Waiting { number, id, step, told });
        (number, hears)
    }

    /// The step of this number, and the oldest of the others whose callers are still there: of each session one. None
    /// where that step does not wait any more.
    fn pop(&self, number: u64) -> Vec<Waiting> {
        let mut waiting = self.waiting();
        let Some(own) = waiting.iter().position(|waiting| waiting.number == number) else {
            return Vec::new();
        };
        let mut together = vec![waiting.remove(own)];
        waiting.retain(|waiting| !waiting.told.is_closed());
        let mut sessions = HashSet::from([together[0].id]);
        let is_next = |waiting: &mut Waiting| sessions.len() < TOGETHER && sessions.insert(waiting.id);
        together.extend(waiting.extract_if(.., is_next));
        together
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Takes a step as [`advance`] does, and says as [`Store::write`] does whether it was tried more than once.
    pub async fn advance(&self, id: Uuid, step: &Step) -> Stored<Done<Option<Profile>>> {
        let taken = self.advance_with_others(id, step).await?;
        if let Some(Taken::Done(value)) = taken {
            return Ok(Done { value: value?, is_repeated: false });
        }
        let alone = self.write(async |conn| advance(conn, id, step).await).await?;
        Ok(Done { is_repeated: alone.is_repeated || taken.is_none(), ..alone })
    }

    /// Waits for whoever is first, oneself or another caller, to take the steps that wait. None where it is not known
    /// what became of this one.
    async fn advance_with_others(&self, id: Uuid, step: &Step) -> Stored<Option<Taken>> {
        let (number, mut hears) = self.steps().push(id, step.clone());
        let turn = async {
            let place = timeout(PATIENCE, self.steps().groups.clone().acquire_owned()).await;
            let place = place.map_err(|_| unavailable("no step was taken in time"))?.ok();
            Stored::Ok((place, self.writer().await?))
        };
        let (place, conn) = tokio::select! {
            biased;
            heard = &mut hears => return Ok(heard.ok()),
            turn = turn => turn?,
        };
        let together = self.steps().pop(number);
        if together.is_empty() {
            drop((place, conn));
        } else {
            // In a task of its own: it is others' steps too, and this caller may go away.
            self.spawn(take(place, conn, together));
        }
        Ok(hears.await.ok())
    }
}

/// Takes steps, and tells each caller of its own. Those who are told nothing try by themselves.
async fn take(place: Option<OwnedSemaphorePermit>, mut conn: Conn, waiting: Vec<Waiting>) {
    let steps: Vec<(Uuid, Step)> = waiting.iter().map(|waiting| (waiting.id, waiting.step.clone())).collect();
    let taken = match &mut conn.inner {
        Either::Sqlite(sqlite) => take_on_sqlite(sqlite, steps).await,
        Either::Pg(pg) => take_on_postgres(pg, &steps).await,
    };
    drop((conn, place));
    match taken {
        Ok(taken) => {
            for (waiting, taken) in waiting.into_iter().zip(taken) {
                // Whoever went away gets it with a retry.
                let _ = waiting.told.send(taken);
            }
        }
        Err(error) => tracing::warn!(%error, "steps can't be taken together; each is tried by itself"),
    }
}

async fn take_on_sqlite(conn: &mut SqliteConn, steps: Vec<(Uuid, Step)>) -> Stored<Vec<Taken>> {
    let all = conn.spawn_blocking(move |conn| match &*steps {
        [(id, step)] => Ok(vec![advance_here(conn, *id, step)?]),
        steps => conn.immediate_transaction(|conn| {
            steps.iter().map(|(id, step)| advance_here(conn, *id, step)).collect()
        }),
    });
    Ok(all.await?.iter().map(|profiles| Taken::Done(read_first(profiles))).collect())
}

async fn take_on_postgres(conn: &mut PgConn, steps: &[(Uuid, Step)]) -> Stored<Vec<Taken>> {
    let advanced = advance_many(conn, steps).await?;
    let of = |id: &Uuid| match advanced.get(id) {
        Some(json) => Taken::Done(read_profile(json).map(Some).map_err(Into::into)),
        None => Taken::No,
    };
    Ok(steps.iter().map(|(id, _)| of(id)).collect())
}
