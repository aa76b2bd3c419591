ALTER TABLE trust_head DROP COLUMN services;
ALTER TABLE audiences DROP COLUMN scopes;
DROP TABLE used_assertions;
DROP TABLE service_credentials;
DROP TABLE service_accounts;
