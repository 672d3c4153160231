//! What happens to jobs and runners by themselves: boots, deaths, assignments, ends.

use std::time::Duration;

use remuda_core::controller::Rules;
use remuda_core::job::{Conclusion, JobState};
use remuda_core::runner::InstanceId;

use crate::hardship::Hardship;
use crate::marks::Mark;
use crate::oracle::Verdict;
use crate::run::{Event, World, millis};

impl<R: Rules + Clone> World<R> {
    pub(crate) fn online(&mut self, id: InstanceId) {
        let Some(instance) = self.truth.instances.get(&id).filter(|i| i.exited.is_none()) else {
            return;
        };
        let registration = instance.registration;
        if let Some(runner) = self.truth.runners.get_mut(&registration) {
            runner.online = true;
            self.mark(Mark::CameOnline);
            if self.rng.chance(self.hardship().goes_deaf) {
                let after = self.rng.span(0, 300_000);
                self.at(after, Event::Deaf(id));
            }
            if self.rng.chance(self.hardship().dies_idle) {
                let after = self.rng.span(0, 120_000);
                self.at(after, Event::Faint(id));
            }
            self.assign();
        } else {
            self.at(Duration::from_secs(2), Event::Exit(id, 1));
        }
    }

    pub(crate) fn deafen(&mut self, id: InstanceId) {
        let Some(instance) = self.truth.instances.get(&id) else { return };
        let registration = instance.registration;
        if self.truth.runners.get(&registration).is_some_and(|r| r.job.is_none() && r.online) {
            self.truth.runners.remove(&registration);
            self.waste += 1;
            self.mark(Mark::RunnerDeaf);
        }
    }

    pub(crate) fn exit(&mut self, id: InstanceId, code: i32) {
        let Some(instance) = self.truth.instances.get_mut(&id) else { return };
        if instance.exited.is_none() {
            instance.exited = Some(code);
            if let Some(runner) = self.truth.runners.get_mut(&instance.registration) {
                runner.online = false;
            }
        }
    }

    /// A runner that has no job ends.
    pub(crate) fn faint(&mut self, id: InstanceId) {
        if self.truth.listening(id) && self.truth.job_on(id).is_none() {
            self.mark(Mark::DiedIdle);
            self.waste += 1;
            self.exit(id, 1);
        }
    }

    pub(crate) fn assign(&mut self) {
        let begun = self.truth.assign(self.now, &mut self.rng);
        for id in begun {
            self.note(|| format!("job {id} begins"));
            self.webhook(id);
            let start = self.truth.jobs[&id].starts;
            let mut takes = self.rng.span(5_000, 1_800_000);
            let hardship = self.hardship();
            if self.rng.chance(hardship.job_hangs) {
                self.mark(Mark::JobHangs);
                takes = self.rng.span(7_200_000, millis(Hardship::LONGEST_JOB));
            }
            if self.truth.jobs[&id].cancel == Some(JobState::InProgress) {
                self.mark(Mark::CancelledAtStart);
                let after = self.rng.span(0, 2000);
                self.at(after, Event::Cancel(id));
            }
            if self.rng.chance(hardship.dies_busy) {
                self.dies_with(id, start, takes / 2);
            } else if self.rng.chance(hardship.put_back) {
                self.at(takes / 2, Event::PutBack { job: id, start });
                self.at(takes, Event::EndJob { job: id, start, lost: false });
            } else {
                self.at(takes, Event::EndJob { job: id, start, lost: false });
            }
        }
    }

    fn dies_with(&mut self, job: u64, start: u32, after: Duration) {
        self.mark(Mark::RunnerDiedBusy);
        self.waste += 1;
        if let Some(instance) = self.carrier(job) {
            self.at(after, Event::Exit(instance, 137));
        }
        let noticed = after + Duration::from_mins(10);
        if self.rng.chance(500) {
            self.at(noticed, Event::PutBack { job, start });
        } else {
            self.at(noticed, Event::EndJob { job, start, lost: true });
        }
    }

    /// The instance that carries a running job.
    fn carrier(&self, job: u64) -> Option<InstanceId> {
        let runner = self.truth.jobs.get(&job)?.runner?;
        let mut instances = self.truth.instances.iter();
        instances.find(|(_, instance)| instance.registration == runner).map(|(id, _)| *id)
    }

    pub(crate) fn end_job(&mut self, job: u64, start: u32, lost: bool) {
        let running = self
            .truth
            .jobs
            .get(&job)
            .is_some_and(|j| j.state == JobState::InProgress && j.starts == start);
        if !running {
            return;
        }
        let failed = lost || self.rng.chance(100);
        let conclusion = if failed { Conclusion::Failure } else { Conclusion::Success };
        self.finish(job, conclusion);
    }

    fn finish(&mut self, job: u64, conclusion: Conclusion) {
        let carrier = self.carrier(job);
        self.truth.complete(job, conclusion, self.now);
        self.note(|| format!("job {job} ends"));
        self.webhook(job);
        if let Some(instance) = carrier {
            let after = self.rng.span(10, 5000);
            self.at(after, Event::Exit(instance, 0));
        }
    }

    pub(crate) fn put_back(&mut self, job: u64, start: u32) {
        let running = self
            .truth
            .jobs
            .get(&job)
            .is_some_and(|j| j.state == JobState::InProgress && j.starts == start);
        if !running {
            return;
        }
        self.mark(Mark::JobPutBack);
        self.waste += 1;
        if let Some(instance) = self.carrier(job) {
            self.at(Duration::from_secs(5), Event::Exit(instance, 1));
        }
        self.truth.put_back(job, self.now);
        self.webhook(job);
        self.assign();
    }

    /// Decides what will befall a job that has just arrived.
    pub(crate) fn decide_fate(&mut self, job: u64) {
        let hardship = self.hardship();
        if self.rng.chance(hardship.job_vanishes) {
            let after = self.rng.span(0, 1_200_000);
            self.at(after, Event::Vanish(job));
        }
        if !self.rng.chance(hardship.cancelled) {
            return;
        }
        match self.rng.below(4) {
            0 => {
                self.mark(Mark::CancelledAtBirth);
                let after = self.rng.span(0, 2000);
                self.at(after, Event::Cancel(job));
            }
            1 => {
                if let Some(job) = self.truth.jobs.get_mut(&job) {
                    job.cancel = Some(JobState::InProgress);
                }
            }
            _ => {
                let after = self.rng.span(0, 1_200_000);
                self.at(after, Event::Cancel(job));
            }
        }
    }

    /// The forge forgets a job that waits.
    pub(crate) fn vanish(&mut self, id: u64) {
        if let Some(job) = self.truth.jobs.get_mut(&id).filter(|job| job.asks()) {
            job.vanished = true;
            self.waste += 2;
        }
    }

    pub(crate) fn cancel(&mut self, job: u64) {
        if self.truth.open.contains(&job) {
            self.mark(Mark::JobCancelled);
            self.waste += 1;
            self.finish(job, Conclusion::Cancelled);
        }
    }

    /// An instance was destroyed with a job on it: right only past the job's declared limit.
    pub(crate) fn timed_out(&mut self, id: InstanceId, job: u64) -> Verdict {
        let now = self.now;
        let declared =
            self.truth.instances.get(&id).and_then(|instance| {
                self.database.books().fleet.pools.get(&instance.pool)?.limits.job
            });
        let row = &self.truth.jobs[&job];
        let ran = row.started_at.map_or(Duration::ZERO, |at| now.since(at));
        let start = row.starts;
        if declared.is_none_or(|limit| ran + self.clock_error() < limit) {
            return Err(format!("instance {id} was destroyed with job {job} on it"));
        }
        self.waste += 1;
        let noticed = Duration::from_mins(10);
        self.at(noticed, Event::EndJob { job, start, lost: true });
        Ok(())
    }
}
