//! `remuda bench intake`: durable accepts per second, over real HTTP from a second process.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use remuda_sandbox::{AppId, Faults, OwnerConfig, OwnerKind};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::super::stage::backdrop::{Backdrop, SECRET};
use super::super::stage::{Scene, Scenery, Stage, ended_by_user};
use super::super::table::cell;
use super::load::{self, Outcome};
use super::{Json, rounded};
use crate::exit::Exit;

const OWNER: &str = "acme";
const REPOSITORY: &str = "app";
/// Asks for a label that no pool has: jobs are decoded, planned for and told why they wait, and no
/// runner takes the machine's time.
const WORKFLOW: &str = "jobs: {job: {runs-on: [bench, nowhere], steps: [{run: 'true'}]}}";
/// As large as GitHub's own deliveries of an organization are.
const BODY_BYTES: usize = 12 * 1024;
/// How long the control loop may take to catch up afterwards.
const CATCH_UP_MAX: Duration = Duration::from_mins(2);

/// Signed deliveries that are durably accepted per second
///
/// A second process sends `workflow_job` deliveries of about 12 KB over kept connections to the real
/// intake of a whole server: each is verified and stored, with the disk's flush, before it is
/// answered. The control loop decodes and plans all the while. Latencies are the sender's.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  remuda bench intake --seconds 5 --json")]
pub(super) struct Intake {
    /// How long to measure
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// How long to go on before that
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Connections, each with one delivery under way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Where the URL of an empty `PostgreSQL` database is, such as `env:NAME`, to measure it and not `SQLite`
    #[arg(long, value_name = "REFERENCE")]
    database: Option<String>,
    #[command(flatten)]
    json: Json,
}

impl Intake {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let mut end = pin!(ended_by_user());
        let mut stage = Stage::start(scenery(self.database.as_ref())).await?;
        let directory = stage.directory().to_owned();
        let played = stage.play(end.as_mut(), async |scene| self.measure(scene, &directory).await);
        let played = played.await;
        stage.strike().await?;
        let Some((outcome, behind)) = played? else { return Ok(Exit::Interrupted) };
        let per_second = rounded(outcome_per_second(&outcome), 1);
        self.json.show(
            &["ACCEPTED/S", "P50 MS", "P99 MS", "MAX MS", "REFUSED", "LOOP BEHIND BY"],
            &[vec![
                cell(format!("{per_second:.0}")),
                cell(format!("{:.2}", outcome.p50_ms)),
                cell(format!("{:.2}", outcome.p99_ms)),
                cell(format!("{:.2}", outcome.max_ms)),
                cell(outcome.refused),
                cell(format!("{:.1} s", behind.as_secs_f64())),
            ]],
            &json!({
                "accepted_per_s": per_second,
                "p50_ms": rounded(outcome.p50_ms, 3),
                "p99_ms": rounded(outcome.p99_ms, 3),
                "max_ms": rounded(outcome.max_ms, 3),
                "refused": outcome.refused,
                "seconds": outcome.seconds,
                "connections": self.connections,
                "body_bytes": BODY_BYTES,
                "loop_behind_s": rounded(behind.as_secs_f64(), 2),
            }),
        )?;
        Ok(if outcome.refused == 0 { Exit::Done } else { Exit::Failed })
    }

    /// What the sender saw, and how long the control loop took afterwards to decode all of it.
    async fn measure(
        &self,
        scene: &Scene,
        directory: &Path,
    ) -> anyhow::Result<(Outcome, Duration)> {
        let templates = templates(scene, directory).await?;
        let child = tokio::process::Command::new(std::env::current_exe()?)
            .args(["bench", load::VERB])
            .args(["--address", &scene.addr.to_string()])
            .arg("--secret-file")
            .arg(directory.join(SECRET))
            .arg("--template")
            .args(templates)
            .args(["--connections", &self.connections.to_string()])
            .args(["--warm-up", &self.warm_up.to_string()])
            .args(["--seconds", &self.seconds.to_string()])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the sender")?;
        let output = child.wait_with_output().await.context("the sender broke off")?;
        let ended = Instant::now();
        if !output.status.success() {
            bail!("the sender failed: {}", output.status);
        }
        let outcome: Outcome =
            serde_json::from_slice(&output.stdout).context("the sender's result is not legible")?;
        caught_up(scene, outcome.sent / 3).await?;
        Ok((outcome, ended.elapsed()))
    }
}

fn outcome_per_second(outcome: &Outcome) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a count of deliveries is far below 2^52")]
    let accepted = outcome.accepted as f64;
    accepted / outcome.seconds
}

fn scenery(database: Option<&String>) -> Scenery {
    Scenery {
        backdrop: Backdrop {
            scopes: vec![format!("org:{OWNER}")],
            pools: vec![vec!["bench".into()]],
            pool_max: 4,
            provider_max: 4,
            tenant_cap: 4,
            min_idle: 0,
            // The sandbox knows nothing of the jobs that are sent, and must not be asked.
            poll_seconds: 3600,
            idle_seconds: 60,
            database: database.cloned(),
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

/// Waits until the loop has heard of so many jobs.
async fn caught_up(scene: &Scene, jobs: u64) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let known = scene.handle.ask(|controller| controller.world().jobs().count() as u64).await?;
        if known >= jobs {
            return Ok(());
        }
        if begun.elapsed() > CATCH_UP_MAX {
            bail!("the loop has heard of {known} of {jobs} jobs and does not catch up");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Files with a body for each step of a job, made from a delivery of the sandbox's own.
async fn templates(scene: &Scene, directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    scene.sandbox.submit(OWNER, REPOSITORY, WORKFLOW, 1)?;
    let answered = scene.sandbox.wait_until(|statistics| statistics.deliveries.pending == 0);
    answered.await;
    let job = |delivery: &&remuda_sandbox::DeliveryReport| delivery.event == "workflow_job";
    let deliveries = scene.sandbox.deliveries(100);
    let delivery = deliveries.iter().find(job).context("the sandbox sent no delivery")?;
    let token = scene.sandbox.app_token(AppId(1)).context("the sandbox signs no token")?;
    let url = format!("{}/app/hook/deliveries/{}", scene.sandbox.url(), delivery.id);
    let recorded: Value = reqwest::Client::new()
        .get(url)
        .bearer_auth(token.expose_secret())
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    let body = &recorded["request"]["payload"];
    let bodies = [queued(body)?, begun(body)?, completed(body)?];
    let mut files = Vec::new();
    for (name, body) in ["queued", "in_progress", "completed"].iter().zip(bodies) {
        let file = directory.join(format!("{name}.json"));
        std::fs::write(&file, body.to_string()).context("cannot write a template")?;
        files.push(file);
    }
    Ok(files)
}

/// The delivery about the job that the sender's numbers stand for, filled up with steps to the size of
/// GitHub's own.
fn queued(recorded: &Value) -> anyhow::Result<Value> {
    let id = recorded["workflow_job"]["id"].as_u64().context("the delivery names no job")?;
    let text = recorded.to_string().replace(&id.to_string(), load::NUMBER);
    let mut body: Value = serde_json::from_str(&text)?;
    let steps = body["workflow_job"]["steps"].as_array_mut().context("the job lists no steps")?;
    let step = json!({
        "name": "Run actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8",
        "status": "queued", "conclusion": null, "number": 1,
        "started_at": null, "completed_at": null,
    });
    let missing = BODY_BYTES.saturating_sub(text.len()) / step.to_string().len();
    steps.extend(std::iter::repeat_n(step, missing));
    Ok(body)
}

fn begun(recorded: &Value) -> anyhow::Result<Value> {
    let mut body = queued(recorded)?;
    body["action"] = "in_progress".into();
    let job = &mut body["workflow_job"];
    job["status"] = "in_progress".into();
    job["runner_id"] = 4711.into();
    job["runner_name"] = "somebody-elses-runner".into();
    job["runner_group_id"] = 1.into();
    job["runner_group_name"] = "Default".into();
    Ok(body)
}

fn completed(recorded: &Value) -> anyhow::Result<Value> {
    let mut body = begun(recorded)?;
    body["action"] = "completed".into();
    let job = &mut body["workflow_job"];
    job["status"] = "completed".into();
    job["conclusion"] = "success".into();
    job["completed_at"] = job["started_at"].clone();
    Ok(body)
}
