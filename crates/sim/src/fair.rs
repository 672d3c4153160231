//! Whether runners are made for whom they should be: judged from rows, not by the planner's own order.
//!
//! An objection is raised only where no doubt is left: the one who was passed over had a job that the
//! very place would have served, was below its cap and held less for its weight the whole time, or was
//! below its floor, or held as little and had waited longer; and the other was not overdue.

use std::collections::BTreeMap;

use remuda_core::fleet::Terms;
use remuda_core::job::Job;
use remuda_core::plan::PATIENCE;
use remuda_core::pool::Pool;
use remuda_core::runner::{Runner, RunnerState};
use remuda_core::tenant::TenantKey;
use remuda_core::{Snapshot, Timestamp};

use crate::marks::Level;
use crate::oracle::Verdict;

/// When each tenant last got a runner.
type Last = BTreeMap<TenantKey, Timestamp>;

/// Who had its last turn when.
#[derive(Debug, Default)]
pub(crate) struct Fairness {
    /// At the latest then: some runners are made to idle, which is no turn.
    any: Last,
    /// At the earliest then: of pools that keep no idle runners.
    sure: Last,
}

/// What a tenant held before and after one commit.
struct Account<'a> {
    key: &'a TenantKey,
    terms: Terms,
    before: u32,
    after: u32,
    demand: Vec<&'a Job>,
    supply: Vec<&'a Runner>,
}

impl Fairness {
    /// After a commit at `now` that made the runners `made`. Says nothing while failures are waited out,
    /// nor in worlds where clocks are off and plans are committed late.
    pub(crate) fn check(
        &mut self,
        books: &Snapshot,
        made: &[Runner],
        now: Timestamp,
        level: Level,
    ) -> Verdict {
        let accounts: Vec<Account<'_>> =
            books.tenants().map(|met| account(books, &met.tenant.key, made)).collect();
        let calm = books.backoffs().next().is_none() && matches!(level, Level::None | Level::Low);
        for runner in made.iter().filter(|_| calm) {
            let Some(pool) = books.fleet.pools.get(&runner.pool) else { continue };
            let Some(winner) = accounts.iter().find(|one| one.owns(books, runner)) else {
                continue;
            };
            for other in accounts.iter().filter(|other| other.key != winner.key) {
                if let Some(why) = self.passed_over(now, winner, other, pool) {
                    let (gets, waits) = (winner.key, other.key);
                    return Err(format!(
                        "{gets} gets a place of {} before {waits}, who {why}",
                        pool.name
                    ));
                }
            }
        }
        for runner in made {
            if let Some(winner) = accounts.iter().find(|one| one.owns(books, runner)) {
                self.any.insert(winner.key.clone(), now);
                let idles =
                    books.fleet.pools.get(&runner.pool).is_none_or(|pool| pool.min_idle > 0);
                if !idles {
                    self.sure.insert(winner.key.clone(), now);
                }
            }
        }
        Ok(())
    }

    /// What `other` had before `winner`, who got a place of `pool`, if nothing explains it.
    fn passed_over(
        &self,
        now: Timestamp,
        winner: &Account<'_>,
        other: &Account<'_>,
        pool: &Pool,
    ) -> Option<&'static str> {
        let unmet = other.unmet(pool);
        if unmet.is_empty() || other.after >= other.terms.cap || winner.before < winner.terms.floor
        {
            return None;
        }
        let since = |last: &Last, who: &Account<'_>, at: Timestamp| {
            last.get(who.key).map_or(at, |turn| at.max(*turn))
        };
        let oldest = winner.demand.iter().map(|job| job.attempt.queued_at).min();
        // A job of the winner's that has just got its runner is still demand; a spare runner is for none.
        let winner_since = since(&self.sure, winner, oldest?);
        if now.since(winner_since) >= PATIENCE {
            return None;
        }
        if other.after < other.terms.floor {
            return Some("is below its floor");
        }
        let held = |count: u32, weight: u32| u64::from(count) * u64::from(weight);
        let (mine, theirs) =
            (held(other.after, winner.terms.weight), held(winner.before, other.terms.weight));
        if mine < theirs {
            return Some("holds less for its weight");
        }
        let youngest = unmet.iter().map(|job| job.attempt.queued_at).max()?;
        (mine == theirs && since(&self.any, other, youngest) < winner_since)
            .then_some("has waited longer")
    }
}

fn account<'a>(books: &'a Snapshot, key: &'a TenantKey, made: &[Runner]) -> Account<'a> {
    let met = books.tenants().find(|met| met.tenant.key == *key);
    let terms = books.fleet.tenants.terms(key, met);
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let mut account =
        Account { key, terms, before: 0, after: 0, demand: Vec::new(), supply: Vec::new() };
    account.after = count(books.active_runners().filter(|one| account.owns(books, one)).count());
    let new = count(made.iter().filter(|one| account.owns(books, one)).count());
    account.before = account.after - new.min(account.after);
    account.demand = books.jobs().filter(|job| job.tenant == *key && job.is_demand()).collect();
    let ready = books.active_runners().filter(|one| one.state <= RunnerState::Idle);
    account.supply = ready.filter(|one| account.owns(books, one)).collect();
    account
}

impl Account<'_> {
    fn owns(&self, books: &Snapshot, runner: &Runner) -> bool {
        let login = books.tenants().find(|met| met.tenant.key == *self.key);
        login.is_some_and(|met| met.tenant.login == *runner.scope.owner())
    }

    /// Jobs that a pool could serve and that no runner of the tenant's is there for.
    fn unmet(&self, pool: &Pool) -> Vec<&Job> {
        let fits = |job: &&&Job| {
            job.wanted.satisfied_by(&pool.labels)
                && (pool.scopes.is_empty() || pool.scopes.contains(&job.scope))
        };
        let jobs: Vec<&Job> = self.demand.iter().filter(fits).copied().collect();
        let serves = |runner: &&&Runner| {
            jobs.iter().any(|j| j.wanted.satisfied_by(&runner.labels) && j.scope == runner.scope)
        };
        let met = self.supply.iter().filter(serves).count();
        if jobs.len() > met { jobs } else { Vec::new() }
    }
}
