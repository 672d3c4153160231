//! `remuda get`, `describe` and `logs`: what the server knows, as rows.

use std::str::FromStr;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use remuda_core::Timestamp;
use serde::Serialize;

use super::client::{Client, ClientError};
use super::table::{Cell, Page, ago, cell, render, state};
use super::{Output, State, note, put, runtime, say};
use crate::clock::now;
use crate::exit::Exit;
use crate::explanation::Explanation;
use crate::restrict::RestrictionRow;
use crate::view::{JobRow, PoolRow, ProviderRow, RunnerRow};

/// List jobs, runners, pools, providers or restrictions
///
/// Ages count from when the thing entered the state it is in. With standard output not a terminal, a row
/// is one line unless COLUMNS is set.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  remuda get jobs\n  remuda get jobs --all -o json\n  \
                        remuda get runners\n  remuda get pools\n  remuda get restrictions")]
pub(super) struct Get {
    /// What to list
    #[arg(value_enum)]
    what: Noun,
    /// Ended jobs and gone runners too, as long as they are remembered
    #[arg(long)]
    all: bool,
    /// How to write the result
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    state: State,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Noun {
    /// Work that a forge wants done
    #[value(alias = "job")]
    Jobs,
    /// Registrations for one job each
    #[value(alias = "runner")]
    Runners,
    /// Runners by kind, as the fleet file declares them
    #[value(alias = "pool")]
    Pools,
    /// What makes instances
    #[value(alias = "provider")]
    Providers,
    /// What is drained, in quarantine, or waiting after failures
    #[value(alias = "restriction")]
    Restrictions,
}

impl Get {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        runtime()?.block_on(async {
            let client = Client::new(&self.state)?;
            let query: &[_] = if self.all { &[("all", "true")] } else { &[] };
            match self.what {
                Noun::Jobs => {
                    let rows: Vec<JobRow> = client.get(&["v1", "jobs"], query).await?;
                    let none = "no job is open; `--all` shows those that have ended";
                    self.show(&rows, none, &JOBS, job_cells)
                }
                Noun::Runners => {
                    let rows: Vec<RunnerRow> = client.get(&["v1", "runners"], query).await?;
                    let none = "there is no runner; `--all` shows those that are gone";
                    self.show(&rows, none, &RUNNERS, runner_cells)
                }
                Noun::Pools => {
                    let rows: Vec<PoolRow> = client.get(&["v1", "pools"], &[]).await?;
                    self.show(&rows, "no pool is declared", &POOLS, |row, _| pool_cells(row))
                }
                Noun::Providers => {
                    let rows: Vec<ProviderRow> = client.get(&["v1", "providers"], &[]).await?;
                    let cells = |row: &ProviderRow, _| provider_cells(row);
                    self.show(&rows, "no provider is declared", &PROVIDERS, cells)
                }
                Noun::Restrictions => {
                    let rows: Vec<RestrictionRow> =
                        client.get(&["v1", "restrictions"], &[]).await?;
                    self.show(&rows, "nothing is restricted", &RESTRICTIONS, restriction_cells)
                }
            }
        })
    }

    fn show<Row: Serialize>(
        &self,
        rows: &[Row],
        none: &str,
        headers: &[&str],
        cells: impl Fn(&Row, Timestamp) -> Vec<Cell>,
    ) -> anyhow::Result<Exit> {
        match self.output {
            Output::Json => json(&rows)?,
            Output::Table if rows.is_empty() => note(none),
            Output::Table => {
                let now = now();
                let rows: Vec<_> = rows.iter().map(|row| cells(row, now)).collect();
                say(&render(headers, &rows, Page::stdout()))?;
            }
        }
        Ok(Exit::Done)
    }
}

/// Writes rows as the server gives them.
pub(super) fn json(rows: &impl Serialize) -> anyhow::Result<()> {
    say(&serde_json::to_string_pretty(rows)?)
}

const JOBS: [&str; 6] = ["JOB", "STATE", "AGE", "REPOSITORY", "NAME", "RUNNER OR REASON"];

fn job_cells(row: &JobRow, now: Timestamp) -> Vec<Cell> {
    let ended = row.conclusion.as_deref().filter(|_| row.state == "completed");
    let since = match row.state.as_str() {
        "completed" => row.completed_at.as_ref(),
        "in_progress" => row.started_at.as_ref(),
        _ => None,
    };
    let last = match (&row.runner, row.reasons.as_slice()) {
        (Some(runner), _) => runner.clone(),
        (None, []) => String::new(),
        (None, [only]) => only.clone(),
        (None, [first, more @ ..]) => format!("{first} (and {} more)", more.len()),
    };
    vec![
        cell(&row.id),
        state(ended.unwrap_or(&row.state)),
        cell(ago(since.unwrap_or(&row.queued_at), now)),
        cell(&row.repository),
        cell(&row.name),
        cell(last),
    ]
}

const RUNNERS: [&str; 7] = ["RUNNER", "STATE", "AGE", "POOL", "SCOPE", "JOB", "NOTE"];

fn runner_cells(row: &RunnerRow, now: Timestamp) -> Vec<Cell> {
    let held = row.hold.as_ref().map(|hold| format!("held by {hold}"));
    let note: Vec<_> = held.iter().chain(&row.outcome).map(String::as_str).collect();
    vec![
        cell(row.id.to_string()),
        state(&row.state),
        cell(row.since.as_ref().map(|since| ago(since, now)).unwrap_or_default()),
        cell(&row.pool),
        cell(&row.scope),
        cell(row.job.as_deref().unwrap_or_default()),
        cell(note.join("; ")),
    ]
}

const POOLS: [&str; 8] =
    ["POOL", "USED", "STARTING", "IDLE", "BUSY", "PROVIDER", "LABELS", "BACKING OFF"];

fn pool_cells(row: &PoolRow) -> Vec<Cell> {
    vec![
        cell(&row.name),
        cell(format!("{}/{}", row.instances, row.max)),
        cell(row.starting.to_string()),
        cell(row.idle.to_string()),
        cell(row.busy.to_string()),
        cell(&row.provider),
        cell(row.labels.join(", ")),
        cell(row.backoff.as_deref().unwrap_or_default()),
    ]
}

const PROVIDERS: [&str; 3] = ["PROVIDER", "USED", "HOW IT STANDS"];

fn provider_cells(row: &ProviderRow) -> Vec<Cell> {
    let most = row.max.map_or_else(|| "any".to_owned(), |max| max.to_string());
    vec![cell(&row.name), cell(format!("{}/{most}", row.instances)), cell(row.codes.join(", "))]
}

const RESTRICTIONS: [&str; 6] = ["WHAT", "HOW", "AGE", "NEXT TRY", "BECAUSE", "WHO MUST ACT"];

fn restriction_cells(row: &RestrictionRow, now: Timestamp) -> Vec<Cell> {
    vec![
        cell(&row.what),
        state(&row.how),
        cell(ago(&row.since, now)),
        cell(row.until.as_deref().unwrap_or_default()),
        cell(&row.because),
        cell(&row.act),
    ]
}

/// A job as people name it: the forge's number for it, or `FORGE/NUMBER`.
#[derive(Clone, Debug)]
pub(super) struct JobId(pub(super) String);

impl FromStr for JobId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (forge, number) = match text.split_once('/') {
            Some((forge, number)) => (Some(forge), number),
            None => (None, text),
        };
        let named = forge.is_none_or(|forge| remuda_core::name::ForgeName::new(forge).is_ok());
        if named && number.parse::<u64>().is_ok() {
            Ok(Self(text.into()))
        } else {
            Err("a job is named by its number or by FORGE/NUMBER, such as github/812; \
                 `remuda get jobs` lists them"
                .into())
        }
    }
}

impl JobId {
    /// Asks the server about it.
    pub(super) async fn ask(&self, client: &Client) -> Result<Explanation, ClientError> {
        let path: Vec<_> = ["v1", "jobs"].into_iter().chain(self.0.split('/')).collect();
        client.get(&path, &[]).await
    }
}

/// A runner as people name it: our number for it, or the name it is registered under.
#[derive(Clone, Debug)]
pub(super) struct RunnerName(String);

impl From<String> for RunnerName {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl RunnerName {
    /// Its row.
    pub(super) async fn ask(&self, client: &Client) -> Result<RunnerRow, ClientError> {
        if let Ok(number) = self.0.parse::<u64>() {
            return client.get(&["v1", "runners", &number.to_string()], &[]).await;
        }
        let all: Vec<RunnerRow> = client.get(&["v1", "runners"], &[("all", "true")]).await?;
        all.into_iter().find(|row| row.name == self.0).ok_or_else(|| {
            ClientError::NotFound(format!(
                "no runner {:?} is known; `remuda get runners --all` lists those that are",
                self.0
            ))
        })
    }
}

/// Show all that is known of one job, runner or pool
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  remuda describe job github/812\n  \
                        remuda describe runner 42\n  remuda describe pool small -o json")]
pub(super) struct Describe {
    #[command(subcommand)]
    what: One,
}

#[derive(Debug, Args)]
struct How {
    /// How to write the result
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    state: State,
}

#[derive(Debug, Subcommand)]
enum One {
    /// One job; `remuda explain job` tells its story
    #[command(after_help = "Example:\n  remuda describe job github/812")]
    Job {
        /// Its number, or FORGE/NUMBER
        id: JobId,
        #[command(flatten)]
        how: How,
    },
    /// One runner
    #[command(after_help = "Example:\n  remuda describe runner 42")]
    Runner {
        /// Its number, or the name it is registered under
        id: RunnerName,
        #[command(flatten)]
        how: How,
    },
    /// One pool
    #[command(after_help = "Example:\n  remuda describe pool small")]
    Pool {
        /// Its name
        id: String,
        #[command(flatten)]
        how: How,
    },
}

impl Describe {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        runtime()?.block_on(async {
            match self.what {
                One::Job { id, how } => {
                    let job = id.ask(&Client::new(&how.state)?).await?.job;
                    let job = job.context("the server told nothing of the job itself")?;
                    how.show(&job, &job_facts(&job))
                }
                One::Runner { id, how } => {
                    let runner = id.ask(&Client::new(&how.state)?).await?;
                    how.show(&runner, &runner_facts(&runner))
                }
                One::Pool { id, how } => {
                    let pools: Vec<PoolRow> =
                        Client::new(&how.state)?.get(&["v1", "pools"], &[]).await?;
                    let names: Vec<_> = pools.iter().map(|pool| pool.name.clone()).collect();
                    let pool = pools.into_iter().find(|pool| pool.name == id).ok_or_else(|| {
                        let names = names.join(", ");
                        ClientError::NotFound(format!("no pool {id:?} is declared, but {names}"))
                    })?;
                    how.show(&pool, &pool_facts(&pool))
                }
            }
        })
    }
}

/// A name and what is known under it.
type Fact = (&'static str, String);

impl How {
    fn show(&self, row: &impl Serialize, facts: &[Fact]) -> anyhow::Result<Exit> {
        match self.output {
            Output::Json => json(row)?,
            Output::Table => {
                let known = facts.iter().filter(|(_, value)| !value.is_empty());
                let rows: Vec<_> =
                    known.map(|(name, value)| vec![cell(*name), state(value)]).collect();
                say(&render(&[], &rows, Page::stdout()))?;
            }
        }
        Ok(Exit::Done)
    }
}

fn or_nothing(value: Option<&String>) -> String {
    value.cloned().unwrap_or_default()
}

fn job_facts(job: &JobRow) -> Vec<Fact> {
    vec![
        ("job", job.id.clone()),
        ("state", job.state.clone()),
        ("conclusion", or_nothing(job.conclusion.as_ref())),
        ("repository", job.repository.clone()),
        ("workflow", job.workflow.clone()),
        ("name", job.name.clone()),
        ("labels", job.labels.join(", ")),
        ("attempt", job.attempt.to_string()),
        ("runner", or_nothing(job.runner.as_ref())),
        ("queued at", job.queued_at.clone()),
        ("started at", or_nothing(job.started_at.as_ref())),
        ("completed at", or_nothing(job.completed_at.as_ref())),
        ("reasons", job.reasons.join("\n")),
    ]
}

fn runner_facts(runner: &RunnerRow) -> Vec<Fact> {
    vec![
        ("runner", runner.id.to_string()),
        ("name", runner.name.clone()),
        ("state", runner.state.clone()),
        ("since", or_nothing(runner.since.as_ref())),
        ("outcome", or_nothing(runner.outcome.as_ref())),
        ("held by", or_nothing(runner.hold.as_ref())),
        ("pool", runner.pool.clone()),
        ("scope", runner.scope.clone()),
        ("labels", runner.labels.join(", ")),
        ("job", or_nothing(runner.job.as_ref())),
        ("instance", runner.instance.to_string()),
        ("instance state", runner.instance_state.clone()),
        ("provider", runner.provider.clone()),
        ("node", or_nothing(runner.node.as_ref())),
    ]
}

fn pool_facts(pool: &PoolRow) -> Vec<Fact> {
    let scopes =
        if pool.scopes.is_empty() { "any that asks".into() } else { pool.scopes.join(", ") };
    vec![
        ("pool", pool.name.clone()),
        ("labels", pool.labels.join(", ")),
        ("forge", pool.forge.clone()),
        ("scopes", scopes),
        ("provider", pool.provider.clone()),
        ("image", pool.image.clone()),
        ("instances", format!("{} of at most {}", pool.instances, pool.max)),
        ("runners", format!("{} starting, {} idle, {} busy", pool.starting, pool.idle, pool.busy)),
        ("min idle", pool.min_idle.to_string()),
        ("backing off", or_nothing(pool.backoff.as_ref())),
    ]
}

/// Print the last of what a runner's instance has written
///
/// At most 256 KiB, for as long as the instance exists. What a job's steps print is kept by the forge.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  remuda logs 42")]
pub(super) struct Logs {
    /// The runner's number, or the name it is registered under
    runner: RunnerName,
    #[command(flatten)]
    state: State,
}

impl Logs {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        use std::io::IsTerminal;
        runtime()?.block_on(async {
            let client = Client::new(&self.state)?;
            let id = self.runner.ask(&client).await?.id.to_string();
            let bytes = client.bytes(&["v1", "runners", &id, "logs"], &[]).await?;
            if bytes.is_empty() {
                note(&format!("runner {id} has written nothing"));
            }
            if std::io::stdout().is_terminal() {
                // A job must not move the cursor of whoever reads its output.
                put(&anstream::adapter::strip_bytes(&bytes).into_vec())?;
            } else {
                put(&bytes)?;
            }
            Ok(Exit::Done)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_named_by_its_number_with_or_without_its_forge() {
        for good in ["812", "github/812", "ghes-1/18446744073709551615"] {
            assert!(good.parse::<JobId>().is_ok(), "{good}");
        }
        for bad in ["", "x", "github/", "/1", "-1", "a/b/1", "../1", "github/1?all", "G/1", "1/"] {
            assert!(bad.parse::<JobId>().is_err(), "{bad}");
        }
    }
}
