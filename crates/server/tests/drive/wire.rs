//! What lies between a replica and its books, and can fail.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use remuda_core::job::{Attempt, JobKey};
use remuda_core::runner::Runner;
use remuda_core::{Batch, Delivery, Event, WaitChange};
use remuda_store::{
    Accepted, Applied, Books, Decoded, Leader, Lease, MemoryStore, Store, StoreError,
};

/// How the way to the books is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// It works.
    Up,
    /// Every call fails.
    Cut,
    /// No call ends.
    Hangs,
    /// Renewals seem to succeed and do not arrive.
    Deaf,
    /// The next release is lost, and its answer too.
    Forgets,
    /// The next commit that writes something is done, and its answer lost.
    LosesTheAnswer,
    /// The next commit that writes something is lost, and nobody can tell.
    LosesTheCommit,
}

/// A store at the other end of a wire.
pub(crate) struct Wired {
    store: Arc<MemoryStore>,
    wire: Mutex<Wire>,
}

impl Wired {
    pub(crate) fn new(store: Arc<MemoryStore>) -> Self {
        Self { store, wire: Mutex::new(Wire::Up) }
    }

    pub(crate) fn set(&self, wire: Wire) {
        *self.wire.lock().unwrap() = wire;
    }

    fn wire(&self) -> Wire {
        *self.wire.lock().unwrap()
    }

    async fn pass(&self) -> Result<(), StoreError> {
        match self.wire() {
            Wire::Up | Wire::Deaf | Wire::Forgets | Wire::LosesTheAnswer | Wire::LosesTheCommit => {
                Ok(())
            }
            Wire::Cut => Err(StoreError::Closed { place: "the wire".into() }),
            Wire::Hangs => std::future::pending().await,
        }
    }

    fn unsure(&self) -> StoreError {
        self.set(Wire::Up);
        StoreError::Unknown { place: "the wire".into(), detail: "it broke".into() }
    }
}

#[async_trait]
impl Store for Wired {
    async fn accept(&self, delivery: &Delivery) -> Result<Accepted, StoreError> {
        self.store.accept(delivery).await
    }

    async fn undecoded(&self, after: u64, limit: u32) -> Result<Vec<(u64, Delivery)>, StoreError> {
        self.pass().await?;
        self.store.undecoded(after, limit).await
    }

    async fn undecodable(&self, limit: u32) -> Result<Vec<(u64, Delivery, String)>, StoreError> {
        self.pass().await?;
        self.store.undecodable(limit).await
    }

    async fn lease(&self, holder: &str, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        self.pass().await?;
        self.store.lease(holder, ttl).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        self.pass().await?;
        Ok(self.wire() == Wire::Deaf || self.store.renew(lease, ttl).await?)
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.pass().await?;
        let wire = std::mem::replace(&mut *self.wire.lock().unwrap(), Wire::Up);
        if wire == Wire::Forgets {
            return Err(StoreError::Closed { place: "the wire".into() });
        }
        self.store.release(lease).await
    }

    async fn leader(&self) -> Result<Option<Leader>, StoreError> {
        self.pass().await?;
        self.store.leader().await
    }

    async fn load(&self) -> Result<Books, StoreError> {
        self.pass().await?;
        self.store.load().await
    }

    async fn commit(
        &self,
        lease: &Lease,
        batch: &Batch,
        decoded: &[Decoded],
    ) -> Result<(), StoreError> {
        self.pass().await?;
        match self.wire() {
            Wire::LosesTheAnswer => {
                self.store.commit(lease, batch, decoded).await?;
                Err(self.unsure())
            }
            Wire::LosesTheCommit => Err(self.unsure()),
            Wire::Up | Wire::Cut | Wire::Hangs | Wire::Deaf | Wire::Forgets => {
                self.store.commit(lease, batch, decoded).await
            }
        }
    }

    async fn apply(&self, fleet: &Applied) -> Result<bool, StoreError> {
        self.pass().await?;
        self.store.apply(fleet).await
    }

    async fn applied(&self, number: Option<u64>) -> Result<Option<Applied>, StoreError> {
        self.pass().await?;
        self.store.applied(number).await
    }

    async fn fleet_history(&self, limit: u32) -> Result<Vec<Applied>, StoreError> {
        self.pass().await?;
        self.store.fleet_history(limit).await
    }

    async fn events(&self, after: u64, limit: u32) -> Result<Vec<(u64, Event)>, StoreError> {
        self.pass().await?;
        self.store.events(after, limit).await
    }

    async fn job_history(&self, key: &JobKey) -> Result<Vec<Attempt>, StoreError> {
        self.pass().await?;
        self.store.job_history(key).await
    }

    async fn wait_history(&self, key: &JobKey, limit: u32) -> Result<Vec<WaitChange>, StoreError> {
        self.pass().await?;
        self.store.wait_history(key, limit).await
    }

    async fn runner_history(&self, limit: u32) -> Result<Vec<Runner>, StoreError> {
        self.pass().await?;
        self.store.runner_history(limit).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.pass().await?;
        self.store.check().await
    }
}
