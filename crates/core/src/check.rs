//! The invariants of our own books, as code: run by the simulator after every step, by `doctor`, and by
//! debug builds after every turn.

use std::collections::BTreeMap;
use std::fmt;

use crate::job::{JobKey, JobState};
use crate::name::{PoolName, ProviderName};
use crate::runner::{InstanceId, InstanceState, RunnerId, RunnerState};
use crate::snapshot::{Class, Snapshot};

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A runner's instance is unknown, or carries another runner.
    RunnerWithoutInstance(RunnerId),
    /// A runner is gone and its instance is not.
    GoneWithInstance(RunnerId, InstanceId),
    /// A runner ends and nobody knows why.
    EndWithoutOutcome(RunnerId),
    /// A runner was not seen entering the state it is in.
    StateWithoutTime(RunnerId),
    /// An instance exists and its launch was never noted.
    InstanceWithoutLaunch(InstanceId),
    /// A pool has more instances than it may.
    PoolOverMax(PoolName, u32),
    /// A provider has more instances than it may.
    ProviderOverMax(ProviderName, u32),
    /// Two runners have one job of one attempt.
    JobOnTwoRunners(JobKey),
    /// The queue and the jobs disagree.
    QueueOutOfStep(JobKey),
    /// A number was or will be given twice.
    NumberReused(RunnerId),
    /// A runner cannot be found by its name.
    NameReused(RunnerId),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RunnerWithoutInstance(id) => write!(f, "runner {id} has no instance"),
            Self::GoneWithInstance(id, instance) => {
                write!(f, "runner {id} is gone and its instance {instance} is not")
            }
            Self::EndWithoutOutcome(id) => write!(f, "runner {id} ends without an outcome"),
            Self::StateWithoutTime(id) => write!(f, "runner {id} has no time for its state"),
            Self::InstanceWithoutLaunch(id) => write!(f, "instance {id} exists without a launch"),
            Self::PoolOverMax(pool, count) => {
                write!(f, "pool {pool} has {count} instances, more than its max")
            }
            Self::ProviderOverMax(provider, count) => {
                write!(f, "provider {provider} has {count} instances, more than its max")
            }
            Self::JobOnTwoRunners(job) => write!(f, "job {job} is on two runners"),
            Self::QueueOutOfStep(job) => write!(f, "job {job} and the queue disagree"),
            Self::NameReused(id) => write!(f, "runner {id} is not found by its name"),
            Self::NumberReused(id) => write!(f, "runner number {id} is not below the next one"),
        }
    }
}

/// Every invariant that does not hold in our books; empty if all is well.
///
/// A fleet whose limits were just lowered may be over them until it has drained: that is reported too.
pub fn check(world: &Snapshot) -> Vec<Violation> {
    let mut found = Vec::new();
    runners(world, &mut found);
    instances(world, &mut found);
    jobs(world, &mut found);
    found
}

fn runners(world: &Snapshot, found: &mut Vec<Violation>) {
    let mut serving: BTreeMap<&JobKey, RunnerId> = BTreeMap::new();
    for runner in world.runners() {
        match world.instance(runner.instance) {
            None => found.push(Violation::RunnerWithoutInstance(runner.id)),
            Some(instance) => {
                if instance.runner() != Some(runner.id) {
                    found.push(Violation::RunnerWithoutInstance(runner.id));
                }
                let exists = instance.state != InstanceState::Gone;
                if runner.state == RunnerState::Gone && exists {
                    found.push(Violation::GoneWithInstance(runner.id, instance.id));
                }
            }
        }
        if runner.state >= RunnerState::Stopping && runner.outcome.is_none() {
            found.push(Violation::EndWithoutOutcome(runner.id));
        }
        if runner.since.at(runner.state).is_none() {
            found.push(Violation::StateWithoutTime(runner.id));
        }
        if runner.id >= world.next_runner || runner.instance >= world.next_instance {
            found.push(Violation::NumberReused(runner.id));
        }
        if world.runner_named(&runner.name).is_none_or(|named| named.id != runner.id) {
            found.push(Violation::NameReused(runner.id));
        }
        let serves = runner.state == RunnerState::Busy && runner.job_ended_at.is_none();
        if let Some(job) = runner.job.as_ref().filter(|_| serves)
            && serving.insert(job, runner.id).is_some()
        {
            found.push(Violation::JobOnTwoRunners(job.clone()));
        }
    }
}

fn instances(world: &Snapshot, found: &mut Vec<Violation>) {
    let mut in_pool: BTreeMap<&PoolName, u32> = BTreeMap::new();
    let mut at_provider: BTreeMap<&ProviderName, u32> = BTreeMap::new();
    for instance in world.instances().filter(|i| i.state < InstanceState::Gone) {
        *in_pool.entry(&instance.pool).or_default() += 1;
        *at_provider.entry(&instance.provider).or_default() += 1;
        if instance.state > InstanceState::Planned && instance.launch.is_none() {
            found.push(Violation::InstanceWithoutLaunch(instance.id));
        }
    }
    for (pool, count) in in_pool {
        if world.fleet.pools.get(pool).is_some_and(|declared| count > declared.max) {
            found.push(Violation::PoolOverMax(pool.clone(), count));
        }
    }
    for (name, count) in at_provider {
        let max = world.fleet.providers.get(name).and_then(|declared| declared.max);
        if max.is_some_and(|max| count > max) {
            found.push(Violation::ProviderOverMax(name.clone(), count));
        }
    }
}

fn jobs(world: &Snapshot, found: &mut Vec<Violation>) {
    for job in world.jobs() {
        let place = (job.attempt.queued_at, job.key.clone());
        let queued = world.queue.get(&Class::of(job)).is_some_and(|q| q.contains(&place));
        let open = world.open.contains(&job.key);
        let ended = world.ended.contains(&(job.attempt.fact_at, job.key.clone()));
        let agree = queued == job.is_demand()
            && open == (job.is_open() || job.doubt.is_some())
            && ended == (job.attempt.state == JobState::Completed);
        if !agree {
            found.push(Violation::QueueOutOfStep(job.key.clone()));
        }
    }
    let queued = world.queue.values().flatten().map(|(_, key)| key);
    let ended = world.ended.iter().map(|(_, key)| key);
    for key in queued.chain(ended).chain(&world.open).filter(|key| world.job(key).is_none()) {
        found.push(Violation::QueueOutOfStep(key.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::job::Trust;
    use crate::label::{LabelSet, Wanted};
    use crate::tenant::{OwnerKind, TenantKey};
    use crate::time::Timestamp;

    /// What is derived from the jobs is only ever wrong by a fault of our own.
    #[test]
    fn a_place_in_a_queue_that_no_job_has_is_found() {
        let key = JobKey::rest(&"hub".parse().unwrap(), 1);
        let class = Class {
            tenant: TenantKey { forge: key.forge.clone(), kind: OwnerKind::User, id: 7 },
            scope: "org:acme".parse().unwrap(),
            wanted: Wanted::AllOf(LabelSet::default()),
            trust: Trust::Unknown,
        };
        let place = (Timestamp::default(), key.clone());
        let spoilt: [&dyn Fn(&mut Snapshot) -> bool; 3] = [
            &|world| world.queue.entry(class.clone()).or_default().insert(place.clone()),
            &|world| world.ended.insert(place.clone()),
            &|world| world.open.insert(key.clone()),
        ];
        for spoil in spoilt {
            let mut world = Snapshot::new("test".parse().unwrap(), Arc::default());
            assert_eq!(check(&world), []);
            assert!(spoil(&mut world));
            assert_eq!(check(&world), [Violation::QueueOutOfStep(key.clone())]);
        }
    }
}
