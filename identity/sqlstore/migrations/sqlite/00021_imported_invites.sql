-- +goose Up
-- The keys of invites that another identity server mailed. It did not say which
-- invite a key is of; those invites have a placeholder as their ephemeral key.
CREATE TABLE imported_keys (
    public_key BLOB PRIMARY KEY,
    expires_ms BIGINT NOT NULL
);
CREATE INDEX imported_keys_expires ON imported_keys (expires_ms);
