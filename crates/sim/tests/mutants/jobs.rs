//! Wrong rules about jobs: what is known of them, and until when.

use std::time::Duration;

use remuda_core::hook::{HookKey, Undelivered};
use remuda_core::job::{Conclusion, JobState};
use remuda_core::name::ForgeName;
use remuda_core::observation::{JobSeen, Observation, Source, Subject};
use remuda_core::snapshot::{Change, Note};
use remuda_core::{Action, Snapshot, actions, observe, settle};

use crate::{FORMER, LOST, Mutant, SOUND, STALE, UNSWEPT, bent, declared};

pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        wrong: "a late delivery revives a job that has ended",
        observe: forgets_ended_jobs,
        ..SOUND
    },
    Mutant {
        wrong: "a job that was put back is not served again",
        observe: never_reopens,
        ..SOUND
    },
    Mutant {
        wrong: "late facts of a former runner are believed",
        observe: believes_former_runners,
        ..FORMER
    },
    Mutant {
        wrong: "a read is believed to be as new as its arrival",
        observe: believes_late_reads,
        ..STALE
    },
    Mutant { wrong: "a job read as missing once is over", observe: believes_one_404, ..SOUND },
    Mutant { wrong: "the listing of jobs is ignored", observe: ignores_job_listings, ..SOUND },
    Mutant { wrong: "a doubtful job is never read", actions: never_reads_jobs, ..SOUND },
    Mutant {
        wrong: "every pool's jobs have the limit that one pool declares",
        settle: limits_every_job,
        ..SOUND
    },
    Mutant {
        wrong: "failed deliveries are not asked for again",
        actions: never_redelivers,
        ..UNSWEPT
    },
    Mutant { wrong: "a delivery is asked for without end", actions: redelivers_again, ..UNSWEPT },
    Mutant {
        wrong: "a job that the forge denies for ever is never given up",
        observe: believes_no_404,
        ..LOST
    },
];

fn forgets_ended_jobs(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let Observation::Job(job) = seen else { return observe(world, seen) };
    let known = world.job(&job.key);
    if known.is_none_or(|known| known.attempt.state < JobState::Completed) {
        return observe(world, seen);
    }
    observe(&bent(world, [Change::ForgetJob(job.key.clone())]), seen)
}

fn never_reopens(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let forward = |job: &JobSeen| {
        let known = world.job(&job.key).map(|known| known.attempt.state);
        known != Some(JobState::InProgress) || job.state >= JobState::InProgress
    };
    if let Observation::Job(job) = seen
        && !forward(job)
    {
        return Vec::new();
    }
    let Observation::Jobs { forge, scope, asked_at, all, covered } = seen else {
        return observe(world, seen);
    };
    let mut all = all.clone();
    all.retain(forward);
    let (forge, scope, asked_at, covered) =
        (forge.clone(), scope.clone(), *asked_at, covered.clone());
    observe(world, &Observation::Jobs { forge, scope, asked_at, all, covered })
}

fn believes_former_runners(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let mut known = world.jobs().cloned().collect::<Vec<_>>();
    for job in &mut known {
        job.past_runners.clear();
    }
    observe(&bent(world, known.into_iter().map(|job| Change::Job(Box::new(job)))), seen)
}

fn believes_late_reads(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let Observation::Job(job) = seen else { return observe(world, seen) };
    let mut job = job.clone();
    if let Source::Read { asked_at } = &mut job.source {
        *asked_at = world.now;
    }
    observe(world, &Observation::Job(job))
}

fn believes_one_404(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let Observation::JobMissing { key, .. } = seen else { return observe(world, seen) };
    let Some(mut job) = world.job(key).cloned() else { return Vec::new() };
    job.attempt.state = JobState::Completed;
    job.attempt.conclusion = Some(Conclusion::Expired);
    job.doubt = None;
    vec![Change::Job(Box::new(job))]
}

fn ignores_job_listings(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let mut changes = observe(world, seen);
    if matches!(seen, Observation::Jobs { .. }) {
        changes.retain(|change| matches!(change, Change::Looked(..)));
    }
    changes
}

fn never_reads_jobs(world: &Snapshot) -> Vec<Action> {
    let mut due = actions(world);
    due.retain(|action| !matches!(action.subject(), Subject::Job(_)));
    due
}

fn limits_every_job(world: &Snapshot) -> Vec<Change> {
    settle(&declared(world, |fleet| {
        for pool in fleet.pools.values_mut() {
            pool.limits.job = Some(Duration::from_mins(15));
        }
    }))
}

fn believes_no_404(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let mut changes = observe(world, seen);
    let expires = |change: &Change| matches!(change, Change::Job(job) if job.attempt.conclusion == Some(Conclusion::Expired));
    changes.retain(|change| !expires(change));
    changes
}

fn never_redelivers(world: &Snapshot) -> Vec<Action> {
    let mut due = actions(world);
    due.retain(|action| !matches!(action, Action::Redeliver(_)));
    due
}

/// What was asked for is asked for again, as if nobody had answered.
fn redelivers_again(world: &Snapshot) -> Vec<Action> {
    let mut forgets = Vec::new();
    for (forge, hook) in hooks(world) {
        for (guid, row) in world.undelivered_of(&forge, &hook) {
            let row = Undelivered { asked: None, attempts: 1, ..row.clone() };
            let note = Note::Undelivered(forge.clone(), hook.clone(), guid.clone(), Some(row));
            forgets.push(Change::Note(note));
        }
    }
    actions(&bent(world, forgets))
}

fn hooks(world: &Snapshot) -> Vec<(ForgeName, HookKey)> {
    let forges = world.fleet.forges.values();
    let all = forges
        .flat_map(|forge| forge.watched_hooks().into_iter().map(|hook| (forge.name.clone(), hook)));
    all.collect()
}
