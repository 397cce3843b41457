PRAGMA application_id = 1381385286;
PRAGMA user_version = 1;
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE counter (
    name TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
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
INSERT INTO device VALUES(1,'cam-1','{"version":1,"content":["north"]}',0,1780000000000000000,1780000060000000000,'{"version":1,"content":{"sequence":5,"generation":3,"progress":{"working":{"what":"fetches"}},"running":{"model":"sha256:0101010101010101010101010101010101010101010101010101010101010101"},"figures":{"over":{"secs":0,"nanos":0},"restarts":0,"fps":0.30000000000000004,"latency_ms":0.3333333333333333,"agreement":null,"temperature_c":null}}}','{"version":1,"content":{"streams":[{"stream":"door","frames":7,"fps":24.9,"dropped":0,"reconnects":0,"trouble":null}],"version":"1.2.3","class":{"module":"Orin Nano","architecture":"sm_87","multiprocessors":8,"tensorrt":{"flavour":"full","major":10,"minor":3,"patch":0},"cuda":[12,6]},"facts":{"site":"north"},"refused":null,"slots":[]}}');
CREATE TABLE certificate (
    serial TEXT NOT NULL PRIMARY KEY,
    device TEXT NOT NULL,
    issued_at INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;
INSERT INTO certificate VALUES('0a','cam-1',1780000000000000000,1780001000000000000,1780000002000000000);
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
CREATE TABLE blob (
    digest BLOB NOT NULL PRIMARY KEY,
    bytes INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO blob VALUES(X'0101010101010101010101010101010101010101010101010101010101010101',10,1780000000000000000);
INSERT INTO blob VALUES(X'6565656565656565656565656565656565656565656565656565656565656565',20,1780000000000000000);
CREATE TABLE artefact (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    labels TEXT NOT NULL,
    description TEXT NOT NULL,
    licence TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
INSERT INTO artefact VALUES('model','people','{"version":1,"content":["doors","people"]}','Finds people.','Apache-2.0',1780000000000000000);
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
INSERT INTO version VALUES(1,X'0101010101010101010101010101010101010101010101010101010101010101','model','people','1.0.1','{"version":1,"content":["sha256:0000000000000000000000000000000000000000000000000000000000000000"]}','{"version":1,"content":{"source":"sha256:6363636363636363636363636363636363636363636363636363636363636363","parent":"sha256:0000000000000000000000000000000000000000000000000000000000000000","steps":["fp16"]}}','{"version":1,"content":{"accuracy":{"map":0.30000000000000004}}}',30,'ed25519:d3443c9a5ad39916a25c186c4e8320a02209975da1cd16965fe9d4974fab2adc','{"version":1,"content":{"key":"ed25519:d3443c9a5ad39916a25c186c4e8320a02209975da1cd16965fe9d4974fab2adc","signature":"3392f56e1cc7c8784059189d321f9880c034eef52f835514f80e15b89e366f45ede5c247d6b4337adb1360bd1f2fe4fdf41286a1508b8b662afb5a27f5287109"}}',1780000001000000000,'{"version":1,"content":{"user":"anna"}}');
CREATE TABLE version_file (
    version INTEGER NOT NULL REFERENCES version (number) ON DELETE CASCADE,
    path TEXT NOT NULL,
    digest BLOB NOT NULL REFERENCES blob (digest),
    bytes INTEGER NOT NULL,
    PRIMARY KEY (version, path)
) STRICT, WITHOUT ROWID;
INSERT INTO version_file VALUES(1,'model.onnx',X'6565656565656565656565656565656565656565656565656565656565656565',20);
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
CREATE TABLE limits (
    only INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
    limits TEXT NOT NULL,
    seed TEXT NOT NULL
) STRICT;
INSERT INTO limits VALUES(1,'{"version":1,"content":{"in_flight_max":100,"orders_per_minute_max":1000,"away_after":{"secs":600,"nanos":0},"answer_timeout":{"secs":1800,"nanos":0}}}','7');
CREATE TABLE rollout (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    rollout TEXT NOT NULL,
    title TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO rollout VALUES(1,'{"version":1,"content":{"deployable":{"kind":"model","digest":"sha256:0101010101010101010101010101010101010101010101010101010101010101"},"filter":"all","waves":[{"size":{"devices":2},"done":100,"timeout":{"secs":7200,"nanos":0},"soak":{"secs":1200,"nanos":0}},{"size":{"share":50},"done":100,"timeout":{"secs":7200,"nanos":0},"soak":{"secs":1200,"nanos":0}},{"size":{"share":100},"done":100,"timeout":{"secs":7200,"nanos":0},"soak":{"secs":1200,"nanos":0}}],"gates":[{"measure":"outcome","breaches_max":20,"samples_min":2,"over_min":{"secs":300,"nanos":0}}],"retry":{"attempts_max":3,"delay":{"secs":120,"nanos":0},"delay_max":{"secs":600,"nanos":0}},"intent":"run"}}','first','{"version":1,"content":{"user":"anna"}}',1780000003000000000);
CREATE TABLE blueprint (
    only INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
    number INTEGER NOT NULL,
    parent INTEGER,
    recent TEXT NOT NULL
) STRICT;
INSERT INTO blueprint VALUES(1,1,0,'{"version":1,"content":{"0":2}}');
CREATE TABLE target (
    device TEXT NOT NULL PRIMARY KEY,
    target TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO target VALUES('cam-01','{"version":1,"content":{"order":{"generation":1,"deployables":[{"kind":"model","digest":"sha256:0202020202020202020202020202020202020202020202020202020202020202"}]},"since":0}}');
INSERT INTO target VALUES('cam-02','{"version":1,"content":{"order":{"generation":1,"deployables":[{"kind":"model","digest":"sha256:0202020202020202020202020202020202020202020202020202020202020202"}]},"since":0}}');
CREATE TABLE rollout_state (
    rollout INTEGER NOT NULL PRIMARY KEY,
    state TEXT NOT NULL
) STRICT;
INSERT INTO rollout_state VALUES(1,'{"version":1,"content":{"deployable":{"kind":"model","digest":"sha256:0202020202020202020202020202020202020202020202020202020202020202"},"phase":{"running":{"wave":0,"since":0,"complete":null}},"paused":null}}');
CREATE TABLE member (
    rollout INTEGER NOT NULL,
    device TEXT NOT NULL,
    member TEXT NOT NULL,
    PRIMARY KEY (rollout, device)
) STRICT, WITHOUT ROWID;
INSERT INTO member VALUES(1,'cam-01','{"version":1,"content":{"wave":0,"aim":"forward","standing":{"ordered":{"since":0}},"attempts":1,"asked":{"generation":1,"digest":"sha256:0202020202020202020202020202020202020202020202020202020202020202"},"before":"sha256:0101010101010101010101010101010101010101010101010101010101010101","figures_before":{"over":{"secs":600,"nanos":0},"restarts":0,"fps":25.0,"latency_ms":40.0,"agreement":null,"temperature_c":null}}}');
INSERT INTO member VALUES(1,'cam-02','{"version":1,"content":{"wave":0,"aim":"forward","standing":{"ordered":{"since":0}},"attempts":1,"asked":{"generation":1,"digest":"sha256:0202020202020202020202020202020202020202020202020202020202020202"},"before":"sha256:0101010101010101010101010101010101010101010101010101010101010101","figures_before":{"over":{"secs":600,"nanos":0},"restarts":0,"fps":25.0,"latency_ms":40.0,"agreement":null,"temperature_c":null}}}');
INSERT INTO member VALUES(1,'cam-03','{"version":1,"content":{"wave":2,"aim":"forward","standing":"waiting","attempts":0,"asked":null,"before":null,"figures_before":null}}');
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
INSERT INTO event VALUES(1,1,6,1,'fell','{"version":1,"content":{"sequence":6,"at_ms":18446744073709551615,"level":"warn","name":"fell","text":"it fell","result":null,"lost":18446744073709551615}}',1780000061000000000);
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
INSERT INTO audit VALUES(1,1780000000000000000,'{"version":1,"content":"service"}','add-device','cam-1','{}',X'0000000000000000000000000000000000000000000000000000000000000000',X'4b4301a98663b891a362372ca3244cc100b2a4661f17d44857d4e6571a54cb5e');
INSERT INTO audit VALUES(2,1780000001000000000,'{"version":1,"content":{"user":"anna"}}','set-tags','cam-1','{"tags":["north"]}',X'4b4301a98663b891a362372ca3244cc100b2a4661f17d44857d4e6571a54cb5e',X'8ac1d60e1dd933f8d29573f7abf6d1ce73114bd877e8e5a08158fbe638a6a291');
INSERT INTO audit VALUES(3,1780000000000000000,'{"version":1,"content":{"user":"anna"}}','issue-certificate','0a','{"device":"cam-1"}',X'8ac1d60e1dd933f8d29573f7abf6d1ce73114bd877e8e5a08158fbe638a6a291',X'e0572902f8bd4e8961bd126213973f4db6effa278575074091f4583dd035d73f');
INSERT INTO audit VALUES(4,1780000002000000000,'{"version":1,"content":{"user":"anna"}}','revoke-certificate','0a','{}',X'e0572902f8bd4e8961bd126213973f4db6effa278575074091f4583dd035d73f',X'f52a62b87fca645b71ec88cc641709eabebeddf2e7049d7e3820b58a2b0cde86');
INSERT INTO audit VALUES(5,1780000000000000000,'{"version":1,"content":{"user":"anna"}}','put-artefact','people','{"description":"Finds people.","kind":"model","labels":["doors","people"],"licence":"Apache-2.0"}',X'f52a62b87fca645b71ec88cc641709eabebeddf2e7049d7e3820b58a2b0cde86',X'aff228147e5efc2d2d14ba7d5bda862106eeb52ee34cba38e11a35a6008a9db6');
INSERT INTO audit VALUES(6,1780000001000000000,'{"version":1,"content":{"user":"anna"}}','add-version','people','{"digest":"sha256:0101010101010101010101010101010101010101010101010101010101010101","kind":"model","signer":"ed25519:d3443c9a5ad39916a25c186c4e8320a02209975da1cd16965fe9d4974fab2adc","version":"1.0.1"}',X'aff228147e5efc2d2d14ba7d5bda862106eeb52ee34cba38e11a35a6008a9db6',X'7a60855014e992ed0384bc445af2ea850c2ff7865de1a576c171b04a689abc5d');
INSERT INTO audit VALUES(7,1780000003000000000,'{"version":1,"content":{"user":"anna"}}','set-limits','rollouts','{"answer_timeout":{"nanos":0,"secs":1800},"away_after":{"nanos":0,"secs":600},"in_flight_max":100,"orders_per_minute_max":1000}',X'7a60855014e992ed0384bc445af2ea850c2ff7865de1a576c171b04a689abc5d',X'fae3344f389ccb9309d9a9086137ddcb5caed840da5c8ed4e4bf51d70ae3136e');
INSERT INTO audit VALUES(8,1780000003000000000,'{"version":1,"content":{"user":"anna"}}','add-rollout','1','{"rollout":{"deployable":{"digest":"sha256:0101010101010101010101010101010101010101010101010101010101010101","kind":"model"},"filter":"all","gates":[{"breaches_max":20,"measure":"outcome","over_min":{"nanos":0,"secs":300},"samples_min":2}],"intent":"run","retry":{"attempts_max":3,"delay":{"nanos":0,"secs":120},"delay_max":{"nanos":0,"secs":600}},"waves":[{"done":100,"size":{"devices":2},"soak":{"nanos":0,"secs":1200},"timeout":{"nanos":0,"secs":7200}},{"done":100,"size":{"share":50},"soak":{"nanos":0,"secs":1200},"timeout":{"nanos":0,"secs":7200}},{"done":100,"size":{"share":100},"soak":{"nanos":0,"secs":1200},"timeout":{"nanos":0,"secs":7200}}]},"title":"first"}',X'fae3344f389ccb9309d9a9086137ddcb5caed840da5c8ed4e4bf51d70ae3136e',X'ab38f631b131a938d05de763a0505cb85e0cb4f7407c4a4aec869b6fb71feb17');
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('device',1);
INSERT INTO sqlite_sequence VALUES('event',1);
INSERT INTO sqlite_sequence VALUES('version',1);
INSERT INTO sqlite_sequence VALUES('rollout',1);
CREATE INDEX certificate_of_device ON certificate (device, issued_at);
CREATE INDEX certificate_by_end ON certificate (not_after);
CREATE INDEX certificate_revoked ON certificate (serial) WHERE revoked_at IS NOT NULL;
CREATE INDEX registered_key_of_device ON registered_key (device);
CREATE INDEX version_file_by_digest ON version_file (digest);
CREATE INDEX plan_by_bundle ON plan (bundle, class);
CREATE INDEX command_of_device ON command (device, number);
CREATE INDEX command_open ON command (device, number) WHERE state IN ('queued', 'sent');
CREATE INDEX command_queued ON command (number) WHERE state = 'queued';
CREATE INDEX command_answer ON command (answer) WHERE answer IS NOT NULL;
CREATE INDEX event_of_device ON event (device, number);
CREATE INDEX event_of_trouble ON event (number) WHERE level > 0;
CREATE INDEX event_by_name ON event (name, number);
CREATE UNIQUE INDEX alert_raised ON alert (rule, device) WHERE resolved_at IS NULL;
CREATE INDEX alert_of_device ON alert (device);
CREATE INDEX alert_resolved ON alert (number) WHERE resolved_at IS NOT NULL;
CREATE INDEX browser_session_of_user ON browser_session (user);
CREATE INDEX browser_session_by_end ON browser_session (expires_at);
CREATE TRIGGER audit_keeps_entries BEFORE DELETE ON audit
BEGIN
    SELECT raise(ABORT, 'entries of the audit log are never removed');
END;
CREATE TRIGGER audit_keeps_content BEFORE UPDATE ON audit
BEGIN
    SELECT raise(ABORT, 'entries of the audit log are never changed');
END;
COMMIT;
