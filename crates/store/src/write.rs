//! What a commit writes, as statements in their order: no two of them depend on each other's answers.

use remuda_core::job::{Conclusion, Job, JobKey};
use remuda_core::name::{GroupName, NodeName, PoolName};
use remuda_core::observation::StrayRegistration;
use remuda_core::reason::{BackoffKey, DrainKey};
use remuda_core::runner::{Instance, Outcome, Runner, RunnerState};
use remuda_core::snapshot::{Backoff, Drain, Recovering, Stray};
use remuda_core::tenant::{Met, Tenant};
use remuda_core::{Batch, Change, Event, Timestamp, WaitChange};

use crate::row::{namespace_word, purpose_columns, registration_columns, trust_word};
use crate::value::{Statement, Value, values};
use crate::{Applied, Decoded, FLEETS_MAX, WAITS_PER_JOB_MAX, sql, wire};

/// A job's key as the first three parameters of the statements that ask for it.
pub(crate) fn job_values(key: &JobKey) -> Vec<Value<'_>> {
    values![key.forge.as_str(), namespace_word(key.namespace), key.native]
}

fn of_job<'a>(key: &'a JobKey, more: Vec<Value<'a>>) -> Vec<Value<'a>> {
    let mut all = job_values(key);
    all.extend(more);
    all
}

/// Everything that a commit at `now` writes but the removal of what is old.
pub(crate) fn commit<'a>(
    batch: &'a Batch,
    decoded: &'a [Decoded],
    now: Timestamp,
) -> impl Iterator<Item = Statement<'a>> {
    let changes = batch.changes.iter().flat_map(move |change| of_change(change, now));
    let waits = batch.waits.iter().flat_map(of_wait);
    let events = batch.events.iter().map(of_event);
    let marks = decoded.iter().map(move |mark| of_mark(mark, now));
    changes.chain(waits).chain(events).chain(marks)
}

fn of_change(change: &Change, now: Timestamp) -> Vec<Statement<'_>> {
    match change {
        Change::Job(job) => vec![put_job(job), put_attempt(job)],
        Change::Runner(runner) => vec![put_runner(runner)],
        Change::Instance(instance) => vec![put_instance(instance)],
        Change::Tenant(tenant) => vec![put_tenant(tenant)],
        Change::Backoff(key, value) => vec![put_backoff(key, value.as_ref())],
        Change::Drain(key, value) => vec![put_drain(key, value.as_ref())],
        Change::Recovering(value) => vec![put_recovering(value.as_ref())],
        Change::Stray(key, value) => vec![put_stray(key, value.as_ref())],
        Change::Next { runner, instance } => {
            vec![(&sql::PUT_NEXT, values![1_i64, runner.0, instance.0])]
        }
        Change::ForgetJob(key) => vec![(sql::FORGET_JOB, of_job(key, values![now]))],
        Change::ForgetRunner(id) => vec![
            (sql::FORGET_INSTANCE_OF_RUNNER, values![id.0, now]),
            (sql::FORGET_RUNNER, values![id.0, now]),
        ],
        // Not durable: the outside tells it anew.
        Change::Orphan(..) | Change::Capacity(..) | Change::Looked(..) | Change::Note(_) => {
            Vec::new()
        }
    }
}

fn put_job(job: &Job) -> Statement<'_> {
    let (tenant, title, doubt) = (&job.tenant, &job.title, job.doubt.as_ref());
    let values = values![
        tenant.forge.as_str(),
        tenant.kind.as_str(),
        tenant.id,
        job.scope.to_string(),
        job.repository.to_string(),
        wire::wanted_text(&job.wanted),
        trust_word(job.trust),
        &title.job,
        &title.workflow,
        &title.url,
        title.run,
        job.accepted_at,
        job.attempt.number,
        wire::runner_refs_text(&job.past_runners),
        doubt.map(|doubt| doubt.since),
        doubt.and_then(|doubt| doubt.missing_since),
        doubt.map(|doubt| doubt.reads),
        doubt.and_then(|doubt| doubt.read_at),
        Value::Null,
    ];
    (&sql::PUT_JOB, of_job(&job.key, values))
}

fn put_attempt(job: &Job) -> Statement<'_> {
    let attempt = &job.attempt;
    let runner = attempt.runner.as_ref();
    let values = values![
        attempt.number,
        attempt.state.as_str(),
        runner.map(|runner| runner.id),
        runner.map(|runner| runner.name.as_str()),
        attempt.conclusion.map(Conclusion::as_str),
        attempt.queued_at,
        attempt.started_at,
        attempt.completed_at,
        attempt.fact_at,
    ];
    (&sql::PUT_ATTEMPT, of_job(&job.key, values))
}

fn put_runner(runner: &Runner) -> Statement<'_> {
    let (registration, registration_id) = registration_columns(runner.registration);
    let since = |state| runner.since.at(state);
    let (job, hold) = (runner.job.as_ref(), runner.hold.as_ref());
    let values = values![
        runner.id.0,
        runner.name.as_str(),
        runner.pool.as_str(),
        runner.forge.as_str(),
        runner.scope.to_string(),
        runner.group.as_ref().map(GroupName::as_str),
        wire::labels_text(&runner.labels),
        runner.instance.0,
        runner.state.as_str(),
        since(RunnerState::Pending),
        since(RunnerState::Starting),
        since(RunnerState::Idle),
        since(RunnerState::Draining),
        since(RunnerState::Busy),
        since(RunnerState::Stopping),
        since(RunnerState::Gone),
        registration,
        registration_id,
        job.map(|key| key.forge.as_str()),
        job.map(|key| namespace_word(key.namespace)),
        job.map(|key| key.native),
        runner.job_ended_at,
        runner.outcome.map(Outcome::as_str),
        hold.map(|hold| &hold.who),
        hold.map(|hold| &hold.why),
        hold.map(|hold| hold.since),
        Value::Null,
    ];
    (&sql::PUT_RUNNER, values)
}

fn put_instance(instance: &Instance) -> Statement<'_> {
    let (purpose, purpose_runner) = purpose_columns(instance.purpose);
    let (launch, exit) = (instance.launch.as_ref(), instance.exit.as_ref());
    let values = values![
        instance.id.0,
        instance.provider.as_str(),
        instance.pool.as_str(),
        purpose,
        purpose_runner,
        wire::needs_text(&instance.needs),
        instance.node.as_ref().map(NodeName::as_str),
        instance.epoch,
        instance.state.as_str(),
        instance.created_at,
        launch.map(|launch| launch.at),
        launch.map(|launch| launch.deadline),
        launch.and_then(|launch| launch.answered_at),
        exit.map(|exit| exit.at),
        exit.and_then(|exit| exit.code),
        instance.missing_since,
        instance.destroyed_at,
        instance.gone_at,
        Value::Null,
    ];
    (&sql::PUT_INSTANCE, values)
}

fn put_tenant(met: &Met) -> Statement<'_> {
    let Met { tenant: Tenant { key, login }, logins, served_at } = met;
    let values = values![
        key.forge.as_str(),
        key.kind.as_str(),
        key.id,
        login.as_str(),
        wire::logins_text(logins),
        *served_at,
    ];
    (&sql::PUT_TENANT, values)
}

fn put_backoff<'a>(key: &'a BackoffKey, value: Option<&'a Backoff>) -> Statement<'a> {
    let (kind, name, part) = match key {
        BackoffKey::Pool(pool) => ("pool", pool.as_str(), String::new()),
        BackoffKey::Provider(provider) => ("provider", provider.as_str(), String::new()),
        BackoffKey::Scope(forge, scope) => ("scope", forge.as_str(), scope.to_string()),
        BackoffKey::Image(image) => ("image", image.as_str(), String::new()),
        BackoffKey::Node(provider, node) => ("node", provider.as_str(), node.to_string()),
    };
    let Some(Backoff { failures, since, failed_at, until, because, earlier, proof, full }) = value
    else {
        return (sql::REMOVE_BACKOFF, values![kind, name, part]);
    };
    let values = values![
        kind,
        name,
        part,
        *failures,
        *since,
        *failed_at,
        *until,
        because,
        wire::causes_text(earlier),
        wire::proof_text(*proof),
        *full,
    ];
    (&sql::PUT_BACKOFF, values)
}

fn put_drain<'a>(key: &'a DrainKey, value: Option<&'a Drain>) -> Statement<'a> {
    let (kind, name, node) = match key {
        DrainKey::Pool(pool) => ("pool", pool.as_str(), ""),
        DrainKey::Provider(provider) => ("provider", provider.as_str(), ""),
        DrainKey::Node(provider, node) => ("node", provider.as_str(), node.as_str()),
    };
    match value {
        None => (sql::REMOVE_DRAIN, values![kind, name, node]),
        Some(Drain { who, why, since }) => {
            (&sql::PUT_DRAIN, values![kind, name, node, who, why, *since])
        }
    }
}

fn put_recovering(value: Option<&Recovering>) -> Statement<'_> {
    match value {
        None => (sql::REMOVE_RECOVERING, Vec::new()),
        Some(Recovering { since, because }) => {
            (&sql::PUT_RECOVERING, values![1_i64, *since, because])
        }
    }
}

fn put_stray<'a>(key: &'a StrayRegistration, value: Option<&'a Stray>) -> Statement<'a> {
    let (forge, scope, id) = (key.forge.as_str(), key.scope.to_string(), key.id);
    match value {
        None => (sql::REMOVE_STRAY, values![forge, scope, id]),
        Some(Stray { name, first_seen, last_seen, tried_at }) => {
            let (name, tried_at) = (name.as_str(), *tried_at);
            let values = values![forge, scope, id, name, *first_seen, *last_seen, tried_at];
            (&sql::PUT_STRAY, values)
        }
    }
}

fn of_wait(wait: &WaitChange) -> [Statement<'_>; 2] {
    let put = of_job(&wait.job, values![wait.at, wire::reasons_text(&wait.reasons)]);
    let prune = of_job(&wait.job, values![WAITS_PER_JOB_MAX]);
    [(sql::PUT_WAIT, put), (sql::PRUNE_WAITS, prune)]
}

fn of_event(event: &Event) -> Statement<'_> {
    let Event { at, job, runner, pool, text } = event;
    let job = job.as_ref();
    let values = values![
        *at,
        job.map(|key| key.forge.as_str()),
        job.map(|key| namespace_word(key.namespace)),
        job.map(|key| key.native),
        runner.map(|runner| runner.0),
        pool.as_ref().map(PoolName::as_str),
        text,
    ];
    (sql::PUT_EVENT, values)
}

fn of_mark(mark: &Decoded, now: Timestamp) -> Statement<'_> {
    let (state, error) = match &mark.result {
        Ok(()) => ("decoded", None),
        Err(error) => ("undecodable", Some(error)),
    };
    (sql::MARK_DELIVERY, values![mark.sequence, state, now, error])
}

/// The columns of a fleet, in the order of [`sql::PUT_FLEET`](crate::sql::PUT_FLEET).
pub(crate) fn applied_values(fleet: &Applied) -> Vec<Value<'static>> {
    let files = serde_json::json!(fleet.files).to_string();
    values![
        fleet.number,
        fleet.at,
        fleet.who.clone(),
        fleet.how.clone(),
        fleet.revision.clone(),
        files
    ]
}

/// The newest fleet that gives way to this one.
pub(crate) fn last_forgotten(fleet: &Applied) -> i64 {
    i64::try_from(fleet.number.saturating_sub(FLEETS_MAX)).unwrap_or(i64::MAX)
}
