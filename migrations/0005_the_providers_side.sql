-- What the provider is asked, and what is submitted to it through us.

-- Outcomes that something is open about: the queue of what to ask the provider, by when. What is open is seen from the
-- rows it is about: a pending outcome, open conflicts, files that are held or want another URL. Three reasons stand here
-- only: a stale callback, a failure to be confirmed, and the whole film that an extension belongs to, which only the
-- provider's record names.
CREATE TABLE asks (
    task      INTEGER NOT NULL,
    kind      TEXT    NOT NULL,
    idx       INTEGER NOT NULL,
    source    TEXT    NOT NULL,
    reason    TEXT    NOT NULL,                 -- silent, full, unconfirmed, stale, needs_url, held or conflict
    since     INTEGER NOT NULL,                 -- since when: the waits grow with it, until it is given up
    ask_at    INTEGER,                          -- not before; NULL: no more
    asks      INTEGER NOT NULL,                 -- how often it was asked; an answer says which question it answers
    asked_at  INTEGER,                          -- the last time
    note_code TEXT,                             -- what came of that: a stable word
    note      TEXT,                             -- and a sentence
    PRIMARY KEY (task, kind, idx)
) STRICT, WITHOUT ROWID;
-- Silent tasks may be many: what is urgent does not wait behind them.
CREATE INDEX asks_due ON asks (source, (reason = 'silent'), ask_at) WHERE ask_at IS NOT NULL;

-- Set where somebody announced it: asking for a 4K upgrade that nobody ordered would order one.
ALTER TABLE outcomes ADD COLUMN ordered INTEGER;
-- A fresh link to what lies at `url`, where the provider gave one; it does not last.
ALTER TABLE downloads ADD COLUMN fetch_url TEXT;

INSERT INTO counters (name, value) VALUES ('repaired', 0);

-- Open questions are counted by reason. An ordinary callback leaves none.
INSERT INTO counters (name, value)
VALUES ('asks.silent', 0), ('asks.conflict', 0), ('asks.held', 0), ('asks.needs_url', 0), ('asks.stale', 0), ('asks.full', 0), ('asks.unconfirmed', 0);
CREATE TRIGGER asks_come AFTER INSERT ON asks
BEGIN
    UPDATE counters SET value = value + 1 WHERE name = 'asks.' || NEW.reason;
END;
CREATE TRIGGER asks_change_reason AFTER UPDATE OF reason ON asks WHEN OLD.reason IS NOT NEW.reason
BEGIN
    UPDATE counters SET value = value - 1 WHERE name = 'asks.' || OLD.reason;
    UPDATE counters SET value = value + 1 WHERE name = 'asks.' || NEW.reason;
END;
CREATE TRIGGER asks_go AFTER DELETE ON asks
BEGIN
    UPDATE counters SET value = value - 1 WHERE name = 'asks.' || OLD.reason;
END;
-- What was open before anybody could be asked.
INSERT INTO asks (task, kind, idx, source, reason, since, ask_at, asks)
    SELECT o.task, o.kind, o.idx, t.source, 'silent', t.created_at, t.created_at, 0
    FROM outcomes o JOIN tasks t ON t.id = o.task WHERE o.state = 'pending';
INSERT OR IGNORE INTO asks (task, kind, idx, source, reason, since, ask_at, asks)
    SELECT o.task, o.kind, o.idx, t.source, 'conflict', t.updated_at, t.updated_at, 0
    FROM outcomes o JOIN tasks t ON t.id = o.task WHERE o.conflicts > 0;
INSERT OR IGNORE INTO asks (task, kind, idx, source, reason, since, ask_at, asks)
    SELECT d.task, d.kind, d.idx, t.source, 'needs_url', min(d.updated_at), min(d.next_at), 0
    FROM downloads d JOIN tasks t ON t.id = d.task WHERE d.state = 'needs_url' GROUP BY d.task, d.kind, d.idx;

-- What was submitted to the provider through us: each is noted before it goes out, so that a callback with its `ref` tells
-- which task came of it even if we never saw the answer.
CREATE TABLE submissions (
    id           INTEGER PRIMARY KEY,
    ref          TEXT    NOT NULL UNIQUE,       -- in the callback URL that we gave the provider
    source       TEXT    NOT NULL,
    path         TEXT    NOT NULL,              -- such as veo/generate
    family       TEXT    NOT NULL,
    kind         TEXT    NOT NULL,
    idx          INTEGER NOT NULL,
    state        TEXT    NOT NULL,              -- sent (accepted or not: nobody knows), doubtful (the
                                                -- same, and its upgrade is awaited), accepted, refused
    task_id      TEXT,                          -- bound by the answer or the first callback with the ref
    body         TEXT,                          -- the request as it came, until its task or the answer is known
    prompt       TEXT,                          -- the same
    callback_url TEXT,                          -- the caller's own
    key          BLOB,                          -- SHA-256 of the Idempotency-Key
    body_sha256  BLOB    NOT NULL,              -- what the key is good for
    status       INTEGER,                       -- the answer, to be given again
    content_type TEXT,
    answer       BLOB,
    created_at   INTEGER NOT NULL,
    keep_until   INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX submissions_by_key ON submissions (source, key) WHERE key IS NOT NULL;
CREATE INDEX submissions_by_age ON submissions (keep_until);
-- What may go before its time, where there are too many.
CREATE INDEX submissions_to_spare ON submissions (id) WHERE key IS NULL AND state IN ('accepted', 'refused');

-- Where the provider had what is stored here, to be found by those who know it by that. Kept by triggers: an index over
-- all downloads would cost every callback.
CREATE TABLE stored_urls (
    url      TEXT    NOT NULL,
    download INTEGER NOT NULL,
    PRIMARY KEY (url, download)
) STRICT, WITHOUT ROWID;
INSERT INTO stored_urls (url, download) SELECT url, id FROM downloads WHERE state = 'stored';
CREATE TRIGGER downloads_stored_come AFTER UPDATE OF state ON downloads
    WHEN NEW.state = 'stored' AND OLD.state <> 'stored'
BEGIN
    INSERT OR IGNORE INTO stored_urls (url, download) VALUES (NEW.url, NEW.id);
END;
CREATE TRIGGER downloads_stored_change AFTER UPDATE OF state ON downloads
    WHEN OLD.state = 'stored' AND NEW.state <> 'stored'
BEGIN
    DELETE FROM stored_urls WHERE url = OLD.url AND download = OLD.id;
END;
CREATE TRIGGER downloads_stored_go AFTER DELETE ON downloads WHEN OLD.state = 'stored'
BEGIN
    DELETE FROM stored_urls WHERE url = OLD.url AND download = OLD.id;
END;

-- What this installation made up for itself at its first start, such as the key of its signed URLs.
CREATE TABLE instance (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
