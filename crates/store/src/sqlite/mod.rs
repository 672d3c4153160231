//! The store in a `SQLite` file: WAL, flushed before anybody is answered, one thread that writes.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use remuda_core::job::{Attempt, JobKey};
use remuda_core::runner::Runner;
use remuda_core::{Batch, Change, Delivery, Event, WaitChange};
use rusqlite::{Connection, OpenFlags};

use crate::clock::Clock;
use crate::migration::up_to_date;
use crate::{
    Accepted, Applied, Books, Decoded, Leader, Lease, Retention, Store, StoreError, installation,
    sql as common,
};

mod migrate;
mod prune;
mod read;
mod sql;
mod transfer;
mod work;
mod write;

pub(crate) use migrate::MIGRATIONS;
use work::{Desk, Hands, Place};

/// Prepared statements kept per connection: more than there are.
const STATEMENTS_MAX: usize = 96;
/// Bytes of a page in a file that is made anew; one that exists keeps its own. A delivery of 12 KB takes
/// two of these, which costs the writer a tenth less than four of half the size.
const PAGE_BYTES: i64 = 8192;
/// Pages of the log after which it is copied into the file: 4 MiB. With eight times as many, the
/// hundredth accept that waits for a copy waits 40 ms and not 12, and no more are accepted per second.
const LOG_PAGES: i64 = 500;
/// Memory for pages of the writer, negative as `SQLite` counts KiB: the bodies of one group must not
/// push out the indexes that every call reads.
const CACHE_KIB: i64 = -64 * 1024;
/// The log's file is cut back to this size once it was copied.
const LOG_BYTES_KEPT: i64 = 64 * 1024 * 1024;

/// How a store in `SQLite` behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long to wait for another program to let go of the file.
    pub busy_timeout: Duration,
    /// Most pages (of 8 KiB) that the file may have; none means as many as the disk holds.
    pub pages_max: Option<u32>,
    /// Whether a database of an older version is brought forward, or refused.
    pub migrate: bool,
    /// How long what is no longer needed stays.
    pub retention: Retention,
    /// What leases and retention go by.
    pub clock: Clock,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            busy_timeout: Duration::from_secs(2),
            pages_max: None,
            migrate: true,
            retention: Retention::default(),
            clock: Clock::system(),
        }
    }
}

/// Keeps everything in a `SQLite` database. Its threads end, and are waited for, when it is dropped.
pub struct SqliteStore {
    settings: Settings,
    // Dropped in this order: the last connection to close puts the log into the file.
    reader: Option<Hands>,
    writer: Hands,
}

impl SqliteStore {
    /// Opens the database at `path` and brings it to the newest schema; makes it, readable by its
    /// owner only, if there is none. Blocks. Refuses what a newer version or another program made.
    pub fn open(path: &Path, settings: Settings) -> Result<Self, StoreError> {
        let place = Place::of(path);
        create(path).map_err(|error| place.unopened(error))?;
        let write = connect(path, &place, &settings)?;
        let done = migrate::check(&write, &place, MIGRATIONS)?;
        if !settings.migrate {
            up_to_date(done, MIGRATIONS, &place.name())?;
        }
        prepare_writer(&write, &settings).map_err(|error| place.error(error))?;
        migrate::run(&write, &place, MIGRATIONS, settings.clock.now())?;
        begin_books(&write, &place)?;
        let read = connect(path, &place, &settings)?;
        read.pragma_update(None, "query_only", true).map_err(|error| place.error(error))?;
        let reader = Hands::thread("store-reader", Desk::reader(read, place.clone()))?;
        let writer = Hands::thread("store-writer", Desk::writer(write, place))?;
        Ok(Self { settings, reader: Some(reader), writer })
    }

    /// Opens an empty database that ends with this value. It is used on the caller's thread.
    pub fn in_memory(settings: Settings) -> Result<Self, StoreError> {
        let place = Place::new(":memory:");
        let connection = Connection::open_in_memory().map_err(|error| place.error(error))?;
        prepare(&connection, &settings).map_err(|error| place.error(error))?;
        migrate::run(&connection, &place, MIGRATIONS, settings.clock.now())?;
        begin_books(&connection, &place)?;
        Ok(Self { settings, reader: None, writer: Hands::here(Desk::writer(connection, place)) })
    }

    fn reader(&self) -> &Hands {
        self.reader.as_ref().unwrap_or(&self.writer)
    }
}

/// Makes the file if there is none. `SQLite` gives its log the same mode and makes both lasting when it
/// first flushes the log.
fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn connect(path: &Path, place: &Place, settings: &Settings) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let failed = |error| place.error(error);
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    prepare(&connection, settings).map_err(failed)?;
    Ok(connection)
}

fn prepare(connection: &Connection, settings: &Settings) -> rusqlite::Result<()> {
    connection.busy_timeout(settings.busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    Ok(())
}

fn prepare_writer(connection: &Connection, settings: &Settings) -> rusqlite::Result<()> {
    // Before the log, after which a page's size can no longer be chosen.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |row| {
        let mode: String = row.get(0)?;
        if mode == "wal" { Ok(()) } else { Err(no_log(&mode)) }
    })?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", LOG_PAGES, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES_KEPT, |_| Ok(()))?;
    if let Some(pages) = settings.pages_max {
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    }
    Ok(())
}

fn no_log(mode: &str) -> rusqlite::Error {
    let refused = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
    let text = format!(
        "its file system allows journal mode {mode} only and not wal: put it on a local disk"
    );
    rusqlite::Error::SqliteFailure(refused, Some(text))
}

fn begin_books(connection: &Connection, place: &Place) -> Result<(), StoreError> {
    let begun = connection.execute(common::BEGIN_BOOKS, [installation::draw().as_str()]);
    begun.map_err(|error| place.error(error))?;
    Ok(())
}

#[async_trait]
impl Store for SqliteStore {
    async fn accept(&self, delivery: &Delivery) -> Result<Accepted, StoreError> {
        let delivery = delivery.clone();
        let bytes = delivery.body.len();
        self.writer.call(bytes, move |connection| Ok(write::accept(connection, &delivery)?)).await
    }

    async fn undecoded(&self, after: u64, limit: u32) -> Result<Vec<(u64, Delivery)>, StoreError> {
        self.reader()
            .call(0, move |connection| Ok(read::undecoded(connection, after, limit)?))
            .await
    }

    async fn undecodable(&self, limit: u32) -> Result<Vec<(u64, Delivery, String)>, StoreError> {
        self.reader().call(0, move |connection| Ok(read::undecodable(connection, limit)?)).await
    }

    async fn lease(&self, holder: &str, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        let (holder, clock) = (holder.to_owned(), self.settings.clock.clone());
        let take =
            move |connection: &Connection| Ok(write::lease(connection, &holder, ttl, clock.now())?);
        self.writer.call(0, take).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let (lease, clock) = (lease.clone(), self.settings.clock.clone());
        let renew =
            move |connection: &Connection| Ok(write::renew(connection, &lease, ttl, clock.now())?);
        self.writer.call(0, renew).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        let lease = lease.clone();
        self.writer.call(0, move |connection| Ok(write::release(connection, &lease)?)).await
    }

    async fn leader(&self) -> Result<Option<Leader>, StoreError> {
        let clock = self.settings.clock.clone();
        let find = move |connection: &Connection| Ok(read::leader(connection, clock.now())?);
        self.reader().call(0, find).await
    }

    async fn load(&self) -> Result<Books, StoreError> {
        self.reader().call(0, |connection| Ok(read::books(connection)?)).await
    }

    async fn commit(
        &self,
        lease: &Lease,
        batch: &Batch,
        decoded: &[Decoded],
    ) -> Result<(), StoreError> {
        let lease = lease.clone();
        let decoded = decoded.to_vec();
        let changes: Vec<Change> =
            batch.changes.iter().filter(|change| change.is_durable()).cloned().collect();
        let batch = Batch { changes, waits: batch.waits.clone(), events: batch.events.clone() };
        let Settings { clock, retention, .. } = self.settings.clone();
        let write = move |connection: &Connection| {
            let now = clock.now();
            write::commit(connection, &lease, &batch, &decoded, now)?;
            Ok(prune::prune(connection, &retention, now)?)
        };
        self.writer.call(0, write).await
    }

    async fn events(&self, after: u64, limit: u32) -> Result<Vec<(u64, Event)>, StoreError> {
        self.reader().call(0, move |connection| Ok(read::events(connection, after, limit)?)).await
    }

    async fn job_history(&self, key: &JobKey) -> Result<Vec<Attempt>, StoreError> {
        let key = key.clone();
        self.reader().call(0, move |connection| Ok(read::job_history(connection, &key)?)).await
    }

    async fn wait_history(&self, key: &JobKey, limit: u32) -> Result<Vec<WaitChange>, StoreError> {
        let key = key.clone();
        self.reader()
            .call(0, move |connection| Ok(read::wait_history(connection, &key, limit)?))
            .await
    }

    async fn runner_history(&self, limit: u32) -> Result<Vec<Runner>, StoreError> {
        self.reader().call(0, move |connection| Ok(read::runner_history(connection, limit)?)).await
    }

    async fn apply(&self, fleet: &Applied) -> Result<bool, StoreError> {
        let fleet = fleet.clone();
        self.writer.call(0, move |connection| Ok(write::apply(connection, &fleet)?)).await
    }

    async fn applied(&self, number: Option<u64>) -> Result<Option<Applied>, StoreError> {
        self.reader().call(0, move |connection| Ok(read::applied(connection, number)?)).await
    }

    async fn fleet_history(&self, limit: u32) -> Result<Vec<Applied>, StoreError> {
        self.reader().call(0, move |connection| Ok(read::fleet_history(connection, limit)?)).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        let clock = self.settings.clock.clone();
        let probe = move |connection: &Connection| Ok(write::probe(connection, clock.now())?);
        self.writer.call(0, probe).await?;
        self.reader().call(0, |connection| Ok(read::probe(connection)?)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_commit_is_flushed_to_a_log_before_it_is_answered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("books.db");
        let store = SqliteStore::open(&path, Settings::default()).unwrap();
        let pragmas = |connection: &Connection| {
            let mode: String = connection.pragma_query_value(None, "journal_mode", |r| r.get(0))?;
            let flush: i64 = connection.pragma_query_value(None, "synchronous", |r| r.get(0))?;
            let keys: bool = connection.pragma_query_value(None, "foreign_keys", |r| r.get(0))?;
            Ok((mode, flush, keys))
        };
        // 2 is FULL: the log is flushed in every commit.
        assert_eq!(store.writer.call(0, pragmas).await.unwrap(), ("wal".to_owned(), 2, true));
    }
}
