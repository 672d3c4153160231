//! `remuda sandbox`: a GitHub of one's own, and the runner program that goes with it.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use remuda_sandbox::{AppConfig, Config, OwnerConfig, OwnerKind};
use tracing_subscriber::filter::LevelFilter;

use super::{asked_to_end, log, runtime, say};
use crate::env;
use crate::exit::Exit;

/// How long a sandbox may take to read a workflow.
const SUBMIT_MAX: std::time::Duration = std::time::Duration::from_secs(30);

/// Run a GitHub that fits in a test
///
/// Serves GitHub's REST API at / and /api/v3, sends signed webhooks, and hands jobs to runners. Its own
/// API under /_sandbox makes accounts, submits workflows and sets faults.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  remuda sandbox --listen 127.0.0.1:4000 --org acme/app\n  \
                  remuda sandbox key\n  remuda sandbox submit acme/app examples/hello.yml"
)]
pub(super) struct Sandbox {
    #[command(subcommand)]
    verb: Option<SandboxVerb>,
    /// Where to serve; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4000")]
    listen: SocketAddr,
    /// An organization with a repository, as ORG/REPOSITORY; may be repeated
    #[arg(long = "org", value_name = "ORG/REPO")]
    organizations: Vec<String>,
    /// A person's repository, as USER/REPOSITORY; may be repeated
    #[arg(long = "user", value_name = "USER/REPO")]
    users: Vec<String>,
    /// The number of the App to make; its key is printed by `remuda sandbox key`
    #[arg(long, default_value_t = 1)]
    app: u64,
    /// Where the App's webhooks go
    #[arg(long, value_name = "URL")]
    webhook_url: Option<String>,
    /// A file with the secret that signs them
    #[arg(long, value_name = "FILE", requires = "webhook_url")]
    webhook_secret_file: Option<std::path::PathBuf>,
    /// Faults, as the JSON object of PUT /_sandbox/faults
    #[arg(long, value_name = "JSON")]
    faults: Option<String>,
    /// What chance is drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Subcommand)]
enum SandboxVerb {
    /// Run one job of the sandbox, told by `ACTIONS_RUNNER_INPUT_JITCONFIG`
    Runner,
    /// Print the private key of the sandbox's Apps, which protects nothing
    #[command(after_help = "Example:\n  remuda sandbox key")]
    Key,
    /// Run a workflow file in a sandbox
    #[command(after_help = "Example:\n  remuda sandbox submit acme/app examples/hello.yml")]
    Submit {
        /// In which repository, as OWNER/REPOSITORY
        #[arg(value_name = "OWNER/REPO")]
        repository: String,
        /// The workflow file
        file: std::path::PathBuf,
        /// How often
        #[arg(long, default_value_t = 1)]
        count: u32,
        /// Where the sandbox is
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4000")]
        at: String,
    },
}

impl Sandbox {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        match self.verb {
            Some(SandboxVerb::Runner) => runner(),
            Some(SandboxVerb::Key) => {
                say(remuda_sandbox::SANDBOX_APP_KEY_PEM.trim_end())?;
                Ok(Exit::Done)
            }
            Some(SandboxVerb::Submit { ref repository, ref file, count, ref at }) => {
                submit(repository, file, count, at)
            }
            None => self.serve(),
        }
    }

    fn config(&self) -> anyhow::Result<Config> {
        let mut app = AppConfig::new(self.app);
        app.webhook_url.clone_from(&self.webhook_url);
        if let Some(file) = &self.webhook_secret_file {
            let secret = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            app.webhook_secret = secret.trim().into();
        }
        let faults = self.faults.as_deref().map(serde_json::from_str).transpose();
        let owners = self
            .organizations
            .iter()
            .map(|text| (text, OwnerKind::Organization))
            .chain(self.users.iter().map(|text| (text, OwnerKind::User)));
        let mut accounts: Vec<OwnerConfig> = Vec::new();
        for (text, kind) in owners {
            let Some((login, repository)) = text.split_once('/') else {
                bail!("{text:?} is not of the form OWNER/REPOSITORY");
            };
            match accounts.iter_mut().find(|known| known.login == login) {
                Some(known) => known.repositories.push(repository.into()),
                None => accounts.push(OwnerConfig {
                    login: login.into(),
                    kind,
                    repositories: vec![repository.into()],
                }),
            }
        }
        Ok(Config {
            listen: self.listen,
            owners: accounts,
            apps: vec![app],
            faults: faults
                .context("--faults is not what PUT /_sandbox/faults takes")?
                .unwrap_or_default(),
            seed: self.seed,
            ..Config::default()
        })
    }

    fn serve(self) -> anyhow::Result<Exit> {
        log(LevelFilter::INFO, false);
        let config = self.config()?;
        runtime()?.block_on(async {
            let sandbox = remuda_sandbox::Sandbox::start(config).await?;
            say(&format!("sandbox GitHub at {}", sandbox.url()))?;
            asked_to_end().await;
            sandbox.close().await;
            Ok(Exit::Done)
        })
    }
}

/// Hands a workflow file to a sandbox.
fn submit(repository: &str, file: &std::path::Path, count: u32, at: &str) -> anyhow::Result<Exit> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the workflow {}", file.display()))?;
    let Some((owner, name)) = repository.split_once('/') else {
        bail!("{repository:?} is not of the form OWNER/REPOSITORY");
    };
    let mut url = reqwest::Url::parse(at).with_context(|| format!("{at:?} is not a URL"))?;
    url.path_segments_mut()
        .map_err(|()| anyhow::anyhow!("{at:?} is not an http URL"))?
        .pop_if_empty()
        .extend(["_sandbox", "repos", owner, name, "workflows"]);
    url.query_pairs_mut().append_pair("count", &count.to_string());
    runtime()?.block_on(async {
        let http = reqwest::Client::builder().timeout(SUBMIT_MAX).build()?;
        let response = http.post(url).body(text).send().await.with_context(|| {
            format!("no sandbox answers at {at}; start one with `remuda sandbox`, or say --at URL")
        })?;
        let accepted = response.status().is_success();
        let answer: serde_json::Value = response.json().await.context("that is no sandbox")?;
        if !accepted {
            let message = answer["message"].as_str().unwrap_or("it was refused");
            bail!("cannot submit {}: {message}", file.display());
        }
        let runs = answer["runs"].as_array().map(Vec::as_slice).unwrap_or_default();
        let jobs = runs.iter().filter_map(|run| run["job_ids"].as_array()).map(Vec::len);
        say(&format!("{} run(s), {} job(s)", runs.len(), jobs.sum::<usize>()))?;
        Ok(Exit::Done)
    })
}

/// The runner program: one job, in the working directory.
fn runner() -> anyhow::Result<Exit> {
    let jit = env::jit_configuration().with_context(|| {
        format!(
            "{} is not set: the runner is told its JIT configuration by it",
            remuda_core::fleet::JitBy::OFFICIAL
        )
    })?;
    let work = std::env::current_dir().context("there is no working directory")?;
    let code = runtime()?.block_on(remuda_sandbox::runner::run(jit, work, std::io::stdout()));
    Ok(if code == 0 { Exit::Done } else { Exit::Failed })
}
