-- +goose Up
-- When a server last tried whether the database can be written to.
ALTER TABLE service ADD COLUMN tried_ms BIGINT NOT NULL DEFAULT 0;
