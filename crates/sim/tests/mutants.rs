//! Planted bugs: a simulator is judged by the wrong rules it catches.
//!
//! Each row of [`MUTANTS`] puts one wrong rule in the place of a right one, and some seed must make an
//! oracle object. The right rules pass the same seeds.

use std::sync::Arc;
use std::time::Duration;

use remuda_core::controller::Rules;
use remuda_core::fleet::{Fleet, Terms};
use remuda_core::job::{Conclusion, JobState};
use remuda_core::observation::{Call, Cause, JobSeen, Observation, Source, Subject};
use remuda_core::reason::Reason;
use remuda_core::runner::{
    Instance, InstanceState, LaunchCall, Outcome, Runner, RunnerId, RunnerState,
};
use remuda_core::snapshot::{Backoff, Change, Looked};
use remuda_core::tenant::Met;
use remuda_core::{Action, Plan, Snapshot, Timestamp, actions, observe, plan, settle};
use remuda_sim::{Hardship, Level, Settings, simulate, simulate_with};

/// A wrong rule.
#[derive(Clone, Copy)]
struct Mutant {
    wrong: &'static str,
    hardship: (&'static str, Hardship),
    jobs: u32,
    observe: fn(&Snapshot, &Observation) -> Vec<Change>,
    settle: fn(&Snapshot) -> Vec<Change>,
    plan: fn(&Snapshot) -> Plan,
    actions: fn(&Snapshot) -> Vec<Action>,
}

/// The right rules, in the worst world.
const SOUND: Mutant = Mutant {
    wrong: "",
    hardship: ("high", Hardship::HIGH),
    jobs: 20,
    observe,
    settle,
    plan,
    actions,
};

/// Many jobs in a world that is calm but for cancellations, where no job may wait without a reason.
const CROWDED: Mutant = Mutant { hardship: ("low", Hardship::LOW), jobs: 60, ..SOUND };

/// Runners go deaf while they wait, for jobs that are cancelled.
const DEAF: Mutant = Mutant {
    hardship: ("deaf", Hardship { goes_deaf: 500, cancelled: 400, ..Hardship::LOW }),
    jobs: 60,
    ..SOUND
};

/// Answers come late, and show what was.
const STALE: Mutant = Mutant {
    hardship: (
        "stale",
        Hardship { level: Level::High, stale: 500, delay_huge: 100, ..Hardship::LOW },
    ),
    jobs: 60,
    ..SOUND
};

/// Jobs are put back, and what was told of their former runners comes late.
const FORMER: Mutant = Mutant {
    hardship: (
        "former",
        Hardship {
            level: Level::High,
            put_back: 400,
            webhook_doubled: 300,
            delay_huge: 150,
            ..Hardship::LOW
        },
    ),
    jobs: 60,
    ..SOUND
};

/// The forge loses jobs for good.
const LOST: Mutant = Mutant {
    hardship: ("lost", Hardship { level: Level::High, job_vanishes: 100, ..Hardship::LOW }),
    ..SOUND
};

/// Providers that list what is not ours, and let what was destroyed live on.
const LEAKY: Mutant = Mutant {
    hardship: (
        "leaky",
        Hardship { level: Level::High, garbage: 1000, leaks: 500, crash: 10, ..Hardship::LOW },
    ),
    jobs: 60,
    ..SOUND
};

/// Most seeds tried before a wrong rule counts as not caught.
const SEEDS: u64 = 150;

/// Fewer wrong rules than this would not judge the simulator.
const MUTANTS_MIN: usize = 35;

const MUTANTS: &[Mutant] = &[
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
        wrong: "a late delivery revives a job that has ended",
        observe: forgets_ended_jobs,
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
        wrong: "draining and stopping runners do not count against the pool",
        plan: ignores_what_is_leaving,
        ..SOUND
    },
    Mutant {
        wrong: "a job that was put back is not served again",
        observe: never_reopens,
        ..SOUND
    },
    Mutant {
        wrong: "late facts of a former runner are believed",
        observe: believes_former_runners,
        ..FORMER
    },
    Mutant {
        wrong: "a read is believed to be as new as its arrival",
        observe: believes_late_reads,
        ..STALE
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
    Mutant { wrong: "a job read as missing once is over", observe: believes_one_404, ..SOUND },
    Mutant {
        wrong: "failures are not waited out",
        plan: plans_without_backoff,
        actions: calls_without_backoff,
        ..SOUND
    },
    Mutant { wrong: "idle runners are never reaped", plan: never_reaps, ..SOUND },
    Mutant { wrong: "the listing of jobs is ignored", observe: ignores_job_listings, ..SOUND },
    Mutant { wrong: "a doubtful job is never read", actions: never_reads_jobs, ..SOUND },
    Mutant { wrong: "a boot may take for ever", settle: waits_for_boots_forever, ..SOUND },
    Mutant { wrong: "stray registrations are left alone", actions: ignores_strays, ..SOUND },
    Mutant {
        wrong: "an idle runner that lost its registration is believed for ever",
        observe: believes_the_deaf,
        ..DEAF
    },
    Mutant { wrong: "a blocked job blocks those behind it", plan: blocks_the_line, ..CROWDED },
    Mutant { wrong: "the tenant's cap is ignored", plan: ignores_caps, ..CROWDED },
    Mutant { wrong: "a tenant has another's cap", plan: swaps_caps, ..CROWDED },
    Mutant { wrong: "weights are ignored", plan: ignores_weights, ..CROWDED },
    Mutant { wrong: "floors are ignored", plan: ignores_floors, ..CROWDED },
    Mutant { wrong: "jobs are served by their number, not in turn", plan: by_number, ..CROWDED },
    Mutant { wrong: "the last turn is forgotten", plan: forgets_turns, ..CROWDED },
    Mutant { wrong: "no idle runners are kept", plan: keeps_none_idle, ..SOUND },
    Mutant { wrong: "a blocked job is not told why", plan: says_nothing, ..CROWDED },
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
        wrong: "every pool's jobs have the limit that one pool declares",
        settle: limits_every_job,
        ..SOUND
    },
    Mutant { wrong: "a provider's limit is ignored", plan: ignores_providers, ..CROWDED },
    Mutant { wrong: "runners on their way are not counted on", plan: counts_on_nobody, ..CROWDED },
    Mutant {
        wrong: "a job that the forge denies for ever is never given up",
        observe: believes_no_404,
        ..LOST
    },
    Mutant { wrong: "a back-off never ends", plan: backs_off_forever, ..SOUND },
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
];

impl Rules for Mutant {
    fn observe(&self, world: &Snapshot, seen: &Observation) -> Vec<Change> {
        (self.observe)(world, seen)
    }
    fn settle(&self, world: &Snapshot) -> Vec<Change> {
        (self.settle)(world)
    }
    fn plan(&self, world: &Snapshot) -> Plan {
        (self.plan)(world)
    }
    fn actions(&self, world: &Snapshot) -> Vec<Action> {
        (self.actions)(world)
    }
}

impl Mutant {
    fn settings(&self, seed: u64) -> Settings {
        let (_, hardship) = self.hardship;
        Settings { seed, jobs: self.jobs, hours: 2, hardship, trace: false }
    }

    /// The first seed that an oracle objects to, and its words.
    fn caught(&self) -> Option<(u64, String)> {
        (0..SEEDS).find_map(|seed| {
            let failure = simulate_with(self.settings(seed), *self).err()?;
            Some((seed, failure.verdict))
        })
    }
}

#[test]
fn every_planted_bug_is_caught() {
    let caught: Vec<Option<(u64, String)>> = std::thread::scope(|threads| {
        let (even, odd): (Vec<_>, Vec<_>) = (0..MUTANTS.len()).partition(|index| index % 2 == 0);
        let halves = [even, odd].map(|half| {
            let run = move || half.into_iter().map(|i| (i, MUTANTS[i].caught())).collect();
            threads.spawn(run)
        });
        let mut all: Vec<(usize, Option<(u64, String)>)> = Vec::new();
        for half in halves {
            let half: Vec<_> = half.join().unwrap();
            all.extend(half);
        }
        all.sort_by_key(|(index, _)| *index);
        all.into_iter().map(|(_, caught)| caught).collect()
    });
    let mut missed = Vec::new();
    for (mutant, caught) in MUTANTS.iter().zip(caught) {
        let (hardship, wrong) = (mutant.hardship.0, mutant.wrong);
        match caught {
            Some((seed, verdict)) => {
                println!("{wrong:<70} {hardship:<5} seed {seed:>3}: {verdict}");
            }
            None => missed.push(wrong),
        }
    }
    let (planted, most) = (MUTANTS.len(), MUTANTS_MIN);
    println!("{planted} planted, {} caught within {SEEDS} seeds each", planted - missed.len());
    assert!(planted >= most, "{planted} planted bugs, and at least {most} are wanted");
    assert!(missed.is_empty(), "not caught by {SEEDS} seeds: {missed:#?}");
}

#[test]
fn the_right_rules_pass_the_seeds_that_catch_wrong_ones() {
    for mutant in [SOUND, CROWDED, DEAF, STALE, FORMER, LOST, LEAKY] {
        for seed in 0..SEEDS / 3 {
            if let Err(failure) = simulate(mutant.settings(seed)) {
                panic!("{failure} ({} jobs, hardship {})", mutant.jobs, mutant.hardship.0);
            }
        }
    }
}

/// The world with other rows.
fn bent(world: &Snapshot, changes: impl IntoIterator<Item = Change>) -> Snapshot {
    let changes: Vec<Change> = changes.into_iter().collect();
    let mut world = world.clone();
    world.apply(&changes);
    world
}

fn runner(runner: Runner) -> Change {
    Change::Runner(Box::new(runner))
}

fn instance(instance: Instance) -> Change {
    Change::Instance(Box::new(instance))
}

/// True if the change sends a runner away for this reason.
fn sends_away(change: &Change, why: Outcome) -> bool {
    matches!(change, Change::Runner(runner)
        if runner.state == RunnerState::Draining && runner.outcome == Some(why))
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

fn forgets_ended_jobs(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let Observation::Job(job) = seen else { return observe(world, seen) };
    let known = world.job(&job.key);
    if known.is_none_or(|known| known.attempt.state < JobState::Completed) {
        return observe(world, seen);
    }
    observe(&bent(world, [Change::ForgetJob(job.key.clone())]), seen)
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

fn ignores_what_is_leaving(world: &Snapshot) -> Plan {
    let leaving = world
        .runners()
        .filter(|row| matches!(row.state, RunnerState::Draining | RunnerState::Stopping));
    plan(&bent(world, leaving.map(|row| Change::ForgetRunner(row.id))))
}

fn never_reopens(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let forward = |job: &JobSeen| {
        let known = world.job(&job.key).map(|known| known.attempt.state);
        known != Some(JobState::InProgress) || job.state >= JobState::InProgress
    };
    if let Observation::Job(job) = seen
        && !forward(job)
    {
        return Vec::new();
    }
    let Observation::Jobs { forge, scope, asked_at, all, covered } = seen else {
        return observe(world, seen);
    };
    let mut all = all.clone();
    all.retain(forward);
    let (forge, scope, asked_at, covered) =
        (forge.clone(), scope.clone(), *asked_at, covered.clone());
    observe(world, &Observation::Jobs { forge, scope, asked_at, all, covered })
}

fn believes_former_runners(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let mut known = world.jobs().cloned().collect::<Vec<_>>();
    for job in &mut known {
        job.past_runners.clear();
    }
    observe(&bent(world, known.into_iter().map(|job| Change::Job(Box::new(job)))), seen)
}

fn believes_late_reads(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let Observation::Job(job) = seen else { return observe(world, seen) };
    let mut job = job.clone();
    if let Source::Read { asked_at } = &mut job.source {
        *asked_at = world.now;
    }
    observe(world, &Observation::Job(job))
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

fn believes_one_404(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let Observation::JobMissing { key, .. } = seen else { return observe(world, seen) };
    let Some(mut job) = world.job(key).cloned() else { return Vec::new() };
    job.attempt.state = JobState::Completed;
    job.attempt.conclusion = Some(Conclusion::Expired);
    job.doubt = None;
    vec![Change::Job(Box::new(job))]
}

fn without_backoff(world: &Snapshot) -> Snapshot {
    let keys: Vec<_> = world.backoffs().map(|(key, _)| key.clone()).collect();
    bent(world, keys.into_iter().map(|key| Change::Backoff(key, None)))
}

fn plans_without_backoff(world: &Snapshot) -> Plan {
    plan(&without_backoff(world))
}

fn calls_without_backoff(world: &Snapshot) -> Vec<Action> {
    actions(&without_backoff(world))
}

fn never_reaps(world: &Snapshot) -> Plan {
    let mut plan = plan(world);
    plan.changes.retain(|change| !sends_away(change, Outcome::Surplus));
    plan
}

fn ignores_job_listings(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let mut changes = observe(world, seen);
    if matches!(seen, Observation::Jobs { .. }) {
        changes.retain(|change| matches!(change, Change::Looked(..)));
    }
    changes
}

fn never_reads_jobs(world: &Snapshot) -> Vec<Action> {
    let mut due = actions(world);
    due.retain(|action| !matches!(action.subject(), Subject::Job(_)));
    due
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

/// The numbers of runners this plan makes for jobs behind the first blocked one.
fn behind_the_blocked(world: &Snapshot, plan: &Plan) -> Vec<RunnerId> {
    let place = |key| world.job(key).map(|job| (job.attempt.queued_at, job.key.clone()));
    let coming = |reason: &Reason| {
        let (Reason::RunnerStarting(id) | Reason::RunnerIdle(id)) = reason else { return None };
        Some(*id)
    };
    let blocked =
        plan.waits.iter().filter(|wait| !wait.reasons.iter().any(|r| coming(r).is_some()));
    let Some(first) = blocked.filter_map(|wait| place(&wait.job)).min() else { return Vec::new() };
    let behind = plan.waits.iter().filter(|wait| place(&wait.job).is_some_and(|at| at > first));
    behind.flat_map(|wait| wait.reasons.iter().filter_map(coming)).collect()
}

fn blocks_the_line(world: &Snapshot) -> Plan {
    let mut plan = plan(world);
    let behind = behind_the_blocked(world, &plan);
    let new = |id: RunnerId| behind.contains(&id) && world.runner(id).is_none();
    plan.changes.retain(|change| {
        let dropped = matches!(change, Change::Runner(row) if new(row.id))
            || matches!(change, Change::Instance(row) if row.runner().is_some_and(new));
        !dropped
    });
    plan
}

/// A plan by other terms for the tenants.
fn by_terms(world: &Snapshot, change: impl Fn(&mut Terms)) -> Plan {
    let mut world = world.clone();
    let mut fleet = (*world.fleet).clone();
    change(&mut fleet.tenants.default);
    fleet.tenants.by_login.values_mut().for_each(|(_, terms)| change(terms));
    world.fleet = Arc::new(fleet);
    plan(&world)
}

fn ignores_caps(world: &Snapshot) -> Plan {
    by_terms(world, |terms| terms.cap = 1000)
}

fn swaps_caps(world: &Snapshot) -> Plan {
    let cap = world.fleet.tenants.default.cap;
    by_terms(world, |terms| terms.cap = cap)
}

fn ignores_weights(world: &Snapshot) -> Plan {
    by_terms(world, |terms| terms.weight = 1)
}

fn ignores_floors(world: &Snapshot) -> Plan {
    by_terms(world, |terms| terms.floor = 0)
}

fn without_turns(world: &Snapshot) -> Vec<Change> {
    let met = world.tenants().cloned();
    met.map(|met| Change::Tenant(Box::new(Met { served_at: None, ..met }))).collect()
}

fn forgets_turns(world: &Snapshot) -> Plan {
    plan(&bent(world, without_turns(world)))
}

fn by_number(world: &Snapshot) -> Plan {
    let ageless = world.jobs().cloned().map(|mut job| {
        job.attempt.queued_at = Timestamp::from_millis(0);
        Change::Job(Box::new(job))
    });
    let mut world = bent(world, ageless.chain(without_turns(world)));
    // Nobody is overdue either.
    let now = std::mem::replace(&mut world.now, Timestamp::from_millis(0));
    let mut plan = plan(&world);
    world.now = now;
    for change in &mut plan.changes {
        if let Change::Runner(row) = change
            && row.state == RunnerState::Pending
        {
            row.since = remuda_core::runner::Since::default();
            row.since.enter(RunnerState::Pending, now);
        }
    }
    plan
}

fn keeps_none_idle(world: &Snapshot) -> Plan {
    let mut world = world.clone();
    let mut fleet = (*world.fleet).clone();
    for pool in fleet.pools.values_mut() {
        pool.min_idle = 0;
    }
    world.fleet = Arc::new(fleet);
    plan(&world)
}

fn says_nothing(world: &Snapshot) -> Plan {
    let mut plan = plan(world);
    plan.waits.retain(|wait| {
        wait.reasons.iter().all(|r| matches!(r, Reason::RunnerStarting(_) | Reason::RunnerIdle(_)))
    });
    plan
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

/// The world under another fleet file.
fn declared(world: &Snapshot, change: impl FnOnce(&mut Fleet)) -> Snapshot {
    let mut world = world.clone();
    let mut fleet = (*world.fleet).clone();
    change(&mut fleet);
    world.fleet = Arc::new(fleet);
    world
}

fn limits_every_job(world: &Snapshot) -> Vec<Change> {
    settle(&declared(world, |fleet| {
        for pool in fleet.pools.values_mut() {
            pool.limits.job = Some(Duration::from_mins(15));
        }
    }))
}

fn ignores_providers(world: &Snapshot) -> Plan {
    plan(&declared(world, |fleet| {
        for provider in fleet.providers.values_mut() {
            provider.max = None;
        }
    }))
}

fn counts_on_nobody(world: &Snapshot) -> Plan {
    let coming = |row: &&Runner| row.state == RunnerState::Starting;
    let away = world.runners().filter(coming).map(|row| {
        let mut row = row.clone();
        row.enter(RunnerState::Draining, Some(Outcome::Surplus), world.now);
        runner(row)
    });
    plan(&bent(world, away))
}

fn believes_no_404(world: &Snapshot, seen: &Observation) -> Vec<Change> {
    let mut changes = observe(world, seen);
    let expires = |change: &Change| matches!(change, Change::Job(job) if job.attempt.conclusion == Some(Conclusion::Expired));
    changes.retain(|change| !expires(change));
    changes
}

fn backs_off_forever(world: &Snapshot) -> Plan {
    let longer = world.backoffs().map(|(key, backoff)| {
        let until = world.now + Duration::from_hours(1);
        Change::Backoff(key.clone(), Some(Backoff { until, ..backoff.clone() }))
    });
    plan(&bent(world, longer))
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
