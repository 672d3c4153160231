//! Folding one fact into the snapshot: pure, and order-free within an attempt of a job.
//!
//! A fact about the outside only ever moves a state right. What follows from it for other rows is
//! left to the plan.

mod answer;
mod job;
mod supply;

pub(crate) use job::doubted;

use crate::hook;
use crate::name::ForgeName;
use crate::observation::{Observation, Order, Subject};
use crate::runner::{Hold, Outcome, Runner, RunnerId, RunnerState};
use crate::snapshot::{Change, Drain, Looked, Note, Snapshot};
use crate::tenant::Scope;

/// The rows that change on account of one fact; `world.now` is the time of the fold.
pub fn observe(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    match seen {
        Observation::Job(seen) => job::seen(world, seen),
        Observation::JobMissing { key, asked_at } => job::missing(world, key, *asked_at),
        Observation::Jobs { forge, scope, asked_at, all, covered } => {
            job::listed(world, (forge, scope), *asked_at, all, covered)
        }
        Observation::Spent { forge, scope, calls } => spent(world, forge, scope, *calls),
        Observation::Runners { forge, scope, asked_at, all } => {
            supply::runners(world, forge, scope, *asked_at, all)
        }
        Observation::Instances { provider, asked_at, all } => {
            supply::instances(world, provider, *asked_at, all)
        }
        Observation::Capacity { provider, capacity } => {
            vec![Change::Capacity(provider.clone(), capacity.clone())]
        }
        Observation::Registered { runner, id } => answer::registered(world, *runner, *id),
        Observation::Launched { instance, node } => {
            answer::launched(world, *instance, node.as_ref())
        }
        Observation::Deregistered { subject } => answer::deregistered(world, subject),
        Observation::DeregisterBusy { subject } => answer::refused_as_busy(world, subject),
        Observation::Destroyed { instance, .. } => answer::destroyed(world, *instance),
        Observation::Failed { subject, call, cause, message } => {
            answer::failed(world, subject, *call, *cause, message)
        }
        Observation::Deliveries { forge, hook, asked_at, failed, next } => {
            hook::listed(world, (forge, hook), *asked_at, failed, next.as_ref())
        }
        Observation::Redelivered { forge, hook, guid } => {
            hook::redelivered(world, forge, hook, guid)
        }
        Observation::Budget { forge, credential, budget } => {
            vec![Change::Note(Note::Budget(forge.clone(), credential.clone(), *budget))]
        }
        Observation::Order(order) => ordered(world, order),
    }
}

/// Sweeps are paid for in time: what one cost, the next ones wait for.
fn spent(world: &Snapshot, forge: &ForgeName, scope: &Scope, calls: u32) -> Vec<Change> {
    let subject = Subject::Jobs(forge.clone(), scope.clone());
    let looked = Looked { cost: calls, ..world.looked(&subject) };
    let purse = world.purse_key(forge, scope.owner());
    let until = world.rests_until(&purse).max(world.now) + world.worth(forge, scope.owner(), calls);
    vec![Change::Looked(subject, looked), Change::Note(Note::Rest(purse, until))]
}

fn ordered(world: &Snapshot, order: &Order) -> Vec<Change> {
    match order {
        Order::Hold { runner, who, why } => to_runner(world, *runner, |runner| {
            runner.hold = Some(Hold { who: who.clone(), why: why.clone(), since: world.now });
        }),
        Order::Release { runner } => to_runner(world, *runner, |runner| runner.hold = None),
        Order::DrainRunner { runner } => to_runner(world, *runner, |runner| {
            if runner.state.is_supply() {
                runner.enter(RunnerState::Draining, Some(Outcome::Ordered), world.now);
            }
        }),
        Order::Drain { what, who, why } => {
            let since = world.drain(what).map_or(world.now, |drain| drain.since);
            let drain = Drain { who: who.clone(), why: why.clone(), since };
            vec![Change::Drain(what.clone(), Some(drain))]
        }
        Order::Resume { what } => vec![Change::Drain(what.clone(), None)],
        Order::Forgive { what } => vec![Change::Backoff(what.clone(), None)],
        Order::Confirm => vec![Change::Recovering(None)],
    }
}

fn to_runner(world: &Snapshot, id: RunnerId, order: impl FnOnce(&mut Runner)) -> Vec<Change> {
    let Some(old) = world.runner(id) else { return Vec::new() };
    let mut runner = old.clone();
    order(&mut runner);
    if runner == *old { Vec::new() } else { vec![Change::Runner(Box::new(runner))] }
}
