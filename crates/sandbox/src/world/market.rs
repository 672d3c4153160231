//! Who waits for whom: queued jobs and idle runners by what they ask and offer.
//!
//! Jobs (and runners) of one class are alike, so only classes are compared; within a class the
//! oldest job and a random runner are found in logarithmic time. No runner is ever idle here while
//! a job it may serve is queued: whoever comes second is matched at once.

use std::collections::{BTreeMap, BTreeSet};

use remuda_core::Timestamp;
use remuda_core::label::LabelSet;

use super::Scope;
use crate::id::{GroupId, JobId, RepositoryId, RunnerId};

/// Jobs that any of the same runners could serve.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct JobClass {
    pub(super) repository: RepositoryId,
    pub(super) group: Option<String>,
    pub(super) wanted: LabelSet,
}

/// Runners that could serve the same jobs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RunnerClass {
    pub(super) scope: Scope,
    pub(super) group: GroupId,
    pub(super) labels: LabelSet,
}

#[derive(Debug, Default)]
pub(super) struct Market {
    queued: BTreeMap<JobClass, BTreeSet<(Timestamp, JobId)>>,
    idle: BTreeMap<RunnerClass, Idle>,
}

/// Runners to draw from: a list to draw by place, and each one's place in it.
#[derive(Debug, Default)]
struct Idle {
    list: Vec<RunnerId>,
    place: BTreeMap<RunnerId, usize>,
}

impl Market {
    pub(super) fn add_job(&mut self, class: JobClass, queued_at: Timestamp, job: JobId) {
        self.queued.entry(class).or_default().insert((queued_at, job));
    }

    pub(super) fn remove_job(&mut self, class: &JobClass, queued_at: Timestamp, job: JobId) {
        if let Some(jobs) = self.queued.get_mut(class) {
            jobs.remove(&(queued_at, job));
            if jobs.is_empty() {
                self.queued.remove(class);
            }
        }
    }

    pub(super) fn add_runner(&mut self, class: RunnerClass, runner: RunnerId) {
        let idle = self.idle.entry(class).or_default();
        if !idle.place.contains_key(&runner) {
            idle.place.insert(runner, idle.list.len());
            idle.list.push(runner);
        }
    }

    pub(super) fn remove_runner(&mut self, class: &RunnerClass, runner: RunnerId) {
        let Some(idle) = self.idle.get_mut(class) else { return };
        if let Some(place) = idle.place.remove(&runner) {
            idle.list.swap_remove(place);
            if let Some(moved) = idle.list.get(place) {
                idle.place.insert(*moved, place);
            }
        }
        if idle.list.is_empty() {
            self.idle.remove(class);
        }
    }

    /// The job queued longest among those that `serves` says the runner may have.
    pub(super) fn oldest_job(&self, serves: impl Fn(&JobClass) -> bool) -> Option<JobId> {
        let matching = self.queued.iter().filter(|(class, _)| serves(class));
        let oldest = matching.filter_map(|(_, jobs)| jobs.first()).min()?;
        Some(oldest.1)
    }

    /// How many idle runners there are that `serves` says may have the job.
    pub(super) fn count_idle(&self, serves: impl Fn(&RunnerClass) -> bool) -> usize {
        let matching = self.idle.iter().filter(|(class, _)| serves(class));
        matching.map(|(_, idle)| idle.list.len()).sum()
    }

    /// The idle runner at `place` among those that [`Market::count_idle`] counted.
    pub(super) fn idle_at(
        &self,
        mut place: usize,
        serves: impl Fn(&RunnerClass) -> bool,
    ) -> Option<RunnerId> {
        for (_, idle) in self.idle.iter().filter(|(class, _)| serves(class)) {
            match idle.list.get(place) {
                Some(runner) => return Some(*runner),
                None => place -= idle.list.len(),
            }
        }
        None
    }
}
