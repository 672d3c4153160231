//! The sandbox of `remuda bench reconcile`, in a process of its own, with runners that need none.
//!
//! It is told what to do by lines on its standard input and answers each with one on its standard output.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use remuda_sandbox::{AppConfig, Config, OwnerConfig, OwnerKind, Sandbox};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::super::super::say;
use super::super::super::stage::APP;
use crate::exit::Exit;

/// The hidden verb.
pub(in super::super) const VERB: &str = "forge";
pub(super) const OWNERS: usize = 10;
pub(super) const POOLS: usize = 20;
/// Jobs of one run, of each pool: GitHub lists no more than 1000 runs.
const JOBS_PER_RUN: usize = 10;
/// How often the runners come to life and jobs end.
const BEAT: Duration = Duration::from_millis(10);
/// How long it may take until as many runners have jobs as were asked for.
const FILL_MAX: Duration = Duration::from_mins(8);

/// A sandbox whose runners need no processes
#[derive(Debug, Args)]
pub(in super::super) struct Forge {
    #[arg(long)]
    webhook_url: String,
    #[arg(long)]
    secret_file: PathBuf,
}

pub(super) fn owner(number: usize) -> String {
    format!("org-{number}")
}

pub(super) fn label(pool: usize) -> String {
    format!("kind-{pool}")
}

impl Forge {
    pub(in super::super) async fn run(self) -> anyhow::Result<Exit> {
        let secret =
            std::fs::read_to_string(&self.secret_file).context("cannot read the secret")?;
        let mut app = AppConfig::new(APP);
        app.webhook_url = Some(self.webhook_url);
        app.webhook_secret = secret.into();
        let owners = (0..OWNERS).map(|number| OwnerConfig {
            login: owner(number),
            kind: OwnerKind::Organization,
            repositories: vec!["app".into()],
        });
        let config =
            Config { owners: owners.collect(), apps: vec![app], seed: 1, ..Config::default() };
        let sandbox = Sandbox::start(config).await?;
        say(&sandbox.url())?;
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        let mut crowd = Crowd { sandbox, next: 0 };
        while let Some(line) = crowd.next_line(&mut lines).await? {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["fill", runners] => crowd.fill(runners.parse()?).await?,
                ["flow", events, seconds] => crowd.flow(events.parse()?, seconds.parse()?).await?,
                _ => bail!("{line:?} is no order"),
            }
            say("done")?;
        }
        crowd.sandbox.close().await;
        Ok(Exit::Done)
    }
}

struct Crowd {
    sandbox: Sandbox,
    /// Number of the next run.
    next: usize,
}

impl Crowd {
    /// The next order; the runners live on until it comes.
    async fn next_line(
        &self,
        lines: &mut tokio::io::Lines<BufReader<tokio::io::Stdin>>,
    ) -> anyhow::Result<Option<String>> {
        let mut beat = tokio::time::interval(BEAT);
        loop {
            tokio::select! {
                line = lines.next_line() => return line.context("the orders broke off"),
                _ = beat.tick() => self.sandbox.animate_runners(),
            }
        }
    }

    /// Queues a run of so many jobs, of the next pool of the next owner.
    fn submit(&mut self, jobs: usize) -> anyhow::Result<()> {
        let (at, pool) = (self.next % OWNERS, self.next / OWNERS % POOLS);
        self.next += 1;
        let label = label(pool);
        let numbers: Vec<String> = (0..jobs).map(|number| number.to_string()).collect();
        let workflow = format!(
            "jobs: {{job: {{strategy: {{matrix: {{number: [{}]}}}}, runs-on: [{label}], \
             steps: [{{run: 'true'}}]}}}}",
            numbers.join(", ")
        );
        self.sandbox.submit(&owner(at), "app", &workflow, 1)?;
        Ok(())
    }

    /// Queues jobs until so many are at work, and waits for that.
    async fn fill(&mut self, runners: u64) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut left = usize::try_from(runners)?;
        let mut beat = tokio::time::interval(BEAT);
        loop {
            beat.tick().await;
            self.sandbox.animate_runners();
            let jobs = self.sandbox.statistics().jobs;
            let of = |state: &str| jobs.get(state).copied().unwrap_or_default();
            if of("in_progress") >= runners {
                return Ok(());
            }
            // Not all at once: a queue of thousands is what `bench plan` is for.
            while left > 0 && of("queued") < 1_000 {
                let some = left.min(JOBS_PER_RUN);
                self.submit(some)?;
                left -= some;
                if left % 1_000 == 0 {
                    break;
                }
            }
            if begun.elapsed() > FILL_MAX {
                bail!("after {FILL_MAX:?}, jobs are {jobs:?}");
            }
        }
    }

    /// So many webhooks a second for so long: as many jobs end as are queued and begin.
    async fn flow(&mut self, events: f64, seconds: f64) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut beat = tokio::time::interval(BEAT);
        let mut jobs = 0.0;
        while begun.elapsed().as_secs_f64() < seconds {
            beat.tick().await;
            self.sandbox.animate_runners();
            while jobs < begun.elapsed().as_secs_f64() * events / 3.0 {
                jobs += 1.0;
                self.sandbox.finish_jobs(1);
                self.submit(1)?;
            }
        }
        Ok(())
    }
}
