-- +goose Up
-- One row: the number of bindings, and the lock that every change of bindings
-- and peppers takes first.
CREATE TABLE directory (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    bindings BIGINT NOT NULL
);
INSERT INTO directory (id, bindings) VALUES (1, 0);

CREATE TABLE bindings (
    id      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    medium  TEXT NOT NULL,
    address TEXT NOT NULL,
    given   TEXT NOT NULL,
    user_id TEXT NOT NULL,
    ts_ms   BIGINT NOT NULL,
    UNIQUE (medium, address)
);
CREATE INDEX bindings_user ON bindings (user_id);

-- cursor is the last binding whose digests were computed (next) or removed
-- (retired).
CREATE TABLE peppers (
    id       BIGINT PRIMARY KEY,
    value    TEXT NOT NULL UNIQUE,
    state    TEXT NOT NULL CHECK (state IN ('next', 'current', 'previous', 'retired')),
    since_ms BIGINT,
    until_ms BIGINT,
    cursor   BIGINT NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX peppers_single ON peppers (state) WHERE state IN ('next', 'current');

-- The digest of each spelling of a binding's address under each pepper. A digest
-- belongs to one pepper and one address, so it is the key; the other columns are
-- in the index to answer lookups from it alone.
CREATE TABLE hashes (
    digest     BYTEA NOT NULL,
    pepper_id  BIGINT NOT NULL,
    binding_id BIGINT NOT NULL REFERENCES bindings (id) ON DELETE CASCADE,
    PRIMARY KEY (digest) INCLUDE (pepper_id, binding_id)
);
CREATE INDEX hashes_binding ON hashes (binding_id, pepper_id);
