-- What the fleet learns together.

CREATE TABLE run (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    title TEXT NOT NULL,
    plan TEXT NOT NULL,
    intent TEXT NOT NULL,
    state TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE round (
    run INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    round TEXT NOT NULL,
    PRIMARY KEY (run, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE round_member (
    run INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    round INTEGER NOT NULL,
    participant TEXT NOT NULL,
    member TEXT NOT NULL,
    PRIMARY KEY (run, round, participant)
) STRICT, WITHOUT ROWID;

-- Files that a run needs: weights to begin with, programs, weights of rounds, what strategies remember.
CREATE TABLE run_file (
    run INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    round INTEGER NOT NULL,
    digest BLOB NOT NULL REFERENCES blob (digest),
    PRIMARY KEY (run, round, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX run_file_by_digest ON run_file (digest);

CREATE TABLE node (
    id INTEGER NOT NULL PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    seen INTEGER NOT NULL
) STRICT;
CREATE INDEX node_by_seen ON node (seen);
