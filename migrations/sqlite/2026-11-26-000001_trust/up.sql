-- A token that was revoked by itself: the entry's subject is its jti, and this is whose it must be; the nil id
-- stands for anybody.
ALTER TABLE trust_log ADD COLUMN owner blob;
CREATE INDEX trust_log_of_owner ON trust_log (owner) WHERE owner IS NOT NULL;
CREATE INDEX trust_log_by_subject ON trust_log (subject);
CREATE INDEX trust_log_by_end ON trust_log (expire_time);

-- A suspended tenant, and how often that changed: of two entries in the trust log, the later one counts.
ALTER TABLE tenants ADD COLUMN suspend_time integer;
ALTER TABLE tenants ADD COLUMN standing integer NOT NULL DEFAULT 0;
-- What its sessions have instead of the configured limits, as JSON.
ALTER TABLE tenants ADD COLUMN session_policy text;

-- When and where a session was last seen other than by a refresh; written at most once a minute.
ALTER TABLE sessions ADD COLUMN last_seen_time integer;
ALTER TABLE sessions ADD COLUMN last_seen_address text NOT NULL DEFAULT '';
-- The network that it was refreshed from last; empty where that is not known.
ALTER TABLE sessions ADD COLUMN last_network text NOT NULL DEFAULT '';
-- What cleaning up looks for.
CREATE INDEX sessions_by_end ON sessions (end_time) WHERE end_time IS NOT NULL;
CREATE INDEX audit_events_by_time ON audit_events (create_time);

-- Where the audit trail begins. What is older may be removed, and nothing else of it ever.
CREATE TABLE audit_trail (
    id         integer NOT NULL PRIMARY KEY CHECK (id = 1),
    begin_time integer NOT NULL
) STRICT;
INSERT INTO audit_trail (id, begin_time) VALUES (1, 0);
DROP TRIGGER audit_events_remain;
CREATE TRIGGER audit_events_remain BEFORE DELETE ON audit_events
WHEN OLD.create_time >= (SELECT begin_time FROM audit_trail)
BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append-only');
END;
