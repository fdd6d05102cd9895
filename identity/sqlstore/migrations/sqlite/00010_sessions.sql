-- +goose Up
-- A live session: what proves the address, up to two codes (the one that was
-- sent last, and in claim_* the one that is being sent), and what follows. It
-- expires at expires_ms, a day after it was begun or validated. A retired row
-- remembers only that a session expired; its address and codes are gone.
--
-- *_hash are HMAC-SHA-256 of client_secret and codes under a key that is not in
-- this database. attempt is NULL until a message was sent; validated_hash is the
-- code that validated the session last.
CREATE TABLE sessions (
    sid             TEXT PRIMARY KEY,
    medium          TEXT NOT NULL,
    address         TEXT NOT NULL,
    secret_hash     BLOB NOT NULL,
    retired         INTEGER NOT NULL DEFAULT 0,
    expires_ms      BIGINT NOT NULL,
    validated_ms    BIGINT,
    validated_hash  BLOB,

    attempt         BIGINT,
    given           TEXT NOT NULL DEFAULT '',
    next_link       TEXT NOT NULL DEFAULT '',
    code_hash       BLOB,
    code_tries      INTEGER NOT NULL DEFAULT 0,
    code_expires_ms BIGINT,

    claim_id              TEXT,
    claim_until_ms        BIGINT,
    claim_attempt         BIGINT,
    claim_given           TEXT,
    claim_next_link       TEXT,
    claim_code_hash       BLOB,
    claim_code_tries      INTEGER NOT NULL DEFAULT 0,
    claim_code_expires_ms BIGINT
);
CREATE UNIQUE INDEX sessions_live ON sessions (medium, address, secret_hash) WHERE retired = 0;
CREATE INDEX sessions_expires ON sessions (retired, expires_ms);
