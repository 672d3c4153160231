//! Where another instance would fit: limits of pools, providers and nodes, as the plan uses them up.

use std::collections::BTreeMap;

use crate::fleet::Fleet;
use crate::health::{obstacle, tries};
use crate::job::Trust;
use crate::name::{NodeName, PoolName, ProviderName, Resource};
use crate::pool::{Audience, Needs, Pool};
use crate::reason::{BackoffKey, DrainKey, Reason};
use crate::runner::{Runner, RunnerState};
use crate::snapshot::{Backoff, Snapshot};
use crate::tenant::Scope;

/// What a reason says of a forge that asks for patience.
pub(super) const LIMITED: &str = "the forge limits the rate of calls";

type Units = BTreeMap<Resource, u64>;
type Nodes = BTreeMap<NodeName, Node>;

/// What a node has left, and what forbids placing anything there.
struct Node {
    free: Units,
    shut: Option<Reason>,
}

/// What is taken, counted once and kept up to date while planning.
pub(super) struct Room<'a> {
    world: &'a Snapshot,
    fleet: &'a Fleet,
    in_pool: BTreeMap<&'a PoolName, u32>,
    at_provider: BTreeMap<&'a ProviderName, u32>,
    /// Runners that something in a back-off is being tried with.
    trying: BTreeMap<&'a BackoffKey, u32>,
    nodes: BTreeMap<&'a ProviderName, Nodes>,
}

impl<'a> Room<'a> {
    pub(super) fn new(world: &'a Snapshot) -> Self {
        let mut room = Self {
            world,
            fleet: &world.fleet,
            in_pool: BTreeMap::new(),
            at_provider: BTreeMap::new(),
            trying: BTreeMap::new(),
            nodes: BTreeMap::new(),
        };
        room.count_trials();
        room.count_instances();
        room
    }

    fn count_trials(&mut self) {
        let world = self.world;
        if world.backoffs.is_empty() {
            return;
        }
        for runner in world.active_runners().filter(|runner| !is_held_back(world, runner)) {
            for key in concerning(world, runner) {
                if let Some((key, _)) = world.backoffs.get_key_value(&key)
                    && tries(world, key, runner)
                {
                    *self.trying.entry(key).or_default() += 1;
                }
            }
        }
    }

    fn count_instances(&mut self) {
        let world = self.world;
        for (provider, capacity) in &world.capacity {
            let node = |(name, free): (&NodeName, &Units)| {
                let shut = self.shut(provider, name);
                (name.clone(), Node { free: free.clone(), shut })
            };
            let nodes = capacity.nodes.iter().map(node).collect();
            self.nodes.insert(provider, nodes);
        }
        let mut unplaced = Vec::new();
        for instance in world.existing_instances() {
            *self.in_pool.entry(&instance.pool).or_default() += 1;
            *self.at_provider.entry(&instance.provider).or_default() += 1;
            let nodes = self.nodes.get_mut(&instance.provider);
            match (nodes, &instance.node) {
                (None, _) => {}
                (Some(nodes), Some(node)) => {
                    if let Some(node) = nodes.get_mut(node) {
                        take(&mut node.free, &instance.needs);
                    }
                }
                (Some(_), None) => unplaced.push((&instance.provider, &instance.needs)),
            }
        }
        for (provider, needs) in unplaced {
            self.place(provider, needs);
        }
    }

    /// What forbids placing anything on a node.
    fn shut(&self, provider: &ProviderName, node: &NodeName) -> Option<Reason> {
        let drain = DrainKey::Node(provider.clone(), node.clone());
        self.drained(drain).or_else(|| {
            let key = BackoffKey::Node(provider.clone(), node.clone());
            obstacle(self.world, &key, self.trying.get(&key).copied().unwrap_or(0))
        })
    }

    fn drained(&self, what: DrainKey) -> Option<Reason> {
        let drain = self.world.drains.get(&what)?;
        Some(Reason::drained(what, drain))
    }

    /// Takes the first node with room. A provider that never named its nodes always has some.
    fn place(&mut self, provider: &ProviderName, needs: &Needs) -> bool {
        let Some(nodes) = self.nodes.get_mut(provider) else { return true };
        let mut open = nodes.iter_mut().filter(|(_, node)| node.shut.is_none());
        let Some((name, node)) = open.find(|(_, node)| fits(&node.free, needs)) else {
            return false;
        };
        take(&mut node.free, needs);
        let what = BackoffKey::Node(provider.clone(), name.clone());
        // A node that failed is tried with one.
        node.shut = self.world.backoffs.contains_key(&what).then_some(Reason::Proving { what });
        true
    }

    /// Everything that forbids one more runner of `pool` in `scope`; empty if nothing does.
    pub(super) fn obstacles(&self, pool: &Pool, scope: &Scope) -> Vec<Reason> {
        let mut found = Vec::new();
        if count(&self.in_pool, &pool.name) >= pool.max {
            found.push(Reason::PoolFull(pool.name.clone()));
        }
        found.extend(self.drained(DrainKey::Pool(pool.name.clone())));
        self.provider_obstacles(pool, &mut found);
        self.backing_off(&BackoffKey::Pool(pool.name.clone()), &mut found);
        self.backing_off(&BackoffKey::Image(pool.image.clone()), &mut found);
        let key = BackoffKey::Scope(pool.forge.clone(), scope.clone());
        // A limit on an owner's calls is told once, for all its scopes.
        let full = |backoff: &Backoff| backoff.full && backoff.until > self.world.now;
        if !self.world.backoffs.get(&key).is_some_and(full) {
            self.backing_off(&key, &mut found);
        }
        if let Some(until) = self.world.limited_in(&pool.forge, scope) {
            let what = BackoffKey::Scope(pool.forge.clone(), scope.clone());
            let because = LIMITED.into();
            found.push(Reason::BackingOff { what, until, because });
        }
        found
    }

    fn provider_obstacles(&self, pool: &Pool, found: &mut Vec<Reason>) {
        let name = &pool.provider;
        found.extend(self.drained(DrainKey::Provider(name.clone())));
        let max = self.fleet.providers.get(name).and_then(|provider| provider.max);
        let full = self
            .world
            .backoffs
            .get(&BackoffKey::Provider(name.clone()))
            .is_some_and(|backoff| backoff.full && backoff.until > self.world.now);
        if full || max.is_some_and(|max| count(&self.at_provider, name) >= max) {
            found.push(Reason::ProviderFull(name.clone()));
        }
        if !full {
            self.backing_off(&BackoffKey::Provider(name.clone()), found);
        }
        self.node_obstacles(pool, found);
    }

    /// Room on a node that is shut does not count, but it is told why it is.
    fn node_obstacles(&self, pool: &Pool, found: &mut Vec<Reason>) {
        let Some(nodes) = self.nodes.get(&pool.provider) else { return };
        let mut fit = nodes.values().filter(|node| fits(&node.free, &pool.needs)).peekable();
        if fit.peek().is_none() {
            found.push(Reason::NoNodeHasRoom(pool.name.clone()));
        }
        let shut: Option<Vec<Reason>> = fit.map(|node| node.shut.clone()).collect();
        found.extend(shut.into_iter().flatten());
    }

    fn backing_off(&self, what: &BackoffKey, found: &mut Vec<Reason>) {
        let trying = self.trying.get(what).copied().unwrap_or(0);
        found.extend(obstacle(self.world, what, trying));
    }

    /// Counts one more runner of `pool` in `scope`.
    pub(super) fn use_up(&mut self, pool: &'a Pool, scope: &'a Scope) {
        *self.in_pool.entry(&pool.name).or_default() += 1;
        *self.at_provider.entry(&pool.provider).or_default() += 1;
        for key in [
            BackoffKey::Pool(pool.name.clone()),
            BackoffKey::Image(pool.image.clone()),
            BackoffKey::Provider(pool.provider.clone()),
            BackoffKey::Scope(pool.forge.clone(), scope.clone()),
        ] {
            if let Some((key, _)) = self.world.backoffs.get_key_value(&key) {
                *self.trying.entry(key).or_default() += 1;
            }
        }
        self.place(&pool.provider, &pool.needs);
    }
}

/// True if something is tried with this runner after failures.
pub(super) fn is_tried(world: &Snapshot, runner: &Runner) -> bool {
    let tried = |key: &BackoffKey| world.backoffs.contains_key(key) && tries(world, key, runner);
    !is_held_back(world, runner) && concerning(world, runner).iter().any(tried)
}

/// True if a runner was decided before a failure that now makes its launch wait. Nobody should count on
/// it: another pool may serve its job meanwhile.
pub(super) fn is_held_back(world: &Snapshot, runner: &Runner) -> bool {
    let waits = |key: &BackoffKey| world.backoffs.get(key).is_some_and(|b| b.until > world.now);
    let begun = world.instance(runner.instance).is_none_or(|one| one.launch.is_some());
    runner.state == RunnerState::Pending && !begun && concerning(world, runner).iter().any(waits)
}

fn concerning(world: &Snapshot, runner: &Runner) -> Vec<BackoffKey> {
    let pool = world.fleet.pools.get(&runner.pool);
    let instance = world.instance(runner.instance);
    instance.map_or(Vec::new(), |instance| BackoffKey::of(runner, instance, pool))
}

/// What a pool's audience has against a job.
pub(super) fn unfit(pool: &Pool, trust: Trust) -> Option<Reason> {
    match (pool.audience, trust) {
        (Audience::Anyone, _) | (Audience::TrustedOnly, Trust::Trusted) => None,
        (Audience::TrustedOnly, Trust::Unknown) => Some(Reason::TrustUnknown(pool.name.clone())),
        (Audience::TrustedOnly, Trust::Untrusted) => Some(Reason::NotTrusted(pool.name.clone())),
    }
}

fn count<K: Ord + Copy>(counts: &BTreeMap<K, u32>, key: K) -> u32 {
    counts.get(&key).copied().unwrap_or(0)
}

fn fits(free: &BTreeMap<Resource, u64>, needs: &Needs) -> bool {
    needs.iter().all(|(resource, units)| free.get(resource).is_some_and(|free| free >= units))
}

fn take(free: &mut BTreeMap<Resource, u64>, needs: &Needs) {
    for (resource, units) in needs.iter() {
        if let Some(free) = free.get_mut(resource) {
            *free = free.saturating_sub(*units);
        }
    }
}
