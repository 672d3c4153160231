//! What people are told: one sentence for each step a job, a runner or an instance takes.

use std::fmt::Write;

use crate::batch::Event;
use crate::job::{Job, JobState};
use crate::runner::{Runner, RunnerState};
use crate::snapshot::{Change, Snapshot};

/// What a change means to people, if anything; `world` is from before it.
pub(crate) fn tell(world: &Snapshot, change: &Change) -> Option<Event> {
    match change {
        Change::Job(new) => job(world, world.job(&new.key), new),
        Change::Runner(new) => runner(world, world.runner(new.id), new),
        Change::Backoff(key, Some(backoff)) => {
            let old = world.backoffs.get(key);
            let text = format!("{key} backs off: {}", backoff.because);
            (old.map(|old| old.failures) != Some(backoff.failures)).then(|| event(world, text))
        }
        Change::Backoff(key, None) => {
            world.backoffs.contains_key(key).then(|| event(world, format!("{key} works again")))
        }
        Change::Drain(key, Some(drain)) => {
            let text = format!("{key} is drained by {}: {}", drain.who, drain.why);
            (world.drains.get(key) != Some(drain)).then(|| event(world, text))
        }
        Change::Drain(key, None) => {
            world.drains.contains_key(key).then(|| event(world, format!("{key} is in use again")))
        }
        Change::Recovering(Some(doubt)) => {
            let text = format!("these books may not be the newest: {}", doubt.because);
            world.recovering.is_none().then(|| event(world, text))
        }
        Change::Recovering(None) => {
            let text = "these books are taken for the newest".into();
            world.recovering.is_some().then(|| event(world, text))
        }
        Change::Stray(key, Some(stray)) if !world.strays.contains_key(key) => {
            let text =
                format!("registration {} in {} has no runner of ours", stray.name, key.scope);
            Some(event(world, text))
        }
        Change::Orphan(provider, id, Some(_))
            if !world.orphans.contains_key(&(provider.clone(), *id)) =>
        {
            Some(event(
                world,
                format!("instance {id} of provider {provider} has no runner of ours"),
            ))
        }
        Change::Instance(_)
        | Change::Tenant(_)
        | Change::Stray(..)
        | Change::Orphan(..)
        | Change::Next { .. }
        | Change::ForgetJob(_)
        | Change::ForgetRunner(_)
        | Change::Capacity(..)
        | Change::Looked(..)
        | Change::Note(_) => None,
    }
}

fn event(world: &Snapshot, text: String) -> Event {
    Event { at: world.now, job: None, runner: None, pool: None, text: text.into() }
}

fn job(world: &Snapshot, old: Option<&Job>, new: &Job) -> Option<Event> {
    let attempt = &new.attempt;
    let again = old.is_some_and(|old| old.attempt.number < attempt.number);
    let moved = old.is_none_or(|old| old.attempt.state != attempt.state);
    if !moved && !again {
        return None;
    }
    let mut text = format!("job {} ", new.key);
    match attempt.state {
        JobState::Waiting => text.push_str("is held back by the forge"),
        JobState::Queued if again => {
            let _ = write!(text, "was put back by the forge, attempt {}", attempt.number);
        }
        JobState::Queued => {
            let _ = write!(text, "of {} asks for {}", new.repository, new.wanted);
        }
        JobState::InProgress => text.push_str("runs"),
        JobState::Completed => {
            let conclusion = attempt.conclusion.map_or("unknown", |ended| ended.as_str());
            let _ = write!(text, "is over: {conclusion}");
        }
    }
    if let Some(runner) = &attempt.runner {
        let _ = write!(text, ", runner {}", runner.name);
    }
    Some(Event { job: Some(new.key.clone()), ..event(world, text) })
}

fn runner(world: &Snapshot, old: Option<&Runner>, new: &Runner) -> Option<Event> {
    if old.is_some_and(|old| old.state == new.state) {
        return None;
    }
    let mut text = format!("runner {} ", new.name);
    match new.state {
        RunnerState::Pending => {
            let _ = write!(text, "of pool {} is wanted in {}", new.pool, new.scope);
        }
        RunnerState::Starting => text.push_str("starts"),
        RunnerState::Idle => text.push_str("is online"),
        RunnerState::Draining => text.push_str("is to be removed"),
        RunnerState::Busy => text.push_str("has a job"),
        RunnerState::Stopping => text.push_str("is being removed"),
        RunnerState::Gone => text.push_str("is gone"),
    }
    if let Some(outcome) = new.outcome.filter(|_| new.state != RunnerState::Busy) {
        let _ = write!(text, " ({})", outcome.as_str());
    }
    let (runner, pool) = (Some(new.id), Some(new.pool.clone()));
    Some(Event { runner, pool, job: new.job.clone(), ..event(world, text) })
}
