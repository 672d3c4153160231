//! `remuda demo`: real jobs through the whole of Remuda, on this machine alone.

mod burst;
mod progress;
pub(crate) mod tally;

use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use clap::Args;
use remuda_sandbox::{Family, Faults, RestFaults, Statistics, WebhookFaults};
use tracing_subscriber::filter::LevelFilter;

use super::stage::backdrop::Backdrop;
use super::stage::{Leaks, Scene, Scenery, Stage, ended_by_user};
use super::table::Page;
use super::{log, runtime, say};
use crate::exit::Exit;
use burst::Burst;
use progress::{Progress, Waits, tell};
use tally::Tally;

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Jobs are given up if for so long none runs and nothing moves.
const STALL_MAX: Duration = Duration::from_secs(200);
/// How long runners may take to go once all jobs have ended. A registration that nobody explains is
/// removed after two minutes.
const REST_MAX: Duration = Duration::from_secs(200);
/// Runners at once: each is a handful of processes.
const RUNNERS_MAX: u32 = 12;
const POOL_MAX: u32 = 6;
const TENANT_CAP: u32 = 8;

/// Run real jobs on this machine, from webhook to clean-up
///
/// Starts a GitHub sandbox and the control plane on free ports of this machine, with everything they
/// write in a temporary directory, submits a burst of jobs and shows what happens to them. Needs no
/// network, no credentials and no root; the example jobs need a C compiler (cc). In the result,
/// COMPLETED are all jobs that ended, those that FAILED by their own steps (or because their runner
/// died) included; LOST are those that did not end; LEAKED is whatever of a runner is left. The exit
/// code is 0 if nothing was lost or leaked, 130 after Ctrl-C; nothing is left behind either way.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  remuda demo\n  remuda demo --jobs 200 --hardship\n  \
                        remuda demo --workflow .github/workflows/ci.yml --keep")]
pub(super) struct Demo {
    /// How many jobs; of a --workflow at least so many, as a workflow is run whole
    #[arg(long, value_name = "N", default_value_t = 40,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    jobs: u32,
    /// Run this workflow instead of the examples: its `run:` steps, on pools made for its labels
    #[arg(long, value_name = "FILE")]
    workflow: Option<PathBuf>,
    /// Lose, double, delay and reorder webhooks, fail requests, kill runners, put jobs back
    #[arg(long)]
    hardship: bool,
    /// Leave it running afterwards, until Ctrl-C, and say how to reach it
    #[arg(long)]
    keep: bool,
    /// Write the result as one JSON object
    #[arg(long)]
    json: bool,
    /// What chance is drawn from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        log(LevelFilter::ERROR, false);
        runtime()?.block_on(self.play())
    }

    async fn play(self) -> anyhow::Result<Exit> {
        let begun = Instant::now();
        let burst = Burst::of(self.jobs as usize, self.workflow.as_deref()).await?;
        let mut end = pin!(ended_by_user());
        let mut stage = tokio::select! {
            stage = Stage::start(self.scenery(&burst)) => stage?,
            () = &mut end => return Ok(Exit::Interrupted),
        };
        let played = stage
            .play(end.as_mut(), async |scene| {
                let tally = self.perform(scene, &burst, begun).await?;
                self.show(&tally)?;
                Ok(tally.is_clean())
            })
            .await;
        let played = match played {
            Ok(Some(clean)) if self.keep => {
                tell(&how_to_reach(&stage));
                let kept: Option<()> =
                    stage.play(end, async |_| std::future::pending().await).await?;
                debug_assert_eq!(kept, None, "only the user ends it");
                Ok(Some(clean))
            }
            played => played,
        };
        let struck = stage.strike().await;
        let exit = match played? {
            Some(true) => Exit::Done,
            Some(false) => Exit::Failed,
            None => {
                tell("ended before it was over; everything is cleaned up");
                Exit::Interrupted
            }
        };
        struck.map(|()| exit)
    }

    fn scenery(&self, burst: &Burst) -> Scenery {
        Scenery {
            backdrop: Backdrop {
                scopes: burst::scopes(),
                pools: burst.pools.clone(),
                pool_max: POOL_MAX,
                provider_max: RUNNERS_MAX,
                tenant_cap: TENANT_CAP,
                min_idle: 0,
                poll_seconds: if self.hardship { 2 } else { 10 },
                idle_seconds: 2,
                database: None,
            },
            owners: burst::owners(),
            faults: if self.hardship { hardship() } else { Faults::default() },
            seed: self.seed,
        }
    }

    async fn perform(&self, scene: &Scene, burst: &Burst, begun: Instant) -> anyhow::Result<Tally> {
        let mut submitted = Vec::new();
        for run in &burst.runs {
            let runs = scene.sandbox.submit(run.owner, run.repository, &run.workflow, 1)?;
            submitted.extend(runs.into_iter().flat_map(|run| run.job_ids));
        }
        let mut progress = Progress::new(submitted.len());
        all_ended(scene, &mut progress).await?;
        progress.note("every job has ended; waiting for the runners to go");
        let leaks = at_rest(scene).await?;
        progress.clear();
        let jobs: Vec<_> = submitted.iter().filter_map(|id| scene.sandbox.job(*id)).collect();
        let statistics = scene.sandbox.statistics();
        Ok(Tally::of(&jobs, &statistics, leaks, begun.elapsed(), self.hardship))
    }

    fn show(&self, tally: &Tally) -> anyhow::Result<()> {
        if self.json {
            return say(&serde_json::to_string(tally)?);
        }
        let page = Page::stdout();
        say(&tally.text(Page { width: Some(page.width.unwrap_or(80)), ..page }))
    }
}

/// What goes wrong, and how often.
fn hardship() -> Faults {
    let rest = RestFaults {
        forbidden: 0.01,
        too_many: 0.01,
        server_error: 0.04,
        hang: 0.01,
        hang_ms: 2000,
        retry_after_s: 1,
    };
    // One look for open jobs is many requests, and counts only if none of them fails.
    let seldom = RestFaults { server_error: 0.01, ..RestFaults::default() };
    Faults {
        webhooks: WebhookFaults {
            drop: 0.1,
            vanish: 0.1,
            duplicate: 0.15,
            delay: 0.2,
            delay_ms_max: 3000,
            reorder: 0.1,
        },
        rest: [(Family::App, rest), (Family::Runners, rest), (Family::Runs, seldom)].into(),
        busy_lies: 0.1,
        lose_runner: 0.1,
        lose_runner_within_ms: 300,
        requeue_lost: 0.5,
    }
}

/// Waits until every job has ended, or until nothing moves any more.
async fn all_ended(scene: &Scene, progress: &mut Progress) -> anyhow::Result<()> {
    let mut last: Option<(Statistics, Instant)> = None;
    loop {
        let statistics = scene.sandbox.statistics();
        let waits = scene.handle.ask(Waits::read).await?;
        progress.show(&statistics, &waits);
        if statistics.all_done() {
            return Ok(());
        }
        let running = statistics.jobs_in("in_progress") > 0;
        match &last {
            Some((before, since)) if before.jobs == statistics.jobs && !running => {
                if since.elapsed() > STALL_MAX {
                    let why: Vec<_> = waits.top().collect();
                    tell(&format!("nothing moves any more: {}", why.join("; ")));
                    return Ok(());
                }
            }
            Some(_) | None => last = Some((statistics, Instant::now())),
        }
        release_gates(scene);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Jobs that wait for a person's consent to their environment get it.
fn release_gates(scene: &Scene) {
    if scene.sandbox.statistics().jobs_in("waiting") > 0 {
        for job in scene.sandbox.jobs().iter().filter(|job| job.status == "waiting") {
            scene.sandbox.release_job(job.id);
        }
    }
}

/// Waits until nothing of any runner is left, for a while; gives what is.
async fn at_rest(scene: &Scene) -> anyhow::Result<Leaks> {
    let begun = Instant::now();
    loop {
        let leaks = scene.leaks().await?;
        if leaks == Leaks::default() || begun.elapsed() > REST_MAX {
            return Ok(leaks);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn how_to_reach(shown: &Stage) -> String {
    let scene = shown.scene();
    let (sandbox, state) = (scene.sandbox.url(), scene.state.display());
    let program = std::env::current_exe().unwrap_or_else(|_| "remuda".into());
    let program = program.display();
    format!(
        "\nIt goes on running until Ctrl-C.\n\
         \n  sandbox GitHub  {sandbox}\n  control plane   http://{addr}\n  fleet file      {fleet}\n  \
         socket          {socket}\n\
         \nTry, in another terminal:\n  \
         {program} get jobs --all --state {state}\n  \
         {program} get runners --all --state {state}\n  \
         curl http://{addr}/metrics\n  \
         curl --data-binary @WORKFLOW.yml \\\n    {sandbox}/_sandbox/repos/acme/engine/workflows?count=10",
        addr = scene.addr,
        fleet = scene.fleet.display(),
        socket = crate::serve::socket_path(&scene.state).display(),
    )
}
