//! A job as GitHub sees it.

use std::sync::Arc;

use remuda_core::Timestamp;
use remuda_core::label::LabelSet;
use serde::{Deserialize, Serialize};

use crate::id::{GroupId, JobId, RepositoryId, RunId, RunnerId};
use crate::workflow::{Combination, Recipe};

/// Most bytes kept of one job's log.
pub(crate) const LOG_BYTES_MAX: usize = 1024 * 1024;

#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) run: RunId,
    pub(crate) repository: RepositoryId,
    pub(crate) attempt: u32,
    pub(crate) key: String,
    pub(crate) name: String,
    /// As written in the workflow; compared without case.
    pub(crate) labels: Vec<String>,
    pub(crate) wanted: LabelSet,
    pub(crate) group: Option<String>,
    pub(crate) gated: bool,
    pub(crate) combination: Combination,
    pub(crate) recipe: Arc<Recipe>,
    pub(crate) state: JobState,
    pub(crate) marks: Marks,
    pub(crate) runner: Option<RunnerRef>,
    pub(crate) steps: Vec<StepState>,
    pub(crate) log: String,
    pub(crate) requeues: u32,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobState {
    /// It needs other jobs first; GitHub does not show it yet.
    Blocked,
    /// Its environment must be released first.
    Waiting,
    /// Any matching runner may have it.
    Queued,
    /// A runner was told of it and has not acknowledged; GitHub shows it as queued.
    Offered(RunnerId),
    /// A runner works on it.
    Running(RunnerId),
    /// A runner works on it and was told to stop.
    Stopping(RunnerId),
    /// It ended.
    Done(Conclusion),
}

/// How a job or a step ended, in GitHub's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Conclusion {
    Success,
    Failure,
    Cancelled,
    Skipped,
}

impl Conclusion {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

/// The `action` of a `workflow_job` webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobAction {
    Waiting,
    Queued,
    InProgress,
    Completed,
}

impl JobAction {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
        }
    }
}

/// When a job passed each point, for measuring how long a fleet takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "these are GitHub's names")]
pub(crate) struct Marks {
    pub(crate) created_at: Timestamp,
    pub(crate) queued_at: Option<Timestamp>,
    pub(crate) assigned_at: Option<Timestamp>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) completed_at: Option<Timestamp>,
}

/// Who ran a job; kept after the runner is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunnerRef {
    pub(crate) id: RunnerId,
    pub(crate) name: String,
    pub(crate) group: GroupId,
    pub(crate) group_name: String,
}

/// A step as its runner reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StepState {
    pub(crate) name: String,
    pub(crate) status: StepStatus,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) completed_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StepStatus {
    Queued,
    InProgress,
    Completed(Conclusion),
}

impl Job {
    /// GitHub's word for the state; `None` while GitHub would not show the job at all.
    pub(crate) const fn status(&self) -> Option<&'static str> {
        match self.state {
            JobState::Blocked => None,
            JobState::Waiting => Some("waiting"),
            JobState::Queued | JobState::Offered(_) => Some("queued"),
            JobState::Running(_) | JobState::Stopping(_) => Some("in_progress"),
            JobState::Done(_) => Some("completed"),
        }
    }

    pub(crate) const fn conclusion(&self) -> Option<Conclusion> {
        match self.state {
            JobState::Done(conclusion) => Some(conclusion),
            JobState::Blocked
            | JobState::Waiting
            | JobState::Queued
            | JobState::Offered(_)
            | JobState::Running(_)
            | JobState::Stopping(_) => None,
        }
    }

    /// The runner at work on it.
    pub(crate) const fn worked_on_by(&self) -> Option<RunnerId> {
        match self.state {
            JobState::Running(runner) | JobState::Stopping(runner) => Some(runner),
            JobState::Blocked
            | JobState::Waiting
            | JobState::Queued
            | JobState::Offered(_)
            | JobState::Done(_) => None,
        }
    }

    /// Adds to the log; beyond [`LOG_BYTES_MAX`] nothing is kept.
    pub(crate) fn append_log(&mut self, text: &str) {
        let room = LOG_BYTES_MAX.saturating_sub(self.log.len());
        let mut end = room.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.log.push_str(&text[..end]);
    }

    /// Closes the steps that were still open when the job ended.
    pub(super) fn close_steps(&mut self, now: Timestamp) {
        for step in &mut self.steps {
            if !matches!(step.status, StepStatus::Completed(_)) {
                step.status = StepStatus::Completed(Conclusion::Cancelled);
                step.started_at.get_or_insert(now);
                step.completed_at = Some(now);
            }
        }
    }
}
