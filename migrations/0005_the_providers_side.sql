-- What the provider is asked, and what is submitted to it through us.

-- Outcomes that something is open about: the queue of what to ask the provider. What is open is seen from the rows it is
-- about (a pending outcome, open conflicts, files that are held or need another URL); this says when to ask.
CREATE TABLE asks (
    task      INTEGER NOT NULL,
    kind      TEXT    NOT NULL,
    idx       INTEGER NOT NULL,
    source    TEXT    NOT NULL,
    reason    TEXT    NOT NULL,                 -- silent, conflict, held, needs_url or stale: the most urgent
    since     INTEGER NOT NULL,                 -- since when it is open: asks wait longer by it, and end
    ask_at    INTEGER NOT NULL,                 -- not before
    asks      INTEGER NOT NULL,                 -- how often it was asked; of an answer in flight, also which question it answers
    asked_at  INTEGER,                          -- the last time
    note_code TEXT,                             -- what came of that: a stable word
    note      TEXT,                             -- and a sentence
    PRIMARY KEY (task, kind, idx)
) STRICT, WITHOUT ROWID;
CREATE INDEX asks_due ON asks (source, ask_at);

-- A fresh link to what lies at `url`, where the provider gave one; it does not last.
ALTER TABLE downloads ADD COLUMN fetch_url TEXT;

INSERT INTO counters (name, value) VALUES ('repaired', 0);
