//! Planted bugs: a simulator is judged by the wrong rules it catches.
//!
//! Each row of a theme's `MUTANTS` puts one wrong rule in the place of a right one, and some seed must make an
//! oracle object. The right rules pass the same seeds.

mod demand;
mod jobs;
mod restrict;
mod supply;

use std::sync::Arc;
use std::time::Duration;

use remuda_core::controller::Rules;
use remuda_core::fleet::Fleet;
use remuda_core::observation::Observation;
use remuda_core::runner::{Instance, Outcome, Runner, RunnerState};
use remuda_core::snapshot::Change;
use remuda_core::{Action, Plan, Snapshot, actions, observe, plan, settle};
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

/// Nothing but redelivery tells of jobs whose webhook was lost, and its listings fail and are short.
const UNSWEPT: Mutant = Mutant {
    hardship: (
        "hooks",
        Hardship {
            level: Level::Normal,
            unswept: 1000,
            webhook_lost: 200,
            call_fails: 50,
            listing_empty: 200,
            ..Hardship::LOW
        },
    ),
    jobs: 60,
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

/// The worst world, with listings that lie for hours.
const LYING: Mutant = Mutant { hardship: ("lying", Hardship::LYING), ..SOUND };

/// Listings that lie for hours, of instances that outlive their destruction.
const RETAINED: Mutant = Mutant {
    hardship: (
        "retained",
        Hardship {
            level: Level::Lying,
            lies_last: Duration::from_hours(3),
            listing_empty: 200,
            leaks: 700,
            delay_huge: 30,
            ..Hardship::LOW
        },
    ),
    jobs: 60,
    ..SOUND
};

/// Runners hang in their boot, and the forge calls them busy as they are to be removed.
const BUSY: Mutant = Mutant {
    hardship: (
        "busy",
        Hardship { level: Level::High, busy_lies: 1000, boot_hangs: 300, ..Hardship::LOW },
    ),
    ..SOUND
};

/// Most seeds tried before a wrong rule counts as not caught.
const SEEDS: u64 = 150;

/// Fewer wrong rules than this would not judge the simulator.
const MUTANTS_MIN: usize = 50;

/// All of them.
fn planted() -> Vec<Mutant> {
    [jobs::MUTANTS, supply::MUTANTS, demand::MUTANTS, restrict::MUTANTS].concat()
}

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
    let planted = planted();
    let caught: Vec<Option<(u64, String)>> = std::thread::scope(|threads| {
        let (even, odd): (Vec<_>, Vec<_>) = (0..planted.len()).partition(|index| index % 2 == 0);
        let halves = [even, odd].map(|half| {
            let planted = &planted;
            let run = move || half.into_iter().map(|i| (i, planted[i].caught())).collect();
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
    for (mutant, caught) in planted.iter().zip(caught) {
        let (hardship, wrong) = (mutant.hardship.0, mutant.wrong);
        match caught {
            Some((seed, verdict)) => {
                println!("{wrong:<70} {hardship:<5} seed {seed:>3}: {verdict}");
            }
            None => missed.push(wrong),
        }
    }
    let (planted, most) = (planted.len(), MUTANTS_MIN);
    println!("{planted} planted, {} caught within {SEEDS} seeds each", planted - missed.len());
    assert!(planted >= most, "{planted} planted bugs, and at least {most} are wanted");
    assert!(missed.is_empty(), "not caught by {SEEDS} seeds: {missed:#?}");
}

#[test]
fn the_right_rules_pass_the_seeds_that_catch_wrong_ones() {
    let all = [SOUND, CROWDED, DEAF, STALE, FORMER, LOST, LEAKY, LYING, RETAINED, BUSY];
    // Every rule of these worlds holds in the worst one too: a few seeds show that they are no harder.
    let few = [UNSWEPT, restrict::BAD, restrict::DRAINED].map(|mutant| (mutant, SEEDS / 15));
    for (mutant, seeds) in all.map(|mutant| (mutant, SEEDS / 3)).into_iter().chain(few) {
        for seed in 0..seeds {
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

/// The world under another fleet file.
fn declared(world: &Snapshot, change: impl FnOnce(&mut Fleet)) -> Snapshot {
    let mut world = world.clone();
    let mut fleet = (*world.fleet).clone();
    change(&mut fleet);
    world.fleet = Arc::new(fleet);
    world
}
