DROP TRIGGER audit_events_remain;
CREATE TRIGGER audit_events_remain BEFORE DELETE ON audit_events
BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
DROP TABLE audit_trail;
DROP INDEX audit_events_by_time;
DROP INDEX sessions_by_end;
ALTER TABLE sessions DROP COLUMN last_network;
ALTER TABLE sessions DROP COLUMN last_seen_address;
ALTER TABLE sessions DROP COLUMN last_seen_time;
ALTER TABLE tenants DROP COLUMN session_policy;
ALTER TABLE tenants DROP COLUMN standing;
ALTER TABLE tenants DROP COLUMN suspend_time;
DROP INDEX trust_log_by_end;
DROP INDEX trust_log_by_subject;
DROP INDEX trust_log_of_owner;
ALTER TABLE trust_log DROP COLUMN owner;
