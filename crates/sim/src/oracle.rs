//! Oracles: what must hold in the virtual world's reality, not only in our books.

use std::collections::BTreeMap;

use remuda_core::job::{JobKey, JobState};
use remuda_core::runner::{InstanceState, Outcome, RunnerState};
use remuda_core::snapshot::Change;
use remuda_core::{Snapshot, check};

use crate::truth::Truth;

/// A broken rule, as a sentence.
pub(crate) type Verdict = Result<(), String>;

/// After every turn: our books are in order.
pub(crate) fn books(books: &Snapshot) -> Verdict {
    match check(books).first() {
        Some(violation) => Err(format!("the books are wrong: {violation}")),
        None => Ok(()),
    }
}

/// After every turn: limits hold in reality.
pub(crate) fn limits(truth: &Truth, books: &Snapshot) -> Verdict {
    let mut in_pool: BTreeMap<&str, u32> = BTreeMap::new();
    let mut of_owner: BTreeMap<&str, u32> = BTreeMap::new();
    for instance in truth.instances.values() {
        *in_pool.entry(instance.pool.as_str()).or_default() += 1;
        *of_owner.entry(instance.scope.owner().as_str()).or_default() += 1;
    }
    for pool in books.fleet.pools.values() {
        let count = in_pool.get(pool.name.as_str()).copied().unwrap_or(0);
        if count > pool.max {
            return Err(format!("pool {} really has {count} of {}", pool.name, pool.max));
        }
    }
    for (owner, count) in of_owner {
        if count > books.fleet.tenants.default.cap {
            return Err(format!("owner {owner} really has {count} runners"));
        }
    }
    if let Some((runner, times)) = truth.registered.iter().find(|(_, times)| **times > 1) {
        return Err(format!("runner {runner} was registered {times} times"));
    }
    Ok(())
}

/// Of each row that changes: no state moves left, an ended attempt stays ended, and nothing that
/// listens is taken for dead.
pub(crate) fn chain(truth: &Truth, books: &Snapshot, change: &Change) -> Verdict {
    match change {
        Change::Runner(new) => {
            let known = books.runner(new.id);
            let dies = new.state == RunnerState::Draining && new.outcome == Some(Outcome::Died);
            if dies && known.is_none_or(|old| old.outcome.is_none()) && truth.listens(new) {
                return Err(format!("runner {} was taken for dead while it listens", new.id));
            }
            let old = books.runner(new.id).map_or(RunnerState::Pending, |runner| runner.state);
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
        | Change::Limited(..)
        | Change::Note(_) => {}
    }
    Ok(())
}

/// At the end, after a time without hardship: every job has ended, in truth and in our books, and
/// nothing of ours is left.
pub(crate) fn at_rest(truth: &Truth, books: &Snapshot, min_idle: usize) -> Verdict {
    for (id, job) in &truth.jobs {
        if job.state < JobState::Completed {
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
    if truth.runners.len() > min_idle {
        let left: Vec<_> = truth.runners.values().map(|runner| runner.name.to_string()).collect();
        return Err(format!("registrations {left:?} are left"));
    }
    let left = books.runners().filter(|r| r.state < RunnerState::Gone).count();
    if left > min_idle {
        return Err(format!("{left} runners are left in our books"));
    }
    Ok(())
}
