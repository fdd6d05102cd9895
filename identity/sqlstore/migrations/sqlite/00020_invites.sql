-- +goose Up
-- Invites of addresses that nobody had bound. taken_by is the user whose bind
-- took the invite; it is not offered to a later one. used_ms is when that user's
-- homeserver was told. The private half of ephemeral is in the mail only.
CREATE TABLE invites (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    token       TEXT NOT NULL UNIQUE,
    ephemeral   BLOB NOT NULL UNIQUE,
    key_id      TEXT NOT NULL,
    medium      TEXT NOT NULL,
    address     TEXT NOT NULL,
    room_id     TEXT NOT NULL,
    sender      TEXT NOT NULL,
    room_name   TEXT NOT NULL,
    room_type   TEXT NOT NULL,
    room_avatar TEXT NOT NULL,
    sender_name TEXT NOT NULL,
    client      TEXT NOT NULL,
    created_ms  BIGINT NOT NULL,
    expires_ms  BIGINT NOT NULL,
    taken_by    TEXT,
    used_ms     BIGINT,
    failure     TEXT NOT NULL DEFAULT ''
);
CREATE INDEX invites_address ON invites (medium, address);
CREATE INDEX invites_sender ON invites (sender);
CREATE INDEX invites_taken ON invites (taken_by);
CREATE INDEX invites_expires ON invites (expires_ms);
CREATE INDEX invites_used ON invites (used_ms);

-- What homeservers are to be told: that one of their users bound an address at
-- ts_ms, and an invite that waited for it, if there was one. Whoever has set
-- claim makes the delivery until lease_ms. After until_ms nobody does.
CREATE TABLE deliveries (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    invite_id BIGINT REFERENCES invites (id) ON DELETE CASCADE,
    medium    TEXT NOT NULL,
    address   TEXT NOT NULL,
    user_id   TEXT NOT NULL,
    server    TEXT NOT NULL,
    ts_ms     BIGINT NOT NULL,
    until_ms  BIGINT NOT NULL,
    due_ms    BIGINT NOT NULL,
    attempts  BIGINT NOT NULL DEFAULT 0,
    claim     TEXT NOT NULL DEFAULT '',
    lease_ms  BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX deliveries_due ON deliveries (due_ms);
CREATE INDEX deliveries_until ON deliveries (until_ms);
CREATE INDEX deliveries_claim ON deliveries (claim);
CREATE INDEX deliveries_server ON deliveries (server, lease_ms);
CREATE INDEX deliveries_address ON deliveries (medium, address);
CREATE INDEX deliveries_user ON deliveries (user_id);
CREATE INDEX deliveries_invite ON deliveries (invite_id);
