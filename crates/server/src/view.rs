//! What people and programs are shown: plain rows read off the controller, the same for the command
//! line and for `-o json`.

use std::collections::BTreeMap;

use remuda_core::budget::{Lane, Purse};
use remuda_core::explain;
use remuda_core::fleet::Provider;
use remuda_core::job::Job;
use remuda_core::name::ProviderName;
use remuda_core::pool::Pool;
use remuda_core::reason::BackoffKey;
use remuda_core::runner::{Instance, InstanceState, Runner, RunnerState};
use remuda_core::{Controller, Event, Snapshot, Timestamp};
use serde::{Deserialize, Serialize};

use crate::clock::rfc3339;
use crate::restrict::restrictions;

/// A job, on one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    /// `FORGE/NUMBER`.
    pub id: String,
    /// Its repository.
    pub repository: String,
    /// Its name in the workflow.
    pub name: String,
    /// Its workflow.
    pub workflow: String,
    /// What it asks of a runner.
    pub labels: Vec<String>,
    /// `waiting`, `queued`, `in_progress` or `completed`.
    pub state: String,
    /// How it ended, once it has.
    pub conclusion: Option<String>,
    /// Which attempt it is in.
    pub attempt: u32,
    /// The runner that has or had it.
    pub runner: Option<String>,
    /// When the forge queued it, RFC 3339.
    pub queued_at: String,
    /// When it began to run, RFC 3339.
    pub started_at: Option<String>,
    /// When it ended, RFC 3339.
    pub completed_at: Option<String>,
    /// Why it is not running, in words; empty once it is.
    pub reasons: Vec<String>,
}

/// A runner, on one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerRow {
    /// Our number for it.
    pub id: u64,
    /// The name it registers under.
    pub name: String,
    /// Its pool.
    pub pool: String,
    /// Where it registers.
    pub scope: String,
    /// What it offers.
    pub labels: Vec<String>,
    /// `pending`, `starting`, `idle`, `draining`, `busy`, `stopping` or `gone`.
    pub state: String,
    /// Since when, RFC 3339.
    pub since: Option<String>,
    /// The job it has or had.
    pub job: Option<String>,
    /// Why it ended or is about to.
    pub outcome: Option<String>,
    /// The instance that carries it.
    pub instance: u64,
    /// The provider that made that.
    pub provider: String,
    /// The node it is on, if known.
    pub node: Option<String>,
    /// The instance's state: `planned`, `launching`, `live`, `exited` or `gone`.
    pub instance_state: String,
    /// Who ordered it left alone, and why.
    pub hold: Option<String>,
}

/// A pool, on one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRow {
    /// Its name.
    pub name: String,
    /// Its forge.
    pub forge: String,
    /// The scopes it serves; empty means any.
    pub scopes: Vec<String>,
    /// What its runners offer.
    pub labels: Vec<String>,
    /// Its provider.
    pub provider: String,
    /// Its image.
    pub image: String,
    /// Most instances.
    pub max: u32,
    /// Idle runners kept.
    pub min_idle: u32,
    /// Instances that exist or are on their way.
    pub instances: u32,
    /// Runners on their way.
    pub starting: u32,
    /// Runners waiting for a job.
    pub idle: u32,
    /// Runners with a job.
    pub busy: u32,
    /// The failures being waited out, if any.
    pub backoff: Option<String>,
}

/// A provider, on one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderRow {
    /// Its name.
    pub name: String,
    /// Most instances, if there is a limit.
    pub max: Option<u32>,
    /// Instances that exist or are on their way.
    pub instances: u32,
    /// How it stands, as codes of docs/codes.md.
    pub codes: Vec<String>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// Its number.
    pub sequence: u64,
    /// When, RFC 3339.
    pub at: String,
    /// The job it is about.
    pub job: Option<String>,
    /// The runner it is about.
    pub runner: Option<u64>,
    /// The pool it is about.
    pub pool: Option<String>,
    /// What.
    pub text: String,
}

/// A finding of `doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// `ok`, `warning` or `error`.
    pub level: String,
    /// What was looked at.
    pub what: String,
    /// What was found, and what to do about it.
    pub text: String,
}

fn labels<'a>(labels: impl Iterator<Item = &'a remuda_core::label::Label>) -> Vec<String> {
    labels.map(ToString::to_string).collect()
}

/// A job as a row.
pub fn job(controller: &Controller, job: &Job) -> JobRow {
    let remuda_core::label::Wanted::AllOf(wanted) = &job.wanted;
    let waits = controller.reasons(&job.key);
    let attempt = &job.attempt;
    JobRow {
        id: job.key.to_string(),
        repository: job.repository.to_string(),
        name: job.title.job.to_string(),
        workflow: job.title.workflow.to_string(),
        labels: labels(wanted.iter()),
        state: attempt.state.as_str().into(),
        conclusion: attempt.conclusion.map(|ended| ended.as_str().into()),
        attempt: attempt.number,
        runner: attempt.runner.as_ref().map(|runner| runner.name.to_string()),
        queued_at: rfc3339(attempt.queued_at),
        started_at: attempt.started_at.map(rfc3339),
        completed_at: attempt.completed_at.map(rfc3339),
        reasons: waits
            .map(|(_, reasons)| reasons.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
    }
}

/// Jobs, the oldest first; with `all`, the ended ones still remembered too.
pub fn jobs(controller: &Controller, all: bool) -> Vec<JobRow> {
    let mut jobs: Vec<&Job> =
        controller.world().jobs().filter(|job| all || job.is_open()).collect();
    jobs.sort_by_key(|job| (job.attempt.queued_at, job.key.clone()));
    jobs.into_iter().map(|row| job(controller, row)).collect()
}

/// A runner as a row.
pub fn runner(runner: &Runner, instance: Option<&Instance>) -> RunnerRow {
    RunnerRow {
        id: runner.id.0,
        name: runner.name.to_string(),
        pool: runner.pool.to_string(),
        scope: runner.scope.to_string(),
        labels: labels(runner.labels.iter()),
        state: runner.state.as_str().into(),
        since: runner.since.at(runner.state).map(rfc3339),
        job: runner.job.as_ref().map(ToString::to_string),
        outcome: runner.outcome.map(|outcome| outcome.as_str().into()),
        instance: runner.instance.0,
        provider: instance.map(|i| i.provider.to_string()).unwrap_or_default(),
        node: instance.and_then(|i| i.node.as_ref()).map(ToString::to_string),
        instance_state: instance.map_or("gone", |i| i.state.as_str()).into(),
        hold: runner.hold.as_ref().map(|hold| format!("{}: {}", hold.who, hold.why)),
    }
}

/// Runners by number; with `all`, the gone ones still remembered too.
pub fn runners(controller: &Controller, all: bool) -> Vec<RunnerRow> {
    let world = controller.world();
    world
        .runners()
        .filter(|row| all || row.state < RunnerState::Gone)
        .map(|row| runner(row, world.instance(row.instance)))
        .collect()
}

/// Every declared pool with what it holds.
pub fn pools(controller: &Controller) -> Vec<PoolRow> {
    let pools = controller.world().fleet.pools.values();
    pools.map(|declared| pool(controller, declared)).collect()
}

/// A pool as a row.
pub fn pool(controller: &Controller, pool: &Pool) -> PoolRow {
    let world = controller.world();
    let count = |wanted: &[RunnerState]| {
        let of_pool = world.runners().filter(|r| r.pool == pool.name && wanted.contains(&r.state));
        u32::try_from(of_pool.count()).unwrap_or(u32::MAX)
    };
    let live = world.instances().filter(|i| i.pool == pool.name && i.state < InstanceState::Gone);
    let key = BackoffKey::Pool(pool.name.clone());
    let backoff = world.backoffs().find(|(found, _)| **found == key);
    PoolRow {
        name: pool.name.to_string(),
        forge: pool.forge.to_string(),
        scopes: pool.scopes.iter().map(ToString::to_string).collect(),
        labels: labels(pool.labels.iter()),
        provider: pool.provider.to_string(),
        image: pool.image.to_string(),
        max: pool.max,
        min_idle: pool.min_idle,
        instances: u32::try_from(live.count()).unwrap_or(u32::MAX),
        starting: count(&[RunnerState::Pending, RunnerState::Starting]),
        idle: count(&[RunnerState::Idle]),
        busy: count(&[RunnerState::Busy]),
        backoff: backoff.map(|(_, found)| found.because.to_string()),
    }
}

/// Every declared provider with what it carries.
pub fn providers(controller: &Controller) -> Vec<ProviderRow> {
    let world = controller.world();
    let row = |provider: &Provider| {
        let held = world.existing_instances().filter(|one| one.provider == provider.name);
        let standings = explain::provider(world, provider);
        ProviderRow {
            name: provider.name.to_string(),
            max: provider.max,
            instances: u32::try_from(held.count()).unwrap_or(u32::MAX),
            codes: standings.iter().map(|standing| standing.code.into()).collect(),
        }
    };
    world.fleet.providers.values().map(row).collect()
}

/// An event as a row.
pub fn event(sequence: u64, event: &Event) -> EventRow {
    EventRow {
        sequence,
        at: rfc3339(event.at),
        job: event.job.as_ref().map(ToString::to_string),
        runner: event.runner.map(|id| id.0),
        pool: event.pool.as_ref().map(ToString::to_string),
        text: event.text.to_string(),
    }
}

fn finding(level: &str, what: impl Into<String>, text: impl Into<String>) -> Finding {
    Finding { level: level.into(), what: what.into(), text: text.into() }
}

/// What follows from a provider's being one that this replica cannot see, for the reason `why`.
pub(crate) fn unseen(world: &Snapshot, why: &str) -> String {
    let doubt = match world.recovering() {
        Some(_) => {
            ", and the doubt about the books cannot end before: let a replica there lead, or end it \
             with `remuda release books`"
        }
        None => "",
    };
    format!("{why}: nobody can list it before a replica there leads{doubt}")
}

/// What a look at the books finds: each thing that a person may want to act on, and what is fine.
/// `elsewhere` are the providers that this replica cannot see, with the reasons.
pub fn doctor(controller: &Controller, elsewhere: &BTreeMap<ProviderName, String>) -> Vec<Finding> {
    let world = controller.world();
    let mut found = Vec::new();
    for violation in remuda_core::check(world) {
        let text = format!("{violation}; this is a bug of Remuda: please report it");
        found.push(finding("error", "books", text));
    }
    if found.is_empty() {
        found.push(finding("ok", "books", "every invariant holds"));
    }
    for row in restrictions(world) {
        found.push(finding("warning", row.what.clone(), row.to_string()));
    }
    for stuck in remuda_core::stuck(world) {
        found.push(finding("warning", stuck.what, stuck.text));
    }
    for (name, why) in elsewhere {
        found.push(finding("warning", format!("provider {name}"), unseen(world, why)));
    }
    found.extend(low_budgets(world));
    found.extend(failing_looks(controller));
    for (key, stray) in world.strays() {
        let text = format!("registration {} in {} has no runner of ours", stray.name, key.scope);
        found.push(finding("warning", "strays", text));
    }
    let mut unserved = BTreeMap::new();
    for (_, _, reasons) in controller.waits() {
        for reason in reasons.iter().filter(|reason| reason.code() == "no_pool_has_labels") {
            *unserved.entry(reason.to_string()).or_insert(0_u32) += 1;
        }
    }
    for (text, count) in unserved {
        found.push(finding("warning", "demand", format!("{count} job(s) wait: {text}")));
    }
    found
}

/// Credentials that have so few calls left that something waits for more.
fn low_budgets(world: &Snapshot) -> Vec<Finding> {
    let low = world.budgets().filter_map(|(forge, credential, budget)| {
        let left = budget.left_at(world.now);
        let purse = Purse { limit: budget.limit, remaining: left };
        let held: Vec<&str> = Lane::ALL
            .into_iter()
            .filter(|lane| purse.spendable(*lane) == 0)
            .map(Lane::as_str)
            .collect();
        let text = format!(
            "{left} of {} calls are left until {}; it makes none for {}",
            budget.limit,
            rfc3339(budget.resets_at),
            held.join(", ")
        );
        let what = format!("{credential}, forge {forge}");
        (!held.is_empty()).then(|| finding("warning", what, text))
    });
    low.collect()
}

fn failing_looks(controller: &Controller) -> Vec<Finding> {
    use remuda_core::observation::Subject;
    let world = controller.world();
    let mut found = Vec::new();
    for provider in world.fleet.providers.keys() {
        let looked = world.looked(&Subject::Instances(provider.clone()));
        let what = format!("provider {provider}");
        found.push(look_finding(what, looked, world.now));
    }
    for forge in world.fleet.forges.values() {
        for scope in &forge.scopes {
            let looked = world.looked(&Subject::Runners(forge.name.clone(), scope.clone()));
            found.push(look_finding(format!("{scope} at {}", forge.name), looked, world.now));
        }
    }
    found
}

fn look_finding(what: String, looked: remuda_core::snapshot::Looked, now: Timestamp) -> Finding {
    match (looked.asked_at, looked.failures) {
        (Some(at), 0) => {
            let ago = now.since(at).as_secs();
            finding("ok", what, format!("listed {ago} s ago"))
        }
        (None, 0) => finding("ok", what, "not looked at yet"),
        (_, failures) => {
            let text = format!("the last {failures} listing(s) failed; see the log for why");
            finding("error", what, text)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use remuda_core::Change;
    use remuda_core::fleet::Fleet;
    use remuda_core::name::InstallationId;
    use remuda_core::snapshot::Recovering;

    use super::*;

    #[test]
    fn a_provider_that_cannot_be_seen_keeps_the_doubt_about_the_books_alive() {
        let mut world =
            Snapshot::new(InstallationId::new("test").unwrap(), Arc::new(Fleet::default()));
        let why = "provider local makes instances on a, and this is b";
        let plain = format!("{why}: nobody can list it before a replica there leads");
        assert_eq!(unseen(&world, why), plain);
        let doubt = Recovering { since: world.now, because: "instance 9 is ahead".into() };
        world.apply(&[Change::Recovering(Some(doubt))]);
        let told = unseen(&world, why);
        assert!(told.starts_with(&plain) && told.ends_with("`remuda release books`"), "{told}");
    }
}
