//! Rows to nouns, and the words of closed sets that the core leaves to us.

use std::sync::Arc;

use remuda_core::job::{
    Attempt, Conclusion, Doubt, Job, JobKey, JobState, Namespace, RunnerRef, Title, Trust,
};
use remuda_core::name::InstallationId;
use remuda_core::observation::StrayRegistration;
use remuda_core::reason::{BackoffKey, DrainKey};
use remuda_core::runner::{
    Exit, Hold, Instance, InstanceId, InstanceState, LaunchCall, Outcome, Purpose, Registration,
    Runner, RunnerId, RunnerState, Since,
};
use remuda_core::snapshot::{Backoff, Drain, Recovering, Stray};
use remuda_core::tenant::{Met, Tenant, TenantKey};
use remuda_core::{Delivery, Event, Timestamp, WaitChange};
use rusqlite::Row;
use rusqlite::types::Type;

use crate::wire::{self, Unreadable};

type Read<T> = rusqlite::Result<T>;

pub(super) fn millis(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::as_millis)
}

pub(super) fn namespace_word(namespace: Namespace) -> &'static str {
    match namespace {
        Namespace::Rest => "rest",
    }
}

/// A job's key as the first three parameters of the statements that ask for it.
pub(super) fn job_values(key: &JobKey) -> (&str, &'static str, i64) {
    (key.forge.as_str(), namespace_word(key.namespace), key.native.cast_signed())
}

pub(super) fn trust_word(trust: Trust) -> &'static str {
    match trust {
        Trust::Unknown => "unknown",
        Trust::Untrusted => "untrusted",
        Trust::Trusted => "trusted",
    }
}

pub(super) fn registration_columns(registration: Registration) -> (&'static str, Option<u64>) {
    match registration {
        Registration::Unknown => ("unknown", None),
        Registration::Made(id) => ("made", Some(id)),
        Registration::Removed => ("removed", None),
    }
}

pub(super) fn purpose_columns(purpose: Purpose) -> (&'static str, Option<u64>) {
    match purpose {
        Purpose::Runner(runner) => ("runner", Some(runner.0)),
        Purpose::Standby => ("standby", None),
        Purpose::Builder => ("builder", None),
    }
}

fn unreadable(column: &str, error: impl Into<Unreadable>) -> rusqlite::Error {
    let error = format!("column {column}: {}", error.into());
    // The column is named in the text, which says more than its place in the statement.
    rusqlite::Error::FromSqlConversionFailure(usize::MAX, Type::Text, error.into())
}

fn id(row: &Row<'_>, column: &str) -> Read<u64> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

fn optional_id(row: &Row<'_>, column: &str) -> Read<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(i64::cast_unsigned))
}

fn at(row: &Row<'_>, column: &str) -> Read<Timestamp> {
    Ok(Timestamp::from_millis(row.get(column)?))
}

fn optional_at(row: &Row<'_>, column: &str) -> Read<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
}

fn text<T, E: Into<Unreadable>>(
    row: &Row<'_>,
    column: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Read<T> {
    let text = row.get_ref(column)?.as_str().map_err(|error| unreadable(column, error))?;
    parse(text).map_err(|error| unreadable(column, error))
}

fn optional_text<T, E: Into<Unreadable>>(
    row: &Row<'_>,
    column: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Read<Option<T>> {
    let text = row.get_ref(column)?.as_str_or_null().map_err(|error| unreadable(column, error))?;
    text.map(parse).transpose().map_err(|error| unreadable(column, error))
}

/// Reads a word of a closed set.
fn word<T: Copy, const N: usize>(
    all: [T; N],
    word_of: fn(T) -> &'static str,
) -> impl FnOnce(&str) -> Result<T, Unreadable> {
    move |text| {
        all.into_iter()
            .find(|value| word_of(*value) == text)
            .ok_or_else(|| format!("{text:?} is not a word we know").into())
    }
}

fn plain(row: &Row<'_>, column: &str) -> Read<Arc<str>> {
    text(row, column, |text| Ok::<_, Unreadable>(text.into()))
}

fn namespace(text: &str) -> Result<Namespace, Unreadable> {
    word([Namespace::Rest], namespace_word)(text)
}

/// A job's key in the columns `forge`, `namespace` and `native`.
fn job_key(row: &Row<'_>) -> Read<JobKey> {
    Ok(JobKey {
        forge: text(row, "forge", str::parse)?,
        namespace: text(row, "namespace", namespace)?,
        native: id(row, "native")?,
    })
}

/// A job's key in the columns `job_forge`, `job_namespace` and `job_native`, which are set together.
fn optional_job_key(row: &Row<'_>) -> Read<Option<JobKey>> {
    let Some(forge) = optional_text(row, "job_forge", str::parse)? else { return Ok(None) };
    let namespace = text(row, "job_namespace", namespace)?;
    Ok(Some(JobKey { forge, namespace, native: id(row, "job_native")? }))
}

pub(super) fn delivery(row: &Row<'_>) -> Read<(u64, Delivery)> {
    let delivery = Delivery {
        forge: text(row, "forge", str::parse)?,
        id: plain(row, "id")?,
        event: plain(row, "event")?,
        received_at: at(row, "received_at")?,
        body: row.get_ref("body")?.as_blob().map_err(|error| unreadable("body", error))?.into(),
    };
    Ok((id(row, "sequence")?, delivery))
}

pub(super) fn tenant(row: &Row<'_>) -> Read<Met> {
    let key = TenantKey {
        forge: text(row, "forge", str::parse)?,
        kind: text(row, "kind", wire::owner_kind)?,
        id: id(row, "id")?,
    };
    Ok(Met {
        tenant: Tenant { key, login: text(row, "login", str::parse)? },
        logins: text(row, "logins", wire::logins)?,
        served_at: optional_at(row, "served_at")?,
    })
}

pub(super) fn job(row: &Row<'_>) -> Read<Job> {
    Ok(Job {
        key: job_key(row)?,
        tenant: TenantKey {
            forge: text(row, "tenant_forge", str::parse)?,
            kind: text(row, "tenant_kind", wire::owner_kind)?,
            id: id(row, "tenant_id")?,
        },
        scope: text(row, "scope", str::parse)?,
        repository: text(row, "repository", str::parse)?,
        wanted: text(row, "wanted", wire::wanted)?,
        trust: text(
            row,
            "trust",
            word([Trust::Unknown, Trust::Untrusted, Trust::Trusted], trust_word),
        )?,
        title: Title {
            job: plain(row, "title_job")?,
            workflow: plain(row, "title_workflow")?,
            url: plain(row, "title_url")?,
            run: id(row, "title_run")?,
        },
        accepted_at: at(row, "accepted_at")?,
        attempt: attempt(row)?,
        past_runners: text(row, "past_runners", wire::runner_refs)?,
        doubt: doubt(row)?,
    })
}

pub(super) fn attempt(row: &Row<'_>) -> Read<Attempt> {
    let runner_name = optional_text(row, "runner_name", str::parse)?;
    let runner = match runner_name {
        Some(name) => Some(RunnerRef { id: id(row, "runner_id")?, name }),
        None => None,
    };
    Ok(Attempt {
        number: row.get("number")?,
        state: text(row, "state", word(JobState::ALL, JobState::as_str))?,
        runner,
        conclusion: optional_text(row, "conclusion", word(Conclusion::ALL, Conclusion::as_str))?,
        queued_at: at(row, "queued_at")?,
        started_at: optional_at(row, "started_at")?,
        completed_at: optional_at(row, "completed_at")?,
        fact_at: at(row, "fact_at")?,
    })
}

fn doubt(row: &Row<'_>) -> Read<Option<Doubt>> {
    let Some(since) = optional_at(row, "doubt_since")? else { return Ok(None) };
    Ok(Some(Doubt {
        since,
        missing_since: optional_at(row, "doubt_missing_since")?,
        reads: row.get("doubt_reads")?,
        read_at: optional_at(row, "doubt_read_at")?,
    }))
}

pub(super) fn runner(row: &Row<'_>) -> Read<Runner> {
    let mut since = Since::default();
    for (state, column) in RunnerState::ALL.into_iter().zip(SINCE_COLUMNS) {
        if let Some(at) = optional_at(row, column)? {
            since.enter(state, at);
        }
    }
    Ok(Runner {
        id: RunnerId(id(row, "id")?),
        name: text(row, "name", str::parse)?,
        pool: text(row, "pool", str::parse)?,
        forge: text(row, "forge", str::parse)?,
        scope: text(row, "scope", str::parse)?,
        group: optional_text(row, "runner_group", str::parse)?,
        labels: text(row, "labels", wire::labels)?,
        instance: InstanceId(id(row, "instance")?),
        state: text(row, "state", word(RunnerState::ALL, RunnerState::as_str))?,
        since,
        registration: registration(row)?,
        job: optional_job_key(row)?,
        job_ended_at: optional_at(row, "job_ended_at")?,
        outcome: optional_text(row, "outcome", word(Outcome::ALL, Outcome::as_str))?,
        hold: hold(row)?,
    })
}

/// In the order of [`RunnerState::ALL`].
const SINCE_COLUMNS: [&str; 7] =
    ["pending_at", "starting_at", "idle_at", "draining_at", "busy_at", "stopping_at", "gone_at"];

fn registration(row: &Row<'_>) -> Read<Registration> {
    let made = optional_id(row, "registration_id")?;
    text(row, "registration", |word| match (word, made) {
        ("unknown", None) => Ok(Registration::Unknown),
        ("made", Some(id)) => Ok(Registration::Made(id)),
        ("removed", None) => Ok(Registration::Removed),
        (word, id) => Err(format!("{word:?} does not go with the id {id:?}")),
    })
}

fn hold(row: &Row<'_>) -> Read<Option<Hold>> {
    let Some(since) = optional_at(row, "hold_since")? else { return Ok(None) };
    let (who, why) = (plain(row, "hold_who")?, plain(row, "hold_why")?);
    Ok(Some(Hold { who, why, since }))
}

pub(super) fn instance(row: &Row<'_>) -> Read<Instance> {
    let launch = match optional_at(row, "launch_at")? {
        Some(begun) => Some(LaunchCall {
            at: begun,
            deadline: at(row, "launch_deadline")?,
            answered_at: optional_at(row, "launch_answered_at")?,
        }),
        None => None,
    };
    let exit = match optional_at(row, "exit_at")? {
        Some(at) => Some(Exit { at, code: row.get("exit_code")? }),
        None => None,
    };
    Ok(Instance {
        id: InstanceId(id(row, "id")?),
        provider: text(row, "provider", str::parse)?,
        pool: text(row, "pool", str::parse)?,
        purpose: purpose(row)?,
        needs: text(row, "needs", wire::needs)?,
        node: optional_text(row, "node", str::parse)?,
        epoch: id(row, "epoch")?,
        state: text(row, "state", word(InstanceState::ALL, InstanceState::as_str))?,
        created_at: at(row, "created_at")?,
        launch,
        exit,
        missing_since: optional_at(row, "missing_since")?,
        destroyed_at: optional_at(row, "destroyed_at")?,
        gone_at: optional_at(row, "gone_at")?,
    })
}

fn purpose(row: &Row<'_>) -> Read<Purpose> {
    let runner = optional_id(row, "purpose_runner")?;
    text(row, "purpose", |word| match (word, runner) {
        ("runner", Some(id)) => Ok(Purpose::Runner(RunnerId(id))),
        ("standby", None) => Ok(Purpose::Standby),
        ("builder", None) => Ok(Purpose::Builder),
        (word, id) => Err(format!("{word:?} does not go with the runner {id:?}")),
    })
}

pub(super) fn backoff(row: &Row<'_>) -> Read<(BackoffKey, Backoff)> {
    let kind: String = row.get("kind")?;
    let key = match kind.as_str() {
        "pool" => BackoffKey::Pool(text(row, "name", str::parse)?),
        "provider" => BackoffKey::Provider(text(row, "name", str::parse)?),
        "scope" => {
            BackoffKey::Scope(text(row, "name", str::parse)?, text(row, "part", str::parse)?)
        }
        "image" => BackoffKey::Image(text(row, "name", str::parse)?),
        "node" => BackoffKey::Node(text(row, "name", str::parse)?, text(row, "part", str::parse)?),
        other => return Err(unreadable("kind", format!("{other:?} is not a word we know"))),
    };
    let backoff = Backoff {
        failures: row.get("failures")?,
        since: at(row, "since")?,
        failed_at: at(row, "failed_at")?,
        until: at(row, "until")?,
        because: plain(row, "because")?,
        earlier: text(row, "earlier", wire::causes)?,
        proof: text(row, "proof", wire::proof)?,
        full: row.get("is_full")?,
    };
    Ok((key, backoff))
}

pub(super) fn drain(row: &Row<'_>) -> Read<(DrainKey, Drain)> {
    let kind: String = row.get("kind")?;
    let key = match kind.as_str() {
        "pool" => DrainKey::Pool(text(row, "name", str::parse)?),
        "provider" => DrainKey::Provider(text(row, "name", str::parse)?),
        "node" => DrainKey::Node(text(row, "name", str::parse)?, text(row, "node", str::parse)?),
        other => return Err(unreadable("kind", format!("{other:?} is not a word we know"))),
    };
    let drain =
        Drain { who: plain(row, "who")?, why: plain(row, "why")?, since: at(row, "since")? };
    Ok((key, drain))
}

pub(super) fn recovering(row: &Row<'_>) -> Read<Recovering> {
    Ok(Recovering { since: at(row, "since")?, because: plain(row, "because")? })
}

pub(super) fn stray(row: &Row<'_>) -> Read<(StrayRegistration, Stray)> {
    let key = StrayRegistration {
        forge: text(row, "forge", str::parse)?,
        scope: text(row, "scope", str::parse)?,
        id: id(row, "id")?,
    };
    let stray = Stray {
        name: text(row, "name", str::parse)?,
        first_seen: at(row, "first_seen")?,
        last_seen: at(row, "last_seen")?,
        tried_at: optional_at(row, "tried_at")?,
    };
    Ok((key, stray))
}

pub(super) fn next(row: &Row<'_>) -> Read<(RunnerId, InstanceId)> {
    Ok((RunnerId(id(row, "runner")?), InstanceId(id(row, "instance")?)))
}

pub(super) fn wait(row: &Row<'_>) -> Read<WaitChange> {
    let (job, at) = (job_key(row)?, at(row, "at")?);
    Ok(WaitChange { job, at, reasons: text(row, "reasons", wire::reasons)? })
}

pub(super) fn event(row: &Row<'_>) -> Read<(u64, Event)> {
    let event = Event {
        at: at(row, "at")?,
        job: optional_job_key(row)?,
        runner: optional_id(row, "runner")?.map(RunnerId),
        pool: optional_text(row, "pool", str::parse)?,
        text: plain(row, "text")?,
    };
    Ok((id(row, "sequence")?, event))
}

pub(super) fn installation(row: &Row<'_>) -> Read<InstallationId> {
    text(row, "value", str::parse)
}
