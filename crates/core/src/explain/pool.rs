//! What stands in the way of a pool or a provider.

use std::collections::BTreeSet;

use super::Standing;
use crate::actions::next_try;
use crate::fleet::Provider;
use crate::health::obstacle;
use crate::observation::Subject;
use crate::plan::obstacles;
use crate::pool::Pool;
use crate::reason::{BackoffKey, DrainKey, Reason};
use crate::runner::{Runner, RunnerState};
use crate::snapshot::Snapshot;
use crate::tenant::Scope;

/// Every thing that is so of a pool: what keeps it from another runner, in any of its scopes, and who
/// waits for it by `waits`, the reasons that the last plan gave for each job.
pub fn pool<'a>(
    world: &Snapshot,
    pool: &Pool,
    waits: impl Iterator<Item = &'a [Reason]>,
) -> Vec<Standing> {
    let declared: BTreeSet<&Scope> = pool.scopes.iter().collect();
    let met = world.active_runners().filter(|runner| runner.pool == pool.name);
    let met: BTreeSet<&Scope> = met.map(|runner| &runner.scope).collect();
    let found = obstacles(world, pool, declared.union(&met).copied());
    let mut all: Vec<Standing> = found.iter().map(Standing::from).collect();
    let waiting = waits.filter(|reasons| reasons.iter().any(|r| found.contains(r))).count();
    if waiting > 0 {
        all.push(Standing::new("wanted", format!("{waiting} job(s) wait for it")));
    }
    for scope in &pool.scopes {
        let ready = |runner: &&Runner| {
            runner.pool == pool.name && runner.scope == *scope && runner.state.is_supply()
        };
        let ready = world.active_runners().filter(ready).count();
        if ready < pool.min_idle as usize {
            let text = format!("{ready} of {} idle runners are there in {scope}", pool.min_idle);
            all.push(Standing::new("below_min_idle", text));
        }
    }
    if all.is_empty() {
        let busy = world.runners_in(RunnerState::Busy).filter(|runner| runner.pool == pool.name);
        let text = format!("nothing stands in its way; {} of its runners have jobs", busy.count());
        all.push(Standing::new("serving", text));
    }
    all
}

/// Every thing that is so of a provider: whether it answers, and what keeps it from another instance.
pub fn provider(world: &Snapshot, provider: &Provider) -> Vec<Standing> {
    let subject = Subject::Instances(provider.name.clone());
    let looked = world.looked(&subject);
    let mut all = vec![match (looked.failed_at, looked.asked_at) {
        (Some(at), _) => {
            let text = format!("its listing failed {} time(s) in a row", looked.failures);
            Standing::new("failing", text).since(at).next(next_try(world, &subject))
        }
        (None, Some(at)) => Standing::new("answering", "its last listing succeeded")
            .since(at)
            .next(at + provider.poll),
        (None, None) => Standing::new("never_asked", "it has not answered a listing yet"),
    }];
    let held = world.existing_instances().filter(|one| one.provider == provider.name).count();
    if provider.max.is_some_and(|max| held >= max as usize) {
        all.push(Standing::from(&Reason::ProviderFull(provider.name.clone())));
    }
    all.extend(restrictions(world, provider).map(|reason| Standing::from(&reason)));
    all
}

/// What keeps a provider or one of its nodes from another instance, by order or after failures.
fn restrictions(world: &Snapshot, provider: &Provider) -> impl Iterator<Item = Reason> {
    let name = &provider.name;
    let drained = world.drains().filter(move |(key, _)| match key {
        DrainKey::Provider(of) | DrainKey::Node(of, _) => of == name,
        DrainKey::Pool(_) => false,
    });
    let failing = world.backoffs().map(|(key, _)| key).filter(move |key| match key {
        BackoffKey::Provider(of) | BackoffKey::Node(of, _) => of == name,
        BackoffKey::Pool(_) | BackoffKey::Scope(..) | BackoffKey::Image(_) => false,
    });
    let drained = drained.map(|(what, drain)| Reason::drained(what.clone(), drain));
    drained.chain(failing.filter_map(|key| obstacle(world, key, 0)))
}
