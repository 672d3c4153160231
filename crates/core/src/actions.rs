//! The calls that the committed state asks for. Nothing is asked for that no row implies, so a crash at
//! any point loses nothing: the same rows ask for the same calls.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::action::{Action, Deregister, Destroy, Launch, Look};
use crate::fleet::{Polls, Provider};
use crate::job::{Job, JobState};
use crate::name::{ForgeName, ProviderName};
use crate::observation::Subject;
use crate::observe::backoff;
use crate::runner::{Instance, InstanceState, Registration, Runner, RunnerState};
use crate::snapshot::Snapshot;
use crate::tenant::Scope;
use crate::time::Timestamp;

/// A destruction is asked for again if listings still show the instance after this long.
const DESTROY_AGAIN: Duration = Duration::from_secs(15);
/// A runner that is busy with a job nobody has told us of is asked about this often.
const BUSY_UNEXPLAINED: Duration = Duration::from_mins(2);
/// What is awaited right now is looked at this often.
const AWAITED: Duration = Duration::from_millis(500);
/// A registration or instance that no row explains must be seen for this long before it is removed.
const STRAY_GRACE: Duration = Duration::from_mins(2);
/// A doubtful job is read at once, then with these waits.
const DOUBT_AGAIN: Duration = Duration::from_secs(10);
const DOUBT_LONGEST: Duration = Duration::from_mins(10);

/// Every call that is due at `world.now`: launches first, looks last. The order is the order of
/// service where a budget does not suffice for all.
pub fn actions(world: &Snapshot) -> Vec<Action> {
    let mut due = launches(world);
    due.extend(deregistrations(world));
    due.extend(destructions(world));
    due.extend(looks(world).into_iter().map(Action::Look));
    due
}

/// True unless calls about `subject` are failing and the wait after the last failure is not over.
fn patient(world: &Snapshot, subject: &Subject) -> bool {
    let looked = world.looked(subject);
    looked.failed_at.is_none_or(|at| world.now >= at + backoff(looked.failures))
}

fn launches(world: &Snapshot) -> Vec<Action> {
    let mut under_way: BTreeMap<&ProviderName, u32> = BTreeMap::new();
    for instance in world.instances().filter(|instance| instance.may_still_land(world.now)) {
        *under_way.entry(&instance.provider).or_default() += 1;
    }
    let mut due = Vec::new();
    for runner in world.runners_in(RunnerState::Pending) {
        let Some(instance) = world.instance(runner.instance) else { continue };
        let pool = world.fleet.pools.get(&runner.pool);
        let provider = world.fleet.providers.get(&instance.provider);
        let (Some(pool), Some(provider)) = (pool, provider) else { continue };
        let taken = under_way.entry(&instance.provider).or_default();
        let ready = instance.state == InstanceState::Planned
            && world.limited_until(&runner.forge).is_none()
            && *taken < provider.launches_max;
        if !ready {
            continue;
        }
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
            deadline: world.now + provider.launch_deadline,
        })));
    }
    due
}

fn deregistrations(world: &Snapshot) -> Vec<Action> {
    let runners = world.runners().filter_map(|runner| {
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
    let strays = world.strays.iter().filter_map(|(key, stray)| {
        let seen_twice = stray.last_seen >= stray.first_seen + STRAY_GRACE;
        let rested = stray.tried_at.is_none_or(|at| world.now >= at + STRAY_GRACE);
        (seen_twice && rested).then(|| Deregister {
            subject: key.clone().into(),
            forge: key.forge.clone(),
            scope: key.scope.clone(),
            name: stray.name.clone(),
            id: Some(key.id),
        })
    });
    runners
        .chain(strays)
        .filter(|call| world.limited_until(&call.forge).is_none() && patient(world, &call.subject))
        .map(Action::Deregister)
        .collect()
}

fn deregistration_due(world: &Snapshot, runner: &Runner, instance: &Instance) -> bool {
    let rested = |pause| {
        let asked = world.looked(&Subject::Runner(runner.id)).asked_at;
        asked.is_none_or(|at| world.now >= at + pause)
    };
    match runner.state {
        // While the launch may still register or land, its end must be awaited.
        RunnerState::Draining => {
            runner.registration != Registration::Removed && !instance.may_still_land(world.now)
        }
        RunnerState::Busy if runner.job.is_none() => {
            let since = runner.since.at(RunnerState::Busy).unwrap_or(world.now);
            world.now.since(since) >= BUSY_UNEXPLAINED && rested(BUSY_UNEXPLAINED)
        }
        RunnerState::Pending
        | RunnerState::Starting
        | RunnerState::Idle
        | RunnerState::Busy
        | RunnerState::Stopping
        | RunnerState::Gone => false,
    }
}

fn destructions(world: &Snapshot) -> Vec<Action> {
    let stopping = world.runners_in(RunnerState::Stopping).filter_map(|runner| {
        let instance = world.instance(runner.instance)?;
        let exists = match instance.state {
            InstanceState::Launching | InstanceState::Live | InstanceState::Exited => true,
            InstanceState::Planned | InstanceState::Gone => false,
        };
        let rested = instance.destroyed_at.is_none_or(|at| world.now >= at + DESTROY_AGAIN);
        (exists && rested && runner.hold.is_none())
            .then(|| Destroy { provider: instance.provider.clone(), instance: instance.id })
    });
    let orphans = world.orphans.iter().filter(|(_, orphan)| {
        let seen_twice = orphan.last_seen >= orphan.first_seen + STRAY_GRACE;
        let registered =
            world.strays.values().any(|stray| Some(&stray.name) == orphan.runner.as_ref());
        let swept = scopes(world).iter().all(|(forge, scope)| {
            let subject = Subject::Runners(forge.clone(), scope.clone());
            world.looked(&subject).asked_at.is_some_and(|at| at > orphan.first_seen)
        });
        // Its registration goes first: it alone tells whether a job is on it.
        seen_twice && !registered && swept
    });
    let orphans =
        orphans.map(|((provider, id), _)| Destroy { provider: provider.clone(), instance: *id });
    stopping
        .chain(orphans)
        .filter(|call| patient(world, &Subject::Instance(call.instance)))
        .map(Action::Destroy)
        .collect()
}

fn looks(world: &Snapshot) -> Vec<Look> {
    let mut due = job_looks(world);
    for (forge, scope) in scopes(world) {
        if world.limited_until(&forge).is_some() {
            continue;
        }
        let polls = world.fleet.forges.get(&forge).map_or_else(Polls::default, |f| f.polls);
        let every = registrations_every(world, &forge, &scope, &polls);
        if look_due(world, &Subject::Runners(forge.clone(), scope.clone()), every) {
            due.push(Look::Runners { forge: forge.clone(), scope: scope.clone() });
        }
        if look_due(world, &Subject::Jobs(forge.clone(), scope.clone()), polls.jobs) {
            due.push(Look::Jobs { forge, scope });
        }
    }
    for provider in world.fleet.providers.values() {
        let every = if awaited(world, provider) { AWAITED } else { provider.poll };
        if look_due(world, &Subject::Instances(provider.name.clone()), every) {
            due.push(Look::Instances { provider: provider.name.clone() });
        }
    }
    due
}

fn look_due(world: &Snapshot, subject: &Subject, every: Duration) -> bool {
    let looked = world.looked(subject);
    patient(world, subject) && looked.asked_at.is_none_or(|at| world.now >= at + every)
}

/// Every scope worth looking at: declared ones, those jobs came from, those runners are in.
fn scopes(world: &Snapshot) -> BTreeSet<(ForgeName, Scope)> {
    let mut all = world.scopes.clone();
    for forge in world.fleet.forges.values() {
        all.extend(forge.scopes.iter().map(|scope| (forge.name.clone(), scope.clone())));
    }
    all.extend(world.runners().map(|runner| (runner.forge.clone(), runner.scope.clone())));
    all.retain(|(forge, _)| world.fleet.forges.contains_key(forge));
    all
}

fn registrations_every(
    world: &Snapshot,
    forge: &ForgeName,
    scope: &Scope,
    polls: &Polls,
) -> Duration {
    let here = |runner: &&Runner| runner.forge == *forge && runner.scope == *scope;
    let strays = world.strays.keys().any(|key| key.forge == *forge && key.scope == *scope);
    let mut every =
        if strays || !world.orphans.is_empty() { polls.runners } else { polls.runners * 10 };
    for runner in world.runners().filter(here) {
        match runner.state {
            RunnerState::Starting => return polls.starting,
            RunnerState::Pending
            | RunnerState::Idle
            | RunnerState::Draining
            | RunnerState::Busy
            | RunnerState::Stopping => every = polls.runners,
            RunnerState::Gone => {}
        }
    }
    every
}

/// True if the next listing of a provider will let something move on.
fn awaited(world: &Snapshot, provider: &Provider) -> bool {
    let asked = world.looked(&Subject::Instances(provider.name.clone())).asked_at;
    let unseen_since = |at: Timestamp| asked.is_none_or(|asked| asked <= at);
    let mut own = world.instances().filter(|instance| instance.provider == provider.name);
    own.any(|instance| match instance.state {
        InstanceState::Planned | InstanceState::Gone => false,
        InstanceState::Launching => instance
            .launch
            .is_some_and(|launch| world.now > launch.deadline && unseen_since(launch.deadline)),
        InstanceState::Live | InstanceState::Exited => {
            let leaving = instance
                .runner()
                .and_then(|id| world.runner(id))
                .is_some_and(|r| r.state == RunnerState::Busy && r.job_ended_at.is_some())
                && instance.exit.is_none();
            let doubtful = instance.missing_since.is_some_and(|since| {
                world.now >= since + provider.absent && unseen_since(since + provider.absent)
            });
            leaving || doubtful || instance.destroyed_at.is_some_and(unseen_since)
        }
    })
}

fn job_looks(world: &Snapshot) -> Vec<Look> {
    let open = world.open.iter().filter_map(|key| world.job(key));
    open.filter(|job| job_look_due(world, job))
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
        job.attempt.state == JobState::InProgress
            && world.now.since(job.attempt.fact_at) >= polls.job
    };
    due && world.fleet.forges.contains_key(&job.key.forge)
        && world.limited_until(&job.key.forge).is_none()
        && patient(world, &Subject::Job(job.key.clone()))
}
