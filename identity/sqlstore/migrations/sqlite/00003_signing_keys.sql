-- +goose Up
CREATE TABLE signing_keys (
    id    TEXT PRIMARY KEY,
    seed  TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('active', 'retired', 'compromised'))
);
CREATE UNIQUE INDEX signing_keys_active ON signing_keys (state) WHERE state = 'active';
