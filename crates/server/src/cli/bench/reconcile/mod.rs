//! `remuda bench reconcile`: what thousands of live runners cost: to sweep, to keep in mind, to decide
//! beside.

pub(super) mod afresh;
mod farm;
pub(super) mod forge;
mod scene;

use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use remuda_core::Seen;
use remuda_core::observation::Subject;
use remuda_core::{Controller, Timestamp, plan};

use super::super::stage::ended_by_user;
use super::super::table::cell;
use super::{Json, rounded};
use crate::exit::Exit;
use scene::{Control, Scene};

/// How long one sweep may take before the measurement is given up.
const SWEEP_MAX: Duration = Duration::from_mins(1);
/// How often to look whether it is over.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What thousands of live runners cost
///
/// A whole server (intake over HTTP, `SQLite`, the loop, the GitHub adapter) has as many runners at work as
/// said, of 10 organizations and in 20 pools, all of them launched for jobs that a sandbox in a second
/// process queued. The sandbox's runners and the provider's instances have no processes; all else is real.
///
/// SWEEP is the time from the request until every registration (100 to a page) and every instance has
/// been listed, the loop has planned and what follows is committed. JOBS is the same of a sweep of the
/// open jobs. PLAN is one plan alone. MEMORY is by how much the resident memory of a new server that has
/// taken over these books, and has swept everything once, is more than that of one on empty books; in all,
/// and for each runner with its job. DECISION is the 99th percentile of the time from a delivery's arrival
/// (its body is read and its signature checked) to the end of the commit with what the plan made of it,
/// while so many deliveries arrive a second, a third each of jobs queued, begun and ended, with their
/// launches and removals; an upper bound, by the buckets of the metric `remuda_decision_seconds`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  remuda bench reconcile --runners 1000 --seconds 3 --json")]
pub(super) struct Reconcile {
    /// Live runners, each with a job
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    runners: u32,
    /// Deliveries per second
    #[arg(long, default_value_t = 200.0)]
    events: f64,
    /// How long they arrive
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Sweeps of which the median is taken
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    #[command(flatten)]
    json: Json,
}

/// What came of it.
struct Figures {
    runners: usize,
    sweep: f64,
    jobs: f64,
    plan: f64,
    base: f64,
    grown: f64,
    worked: f64,
    decisions: Decisions,
}

/// Decisions taken, and a bound below which so many hundredths of them were, in milliseconds.
struct Decisions {
    count: u64,
    p50: f64,
    p99: f64,
}

impl Reconcile {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let mut end = pin!(ended_by_user());
        let (mut scene, control) = Scene::start().await?;
        let measured = tokio::select! {
            measured = self.measure(&mut scene, control) => Some(measured),
            () = end.as_mut() => None,
        };
        scene.strike().await?;
        let Some(figures) = measured.transpose()? else { return Ok(Exit::Interrupted) };
        self.show(&figures)?;
        Ok(Exit::Done)
    }

    async fn measure(&self, scene: &mut Scene, control: Control) -> anyhow::Result<Figures> {
        scene.order(&format!("fill {}", self.runners)).await?;
        let runners = control.handle().ask(|c| c.world().active_runners().count()).await?;
        let (mut sweeps, mut jobs, mut plans) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.repeats {
            sweeps.push(sweep(&control, supply).await?);
            jobs.push(sweep(&control, demand).await?);
            plans.push(control.handle().ask(one_plan).await?);
        }
        let before = control.decisions().await?;
        scene.order(&format!("flow {} {}", self.events, self.seconds)).await?;
        let after = control.decisions().await?;
        let decisions = Decisions::between(&before, &after)?;
        let worked = afresh::resident(Path::new("/proc/self/status"))?;
        control.stop().await?;
        let base = scene.afresh(true).await?;
        let grown = scene.afresh(false).await? - base;
        let (sweep, jobs, plan) = (median(sweeps), median(jobs), median(plans));
        Ok(Figures { runners, sweep, jobs, plan, base, grown, worked, decisions })
    }

    fn show(&self, figures: &Figures) -> anyhow::Result<()> {
        let Figures { runners, sweep, jobs, plan, base, grown, worked, decisions } = figures;
        let each = grown / f64::from(self.runners);
        let mb = |bytes: f64| cell(format!("{:.1}", bytes / 1e6));
        self.json.show(
            &["RUNNERS", "SWEEP MS", "JOBS MS", "PLAN MS", "MEMORY MB", "EACH KIB", "DECISION MS"],
            &[vec![
                cell(runners),
                cell(format!("{sweep:.0}")),
                cell(format!("{jobs:.0}")),
                cell(format!("{plan:.1}")),
                mb(*grown),
                cell(format!("{:.2}", each / 1024.0)),
                cell(format!("{:.0}", decisions.p99)),
            ]],
            &serde_json::json!({
                "runners": runners,
                "sweep_ms": rounded(*sweep, 1),
                "jobs_sweep_ms": rounded(*jobs, 1),
                "plan_ms": rounded(*plan, 2),
                "base_bytes": base,
                "grown_bytes": grown,
                "worked_bytes": worked,
                "bytes_each": rounded(each, 0),
                "events_per_s": self.events,
                "decisions": decisions.count,
                "decision_p50_ms_max": decisions.p50,
                "decision_p99_ms_max": decisions.p99,
            }),
        )
    }
}

/// The listings of registrations and instances.
fn supply(controller: &Controller) -> Vec<Subject> {
    let fleet = &controller.world().fleet;
    let scopes = fleet.forges.values().flat_map(|forge| {
        forge.scopes.iter().map(|scope| Subject::Runners(forge.name.clone(), scope.clone()))
    });
    scopes.chain(fleet.providers.keys().cloned().map(Subject::Instances)).collect()
}

/// The listings of open jobs.
fn demand(controller: &Controller) -> Vec<Subject> {
    let forges = controller.world().fleet.forges.values();
    let scopes = forges.flat_map(|forge| {
        forge.scopes.iter().map(|scope| Subject::Jobs(forge.name.clone(), scope.clone()))
    });
    scopes.collect()
}

/// Has all of them listed, and gives how long it took until that was planned for and committed, in
/// milliseconds.
async fn sweep(control: &Control, of: fn(&Controller) -> Vec<Subject>) -> anyhow::Result<f64> {
    let handle = control.handle();
    let subjects = handle.ask(of).await?;
    // A listing that is under way has begun too early to count.
    let idle = |subjects: Vec<Subject>, since: Timestamp| {
        move |controller: &Controller| {
            let world = controller.world();
            subjects.iter().all(|subject| world.looked(subject).asked_at >= Some(since))
        }
    };
    let since = control.now();
    let begun = Instant::now();
    for subject in &subjects {
        handle.see(Seen::Hint(subject.clone())).await?;
    }
    while !handle.ask(idle(subjects.clone(), since)).await? {
        if begun.elapsed() > SWEEP_MAX {
            bail!("a sweep did not end within {} s", SWEEP_MAX.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// How long one plan takes, in milliseconds.
fn one_plan(controller: &Controller) -> f64 {
    let begun = Instant::now();
    std::hint::black_box(plan(controller.world()));
    begun.elapsed().as_secs_f64() * 1e3
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

impl Decisions {
    /// Those counted between two readings of the histogram: its bounds in seconds, each with how many
    /// were at or below it.
    fn between(before: &[(f64, u64)], after: &[(f64, u64)]) -> anyhow::Result<Self> {
        let counted: Vec<(f64, u64)> = after
            .iter()
            .zip(before)
            .map(|((bound, after), (_, before))| (bound * 1e3, after - before))
            .collect();
        let count = counted.last().map_or(0, |(_, count)| *count);
        let bound = |hundredths: u64| {
            let enough = |(_, below): &&(f64, u64)| below * 100 >= count * hundredths;
            counted.iter().find(enough).map(|(bound, _)| *bound)
        };
        let (Some(p50), Some(p99)) = (bound(50), bound(99)) else { bail!("nothing was decided") };
        if count == 0 {
            bail!("nothing was decided");
        }
        Ok(Self { count, p50, p99 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_bound_that_so_many_are_below() {
        let before = [(0.01, 5), (0.1, 5), (f64::INFINITY, 6)];
        let after = [(0.01, 55), (0.1, 104), (f64::INFINITY, 106)];
        let decisions = Decisions::between(&before, &after).unwrap();
        assert_eq!((decisions.count, decisions.p50, decisions.p99), (100, 10.0, 100.0));
        assert!(Decisions::between(&before, &before).is_err());
    }
}
