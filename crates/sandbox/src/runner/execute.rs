//! A job's steps, one after the other.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::client::{Client, Gone};
use super::process::{Processes, Running};
use super::{Ending, files};
use crate::id::JobId;
use crate::wire::{Message, Order, Settings, StepReport};
use crate::workflow::{Shell, Standing, Step, expression};
use crate::world::Conclusion;

/// Lines waiting to be sent; a step that writes faster waits.
const LINES_WAITING: usize = 1024;
/// Most bytes of one piece of the log.
const PIECE_BYTES: usize = 256 * 1024;
/// A job's limit without `timeout-minutes`: GitHub's six hours.
const JOB_MINUTES: f64 = 360.0;
/// Variables with this prefix hold the runner's secrets and are not handed on.
const INPUTS: &str = "ACTIONS_RUNNER_INPUT_";

/// What the job is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    Go,
    Cancel,
    /// The server does not know us any more; nothing we do counts.
    Lost,
}

/// A job about to run: its directories and what its steps know.
pub(super) struct Execution {
    client: Client,
    order: Order,
    name: String,
    workspace: PathBuf,
    temp: PathBuf,
    /// From the workflow, the job and `GITHUB_ENV`.
    env: BTreeMap<String, String>,
    path: Vec<String>,
    outputs: BTreeMap<(String, String), String>,
}

impl Execution {
    /// Makes a fresh workspace under `work`.
    pub(super) fn prepare(
        client: Client,
        order: Order,
        settings: &Settings,
        work: &Path,
    ) -> Result<Self, (PathBuf, io::Error)> {
        let repository = order.github.get("repository").map_or("", String::as_str);
        let repository = repository.rsplit('/').next().unwrap_or_default();
        let root = work.join(&settings.work_folder);
        let workspace = root.join(repository).join(repository);
        let temp = root.join("_temp");
        for directory in [&workspace, &temp] {
            fresh(directory).map_err(|error| (directory.clone(), error))?;
        }
        // Steps may change directory, so the paths they are given must not depend on it.
        let absolute = |path: &Path| path.canonicalize().map_err(|error| (path.into(), error));
        Ok(Self {
            client,
            name: settings.agent_name.clone(),
            workspace: absolute(&workspace)?,
            temp: absolute(&temp)?,
            env: BTreeMap::new(),
            path: Vec::new(),
            outputs: BTreeMap::new(),
            order,
        })
    }

    /// Runs the steps and reports how the job ended; `stop` cancels it.
    pub(super) async fn run(
        mut self,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Conclusion, Ending> {
        let job = self.order.job;
        let (control, mut told) = watch::channel(Control::Go);
        let (log, lines) = mpsc::channel(LINES_WAITING);
        let mut helpers = JoinSet::new();
        helpers.spawn(listen(self.client.clone(), control.clone()));
        let mut uploads = JoinSet::new();
        uploads.spawn(upload(self.client.clone(), job, lines));
        let mut processes = Processes::default();
        let conclusion = {
            let steps = self.steps(&mut processes, &log, &mut told);
            tokio::pin!(steps);
            tokio::select! {
                conclusion = &mut steps => conclusion,
                () = stop => {
                    control.send_replace(Control::Cancel);
                    steps.await
                }
            }
        };
        processes.end().await;
        drop(log);
        // The end of the log is part of the job, so it goes before the completion.
        uploads.join_next().await;
        helpers.shutdown().await;
        if *told.borrow() == Control::Lost {
            return Err(Ending::NotFound);
        }
        self.client.complete(job, conclusion).await?;
        Ok(conclusion)
    }

    async fn steps(
        &mut self,
        processes: &mut Processes,
        log: &mpsc::Sender<String>,
        told: &mut watch::Receiver<Control>,
    ) -> Conclusion {
        for env in std::mem::take(&mut self.order.recipe.env) {
            let expanded = self.expand_all(&env, &BTreeMap::new());
            self.env.extend(expanded);
        }
        let limit = self.order.recipe.timeout_minutes.unwrap_or(JOB_MINUTES);
        let deadline = Instant::now() + minutes(limit);
        let mut standing = Standing::Good;
        for (place, step) in std::mem::take(&mut self.order.recipe.steps).iter().enumerate() {
            if *told.borrow() != Control::Go {
                standing = Standing::Cancelled;
            }
            let env = self.expand_all(&step.env, &BTreeMap::new());
            let name = self.expand(&step.name, &env);
            if !step.condition.holds(standing) {
                self.report(place, &name, Some(Conclusion::Skipped)).await;
                continue;
            }
            self.report(place, &name, None).await;
            // A step that runs although the job is cancelled is not cancelled again.
            let heed = standing != Standing::Cancelled;
            let ended = self.step(step, &name, &env, processes, log, told, deadline, heed).await;
            self.report(place, &name, Some(ended)).await;
            match ended {
                Conclusion::Failure if step.continue_on_error => {}
                Conclusion::Failure if standing == Standing::Good => standing = Standing::Failed,
                Conclusion::Cancelled => standing = Standing::Cancelled,
                Conclusion::Success | Conclusion::Failure | Conclusion::Skipped => {}
            }
            if *told.borrow() == Control::Lost {
                break;
            }
        }
        match standing {
            Standing::Good | Standing::Skipped => Conclusion::Success,
            Standing::Failed => Conclusion::Failure,
            Standing::Cancelled => Conclusion::Cancelled,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a step is all that it is run with")]
    async fn step(
        &mut self,
        step: &Step,
        name: &str,
        env: &BTreeMap<String, String>,
        processes: &mut Processes,
        log: &mpsc::Sender<String>,
        told: &mut watch::Receiver<Control>,
        job_deadline: Instant,
        heed: bool,
    ) -> Conclusion {
        write(log, format!("##[group]{name}")).await;
        let spoken = match self.spoken_files() {
            Ok(spoken) => spoken,
            Err(error) => {
                write(log, format!("##[error]cannot prepare the step's files: {error}")).await;
                return Conclusion::Failure;
            }
        };
        let command = match self.command(step, env, &spoken) {
            Ok(command) => command,
            Err(error) => {
                write(log, format!("##[error]cannot write the step's script: {error}")).await;
                return Conclusion::Failure;
            }
        };
        let mut running = match processes.spawn(command, log.clone()) {
            Ok(running) => running,
            Err(error) => {
                write(log, format!("##[error]cannot start the step's shell: {error}")).await;
                return Conclusion::Failure;
            }
        };
        write(log, "##[endgroup]".into()).await;
        let own = step.timeout_minutes.map(|limit| Instant::now() + minutes(limit));
        let ended = watched(&mut running, own, job_deadline, told, heed, log).await;
        if let Err(problem) = self.hear(step, &spoken) {
            write(log, format!("##[error]{problem}")).await;
            return ended.max(Conclusion::Failure);
        }
        ended
    }

    /// The empty files a step may write to for those after it.
    fn spoken_files(&self) -> io::Result<BTreeMap<&'static str, PathBuf>> {
        let names = ["GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STEP_SUMMARY"];
        names
            .into_iter()
            .map(|name| {
                let path = self.temp.join(name.to_lowercase());
                std::fs::write(&path, "").map(|()| (name, path))
            })
            .collect()
    }

    /// Takes over what the step wrote for later ones.
    fn hear(&mut self, step: &Step, spoken: &BTreeMap<&str, PathBuf>) -> Result<(), String> {
        let read = |name: &str| match spoken.get(name).map(std::fs::read_to_string) {
            Some(Ok(text)) => Ok(text),
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("{name} cannot be read: {error}"))
            }
            Some(Err(_)) | None => Ok(String::new()),
        };
        let pairs = |name: &str| {
            files::pairs(&read(name)?).map_err(|problem| format!("in {name}: {problem}"))
        };
        self.env.extend(pairs("GITHUB_ENV")?);
        for directory in read("GITHUB_PATH")?.lines().filter(|line| !line.is_empty()) {
            self.path.insert(0, directory.into());
        }
        let outputs = pairs("GITHUB_OUTPUT")?;
        if let Some(id) = &step.id {
            let named = outputs.into_iter().map(|(name, value)| ((id.clone(), name), value));
            self.outputs.extend(named);
        }
        Ok(())
    }

    fn command(
        &self,
        step: &Step,
        env: &BTreeMap<String, String>,
        spoken: &BTreeMap<&str, PathBuf>,
    ) -> io::Result<Command> {
        let script = self.temp.join("step.sh");
        std::fs::write(&script, self.expand(&step.run, env))?;
        let (program, arguments): (_, &[&str]) = match step.shell {
            Shell::Default => ("bash", &["-e"]),
            Shell::Bash => ("bash", &["--noprofile", "--norc", "-eo", "pipefail"]),
            Shell::Sh => ("sh", &["-e"]),
        };
        let mut command = Command::new(program);
        command.args(arguments).arg(&script);
        let directory = step.working_directory.as_ref().map(|place| self.expand(place, env));
        command.current_dir(directory.map_or(self.workspace.clone(), |it| self.workspace.join(it)));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with(INPUTS) {
                command.env_remove(name);
            }
        }
        command.envs(self.standard());
        command.envs(spoken);
        command.envs(&self.env).envs(env);
        if !self.path.is_empty() {
            let inherited = std::env::var_os("PATH").unwrap_or_default();
            let mut path = OsString::from(self.path.join(":"));
            path.push(":");
            path.push(inherited);
            command.env("PATH", path);
        }
        Ok(command)
    }

    /// The variables that GitHub sets for every step.
    fn standard(&self) -> Vec<(String, OsString)> {
        let text = |name: &str, value: &str| (name.to_string(), OsString::from(value));
        let mut all: Vec<_> = self
            .order
            .github
            .iter()
            .map(|(key, value)| text(&format!("GITHUB_{}", key.to_uppercase()), value))
            .collect();
        all.extend([
            text("CI", "true"),
            text("GITHUB_ACTIONS", "true"),
            ("GITHUB_WORKSPACE".into(), self.workspace.clone().into()),
            ("RUNNER_TEMP".into(), self.temp.clone().into()),
            text("RUNNER_NAME", &self.name),
            text("RUNNER_OS", runner_os()),
            text("RUNNER_ARCH", runner_arch()),
            text("RUNNER_ENVIRONMENT", "self-hosted"),
        ]);
        all
    }

    fn expand(&self, text: &str, env: &BTreeMap<String, String>) -> String {
        expression::expand(text, |name| {
            let (context, key) = name.split_once('.')?;
            match context {
                "matrix" => self.order.matrix.get(key).cloned(),
                "github" => self.order.github.get(key).cloned(),
                "env" => env.get(key).or_else(|| self.env.get(key)).cloned(),
                "runner" => match key {
                    "os" => Some(runner_os().into()),
                    "arch" => Some(runner_arch().into()),
                    "name" => Some(self.name.clone()),
                    "temp" => Some(self.temp.display().to_string()),
                    _ => None,
                },
                "steps" => {
                    let (id, output) = key.split_once(".outputs.")?;
                    self.outputs.get(&(id.to_string(), output.to_string())).cloned()
                }
                _ => None,
            }
        })
    }

    fn expand_all(
        &self,
        env: &BTreeMap<String, String>,
        within: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        env.iter().map(|(name, value)| (name.clone(), self.expand(value, within))).collect()
    }

    async fn report(&self, step: usize, name: &str, conclusion: Option<Conclusion>) {
        let report = StepReport { step, name: name.into(), conclusion };
        if let Err(Gone::Unreachable(why)) = self.client.step(self.order.job, &report).await {
            tracing::warn!("cannot report on a step: {why}");
        }
    }
}

/// Waits for a step's end, and ends it when its time is up or the job is cancelled or lost.
async fn watched(
    running: &mut Running,
    step_deadline: Option<Instant>,
    job_deadline: Instant,
    told: &mut watch::Receiver<Control>,
    heed: bool,
    log: &mpsc::Sender<String>,
) -> Conclusion {
    let own = async {
        match step_deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    let heeded = |control: &Control| match control {
        Control::Go => false,
        Control::Cancel => heed,
        Control::Lost => true,
    };
    let control = async {
        // The sender outlives every step; without it there is nothing left to hear.
        let heard = told.wait_for(heeded).await.map(|control| *control);
        match heard {
            Ok(control) => control,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        status = running.wait() => match status {
            Ok(status) if status.success() => Conclusion::Success,
            Ok(status) => {
                let how = match status.code() {
                    Some(code) => format!("Process completed with exit code {code}."),
                    None => format!("Process ended: {status}."),
                };
                write(log, format!("##[error]{how}")).await;
                Conclusion::Failure
            }
            Err(error) => {
                write(log, format!("##[error]cannot wait for the step: {error}")).await;
                Conclusion::Failure
            }
        },
        () = own => {
            running.stop().await;
            write(log, "##[error]The action has timed out.".into()).await;
            Conclusion::Failure
        }
        () = tokio::time::sleep_until(job_deadline) => {
            running.stop().await;
            write(log, "##[error]The job has exceeded its maximum execution time.".into()).await;
            Conclusion::Cancelled
        }
        control = control => {
            if control == Control::Lost {
                running.kill().await;
            } else {
                running.stop().await;
                write(log, "##[error]The operation was canceled.".into()).await;
            }
            Conclusion::Cancelled
        }
    }
}

/// Hears what the server says while the job runs; the open poll is also our heartbeat.
async fn listen(client: Client, control: watch::Sender<Control>) {
    loop {
        match client.poll().await {
            Ok(Some(Message::Cancel { .. })) => {
                control.send_replace(Control::Cancel);
                // It would be told again at once.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(Gone::Unknown) => {
                control.send_replace(Control::Lost);
                return;
            }
            // Unreachable or not, the job goes on; its completion will be tried.
            Ok(Some(Message::Job { .. }) | None) | Err(Gone::Unreachable(_)) => {}
        }
    }
}

/// Sends the log in pieces, each as large as what came while the one before was on its way.
async fn upload(client: Client, job: JobId, mut lines: mpsc::Receiver<String>) {
    let mut batch = Vec::new();
    while lines.recv_many(&mut batch, LINES_WAITING).await > 0 {
        let mut piece = String::new();
        for line in batch.drain(..) {
            piece.push_str(&line);
            piece.push('\n');
            if piece.len() >= PIECE_BYTES {
                send_piece(&client, job, std::mem::take(&mut piece)).await;
            }
        }
        if !piece.is_empty() {
            send_piece(&client, job, piece).await;
        }
    }
}

async fn send_piece(client: &Client, job: JobId, piece: String) {
    // A lost job's log is lost too; an unreachable server's is worth no job.
    if let Err(Gone::Unreachable(why)) = client.log(job, piece).await {
        tracing::warn!("cannot send a piece of the log: {why}");
    }
}

async fn write(log: &mpsc::Sender<String>, line: String) {
    // The receiver lives until the job has ended.
    let _ = log.send(line).await;
}

fn minutes(minutes: f64) -> Duration {
    Duration::try_from_secs_f64(minutes * 60.0).unwrap_or(Duration::from_hours(120))
}

fn fresh(directory: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => std::fs::create_dir_all(directory),
    }
}

/// The system, in GitHub's words.
fn runner_os() -> &'static str {
    match std::env::consts::OS {
        "linux" => "Linux",
        "macos" => "macOS",
        "windows" => "Windows",
        other => other,
    }
}

/// The processor, in GitHub's words.
fn runner_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "X64",
        "x86" => "X86",
        "aarch64" => "ARM64",
        "arm" => "ARM",
        other => other,
    }
}
