//! `Keys.Watch`: whoever follows it knows what the server knows.

use std::collections::BTreeSet;

use tessera::proto::{
    LogoutAllRequest, LogoutRequest, PrepareKeyRequest, WatchRequest, WatchResponse, trust_entry::Subject,
};
use tonic::{Code, Request, Status, Streaming};

use crate::support::{
    BEHIND_A_PROXY, Home, Kind, Outcome, Person, Server, at, authorized, eventually, reason, stories,
    timed_stories,
};

stories! {
    a_watcher_hears_of_a_logout_and_of_new_keys,
    a_watcher_that_comes_back_hears_what_it_missed,
    a_watcher_whose_place_is_not_known_gets_everything,
    a_watcher_that_does_not_read_holds_up_nobody,
    a_server_that_stops_says_so,
    one_watcher_too_many_is_refused,
    nobody_takes_the_places_of_another_address,
    a_watcher_that_is_ahead_is_not_told_what_was_before,
}
timed_stories! {
    what_has_died_is_not_told,
}

/// Room for a user with many sessions.
const ROOM: &str = "[sessions]\nper_user = 10000\n";
/// Nobody looks into the log by itself.
const NEVER: &str = "[database]\npoll_interval = \"1h\"\n";
/// Everybody does, and nobody is told.
const BY_POLLING: &str = "[database]\npoll_interval = \"10ms\"\nlisten_notify = false\n";

async fn log_out(server: &Server, person: &Person) -> Outcome {
    server.auth().logout(authorized(&person.access_token, LogoutRequest {})).await?;
    Ok(())
}

async fn a_watcher_hears_of_a_logout_and_of_new_keys(home: Home) -> Outcome {
    let server = home.start_with(NEVER).await?;
    let admin = server.admin().await?;
    let anna = server.anna().await?;
    let mut watching = server.watch().await?;
    assert!(!watching.knows(&anna.session_id));
    let keys = watching.jwks_json.clone();
    log_out(&server, &anna).await?;
    watching.until(|watching| watching.knows(&anna.session_id)).await?;

    let anna = server.sign_in("anna", "web").await?;
    server.auth().logout_all(authorized(&anna.access_token, LogoutAllRequest {})).await?;
    let is_hers = |subject: &Subject| matches!(subject, Subject::User(user) if user.user_id == anna.user_id);
    watching
        .until(|watching| watching.entries.iter().any(|entry| entry.subject.as_ref().is_some_and(is_hers)))
        .await?;

    let request = authorized(&admin.access_token, PrepareKeyRequest::default());
    let key = server.keys().prepare_key(request).await?.into_inner().key.ok_or("no key")?;
    watching.until(|watching| watching.jwks_json != keys).await?;
    assert!(watching.jwks_json.contains(&key.kid));
    let jwks = server.keys().get_jwks(tessera::proto::GetJwksRequest::default()).await?.into_inner();
    assert_eq!(watching.jwks_json, jwks.jwks_json);

    // One that comes later is told the same.
    let late = server.watch().await?;
    assert_eq!(late.sessions(), watching.sessions());
    assert_eq!(late.jwks_json, watching.jwks_json);
    assert_eq!(late.place, watching.place);
    drop((late, watching));
    server.stop().await
}

async fn a_watcher_that_comes_back_hears_what_it_missed(home: Home) -> Outcome {
    let server = home.start_with(NEVER).await?;
    let anna = server.anna().await?;
    let phone = server.sign_in("anna", "mobile").await?;
    let mut watching = server.watch().await?;
    log_out(&server, &anna).await?;
    watching.until(|watching| watching.knows(&anna.session_id)).await?;
    let place = watching.place.clone();
    drop(watching);

    log_out(&server, &phone).await?;
    let mut again = server.watch_from(place.clone()).await?;
    again.until(|again| again.knows(&phone.session_id)).await?;
    assert_eq!(again.snapshots, 0);
    assert_eq!(again.sessions(), BTreeSet::from([phone.session_id.clone()]), "only what it missed");

    let mut current = server.watch_from(again.place.clone()).await?;
    current.hear().await?;
    assert_eq!((current.snapshots, current.entries.len()), (0, 0), "and nothing where nothing was missed");
    assert_eq!(current.place, again.place);
    drop((again, current));
    server.stop().await
}

async fn a_watcher_whose_place_is_not_known_gets_everything(home: Home) -> Outcome {
    let server = home.start_with(NEVER).await?;
    let anna = server.anna().await?;
    let mut watching = server.watch().await?;
    log_out(&server, &anna).await?;
    watching.until(|watching| watching.knows(&anna.session_id)).await?;
    let (revision, mark) = watching.place.clone();
    for place in [
        (revision, "another".to_owned()),
        (revision, String::new()),
        (revision + 1, mark.clone()),
        (revision - 1, mark.clone()),
        (-1, mark.clone()),
        (i64::MAX, mark),
    ] {
        let mut other = server.watch_from(place.clone()).await?;
        other.until(|other| other.snapshots == 1).await?;
        assert!(other.knows(&anna.session_id), "{place:?}");
        assert_eq!(other.place, watching.place, "{place:?}");
    }
    drop(watching);
    server.stop().await
}

async fn a_watcher_that_does_not_read_holds_up_nobody(home: Home) -> Outcome {
    const LOGOUTS: usize = 300;
    let server = home.start_with(ROOM).await?;
    server.anna().await?;
    let mut stuck = server.watch().await?;
    let mut watching = server.watch().await?;
    let mut ended = BTreeSet::new();
    for device in 0..LOGOUTS {
        let anna = server.sign_in("anna", &format!("d{device}")).await?;
        log_out(&server, &anna).await?;
        // One by one, so that each is a message of its own.
        watching.until(|watching| watching.knows(&anna.session_id)).await?;
        ended.insert(anna.session_id);
    }
    assert_eq!(watching.snapshots, 1);
    stuck.until(|stuck| stuck.sessions() == ended).await?;
    assert_eq!(stuck.place, watching.place);
    drop((stuck, watching));
    server.stop().await
}

async fn a_server_that_stops_says_so(home: Home) -> Outcome {
    let server = home.start_with("[server]\ndrain_timeout = \"30s\"\n").await?;
    let mut watching = server.watch().await?;
    let begun = std::time::Instant::now();
    let (stopped, told) = tokio::join!(server.stop(), async {
        loop {
            if let Err(status) = watching.hear().await {
                break status;
            }
        }
    });
    stopped?;
    assert_eq!((told.code(), reason(&told).as_str()), (Code::Unavailable, "STOPPING"));
    assert!(begun.elapsed().as_secs() < 30, "the drain did not wait for it");
    Ok(())
}

async fn one_watcher_too_many_is_refused(home: Home) -> Outcome {
    let server = home.start_with("[server]\nmax_watchers = 1\n").await?;
    let watching = server.watch().await?;
    let refused = server.watch_from(Default::default()).await.err().ok_or("it was to be refused")?;
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    drop(watching);
    eventually("there is a place again", async || Ok(server.watch_from(Default::default()).await.is_ok()))
        .await?;
    server.stop().await
}

async fn watch_at(server: &Server, address: &str) -> Result<Streaming<WatchResponse>, Status> {
    Ok(server.keys().watch(at(address, Request::new(WatchRequest::default()))).await?.into_inner())
}

async fn nobody_takes_the_places_of_another_address(home: Home) -> Outcome {
    let server = home.start_with(&format!("{BEHIND_A_PROXY}max_watchers_per_address = 2\n")).await?;
    // An IPv6 address is as good as all others of its network to who has it.
    for (own, same, other) in [
        ("203.0.113.1", "203.0.113.1", "203.0.113.2"),
        ("2001:db8:0:1::1", "2001:db8:0:1:2:3:4:5", "2001:db8:0:2::1"),
    ] {
        let first = watch_at(&server, own).await?;
        let _second = watch_at(&server, same).await?;
        let refused = watch_at(&server, own).await.err().ok_or("it was to be refused")?;
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
        let _other = watch_at(&server, other).await?;
        assert_eq!(server.metric("tessera_watchers ").await?, 3);
        drop(first);
        eventually("there is a place again", async || Ok(watch_at(&server, same).await.is_ok())).await?;
        drop((_second, _other));
        eventually("all are gone", async || Ok(server.metric("tessera_watchers ").await? == 0)).await?;
    }
    server.stop().await
}

async fn a_watcher_that_is_ahead_is_not_told_what_was_before(home: Home) -> Outcome {
    let server = home.start_with(NEVER).await?;
    let anna = server.anna().await?;
    let mut watching = server.watch().await?;
    log_out(&server, &anna).await?;
    watching.until(|watching| watching.knows(&anna.session_id)).await?;
    let (revision, mark) = watching.place.clone();
    home.query("ALTER TABLE trust_head RENAME TO trust_head_away").await?;
    let refused =
        server.watch_from((revision + 1, mark.clone())).await.err().ok_or("it was to be refused")?;
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "STORE_UNAVAILABLE"));
    server.watch_from((revision, mark.clone())).await?;
    home.query("ALTER TABLE trust_head_away RENAME TO trust_head").await?;
    let mut ahead = server.watch_from((revision + 1, mark)).await?;
    ahead.until(|ahead| ahead.snapshots == 1).await?;
    assert_eq!(ahead.place, watching.place, "the log says that there is no more");
    assert!(ahead.knows(&anna.session_id));
    drop((watching, ahead));
    server.stop().await
}

async fn what_has_died_is_not_told(home: Home) -> Outcome {
    let server = home.start_with("[database]\npoll_interval = \"10ms\"\n").await?;
    let anna = server.anna().await?;
    log_out(&server, &anna).await?;
    assert!(server.watch().await?.knows(&anna.session_id));
    home.clock.advance(2 * 60 * 60);
    eventually("it is forgotten", async || Ok(!server.watch().await?.knows(&anna.session_id))).await?;
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_is_heard_before_the_next_poll() -> Outcome {
    hear_another(NEVER).await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_is_heard_by_polling_alone() -> Outcome {
    hear_another(BY_POLLING).await
}

async fn hear_another(settings: &str) -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let (here, there) = (home.start_with(settings).await?, home.start_with(settings).await?);
    let anna = here.anna().await?;
    let mut watching = there.watch().await?;
    // Before that, nobody hears anybody: the first look is when it begins to listen.
    let listens = "SELECT CAST(count(*) AS TEXT) AS first FROM pg_stat_activity \
                   WHERE datname = current_database() AND query ~ '^(LISTEN|NOTIFY) '";
    if settings == NEVER {
        eventually("both listen", async || Ok(home.query(listens).await? == ["2"])).await?;
    } else {
        assert_eq!(home.query(listens).await?, ["0"]);
    }
    log_out(&here, &anna).await?;
    watching.until(|watching| watching.knows(&anna.session_id)).await?;
    assert!(!there.is_active(&anna.access_token, false).await?);

    // A place in the log is the same on every replica.
    let place = watching.place.clone();
    let again = here.sign_in("anna", "web").await?;
    log_out(&here, &again).await?;
    let mut resumed = here.watch_from(place).await?;
    resumed.until(|resumed| resumed.knows(&again.session_id)).await?;
    assert_eq!(resumed.snapshots, 0);
    drop((watching, resumed));
    there.stop().await?;
    here.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lags_behind_a_watcher_catches_up_first() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let deaf = format!("{NEVER}listen_notify = false\n");
    let (here, there) = (home.start_with(NEVER).await?, home.start_with(&deaf).await?);
    let anna = here.anna().await?;
    let mut watching = here.watch().await?;
    log_out(&here, &anna).await?;
    watching.until(|watching| watching.knows(&anna.session_id)).await?;
    let place = watching.place.clone();
    let mut resumed = there.watch_from(place.clone()).await?;
    resumed.hear().await?;
    assert_eq!((resumed.snapshots, &resumed.place), (0, &place), "it goes on from there");
    assert!(there.watch().await?.knows(&anna.session_id), "and who comes later is told");

    let phone = here.sign_in("anna", "mobile").await?;
    log_out(&here, &phone).await?;
    watching.until(|watching| watching.knows(&phone.session_id)).await?;
    let mut other = there.watch_from((watching.place.0, "another".to_owned())).await?;
    other.until(|other| other.snapshots == 1).await?;
    assert!(other.knows(&phone.session_id));
    drop((watching, resumed, other));
    there.stop().await?;
    here.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn much_is_told_part_by_part() -> Outcome {
    const MANY: usize = 3_500;
    let home = Home::new(Kind::Postgres).await?;
    let server = home.start_with(BY_POLLING).await?;
    let anna = server.anna().await?;
    let mut watching = server.watch().await?;
    log_out(&server, &anna).await?;
    watching.until(|watching| watching.knows(&anna.session_id)).await?;
    let place = watching.place.clone();
    home.query(&format!(
        "BEGIN; UPDATE trust_head SET revision = revision + {MANY}; \
         INSERT INTO trust_log (revision, kind, subject, create_time, expire_time) \
         SELECT revision - {MANY} + number, 'session', gen_random_uuid(), now(), '2100-01-01' \
         FROM trust_head, generate_series(1, {MANY}) AS number; COMMIT"
    ))
    .await?;
    watching.until(|watching| watching.sessions().len() == MANY + 1).await?;
    let mut resumed = server.watch_from(place).await?;
    resumed.until(|resumed| resumed.place == watching.place).await?;
    assert_eq!((resumed.snapshots, resumed.sessions().len(), resumed.entries.len()), (0, MANY, MANY));
    let whole = server.watch().await?;
    assert_eq!((whole.place.clone(), whole.sessions()), (watching.place.clone(), watching.sessions()));
    drop((watching, resumed, whole));
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ear_is_replaced() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let settings = "[database]\npoll_interval = \"100ms\"\n";
    let (here, there) = (home.start_with(settings).await?, home.start_with(settings).await?);
    let anna = here.anna().await?;
    let listens = "FROM pg_stat_activity WHERE datname = current_database() AND query ~ '^(LISTEN|NOTIFY) '";
    let count = format!("SELECT CAST(count(*) AS TEXT) AS first {listens}");
    eventually("both listen", async || Ok(home.query(&count).await? == ["2"])).await?;
    let pids = format!("SELECT CAST(pid AS TEXT) AS first {listens} ORDER BY 1");
    let before = home.query(&pids).await?;
    home.query(&format!("SELECT CAST(pg_terminate_backend(pid) AS TEXT) AS first {listens}")).await?;
    eventually("both listen again", async || {
        let now = home.query(&pids).await?;
        Ok(now.len() == 2 && now.iter().all(|pid| !before.contains(pid)))
    })
    .await?;
    let mut watching = there.watch().await?;
    log_out(&here, &anna).await?;
    watching.until(|watching| watching.knows(&anna.session_id)).await?;
    drop(watching);
    there.stop().await?;
    here.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_of_a_log_that_went_back_gets_everything() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let server = home.start_with("[database]\npoll_interval = \"10ms\"\n").await?;
    let anna = server.anna().await?;
    let phone = server.sign_in("anna", "mobile").await?;
    let mut watching = server.watch().await?;
    log_out(&server, &anna).await?;
    watching.until(|watching| watching.knows(&anna.session_id)).await?;
    let place = watching.place.clone();
    // As after a failover to a standby that lacked the last commit, and another one after it, before anybody looked.
    home.query(
        "UPDATE trust_log SET subject = gen_random_uuid(), create_time = create_time + interval '1 second' \
         WHERE revision = (SELECT revision FROM trust_head)",
    )
    .await?;
    watching.until(|watching| watching.snapshots == 2).await?;
    assert!(watching.knows(&anna.session_id), "what was revoked once stays so");
    let mut again = server.watch_from(place).await?;
    again.until(|again| again.snapshots == 1).await?;
    log_out(&server, &phone).await?;
    again.until(|again| again.knows(&phone.session_id)).await?;
    watching.until(|watching| watching.knows(&phone.session_id)).await?;
    drop((again, watching));
    server.stop().await
}
