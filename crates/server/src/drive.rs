//! The only loop that writes: takes in what was seen, turns the controller, commits, then calls.
//!
//! Nothing is called before the batch that asks for it is durable. A store that fails for a while stops
//! everything but intake; one that has been taken over by another holder ends the process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use remuda_core::name::ForgeName;
use remuda_core::{Batch, Controller, Seen, Snapshot};
use remuda_forge::Forge;
use remuda_store::{Decoded, Lease, Store, StoreError};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::clock::now;
use crate::metrics::Metrics;
use crate::perform::{Outside, listing_of};

/// How long a lease lasts, and how often it is renewed.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(5);
/// How often to turn when nothing happens: time alone can make something due.
const TICK: Duration = Duration::from_millis(500);
/// Most deliveries decoded in one turn.
const DELIVERIES_PER_TURN: u32 = 1000;
/// Most facts waiting to be taken in; those who bring them wait when it is full.
const SEEN_MAX: usize = 4096;
/// Most facts taken in by one turn.
const SEEN_PER_TURN: usize = 2048;
/// Longest rest between two turns. After a longer one, a turn's commit takes so long that the deliveries
/// that wait for it are answered late: with 50 ms, the hundredth waits 28 ms and not 15.
const REST_MAX: Duration = Duration::from_millis(10);
/// Between two tries to commit while the store fails.
const COMMIT_AGAIN: Duration = Duration::from_secs(1);

/// Something to be done with the controller between two turns: how everybody else reads it.
pub type Ask = Box<dyn FnOnce(&Controller) + Send>;

/// How the rest of the server reaches the loop.
#[derive(Clone, Debug)]
pub struct Handle {
    seen: mpsc::Sender<Seen>,
    asks: mpsc::Sender<Ask>,
    deliveries: Arc<Notify>,
}

impl Handle {
    /// A delivery was accepted: there is something to decode.
    pub fn delivered(&self) {
        self.deliveries.notify_one();
    }

    /// Brings in a fact.
    pub async fn see(&self, seen: Seen) -> anyhow::Result<()> {
        self.seen.send(seen).await.ok().context("the server is stopping")
    }

    /// Reads something off the controller.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Controller) -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let ask: Ask = Box::new(move |controller| {
            // Who asked may have gone away meanwhile.
            let _ = answer.send(question(controller));
        });
        self.asks.send(ask).await.ok().context("the server is stopping")?;
        answered.await.context("the server is stopping")
    }
}

/// The loop, before it runs.
pub struct Drive {
    store: Arc<dyn Store>,
    lease: Lease,
    holder: String,
    controller: Controller,
    outside: Arc<Outside>,
    metrics: Arc<Metrics>,
    handle: Handle,
    seen: mpsc::Receiver<Seen>,
    asks: mpsc::Receiver<Ask>,
    calls: JoinSet<Seen>,
    decoded_to: u64,
}

impl std::fmt::Debug for Drive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drive").field("calls", &self.calls.len()).finish_non_exhaustive()
    }
}

impl Drive {
    /// Takes over the books that `world` was loaded from, under `lease`.
    pub fn new(
        store: Arc<dyn Store>,
        lease: Lease,
        holder: String,
        world: Snapshot,
        outside: Arc<Outside>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (seen_in, seen) = mpsc::channel(SEEN_MAX);
        let (asks_in, asks) = mpsc::channel(64);
        let handle = Handle { seen: seen_in, asks: asks_in, deliveries: Arc::new(Notify::new()) };
        Self {
            store,
            lease,
            holder,
            controller: Controller::new(world),
            outside,
            metrics,
            handle,
            seen,
            asks,
            calls: JoinSet::new(),
            decoded_to: 0,
        }
    }

    /// How to reach the loop.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until told to stop. Calls in flight are then waited for, as far as their own bounds allow,
    /// and what they showed is committed.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut renew = tokio::time::interval(RENEW);
        let hints = self.hints();
        while !stop.is_cancelled() {
            let mut seen = Vec::new();
            let mut turn = true;
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.handle.deliveries.notified() => {}
                Some(ended) = self.calls.join_next() => seen.push(ended.context("a call broke off")?),
                count = self.seen.recv_many(&mut seen, SEEN_PER_TURN) => {
                    debug!(count, "facts arrived");
                }
                Some(ask) = self.asks.recv() => {
                    ask(&self.controller);
                    turn = false;
                }
                _ = renew.tick() => { self.renew().await?; turn = false; }
                _ = tick.tick() => {}
            }
            if turn {
                self.gather(&mut seen)?;
                let begun = tokio::time::Instant::now();
                self.turn(seen, &stop).await?;
                // In a flood, longer turns that take in more cost less than many short ones, and the
                // intake gets its share of the machine.
                tokio::time::sleep(begun.elapsed().min(REST_MAX)).await;
            }
        }
        drop(hints);
        self.wind_down().await
    }

    /// Whatever else has arrived meanwhile belongs to the same turn.
    fn gather(&mut self, seen: &mut Vec<Seen>) -> anyhow::Result<()> {
        while seen.len() < SEEN_PER_TURN {
            if let Ok(more) = self.seen.try_recv() {
                seen.push(more);
            } else if let Some(ended) = self.calls.try_join_next() {
                seen.push(ended.context("a call broke off")?);
            } else {
                break;
            }
        }
        Ok(())
    }

    async fn turn(&mut self, mut seen: Vec<Seen>, stop: &CancellationToken) -> anyhow::Result<()> {
        let (facts, decoded) = self.decode().await;
        seen.extend(facts);
        let begun = tokio::time::Instant::now();
        let turn = self.controller.turn(now(), seen);
        self.metrics.turn(begun.elapsed());
        debug_assert_eq!(remuda_core::check(self.controller.world()), []);
        self.commit(&turn.batch, &decoded, stop).await?;
        for event in &turn.batch.events {
            let job = event.job.as_ref().map(ToString::to_string);
            let runner = event.runner.map(|id| id.0);
            let pool = event.pool.as_ref().map(ToString::to_string);
            info!(job.id = job, runner.id = runner, pool, "{}", event.text);
        }
        for action in turn.actions {
            let (outside, early) = (Arc::clone(&self.outside), self.handle.seen.clone());
            let metrics = Arc::clone(&self.metrics);
            self.calls.spawn(async move {
                let answer = outside.perform(action, &early).await;
                metrics.answered(&answer);
                answer
            });
        }
        Ok(())
    }

    /// Reads what deliveries say. One that cannot be read is kept with the reason.
    async fn decode(&mut self) -> (Vec<Seen>, Vec<Decoded>) {
        let pending = match self.store.undecoded(self.decoded_to, DELIVERIES_PER_TURN).await {
            Ok(pending) => pending,
            Err(error) => {
                warn!("cannot read deliveries: {error}");
                return (Vec::new(), Vec::new());
            }
        };
        if pending.len() >= DELIVERIES_PER_TURN as usize {
            self.handle.delivered();
        }
        let mut facts = Vec::new();
        let mut decoded = Vec::new();
        for (sequence, delivery) in pending {
            self.decoded_to = sequence;
            let result = match self.outside.forges.get(&delivery.forge) {
                Some(forge) => forge.decode(&delivery).map_err(|error| error.to_string()),
                None => Err(format!("forge {} is not declared", delivery.forge)),
            };
            let result = result.map(|seen| facts.extend(seen.into_iter().map(Seen::Fact)));
            if let Err(error) = &result {
                warn!(delivery = %delivery.id, "cannot decode delivery {}: {error}", delivery.id);
                self.metrics.undecodable();
            }
            decoded.push(Decoded { sequence, result });
        }
        (facts, decoded)
    }

    /// Commits, however long the store takes to work again; nothing else happens meanwhile but intake.
    async fn commit(
        &mut self,
        batch: &Batch,
        decoded: &[Decoded],
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        if batch.is_idle() && decoded.is_empty() {
            return Ok(());
        }
        let mut failing = false;
        loop {
            match self.store.commit(&self.lease, batch, decoded).await {
                Ok(()) => {
                    if failing {
                        info!("the store works again");
                    }
                    self.metrics.store_works(true);
                    return Ok(());
                }
                Err(StoreError::Fenced { .. }) => {
                    bail!("another server has taken over these books; this one stops");
                }
                Err(failure) => {
                    if !failing {
                        error!("cannot commit, and call nothing until I can: {failure}");
                    }
                    failing = true;
                    self.metrics.store_works(false);
                }
            }
            tokio::select! {
                () = stop.cancelled() => bail!("stopped while the store was failing; what was not \
                                               committed is asked for again after a restart"),
                () = tokio::time::sleep(COMMIT_AGAIN) => {}
            }
            if let Err(error) = self.renew().await {
                warn!("cannot renew the lease: {error:#}");
            }
        }
    }

    async fn renew(&mut self) -> anyhow::Result<()> {
        match self.store.lease(&self.holder, LEASE).await {
            Ok(Some(lease)) if lease.epoch() == self.lease.epoch() => Ok(()),
            Ok(_) => bail!("another server has taken over these books; this one stops"),
            // The next commit will say whether it is still ours.
            Err(error) => {
                warn!("cannot renew the lease: {error}");
                Ok(())
            }
        }
    }

    /// Tasks that turn providers' signals into hints; they end when dropped.
    fn hints(&self) -> JoinSet<()> {
        let mut hints = JoinSet::new();
        for (name, provider) in &self.outside.providers {
            let Some(mut wakes) = provider.wakes() else { continue };
            let (seen, subject) = (self.handle.seen.clone(), listing_of(name));
            hints.spawn(async move {
                while wakes.changed().await.is_ok() {
                    if seen.send(Seen::Hint(subject.clone())).await.is_err() {
                        break;
                    }
                }
            });
        }
        hints
    }

    async fn wind_down(mut self) -> anyhow::Result<()> {
        let mut seen = Vec::new();
        let waiting = tokio::time::timeout(Duration::from_secs(10), async {
            while let Some(ended) = self.calls.join_next().await {
                seen.extend(ended.ok());
            }
        });
        if waiting.await.is_err() {
            // Their outcome is unknown to us, which is what the books already say.
            self.calls.shutdown().await;
        }
        self.gather(&mut seen)?;
        let batch = self.controller.conclude(now(), seen);
        if !batch.is_idle() {
            self.store.commit(&self.lease, &batch, &[]).await?;
        }
        self.store.release(&self.lease).await?;
        Ok(())
    }
}

/// The forges by name, as the intake needs them.
pub(crate) type Forges = BTreeMap<ForgeName, Arc<dyn Forge>>;
