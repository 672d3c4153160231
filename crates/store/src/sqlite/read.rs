//! What is read, each inside a transaction: it sees one state of the database.

use std::borrow::Cow;
use std::sync::Arc;

use remuda_core::job::{Attempt, JobKey};
use remuda_core::runner::Runner;
use remuda_core::{Delivery, Event, Timestamp, WaitChange};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Params, Row, params, params_from_iter};

use super::sql as own;
use crate::books::Found;
use crate::value::{Cells, Misread, Value, misread};
use crate::write::job_values;
use crate::{
    ATTEMPTS_PER_CALL_MAX, Applied, BODY_BYTES_PER_CALL_MAX, Books, Leader, WAITS_PER_JOB_MAX, row,
    sql,
};

impl Cells for Row<'_> {
    fn int(&self, column: &str) -> Result<Option<i64>, Misread> {
        self.get_ref(column).map_err(misread(column))?.as_i64_or_null().map_err(misread(column))
    }

    fn text(&self, column: &str) -> Result<Option<Cow<'_, str>>, Misread> {
        let cell = self.get_ref(column).map_err(misread(column))?;
        Ok(cell.as_str_or_null().map_err(misread(column))?.map(Cow::Borrowed))
    }

    fn bytes(&self, column: &str) -> Result<Option<&[u8]>, Misread> {
        self.get_ref(column).map_err(misread(column))?.as_blob_or_null().map_err(misread(column))
    }
}

impl From<Misread> for rusqlite::Error {
    fn from(error: Misread) -> Self {
        // The column is named in the text, which says more than its place in the statement.
        Self::FromSqlConversionFailure(usize::MAX, Type::Text, error.into())
    }
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: fn(&dyn Cells) -> Result<T, Misread>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare_cached(sql)?.query_map(params, |row| Ok(read(row)?))?.collect()
}

/// As [`rows`], but ends before the bodies grow over what one call may hand back.
fn bodies<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: fn(&dyn Cells) -> Result<T, Misread>,
) -> rusqlite::Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(params)?;
    let (mut all, mut bytes) = (Vec::new(), 0_usize);
    while let Some(row) = found.next()? {
        bytes = bytes.saturating_add(row.bytes("body")?.map_or(0, <[u8]>::len));
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
    let found = connection.prepare_cached(own::LEASE)?.query_row([], |row| {
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

pub(super) fn applied(
    connection: &Connection,
    number: Option<u64>,
) -> rusqlite::Result<Option<Applied>> {
    let found = rows(connection, sql::FLEET, params![number.map(sequence)], row::applied)?;
    Ok(found.into_iter().next())
}

pub(super) fn fleet_history(connection: &Connection, limit: u32) -> rusqlite::Result<Vec<Applied>> {
    rows(connection, sql::FLEETS, params![limit], row::applied)
}

pub(super) fn undecoded(
    connection: &Connection,
    after: u64,
    limit: u32,
) -> rusqlite::Result<Vec<(u64, Delivery)>> {
    bodies(connection, own::UNDECODED, params![sequence(after), limit], row::delivery)
}

pub(super) fn undecodable(
    connection: &Connection,
    limit: u32,
) -> rusqlite::Result<Vec<(u64, Delivery, String)>> {
    bodies(connection, own::UNDECODABLE, [limit], row::undecodable)
}

pub(super) fn books(connection: &Connection) -> rusqlite::Result<Books> {
    let none = || params![];
    let next = connection
        .prepare_cached(sql::NEXT)?
        .query_row([], |row| Ok(row::next(row)?))
        .optional()?;
    Ok(Found {
        installation: connection
            .prepare_cached(sql::INSTALLATION)?
            .query_row([], |row| Ok(row::installation(row)?))?,
        tenants: rows(connection, sql::TENANTS, none(), row::tenant)?,
        jobs: rows(connection, &sql::JOBS, none(), row::job)?,
        runners: rows(connection, &sql::RUNNERS, none(), row::runner)?,
        instances: rows(connection, &sql::INSTANCES, none(), row::instance)?,
        backoffs: rows(connection, &sql::BACKOFFS, none(), row::backoff)?,
        drains: rows(connection, sql::DRAINS, none(), row::drain)?,
        recovering: rows(connection, sql::RECOVERING, none(), row::recovering)?,
        strays: rows(connection, sql::STRAYS, none(), row::stray)?,
        next,
        waits: rows(connection, sql::WAITS, none(), row::wait)?,
    }
    .books())
}

pub(super) fn events(
    connection: &Connection,
    after: u64,
    limit: u32,
) -> rusqlite::Result<Vec<(u64, Event)>> {
    rows(connection, sql::EVENTS, params![sequence(after), limit], row::event)
}

pub(super) fn job_history(connection: &Connection, key: &JobKey) -> rusqlite::Result<Vec<Attempt>> {
    let params = of_job(key, ATTEMPTS_PER_CALL_MAX);
    let mut attempts = rows(connection, &sql::ATTEMPTS, params_from_iter(params), row::attempt)?;
    attempts.reverse();
    Ok(attempts)
}

pub(super) fn wait_history(
    connection: &Connection,
    key: &JobKey,
    limit: u32,
) -> rusqlite::Result<Vec<WaitChange>> {
    let params = of_job(key, limit.min(WAITS_PER_JOB_MAX));
    rows(connection, sql::WAIT_HISTORY, params_from_iter(params), row::wait)
}

fn of_job(key: &JobKey, limit: u32) -> Vec<Value<'_>> {
    let mut values = job_values(key);
    values.push(limit.into());
    values
}

pub(super) fn runner_history(connection: &Connection, limit: u32) -> rusqlite::Result<Vec<Runner>> {
    rows(connection, &sql::RUNNER_HISTORY, [limit], row::runner)
}

pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached(sql::INSTALLATION)?
        .query_row([], |row| Ok(row::installation(row)?))?;
    Ok(())
}
