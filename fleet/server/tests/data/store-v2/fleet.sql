PRAGMA application_id = 1381385286;
PRAGMA user_version = 2;
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
INSERT INTO device VALUES(1,'cam-1','{"version":1,"content":["north"]}',0,1780000000000000000,1780000060000000000,'{"version":1,"content":{"sequence":5,"generation":3,"progress":{"working":{"what":"fetches"}},"running":{"model":"sha256:0101010101010101010101010101010101010101010101010101010101010101"},"figures":{"over":{"secs":0,"nanos":0},"restarts":0,"fps":0.30000000000000004,"latency_ms":0.3333333333333333,"agreement":null,"accuracy":null,"temperature_c":null,"power_w":null}}}','{"version":1,"content":{"streams":[{"stream":"door","frames":7,"fps":24.9,"dropped":0,"reconnects":0,"trouble":null}],"version":"1.2.3","class":{"module":"Orin Nano","architecture":"sm_87","multiprocessors":8,"tensorrt":{"flavour":"full","major":10,"minor":3,"patch":0},"cuda":[12,6]},"facts":{"site":"north"},"refused":null,"slots":[]}}');
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
INSERT INTO version VALUES(1,X'0101010101010101010101010101010101010101010101010101010101010101','model','people','1.0.1','{"version":1,"content":["sha256:0000000000000000000000000000000000000000000000000000000000000000"]}','{"version":1,"content":{"source":"sha256:6363636363636363636363636363636363636363636363636363636363636363","parent":"sha256:0000000000000000000000000000000000000000000000000000000000000000","steps":["fp16"]}}','{"version":1,"content":{"accuracy":{"map":0.30000000000000004}}}',30,'ed25519:71d8d907d21dbc97803dba3c59890e3717d9f849c0a5f0b87aeac54b4a0876ce','{"version":1,"content":{"key":"ed25519:71d8d907d21dbc97803dba3c59890e3717d9f849c0a5f0b87aeac54b4a0876ce","signature":"a8361e8e609e02c02872486e96c2d21ace8e414ad412be50a7a2c6223a39470b9bc9a1114d585200d584473f08227b313a64cdff65cd4af9c63d917c52659f0b"}}',1780000001000000000,'{"version":1,"content":{"user":"anna"}}');
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
INSERT INTO member VALUES(1,'cam-01','{"version":1,"content":{"wave":0,"aim":"forward","standing":{"ordered":{"since":0}},"attempts":1,"asked":{"generation":1,"digest":"sha256:0202020202020202020202020202020202020202020202020202020202020202"},"before":"sha256:0101010101010101010101010101010101010101010101010101010101010101","figures_before":{"over":{"secs":600,"nanos":0},"restarts":0,"fps":25.0,"latency_ms":40.0,"agreement":null,"accuracy":null,"temperature_c":null,"power_w":null}}}');
INSERT INTO member VALUES(1,'cam-02','{"version":1,"content":{"wave":0,"aim":"forward","standing":{"ordered":{"since":0}},"attempts":1,"asked":{"generation":1,"digest":"sha256:0202020202020202020202020202020202020202020202020202020202020202"},"before":"sha256:0101010101010101010101010101010101010101010101010101010101010101","figures_before":{"over":{"secs":600,"nanos":0},"restarts":0,"fps":25.0,"latency_ms":40.0,"agreement":null,"accuracy":null,"temperature_c":null,"power_w":null}}}');
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
INSERT INTO audit VALUES(1,1780000000000000000,'{"version":1,"content":"service"}','add-device','cam-1','{"again":false}',X'0000000000000000000000000000000000000000000000000000000000000000',X'55adf1db85f7e7652598b032759a010aff3e8fc11f07601b34e3156037366424');
INSERT INTO audit VALUES(2,1780000001000000000,'{"version":1,"content":{"user":"anna"}}','set-tags','cam-1','{"tags":["north"]}',X'55adf1db85f7e7652598b032759a010aff3e8fc11f07601b34e3156037366424',X'87c43a5ac59c1142ac5fcbe7b88ac88cbf688e1f84e0f2af978e3f11208a2191');
INSERT INTO audit VALUES(3,1780000000000000000,'{"version":1,"content":{"user":"anna"}}','issue-certificate','0a','{"device":"cam-1"}',X'87c43a5ac59c1142ac5fcbe7b88ac88cbf688e1f84e0f2af978e3f11208a2191',X'6dd501cf7bed8d4ce8847df76451b1d79896ba69269bc1a3f8cb4276f9f4f579');
INSERT INTO audit VALUES(4,1780000002000000000,'{"version":1,"content":{"user":"anna"}}','revoke-certificate','0a','{}',X'6dd501cf7bed8d4ce8847df76451b1d79896ba69269bc1a3f8cb4276f9f4f579',X'8f8b50a3d60ab832211480da3e1c2a7a76532b11ce268550b2c35096de249be2');
INSERT INTO audit VALUES(5,1780000000000000000,'{"version":1,"content":{"user":"anna"}}','put-artefact','people','{"description":"Finds people.","kind":"model","labels":["doors","people"],"licence":"Apache-2.0"}',X'8f8b50a3d60ab832211480da3e1c2a7a76532b11ce268550b2c35096de249be2',X'f3eb705a5723d7716a247e9b435772cecb86fb9236c084e8ba9c5569992d539b');
INSERT INTO audit VALUES(6,1780000001000000000,'{"version":1,"content":{"user":"anna"}}','add-version','people','{"digest":"sha256:0101010101010101010101010101010101010101010101010101010101010101","kind":"model","signer":"ed25519:71d8d907d21dbc97803dba3c59890e3717d9f849c0a5f0b87aeac54b4a0876ce","version":"1.0.1"}',X'f3eb705a5723d7716a247e9b435772cecb86fb9236c084e8ba9c5569992d539b',X'2bcf1c0663d036273ba3fb74dfd4fd6360c47ee2737eb557606fdea8c927bd17');
INSERT INTO audit VALUES(7,1780000003000000000,'{"version":1,"content":{"user":"anna"}}','set-limits','rollouts','{"answer_timeout":{"nanos":0,"secs":1800},"away_after":{"nanos":0,"secs":600},"in_flight_max":100,"orders_per_minute_max":1000}',X'2bcf1c0663d036273ba3fb74dfd4fd6360c47ee2737eb557606fdea8c927bd17',X'3e19121f7186320ade0957a208944b91c4f041a9716f31fe60b10abe8b0e7804');
INSERT INTO audit VALUES(8,1780000003000000000,'{"version":1,"content":{"user":"anna"}}','add-rollout','1','{"rollout":{"deployable":{"digest":"sha256:0101010101010101010101010101010101010101010101010101010101010101","kind":"model"},"filter":"all","gates":[{"breaches_max":20,"measure":"outcome","over_min":{"nanos":0,"secs":300},"samples_min":2}],"intent":"run","retry":{"attempts_max":3,"delay":{"nanos":0,"secs":120},"delay_max":{"nanos":0,"secs":600}},"waves":[{"done":100,"size":{"devices":2},"soak":{"nanos":0,"secs":1200},"timeout":{"nanos":0,"secs":7200}},{"done":100,"size":{"share":50},"soak":{"nanos":0,"secs":1200},"timeout":{"nanos":0,"secs":7200}},{"done":100,"size":{"share":100},"soak":{"nanos":0,"secs":1200},"timeout":{"nanos":0,"secs":7200}}]},"title":"first"}',X'3e19121f7186320ade0957a208944b91c4f041a9716f31fe60b10abe8b0e7804',X'1da6fd0cd8bf48929a98dac067eb2a655d8be0408155d81f20f3b53e0585c193');
INSERT INTO audit VALUES(9,1780000004000000000,'{"version":1,"content":{"user":"anna"}}','add-run','1','{"plan":{"config":{"n":3,"rate":0.1},"enough":3,"evaluates":true,"examples_max":4294967296,"failures_max":3,"norm_max":9.5,"participants":{"devices":{"devices_min":2,"filter":"tag = roof","head":{"labels":["cat","cão"],"model":"sha256:0101010101010101010101010101010101010101010101010101010101010101","settings":{"balanced":true,"batch":null,"epochs":null,"held_out":null,"hidden":64,"proximal_mu":null,"rate":0.01}}}},"pause":{"nanos":0,"secs":0},"pictures":"labelled","recipe":{"privacy":{"clipping":{"kind":"fixed","norm":1.5},"delta":1e-6,"noise":1.1},"quorum":2,"strategy":{"mean":{"beta1":0.9,"beta2":0.99,"kind":"adam","rate":0.3,"tau":0.001}}},"refusals_max":3,"release":{"gain_min":0.01,"rollout":{"filter":"tag = roof","gates":[{"breaches_percent_max":0,"measure":"accuracy","over_min":"30s","samples_min":1,"threshold":0.9}],"kind":"model","name":"faces","retry":{"attempts_max":3,"delay":"1m","delay_max":"1h"},"title":"","version":"3","waves":[{"done_percent":100,"size":"10%","soak":"10m","timeout":"1day"},{"done_percent":100,"size":"5","soak":"10m","timeout":"1day"}]},"version":"3"},"round_time_max":{"nanos":0,"secs":600},"rounds":3,"sample":{"share":0.125},"starts_at":1780000009000000000,"weights":null},"title":"first"}',X'1da6fd0cd8bf48929a98dac067eb2a655d8be0408155d81f20f3b53e0585c193',X'b6e1120af543d5697ee5b9219550d6f4fcca75e61aa72fda62c2d7f7beb7edee');
CREATE TABLE run (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    title TEXT NOT NULL,
    plan TEXT NOT NULL,
    intent TEXT NOT NULL,
    state TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO run VALUES(1,'first','{"version":1,"content":{"participants":{"devices":{"filter":"tag = roof","devices_min":2,"head":{"model":"sha256:0101010101010101010101010101010101010101010101010101010101010101","labels":["cat","cão"],"settings":{"hidden":64,"epochs":null,"batch":null,"rate":0.01,"proximal_mu":null,"balanced":true,"held_out":null}}}},"recipe":{"strategy":{"mean":{"kind":"adam","rate":0.3,"beta1":0.9,"beta2":0.99,"tau":0.001}},"privacy":{"clipping":{"kind":"fixed","norm":1.5},"noise":1.1,"delta":1e-6},"quorum":2},"rounds":3,"sample":{"share":0.125},"enough":3,"round_time_max":{"secs":600,"nanos":0},"pause":{"secs":0,"nanos":0},"starts_at":1780000009000000000,"examples_max":4294967296,"norm_max":9.5,"refusals_max":3,"failures_max":3,"evaluates":true,"pictures":"labelled","release":{"version":"3","gain_min":0.01,"rollout":{"title":"","kind":"model","name":"faces","version":"3","filter":"tag = roof","waves":[{"size":"10%","done_percent":100,"timeout":"1day","soak":"10m"},{"size":"5","done_percent":100,"timeout":"1day","soak":"10m"}],"gates":[{"measure":"accuracy","threshold":0.9,"breaches_percent_max":0,"samples_min":1,"over_min":"30s"}],"retry":{"attempts_max":3,"delay":"1m","delay_max":"1h"}}},"config":{"n":3,"rate":0.1},"weights":null}}','{"version":1,"content":"go"}','{"version":1,"content":{"phase":{"phase":"waiting","why":"nobody is there"},"round":3,"weights":{"digest":"sha256:0909090909090909090909090909090909090909090909090909090909090909","bytes":99,"layout":[["w",[2,3]]],"elements":["float64"],"labels":["cat"]},"memory":"sha256:0808080808080808080808080808080808080808080808080808080808080808","failures":1,"epsilon":0.3333333333333333,"set_aside":["cam-7"],"outcome":{"accuracy_before":0.30000000000000004,"accuracy":0.9,"digest":"sha256:0101010101010101010101010101010101010101010101010101010101010101","rollout":4,"why":"it is no better"}}}','{"version":1,"content":{"user":"anna"}}',1780000004000000000);
CREATE TABLE round (
    run INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    round TEXT NOT NULL,
    PRIMARY KEY (run, number)
) STRICT, WITHOUT ROWID;
INSERT INTO round VALUES(1,3,'{"version":1,"content":{"head":{"number":3,"base":"sha256:0707070707070707070707070707070707070707070707070707070707070707","terms":{"quorum":1,"enough":null,"time_max":{"secs":60,"nanos":0},"refusals_max":3},"began":1780000003000000000,"phase":{"phase":"called-off","why":"too few"}},"result":{"ended":1780000070000000000,"invited":3,"updates":2,"refused":1,"examples":30,"bytes_received":200,"bytes_sent":300,"fit":[["loss",0.30000000000000004]],"evaluation":[["loss",0.30000000000000004]],"evaluated_by":2,"judged":[["loss",0.30000000000000004]],"not_judged":"there are no pictures","epsilon":0.3333333333333333,"clipping_norm":1.5}}}');
CREATE TABLE round_member (
    run INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    round INTEGER NOT NULL,
    participant TEXT NOT NULL,
    member TEXT NOT NULL,
    PRIMARY KEY (run, round, participant)
) STRICT, WITHOUT ROWID;
INSERT INTO round_member VALUES(1,3,'join/ä','{"version":1,"content":{"member":{"standing":{"standing":"sent","update":"sha256:0303030303030303030303030303030303030303030303030303030303030303","examples":10},"refusals":1,"refused":"it is no number"},"result":{"bytes":9,"norm":0.3333333333333333,"seconds":2.5,"fit":[["loss",0.30000000000000004]],"evaluation":[["loss",0.30000000000000004]]}}}');
CREATE TABLE run_file (
    run INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    round INTEGER NOT NULL,
    digest BLOB NOT NULL REFERENCES blob (digest),
    PRIMARY KEY (run, round, digest)
) STRICT, WITHOUT ROWID;
CREATE TABLE node (
    id INTEGER NOT NULL PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    seen INTEGER NOT NULL
) STRICT;
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('device',1);
INSERT INTO sqlite_sequence VALUES('event',1);
INSERT INTO sqlite_sequence VALUES('version',1);
INSERT INTO sqlite_sequence VALUES('rollout',1);
INSERT INTO sqlite_sequence VALUES('run',1);
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
CREATE INDEX run_file_by_digest ON run_file (digest);
CREATE INDEX node_by_seen ON node (seen);
COMMIT;
