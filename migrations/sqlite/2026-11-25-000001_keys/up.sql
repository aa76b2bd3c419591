-- An issuer key's life: columns are set when it enters the state of their name.
ALTER TABLE issuer_keys ADD COLUMN expire_time integer;
ALTER TABLE issuer_keys ADD COLUMN retire_time integer;
ALTER TABLE issuer_keys ADD COLUMN revoke_time integer;
-- One key of each algorithm waits for its turn, whichever replica made it.
CREATE UNIQUE INDEX issuer_keys_prepared ON issuer_keys (algorithm) WHERE state = 'PREPARED';

-- An entry about an issuer key names it here; its subject is the nil id.
ALTER TABLE trust_log ADD COLUMN kid text;
-- Raised with each change of what admins register: tenants' signing, audiences, trusted issuers.
ALTER TABLE trust_head ADD COLUMN registry integer NOT NULL DEFAULT 0;

-- Algorithms that a tenant has instead of the configured ones.
ALTER TABLE tenants ADD COLUMN algorithm text;
ALTER TABLE tenants ADD COLUMN session_algorithm text;

-- RSA key pairs made ahead of need. One that is taken is deleted in the same transaction.
CREATE TABLE spare_keys (
    kid                text    NOT NULL PRIMARY KEY,
    bits               integer NOT NULL,
    public_jwk         text    NOT NULL,
    sealed_private_key blob    NOT NULL,
    create_time        integer NOT NULL
) STRICT;
CREATE INDEX spare_keys_by_age ON spare_keys (bits, create_time);

-- Services that tokens are for and that want them made in a way of their own.
CREATE TABLE audiences (
    id             blob    NOT NULL PRIMARY KEY,
    name           text    NOT NULL UNIQUE,
    display_name   text    NOT NULL,
    signing        text    NOT NULL CHECK (signing IN ('PUBLIC_KEY', 'HS256')),
    encryption_jwk text,
    create_time    integer NOT NULL,
    update_time    integer NOT NULL
) STRICT;
-- Secrets of HS256 audiences, sealed: one that signs, and while it is exchanged the one before or after it.
CREATE TABLE audience_secrets (
    kid           text    NOT NULL PRIMARY KEY,
    audience_id   blob    NOT NULL REFERENCES audiences (id),
    sealed        blob    NOT NULL,
    create_time   integer NOT NULL,
    activate_time integer NOT NULL
) STRICT;
CREATE INDEX audience_secrets_of_audience ON audience_secrets (audience_id);

-- Other issuers whose tokens are believed. Lists of words are one text, separated by spaces.
CREATE TABLE trusted_issuers (
    id            blob    NOT NULL PRIMARY KEY,
    issuer        text    NOT NULL UNIQUE,
    display_name  text    NOT NULL,
    jwks_url      text,
    jwks_json     text,
    audiences     text    NOT NULL,
    algorithms    text    NOT NULL,
    claim_mapping text    NOT NULL,
    create_time   integer NOT NULL,
    update_time   integer NOT NULL,
    CHECK ((jwks_url IS NULL) <> (jwks_json IS NULL))
) STRICT;

-- The name of what has no id: an issuer key's kid, an audience.
ALTER TABLE audit_events ADD COLUMN target_name text;
