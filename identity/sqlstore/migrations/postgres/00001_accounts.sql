-- +goose Up
-- The name under which this database's bindings are signed and its accounts registered.
CREATE TABLE service (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    server_name TEXT NOT NULL
);

-- hash is the SHA-256 of the access token; used_ms is exact to a day.
CREATE TABLE tokens (
    hash    BYTEA PRIMARY KEY,
    user_id TEXT NOT NULL,
    used_ms BIGINT NOT NULL
);
CREATE INDEX tokens_user ON tokens (user_id);
CREATE INDEX tokens_used ON tokens (used_ms);

CREATE TABLE accepted_terms (
    user_id     TEXT NOT NULL,
    url         TEXT NOT NULL,
    accepted_ms BIGINT NOT NULL,
    PRIMARY KEY (user_id, url)
);
CREATE INDEX accepted_terms_accepted ON accepted_terms (accepted_ms);
