//! Wrong rules about runners and instances: what is believed of them, and what is done to them.

use std::sync::Arc;
use std::time::Duration;

use remuda_core::observation::{Call, Cause, Observation, Subject};
use remuda_core::runner::{Instance, InstanceState, LaunchCall, Outcome, Runner, RunnerState};
use remuda_core::snapshot::{Change, Looked};
use remuda_core::{Action, Snapshot, Timestamp, actions, observe, settle};

use crate::{
    BUSY, DEAF, LEAKY, LYING, Mutant, RETAINED, SOUND, bent, instance, runner, sends_away,
};

pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        wrong: "a launch that was not answered in time is begun again",
        actions: launches_again,
        ..SOUND
    },
    Mutant {
        wrong: "a runner to be removed is destroyed before it is deregistered",
        settle: destroys_before_deregistering,
        ..SOUND
    },
    Mutant {
        wrong: "a listing older than the launch is believed",
        observe: believes_old_listings,
        ..SOUND
    },
    Mutant {
        wrong: "a pending runner whose launch is lost is stopped directly",
        settle: stops_pending_directly,
        ..SOUND
    },
    Mutant {
        wrong: "an instance missing from one listing is gone",
        observe: believes_one_listing,
        ..SOUND
    },
    Mutant {
        wrong: "runners missing from one listing are dead",
        observe: believes_one_registration_listing,
        ..SOUND
    },
    Mutant {
        wrong: "the answer that a runner is busy counts as its removal",
        observe: takes_busy_for_removed,
        ..SOUND
    },
    Mutant {
        wrong: "a launch whose answer was lost has made nothing",
        observe: takes_unknown_for_nothing,
        ..SOUND
    },
    Mutant { wrong: "a boot may take for ever", settle: waits_for_boots_forever, ..SOUND },
    Mutant { wrong: "stray registrations are left alone", actions: ignores_strays, ..SOUND },
    Mutant {
        wrong: "an idle runner that lost its registration is believed for ever",
        observe: believes_the_deaf,
        ..DEAF
    },
    Mutant {
        wrong: "what a provider says it destroyed is gone",
        observe: believes_destruction,
        ..LEAKY
    },
    Mutant {
        wrong: "another installation's instance is an orphan of ours",
        observe: sees_no_tags,
        ..LEAKY
    },
    Mutant {
        wrong: "a runner whose job was put back is stopped before it is deregistered",
        settle: stops_the_lost,
        ..SOUND
    },
    Mutant {
        wrong: "a runner whose job is over is left to itself",
        settle: leaves_the_finished,
        ..SOUND
    },
    Mutant { wrong: "instances without a row are left alone", actions: ignores_orphans, ..SOUND },
    Mutant {
        wrong: "a listing is believed although it lacks a runner at work",
        observe: forgets_who_is_at_work,
        ..LYING
    },
    Mutant {
        wrong: "an entry that names no runner vouches for the rest of its listing",
        observe: takes_numbers_for_names,
        ..LYING
    },
    Mutant {
        wrong: "a listing asked before a destruction confirms it",
        observe: confirms_with_old_listings,
        ..RETAINED
    },
    Mutant {
        wrong: "a job's limit ends a runner of which no job is known",
        settle: ends_whoever_is_called_busy,
        ..BUSY
    },
];

/// Only those whom the listing lacks: of the others it says something.
fn forgets_who_is_at_work(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let Observation::Runners { all, .. } = seen else { return observe(world, seen) };
    let lacks = |row: &&Runner| !all.iter().any(|seen| seen.name == row.name);
    let busy = world.runners_in(RunnerState::Busy).filter(lacks);
    observe(&bent(world, busy.map(|row| runner(Runner { job: None, ..row.clone() }))), seen)
}

fn takes_numbers_for_names(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let mut seen = seen.clone();
    if let Observation::Instances { all, .. } = &mut seen {
        for one in all {
            let row = world.instance(one.id).and_then(|row| world.runner(row.runner()?));
            one.runner = one.runner.take().or_else(|| row.map(|row| row.name.clone()));
        }
    }
    observe(world, &seen)
}

fn ends_whoever_is_called_busy(world: &Snapshot) -> Vec<Change> {
    let mut changes = settle(world);
    let past = |row: &&Runner| {
        let limit = world.fleet.pools.get(&row.pool).and_then(|pool| pool.limits.job);
        let since = row.since.at(RunnerState::Busy).unwrap_or(world.now);
        row.job.is_none() && limit.is_some_and(|limit| world.now.since(since) >= limit)
    };
    changes.extend(world.runners_in(RunnerState::Busy).filter(past).map(|row| {
        let mut row = row.clone();
        row.enter(RunnerState::Stopping, Some(Outcome::TimedOut), world.now);
        runner(row)
    }));
    changes
}

fn confirms_with_old_listings(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let Observation::Instances { asked_at, .. } = seen else { return observe(world, seen) };
    let younger = |row: &&Instance| {
        let missing = row.missing_since.is_some_and(|at| *asked_at >= at + Duration::from_mins(1));
        missing && row.destroyed_at.is_some_and(|at| *asked_at <= at)
    };
    let long_ago = Some(Timestamp::from_millis(0));
    let bend = |row: &Instance| instance(Instance { destroyed_at: long_ago, ..row.clone() });
    observe(&bent(world, world.instances().filter(younger).map(bend)), seen)
}

fn launches_again(world: &Snapshot) -> Vec<Action> {
    let late = world.instances().filter(|row| {
        row.state == InstanceState::Launching
            && row.launch.is_some_and(|launch| world.now > launch.deadline)
    });
    let as_planned = |row: &Instance| {
        instance(Instance { state: InstanceState::Planned, launch: None, ..row.clone() })
    };
    actions(&bent(world, late.map(as_planned)))
}

fn destroys_before_deregistering(world: &Snapshot) -> Vec<Change> {
    let mut changes = settle(world);
    changes.extend(world.runners_in(RunnerState::Draining).map(|row| {
        let mut row = row.clone();
        row.enter(RunnerState::Stopping, Some(Outcome::Surplus), world.now);
        runner(row)
    }));
    changes
}

/// Where the listing was asked before the launch was begun, neither the launch call nor a second look
/// is awaited.
fn believes_old_listings(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let Observation::Instances { provider, all, asked_at } = seen else {
        return observe(world, seen);
    };
    let long_ago = Timestamp::from_millis(0);
    let younger = world.instances().filter_map(|row| {
        let launch = row.launch.filter(|launch| *asked_at <= launch.at)?;
        let launch = LaunchCall { deadline: long_ago, answered_at: None, ..launch };
        let (launch, missing_since) = (Some(launch), Some(long_ago));
        Some(instance(Instance { launch, missing_since, ..row.clone() }))
    });
    let (provider, all, asked_at) = (provider.clone(), all.clone(), world.now);
    observe(&bent(world, younger), &Observation::Instances { provider, asked_at, all })
}

fn stops_pending_directly(world: &Snapshot) -> Vec<Change> {
    let mut changes = settle(world);
    changes.extend(world.runners_in(RunnerState::Pending).filter_map(|row| {
        let launch = world.instance(row.instance)?.launch?;
        let mut row = row.clone();
        row.enter(RunnerState::Stopping, Some(Outcome::LaunchLost), world.now);
        (world.now > launch.deadline).then(|| runner(row))
    }));
    changes
}

fn believes_one_listing(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let Observation::Instances { .. } = seen else { return observe(world, seen) };
    let long_ago = Some(Timestamp::from_millis(0));
    let missing =
        world.instances().map(|row| instance(Instance { missing_since: long_ago, ..row.clone() }));
    observe(&bent(world, missing), seen)
}

fn believes_one_registration_listing(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let Observation::Runners { .. } = seen else { return observe(world, seen) };
    let long_ago = Looked { failed_at: Some(Timestamp::from_millis(0)), ..Looked::default() };
    let lacking = world
        .runners_in(RunnerState::Idle)
        .map(|row| Change::Looked(Subject::Runner(row.id), long_ago));
    observe(&bent(world, lacking), seen)
}

fn takes_busy_for_removed(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let Observation::DeregisterBusy { subject } = seen else { return observe(world, seen) };
    observe(world, &Observation::Deregistered { subject: subject.clone() })
}

fn takes_unknown_for_nothing(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let Observation::Failed { subject, call: Call::Launch, cause: Cause::Unknown, message } = seen
    else {
        return observe(world, seen);
    };
    let (subject, message) = (subject.clone(), message.clone());
    let (call, cause) = (Call::Launch, Cause::Transient);
    observe(world, &Observation::Failed { subject, call, cause, message })
}

fn waits_for_boots_forever(world: &Snapshot) -> Vec<Change> {
    let mut patient = world.clone();
    let mut fleet = (*world.fleet).clone();
    for pool in fleet.pools.values_mut() {
        pool.limits.boot = Duration::from_hours(1000);
    }
    patient.fleet = Arc::new(fleet);
    settle(&patient)
}

fn ignores_strays(world: &Snapshot) -> Vec<Action> {
    let mut due = actions(world);
    due.retain(|action| !matches!(action.subject(), Subject::Stray(_)));
    due
}

fn believes_the_deaf(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let mut changes = observe(world, seen);
    if matches!(seen, Observation::Runners { .. }) {
        changes.retain(|change| !sends_away(change, Outcome::Died));
    }
    changes
}

fn believes_destruction(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let Observation::Destroyed { instance: id, .. } = seen else { return observe(world, seen) };
    let Some(mut row) = world.instance(*id).cloned() else { return Vec::new() };
    row.enter(InstanceState::Gone, world.now);
    vec![instance(row)]
}

fn sees_no_tags(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let mut seen = seen.clone();
    if let Observation::Instances { all, .. } = &mut seen {
        for one in all {
            one.runner = None;
        }
    }
    observe(world, &seen)
}

fn stops_the_lost(world: &Snapshot) -> Vec<Change> {
    let mut changes = settle(world);
    let lost = |row: &&Runner| row.state == RunnerState::Busy && row.outcome == Some(Outcome::Lost);
    changes.extend(world.runners().filter(lost).map(|row| {
        let mut row = row.clone();
        row.enter(RunnerState::Stopping, None, world.now);
        runner(row)
    }));
    changes
}

fn leaves_the_finished(world: &Snapshot) -> Vec<Change> {
    let mut changes = settle(world);
    let ends = |row: &Runner| row.state >= RunnerState::Stopping && row.job.is_some();
    changes.retain(|change| !matches!(change, Change::Runner(row) if ends(row)));
    changes
}

fn ignores_orphans(world: &Snapshot) -> Vec<Action> {
    let mut due = actions(world);
    due.retain(|action| !matches!(action, Action::Destroy(call) if world.instance(call.instance).is_none()));
    due
}
