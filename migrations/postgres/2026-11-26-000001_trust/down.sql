DROP INDEX audit_events_by_time;
DROP INDEX sessions_by_end;
ALTER TABLE sessions DROP COLUMN last_network, DROP COLUMN last_seen_address, DROP COLUMN last_seen_time;
ALTER TABLE tenants DROP COLUMN session_policy, DROP COLUMN standing, DROP COLUMN suspend_time;
DROP INDEX trust_log_by_end;
DROP INDEX trust_log_by_subject;
DROP INDEX trust_log_of_owner;
ALTER TABLE trust_log DROP COLUMN owner;
