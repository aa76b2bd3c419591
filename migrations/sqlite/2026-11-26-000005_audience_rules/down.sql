ALTER TABLE service_accounts DROP COLUMN own_audiences;
ALTER TABLE audiences DROP COLUMN token_ttl;
ALTER TABLE audiences DROP COLUMN allowed_grants;
