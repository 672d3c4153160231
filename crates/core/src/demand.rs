//! Looking for work that nobody told of: which sweeps are due, how far they go, and what they may cost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::action::{Look, Reach};
use crate::budget::{Lane, PurseKey};
use crate::name::{ForgeName, Login};
use crate::observation::Subject;
use crate::snapshot::Snapshot;
use crate::tenant::{Repository, Scope};
use crate::time::Timestamp;

/// A repository whose last job ended this long ago is still expected to have more.
const ACTIVE: Duration = Duration::from_hours(1);

/// Calls that a sweep may make whatever the last one cost. One that needs more goes on the next time:
/// what it has read and what has not changed costs nothing then.
const CALLS_LEAST: u64 = 300;

/// The sweeps to make of those that are due, those longest without one first. What a sweep will cost is
/// taken to be what it cost the last time, so that several that begin together keep to the allowance.
pub(crate) fn sweeps(world: &Snapshot, due: Vec<(&ForgeName, &Scope)>) -> Vec<Look> {
    let mut waiting: Vec<_> = due
        .into_iter()
        .map(|(forge, scope)| {
            let looked = world.looked(&Subject::Jobs(forge.clone(), scope.clone()));
            (looked.asked_at, forge, scope, looked.cost)
        })
        .collect();
    waiting.sort();
    let mut purses: BTreeMap<PurseKey, (Timestamp, u64)> = BTreeMap::new();
    let mut active = None;
    let mut begin = Vec::new();
    for (_, forge, scope, cost) in waiting {
        let purse = world.purse_key(forge, scope.owner());
        let (rests_until, left) = purses.entry(purse).or_insert_with_key(|purse| {
            (world.rests_until(purse), spendable(world, forge, scope.owner()))
        });
        let calls_max = (*left).min(CALLS_LEAST.max(u64::from(cost) * 4));
        if *rests_until > world.now || calls_max == 0 {
            continue;
        }
        *rests_until = world.now + world.worth(forge, scope.owner(), cost);
        *left -= calls_max;
        let active = active.get_or_insert_with(|| repositories(world));
        let reach = Reach {
            active: active.remove(&(forge, scope)).unwrap_or_default(),
            after: world.swept.get(&(forge.clone(), scope.clone())).cloned(),
            others: Reach::OTHERS,
            calls_max: u32::try_from(calls_max).unwrap_or(u32::MAX),
        };
        begin.push(Look::Jobs { forge: forge.clone(), scope: scope.clone(), reach });
    }
    begin
}

/// Calls that all sweeps of an owner together may make now: an hour's allowance at most, and never what
/// is kept for other lanes.
fn spendable(world: &Snapshot, forge: &ForgeName, owner: &Login) -> u64 {
    let purse = world.purse(forge, owner).map(|purse| purse.spendable(Lane::Sweep));
    world.allowance(forge, owner).min(purse.unwrap_or(u64::MAX))
}

/// The repositories of each organization that have jobs, or had some lately.
fn repositories(world: &Snapshot) -> BTreeMap<(&ForgeName, &Scope), BTreeSet<Repository>> {
    let mut all: BTreeMap<_, BTreeSet<Repository>> = BTreeMap::new();
    let open = world.open.iter();
    let lately = world.ended.iter().rev().take_while(|(at, _)| *at + ACTIVE > world.now);
    for key in open.chain(lately.map(|(_, key)| key)) {
        let Some(job) = world.job(key) else { continue };
        let here = all.entry((&job.key.forge, &job.scope)).or_default();
        if here.len() < Reach::ACTIVE_MAX && !here.contains(&job.repository) {
            here.insert(job.repository.clone());
        }
    }
    all
}
