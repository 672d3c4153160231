//! Oracles: what must hold in the virtual world's reality, not only in our books.

use remuda_core::controller::{Controller, Rules};
use remuda_core::job::{Job, JobKey, JobState};
use remuda_core::reason::BackoffKey;
use remuda_core::runner::{InstanceState, Outcome, Runner, RunnerState};
use remuda_core::snapshot::Change;
use remuda_core::{Snapshot, check};

use crate::estate::{MIN_IDLE, owners};
use crate::truth::{TrueInstance, Truth};

/// A broken rule, as a sentence.
pub(crate) type Verdict = Result<(), String>;

/// After every turn: our books are in order.
pub(crate) fn books(books: &Snapshot) -> Verdict {
    match check(books).first() {
        Some(violation) => Err(format!("the books are wrong: {violation}")),
        None => Ok(()),
    }
}

/// Whenever an instance appears: limits hold in reality. What lands after its deadline, when nobody may
/// count on it or wait for it any longer, is not counted: that it goes in time is another oracle's.
pub(crate) fn limits(truth: &Truth, books: &Snapshot) -> Verdict {
    let fleet = &books.fleet;
    let count = |of: &dyn Fn(&TrueInstance) -> bool| {
        let in_time = truth.instances.values().filter(|instance| !instance.late);
        u32::try_from(in_time.filter(|instance| of(instance)).count()).unwrap_or(u32::MAX)
    };
    for pool in fleet.pools.values() {
        let count = count(&|instance| instance.pool == pool.name);
        if count > pool.max {
            return Err(format!("pool {} really has {count} of {}", pool.name, pool.max));
        }
    }
    for (_, scope, _) in owners() {
        let count = count(&|instance| instance.scope.owner() == scope.owner());
        if count > fleet.tenants.terms_of(&truth.forge, scope.owner()).cap {
            return Err(format!("owner {} really has {count} runners", scope.owner()));
        }
    }
    for provider in fleet.providers.values() {
        let count = count(&|instance| instance.provider == provider.name);
        if provider.max.is_some_and(|max| count > max) {
            return Err(format!("provider {} really has {count} instances", provider.name));
        }
    }
    if let Some((runner, times)) = truth.registered.iter().find(|(_, times)| **times > 1) {
        return Err(format!("runner {runner} was registered {times} times"));
    }
    Ok(())
}

/// No runner is made while one that could serve is on its way to nobody: in each scope, a pool for which
/// a plan makes a runner has no more of them coming than jobs that fit it, and those it keeps idle. The
/// books are from before the changes, the world is from after them.
pub(crate) fn no_duplicates(books: &Snapshot, world: &Snapshot, changes: &[Change]) -> Verdict {
    for change in changes {
        let Change::Runner(new) = change else { continue };
        if books.runner(new.id).is_some() || new.state != RunnerState::Pending {
            continue;
        }
        let Some(pool) = world.fleet.pools.get(&new.pool) else { continue };
        let comes = |runner: &&Runner| {
            runner.pool == new.pool
                && runner.scope == new.scope
                && runner.state.is_supply()
                && !is_held_back(world, runner)
        };
        let coming = world.active_runners().filter(comes).count();
        let fits = |job: &&Job| {
            job.is_demand() && job.scope == new.scope && job.wanted.satisfied_by(&pool.labels)
        };
        let asked = world.open_jobs().filter(fits).count();
        let kept = if pool.scopes.contains(&new.scope) { pool.min_idle } else { 0 };
        if coming > asked + usize::try_from(kept).unwrap_or(0) {
            return Err(format!(
                "runner {} was made as one of {coming} of pool {} for {asked} jobs",
                new.id, pool.name
            ));
        }
    }
    Ok(())
}

/// True if nobody counts on a runner because its launch waits for failures to pass.
fn is_held_back(world: &Snapshot, runner: &Runner) -> bool {
    let Some(instance) = world.instance(runner.instance) else { return false };
    let keys = BackoffKey::of(runner, instance, world.fleet.pools.get(&runner.pool));
    instance.launch.is_none()
        && world.backoffs().any(|(key, backoff)| backoff.until > world.now && keys.contains(key))
}

/// Every job that asks for a runner is told why it has none.
pub(crate) fn explained<R: Rules>(controller: &Controller<R>) -> Verdict {
    let silent = controller
        .world()
        .open_jobs()
        .filter(|job| job.attempt.state <= JobState::Queued)
        .find(|job| controller.reasons(&job.key).is_none_or(|(_, why)| why.is_empty()));
    match silent {
        Some(job) => Err(format!("job {} waits and nobody says why", job.key)),
        None => Ok(()),
    }
}

/// The runner that a change takes for dead although it really waits for a job.
pub(crate) fn forsaken<'a>(
    truth: &Truth,
    books: &Snapshot,
    change: &'a Change,
) -> Option<&'a Runner> {
    let Change::Runner(new) = change else { return None };
    let known = books.runner(new.id);
    let dies = new.state == RunnerState::Draining && new.outcome == Some(Outcome::Died);
    (dies && known.is_none_or(|old| old.outcome.is_none()) && truth.listens(new)).then_some(new)
}

/// True if no fact told a runner that listens from one whose registration was used up (actions/runner
/// #4617): listings in a row left it out for as long as they may lag, and each may have been right. None
/// may if it also left out a runner that our books held to be at work when it was asked, and which is.
///
/// Such a runner may be sent away. That costs a boot and no job: its registration is removed first, which
/// the forge refuses where it has handed it one. Not to send it away would let one that is really deaf
/// starve the job it was made for, until its life ends.
pub(crate) fn looks_deaf(truth: &Truth, books: &Snapshot, runner: &Runner) -> bool {
    let Some((first, last)) = truth.left_out(runner.instance) else { return false };
    let proves = |other: &&Runner| {
        let left_out = truth.left_out(other.instance).is_some_and(|(_, last)| {
            let later = [RunnerState::Starting, RunnerState::Idle, RunnerState::Busy];
            later.iter().any(|state| other.since.at(*state).is_some_and(|at| at <= last))
        });
        other.scope == runner.scope
            && other.job.is_some()
            && other.job_ended_at.is_none()
            && truth.job_on(other.instance).is_some()
            && left_out
    };
    last >= first + books.fleet.grace.registration
        && !books.runners_in(RunnerState::Busy).any(|other| proves(&other))
}

/// Of each row that changes: no state moves left, and an ended attempt stays ended.
pub(crate) fn chain(books: &Snapshot, change: &Change) -> Verdict {
    match change {
        Change::Runner(new) => {
            let known = books.runner(new.id);
            let had = known.and_then(|old| old.job.as_ref());
            if had.is_some() && new.job.as_ref() != had {
                return Err(format!("runner {} served one job and then another", new.id));
            }
            let old = known.map_or(RunnerState::Pending, |runner| runner.state);
            if new.state < old {
                return Err(format!("runner {} moved from {old:?} to {:?}", new.id, new.state));
            }
        }
        Change::Instance(new) => {
            let old = books.instance(new.id).map_or(InstanceState::Planned, |i| i.state);
            if new.state < old {
                return Err(format!("instance {} moved from {old:?} to {:?}", new.id, new.state));
            }
        }
        Change::Job(new) => {
            if let Some(old) = books.job(&new.key) {
                let (was, is) = (&old.attempt, &new.attempt);
                if (is.number, is.state) < (was.number, was.state) {
                    return Err(format!("job {} moved left within an attempt", new.key));
                }
                if was.state == JobState::Completed && is.state < JobState::Completed {
                    let truth_may_differ = is.number == was.number + 1;
                    if !truth_may_differ {
                        return Err(format!("job {} was revived", new.key));
                    }
                }
            }
        }
        Change::Tenant(_)
        | Change::Backoff(..)
        | Change::Drain(..)
        | Change::Recovering(_)
        | Change::Stray(..)
        | Change::Orphan(..)
        | Change::Next { .. }
        | Change::ForgetJob(_)
        | Change::ForgetRunner(_)
        | Change::Capacity(..)
        | Change::Looked(..)
        | Change::Note(_) => {}
    }
    Ok(())
}

/// At the end, after a time without hardship: every job has ended, in truth and in our books, and
/// nothing of ours is left.
pub(crate) fn at_rest(truth: &Truth, books: &Snapshot) -> Verdict {
    let min_idle = usize::try_from(MIN_IDLE).unwrap_or(0);
    for (id, job) in &truth.jobs {
        if job.state < JobState::Completed && !job.vanished {
            return Err(format!("job {id} never ended: {:?}", job.state));
        }
        let known = books.job(&JobKey::rest(&truth.forge, *id));
        if let Some(known) = known.filter(|known| known.is_open()) {
            return Err(format!("job {id} ended and our books say {:?}", known.attempt.state));
        }
        let lives = 1 + job.put_back + job.told_stale;
        if let Some(known) = known.filter(|known| known.attempt.number > lives) {
            let attempts = known.attempt.number;
            return Err(format!("job {id} lived {lives} times and we count {attempts} attempts"));
        }
    }
    let idle = truth.runners.values().filter(|r| r.online && r.job.is_none()).count();
    if idle < min_idle {
        return Err(format!("{idle} runners are idle and {min_idle} should be kept"));
    }
    if truth.instances.len() > min_idle {
        let left: Vec<_> = truth.instances.keys().map(|id| id.0).collect();
        return Err(format!("instances {left:?} are left"));
    }
    let ours = || truth.runners.values().filter(|runner| !runner.foreign);
    if ours().count() > min_idle {
        let left: Vec<_> = ours().map(|runner| runner.name.to_string()).collect();
        return Err(format!("registrations {left:?} are left"));
    }
    let left = books.active_runners().count();
    if left > min_idle {
        return Err(format!("{left} runners are left in our books"));
    }
    Ok(())
}
