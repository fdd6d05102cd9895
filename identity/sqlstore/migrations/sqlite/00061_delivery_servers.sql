-- +goose Up
-- The homeservers that there is something to tell, so that the next one is found
-- without looking at all deliveries: due_ms is when the first delivery to one is.
-- Whoever has set claim tells it until lease_ms. took is 1 when it took all that it
-- was told last, and may be told several things at once.
CREATE TABLE delivery_servers (
    server   TEXT PRIMARY KEY,
    due_ms   BIGINT NOT NULL,
    claim    TEXT NOT NULL DEFAULT '',
    lease_ms BIGINT NOT NULL DEFAULT 0,
    took     INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX delivery_servers_due ON delivery_servers (due_ms);
INSERT INTO delivery_servers (server, due_ms) SELECT server, MIN(due_ms) FROM deliveries GROUP BY server;
DROP INDEX deliveries_due;
DROP INDEX deliveries_claim;
DROP INDEX deliveries_server;
ALTER TABLE deliveries DROP COLUMN claim;
ALTER TABLE deliveries DROP COLUMN lease_ms;
CREATE INDEX deliveries_next ON deliveries (server, due_ms, id);
