-- +goose Up
-- What was removed here on purpose, so that no import brings it back: fingerprints,
-- under a salt of this database, of bindings, addresses, users, access tokens and
-- invites. removed_by is the operator who did it, '' for whoever it belonged to.
CREATE TABLE removals (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint BYTEA NOT NULL,
    kind        TEXT NOT NULL,
    removed_ms  BIGINT NOT NULL,
    removed_by  TEXT NOT NULL
);
CREATE INDEX removals_fingerprint ON removals (fingerprint);
CREATE UNIQUE INDEX removals_own ON removals (fingerprint) WHERE removed_by = '';
ALTER TABLE directory ADD COLUMN salt TEXT NOT NULL DEFAULT '';
UPDATE directory SET salt = CAST(gen_random_uuid() AS TEXT);

-- Only a token that came from another identity server can come again.
ALTER TABLE tokens ADD COLUMN imported INTEGER NOT NULL DEFAULT 0;
