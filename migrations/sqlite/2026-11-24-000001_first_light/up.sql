-- Identifiers are made by the service (UUIDv7, 16 bytes), instants come from its clock (microseconds since
-- 1970); both folders describe the same tables. Lists of words (roles) are one text, separated by spaces.

CREATE TABLE tenants (
    id           blob    NOT NULL PRIMARY KEY,
    name         text    NOT NULL UNIQUE,
    display_name text    NOT NULL,
    create_time  integer NOT NULL
) STRICT;

CREATE TABLE users (
    id                       blob    NOT NULL PRIMARY KEY,
    tenant_id                blob    NOT NULL REFERENCES tenants (id),
    username                 text    NOT NULL,
    password_hash            text    NOT NULL,
    password_change_required integer NOT NULL,
    email                    text,
    display_name             text    NOT NULL,
    roles                    text    NOT NULL,
    token_version            integer NOT NULL,
    disable_time             integer,
    create_time              integer NOT NULL,
    update_time              integer NOT NULL,
    UNIQUE (tenant_id, username)
) STRICT;
CREATE INDEX users_of_tenant ON users (tenant_id, id);

CREATE TABLE sessions (
    id               blob    NOT NULL PRIMARY KEY,
    tenant_id        blob    NOT NULL REFERENCES tenants (id),
    user_id          blob    NOT NULL REFERENCES users (id),
    device_type      text    NOT NULL,
    device_id        text    NOT NULL,
    device_name      text    NOT NULL,
    slot             integer NOT NULL,
    kid              text    NOT NULL,
    salt             blob    NOT NULL,
    profile          text    NOT NULL,
    generation       integer NOT NULL,
    create_time      integer NOT NULL,
    refresh_time     integer NOT NULL,
    idle_expire_time integer NOT NULL,
    expire_time      integer NOT NULL,
    end_time         integer,
    end_reason       text,
    first_address    text    NOT NULL,
    last_address     text    NOT NULL,
    user_agent       text    NOT NULL,
    CHECK ((end_time IS NULL) = (end_reason IS NULL))
) STRICT;
CREATE INDEX sessions_of_tenant ON sessions (tenant_id);
CREATE INDEX sessions_of_user ON sessions (user_id, id);
-- One live session in each place: what two logins at once can't get around.
CREATE UNIQUE INDEX sessions_in_slot ON sessions (user_id, device_type, slot) WHERE end_time IS NULL;

CREATE TABLE session_keys (
    kid                text    NOT NULL PRIMARY KEY,
    session_id         blob    NOT NULL UNIQUE REFERENCES sessions (id),
    algorithm          text    NOT NULL,
    public_jwk         text    NOT NULL,
    sealed_private_key blob    NOT NULL
) STRICT;

CREATE TABLE issuer_keys (
    kid                text    NOT NULL PRIMARY KEY,
    algorithm          text    NOT NULL,
    state              text    NOT NULL CHECK (state IN ('PREPARED', 'ACTIVE', 'RETIRED', 'REVOKED')),
    public_jwk         text    NOT NULL,
    sealed_private_key blob    NOT NULL,
    create_time        integer NOT NULL,
    activate_time      integer
) STRICT;
CREATE UNIQUE INDEX issuer_keys_active ON issuer_keys (algorithm) WHERE state = 'ACTIVE';

CREATE TABLE server_secrets (
    name   text    NOT NULL PRIMARY KEY,
    sealed blob    NOT NULL
) STRICT;

-- The revision of the newest entry. Whoever appends raises it first and holds it until the commit, so
-- that revisions have no gap and follow the order of commits.
CREATE TABLE trust_head (
    id       integer NOT NULL PRIMARY KEY CHECK (id = 1),
    revision integer NOT NULL
) STRICT;
INSERT INTO trust_head (id, revision) VALUES (1, 0);

CREATE TABLE trust_log (
    revision    integer NOT NULL PRIMARY KEY,
    kind        text    NOT NULL,
    subject     blob    NOT NULL,
    version     integer,
    create_time integer NOT NULL,
    expire_time integer NOT NULL
) STRICT;

-- Names no user by a foreign key: the trail outlives whom it tells of.
CREATE TABLE audit_events (
    id          blob    NOT NULL PRIMARY KEY,
    tenant_id   blob    NOT NULL,
    create_time integer NOT NULL,
    action      text    NOT NULL,
    refusal     text,
    actor_id    blob,
    target_type text    NOT NULL,
    target_id   blob,
    address     text    NOT NULL,
    user_agent  text    NOT NULL,
    request_id  text    NOT NULL
) STRICT;
CREATE INDEX audit_events_of_tenant ON audit_events (tenant_id, id);

CREATE TRIGGER audit_events_stay BEFORE UPDATE ON audit_events
BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append-only');
END;
CREATE TRIGGER audit_events_remain BEFORE DELETE ON audit_events
BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append-only');
END;
