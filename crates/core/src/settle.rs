//! What follows from the facts and from the passing of time, runner by runner: boots that took too
//! long, jobs that are over, instances that ended. No decision about demand is made here.

use std::borrow::Cow;
use std::time::Duration;

use crate::actions::unseen;
use crate::health::{failures_of, forgotten};
use crate::job::JobKey;
use crate::observation::Subject;
use crate::observe::doubted;
use crate::pool::Limits;
use crate::reason::DrainKey;
use crate::runner::{Instance, InstanceState, Outcome, Registration, Runner, RunnerState};
use crate::snapshot::{Change, Snapshot};
use crate::time::Timestamp;

/// How long a runner that is gone stays known, so that late facts about it are understood.
const GONE_KEPT: Duration = Duration::from_hours(1);
/// How long an ended job stays known: the time in which GitHub redelivers (3 days; 7 on
/// Enterprise Server), so that a redelivery cannot revive it.
const ENDED_KEPT: Duration = Duration::from_hours(7 * 24);
/// Most rows forgotten in one step.
const FORGET_MAX: usize = 200;

/// The rows that change without anything new having been seen. Apply them and ask again until there
/// are none; each runner passes through at most every state once, so that ends.
pub fn settle(world: &Snapshot) -> Vec<Change> {
    let mut changes = Vec::new();
    for old in world.active_runners() {
        let Some(instance) = world.instance(old.instance) else { continue };
        let (runner, new_instance) = step(world, old, instance);
        changes.extend(consequences(world, old, &runner, &new_instance));
        if let Cow::Owned(instance) = new_instance {
            changes.push(Change::Instance(Box::new(instance)));
        }
        if let Cow::Owned(runner) = runner {
            changes.push(Change::Runner(Box::new(runner)));
        }
    }
    changes.extend(forgotten(world));
    let doubt = world.recovering.as_ref();
    changes.extend(
        doubt.filter(|d| unseen(world, d.since).is_empty()).map(|_| Change::Recovering(None)),
    );
    let end = world.now - GONE_KEPT;
    let gone = world.gone.iter().take_while(|(at, _)| *at <= end).take(FORGET_MAX);
    changes.extend(gone.map(|(_, id)| Change::ForgetRunner(*id)));
    let end = world.now - ENDED_KEPT;
    let old = world.ended.iter().take_while(|(at, _)| *at < end).take(FORGET_MAX);
    changes.extend(old.map(|(_, key)| Change::ForgetJob(key.clone())));
    changes
}

/// Moves a runner as far right as what is known allows. What does not change is not copied: most
/// runners, most of the time.
fn step<'a>(
    world: &Snapshot,
    runner: &'a Runner,
    instance: &'a Instance,
) -> (Cow<'a, Runner>, Cow<'a, Instance>) {
    let (mut runner, mut instance) = (Cow::Borrowed(runner), Cow::Borrowed(instance));
    let declared = world.fleet.pools.get(&runner.pool);
    let limits = declared.map_or_else(Limits::default, |pool| pool.limits);
    let now = world.now;
    let drained = !world.drains.is_empty()
        && DrainKey::of(&runner, &instance).any(|key| world.drains.contains_key(&key));
    loop {
        let before = runner.state;
        match before {
            RunnerState::Pending => pending(world, &mut runner, &instance),
            RunnerState::Starting | RunnerState::Idle => {
                waiting(&mut runner, &instance, &limits, now);
            }
            RunnerState::Draining => draining(&mut runner, &instance, now),
            RunnerState::Busy => busy(world, &mut runner, &instance, &limits),
            RunnerState::Stopping => stopping(&mut runner, &mut instance, now),
            RunnerState::Gone => {}
        }
        if declared.is_none() && runner.state.is_supply() {
            runner.to_mut().enter(RunnerState::Draining, Some(Outcome::Surplus), now);
        }
        if drained && runner.state.is_supply() && runner.hold.is_none() {
            runner.to_mut().enter(RunnerState::Draining, Some(Outcome::Ordered), now);
        }
        if runner.state == before {
            return (runner, instance);
        }
    }
}

fn pending(world: &Snapshot, runner: &mut Cow<'_, Runner>, instance: &Instance) {
    let now = world.now;
    match instance.state {
        InstanceState::Launching if is_missing(world, instance) => {
            runner.to_mut().enter(RunnerState::Draining, Some(Outcome::LaunchLost), now);
        }
        InstanceState::Planned | InstanceState::Launching => {}
        InstanceState::Live => runner.to_mut().enter(RunnerState::Starting, None, now),
        InstanceState::Exited => {
            runner.to_mut().enter(RunnerState::Draining, Some(Outcome::Died), now);
        }
        InstanceState::Gone => {
            runner.to_mut().enter(RunnerState::Draining, Some(Outcome::LaunchLost), now);
        }
    }
}

/// True if two listings, far enough apart, have lacked what a launch without an answer may have made.
fn is_missing(world: &Snapshot, instance: &Instance) -> bool {
    let patience = world.fleet.providers.get(&instance.provider).map(|p| p.absent);
    let listed = world.looked(&Subject::Instances(instance.provider.clone())).asked_at;
    let missed = instance.missing_since.zip(patience);
    missed.is_some_and(|(since, patience)| listed >= Some(since + patience))
}

fn waiting(runner: &mut Cow<'_, Runner>, instance: &Instance, limits: &Limits, now: Timestamp) {
    let past = |state, limit| runner.since.at(state).is_some_and(|at| now.since(at) >= limit);
    let ended = instance.state >= InstanceState::Exited;
    let never_online =
        runner.state == RunnerState::Starting && past(RunnerState::Starting, limits.boot);
    let outcome = if ended {
        Outcome::Died
    } else if never_online {
        Outcome::NeverOnline
    } else if past(RunnerState::Pending, limits.lifetime) {
        Outcome::Lifetime
    } else {
        return;
    };
    runner.to_mut().enter(RunnerState::Draining, Some(outcome), now);
}

fn draining(runner: &mut Cow<'_, Runner>, instance: &Instance, now: Timestamp) {
    // Without a launch call there is neither a registration nor an instance. With one, only the
    // forge's word that the registration is gone proves that no job can be on it.
    let never_called = instance.launch.is_none();
    if never_called || runner.registration == Registration::Removed {
        runner.to_mut().enter(RunnerState::Stopping, Some(Outcome::Surplus), now);
    }
}

fn busy(world: &Snapshot, runner: &mut Cow<'_, Runner>, instance: &Instance, limits: &Limits) {
    let now = world.now;
    if runner.hold.is_some() {
        return;
    }
    let exited = instance.exit.is_some();
    // Where its job was put back, as far as we were told, only the forge's removal proves it idle.
    let removed = runner.registration == Registration::Removed;
    let over = exited || removed || runner.outcome != Some(Outcome::Lost);
    let outcome = if instance.state == InstanceState::Gone {
        Outcome::Lost
    } else if let Some(ended) = runner.job_ended_at.filter(|_| over) {
        // The runner still reports and cleans up after its job's end; let it leave by itself.
        if !exited && now.since(ended) < limits.finish {
            return;
        }
        Outcome::Finished
    } else if let Some(exit) = instance.exit {
        // The forge's word on the job is usually a moment behind the runner's exit.
        if now.since(exit.at) < limits.finish {
            return;
        }
        Outcome::Lost
    } else {
        // What is at work on a job that nobody told of may have begun it just now.
        let Some(since) = at_work_since(world, runner) else { return };
        if limits.job.is_none_or(|limit| now.since(since) < limit) {
            return;
        }
        Outcome::TimedOut
    };
    runner.to_mut().enter(RunnerState::Stopping, Some(outcome), now);
}

/// Since when a runner has been at work on its job. It may have been taken for busy before it got one.
fn at_work_since(world: &Snapshot, runner: &Runner) -> Option<Timestamp> {
    let job = runner.job.as_ref()?;
    let began = world.job(job).and_then(|job| job.attempt.started_at);
    runner.since.at(RunnerState::Busy).max(began)
}

fn stopping(runner: &mut Cow<'_, Runner>, instance: &mut Cow<'_, Instance>, now: Timestamp) {
    if instance.state == InstanceState::Planned {
        instance.to_mut().enter(InstanceState::Gone, now);
    }
    if instance.state == InstanceState::Gone {
        runner.to_mut().enter(RunnerState::Gone, None, now);
    }
}

/// What a runner's move means for its pool and its job.
fn consequences(world: &Snapshot, old: &Runner, new: &Runner, instance: &Instance) -> Vec<Change> {
    let mut changes = Vec::new();
    if old.outcome.is_none() && new.outcome.is_some() {
        changes.extend(failures_of(world, new, instance));
    }
    let stops = old.state < RunnerState::Stopping && new.state >= RunnerState::Stopping;
    if stops && new.job_ended_at.is_none() {
        let open = |key: &JobKey| world.job(key).filter(|job| job.is_open());
        changes.extend(new.job.as_ref().and_then(open).map(|job| doubted(world, job)));
    }
    changes
}
