//! Who comes first where there is no room, so that a job that is behind others is told so.
//!
//! What cannot be had of a pool is a set of obstacles. A job that meets one lays claim to it: were each
//! of these obstacles lifted by one runner's worth, the job would be served. A job that comes later and
//! meets the same obstacles, or more, is behind it, and nothing that is done about the obstacles alone
//! helps it first. A job that also lacks the trust claims nothing that others could have, and a
//! tenant's cap is its own: nobody is behind such a job.

use std::collections::{BTreeMap, BTreeSet};

use super::room::LIMITED;
use super::turns::{Account, Place};
use crate::name::{ForgeName, Login, PoolName, ProviderName};
use crate::pool::Pool;
use crate::reason::{BackoffKey, DrainKey, Reason};
use crate::snapshot::{Class, Snapshot};

/// Most obstacles of one pool whose subsets are looked for.
const OBSTACLES_MAX: usize = 8;

/// Numbers of obstacles, ascending.
pub(super) type Set = Vec<u32>;

/// Who lays claim to what, once the plan is made.
#[derive(Default)]
pub(super) struct Claims<'a> {
    numbers: BTreeMap<Obstacle<'a>, u32>,
    /// Numbers of obstacles that are one node's alone.
    nodes: BTreeSet<u32>,
    claimants: BTreeMap<Set, BTreeMap<Account, Place<'a>>>,
    /// The first claimant, and the first of another tenant.
    first: BTreeMap<Set, Vec<(Place<'a>, Account)>>,
}

/// A reason, as what is wanted: room on nodes is wanted of a provider, whichever pool asks, and
/// patience with calls is a forge's or an owner's, whichever scope asks; company is of one kind of job.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Obstacle<'a> {
    Nodes(&'a ProviderName),
    Forge(&'a ForgeName),
    Owner(&'a ForgeName, &'a Login),
    Company(&'a PoolName, &'a Class),
    Other(Reason),
}

/// Who comes first of those that want what a job wants of a pool.
#[derive(Clone, Copy, Default)]
pub(super) struct First<'a> {
    /// Of its own tenant.
    pub own: Option<Place<'a>>,
    /// Of the others.
    pub other: Option<Place<'a>>,
}

impl<'a> Claims<'a> {
    /// The obstacles of a pool for a kind of job, as a set.
    pub(super) fn set(
        &mut self,
        world: &Snapshot,
        pool: &'a Pool,
        class: &'a Class,
        reasons: &[Reason],
    ) -> Set {
        let mut set = BTreeSet::new();
        let mut insert = |obstacle| {
            let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
            let number = *self.numbers.entry(obstacle).or_insert(next);
            set.insert(number);
            number
        };
        for reason in reasons {
            if matches!(reason, Reason::NoNodeHasRoom(_)) {
                insert(Obstacle::Nodes(&pool.provider));
            } else if matches!(reason, Reason::BackingOff { because, .. } if **because == *LIMITED)
            {
                if world.token_spent(&pool.forge, class.scope.owner()).is_some() {
                    insert(Obstacle::Forge(&pool.forge));
                }
                if world.owner_limited(&pool.forge, &class.scope).is_some() {
                    insert(Obstacle::Owner(&pool.forge, class.scope.owner()));
                }
            } else if matches!(reason, Reason::Gathering { .. }) {
                insert(Obstacle::Company(&pool.name, class));
            } else {
                let number = insert(Obstacle::Other(reason.clone()));
                if is_of_node(reason) {
                    self.nodes.insert(number);
                }
            }
        }
        set.into_iter().take(OBSTACLES_MAX).collect()
    }

    /// What a job of the tenant meets, each of these sets by itself, would serve it if it were lifted:
    /// of several nodes that are shut, one is enough.
    pub(super) fn lay_each(&mut self, account: Account, place: Place<'a>, set: &Set) {
        let is_node = |number: &u32| self.nodes.contains(number);
        let (nodes, base): (Vec<u32>, Vec<u32>) = set.iter().copied().partition(is_node);
        for node in &nodes {
            let mut one: Set = base.iter().copied().chain([*node]).collect();
            one.sort_unstable();
            self.lay(account, place, &one);
        }
        if nodes.is_empty() {
            self.lay(account, place, set);
        }
    }

    /// A job of the tenant would be served if these were lifted.
    fn lay(&mut self, account: Account, place: Place<'a>, set: &Set) {
        if !self.claimants.contains_key(set) {
            self.claimants.insert(set.clone(), BTreeMap::new());
        }
        if let Some(claimants) = self.claimants.get_mut(set) {
            let first = claimants.entry(account).or_insert(place);
            *first = place.min(*first);
        }
    }

    /// All claims are laid.
    pub(super) fn close(&mut self) {
        for (set, claimants) in &self.claimants {
            let mut ranked: Vec<_> = claimants.iter().map(|(who, place)| (*place, *who)).collect();
            ranked.sort_unstable();
            ranked.truncate(2);
            self.first.insert(set.clone(), ranked);
        }
    }

    /// Who comes first of those that want no more than these.
    pub(super) fn first(&self, account: Account, set: &Set) -> First<'a> {
        let mut found = First::default();
        let sooner = |known: Option<Place<'a>>, place: Place<'a>| {
            Some(known.map_or(place, |known| known.min(place)))
        };
        for choice in 1..1_u32 << set.len() {
            let chosen = set.iter().enumerate().filter(|(at, _)| choice >> at & 1 == 1);
            let subset: Set = chosen.map(|(_, number)| *number).collect();
            let own = self.claimants.get(&subset).and_then(|claimants| claimants.get(&account));
            if let Some(place) = own {
                found.own = sooner(found.own, *place);
            }
            let first = self.first.get(&subset).into_iter().flatten();
            if let Some((place, _)) = first.into_iter().find(|(_, who)| *who != account) {
                found.other = sooner(found.other, *place);
            }
        }
        found
    }
}

fn is_of_node(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::Drained { what: DrainKey::Node(..), .. }
            | Reason::BackingOff { what: BackoffKey::Node(..), .. }
            | Reason::Quarantined { what: BackoffKey::Node(..), .. }
            | Reason::Proving { what: BackoffKey::Node(..) }
    )
}
