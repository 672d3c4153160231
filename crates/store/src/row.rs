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

use crate::value::{Cells, Misread};
use crate::wire::{self, Unreadable};
use crate::{Applied, Leader};

type Read<T> = Result<T, Misread>;

pub(crate) fn namespace_word(namespace: Namespace) -> &'static str {
    match namespace {
        Namespace::Rest => "rest",
    }
}

pub(crate) fn trust_word(trust: Trust) -> &'static str {
    match trust {
        Trust::Unknown => "unknown",
        Trust::Untrusted => "untrusted",
        Trust::Trusted => "trusted",
    }
}

pub(crate) fn registration_columns(registration: Registration) -> (&'static str, Option<u64>) {
    match registration {
        Registration::Unknown => ("unknown", None),
        Registration::Made(id) => ("made", Some(id)),
        Registration::Removed => ("removed", None),
    }
}

pub(crate) fn purpose_columns(purpose: Purpose) -> (&'static str, Option<u64>) {
    match purpose {
        Purpose::Runner(runner) => ("runner", Some(runner.0)),
        Purpose::Standby => ("standby", None),
        Purpose::Builder => ("builder", None),
    }
}

fn there<T>(column: &str, value: Option<T>) -> Read<T> {
    value.ok_or_else(|| Misread::new(column, "it is empty"))
}

/// A text as it is.
pub(crate) fn word(row: &dyn Cells, column: &str) -> Read<String> {
    text(row, column, |text| Ok::<_, Unreadable>(text.to_owned()))
}

fn int(row: &dyn Cells, column: &str) -> Read<i64> {
    there(column, row.int(column)?)
}

/// A number of fewer bits than a column holds.
fn small<T: TryFrom<i64>>(row: &dyn Cells, column: &str) -> Read<T> {
    let number = int(row, column)?;
    T::try_from(number).map_err(|_| Misread::new(column, format!("{number} is out of range")))
}

fn id(row: &dyn Cells, column: &str) -> Read<u64> {
    Ok(int(row, column)?.cast_unsigned())
}

fn optional_id(row: &dyn Cells, column: &str) -> Read<Option<u64>> {
    Ok(row.int(column)?.map(i64::cast_unsigned))
}

fn at(row: &dyn Cells, column: &str) -> Read<Timestamp> {
    Ok(Timestamp::from_millis(int(row, column)?))
}

fn optional_at(row: &dyn Cells, column: &str) -> Read<Option<Timestamp>> {
    Ok(row.int(column)?.map(Timestamp::from_millis))
}

fn text<T, E: Into<Unreadable>>(
    row: &dyn Cells,
    column: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Read<T> {
    there(column, optional_text(row, column, parse)?)
}

fn optional_text<T, E: Into<Unreadable>>(
    row: &dyn Cells,
    column: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Read<Option<T>> {
    let text = row.text(column)?;
    text.map(|text| parse(&text)).transpose().map_err(|error| Misread::new(column, error))
}

/// Reads a word of a closed set.
fn one_of<T: Copy, const N: usize>(
    all: [T; N],
    word_of: fn(T) -> &'static str,
) -> impl FnOnce(&str) -> Result<T, Unreadable> {
    move |text| {
        all.into_iter()
            .find(|value| word_of(*value) == text)
            .ok_or_else(|| format!("{text:?} is not a word we know").into())
    }
}

fn plain(row: &dyn Cells, column: &str) -> Read<Arc<str>> {
    text(row, column, |text| Ok::<_, Unreadable>(text.into()))
}

fn namespace(text: &str) -> Result<Namespace, Unreadable> {
    one_of([Namespace::Rest], namespace_word)(text)
}

/// A job's key in the columns `forge`, `namespace` and `native`.
fn job_key(row: &dyn Cells) -> Read<JobKey> {
    Ok(JobKey {
        forge: text(row, "forge", str::parse)?,
        namespace: text(row, "namespace", namespace)?,
        native: id(row, "native")?,
    })
}

/// A job's key in the columns `job_forge`, `job_namespace` and `job_native`, which are set together.
fn optional_job_key(row: &dyn Cells) -> Read<Option<JobKey>> {
    let Some(forge) = optional_text(row, "job_forge", str::parse)? else { return Ok(None) };
    let namespace = text(row, "job_namespace", namespace)?;
    Ok(Some(JobKey { forge, namespace, native: id(row, "job_native")? }))
}

pub(crate) fn delivery(row: &dyn Cells) -> Read<(u64, Delivery)> {
    let delivery = Delivery {
        forge: text(row, "forge", str::parse)?,
        id: plain(row, "id")?,
        event: plain(row, "event")?,
        received_at: at(row, "received_at")?,
        body: there("body", row.bytes("body")?)?.into(),
    };
    Ok((id(row, "sequence")?, delivery))
}

/// As [`delivery`], with the decoder's error.
pub(crate) fn undecodable(row: &dyn Cells) -> Read<(u64, Delivery, String)> {
    let (sequence, delivery) = delivery(row)?;
    Ok((sequence, delivery, word(row, "error")?))
}

pub(crate) fn tenant(row: &dyn Cells) -> Read<Met> {
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

pub(crate) fn job(row: &dyn Cells) -> Read<Job> {
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
            one_of([Trust::Unknown, Trust::Untrusted, Trust::Trusted], trust_word),
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

pub(crate) fn attempt(row: &dyn Cells) -> Read<Attempt> {
    let runner_name = optional_text(row, "runner_name", str::parse)?;
    let runner = match runner_name {
        Some(name) => Some(RunnerRef { id: id(row, "runner_id")?, name }),
        None => None,
    };
    Ok(Attempt {
        number: small(row, "number")?,
        state: text(row, "state", one_of(JobState::ALL, JobState::as_str))?,
        runner,
        conclusion: optional_text(row, "conclusion", one_of(Conclusion::ALL, Conclusion::as_str))?,
        queued_at: at(row, "queued_at")?,
        started_at: optional_at(row, "started_at")?,
        completed_at: optional_at(row, "completed_at")?,
        fact_at: at(row, "fact_at")?,
    })
}

fn doubt(row: &dyn Cells) -> Read<Option<Doubt>> {
    let Some(since) = optional_at(row, "doubt_since")? else { return Ok(None) };
    Ok(Some(Doubt {
        since,
        missing_since: optional_at(row, "doubt_missing_since")?,
        reads: small(row, "doubt_reads")?,
        read_at: optional_at(row, "doubt_read_at")?,
    }))
}

pub(crate) fn runner(row: &dyn Cells) -> Read<Runner> {
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
        state: text(row, "state", one_of(RunnerState::ALL, RunnerState::as_str))?,
        since,
        registration: registration(row)?,
        job: optional_job_key(row)?,
        job_ended_at: optional_at(row, "job_ended_at")?,
        outcome: optional_text(row, "outcome", one_of(Outcome::ALL, Outcome::as_str))?,
        hold: hold(row)?,
    })
}

/// In the order of [`RunnerState::ALL`].
const SINCE_COLUMNS: [&str; 7] =
    ["pending_at", "starting_at", "idle_at", "draining_at", "busy_at", "stopping_at", "gone_at"];

fn registration(row: &dyn Cells) -> Read<Registration> {
    let made = optional_id(row, "registration_id")?;
    text(row, "registration", |word| match (word, made) {
        ("unknown", None) => Ok(Registration::Unknown),
        ("made", Some(id)) => Ok(Registration::Made(id)),
        ("removed", None) => Ok(Registration::Removed),
        (word, id) => Err(format!("{word:?} does not go with the id {id:?}")),
    })
}

fn hold(row: &dyn Cells) -> Read<Option<Hold>> {
    let Some(since) = optional_at(row, "hold_since")? else { return Ok(None) };
    let (who, why) = (plain(row, "hold_who")?, plain(row, "hold_why")?);
    Ok(Some(Hold { who, why, since }))
}

pub(crate) fn instance(row: &dyn Cells) -> Read<Instance> {
    let launch = match optional_at(row, "launch_at")? {
        Some(begun) => Some(LaunchCall {
            at: begun,
            deadline: at(row, "launch_deadline")?,
            answered_at: optional_at(row, "launch_answered_at")?,
        }),
        None => None,
    };
    let exit = match optional_at(row, "exit_at")? {
        Some(at) => {
            let code = row.int("exit_code")?.map(|_| small(row, "exit_code")).transpose()?;
            Some(Exit { at, code })
        }
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
        state: text(row, "state", one_of(InstanceState::ALL, InstanceState::as_str))?,
        created_at: at(row, "created_at")?,
        launch,
        exit,
        missing_since: optional_at(row, "missing_since")?,
        destroyed_at: optional_at(row, "destroyed_at")?,
        gone_at: optional_at(row, "gone_at")?,
    })
}

fn purpose(row: &dyn Cells) -> Read<Purpose> {
    let runner = optional_id(row, "purpose_runner")?;
    text(row, "purpose", |word| match (word, runner) {
        ("runner", Some(id)) => Ok(Purpose::Runner(RunnerId(id))),
        ("standby", None) => Ok(Purpose::Standby),
        ("builder", None) => Ok(Purpose::Builder),
        (word, id) => Err(format!("{word:?} does not go with the runner {id:?}")),
    })
}

pub(crate) fn backoff(row: &dyn Cells) -> Read<(BackoffKey, Backoff)> {
    let kind: Arc<str> = plain(row, "kind")?;
    let key = match &*kind {
        "pool" => BackoffKey::Pool(text(row, "name", str::parse)?),
        "provider" => BackoffKey::Provider(text(row, "name", str::parse)?),
        "scope" => {
            BackoffKey::Scope(text(row, "name", str::parse)?, text(row, "part", str::parse)?)
        }
        "image" => BackoffKey::Image(text(row, "name", str::parse)?),
        "node" => BackoffKey::Node(text(row, "name", str::parse)?, text(row, "part", str::parse)?),
        other => return Err(Misread::new("kind", format!("{other:?} is not a word we know"))),
    };
    let backoff = Backoff {
        failures: small(row, "failures")?,
        since: at(row, "since")?,
        failed_at: at(row, "failed_at")?,
        until: at(row, "until")?,
        because: plain(row, "because")?,
        earlier: text(row, "earlier", wire::causes)?,
        proof: text(row, "proof", wire::proof)?,
        full: int(row, "is_full")? != 0,
    };
    Ok((key, backoff))
}

pub(crate) fn drain(row: &dyn Cells) -> Read<(DrainKey, Drain)> {
    let kind: Arc<str> = plain(row, "kind")?;
    let key = match &*kind {
        "pool" => DrainKey::Pool(text(row, "name", str::parse)?),
        "provider" => DrainKey::Provider(text(row, "name", str::parse)?),
        "node" => DrainKey::Node(text(row, "name", str::parse)?, text(row, "node", str::parse)?),
        other => return Err(Misread::new("kind", format!("{other:?} is not a word we know"))),
    };
    let drain =
        Drain { who: plain(row, "who")?, why: plain(row, "why")?, since: at(row, "since")? };
    Ok((key, drain))
}

pub(crate) fn recovering(row: &dyn Cells) -> Read<Recovering> {
    Ok(Recovering { since: at(row, "since")?, because: plain(row, "because")? })
}

pub(crate) fn stray(row: &dyn Cells) -> Read<(StrayRegistration, Stray)> {
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

pub(crate) fn next(row: &dyn Cells) -> Read<(RunnerId, InstanceId)> {
    Ok((RunnerId(id(row, "runner")?), InstanceId(id(row, "instance")?)))
}

pub(crate) fn wait(row: &dyn Cells) -> Read<WaitChange> {
    let (job, at) = (job_key(row)?, at(row, "at")?);
    Ok(WaitChange { job, at, reasons: text(row, "reasons", wire::reasons)? })
}

pub(crate) fn event(row: &dyn Cells) -> Read<(u64, Event)> {
    let event = Event {
        at: at(row, "at")?,
        job: optional_job_key(row)?,
        runner: optional_id(row, "runner")?.map(RunnerId),
        pool: optional_text(row, "pool", str::parse)?,
        text: plain(row, "text")?,
    };
    Ok((id(row, "sequence")?, event))
}

pub(crate) fn leader(row: &dyn Cells) -> Read<Leader> {
    let (holder, epoch) = (plain(row, "holder")?, id(row, "epoch")?);
    Ok(Leader { holder, epoch, since: at(row, "taken_at")? })
}

pub(crate) fn applied(row: &dyn Cells) -> Read<Applied> {
    let files = word(row, "files")?;
    Ok(Applied {
        number: int(row, "number")?.cast_unsigned(),
        at: at(row, "at")?,
        who: word(row, "who")?,
        how: word(row, "how")?,
        revision: word(row, "revision")?,
        files: serde_json::from_str(&files)
            .map_err(|error| Misread::new("files", error.to_string()))?,
    })
}

pub(crate) fn installation(row: &dyn Cells) -> Read<InstallationId> {
    text(row, "value", str::parse)
}
