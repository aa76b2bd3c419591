-- Programs that can authenticate, and what they may ask tokens for. Lists of words are one text, separated by spaces.
CREATE TABLE service_accounts (
    id                uuid        NOT NULL PRIMARY KEY,
    tenant_id         uuid        NOT NULL REFERENCES tenants (id),
    name              text        NOT NULL,
    display_name      text        NOT NULL,
    allowed_audiences text        NOT NULL,
    allowed_scopes    text        NOT NULL,
    allowed_grants    text        NOT NULL,
    -- Seconds; where it has none of its own, the settings count.
    token_ttl         bigint,
    token_version     bigint      NOT NULL,
    disable_time      timestamptz,
    create_time       timestamptz NOT NULL,
    update_time       timestamptz NOT NULL,
    UNIQUE (tenant_id, name)
);

-- What they prove themselves with. What each kind needs beside the digest of a secret is JSON.
CREATE TABLE service_credentials (
    id                 uuid        NOT NULL PRIMARY KEY,
    service_account_id uuid        NOT NULL REFERENCES service_accounts (id),
    kind               text        NOT NULL,
    digest             bytea,
    detail             text        NOT NULL,
    create_time        timestamptz NOT NULL,
    expire_time        timestamptz
);
CREATE INDEX service_credentials_of_account ON service_credentials (service_account_id);

-- Assertions that were used, each good once (RFC 7523 section 3): a digest of who and its jti.
CREATE TABLE used_assertions (
    digest      bytea       NOT NULL PRIMARY KEY,
    expire_time timestamptz NOT NULL
);
CREATE INDEX used_assertions_by_end ON used_assertions (expire_time);

-- Scopes that an audience has; empty where it has not said.
ALTER TABLE audiences ADD COLUMN scopes text NOT NULL DEFAULT '';

-- Raised with each change of a service account or a credential.
ALTER TABLE trust_head ADD COLUMN services bigint NOT NULL DEFAULT 0;
