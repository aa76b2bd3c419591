DROP TABLE audit_events, trust_log, trust_head, server_secrets, issuer_keys, session_keys, sessions, users, tenants;
DROP FUNCTION audit_events_are_final;
