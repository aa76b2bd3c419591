//! The tables as diesel knows them, for both databases.
#![allow(missing_docs, reason = "the migrations describe the tables")]

diesel::table! {
    use diesel::sql_types::{BigInt, Nullable, Text};
    use crate::models::columns::{DbTime, DbUuid};

    tenants (id) {
        id -> DbUuid,
        name -> Text,
        display_name -> Text,
        create_time -> DbTime,
        algorithm -> Nullable<Text>,
        session_algorithm -> Nullable<Text>,
        suspend_time -> Nullable<DbTime>,
        standing -> BigInt,
        session_policy -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Bool, Nullable, Text};
    use crate::models::columns::{DbTime, DbUuid};

    users (id) {
        id -> DbUuid,
        tenant_id -> DbUuid,
        username -> Text,
        password_hash -> Text,
        password_change_required -> Bool,
        email -> Nullable<Text>,
        display_name -> Text,
        roles -> Text,
        token_version -> BigInt,
        disable_time -> Nullable<DbTime>,
        create_time -> DbTime,
        update_time -> DbTime,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text};
    use crate::models::columns::{DbTime, DbUuid};

    sessions (id) {
        id -> DbUuid,
        tenant_id -> DbUuid,
        user_id -> DbUuid,
        device_type -> Text,
        device_id -> Text,
        device_name -> Text,
        slot -> Integer,
        kid -> Text,
        salt -> Binary,
        profile -> Text,
        generation -> BigInt,
        create_time -> DbTime,
        refresh_time -> DbTime,
        idle_expire_time -> DbTime,
        expire_time -> DbTime,
        end_time -> Nullable<DbTime>,
        end_reason -> Nullable<Text>,
        first_address -> Text,
        last_address -> Text,
        user_agent -> Text,
        last_seen_time -> Nullable<DbTime>,
        last_network -> Text,
        last_seen_address -> Text,
        dpop_jkt -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::{Binary, Text};
    use crate::models::columns::{DbUuid};

    session_keys (kid) {
        kid -> Text,
        session_id -> DbUuid,
        algorithm -> Text,
        public_jwk -> Text,
        sealed_private_key -> Binary,
    }
}

diesel::table! {
    use diesel::sql_types::{Binary, Nullable, Text};
    use crate::models::columns::{DbTime};

    issuer_keys (kid) {
        kid -> Text,
        algorithm -> Text,
        state -> Text,
        public_jwk -> Text,
        sealed_private_key -> Binary,
        create_time -> DbTime,
        activate_time -> Nullable<DbTime>,
        expire_time -> Nullable<DbTime>,
        retire_time -> Nullable<DbTime>,
        revoke_time -> Nullable<DbTime>,
    }
}

diesel::table! {
    use diesel::sql_types::{Binary, Integer, Text};
    use crate::models::columns::{DbTime};

    spare_keys (kid) {
        kid -> Text,
        bits -> Integer,
        public_jwk -> Text,
        sealed_private_key -> Binary,
        create_time -> DbTime,
    }
}

diesel::table! {
    use diesel::sql_types::{Binary, Text};

    server_secrets (name) {
        name -> Text,
        sealed -> Binary,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Integer};

    trust_head (id) {
        id -> Integer,
        revision -> BigInt,
        registry -> BigInt,
        services -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Nullable, Text};
    use crate::models::columns::{DbTime, DbUuid};

    trust_log (revision) {
        revision -> BigInt,
        kind -> Text,
        subject -> DbUuid,
        version -> Nullable<BigInt>,
        create_time -> DbTime,
        expire_time -> DbTime,
        kid -> Nullable<Text>,
        owner -> Nullable<DbUuid>,
    }
}

diesel::table! {
    use diesel::sql_types::{Nullable, Text};
    use crate::models::columns::{DbTime, DbUuid};

    audit_events (id) {
        id -> DbUuid,
        tenant_id -> DbUuid,
        create_time -> DbTime,
        action -> Text,
        refusal -> Nullable<Text>,
        actor_id -> Nullable<DbUuid>,
        target_type -> Text,
        target_id -> Nullable<DbUuid>,
        address -> Text,
        user_agent -> Text,
        request_id -> Text,
        target_name -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::Integer;
    use crate::models::columns::DbTime;

    audit_trail (id) {
        id -> Integer,
        begin_time -> DbTime,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Nullable, Text};
    use crate::models::columns::{DbTime, DbUuid};

    audiences (id) {
        id -> DbUuid,
        name -> Text,
        display_name -> Text,
        signing -> Text,
        encryption_jwk -> Nullable<Text>,
        scopes -> Text,
        allowed_grants -> Text,
        token_ttl -> Nullable<BigInt>,
        create_time -> DbTime,
        update_time -> DbTime,
    }
}

diesel::table! {
    use diesel::sql_types::{Binary, Text};
    use crate::models::columns::{DbTime, DbUuid};

    audience_secrets (kid) {
        kid -> Text,
        audience_id -> DbUuid,
        sealed -> Binary,
        create_time -> DbTime,
        activate_time -> DbTime,
    }
}

diesel::table! {
    use diesel::sql_types::{Nullable, Text};
    use crate::models::columns::{DbTime, DbUuid};

    trusted_issuers (id) {
        id -> DbUuid,
        issuer -> Text,
        display_name -> Text,
        jwks_url -> Nullable<Text>,
        jwks_json -> Nullable<Text>,
        audiences -> Text,
        algorithms -> Text,
        claim_mapping -> Text,
        create_time -> DbTime,
        update_time -> DbTime,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Nullable, Text};
    use crate::models::columns::{DbTime, DbUuid};

    service_accounts (id) {
        id -> DbUuid,
        tenant_id -> DbUuid,
        name -> Text,
        display_name -> Text,
        allowed_audiences -> Text,
        allowed_scopes -> Text,
        allowed_grants -> Text,
        own_audiences -> Text,
        token_ttl -> Nullable<BigInt>,
        token_version -> BigInt,
        disable_time -> Nullable<DbTime>,
        create_time -> DbTime,
        update_time -> DbTime,
    }
}

diesel::table! {
    use diesel::sql_types::{Binary, Nullable, Text};
    use crate::models::columns::{DbTime, DbUuid};

    service_credentials (id) {
        id -> DbUuid,
        service_account_id -> DbUuid,
        kind -> Text,
        digest -> Nullable<Binary>,
        detail -> Text,
        create_time -> DbTime,
        expire_time -> Nullable<DbTime>,
    }
}

diesel::table! {
    use diesel::sql_types::Binary;
    use crate::models::columns::DbTime;

    used_assertions (digest) {
        digest -> Binary,
        expire_time -> DbTime,
    }
}

diesel::joinable!(users -> tenants (tenant_id));
diesel::joinable!(session_keys -> sessions (session_id));
diesel::allow_tables_to_appear_in_same_query!(tenants, users, sessions, session_keys);
diesel::allow_tables_to_appear_in_same_query!(trust_head, trust_log);
