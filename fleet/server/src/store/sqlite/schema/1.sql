-- Times are nanoseconds since the Unix epoch, digests are 32 bytes. Texts of JSON carry their own version.

CREATE TABLE counter (
    name TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Devices.

CREATE TABLE device (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tags TEXT NOT NULL,
    is_builder INTEGER NOT NULL,
    enrolled_at INTEGER NOT NULL,
    seen INTEGER,
    report TEXT,
    details TEXT
) STRICT;

-- Certificates outlive their devices, so that they stay revoked.
CREATE TABLE certificate (
    serial TEXT NOT NULL PRIMARY KEY,
    device TEXT NOT NULL,
    issued_at INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX certificate_of_device ON certificate (device, issued_at);
CREATE INDEX certificate_by_end ON certificate (not_after);
CREATE INDEX certificate_revoked ON certificate (serial) WHERE revoked_at IS NOT NULL;

CREATE TABLE enrolment_token (
    hash BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    scope TEXT NOT NULL,
    uses_left INTEGER NOT NULL CHECK (uses_left >= 0),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE registered_key (
    spki BLOB NOT NULL PRIMARY KEY,
    device TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX registered_key_of_device ON registered_key (device);

-- What is deployed.

CREATE TABLE blob (
    digest BLOB NOT NULL PRIMARY KEY,
    bytes INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE artefact (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    labels TEXT NOT NULL,
    description TEXT NOT NULL,
    licence TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE version (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL UNIQUE REFERENCES blob (digest),
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    parents TEXT NOT NULL,
    lineage TEXT NOT NULL,
    reports TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    signer TEXT NOT NULL,
    signature TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    UNIQUE (kind, name, version),
    FOREIGN KEY (kind, name) REFERENCES artefact (kind, name)
) STRICT;

CREATE TABLE version_file (
    version INTEGER NOT NULL REFERENCES version (number) ON DELETE CASCADE,
    path TEXT NOT NULL,
    digest BLOB NOT NULL REFERENCES blob (digest),
    bytes INTEGER NOT NULL,
    PRIMARY KEY (version, path)
) STRICT, WITHOUT ROWID;
CREATE INDEX version_file_by_digest ON version_file (digest);

CREATE TABLE plan (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL UNIQUE REFERENCES blob (digest),
    bundle BLOB NOT NULL REFERENCES version (digest) ON DELETE CASCADE,
    class TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    builder TEXT NOT NULL,
    signer TEXT NOT NULL,
    latency_ms REAL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX plan_by_bundle ON plan (bundle, class);

-- Policy and blueprint.

CREATE TABLE limits (
    only INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
    limits TEXT NOT NULL,
    seed TEXT NOT NULL
) STRICT;

CREATE TABLE rollout (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    rollout TEXT NOT NULL,
    title TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE blueprint (
    only INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
    number INTEGER NOT NULL,
    parent INTEGER,
    recent TEXT NOT NULL
) STRICT;
INSERT INTO blueprint VALUES (1, 0, NULL, '{"version":1,"content":{}}');

CREATE TABLE target (
    device TEXT NOT NULL PRIMARY KEY,
    target TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE rollout_state (
    rollout INTEGER NOT NULL PRIMARY KEY,
    state TEXT NOT NULL
) STRICT;

CREATE TABLE member (
    rollout INTEGER NOT NULL,
    device TEXT NOT NULL,
    member TEXT NOT NULL,
    PRIMARY KEY (rollout, device)
) STRICT, WITHOUT ROWID;

-- Commands and events.

CREATE TABLE command (
    number INTEGER NOT NULL PRIMARY KEY,
    device INTEGER NOT NULL REFERENCES device (key) ON DELETE CASCADE,
    ask TEXT NOT NULL,
    by TEXT NOT NULL,
    issued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'sent', 'done', 'failed', 'expired')),
    text TEXT NOT NULL,
    answer BLOB REFERENCES blob (digest),
    media_type TEXT
) STRICT;
CREATE INDEX command_of_device ON command (device, number);
CREATE INDEX command_open ON command (device, number) WHERE state IN ('queued', 'sent');
CREATE INDEX command_queued ON command (number) WHERE state = 'queued';
CREATE INDEX command_answer ON command (answer) WHERE answer IS NOT NULL;

CREATE TABLE event (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    device INTEGER NOT NULL REFERENCES device (key) ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    level INTEGER NOT NULL,
    name TEXT NOT NULL,
    event TEXT NOT NULL,
    at INTEGER NOT NULL,
    UNIQUE (device, sequence)
) STRICT;
CREATE INDEX event_of_device ON event (device, number);
CREATE INDEX event_of_trouble ON event (number) WHERE level > 0;
CREATE INDEX event_by_name ON event (name, number);

-- What was measured.

CREATE TABLE bucket (
    device INTEGER NOT NULL REFERENCES device (key) ON DELETE CASCADE,
    gauge INTEGER NOT NULL,
    step INTEGER NOT NULL,
    start INTEGER NOT NULL,
    samples INTEGER NOT NULL,
    sum REAL NOT NULL,
    min REAL NOT NULL,
    max REAL NOT NULL,
    PRIMARY KEY (device, gauge, step, start)
) STRICT, WITHOUT ROWID;

-- Alerts.

CREATE TABLE alert_rule (
    name TEXT NOT NULL PRIMARY KEY,
    filter TEXT NOT NULL,
    condition TEXT NOT NULL,
    webhook TEXT,
    is_enabled INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE alert (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    rule TEXT NOT NULL REFERENCES alert_rule (name) ON DELETE CASCADE,
    device INTEGER NOT NULL REFERENCES device (key) ON DELETE CASCADE,
    text TEXT NOT NULL,
    raised_at INTEGER NOT NULL,
    resolved_at INTEGER
) STRICT;
CREATE UNIQUE INDEX alert_raised ON alert (rule, device) WHERE resolved_at IS NULL;
CREATE INDEX alert_of_device ON alert (device);
CREATE INDEX alert_resolved ON alert (number) WHERE resolved_at IS NOT NULL;

-- People.

CREATE TABLE user (
    name TEXT NOT NULL PRIMARY KEY,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    password_hash TEXT NOT NULL,
    is_disabled INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_token (
    hash BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    last_used INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE browser_session (
    hash BLOB NOT NULL PRIMARY KEY,
    user TEXT NOT NULL REFERENCES user (name) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX browser_session_of_user ON browser_session (user);
CREATE INDEX browser_session_by_end ON browser_session (expires_at);

-- The chain of changes.

CREATE TABLE audit (
    number INTEGER NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    details TEXT NOT NULL,
    previous BLOB NOT NULL,
    digest BLOB NOT NULL
) STRICT;
CREATE TRIGGER audit_keeps_entries BEFORE DELETE ON audit
BEGIN
    SELECT raise(ABORT, 'entries of the audit log are never removed');
END;
CREATE TRIGGER audit_keeps_content BEFORE UPDATE ON audit
BEGIN
    SELECT raise(ABORT, 'entries of the audit log are never changed');
END;
