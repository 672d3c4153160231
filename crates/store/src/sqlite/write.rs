//! What the writer does, each inside a transaction that somebody else begins and commits.

use std::time::Duration;

use remuda_core::job::{Attempt, Conclusion, Job};
use remuda_core::name::{GroupName, NodeName, PoolName};
use remuda_core::observation::StrayRegistration;
use remuda_core::reason::{BackoffKey, DrainKey};
use remuda_core::runner::{Instance, Outcome, Runner, RunnerState};
use remuda_core::snapshot::{Backoff, Drain, Recovering, Stray};
use remuda_core::tenant::{Met, Tenant};
use remuda_core::{Batch, Change, Delivery, Event, Timestamp, WaitChange};
use rusqlite::{Connection, OptionalExtension as _, Params, params};

use super::row::{
    job_values, millis, namespace_word, purpose_columns, registration_columns, trust_word,
};
use super::work::Undone;
use super::{read, sql};
use crate::{Accepted, Decoded, Lease, WAITS_PER_JOB_MAX, wire};

fn run(connection: &Connection, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
    connection.prepare_cached(sql)?.execute(params)
}

pub(super) fn accept(connection: &Connection, delivery: &Delivery) -> rusqlite::Result<Accepted> {
    let known: Option<i64> = connection
        .prepare_cached(sql::DELIVERY_NUMBER)?
        .query_row(params![delivery.forge.as_str(), &*delivery.id], |row| row.get(0))
        .optional()?;
    if let Some(sequence) = known {
        return Ok(Accepted::Duplicate(sequence.cast_unsigned()));
    }
    let Delivery { forge, id, event, received_at, body } = delivery;
    let values = params![forge.as_str(), id, event, received_at.as_millis()];
    let sequence = connection.prepare_cached(sql::PUT_DELIVERY)?.insert(values)?;
    run(connection, sql::PUT_BODY, params![sequence, body])?;
    Ok(Accepted::New(sequence.cast_unsigned()))
}

pub(super) fn lease(
    connection: &Connection,
    holder: &str,
    ttl: Duration,
    now: Timestamp,
) -> rusqlite::Result<Option<Lease>> {
    let (epoch, taken_at) = match read::lease(connection)? {
        None => (1, now),
        Some((epoch, None)) => (epoch + 1, now),
        Some((epoch, Some(held))) if held.expires_at <= now => (epoch + 1, now),
        Some((epoch, Some(held))) if *held.holder == *holder => (epoch, held.taken_at),
        Some((_, Some(_))) => return Ok(None),
    };
    let (taken_at, expires_at) = (taken_at.as_millis(), (now + ttl).as_millis());
    let values = params![epoch.cast_signed(), holder, expires_at, taken_at];
    run(connection, sql::PUT_LEASE, values)?;
    Ok(Some(Lease { holder: holder.into(), epoch }))
}

pub(super) fn release(connection: &Connection, lease: &Lease) -> rusqlite::Result<()> {
    run(connection, sql::FREE_LEASE, params![lease.epoch.cast_signed(), lease.holder])?;
    Ok(())
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
    for change in &batch.changes {
        put(connection, change, now)?;
    }
    for wait in &batch.waits {
        put_wait(connection, wait)?;
    }
    for event in &batch.events {
        put_event(connection, event)?;
    }
    for mark in decoded {
        let (state, error) = match &mark.result {
            Ok(()) => ("decoded", None),
            Err(error) => ("undecodable", Some(error)),
        };
        let values = params![mark.sequence.cast_signed(), state, now.as_millis(), error];
        run(connection, sql::MARK_DELIVERY, values)?;
    }
    Ok(())
}

fn put(connection: &Connection, change: &Change, now: Timestamp) -> rusqlite::Result<()> {
    match change {
        Change::Job(job) => put_job(connection, job),
        Change::Runner(runner) => put_runner(connection, runner),
        Change::Instance(instance) => put_instance(connection, instance),
        Change::Tenant(tenant) => put_tenant(connection, tenant),
        Change::Backoff(key, value) => put_backoff(connection, key, value.as_ref()),
        Change::Drain(key, value) => put_drain(connection, key, value.as_ref()),
        Change::Recovering(value) => put_recovering(connection, value.as_ref()),
        Change::Stray(key, value) => put_stray(connection, key, value.as_ref()),
        Change::Next { runner, instance } => {
            let values = params![1, runner.0.cast_signed(), instance.0.cast_signed()];
            run(connection, &sql::PUT_NEXT, values).map(|_| ())
        }
        Change::ForgetJob(key) => {
            let (forge, namespace, native) = job_values(key);
            let values = (forge, namespace, native, now.as_millis());
            run(connection, sql::FORGET_JOB, values).map(|_| ())
        }
        Change::ForgetRunner(id) => {
            let values = params![id.0.cast_signed(), now.as_millis()];
            run(connection, sql::FORGET_INSTANCE_OF_RUNNER, values)?;
            run(connection, sql::FORGET_RUNNER, values).map(|_| ())
        }
        // Not durable: the outside tells it anew.
        Change::Orphan(..)
        | Change::Capacity(..)
        | Change::Looked(..)
        | Change::Limited(..)
        | Change::Note(_) => Ok(()),
    }
}

fn put_job(connection: &Connection, job: &Job) -> rusqlite::Result<()> {
    let (tenant, title, doubt) = (&job.tenant, &job.title, job.doubt.as_ref());
    let values = params![
        job.key.forge.as_str(),
        namespace_word(job.key.namespace),
        job.key.native.cast_signed(),
        tenant.forge.as_str(),
        tenant.kind.as_str(),
        tenant.id.cast_signed(),
        job.scope.to_string(),
        job.repository.to_string(),
        wire::wanted_text(&job.wanted),
        trust_word(job.trust),
        title.job,
        title.workflow,
        title.url,
        title.run.cast_signed(),
        job.accepted_at.as_millis(),
        job.attempt.number,
        wire::runner_refs_text(&job.past_runners),
        millis(doubt.map(|doubt| doubt.since)),
        millis(doubt.and_then(|doubt| doubt.missing_since)),
        doubt.map(|doubt| doubt.reads),
        millis(doubt.and_then(|doubt| doubt.read_at)),
        None::<i64>,
    ];
    let id: i64 =
        connection.prepare_cached(&sql::PUT_JOB)?.query_row(values, |row| row.get("id"))?;
    put_attempt(connection, id, &job.attempt)
}

fn put_attempt(connection: &Connection, job: i64, attempt: &Attempt) -> rusqlite::Result<()> {
    let runner = attempt.runner.as_ref();
    let values = params![
        job,
        attempt.number,
        attempt.state.as_str(),
        runner.map(|runner| runner.id.cast_signed()),
        runner.map(|runner| runner.name.as_str()),
        attempt.conclusion.map(Conclusion::as_str),
        attempt.queued_at.as_millis(),
        millis(attempt.started_at),
        millis(attempt.completed_at),
        attempt.fact_at.as_millis(),
    ];
    run(connection, &sql::PUT_ATTEMPT, values).map(|_| ())
}

fn put_runner(connection: &Connection, runner: &Runner) -> rusqlite::Result<()> {
    let (registration, registration_id) = registration_columns(runner.registration);
    let since = |state| millis(runner.since.at(state));
    let (job, hold) = (runner.job.as_ref(), runner.hold.as_ref());
    let values = params![
        runner.id.0.cast_signed(),
        runner.name.as_str(),
        runner.pool.as_str(),
        runner.forge.as_str(),
        runner.scope.to_string(),
        runner.group.as_ref().map(GroupName::as_str),
        wire::labels_text(&runner.labels),
        runner.instance.0.cast_signed(),
        runner.state.as_str(),
        since(RunnerState::Pending),
        since(RunnerState::Starting),
        since(RunnerState::Idle),
        since(RunnerState::Draining),
        since(RunnerState::Busy),
        since(RunnerState::Stopping),
        since(RunnerState::Gone),
        registration,
        registration_id.map(u64::cast_signed),
        job.map(|key| key.forge.as_str()),
        job.map(|key| namespace_word(key.namespace)),
        job.map(|key| key.native.cast_signed()),
        millis(runner.job_ended_at),
        runner.outcome.map(Outcome::as_str),
        hold.map(|hold| &*hold.who),
        hold.map(|hold| &*hold.why),
        millis(hold.map(|hold| hold.since)),
        None::<i64>,
    ];
    run(connection, &sql::PUT_RUNNER, values).map(|_| ())
}

fn put_instance(connection: &Connection, instance: &Instance) -> rusqlite::Result<()> {
    let (purpose, purpose_runner) = purpose_columns(instance.purpose);
    let (launch, exit) = (instance.launch.as_ref(), instance.exit.as_ref());
    let values = params![
        instance.id.0.cast_signed(),
        instance.provider.as_str(),
        instance.pool.as_str(),
        purpose,
        purpose_runner.map(u64::cast_signed),
        wire::needs_text(&instance.needs),
        instance.node.as_ref().map(NodeName::as_str),
        instance.epoch.cast_signed(),
        instance.state.as_str(),
        instance.created_at.as_millis(),
        millis(launch.map(|launch| launch.at)),
        millis(launch.map(|launch| launch.deadline)),
        millis(launch.and_then(|launch| launch.answered_at)),
        millis(exit.map(|exit| exit.at)),
        exit.and_then(|exit| exit.code),
        millis(instance.missing_since),
        millis(instance.destroyed_at),
        millis(instance.gone_at),
        None::<i64>,
    ];
    run(connection, &sql::PUT_INSTANCE, values).map(|_| ())
}

fn put_tenant(connection: &Connection, met: &Met) -> rusqlite::Result<()> {
    let Met { tenant: Tenant { key, login }, logins, served_at } = met;
    let values = params![
        key.forge.as_str(),
        key.kind.as_str(),
        key.id.cast_signed(),
        login.as_str(),
        wire::logins_text(logins),
        millis(*served_at),
    ];
    run(connection, &sql::PUT_TENANT, values).map(|_| ())
}

fn put_backoff(
    connection: &Connection,
    key: &BackoffKey,
    value: Option<&Backoff>,
) -> rusqlite::Result<()> {
    let (kind, name, part) = match key {
        BackoffKey::Pool(pool) => ("pool", pool.as_str(), String::new()),
        BackoffKey::Provider(provider) => ("provider", provider.as_str(), String::new()),
        BackoffKey::Scope(forge, scope) => ("scope", forge.as_str(), scope.to_string()),
        BackoffKey::Image(image) => ("image", image.as_str(), String::new()),
        BackoffKey::Node(provider, node) => ("node", provider.as_str(), node.to_string()),
    };
    let Some(Backoff { failures, since, failed_at, until, because, earlier, proof, full }) = value
    else {
        return run(connection, sql::REMOVE_BACKOFF, params![kind, name, part]).map(|_| ());
    };
    let (since, failed_at, until) = (since.as_millis(), failed_at.as_millis(), until.as_millis());
    let (earlier, proof) = (wire::causes_text(earlier), wire::proof_text(*proof));
    let values =
        params![kind, name, part, failures, since, failed_at, until, because, earlier, proof, full];
    run(connection, &sql::PUT_BACKOFF, values).map(|_| ())
}

fn put_drain(
    connection: &Connection,
    key: &DrainKey,
    value: Option<&Drain>,
) -> rusqlite::Result<()> {
    let (kind, name, node) = match key {
        DrainKey::Pool(pool) => ("pool", pool.as_str(), ""),
        DrainKey::Provider(provider) => ("provider", provider.as_str(), ""),
        DrainKey::Node(provider, node) => ("node", provider.as_str(), node.as_str()),
    };
    let Some(Drain { who, why, since }) = value else {
        return run(connection, sql::REMOVE_DRAIN, params![kind, name, node]).map(|_| ());
    };
    let values = params![kind, name, node, who, why, since.as_millis()];
    run(connection, &sql::PUT_DRAIN, values).map(|_| ())
}

fn put_recovering(connection: &Connection, value: Option<&Recovering>) -> rusqlite::Result<()> {
    let Some(Recovering { since, because }) = value else {
        return run(connection, sql::REMOVE_RECOVERING, []).map(|_| ());
    };
    run(connection, &sql::PUT_RECOVERING, params![1, since.as_millis(), because]).map(|_| ())
}

fn put_stray(
    connection: &Connection,
    key: &StrayRegistration,
    value: Option<&Stray>,
) -> rusqlite::Result<()> {
    let (forge, scope, id) = (key.forge.as_str(), key.scope.to_string(), key.id.cast_signed());
    let Some(Stray { name, first_seen, last_seen, tried_at }) = value else {
        return run(connection, sql::REMOVE_STRAY, params![forge, scope, id]).map(|_| ());
    };
    let (first_seen, last_seen) = (first_seen.as_millis(), last_seen.as_millis());
    let values = params![forge, scope, id, name.as_str(), first_seen, last_seen, millis(*tried_at)];
    run(connection, &sql::PUT_STRAY, values).map(|_| ())
}

fn put_wait(connection: &Connection, wait: &WaitChange) -> rusqlite::Result<()> {
    let next: Option<(i64, i64)> = connection
        .prepare_cached(sql::NEXT_WAIT)?
        .query_row(job_values(&wait.job), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((job, number)) = next else { return Ok(()) };
    let values = params![job, number, wait.at.as_millis(), wire::reasons_text(&wait.reasons)];
    run(connection, sql::PUT_WAIT, values)?;
    let last_pruned = number - i64::from(WAITS_PER_JOB_MAX);
    if last_pruned > 0 {
        run(connection, sql::PRUNE_WAITS, [job, last_pruned])?;
    }
    Ok(())
}

fn put_event(connection: &Connection, event: &Event) -> rusqlite::Result<()> {
    let Event { at, job, runner, pool, text } = event;
    let job = job.as_ref();
    let values = params![
        at.as_millis(),
        job.map(|key| key.forge.as_str()),
        job.map(|key| namespace_word(key.namespace)),
        job.map(|key| key.native.cast_signed()),
        runner.map(|runner| runner.0.cast_signed()),
        pool.as_ref().map(PoolName::as_str),
        text,
    ];
    run(connection, sql::PUT_EVENT, values).map(|_| ())
}
