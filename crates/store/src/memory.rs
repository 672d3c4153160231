//! A store in memory: the specification that every other one is compared with.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use remuda_core::job::{Attempt, Job, JobKey};
use remuda_core::name::{ForgeName, InstallationId};
use remuda_core::observation::StrayRegistration;
use remuda_core::reason::{BackoffKey, DrainKey};
use remuda_core::runner::{Instance, InstanceId, Runner, RunnerId};
use remuda_core::snapshot::{Backoff, Drain, Recovering, Stray};
use remuda_core::tenant::{Met, TenantKey};
use remuda_core::{Batch, Change, Delivery, Event, Timestamp, WaitChange};

use crate::clock::Clock;
use crate::{
    ATTEMPTS_PER_CALL_MAX, Accepted, Applied, BODY_BYTES_PER_CALL_MAX, Books, Decoded, FLEETS_MAX,
    Leader, Lease, Retention, Store, StoreError, WAITS_PER_JOB_MAX, installation,
};

/// Keeps everything until it is dropped, and nothing longer.
#[derive(Debug)]
pub struct MemoryStore {
    installation: InstallationId,
    clock: Clock,
    retention: Retention,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    deliveries: BTreeMap<u64, Kept>,
    delivery_ids: BTreeMap<(ForgeName, Arc<str>), u64>,
    last_delivery: u64,
    lease: Option<Held>,
    epoch: u64,
    jobs: BTreeMap<JobKey, JobRow>,
    runners: BTreeMap<RunnerId, Row<Runner>>,
    instances: BTreeMap<InstanceId, Row<Instance>>,
    tenants: BTreeMap<TenantKey, Met>,
    backoffs: BTreeMap<BackoffKey, Backoff>,
    drains: BTreeMap<DrainKey, Drain>,
    recovering: Option<Recovering>,
    strays: BTreeMap<StrayRegistration, Stray>,
    next: Option<(RunnerId, InstanceId)>,
    events: BTreeMap<u64, Event>,
    last_event: u64,
    fleets: BTreeMap<u64, Applied>,
}

#[derive(Debug)]
struct Held {
    holder: Arc<str>,
    taken_at: Timestamp,
    expires_at: Timestamp,
}

#[derive(Debug)]
struct Kept {
    delivery: Delivery,
    decoding: Decoding,
}

#[derive(Debug)]
enum Decoding {
    Pending,
    Decoded { at: Timestamp },
    Failed { at: Timestamp, error: String },
}

#[derive(Debug)]
struct Row<T> {
    value: T,
    forgotten_at: Option<Timestamp>,
}

#[derive(Debug)]
struct JobRow {
    job: Job,
    forgotten_at: Option<Timestamp>,
    attempts: BTreeMap<u32, Attempt>,
    waits: VecDeque<WaitChange>,
}

impl MemoryStore {
    /// Empty books on this machine's clock.
    pub fn new() -> Self {
        Self::with(installation::draw(), Clock::system(), Retention::default())
    }

    /// Empty books of the given name on the given clock.
    pub fn with(installation: InstallationId, clock: Clock, retention: Retention) -> Self {
        Self { installation, clock, retention, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn accept(&self, delivery: &Delivery) -> Result<Accepted, StoreError> {
        let mut state = self.state();
        let id = (delivery.forge.clone(), delivery.id.clone());
        if let Some(sequence) = state.delivery_ids.get(&id) {
            return Ok(Accepted::Duplicate(*sequence));
        }
        state.last_delivery += 1;
        let sequence = state.last_delivery;
        state.delivery_ids.insert(id, sequence);
        let kept = Kept { delivery: delivery.clone(), decoding: Decoding::Pending };
        state.deliveries.insert(sequence, kept);
        Ok(Accepted::New(sequence))
    }

    async fn undecoded(&self, after: u64, limit: u32) -> Result<Vec<(u64, Delivery)>, StoreError> {
        let state = self.state();
        let pending = state.deliveries.range(after.saturating_add(1)..).filter_map(|(n, kept)| {
            match kept.decoding {
                Decoding::Pending => Some((*n, kept.delivery.clone())),
                Decoding::Decoded { .. } | Decoding::Failed { .. } => None,
            }
        });
        Ok(bounded(pending, limit, |(_, delivery)| delivery.body.len()))
    }

    async fn undecodable(&self, limit: u32) -> Result<Vec<(u64, Delivery, String)>, StoreError> {
        let state = self.state();
        let mut failed: Vec<_> = state
            .deliveries
            .iter()
            .filter_map(|(n, kept)| match &kept.decoding {
                Decoding::Failed { at, error } => Some((*at, *n, &kept.delivery, error)),
                Decoding::Pending | Decoding::Decoded { .. } => None,
            })
            .collect();
        failed.sort_by_key(|(at, n, _, _)| (*at, *n));
        let newest = failed.into_iter().rev();
        let rows = newest.map(|(_, n, delivery, error)| (n, delivery.clone(), error.clone()));
        Ok(bounded(rows, limit, |(_, delivery, _)| delivery.body.len()))
    }

    async fn lease(&self, holder: &str, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        let now = self.clock.now();
        let mut state = self.state();
        let held = state.lease.as_ref().filter(|held| held.expires_at > now);
        if held.is_some_and(|held| *held.holder != *holder) {
            return Ok(None);
        }
        state.epoch += 1;
        let holder: Arc<str> = holder.into();
        state.lease = Some(Held { holder: holder.clone(), taken_at: now, expires_at: now + ttl });
        Ok(Some(Lease { holder, epoch: state.epoch }))
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let mut state = self.state();
        let in_force = state.is_in_force(lease);
        let held = state.lease.as_mut().filter(|held| in_force && held.expires_at > now);
        Ok(held.map(|held| held.expires_at = now + ttl).is_some())
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.is_in_force(lease) {
            state.lease = None;
        }
        Ok(())
    }

    async fn leader(&self) -> Result<Option<Leader>, StoreError> {
        let now = self.clock.now();
        let state = self.state();
        let in_force = state.lease.as_ref().filter(|held| held.expires_at > now);
        Ok(in_force.map(|held| Leader {
            holder: held.holder.clone(),
            epoch: state.epoch,
            since: held.taken_at,
        }))
    }

    async fn load(&self) -> Result<Books, StoreError> {
        let state = self.state();
        Ok(Books {
            installation: self.installation.clone(),
            changes: state.changes(),
            waits: state.waits(),
        })
    }

    async fn commit(
        &self,
        lease: &Lease,
        batch: &Batch,
        decoded: &[Decoded],
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut state = self.state();
        if !state.is_in_force(lease) {
            return Err(StoreError::Fenced { epoch: lease.epoch });
        }
        for change in &batch.changes {
            state.put(change, now);
        }
        for wait in &batch.waits {
            state.put_wait(wait);
        }
        for event in &batch.events {
            state.last_event += 1;
            let sequence = state.last_event;
            state.events.insert(sequence, event.clone());
        }
        for mark in decoded {
            state.mark(mark, now);
        }
        state.prune(&self.retention, now);
        Ok(())
    }

    async fn events(&self, after: u64, limit: u32) -> Result<Vec<(u64, Event)>, StoreError> {
        let state = self.state();
        let events = state.events.range(after.saturating_add(1)..);
        Ok(events.take(limit as usize).map(|(n, event)| (*n, event.clone())).collect())
    }

    async fn job_history(&self, key: &JobKey) -> Result<Vec<Attempt>, StoreError> {
        let state = self.state();
        let Some(row) = state.jobs.get(key) else { return Ok(Vec::new()) };
        let past = row.attempts.len().saturating_sub(ATTEMPTS_PER_CALL_MAX as usize);
        Ok(row.attempts.values().skip(past).cloned().collect())
    }

    async fn wait_history(&self, key: &JobKey, limit: u32) -> Result<Vec<WaitChange>, StoreError> {
        let state = self.state();
        let waits = state.jobs.get(key).into_iter().flat_map(|row| row.waits.iter().rev());
        Ok(waits.take(limit as usize).cloned().collect())
    }

    async fn runner_history(&self, limit: u32) -> Result<Vec<Runner>, StoreError> {
        let state = self.state();
        let newest = state.runners.values().rev().map(|row| row.value.clone());
        Ok(newest.take(limit as usize).collect())
    }

    async fn apply(&self, fleet: &Applied) -> Result<bool, StoreError> {
        let fleets = &mut self.state().fleets;
        if fleet.number != 1 + fleets.keys().next_back().copied().unwrap_or(0) {
            return Ok(false);
        }
        fleets.insert(fleet.number, fleet.clone());
        fleets.retain(|number, _| number + FLEETS_MAX > fleet.number);
        Ok(true)
    }

    async fn applied(&self, number: Option<u64>) -> Result<Option<Applied>, StoreError> {
        let fleets = &self.state().fleets;
        let number = number.or_else(|| fleets.keys().next_back().copied());
        Ok(number.and_then(|number| fleets.get(&number).cloned()))
    }

    async fn fleet_history(&self, limit: u32) -> Result<Vec<Applied>, StoreError> {
        let state = self.state();
        let newest = state.fleets.values().rev().take(limit as usize);
        Ok(newest.map(|fleet| Applied { files: Vec::new(), ..fleet.clone() }).collect())
    }

    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl State {
    fn is_in_force(&self, lease: &Lease) -> bool {
        lease.epoch == self.epoch
            && self.lease.as_ref().is_some_and(|held| held.holder == lease.holder)
    }

    fn changes(&self) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        changes.extend(self.tenants.values().cloned().map(Box::new).map(Change::Tenant));
        let jobs = self.jobs.values().filter(|row| row.forgotten_at.is_none());
        changes.extend(jobs.map(|row| Change::Job(Box::new(row.job.clone()))));
        changes.extend(known(&self.runners).map(|row| Change::Runner(Box::new(row.clone()))));
        changes.extend(known(&self.instances).map(|row| Change::Instance(Box::new(row.clone()))));
        for (key, backoff) in &self.backoffs {
            changes.push(Change::Backoff(key.clone(), Some(backoff.clone())));
        }
        for (key, drain) in &self.drains {
            changes.push(Change::Drain(key.clone(), Some(drain.clone())));
        }
        changes.extend(self.recovering.clone().map(|doubt| Change::Recovering(Some(doubt))));
        for (key, stray) in &self.strays {
            changes.push(Change::Stray(key.clone(), Some(stray.clone())));
        }
        changes.extend(self.next.map(|(runner, instance)| Change::Next { runner, instance }));
        changes
    }

    fn waits(&self) -> Vec<WaitChange> {
        let known = self.jobs.values().filter(|row| row.forgotten_at.is_none());
        let last = known.filter_map(|row| row.waits.back());
        last.filter(|wait| !wait.reasons.is_empty()).cloned().collect()
    }

    fn put(&mut self, change: &Change, now: Timestamp) {
        match change {
            Change::Job(job) => self.put_job(job),
            Change::Runner(runner) => put_row(&mut self.runners, runner.id, runner),
            Change::Instance(instance) => put_row(&mut self.instances, instance.id, instance),
            Change::Tenant(met) => {
                self.tenants.insert(met.tenant.key.clone(), (**met).clone());
            }
            Change::Backoff(key, value) => put_or_remove(&mut self.backoffs, key, value.as_ref()),
            Change::Drain(key, value) => put_or_remove(&mut self.drains, key, value.as_ref()),
            Change::Recovering(value) => self.recovering.clone_from(value),
            Change::Stray(key, value) => put_or_remove(&mut self.strays, key, value.as_ref()),
            Change::Next { runner, instance } => self.next = Some((*runner, *instance)),
            Change::ForgetJob(key) => {
                if let Some(row) = self.jobs.get_mut(key) {
                    row.forgotten_at.get_or_insert(now);
                }
            }
            Change::ForgetRunner(id) => {
                if let Some(row) = self.runners.get_mut(id).filter(|row| row.forgotten_at.is_none())
                {
                    row.forgotten_at = Some(now);
                    if let Some(row) = self.instances.get_mut(&row.value.instance) {
                        row.forgotten_at.get_or_insert(now);
                    }
                }
            }
            // Not durable: the outside tells it anew.
            Change::Orphan(..) | Change::Capacity(..) | Change::Looked(..) | Change::Note(_) => {}
        }
    }

    fn put_job(&mut self, job: &Job) {
        let row = self.jobs.entry(job.key.clone()).or_insert_with(|| JobRow {
            job: job.clone(),
            forgotten_at: None,
            attempts: BTreeMap::new(),
            waits: VecDeque::new(),
        });
        row.job = job.clone();
        row.forgotten_at = None;
        row.attempts.insert(job.attempt.number, job.attempt.clone());
    }

    fn put_wait(&mut self, wait: &WaitChange) {
        if let Some(row) = self.jobs.get_mut(&wait.job) {
            row.waits.push_back(wait.clone());
            if row.waits.len() > WAITS_PER_JOB_MAX as usize {
                row.waits.pop_front();
            }
        }
    }

    fn mark(&mut self, mark: &Decoded, now: Timestamp) {
        let Some(kept) = self.deliveries.get_mut(&mark.sequence) else { return };
        match kept.decoding {
            Decoding::Decoded { .. } => {}
            Decoding::Pending | Decoding::Failed { .. } => {
                kept.decoding = match &mark.result {
                    Ok(()) => Decoding::Decoded { at: now },
                    Err(error) => Decoding::Failed { at: now, error: error.clone() },
                };
            }
        }
    }

    fn prune(&mut self, retention: &Retention, now: Timestamp) {
        self.deliveries.retain(|_, kept| match kept.decoding {
            Decoding::Pending => true,
            Decoding::Decoded { at } => at >= now - retention.deliveries.max(retention.bodies),
            Decoding::Failed { at, .. } => at >= now - retention.undecodable,
        });
        let deliveries = &self.deliveries;
        self.delivery_ids.retain(|_, sequence| deliveries.contains_key(sequence));
        let is_kept = |at: Option<Timestamp>| at.is_none_or(|at| at >= now - retention.history);
        self.jobs.retain(|_, row| is_kept(row.forgotten_at));
        self.runners.retain(|_, row| is_kept(row.forgotten_at));
        self.instances.retain(|_, row| is_kept(row.forgotten_at));
        let oldest = self.last_event.saturating_sub(u64::from(retention.events));
        self.events.retain(|sequence, _| *sequence > oldest);
    }
}

fn known<K, T>(rows: &BTreeMap<K, Row<T>>) -> impl Iterator<Item = &T> {
    rows.values().filter(|row| row.forgotten_at.is_none()).map(|row| &row.value)
}

fn put_row<K: Ord, T: Clone>(rows: &mut BTreeMap<K, Row<T>>, key: K, value: &T) {
    rows.insert(key, Row { value: value.clone(), forgotten_at: None });
}

fn put_or_remove<K: Ord + Clone, V: Clone>(rows: &mut BTreeMap<K, V>, key: &K, value: Option<&V>) {
    match value {
        Some(value) => rows.insert(key.clone(), value.clone()),
        None => rows.remove(key),
    };
}

/// The first rows, as many as one call may hand back.
fn bounded<T>(rows: impl Iterator<Item = T>, limit: u32, bytes: impl Fn(&T) -> usize) -> Vec<T> {
    let mut sum = 0_usize;
    rows.take(limit as usize)
        .enumerate()
        .take_while(|(index, row)| {
            sum = sum.saturating_add(bytes(row));
            *index == 0 || sum <= BODY_BYTES_PER_CALL_MAX
        })
        .map(|(_, row)| row)
        .collect()
}
