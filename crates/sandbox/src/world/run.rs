//! Workflow runs: from a submitted workflow to jobs, and from jobs' ends to what they let go on.

use std::collections::BTreeSet;
use std::sync::Arc;

use remuda_core::Timestamp;
use remuda_core::label::LabelSet;

use super::{Conclusion, Effect, Job, JobAction, JobState, Marks, Timer, World, next};
use crate::hex::hex;
use crate::id::{JobId, RepositoryId, RunId};
use crate::workflow::{Combination, JobTemplate, Standing, Workflow, expression};

#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) id: RunId,
    pub(crate) repository: RepositoryId,
    pub(crate) number: u64,
    pub(crate) attempt: u32,
    pub(crate) name: String,
    pub(crate) sha: String,
    pub(crate) created_at: Timestamp,
    pub(crate) started_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) workflow: Arc<Workflow>,
    /// The jobs of the latest attempt, in the workflow's order.
    pub(crate) jobs: Vec<JobId>,
    /// The jobs of earlier attempts that were replaced.
    pub(crate) earlier: Vec<JobId>,
    cancelled: bool,
}

/// Where a run stands, in GitHub's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunStatus {
    Queued,
    Waiting,
    InProgress,
    Completed(Conclusion),
}

impl RunStatus {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Waiting => "waiting",
            Self::InProgress => "in_progress",
            Self::Completed(_) => "completed",
        }
    }

    pub(crate) const fn conclusion(self) -> Option<Conclusion> {
        match self {
            Self::Completed(conclusion) => Some(conclusion),
            Self::Queued | Self::Waiting | Self::InProgress => None,
        }
    }
}

/// Why a run was not cancelled or rerun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RunError {
    #[error("there is no such run")]
    NotFound,
    #[error("Cannot cancel a workflow run that is completed.")]
    Completed,
    #[error("This workflow run is already running.")]
    Running,
    #[error("There are no failed jobs to rerun.")]
    NothingFailed,
}

/// Which jobs a rerun makes anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rerun {
    All,
    Failed,
}

impl World {
    /// Starts a run of `workflow`; `text` is its file, from which the commit's hash is made up.
    pub(crate) fn submit(
        &mut self,
        repository: RepositoryId,
        workflow: &Arc<Workflow>,
        text: &str,
        now: Timestamp,
    ) -> RunId {
        let id = RunId(next(&mut self.numbers.run));
        let number = self.repositories.get_mut(&repository).map_or(1, |repository| {
            repository.runs += 1;
            repository.runs
        });
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        let sha = hex(&digest.as_ref()[..20]);
        let run = Run {
            id,
            repository,
            number,
            attempt: 1,
            name: workflow.name.clone().unwrap_or_else(|| "workflow".into()),
            sha,
            created_at: now,
            started_at: now,
            updated_at: now,
            workflow: workflow.clone(),
            jobs: Vec::new(),
            earlier: Vec::new(),
            cancelled: false,
        };
        self.runs.insert(id, run);
        self.runs_of.entry(repository).or_default().insert(id);
        for template in &workflow.jobs {
            for combination in &template.combinations {
                self.create_job(id, template, combination, now);
            }
        }
        self.release_needs(id, now);
        id
    }

    fn create_job(
        &mut self,
        run: RunId,
        template: &JobTemplate,
        combination: &Combination,
        now: Timestamp,
    ) {
        let id = JobId(next(&mut self.numbers.job));
        let expand = |text: &String| {
            expression::expand(text, |name| match name.split_once('.') {
                Some(("matrix", key)) => combination.get(key).cloned(),
                Some(("github", "job")) => Some(template.key.clone()),
                Some(("github", key)) => self.github(run, key),
                _ => None,
            })
        };
        let values: Vec<&str> = combination.values().map(String::as_str).collect();
        let name = match &template.name {
            Some(name) => expand(name),
            None if values.is_empty() => template.key.clone(),
            None => format!("{} ({})", template.key, values.join(", ")),
        };
        let labels: Vec<String> = template.labels.iter().map(expand).collect();
        let group = template.group.as_ref().map(expand);
        let wanted = LabelSet::parse(&labels)
            .expect("labels are checked with every combination when the workflow is read");
        let run_of = &self.runs[&run];
        let job = Job {
            id,
            run,
            repository: run_of.repository,
            attempt: run_of.attempt,
            key: template.key.clone(),
            name,
            labels,
            wanted,
            group,
            gated: template.environment.is_some(),
            combination: combination.clone(),
            recipe: template.recipe.clone(),
            state: JobState::Blocked,
            marks: Marks {
                created_at: now,
                queued_at: None,
                assigned_at: None,
                started_at: None,
                completed_at: None,
            },
            runner: None,
            steps: Vec::new(),
            log: String::new(),
            requeues: 0,
        };
        self.jobs.insert(id, job);
        if let Some(run) = self.runs.get_mut(&run) {
            run.jobs.push(id);
        }
    }

    /// The value of `github.KEY` in a run, but for `github.job`.
    pub(crate) fn github(&self, run: RunId, key: &str) -> Option<String> {
        let run = self.runs.get(&run)?;
        let repository = &self.repositories[&run.repository];
        let owner = &self.owners[&repository.owner].login;
        match key {
            "repository" => Some(format!("{owner}/{}", repository.name)),
            "repository_owner" => Some(owner.clone()),
            "run_id" => Some(run.id.to_string()),
            "run_number" => Some(run.number.to_string()),
            "run_attempt" => Some(run.attempt.to_string()),
            "sha" => Some(run.sha.clone()),
            "workflow" => Some(run.name.clone()),
            "ref" => Some("refs/heads/main".into()),
            _ => None,
        }
    }

    /// Puts a job into the queue as new.
    pub(super) fn queue(&mut self, id: JobId, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.state = JobState::Queued;
        job.runner = None;
        job.steps.clear();
        job.marks = Marks {
            created_at: job.marks.created_at,
            queued_at: Some(now),
            assigned_at: None,
            started_at: None,
            completed_at: None,
        };
        self.emit(id, JobAction::Queued);
        self.remind(now + self.times.job_expiry, Timer::JobExpiry(id));
        self.assign(id, now);
    }

    /// Lets a job past its environment. False if it does not wait.
    pub(crate) fn release(&mut self, id: JobId, now: Timestamp) -> bool {
        let waiting = self.jobs.get(&id).is_some_and(|job| job.state == JobState::Waiting);
        if waiting {
            self.queue(id, now);
        }
        waiting
    }

    /// Takes a job off the market, and off the runner it was offered to.
    pub(super) fn withdraw(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        match job.state {
            JobState::Queued => {
                let queued_at = job.marks.queued_at.unwrap_or(job.marks.created_at);
                let class = job.class();
                self.market.remove_job(&class, queued_at, id);
            }
            // The offer used the registration up.
            JobState::Offered(runner) => {
                self.forget_runner(runner);
                self.counts.withdrawn += 1;
            }
            JobState::Blocked
            | JobState::Waiting
            | JobState::Running(_)
            | JobState::Stopping(_)
            | JobState::Done(_) => {}
        }
    }

    /// Ends a job and lets what needed it go on.
    pub(super) fn end_job(&mut self, id: JobId, conclusion: Conclusion, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.state = JobState::Done(conclusion);
        job.close_steps(now);
        job.marks.completed_at = Some(now);
        let (run, key) = (job.run, job.key.clone());
        self.emit(id, JobAction::Completed);
        if conclusion == Conclusion::Failure {
            self.fail_fast(run, &key, now);
        }
        self.release_needs(run, now);
    }

    fn fail_fast(&mut self, run: RunId, key: &str, now: Timestamp) {
        let run = &self.runs[&run];
        let fails_fast = run.workflow.jobs.iter().any(|job| job.key == key && job.fail_fast);
        if !fails_fast {
            return;
        }
        let siblings: Vec<JobId> =
            run.jobs.iter().copied().filter(|id| self.jobs[id].key == key).collect();
        for sibling in siblings {
            self.cancel_job(sibling, now);
        }
    }

    fn cancel_job(&mut self, id: JobId, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        match job.state {
            JobState::Done(_) | JobState::Stopping(_) => {}
            JobState::Running(runner) => {
                job.state = JobState::Stopping(runner);
                self.effects.push(Effect::Wake(runner));
                self.remind(now + self.times.cancel_grace, Timer::CancelGrace(id, runner));
            }
            JobState::Blocked | JobState::Waiting | JobState::Queued | JobState::Offered(_) => {
                self.withdraw(id);
                self.end_job(id, Conclusion::Cancelled, now);
            }
        }
    }

    pub(crate) fn cancel_run(&mut self, id: RunId, now: Timestamp) -> Result<(), RunError> {
        let run = self.runs.get_mut(&id).ok_or(RunError::NotFound)?;
        run.cancelled = true;
        let jobs = run.jobs.clone();
        if self.run_status(id).conclusion().is_some() {
            return Err(RunError::Completed);
        }
        for job in jobs {
            self.cancel_job(job, now);
        }
        Ok(())
    }

    /// Runs all jobs of a completed run again, or those that did not succeed.
    pub(crate) fn rerun(
        &mut self,
        id: RunId,
        which: Rerun,
        now: Timestamp,
    ) -> Result<(), RunError> {
        if !self.runs.contains_key(&id) {
            return Err(RunError::NotFound);
        }
        if self.run_status(id).conclusion().is_none() {
            return Err(RunError::Running);
        }
        let kept: BTreeSet<JobId> = match which {
            Rerun::All => BTreeSet::new(),
            Rerun::Failed => {
                let succeeded = |job: &Job| job.conclusion() == Some(Conclusion::Success);
                let jobs = self.runs[&id].jobs.iter().copied();
                jobs.filter(|job| succeeded(&self.jobs[job])).collect()
            }
        };
        let run = self.runs.get_mut(&id).ok_or(RunError::NotFound)?;
        let before = std::mem::take(&mut run.jobs);
        if kept.len() == before.len() {
            run.jobs = before;
            return Err(RunError::NothingFailed);
        }
        run.attempt += 1;
        run.started_at = now;
        run.cancelled = false;
        let workflow = run.workflow.clone();
        for old in before {
            if kept.contains(&old) {
                self.runs.get_mut(&id).ok_or(RunError::NotFound)?.jobs.push(old);
                continue;
            }
            let (key, combination) = {
                let job = &self.jobs[&old];
                (job.key.clone(), job.combination.clone())
            };
            if let Some(template) = workflow.jobs.iter().find(|template| template.key == key) {
                self.create_job(id, template, &combination, now);
            }
            self.runs.get_mut(&id).ok_or(RunError::NotFound)?.earlier.push(old);
        }
        self.release_needs(id, now);
        Ok(())
    }

    /// Starts or skips the jobs whose needs have all ended, until nothing more follows.
    fn release_needs(&mut self, id: RunId, now: Timestamp) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.updated_at = now;
        }
        loop {
            let ready = self.runs[&id].jobs.iter().copied().find_map(|job| {
                let blocked = self.jobs[&job].state == JobState::Blocked;
                if blocked { self.standing(job).map(|standing| (job, standing)) } else { None }
            });
            let Some((job, standing)) = ready else { return };
            if self.template(job).is_some_and(|template| template.condition.holds(standing)) {
                self.admit(job, now);
            } else {
                self.end_job_quietly(job, now);
            }
        }
    }

    fn admit(&mut self, id: JobId, now: Timestamp) {
        let gated = self.jobs[&id].gated;
        if let (true, Some(job)) = (gated, self.jobs.get_mut(&id)) {
            job.state = JobState::Waiting;
            self.emit(id, JobAction::Waiting);
        } else {
            self.queue(id, now);
        }
    }

    // The loop in `release_needs` sees what follows, so that long chains do not recurse.
    fn end_job_quietly(&mut self, id: JobId, now: Timestamp) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.state = JobState::Done(Conclusion::Skipped);
            job.marks.completed_at = Some(now);
            self.emit(id, JobAction::Completed);
        }
    }

    /// How things stand for a blocked job, once everything it needs has ended.
    fn standing(&self, id: JobId) -> Option<Standing> {
        let run = &self.runs[&self.jobs[&id].run];
        let needs = &self.template(id)?.needs;
        let mut standing = if run.cancelled { Standing::Cancelled } else { Standing::Good };
        for need in
            run.jobs.iter().map(|job| &self.jobs[job]).filter(|job| needs.contains(&job.key))
        {
            match need.conclusion()? {
                Conclusion::Success => {}
                Conclusion::Skipped => standing = standing.max(Standing::Skipped),
                Conclusion::Failure => standing = standing.max(Standing::Failed),
                Conclusion::Cancelled => standing = Standing::Cancelled,
            }
        }
        Some(standing)
    }

    fn template(&self, id: JobId) -> Option<&JobTemplate> {
        let job = &self.jobs[&id];
        self.runs[&job.run].workflow.jobs.iter().find(|template| template.key == job.key)
    }

    pub(crate) fn run_status(&self, id: RunId) -> RunStatus {
        let states = self.runs[&id].jobs.iter().map(|job| self.jobs[job].state);
        let (mut worst, mut open, mut begun, mut waiting) = (None, false, false, false);
        for state in states {
            match state {
                JobState::Blocked | JobState::Queued | JobState::Offered(_) => open = true,
                JobState::Waiting => (open, waiting) = (true, true),
                JobState::Running(_) | JobState::Stopping(_) => (open, begun) = (true, true),
                JobState::Done(conclusion) => {
                    begun |= conclusion != Conclusion::Skipped;
                    worst = worst.max(Some(severity(conclusion)));
                }
            }
        }
        match worst {
            _ if open && begun => RunStatus::InProgress,
            _ if open && waiting => RunStatus::Waiting,
            _ if open => RunStatus::Queued,
            Some(3) => RunStatus::Completed(Conclusion::Failure),
            Some(2) => RunStatus::Completed(Conclusion::Cancelled),
            Some(1) => RunStatus::Completed(Conclusion::Success),
            _ => RunStatus::Completed(Conclusion::Skipped),
        }
    }

    /// The runs of a repository, newest first.
    pub(crate) fn runs_of(&self, repository: RepositoryId) -> impl Iterator<Item = &Run> {
        let ids = self.runs_of.get(&repository).into_iter().flatten().rev();
        ids.filter_map(|id| self.runs.get(id))
    }

    /// Adds a line of the server's own to a job's log.
    pub(super) fn note(&mut self, job: JobId, line: &str) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.append_log(&format!("##[error]{line}\n"));
        }
    }
}

fn severity(conclusion: Conclusion) -> u8 {
    match conclusion {
        Conclusion::Failure => 3,
        Conclusion::Cancelled => 2,
        Conclusion::Success => 1,
        Conclusion::Skipped => 0,
    }
}
