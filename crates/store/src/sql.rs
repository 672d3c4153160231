//! The statements that every database understands. Those of one alone are with its backend.
//!
//! Parameters are numbered in the order of the columns named, as `SQLite` writes them; `PostgreSQL`
//! gets `$` in place of `?`. The wide upserts are put together from their column lists, which the
//! matching reads share.

use std::sync::LazyLock;

// Opening.
pub(crate) const MIGRATIONS: &str = "SELECT number, sha256 FROM schema_migration ORDER BY number";
pub(crate) const PUT_MIGRATION: &str =
    "INSERT INTO schema_migration (number, sha256, applied_at) VALUES (?1, ?2, ?3)";
pub(crate) const BEGIN_BOOKS: &str =
    "INSERT INTO meta (key, value) VALUES ('installation', ?1) ON CONFLICT (key) DO NOTHING";
pub(crate) const INSTALLATION: &str = "SELECT value FROM meta WHERE key = 'installation'";
pub(crate) const PROBE: &str = "\
INSERT INTO meta (key, value) VALUES ('checked_at', ?1)
ON CONFLICT (key) DO UPDATE SET value = excluded.value";

// Deliveries.
pub(crate) const MARK_DELIVERY: &str = "\
UPDATE delivery SET state = ?2, decided_at = ?3, error = ?4
WHERE sequence = ?1 AND state IN ('pending', 'undecodable')";

// The lease.
pub(crate) const FREE_LEASE: &str =
    "UPDATE lease SET holder = NULL WHERE one = 1 AND epoch = ?1 AND holder = ?2";

// Fleets.
/// `SELECT` and not `VALUES`, so that it can look at the newest number.
pub(crate) const PUT_FLEET: &str = "\
INSERT INTO fleet (number, at, who, how, revision, files)
SELECT CAST(?1 AS BIGINT), CAST(?2 AS BIGINT), CAST(?3 AS TEXT), CAST(?4 AS TEXT), CAST(?5 AS TEXT), \
    CAST(?6 AS TEXT)
WHERE ?1 = 1 + (SELECT coalesce(max(number), 0) FROM fleet)
ON CONFLICT (number) DO NOTHING
RETURNING number, at, who, how, revision, '[]' AS files";
pub(crate) const FORGET_FLEETS: &str = "DELETE FROM fleet WHERE number <= ?1";
pub(crate) const FLEET: &str = "\
SELECT number, at, who, how, revision, files FROM fleet
WHERE number = coalesce(?1, (SELECT max(number) FROM fleet))";
pub(crate) const FLEETS: &str = "\
SELECT number, at, who, how, revision, '[]' AS files FROM fleet ORDER BY number DESC LIMIT ?1";

// Rows of the snapshot.
const JOB_COLUMNS: &str = "\
forge, namespace, native, tenant_forge, tenant_kind, tenant_id, scope, repository, wanted, trust, \
title_job, title_workflow, title_url, title_run, accepted_at, attempt, past_runners, doubt_since, \
doubt_missing_since, doubt_reads, doubt_read_at, forgotten_at";
const ATTEMPT_COLUMNS: &str = "\
job, number, state, runner_id, runner_name, conclusion, queued_at, started_at, completed_at, \
fact_at";
const RUNNER_COLUMNS: &str = "\
id, name, pool, forge, scope, runner_group, labels, instance, state, pending_at, starting_at, \
idle_at, draining_at, busy_at, stopping_at, gone_at, registration, registration_id, job_forge, \
job_namespace, job_native, job_ended_at, outcome, hold_who, hold_why, hold_since, forgotten_at";
const INSTANCE_COLUMNS: &str = "\
id, provider, pool, purpose, purpose_runner, needs, node, epoch, state, created_at, launch_at, \
launch_deadline, launch_answered_at, exit_at, exit_code, missing_since, destroyed_at, gone_at, \
forgotten_at";
const FAILING_COLUMNS: &str = "\
kind, name, part, failures, since, failed_at, until, because, earlier, proof, is_full";

pub(crate) static PUT_JOB: LazyLock<String> = LazyLock::new(|| upsert("job", JOB_COLUMNS, 3));
/// The job by its key, then its attempt.
pub(crate) static PUT_ATTEMPT: LazyLock<String> = LazyLock::new(|| {
    let given: Vec<String> = (4..=12).map(|number| format!("?{number}")).collect();
    format!(
        "INSERT INTO attempt ({ATTEMPT_COLUMNS}) SELECT id, {} FROM job \
         WHERE forge = ?1 AND namespace = ?2 AND native = ?3 \
         ON CONFLICT (job, number) DO UPDATE SET {}",
        given.join(", "),
        replaced(ATTEMPT_COLUMNS, 2)
    )
});
pub(crate) static PUT_RUNNER: LazyLock<String> =
    LazyLock::new(|| upsert("runner", RUNNER_COLUMNS, 1));
pub(crate) static PUT_INSTANCE: LazyLock<String> =
    LazyLock::new(|| upsert("instance", INSTANCE_COLUMNS, 1));
pub(crate) static PUT_TENANT: LazyLock<String> =
    LazyLock::new(|| upsert("tenant", "forge, kind, id, login, logins, served_at", 3));
pub(crate) static PUT_BACKOFF: LazyLock<String> =
    LazyLock::new(|| upsert("failing", FAILING_COLUMNS, 3));
pub(crate) static PUT_DRAIN: LazyLock<String> =
    LazyLock::new(|| upsert("drain", "kind, name, node, who, why, since", 3));
pub(crate) static PUT_RECOVERING: LazyLock<String> =
    LazyLock::new(|| upsert("recovering", "one, since, because", 1));
pub(crate) static PUT_STRAY: LazyLock<String> =
    LazyLock::new(|| upsert("stray", "forge, scope, id, name, first_seen, last_seen, tried_at", 3));
pub(crate) static PUT_NEXT: LazyLock<String> =
    LazyLock::new(|| upsert("next_number", "one, runner, instance", 1));

pub(crate) const REMOVE_BACKOFF: &str =
    "DELETE FROM failing WHERE kind = ?1 AND name = ?2 AND part = ?3";
pub(crate) const REMOVE_DRAIN: &str =
    "DELETE FROM drain WHERE kind = ?1 AND name = ?2 AND node = ?3";
pub(crate) const REMOVE_RECOVERING: &str = "DELETE FROM recovering";
pub(crate) const REMOVE_STRAY: &str =
    "DELETE FROM stray WHERE forge = ?1 AND scope = ?2 AND id = ?3";
pub(crate) const FORGET_JOB: &str = "\
UPDATE job SET forgotten_at = ?4
WHERE forge = ?1 AND namespace = ?2 AND native = ?3 AND forgotten_at IS NULL";
pub(crate) const FORGET_INSTANCE_OF_RUNNER: &str = "\
UPDATE instance SET forgotten_at = ?2
WHERE forgotten_at IS NULL
AND id = (SELECT instance FROM runner WHERE id = ?1 AND forgotten_at IS NULL)";
pub(crate) const FORGET_RUNNER: &str =
    "UPDATE runner SET forgotten_at = ?2 WHERE id = ?1 AND forgotten_at IS NULL";

pub(crate) const TENANTS: &str = "SELECT forge, kind, id, login, logins, served_at FROM tenant";
pub(crate) static JOBS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {JOB_COLUMNS}, number, state, runner_id, runner_name, conclusion, queued_at, \
         started_at, completed_at, fact_at \
         FROM job JOIN attempt ON attempt.job = job.id AND attempt.number = job.attempt \
         WHERE forgotten_at IS NULL"
    )
});
pub(crate) static RUNNERS: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {RUNNER_COLUMNS} FROM runner WHERE forgotten_at IS NULL"));
pub(crate) static INSTANCES: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {INSTANCE_COLUMNS} FROM instance WHERE forgotten_at IS NULL"));
pub(crate) static BACKOFFS: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {FAILING_COLUMNS} FROM failing"));
pub(crate) const DRAINS: &str = "SELECT kind, name, node, who, why, since FROM drain";
pub(crate) const RECOVERING: &str = "SELECT since, because FROM recovering";
pub(crate) const STRAYS: &str =
    "SELECT forge, scope, id, name, first_seen, last_seen, tried_at FROM stray";
pub(crate) const NEXT: &str = "SELECT runner, instance FROM next_number WHERE one = 1";

// Waits, events, history.
pub(crate) const PUT_WAIT: &str = "\
INSERT INTO wait (job, number, at, reasons)
SELECT id, (SELECT coalesce(max(number), 0) + 1 FROM wait WHERE wait.job = job.id), ?4, ?5
FROM job WHERE forge = ?1 AND namespace = ?2 AND native = ?3";
/// All but the newest, so many that ?4 are kept.
pub(crate) const PRUNE_WAITS: &str = "\
DELETE FROM wait
WHERE job = (SELECT id FROM job WHERE forge = ?1 AND namespace = ?2 AND native = ?3)
AND number <= (SELECT max(wait.number) FROM job JOIN wait ON wait.job = job.id
    WHERE forge = ?1 AND namespace = ?2 AND native = ?3) - ?4";
pub(crate) const WAITS: &str = "\
SELECT job.forge, job.namespace, job.native, wait.at, wait.reasons
FROM job JOIN wait ON wait.job = job.id
AND wait.number = (SELECT max(number) FROM wait WHERE job = job.id)
WHERE job.forgotten_at IS NULL AND wait.reasons <> '[]'";
pub(crate) const WAIT_HISTORY: &str = "\
SELECT job.forge, job.namespace, job.native, wait.at, wait.reasons
FROM job JOIN wait ON wait.job = job.id
WHERE job.forge = ?1 AND job.namespace = ?2 AND job.native = ?3
ORDER BY wait.number DESC LIMIT ?4";
pub(crate) const PUT_EVENT: &str = "\
INSERT INTO event (at, job_forge, job_namespace, job_native, runner, pool, text)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
pub(crate) const EVENTS: &str = "\
SELECT sequence, at, job_forge, job_namespace, job_native, runner, pool, text
FROM event WHERE sequence > ?1 ORDER BY sequence LIMIT ?2";
pub(crate) static ATTEMPTS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {ATTEMPT_COLUMNS} FROM attempt WHERE job = \
         (SELECT id FROM job WHERE forge = ?1 AND namespace = ?2 AND native = ?3) \
         ORDER BY number DESC LIMIT ?4"
    )
});
pub(crate) static RUNNER_HISTORY: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {RUNNER_COLUMNS} FROM runner ORDER BY id DESC LIMIT ?1"));

// Pruning: which rows are old, at most ?2 of them, and their removal. It is asked with every commit,
// so what is old must be found by an index. That of decided deliveries is only used where
// `state <> 'pending'` is said: that the state is another word does not imply it to `SQLite`.
pub(crate) const OLD_BODIES: &str = "\
SELECT sequence FROM delivery WHERE state = 'decoded' AND state <> 'pending' AND decided_at < ?1
ORDER BY decided_at LIMIT ?2";
pub(crate) const OLD_EMPTIED: &str = "\
SELECT sequence FROM delivery WHERE state = 'emptied' AND state <> 'pending' AND decided_at < ?1
ORDER BY decided_at LIMIT ?2";
pub(crate) const OLD_UNDECODABLE: &str = "\
SELECT sequence FROM delivery WHERE state = 'undecodable' AND state <> 'pending'
AND decided_at < ?1 ORDER BY decided_at LIMIT ?2";
pub(crate) const OLD_JOBS: &str =
    "SELECT id FROM job WHERE forgotten_at < ?1 ORDER BY forgotten_at LIMIT ?2";
pub(crate) const OLD_RUNNERS: &str =
    "SELECT id FROM runner WHERE forgotten_at < ?1 ORDER BY forgotten_at LIMIT ?2";
pub(crate) const OLD_INSTANCES: &str =
    "SELECT id FROM instance WHERE forgotten_at < ?1 ORDER BY forgotten_at LIMIT ?2";
pub(crate) const OLD_EVENTS: &str = "\
SELECT sequence FROM event WHERE sequence <= (SELECT max(sequence) FROM event) - ?1
ORDER BY sequence LIMIT ?2";
/// Writes a whole row, in place of the one with the same key: the first `keys` of `columns`.
fn upsert(table: &str, columns: &str, keys: usize) -> String {
    let names: Vec<&str> = columns.split(", ").collect();
    let values: Vec<String> = (1..=names.len()).map(|number| format!("?{number}")).collect();
    format!(
        "INSERT INTO {table} ({columns}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}",
        values.join(", "),
        names[..keys].join(", "),
        replaced(columns, keys)
    )
}

fn replaced(columns: &str, keys: usize) -> String {
    let sets: Vec<String> =
        columns.split(", ").skip(keys).map(|name| format!("{name} = excluded.{name}")).collect();
    sets.join(", ")
}
