//! `remuda simulate`: histories of the control plane in a virtual world.

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use indicatif::ProgressBar;
use remuda_sim::{Failure, Hardship, Mark, Marks, Report, Settings, simulate};

use super::say;
use crate::exit::Exit;

/// Run the control plane's core in a virtual world, seed by seed
///
/// Each seed is one history of jobs, faults and crashes, watched by oracles. The last line of output is
/// a summary; the exit code is 0 only if every history is clean.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  remuda simulate --seeds 0..100\n  \
                        remuda simulate --seed 42 --trace --hardship high")]
pub(super) struct Simulate {
    /// Which seeds, from A up to but not including B
    #[arg(long, value_name = "A..B", default_value = "0..100", conflicts_with = "seed")]
    seeds: String,
    /// One seed
    #[arg(long)]
    seed: Option<u64>,
    /// Virtual hours in which jobs arrive
    #[arg(long, default_value_t = 2)]
    hours: u32,
    /// Jobs of each history
    #[arg(long, default_value_t = 12)]
    jobs: u32,
    /// none, low, normal, high, or lying: listings that lie for longer than every grace
    #[arg(long, default_value = "normal")]
    hardship: String,
    /// Print what happened
    #[arg(long)]
    trace: bool,
}

/// From so many histories on, every mark that their hardship can produce must have been reached.
const MARKS_AFTER: u64 = 2000;

/// What a range of histories came to.
#[derive(Debug, Default)]
pub(crate) struct Histories {
    pub(crate) count: u64,
    pub(crate) jobs: u64,
    pub(crate) turns: u64,
    pub(crate) elapsed: Duration,
    pub(crate) wall: Duration,
    pub(crate) crashes: u64,
    marks: Marks,
    waited: Duration,
    ownerless: Duration,
    failures: Vec<Failure>,
}

impl Histories {
    fn take(&mut self, outcome: Result<Report, Failure>) {
        self.count += 1;
        match outcome {
            Ok(report) => {
                self.jobs += u64::from(report.jobs);
                self.turns += report.turns;
                self.elapsed += report.elapsed;
                self.crashes += u64::from(report.crashes);
                self.marks.extend(report.marks);
                self.waited = self.waited.max(report.waited);
                self.ownerless = self.ownerless.max(report.ownerless);
            }
            Err(failure) => self.failures.push(failure),
        }
    }

    /// Takes in what other seeds, run after these, came to.
    pub(crate) fn add(&mut self, other: Self) {
        self.wall += other.wall;
        self.count += other.count;
        self.jobs += other.jobs;
        self.turns += other.turns;
        self.elapsed += other.elapsed;
        self.crashes += other.crashes;
        self.marks.extend(other.marks);
        self.waited = self.waited.max(other.waited);
        self.ownerless = self.ownerless.max(other.ownerless);
        self.failures.extend(other.failures);
    }

    /// Marks that so many histories of a world so hard must have reached, and did not.
    fn missed(&self, hardship: Hardship) -> Vec<Mark> {
        if self.count < MARKS_AFTER {
            return Vec::new();
        }
        let due = Mark::ALL.iter().filter(|mark| mark.level() <= hardship.level);
        due.filter(|mark| !self.marks.contains(**mark)).copied().collect()
    }

    /// True if the oracles found nothing.
    pub(crate) fn is_clean(&self) -> bool {
        self.failures.is_empty()
    }

    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 histories")]
    fn rate(&self) -> f64 {
        self.count as f64 / self.wall.as_secs_f64().max(1e-9)
    }

    /// Virtual hours per minute of real time.
    pub(crate) fn hours_per_minute(&self) -> f64 {
        self.elapsed.as_secs_f64() / 60.0 / self.wall.as_secs_f64().max(1e-9)
    }
}

/// Runs a range of seeds on every core.
pub(crate) fn histories(
    seeds: std::ops::Range<u64>,
    settings: Settings,
    progress: &ProgressBar,
) -> Histories {
    let begun = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let mut all = std::thread::scope(|scope| {
        let work: Vec<_> = (0..threads)
            .map(|first| {
                let seeds =
                    (seeds.start + first..seeds.end).step_by(usize::try_from(threads).unwrap_or(1));
                scope.spawn(move || {
                    let mut own = Histories::default();
                    for seed in seeds {
                        own.take(simulate(Settings { seed, ..settings }));
                        progress.inc(1);
                    }
                    own
                })
            })
            .collect();
        let mut all = Histories::default();
        for thread in work {
            all.add(thread.join().expect("a history that panics is a bug, and is shown as one"));
        }
        all
    });
    all.wall = begun.elapsed();
    all
}

impl Simulate {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let Some(hardship) = Hardship::named(&self.hardship) else {
            bail!("hardship {:?} is none of none, low, normal, high, lying", self.hardship);
        };
        let seeds = match self.seed {
            Some(seed) => seed..seed + 1,
            None => range(&self.seeds)?,
        };
        let settings =
            Settings { seed: 0, jobs: self.jobs, hours: self.hours, hardship, trace: self.trace };
        if self.trace {
            return trace(Settings { seed: seeds.start, ..settings });
        }
        let progress = ProgressBar::new(seeds.end - seeds.start);
        let all = histories(seeds, settings, &progress);
        progress.finish_and_clear();
        for failure in all.failures.iter().take(20) {
            say(&format!("{failure}"))?;
            say(&format!(
                "  again: remuda simulate --seed {} --jobs {} --hours {} --hardship {} --trace",
                failure.seed, self.jobs, self.hours, self.hardship
            ))?;
        }
        let missed = all.missed(hardship);
        for mark in Mark::ALL.iter().filter(|mark| mark.level() <= hardship.level) {
            let reached = if all.marks.contains(*mark) { "reached" } else { "never" };
            say(&format!("{reached:>7}  {mark}"))?;
        }
        say(&format!(
            "{} histories, {} failed, {} marks missed: {} jobs, {} crashes, {} turns, {:.0} virtual \
             hours in {:.1} s, {:.0} histories/s; longest wait {} s, longest without owner {} s",
            all.count,
            all.failures.len(),
            missed.len(),
            all.jobs,
            all.crashes,
            all.turns,
            all.elapsed.as_secs_f64() / 3600.0,
            all.wall.as_secs_f64(),
            all.rate(),
            all.waited.as_secs(),
            all.ownerless.as_secs(),
        ))?;
        Ok(if all.failures.is_empty() && missed.is_empty() { Exit::Done } else { Exit::Failed })
    }
}

fn trace(settings: Settings) -> anyhow::Result<Exit> {
    let (lines, summary, exit) = match simulate(settings) {
        Ok(report) => {
            let summary = format!(
                "seed {}: clean, {} jobs, {} instances",
                settings.seed, report.jobs, report.made
            );
            (report.trace, summary, Exit::Done)
        }
        Err(failure) => {
            let summary = failure.to_string();
            (failure.trace, summary, Exit::Failed)
        }
    };
    for line in lines {
        say(&line)?;
    }
    say(&summary)?;
    Ok(exit)
}

fn range(text: &str) -> anyhow::Result<std::ops::Range<u64>> {
    let parsed = text
        .split_once("..")
        .and_then(|(from, to)| Some(from.trim().parse().ok()?..to.trim().parse().ok()?))
        .filter(|range: &std::ops::Range<u64>| range.start < range.end);
    match parsed {
        Some(range) => Ok(range),
        None => bail!("--seeds {text:?} is not of the form A..B with A below B, such as 0..100"),
    }
}
