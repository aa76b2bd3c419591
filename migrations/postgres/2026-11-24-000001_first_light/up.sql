-- Identifiers are made by the service (UUIDv7), instants come from its clock; both folders describe
-- the same tables. Lists of words (roles) are one text, separated by spaces.

CREATE TABLE tenants (
    id           uuid        NOT NULL PRIMARY KEY,
    name         text        NOT NULL UNIQUE,
    display_name text        NOT NULL,
    create_time  timestamptz NOT NULL
);

CREATE TABLE users (
    id                       uuid        NOT NULL PRIMARY KEY,
    tenant_id                uuid        NOT NULL REFERENCES tenants (id),
    username                 text        NOT NULL,
    password_hash            text        NOT NULL,
    password_change_required boolean     NOT NULL,
    email                    text,
    display_name             text        NOT NULL,
    roles                    text        NOT NULL,
    token_version            bigint      NOT NULL,
    disable_time             timestamptz,
    create_time              timestamptz NOT NULL,
    update_time              timestamptz NOT NULL,
    UNIQUE (tenant_id, username)
);
CREATE INDEX users_of_tenant ON users (tenant_id, id);

-- A refresh writes one row of this table and touches no index, so that PostgreSQL can keep the new
-- version of the row on the same page.
CREATE TABLE sessions (
    id               uuid        NOT NULL PRIMARY KEY,
    tenant_id        uuid        NOT NULL REFERENCES tenants (id),
    user_id          uuid        NOT NULL REFERENCES users (id),
    device_type      text        NOT NULL,
    device_id        text        NOT NULL,
    device_name      text        NOT NULL,
    slot             integer     NOT NULL,
    kid              text        NOT NULL,
    salt             bytea       NOT NULL,
    profile          text        NOT NULL,
    generation       bigint      NOT NULL,
    create_time      timestamptz NOT NULL,
    refresh_time     timestamptz NOT NULL,
    idle_expire_time timestamptz NOT NULL,
    expire_time      timestamptz NOT NULL,
    end_time         timestamptz,
    end_reason       text,
    first_address    text        NOT NULL,
    last_address     text        NOT NULL,
    user_agent       text        NOT NULL,
    CHECK ((end_time IS NULL) = (end_reason IS NULL))
) WITH (fillfactor = 85);
CREATE INDEX sessions_of_tenant ON sessions (tenant_id);
CREATE INDEX sessions_of_user ON sessions (user_id, id);
-- One live session in each place: what two logins at once can't get around.
CREATE UNIQUE INDEX sessions_in_slot ON sessions (user_id, device_type, slot) WHERE end_time IS NULL;

CREATE TABLE session_keys (
    kid                text  NOT NULL PRIMARY KEY,
    session_id         uuid  NOT NULL UNIQUE REFERENCES sessions (id),
    algorithm          text  NOT NULL,
    public_jwk         text  NOT NULL,
    sealed_private_key bytea NOT NULL
);

CREATE TABLE issuer_keys (
    kid                text        NOT NULL PRIMARY KEY,
    algorithm          text        NOT NULL,
    state              text        NOT NULL CHECK (state IN ('PREPARED', 'ACTIVE', 'RETIRED', 'REVOKED')),
    public_jwk         text        NOT NULL,
    sealed_private_key bytea       NOT NULL,
    create_time        timestamptz NOT NULL,
    activate_time      timestamptz
);
CREATE UNIQUE INDEX issuer_keys_active ON issuer_keys (algorithm) WHERE state = 'ACTIVE';

CREATE TABLE server_secrets (
    name   text  NOT NULL PRIMARY KEY,
    sealed bytea NOT NULL
);

-- The revision of the newest entry. Whoever appends raises it first and holds it until the commit, so
-- that revisions have no gap and follow the order of commits.
CREATE TABLE trust_head (
    id       integer NOT NULL PRIMARY KEY CHECK (id = 1),
    revision bigint  NOT NULL
);
INSERT INTO trust_head (id, revision) VALUES (1, 0);

CREATE TABLE trust_log (
    revision    bigint      NOT NULL PRIMARY KEY,
    kind        text        NOT NULL,
    subject     uuid        NOT NULL,
    version     bigint,
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL
);

-- Names no user by a foreign key: the trail outlives whom it tells of.
CREATE TABLE audit_events (
    id          uuid        NOT NULL PRIMARY KEY,
    tenant_id   uuid        NOT NULL,
    create_time timestamptz NOT NULL,
    action      text        NOT NULL,
    refusal     text,
    actor_id    uuid,
    target_type text        NOT NULL,
    target_id   uuid,
    address     text        NOT NULL,
    user_agent  text        NOT NULL,
    request_id  text        NOT NULL
);
CREATE INDEX audit_events_of_tenant ON audit_events (tenant_id, id);

CREATE FUNCTION audit_events_are_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is append-only';
END $$;
CREATE TRIGGER audit_events_are_final BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION audit_events_are_final();
