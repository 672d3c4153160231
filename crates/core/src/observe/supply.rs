//! Facts about registrations and instances, from listings.
//!
//! A listing speaks only about the time at which it was asked. What it shows is believed at once; what
//! it lacks is believed only where nothing else explains the lack.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::name::{ForgeName, ProviderName};
use crate::observation::{Condition, InstanceSeen, RunnerSeen, StrayRegistration, Subject};
use crate::runner::{
    Exit, Instance, InstanceId, InstanceState, LaunchCall, Outcome, Registration, Runner, RunnerId,
    RunnerState,
};
use crate::snapshot::{Change, Looked, Orphan, Recovering, Snapshot, Stray};
use crate::tenant::Scope;
use crate::time::Timestamp;

/// How far ahead of our books a runner's or an instance's number may be and still be believed.
const AHEAD_MAX: u64 = 1_000_000;

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
        let known = world.runner_named(&seen.name).filter(|r| r.state < RunnerState::Gone);
        match known.filter(|runner| is_of(world, runner, (forge, scope), seen)) {
            Some(runner) => changes.extend(registered(world, runner, seen, asked_at)),
            None => changes.push(stray(world, forge, scope, asked_at, seen)),
        }
    }
    changes.extend(younger_registration(world, &prefix, &listed));
    let is_false = LazyCell::new(|| lacks_one_at_work(world, (forge, scope), asked_at, &listed));
    for (key, stray) in &world.strays {
        let here = key.forge == *forge && key.scope == *scope;
        let lacks = here && !listed.contains_key(&key.id) && asked_at > stray.last_seen;
        if lacks && !*is_false {
            changes.push(Change::Stray(key.clone(), None));
        }
    }
    let lag = world.fleet.grace.registration;
    for runner in world.runners_in(RunnerState::Idle) {
        let here = runner.forge == *forge && runner.scope == *scope;
        let connected = match runner.registration {
            Registration::Made(id) => listed.get(&id).is_some_and(|seen| seen.online),
            Registration::Unknown => true,
            Registration::Removed => false,
        };
        let since = runner.since.at(RunnerState::Idle).unwrap_or(world.now);
        if !here || overtaken || asked_at < since + lag {
            continue;
        }
        if connected {
            changes.extend(found(world, runner));
        } else if !*is_false {
            changes.extend(lacking(world, runner, asked_at));
        }
    }
    changes
}

/// True if a listing lacks a runner that was registered when it was asked and is at work as far as we
/// were told: such a listing is false, and what else it lacks it may lack wrongly. If it is our books
/// that are behind, they are until the job's end is told, or its instance's.
fn lacks_one_at_work(
    world: &Snapshot,
    (forge, scope): (&ForgeName, &Scope),
    asked_at: Timestamp,
    listed: &BTreeMap<u64, &RunnerSeen>,
) -> bool {
    world.runners_in(RunnerState::Busy).any(|runner| {
        let here = runner.forge == *forge && runner.scope == *scope;
        let lacks =
            matches!(runner.registration, Registration::Made(id) if !listed.contains_key(&id));
        // A runner registers before its instance is made.
        let later = [RunnerState::Starting, RunnerState::Idle, RunnerState::Busy];
        let since = later.into_iter().filter_map(|state| runner.since.at(state)).min();
        let is_at_work = runner.job.is_some() && runner.job_ended_at.is_none();
        let runs = |row: &Instance| row.exit.is_none();
        here && lacks
            && is_at_work
            && since.is_some_and(|since| since <= asked_at)
            && world.instance(runner.instance).is_some_and(runs)
    })
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
    let lag = world.fleet.grace.registration;
    let subject = Subject::Runner(runner.id);
    match world.looked(&subject).failed_at {
        None => {
            let looked = Looked { failed_at: Some(asked_at), failures: 1, ..Looked::default() };
            Some(Change::Looked(subject, looked))
        }
        Some(first) if asked_at >= first + lag => {
            let mut runner = runner.clone();
            runner.enter(RunnerState::Draining, Some(Outcome::Died), world.now);
            Some(Change::Runner(Box::new(runner)))
        }
        Some(_) => None,
    }
}

/// True if a registration that bears a runner's name is the runner's. One in another place or under
/// another id is not, nor is one of a runner whose launch was never begun.
fn is_of(
    world: &Snapshot,
    runner: &Runner,
    (forge, scope): (&ForgeName, &Scope),
    seen: &RunnerSeen,
) -> bool {
    let made = match runner.registration {
        Registration::Made(id) => id == seen.id,
        Registration::Unknown => {
            world.instance(runner.instance).is_some_and(|instance| instance.launch.is_some())
        }
        // A listing that lags behind the removal.
        Registration::Removed => true,
    };
    made && runner.forge == *forge && runner.scope == *scope
}

fn registered(
    world: &Snapshot,
    old: &Runner,
    seen: &RunnerSeen,
    asked_at: Timestamp,
) -> Vec<Change> {
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
    // Who is online is not gone: what the provider's listing lacked, it lacked wrongly.
    let lacking = |row: &&Instance| {
        row.state == InstanceState::Live && row.missing_since.is_some_and(|since| asked_at > since)
    };
    if let Some(row) = world.instance(old.instance).filter(|_| seen.online).filter(lacking) {
        changes.push(Change::Instance(Box::new(Instance { missing_since: None, ..row.clone() })));
    }
    changes
}

/// A registration of ours with a number that these books have yet to give: they are older than what they
/// describe. Names are anybody's to give, so a number far ahead is not believed.
fn younger_registration(
    world: &Snapshot,
    prefix: &str,
    listed: &BTreeMap<u64, &RunnerSeen>,
) -> Vec<Change> {
    let number = |seen: &&RunnerSeen| {
        let (_, number) = seen.name.as_str().strip_prefix(prefix)?.rsplit_once('-')?;
        number.parse::<u64>().ok()
    };
    let given = world.next_runner.0;
    let ahead = given..given.saturating_add(AHEAD_MAX);
    let youngest = listed.values().filter_map(number).filter(|n| ahead.contains(n)).max();
    youngest.map_or(Vec::new(), |number| {
        let because = format!("a runner is numbered {number}, and the next would be {given}");
        let next = (RunnerId(number + 1), world.next_instance);
        outdated(world, because, next)
    })
}

/// Our books are older than what they describe (a restored copy): no number is given twice, and nothing
/// is removed for want of a row before all has been seen.
fn outdated(
    world: &Snapshot,
    because: String,
    (runner, instance): (RunnerId, InstanceId),
) -> Vec<Change> {
    let doubt = Recovering { since: world.now, because: because.into() };
    vec![Change::Recovering(Some(doubt)), Change::Next { runner, instance }]
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
    let mut named = BTreeSet::new();
    let mut highest = InstanceId(0);
    for seen in all {
        let name = seen.runner.as_ref();
        let carried = name.and_then(|name| world.runner_named(name));
        if carried.is_some_and(|runner| runner.instance == seen.id) {
            named.insert(seen.id);
        }
        if !listed.insert(seen.id) {
            continue;
        }
        if seen.id.0 < world.next_instance.0.saturating_add(AHEAD_MAX) {
            highest = highest.max(seen.id);
        }
        match world.instance(seen.id).filter(|row| row.state < InstanceState::Gone) {
            Some(row) => changes.extend(present(world, row, seen, overtaken)),
            None => changes.push(orphan(world, provider, asked_at, seen)),
        }
    }
    let blank = is_blank(world, provider, asked_at, &named);
    for row in world.existing_instances().filter(|row| row.provider == *provider) {
        if !overtaken && !listed.contains(&row.id) {
            changes.extend(absent(world, row, asked_at, blank));
        }
    }
    for ((owner, id), orphan) in &world.orphans {
        if owner == provider && !listed.contains(id) && asked_at > orphan.last_seen {
            changes.push(Change::Orphan(owner.clone(), *id, None));
        }
    }
    if highest >= world.next_instance {
        let next = highest.0.saturating_add(1);
        let because = format!(
            "provider {provider} has instance {highest}, and the next would be {}",
            world.next_instance
        );
        let next = (RunnerId(next).max(world.next_runner), InstanceId(next));
        changes.extend(outdated(world, because, next));
    }
    changes
}

fn present(
    world: &Snapshot,
    old: &Instance,
    seen: &InstanceSeen,
    overtaken: bool,
) -> Option<Change> {
    let mut row = old.clone();
    row.missing_since = None;
    row.node = seen.node.clone().or(row.node);
    row.launch = Some(answered(world, row.launch));
    match seen.condition {
        Condition::Running => {
            row.enter(InstanceState::Live, world.now);
            // Whoever took it for ended was wrong, and its job runs on.
            if !overtaken {
                row.exit = None;
            }
        }
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
fn absent(world: &Snapshot, old: &Instance, asked_at: Timestamp, blank: bool) -> Option<Change> {
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
            let lasted = asked_at >= since + patience && old.missing_since.is_some();
            // A launch that was never answered may have made something all the same: only a destruction
            // proves that it has not.
            let answered = old.state > InstanceState::Launching;
            let believed = match old.destroyed_at {
                // What was asked before is no word on whether the destruction had its effect.
                Some(destroyed_at) => asked_at > destroyed_at,
                None => lasted && answered && !blank,
            };
            if believed {
                row.enter(InstanceState::Gone, world.now);
            }
            row.missing_since = Some(since);
        }
    }
    (row != *old).then(|| Change::Instance(Box::new(row)))
}

/// True if a listing shows nothing of what it should: more likely a provider's error than the end of
/// everything at once. An entry that bears one's number and does not name its runner may be anybody's. It
/// need never be believed, because what really ended has another way out: the boot limit, the forge's
/// listing, the forge's word on the job, and in the end a destruction that succeeds.
fn is_blank(
    world: &Snapshot,
    provider: &ProviderName,
    asked_at: Timestamp,
    named: &BTreeSet<InstanceId>,
) -> bool {
    let mut expected = world
        .existing_instances()
        .filter(|row| {
            let answered = row.launch.and_then(|launch| launch.answered_at);
            row.provider == *provider
                && row.state > InstanceState::Launching
                && row.destroyed_at.is_none()
                && answered.is_some_and(|at| at < asked_at)
        })
        .peekable();
    expected.peek().is_some() && expected.all(|row| !named.contains(&row.id))
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
