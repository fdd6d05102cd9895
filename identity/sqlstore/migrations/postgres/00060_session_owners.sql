-- +goose Up
-- owner is who began a session, the only one who may use it: a user ID, or the
-- names of the homeservers at an address. Sessions from before have nobody.
ALTER TABLE sessions ADD COLUMN owner TEXT NOT NULL DEFAULT '';
DROP INDEX sessions_live;
CREATE UNIQUE INDEX sessions_live ON sessions (medium, address, secret_hash, owner) WHERE retired = 0;
CREATE INDEX sessions_owner ON sessions (owner) WHERE retired = 0;

-- How many wrong codes were tried for an address since since_ms, in all sessions
-- together. Only codes count that are short enough to be guessed.
CREATE TABLE wrong_guesses (
    medium   TEXT NOT NULL,
    address  TEXT NOT NULL,
    since_ms BIGINT NOT NULL,
    wrong    INTEGER NOT NULL,
    PRIMARY KEY (medium, address)
);
CREATE INDEX wrong_guesses_since ON wrong_guesses (since_ms);
