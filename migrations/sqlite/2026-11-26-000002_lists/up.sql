-- What lists are filtered by, so that none reads more rows than it shows. A refresh writes no column of theirs.
CREATE INDEX sessions_open_of_user ON sessions (user_id, id) WHERE end_time IS NULL;
CREATE INDEX audit_events_by_action ON audit_events (tenant_id, action, id);
CREATE INDEX audit_events_by_actor ON audit_events (tenant_id, actor_id, id) WHERE actor_id IS NOT NULL;
