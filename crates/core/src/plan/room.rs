//! Where another instance would fit: limits of pools, providers and nodes, as the plan uses them up.

use std::collections::BTreeMap;

use crate::fleet::Fleet;
use crate::job::Trust;
use crate::name::{ForgeName, NodeName, PoolName, ProviderName, Resource};
use crate::pool::{Audience, Needs, Pool};
use crate::reason::{BackoffKey, Reason};
use crate::runner::RunnerState;
use crate::snapshot::Snapshot;
use crate::tenant::Scope;

type Free = BTreeMap<NodeName, BTreeMap<Resource, u64>>;

/// What is taken, counted once and kept up to date while planning.
pub(super) struct Room<'a> {
    world: &'a Snapshot,
    fleet: &'a Fleet,
    in_pool: BTreeMap<&'a PoolName, u32>,
    at_provider: BTreeMap<&'a ProviderName, u32>,
    unproven: BTreeMap<&'a PoolName, u32>,
    unproven_at: BTreeMap<&'a ProviderName, u32>,
    unproven_in: BTreeMap<(&'a ForgeName, &'a Scope), u32>,
    free: BTreeMap<ProviderName, Free>,
}

impl<'a> Room<'a> {
    pub(super) fn new(world: &'a Snapshot) -> Self {
        let mut room = Self {
            world,
            fleet: &world.fleet,
            in_pool: BTreeMap::new(),
            at_provider: BTreeMap::new(),
            unproven: BTreeMap::new(),
            unproven_at: BTreeMap::new(),
            unproven_in: BTreeMap::new(),
            free: world.capacity.iter().map(|(p, c)| (p.clone(), c.nodes.clone())).collect(),
        };
        for runner in world.active_runners() {
            if runner.state < RunnerState::Idle {
                *room.unproven.entry(&runner.pool).or_default() += 1;
                *room.unproven_in.entry((&runner.forge, &runner.scope)).or_default() += 1;
                if let Some(pool) = world.fleet.pools.get(&runner.pool) {
                    *room.unproven_at.entry(&pool.provider).or_default() += 1;
                }
            }
        }
        room.count_instances();
        room
    }

    fn count_instances(&mut self) {
        let mut unplaced = Vec::new();
        for instance in self.world.existing_instances() {
            *self.in_pool.entry(&instance.pool).or_default() += 1;
            *self.at_provider.entry(&instance.provider).or_default() += 1;
            let free = self.free.get_mut(&instance.provider);
            match (free, &instance.node) {
                (None, _) => {}
                (Some(free), Some(node)) => {
                    if let Some(free) = free.get_mut(node) {
                        take(free, &instance.needs);
                    }
                }
                (Some(_), None) => unplaced.push((&instance.provider, &instance.needs)),
            }
        }
        for (provider, needs) in unplaced {
            self.place(provider, needs);
        }
    }

    /// Takes the first node with room. A provider that never named its nodes always has some.
    fn place(&mut self, provider: &ProviderName, needs: &Needs) -> bool {
        let Some(free) = self.free.get_mut(provider) else { return true };
        match free.values_mut().find(|free| fits(free, needs)) {
            Some(free) => {
                take(free, needs);
                true
            }
            None => false,
        }
    }

    /// Everything that forbids one more runner of `pool` in `scope`; empty if nothing does.
    pub(super) fn obstacles(&self, pool: &Pool, scope: &Scope) -> Vec<Reason> {
        let mut found = Vec::new();
        if count(&self.in_pool, &pool.name) >= pool.max {
            found.push(Reason::PoolFull(pool.name.clone()));
        }
        self.provider_obstacles(pool, &mut found);
        let key = BackoffKey::Pool(pool.name.clone());
        self.backing_off(key, count(&self.unproven, &pool.name), &mut found);
        let trying = count(&self.unproven_in, (&pool.forge, scope));
        let key = BackoffKey::Scope(pool.forge.clone(), scope.clone());
        self.backing_off(key, trying, &mut found);
        if let Some(until) = self.world.limited_in(&pool.forge, scope) {
            let what = BackoffKey::Scope(pool.forge.clone(), scope.clone());
            let because = "the forge limits the rate of calls".into();
            found.push(Reason::BackingOff { what, until, because });
        }
        found
    }

    fn provider_obstacles(&self, pool: &Pool, found: &mut Vec<Reason>) {
        let name = &pool.provider;
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
            let trying = count(&self.unproven_at, name);
            self.backing_off(BackoffKey::Provider(name.clone()), trying, found);
        }
        let fits_somewhere = self
            .free
            .get(name)
            .is_none_or(|free| free.values().any(|free| fits(free, &pool.needs)));
        if !fits_somewhere {
            found.push(Reason::NoNodeHasRoom(pool.name.clone()));
        }
    }

    fn backing_off(&self, what: BackoffKey, trying: u32, found: &mut Vec<Reason>) {
        let Some(backoff) = self.world.backoffs.get(&what) else { return };
        if backoff.until > self.world.now {
            let (until, because) = (backoff.until, backoff.because.clone());
            found.push(Reason::BackingOff { what, until, because });
        } else if trying > 0 {
            found.push(Reason::Proving { what });
        }
    }

    /// Counts one more runner of `pool` in `scope`.
    pub(super) fn use_up(&mut self, pool: &'a Pool, scope: &'a Scope) {
        *self.in_pool.entry(&pool.name).or_default() += 1;
        *self.at_provider.entry(&pool.provider).or_default() += 1;
        *self.unproven.entry(&pool.name).or_default() += 1;
        *self.unproven_at.entry(&pool.provider).or_default() += 1;
        *self.unproven_in.entry((&pool.forge, scope)).or_default() += 1;
        self.place(&pool.provider, &pool.needs);
    }
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
