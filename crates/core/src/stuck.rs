//! What cannot go on by itself: what it is, and the way out.

use std::collections::BTreeMap;

use crate::actions::{unseen, waiting_orphans};
use crate::snapshot::Snapshot;

/// Something that waits for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// What it is.
    pub what: String,
    /// Why it is stuck, and the way out.
    pub text: String,
}

/// Everything that cannot go on before a person does something, or before the outside answers.
pub fn stuck(world: &Snapshot) -> Vec<Stuck> {
    let mut found = undeclared(world);
    for ((provider, id), scopes) in waiting_orphans(world) {
        let scopes: Vec<_> = scopes.iter().map(ToString::to_string).collect();
        let text = format!(
            "instance {id} has no runner of ours and stays until its registration has been looked \
             for in {}; mend what makes that listing fail",
            scopes.join(", ")
        );
        found.push(Stuck { what: format!("provider {provider}"), text });
    }
    if let Some(doubt) = world.recovering() {
        let unseen: Vec<_> = unseen(world, doubt.since);
        let text = format!(
            "they may not be the newest: {}; nothing is removed for want of a row until these have \
             been listed: {}. If you know that no other server has newer books, `remuda release \
             books` ends the wait",
            doubt.because,
            unseen.join(", ")
        );
        found.push(Stuck { what: "books".into(), text });
    }
    found
}

/// What was taken out of the fleet file too early.
fn undeclared(world: &Snapshot) -> Vec<Stuck> {
    let mut instances = BTreeMap::new();
    for instance in world.existing_instances() {
        if !world.fleet.providers.contains_key(&instance.provider) && instance.launch.is_some() {
            *instances.entry(&instance.provider).or_insert(0_u32) += 1;
        }
    }
    let mut runners = BTreeMap::new();
    for runner in world.active_runners() {
        if !world.fleet.forges.contains_key(&runner.forge) {
            *runners.entry(&runner.forge).or_insert(0_u32) += 1;
        }
    }
    let instances = instances.into_iter().map(|(provider, count)| Stuck {
        what: format!("provider {provider}"),
        text: format!(
            "it is not declared and still has {count} instance(s), which nobody can end: declare it \
             again without a pool that uses it until they are gone"
        ),
    });
    let runners = runners.into_iter().map(|(forge, count)| Stuck {
        what: format!("forge {forge}"),
        text: format!(
            "it is not declared and still has {count} runner(s), which nobody can deregister: \
             declare it again until they are gone"
        ),
    });
    instances.chain(runners).collect()
}
