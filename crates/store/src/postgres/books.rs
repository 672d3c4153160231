//! The lease, the commits under it, and everything that a new holder must know.

use std::time::Duration;

use remuda_core::{Batch, Timestamp};

use super::link::{Link, Session};
use super::sql as own;
use crate::books::Found;
use crate::clock::Clock;
use crate::value::{Cells as _, Misread, Statement, Value, values};
use crate::{Books, Decoded, Leader, Lease, Retention, StoreError, row, sql, write};

/// Most rows of one kind that one commit removes: more than one commit ever adds for long.
const ROWS_MAX: u32 = 256;

/// The time, if it is not for the database to tell.
fn told(link: &Link) -> Value<'static> {
    link.settings.clock.as_ref().map(Clock::now).into()
}

pub(super) async fn lease(
    link: &Link,
    holder: &str,
    ttl: Duration,
) -> Result<Option<Lease>, StoreError> {
    let millis = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
    let values = values![told(link), holder, millis];
    let taken = link.rows_of_the_lease(&own::LEASE, values, |row| row.int("epoch")).await?;
    let epoch = taken.into_iter().flatten().next();
    Ok(epoch.map(|epoch| Lease { holder: holder.into(), epoch: epoch.cast_unsigned() }))
}

pub(super) async fn renew(link: &Link, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
    let millis = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
    let values = values![told(link), lease.epoch, &lease.holder, millis];
    Ok(!link.rows_of_the_lease(&own::RENEW_LEASE, values, |_| Ok(())).await?.is_empty())
}

pub(super) async fn leader(link: &Link) -> Result<Option<Leader>, StoreError> {
    Ok(link.rows(&own::LEADER, values![told(link)], row::leader).await?.pop())
}

pub(super) async fn release(link: &Link, lease: &Lease) -> Result<(), StoreError> {
    let values = values![lease.epoch, &lease.holder];
    link.rows_of_the_lease(sql::FREE_LEASE, values, |_| Ok(())).await?;
    Ok(())
}

/// Until the lease has been seen to be in force, and locked, nothing is written. A connection that breaks
/// after that leaves the outcome unknown, although nothing can have been kept before its end was sent.
pub(super) async fn commit(
    link: &Link,
    lease: &Lease,
    batch: &Batch,
    decoded: &[Decoded],
) -> Result<(), StoreError> {
    let (session, now) = link.bounded(begin(link, lease)).await?;
    let old = prune(&link.settings.retention, now);
    let statements = write::commit(batch, decoded, now).chain(old);
    let ended =
        tokio::time::timeout(link.settings.call_timeout, session.all_to_the_end(statements));
    match ended.await {
        Ok(Ok(())) => {
            session.keep();
            Ok(())
        }
        Ok(Err(error)) => Err(link.place.unended(error)),
        Err(_) => Err(link.place.unanswered(link.settings.call_timeout)),
    }
}

/// Begins a transaction in which the lease is in force. Gives it, and the time.
async fn begin<'a>(link: &'a Link, lease: &Lease) -> Result<(Session<'a>, Timestamp), StoreError> {
    let failed = |error| link.place.failed(error);
    let session = link.session().await?;
    let fence = session.prepared(&own::FENCE).await.map_err(failed)?;
    let (begun, held) = tokio::join!(
        biased;
        session.run(own::BEGIN),
        session.query(&fence, vec![told(link)]),
    );
    begun.map_err(failed)?;
    let held = held.map_err(failed)?;
    let corrupt = |error: Misread| link.place.corrupt(&error);
    let [held] = &held[..] else {
        return Err(corrupt(Misread::new("one", "the lease's row is not there")));
    };
    let epoch = held.int("epoch").map_err(corrupt)?.map(i64::cast_unsigned);
    let holder = held.text("holder").map_err(corrupt)?;
    let now = held.int("now").map_err(corrupt)?.unwrap_or_default();
    if epoch != Some(lease.epoch) || holder.as_deref() != Some(&*lease.holder) {
        session.run("ROLLBACK").await.map_err(failed)?;
        session.keep();
        return Err(StoreError::Fenced { epoch: lease.epoch });
    }
    Ok((session, Timestamp::from_millis(now)))
}

/// What removes what is past its retention, a little in every commit, so that no commit takes long.
fn prune<'a>(retention: &Retention, now: Timestamp) -> impl Iterator<Item = Statement<'a>> {
    let before = |kept| (now - kept).as_millis();
    let history = before(retention.history);
    let bounds = [
        before(retention.bodies),
        before(retention.deliveries),
        before(retention.undecodable),
        history,
        history,
        history,
        i64::from(retention.events),
    ];
    own::PRUNE.iter().zip(bounds).map(|(sql, bound)| (sql.as_str(), values![bound, ROWS_MAX]))
}

pub(super) async fn load(link: &Link) -> Result<Books, StoreError> {
    let failed = |error| link.place.failed(error);
    let session = link.session().await?;
    session.run(own::BEGIN_READING).await.map_err(failed)?;
    let none = Vec::new;
    let installation = session.rows(sql::INSTALLATION, none(), row::installation).await?;
    let found = Found {
        installation: installation
            .into_iter()
            .next()
            .ok_or_else(|| link.place.corrupt(&Misread::new("value", "the books have no name")))?,
        tenants: session.rows(sql::TENANTS, none(), row::tenant).await?,
        jobs: session.rows(&sql::JOBS, none(), row::job).await?,
        runners: session.rows(&sql::RUNNERS, none(), row::runner).await?,
        instances: session.rows(&sql::INSTANCES, none(), row::instance).await?,
        backoffs: session.rows(&sql::BACKOFFS, none(), row::backoff).await?,
        drains: session.rows(sql::DRAINS, none(), row::drain).await?,
        recovering: session.rows(sql::RECOVERING, none(), row::recovering).await?,
        strays: session.rows(sql::STRAYS, none(), row::stray).await?,
        next: session.rows(sql::NEXT, none(), row::next).await?.pop(),
        waits: session.rows(sql::WAITS, none(), row::wait).await?,
    };
    session.run("COMMIT").await.map_err(failed)?;
    session.keep();
    Ok(found.books())
}

pub(super) async fn check(link: &Link) -> Result<(), StoreError> {
    link.rows(&own::PROBE, vec![told(link)], |_| Ok(())).await?;
    link.rows(sql::INSTALLATION, Vec::new(), row::installation).await?;
    Ok(())
}
