//! Why a job, a runner, a pool or a provider is as it is: from the last plan and the books, never from
//! logs.

use std::collections::BTreeMap;

use remuda_core::explain::{self, Standing};
use remuda_core::job::JobKey;
use remuda_core::name::{PoolName, ProviderName};
use remuda_core::pool::Pool;
use remuda_core::reason::{BackoffKey, DrainKey};
use remuda_core::runner::{Runner, RunnerId};
use remuda_core::{Controller, Reason};
use serde::{Deserialize, Serialize};

use crate::clock::rfc3339;
use crate::view::{self, EventRow, JobRow, PoolRow, RunnerRow};

/// Most runners told of with a pool or a provider.
const RUNNERS_MAX: usize = 100;

/// Why something is as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What it is: `job`, `runner`, `pool` or `provider`.
    pub about: String,
    /// Its number or name.
    pub id: String,
    /// The job, if it is one.
    pub job: Option<JobRow>,
    /// Each thing that is so of it; of a job: each reason that it is not running.
    pub reasons: Vec<ReasonRow>,
    /// The pools its reasons name, and that of its runner.
    pub pools: Vec<PoolRow>,
    /// The runners it has or had, or those on their way to it; at most 100.
    pub runners: Vec<RunnerRow>,
    /// What happened to it and to its runner so far, oldest first; of a job or a runner.
    pub events: Vec<EventRow>,
}

/// A reason, for people and for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonRow {
    /// A stable word, listed in docs/codes.md.
    pub code: String,
    /// A sentence.
    pub text: String,
    /// Since when, RFC 3339.
    pub since: Option<String>,
    /// When it is looked at or tried again, or ends by itself, RFC 3339.
    pub next: Option<String>,
    /// Who can change it: `nobody` (it passes), `operator`, `author` or `forge`.
    pub actor: String,
    /// What ends it.
    pub cure: String,
}

impl ReasonRow {
    fn new(standing: &Standing) -> Self {
        let code = explain::code(standing.code);
        Self {
            code: standing.code.into(),
            text: standing.text.clone(),
            since: standing.since.map(rfc3339),
            next: standing.next.map(rfc3339),
            actor: code.map_or("", |code| code.actor.as_str()).into(),
            cure: code.map_or("", |code| code.cure).into(),
        }
    }
}

/// The jobs a person may mean by `id`: `FORGE/NUMBER`, or the number alone.
pub fn find_jobs(controller: &Controller, id: &str) -> Vec<JobKey> {
    let meant = |key: &&JobKey| key.to_string() == id || key.native.to_string() == id;
    controller.world().jobs().map(|job| &job.key).filter(meant).cloned().collect()
}

/// Why a job is where it is, without its events.
pub fn job(controller: &Controller, key: &JobKey) -> Option<Explanation> {
    let world = controller.world();
    let row = world.job(key)?;
    let waits = controller.reasons(key);
    let reasons = waits.map(|(_, reasons)| &**reasons).unwrap_or_default();
    let of_job = |runner: &&Runner| {
        runner.job.as_ref() == Some(key)
            || row.attempt.runner.as_ref().is_some_and(|found| found.name == runner.name)
            || reasons.iter().any(|reason| named_runner(reason) == Some(runner.id))
    };
    let of_job: Vec<&Runner> = world.runners().filter(of_job).collect();
    let tried = |declared: &&Pool| {
        of_job.iter().any(|runner| runner.pool == declared.name)
            || reasons.iter().any(|reason| named_pool(reason) == Some(&declared.name))
    };
    let tried = world.fleet.pools.values().filter(tried);
    let told = |reason: &Reason| {
        let mut standing = Standing::from(reason);
        standing.since = standing.since.or(waits.map(|(since, _)| since));
        ReasonRow::new(&standing)
    };
    Some(Explanation {
        about: "job".into(),
        id: key.to_string(),
        job: Some(view::job(controller, row)),
        reasons: reasons.iter().map(told).collect(),
        pools: tried.map(|declared| view::pool(controller, declared)).collect(),
        runners: runners(controller, of_job.into_iter()),
        events: Vec::new(),
    })
}

/// Why a runner is where it is, without its events.
pub fn runner(controller: &Controller, id: RunnerId) -> Option<Explanation> {
    let world = controller.world();
    let row = world.runner(id)?;
    let pool = world.fleet.pools.get(&row.pool);
    Some(Explanation {
        about: "runner".into(),
        id: id.to_string(),
        job: row.job.as_ref().and_then(|key| world.job(key)).map(|job| view::job(controller, job)),
        reasons: explain::runner(world, row).iter().map(ReasonRow::new).collect(),
        pools: pool.map(|declared| view::pool(controller, declared)).into_iter().collect(),
        runners: runners(controller, [row].into_iter()),
        events: Vec::new(),
    })
}

/// What a pool is about, and what stands in its way.
pub fn pool(controller: &Controller, name: &str) -> Option<Explanation> {
    let world = controller.world();
    let declared = world.fleet.pools.get(&PoolName::new(name).ok()?)?;
    let waits = controller.waits().map(|(_, _, reasons)| &**reasons);
    let of_pool = world.active_runners().filter(|runner| runner.pool == declared.name);
    Some(Explanation {
        about: "pool".into(),
        id: name.into(),
        job: None,
        reasons: explain::pool(world, declared, waits).iter().map(ReasonRow::new).collect(),
        pools: vec![view::pool(controller, declared)],
        runners: runners(controller, of_pool),
        events: Vec::new(),
    })
}

/// Whether a provider answers, and what it carries. `elsewhere` are the providers that this replica
/// cannot see, with the reasons.
pub fn provider(
    controller: &Controller,
    name: &str,
    elsewhere: &BTreeMap<ProviderName, String>,
) -> Option<Explanation> {
    let world = controller.world();
    let declared = world.fleet.providers.get(&ProviderName::new(name).ok()?)?;
    let mut reasons: Vec<_> =
        explain::provider(world, declared).iter().map(ReasonRow::new).collect();
    // The first tells whether it answers.
    if let (Some(first), Some(why)) = (reasons.first_mut(), elsewhere.get(&declared.name)) {
        first.text = format!("{}; {}", first.text, view::unseen(world, why));
    }
    let there = |runner: &&Runner| {
        world.instance(runner.instance).is_some_and(|i| i.provider == declared.name)
    };
    let pools = world.fleet.pools.values().filter(|pool| pool.provider == declared.name);
    Some(Explanation {
        about: "provider".into(),
        id: name.into(),
        job: None,
        reasons,
        pools: pools.map(|pool| view::pool(controller, pool)).collect(),
        runners: runners(controller, world.active_runners().filter(there)),
        events: Vec::new(),
    })
}

fn runners<'a>(controller: &Controller, rows: impl Iterator<Item = &'a Runner>) -> Vec<RunnerRow> {
    let row = |row: &Runner| view::runner(row, controller.world().instance(row.instance));
    rows.take(RUNNERS_MAX).map(row).collect()
}

/// The runner a reason is about, if it is about one.
fn named_runner(reason: &Reason) -> Option<RunnerId> {
    if let Reason::RunnerStarting(id) | Reason::RunnerIdle(id) = reason { Some(*id) } else { None }
}

/// The pool a reason is about, if it is about one.
fn named_pool(reason: &Reason) -> Option<&PoolName> {
    match reason {
        Reason::NoPoolHasLabels { nearest, .. } => nearest.as_ref().map(|(pool, _)| pool),
        Reason::PoolFull(pool)
        | Reason::NoNodeHasRoom(pool)
        | Reason::TrustUnknown(pool)
        | Reason::NotTrusted(pool)
        | Reason::BackingOff { what: BackoffKey::Pool(pool), .. }
        | Reason::BehindOthers(pool)
        | Reason::Proving { what: BackoffKey::Pool(pool) }
        | Reason::Quarantined { what: BackoffKey::Pool(pool), .. }
        | Reason::Gathering { pool, .. }
        | Reason::Drained { what: DrainKey::Pool(pool), .. } => Some(pool),
        Reason::BackingOff { .. }
        | Reason::BehindOlder
        | Reason::Proving { .. }
        | Reason::Quarantined { .. }
        | Reason::Drained { .. }
        | Reason::HeldByForge
        | Reason::ProviderFull(_)
        | Reason::TenantAtCap { .. }
        | Reason::RunnerStarting(_)
        | Reason::RunnerIdle(_)
        | Reason::UnknownToForge { .. } => None,
    }
}
