//! Wrong rules about who is served: limits, turns, back-offs, reserves.

use std::sync::Arc;
use std::time::Duration;

use remuda_core::fleet::Terms;
use remuda_core::reason::Reason;
use remuda_core::runner::{Outcome, Runner, RunnerId, RunnerState};
use remuda_core::snapshot::{Backoff, Change};
use remuda_core::tenant::Met;
use remuda_core::{Action, Plan, Snapshot, Timestamp, actions, plan};

use crate::{CROWDED, Mutant, SOUND, bent, declared, runner, sends_away};

pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        wrong: "draining and stopping runners do not count against the pool",
        plan: ignores_what_is_leaving,
        ..SOUND
    },
    Mutant {
        wrong: "failures are not waited out",
        plan: plans_without_backoff,
        actions: calls_without_backoff,
        ..SOUND
    },
    Mutant { wrong: "idle runners are never reaped", plan: never_reaps, ..SOUND },
    Mutant { wrong: "a blocked job blocks those behind it", plan: blocks_the_line, ..CROWDED },
    Mutant { wrong: "the tenant's cap is ignored", plan: ignores_caps, ..CROWDED },
    Mutant { wrong: "a tenant has another's cap", plan: swaps_caps, ..CROWDED },
    Mutant { wrong: "weights are ignored", plan: ignores_weights, ..CROWDED },
    Mutant { wrong: "floors are ignored", plan: ignores_floors, ..CROWDED },
    Mutant { wrong: "jobs are served by their number, not in turn", plan: by_number, ..CROWDED },
    Mutant { wrong: "the last turn is forgotten", plan: forgets_turns, ..CROWDED },
    Mutant { wrong: "no idle runners are kept", plan: keeps_none_idle, ..SOUND },
    Mutant { wrong: "a blocked job is not told why", plan: says_nothing, ..CROWDED },
    Mutant { wrong: "a provider's limit is ignored", plan: ignores_providers, ..CROWDED },
    Mutant { wrong: "runners on their way are not counted on", plan: counts_on_nobody, ..CROWDED },
    Mutant { wrong: "a back-off never ends", plan: backs_off_forever, ..SOUND },
];

fn ignores_what_is_leaving(world: &Snapshot) -> Plan {
    let leaving = world
        .runners()
        .filter(|row| matches!(row.state, RunnerState::Draining | RunnerState::Stopping));
    plan(&bent(world, leaving.map(|row| Change::ForgetRunner(row.id))))
}

fn without_backoff(world: &Snapshot) -> Snapshot {
    let keys: Vec<_> = world.backoffs().map(|(key, _)| key.clone()).collect();
    bent(world, keys.into_iter().map(|key| Change::Backoff(key, None)))
}

fn plans_without_backoff(world: &Snapshot) -> Plan {
    plan(&without_backoff(world))
}

fn calls_without_backoff(world: &Snapshot) -> Vec<Action> {
    actions(&without_backoff(world))
}

fn never_reaps(world: &Snapshot) -> Plan {
    let mut plan = plan(world);
    plan.changes.retain(|change| !sends_away(change, Outcome::Surplus));
    plan
}

/// The numbers of runners this plan makes for jobs behind the first blocked one.
fn behind_the_blocked(world: &Snapshot, plan: &Plan) -> Vec<RunnerId> {
    let place = |key| world.job(key).map(|job| (job.attempt.queued_at, job.key.clone()));
    let coming = |reason: &Reason| {
        let (Reason::RunnerStarting(id) | Reason::RunnerIdle(id)) = reason else { return None };
        Some(*id)
    };
    let blocked =
        plan.waits.iter().filter(|wait| !wait.reasons.iter().any(|r| coming(r).is_some()));
    let Some(first) = blocked.filter_map(|wait| place(&wait.job)).min() else { return Vec::new() };
    let behind = plan.waits.iter().filter(|wait| place(&wait.job).is_some_and(|at| at > first));
    behind.flat_map(|wait| wait.reasons.iter().filter_map(coming)).collect()
}

fn blocks_the_line(world: &Snapshot) -> Plan {
    let mut plan = plan(world);
    let behind = behind_the_blocked(world, &plan);
    let new = |id: RunnerId| behind.contains(&id) && world.runner(id).is_none();
    plan.changes.retain(|change| {
        let dropped = matches!(change, Change::Runner(row) if new(row.id))
            || matches!(change, Change::Instance(row) if row.runner().is_some_and(new));
        !dropped
    });
    plan
}

/// A plan by other terms for the tenants.
fn by_terms(world: &Snapshot, change: impl Fn(&mut Terms)) -> Plan {
    let mut world = world.clone();
    let mut fleet = (*world.fleet).clone();
    change(&mut fleet.tenants.default);
    fleet.tenants.by_login.values_mut().for_each(|(_, terms)| change(terms));
    world.fleet = Arc::new(fleet);
    plan(&world)
}

fn ignores_caps(world: &Snapshot) -> Plan {
    by_terms(world, |terms| terms.cap = 1000)
}

fn swaps_caps(world: &Snapshot) -> Plan {
    let cap = world.fleet.tenants.default.cap;
    by_terms(world, |terms| terms.cap = cap)
}

fn ignores_weights(world: &Snapshot) -> Plan {
    by_terms(world, |terms| terms.weight = 1)
}

fn ignores_floors(world: &Snapshot) -> Plan {
    by_terms(world, |terms| terms.floor = 0)
}

fn without_turns(world: &Snapshot) -> Vec<Change> {
    let met = world.tenants().cloned();
    met.map(|met| Change::Tenant(Box::new(Met { served_at: None, ..met }))).collect()
}

fn forgets_turns(world: &Snapshot) -> Plan {
    plan(&bent(world, without_turns(world)))
}

fn by_number(world: &Snapshot) -> Plan {
    let ageless = world.jobs().cloned().map(|mut job| {
        job.attempt.queued_at = Timestamp::from_millis(0);
        Change::Job(Box::new(job))
    });
    let mut world = bent(world, ageless.chain(without_turns(world)));
    // Nobody is overdue either.
    let now = std::mem::replace(&mut world.now, Timestamp::from_millis(0));
    let mut plan = plan(&world);
    world.now = now;
    for change in &mut plan.changes {
        if let Change::Runner(row) = change
            && row.state == RunnerState::Pending
        {
            row.since = remuda_core::runner::Since::default();
            row.since.enter(RunnerState::Pending, now);
        }
    }
    plan
}

fn keeps_none_idle(world: &Snapshot) -> Plan {
    let mut world = world.clone();
    let mut fleet = (*world.fleet).clone();
    for pool in fleet.pools.values_mut() {
        pool.min_idle = 0;
    }
    world.fleet = Arc::new(fleet);
    plan(&world)
}

fn says_nothing(world: &Snapshot) -> Plan {
    let mut plan = plan(world);
    plan.waits.retain(|wait| {
        wait.reasons.iter().all(|r| matches!(r, Reason::RunnerStarting(_) | Reason::RunnerIdle(_)))
    });
    plan
}

fn ignores_providers(world: &Snapshot) -> Plan {
    plan(&declared(world, |fleet| {
        for provider in fleet.providers.values_mut() {
            provider.max = None;
        }
    }))
}

fn counts_on_nobody(world: &Snapshot) -> Plan {
    let coming = |row: &&Runner| row.state == RunnerState::Starting;
    let away = world.runners().filter(coming).map(|row| {
        let mut row = row.clone();
        row.enter(RunnerState::Draining, Some(Outcome::Surplus), world.now);
        runner(row)
    });
    plan(&bent(world, away))
}

fn backs_off_forever(world: &Snapshot) -> Plan {
    let longer = world.backoffs().map(|(key, backoff)| {
        let until = world.now + Duration::from_hours(1);
        Change::Backoff(key.clone(), Some(Backoff { until, ..backoff.clone() }))
    });
    plan(&bent(world, longer))
}
