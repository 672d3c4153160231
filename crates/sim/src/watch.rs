//! Oracles over time: how long jobs wait although they could run, and how long something outside has no
//! owner in our books. Only time in which the outside answers, and does not hide what it has, counts.

use std::collections::BTreeMap;
use std::time::Duration;

use remuda_core::Timestamp;
use remuda_core::controller::Rules;
use remuda_core::job::JobKey;
use remuda_core::observation::Subject;
use remuda_core::pool::Pool;
use remuda_core::runner::{InstanceId, Runner, RunnerState};

use crate::marks::{Level, Mark};
use crate::oracle::{Verdict, looks_deaf};
use crate::run::World;
use crate::truth::{TrueInstance, TrueJob};

/// No job whose pool has room waits longer than this, by how hard the world is.
const fn wait_max(level: Level) -> Duration {
    match level {
        Level::None | Level::Low => Duration::from_mins(15),
        Level::Normal => Duration::from_hours(1),
        Level::High | Level::Lying => Duration::from_hours(4),
    }
}

/// Nothing outside is without an owner for longer than this, by how hard the world is.
const fn ownerless_max(level: Level) -> Duration {
    match level {
        Level::None | Level::Low => Duration::from_mins(15),
        Level::Normal => Duration::from_mins(45),
        Level::High | Level::Lying => Duration::from_mins(100),
    }
}

/// Something outside that may be without an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Instance(InstanceId),
    Registration(u64),
}

/// How long things have been as they should not be.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    looked_at: Timestamp,
    waits: BTreeMap<u64, Duration>,
    loose: BTreeMap<Thing, Duration>,
    pub(crate) waited: Duration,
    pub(crate) ownerless: Duration,
}

/// How often the watch looks.
const EVERY: Duration = Duration::from_mins(1);

impl<R: Rules + Clone> World<R> {
    /// Looks at the clock and, now and then, at the world.
    pub(crate) fn watch(&mut self) -> Verdict {
        let passed = self.now.since(self.watch.looked_at);
        if passed < EVERY {
            return Ok(());
        }
        self.watch.looked_at = self.now;
        if !self.outside.answers(self.now) || self.leader().is_none() {
            return Ok(());
        }
        // While nobody looked, anything may have been.
        let passed = passed.min(EVERY * 2);
        self.served_in_time(passed)?;
        self.owned(passed)
    }

    fn served_in_time(&mut self, passed: Duration) -> Verdict {
        if self.spell.lingers(self.now) {
            self.watch.waits.clear();
            return Ok(());
        }
        let queued = |id: &u64| self.truth.jobs.get(id).is_some_and(TrueJob::asks);
        let queued: Vec<u64> = self.truth.open.iter().copied().filter(queued).collect();
        self.watch.waits.retain(|id, _| queued.contains(id));
        let most = wait_max(self.settings.hardship.level);
        for id in queued {
            if !self.has_room(&self.truth.jobs[&id]) {
                self.watch.waits.remove(&id);
                continue;
            }
            if self.is_hidden_job(id) {
                continue;
            }
            let waited = self.watch.waits.entry(id).or_default();
            *waited += passed;
            self.watch.waited = self.watch.waited.max(*waited);
            if *waited > most {
                return Err(format!("job {id} waits although a pool has room"));
            }
        }
        Ok(())
    }

    fn owned(&mut self, passed: Duration) -> Verdict {
        let books = self.database.books();
        let instances = self.truth.instances.keys().filter(|id| {
            let row = books.instance(**id).and_then(|row| books.runner(row.runner()?));
            row.is_none_or(|runner| runner.state == RunnerState::Gone)
        });
        let registrations = self.truth.runners.iter().filter(|(_, seen)| {
            let row = books.runner_named(&seen.name);
            // A job is on it: it goes when that ends.
            !seen.foreign
                && seen.job.is_none()
                && row.is_none_or(|runner| runner.state == RunnerState::Gone)
        });
        let loose = instances.map(|id| Thing::Instance(*id));
        let loose: Vec<Thing> =
            loose.chain(registrations.map(|(id, _)| Thing::Registration(*id))).collect();
        let held = |id: &InstanceId| {
            let instance = self.truth.instances.get(id);
            instance.is_some_and(|i| i.stays_until.is_some_and(|until| self.now < until))
                || self.truth.job_on(*id).is_some()
        };
        self.watch.loose.retain(|thing, _| loose.contains(thing));
        let most = ownerless_max(self.settings.hardship.level);
        for thing in loose {
            if matches!(&thing, Thing::Instance(id) if held(id)) || self.is_hidden(thing) {
                continue;
            }
            let since = self.watch.loose.entry(thing).or_default();
            *since += passed;
            self.watch.ownerless = self.watch.ownerless.max(*since);
            if *since > most {
                return Err(format!("{thing:?} has no owner"));
            }
        }
        Ok(())
    }

    /// True while the one listing that could show something lies.
    fn is_hidden(&self, thing: Thing) -> bool {
        let shown_by = match thing {
            Thing::Instance(id) => {
                let instance = self.truth.instances.get(&id);
                instance.map(|one| Subject::Instances(one.provider.clone()))
            }
            Thing::Registration(id) => {
                let seen = self.truth.runners.get(&id);
                seen.map(|seen| Subject::Runners(self.truth.forge.clone(), seen.scope.clone()))
            }
        };
        shown_by.is_some_and(|subject| self.is_lying(&subject))
    }

    /// True while nobody has told of a job and the listing that would lies.
    fn is_hidden_job(&self, id: u64) -> bool {
        let forge = &self.truth.forge;
        let known = self.database.books().job(&JobKey::rest(forge, id)).is_some();
        let scope = &self.truth.jobs[&id].scope;
        !known && self.is_lying(&Subject::Jobs(forge.clone(), scope.clone()))
    }

    /// A runner is taken for dead while it listens: right only while listings lie for so long that it
    /// cannot be told from one that is deaf.
    pub(crate) fn forsaken(&mut self, runner: &Runner) -> Verdict {
        let lies = !self.settings.hardship.lies_last.is_zero();
        if !lies || !looks_deaf(&self.truth, self.database.books(), runner) {
            return Err(format!("runner {} was taken for dead while it listens", runner.id));
        }
        self.mark(Mark::TakenForDeaf);
        self.waste += 1;
        Ok(())
    }

    /// True if, going by reality, a pool that fits the job could have one more instance.
    fn has_room(&self, job: &TrueJob) -> bool {
        let truth = &self.truth;
        let fleet = crate::estate::fleet();
        let owner = job.scope.owner();
        let count = |of: &dyn Fn(&TrueInstance) -> bool| {
            u32::try_from(truth.instances.values().filter(|instance| of(instance)).count())
                .unwrap_or(u32::MAX)
        };
        let provider_has = |pool: &Pool| {
            let max = fleet.providers.get(&pool.provider).and_then(|provider| provider.max);
            max.is_none_or(|max| count(&|one| one.provider == pool.provider) < max)
        };
        count(&|instance| instance.scope.owner() == owner)
            < fleet.tenants.terms_of(&truth.forge, owner).cap
            && fleet.pools.values().any(|pool| {
                pool.labels.satisfies(&job.labels)
                    && (pool.scopes.is_empty() || pool.scopes.contains(&job.scope))
                    && count(&|instance| instance.pool == pool.name) < pool.max
                    && provider_has(pool)
                    && !self.orders.close(pool, self.now)
            })
    }
}
