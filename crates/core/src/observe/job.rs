//! Facts about jobs.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::health::proven;
use crate::job::{
    Attempt, Conclusion, Doubt, Job, JobKey, JobState, PAST_RUNNERS_MAX, RunnerRef, Trust,
};
use crate::name::ForgeName;
use crate::observation::{Covered, JobSeen, Source, Subject};
use crate::runner::{Outcome, Registration, Runner, RunnerState};
use crate::snapshot::{Change, Looked, Note, Proof, Snapshot};
use crate::tenant::{Met, Scope};
use crate::time::Timestamp;

/// A read may be answered by a replica that lags behind what we were told by delivery; only one asked
/// this long after the newest fact may send a job back.
const SETTLE: Duration = Duration::from_secs(5);

/// How long a forge keeps a job queued before it gives it up (GitHub: 24 hours). A job it has denied
/// knowing for this long is over.
pub(crate) const EXPIRY: Duration = Duration::from_hours(24);

/// One job was seen.
pub(super) fn seen(world: &Snapshot, seen: &JobSeen) -> Vec<Change> {
    let mut changes = Vec::new();
    let subject = Subject::Job(seen.key.clone());
    let answered = matches!(seen.source, Source::Read { .. });
    if answered && world.looked.contains_key(&subject) {
        changes.push(Change::Looked(subject, Looked::default()));
    }
    let known = world.tenants.get(&seen.tenant.key);
    if known.is_none_or(|known| known.tenant != seen.tenant) {
        let met = Met::seen(known, &seen.tenant, world.tenants.values());
        changes.push(Change::Tenant(Box::new(met)));
    }
    let old = world.job(&seen.key);
    let new = match old {
        None => fresh(world, seen),
        Some(old) => fold(world, old, seen),
    };
    let lost = old.filter(|old| new.attempt.number > old.attempt.number);
    if let Some(lost) = lost {
        changes.extend(let_go(world, lost));
    }
    changes.extend(bind(world, &new));
    changes.extend(row(old, new));
    changes
}

/// A listing shows every open job, and most are as they were: such a job costs no write.
fn row(old: Option<&Job>, new: Job) -> Option<Change> {
    let Some(old) = old else { return Some(Change::Job(Box::new(new))) };
    if *old == new {
        return None;
    }
    let mut confirmed = old.clone();
    confirmed.attempt.fact_at = new.attempt.fact_at;
    Some(if confirmed == new {
        Change::Note(Note::Confirmed(new.key, new.attempt.fact_at))
    } else {
        Change::Job(Box::new(new))
    })
}

fn fresh(world: &Snapshot, seen: &JobSeen) -> Job {
    let at = seen.source.at();
    Job {
        key: seen.key.clone(),
        tenant: seen.tenant.key.clone(),
        scope: seen.scope.clone(),
        repository: seen.repository.clone(),
        wanted: seen.wanted.clone(),
        trust: Trust::Unknown,
        title: seen.title.clone(),
        accepted_at: world.now,
        attempt: Attempt {
            number: 1,
            state: seen.state,
            runner: seen.runner.clone(),
            conclusion: seen.conclusion,
            queued_at: seen.queued_at.unwrap_or(at),
            started_at: seen.started_at,
            completed_at: seen.completed_at,
            fact_at: at,
        },
        past_runners: Vec::new(),
        doubt: None,
    }
}

fn fold(world: &Snapshot, old: &Job, seen: &JobSeen) -> Job {
    let attempt = &old.attempt;
    let at = seen.source.at();
    let newer_read = match seen.source {
        Source::Read { asked_at } => asked_at > attempt.fact_at,
        Source::Delivery { .. } => false,
    };
    let about_the_past =
        !newer_read && seen.runner.as_ref().is_some_and(|runner| old.past_runners.contains(runner));
    if about_the_past {
        return old.clone();
    }
    let elsewhere = match (&attempt.runner, &seen.runner) {
        (Some(known), Some(named)) => known != named,
        (None, _) | (_, None) => false,
    };
    let started = attempt.state >= JobState::InProgress;
    let other_life = elsewhere || started && seen.state < attempt.state;
    match seen.source {
        Source::Read { asked_at } if other_life && asked_at >= attempt.fact_at + SETTLE => {
            reopen(old, seen, asked_at)
        }
        // Too early to tell a lagging replica from a job that was put back: ask again.
        Source::Read { .. } if other_life => {
            let doubt = old.doubt.unwrap_or(Doubt::new(world.now));
            let reads = doubt.reads.saturating_add(1);
            Job { doubt: Some(Doubt { reads, read_at: Some(world.now), ..doubt }), ..old.clone() }
        }
        Source::Read { .. } if newer_read => {
            // The forge's latest word overrides what we took for the past.
            let mut past_runners = old.past_runners.clone();
            past_runners.retain(|past| seen.runner.as_ref() != Some(past));
            Job { doubt: None, past_runners, ..join(old, seen, at) }
        }
        Source::Read { .. } => join(old, seen, at),
        // A started job may really have been put back, which only a read can tell. The tombstone of an
        // ended job swallows what is delivered late.
        Source::Delivery { .. } if other_life => {
            let doubtful = attempt.state == JobState::InProgress;
            let doubt = doubtful.then(|| Doubt::new(world.now));
            let old = Job { doubt: old.doubt.or(doubt), ..old.clone() };
            // What merely comes late still adds what it knows, so that the order does not matter; but it
            // is no newer fact, which would put off the read that settles the doubt.
            if elsewhere { old } else { join(&old, seen, attempt.fact_at) }
        }
        Source::Delivery { .. } => {
            let job = join(old, seen, at);
            let settled = job.attempt.state > attempt.state;
            Job { doubt: old.doubt.filter(|_| !settled), ..job }
        }
    }
}

/// The join of what we know of the attempt and what was seen: the same in whatever order facts arrive.
fn join(old: &Job, seen: &JobSeen, at: Timestamp) -> Job {
    let attempt = &old.attempt;
    Job {
        attempt: Attempt {
            number: attempt.number,
            state: attempt.state.max(seen.state),
            runner: attempt.runner.clone().max(seen.runner.clone()),
            conclusion: attempt.conclusion.max(seen.conclusion),
            queued_at: seen.queued_at.map_or(attempt.queued_at, |at| at.min(attempt.queued_at)),
            started_at: earliest(attempt.started_at, seen.started_at),
            completed_at: earliest(attempt.completed_at, seen.completed_at),
            fact_at: attempt.fact_at.max(at),
        },
        ..old.clone()
    }
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}

fn reopen(old: &Job, seen: &JobSeen, asked_at: Timestamp) -> Job {
    let mut past_runners = old.past_runners.clone();
    past_runners.extend(old.attempt.runner.clone());
    past_runners.retain(|past| seen.runner.as_ref() != Some(past));
    let surplus = past_runners.len().saturating_sub(PAST_RUNNERS_MAX);
    past_runners.drain(..surplus);
    Job {
        attempt: Attempt {
            number: old.attempt.number + 1,
            state: seen.state,
            runner: seen.runner.clone(),
            conclusion: seen.conclusion,
            queued_at: seen.queued_at.unwrap_or(old.attempt.queued_at),
            started_at: seen.started_at,
            completed_at: seen.completed_at,
            fact_at: asked_at,
        },
        past_runners,
        doubt: None,
        ..old.clone()
    }
}

/// The forge took the job away from its runner, so the runner has had its one job. It may still be at
/// work on it, or the reading may be stale: the forge must let go of the registration before it is ended.
fn let_go(world: &Snapshot, lost: &Job) -> Option<Change> {
    let runner = ours(world, lost.attempt.runner.as_ref()?)?;
    if runner.state >= RunnerState::Stopping || runner.job_ended_at.is_some() {
        return None;
    }
    let mut runner = runner.clone();
    runner.enter(RunnerState::Busy, None, world.now);
    runner.job = runner.job.or(Some(lost.key.clone()));
    runner.job_ended_at = Some(world.now);
    runner.outcome = Some(Outcome::Lost);
    Some(Change::Runner(Box::new(runner)))
}

/// What a job says of the runner that has it.
fn bind(world: &Snapshot, job: &Job) -> Vec<Change> {
    let Some(named) = &job.attempt.runner else { return Vec::new() };
    let Some(old) = ours(world, named) else { return Vec::new() };
    let taken = old.job.as_ref().is_some_and(|other| *other != job.key);
    if job.attempt.state < JobState::InProgress || old.state >= RunnerState::Stopping || taken {
        return Vec::new();
    }
    let mut runner = old.clone();
    if runner.registration == Registration::Unknown {
        runner.registration = Registration::Made(named.id);
    }
    runner.enter(RunnerState::Busy, None, world.now);
    runner.job = Some(job.key.clone());
    if job.attempt.state == JobState::Completed {
        runner.job_ended_at = runner.job_ended_at.or(Some(world.now));
        runner.outcome = Some(Outcome::Finished);
    } else {
        // It may have been let go of by a reading that proved stale.
        runner.job_ended_at = None;
        runner.outcome = None;
    }
    if runner == *old {
        return Vec::new();
    }
    let ended = runner.job_ended_at.is_some() && old.job_ended_at.is_none();
    let begun = old.job.is_none().then_some(Proof::Job);
    let proof = if ended { Some(Proof::End) } else { begun };
    let mut changes = vec![Change::Runner(Box::new(runner))];
    changes.extend(proof.into_iter().flat_map(|proof| proven(world, old, proof)));
    changes
}

fn ours<'a>(world: &'a Snapshot, named: &RunnerRef) -> Option<&'a Runner> {
    // A registration under our runner's name and another id is not our runner.
    let is_it = |runner: &&Runner| match runner.registration {
        Registration::Made(id) => id == named.id,
        Registration::Unknown | Registration::Removed => true,
    };
    world.runner_named(&named.name).filter(is_it)
}

/// The forge knows no such job. Once proves nothing; for longer than it keeps any job, it is over,
/// unless a runner of ours still has it: then the runner's end tells.
pub(super) fn missing(world: &Snapshot, key: &JobKey, asked_at: Timestamp) -> Vec<Change> {
    let Some(old) = world.job(key) else { return Vec::new() };
    if asked_at <= old.attempt.fact_at {
        return Vec::new();
    }
    let mut job = old.clone();
    let doubt = job.doubt.unwrap_or(Doubt::new(world.now));
    let since = doubt.missing_since.unwrap_or(asked_at);
    let carried =
        job.attempt.runner.as_ref().and_then(|named| ours(world, named)).is_some_and(|runner| {
            runner.state == RunnerState::Busy && runner.job.as_ref() == Some(key)
        });
    if !job.is_open() {
        job.doubt = None;
    } else if asked_at.since(since) >= EXPIRY && !carried {
        job.attempt.state = JobState::Completed;
        job.attempt.conclusion = Some(Conclusion::Expired);
        job.attempt.completed_at = Some(world.now);
        job.attempt.fact_at = asked_at;
        job.doubt = None;
    } else {
        let reads = doubt.reads.saturating_add(1);
        job.doubt =
            Some(Doubt { missing_since: Some(since), reads, read_at: Some(world.now), ..doubt });
    }
    let mut changes = bind(world, &job);
    changes.push(Change::Job(Box::new(job)));
    changes
}

/// The open jobs of a scope were listed. Those we hold open and that are not among them are doubtful.
pub(super) fn listed(
    world: &Snapshot,
    (forge, scope): (&ForgeName, &Scope),
    asked_at: Timestamp,
    all: &[JobSeen],
    covered: &Covered,
) -> Vec<Change> {
    let subject = Subject::Jobs(forge.clone(), scope.clone());
    let latest = world.looked(&subject).asked_at.max(Some(asked_at));
    let mut changes =
        vec![Change::Looked(subject, Looked { asked_at: latest, ..Looked::default() })];
    let next = match covered {
        Covered::Whole => None,
        Covered::Part { next, .. } => next.clone(),
    };
    if world.swept.get(&(forge.clone(), scope.clone())) != next.as_ref() {
        changes.push(Change::Note(Note::Swept(forge.clone(), scope.clone(), next)));
    }
    // A listing of several pages may tell of one job twice: the state furthest on is the later one.
    let mut listed: BTreeMap<&JobKey, &JobSeen> = BTreeMap::new();
    for job in all {
        let first = listed.entry(&job.key).or_insert(job);
        if job.state > first.state {
            *first = job;
        }
    }
    for job in listed.values() {
        changes.extend(seen(world, job));
    }
    for key in &world.open {
        let Some(job) = world.job(key) else { continue };
        let absent = key.forge == *forge
            && job.scope == *scope
            && job.is_open()
            && job.doubt.is_none()
            && job.attempt.fact_at < asked_at
            && covered.has(&job.repository)
            && !listed.contains_key(key);
        if absent {
            changes.push(doubted(world, job));
        }
    }
    changes
}

/// The job with a doubt, so that it will be read.
pub(crate) fn doubted(world: &Snapshot, job: &Job) -> Change {
    Change::Job(Box::new(Job { doubt: job.doubt.or(Some(Doubt::new(world.now))), ..job.clone() }))
}
