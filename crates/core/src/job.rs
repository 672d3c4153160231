//! Jobs: the forge's units of work, as far as we were told of them.

use std::fmt;
use std::sync::Arc;

use crate::label::Wanted;
use crate::name::{ForgeName, RunnerName};
use crate::tenant::{Repository, Scope, TenantKey};
use crate::time::Timestamp;

/// The number space of a job's native id: one forge can name a job in several ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Namespace {
    /// The id of the REST API and of `workflow_job` deliveries.
    Rest,
}

/// A job's identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey {
    /// The forge it lives at.
    pub forge: ForgeName,
    /// The number space of `native`.
    pub namespace: Namespace,
    /// The forge's id for it.
    pub native: u64,
}

impl JobKey {
    /// The job that REST calls and deliveries know as `native`.
    pub fn rest(forge: &ForgeName, native: u64) -> Self {
        Self { forge: forge.clone(), namespace: Namespace::Rest, native }
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace {
            Namespace::Rest => write!(f, "{}/{}", self.forge, self.native),
        }
    }
}

/// Where an attempt stands. A chain: within one attempt it only moves right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobState {
    /// Held back by the forge (a deployment gate): not demand yet.
    Waiting,
    /// Asking for a runner.
    Queued,
    /// On a runner.
    InProgress,
    /// Over, however it ended.
    Completed,
}

impl JobState {
    /// Every state, left to right.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Queued, Self::InProgress, Self::Completed];

    /// The word for it, as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
        }
    }
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Conclusion {
    /// It did what it should.
    Success,
    /// Its own steps failed.
    Failure,
    /// Somebody ended it.
    Cancelled,
    /// It was not needed.
    Skipped,
    /// It ran out of the forge's time.
    TimedOut,
    /// It waits for a person, for good.
    ActionRequired,
    /// Neither good nor bad.
    Neutral,
    /// The forge no longer knew it, past the longest time it keeps a job queued.
    Expired,
    /// A word we do not know.
    Other,
}

impl Conclusion {
    /// Every conclusion.
    pub const ALL: [Self; 9] = [
        Self::Success,
        Self::Failure,
        Self::Cancelled,
        Self::Skipped,
        Self::TimedOut,
        Self::ActionRequired,
        Self::Neutral,
        Self::Expired,
        Self::Other,
    ];

    /// The word for it, as GitHub writes it, as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::TimedOut => "timed_out",
            Self::ActionRequired => "action_required",
            Self::Neutral => "neutral",
            Self::Expired => "expired",
            Self::Other => "other",
        }
    }
}

/// Whether a job's code may meet trusted runners. Decided before a machine exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trust {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// It may run only where nothing can be harmed.
    Untrusted,
    /// It may run anywhere.
    Trusted,
}

/// A runner as the forge names it in a job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunnerRef {
    /// The forge's id of the registration.
    pub id: u64,
    /// The name it was registered under; not necessarily one of ours.
    pub name: RunnerName,
}

/// What people call the job. Plain text from outside, bounded by [`Title::bounded`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Title {
    /// The job's name in its workflow.
    pub job: Arc<str>,
    /// The workflow's name.
    pub workflow: Arc<str>,
    /// The forge's page of the job.
    pub url: Arc<str>,
    /// The run it belongs to; 0 if the forge did not say.
    pub run: u64,
}

impl Title {
    /// Most characters kept of each text.
    pub const CHARS_MAX: usize = 300;

    /// `text` without control characters, cut to [`Self::CHARS_MAX`].
    pub fn bounded(text: &str) -> Arc<str> {
        text.chars().filter(|c| !c.is_control()).take(Self::CHARS_MAX).collect::<String>().into()
    }
}

/// One life of a job, from queued to completed. A forge that loses the job's runner may begin another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// Where it stands.
    pub state: JobState,
    /// Who runs or ran it, once the forge has said so.
    pub runner: Option<RunnerRef>,
    /// How it ended, once it has.
    pub conclusion: Option<Conclusion>,
    /// When the forge queued it (forge's clock; ours if it did not say).
    pub queued_at: Timestamp,
    /// When it began to run (forge's clock).
    pub started_at: Option<Timestamp>,
    /// When it ended (forge's clock).
    pub completed_at: Option<Timestamp>,
    /// When we learned the newest fact about it (our clock). Reads asked later may begin another attempt.
    pub fact_at: Timestamp,
}

/// Why the forge should be asked about one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// When the doubt arose.
    pub since: Timestamp,
    /// Since when the forge has said it knows no such job, if it has.
    pub missing_since: Option<Timestamp>,
    /// How often it was asked without settling the doubt; reads slow down with it.
    pub reads: u32,
    /// When it was asked last.
    pub read_at: Option<Timestamp>,
}

impl Doubt {
    /// A doubt that arose at `since`.
    pub const fn new(since: Timestamp) -> Self {
        Self { since, missing_since: None, reads: 0, read_at: None }
    }
}

/// Most runners of former attempts a job remembers.
pub const PAST_RUNNERS_MAX: usize = 8;

/// A job, with the attempt it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its identity.
    pub key: JobKey,
    /// Whose demand it is.
    pub tenant: TenantKey,
    /// Where a runner for it must register.
    pub scope: Scope,
    /// The repository it comes from.
    pub repository: Repository,
    /// What it asks of a runner.
    pub wanted: Wanted,
    /// Whether it may meet trusted runners.
    pub trust: Trust,
    /// What people call it.
    pub title: Title,
    /// When we first heard of it (our clock).
    pub accepted_at: Timestamp,
    /// The attempt it is in.
    pub attempt: Attempt,
    /// Who ran the attempts before, newest last, at most [`PAST_RUNNERS_MAX`]: a late fact that names
    /// one of these is about an attempt that is over.
    pub past_runners: Vec<RunnerRef>,
    /// Set while the forge should be asked about it.
    pub doubt: Option<Doubt>,
}

impl Job {
    /// True if it asks for a runner and the forge has not denied twice that it knows it.
    pub fn is_demand(&self) -> bool {
        self.attempt.state == JobState::Queued
            // One 404 may be a passing fault of the forge; the second one stops us from serving it.
            && self.doubt.is_none_or(|doubt| doubt.missing_since.is_none() || doubt.reads < 2)
    }

    /// True until it is over.
    pub fn is_open(&self) -> bool {
        self.attempt.state < JobState::Completed
    }
}
