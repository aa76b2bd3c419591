//! Room for a new session among those that its user has.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::session::{EndReason, Limits, Session, State};

/// What has to end for a new session to begin, and the place that it takes.
#[derive(Debug, PartialEq, Eq)]
pub struct Room {
    /// Sessions to end, each with its reason.
    pub ends: Vec<(Uuid, EndReason)>,
    /// The free place on this type of device.
    pub slot: i32,
}

/// Makes room among a user's sessions that have not ended. Expired ones go; then, on the same type of
/// device and after that of the user as a whole, the oldest give way.
pub fn make_room(open: &[Session], device_type: &str, limits: &Limits, now: DateTime<Utc>) -> Room {
    let (mut live, expired): (Vec<&Session>, Vec<&Session>) =
        open.iter().partition(|session| session.state(now) == State::Active);
    let mut ends: Vec<_> = expired.into_iter().map(|session| (session.id, EndReason::Expired)).collect();
    live.sort_by_key(|session| (session.create_time, session.id));

    let mut same_type = live.iter().filter(|session| session.device.kind == device_type).count();
    live.retain(|session| {
        let gives_way = session.device.kind == device_type && same_type >= limits.per_device_type as usize;
        if gives_way {
            same_type -= 1;
            ends.push((session.id, EndReason::Replaced));
        }
        !gives_way
    });

    let too_many = (live.len() + 1).saturating_sub(limits.per_user as usize).min(live.len());
    ends.extend(live.drain(..too_many).map(|session| (session.id, EndReason::Limit)));

    let is_taken =
        |slot: i32| live.iter().any(|session| session.device.kind == device_type && session.slot == slot);
    let slot = (0..).find(|slot| !is_taken(*slot)).unwrap_or_default();
    Room { ends, slot }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::domain::session::tests::{at, session};

    fn limits(per_device_type: u32, per_user: u32) -> Limits {
        Limits {
            per_device_type,
            per_user,
            idle_ttl: TimeDelta::seconds(100),
            absolute_ttl: TimeDelta::seconds(1000),
            refresh_grace: TimeDelta::seconds(10),
        }
    }

    #[test]
    fn the_oldest_session_on_the_same_type_of_device_gives_way() {
        let open = [session(1, "web", 0, 5), session(2, "mobile", 0, 1), session(3, "web", 1, 3)];
        let room = make_room(&open, "web", &limits(2, 20), at(10));
        assert_eq!(room, Room { ends: vec![(Uuid::from_u128(3), EndReason::Replaced)], slot: 1 });
        let room = make_room(&open, "web", &limits(1, 20), at(10));
        assert_eq!(room.ends.len(), 2);
        assert_eq!(room.slot, 0);
    }

    #[test]
    fn the_cap_of_a_user_counts_every_type_of_device() {
        let open = [session(1, "web", 0, 5), session(2, "mobile", 0, 1), session(3, "tv", 0, 3)];
        let room = make_room(&open, "desktop", &limits(1, 3), at(10));
        assert_eq!(room, Room { ends: vec![(Uuid::from_u128(2), EndReason::Limit)], slot: 0 });
    }

    #[test]
    fn an_expired_session_frees_its_place() {
        let open = [session(1, "web", 0, 0)];
        let room = make_room(&open, "web", &limits(1, 20), at(100));
        assert_eq!(room, Room { ends: vec![(Uuid::from_u128(1), EndReason::Expired)], slot: 0 });
    }
}
