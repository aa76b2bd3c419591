-- The thumbprint of the key that the session's tokens are bound to (RFC 9449), where they are.
ALTER TABLE sessions ADD COLUMN dpop_jkt text;
