//! What must hold of a database however the server ended: each a claim of what is wrong, and a query that counts it.

pub(crate) const WRONGS: [(&str, &str); 23] = [
    (
        "downloads, outcomes or deliveries belong to a task that is not there",
        "SELECT (SELECT count(*) FROM downloads WHERE task IS NOT NULL AND task NOT IN (SELECT id FROM tasks))
              + (SELECT count(*) FROM outcomes WHERE task IS NOT NULL AND task NOT IN (SELECT id FROM tasks))
              + (SELECT count(*) FROM deliveries WHERE task IS NOT NULL AND task NOT IN (SELECT id FROM tasks))",
    ),
    (
        "attempts are kept of files that are not there",
        "SELECT count(*) FROM attempts WHERE download NOT IN (SELECT id FROM downloads)",
    ),
    (
        "more attempts are kept of a file than are to be",
        "SELECT count(*) FROM (SELECT 1 FROM attempts GROUP BY download HAVING count(*) > 20)",
    ),
    (
        "task ids stand twice",
        "SELECT count(*) - count(DISTINCT source || ' ' || task_id) FROM tasks",
    ),
    (
        "outcomes stand twice",
        "SELECT count(*) - count(DISTINCT task || ' ' || kind || ' ' || idx) FROM outcomes",
    ),
    (
        "downloads stand twice",
        "SELECT count(*) - count(DISTINCT task || ' ' || kind || ' ' || idx || ' ' || role || ' ' || n) FROM downloads",
    ),
    (
        "deliveries are counted on an outcome that their task does not have",
        "SELECT count(*) FROM deliveries d WHERE outcome IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.id = d.outcome AND o.task = d.task)",
    ),
    (
        "downloads wait for another moment than theirs, or do not wait",
        "SELECT count(*) FROM downloads WHERE waits_until IS NOT NULL
            AND (state = 'queued' AND waits_until <> next_at OR state NOT IN ('queued', 'needs_url'))",
    ),
    (
        "something is open that nobody is asked about, or somebody is asked about nothing",
        "SELECT (SELECT count(*) FROM outcomes o WHERE (state = 'pending' OR conflicts > 0)
                    AND NOT EXISTS (SELECT 1 FROM asks a WHERE a.task = o.task AND a.kind = o.kind AND a.idx = o.idx))
              + (SELECT count(*) FROM downloads d WHERE state IN ('held', 'needs_url')
                    AND NOT EXISTS (SELECT 1 FROM asks a WHERE a.task = d.task AND a.kind = d.kind AND a.idx = d.idx))
              + (SELECT count(*) FROM asks a
                    WHERE NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.task = a.task AND o.kind = a.kind AND o.idx = a.idx))
              + (SELECT count(*) FROM asks a WHERE reason IN ('silent', 'conflict', 'held')
                    AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.task = a.task AND o.kind = a.kind AND o.idx = a.idx
                                    AND (o.state = 'pending' OR o.conflicts > 0))
                    AND NOT EXISTS (SELECT 1 FROM downloads d WHERE d.task = a.task AND d.kind = a.kind AND d.idx = a.idx
                                    AND d.state = 'held'))",
    ),
    (
        "tasks cannot be found by their id",
        "SELECT count(*) FROM tasks WHERE id <= (SELECT value FROM counters WHERE name = 'keyed')
            AND id NOT IN (SELECT task FROM task_keys)",
    ),
    (
        "keys lead to no task",
        "SELECT count(*) FROM task_keys WHERE task NOT IN (SELECT id FROM tasks)",
    ),
    (
        "deliveries share a body that is not there",
        "SELECT count(*) FROM deliveries d WHERE body_of IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM deliveries o WHERE o.id = d.body_of AND o.task = d.task
                            AND o.body IS NOT NULL AND o.body_sha256 = d.body_sha256)",
    ),
    (
        "counters of tasks are off",
        "SELECT count(*) FROM counters WHERE counters.name LIKE 'tasks.%'
            AND value <> (SELECT count(*) FROM tasks WHERE 'tasks.' || state = counters.name)",
    ),
    (
        "counters of files are off",
        "SELECT count(*) FROM counters WHERE counters.name LIKE 'files.%'
            AND value <> (SELECT count(*) FROM downloads WHERE 'files.' || state = counters.name)",
    ),
    (
        "counters of asks are off",
        "SELECT count(*) FROM counters WHERE counters.name LIKE 'asks.%'
            AND value <> (SELECT count(*) FROM asks WHERE 'asks.' || reason = counters.name)",
    ),
    (
        "bytes are counted wrongly",
        "SELECT value - (SELECT COALESCE(sum(bytes), 0) FROM downloads WHERE state = 'stored')
         FROM counters WHERE name = 'stored_bytes'",
    ),
    (
        "tasks have a media summary that is not that of their files",
        "SELECT count(*) FROM tasks t WHERE media <> (SELECT CASE
            WHEN count(*) = 0 THEN 'none' WHEN sum(state = 'downloading') > 0 THEN 'downloading'
            WHEN sum(state IN ('queued', 'held', 'needs_url')) > 0 THEN 'queued'
            WHEN sum(state = 'stored') = count(*) THEN 'stored' WHEN sum(state = 'failed') = count(*) THEN 'failed'
            ELSE 'partial' END FROM downloads WHERE id BETWEEN t.id << 24 AND (t.id << 24) + 16777215 AND state <> 'deleted')",
    ),
    (
        "files are stored without a key, or have one and are deleted",
        "SELECT count(*) FROM downloads WHERE state = 'stored' AND storage_key IS NULL
            OR state = 'deleted' AND storage_key IS NOT NULL",
    ),
    (
        "keys are named by two rows",
        "SELECT count(storage_key) - count(DISTINCT storage_key) FROM downloads",
    ),
    (
        "keys are to be removed and named by a row",
        "SELECT count(*) FROM doomed_keys WHERE storage_key IN (
            SELECT storage_key FROM downloads WHERE storage_key IS NOT NULL)",
    ),
    (
        "scrubs are under way beside another, or findings are of none",
        "SELECT (SELECT max(0, count(*) - 1) FROM scrubs WHERE ended_at IS NULL)
              + (SELECT count(*) FROM scrub_findings WHERE scrub NOT IN (SELECT id FROM scrubs))",
    ),
    (
        "stored files cannot be found by their URL, or URLs lead to files that are not stored",
        "SELECT (SELECT count(*) FROM downloads d WHERE state = 'stored' AND NOT EXISTS (
                    SELECT 1 FROM stored_urls u WHERE u.url = d.url AND u.download = d.id))
              + (SELECT count(*) FROM stored_urls u WHERE NOT EXISTS (
                    SELECT 1 FROM downloads d WHERE d.id = u.download AND d.url = u.url AND d.state = 'stored'))",
    ),
    (
        "submissions were accepted and nobody knows as which task, or are in doubt although that is known",
        "SELECT count(*) FROM submissions
         WHERE (state = 'accepted' AND task_id IS NULL) OR (state IN ('sent', 'doubtful') AND (task_id IS NOT NULL OR answer IS NOT NULL))",
    ),
];
