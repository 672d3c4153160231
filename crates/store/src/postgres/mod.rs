//! The store in `PostgreSQL`, which several processes may share: all of them accept deliveries, and the
//! one that holds the lease commits.
//!
//! Time is the database's. A commit locks the lease's row and looks whose it is in the transaction in
//! which it writes, so who was deposed while it was stopped, or cut off, writes nothing any more.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use remuda_core::job::{Attempt, JobKey};
use remuda_core::runner::Runner;
use remuda_core::{Batch, Delivery, Event, WaitChange};
use secrecy::SecretString;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::migration::up_to_date;
use crate::value::values;
use crate::write::{applied_values, job_values, last_forgotten};
use crate::{
    ATTEMPTS_PER_CALL_MAX, Accepted, Applied, BODY_BYTES_PER_CALL_MAX, Books, Decoded, Leader,
    Lease, Retention, Store, StoreError, WAITS_PER_JOB_MAX, installation, row, sql as common,
};

mod address;
mod books;
mod bulk;
mod failure;
mod intake;
mod link;
mod migrate;
mod news;
mod sql;
mod tls;
mod transfer;
mod value;

use address::Address;
use intake::Handed;
use link::Link;
pub(crate) use migrate::MIGRATIONS;

/// How a store in `PostgreSQL` behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most connections of this process, besides the one that listens and the one for the lease.
    pub connections: usize,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long the server may take for one statement, waits for locks included.
    pub statement_timeout: Duration,
    /// As [`Self::statement_timeout`], of the lease: less than those who ask for it wait, or the server
    /// may give it to one who has gone away, in the end.
    pub lease_timeout: Duration,
    /// How long the server waits for us in the middle of a transaction before it undoes it: a process
    /// that is stopped, or cut off, holds its locks no longer than this.
    pub pause_timeout: Duration,
    /// As [`Self::pause_timeout`], in an export or import, which goes as fast as what it writes to or
    /// reads from.
    pub stall_timeout: Duration,
    /// How long a whole call may take.
    pub call_timeout: Duration,
    /// Whether a database of an older version is brought forward, or refused.
    pub migrate: bool,
    /// How long what is no longer needed stays.
    pub retention: Retention,
    /// What tells the time in place of the database.
    pub clock: Option<Clock>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections: 8,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            lease_timeout: Duration::from_secs(4),
            pause_timeout: Duration::from_secs(3),
            stall_timeout: Duration::from_mins(1),
            call_timeout: Duration::from_secs(30),
            migrate: true,
            retention: Retention::default(),
            clock: None,
        }
    }
}

/// Keeps everything in a `PostgreSQL` database. Its connections are closed when it is dropped.
pub struct PostgresStore {
    link: Arc<Link>,
    handed: mpsc::Sender<Handed>,
    news: Arc<Notify>,
    // What serves the two above; it ends with this value.
    _tasks: JoinSet<()>,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresStore({})", self.link.place.name())
    }
}

impl PostgresStore {
    /// Connects to the database at `url` and brings it to the newest schema. Refuses what a newer
    /// version or another program made. Must be called, and used, in a runtime of tokio.
    ///
    /// The URL is `postgresql://USER:PASSWORD@HOST:PORT/NAME?KEY=VALUE`. `sslmode` is `disable`,
    /// `require` (nobody can listen, but anybody may answer) or `verify-full` (the host must prove its
    /// name), which is meant if nothing is said and the host is another machine. `sslrootcert` is a file
    /// of certificates in PEM to be trusted instead of the system's.
    pub async fn open(url: &SecretString, settings: Settings) -> Result<Self, StoreError> {
        let link = Arc::new(Link::new(Address::read(url)?, settings)?);
        let clock = link.settings.clock.clone().unwrap_or_default();
        if link.settings.migrate {
            migrate::run(&link, MIGRATIONS, clock.now()).await?;
        } else {
            let session = link.session().await?;
            let done = link.bounded(migrate::check(&link, &session, MIGRATIONS)).await?;
            up_to_date(done, MIGRATIONS, &link.place.name())?;
            session.keep();
        }
        let name = installation::draw();
        link.rows(common::BEGIN_BOOKS, values![name.as_str()], |_| Ok(())).await?;
        let (handed, queue) = intake::queue();
        let news = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(intake::serve(Arc::clone(&link), queue));
        tasks.spawn(news::listen(Arc::clone(&link), Arc::clone(&news)));
        Ok(Self { link, handed, news, _tasks: tasks })
    }
}

/// Numbers given by the database are never above this.
fn sequence(after: u64) -> i64 {
    i64::try_from(after).unwrap_or(i64::MAX)
}

#[async_trait]
impl Store for PostgresStore {
    async fn accept(&self, delivery: &Delivery) -> Result<Accepted, StoreError> {
        let (caller, answer) = oneshot::channel();
        let handed = Handed { delivery: delivery.clone(), caller };
        self.handed.send(handed).await.map_err(|_| self.link.place.closed())?;
        answer.await.map_err(|_| self.link.place.closed())?
    }

    async fn undecoded(&self, after: u64, limit: u32) -> Result<Vec<(u64, Delivery)>, StoreError> {
        let values = values![sequence(after), limit, BODY_BYTES_PER_CALL_MAX as u64];
        self.link.rows(sql::UNDECODED, values, row::delivery).await
    }

    async fn undecodable(&self, limit: u32) -> Result<Vec<(u64, Delivery, String)>, StoreError> {
        let values = values![limit, BODY_BYTES_PER_CALL_MAX as u64];
        self.link.rows(sql::UNDECODABLE, values, row::undecodable).await
    }

    async fn lease(&self, holder: &str, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        books::lease(&self.link, holder, ttl).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        books::renew(&self.link, lease, ttl).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        books::release(&self.link, lease).await
    }

    async fn leader(&self) -> Result<Option<Leader>, StoreError> {
        books::leader(&self.link).await
    }

    async fn load(&self) -> Result<Books, StoreError> {
        self.link.bounded(books::load(&self.link)).await
    }

    async fn commit(
        &self,
        lease: &Lease,
        batch: &Batch,
        decoded: &[Decoded],
    ) -> Result<(), StoreError> {
        books::commit(&self.link, lease, batch, decoded).await
    }

    async fn events(&self, after: u64, limit: u32) -> Result<Vec<(u64, Event)>, StoreError> {
        self.link.rows(common::EVENTS, values![sequence(after), limit], row::event).await
    }

    async fn job_history(&self, key: &JobKey) -> Result<Vec<Attempt>, StoreError> {
        let mut values = job_values(key);
        values.push(ATTEMPTS_PER_CALL_MAX.into());
        let mut attempts = self.link.rows(&common::ATTEMPTS, values, row::attempt).await?;
        attempts.reverse();
        Ok(attempts)
    }

    async fn wait_history(&self, key: &JobKey, limit: u32) -> Result<Vec<WaitChange>, StoreError> {
        let mut values = job_values(key);
        values.push(limit.min(WAITS_PER_JOB_MAX).into());
        self.link.rows(common::WAIT_HISTORY, values, row::wait).await
    }

    async fn runner_history(&self, limit: u32) -> Result<Vec<Runner>, StoreError> {
        self.link.rows(&common::RUNNER_HISTORY, values![limit], row::runner).await
    }

    async fn apply(&self, fleet: &Applied) -> Result<bool, StoreError> {
        let written =
            self.link.rows(common::PUT_FLEET, applied_values(fleet), row::applied).await?;
        if written.is_empty() {
            return Ok(false);
        }
        self.link.rows(common::FORGET_FLEETS, values![last_forgotten(fleet)], |_| Ok(())).await?;
        Ok(true)
    }

    async fn applied(&self, number: Option<u64>) -> Result<Option<Applied>, StoreError> {
        let found = self.link.rows(common::FLEET, values![number.map(sequence)], row::applied);
        Ok(found.await?.into_iter().next())
    }

    async fn fleet_history(&self, limit: u32) -> Result<Vec<Applied>, StoreError> {
        self.link.rows(common::FLEETS, values![limit], row::applied).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        if self.handed.is_closed() {
            return Err(self.link.place.closed());
        }
        books::check(&self.link).await
    }

    async fn news(&self) {
        self.news.notified().await;
    }
}
