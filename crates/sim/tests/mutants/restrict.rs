//! Wrong rules about what is shut: by failures, as quarantine, or by a person, as a drain.

use std::sync::Arc;

use remuda_core::observation::{Observation, Order};
use remuda_core::reason::{BackoffKey, DrainKey};
use remuda_core::runner::{InstanceState, LaunchCall, Outcome, RunnerState};
use remuda_core::snapshot::Change;
use remuda_core::{Action, Plan, Snapshot, actions, observe, plan, settle};
use remuda_sim::{Hardship, Level};

use crate::{Mutant, SOUND, bent, declared, instance, runner};

/// Every runner of something dies for a while.
pub(crate) const BAD: Mutant = Mutant {
    hardship: ("bad", Hardship { level: Level::Normal, goes_bad: 100, ..Hardship::LOW }),
    jobs: 60,
    ..SOUND
};

/// Things are drained now and then.
pub(crate) const DRAINED: Mutant = Mutant {
    hardship: ("drain", Hardship { level: Level::Normal, drained: 100, ..Hardship::LOW }),
    jobs: 60,
    ..SOUND
};

pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        wrong: "nothing is ever put in quarantine",
        observe: observes_without_quarantine,
        settle: settles_without_quarantine,
        ..BAD
    },
    Mutant {
        wrong: "what is in quarantine is tried with as many as are wanted",
        plan: tries_with_many,
        ..BAD
    },
    Mutant { wrong: "failures of a node are held against nobody", settle: spares_nodes, ..BAD },
    Mutant { wrong: "a runner's job proves nothing", observe: proves_nothing, ..BAD },
    Mutant {
        wrong: "an old runner's job proves that new ones boot",
        observe: trusts_the_old,
        ..BAD
    },
    Mutant { wrong: "what is drained gets new runners", plan: plans_without_drains, ..DRAINED },
    Mutant {
        wrong: "who idles in what is drained stays",
        settle: settles_without_drains,
        ..DRAINED
    },
    Mutant { wrong: "a drain ends who has a job", settle: drains_the_busy, ..DRAINED },
    Mutant { wrong: "a drain never ends", observe: never_resumes, ..DRAINED },
    Mutant { wrong: "a node that is drained is not avoided", actions: avoids_nothing, ..DRAINED },
];

fn without_quarantine(world: &Snapshot) -> Snapshot {
    declared(world, |fleet| fleet.quarantine.after = u32::MAX)
}

fn observes_without_quarantine(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    observe(&without_quarantine(world), seen)
}

fn settles_without_quarantine(world: &Snapshot) -> Vec<Change> {
    settle(&without_quarantine(world))
}

fn tries_with_many(world: &Snapshot) -> Plan {
    let over = world.backoffs().filter(|(_, backoff)| backoff.until <= world.now);
    let over = over.map(|(key, _)| Change::Backoff(key.clone(), None)).collect::<Vec<_>>();
    plan(&bent(world, over))
}

fn spares_nodes(world: &Snapshot) -> Vec<Change> {
    let mut changes = settle(world);
    changes.retain(|change| !matches!(change, Change::Backoff(BackoffKey::Node(..), _)));
    changes
}

fn proves_nothing(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let mut changes = observe(world, seen);
    changes.retain(|change| !matches!(change, Change::Backoff(BackoffKey::Pool(_), None)));
    changes
}

fn trusts_the_old(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let old = world.instances().filter(|row| row.state == InstanceState::Live).cloned();
    let young = old.map(|mut row| {
        row.launch = row.launch.map(|launch| LaunchCall { at: world.now, ..launch });
        instance(row)
    });
    observe(&bent(world, young.collect::<Vec<_>>()), seen)
}

fn without_drains(world: &Snapshot) -> Snapshot {
    let keys: Vec<_> = world.drains().map(|(key, _)| key.clone()).collect();
    bent(world, keys.into_iter().map(|key| Change::Drain(key, None)))
}

fn plans_without_drains(world: &Snapshot) -> Plan {
    plan(&without_drains(world))
}

fn settles_without_drains(world: &Snapshot) -> Vec<Change> {
    settle(&without_drains(world))
}

fn drains_the_busy(world: &Snapshot) -> Vec<Change> {
    let mut changes = settle(world);
    let drained = world.runners_in(RunnerState::Busy).filter(|row| {
        let instance = world.instance(row.instance);
        let mut keys = instance.into_iter().flat_map(|instance| DrainKey::of(row, instance));
        keys.any(|key| world.drain(&key).is_some())
    });
    changes.extend(drained.map(|row| {
        let mut row = row.clone();
        row.enter(RunnerState::Stopping, Some(Outcome::Ordered), world.now);
        runner(row)
    }));
    changes
}

fn never_resumes(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    if matches!(seen, Observation::Order(Order::Resume { .. })) {
        return Vec::new();
    }
    observe(world, seen)
}

fn avoids_nothing(world: &Snapshot) -> Vec<Action> {
    let mut due = actions(world);
    for action in &mut due {
        if let Action::Launch(launch) = action {
            launch.avoid = Arc::default();
        }
    }
    due
}
