//! Runners without a process, for those who need more of them than a machine has room for.

use remuda_core::Timestamp;

use super::{Conclusion, Duty, Presence, World};
use crate::id::JobId;

impl World {
    /// Every registered runner that is offline comes online as one that is always in touch, and every one
    /// that was offered a job takes it.
    pub(crate) fn animate(&mut self, now: Timestamp) {
        let offline = self.runners.values().filter(|one| matches!(one.presence, Presence::Offline));
        let credentials: Vec<String> = offline.map(|one| one.credential.clone()).collect();
        for credential in &credentials {
            if let Ok((_, session)) = self.connect(credential, "Linux", now) {
                self.poll_opened(&session, now);
            }
        }
        for (session, job) in self.on_duty(|duty| match duty {
            Duty::Offered(job) => Some(job),
            Duty::Idle | Duty::Busy(_) => None,
        }) {
            // Whoever else speaks for the runner may have been first.
            let _ = self.acknowledge(&session, job, now);
        }
    }

    /// At most `count` runners at work, the first registered first, end their jobs with success. Gives how
    /// many did.
    pub(crate) fn finish(&mut self, count: usize, now: Timestamp) -> usize {
        let mut busy = self.on_duty(|duty| match duty {
            Duty::Busy(job) => Some(job),
            Duty::Idle | Duty::Offered(_) => None,
        });
        busy.truncate(count);
        let ended = busy.iter().filter(|(session, job)| {
            self.complete(session, *job, Conclusion::Success, now).is_ok()
        });
        ended.count()
    }

    /// Sessions and jobs of the runners whose duty names one, the first registered first.
    fn on_duty(&self, job_of: impl Fn(Duty) -> Option<JobId>) -> Vec<(String, JobId)> {
        let of = |presence: &Presence| match presence {
            Presence::Offline => None,
            Presence::Online { session, duty } => Some((session.id.clone(), job_of(*duty)?)),
        };
        self.runners.values().filter_map(|runner| of(&runner.presence)).collect()
    }
}
