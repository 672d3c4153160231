//! What persons order: drains of pools, providers and nodes, each released after a while. An order is
//! given again until the books show it.

use std::collections::BTreeMap;
use std::time::Duration;

use remuda_core::controller::{Rules, Seen};
use remuda_core::name::{NodeName, PoolName, ProviderName};
use remuda_core::observation::{Observation, Order};
use remuda_core::pool::Pool;
use remuda_core::reason::DrainKey;
use remuda_core::runner::{Runner, RunnerState};
use remuda_core::{Action, Snapshot, Timestamp};

use crate::estate;
use crate::marks::Mark;
use crate::oracle::Verdict;
use crate::run::{Event, World};

/// How long after its release a place may still be closed: somebody must tell a leader, who must plan.
const REOPENS: Duration = Duration::from_mins(15);
/// An order that the books do not show is given again after this, one that they show is looked at again
/// after a longer while: a leader that was stopped may yet write an older one.
const AGAIN: Duration = Duration::from_mins(1);
const SETTLED: Duration = Duration::from_mins(10);

/// What is ordered now, and what was.
#[derive(Debug, Default)]
pub(crate) struct Orders(BTreeMap<DrainKey, (bool, Timestamp)>);

impl Orders {
    /// True if nothing can be expected to be made there.
    fn closes(&self, what: &DrainKey, now: Timestamp) -> bool {
        self.0.get(what).is_some_and(|(drained, since)| *drained || now < *since + REOPENS)
    }

    /// True if nothing can be expected to be made in a pool.
    pub(crate) fn close(&self, pool: &Pool, now: Timestamp) -> bool {
        let nodes = estate::nodes(&pool.provider);
        let node = |node: &NodeName| DrainKey::Node(pool.provider.clone(), node.clone());
        self.closes(&DrainKey::Pool(pool.name.clone()), now)
            || self.closes(&DrainKey::Provider(pool.provider.clone()), now)
            || nodes.iter().all(|name| self.closes(&node(name), now))
    }
}

impl<R: Rules + Clone> World<R> {
    /// Somebody may drain something, as a job arrives.
    pub(crate) fn begin_drain(&mut self) {
        if !self.rng.chance(self.hardship().drained) {
            return;
        }
        let fleet = estate::fleet();
        let pools: Vec<_> = fleet.pools.values().collect();
        let Some(pool) = self.rng.pick(&pools) else { return };
        let (what, mark) = match self.rng.below(3) {
            0 => {
                let nodes = estate::nodes(&pool.provider);
                let Some(node) = self.rng.pick(&nodes.iter().collect::<Vec<_>>()) else { return };
                (DrainKey::Node(pool.provider.clone(), node.clone()), Mark::NodeDrained)
            }
            1 => (DrainKey::Provider(pool.provider.clone()), Mark::ProviderDrained),
            _ => (DrainKey::Pool(pool.name.clone()), Mark::PoolDrained),
        };
        if self.orders.0.contains_key(&what) {
            return;
        }
        self.mark(mark);
        self.note(|| format!("{what} is to be drained"));
        // What is there and has no job goes.
        self.waste += u32::try_from(self.truth.instances.len()).unwrap_or(0);
        let span = self.rng.span(60_000, 3_600_000);
        let until = (self.now + span).min(self.calm_from());
        self.orders.0.insert(what.clone(), (true, self.now));
        self.at(Duration::ZERO, Event::Wish(what.clone()));
        self.at(until.since(self.now), Event::Reopen(what));
    }

    /// Somebody ends a drain.
    pub(crate) fn reopen(&mut self, what: DrainKey) {
        self.note(|| format!("{what} is to be drained no more"));
        self.orders.0.insert(what.clone(), (false, self.now));
        self.wish(what);
    }

    /// Somebody looks whether an order is obeyed, and gives it if it is not.
    pub(crate) fn wish(&mut self, what: DrainKey) {
        let Some((drained, since)) = self.orders.0.get(&what).copied() else { return };
        let is = self.database.books().drain(&what).is_some();
        if is == drained {
            if !drained && self.now >= since + SETTLED {
                self.orders.0.remove(&what);
            } else if !drained {
                self.at(SETTLED, Event::Wish(what));
            }
            return;
        }
        self.at(AGAIN, Event::Wish(what.clone()));
        let Some(leader) = self.leader() else { return };
        let order = if drained {
            Order::Drain { what, who: "somebody".into(), why: "to see".into() }
        } else {
            Order::Resume { what }
        };
        if self.now >= self.replicas[leader.replica].paused_until {
            self.answered(leader, Seen::Fact(Observation::Order(order)));
        }
    }
}

fn is_drained(books: &Snapshot, pool: &PoolName, provider: &ProviderName) -> bool {
    books.drain(&DrainKey::Pool(pool.clone())).is_some()
        || books.drain(&DrainKey::Provider(provider.clone())).is_some()
}

/// After a commit: nothing is launched where something is drained, and who has no job leaves.
pub(crate) fn drained(books: &Snapshot, actions: &[Action]) -> Verdict {
    if books.drains().next().is_none() {
        return Ok(());
    }
    for action in actions {
        let Action::Launch(launch) = action else { continue };
        let avoids = |what: &DrainKey| match what {
            DrainKey::Node(provider, node) => {
                *provider != launch.provider || launch.avoid.contains(node)
            }
            DrainKey::Pool(_) | DrainKey::Provider(_) => true,
        };
        if is_drained(books, &launch.pool, &launch.provider)
            || !books.drains().all(|(what, _)| avoids(what))
        {
            return Err(format!("runner {} is launched where something is drained", launch.runner));
        }
    }
    let stays = |runner: &&Runner| {
        let instance = books.instance(runner.instance);
        let mut keys = instance.into_iter().flat_map(|instance| DrainKey::of(runner, instance));
        runner.hold.is_none() && keys.any(|key| books.drain(&key).is_some())
    };
    let supply = [RunnerState::Pending, RunnerState::Starting, RunnerState::Idle];
    match supply.into_iter().flat_map(|state| books.runners_in(state)).find(stays) {
        Some(runner) => Err(format!("runner {} stays in what is drained", runner.id)),
        None => Ok(()),
    }
}
