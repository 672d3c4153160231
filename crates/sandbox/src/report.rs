//! What the sandbox tells about itself: jobs with their times, runners, deliveries, totals.

use std::collections::BTreeMap;

use remuda_core::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock::iso_millis;
use crate::id::{DeliveryId, HookId, JobId, RunId, RunnerId};
use crate::post::{Delivery, Outcome, PostCounts};
use crate::view::View;
use crate::world::{Conclusion, Duty, Job, Presence, Runner, World};

/// One job, with the time of each of its steps forward, in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobReport {
    /// The job's number.
    pub id: JobId,
    /// Its run's number.
    pub run_id: RunId,
    /// Which attempt of the run.
    pub run_attempt: u32,
    /// `owner/name`.
    pub repository: String,
    /// Its name.
    pub name: String,
    /// What it asks for, as written.
    pub labels: Vec<String>,
    /// `blocked` (needs other jobs), `waiting`, `queued`, `in_progress` or `completed`.
    pub status: String,
    /// How it ended: `success`, `failure`, `cancelled` or `skipped`.
    pub conclusion: Option<String>,
    /// Who ran it.
    pub runner: Option<String>,
    /// How often it went back to the queue after it had started.
    pub requeues: u32,
    /// When it was (last) queued.
    pub queued_at: Option<i64>,
    /// When a runner was chosen for it.
    pub assigned_at: Option<i64>,
    /// When the runner took it.
    pub started_at: Option<i64>,
    /// When it ended.
    pub completed_at: Option<i64>,
}

/// One registered runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerReport {
    /// Its number.
    pub id: RunnerId,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// `offline`, `idle`, `offered` (told of a job it has not taken) or `busy`.
    pub state: String,
    /// The job it was offered or works on.
    pub job: Option<JobId>,
}

/// One attempt to deliver a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryReport {
    /// The attempt's number.
    pub id: DeliveryId,
    /// The same for all attempts of one event.
    pub guid: String,
    /// Whose webhook.
    pub hook: HookId,
    /// The event, such as `workflow_job`.
    pub event: String,
    /// The event's action, such as `queued`.
    pub action: Option<String>,
    /// True if a person or a client asked for it again.
    pub redelivery: bool,
    /// When it was made, as RFC 3339.
    pub delivered_at: String,
    /// `pending`, the answer's HTTP status, or why there is none.
    pub outcome: String,
}

/// Totals since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Jobs by status; see [`JobReport::status`].
    pub jobs: BTreeMap<String, u64>,
    /// Ended jobs by conclusion.
    pub conclusions: BTreeMap<String, u64>,
    /// How often a started job went back to the queue.
    pub requeued: u64,
    /// Jobs that nobody took in time.
    pub jobs_expired: u64,
    /// REST requests that a fault struck.
    pub requests_struck: u64,
    /// Runners and their registrations.
    pub runners: RunnerStatistics,
    /// Webhooks.
    pub deliveries: DeliveryStatistics,
}

/// What became of registrations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerStatistics {
    /// Registrations made.
    pub created: u64,
    /// Registrations gone, for any reason.
    pub removed: u64,
    /// Gone because the runner ended its job.
    pub finished: u64,
    /// Gone because a client removed them.
    pub deregistered: u64,
    /// Gone because the runner was lost.
    pub lost: u64,
    /// Gone because the runner was offered a job and never took it.
    pub unacknowledged: u64,
    /// Gone because the job the runner was offered was cancelled before it took it.
    pub withdrawn: u64,
    /// Gone because nobody ever used them.
    pub expired: u64,
    /// Still registered.
    pub registered: u64,
    /// Registrations that no runner holds: those still there without a session, and those that
    /// had to expire. When a fleet is at rest there must be none.
    pub leaked: u64,
}

/// What became of webhooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryStatistics {
    /// Put on the wire, duplicates and redeliveries included.
    pub attempted: u64,
    /// Answered 2xx.
    pub succeeded: u64,
    /// Not answered, or not 2xx; dropped ones included.
    pub failed: u64,
    /// Not sent but listed as failed, by a fault.
    pub dropped: u64,
    /// Neither sent nor listed, by a fault.
    pub vanished: u64,
    /// Sent once more than they should, by a fault.
    pub duplicated: u64,
    /// Sent again on request.
    pub redelivered: u64,
    /// Not sent or not answered yet.
    pub pending: u64,
}

impl Statistics {
    /// True when every job has ended.
    pub fn all_done(&self) -> bool {
        self.jobs.keys().all(|status| status == "completed")
    }

    /// How many jobs have `status`.
    pub fn jobs_in(&self, status: &str) -> u64 {
        self.jobs.get(status).copied().unwrap_or(0)
    }

    /// How many jobs ended with `conclusion`.
    pub fn concluded(&self, conclusion: &str) -> u64 {
        self.conclusions.get(conclusion).copied().unwrap_or(0)
    }

    pub(crate) fn of(world: &World, post: PostCounts) -> Self {
        let mut jobs = BTreeMap::new();
        let mut conclusions = BTreeMap::new();
        for job in world.jobs.values() {
            *jobs.entry(status(job).to_string()).or_default() += 1;
            if let Some(conclusion) = job.conclusion() {
                *conclusions.entry(conclusion.as_str().to_string()).or_default() += 1;
            }
        }
        let counts = world.counts;
        let registered = world.runners.len() as u64;
        let offline =
            world.runners.values().filter(|one| matches!(one.presence, Presence::Offline)).count();
        Self {
            jobs,
            conclusions,
            requeued: counts.requeued,
            jobs_expired: counts.jobs_expired,
            requests_struck: counts.requests_struck,
            runners: RunnerStatistics {
                created: counts.registered,
                removed: counts.registered - registered,
                finished: counts.finished,
                deregistered: counts.deregistered,
                lost: counts.lost,
                unacknowledged: counts.unacknowledged,
                withdrawn: counts.withdrawn,
                expired: counts.expired,
                registered,
                leaked: counts.expired + offline as u64,
            },
            deliveries: DeliveryStatistics {
                attempted: post.attempted,
                succeeded: post.succeeded,
                failed: post.failed,
                dropped: post.dropped,
                vanished: post.vanished,
                duplicated: post.duplicated,
                redelivered: post.redelivered,
                pending: post.pending,
            },
        }
    }
}

fn status(job: &Job) -> &'static str {
    job.status().unwrap_or("blocked")
}

pub(crate) fn job(view: View<'_>, job: &Job) -> JobReport {
    let marks = &job.marks;
    let millis = |at: Option<Timestamp>| at.map(Timestamp::as_millis);
    JobReport {
        id: job.id,
        run_id: job.run,
        run_attempt: job.attempt,
        repository: view.full_name(job.repository),
        name: job.name.clone(),
        labels: job.labels.clone(),
        status: status(job).into(),
        conclusion: job.conclusion().map(Conclusion::as_str).map(Into::into),
        runner: job.runner.as_ref().map(|runner| runner.name.clone()),
        requeues: job.requeues,
        queued_at: millis(marks.queued_at),
        assigned_at: millis(marks.assigned_at),
        started_at: millis(marks.started_at),
        completed_at: millis(marks.completed_at),
    }
}

pub(crate) fn runner(runner: &Runner) -> RunnerReport {
    let (state, job) = match runner.duty() {
        None => ("offline", None),
        Some(Duty::Idle) => ("idle", None),
        Some(Duty::Offered(job)) => ("offered", Some(job)),
        Some(Duty::Busy(job)) => ("busy", Some(job)),
    };
    RunnerReport {
        id: runner.id,
        name: runner.name.clone(),
        labels: runner.labels.iter().map(ToString::to_string).collect(),
        state: state.into(),
        job,
    }
}

pub(crate) fn delivery(delivery: &Delivery) -> DeliveryReport {
    let letter = &delivery.letter;
    DeliveryReport {
        id: delivery.id,
        guid: letter.guid.clone(),
        hook: letter.hook,
        event: letter.event.into(),
        action: letter.action.map(Into::into),
        redelivery: letter.redelivery,
        delivered_at: iso_millis(delivery.delivered_at),
        outcome: match &delivery.outcome {
            Outcome::Pending => "pending".into(),
            Outcome::Answered { status, .. } => status.to_string(),
            Outcome::Failed { why, .. } => why.clone(),
        },
    }
}
