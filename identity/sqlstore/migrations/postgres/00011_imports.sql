-- +goose Up
-- One row once an import from another identity server has come to its end:
-- begun_ms is when it began to read, so that a later one can tell what is new.
CREATE TABLE imports (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    begun_ms BIGINT NOT NULL
);
