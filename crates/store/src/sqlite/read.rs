//! What is read, each inside a transaction: it sees one state of the database.

use std::sync::Arc;

use remuda_core::job::{Attempt, Job, JobKey};
use remuda_core::name::InstallationId;
use remuda_core::runner::{Instance, Runner};
use remuda_core::{Change, Delivery, Event, Timestamp, WaitChange};
use rusqlite::{Connection, OptionalExtension as _, Params, Row, params};

use super::row::{self, job_values};
use super::sql;
use crate::{ATTEMPTS_PER_CALL_MAX, BODY_BYTES_PER_CALL_MAX, Books, Leader, WAITS_PER_JOB_MAX};

fn rows<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare_cached(sql)?.query_map(params, read)?.collect()
}

/// As [`rows`], but ends before the bodies grow over what one call may hand back.
fn bodies<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(params)?;
    let (mut all, mut bytes) = (Vec::new(), 0_usize);
    while let Some(row) = found.next()? {
        bytes = bytes.saturating_add(row.get_ref("body")?.as_blob().map_or(0, <[u8]>::len));
        if bytes > BODY_BYTES_PER_CALL_MAX && !all.is_empty() {
            break;
        }
        all.push(read(row)?);
    }
    Ok(all)
}

/// Numbers given by the database are never above this.
fn sequence(after: u64) -> i64 {
    i64::try_from(after).unwrap_or(i64::MAX)
}

/// Who has the lease, as it is written: it may have run out.
pub(super) struct Held {
    pub(super) holder: Arc<str>,
    pub(super) taken_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

/// The last epoch and its holder; no holder if the lease was given back.
pub(super) fn lease(connection: &Connection) -> rusqlite::Result<Option<(u64, Option<Held>)>> {
    let time = |row: &Row<'_>, name| row.get::<_, i64>(name).map(Timestamp::from_millis);
    let found = connection.prepare_cached(sql::LEASE)?.query_row([], |row| {
        let held = match row.get::<_, Option<Arc<str>>>("holder")? {
            Some(holder) => Some(Held {
                holder,
                taken_at: time(row, "taken_at")?,
                expires_at: time(row, "expires_at")?,
            }),
            None => None,
        };
        Ok((row.get::<_, i64>("epoch")?.cast_unsigned(), held))
    });
    found.optional()
}

pub(super) fn leader(connection: &Connection, now: Timestamp) -> rusqlite::Result<Option<Leader>> {
    let Some((epoch, Some(held))) = lease(connection)? else { return Ok(None) };
    let leader = Leader { holder: held.holder, epoch, since: held.taken_at };
    Ok((held.expires_at > now).then_some(leader))
}

pub(super) fn undecoded(
    connection: &Connection,
    after: u64,
    limit: u32,
) -> rusqlite::Result<Vec<(u64, Delivery)>> {
    bodies(connection, sql::UNDECODED, params![sequence(after), limit], row::delivery)
}

pub(super) fn undecodable(
    connection: &Connection,
    limit: u32,
) -> rusqlite::Result<Vec<(u64, Delivery, String)>> {
    bodies(connection, sql::UNDECODABLE, [limit], |found| {
        let (sequence, delivery) = row::delivery(found)?;
        Ok((sequence, delivery, found.get("error")?))
    })
}

pub(super) fn books(connection: &Connection) -> rusqlite::Result<Books> {
    let installation: InstallationId =
        connection.prepare_cached(sql::INSTALLATION)?.query_row([], row::installation)?;
    let mut waits = rows(connection, sql::WAITS, [], row::wait)?;
    waits.sort_by(|a, b| a.job.cmp(&b.job));
    Ok(Books { installation, changes: changes(connection)?, waits })
}

fn changes(connection: &Connection) -> rusqlite::Result<Vec<Change>> {
    let mut tenants = rows(connection, sql::TENANTS, [], row::tenant)?;
    tenants.sort_by(|a, b| a.tenant.key.cmp(&b.tenant.key));
    let mut jobs: Vec<Job> = rows(connection, &sql::JOBS, [], row::job)?;
    jobs.sort_by(|a, b| a.key.cmp(&b.key));
    let mut runners: Vec<Runner> = rows(connection, &sql::RUNNERS, [], row::runner)?;
    runners.sort_by_key(|runner| runner.id);
    let mut instances: Vec<Instance> = rows(connection, &sql::INSTANCES, [], row::instance)?;
    instances.sort_by_key(|instance| instance.id);
    let mut backoffs = rows(connection, &sql::BACKOFFS, [], row::backoff)?;
    backoffs.sort_by(|a, b| a.0.cmp(&b.0));
    let mut drains = rows(connection, sql::DRAINS, [], row::drain)?;
    drains.sort_by(|a, b| a.0.cmp(&b.0));
    let recovering = rows(connection, sql::RECOVERING, [], row::recovering)?;
    let mut strays = rows(connection, sql::STRAYS, [], row::stray)?;
    strays.sort_by(|a, b| a.0.cmp(&b.0));
    let next = connection.prepare_cached(sql::NEXT)?.query_row([], row::next).optional()?;

    let mut changes: Vec<Change> = tenants.into_iter().map(Box::new).map(Change::Tenant).collect();
    changes.extend(jobs.into_iter().map(|job| Change::Job(Box::new(job))));
    changes.extend(runners.into_iter().map(|runner| Change::Runner(Box::new(runner))));
    changes.extend(instances.into_iter().map(|instance| Change::Instance(Box::new(instance))));
    changes.extend(backoffs.into_iter().map(|(key, value)| Change::Backoff(key, Some(value))));
    changes.extend(drains.into_iter().map(|(key, value)| Change::Drain(key, Some(value))));
    changes.extend(recovering.into_iter().map(|value| Change::Recovering(Some(value))));
    changes.extend(strays.into_iter().map(|(key, value)| Change::Stray(key, Some(value))));
    changes.extend(next.map(|(runner, instance)| Change::Next { runner, instance }));
    Ok(changes)
}

pub(super) fn events(
    connection: &Connection,
    after: u64,
    limit: u32,
) -> rusqlite::Result<Vec<(u64, Event)>> {
    rows(connection, sql::EVENTS, params![sequence(after), limit], row::event)
}

pub(super) fn job_history(connection: &Connection, key: &JobKey) -> rusqlite::Result<Vec<Attempt>> {
    let (forge, namespace, native) = job_values(key);
    let params = (forge, namespace, native, ATTEMPTS_PER_CALL_MAX);
    let mut attempts = rows(connection, &sql::ATTEMPTS, params, row::attempt)?;
    attempts.reverse();
    Ok(attempts)
}

pub(super) fn wait_history(
    connection: &Connection,
    key: &JobKey,
    limit: u32,
) -> rusqlite::Result<Vec<WaitChange>> {
    let (forge, namespace, native) = job_values(key);
    let params = (forge, namespace, native, limit.min(WAITS_PER_JOB_MAX));
    rows(connection, sql::WAIT_HISTORY, params, row::wait)
}

pub(super) fn runner_history(connection: &Connection, limit: u32) -> rusqlite::Result<Vec<Runner>> {
    rows(connection, &sql::RUNNER_HISTORY, [limit], row::runner)
}

pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached(sql::INSTALLATION)?.query_row([], row::installation)?;
    Ok(())
}
