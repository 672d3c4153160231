//! `remuda bench start`: from a queued job to a runner at work.

use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use remuda_core::job::JobKey;
use remuda_core::name::ForgeName;
use remuda_sandbox::{Faults, JobId, JobReport, OwnerConfig, OwnerKind};

use super::super::demo::tally::Percentiles;
use super::super::stage::backdrop::{Backdrop, FORGE};
use super::super::stage::{Leaks, Scene, Scenery, Stage, ended_by_user};
use super::super::table::{Cell, cell};
use super::Json;
use crate::exit::Exit;

const OWNER: &str = "acme";
const REPOSITORY: &str = "app";
const LABEL: &str = "bench";
const WORKFLOW: &str = "jobs: {job: {runs-on: bench, steps: [{run: 'true'}]}}";
/// How long one job may take before the measurement is given up.
const JOB_MAX: Duration = Duration::from_mins(1);
/// How often to look whether the stage is ready for the next job; not part of what is measured.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// From a job queued in the sandbox to its runner told to run
///
/// One job at a time, through webhook, books, registration and the process provider. Without idle
/// runners, the time is from the sandbox's queueing to the end of the launch call, when the runner's
/// process was told to run; with an idle runner kept, to the moment that runner takes the job.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  remuda bench start --json")]
pub(super) struct Start {
    /// Jobs of each kind
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    jobs: u32,
    #[command(flatten)]
    json: Json,
}

/// What one job took, in milliseconds from its queueing.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// To the end of the launch call. None if the runner was there before the job.
    told: Option<i64>,
    /// To the moment a runner had taken it.
    taken: i64,
}

#[derive(Debug)]
struct Measured {
    told: Percentiles,
    taken: Percentiles,
}

fn row(name: &str, times: &Percentiles) -> Vec<Cell> {
    vec![cell(name), cell(times.p50), cell(times.p95), cell(times.max)]
}

impl Start {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let mut end = pin!(ended_by_user());
        let Some(cold) = self.measure(0, end.as_mut()).await? else { return Ok(Exit::Interrupted) };
        let Some(warm) = self.measure(1, end).await? else { return Ok(Exit::Interrupted) };
        self.json.show(
            &["FROM QUEUED TO", "P50 MS", "P95 MS", "MAX MS"],
            &[
                row("runner told to run", &cold.told),
                row("job taken by that runner", &cold.taken),
                row("job taken by an idle runner", &warm.taken),
            ],
            &serde_json::json!({
                "p50_ms": cold.told.p50,
                "p95_ms": cold.told.p95,
                "taken": { "p50_ms": cold.taken.p50, "p95_ms": cold.taken.p95 },
                "min_idle": { "p50_ms": warm.taken.p50, "p95_ms": warm.taken.p95 },
                "jobs": self.jobs,
            }),
        )?;
        Ok(Exit::Done)
    }

    async fn measure(
        &self,
        min_idle: u32,
        end: std::pin::Pin<&mut impl Future<Output = ()>>,
    ) -> anyhow::Result<Option<Measured>> {
        let mut stage = Stage::start(scenery(min_idle)).await?;
        let played = stage
            .play(end, async |scene| {
                let mut all = Vec::new();
                for _ in 0..self.jobs {
                    ready(scene, min_idle).await?;
                    all.push(one(scene, min_idle).await?);
                }
                Ok(all)
            })
            .await;
        stage.strike().await?;
        Ok(played?.map(|all| Measured {
            told: Percentiles::of(all.iter().filter_map(|times| times.told).collect()),
            taken: Percentiles::of(all.iter().map(|times| times.taken).collect()),
        }))
    }
}

fn scenery(min_idle: u32) -> Scenery {
    Scenery {
        backdrop: Backdrop {
            scopes: vec![format!("org:{OWNER}")],
            pools: vec![vec![LABEL.into()]],
            pool_max: 4,
            provider_max: 4,
            tenant_cap: 4,
            min_idle,
            poll_seconds: 60,
            idle_seconds: 60,
            database: None,
        },
        owners: vec![OwnerConfig {
            login: OWNER.into(),
            kind: OwnerKind::Organization,
            repositories: vec![REPOSITORY.into()],
        }],
        faults: Faults::default(),
        seed: 1,
    }
}

/// Waits until the job before has left nothing behind, and the idle runners are there.
async fn ready(scene: &Scene, min_idle: u32) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let is_ready = if min_idle == 0 {
            scene.leaks().await? == Leaks::default()
        } else {
            let runners = scene.sandbox.runners();
            runners.len() == min_idle as usize && runners.iter().all(|one| one.state == "idle")
        };
        if is_ready {
            return Ok(());
        }
        if begun.elapsed() > JOB_MAX {
            bail!("the runners did not come to rest within {} s", JOB_MAX.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Has one job run and reads off what it took.
async fn one(scene: &Scene, min_idle: u32) -> anyhow::Result<Times> {
    let submitted = scene.sandbox.submit(OWNER, REPOSITORY, WORKFLOW, 1)?;
    let id = *submitted
        .first()
        .and_then(|run| run.job_ids.first())
        .context("the workflow came to no job")?;
    let ended = scene.sandbox.wait_until(remuda_sandbox::Statistics::all_done);
    if tokio::time::timeout(JOB_MAX, ended).await.is_err() {
        bail!("the job did not end within {} s", JOB_MAX.as_secs());
    }
    let job = scene.sandbox.job(id).context("the sandbox forgot a job")?;
    let (queued, started) = times(&job).context("the job ended without having started")?;
    let told = if min_idle == 0 { Some(told_at(scene, id).await? - queued) } else { None };
    Ok(Times { told, taken: started - queued })
}

fn times(job: &JobReport) -> Option<(i64, i64)> {
    Some((job.queued_at?, job.started_at?))
}

/// When the launch call of the runner that had the job had ended. Asked for until the books know
/// whose job it was.
async fn told_at(scene: &Scene, job: JobId) -> anyhow::Result<i64> {
    let forge = ForgeName::new(FORGE).context("the forge has a name")?;
    let key = JobKey::rest(&forge, job.0);
    let begun = Instant::now();
    loop {
        let key = key.clone();
        let told = scene.handle.ask(move |controller| {
            let world = controller.world();
            let runner = world.runners().find(|runner| runner.job.as_ref() == Some(&key))?;
            world.instance(runner.instance)?.launch?.answered_at
        });
        if let Some(at) = told.await? {
            return Ok(at.as_millis());
        }
        if begun.elapsed() > JOB_MAX {
            bail!("the books do not say which runner had job {}", job.0);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
