//! What happens by itself when time passes.
//!
//! A timer is a reminder to look, not an order: whatever it was set for may have changed since, so
//! each looks at the state again and does nothing if there is nothing to do.

use remuda_core::Timestamp;

use super::{Conclusion, Duty, JobState, Presence, World};
use crate::id::{JobId, RunnerId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The runner should have acknowledged the job.
    PickUp(JobId, RunnerId),
    /// The runner should have been in touch.
    Contact(RunnerId),
    /// The job should have found a runner.
    JobExpiry(JobId),
    /// The registration should have been used.
    RegistrationExpiry(RunnerId),
    /// The runner should have stopped the cancelled job.
    CancelGrace(JobId, RunnerId),
    /// A fault: the runner vanishes.
    Loss(RunnerId),
}

impl World {
    pub(super) fn remind(&mut self, at: Timestamp, timer: Timer) {
        self.timers.insert((at, timer));
    }

    /// When [`World::tick`] is to be called next.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Does all that is due.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        while let Some((at, timer)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.remove(&(at, timer));
            self.ring(timer, now);
        }
    }

    fn ring(&mut self, timer: Timer, now: Timestamp) {
        match timer {
            Timer::PickUp(job, runner) => self.give_up_offer(job, runner, now),
            Timer::Contact(runner) => self.check_contact(runner, now),
            Timer::JobExpiry(job) => self.expire_job(job, now),
            Timer::RegistrationExpiry(runner) => {
                let unused = self.runners.get(&runner).is_some_and(|runner| {
                    matches!(runner.presence, Presence::Offline)
                        && now.since(runner.last_seen_at) >= self.times.registration_expiry
                });
                if unused {
                    self.forget_runner(runner);
                    self.counts.expired += 1;
                }
            }
            Timer::CancelGrace(job, runner) => {
                if self.jobs.get(&job).is_some_and(|job| job.state == JobState::Stopping(runner)) {
                    self.forget_runner(runner);
                    self.counts.lost += 1;
                    self.end_job(job, Conclusion::Cancelled, now);
                }
            }
            Timer::Loss(runner) => {
                let requeue = self.dice.requeues(&self.faults);
                self.lose_runner(runner, requeue, now);
            }
        }
    }

    fn give_up_offer(&mut self, job: JobId, runner: RunnerId, now: Timestamp) {
        let offered = self.jobs.get(&job).is_some_and(|job| job.state == JobState::Offered(runner));
        if !offered {
            return;
        }
        // A JIT registration is used up by the offer; the job keeps its place in the queue.
        self.counts.unacknowledged += 1;
        self.forget_runner(runner);
        self.queue_again(job, now);
    }

    fn check_contact(&mut self, id: RunnerId, now: Timestamp) {
        let Some(runner) = self.runners.get(&id) else { return };
        let Presence::Online { session, duty } = &runner.presence else { return };
        if session.polls > 0 {
            return;
        }
        let silent_until = runner.last_seen_at + self.times.runner_silence;
        if silent_until > now {
            self.remind(silent_until, Timer::Contact(id));
            return;
        }
        match *duty {
            Duty::Idle => self.disconnect(id, now),
            // The offer's own timer decides.
            Duty::Offered(_) => {}
            Duty::Busy(job) => {
                self.counts.lost += 1;
                self.forget_runner(id);
                self.note(job, "The self-hosted runner lost communication with the server.");
                self.end_job(job, Conclusion::Failure, now);
            }
        }
    }

    fn expire_job(&mut self, id: JobId, now: Timestamp) {
        let Some(job) = self.jobs.get(&id) else { return };
        let waiting = matches!(job.state, JobState::Queued | JobState::Offered(_));
        let queued_at = job.marks.queued_at.unwrap_or(job.marks.created_at);
        if waiting && now.since(queued_at) >= self.times.job_expiry {
            self.counts.jobs_expired += 1;
            self.note(id, "The job was not acquired by a runner before the maximum queue time.");
            self.withdraw(id);
            self.end_job(id, Conclusion::Cancelled, now);
        }
    }
}
