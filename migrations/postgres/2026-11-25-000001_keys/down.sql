ALTER TABLE audit_events DROP COLUMN target_name;
DROP TABLE trusted_issuers, audience_secrets, audiences, spare_keys;
ALTER TABLE tenants DROP COLUMN session_algorithm, DROP COLUMN algorithm;
ALTER TABLE trust_head DROP COLUMN registry;
ALTER TABLE trust_log DROP COLUMN kid;
DROP INDEX issuer_keys_prepared;
ALTER TABLE issuer_keys DROP COLUMN revoke_time, DROP COLUMN retire_time, DROP COLUMN expire_time;
