//! Facts that are answers to our own calls.

use std::sync::Arc;

use crate::health::{Failure, failed_again};
use crate::hook::{self, HookKey};
use crate::name::{ForgeName, NodeName};
use crate::observation::{Call, Cause, Subject};
use crate::reason::BackoffKey;
use crate::runner::{
    Instance, InstanceId, InstanceState, Outcome, Registration, RunnerId, RunnerState,
};
use crate::snapshot::{Backoff, Change, Looked, Proof, Snapshot, Stray};
use crate::tenant::Scope;
use crate::time::Timestamp;

/// The forge's half of a launch succeeded.
pub(super) fn registered(world: &Snapshot, id: RunnerId, registration: u64) -> Vec<Change> {
    let Some(runner) = world.runner(id) else { return Vec::new() };
    let mut changes = Vec::new();
    let scope = BackoffKey::Scope(runner.forge.clone(), runner.scope.clone());
    // A limit of the forge's holds for its time, whatever was under way when it was stated.
    if world.backoffs.get(&scope).is_some_and(|backoff| !backoff.full || backoff.until <= world.now)
    {
        changes.push(Change::Backoff(scope, None));
    }
    if runner.registration == Registration::Unknown {
        let mut runner = runner.clone();
        runner.registration = Registration::Made(registration);
        changes.push(Change::Runner(Box::new(runner)));
    }
    changes
}

/// The provider's half of a launch succeeded.
pub(super) fn launched(world: &Snapshot, id: InstanceId, node: Option<&NodeName>) -> Vec<Change> {
    let Some(row) = world.instance(id) else { return Vec::new() };
    let mut changes = Vec::new();
    let provider = BackoffKey::Provider(row.provider.clone());
    if world.backoffs.contains_key(&provider) {
        changes.push(Change::Backoff(provider, None));
    }
    let mut row = row.clone();
    row.enter(InstanceState::Live, world.now);
    row.node = node.cloned().or(row.node);
    row.launch = Some(super::supply::answered(world, row.launch));
    changes.extend(living(row));
    changes
}

/// The forge confirmed that a registration is gone: nothing can be on the runner any more.
pub(super) fn deregistered(world: &Snapshot, subject: &Subject) -> Vec<Change> {
    let mut changes = vec![Change::Looked(subject.clone(), Looked::default())];
    match subject {
        Subject::Stray(key) => changes.push(Change::Stray(key.clone(), None)),
        Subject::Runner(id) => changes.extend(world.runner(*id).cloned().map(|mut runner| {
            runner.registration = Registration::Removed;
            if runner.state == RunnerState::Draining || runner.is_unexplained() {
                runner.enter(RunnerState::Stopping, Some(Outcome::Finished), world.now);
            }
            Change::Runner(Box::new(runner))
        })),
        Subject::Instance(_)
        | Subject::Job(_)
        | Subject::Jobs(..)
        | Subject::Runners(..)
        | Subject::Instances(_)
        | Subject::Deliveries(..)
        | Subject::Redelivery(..) => {}
    }
    changes
}

/// The forge refused: the runner has a job.
pub(super) fn refused_as_busy(world: &Snapshot, subject: &Subject) -> Vec<Change> {
    let tried = Looked { asked_at: Some(world.now), ..Looked::default() };
    let mut changes = vec![Change::Looked(subject.clone(), tried)];
    match subject {
        Subject::Stray(key) => changes.extend(world.strays.get(key).map(|stray| {
            let stray = Stray { tried_at: Some(world.now), ..stray.clone() };
            Change::Stray(key.clone(), Some(stray))
        })),
        Subject::Runner(id) => changes.extend(
            world.runner(*id).filter(|runner| runner.state == RunnerState::Draining).map(
                |runner| {
                    let mut runner = runner.clone();
                    runner.enter(RunnerState::Busy, None, world.now);
                    Change::Runner(Box::new(runner))
                },
            ),
        ),
        Subject::Instance(_)
        | Subject::Job(_)
        | Subject::Jobs(..)
        | Subject::Runners(..)
        | Subject::Instances(_)
        | Subject::Deliveries(..)
        | Subject::Redelivery(..) => {}
    }
    changes
}

/// The provider confirmed a destruction; a listing must still agree.
pub(super) fn destroyed(world: &Snapshot, id: InstanceId) -> Vec<Change> {
    let mut changes = vec![Change::Looked(Subject::Instance(id), Looked::default())];
    if let Some(row) = world.instance(id) {
        changes.extend(living(Instance { destroyed_at: Some(world.now), ..row.clone() }));
    }
    changes
}

/// An instance's row unless it is gone: then nothing is left to say of it, and it may be forgotten in the
/// same batch, which, written twice, would bring it back.
fn living(row: Instance) -> Option<Change> {
    (row.state < InstanceState::Gone).then(|| Change::Instance(Box::new(row)))
}

/// A call failed. When to try again is decided from what is noted here.
pub(super) fn failed(
    world: &Snapshot,
    subject: &Subject,
    call: Call,
    cause: Cause,
    message: &Arc<str>,
) -> Vec<Change> {
    match (call, subject) {
        (Call::Register | Call::Launch, Subject::Instance(id)) => {
            launch_failed(world, *id, call, cause, message)
        }
        (
            Call::Register
            | Call::Launch
            | Call::Deregister
            | Call::Destroy
            | Call::Look
            | Call::Redeliver,
            _,
        ) => call_failed(world, subject, cause),
    }
}

fn call_failed(world: &Snapshot, subject: &Subject, cause: Cause) -> Vec<Change> {
    let old = world.looked(subject);
    let failures = old.failures.saturating_add(1);
    let looked = Looked { failed_at: Some(world.now), failures, ..old };
    let mut changes = vec![Change::Looked(subject.clone(), looked)];
    changes.extend(hook::refused(world, subject, cause));
    if let Cause::Limited { until } = cause {
        changes.extend(place_of(world, subject).map(|place| limited(world, place, until)));
    }
    changes
}

/// A forge counts calls by installation, so a limit holds for the owner whose call met it and for
/// nobody else.
fn limited(world: &Snapshot, (forge, scope): (ForgeName, Scope), until: Timestamp) -> Change {
    let key = BackoffKey::Scope(forge, scope);
    let old = world.backoffs.get(&key);
    let failures = old.map_or(0, |backoff| backoff.failures);
    let since = old.map_or(world.now, |backoff| backoff.since);
    let until = old.map_or(until, |backoff| backoff.until.max(until));
    let backoff = Backoff {
        failures,
        since,
        failed_at: world.now,
        until,
        because: "the forge limits the rate of calls".into(),
        earlier: Vec::new(),
        proof: Proof::Job,
        full: true,
    };
    Change::Backoff(key, Some(backoff))
}

fn place_of(world: &Snapshot, subject: &Subject) -> Option<(ForgeName, Scope)> {
    match subject {
        Subject::Runner(id) => world.runner(*id).map(|r| (r.forge.clone(), r.scope.clone())),
        Subject::Stray(stray) => Some((stray.forge.clone(), stray.scope.clone())),
        Subject::Job(key) => world.job(key).map(|job| (key.forge.clone(), job.scope.clone())),
        Subject::Jobs(forge, scope)
        | Subject::Runners(forge, scope)
        | Subject::Deliveries(forge, HookKey::Own { scope, .. })
        | Subject::Redelivery(forge, HookKey::Own { scope, .. }, _) => {
            Some((forge.clone(), scope.clone()))
        }
        Subject::Instance(_)
        | Subject::Instances(_)
        | Subject::Deliveries(_, HookKey::App(_))
        | Subject::Redelivery(_, HookKey::App(_), _) => None,
    }
}

fn launch_failed(
    world: &Snapshot,
    id: InstanceId,
    call: Call,
    cause: Cause,
    message: &Arc<str>,
) -> Vec<Change> {
    let Some(row) = world.instance(id) else { return Vec::new() };
    let Some(old) = row.runner().and_then(|id| world.runner(id)) else { return Vec::new() };
    let mut runner = old.clone();
    let mut row = row.clone();
    let registering = call == Call::Register;
    let seen = row.state > InstanceState::Launching;
    if !seen && (registering || cause != Cause::Unknown) {
        // Either the provider was never asked, or it said that it made nothing; unless a listing has
        // shown the instance since.
        row.enter(InstanceState::Gone, world.now);
        if runner.state.is_supply() {
            runner.enter(RunnerState::Draining, Some(Outcome::LaunchFailed), world.now);
        }
    }
    if registering && cause != Cause::Unknown {
        runner.registration = Registration::Removed;
    }
    let provider = BackoffKey::Provider(row.provider.clone());
    let pool = BackoffKey::Pool(runner.pool.clone());
    let scope = BackoffKey::Scope(runner.forge.clone(), runner.scope.clone());
    let begun_at = row.launch.map(|launch| launch.at).filter(|_| cause == Cause::Invalid);
    let full = cause == Cause::Full;
    let proof = Proof::Job;
    let failure = Failure { because: message, full, certain: false, begun_at, proof };
    let consequence = match cause {
        Cause::Limited { until } => {
            limited(world, (runner.forge.clone(), runner.scope.clone()), until)
        }
        Cause::Transient | Cause::Unknown | Cause::Invalid if registering => {
            failed_again(world, scope, &failure)
        }
        Cause::Full | Cause::Transient | Cause::Unknown => failed_again(world, provider, &failure),
        Cause::Invalid => failed_again(world, pool, &failure),
    };
    vec![Change::Instance(Box::new(row)), Change::Runner(Box::new(runner)), consequence]
}
