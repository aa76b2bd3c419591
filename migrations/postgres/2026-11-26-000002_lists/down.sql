DROP INDEX audit_events_by_actor;
DROP INDEX audit_events_by_action;
DROP INDEX sessions_open_of_user;
