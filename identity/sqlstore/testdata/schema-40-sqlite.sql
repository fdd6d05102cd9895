CREATE TABLE goose_db_version (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		version_id INTEGER NOT NULL,
		is_applied INTEGER NOT NULL,
		tstamp TIMESTAMP DEFAULT (datetime('now'))
	);
INSERT INTO goose_db_version VALUES(1,0,1,'2026-01-01 00:00:00');
INSERT INTO goose_db_version VALUES(2,1,1,'2026-01-01 00:00:00');
INSERT INTO goose_db_version VALUES(3,2,1,'2026-01-01 00:00:00');
INSERT INTO goose_db_version VALUES(4,3,1,'2026-01-01 00:00:00');
INSERT INTO goose_db_version VALUES(5,10,1,'2026-01-01 00:00:00');
INSERT INTO goose_db_version VALUES(6,11,1,'2026-01-01 00:00:00');
INSERT INTO goose_db_version VALUES(7,20,1,'2026-01-01 00:00:00');
INSERT INTO goose_db_version VALUES(8,21,1,'2026-01-01 00:00:00');
INSERT INTO goose_db_version VALUES(9,40,1,'2026-01-01 00:00:00');
CREATE TABLE service (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    server_name TEXT NOT NULL
, key_id TEXT NOT NULL DEFAULT '');
INSERT INTO service VALUES(1,'id.example.org','ed25519:new');
CREATE TABLE tokens (
    hash    BLOB PRIMARY KEY,
    user_id TEXT NOT NULL,
    used_ms BIGINT NOT NULL
);
INSERT INTO tokens VALUES(X'531998e3d024d2a729d4e48fb70e90ab832a9e9244f447f050281aaba14385a0','@alice:example.org',1800000000123);
INSERT INTO tokens VALUES(X'e2017877ba08d58ae79f2e60f17f39ec08b50193c80020af07f2ec533bc35a24','@bob:example.net',1800000000123);
CREATE TABLE accepted_terms (
    user_id     TEXT NOT NULL,
    url         TEXT NOT NULL,
    accepted_ms BIGINT NOT NULL,
    PRIMARY KEY (user_id, url)
);
INSERT INTO accepted_terms VALUES('@alice:example.org','https://example.org/terms',1800000000123);
CREATE TABLE directory (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    bindings BIGINT NOT NULL
);
INSERT INTO directory VALUES(1,4);
CREATE TABLE bindings (
    id      INTEGER PRIMARY KEY,
    medium  TEXT NOT NULL,
    address TEXT NOT NULL,
    given   TEXT NOT NULL,
    user_id TEXT NOT NULL,
    ts_ms   BIGINT NOT NULL,
    UNIQUE (medium, address)
);
INSERT INTO bindings VALUES(1,'email','bob@example.com','','@bob:example.net',1800000000123);
INSERT INTO bindings VALUES(2,'email','carl@example.com','','@carl:example.com',1800000000123);
INSERT INTO bindings VALUES(3,'email','strauss@bücher.example','strauß@bücher.example','@alice:example.org',1800000000123);
INSERT INTO bindings VALUES(4,'msisdn','447700900001','','@alice:example.org',1800000000123);
CREATE TABLE peppers (
    id       BIGINT PRIMARY KEY,
    value    TEXT NOT NULL UNIQUE,
    state    TEXT NOT NULL CHECK (state IN ('next', 'current', 'previous', 'retired')),
    since_ms BIGINT,
    until_ms BIGINT,
    cursor   BIGINT NOT NULL DEFAULT 0
);
INSERT INTO peppers VALUES(1,'pepper1','previous',1800000000123,1800003600123,0);
INSERT INTO peppers VALUES(2,'pepper2','current',1800000000123,NULL,0);
INSERT INTO peppers VALUES(3,'pepper3','next',NULL,NULL,0);
CREATE TABLE hashes (
    digest     BLOB NOT NULL,
    pepper_id  BIGINT NOT NULL,
    binding_id BIGINT NOT NULL REFERENCES bindings (id) ON DELETE CASCADE,
    PRIMARY KEY (digest)
) WITHOUT ROWID;
INSERT INTO hashes VALUES(X'60fc6b6f850979449dcb69269472e8cb465c8874ead24dadb58adfac4cfc2523',1,1);
INSERT INTO hashes VALUES(X'036ee6be657e78bda2ca2f1f75b20697c6bccf641a3cf584766a8e2ab06310bb',2,1);
INSERT INTO hashes VALUES(X'0dcf4b3b0759ecb36555ece01217576230104bcfd5dd5b1fffd3d676c7e9297f',1,2);
INSERT INTO hashes VALUES(X'f1db887bf8fc3b5f86a569f13b8431fd3bda619e7c3ad75ba48be4b3a7f768f6',2,2);
INSERT INTO hashes VALUES(X'b2dfce9922aaad7eb28046917ace1924f0f72693db2aa5e5654b2632313dee13',1,3);
INSERT INTO hashes VALUES(X'faa95cb324b721cba4afb267eb946d1d2a20effc897c4b5a8b36a9a0749582e3',1,3);
INSERT INTO hashes VALUES(X'fe5e734efd158395b8b74e4136de5ed771bc8462edf81a83386ce8607bae5ad2',1,3);
INSERT INTO hashes VALUES(X'1b15cd0eee428cec158bca7809b978857581dff3456b44e0e031c83eb8daf8f3',2,3);
INSERT INTO hashes VALUES(X'cc389fc233f763d1fbb31cfce8b36976a8929703b2d0c4695d1204dd3f469d9e',2,3);
INSERT INTO hashes VALUES(X'e1d3fd3cf4ebcc88f0d97f4d914c06a8a38b5bbaa8652c5c0393d49c4c90f3b0',2,3);
INSERT INTO hashes VALUES(X'5790b4eb696dc0951ce1f2eaefb49426fd34d60573ccda1a19c3b9b6aae79376',1,4);
INSERT INTO hashes VALUES(X'950f323415bacf8390c4cfc94b3272471fca431b74a3c7a0320804dd562f0a47',2,4);
CREATE TABLE signing_keys (
    id    TEXT PRIMARY KEY,
    seed  TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('active', 'retired', 'compromised'))
);
CREATE TABLE sessions (
    sid             TEXT PRIMARY KEY,
    medium          TEXT NOT NULL,
    address         TEXT NOT NULL,
    secret_hash     BLOB NOT NULL,
    retired         INTEGER NOT NULL DEFAULT 0,
    expires_ms      BIGINT NOT NULL,
    validated_ms    BIGINT,
    validated_hash  BLOB,

    attempt         BIGINT,
    given           TEXT NOT NULL DEFAULT '',
    next_link       TEXT NOT NULL DEFAULT '',
    code_hash       BLOB,
    code_tries      INTEGER NOT NULL DEFAULT 0,
    code_expires_ms BIGINT,

    claim_id              TEXT,
    claim_until_ms        BIGINT,
    claim_attempt         BIGINT,
    claim_given           TEXT,
    claim_next_link       TEXT,
    claim_code_hash       BLOB,
    claim_code_tries      INTEGER NOT NULL DEFAULT 0,
    claim_code_expires_ms BIGINT
);
INSERT INTO sessions VALUES('open','email','dora@example.com',X'2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b',0,1800086400123,NULL,NULL,1,'','',X'5694d08a2e53ffcae0c3103e5ad6f6076abd960eb1f8a56577040bc1028f702b',0,1800003600123,NULL,NULL,NULL,NULL,NULL,NULL,0,NULL);
INSERT INTO sessions VALUES('validated','email','strauss@bücher.example',X'2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b',0,1800086400123,1800000000123,X'5694d08a2e53ffcae0c3103e5ad6f6076abd960eb1f8a56577040bc1028f702b',1,'','',X'5694d08a2e53ffcae0c3103e5ad6f6076abd960eb1f8a56577040bc1028f702b',0,1800003600123,NULL,NULL,NULL,NULL,NULL,NULL,0,NULL);
INSERT INTO sessions VALUES('retired','email','',X'2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b',1,1800003600123,NULL,NULL,NULL,'','',NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,NULL);
CREATE TABLE imports (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    begun_ms BIGINT NOT NULL
);
INSERT INTO imports VALUES(1,1800000000123);
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
INSERT INTO invites VALUES(1,'invite1',X'8174099687a26621f4e2cdd7cc03b3dacedb3fb962255b1aafd033cabe831530','ed25519:old','email','bob@example.com','!room:example.org','@alice:example.org','Lunch','m.space','mxc://example.org/a','Alice','Element',1800000000123,1807776000123,'@bob:example.net',1800000000123,'');
INSERT INTO invites VALUES(2,'invite2',X'b10253764c8b233fb37542e23401c7b450e5a6f9751f3b5a014f6f67e8bc999d','ed25519:old','email','carl@example.com','!room:example.org','@alice:example.org','Lunch','m.space','mxc://example.org/a','Alice','Element',1800000000123,1807776000123,'@carl:example.com',NULL,'M_FORBIDDEN');
INSERT INTO invites VALUES(3,'invite3',X'f576104eebeab09651d83acffc77c8b8c6eaa4b767aeab24d7da80f83f51d865','ed25519:old','email','dora@example.com','!room:example.org','@alice:example.org','Lunch','m.space','mxc://example.org/a','Alice','Element',1800000000123,1807776000123,NULL,NULL,'');
INSERT INTO invites VALUES(4,'invite4',X'a4b3504c2769fce9547f6dda310dd8b094d630a044d65f5324d4b37310aab714','ed25519:old','email','strauss@bücher.example','!room:example.org','@bob:example.net','Lunch','m.space','mxc://example.org/a','Alice','Element',1800000000123,1807776000123,'@alice:example.org',NULL,'');
INSERT INTO invites VALUES(5,'invite5',X'07e7394e0702340d9fd1d777fbbad2804a5188d1dd07ff580f473bd7645ff205','ed25519:old','email','strauss@bücher.example','!room:example.org','@bob:example.net','Lunch','m.space','mxc://example.org/a','Alice','Element',1800000000123,1807776000123,'@alice:example.org',NULL,'');
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
INSERT INTO deliveries VALUES(3,4,'email','strauss@bücher.example','@alice:example.org','example.org',1800000000123,1807776000123,1800000000123,0,'',0);
INSERT INTO deliveries VALUES(4,5,'email','strauss@bücher.example','@alice:example.org','example.org',1800000000123,1807776000123,1800000000123,0,'',0);
INSERT INTO deliveries VALUES(5,NULL,'msisdn','447700900001','@alice:example.org','example.org',1800000000123,1800086400123,1800000000123,0,'',0);
CREATE TABLE imported_keys (
    public_key BLOB PRIMARY KEY,
    expires_ms BIGINT NOT NULL
);
INSERT INTO imported_keys VALUES(X'5f54227b74fbba7743c47cd286b4873f2e17331518d56facfc03e34cde4a0950',1807776000123);
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('goose_db_version',9);
INSERT INTO sqlite_sequence VALUES('invites',5);
INSERT INTO sqlite_sequence VALUES('deliveries',5);
CREATE INDEX tokens_user ON tokens (user_id);
CREATE INDEX tokens_used ON tokens (used_ms);
CREATE INDEX accepted_terms_accepted ON accepted_terms (accepted_ms);
CREATE INDEX bindings_user ON bindings (user_id);
CREATE UNIQUE INDEX peppers_single ON peppers (state) WHERE state IN ('next', 'current');
CREATE INDEX hashes_binding ON hashes (binding_id, pepper_id);
CREATE UNIQUE INDEX signing_keys_active ON signing_keys (state) WHERE state = 'active';
CREATE UNIQUE INDEX sessions_live ON sessions (medium, address, secret_hash) WHERE retired = 0;
CREATE INDEX sessions_expires ON sessions (retired, expires_ms);
CREATE INDEX invites_address ON invites (medium, address);
CREATE INDEX invites_sender ON invites (sender);
CREATE INDEX invites_taken ON invites (taken_by);
CREATE INDEX invites_expires ON invites (expires_ms);
CREATE INDEX invites_used ON invites (used_ms);
CREATE INDEX deliveries_due ON deliveries (due_ms);
CREATE INDEX deliveries_until ON deliveries (until_ms);
CREATE INDEX deliveries_claim ON deliveries (claim);
CREATE INDEX deliveries_server ON deliveries (server, lease_ms);
CREATE INDEX deliveries_address ON deliveries (medium, address);
CREATE INDEX deliveries_user ON deliveries (user_id);
CREATE INDEX deliveries_invite ON deliveries (invite_id);
CREATE INDEX imported_keys_expires ON imported_keys (expires_ms);
