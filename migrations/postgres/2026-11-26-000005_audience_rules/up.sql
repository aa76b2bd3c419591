-- How tokens for an audience may be got, words separated by spaces; empty means in every way.
ALTER TABLE audiences ADD COLUMN allowed_grants text NOT NULL DEFAULT '';
-- Seconds that a token for it lives at most; without it, no less than elsewhere.
ALTER TABLE audiences ADD COLUMN token_ttl bigint;

-- Audiences that a service account is: what is for them is for it. Empty where it has not been said.
ALTER TABLE service_accounts ADD COLUMN own_audiences text NOT NULL DEFAULT '';
