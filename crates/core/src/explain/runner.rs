//! What a runner is doing or waiting for.

use super::Standing;
use crate::actions::next_try;
use crate::health::obstacle;
use crate::observation::Subject;
use crate::pool::Limits;
use crate::reason::BackoffKey;
use crate::runner::{Instance, InstanceState, Runner, RunnerState};
use crate::snapshot::Snapshot;
use crate::time::Timestamp;

/// Every thing that is so of a runner, its state's first.
pub fn runner(world: &Snapshot, runner: &Runner) -> Vec<Standing> {
    let since = runner.since.at(runner.state);
    let Some(instance) = world.instance(runner.instance) else {
        return vec![gone(runner).since(since)];
    };
    let limits = world.fleet.pools.get(&runner.pool).map_or_else(Limits::default, |p| p.limits);
    let mut all = match runner.state {
        RunnerState::Pending => pending(world, runner, instance),
        RunnerState::Starting => {
            let text = "its instance exists; it is not online at the forge yet";
            vec![Standing::new("booting", text).next(since.map(|at| at + limits.boot))]
        }
        RunnerState::Idle => vec![idle(world, runner, &limits)],
        RunnerState::Draining => vec![draining(world, runner, instance)],
        RunnerState::Busy => vec![busy(world, runner, instance, &limits)],
        RunnerState::Stopping => vec![stopping(world, instance)],
        RunnerState::Gone => vec![gone(runner)],
    };
    if let Some(first) = all.first_mut() {
        first.since = first.since.or(since);
    }
    all.extend(beside(world, runner, instance));
    all
}

fn pending(world: &Snapshot, runner: &Runner, instance: &Instance) -> Vec<Standing> {
    if let Some(launch) = instance.launch {
        let text = format!("its launch at provider {} is under way", instance.provider);
        return vec![Standing::new("launching", text).since(launch.at).next(launch.deadline)];
    }
    let mut all: Vec<Standing> =
        BackoffKey::of(runner, instance, world.fleet.pools.get(&runner.pool))
            .into_iter()
            .filter_map(|key| obstacle(world, &key, 0))
            .map(|reason| Standing::from(&reason))
            .collect();
    let provider = world.fleet.providers.get(&instance.provider);
    let under_way = world
        .existing_instances()
        .filter(|one| one.provider == instance.provider && one.may_still_land(world.now))
        .count();
    if provider.is_none() {
        all.push(undeclared(instance));
    } else if provider.is_some_and(|p| under_way >= p.launches_max as usize) {
        let text = format!("{under_way} launches are under way at provider {}", instance.provider);
        all.push(Standing::new("launch_queued", text));
    }
    if all.is_empty() {
        all.push(Standing::new("launch_due", "its launch is about to be called"));
    }
    all
}

fn idle(world: &Snapshot, runner: &Runner, limits: &Limits) -> Standing {
    let kept = world.fleet.pools.get(&runner.pool).map_or(0, |pool| pool.min_idle);
    let text = match kept {
        0 => "it is online and waits for a job".to_owned(),
        kept => format!("it is online and waits for a job; {kept} such are kept"),
    };
    let leaves = runner.since.at(RunnerState::Idle).filter(|_| kept == 0);
    Standing::new("idle", text).next(leaves.map(|at| at + limits.idle))
}

fn draining(world: &Snapshot, runner: &Runner, instance: &Instance) -> Standing {
    let outcome = runner.outcome.map_or("ordered", |outcome| outcome.as_str());
    if let Some(launch) = instance.launch.filter(|_| instance.may_still_land(world.now)) {
        let text = format!("it is to leave ({outcome}); its launch may still take effect");
        return Standing::new("awaiting_launch", text).next(launch.deadline);
    }
    let text = format!("it is to leave ({outcome}); its registration is being removed");
    let subject = Subject::Runner(runner.id);
    Standing::new("deregistering", text).next(next_try(world, &subject))
}

fn busy(world: &Snapshot, runner: &Runner, instance: &Instance, limits: &Limits) -> Standing {
    if let Some(ended) = runner.job_ended_at {
        let text = "its job is over; it may report and leave by itself";
        return Standing::new("finishing", text).since(ended).next(ended + limits.finish);
    }
    if let Some(exit) = instance.exit {
        let code = exit.code.map_or("no exit code".to_owned(), |code| format!("exit code {code}"));
        let text = format!("its instance ended ({code}); the forge has not told its job's end");
        return Standing::new("exited_early", text).since(exit.at).next(exit.at + limits.finish);
    }
    if runner.is_unexplained() {
        let asked = world.looked(&Subject::Runner(runner.id)).asked_at;
        let since = asked.or(runner.since.at(RunnerState::Busy));
        let text = "the forge says that it has a job and has not told of which";
        let next = since.map(|at| at + world.fleet.grace.unexplained);
        return Standing::new("busy_unexplained", text).next(next);
    }
    let job = runner.job.as_ref().map_or_else(String::new, ToString::to_string);
    let since = runner.since.at(RunnerState::Busy);
    let limit = since.zip(limits.job).map(|(since, limit)| since + limit);
    Standing::new("running_job", format!("it runs job {job}")).next(limit)
}

fn stopping(world: &Snapshot, instance: &Instance) -> Standing {
    if !world.fleet.providers.contains_key(&instance.provider) {
        return undeclared(instance);
    }
    let again = instance.destroyed_at.map(|at| at + world.fleet.grace.destroy);
    let next = next_try(world, &Subject::Instance(instance.id)).max(again);
    let text = format!("its instance at provider {} is being ended", instance.provider);
    Standing::new("destroying", text).next(next)
}

fn undeclared(instance: &Instance) -> Standing {
    let text = format!("provider {} of its instance is not declared", instance.provider);
    Standing::new("provider_undeclared", text)
}

fn gone(runner: &Runner) -> Standing {
    let outcome = runner.outcome.map_or("unknown", |outcome| outcome.as_str());
    Standing::new("gone", format!("it is gone: {outcome}"))
}

/// What is so beside its state.
fn beside(world: &Snapshot, runner: &Runner, instance: &Instance) -> Vec<Standing> {
    let mut all = Vec::new();
    if let Some(hold) = &runner.hold {
        let text = format!("held by {}: {}", hold.who, hold.why);
        all.push(Standing::new("held", text).since(hold.since));
    }
    let missing = instance.missing_since.filter(|_| instance.state < InstanceState::Gone);
    if let Some(since) = missing {
        let patience = world.fleet.providers.get(&instance.provider).map(|p| p.absent);
        let lost: Option<Timestamp> = patience.map(|patience| since + patience);
        let text = format!("provider {} does not list its instance", instance.provider);
        all.push(Standing::new("instance_missing", text).since(since).next(lost));
    }
    let lacking = world.looked(&Subject::Runner(runner.id)).failed_at;
    if let Some(since) = lacking.filter(|_| runner.state == RunnerState::Idle) {
        let text = "the forge does not list its registration as online";
        all.push(Standing::new("registration_missing", text).since(since));
    }
    all
}
