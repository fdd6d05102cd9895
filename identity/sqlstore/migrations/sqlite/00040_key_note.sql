-- +goose Up
-- The ID of the signing key that was active when the key file was last looked at,
-- '' for none. The keys themselves are in a file beside this database.
ALTER TABLE service ADD COLUMN key_id TEXT NOT NULL DEFAULT '';
