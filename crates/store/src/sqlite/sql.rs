//! Every statement of this backend, so that a twin for another database has one file to read.
//!
//! Parameters are numbered in the order of the columns named. The wide upserts are put together
//! from their column lists, which the matching reads share.

use std::sync::LazyLock;

// Opening.
pub(super) const TABLES: &str =
    "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
pub(super) const CREATE_MIGRATIONS: &str = "\
CREATE TABLE IF NOT EXISTS schema_migration (
    number INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT";
pub(super) const MIGRATIONS: &str = "SELECT number, sha256 FROM schema_migration ORDER BY number";
pub(super) const PUT_MIGRATION: &str =
    "INSERT INTO schema_migration (number, sha256, applied_at) VALUES (?1, ?2, ?3)";
pub(super) const BEGIN_BOOKS: &str =
    "INSERT INTO meta (key, value) VALUES ('installation', ?1) ON CONFLICT (key) DO NOTHING";
pub(super) const INSTALLATION: &str = "SELECT value FROM meta WHERE key = 'installation'";
pub(super) const PROBE: &str = "\
INSERT INTO meta (key, value) VALUES ('checked_at', ?1)
ON CONFLICT (key) DO UPDATE SET value = excluded.value";

// Deliveries.
pub(super) const DELIVERY_NUMBER: &str =
    "SELECT sequence FROM delivery WHERE forge = ?1 AND id = ?2";
pub(super) const PUT_DELIVERY: &str =
    "INSERT INTO delivery (forge, id, event, received_at) VALUES (?1, ?2, ?3, ?4)";
pub(super) const PUT_BODY: &str = "INSERT INTO delivery_body (sequence, body) VALUES (?1, ?2)";
pub(super) const UNDECODED: &str = "\
SELECT sequence, forge, id, event, received_at, body
FROM delivery JOIN delivery_body USING (sequence)
WHERE state = 'pending' AND sequence > ?1 ORDER BY sequence LIMIT ?2";
pub(super) const UNDECODABLE: &str = "\
SELECT sequence, forge, id, event, received_at, body, error
FROM delivery JOIN delivery_body USING (sequence)
WHERE state = 'undecodable' AND state <> 'pending'
ORDER BY decided_at DESC, sequence DESC LIMIT ?1";
pub(super) const MARK_DELIVERY: &str = "\
UPDATE delivery SET state = ?2, decided_at = ?3, error = ?4
WHERE sequence = ?1 AND state IN ('pending', 'undecodable')";

// The lease.
pub(super) const LEASE: &str =
    "SELECT epoch, holder, expires_at, taken_at FROM lease WHERE one = 1";
pub(super) const PUT_LEASE: &str = "\
INSERT INTO lease (one, epoch, holder, expires_at, taken_at) VALUES (1, ?1, ?2, ?3, ?4)
ON CONFLICT (one) DO UPDATE
SET epoch = excluded.epoch, holder = excluded.holder, expires_at = excluded.expires_at,
    taken_at = excluded.taken_at";
pub(super) const FREE_LEASE: &str =
    "UPDATE lease SET holder = NULL WHERE one = 1 AND epoch = ?1 AND holder = ?2";

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
const FAILING_COLUMNS: &str = "\
kind, name, part, failures, since, failed_at, until, because, earlier, proof, is_full";
const INSTANCE_COLUMNS: &str = "\
id, provider, pool, purpose, purpose_runner, needs, node, epoch, state, created_at, launch_at, \
launch_deadline, launch_answered_at, exit_at, exit_code, missing_since, destroyed_at, gone_at, \
forgotten_at";

pub(super) static PUT_JOB: LazyLock<String> =
    LazyLock::new(|| upsert("job", JOB_COLUMNS, 3) + " RETURNING id");
pub(super) static PUT_ATTEMPT: LazyLock<String> =
    LazyLock::new(|| upsert("attempt", ATTEMPT_COLUMNS, 2));
pub(super) static PUT_RUNNER: LazyLock<String> =
    LazyLock::new(|| upsert("runner", RUNNER_COLUMNS, 1));
pub(super) static PUT_INSTANCE: LazyLock<String> =
    LazyLock::new(|| upsert("instance", INSTANCE_COLUMNS, 1));
pub(super) static PUT_TENANT: LazyLock<String> =
    LazyLock::new(|| upsert("tenant", "forge, kind, id, login, logins, served_at", 3));
pub(super) static PUT_BACKOFF: LazyLock<String> =
    LazyLock::new(|| upsert("failing", FAILING_COLUMNS, 3));
pub(super) static PUT_DRAIN: LazyLock<String> =
    LazyLock::new(|| upsert("drain", "kind, name, node, who, why, since", 3));
pub(super) static PUT_RECOVERING: LazyLock<String> =
    LazyLock::new(|| upsert("recovering", "one, since, because", 1));
pub(super) static PUT_STRAY: LazyLock<String> =
    LazyLock::new(|| upsert("stray", "forge, scope, id, name, first_seen, last_seen, tried_at", 3));
pub(super) static PUT_NEXT: LazyLock<String> =
    LazyLock::new(|| upsert("next_number", "one, runner, instance", 1));

pub(super) const REMOVE_BACKOFF: &str =
    "DELETE FROM failing WHERE kind = ?1 AND name = ?2 AND part = ?3";
pub(super) const REMOVE_DRAIN: &str =
    "DELETE FROM drain WHERE kind = ?1 AND name = ?2 AND node = ?3";
pub(super) const REMOVE_RECOVERING: &str = "DELETE FROM recovering";
pub(super) const REMOVE_STRAY: &str =
    "DELETE FROM stray WHERE forge = ?1 AND scope = ?2 AND id = ?3";
pub(super) const FORGET_JOB: &str = "\
UPDATE job SET forgotten_at = ?4
WHERE forge = ?1 AND namespace = ?2 AND native = ?3 AND forgotten_at IS NULL";
pub(super) const FORGET_INSTANCE_OF_RUNNER: &str = "\
UPDATE instance SET forgotten_at = ?2
WHERE forgotten_at IS NULL
AND id = (SELECT instance FROM runner WHERE id = ?1 AND forgotten_at IS NULL)";
pub(super) const FORGET_RUNNER: &str =
    "UPDATE runner SET forgotten_at = ?2 WHERE id = ?1 AND forgotten_at IS NULL";

pub(super) const TENANTS: &str = "SELECT forge, kind, id, login, logins, served_at FROM tenant";
pub(super) static JOBS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {JOB_COLUMNS}, number, state, runner_id, runner_name, conclusion, queued_at, \
         started_at, completed_at, fact_at \
         FROM job JOIN attempt ON attempt.job = job.id AND attempt.number = job.attempt \
         WHERE forgotten_at IS NULL"
    )
});
pub(super) static RUNNERS: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {RUNNER_COLUMNS} FROM runner WHERE forgotten_at IS NULL"));
pub(super) static INSTANCES: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {INSTANCE_COLUMNS} FROM instance WHERE forgotten_at IS NULL"));
pub(super) static BACKOFFS: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {FAILING_COLUMNS} FROM failing"));
pub(super) const DRAINS: &str = "SELECT kind, name, node, who, why, since FROM drain";
pub(super) const RECOVERING: &str = "SELECT since, because FROM recovering";
pub(super) const STRAYS: &str =
    "SELECT forge, scope, id, name, first_seen, last_seen, tried_at FROM stray";
pub(super) const NEXT: &str = "SELECT runner, instance FROM next_number WHERE one = 1";

// Waits, events, history.
pub(super) const NEXT_WAIT: &str = "\
SELECT id, (SELECT coalesce(max(number), 0) + 1 FROM wait WHERE wait.job = job.id)
FROM job WHERE forge = ?1 AND namespace = ?2 AND native = ?3";
pub(super) const PUT_WAIT: &str =
    "INSERT INTO wait (job, number, at, reasons) VALUES (?1, ?2, ?3, ?4)";
pub(super) const PRUNE_WAITS: &str = "DELETE FROM wait WHERE job = ?1 AND number <= ?2";
pub(super) const WAITS: &str = "\
SELECT job.forge, job.namespace, job.native, wait.at, wait.reasons
FROM job JOIN wait ON wait.job = job.id
AND wait.number = (SELECT max(number) FROM wait WHERE job = job.id)
WHERE job.forgotten_at IS NULL AND wait.reasons <> '[]'";
pub(super) const WAIT_HISTORY: &str = "\
SELECT job.forge, job.namespace, job.native, wait.at, wait.reasons
FROM job JOIN wait ON wait.job = job.id
WHERE job.forge = ?1 AND job.namespace = ?2 AND job.native = ?3
ORDER BY wait.number DESC LIMIT ?4";
pub(super) const PUT_EVENT: &str = "\
INSERT INTO event (at, job_forge, job_namespace, job_native, runner, pool, text)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
pub(super) const EVENTS: &str = "\
SELECT sequence, at, job_forge, job_namespace, job_native, runner, pool, text
FROM event WHERE sequence > ?1 ORDER BY sequence LIMIT ?2";
pub(super) static ATTEMPTS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {ATTEMPT_COLUMNS} FROM attempt WHERE job = \
         (SELECT id FROM job WHERE forge = ?1 AND namespace = ?2 AND native = ?3) \
         ORDER BY number DESC LIMIT ?4"
    )
});
pub(super) static RUNNER_HISTORY: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {RUNNER_COLUMNS} FROM runner ORDER BY id DESC LIMIT ?1"));

// Pruning: which rows are old, at most ?2 of them, and their removal. It is asked with every commit,
// so what is old must be found by an index. That of decided deliveries is only used where
// `state <> 'pending'` is said: that the state is another word does not imply it to `SQLite`.
pub(super) const OLD_BODIES: &str = "\
SELECT sequence FROM delivery WHERE state = 'decoded' AND state <> 'pending' AND decided_at < ?1
ORDER BY decided_at LIMIT ?2";
pub(super) const OLD_EMPTIED: &str = "\
SELECT sequence FROM delivery WHERE state = 'emptied' AND state <> 'pending' AND decided_at < ?1
ORDER BY decided_at LIMIT ?2";
pub(super) const OLD_UNDECODABLE: &str = "\
SELECT sequence FROM delivery WHERE state = 'undecodable' AND state <> 'pending'
AND decided_at < ?1 ORDER BY decided_at LIMIT ?2";
pub(super) const OLD_JOBS: &str =
    "SELECT id FROM job WHERE forgotten_at < ?1 ORDER BY forgotten_at LIMIT ?2";
pub(super) const OLD_RUNNERS: &str =
    "SELECT id FROM runner WHERE forgotten_at < ?1 ORDER BY forgotten_at LIMIT ?2";
pub(super) const OLD_INSTANCES: &str =
    "SELECT id FROM instance WHERE forgotten_at < ?1 ORDER BY forgotten_at LIMIT ?2";
pub(super) const OLD_EVENTS: &str = "\
SELECT sequence FROM event WHERE sequence <= (SELECT max(sequence) FROM event) - ?1
ORDER BY sequence LIMIT ?2";
pub(super) const REMOVE_BODY: &str = "DELETE FROM delivery_body WHERE sequence = ?1";
pub(super) const MARK_EMPTIED: &str = "UPDATE delivery SET state = 'emptied' WHERE sequence = ?1";
pub(super) const REMOVE_DELIVERY: &str = "DELETE FROM delivery WHERE sequence = ?1";
pub(super) const REMOVE_JOB: &str = "DELETE FROM job WHERE id = ?1";
pub(super) const REMOVE_RUNNER: &str = "DELETE FROM runner WHERE id = ?1";
pub(super) const REMOVE_INSTANCE: &str = "DELETE FROM instance WHERE id = ?1";
pub(super) const REMOVE_EVENT: &str = "DELETE FROM event WHERE sequence = ?1";

/// Writes a whole row, in place of the one with the same key: the first `keys` of `columns`.
fn upsert(table: &str, columns: &str, keys: usize) -> String {
    let names: Vec<&str> = columns.split(", ").collect();
    let values: Vec<String> = (1..=names.len()).map(|number| format!("?{number}")).collect();
    let sets: Vec<String> =
        names[keys..].iter().map(|name| format!("{name} = excluded.{name}")).collect();
    format!(
        "INSERT INTO {table} ({columns}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}",
        values.join(", "),
        names[..keys].join(", "),
        sets.join(", ")
    )
}
