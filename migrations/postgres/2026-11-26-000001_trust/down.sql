DROP TRIGGER audit_events_remain ON audit_events;
DROP FUNCTION audit_events_remain;
DROP TRIGGER audit_events_are_final ON audit_events;
CREATE TRIGGER audit_events_are_final BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION audit_events_are_final();
DROP TABLE audit_trail;
DROP INDEX audit_events_by_time;
DROP INDEX sessions_by_end;
ALTER TABLE sessions DROP COLUMN last_network, DROP COLUMN last_seen_address, DROP COLUMN last_seen_time;
ALTER TABLE tenants DROP COLUMN session_policy, DROP COLUMN standing, DROP COLUMN suspend_time;
DROP INDEX trust_log_by_end;
DROP INDEX trust_log_by_subject;
DROP INDEX trust_log_of_owner;
ALTER TABLE trust_log DROP COLUMN owner;
