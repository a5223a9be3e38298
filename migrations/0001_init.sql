-- Three records, three ids: a delivery (what arrived) belongs to a task with its outcomes (what we believe), which has
-- downloads (one row a file: the queue entry and the result). Times are milliseconds since the Unix epoch.
-- Row ids are given by the one writer.

-- Raw bodies, each stored once whatever number of deliveries carried it.
CREATE TABLE bodies (
    id     INTEGER PRIMARY KEY,
    digest BLOB    NOT NULL UNIQUE,             -- SHA-256
    bytes  BLOB    NOT NULL,
    refs   INTEGER NOT NULL
) STRICT;

CREATE TABLE tasks (
    id          INTEGER PRIMARY KEY,
    source      TEXT    NOT NULL,
    task_id     TEXT    NOT NULL,
    state       TEXT    NOT NULL,               -- of (video, 0) if known, else of the newest outcome
    media       TEXT    NOT NULL,               -- summary over its downloads
    family      TEXT,
    params      TEXT,                           -- JSON, as the submitter gave it
    prompt      TEXT,
    created_at  INTEGER NOT NULL,
    received_at INTEGER,                        -- first delivery; NULL while only expected
    updated_at  INTEGER NOT NULL,
    deliveries  INTEGER NOT NULL,               -- accepted, duplicate and conflict, counted beyond the rows kept
    conflicts   INTEGER NOT NULL,               -- open ones
    change_seq  INTEGER NOT NULL,
    UNIQUE (task_id, source)
) STRICT;

CREATE TABLE outcomes (
    id             INTEGER PRIMARY KEY,
    task           INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    kind           TEXT    NOT NULL,
    idx            INTEGER NOT NULL,
    state          TEXT    NOT NULL,
    code           INTEGER,
    msg            TEXT,
    failure        TEXT,                        -- JSON
    resolution     TEXT,
    fallback       INTEGER,
    credits        REAL,
    via            TEXT,                        -- callback, poll or api; NULL while only expected
    received_at    INTEGER,
    digest         BLOB,                        -- what makes two deliveries equal; NULL while only expected
    has_media      INTEGER NOT NULL,
    accepted_rows  INTEGER NOT NULL,            -- delivery rows kept, by verdict: each is bounded
    duplicate_rows INTEGER NOT NULL,
    conflict_rows  INTEGER NOT NULL,
    conflicts      INTEGER NOT NULL DEFAULT 0,  -- open ones, counted beyond the rows kept
    contradicted   INTEGER NOT NULL DEFAULT 0,  -- the provider's record speaks against a stored file
    ask_at         INTEGER,                     -- when the provider is asked next
    asks           INTEGER NOT NULL DEFAULT 0,
    UNIQUE (task, kind, idx)
) STRICT;
CREATE INDEX outcomes_to_ask ON outcomes (ask_at) WHERE ask_at IS NOT NULL;

CREATE TABLE downloads (
    id           INTEGER PRIMARY KEY,
    task         INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    kind         TEXT    NOT NULL,
    idx          INTEGER NOT NULL,
    role         TEXT    NOT NULL,
    n            INTEGER NOT NULL,
    name         TEXT    NOT NULL,
    url          TEXT    NOT NULL,
    host         TEXT    NOT NULL,
    state        TEXT    NOT NULL,              -- queued, held, needs_url, downloading, stored, failed, deleted
    deadline     INTEGER NOT NULL,              -- when the provider is expected to delete it
    next_at      INTEGER NOT NULL,              -- not before
    attempts     INTEGER NOT NULL,              -- those that counted
    lease_token  INTEGER,
    lease_until  INTEGER,
    bytes        INTEGER,
    sha256       BLOB,
    content_type TEXT,
    storage_key  TEXT,
    error_code   TEXT,
    error_detail TEXT,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    change_seq   INTEGER NOT NULL,
    UNIQUE (task, kind, idx, role, n)
) STRICT;
-- Claiming looks along the first, and where hosts at their cap crowd its beginning, from host to host along the second.
CREATE INDEX downloads_queued ON downloads (deadline, next_at, host) WHERE state = 'queued';
CREATE INDEX downloads_by_host ON downloads (host, deadline, next_at) WHERE state = 'queued';
CREATE INDEX downloads_next ON downloads (next_at) WHERE state = 'queued';
CREATE INDEX downloads_leased ON downloads (lease_until, host) WHERE state = 'downloading';

CREATE TABLE deliveries (
    id          INTEGER PRIMARY KEY,
    task        INTEGER,                        -- NULL: rejected, and the task unknown
    outcome     INTEGER,                        -- which it is counted on; NULL as for task
    source      TEXT    NOT NULL,
    task_id     TEXT,
    kind        TEXT,
    idx         INTEGER,
    received_at INTEGER NOT NULL,
    via         TEXT    NOT NULL,
    verdict     TEXT    NOT NULL,
    reason      TEXT,
    remote_addr TEXT,
    headers     TEXT    NOT NULL,               -- JSON object of the kept ones
    body        INTEGER,                        -- counted in bodies.refs; no foreign key, whose check would scan
    body_sha256 BLOB,                           -- where the body itself is not kept
    -- of rejected ones, for the bounds of their ring:
    net         TEXT,                           -- /24 or /64 of the sender
    known       INTEGER,                        -- whether the task was known
    size        INTEGER                         -- bytes kept
) STRICT;
CREATE INDEX deliveries_by_task ON deliveries (task, id) WHERE task IS NOT NULL;
CREATE INDEX deliveries_in_conflict ON deliveries (id) WHERE verdict = 'conflict';
CREATE INDEX rejected_by_id ON deliveries (id) WHERE verdict = 'rejected';
CREATE INDEX rejected_by_age ON deliveries (known, id) WHERE verdict = 'rejected';
CREATE INDEX rejected_by_reason ON deliveries (reason, known, id) WHERE verdict = 'rejected';
CREATE INDEX rejected_by_net ON deliveries (net, known, id) WHERE verdict = 'rejected';

CREATE TRIGGER deliveries_release_their_body AFTER DELETE ON deliveries WHEN OLD.body IS NOT NULL
BEGIN
    UPDATE bodies SET refs = refs - 1 WHERE id = OLD.body;
    DELETE FROM bodies WHERE id = OLD.body AND refs <= 0;
END;

-- A verified (task id, timestamp, signature) and what its first use was for.
CREATE TABLE bindings (
    key        BLOB    PRIMARY KEY,
    source     TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    idx        INTEGER NOT NULL,
    body       BLOB    NOT NULL,                -- SHA-256
    orphans    INTEGER NOT NULL DEFAULT 0,      -- conflict rows kept after its task was deleted
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX bindings_by_expiry ON bindings (expires_at);

-- Deleted tasks: late callbacks do not revive them.
CREATE TABLE tombstones (
    task_id    TEXT    NOT NULL,
    source     TEXT    NOT NULL,
    deleted_at INTEGER NOT NULL,
    late       INTEGER NOT NULL DEFAULT 0,      -- deliveries that came afterwards
    PRIMARY KEY (task_id, source)
) STRICT, WITHOUT ROWID;

-- Deleted tasks whose files are still to be removed from the storage. A task of that id may have come back since:
-- the files that its rows name stay.
CREATE TABLE doomed_files (
    task_id TEXT NOT NULL,
    source  TEXT NOT NULL,
    PRIMARY KEY (task_id, source)
) STRICT, WITHOUT ROWID;

CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO counters (name, value) VALUES ('change_seq', 0), ('delivery', 0);
