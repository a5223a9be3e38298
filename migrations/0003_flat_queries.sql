-- Rows that wait for a moment (next_at > created_at: put off after a failure, or queued again) leave the indexes of those that
-- are due as they came, so that a claim that finds nothing does not walk over all that waits. A new row stands in two
-- indexes, as before.

DROP INDEX downloads_queued;
DROP INDEX downloads_by_host;
DROP INDEX downloads_waiting;
-- Claiming looks along the first, and where hosts at their cap crowd its beginning, from host to host along the second.
CREATE INDEX downloads_queued ON downloads (deadline, next_at, host) WHERE state = 'queued' AND next_at <= created_at;
CREATE INDEX downloads_by_host ON downloads (host, deadline) WHERE state = 'queued' AND next_at <= created_at;
-- The same of those that waited, the first due first.
CREATE INDEX downloads_waiting ON downloads (next_at, deadline, host, created_at)
    WHERE state = 'queued' AND next_at > created_at;
CREATE INDEX downloads_waiting_by_host ON downloads (host, next_at) WHERE state = 'queued' AND next_at > created_at;

-- The ring's accounts are counted at each start: from this index alone, not from rows that lie all over the table.
DROP INDEX rejected_by_id;
CREATE INDEX rejected_by_id ON deliveries (id, reason, net, size) WHERE verdict = 'rejected';
