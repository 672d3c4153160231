//! Facts about registrations and instances, from listings.
//!
//! A listing speaks only about the time at which it was asked. What it shows is believed at once; what
//! it lacks is believed only where nothing else explains the lack.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::name::{ForgeName, ProviderName};
use crate::observation::{Condition, InstanceSeen, RunnerSeen, StrayRegistration, Subject};
use crate::reason::BackoffKey;
use crate::runner::{
    Exit, Instance, InstanceId, InstanceState, LaunchCall, Outcome, Registration, Runner, RunnerId,
    RunnerState,
};
use crate::snapshot::{Change, Looked, Orphan, Snapshot, Stray};
use crate::tenant::Scope;
use crate::time::Timestamp;

/// A forge's listing may lag behind its own answers. A runner must have been idle this long before its
/// absence from a listing counts, and absent this long before its registration is taken for lost.
const REGISTRATION_LAG: Duration = Duration::from_mins(1);

fn looked(world: &Snapshot, subject: Subject, asked_at: Timestamp) -> Change {
    let asked_at = world.looked(&subject).asked_at.max(Some(asked_at));
    Change::Looked(subject, Looked { asked_at, ..Looked::default() })
}

/// True if a listing asked later was taken in before: then this one's lacks are old news.
fn overtaken(world: &Snapshot, subject: &Subject, asked_at: Timestamp) -> bool {
    world.looked(subject).asked_at.is_some_and(|latest| asked_at < latest)
}

/// The registrations of a scope were listed.
pub(super) fn runners(
    world: &Snapshot,
    forge: &ForgeName,
    scope: &Scope,
    asked_at: Timestamp,
    all: &[RunnerSeen],
) -> Vec<Change> {
    let subject = Subject::Runners(forge.clone(), scope.clone());
    let overtaken = overtaken(world, &subject, asked_at);
    let mut changes = vec![looked(world, subject, asked_at)];
    let prefix = Runner::name_prefix(&world.installation);
    let mut listed = BTreeMap::new();
    // A listing of several pages may show one registration twice: online once is online.
    for seen in all.iter().filter(|seen| seen.name.as_str().starts_with(&prefix)) {
        let first = listed.entry(seen.id).or_insert(seen);
        if seen.online {
            *first = seen;
        }
    }
    for seen in listed.values() {
        match world.runner_named(&seen.name).filter(|r| r.state < RunnerState::Gone) {
            Some(runner) => changes.extend(registered(world, runner, seen)),
            None => changes.push(stray(world, forge, scope, asked_at, seen)),
        }
    }
    for (key, stray) in &world.strays {
        let here = key.forge == *forge && key.scope == *scope;
        if here && !listed.contains_key(&key.id) && asked_at > stray.last_seen {
            changes.push(Change::Stray(key.clone(), None));
        }
    }
    for runner in world.runners_in(RunnerState::Idle) {
        let here = runner.forge == *forge && runner.scope == *scope;
        let connected = match runner.registration {
            Registration::Made(id) => listed.get(&id).is_some_and(|seen| seen.online),
            Registration::Unknown => true,
            Registration::Removed => false,
        };
        let since = runner.since.at(RunnerState::Idle).unwrap_or(world.now);
        if here && !overtaken && asked_at >= since + REGISTRATION_LAG {
            let change =
                if connected { found(world, runner) } else { lacking(world, runner, asked_at) };
            changes.extend(change);
        }
    }
    changes
}

/// An idle runner was listed as connected: what an earlier listing lacked was a surprise.
fn found(world: &Snapshot, runner: &Runner) -> Option<Change> {
    let subject = Subject::Runner(runner.id);
    world.looked.contains_key(&subject).then(|| Change::Looked(subject, Looked::default()))
}

/// An idle runner was not listed as connected. One such listing proves nothing; a second one makes it
/// ask the forge to remove it, because a runner whose registration was used up keeps listening for ever
/// (actions/runner #4617).
fn lacking(world: &Snapshot, runner: &Runner, asked_at: Timestamp) -> Option<Change> {
    let subject = Subject::Runner(runner.id);
    match world.looked(&subject).failed_at {
        None => {
            let looked = Looked { failed_at: Some(asked_at), failures: 1, ..Looked::default() };
            Some(Change::Looked(subject, looked))
        }
        Some(first) if asked_at >= first + REGISTRATION_LAG => {
            let mut runner = runner.clone();
            runner.enter(RunnerState::Draining, Some(Outcome::Died), world.now);
            Some(Change::Runner(Box::new(runner)))
        }
        Some(_) => None,
    }
}

fn registered(world: &Snapshot, old: &Runner, seen: &RunnerSeen) -> Vec<Change> {
    let mut runner = old.clone();
    if runner.registration == Registration::Unknown {
        runner.registration = Registration::Made(seen.id);
    }
    let mut changes = Vec::new();
    if seen.online && runner.state < RunnerState::Idle {
        runner.enter(RunnerState::Idle, None, world.now);
    }
    if runner != *old {
        changes.push(Change::Runner(Box::new(runner)));
    }
    changes
}

/// A runner of the pool got a job: the pool's failures are over. That it came online does not prove as
/// much: what ends right after would be made again and again without a growing wait.
pub(super) fn proven(world: &Snapshot, runner: &Runner) -> Option<Change> {
    let key = BackoffKey::Pool(runner.pool.clone());
    let waiting = runner.state < RunnerState::Busy && world.backoffs.contains_key(&key);
    waiting.then_some(Change::Backoff(key, None))
}

fn stray(
    world: &Snapshot,
    forge: &ForgeName,
    scope: &Scope,
    asked_at: Timestamp,
    seen: &RunnerSeen,
) -> Change {
    let key = StrayRegistration { forge: forge.clone(), scope: scope.clone(), id: seen.id };
    let stray = match world.strays.get(&key) {
        Some(old) => Stray { last_seen: old.last_seen.max(asked_at), ..old.clone() },
        None => Stray {
            name: seen.name.clone(),
            first_seen: asked_at,
            last_seen: asked_at,
            tried_at: None,
        },
    };
    Change::Stray(key, Some(stray))
}

/// What a provider has was listed.
pub(super) fn instances(
    world: &Snapshot,
    provider: &ProviderName,
    asked_at: Timestamp,
    all: &[InstanceSeen],
) -> Vec<Change> {
    let subject = Subject::Instances(provider.clone());
    let overtaken = overtaken(world, &subject, asked_at);
    let mut changes = vec![looked(world, subject, asked_at)];
    let mut listed = BTreeSet::new();
    let mut highest = InstanceId(0);
    for seen in all {
        if !listed.insert(seen.id) {
            continue;
        }
        highest = highest.max(seen.id);
        match world.instance(seen.id).filter(|row| row.state < InstanceState::Gone) {
            Some(row) => changes.extend(present(world, row, seen)),
            None => changes.push(orphan(world, provider, asked_at, seen)),
        }
    }
    for row in world.instances().filter(|row| row.provider == *provider) {
        if !overtaken && !listed.contains(&row.id) {
            changes.extend(absent(world, row, asked_at));
        }
    }
    for ((owner, id), orphan) in &world.orphans {
        if owner == provider && !listed.contains(id) && asked_at > orphan.last_seen {
            changes.push(Change::Orphan(owner.clone(), *id, None));
        }
    }
    if highest >= world.next_instance {
        // Our books are older than what they describe (a restored copy): never give a number twice.
        let next = highest.0.saturating_add(1);
        let (instance, runner) = (InstanceId(next), RunnerId(next));
        changes.push(Change::Next { runner: runner.max(world.next_runner), instance });
    }
    changes
}

fn present(world: &Snapshot, old: &Instance, seen: &InstanceSeen) -> Option<Change> {
    let mut row = old.clone();
    row.missing_since = None;
    row.node = seen.node.clone().or(row.node);
    row.launch = Some(answered(world, row.launch));
    match seen.condition {
        Condition::Running => row.enter(InstanceState::Live, world.now),
        Condition::Exited(code) => {
            row.enter(InstanceState::Exited, world.now);
            row.exit = row.exit.or(Some(Exit { at: world.now, code }));
        }
    }
    (row != *old).then(|| Change::Instance(Box::new(row)))
}

/// The launch call of an instance that exists. It was begun even if our books know nothing of it: they
/// may be a restored copy.
pub(super) fn answered(world: &Snapshot, launch: Option<LaunchCall>) -> LaunchCall {
    let launch =
        launch.unwrap_or(LaunchCall { at: world.now, deadline: world.now, answered_at: None });
    LaunchCall { answered_at: launch.answered_at.or(Some(world.now)), ..launch }
}

/// What a listing's lack of an instance says. A launch in flight may still land, a listing asked before
/// the answer says nothing, and a single surprise is not believed.
fn absent(world: &Snapshot, old: &Instance, asked_at: Timestamp) -> Option<Change> {
    let patience = world.fleet.providers.get(&old.provider).map_or(Duration::ZERO, |p| p.absent);
    let launch = old.launch?;
    let mut row = old.clone();
    match old.state {
        InstanceState::Planned | InstanceState::Gone => return None,
        InstanceState::Launching if asked_at <= launch.deadline => return None,
        InstanceState::Launching | InstanceState::Live | InstanceState::Exited => {
            if launch.answered_at.is_some_and(|at| asked_at <= at) {
                return None;
            }
            let since = old.missing_since.unwrap_or(asked_at);
            let destroyed = old.destroyed_at.is_some_and(|at| asked_at > at);
            if destroyed || asked_at >= since + patience && old.missing_since.is_some() {
                row.enter(InstanceState::Gone, world.now);
            }
            row.missing_since = Some(since);
        }
    }
    (row != *old).then(|| Change::Instance(Box::new(row)))
}

fn orphan(
    world: &Snapshot,
    provider: &ProviderName,
    asked_at: Timestamp,
    seen: &InstanceSeen,
) -> Change {
    let orphan = match world.orphans.get(&(provider.clone(), seen.id)) {
        Some(old) => Orphan { last_seen: old.last_seen.max(asked_at), ..old.clone() },
        None => Orphan { runner: seen.runner.clone(), first_seen: asked_at, last_seen: asked_at },
    };
    Change::Orphan(provider.clone(), seen.id, Some(orphan))
}
