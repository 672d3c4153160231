//! The only loop that writes: takes in what was seen, turns the controller, commits, then calls.
//!
//! Nothing is called before the batch that asks for it is durable. A store that fails for a while stops
//! everything but intake. One of these exists for as long as this replica leads, and not longer.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use remuda_core::{Batch, Controller, Observation, Seen, Snapshot, Timestamp};
use remuda_store::{Decoded, Store, StoreError};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::clock::Clock;
use crate::handle::{Ask, Line, Ordered, Trouble};
use crate::metrics::Metrics;
use crate::perform::{Outside, listing_of};
use crate::tenure::Tenure;

/// How often to turn when nothing happens: time alone can make something due, and another replica may
/// have accepted deliveries.
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

/// Whoever asks is told of a store that has not answered for so long. They wait no longer themselves, and
/// no commit of a store that works takes as long.
const STORE_SLOW: Duration = Duration::from_secs(3);

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was told to.
    Stopped,
    /// Another fleet is in force.
    Moved,
    /// Another replica has the lease.
    Fenced,
    /// The lease may have run out.
    RanOut,
    /// What the books say is not known, so they must be loaded again.
    Unsure,
}

/// The loop, before it runs.
pub(crate) struct Drive {
    store: Arc<dyn Store>,
    tenure: Tenure,
    controller: Controller,
    outside: Arc<Outside>,
    metrics: Arc<Metrics>,
    clock: Clock,
    deliveries: Arc<Notify>,
    seen_in: mpsc::Sender<Seen>,
    seen: mpsc::Receiver<Seen>,
    asks: mpsc::Receiver<Ask>,
    orders: mpsc::Receiver<Ordered>,
    /// Whose orders are in the turn that is being taken.
    promised: Vec<oneshot::Sender<()>>,
    calls: JoinSet<Seen>,
    /// What the store fails us with.
    trouble: watch::Sender<Option<Trouble>>,
}

impl Drive {
    /// Takes over the books that `world` was loaded from, for as long as `tenure` holds.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        tenure: Tenure,
        world: Snapshot,
        outside: Arc<Outside>,
        metrics: Arc<Metrics>,
        clock: Clock,
        deliveries: Arc<Notify>,
    ) -> (Self, Line) {
        let (seen_in, seen) = mpsc::channel(SEEN_MAX);
        let (asks_in, asks) = mpsc::channel(64);
        let (orders_in, orders) = mpsc::channel(64);
        let (trouble, troubles) = watch::channel(None);
        let line =
            Line { seen: seen_in.clone(), asks: asks_in, orders: orders_in, trouble: troubles };
        let controller = Controller::new(world);
        let calls = JoinSet::new();
        let drive = Self {
            store,
            tenure,
            controller,
            outside,
            metrics,
            clock,
            deliveries,
            seen_in,
            seen,
            asks,
            orders,
            promised: Vec::new(),
            calls,
            trouble,
        };
        (drive, line)
    }

    /// Runs until told to stop, or until it must not go on. Told to stop, it waits for calls in flight, as
    /// far as their own bounds allow, and commits what they showed.
    pub(crate) async fn run(mut self, stop: &CancellationToken) -> anyhow::Result<End> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let hints = self.hints();
        while !stop.is_cancelled() {
            let mut seen = Vec::new();
            let mut turn = true;
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.deliveries.notified() => {}
                () = self.store.news() => {}
                Some(ended) = self.calls.join_next() => seen.push(ended.context("a call broke off")?),
                count = self.seen.recv_many(&mut seen, SEEN_PER_TURN) => {
                    debug!(count, "facts arrived");
                }
                Some(ordered) = self.orders.recv() => seen.push(self.promise(ordered)),
                Some(ask) = self.asks.recv() => {
                    ask(&self.controller);
                    turn = false;
                }
                _ = tick.tick() => {}
            }
            if turn {
                self.gather(&mut seen)?;
                let begun = tokio::time::Instant::now();
                if let ControlFlow::Break(end) = self.turn(seen, stop).await? {
                    return Ok(end);
                }
                // In a flood, longer turns that take in more cost less than many short ones, and the
                // intake gets its share of the machine.
                tokio::time::sleep(begun.elapsed().min(REST_MAX)).await;
            }
        }
        drop(hints);
        self.wind_down().await?;
        Ok(End::Stopped)
    }

    /// The order as a fact; who gave it is told once the turn is committed.
    fn promise(&mut self, (order, told): Ordered) -> Seen {
        self.promised.push(told);
        Seen::Fact(Observation::Order(order))
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

    async fn turn(
        &mut self,
        mut seen: Vec<Seen>,
        stop: &CancellationToken,
    ) -> anyhow::Result<ControlFlow<End>> {
        if !self.tenure.holds() {
            return Ok(ControlFlow::Break(End::RanOut));
        }
        let (facts, decoded, arrived) = self.decode().await;
        seen.extend(facts);
        let begun = tokio::time::Instant::now();
        let turn = self.controller.turn(self.clock.now(), seen);
        self.metrics.turn(begun.elapsed());
        debug_assert_eq!(remuda_core::check(self.controller.world()), []);
        let committed = self.commit(&turn.batch, &decoded, stop).await?;
        if committed.is_break() {
            return Ok(committed);
        }
        for told in self.promised.drain(..) {
            // Who gave the order may have gone away meanwhile.
            let _ = told.send(());
        }
        let now = self.clock.now();
        for at in arrived {
            self.metrics.decided(now.since(at));
        }
        for event in &turn.batch.events {
            let job = event.job.as_ref().map(ToString::to_string);
            let runner = event.runner.map(|id| id.0);
            let pool = event.pool.as_ref().map(ToString::to_string);
            info!(job.id = job, runner.id = runner, pool, "{}", event.text);
        }
        for action in turn.actions {
            let (outside, early) = (Arc::clone(&self.outside), self.seen_in.clone());
            let (metrics, tenure) = (Arc::clone(&self.metrics), self.tenure.clone());
            self.calls.spawn(async move {
                let answer = outside.perform(action, &early, &tenure).await;
                metrics.answered(&answer);
                answer
            });
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Reads what deliveries say, and when they arrived. One that cannot be read is kept with the reason.
    /// Always from the first that is pending: where several replicas accept, a lower number may show up
    /// later.
    async fn decode(&mut self) -> (Vec<Seen>, Vec<Decoded>, Vec<Timestamp>) {
        let reading = self.store.undecoded(0, DELIVERIES_PER_TURN);
        let pending = match self.heard(reading).await {
            Ok(pending) => pending,
            Err(error) => {
                warn!("cannot read deliveries: {error}");
                return (Vec::new(), Vec::new(), Vec::new());
            }
        };
        if pending.len() >= DELIVERIES_PER_TURN as usize {
            self.deliveries.notify_one();
        }
        let mut facts = Vec::new();
        let (mut decoded, mut arrived) = (Vec::new(), Vec::new());
        for (sequence, delivery) in pending {
            arrived.push(delivery.received_at);
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
        (facts, decoded, arrived)
    }

    /// Commits, however long the store takes to work again; nothing else happens meanwhile but intake.
    async fn commit(
        &mut self,
        batch: &Batch,
        decoded: &[Decoded],
        stop: &CancellationToken,
    ) -> anyhow::Result<ControlFlow<End>> {
        if batch.is_idle() && decoded.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let mut failing = false;
        loop {
            let writing = self.store.commit(self.tenure.lease(), batch, decoded);
            match self.heard(writing).await {
                Ok(()) => {
                    if failing {
                        info!("the store works again");
                    }
                    return Ok(ControlFlow::Continue(()));
                }
                Err(StoreError::Fenced { .. }) => return Ok(ControlFlow::Break(End::Fenced)),
                Err(failure @ StoreError::Unknown { .. }) => {
                    warn!("{failure}");
                    return Ok(ControlFlow::Break(End::Unsure));
                }
                Err(failure) => {
                    if !failing {
                        error!("cannot commit, and call nothing until I can: {failure}");
                    }
                    failing = true;
                }
            }
            tokio::select! {
                () = stop.cancelled() => bail!("stopped while the store was failing; what was not \
                                               committed is asked for again after a restart"),
                () = tokio::time::sleep(COMMIT_AGAIN) => {}
            }
        }
    }

    /// What the store answers. Whoever asks the loop is told if it fails, or lets us wait.
    async fn heard<T>(
        &self,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let asked = self.clock.now();
        let mut answer = std::pin::pin!(answer);
        let soon = tokio::time::timeout(STORE_SLOW, &mut answer).await;
        let heard = if let Ok(heard) = soon {
            heard
        } else {
            self.suffers(asked, "it does not answer");
            answer.await
        };
        match &heard {
            Ok(_) => {
                self.trouble.send_if_modified(|trouble| trouble.take().is_some());
            }
            // Nothing is wrong with the store.
            Err(StoreError::Fenced { .. }) => {}
            Err(failure) => self.suffers(asked, &failure.to_string()),
        }
        heard
    }

    fn suffers(&self, asked: Timestamp, why: &str) {
        self.trouble.send_modify(|trouble| {
            let since = trouble.as_ref().map_or(asked, |known| known.since);
            *trouble = Some(Trouble { since, why: why.into() });
        });
    }

    /// Tasks that turn providers' signals into hints; they end when dropped.
    fn hints(&self) -> JoinSet<()> {
        let mut hints = JoinSet::new();
        for (name, provider) in &self.outside.providers {
            let Some(mut wakes) = provider.wakes() else { continue };
            let (seen, subject) = (self.seen_in.clone(), listing_of(name));
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
        let batch = self.controller.conclude(self.clock.now(), seen);
        if !batch.is_idle() {
            self.store.commit(self.tenure.lease(), &batch, &[]).await?;
        }
        Ok(())
    }
}
