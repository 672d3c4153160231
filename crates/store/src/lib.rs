//! The durable truth of Remuda behind one trait, [`Store`].
//!
//! [`MemoryStore`] is the specification: small, obvious, and gone when the process ends.
//! [`SqliteStore`] answers the same and survives, and so does [`PostgresStore`], which several
//! processes may share. A store decides nothing: it keeps deliveries as
//! they came and rows as the core says they are, and refuses a writer whose lease is over.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use remuda_core::job::{Attempt, JobKey};
use remuda_core::name::InstallationId;
use remuda_core::runner::Runner;
use remuda_core::{Batch, Change, Delivery, Event, Timestamp, WaitChange};

mod books;
pub mod clock;
mod error;
mod installation;
pub mod memory;
mod migration;
pub mod postgres;
mod row;
mod sql;
pub mod sqlite;
mod transfer;
mod value;
mod wire;
mod write;

pub use error::StoreError;
pub use memory::MemoryStore;
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;
pub use transfer::TransferError;

/// The number of the newest migration: the schema that this version works with.
pub const SCHEMA: u32 = migration::newest(sqlite::MIGRATIONS);

/// Most bytes of bodies that one call hands back; the first delivery comes whatever its size.
pub const BODY_BYTES_PER_CALL_MAX: usize = 32 * 1024 * 1024;
/// Most reasons-changes kept of one job: the newest.
pub const WAITS_PER_JOB_MAX: u32 = 500;
/// Most fleets of the past that are kept.
pub const FLEETS_MAX: u64 = 100;
/// Most attempts of one job that are handed back: the newest.
pub const ATTEMPTS_PER_CALL_MAX: u32 = 1_000;

/// Where deliveries and books are kept.
///
/// A call whose future is dropped may still take effect. Whatever fails leaves nothing half done.
#[async_trait]
pub trait Store: Send + Sync {
    /// Keeps a delivery; it is durable before this returns. One that has the forge and id of a
    /// delivery already kept is not kept twice.
    async fn accept(&self, delivery: &Delivery) -> Result<Accepted, StoreError>;

    /// Deliveries numbered above `after` that nobody has decoded yet, in order, at most `limit` and
    /// at most [`BODY_BYTES_PER_CALL_MAX`]. Those that cannot be decoded are not among them.
    async fn undecoded(&self, after: u64, limit: u32) -> Result<Vec<(u64, Delivery)>, StoreError>;

    /// Deliveries that could not be decoded, with the decoder's error, the latest failure first, at
    /// most `limit` and at most [`BODY_BYTES_PER_CALL_MAX`].
    async fn undecodable(&self, limit: u32) -> Result<Vec<(u64, Delivery, String)>, StoreError>;

    /// Takes the right to write, for `ttl` from now by the database's clock. `None` while another
    /// holder's lease is in force. Every lease has a new epoch, and the one before is over, also if
    /// the same holder had it. `holder` must differ between processes.
    async fn lease(&self, holder: &str, ttl: Duration) -> Result<Option<Lease>, StoreError>;

    /// Lets a lease last for `ttl` from now. False if it is over: it has run out, was given back, or
    /// another was taken. A call that arrives late can thus never bring one back.
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError>;

    /// Gives a lease back, so that the next holder need not wait. No error if it was over already.
    async fn release(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Whose lease is in force, if anybody's.
    async fn leader(&self) -> Result<Option<Leader>, StoreError>;

    /// Everything a new holder of the lease must know.
    async fn load(&self) -> Result<Books, StoreError>;

    /// Writes one turn and marks deliveries, all or nothing, durable before this returns. Refused
    /// with [`StoreError::Fenced`] if `lease` is over. Changes that are not durable are left out,
    /// and so are waits of jobs never written and marks of deliveries already decoded.
    async fn commit(
        &self,
        lease: &Lease,
        batch: &Batch,
        decoded: &[Decoded],
    ) -> Result<(), StoreError>;

    /// Events numbered above `after`, in order, at most `limit`.
    async fn events(&self, after: u64, limit: u32) -> Result<Vec<(u64, Event)>, StoreError>;

    /// Every attempt of a job, forgotten or not, oldest first, at most [`ATTEMPTS_PER_CALL_MAX`].
    async fn job_history(&self, key: &JobKey) -> Result<Vec<Attempt>, StoreError>;

    /// Why a job waited, newest first, at most `limit` and at most [`WAITS_PER_JOB_MAX`].
    async fn wait_history(&self, key: &JobKey, limit: u32) -> Result<Vec<WaitChange>, StoreError>;

    /// Runners, forgotten or not, the highest number first, at most `limit`.
    async fn runner_history(&self, limit: u32) -> Result<Vec<Runner>, StoreError>;

    /// Writes down that a fleet is in force, durable before this returns. False, and nothing is written, if
    /// its number is not the one after the newest: somebody else was first. The newest [`FLEETS_MAX`] stay.
    async fn apply(&self, fleet: &Applied) -> Result<bool, StoreError>;

    /// The fleet of this number, or the newest; `None` if there is none.
    async fn applied(&self, number: Option<u64>) -> Result<Option<Applied>, StoreError>;

    /// Fleets without their files, the newest first, at most `limit`.
    async fn fleet_history(&self, limit: u32) -> Result<Vec<Applied>, StoreError>;

    /// Succeeds if the store can be read and takes a durable write.
    async fn check(&self) -> Result<(), StoreError>;

    /// Completes when another process may have accepted a delivery; it may do so without cause, and
    /// may miss one, so who waits for it must still look by itself from time to time. Never completes
    /// for a store that only one process uses.
    async fn news(&self) {
        std::future::pending::<()>().await;
    }
}

/// A fleet that was put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Counts from 1, without gaps.
    pub number: u64,
    /// When, by the clock of the server that did so.
    pub at: Timestamp,
    /// Who asked for it.
    pub who: String,
    /// On what occasion: `start`, `SIGHUP`, `apply`, `rollback to 3`.
    pub how: String,
    /// What the fleet's own revision was.
    pub revision: String,
    /// The names and texts of its files.
    pub files: Vec<(String, String)>,
}

/// What became of a delivery that was handed in. The number orders deliveries by their arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is kept under this number.
    New(u64),
    /// It had been kept before, under this number.
    Duplicate(u64),
}

/// The right to write, as long as nobody else has taken it. Only a [`Store`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    holder: Arc<str>,
    epoch: u64,
}

impl Lease {
    /// The number of this holding: higher than that of every one before.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// Who holds the right to write, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// As the holder named itself.
    pub holder: Arc<str>,
    /// The number of its holding.
    pub epoch: u64,
    /// When it took the lease, by the database's clock.
    pub since: Timestamp,
}

/// What a decoder made of a kept delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The delivery's number.
    pub sequence: u64,
    /// Its facts are in the batch of the same commit; or why it cannot be understood.
    pub result: Result<(), String>,
}

/// Everything a new holder of the lease must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Books {
    /// Which books these are: drawn by lot when they were begun.
    pub installation: InstallationId,
    /// Applied to an empty snapshot, these rebuild it: tenants, jobs, runners, instances, back-offs,
    /// drains, doubt, strays, then the next numbers, each kind in the order of its keys.
    pub changes: Vec<Change>,
    /// Why the jobs that wait do so, in the order of their keys.
    pub waits: Vec<WaitChange>,
}

/// How long what is no longer needed stays. It is removed bit by bit, in the course of commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Bodies of decoded deliveries.
    pub bodies: Duration,
    /// Decoded deliveries, at least as long as their bodies: a redelivery after this is a new one.
    pub deliveries: Duration,
    /// Deliveries that cannot be decoded.
    pub undecodable: Duration,
    /// Jobs, runners and instances, after they were forgotten.
    pub history: Duration,
    /// The newest so many events.
    pub events: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            bodies: Duration::from_hours(1),
            // GitHub redelivers for three days.
            deliveries: Duration::from_hours(3 * 24),
            undecodable: Duration::from_hours(30 * 24),
            history: Duration::from_hours(30 * 24),
            events: 100_000,
        }
    }
}
