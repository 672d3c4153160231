//! What the writer does, each inside a transaction that somebody else begins and commits.

use std::time::Duration;

use remuda_core::{Batch, Delivery, Timestamp};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Params, ToSql, params, params_from_iter};

use super::work::Undone;
use super::{read, sql as own};
use crate::value::Value;
use crate::write::{applied_values, last_forgotten};
use crate::{Accepted, Applied, Decoded, Lease, sql, write};

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

fn run(connection: &Connection, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
    connection.prepare_cached(sql)?.execute(params)
}

pub(super) fn accept(connection: &Connection, delivery: &Delivery) -> rusqlite::Result<Accepted> {
    let known: Option<i64> = connection
        .prepare_cached(own::DELIVERY_NUMBER)?
        .query_row(params![delivery.forge.as_str(), &*delivery.id], |row| row.get(0))
        .optional()?;
    if let Some(sequence) = known {
        return Ok(Accepted::Duplicate(sequence.cast_unsigned()));
    }
    let Delivery { forge, id, event, received_at, body } = delivery;
    let values = params![forge.as_str(), id, event, received_at.as_millis()];
    let sequence = connection.prepare_cached(own::PUT_DELIVERY)?.insert(values)?;
    run(connection, own::PUT_BODY, params![sequence, body])?;
    Ok(Accepted::New(sequence.cast_unsigned()))
}

pub(super) fn lease(
    connection: &Connection,
    holder: &str,
    ttl: Duration,
    now: Timestamp,
) -> rusqlite::Result<Option<Lease>> {
    let (last, held) = read::lease(connection)?.unwrap_or((0, None));
    if held.is_some_and(|held| held.expires_at > now && *held.holder != *holder) {
        return Ok(None);
    }
    let (epoch, expires_at) = (last + 1, (now + ttl).as_millis());
    let values = params![epoch.cast_signed(), holder, expires_at, now.as_millis()];
    run(connection, own::PUT_LEASE, values)?;
    Ok(Some(Lease { holder: holder.into(), epoch }))
}

pub(super) fn renew(
    connection: &Connection,
    lease: &Lease,
    ttl: Duration,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let (epoch, expires_at) = (lease.epoch.cast_signed(), (now + ttl).as_millis());
    let values = params![epoch, lease.holder, expires_at, now.as_millis()];
    Ok(connection.prepare_cached(own::RENEW_LEASE)?.execute(values)? > 0)
}

pub(super) fn release(connection: &Connection, lease: &Lease) -> rusqlite::Result<()> {
    run(connection, sql::FREE_LEASE, params![lease.epoch.cast_signed(), lease.holder])?;
    Ok(())
}

pub(super) fn apply(connection: &Connection, fleet: &Applied) -> rusqlite::Result<bool> {
    let values = params_from_iter(applied_values(fleet));
    let written = connection.prepare_cached(sql::PUT_FLEET)?.exists(values)?;
    if written {
        run(connection, sql::FORGET_FLEETS, [last_forgotten(fleet)])?;
    }
    Ok(written)
}

pub(super) fn probe(connection: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    run(connection, sql::PROBE, [now.as_millis().to_string()])?;
    Ok(())
}

pub(super) fn commit(
    connection: &Connection,
    lease: &Lease,
    batch: &Batch,
    decoded: &[Decoded],
    now: Timestamp,
) -> Result<(), Undone> {
    let in_force = match read::lease(connection)? {
        Some((epoch, Some(held))) => epoch == lease.epoch && held.holder == lease.holder,
        Some((_, None)) | None => false,
    };
    if !in_force {
        return Err(Undone::Fenced(lease.epoch));
    }
    for (sql, values) in write::commit(batch, decoded, now) {
        run(connection, sql, params_from_iter(values))?;
    }
    Ok(())
}
