//! The calls that the committed state asks for. Nothing is asked for that no row implies, so a crash at
//! any point loses nothing: the same rows ask for the same calls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::action::{Action, Deregister, Destroy, Launch, Look};
use crate::budget::{Credential, Lane, Purse};
use crate::demand::sweeps;
use crate::fleet::{Fleet, Polls};
use crate::health::{backoff, obstacle, tries};
use crate::hook;
use crate::job::{Job, JobState};
use crate::name::{ForgeName, Login, NodeName, ProviderName};
use crate::observation::Subject;
use crate::reason::{BackoffKey, DrainKey};
use crate::runner::{Instance, InstanceId, InstanceState, Registration, Runner, RunnerState};
use crate::snapshot::{Orphan, Snapshot};
use crate::tenant::Scope;
use crate::time::Timestamp;

/// What is awaited right now is looked at this often.
const AWAITED: Duration = Duration::from_millis(500);
/// A doubtful job is read at once, then with these waits.
const DOUBT_AGAIN: Duration = Duration::from_secs(10);
const DOUBT_LONGEST: Duration = Duration::from_mins(10);

/// Every call that is due at `world.now`: launches first, looks last. The order is the order of
/// service where a budget does not suffice for all.
pub fn actions(world: &Snapshot) -> Vec<Action> {
    let patience = Patience::new(world);
    let mut due = launches(world, &patience);
    let scopes = scopes(world);
    due.extend(deregistrations(world, &patience));
    due.extend(destructions(world, &scopes));
    due.extend(looks(world, &scopes, &patience).into_iter().map(Action::Look));
    due.extend(hook::due(world, |subject| patient(world, subject)));
    due
}

/// True unless calls about `subject` are failing and the wait after the last failure is not over.
fn patient(world: &Snapshot, subject: &Subject) -> bool {
    next_try(world, subject).is_none_or(|at| world.now >= at)
}

/// When the wait after the last failure of a call about `subject` is over, if the last one failed.
pub(crate) fn next_try(world: &Snapshot, subject: &Subject) -> Option<Timestamp> {
    let looked = world.looked(subject);
    looked.failed_at.map(|at| at + backoff(looked.failures))
}

/// Owners whose calls a forge limits.
struct Patience<'a> {
    fleet: &'a Fleet,
    limited: BTreeSet<(&'a ForgeName, &'a Login)>,
    /// What is left to owners, as far as it is known.
    purses: BTreeMap<(&'a ForgeName, &'a Login), Purse>,
    /// What is left to the tokens.
    tokens: BTreeMap<&'a ForgeName, Purse>,
}

impl<'a> Patience<'a> {
    fn new(world: &'a Snapshot) -> Self {
        let limited = world.backoffs().filter_map(|(key, backoff)| match key {
            BackoffKey::Scope(forge, scope) if backoff.full && backoff.until > world.now => {
                Some((forge, scope.owner()))
            }
            BackoffKey::Scope(..)
            | BackoffKey::Pool(_)
            | BackoffKey::Provider(_)
            | BackoffKey::Image(_)
            | BackoffKey::Node(..) => None,
        });
        let mut patience = Self {
            fleet: &world.fleet,
            limited: limited.collect(),
            purses: BTreeMap::new(),
            tokens: BTreeMap::new(),
        };
        for (forge, credential, budget) in world.budgets() {
            let purse = match credential {
                Credential::App { owner: Some(owner), .. } => {
                    patience.purses.entry((forge, owner)).or_default()
                }
                Credential::App { owner: None, .. } => continue,
                Credential::Token => patience.tokens.entry(forge).or_default(),
            };
            purse.add(budget, world.now);
        }
        patience
    }

    /// True if a call of this lane may be made for `scope` as far as the forge's limits go.
    fn allows(&self, forge: &ForgeName, scope: &Scope, lane: Lane) -> bool {
        let place = (forge, scope.owner());
        let tokens = || self.tokens.get(forge).filter(|_| self.fleet.is_tokens(forge, place.1));
        let purse = self.purses.get(&place).or_else(tokens);
        !self.limited.contains(&place) && purse.is_none_or(|purse| purse.spendable(lane) > 0)
    }
}

fn launches(world: &Snapshot, patience: &Patience<'_>) -> Vec<Action> {
    let mut under_way: BTreeMap<&ProviderName, u32> = BTreeMap::new();
    for instance in world.existing_instances().filter(|one| one.may_still_land(world.now)) {
        *under_way.entry(&instance.provider).or_default() += 1;
    }
    let mut due = Vec::new();
    for runner in world.runners_in(RunnerState::Pending) {
        let Some(instance) = world.instance(runner.instance) else { continue };
        let pool = world.fleet.pools.get(&runner.pool);
        let provider = world.fleet.providers.get(&instance.provider);
        let (Some(pool), Some(provider)) = (pool, provider) else { continue };
        // Books that were put back from a copy may be about to give a number twice.
        let seen = world.looked(&Subject::Instances(provider.name.clone())).asked_at.is_some();
        let taken = under_way.entry(&instance.provider).or_default();
        let ready = instance.state == InstanceState::Planned
            && (seen || !world.adopted)
            && patience.allows(&runner.forge, &runner.scope, Lane::Registration)
            && *taken < provider.launches_max;
        if !ready {
            continue;
        }
        let avoid = avoided(world, &instance.provider, *taken);
        *taken += 1;
        due.push(Action::Launch(Box::new(Launch {
            runner: runner.id,
            name: runner.name.clone(),
            forge: runner.forge.clone(),
            scope: runner.scope.clone(),
            group: runner.group.clone(),
            labels: runner.labels.clone(),
            instance: instance.id,
            epoch: instance.epoch,
            pool: runner.pool.clone(),
            provider: instance.provider.clone(),
            image: pool.image.clone(),
            needs: instance.needs.clone(),
            avoid,
            deadline: world.now + provider.launch_deadline,
        })));
    }
    due
}

/// Nodes on which nothing may be placed. A node that failed is tried with one launch at a time, so it is
/// open only to a launch beside which no other is under way.
fn avoided(world: &Snapshot, provider: &ProviderName, under_way: u32) -> Arc<BTreeSet<NodeName>> {
    let here = |of: &ProviderName, node: &NodeName| (of == provider).then(|| node.clone());
    let drained = world.drains.keys().filter_map(|key| match key {
        DrainKey::Node(of, node) => here(of, node),
        DrainKey::Pool(_) | DrainKey::Provider(_) => None,
    });
    let failing = world.backoffs.keys().filter_map(|key| match key {
        BackoffKey::Node(of, node) => {
            let on_it = |runner: &&Runner| {
                let instance = world.instance(runner.instance);
                instance.and_then(BackoffKey::node_of).as_ref() == Some(key)
            };
            let tried = world.active_runners().filter(on_it).filter(|r| tries(world, key, r));
            let trying = under_way.saturating_add(u32::try_from(tried.count()).unwrap_or(u32::MAX));
            here(of, node).filter(|_| obstacle(world, key, trying).is_some())
        }
        BackoffKey::Pool(_)
        | BackoffKey::Provider(_)
        | BackoffKey::Scope(..)
        | BackoffKey::Image(_) => None,
    });
    Arc::new(drained.chain(failing).collect())
}

fn deregistrations(world: &Snapshot, patience: &Patience<'_>) -> Vec<Action> {
    let runners = world.active_runners().filter_map(|runner| {
        let instance = world.instance(runner.instance)?;
        deregistration_due(world, runner, instance).then(|| {
            let id = match runner.registration {
                Registration::Made(id) => Some(id),
                Registration::Unknown | Registration::Removed => None,
            };
            Deregister {
                subject: Subject::Runner(runner.id),
                forge: runner.forge.clone(),
                scope: runner.scope.clone(),
                name: runner.name.clone(),
                id,
            }
        })
    });
    let grace = world.fleet.grace.stray;
    let strays = world.strays.iter().filter_map(|(key, stray)| {
        let seen_twice = stray.last_seen >= stray.first_seen + grace;
        let rested = stray.tried_at.is_none_or(|at| world.now >= at + grace);
        (seen_twice && rested && world.recovering.is_none()).then(|| Deregister {
            subject: key.clone().into(),
            forge: key.forge.clone(),
            scope: key.scope.clone(),
            name: stray.name.clone(),
            id: Some(key.id),
        })
    });
    runners
        .chain(strays)
        .filter(|call| patience.allows(&call.forge, &call.scope, Lane::Deregistration))
        .filter(|call| patient(world, &call.subject))
        .map(Action::Deregister)
        .collect()
}

fn deregistration_due(world: &Snapshot, runner: &Runner, instance: &Instance) -> bool {
    let grace = &world.fleet.grace;
    let rested = |pause| {
        let asked = world.looked(&Subject::Runner(runner.id)).asked_at;
        asked.is_none_or(|at| world.now >= at + pause)
    };
    match runner.state {
        // Without a launch call there is nothing to remove; while one may still register or land, its
        // end must be awaited.
        RunnerState::Draining => {
            instance.launch.is_some()
                && runner.registration != Registration::Removed
                && !instance.may_still_land(world.now)
        }
        RunnerState::Busy if runner.is_unexplained() => {
            let since = runner.since.at(RunnerState::Busy).unwrap_or(world.now);
            world.now.since(since) >= grace.unexplained && rested(grace.unexplained)
        }
        RunnerState::Pending
        | RunnerState::Starting
        | RunnerState::Idle
        | RunnerState::Busy
        | RunnerState::Stopping
        | RunnerState::Gone => false,
    }
}

fn destructions(world: &Snapshot, scopes: &BTreeMap<Place<'_>, Polled>) -> Vec<Action> {
    let grace = &world.fleet.grace;
    let stopping = world.runners_in(RunnerState::Stopping).filter_map(|runner| {
        let instance = world.instance(runner.instance)?;
        let exists = match instance.state {
            InstanceState::Launching | InstanceState::Live | InstanceState::Exited => true,
            InstanceState::Planned | InstanceState::Gone => false,
        };
        let rested = instance.destroyed_at.is_none_or(|at| world.now >= at + grace.destroy);
        let declared = world.fleet.providers.contains_key(&instance.provider);
        (exists && rested && declared && runner.hold.is_none())
            .then(|| Destroy { provider: instance.provider.clone(), instance: instance.id })
    });
    let prefix = Runner::name_prefix(&world.installation);
    let orphans = world.orphans.iter().filter(|((provider, _), orphan)| {
        // One that carries another installation's runner is not ours, whatever its number.
        let ours = orphan.runner.as_ref().is_none_or(|name| name.as_str().starts_with(&prefix));
        let seen_twice = orphan.last_seen >= orphan.first_seen + grace.stray;
        ours && seen_twice
            && world.recovering.is_none()
            && world.fleet.providers.contains_key(provider)
            && !may_be_in_use(world, orphan)
            && unswept(world, scopes, orphan).next().is_none()
    });
    let orphans =
        orphans.map(|((provider, id), _)| Destroy { provider: provider.clone(), instance: *id });
    stopping
        .chain(orphans)
        .filter(|call| patient(world, &Subject::Instance(call.instance)))
        .map(Action::Destroy)
        .collect()
}

/// True if an orphan's runner is one that we know, or a registration that no row explains may be its. That
/// goes first: it alone tells whether a job is on it. An orphan that does not say whom it carries may carry
/// any.
fn may_be_in_use(world: &Snapshot, orphan: &Orphan) -> bool {
    let row = orphan.runner.as_ref().and_then(|name| world.runner_named(name));
    let asked = |row: &Runner| world.fleet.forges.contains_key(&row.forge);
    let in_use = row.is_some_and(|row| row.state < RunnerState::Gone || !asked(row));
    let mut strays = world.strays.values();
    in_use || strays.any(|stray| orphan.runner.as_ref().is_none_or(|name| *name == stray.name))
}

/// Where an orphan's registration may yet be found: the one scope of a runner that is known, any scope of
/// one that is not. A scope that cannot be listed holds up the orphan, for its job may be from there.
fn unswept<'a>(
    world: &'a Snapshot,
    scopes: &'a BTreeMap<Place<'_>, Polled>,
    orphan: &'a Orphan,
) -> impl Iterator<Item = &'a Scope> {
    let row = orphan.runner.as_ref().and_then(|name| world.runner_named(name));
    let since = row.and_then(|row| row.since.at(RunnerState::Gone)).max(Some(orphan.first_seen));
    let here = scopes
        .iter()
        .filter(move |(place, _)| row.is_none_or(|row| (&row.forge, &row.scope) == **place));
    let unseen = here.filter(move |(_, polled)| polled.asked_at <= since);
    unseen.map(|((_, scope), _)| *scope)
}

/// Orphans that are to be removed and wait for scopes to be listed, with those.
pub fn waiting_orphans(
    world: &Snapshot,
) -> impl Iterator<Item = (&(ProviderName, InstanceId), Vec<Scope>)> {
    let scopes = scopes(world);
    let due = |orphan: &Orphan| orphan.last_seen >= orphan.first_seen + world.fleet.grace.stray;
    let waiting: Vec<_> = world
        .orphans()
        .filter(|(_, orphan)| due(orphan))
        .map(|(key, orphan)| (key, unswept(world, &scopes, orphan).cloned().collect::<Vec<_>>()))
        .filter(|(_, scopes)| !scopes.is_empty())
        .collect();
    waiting.into_iter()
}

/// The listings that have not succeeded since then, in words.
pub(crate) fn unseen(world: &Snapshot, since: Timestamp) -> Vec<String> {
    let seen = |subject: Subject| world.looked(&subject).asked_at > Some(since);
    let providers = world.fleet.providers.keys();
    let providers = providers
        .filter(|name| !seen(Subject::Instances((*name).clone())))
        .map(|name| format!("provider {name}"));
    let scopes = scopes(world).into_keys();
    let scopes = scopes
        .filter(|(forge, scope)| !seen(Subject::Runners((*forge).clone(), (*scope).clone())))
        .map(|(forge, scope)| format!("{scope} at {forge}"));
    providers.chain(scopes).collect()
}

/// Where runners register.
type Place<'a> = (&'a ForgeName, &'a Scope);

/// How often a scope's registrations are listed, and when they last were.
struct Polled {
    every: Duration,
    asked_at: Option<Timestamp>,
}

/// What is due, what lets the most move on first: reads of single jobs are the most and can wait.
fn looks(
    world: &Snapshot,
    scopes: &BTreeMap<Place<'_>, Polled>,
    patience: &Patience<'_>,
) -> Vec<Look> {
    let mut due = Vec::new();
    let awaited = awaited(world);
    for provider in world.fleet.providers.values() {
        let every = if awaited.contains(&provider.name) { AWAITED } else { provider.poll };
        if look_due(world, &Subject::Instances(provider.name.clone()), every) {
            due.push(Look::Instances { provider: provider.name.clone() });
        }
    }
    let mut unswept = Vec::new();
    for ((forge, scope), polled) in scopes {
        let (forge, scope) = (*forge, *scope);
        let subject = Subject::Runners(forge.clone(), scope.clone());
        if patience.allows(forge, scope, Lane::Runners) && look_due(world, &subject, polled.every) {
            due.push(Look::Runners { forge: forge.clone(), scope: scope.clone() });
        }
        let Some(every) = sweep_of(world, forge) else { continue };
        let subject = Subject::Jobs(forge.clone(), scope.clone());
        if patience.allows(forge, scope, Lane::Sweep) && look_due(world, &subject, every) {
            unswept.push((forge, scope));
        }
    }
    due.extend(sweeps(world, unswept));
    due.extend(job_looks(world, patience));
    due
}

/// How often a forge's open jobs are listed, if they are.
fn sweep_of(world: &Snapshot, forge: &ForgeName) -> Option<Duration> {
    world.fleet.forges.get(forge).and_then(|forge| forge.demand.sweep)
}

fn look_due(world: &Snapshot, subject: &Subject, every: Duration) -> bool {
    let looked = world.looked(subject);
    patient(world, subject) && looked.asked_at.is_none_or(|at| world.now >= at + every)
}

/// Every scope worth looking at: declared ones, those jobs came from, those runners are in. While
/// something is awaited there, its registrations are listed more often.
fn scopes(world: &Snapshot) -> BTreeMap<Place<'_>, Polled> {
    let mut all = BTreeMap::new();
    let seldom = |polls: &Polls| polls.runners * 10;
    let orphans: fn(&Polls) -> Duration = if world.orphans.is_empty() && world.recovering.is_none()
    {
        seldom
    } else {
        |polls| polls.runners
    };
    for forge in world.fleet.forges.values() {
        for scope in &forge.scopes {
            note(world, &mut all, (&forge.name, scope), orphans);
        }
    }
    for (forge, scope) in world.scopes.keys() {
        note(world, &mut all, (forge, scope), orphans);
    }
    for key in world.strays.keys() {
        note(world, &mut all, (&key.forge, &key.scope), |polls| polls.runners);
    }
    // Where runners were and are no more is among the scopes above.
    for runner in world.active_runners() {
        let hurry: fn(&Polls) -> Duration = match runner.state {
            RunnerState::Starting => |polls| polls.starting,
            RunnerState::Pending
            | RunnerState::Idle
            | RunnerState::Draining
            | RunnerState::Busy
            | RunnerState::Stopping => |polls| polls.runners,
            RunnerState::Gone => orphans,
        };
        note(world, &mut all, (&runner.forge, &runner.scope), hurry);
    }
    all
}

fn note<'a>(
    world: &'a Snapshot,
    all: &mut BTreeMap<Place<'a>, Polled>,
    place: Place<'a>,
    hurry: fn(&Polls) -> Duration,
) {
    let Some(forge) = world.fleet.forges.get(place.0) else { return };
    let every = hurry(&forge.polls);
    let polled = all.entry(place).or_insert_with(|| {
        let subject = Subject::Runners(place.0.clone(), place.1.clone());
        Polled { every, asked_at: world.looked(&subject).asked_at }
    });
    polled.every = polled.every.min(every);
}

/// Providers whose next listing will let something move on.
fn awaited(world: &Snapshot) -> BTreeSet<&ProviderName> {
    let mut all = BTreeSet::new();
    for instance in world.existing_instances() {
        if !all.contains(&instance.provider) && is_awaited(world, instance) {
            all.insert(&instance.provider);
        }
    }
    all
}

fn is_awaited(world: &Snapshot, instance: &Instance) -> bool {
    let asked = world.looked(&Subject::Instances(instance.provider.clone())).asked_at;
    let unseen_since = |at: Timestamp| asked.is_none_or(|asked| asked <= at);
    let patience = world.fleet.providers.get(&instance.provider).map(|p| p.absent);
    let doubtful = instance.missing_since.zip(patience).is_some_and(|(since, patience)| {
        world.now >= since + patience && unseen_since(since + patience)
    });
    match instance.state {
        InstanceState::Planned | InstanceState::Gone => false,
        InstanceState::Launching => {
            let deadline = instance.launch.map(|launch| launch.deadline);
            doubtful || deadline.is_some_and(|at| world.now > at && unseen_since(at))
        }
        InstanceState::Live | InstanceState::Exited => {
            let leaving = instance
                .runner()
                .and_then(|id| world.runner(id))
                .filter(|runner| !runner.is_unexplained())
                .is_some_and(|r| r.state == RunnerState::Busy && r.job_ended_at.is_some())
                && instance.exit.is_none();
            leaving || doubtful || instance.destroyed_at.is_some_and(unseen_since)
        }
    }
}

fn job_looks(world: &Snapshot, patience: &Patience<'_>) -> Vec<Look> {
    let open = world.open.iter().filter_map(|key| world.job(key));
    open.filter(|job| patience.allows(&job.key.forge, &job.scope, Lane::Read))
        .filter(|job| job_look_due(world, job))
        .map(|job| Look::Job {
            key: job.key.clone(),
            scope: job.scope.clone(),
            repository: job.repository.clone(),
        })
        .collect()
}

fn job_look_due(world: &Snapshot, job: &Job) -> bool {
    let due = if let Some(doubt) = job.doubt {
        doubt.read_at.is_none_or(|at| {
            let pause = DOUBT_AGAIN * 2_u32.pow(doubt.reads.saturating_sub(1).min(8));
            world.now >= at + pause.min(DOUBT_LONGEST)
        })
    } else {
        let forge = world.fleet.forges.get(&job.key.forge);
        let polls = forge.map_or_else(Polls::default, |forge| forge.polls);
        let swept = sweep_of(world, &job.key.forge).is_some();
        let old = world.now.since(job.attempt.fact_at) >= polls.job;
        // Where nothing is swept, only a read tells of a queued job that was cancelled.
        old && job.is_open()
            && (!swept || job.attempt.state == JobState::InProgress && was_swept(world, job))
    };
    due && world.fleet.forges.contains_key(&job.key.forge)
        && patient(world, &Subject::Job(job.key.clone()))
}

/// One sweep shows what so many reads would: after a restart, all jobs would be due at once.
fn was_swept(world: &Snapshot, job: &Job) -> bool {
    let sweep = world.looked(&Subject::Jobs(job.key.forge.clone(), job.scope.clone()));
    sweep.asked_at.is_some() || sweep.failures > 0
}
