//! Runners: one registration, one session, one job, gone.

use rand::Rng;
use remuda_core::Timestamp;
use remuda_core::label::{LabelError, LabelSet};

use super::market::{JobClass, RunnerClass};
use super::{
    Conclusion, GroupVisibility, Job, JobAction, JobState, RunnerRef, StepState, StepStatus, Timer,
    World, next,
};
use crate::config::Visibility;
use crate::faults::RunnerFate;
use crate::id::{GroupId, JobId, OwnerId, RepositoryId, RunnerId};

/// Where a runner is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    Organization(OwnerId),
    Repository(RepositoryId),
}

#[derive(Clone)]
pub(crate) struct Runner {
    pub(crate) id: RunnerId,
    pub(crate) name: String,
    pub(crate) scope: Scope,
    pub(crate) group: GroupId,
    pub(crate) labels: LabelSet,
    pub(crate) os: String,
    pub(crate) presence: Presence,
    /// When it was registered or last in touch.
    pub(crate) last_seen_at: Timestamp,
    pub(super) credential: String,
}

#[derive(Clone)]
pub(crate) enum Presence {
    /// Registered, without a session.
    Offline,
    Online {
        session: Session,
        duty: Duty,
    },
}

#[derive(Clone)]
pub(crate) struct Session {
    pub(super) id: String,
    /// Polls held open at this moment: while there is one, the runner is in touch.
    pub(crate) polls: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    Idle,
    /// Told of a job that it has not acknowledged.
    Offered(JobId),
    Busy(JobId),
}

impl Runner {
    pub(crate) const fn duty(&self) -> Option<Duty> {
        match &self.presence {
            Presence::Offline => None,
            Presence::Online { duty, .. } => Some(*duty),
        }
    }

    /// True from the moment it is told of a job: GitHub then refuses to remove it.
    pub(crate) const fn busy(&self) -> bool {
        matches!(self.duty(), Some(Duty::Offered(_) | Duty::Busy(_)))
    }

    fn class(&self) -> RunnerClass {
        RunnerClass { scope: self.scope, group: self.group, labels: self.labels.clone() }
    }
}

impl Job {
    pub(super) fn class(&self) -> JobClass {
        JobClass {
            repository: self.repository,
            group: self.group.clone(),
            wanted: self.wanted.clone(),
        }
    }
}

/// What a poll gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Offer(JobId),
    Cancel(JobId),
}

/// Why a runner was not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error("Already exists - A runner with the name '{0}' already exists.")]
    NameTaken(String),
    #[error("Runner group {0} was not found.")]
    NoGroup(GroupId),
    #[error("Invalid runner name: 1 to 64 characters without control characters.")]
    Name,
    #[error("Invalid labels: {0}")]
    Labels(#[from] LabelError),
    #[error("Invalid labels: at least one is required.")]
    NoLabels,
}

/// Why a registration was not removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RemoveError {
    #[error("there is no such runner")]
    NotFound,
    #[error("Runner \"{0}\" is currently running a job and cannot be deleted.")]
    Busy(String),
}

/// Why a runner's request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("the registration does not exist")]
    NotRegistered,
    #[error("a session for this runner already exists")]
    Conflict,
    #[error("the session does not exist")]
    NoSession,
    #[error("the job is not this runner's")]
    NotYours,
}

impl World {
    /// Registers a runner for one job and gives its number and credential.
    pub(crate) fn register<T: AsRef<str>>(
        &mut self,
        scope: Scope,
        group: GroupId,
        name: &str,
        labels: &[T],
        now: Timestamp,
    ) -> Result<(RunnerId, String), RegisterError> {
        if !(1..=64).contains(&name.chars().count()) || name.chars().any(char::is_control) {
            return Err(RegisterError::Name);
        }
        let labels = LabelSet::parse(labels)?;
        if labels.is_empty() {
            return Err(RegisterError::NoLabels);
        }
        let key = (scope, name.to_lowercase());
        if self.runner_by_name.contains_key(&key) {
            return Err(RegisterError::NameTaken(name.into()));
        }
        let group_exists = match scope {
            Scope::Organization(owner) => self.groups.contains_key(&(owner, group)),
            // A repository has its default group only.
            Scope::Repository(_) => group == GroupId(1),
        };
        if !group_exists {
            return Err(RegisterError::NoGroup(group));
        }
        let id = RunnerId(next(&mut self.numbers.runner));
        let credential = self.secret("rjc");
        self.runner_by_name.insert(key, id);
        self.runner_by_credential.insert(credential.clone(), id);
        let runner = Runner {
            id,
            name: name.into(),
            scope,
            group,
            labels,
            os: "unknown".into(),
            presence: Presence::Offline,
            last_seen_at: now,
            credential: credential.clone(),
        };
        self.runners.insert(id, runner);
        self.counts.registered += 1;
        self.remind(now + self.times.registration_expiry, Timer::RegistrationExpiry(id));
        Ok((id, credential))
    }

    /// Removes a registration, unless its runner has a job: the proof that it had none.
    pub(crate) fn deregister(&mut self, id: RunnerId) -> Result<(), RemoveError> {
        let runner = self.runners.get(&id).ok_or(RemoveError::NotFound)?;
        if runner.busy() {
            return Err(RemoveError::Busy(runner.name.clone()));
        }
        self.forget_runner(id);
        self.counts.deregistered += 1;
        Ok(())
    }

    /// Opens the session of the runner with this credential.
    pub(crate) fn connect(
        &mut self,
        credential: &str,
        os: &str,
        now: Timestamp,
    ) -> Result<(RunnerId, String), SessionError> {
        let id = *self.runner_by_credential.get(credential).ok_or(SessionError::NotRegistered)?;
        let session = self.secret("ses");
        let runner = self.runners.get_mut(&id).ok_or(SessionError::NotRegistered)?;
        if !matches!(runner.presence, Presence::Offline) {
            return Err(SessionError::Conflict);
        }
        runner.os = os.chars().filter(|c| !c.is_control()).take(64).collect();
        runner.last_seen_at = now;
        let open = Session { id: session.clone(), polls: 0 };
        runner.presence = Presence::Online { session: open, duty: Duty::Idle };
        let class = runner.class();
        self.runner_by_session.insert(session.clone(), id);
        self.remind(now + self.times.runner_silence, Timer::Contact(id));
        match self.market.oldest_job(|job| self.serves(&class, job)) {
            Some(job) => self.offer(job, id, now),
            None => self.market.add_runner(class, id),
        }
        Ok((id, session))
    }

    pub(crate) fn runner_of(&self, session: &str) -> Result<RunnerId, SessionError> {
        self.runner_by_session.get(session).copied().ok_or(SessionError::NoSession)
    }

    /// What the runner of `session` must be told, if anything.
    pub(crate) fn message(&self, session: &str) -> Result<Option<Message>, SessionError> {
        let runner = &self.runners[&self.runner_of(session)?];
        Ok(match runner.duty() {
            Some(Duty::Offered(job)) => Some(Message::Offer(job)),
            Some(Duty::Busy(job)) => match self.jobs[&job].state {
                JobState::Stopping(_) => Some(Message::Cancel(job)),
                JobState::Blocked
                | JobState::Waiting
                | JobState::Queued
                | JobState::Offered(_)
                | JobState::Running(_)
                | JobState::Done(_) => None,
            },
            Some(Duty::Idle) | None => None,
        })
    }

    /// A poll of this session is held open from now.
    pub(crate) fn poll_opened(&mut self, session: &str, now: Timestamp) {
        if let Some(open) = self.touch(session, now) {
            open.polls += 1;
        }
    }

    /// A poll of this session was answered or its connection broke.
    pub(crate) fn poll_closed(&mut self, session: &str, now: Timestamp) {
        let Some(open) = self.touch(session, now) else { return };
        open.polls = open.polls.saturating_sub(1);
        if open.polls == 0
            && let Ok(id) = self.runner_of(session)
        {
            self.remind(now + self.times.runner_silence, Timer::Contact(id));
        }
    }

    /// The runner was in touch.
    pub(crate) fn touch(&mut self, session: &str, now: Timestamp) -> Option<&mut Session> {
        let id = self.runner_of(session).ok()?;
        let runner = self.runners.get_mut(&id)?;
        runner.last_seen_at = now;
        match &mut runner.presence {
            Presence::Offline => None,
            Presence::Online { session, .. } => Some(session),
        }
    }

    /// The runner takes the job it was offered; from here on it is in progress.
    pub(crate) fn acknowledge(
        &mut self,
        session: &str,
        job: JobId,
        now: Timestamp,
    ) -> Result<&Job, SessionError> {
        let id = self.runner_of(session)?;
        self.touch(session, now);
        let runner = &self.runners[&id];
        if runner.duty() != Some(Duty::Offered(job)) {
            return Err(SessionError::NotYours);
        }
        let group_name = match runner.scope {
            Scope::Organization(owner) => self.groups[&(owner, runner.group)].name.clone(),
            Scope::Repository(_) => "Default".into(),
        };
        let who = RunnerRef { id, name: runner.name.clone(), group: runner.group, group_name };
        self.set_duty(id, Duty::Busy(job));
        let started = self.jobs.get_mut(&job).ok_or(SessionError::NotYours)?;
        started.state = JobState::Running(id);
        started.runner = Some(who);
        started.marks.started_at = Some(now);
        started.steps = started.recipe.steps.iter().map(queued_step).collect();
        self.emit(job, JobAction::InProgress);
        match self.dice.runner(&self.faults) {
            RunnerFate::Works => {}
            RunnerFate::Lost { after } => self.remind(now + after, Timer::Loss(id)),
        }
        Ok(&self.jobs[&job])
    }

    /// The job this session works on, if it is `job`.
    pub(crate) fn own_job(
        &mut self,
        session: &str,
        job: JobId,
        now: Timestamp,
    ) -> Result<&mut Job, SessionError> {
        let id = self.runner_of(session)?;
        self.touch(session, now);
        let own = self.runners[&id].duty() == Some(Duty::Busy(job));
        self.jobs.get_mut(&job).filter(|_| own).ok_or(SessionError::NotYours)
    }

    /// The runner is done with its job; its registration is used up.
    pub(crate) fn complete(
        &mut self,
        session: &str,
        job: JobId,
        conclusion: Conclusion,
        now: Timestamp,
    ) -> Result<(), SessionError> {
        let stopping = matches!(self.own_job(session, job, now)?.state, JobState::Stopping(_));
        let runner = self.runner_of(session)?;
        self.forget_runner(runner);
        self.counts.finished += 1;
        self.end_job(job, if stopping { Conclusion::Cancelled } else { conclusion }, now);
        Ok(())
    }

    /// The runner closes its session; a job it was offered is queued again.
    pub(crate) fn disconnect(&mut self, id: RunnerId, now: Timestamp) {
        let Some(runner) = self.runners.get_mut(&id) else { return };
        let class = runner.class();
        let before = std::mem::replace(&mut runner.presence, Presence::Offline);
        let Presence::Online { session, duty } = before else { return };
        runner.last_seen_at = now;
        self.runner_by_session.remove(&session.id);
        self.remind(now + self.times.registration_expiry, Timer::RegistrationExpiry(id));
        match duty {
            Duty::Idle => self.market.remove_runner(&class, id),
            Duty::Offered(job) => self.queue_again(job, now),
            Duty::Busy(job) => {
                self.forget_runner(id);
                self.counts.lost += 1;
                self.end_job(job, Conclusion::Failure, now);
            }
        }
    }

    /// A fault: the runner vanishes; the job it has is queued again or fails.
    pub(crate) fn lose_runner(&mut self, id: RunnerId, requeue: bool, now: Timestamp) -> bool {
        let Some(runner) = self.runners.get(&id) else { return false };
        let duty = runner.duty();
        self.forget_runner(id);
        self.counts.lost += 1;
        match duty {
            None | Some(Duty::Idle) => {}
            Some(Duty::Offered(job)) => self.queue_again(job, now),
            Some(Duty::Busy(job)) if requeue => self.put_back(job, now),
            Some(Duty::Busy(job)) => {
                self.note(job, "The self-hosted runner lost communication with the server.");
                self.end_job(job, Conclusion::Failure, now);
            }
        }
        true
    }

    /// A started job goes back to the queue under its own number, as GitHub does with a job whose
    /// runner was lost. False if the job is not started.
    pub(crate) fn requeue(&mut self, job: JobId, now: Timestamp) -> bool {
        let Some(runner) = self.jobs.get(&job).and_then(Job::worked_on_by) else { return false };
        self.forget_runner(runner);
        self.counts.lost += 1;
        self.put_back(job, now);
        true
    }

    fn put_back(&mut self, id: JobId, now: Timestamp) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.requeues += 1;
            self.counts.requeued += 1;
            self.queue(id, now);
        }
    }

    /// Takes a runner out of everything. Its job is the caller's to settle.
    pub(super) fn forget_runner(&mut self, id: RunnerId) {
        let Some(runner) = self.runners.remove(&id) else { return };
        self.runner_by_name.remove(&(runner.scope, runner.name.to_lowercase()));
        self.runner_by_credential.remove(&runner.credential);
        self.market.remove_runner(&runner.class(), id);
        if let Presence::Online { session, .. } = runner.presence {
            self.runner_by_session.remove(&session.id);
        }
        self.effects.push(super::Effect::Wake(id));
    }

    /// Finds a runner for a job that is queued, or leaves it on the market.
    pub(super) fn assign(&mut self, id: JobId, now: Timestamp) {
        let Some(job) = self.jobs.get(&id) else { return };
        let class = job.class();
        let queued_at = job.marks.queued_at.unwrap_or(now);
        let count = self.market.count_idle(|runner| self.serves(runner, &class));
        // Each idle runner is as likely as the next: nobody may count on a particular one.
        let place = if count == 0 { 0 } else { self.chance.random_range(0..count) };
        match self.market.idle_at(place, |runner| self.serves(runner, &class)) {
            Some(runner) => self.offer(id, runner, now),
            None => self.market.add_job(class, queued_at, id),
        }
    }

    fn offer(&mut self, job: JobId, runner: RunnerId, now: Timestamp) {
        self.withdraw(job);
        if let Some(class) = self.runners.get(&runner).map(Runner::class) {
            self.market.remove_runner(&class, runner);
        }
        self.set_duty(runner, Duty::Offered(job));
        if let Some(job) = self.jobs.get_mut(&job) {
            job.state = JobState::Offered(runner);
            job.marks.assigned_at = Some(now);
        }
        self.remind(now + self.times.pick_up, Timer::PickUp(job, runner));
        self.effects.push(super::Effect::Wake(runner));
    }

    /// An offered job goes back to the queue and keeps its place there.
    pub(super) fn queue_again(&mut self, id: JobId, now: Timestamp) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.state = JobState::Queued;
            job.marks.assigned_at = None;
            self.assign(id, now);
        }
    }

    fn set_duty(&mut self, id: RunnerId, to: Duty) {
        if let Some(Runner { presence: Presence::Online { duty, .. }, .. }) =
            self.runners.get_mut(&id)
        {
            *duty = to;
        }
    }

    /// GitHub's rule: all labels, the right scope, a group that may serve the repository.
    fn serves(&self, runner: &RunnerClass, job: &JobClass) -> bool {
        let repository = &self.repositories[&job.repository];
        let reaches = match runner.scope {
            Scope::Repository(id) => id == repository.id && job.group.is_none(),
            Scope::Organization(owner) => {
                let group = &self.groups[&(owner, runner.group)];
                let named = |name: &String| group.name.eq_ignore_ascii_case(name);
                let visible = match &group.visibility {
                    GroupVisibility::All => true,
                    GroupVisibility::Private => repository.visibility == Visibility::Private,
                    GroupVisibility::Selected(selected) => selected.contains(&repository.id),
                };
                owner == repository.owner
                    && visible
                    && job.group.as_ref().is_none_or(named)
                    && (group.allows_public || repository.visibility == Visibility::Private)
            }
        };
        reaches && runner.labels.satisfies(&job.wanted)
    }

    /// A random bearer secret. Reproducible by the seed, which a secret that guards nothing may be.
    pub(super) fn secret(&mut self, kind: &str) -> String {
        format!("{kind}_{:032x}", self.chance.random::<u128>())
    }
}

fn queued_step(step: &crate::workflow::Step) -> StepState {
    StepState {
        name: step.name.clone(),
        status: StepStatus::Queued,
        started_at: None,
        completed_at: None,
    }
}
